//! From the state of a pod to what it means for its attempt. Pure.

use jiff::{SignedDuration, Timestamp};

use super::happenings::Happening;
use super::seen::{Container, LOST, Phase, Role, Scheduled, Seen, State};
use crate::domain::exit::{ExitReport, ExitStatus};
use crate::domain::failure::{Failure, Reason};
use crate::domain::spec::Timeouts;

/// A container that can't be made as its image or its Secret is not there yet: the node may be behind.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);
const SIGKILL_CODE: i32 = 137;

/// What a pod means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    /// None of its containers has run. `until`: when the next timer runs out.
    Waiting {
        until: Timestamp,
    },
    /// None has run, and none will.
    Refused(Failure),
    Running {
        started_at: Timestamp,
        /// The main container waits for something, and has no more time than until then.
        until: Option<Timestamp>,
    },
    Ended(ExitReport),
}

/// What the pod does not say by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// None: where somebody waits who sets no limits.
    pub(super) timeouts: Option<&'a Timeouts>,
    pub(super) happenings: &'a [Happening],
    /// We asked for its end.
    pub(super) stopped_by_us: bool,
    pub(super) now: Timestamp,
}

/// Where the pod of an attempt stands.
pub(super) fn standing(seen: &Seen, context: Context<'_>) -> Standing {
    if let Some(report) = ended(seen, context) {
        return if seen.has_run() {
            Standing::Ended(report)
        } else {
            match report.status {
                ExitStatus::Disrupted { reason, message, .. } => {
                    Standing::Refused(Failure::new(reason, message))
                }
                // A start that fails is an end, as it is on every backend.
                ExitStatus::StartFailed { .. }
                | ExitStatus::Code { .. }
                | ExitStatus::EngineStopped { .. } => Standing::Ended(report),
            }
        };
    }
    let pending = pending(seen, context);
    if seen.has_run() {
        let started_at = started_at(seen).unwrap_or(context.now);
        return match pending {
            Pending::No => Standing::Running { started_at, until: None },
            Pending::Until(until) => Standing::Running { started_at, until: Some(until) },
            Pending::Never(failure) => Standing::Ended(ExitReport {
                status: disrupted(failure.reason, failure.message, None),
                started_at: Some(started_at),
                finished_at: Some(context.now),
                unwatched: false,
                fleeting: false,
            }),
        };
    }
    match pending {
        Pending::Never(failure) => Standing::Refused(failure),
        Pending::Until(until) => Standing::Waiting { until },
        Pending::No => Standing::Waiting { until: later(context.now, SETTLE) },
    }
}

/// The first container that ran.
fn started_at(seen: &Seen) -> Option<Timestamp> {
    let times = seen.containers.iter().filter_map(|it| match it.state {
        State::Running { started_at } | State::Ended { started_at, .. } => started_at,
        State::Waiting { .. } => None,
    });
    times.min()
}

fn ended(seen: &Seen, context: Context<'_>) -> Option<ExitReport> {
    let started = started_at(seen);
    let report = |status, finished_at: Option<Timestamp>| ExitReport {
        status,
        started_at: started,
        finished_at,
        unwatched: false,
        // A node removes the containers of a pod that is being removed, and their logs with them.
        fleeting: seen.deletion.is_some(),
    };
    if let Some(Container {
        state: State::Ended { code, reason, message, started_at, finished_at },
        ..
    }) = seen.main()
    {
        if matches!(reason.as_str(), "StartError" | "ContainerCannotRun" | "RunContainerError") {
            let code = start_code(*code, message);
            let message = format!("the container could not be started: {}", message.trim());
            return Some(report(ExitStatus::StartFailed { code, message }, *finished_at));
        }
        let finished_at = finished_at.or(*started_at);
        if let Some((reason, message)) = put_out(seen, finished_at, context) {
            return Some(report(disrupted(reason, message, Some(*code)), finished_at));
        }
        if reason == LOST {
            let message = "the node lost the container and can't say how it ended".to_owned();
            return Some(report(disrupted(Reason::NodeLost, message, Some(*code)), finished_at));
        }
        let oom_killed = reason == "OOMKilled";
        return Some(report(ExitStatus::Code { code: *code, oom_killed }, finished_at));
    }
    if let Some(failed) = failed_init(seen) {
        // It may have been put out, which is not its fault.
        let (reason, message) = put_out(seen, failed.finished_at, context)
            .unwrap_or((Reason::InitFailed, failed.message));
        return Some(report(disrupted(reason, message, None), failed.finished_at));
    }
    if seen.is_dying() {
        let confirmed = seen.deletion.is_some_and(|it| it.is_confirmed);
        // By then its node may have nothing left to follow.
        return confirmed.then(|| ended_by_deadline(seen, context.now));
    }
    let is_final = matches!(seen.phase, Phase::Failed | Phase::Succeeded);
    let is_deleted = seen.deletion.is_some() && seen.is_over();
    if !is_final && !is_deleted {
        return None;
    }
    let (reason, message) = put_out(seen, None, context).unwrap_or_else(|| {
        let why = [seen.reason.as_str(), seen.message.as_str()].join(": ");
        let why = why.trim_matches([':', ' ']);
        (Reason::Unschedulable, format!("the node did not take the pod: {why}"))
    });
    Some(report(disrupted(reason, message, None), seen.deletion.map(|it| it.asked_at)))
}

