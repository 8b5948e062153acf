//! Makes the partitions of the weeks to come and drops those of weeks that are over and done.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::clock::Clock;
use crate::failpoints::{self, Point};
use crate::loops::Next;
use crate::outputs::FolderStore;
use crate::store::Store;

const PERIOD: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub struct Retention {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub objects: FolderStore,
    /// How long a task is kept after it was submitted.
    pub keep: SignedDuration,
    /// How long its key is kept, at least.
    pub keep_keys: Duration,
}

impl Retention {
    pub async fn tick(&self) -> anyhow::Result<Next> {
        self.store.ensure_partitions().await?;
        if let Ok(horizon) = self.clock.now().checked_sub(self.keep) {
            for week in
                self.store.drop_partitions_before(horizon, self.keep_keys.as_secs_f64()).await?
            {
                failpoints::at(Point::WeekDropped);
                tracing::info!(week, "dropped the history of a week");
            }
            // The rows first: a file without a row is garbage, a row without its file is a lie. What an
            // earlier tick did not get to is found by its folder.
            for week in self.objects.weeks().await? {
                if self.store.is_dropped(&week, horizon).await? {
                    self.objects.remove_week(&week).await?;
                }
            }
        }
        Ok(Next::After(PERIOD))
    }
}
