//! The state machine of an attempt: what has happened, and what to do next.
//!
//! [`Attempt::apply`] evolves it by an [`Event`] and is total over (phase × event): each pair is a
//! transition, a no-op or an [`IllegalTransition`]. [`Attempt::next_action`] says what its holder does
//! next, from its state alone, so that going on after a crash and going on after a step are the same
//! thing: whoever takes it over knows nothing of the sandbox ([`Sandbox::Unknown`]) and looks first.

use jiff::{SignedDuration, Timestamp};

use super::exit::{ExitReport, ExitStatus};
use super::failure::{Failure, Reason};
use super::outcome::{Outcome, StopReason};
use super::spec::Timeouts;
use super::state::TaskState;

/// How far an attempt has come. Stored; the API shows it as the state of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Waits for a worker.
    Queued,
    /// A worker has it and makes its sandbox.
    Starting,
    /// The sandbox was seen running.
    Running,
    /// The sandbox has ended; its log and outputs are being stored.
    Finishing,
    /// Accounted for. Final.
    Ended,
}

impl Phase {
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Starting, Self::Running, Self::Finishing, Self::Ended];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Ended => "ended",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }

    /// The state of a live task; an ended one's is in its [`Outcome`].
    pub const fn task_state(self) -> Option<TaskState> {
        match self {
            Self::Queued => Some(TaskState::Queued),
            Self::Starting => Some(TaskState::Starting),
            Self::Running => Some(TaskState::Running),
            Self::Finishing => Some(TaskState::Finishing),
            Self::Ended => None,
        }
    }
}

/// What its holder knows of the sandbox. Not stored: the engine knows better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// Not asked since the attempt was taken, or the last answer was lost.
    Unknown,
    /// The engine that the attempt was given to says that there is none.
    Absent,
    /// Made, and not started.
    Created,
    Running,
    Exited(ExitReport),
}

/// A stop signal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping {
    pub reason: StopReason,
    /// When the stop signal was sent.
    pub signalled_at: Timestamp,
    /// The kill was sent too.
    pub forced: bool,
}

/// What may happen to an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A worker took it from the queue, at this time.
    Claimed(Timestamp),
    /// Somebody wants it stopped.
    StopRequested(StopReason),
    /// The engine was asked about the sandbox.
    Observed(Sandbox),
    /// The sandbox was told to start, and did so at this time.
    Started(Timestamp),
    /// The engine refused the sandbox for good: it never ran.
    Refused(Failure),
    /// The answer of the engine was lost.
    AnswerLost,
    /// The engine was asked and could not be reached, at this time.
    NoAnswer(Timestamp),
    /// A stop signal was sent.
    Signalled { reason: StopReason, at: Timestamp },
    /// The kill was sent.
    Forced,
    /// The log is complete and the outputs are stored (or can't be, for a reason).
    Collected(Option<Failure>),
    /// State, outputs and log seal were written.
    Recorded,
}

impl Event {
    /// One word for each kind, for the table of transitions.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claimed(_) => "claimed",
            Self::StopRequested(_) => "stop requested",
            Self::Observed(_) => "observed",
            Self::Started(_) => "started",
            Self::Refused(_) => "refused",
            Self::AnswerLost => "answer lost",
            Self::NoAnswer(_) => "no answer",
            Self::Signalled { .. } => "signalled",
            Self::Forced => "forced",
            Self::Collected(_) => "collected",
            Self::Recorded => "recorded",
        }
    }
}

/// What the holder of an attempt does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nobody holds it: wait to be claimed.
    Claim,
    /// Ask the engine about the sandbox.
    Inspect,
    /// Make the sandbox and start it.
    Launch,
    /// Remove a sandbox that was never started and never will be.
    Discard,
    /// Wait for the exit, a stop request, or this time.
    Watch { until: Option<Timestamp> },
    /// Send the stop signal.
    Signal(StopReason),
    /// Send the kill.
    Force,
    /// Read the log to its end and store the outputs.
    Collect { exit: ExitReport },
    /// Write the end of the attempt.
    Record(Ending),
    /// Nothing is left to do but to clean up.
    Cleanup,
}

