//! The engine is away: at the start, or while tasks run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::containers::Starts;
use crate::support::database::empty_database;
use crate::support::engine::OwnEngine;
use crate::support::ledger::{Ledger, Work};
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::service::{Options, Service};
use crate::support::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_down_at_the_start_is_a_condition_and_no_failure() {
    let Some(mut own) = OwnEngine::start().await else { return };
    own.crash().await;
    let service = Service::start_with(Options {
        docker_host: Some(format!("unix://{}", own.socket().display())),
        ..Options::default()
    })
    .await;
    let ready = service.request("GET", "/readyz", None).await;
    assert_eq!(ready.status, 200, "a sick target must not take the API down");
    let id = service.submit(json!({"image": "busybox:latest", "command": ["echo", "hello"]})).await;
    until("the condition shows", PATIENCE, async || {
        let task = service.task(&id).await;
        assert_eq!(task["state"], "queued");
        task["conditions"]
            .as_array()?
            .iter()
            .any(|it| it["type"] == "target_unavailable")
            .then_some(())
    })
    .await;
    own.run().await;
    let task = service.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    assert!(task["conditions"].as_array().is_none_or(Vec::is_empty), "{task:#}");
    assert_eq!(service.log(&id).await, "hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_under_a_task_is_a_platform_failure_that_is_tried_again() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let service = Service::start_with(Options {
        docker_host: Some(format!("unix://{}", own.socket().display())),
        ..Options::default()
    })
    .await;
    // Without live-restore the engine takes its containers with it. The second attempt finds the marker.
    let again = json!({"image": "busybox:latest",
        "command": ["sh", "-c", "echo attempt $SUPERCARGO_ATTEMPT; [ $SUPERCARGO_ATTEMPT -gt 1 ] || sleep 600"]});
    let once =
        json!({"image": "busybox:latest", "command": ["sleep", "600"], "at_most_once": true});
    let (again, once) = (service.submit(again).await, service.submit(once).await);
    for id in [&again, &once] {
        service.until_state(id, "running").await;
    }
    own.crash().await;
    until("the condition shows", PATIENCE, async || {
        let task = service.task(&again).await;
        assert_eq!(task["state"], "running", "{task:#}");
        task["conditions"]
            .as_array()?
            .iter()
            .any(|it| it["type"] == "target_unavailable")
            .then_some(())
    })
    .await;
    own.run().await;
    let task = service.ended(&again).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(2)), "{task:#}");
    assert_eq!(task["attempts"][0]["failure"]["reason"], "node_lost", "{task:#}");
    assert_eq!(task["attempts"][0]["failure"]["class"], "platform", "{task:#}");
    let task = service.ended(&once).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("failed"), &json!(1)), "{task:#}");
    assert_eq!(task["failure"]["reason"], "node_lost", "{task:#}");
}

/// A service on an engine of its own, with containers that run for longer than the trouble, under load.
struct Scene {
    service: Service,
    starts: Starts,
    ledger: Arc<Ledger>,
    load: Load,
    /// The containers that run.
    long: Vec<String>,
    database: crate::support::database::TestDatabase,
}

impl Scene {
    async fn begin(name: &str, own: &OwnEngine, longest: u32) -> Option<Self> {
        let database = empty_database().await?;
        let service = Service::start_with(Options {
            docker_host: Some(format!("unix://{}", own.socket().display())),
            database_url: Some(database.url.clone()),
            ..Options::default()
        })
        .await;
        let starts = Starts::record_at(&own.socket()).await;
        let ledger = Arc::new(Ledger::default());
        let mut long = Vec::new();
        for n in 0..3 {
            let work = Work {
                name: format!("{name}-long-{n}"),
                lines: longest * 10,
                pause_ms: 100,
                at_most_once: n == 0,
                ..Work::default()
            };
            let id = service.submit(work.document()).await;
            ledger.accepted(&id, work);
            service.until_state(&id, "running").await;
            long.push(id);
        }
        let load = Load::start(name, vec![service.api()], &ledger, Duration::from_millis(700));
        Some(Self { service, starts, ledger, load, long, database })
    }

    async fn until_condition(&self) -> Value {
        until_condition(&self.service, &self.long[1]).await
    }

    /// What became of the three that ran all the time.
    async fn end(self) -> Vec<Value> {
        self.load.stop().await;
        let api = self.service.api();
        let verified = self.ledger.verify(&api, Some(&self.database.url), &self.starts).await;
        eprintln!("{verified}");
        let mut long = Vec::new();
        for id in &self.long {
            long.push(self.service.task(id).await);
        }
        long
    }
}

