//! The loops that bring attempts and requests to the supervisors.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::domain::target::Placement;
use crate::ids::AttemptNo;
use crate::measures;
use crate::runner::{EngineState, RunnerKind, Targets};
use crate::store::ClaimTarget;

const AFTER_AN_ERROR: Duration = Duration::from_secs(1);
/// What expires is looked for when it has.
const JUST_AFTER: Duration = Duration::from_millis(10);

/// Claims from the queue whenever there may be something and there is a place for it.
pub(super) async fn run(shared: Arc<Shared>) {
    let parts = &shared.parts;
    loop {
        // Wake-ups that come while the database is asked are kept for the next turn.
        match claim(&shared).await {
            Ok(Claimed::Full) => continue,
            Ok(Claimed::Some) => {}
            Err(error) => {
                tracing::warn!(%error, "tasks could not be claimed");
                tokio::select! {
                    biased;
                    () = shared.draining.cancelled() => return,
                    () = tokio::time::sleep(AFTER_AN_ERROR) => continue,
                }
            }
        }
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            () = parts.wake.until_queued() => {}
            () = shared.slots.freed() => {}
            () = tokio::time::sleep(parts.settings.poll) => {}
        }
    }
}

enum Claimed {
    /// As many as there were places: there may be more.
    Full,
    Some,
}

async fn claim(shared: &Arc<Shared>) -> Result<Claimed, crate::store::Error> {
    if shared.draining.is_cancelled() || !shared.lease.is_valid() {
        return Ok(Claimed::Some);
    }
    let targets = claimable(shared).await?;
    if targets.is_empty() {
        return Ok(Claimed::Some);
    }
    let _taking = shared.taking.lock().await;
    let lapses = shared.lease.lapses();
    let claimed = shared.parts.store.claim(shared.parts.worker, &targets).await?;
    let full = targets.iter().any(|target| {
        let got = claimed.iter().filter(|it| it.target == target.name).count();
        i64::try_from(got).unwrap_or(i64::MAX) == target.slots
    });
    let now = shared.parts.clock.now();
    for it in claimed {
        shared.parts.wake.task_changed(it.task);
        if it.attempt_no == AttemptNo::FIRST {
            let waited = now.duration_since(it.task.made_at());
            metrics::histogram!(measures::QUEUE_WAIT, "target" => it.target.clone())
                .record(Duration::try_from(waited).unwrap_or_default());
        }
        Shared::supervise(shared, it, false, lapses);
    }
    Ok(if full { Claimed::Full } else { Claimed::Some })
}

/// The targets that something may be started on now, with the labels that tasks wait for and that they have.
async fn claimable(shared: &Shared) -> Result<Vec<ClaimTarget>, crate::store::Error> {
    let connected = shared.parts.targets.current();
    let mut targets = reachable(shared, &connected);
    targets.retain(|it| it.slots > 0 && connected[&it.name].target.enabled);
    let labelled = |it: &ClaimTarget| !connected[&it.name].target.labels.is_empty();
    if targets.iter().any(labelled) {
        if shared.parts.wake.labels_were_queued() {
            shared.selectors.look_again();
        }
        let selectors = shared.selectors.load(&*shared.parts.store).await?;
        for it in &mut targets {
            let target = &connected[&it.name].target;
            let fits = |(_, placement): &&(String, Placement)| placement.matches(&it.name, target);
            it.selectors = selectors.iter().filter(fits).map(|(text, _)| text.clone()).collect();
        }
    }
    Ok(targets)
}

/// The targets that answer, with their free places: also those that nothing new is started on.
fn reachable(shared: &Shared, connected: &Targets) -> Vec<ClaimTarget> {
    connected
        .iter()
        .filter_map(|(name, it)| match &*it.runner.engine().borrow() {
            EngineState::Ready { id, .. } => {
                let cheap = it.runner.kind() == RunnerKind::Simulated;
                let most = it.target.concurrency.and_then(|it| usize::try_from(it).ok());
                let free = shared.slots.free(name, most, cheap);
                Some(ClaimTarget {
                    name: name.clone(),
                    engine: id.0.clone(),
                    slots: i64::try_from(free).unwrap_or(i64::MAX),
                    selectors: Vec::new(),
                })
            }
            EngineState::Connecting | EngineState::Down { .. } => None,
        })
        .collect()
}

/// Takes over from workers that are gone, and what this one holds without knowing: once a heartbeat, and in
/// the moment in which a lease expires.
pub(super) async fn take_over(shared: Arc<Shared>) {
    let heartbeat = shared.parts.settings.heartbeat;
    let mut wait = heartbeat;
    let mut lapses = shared.lease.lapses();
    loop {
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = heartbeat;
        // Who could not renew because the database was away is not the only one: the others get the time to
        // renew, too.
        if !shared.lease.is_valid() || shared.lease.lapses() != lapses {
            lapses = shared.lease.lapses();
            continue;
        }
        match take_what_is_not_driven(&shared).await {
            Ok(Some(expiry)) => wait = heartbeat.min(expiry),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "tasks that nobody drives could not be taken over");
                wait = heartbeat.min(AFTER_AN_ERROR);
            }
        }
    }
}

/// Returns when the next lease expires, if it is not renewed.
async fn take_what_is_not_driven(
    shared: &Arc<Shared>,
) -> Result<Option<Duration>, crate::store::Error> {
    let parts = &shared.parts;
    let _taking = shared.taking.lock().await;
    let lapses = shared.lease.lapses();
    let driven: Vec<_> = shared.stops().keys().copied().collect();
    let mut taken = parts.store.take_own(parts.worker, &driven).await?;
    if !taken.is_empty() {
        tracing::warn!(
            tasks = taken.len(),
            "driving tasks that were taken in a statement without an answer"
        );
    }
    let lease = parts.settings.lease.as_secs_f64();
    let reachable = reachable(shared, &parts.targets.current());
    let expired = parts.store.take_expired(parts.worker, lease, &reachable).await?;
    if !expired.is_empty() {
        tracing::warn!(tasks = expired.len(), "taking over from a worker that is gone");
    }
    taken.extend(expired);
    for it in taken {
        Shared::supervise(shared, it, true, lapses);
    }
    let left = parts.store.next_expiry(parts.worker, lease).await?;
    Ok(left.and_then(|it| Duration::try_from_secs_f64(it).ok()).map(|it| it + JUST_AFTER))
}

/// Brings requests to stop to the supervisors.
pub(super) async fn watch_stops(shared: Arc<Shared>) {
    let parts = &shared.parts;
    loop {
        match parts.store.stop_requests(parts.worker).await {
            Ok(requests) => {
                let stops = shared.stops();
                for request in requests {
                    if let Some((_, stop)) = stops.get(&request.task) {
                        stop.send_if_modified(|it| {
                            let new = it.is_none();
                            it.get_or_insert(request.reason);
                            new
                        });
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "requests to stop could not be read"),
        }
        tokio::select! {
            biased;
            () = shared.detach.cancelled() => return,
            () = parts.wake.until_stop_requested() => {}
            () = tokio::time::sleep(parts.settings.poll) => {}
        }
    }
}
