//! From the engine's description of a container to what it means. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status,
};
use jiff::Timestamp;

use super::outages::Outages;
use crate::domain::exit::{ExitReport, ExitStatus};
use crate::runner::naming;

const SIGKILL_CODE: i32 = 137;
const SIGTERM_CODE: i32 = 143;
/// What the engine writes when it finds out later that a container has ended.
const UNKNOWN_CODE: i32 = 255;

/// One container as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) image_id: Option<String>,
    /// The effective user: the task's, else the image's.
    pub(super) user: String,
    pub(super) stop_signal: Option<String>,
    pub(super) labels: HashMap<String, String>,
    /// It has the volume that we ask for. An engine that dies in the middle of a create comes back with a
    /// container that lacks what it mounts, and calls it created.
    pub(super) is_whole: bool,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running {
        started_at: Timestamp,
    },
    Ended(ExitReport),
    /// On its way out, nothing more to learn.
    Removing,
}

/// What the state of a container can't say by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) outages: &'a Outages,
    /// We sent it a signal.
    pub(super) killed_by_us: bool,
    pub(super) now: Timestamp,
}

impl Seen {
    /// None: the description lacks what every engine gives.
    pub(super) fn read(it: ContainerInspectResponse, context: Context<'_>) -> Option<Self> {
        let config = it.config.unwrap_or_default();
        Some(Self {
            id: it.id?,
            image_id: it.image,
            user: config.user.unwrap_or_default(),
            stop_signal: config.stop_signal.filter(|it| !it.is_empty()),
            labels: config.labels.unwrap_or_default(),
            is_whole: it.mounts.is_none_or(|mounts| {
                mounts.iter().any(|it| it.destination.as_deref() == Some(naming::OUTPUT_DIR))
            }),
            phase: phase(&it.state?, context)?,
        })
    }

    /// Whether everything may be written by its main process.
    pub(super) fn is_root(&self) -> bool {
        let user = self.user.split(':').next().unwrap_or_default();
        matches!(user, "" | "root") || user.parse::<u32>() == Ok(0)
    }
}

fn phase(state: &ContainerState, context: Context<'_>) -> Option<Phase> {
    let code = state.exit_code.and_then(|it| i32::try_from(it).ok()).unwrap_or_default();
    let error = state.error.as_deref().unwrap_or_default();
    let finished_at = time(state.finished_at.as_deref());
    // The engine notes the start when it hears of it, which may be after the end.
    let started_at = time(state.started_at.as_deref())
        .map(|started| finished_at.map_or(started, |finished| started.min(finished)));
    let unwatched = context.outages.unseen_in(finished_at);
    let ended = |status| {
        Phase::Ended(ExitReport { status, started_at, finished_at, unwatched, fleeting: false })
    };
    let start_failed = || {
        let message = if error.is_empty() { "the engine could not start it" } else { error };
        ended(ExitStatus::StartFailed { code, message: message.to_owned() })
    };
    Some(match state.status? {
        Status::CREATED if code == 0 && error.is_empty() => Phase::Created,
        // The engine leaves a container whose start failed in this state.
        Status::CREATED => start_failed(),
        Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING => {
            Phase::Running { started_at: started_at.unwrap_or(context.now) }
        }
        Status::EXITED | Status::DEAD if started_at.is_none() => start_failed(),
        Status::EXITED | Status::DEAD => {
            let oom_killed = state.oom_killed.unwrap_or_default();
            let unexplained = !oom_killed && !context.killed_by_us && is_stop(code, error);
            let went_down = context.outages.ended_in(started_at, finished_at)
                || (code == UNKNOWN_CODE && unwatched);
            if unexplained && went_down {
                ended(ExitStatus::EngineStopped { code })
            } else {
                ended(ExitStatus::Code { code, oom_killed })
            }
        }
        Status::REMOVING => Phase::Removing,
        Status::EMPTY => return None,
    })
}

/// Whether an engine that goes down, or finds out that it did, leaves this behind.
fn is_stop(code: i32, error: &str) -> bool {
    matches!(code, SIGKILL_CODE | SIGTERM_CODE | UNKNOWN_CODE) || (code == 0 && !error.is_empty())
}

