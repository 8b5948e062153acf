//! The lease of a worker: one heartbeat for everything that it holds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Shared, targets};
use crate::failpoints::{self, Guard};
use crate::measures;

#[derive(Debug)]
pub(super) struct Lease {
    epoch: i64,
    ttl: Duration,
    /// Renewals are counted from before the statement was sent: never later than the database does.
    renewed_at: Mutex<Instant>,
    lapses: AtomicU64,
    lost: CancellationToken,
    stop: CancellationToken,
}

impl Lease {
    pub(super) fn new(epoch: i64, ttl: Duration) -> Self {
        Self {
            epoch,
            ttl,
            renewed_at: Mutex::new(Instant::now()),
            lapses: AtomicU64::new(0),
            lost: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) const fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether nobody can have taken anything from this worker yet. It launches nothing otherwise.
    pub(super) fn is_valid(&self) -> bool {
        let renewed_at = *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        // A quarter of it is for the launch that is about to be sent.
        let in_time = renewed_at.elapsed() < self.ttl * 3 / 4 && !self.lost.is_cancelled();
        in_time || !failpoints::holds(Guard::LeaseStop)
    }

    /// How often it was not renewed in time: who held something before has to ask whether it still does.
    pub(super) fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    pub(super) async fn until_lost(&self) {
        self.lost.cancelled().await;
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    fn renewed(&self, asked_at: Instant) {
        let mut renewed_at = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed_at.elapsed() >= self.ttl * 3 / 4 {
            self.lapses.fetch_add(1, Ordering::AcqRel);
            metrics::counter!(measures::LEASE_LOST).increment(1);
        }
        *renewed_at = asked_at;
    }
}

/// Renews until stopped.
pub(super) async fn run(shared: Arc<Shared>) {
    let lease = &shared.lease;
    let parts = &shared.parts;
    let mut health = targets::Health::watch(&parts.targets);
    let mut wait = Duration::ZERO;
    let mut shown = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = lease.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            // The API shows a sick target at once, and a well one is claimed for at once.
            () = health.changed() => parts.wake.queued(),
        }
        let asked_at = Instant::now();
        let targets = health.current();
        for target in shown.difference(&targets.keys().cloned().collect()) {
            // There is no such target any more, which is not the same as one that is down.
            metrics::gauge!(measures::TARGET_UP, "target" => target.clone()).set(f64::NAN);
        }
        shown = targets.keys().cloned().collect();
        for (target, health) in &targets {
            let up = if health.ready { 1.0 } else { 0.0 };
            metrics::gauge!(measures::TARGET_UP, "target" => target.clone()).set(up);
        }
        let asked = parts.store.heartbeat(parts.worker, lease.epoch, &targets);
        // A connection may hang for long where the other side is just gone.
        let Ok(renewed) = tokio::time::timeout(parts.settings.heartbeat, asked).await else {
            tracing::warn!("the lease could not be renewed in time");
            wait = Duration::from_millis(500);
            continue;
        };
        wait = match renewed {
            Ok(true) => {
                lease.renewed(asked_at);
                parts.settings.heartbeat
            }
            Ok(false) => {
                tracing::error!(
                    "another process has taken the identity of this worker, it ends here"
                );
                metrics::counter!(measures::LEASE_LOST).increment(1);
                lease.lost.cancel();
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the lease could not be renewed");
                Duration::from_millis(500)
            }
        };
    }
}