/// The end of an attempt, still to be judged with the facts of its task.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It ran and ended.
    Exited { exit: ExitReport, stopped: Option<StopReason>, output_fault: Option<Failure> },
    /// It did not run to an end of its own.
    Known(Outcome),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an attempt that is {} can't be {event}", phase.as_str())]
pub struct IllegalTransition {
    pub phase: Phase,
    pub event: &'static str,
}

/// After so long without an answer a run timeout is not waited for any more.
const LONG_SILENCE: SignedDuration = SignedDuration::from_mins(5);
/// Exit codes from here on tell of a signal.
const FIRST_SIGNAL_CODE: i32 = 129;

/// One try of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub phase: Phase,
    pub sandbox: Sandbox,
    /// Desired state: none means run. Written by the API and the scheduler, never by the holder.
    pub stop: Option<StopReason>,
    pub stopping: Option<Stopping>,
    /// Since when every question to the engine went unanswered.
    pub silent_since: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    /// Who holds it now did not hold it when it was claimed, or has lost the answer to a launch: it may have
    /// been launched before.
    pub taken_over: bool,
    pub refusal: Option<Failure>,
    pub collected: Option<Option<Failure>>,
    pub timeouts: Timeouts,
    pub at_most_once: bool,
}

impl Attempt {
    pub fn queued(timeouts: Timeouts, at_most_once: bool) -> Self {
        Self {
            phase: Phase::Queued,
            sandbox: Sandbox::Absent,
            stop: None,
            stopping: None,
            silent_since: None,
            started_at: None,
            taken_over: false,
            refusal: None,
            collected: None,
            timeouts,
            at_most_once,
        }
    }

    /// An attempt as the store has it, whose holder knows nothing of its sandbox yet.
    pub fn taken_over(
        phase: Phase,
        stop: Option<StopReason>,
        started_at: Option<Timestamp>,
        timeouts: Timeouts,
        at_most_once: bool,
    ) -> Self {
        Self {
            phase,
            sandbox: Sandbox::Unknown,
            stop,
            started_at,
            taken_over: true,
            ..Self::queued(timeouts, at_most_once)
        }
    }

    /// Whether a container of this attempt may have run. Where it may have been launched before, nothing that
    /// the engine says now excludes it: a request may still be on its way, and an engine that died in the
    /// middle of a start forgets it.
    pub fn may_have_started(&self) -> bool {
        self.taken_over
            || match &self.sandbox {
                Sandbox::Exited(report) => !matches!(report.status, ExitStatus::StartFailed { .. }),
                Sandbox::Unknown | Sandbox::Running => true,
                Sandbox::Absent | Sandbox::Created => self.started_at.is_some(),
            }
    }

    /// The answer to a launch was lost: what is done next may be the second time.
    pub fn launch_may_have_happened(&mut self) {
        self.taken_over = true;
    }

