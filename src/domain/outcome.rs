//! The verdict on an attempt: how it ended, and what that means for its task.

use serde_json::Value;

use super::exit::{ExitReport, ExitStatus};
use super::failure::{Failure, Reason};
use super::state::TaskState;

/// Why we stop an attempt that still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Somebody asked for it.
    Cancel,
    /// `timeouts.run` passed.
    RunTimeout,
}

impl StopReason {
    pub const ALL: [Self; 2] = [Self::Cancel, Self::RunTimeout];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::RunTimeout => "run_timeout",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// How an attempt ended for good.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub state: TaskState,
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
    /// Nobody could say that the sandbox has ended: it may still run.
    pub unconfirmed: bool,
}

impl Outcome {
    pub fn failed(failure: Failure) -> Self {
        Self::new(TaskState::Failed, None, Some(failure))
    }

    fn new(state: TaskState, exit_code: Option<i32>, failure: Option<Failure>) -> Self {
        Self { state, exit_code, failure, unconfirmed: false }
    }

    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(TaskState::Cancelled, None, Some(Failure::new(Reason::Cancelled, message)))
    }
}

/// One output that a task handed back.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub name: String,
    pub value: OutputValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum OutputValue {
    Json(Value),
    /// In the object store.
    File(StoredFile),
}

/// A file output that is stored for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    pub object_key: String,
    pub media_type: String,
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// Where it was in the sandbox.
    pub path: String,
}

/// Decides what an exit means. `stopped` is the reason of a stop signal that we sent before it.
pub fn judge(
    exit: &ExitReport,
    stopped: Option<StopReason>,
    skip_on_exit_codes: &[i32],
    output_fault: Option<Failure>,
) -> Outcome {
    let exit_code = exit.status.code();
    let failed = |reason: Reason, message: String| {
        Outcome::new(TaskState::Failed, exit_code, Some(Failure::new(reason, message)))
    };
    match stopped {
        Some(StopReason::Cancel) => {
            return Outcome { exit_code, ..Outcome::cancelled("cancelled while it ran") };
        }
        Some(StopReason::RunTimeout) => {
            return failed(
                Reason::Timeout,
                "ran longer than timeouts.run and was stopped".to_owned(),
            );
        }
        None => {}
    }
    match &exit.status {
        ExitStatus::Code { code: 0, .. } => match output_fault {
            Some(failure) => Outcome::new(TaskState::Failed, exit_code, Some(failure)),
            None => Outcome::new(TaskState::Succeeded, exit_code, None),
        },
        ExitStatus::Code { code, .. } if skip_on_exit_codes.contains(code) => {
            Outcome::new(TaskState::Skipped, exit_code, None)
        }
        ExitStatus::Code { code: 137, oom_killed: true } => failed(
            Reason::OomKilled,
            "killed for using more memory than its limit (exit code 137): raise resources.memory"
                .to_owned(),
        ),
        ExitStatus::Code { code: 127, .. } => failed(
            Reason::CommandNotFound,
            "exited with code 127: a command was not found in the image".to_owned(),
        ),
        ExitStatus::Code { code: 126, .. } => failed(
            Reason::CommandNotExecutable,
            "exited with code 126: a command could not be executed".to_owned(),
        ),
        ExitStatus::Code { code, oom_killed } => {
            let oom = if *oom_killed {
                "; the kernel killed one of its processes for memory"
            } else {
                ""
            };
            match code - 128 {
                signal @ 1..=64 => failed(
                    Reason::SignalKilled,
                    format!(
                        "ended by signal {signal} (exit code {code}) that was not sent by the service{oom}"
                    ),
                ),
                _ => failed(Reason::ExitNonzero, format!("exited with code {code}{oom}")),
            }
        }
        ExitStatus::StartFailed { code, message } => {
            failed(Reason::of_failed_start(*code), message.clone())
        }
        ExitStatus::EngineStopped { .. } => {
            failed(Reason::NodeLost, "the engine stopped while the container ran".to_owned())
        }
        ExitStatus::Disrupted { reason, message, .. } => failed(*reason, message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, oom_killed: bool) -> ExitReport {
        ExitReport {
            status: ExitStatus::Code { code, oom_killed },
            started_at: None,
            finished_at: None,
            unwatched: false,
            fleeting: false,
        }
    }

    fn verdict(outcome: &Outcome) -> (TaskState, Option<Reason>) {
        (outcome.state, outcome.failure.as_ref().map(|it| it.reason))
    }

    #[test]
    fn the_exit_code_decides() {
        use TaskState::{Failed, Skipped, Succeeded};
        for (code, oom, expected) in [
            (0, false, (Succeeded, None)),
            (0, true, (Succeeded, None)),
            (3, false, (Failed, Some(Reason::ExitNonzero))),
            (99, false, (Skipped, None)),
            (126, false, (Failed, Some(Reason::CommandNotExecutable))),
            (127, false, (Failed, Some(Reason::CommandNotFound))),
            (137, false, (Failed, Some(Reason::SignalKilled))),
            (137, true, (Failed, Some(Reason::OomKilled))),
            (143, false, (Failed, Some(Reason::SignalKilled))),
            (255, false, (Failed, Some(Reason::ExitNonzero))),
        ] {
            assert_eq!(verdict(&judge(&exit(code, oom), None, &[99], None)), expected, "{code}");
        }
    }

    #[test]
    fn our_stop_names_its_reason_whatever_the_code() {
        for code in [0, 99, 137, 143] {
            let cancelled = judge(&exit(code, false), Some(StopReason::Cancel), &[99], None);
            assert_eq!(verdict(&cancelled), (TaskState::Cancelled, Some(Reason::Cancelled)));
            assert_eq!(cancelled.exit_code, Some(code));
            let timeout = judge(&exit(code, false), Some(StopReason::RunTimeout), &[99], None);
            assert_eq!(verdict(&timeout), (TaskState::Failed, Some(Reason::Timeout)));
        }
    }

    #[test]
    fn a_missing_output_fails_only_what_would_have_succeeded() {
        let missing = || Some(Failure::new(Reason::OutputInvalid, "missing"));
        assert_eq!(
            verdict(&judge(&exit(0, false), None, &[], missing())),
            (TaskState::Failed, Some(Reason::OutputInvalid))
        );
        assert_eq!(
            verdict(&judge(&exit(3, false), None, &[], missing())),
            (TaskState::Failed, Some(Reason::ExitNonzero))
        );
    }
}
