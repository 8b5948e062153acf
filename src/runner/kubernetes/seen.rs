//! A pod as this service needs it: what the watch keeps of each, a few hundred bytes. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::convert::{COLLECTOR, GATE_ANNOTATION, MAIN};

/// Put aside on purpose.
/// What a node says of a container that ran there and that it can't find.
pub(super) const LOST: &str = "ContainerStatusUnknown";
pub(super) const LABEL_KEPT: &str = "supercargo.dev/kept";

/// One pod as the API server describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) labels: BTreeMap<String, String>,
    /// The random part of the name of its Secret.
    pub(super) gate: String,
    pub(super) created_at: Timestamp,
    pub(super) deletion: Option<Deletion>,
    /// Who wants to be asked before it goes.
    pub(super) finalizers: Vec<String>,
    pub(super) node: Option<String>,
    pub(super) phase: Phase,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) scheduled: Scheduled,
    /// Why it was put out, by the condition that newer clusters set.
    pub(super) disruption: Option<(String, String)>,
    /// In the order of the pod.
    pub(super) containers: Vec<Container>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    /// The node does not say.
    Unknown,
}

/// Somebody asked for its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) asked_at: Timestamp,
    pub(super) due_at: Timestamp,
    /// Its node has done what it had to, or somebody does not want to wait for it.
    pub(super) is_confirmed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheduled {
    At(Timestamp),
    /// With what the scheduler says, if it has tried.
    NotYet(Option<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) state: State,
    pub(super) image_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
    Side,
    Collector,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        started_at: Option<Timestamp>,
    },
    Ended {
        code: i32,
        reason: String,
        message: String,
        started_at: Option<Timestamp>,
        finished_at: Option<Timestamp>,
    },
}

impl State {
    /// It is not certain that it never ran.
    pub(super) fn has_run(&self) -> bool {
        match self {
            Self::Waiting { .. } => false,
            Self::Running { .. } => true,
            Self::Ended { started_at, reason, .. } => started_at.is_some() || reason == LOST,
        }
    }
}

impl Seen {
    /// None: not a pod that this service could have made.
    pub(super) fn read(pod: Pod) -> Option<Self> {
        let metadata = pod.metadata;
        let spec = pod.spec?;
        let status = pod.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let condition = |name: &str| conditions.iter().find(|it| it.type_ == name);
        let scheduled = match condition("PodScheduled") {
            Some(it) if it.status == "True" => {
                Scheduled::At(it.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, time))
            }
            Some(it) => Scheduled::NotYet(it.message.clone()),
            None => Scheduled::NotYet(None),
        };
        let disruption = condition("DisruptionTarget").filter(|it| it.status == "True").map(|it| {
            (it.reason.clone().unwrap_or_default(), it.message.clone().unwrap_or_default())
        });
        let deletion = metadata.deletion_timestamp.as_ref().map(|due| {
            let grace = metadata.deletion_grace_period_seconds.unwrap_or_default();
            let due_at = time(due);
            let asked_at = due_at.checked_sub(SignedDuration::from_secs(grace)).unwrap_or(due_at);
            Deletion { asked_at, due_at, is_confirmed: grace == 0 }
        });
        let of = |statuses: &Option<Vec<ContainerStatus>>, name: &str| {
            statuses.iter().flatten().find(|it| it.name == name).cloned()
        };
        let init = spec.init_containers.iter().flatten().map(|it| {
            container(&it.name, Role::Init, of(&status.init_container_statuses, &it.name))
        });
        let others = spec.containers.iter().map(|it| {
            let role = match it.name.as_str() {
                MAIN => Role::Main,
                COLLECTOR => Role::Collector,
                _ => Role::Side,
            };
            container(&it.name, role, of(&status.container_statuses, &it.name))
        });
        Some(Self {
            containers: init.chain(others).collect(),
            name: metadata.name?,
            namespace: metadata.namespace?,
            uid: metadata.uid?,
            gate: metadata.annotations.unwrap_or_default().remove(GATE_ANNOTATION)?,
            labels: metadata.labels.unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, time),
            deletion,
            finalizers: metadata.finalizers.unwrap_or_default(),
            node: spec.node_name,
            phase: match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            reason: status.reason.unwrap_or_default(),
            message: status.message.unwrap_or_default(),
            scheduled,
            disruption,
        })
    }

    pub(super) fn main(&self) -> Option<&Container> {
        self.containers.iter().find(|it| it.role == Role::Main)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.labels.contains_key(LABEL_KEPT)
    }

    /// Nothing of it runs, and nothing will: it has ended, or never came to a node.
    pub(super) fn is_over(&self) -> bool {
        let all_ended = self.containers.iter().all(|it| matches!(it.state, State::Ended { .. }));
        let none_runs = self.running().next().is_none();
        let confirmed = self.deletion.is_some_and(|it| it.is_confirmed);
        match self.phase {
            Phase::Succeeded => true,
            Phase::Failed => none_runs || confirmed,
            Phase::Pending if self.node.is_none() => true,
            // What never ran has no end to tell of.
            Phase::Pending if confirmed => none_runs,
            Phase::Pending | Phase::Running | Phase::Unknown => all_ended,
        }
    }

    /// Its node has given it up and is ending its containers. Older ones never say when they have.
    pub(super) fn is_dying(&self) -> bool {
        self.phase == Phase::Failed && self.running().next().is_some()
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|it| matches!(it.state, State::Running { .. }))
    }

    /// A container of it may have run.
    pub(super) fn has_run(&self) -> bool {
        self.containers.iter().any(|it| it.state.has_run())
    }
}

fn container(name: &str, role: Role, status: Option<ContainerStatus>) -> Container {
    let image_id = status.as_ref().map(|it| it.image_id.clone()).filter(|it| !it.is_empty());
    let (now, last) = status.map(|it| (it.state, it.last_state)).unwrap_or_default();
    // No container of ours starts twice: one that waits again is one that its node has lost.
    let waits = now.as_ref().is_none_or(|it| it.running.is_none() && it.terminated.is_none());
    let last = last.filter(|it| waits && it.terminated.is_some());
    let state = last.or(now).map_or_else(waiting, state);
    Container { name: name.to_owned(), role, state, image_id }
}

const fn waiting() -> State {
    State::Waiting { reason: String::new(), message: String::new() }
}

fn state(state: ContainerState) -> State {
    if let Some(it) = state.terminated {
        return State::Ended {
            code: it.exit_code,
            reason: it.reason.unwrap_or_default(),
            message: it.message.unwrap_or_default(),
            started_at: it.started_at.as_ref().map(time).filter(|it| *it > Timestamp::UNIX_EPOCH),
            finished_at: it.finished_at.as_ref().map(time).filter(|it| *it > Timestamp::UNIX_EPOCH),
        };
    }
    if let Some(it) = state.running {
        return State::Running { started_at: it.started_at.as_ref().map(time) };
    }
    match state.waiting {
        Some(it) => State::Waiting {
            reason: it.reason.unwrap_or_default(),
            message: it.message.unwrap_or_default(),
        },
        None => waiting(),
    }
}

fn time(it: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> Timestamp {
    it.0
}
