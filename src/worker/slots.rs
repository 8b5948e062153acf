//! How many tasks a worker holds and starts at once, for each target.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Slots {
    concurrency: usize,
    starts: usize,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    used: Mutex<HashMap<String, Used>>,
    freed: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct Used {
    held: usize,
    starting: usize,
}

impl Inner {
    fn used(&self) -> MutexGuard<'_, HashMap<String, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's place. Given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    inner: Arc<Inner>,
    target: String,
    starting: bool,
}

impl Slots {
    pub(super) fn new(concurrency: usize, starts: usize) -> Self {
        Self { concurrency, starts, inner: Arc::default() }
    }

    /// How many more tasks may be claimed for a target now. `most`: as the target itself says. `cheap`: its starts
    /// cost nothing.
    pub(super) fn free(&self, target: &str, most: Option<usize>, cheap: bool) -> usize {
        let used = self.inner.used().get(target).copied().unwrap_or_default();
        let held = most.unwrap_or(self.concurrency).saturating_sub(used.held);
        if cheap { held } else { held.min(self.starts.saturating_sub(used.starting)) }
    }

    /// Takes a place, beyond the limit if need be: what is taken over runs already.
    pub(super) fn take(&self, target: &str, runs_already: bool) -> Slot {
        let mut all = self.inner.used();
        let used = all.entry(target.to_owned()).or_default();
        used.held += 1;
        if !runs_already {
            used.starting += 1;
        }
        Slot { inner: Arc::clone(&self.inner), target: target.to_owned(), starting: !runs_already }
    }

    /// Waits until a place was given back since the last call.
    pub(super) async fn freed(&self) {
        self.inner.freed.notified().await;
    }
}

impl Slot {
    /// It started, or waits for something that takes long, as a pull: another one may start.
    pub(super) fn started(&mut self) {
        if std::mem::take(&mut self.starting) {
            if let Some(used) = self.inner.used().get_mut(&self.target) {
                used.starting -= 1;
            }
            self.inner.freed.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.started();
        if let Some(used) = self.inner.used().get_mut(&self.target) {
            used.held -= 1;
        }
        self.inner.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_so_many_places_and_fewer_starts() {
        let slots = Slots::new(3, 2);
        assert_eq!((slots.free("a", None, false), slots.free("a", None, true)), (2, 3));
        let mut first = slots.take("a", false);
        let second = slots.take("a", false);
        assert_eq!((slots.free("a", None, false), slots.free("b", None, false)), (0, 2));
        first.started();
        first.started();
        assert_eq!(slots.free("a", None, false), 1);
        assert_eq!((slots.free("a", Some(9), true), slots.free("a", Some(1), true)), (7, 0));
        let over: Vec<_> = (0..5).map(|_| slots.take("a", true)).collect();
        assert_eq!(slots.free("a", None, true), 0);
        drop((first, second, over));
        assert_eq!(slots.free("a", None, false), 2);
    }
}
