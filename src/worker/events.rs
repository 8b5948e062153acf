//! What a supervisor has to tell about its attempt, until it is written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::store::NewEvent;

/// Collects events. The milestones that the columns of the attempt tell anyway are not among them.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    clock: Arc<dyn Clock>,
    backend: &'static str,
    events: Arc<Mutex<Vec<NewEvent>>>,
    waiting: tokio_util::sync::CancellationToken,
    pulled: Arc<AtomicBool>,
}

impl Journal {
    pub(super) fn new(clock: Arc<dyn Clock>, backend: &'static str) -> Self {
        Self {
            clock,
            backend,
            events: Arc::default(),
            waiting: tokio_util::sync::CancellationToken::new(),
            pulled: Arc::default(),
        }
    }

    pub(super) fn add(&self, reason: &str, message: impl Into<String>) {
        self.push("worker", reason, message.into());
    }

    fn push(&self, source: &'static str, reason: &str, message: String) {
        let event = NewEvent { at: self.clock.now(), source, reason: reason.to_owned(), message };
        self.events().push(event);
    }

    pub(super) fn take(&self) -> Vec<NewEvent> {
        std::mem::take(&mut *self.events())
    }

    /// Puts back what could not be written.
    pub(super) fn put_back(&self, mut older: Vec<NewEvent>) {
        let mut events = self.events();
        older.append(&mut events);
        *events = older;
    }

    /// Resolves when the launch waits for others.
    pub(super) async fn until_waiting(&self) {
        self.waiting.cancelled().await;
    }

    fn events(&self) -> std::sync::MutexGuard<'_, Vec<NewEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// A step of a launch.
    pub(super) fn step(&self, reason: &'static str, message: String) {
        match reason {
            "created" | "started" => {}
            _ => self.push(self.backend, reason, message),
        }
        if reason == "pulling" {
            self.pulled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether an image had to be pulled.
    pub(super) fn pulled(&self) -> bool {
        self.pulled.load(Ordering::Relaxed)
    }

    pub(super) fn waits(&self) {
        self.waiting.cancel();
    }
}
