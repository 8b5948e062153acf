//! The guards are there for something: a service that does without one breaks a promise, and the checks of the
//! sweep see it. Each case runs with the guard, too, where nothing may be seen.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use supercargo::failpoints::{Guard, Point};
use tokio::sync::oneshot;

use super::mix::Kind;
use super::rounds::{Arm, Lane, Round};
use crate::support::database::test_database;
use crate::support::engine::SOCKET;
use crate::support::proxy::{Fate, Proxy};
use crate::support::service::{Options, Service};
use crate::support::starts::Starts;
use crate::support::{containers, until, within};

const SOON: Duration = Duration::from_mins(1);

/// Whether it stands still by SIGSTOP.
fn is_paused(service: &Service) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    stat.rsplit(')').next().is_some_and(|it| it.trim_start().starts_with('T'))
}

fn resume(service: &Service) {
    let pid = Pid::from_raw(i32::try_from(service.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
}

/// What the checks say of a kill at a step, with the guard and without.
async fn faults(point: Point, guard: Guard, kinds: &[Kind]) -> [Vec<String>; 2] {
    let starts = Arc::new(Starts::record().await);
    let mut lane = Lane::start(&starts).await;
    let mut all = Vec::new();
    for guards_out in ["", guard.as_str()] {
        let arms = vec![Arm { point, turn: 1, must: true }];
        let report = lane.run(&Round { arms, kinds: kinds.to_vec(), guards_out }).await;
        assert_eq!(report.kills, 1, "{:?}", report.faults);
        all.push(report.faults);
    }
    all.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_in_the_submit_a_request_makes_two_tasks() {
    if !containers::available().await {
        return;
    }
    let kinds = [Kind::Small, Kind::Streams];
    let [with, without] = faults(Point::SubmitCommitted, Guard::KeyInSubmit, &kinds).await;
    assert_eq!(with, [""; 0]);
    let seen = without.iter().any(|it| it.contains("one request made the tasks"));
    assert!(seen, "{without:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_account_before_the_removal_an_end_is_lost_and_it_runs_again() {
    if !containers::available().await {
        return;
    }
    let kinds = [Kind::Outputs, Kind::Streams];
    let [with, without] = faults(Point::CleanupDone, Guard::AccountBeforeRemove, &kinds).await;
    assert_eq!(with, [""; 0]);
    let seen = without.iter().any(|it| it.contains("2 containers were started of it"));
    assert!(seen, "{without:#?}");
}

/// A worker stands still behind the end of the first attempt, and writes that end when the second one runs.
async fn late_record(guards_out: &str) -> Value {
    let starts = Starts::record().await;
    let database = test_database().await.unwrap();
    let set = |name: &str, it: &str| (name.to_owned(), it.to_owned());
    let objects = tempfile::tempdir_in("/var/tmp").unwrap();
    let objects = objects.path().to_str().unwrap();
    let shared = [
        set("SUPERCARGO__WORKER__HEARTBEAT", "500ms"),
        set("SUPERCARGO__WORKER__LEASE", "1500ms"),
        set("SUPERCARGO__OBJECT_STORE__FOLDER", objects),
    ];
    let options = |more: Vec<(String, String)>| Options {
        database_url: Some(database.url.clone()),
        env: shared.iter().cloned().chain(more).collect(),
        ..Options::default()
    };
    let late = Service::start_with(options(vec![
        set("SUPERCARGO_FAILPOINTS", "collected=stop"),
        set("SUPERCARGO_GUARDS_OUT", guards_out),
    ]))
    .await;
    // The second one writes nothing that the late write could come into conflict with.
    let script = "test $SUPERCARGO_ATTEMPT -gt 1 || { echo try 1; exit 75; }; \
         i=0; while [ $i -lt 2000 ] && [ ! -e /tmp/go ]; do usleep 100000; i=$((i+1)); done";
    let id = late
        .submit(json!({"image": "busybox:latest", "command": ["sh", "-c", script],
            "retries": {"max": 3, "backoff": {"initial": "10ms"}}}))
        .await;
    until("the first worker stands still", SOON, async || is_paused(&late).then_some(())).await;
    let other = Service::start_with(options(Vec::new())).await;
    let second = |it: &Value| it["state"] == "running" && it["attempt"] == 2;
    until("the second attempt runs", SOON, async || second(&other.task(&id).await).then_some(()))
        .await;
    resume(&late);
    // It says in its log what became of its write.
    until("the late one has tried", SOON, async || {
        let log = late.log_of(&id);
        (log.contains("let go of the attempt") || log.contains("attempt ended")).then_some(())
    })
    .await;
    if guards_out.is_empty() {
        containers::exec(&id, &["touch", "/tmp/go"]).await;
    } else {
        other.request("POST", &format!("/tasks/{id}/cancel"), None).await;
    }
    let task = other.ended(&id).await;
    if guards_out.is_empty() {
        containers::gone(&id).await;
        assert_eq!(starts.faults(&HashSet::from([id.clone()])), [""; 0]);
    } else {
        // The sweeper's, some time.
        for container in starts.containers(&id).await {
            containers::remove(&container).await;
        }
    }
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_a_late_worker_ends_an_attempt_that_is_not_its_own() {
    if !containers::available().await {
        return;
    }
    let with = late_record("").await;
    assert_eq!((&with["state"], &with["attempt"]), (&json!("succeeded"), &json!(2)), "{with:#}");
    let without = late_record(Guard::Fence.as_str()).await;
    // It ran, and had not exited at all.
    assert_eq!(without["attempts"][1]["exit_code"], 75, "{without:#}");
}

/// A start that lies in the engine's queue when its sender dies, and gets through when the next holder has
/// seen the end of the container, and not written it.
async fn late_start_of_the_dead(guards_out: &str) -> usize {
    let starts = Starts::record_at(SOCKET.as_ref()).await;
    let proxy = Proxy::start(SOCKET);
    let options = Options { docker_host: Some(proxy.host()), ..Options::default() };
    let mut service = Service::start_with(options).await;
    let (arrive, arrived) = oneshot::channel();
    let (go_on, released) = oneshot::channel();
    proxy.next("POST", "/start", Fate::Held(arrive, released));
    let id = service.submit(json!({"image": "busybox:latest", "command": ["echo", "once"]})).await;
    within("the start is on its way", arrived).await.unwrap();
    service.kill9();
    service.begin(vec![
        ("SUPERCARGO_FAILPOINTS".to_owned(), "collected=stop".to_owned()),
        ("SUPERCARGO_GUARDS_OUT".to_owned(), guards_out.to_owned()),
    ]);
    until("the next holder stands still", SOON, async || is_paused(&service).then_some(())).await;
    assert_eq!(starts.of(&id), 1);
    let heard = starts_heard(&proxy);
    go_on.send(()).unwrap();
    until("the engine heard the late start", SOON, async || {
        (starts_heard(&proxy) > heard).then_some(())
    })
    .await;
    if !guards_out.is_empty() {
        until("it runs again", SOON, async || (starts.of(&id) > 1).then_some(())).await;
    }
    resume(&service);
    within("it is up", async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !service.is_ready().await {
            tick.tick().await;
        }
    })
    .await;
    assert_eq!(service.ended(&id).await["state"], "succeeded");
    containers::gone(&id).await;
    starts.of(&id)
}

/// A start that comes to the engine when the container has ended, is accounted for and is kept.
async fn late_start_of_a_kept_one(guards_out: &str) -> usize {
    let starts = Starts::record_at(SOCKET.as_ref()).await;
    let proxy = Proxy::start(SOCKET);
    let options = Options {
        docker_host: Some(proxy.host()),
        env: vec![("SUPERCARGO_GUARDS_OUT".to_owned(), guards_out.to_owned())],
        ..Options::default()
    };
    let service = Service::start_with(options).await;
    let (arrive, arrived) = oneshot::channel();
    let (go_on, released) = oneshot::channel();
    proxy.next("POST", "/start", Fate::Held(arrive, released));
    let id = service
        .submit(json!({"image": "busybox:latest", "command": ["echo", "once"], "cleanup": "never",
            "timeouts": {"start": "1s"}}))
        .await;
    within("the start is on its way", arrived).await.unwrap();
    assert_eq!(service.ended(&id).await["state"], "succeeded");
    if guards_out.is_empty() {
        until("it is put aside", SOON, async || {
            proxy.requests().iter().any(|it| it.contains("-kept")).then_some(())
        })
        .await;
    }
    let heard = starts_heard(&proxy);
    go_on.send(()).unwrap();
    until("the engine heard the late start", SOON, async || {
        (starts_heard(&proxy) > heard).then_some(())
    })
    .await;
    if !guards_out.is_empty() {
        until("it runs again", SOON, async || (starts.of(&id) > 1).then_some(())).await;
    }
    let container = starts.containers(&id).await.remove(0);
    containers::remove(&container).await;
    starts.of(&id)
}

fn starts_heard(proxy: &Proxy) -> usize {
    proxy.requests().iter().filter(|it| it.contains("/start")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rename_of_what_is_adopted_a_late_start_runs_it_again() {
    if !containers::available().await {
        return;
    }
    assert_eq!(late_start_of_the_dead("").await, 1);
    assert_eq!(late_start_of_the_dead(Guard::RenameAdopted.as_str()).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rename_of_what_is_kept_a_late_start_runs_it_again() {
    if !containers::available().await {
        return;
    }
    assert_eq!(late_start_of_a_kept_one("").await, 1);
    assert_eq!(late_start_of_a_kept_one("rename_kept,rename_adopted").await, 2);
}
