//! Postgres goes away while tasks run, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::database::execute;
use crate::support::ledger::{Ledger, Work};
use crate::support::load::{Load, Seen};
use crate::support::postgres::{OwnPostgres, Shutdown};
use crate::support::service::{Options, Service};
use crate::support::{PATIENCE, containers, postmaster, until};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_killed_during_a_run_and_nothing_is_lost() {
    if !containers::available().await {
        return;
    }
    let starts = containers::Starts::record().await;
    let service = Service::start().await;
    let script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); usleep 100000; done";
    let id =
        service.submit(json!({"image": "busybox:latest", "command": ["sh", "-c", script]})).await;
    service.until_state(&id, "running").await;
    let before = postmaster(&service.data_dir().join("data")).expect("its postgres runs");
    rustix::process::kill_process(before, rustix::process::Signal::KILL).unwrap();
    // While it is away a submit is refused in so many words, or succeeds for good; never half.
    let mut accepted = Vec::new();
    until("submits are taken again", Duration::from_mins(1), async || {
        let task = json!({"image": "busybox:latest", "command": ["true"]});
        let answer = service.request("POST", "/tasks", Some(&task)).await;
        match answer.status {
            201 => {
                accepted.push(answer.json()["id"].as_str().unwrap().to_owned());
                (accepted.len() >= 3
                    && postmaster(&service.data_dir().join("data")) != Some(before))
                .then_some(())
            }
            503 => {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                assert_eq!(answer.headers["content-type"], "application/problem+json");
                None
            }
            other => panic!("{other}: {}", answer.text()),
        }
    })
    .await;
    let task = service.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    let log = service.log(&id).await;
    assert_eq!(log.lines().count(), 40, "{log}");
    assert_eq!(starts.of(&id), 1);
    for id in &accepted {
        assert_eq!(service.ended(id).await["state"], "succeeded");
        assert_eq!(starts.of(id), 1);
    }
}

/// Two nodes under load on a Postgres of their own, with containers that run for as long as the trouble.
struct Scene {
    postgres: OwnPostgres,
    _files: TempDir,
    nodes: [Service; 2],
    starts: containers::Starts,
    ledger: Arc<Ledger>,
    load: Load,
}

impl Scene {
    async fn begin(name: &str, longest: Duration) -> Option<Self> {
        if !containers::available().await {
            return None;
        }
        let postgres = OwnPostgres::start()?;
        let starts = containers::Starts::record().await;
        let ledger = Arc::new(Ledger::default());
        let files = tempfile::tempdir().unwrap();
        let folder = files.path().display().to_string();
        let options = |roles: &str| Options {
            env: vec![("SUPERCARGO__OBJECT_STORE__FOLDER".to_owned(), folder.clone())],
            database_url: Some(postgres.url()),
            args: vec!["--roles".to_owned(), roles.to_owned()],
            ..Options::default()
        };
        let nodes = [
            Service::start_with(options("api,scheduler,worker")).await,
            Service::start_with(options("api")).await,
        ];
        for n in 0..3 {
            let lines = u32::try_from(longest.as_millis() / 100).unwrap() / (n + 1);
            let name = format!("{name}-long-{n}");
            let work = Work { name, lines, pause_ms: 100, at_most_once: n == 0, ..Work::default() };
            let id = nodes[0].submit(work.document()).await;
            ledger.accepted(&id, work);
            nodes[0].until_state(&id, "running").await;
        }
        let apis = nodes.iter().map(Service::api).collect();
        let load = Load::start(name, apis, &ledger, Duration::from_millis(900));
        Some(Self { postgres, _files: files, nodes, starts, ledger, load })
    }

    /// Tasks are accepted: again, if they were not.
    async fn until_accepted(&self, more: u64) {
        let before = Seen::of(&self.load.seen().accepted);
        until("tasks are accepted", PATIENCE, async || {
            (Seen::of(&self.load.seen().accepted) >= before + more).then_some(())
        })
        .await;
    }

    /// Some of many submits at once are answered.
    async fn starts_a_burst(&self) {
        let before = Seen::of(&self.load.seen().accepted);
        until("a burst begins", PATIENCE, async || {
            (Seen::of(&self.load.seen().accepted) >= before + 10).then_some(())
        })
        .await;
    }

    /// Nothing is accepted, and it is said so.
    async fn until_refused(&self, more: u64) {
        let before = Seen::of(&self.load.seen().refused);
        until("submits are refused", PATIENCE, async || {
            (Seen::of(&self.load.seen().refused) >= before + more).then_some(())
        })
        .await;
    }

    async fn end(self) -> Arc<Seen> {
        let seen = self.load.stop().await;
        let url = self.postgres.url();
        let verified = self.ledger.verify(&self.nodes[1].api(), Some(&url), &self.starts).await;
        eprintln!("{seen} {verified}");
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted_in_order_and_by_a_crash_under_load() {
    let Some(scene) = Scene::begin("restarted", Duration::from_secs(15)).await else { return };
    for how in [Shutdown::Fast, Shutdown::Immediate, Shutdown::Fast, Shutdown::Immediate] {
        scene.until_accepted(2).await;
        scene.postgres.stop(how);
        scene.postgres.run();
        let began = Instant::now();
        scene.until_accepted(2).await;
        assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backend_is_killed_once_a_second_under_load() {
    let Some(scene) = Scene::begin("cut", Duration::from_secs(30)).await else { return };
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
         where application_name = 'supercargo' and pid <> pg_backend_pid()";
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for second in 0..20 {
        tick.tick().await;
        let (url, name) = (scene.postgres.url(), format!("burst-{second}"));
        // In the middle of many commits, of which some are made and not answered.
        tokio::join!(scene.load.burst(&name, 40), async {
            scene.starts_a_burst().await;
            execute(&url, cut).await;
        });
    }
    scene.until_accepted(2).await;
    let seen = scene.end().await;
    assert!(Seen::of(&seen.refused) > 20, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_away_for_a_minute_under_load() {
    const AWAY: Duration = Duration::from_mins(1);
    let Some(scene) = Scene::begin("away", AWAY).await else { return };
    scene.until_accepted(2).await;
    scene.postgres.stop(Shutdown::Fast);
    let stopped = Instant::now();
    // What is asked now is refused, for as long as it lasts.
    let accepted = Seen::of(&scene.load.seen().accepted);
    let replayed = Seen::of(&scene.load.seen().replayed);
    let mut asked = 0;
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    while stopped.elapsed() < AWAY {
        tick.tick().await;
        scene.until_refused(2).await;
        for node in &scene.nodes {
            assert_eq!(node.request("GET", "/livez", None).await.status, 200);
            let ready = node.request("GET", "/readyz", None).await;
            assert_eq!(ready.status, 503, "{}", ready.text());
        }
        asked += 1;
    }
    assert!(asked >= 5, "{asked}");
    let now = (Seen::of(&scene.load.seen().accepted), Seen::of(&scene.load.seen().replayed));
    assert_eq!(now, (accepted, replayed), "something was accepted without a database");
    scene.postgres.run();
    let back = Instant::now();
    scene.until_accepted(4).await;
    eprintln!("accepted again after {:?}", back.elapsed());
    let seen = scene.end().await;
    assert!(Seen::of(&seen.refused) > 20, "{seen}");
}
