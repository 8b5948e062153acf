//! Shows how much there is to do: tasks that wait and run, by target, for whoever scrapes the metrics.
//!
//! They are of the whole installation, and every process that schedules shows the same.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::loops::Next;
use crate::measures;
use crate::store::{Error, QueueGauge, Store};

const PERIOD: Duration = Duration::from_secs(5);
/// A question that takes long is asked seldom.
const SHARE: u32 = 20;

/// Names the targets there are.
type Names = Box<dyn Fn() -> Vec<String> + Send>;

pub struct QueueGauges {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Each of them has a gauge, whether it has tasks or not.
    names: Names,
    /// What has a gauge: one that has no task any more is shown as 0.
    targets: BTreeSet<String>,
}

impl fmt::Debug for QueueGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueGauges").field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl QueueGauges {
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        names: impl Fn() -> Vec<String> + Send + 'static,
    ) -> Self {
        Self { store, clock, names: Box::new(names), targets: BTreeSet::new() }
    }

    pub async fn tick(&mut self) -> Result<Next, Error> {
        let asked = Instant::now();
        let gauges = self.store.queue_gauges().await?;
        let took = asked.elapsed();
        self.targets.extend((self.names)());
        self.targets.extend(gauges.iter().map(|it| it.target.clone()));
        for target in &self.targets {
            let none = QueueGauge { target: target.clone(), queued: 0, running: 0, oldest: None };
            self.show(gauges.iter().find(|it| it.target == *target).unwrap_or(&none));
        }
        Ok(Next::After(PERIOD.max(took * SHARE)))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
    fn show(&self, it: &QueueGauge) {
        let age = it.oldest.map(|at| self.clock.now().duration_since(at).as_secs_f64());
        for (name, value) in [
            (measures::QUEUE_DEPTH, it.queued as f64),
            (measures::TASKS_RUNNING, it.running as f64),
            (measures::QUEUE_OLDEST_AGE, age.unwrap_or_default().max(0.0)),
        ] {
            metrics::gauge!(name, "target" => it.target.clone()).set(value);
        }
    }
}
