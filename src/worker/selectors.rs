//! The labels that tasks in the queue wait for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::target::Placement;
use crate::store::{Error, Ledger};

/// How long labels are claimed for that no task was seen to wait for: the next task that wants them need not wait
/// for a look at the queue.
const REMEMBERED: Duration = Duration::from_mins(1);

type Known = Arc<Vec<(String, Placement)>>;

/// Read from the queue at most once per poll, as whoever has targets with labels asks at each claim.
#[derive(Debug)]
pub(super) struct Selectors {
    every: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    asked_at: Option<Instant>,
    seen_at: HashMap<String, Instant>,
    known: Known,
}

impl Selectors {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, inner: Mutex::default() }
    }

    /// Each with its text.
    pub(super) async fn load(&self, store: &dyn Ledger) -> Result<Known, Error> {
        let now = Instant::now();
        {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.asked_at.is_some_and(|at| now.duration_since(at) < self.every) {
                return Ok(Arc::clone(&inner.known));
            }
        }
        let queued = store.queued_selectors().await?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.asked_at = Some(now);
        inner.seen_at.extend(queued.into_iter().map(|it| (it, now)));
        inner.seen_at.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        let placements = inner.seen_at.keys().map(|it| (it.clone(), Placement::of_text(it)));
        inner.known = Arc::new(placements.collect());
        Ok(Arc::clone(&inner.known))
    }

    /// A task may wait for others than those that are known.
    pub(super) fn look_again(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).asked_at = None;
    }
}
