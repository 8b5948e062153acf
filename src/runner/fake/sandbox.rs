//! One simulated sandbox: how it stands is computed from the time when somebody asks.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Duration, Instant};

use super::script::Script;
use crate::domain::exit::{ExitReport, ExitStatus};
use crate::domain::spec::SpecHash;
use crate::failpoints::{self, Guard};
use crate::ids::{Fence, TaskId};

/// What a sandbox is called. Starts go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// As it is made.
    First,
    /// By the holder that took it over under this fence.
    Held(Fence),
    /// It was put aside.
    Kept,
}

impl Name {
    /// As [`naming::held_name`](crate::runner::naming::held_name).
    pub(super) fn of(took_over: Option<Fence>) -> Self {
        match took_over {
            Some(fence) if failpoints::holds(Guard::RenameAdopted) => Self::Held(fence),
            Some(_) | None => Self::First,
        }
    }
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) name: Name,
    pub(super) task: TaskId,
    pub(super) spec: SpecHash,
    pub(super) created_at: Timestamp,
    pub(super) script: Arc<Script>,
    pub(super) progress: Progress,
    /// Made by the first one who has to wait.
    pub(super) changed: Option<Arc<Notify>>,
}

#[derive(Debug)]
pub(super) enum Progress {
    Created,
    /// The engine could not start it.
    Failed,
    Started(Run),
}

#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) started_at: Timestamp,
    pub(super) started: Instant,
    /// Ended before its time.
    pub(super) cut: Option<(ExitStatus, Duration)>,
}

/// How a sandbox stands at one moment.
pub(super) enum Standing {
    Created,
    Running { started_at: Timestamp, until: Option<Instant> },
    Ended(ExitReport),
    Vanished,
}

impl Sandbox {
    pub(super) fn standing(&self) -> Standing {
        let run = match &self.progress {
            Progress::Created => return Standing::Created,
            Progress::Failed => {
                let status = self.script.status.clone();
                return Standing::Ended(ExitReport {
                    status,
                    started_at: None,
                    finished_at: None,
                    unwatched: false,
                    fleeting: false,
                });
            }
            Progress::Started(run) => run,
        };
        let ended = |status: &ExitStatus, after: Duration| {
            let finished_at = run.started_at.checked_add(after).unwrap_or(run.started_at);
            Standing::Ended(ExitReport {
                status: status.clone(),
                started_at: Some(run.started_at),
                finished_at: Some(finished_at),
                unwatched: false,
                fleeting: false,
            })
        };
        if let Some((status, after)) = &run.cut {
            return ended(status, *after);
        }
        let run_for = self.script.run_for;
        if !run_for.is_zero() && run.started.elapsed() < run_for {
            return Standing::Running {
                started_at: run.started_at,
                until: run.started.checked_add(run_for),
            };
        }
        if self.script.vanish { Standing::Vanished } else { ended(&self.script.status, run_for) }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.standing(), Standing::Running { .. })
    }

    /// How much of the run has passed: the log has what was written until then.
    pub(super) fn ran_for(&self) -> Duration {
        match &self.progress {
            Progress::Created | Progress::Failed => Duration::ZERO,
            Progress::Started(Run { cut: Some((_, after)), .. }) => *after,
            Progress::Started(run) => run.started.elapsed(),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(changed) = &self.changed {
            changed.notify_waiters();
        }
    }

    /// Hears of every change from now on, also before it is first polled.
    pub(super) fn subscribe(&mut self) -> OwnedNotified {
        Arc::clone(self.changed.get_or_insert_with(Arc::default)).notified_owned()
    }
}