struct FailedInit {
    message: String,
    finished_at: Option<Timestamp>,
}

fn failed_init(seen: &Seen) -> Option<FailedInit> {
    seen.containers.iter().filter(|it| it.role == Role::Init).find_map(|it| match &it.state {
        State::Ended { code, reason, message, finished_at, .. } if *code != 0 => {
            let why = match reason.as_str() {
                "" | "Error" => String::new(),
                reason => format!(" ({reason})"),
            };
            let said = message.trim();
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            let message =
                format!("the init container {:?} exited with code {code}{why}{said}", it.name);
            Some(FailedInit { message, finished_at: *finished_at })
        }
        _ => None,
    })
}

/// Whether something else than its own program ended a pod whose main container ended then.
fn put_out(
    seen: &Seen,
    finished_at: Option<Timestamp>,
    context: Context<'_>,
) -> Option<(Reason, String)> {
    let said = |what: &str, detail: &str| match detail.trim() {
        "" => what.to_owned(),
        detail => format!("{what}: {detail}"),
    };
    if let Some((reason, message)) = &seen.disruption {
        return Some(match reason.as_str() {
            "PreemptionByScheduler" => {
                (Reason::Preempted, said("put out for a pod of higher priority", message))
            }
            "EvictionByEvictionAPI" => {
                (Reason::Evicted, said("evicted, as when a node is drained", message))
            }
            "TerminationByKubelet" => (Reason::Evicted, said("put out by its node", message)),
            _ => (Reason::NodeLost, said("its node is lost", message)),
        });
    }
    match seen.reason.as_str() {
        "Evicted" => return Some((Reason::Evicted, said("evicted by its node", &seen.message))),
        "Preempting" | "Preempted" => {
            return Some((
                Reason::Preempted,
                said("put out for a pod of higher priority", &seen.message),
            ));
        }
        "NodeLost" | "Shutdown" | "NodeShutdown" | "Terminated" => {
            return Some((Reason::NodeLost, said("its node went down", &seen.message)));
        }
        "DeadlineExceeded" if context.stopped_by_us => return None,
        "DeadlineExceeded" => {
            return Some((
                Reason::Timeout,
                "ended by the deadline of its pod (activeDeadlineSeconds)".to_owned(),
            ));
        }
        _ => {}
    }
    let deletion = seen.deletion?;
    // Both are known to the second: what ended within the second of the deletion may be its doing.
    let before = finished_at.is_some_and(|it| it.as_second() < deletion.asked_at.as_second());
    if before || context.stopped_by_us {
        return None;
    }
    let happenings = context.happenings;
    if let Some(it) = happenings.iter().rev().find(|it| it.reason == "Preempted") {
        return Some((
            Reason::Preempted,
            said("put out for a pod of higher priority", &it.message),
        ));
    }
    if happenings.iter().any(|it| it.reason == "TaintManagerEviction") {
        return Some((
            Reason::NodeLost,
            "put out by its cluster, as its node does not answer".to_owned(),
        ));
    }
    Some((Reason::DeletedExternally, "the pod was deleted by somebody else".to_owned()))
}

/// What older nodes leave of a pod that was stopped by its deadline: how it ended is not told.
pub(super) fn ended_by_deadline(seen: &Seen, now: Timestamp) -> ExitReport {
    let message = "ended by the deadline of its pod (activeDeadlineSeconds)".to_owned();
    ExitReport {
        status: disrupted(Reason::Timeout, message, None),
        started_at: started_at(seen),
        finished_at: Some(now),
        unwatched: false,
        fleeting: seen.deletion.is_some(),
    }
}

/// What a lost node leaves: nobody will ever say how it ended.
pub(super) fn lost_with_node(seen: &Seen, now: Timestamp) -> ExitReport {
    let node = seen.node.as_deref().unwrap_or_default();
    ExitReport {
        status: disrupted(Reason::NodeLost, format!("its node {node} is gone"), None),
        started_at: started_at(seen),
        finished_at: Some(now),
        unwatched: true,
        fleeting: true,
    }
}

fn disrupted(reason: Reason, message: String, code: Option<i32>) -> ExitStatus {
    ExitStatus::Disrupted { reason, message, code }
}

