//! Drives runs: what happened to one goes into its plan, and what the plan says is written.
//!
//! A run's plan stays in memory from one step to the next, and is made anew from the tasks of the run where another
//! process has planned it since, or nobody in this one. Nothing here has to survive.

mod driven;
mod values;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::domain::spec::Limits;
use crate::ids::RunId;
use crate::loops::Next;
use crate::measures;
use crate::store::{DueRun, Error, Planning, RunChange, RunEnding, Store};
use crate::targets::Catalogue;
use crate::wake::Wake;
use driven::Driven;

/// Runs in one step.
const AT_ONCE: u32 = 64;
/// Between looks: a hint may have been lost, or come from a process that is gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Until tasks that had to wait for room in the queue are looked at again.
const ROOM_PAUSE: Duration = Duration::from_millis(25);
/// So many tasks of one run wait for a worker at a time. It bounds how long tasks of other runs wait behind them,
/// and what a step has to write.
const QUEUED: usize = 512;
/// Runs that are kept in memory between two steps.
const KEPT: usize = 4_096;

/// What becomes of runs.
#[derive(Debug)]
pub struct RunPlanner {
    store: Store,
    limits: Limits,
    catalogue: Catalogue,
    wake: Wake,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    runs: HashMap<RunId, Driven>,
    /// More of them is ready than the queue has room for.
    held_back: HashSet<RunId>,
}

impl RunPlanner {
    pub fn new(
        store: Store,
        limits: Limits,
        catalogue: Catalogue,
        wake: Wake,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, limits, catalogue, wake, clock, kept: Mutex::default() }
    }

    /// One step of the runs that something happened to.
    pub async fn tick(&self) -> Result<Next, Error> {
        let mut kept = self.kept.lock().await;
        let revisions = kept.runs.iter().map(|(run, it)| (*run, it.revision())).collect();
        let held_back: Vec<RunId> = kept.held_back.iter().copied().collect();
        let mut planning =
            self.store.begin_planning(&revisions, &held_back, AT_ONCE.into()).await?;
        let due = std::mem::take(&mut planning.runs);
        if due.is_empty() {
            // Another process has them, or they have ended.
            kept.held_back.clear();
            return Ok(Next::After(LONGEST_PAUSE));
        }
        let many = due.len();
        let mut stepped = Vec::with_capacity(many);
        let mut changes = Vec::with_capacity(many);
        for it in due {
            let run = it.run;
            // What fails on the way is made anew from the store the next time.
            let before = kept.runs.remove(&run);
            kept.held_back.remove(&run);
            let (driven, change) = self.step(&mut planning, before, it).await?;
            stepped.push(driven.map(|it| (run, it)));
            changes.push(change);
        }
        planning.commit(self.clock.now(), &changes).await?;
        for (stepped, change) in stepped.into_iter().zip(&changes) {
            self.announce(change);
            let Some((run, mut driven)) = stepped.filter(|_| change.end.is_none()) else {
                continue;
            };
            driven.was_written();
            if driven.is_held_back() {
                kept.held_back.insert(run);
            }
            kept.runs.insert(run, driven);
        }
        forget_some(&mut kept.runs);
        Ok(if many >= AT_ONCE as usize {
            Next::AtOnce
        } else if kept.held_back.is_empty() {
            Next::After(LONGEST_PAUSE)
        } else {
            Next::After(ROOM_PAUSE)
        })
    }

    async fn step(
        &self,
        planning: &mut Planning,
        before: Option<Driven>,
        mut due: DueRun,
    ) -> Result<(Option<Driven>, RunChange), Error> {
        let targets = Arc::clone(&self.catalogue.current().targets);
        let limits = Limits { targets, ..self.limits.clone() };
        let mut driven = match Driven::take_up(before, &mut due) {
            Ok(it) => it,
            Err(failure) => {
                // One that can't be read must not hold the others up.
                tracing::error!(run.id = %due.run, why = failure.message, "the run can't go on");
                let end = RunEnding { state: "failed", failure: Some(failure), result: None };
                return Ok((None, RunChange { end: Some(end), ..RunChange::of(due.run) }));
            }
        };
        driven.hear(&due);
        let room = QUEUED.saturating_sub(due.queued);
        let change = driven.step(planning, room, due.is_late, &limits, self.clock.now()).await?;
        Ok((Some(driven), change))
    }

    fn announce(&self, change: &RunChange) {
        if !change.tasks.is_empty() {
            if change.tasks.iter().any(|it| !it.spec.target.is_named()) {
                self.wake.queued_for_labels();
            }
            self.wake.queued();
            metrics::counter!(measures::TASKS_SUBMITTED).increment(change.tasks.len() as u64);
        }
        if !change.stop.is_empty() {
            self.wake.stop_requested();
            // The queued ones have ended by it.
            self.wake.run_is_due();
        }
        if let Some(end) = &change.end {
            tracing::info!(run.id = %change.run, state = end.state, "run ended");
        }
        self.wake.run_changed(change.run);
    }
}

/// Whichever: a run that is made anew costs a look at its tasks.
fn forget_some(runs: &mut HashMap<RunId, Driven>) {
    while runs.len() > KEPT {
        let Some(run) = runs.keys().next().copied() else { return };
        runs.remove(&run);
    }
}
