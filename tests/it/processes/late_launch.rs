//! A worker is paused in the middle of a launch, and its requests reach the engine when everything is over.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::{Deployment, Lease};
use crate::support::ledger::{Ledger, Work};
use crate::support::proxy::{Fate, Proxy};
use crate::support::service::{Options, Service};
use crate::support::{PATIENCE, containers, engine, until, within};

/// Whether the worker with this log has nothing to do with the task any more.
fn is_done(log: &str, task: &str) -> bool {
    let done = ["let go of the attempt", "attempt ended"];
    log.lines().any(|it| it.contains(task) && done.iter().any(|done| it.contains(done)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_goes_on_after_the_lease_starts_nothing() {
    if !containers::available().await {
        return;
    }
    let Some(all) = Deployment::new().await else { return };
    let starts = containers::Starts::record().await;
    let ledger = Ledger::default();
    let proxy = Proxy::start(engine::SOCKET);
    let mut options = all.options("api,scheduler,worker", Lease::Short);
    // All of them at a time.
    options.env.push(("SUPERCARGO__WORKER__STARTS".to_owned(), "16".to_owned()));
    let paused = Service::start_with(Options { docker_host: Some(proxy.host()), ..options }).await;
    // Some launches are held before there is a container, others before it is started.
    let mut held = Vec::new();
    let mut ids = Vec::new();
    for (path_end, cleanup, at_most_once) in [
        ("/containers/create", "always", false),
        ("/start", "always", false),
        ("/containers/create", "always", true),
        ("/start", "always", true),
        ("/start", "never", false),
    ] {
        let (arrived, has_arrived) = oneshot::channel();
        let (go_on, may_go_on) = oneshot::channel();
        proxy.next("POST", path_end, Fate::Held(arrived, may_go_on));
        let name = format!("{path_end} {cleanup} {at_most_once}");
        let work = Work { name, lines: 5, at_most_once, ..Work::default() };
        let mut document = work.document();
        document["cleanup"] = json!(cleanup);
        let id = paused.submit(document).await;
        if cleanup == "always" {
            ledger.accepted(&id, work);
        }
        within("the request is on its way", has_arrived).await.unwrap();
        held.push(go_on);
        ids.push((id, at_most_once));
    }
    paused.pause();

    let mut other = all.process("api,scheduler,worker", Lease::Short).await;
    for (id, at_most_once) in &ids {
        let task = other.ended(id).await;
        let state = if *at_most_once { "failed" } else { "succeeded" };
        assert_eq!(task["state"], state, "{task:#}");
    }
    let (kept, removed) = ids.split_last().unwrap();
    for (id, _) in removed {
        containers::gone(id).await;
    }
    until("the last one is put aside", PATIENCE, async || {
        containers::is_kept(&kept.0).await.then_some(())
    })
    .await;
    for it in held {
        it.send(()).unwrap();
    }
    for (id, _) in [&ids[0], &ids[2]] {
        until("a container was made late", PATIENCE, async || {
            (!starts.containers(id).await.is_empty()).then_some(())
        })
        .await;
    }
    paused.go_on();
    until("it lets go of all", Duration::from_secs(30), async || {
        let log = std::fs::read_to_string(paused.data_dir().join("service.log")).unwrap();
        ids.iter().all(|(id, _)| is_done(&log, id)).then_some(())
    })
    .await;
    for (id, at_most_once) in &ids {
        let expected = usize::from(!at_most_once);
        assert_eq!(starts.of(id), expected, "task {id} was started by the wrong one");
    }
    // What was put aside is left there, and is nobody's but the one's who wanted it.
    let kept = starts.containers(&kept.0).await;
    assert_eq!(kept.len(), 1, "the container that was to be kept is gone");
    containers::remove(&kept[0]).await;
    // The container that was made late is found by whoever sweeps next.
    other.kill9();
    other.restart().await;
    ledger.verify(&other.api(), None, &starts).await;
}
