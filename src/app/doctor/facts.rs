//! What was found, before anything is made of it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::target::TargetCheck;
use crate::ids::{ObjectStoreId, TaskId, WorkerId};
use crate::store::{HeldAttempts, ObjectStoreInUse, SchemaState, ServerState, WorkerState};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unknown {
    /// What it rests on can't be asked; a check of its own says why.
    Skipped(&'static str),
    Failed(String),
}

pub(super) type Asked<T> = Result<T, Unknown>;

#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) service: ServiceFacts,
    pub(super) database: DatabaseFacts,
    pub(super) objects: ObjectFacts,
    pub(super) leases: Asked<LeaseFacts>,
    pub(super) engines: Vec<EngineFacts>,
    pub(super) clusters: Vec<ClusterFacts>,
}

/// The service that works with this data directory.
#[derive(Debug, Clone)]
pub(super) struct ServiceFacts {
    /// Its process, by the lock of the data directory.
    pub(super) process: Option<u32>,
    pub(super) api: Api,
}

/// What the service answers over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// It says nowhere where it listens.
    NoAddress,
    Silent {
        url: String,
        why: String,
    },
    Answers {
        url: String,
        readiness: Readiness,
        token: TokenState,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Targets that no worker reaches.
    Degraded(Vec<String>),
    NotReady(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenState {
    Works,
    Refused(String),
    /// This process takes no requests.
    NoApi,
}

#[derive(Debug, Clone)]
pub(super) struct DatabaseFacts {
    /// Without its password.
    pub(super) place: String,
    /// None: one that somebody named.
    pub(super) private: Option<PrivateFacts>,
    pub(super) server: Asked<ServerFacts>,
    pub(super) schema: Asked<SchemaState>,
}

#[derive(Debug, Clone)]
pub(super) struct PrivateFacts {
    pub(super) folder: PathBuf,
    pub(super) space: Option<Space>,
    pub(super) state: PrivateState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrivateState {
    None,
    Stopped,
    Moving(u32),
    Ready(u32),
    Hidden,
}

#[derive(Debug, Clone)]
pub(super) struct ServerFacts {
    pub(super) state: ServerState,
    pub(super) round_trip: Duration,
    pub(super) clock: Skew,
}

/// How far another clock is from this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew {
    /// Positive: the other one is ahead.
    pub(super) millis: i64,
    /// The answer was under way so long that it may be this much less.
    pub(super) unsure: i64,
}

impl Skew {
    /// `said` is what the other one answered to a question that was asked and answered in our time.
    pub(super) fn between(asked: Timestamp, said: Timestamp, answered: Timestamp) -> Self {
        let (asked, said, answered) =
            (asked.as_millisecond(), said.as_millisecond(), answered.as_millisecond());
        let way = (answered - asked).max(0);
        Self { millis: said - (asked + way / 2), unsure: way / 2 + 1 }
    }
}

/// Of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) free: u64,
    pub(super) total: u64,
}

#[derive(Debug, Clone)]
pub(super) struct ObjectFacts {
    pub(super) folder: PathBuf,
    /// Whether a file could be written there, synced, read and removed; None where there is no folder.
    pub(super) probe: Option<Result<Duration, String>>,
    pub(super) space: Option<Space>,
    pub(super) id: Result<Option<ObjectStoreId>, String>,
    pub(super) in_use: Asked<Option<ObjectStoreInUse>>,
}

#[derive(Debug, Clone)]
pub(super) struct LeaseFacts {
    pub(super) lease: Duration,
    pub(super) workers: Vec<WorkerState>,
    pub(super) held: Vec<HeldAttempts>,
    pub(super) here: Option<HereFacts>,
}

/// The worker whose identity is in this data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HereFacts {
    pub(super) worker: WorkerId,
    pub(super) hostname: String,
    /// So often another process took the identity while this was looked at.
    pub(super) taken: i64,
}

#[derive(Debug, Clone)]
pub(super) struct EngineFacts {
    pub(super) target: String,
    /// How to reach it; None: it is a part of the worker.
    pub(super) host: Option<String>,
    pub(super) engine: Result<Engine, String>,
    /// On which engines live attempts of this target are.
    pub(super) given: Asked<Vec<Given>>,
    pub(super) sandboxes: Asked<Sandboxes>,
}

#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) storage_driver: String,
    /// Whether it can keep logs as attempts need it.
    pub(super) keeps_logs: bool,
    /// Where it is on this machine.
    pub(super) space: Option<Space>,
    pub(super) clock: Option<Skew>,
}

/// A target of kind kubernetes.
#[derive(Debug, Clone)]
pub(super) struct ClusterFacts {
    pub(super) target: String,
    pub(super) cluster: Result<Cluster, String>,
    /// In which clusters live attempts of this target are.
    pub(super) given: Asked<Vec<Given>>,
    pub(super) pods: Asked<Sandboxes>,
}

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Its address.
    pub(super) place: String,
    pub(super) version: String,
    pub(super) id: String,
    /// What our credentials may not do, and what is worth a second look.
    pub(super) rights: Asked<TargetCheck>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) engine: String,
    pub(super) attempts: i64,
    /// A worker whose lease is valid reaches it.
    pub(super) reached: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Sandboxes {
    pub(super) installation: String,
    pub(super) live: usize,
    /// Put aside on purpose.
    pub(super) kept: usize,
    /// Names of those whose attempt the database does not know.
    pub(super) unknown: Vec<String>,
    /// Names of those whose attempt ended a while ago.
    pub(super) left_over: Vec<String>,
    /// Tasks whose attempt was started here, and whose sandbox is not there.
    pub(super) missing: Vec<TaskId>,
    /// Of other installations.
    pub(super) others: usize,
    /// There are more than were looked at.
    pub(super) cut: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_in_the_middle_of_the_way() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let skew = |asked, said, answered| Skew::between(at(asked), at(said), at(answered));
        assert_eq!(skew(1_000, 1_050, 1_100), Skew { millis: 0, unsure: 51 });
        assert_eq!(skew(1_000, 7_000, 1_000), Skew { millis: 6_000, unsure: 1 });
        assert_eq!(skew(10_000, 1_000, 10_000), Skew { millis: -9_000, unsure: 1 });
        // Our own clock was set back meanwhile.
        assert_eq!(skew(2_000, 2_000, 1_000), Skew { millis: 0, unsure: 1 });
    }
}