enum Pending {
    /// The main container is not waited for.
    No,
    Until(Timestamp),
    Never(Failure),
}

/// What the pod waits for, and until when.
fn pending(seen: &Seen, context: Context<'_>) -> Pending {
    let never = |reason, message: String| Pending::Never(Failure::new(reason, message));
    let no_limit = Timeouts::default();
    let timeouts = context.timeouts.unwrap_or(&no_limit);
    let scheduled_at = match &seen.scheduled {
        Scheduled::At(at) => *at,
        Scheduled::NotYet(why) => {
            let until = later(seen.created_at, timeouts.schedule);
            if context.now < until {
                return Pending::Until(until);
            }
            let why = why.as_deref().unwrap_or("the scheduler did not say why");
            let limit = timeouts.schedule;
            return never(
                Reason::Unschedulable,
                format!("no node took it within timeouts.schedule ({limit:#}): {why}"),
            );
        }
    };
    // Whatever ran before the one that is waited for: init containers take their time.
    let since = seen
        .containers
        .iter()
        .filter_map(|it| match it.state {
            State::Ended { finished_at, .. } if it.role == Role::Init => finished_at,
            _ => None,
        })
        .max()
        .unwrap_or(scheduled_at);
    let mut waits = false;
    for it in &seen.containers {
        let State::Waiting { reason, message } = &it.state else {
            // One init container after the other, and then all others.
            if it.role == Role::Init && matches!(it.state, State::Running { .. }) {
                return Pending::No;
            }
            continue;
        };
        waits |= it.role != Role::Side && it.role != Role::Collector;
        if let Some(failure) = hopeless(seen, it, reason, message, since, context) {
            return Pending::Never(failure);
        }
        if it.role == Role::Init {
            break;
        }
    }
    if !waits {
        return Pending::No;
    }
    let pull = pulling(seen, context.happenings);
    let until = match pull {
        Pull::No => later(since, timeouts.start),
        Pull::Since(at) => later(at, timeouts.pull),
        Pull::Done(at) => later(at.max(since), timeouts.start),
    };
    // Without a word about the pull there may have been one all the same.
    let until = if context.happenings.is_empty() { later(until, timeouts.pull) } else { until };
    if context.now < until {
        return Pending::Until(until);
    }
    let image = || seen.main().map(|it| it.name.clone()).unwrap_or_default();
    match pull {
        Pull::Since(_) => {
            let limit = timeouts.pull;
            // A busy node hands its events on late, or never.
            let last = last_pull_error(context.happenings).or_else(|| failed_pull(seen));
            match last {
                Some(why) => never(
                    Reason::RegistryTransient,
                    format!(
                        "the image could not be pulled within timeouts.pull ({limit:#}): {why}"
                    ),
                ),
                None => never(
                    Reason::Timeout,
                    format!(
                        "the image of {:?} was not pulled within timeouts.pull ({limit:#})",
                        image()
                    ),
                ),
            }
        }
        Pull::No | Pull::Done(_) => {
            let limit = timeouts.start;
            let why = context.happenings.iter().rev().find(|it| it.reason.starts_with("Failed"));
            let why = why.map(|it| format!(": {}", it.message.trim())).unwrap_or_default();
            never(
                Reason::StartError,
                format!("it did not start within timeouts.start ({limit:#}) on its node{why}"),
            )
        }
    }
}

enum Pull {
    No,
    Since(Timestamp),
    Done(Timestamp),
}

fn pulling(seen: &Seen, happenings: &[Happening]) -> Pull {
    let waits_for_image = failed_pull(seen).is_some();
    let first = happenings.iter().find(|it| it.reason == "Pulling").map(|it| it.at);
    let last_pulled = happenings.iter().rposition(|it| it.reason == "Pulled");
    let last_pulling = happenings.iter().rposition(|it| it.reason == "Pulling");
    match (first, last_pulled, last_pulling) {
        (Some(_), Some(pulled), Some(pulling)) if pulled > pulling => {
            Pull::Done(happenings.get(pulled).map_or(seen.created_at, |it| it.at))
        }
        (Some(at), _, _) => Pull::Since(at),
        (None, _, _) if waits_for_image => Pull::Since(match seen.scheduled {
            Scheduled::At(at) => at,
            Scheduled::NotYet(_) => seen.created_at,
        }),
        (None, _, _) => Pull::No,
    }
}

/// What the state of a container says of a pull that failed and will be tried again.
fn failed_pull(seen: &Seen) -> Option<&str> {
    seen.containers.iter().find_map(|it| match &it.state {
        State::Waiting { reason, message }
            if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff") =>
        {
            Some(message.trim())
        }
        _ => None,
    })
}

