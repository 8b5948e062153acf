//! Ends tasks that waited longer than `timeouts.queue`.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::plan::plan;
use crate::loops::Next;
use crate::measures;
use crate::store::{Error, Ledger};
use crate::wake::Wake;

const AT_ONCE: u32 = 1_000;
/// Between looks. A task that is submitted with a shorter `timeouts.queue` ends that much later.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub struct Scheduler {
    pub store: Arc<dyn Ledger>,
    pub wake: Wake,
    pub clock: Arc<dyn Clock>,
}

impl Scheduler {
    pub async fn tick(&self) -> Result<Next, Error> {
        let queued = self.store.queued_with_deadline(AT_ONCE.into()).await?;
        let now = self.clock.now();
        let plan = plan(&queued, now);
        for (task, outcome) in &plan.expire {
            // Ended meanwhile, or taken by a worker: then it is not queued, and nothing happens.
            if self.store.expire_queued(&[*task], outcome, now).await? > 0 {
                measures::task_ended(outcome.state.as_str());
                tracing::info!(task.id = %task, "the task expired in the queue");
                self.wake.task_changed(*task);
                self.wake.run_is_due();
            }
        }
        if plan.expire.len() == AT_ONCE as usize {
            return Ok(Next::AtOnce);
        }
        let pause = plan.next_at.map_or(LONGEST_PAUSE, |at| {
            let until = Duration::try_from(now.duration_until(at)).unwrap_or_default();
            until.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
        });
        Ok(Next::After(pause))
    }
}