async fn until_condition(service: &Service, id: &str) -> Value {
    until("the condition shows", PATIENCE, async || {
        let task = service.task(id).await;
        let conditions = task["conditions"].as_array()?;
        conditions.iter().find(|it| it["type"] == "target_unavailable").cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_live_restore_containers_outlive_a_crash_of_their_engine() {
    let Some(mut own) = OwnEngine::start_with_live_restore().await else { return };
    let Some(scene) = Scene::begin("kept", &own, 45).await else { return };
    for _ in 0..2 {
        let from = Timestamp::now();
        own.crash().await;
        scene.until_condition().await;
        own.run().await;
        scene.ledger.nobody_read(from, Timestamp::now());
        until("the condition is gone", PATIENCE, async || {
            scene.service.task(&scene.long[1]).await["conditions"].is_null().then_some(())
        })
        .await;
    }
    for task in scene.end().await {
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{task:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_live_restore_a_crash_of_the_engine_under_load_costs_an_attempt_and_no_more() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let Some(scene) = Scene::begin("lost", &own, 45).await else { return };
    own.crash().await;
    scene.until_condition().await;
    own.run().await;
    let long = scene.end().await;
    let told = |it: &Value| (it["state"].clone(), it["attempt"].clone());
    assert_eq!(told(&long[0]), (json!("failed"), json!(1)), "{:#}", long[0]);
    for task in &long[1..] {
        assert_eq!(told(task), (json!("succeeded"), json!(2)), "{task:#}");
        assert_eq!(task["attempts"][0]["failure"]["reason"], "node_lost", "{task:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_a_condition_and_is_waited_for() {
    /// Longer than a call may take.
    const HANGS: Duration = Duration::from_secs(40);
    let Some(own) = OwnEngine::start().await else { return };
    let Some(scene) = Scene::begin("hung", &own, 15).await else { return };
    own.pause();
    let paused = Instant::now();
    let condition = scene.until_condition().await;
    eprintln!("found to hang after {:?}: {condition}", paused.elapsed());
    assert_eq!(scene.service.request("GET", "/readyz", None).await.json()["status"], "degraded");
    until("it has hung for long", PATIENCE, async || (paused.elapsed() > HANGS).then_some(()))
        .await;
    own.go_on();
    for task in scene.end().await {
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{task:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_engine_answers_the_tasks_of_the_first_wait_visibly_and_are_cancelled_later()
{
    let Some(first) = OwnEngine::start().await else { return };
    let Some(second) = OwnEngine::start().await else { return };
    let proxy = Proxy::start(first.socket());
    let service =
        Service::start_with(Options { docker_host: Some(proxy.host()), ..Options::default() })
            .await;
    let task = json!({"image": "busybox:latest", "command": ["sh", "-c", "echo on the first; sleep 600"],
        "timeouts": {"stop_grace": "0s"}});
    let (stays, cancelled) = (service.submit(task.clone()).await, service.submit(task).await);
    for id in [&stays, &cancelled] {
        service.until_state(id, "running").await;
    }
    let ready = service.request("GET", "/readyz", None).await.json();
    let engine = ready["targets"]["local"]["engine"].as_str().unwrap().to_owned();
    assert_eq!(ready["status"], "ok", "{ready:#}");

    proxy.point_at(second.socket());
    let condition = until("the condition names the engine", PATIENCE, async || {
        let condition = until_condition(&service, &stays).await;
        condition["message"].as_str()?.contains(&engine).then_some(condition)
    })
    .await;
    let ready = service.request("GET", "/readyz", None).await.json();
    let local = &ready["targets"]["local"];
    assert_eq!(
        (&ready["status"], &local["ready"]),
        (&json!("degraded"), &json!(true)),
        "{ready:#}"
    );
    assert_eq!(local["unreached"], json!([{"engine": engine, "tasks": 2}]), "{ready:#}");
    let other = local["engine"].as_str().unwrap();
    assert!(condition["message"].as_str().unwrap().contains(other), "{condition}");
    // The other one works, and is not asked about what it does not have.
    let new = service
        .submit(json!({"image": "busybox:latest", "command": ["echo", "on the second"]}))
        .await;
    assert_eq!(service.ended(&new).await["state"], "succeeded");
    let answer = service.request("POST", &format!("/tasks/{cancelled}/cancel"), None).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    until_condition(&service, &cancelled).await;
    let waits = service.task(&cancelled).await;
    assert_eq!((&waits["state"], &waits["stop_requested"]), (&json!("running"), &json!(true)));

    proxy.point_at(first.socket());
    assert_eq!(service.ended(&cancelled).await["state"], "cancelled");
    let stays_on = service.task(&stays).await;
    assert_eq!((&stays_on["state"], &stays_on["attempt"]), (&json!("running"), &json!(1)));
    until("all is well again", PATIENCE, async || {
        let ready = service.request("GET", "/readyz", None).await.json();
        (ready["status"] == "ok").then_some(())
    })
    .await;
    service.request("POST", &format!("/tasks/{stays}/cancel"), None).await;
    assert_eq!(service.ended(&stays).await["state"], "cancelled");
    assert_eq!(service.log(&stays).await, "on the first\n");
}
