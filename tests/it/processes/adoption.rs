//! The attempts of a worker that is gone go on with another one, within 20 s, with the settings that are
//! the default; and with itself, within 2 s of its own restart.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Deployment, Lease, adopted_at, seconds_after, worker_id};
use crate::support::database::{heartbeat_of, held_by};
use crate::support::ledger::{Ledger, Work};
use crate::support::{PATIENCE, containers, until};

/// From a kill to the take-over by another worker.
const ADOPTED_WITHIN: f64 = 20.0;
/// From the start of a process to the take-back of what it had.
const TAKEN_BACK_WITHIN: f64 = 2.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_adopts_within_twenty_seconds_of_a_kill_and_a_restart_within_two() {
    if !containers::available().await {
        return;
    }
    let Some(all) = Deployment::new().await else { return };
    let starts = containers::Starts::record().await;
    let ledger = Arc::new(Ledger::default());
    let mut killed = all.process("api,scheduler,worker", Lease::Default).await;
    let mut ids = Vec::new();
    for n in 0..6 {
        // It runs for longer than a survivor may take, once and again.
        let work = Work {
            name: format!("long-{n}"),
            lines: 300,
            pause_ms: 100,
            at_most_once: n == 0,
            ..Work::default()
        };
        let id = killed.submit(work.document()).await;
        ledger.accepted(&id, work);
        ids.push(id);
    }
    for id in &ids {
        killed.until_state(id, "running").await;
    }

    // Its own restart. The time of the start is taken before the process is there.
    killed.kill9();
    let started = Timestamp::now();
    killed.restart().await;
    let mut slowest_back: f64 = 0.0;
    for id in &ids {
        let at = until("it was taken back", PATIENCE, async || {
            adopted_at(&killed, id).await.filter(|it| *it >= started)
        })
        .await;
        slowest_back = slowest_back.max(seconds_after(started, at));
    }
    assert!(slowest_back < TAKEN_BACK_WITHIN, "taken back after {slowest_back} s");

    // The worst moment for a kill: the lease has just been renewed.
    let survivor = all.process("api,scheduler,worker", Lease::Default).await;
    let worker = worker_id(&killed);
    let before = heartbeat_of(all.url(), &worker).await;
    until("it renews its lease", PATIENCE, async || {
        (heartbeat_of(all.url(), &worker).await != before).then_some(())
    })
    .await;
    killed.kill9();
    let killed_at = Timestamp::now();
    let mut slowest: f64 = 0.0;
    for id in &ids {
        let at = until("a survivor has it", Duration::from_secs(40), async || {
            adopted_at(&survivor, id).await.filter(|it| *it >= killed_at)
        })
        .await;
        slowest = slowest.max(seconds_after(killed_at, at));
    }
    eprintln!(
        "taken back {slowest_back:.2} s after the start, adopted {slowest:.2} s after the kill"
    );
    assert!(slowest < ADOPTED_WITHIN, "adopted after {slowest} s");
    assert_eq!(held_by(all.url(), &worker).await, 0);

    // Who comes back finds that others have what it had, and leaves it to them.
    killed.restart().await;
    let verified = ledger.verify(&survivor.api(), Some(all.url()), &starts).await;
    eprintln!("{verified}");
}