/// The engine's year 1 means "not yet".
fn time(text: Option<&str>) -> Option<Timestamp> {
    let at: Timestamp = text?.parse().ok()?;
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const STARTED: &str = "2026-11-21T05:08:09.291493622Z";
    const FINISHED: &str = "2026-11-21T05:08:21.934293030Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn read(state: &Value, outages: &Outages, killed_by_us: bool) -> Phase {
        let document =
            json!({"Id": "c", "Image": "sha256:0", "Config": {"User": "1000"}, "State": state});
        let context = Context { outages, killed_by_us, now: at(FINISHED) };
        Seen::read(serde_json::from_value(document).unwrap(), context).unwrap().phase
    }

    fn exited(code: i32) -> Value {
        json!({"Status": "exited", "ExitCode": code, "Error": "", "StartedAt": STARTED, "FinishedAt": FINISHED})
    }

    fn status(phase: Phase) -> ExitStatus {
        match phase {
            Phase::Ended(report) => report.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failed_start_is_an_end_although_the_engine_says_created() {
        let none = Outages::default();
        let created = json!({"Status": "created", "ExitCode": 0, "Error": "", "StartedAt": NEVER, "FinishedAt": NEVER});
        assert_eq!(read(&created, &none, false), Phase::Created);
        let failed = json!({"Status": "created", "ExitCode": 127, "Error": "not found", "StartedAt": NEVER, "FinishedAt": NEVER});
        assert_eq!(
            status(read(&failed, &none, false)),
            ExitStatus::StartFailed { code: 127, message: "not found".to_owned() }
        );
    }

    #[test]
    fn the_report_has_the_engines_times() {
        let Phase::Ended(report) = read(&exited(3), &Outages::default(), false) else { panic!() };
        assert_eq!(report.status, ExitStatus::Code { code: 3, oom_killed: false });
        assert_eq!(
            (report.started_at, report.finished_at),
            (Some(at(STARTED)), Some(at(FINISHED)))
        );
    }

    #[test]
    fn a_short_run_does_not_end_before_it_begins() {
        let mut state = exited(0);
        state["StartedAt"] = json!("2026-11-21T05:08:22Z");
        let Phase::Ended(report) = read(&state, &Outages::default(), false) else { panic!() };
        assert_eq!(
            (report.started_at, report.finished_at),
            (Some(at(FINISHED)), Some(at(FINISHED)))
        );
    }

    #[test]
    fn only_a_signal_death_in_an_outage_that_we_did_not_cause_is_the_engines() {
        let mut outages = Outages::default();
        outages.add(at("2026-11-21T05:08:10Z"), at("2026-11-21T05:08:23Z"), true);
        for (code, expected) in [(137, true), (143, true), (255, true), (0, false), (3, false)] {
            let stopped = matches!(
                status(read(&exited(code), &outages, false)),
                ExitStatus::EngineStopped { .. }
            );
            assert_eq!(stopped, expected, "{code}");
        }
        let ours = ExitStatus::Code { code: 137, oom_killed: false };
        assert_eq!(status(read(&exited(137), &outages, true)), ours);
        assert_eq!(status(read(&exited(137), &Outages::default(), false)), ours);
        let mut oom = exited(137);
        oom["OOMKilled"] = json!(true);
        assert_eq!(
            status(read(&oom, &outages, false)),
            ExitStatus::Code { code: 137, oom_killed: true }
        );
    }

    #[test]
    fn root_has_many_names() {
        for (user, root) in [
            ("", true),
            ("root", true),
            ("0", true),
            ("0:100", true),
            ("1000", false),
            ("app", false),
        ] {
            let document =
                json!({"Id": "c", "Config": {"User": user}, "State": {"Status": "running"}});
            let outages = Outages::default();
            let context = Context { outages: &outages, killed_by_us: false, now: at(STARTED) };
            let seen = Seen::read(serde_json::from_value(document).unwrap(), context).unwrap();
            assert_eq!(seen.is_root(), root, "{user}");
        }
    }
}