fn last_pull_error(happenings: &[Happening]) -> Option<&str> {
    let failed = |it: &&Happening| it.reason == "Failed" && it.message.contains("pull");
    happenings.iter().rev().find(failed).map(|it| it.message.trim())
}

/// The table of reasons for which a container will never start.
fn hopeless(
    seen: &Seen,
    container: &Container,
    reason: &str,
    message: &str,
    since: Timestamp,
    context: Context<'_>,
) -> Option<Failure> {
    let settled = context.now.duration_since(since) > SETTLE;
    let of = |text: &str| format!("the container {:?}: {}", container.name, text.trim());
    let failure = |reason| Some(Failure::new(reason, of(message)));
    match reason {
        "InvalidImageName" => failure(Reason::InvalidImage),
        "ErrImageNeverPull" => failure(Reason::ImageNotFound),
        "ErrImagePull" | "ImagePullBackOff" => {
            // Backing off it does not say from what.
            let why = match (reason, last_pull_error(context.happenings)) {
                ("ImagePullBackOff", Some(why)) => why,
                _ => message,
            };
            match pull_failure(why)? {
                Reason::RegistryTransient => None,
                reason => Some(Failure::new(reason, of(why))),
            }
        }
        // Our own Secret comes right behind the pod.
        "CreateContainerConfigError" if message.contains(&gate_name(seen)) => None,
        // A busy node has not read its Secrets yet, and tries again.
        "CreateContainerConfigError" if is_busy(message) => None,
        "CreateContainerConfigError" if message.contains("runAsNonRoot") || settled => {
            failure(Reason::CreateConfigError)
        }
        "CreateContainerError" if is_busy(message) => {
            settled.then(|| Failure::new(Reason::StartError, of(message)))
        }
        "CreateContainerError" => failure(Reason::CreateConfigError),
        "RunContainerError" => failure(Reason::of_failed_start(start_code(0, message))),
        "CrashLoopBackOff" if container.role == Role::Init => failure(Reason::InitFailed),
        _ => None,
    }
}

/// Whether its node looked for the Secret that it starts by before it could be seen there. It looks again after ten
/// seconds and more, or when the pod changes.
pub(super) fn missed_its_gate(seen: &Seen) -> bool {
    seen.containers.iter().any(|it| match &it.state {
        State::Waiting { reason, message } => {
            reason == "CreateContainerConfigError"
                && (message.contains(&gate_name(seen)) || is_busy(message))
        }
        State::Running { .. } | State::Ended { .. } => false,
    })
}

fn gate_name(seen: &Seen) -> String {
    super::convert::gate_name(&seen.name, &seen.gate)
}

fn is_busy(message: &str) -> bool {
    ["deadline exceeded", "reserved", "timeout", "timed out"].iter().any(|it| message.contains(it))
}

/// What a node says of a pull. The text is all that it gives. None: nothing that could be understood, which
/// counts as a fault that passes.
pub(super) fn pull_failure(message: &str) -> Option<Reason> {
    const TRANSIENT: &[&str] = &[
        "qps exceeded",
        "rate limit",
        "toomanyrequests",
        "too many requests",
        "quota exceeded",
        "temporarily unavailable",
        "timeout",
        "timed out",
        "deadline exceeded",
        "bad gateway",
        "service unavailable",
        "internal server error",
        "connection refused",
        "connection reset",
        "no such host",
        "no route to host",
        "network is unreachable",
        "server misbehaving",
        "unexpected eof",
        "tls handshake",
        "unexpected status code 5",
        "unexpected status code 429",
    ];
    const AUTH: &[&str] = &[
        "unauthorized",
        "authentication required",
        "authorization failed",
        "no basic auth credentials",
        "denied",
        "forbidden",
        "unexpected status code 401",
        "unexpected status code 403",
    ];
    const MISSING: &[&str] = &[
        "not found",
        "manifest unknown",
        "name unknown",
        "does not exist",
        "no match for platform",
    ];
    const INVALID: &[&str] = &["invalid reference format", "couldn't parse image"];
    let text = message.to_ascii_lowercase();
    let has = |of: &[&str]| of.iter().any(|it| text.contains(it));
    if has(TRANSIENT) {
        Some(Reason::RegistryTransient)
    } else if has(AUTH) {
        Some(Reason::RegistryAuth)
    } else if has(MISSING) {
        Some(Reason::ImageNotFound)
    } else if has(INVALID) {
        Some(Reason::InvalidImage)
    } else {
        None
    }
}

/// The code that says why a container could not be started. Nodes give 128 to all of them, and the reason in
/// words.
fn start_code(code: i32, message: &str) -> i32 {
    let has = |text: &str| message.contains(text);
    if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("exec format error") || has("is a directory") {
        126
    } else {
        match code {
            0 => 128,
            SIGKILL_CODE => SIGKILL_CODE,
            code => code,
        }
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