    /// Evolves the attempt.
    pub fn apply(&mut self, event: Event) -> Result<(), IllegalTransition> {
        use Phase::{Ended, Finishing, Queued, Running, Starting};
        let illegal = IllegalTransition { phase: self.phase, event: event.name() };
        match (self.phase, event) {
            (Queued, Event::Claimed(_)) => {
                self.phase = Starting;
                self.sandbox = Sandbox::Absent;
            }
            (Queued | Starting | Running | Finishing, Event::StopRequested(reason)) => {
                // The first reason stays: a cancel of what is being stopped anyway changes nothing.
                self.stop.get_or_insert(reason);
            }
            (Starting | Running, Event::Observed(sandbox)) => self.observe(sandbox),
            // The exit is known already: what became of the sandbox since does not matter.
            (Finishing, Event::Observed(sandbox)) => {
                if matches!(sandbox, Sandbox::Exited(_))
                    || !matches!(self.sandbox, Sandbox::Exited(_))
                {
                    self.observe(sandbox);
                }
            }
            (Starting | Running, Event::Started(at)) => {
                self.phase = Running;
                self.sandbox = Sandbox::Running;
                self.silent_since = None;
                self.started_at.get_or_insert(at);
            }
            (Starting, Event::Refused(failure)) => self.refusal = Some(failure),
            (Starting | Running | Finishing, Event::AnswerLost) => {
                if !matches!(self.sandbox, Sandbox::Exited(_)) {
                    self.sandbox = Sandbox::Unknown;
                }
            }
            (Starting | Running | Finishing, Event::NoAnswer(at)) => {
                self.silent_since.get_or_insert(at);
            }
            (Running, Event::Signalled { reason, at }) => {
                self.stopping = Some(Stopping { reason, signalled_at: at, forced: false });
            }
            (Running, Event::Forced) => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.forced = true;
                }
            }
            // Nothing is undone by asking for it too late; and where it ended while the signal was on its
            // way, the exit came first.
            (Ended, Event::StopRequested(_))
            | (Finishing, Event::Signalled { .. } | Event::Forced) => {}
            (Finishing, Event::Collected(fault)) => self.collected = Some(fault),
            (Starting | Running | Finishing, Event::Recorded) => self.phase = Ended,
            (
                Queued,
                Event::Observed(_)
                | Event::Started(_)
                | Event::Refused(_)
                | Event::AnswerLost
                | Event::NoAnswer(_)
                | Event::Signalled { .. }
                | Event::Forced
                | Event::Collected(_)
                | Event::Recorded,
            )
            | (
                Starting,
                Event::Claimed(_) | Event::Signalled { .. } | Event::Forced | Event::Collected(_),
            )
            | (Running, Event::Claimed(_) | Event::Refused(_) | Event::Collected(_))
            | (Finishing, Event::Claimed(_) | Event::Started(_) | Event::Refused(_))
            | (
                Ended,
                Event::Claimed(_)
                | Event::Observed(_)
                | Event::Started(_)
                | Event::Refused(_)
                | Event::AnswerLost
                | Event::NoAnswer(_)
                | Event::Signalled { .. }
                | Event::Forced
                | Event::Collected(_)
                | Event::Recorded,
            ) => return Err(illegal),
        }
        Ok(())
    }

    fn observe(&mut self, sandbox: Sandbox) {
        self.silent_since = None;
        match &sandbox {
            Sandbox::Exited(report) => {
                self.phase = Phase::Finishing;
                // The engine's clock for both ends: the time it ran for is never negative.
                self.started_at = report.started_at.or(self.started_at);
            }
            Sandbox::Running => self.phase = Phase::Running,
            Sandbox::Unknown | Sandbox::Absent | Sandbox::Created => {}
        }
        self.sandbox = sandbox;
    }

    /// What to do next. The same before and after a crash.
    pub fn next_action(&self, now: Timestamp) -> Action {
        match self.phase {
            Phase::Queued => return Action::Claim,
            Phase::Ended => return Action::Cleanup,
            Phase::Starting | Phase::Running | Phase::Finishing => {}
        }
        if let Some(failure) = &self.refusal {
            return Action::Record(Ending::Known(Outcome::failed(failure.clone())));
        }
        match &self.sandbox {
            Sandbox::Unknown => self.unknown(now),
            Sandbox::Absent => self.absent(),
            // One that ran is not made again by us: somebody else put this in its place.
            Sandbox::Created if self.stop.is_some() || self.started_at.is_some() => Action::Discard,
            // The start of another holder may still be on its way.
            Sandbox::Created if self.at_most_once && self.taken_over => Action::Discard,
            Sandbox::Created => Action::Launch,
            Sandbox::Running => self.running(now),
            Sandbox::Exited(exit) => match &self.collected {
                None => Action::Collect { exit: exit.clone() },
                Some(fault) => Action::Record(Ending::Exited {
                    exit: exit.clone(),
                    stopped: self.stopped_by_us(exit),
                    output_fault: fault.clone(),
                }),
            },
        }
    }

    /// The engine does not say. Nothing is done but to ask again. A run timeout ends the wait only where
    /// the engine has been silent for long: the sandbox is then left to the sweeper, and no other attempt
    /// is started.
    fn unknown(&self, now: Timestamp) -> Action {
        let patience_ends = self.silent_since.map(|since| later(since, LONG_SILENCE));
        match (self.run_deadline(), patience_ends) {
            // Its end was seen already: it is the storing that waits.
            _ if self.phase == Phase::Finishing => Action::Inspect,
            (Some(deadline), Some(patience_ends)) if now >= deadline.max(patience_ends) => {
                let failure = Failure::new(
                    Reason::Timeout,
                    "ran longer than timeouts.run on a target that can't be asked; it is stopped as soon as it can be",
                );
                Action::Record(Ending::Known(Outcome {
                    unconfirmed: true,
                    ..Outcome::failed(failure)
                }))
            }
            _ => Action::Inspect,
        }
    }

    fn absent(&self) -> Action {
        let started = self.started_at.is_some() || self.phase != Phase::Starting;
        let ending = if started {
            match self.stop.or(self.stopping.map(|it| it.reason)) {
                // Whoever removed it did what was asked for.
                Some(StopReason::Cancel) => {
                    Outcome::cancelled("cancelled; the container was gone already")
                }
                Some(StopReason::RunTimeout) => Outcome::failed(Failure::new(
                    Reason::Timeout,
                    "ran longer than timeouts.run; the container was gone when it was to be stopped",
                )),
                None => Outcome::failed(Failure::new(
                    Reason::DeletedExternally,
                    "the container was removed by somebody else before its end was seen",
                )),
            }
        } else if self.stop.is_some() {
            Outcome::cancelled("cancelled before it started")
        } else if self.at_most_once && self.taken_over {
            Outcome::failed(Failure::new(
                Reason::NodeLost,
                "nobody knows whether the container was started, and at_most_once forbids to try again",
            ))
        } else {
            return Action::Launch;
        };
        Action::Record(Ending::Known(ending))
    }

    fn running(&self, now: Timestamp) -> Action {
        if let Some(stopping) = self.stopping {
            let force_at = later(stopping.signalled_at, self.timeouts.stop_grace);
            return match () {
                () if stopping.forced => Action::Watch { until: None },
                () if now >= force_at => Action::Force,
                () => Action::Watch { until: Some(force_at) },
            };
        }
        if let Some(reason) = self.stop {
            return Action::Signal(reason);
        }
        match self.run_deadline() {
            Some(deadline) if now >= deadline => Action::Signal(StopReason::RunTimeout),
            until => Action::Watch { until },
        }
    }

    /// Why we stopped it, if we did. The answer to a stop signal may have been lost, or the one who sent it
    /// may be gone: an end by a signal that was wanted is ours.
    fn stopped_by_us(&self, exit: &ExitReport) -> Option<StopReason> {
        if let Some(stopping) = self.stopping {
            return Some(stopping.reason);
        }
        let by_signal = match exit.status {
            ExitStatus::Code { code, .. } => code >= FIRST_SIGNAL_CODE,
            ExitStatus::EngineStopped { .. } | ExitStatus::Disrupted { .. } => true,
            ExitStatus::StartFailed { .. } => false,
        };
        let too_long = self
            .run_deadline()
            .zip(exit.finished_at)
            .is_some_and(|(deadline, finished_at)| finished_at >= deadline);
        self.stop.or(too_long.then_some(StopReason::RunTimeout)).filter(|_| by_signal)
    }

    fn run_deadline(&self) -> Option<Timestamp> {
        Some(later(self.started_at?, self.timeouts.run?))
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The transitions between phases, as the documentation draws them: from, to, by what.
pub const PHASE_DIAGRAM: &[(&str, &str, &str)] = &[
    ("queued", "starting", "claimed by a worker"),
    ("queued", "cancelled", "cancelled before any worker had it"),
    ("queued", "failed", "timeouts.queue passed"),
    ("starting", "running", "started"),
    ("starting", "failed", "refused by the engine"),
    ("starting", "cancelled", "cancelled before it started"),
    ("starting", "finishing", "found ended by the next worker"),
    (
        "starting",
        "queued",
        "its engine went away before the start, or platform failure with budget left",
    ),
    ("running", "finishing", "exit seen"),
    ("running", "failed", "removed by somebody else"),
    ("running", "cancelled", "gone when it was to be stopped"),
    ("running", "queued", "failure with budget left"),
    ("finishing", "succeeded", "exit code 0 and every required output"),
    ("finishing", "skipped", "exit code in skip_on_exit_codes"),
    ("finishing", "failed", "any other end"),
    ("finishing", "cancelled", "stopped by a cancel"),
    ("finishing", "queued", "failure with budget left"),
];

#[cfg(test)]
mod tests;
