//! How long to keep trying while the service is away.

use std::time::{Duration, Instant};

use super::Error;
use crate::cli::out;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// One outage after the other, each with a message at its begin and its end.
#[derive(Debug)]
pub(crate) struct Backoff {
    patience: Duration,
    announced: bool,
    since: Option<Instant>,
    next: Duration,
}

impl Backoff {
    /// Gives up when the service was away for `patience` at a stretch.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, announced: false, since: None, next: FIRST }
    }

    /// Waits before the next try. The error comes back where trying again is no use.
    pub(crate) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_passing() {
            return Err(error);
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= self.patience {
            return Err(error);
        }
        // One that is over with the next try is nobody's concern.
        if self.next > FIRST && !self.announced {
            out::note(error.passing());
            self.announced = true;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LONGEST);
        Ok(())
    }

    /// The service answered.
    pub(crate) fn reset(&mut self) {
        if self.announced {
            out::note("the service is back");
        }
        *self = Self::new(self.patience);
    }
}
