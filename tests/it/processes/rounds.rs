//! Two nodes that answer and three that work, under load, in every kind of trouble that a process can have.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Deployment, Lease, seconds_after, worker_id};
use crate::support::database::{held_by, latest_adoption};
use crate::support::ledger::Ledger;
use crate::support::load::{Load, Seen};
use crate::support::service::Service;
use crate::support::{PATIENCE, containers, until};

/// Rounds of trouble. Each worker gets each kind once.
const ROUNDS: usize = 9;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_restarted_and_paused_lose_nothing_and_run_nothing_twice() {
    if !containers::available().await {
        return;
    }
    let Some(all) = Deployment::new().await else { return };
    let starts = containers::Starts::record().await;
    let ledger = Arc::new(Ledger::default());
    let url = all.url();
    let mut nodes =
        [all.process("api,scheduler", Lease::Short).await, all.process("api", Lease::Short).await];
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(all.process("worker", Lease::Short).await);
    }
    let apis = nodes.iter().map(Service::api).collect();
    let load = Load::start("round", apis, &ledger, Duration::from_millis(700));
    let (mut taken_back, mut adopted): (f64, f64) = (0.0, 0.0);
    for round in 0..ROUNDS {
        let worker = &mut workers[round % 3];
        let id = worker_id(worker);
        until("the worker has something to lose", PATIENCE, async || {
            (held_by(url, &id).await > 0).then_some(())
        })
        .await;
        match (round / 3 + round) % 3 {
            0 => {
                worker.kill9();
                let had = held_by(url, &id).await;
                let started = Timestamp::now();
                worker.restart().await;
                if had > 0 {
                    let at = adoption_since(url, started).await;
                    taken_back = taken_back.max(seconds_after(started, at));
                }
            }
            1 => {
                worker.kill9();
                let killed = Timestamp::now();
                until("others have all that it had", PATIENCE, async || {
                    (held_by(url, &id).await == 0).then_some(())
                })
                .await;
                adopted = adopted.max(seconds_after(killed, Timestamp::now()));
                worker.restart().await;
            }
            _ => {
                worker.pause();
                until("others have all that it had", PATIENCE, async || {
                    (held_by(url, &id).await == 0).then_some(())
                })
                .await;
                worker.go_on();
            }
        }
        // A node dies with requests in flight, too. Its callers know its address.
        let node = &mut nodes[round % 2];
        node.kill9();
        node.restart_here().await;
    }
    let seen = load.stop().await;
    eprintln!(
        "taken back {taken_back:.2} s after a start, adopted {adopted:.2} s after a kill; {seen}"
    );
    // How long it takes at most is measured where nothing else goes on.
    assert!(taken_back < 10.0, "taken back after {taken_back} s");
    assert!(adopted < 15.0, "adopted after {adopted} s, with a lease of 3 s");
    let verified = ledger.verify(&nodes[0].api(), Some(url), &starts).await;
    eprintln!("{verified}");
    assert!(Seen::of(&seen.accepted) + Seen::of(&seen.replayed) >= 20, "{seen}");
}

async fn adoption_since(url: &str, since: Timestamp) -> Timestamp {
    until("something was taken back", PATIENCE, async || {
        latest_adoption(url).await.filter(|it| *it >= since)
    })
    .await
}
