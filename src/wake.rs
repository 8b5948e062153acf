//! Wake-ups inside one process: what saves the milliseconds that polling would cost.
//!
//! A wake-up is a hint to look at the database, never data, and may be missing or too many: everything
//! that waits for one also looks from time to time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::ids::{RunId, TaskId};

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Wake {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: Notify,
    stops: Notify,
    targets: Notify,
    by_labels: AtomicBool,
    other_processes: Notify,
    runs: Notify,
    /// Of tasks and runs.
    watched: Mutex<HashMap<Uuid, watch::Sender<()>>>,
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake {
    /// Something may be claimed.
    pub fn queued(&self) {
        self.inner.queue.notify_one();
        self.inner.other_processes.notify_one();
    }

    /// Something may be claimed that waits for labels.
    pub fn queued_for_labels(&self) {
        self.inner.by_labels.store(true, Ordering::Release);
        self.queued();
    }

    /// Somebody wants a task stopped.
    pub fn stop_requested(&self) {
        self.inner.stops.notify_one();
        self.inner.other_processes.notify_one();
    }

    /// A task has another state, or more log.
    pub fn task_changed(&self, task: TaskId) {
        self.changed(task.uuid());
    }

    /// A run has another state.
    pub fn run_changed(&self, run: RunId) {
        self.changed(run.uuid());
    }

    fn changed(&self, id: Uuid) {
        if let Some(sender) = self.inner.watched().get(&id) {
            sender.send_replace(());
        }
        self.inner.other_processes.notify_one();
    }

    /// Something happened to a run that is to be planned.
    pub fn run_is_due(&self) {
        self.inner.runs.notify_one();
        self.inner.other_processes.notify_one();
    }

    /// Waits until a run is to be planned; a hint given before the call counts.
    pub async fn until_run_is_due(&self) {
        self.inner.runs.notified().await;
    }

    /// A target has changed, or is to be checked.
    pub fn targets_changed(&self) {
        self.inner.targets.notify_one();
    }

    /// Another process changed something.
    pub fn anything(&self) {
        self.inner.queue.notify_one();
        self.inner.stops.notify_one();
        self.inner.runs.notify_one();
        for sender in self.inner.watched().values() {
            sender.send_replace(());
        }
    }

    /// Waits until something may be claimed; a hint given before the call counts.
    pub async fn until_queued(&self) {
        self.inner.queue.notified().await;
    }

    /// Whether labels were among what was queued since the last call.
    pub fn labels_were_queued(&self) -> bool {
        self.inner.by_labels.swap(false, Ordering::AcqRel)
    }

    pub async fn until_stop_requested(&self) {
        self.inner.stops.notified().await;
    }

    pub async fn until_targets_changed(&self) {
        self.inner.targets.notified().await;
    }

    /// Waits until this process changed something that others may wait for.
    pub async fn until_changed_here(&self) {
        self.inner.other_processes.notified().await;
    }

    /// Whether anybody in this process waits for changes of this task.
    pub fn is_watched(&self, task: TaskId) -> bool {
        self.inner.watched().contains_key(&task.uuid())
    }

    /// Hears of a task. Subscribe first, look at the database then: no change is missed in between.
    pub fn subscribe(&self, task: TaskId) -> Subscription {
        self.subscribe_to(task.uuid())
    }

    /// Hears of a run, as of a task.
    pub fn subscribe_run(&self, run: RunId) -> Subscription {
        self.subscribe_to(run.uuid())
    }

    fn subscribe_to(&self, id: Uuid) -> Subscription {
        let receiver =
            self.inner.watched().entry(id).or_insert_with(|| watch::channel(()).0).subscribe();
        Subscription { id, receiver, wake: Arc::clone(&self.inner) }
    }
}

/// See [`Wake::subscribe`].
#[derive(Debug)]
pub struct Subscription {
    id: Uuid,
    receiver: watch::Receiver<()>,
    wake: Arc<Inner>,
}

impl Subscription {
    /// Waits for a change since the last call, or since the subscription.
    pub async fn changed(&mut self) {
        // The sender lives as long as its subscriptions.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.wake.watched();
        // This receiver is still counted.
        if watched.get(&self.id).is_some_and(|it| it.receiver_count() <= 1) {
            watched.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_subscribing_and_waiting_is_not_missed() {
        let wake = Wake::default();
        let task = TaskId::generate();
        let mut subscription = wake.subscribe(task);
        wake.task_changed(task);
        subscription.changed().await;
    }

    #[test]
    fn nothing_is_kept_for_tasks_that_nobody_waits_for() {
        let wake = Wake::default();
        let task = TaskId::generate();
        let (a, b) = (wake.subscribe(task), wake.subscribe(task));
        drop(a);
        assert_eq!(wake.inner.watched().len(), 1);
        drop(b);
        assert_eq!(wake.inner.watched().len(), 0);
    }
}
