//! What goes over the [`Runner`](super::Runner) interface.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use crate::domain::exit::ExitReport;
use crate::domain::failure::Failure;
use crate::domain::outcome::StoredFile;
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::domain::target::TargetCheck;
use crate::ids::{AttemptId, AttemptNo, Fence, InstallationId, RunId, TaskId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunnerKind {
    Docker,
    Kubernetes,
    Simulated,
}

impl RunnerKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
            Self::Simulated => "simulated",
        }
    }
}

/// Names a sandbox on its backend: everything but the exit, the log and the outputs is reached by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxKey {
    pub installation: InstallationId,
    pub attempt: AttemptId,
}

/// The identity an engine gives itself (Docker's `/info` ID): "not found" counts only from the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineId(pub String);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an engine can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Not asked yet.
    Connecting,
    Ready {
        id: EngineId,
        version: String,
        /// The machine that it is on, as it calls itself.
        node: Option<String>,
    },
    Down {
        since: Timestamp,
        why: String,
    },
}

impl From<&EngineState> for TargetCheck {
    fn from(it: &EngineState) -> Self {
        match it {
            EngineState::Connecting => Self::unreachable("connecting"),
            EngineState::Ready { id, version, node: _ } => Self {
                reachable: true,
                version: Some(version.clone()),
                engine: Some(id.0.clone()),
                ..Self::default()
            },
            EngineState::Down { why, .. } => Self::unreachable(why),
        }
    }
}

/// Points at a sandbox on its backend. Opaque to everyone but the runner that made it, stored with the
/// attempt, versioned for upgrades.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    pub version: u32,
    pub state: serde_json::Value,
}

#[derive(Debug)]
pub struct LaunchRequest<'a> {
    pub key: SandboxKey,
    pub run: RunId,
    pub task: TaskId,
    pub attempt_no: AttemptNo,
    pub spec: &'a TaskSpec,
    pub spec_hash: &'a SpecHash,
    /// The attempt was given to this engine: another one must not launch it.
    pub engine: &'a EngineId,
    /// The fence of a holder that took the attempt over, and adopted what there was of it.
    pub took_over: Option<Fence>,
}

#[derive(Debug, Clone)]
pub struct Launched {
    pub handle: Handle,
    pub started_at: Timestamp,
    /// What exactly runs, where the engine can say (`sha256:…`).
    pub image_digest: Option<String>,
    /// It had been launched before this call.
    pub already: bool,
}

/// Who launches: hears of the steps as they happen, and is asked before the one that can't be undone.
pub trait Progress: Send + Sync {
    /// (reason, message), for the events of the task.
    fn step(&self, reason: &'static str, message: String);

    /// From now on it waits for others, for long perhaps: for an image, for a place on a node. Another launch
    /// may use the engine meanwhile.
    fn waits(&self);

    /// Whether the attempt is certainly still the launching holder's. Asked right before the start is sent:
    /// making a sandbox may have taken longer than a lease, or the whole process may have stood still.
    fn may_start(&self) -> bool;
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Certainly not started, and why; whether it is tried again is in the table of reasons.
    #[error("refused: {}", .0.message)]
    Refused(Failure),
    /// Certainly not started: the engine can't be asked now.
    #[error("the engine can't be asked: {0}")]
    Unavailable(String),
    /// May have been started: inspect before anything else.
    #[error("the answer of the engine was lost: {0}")]
    Indeterminate(String),
    /// Given up on request, or no longer sure to be the holder's. Certainly not started by this call.
    #[error("given up on request")]
    Cancelled,
}

#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// No answer, or one that says nothing: ask again later.
    #[error("the engine can't be asked: {0}")]
    Unavailable(String),
    /// Another engine answers at this target.
    #[error("the target is now engine {found}, the attempt was given to {expected}")]
    OtherEngine { expected: EngineId, found: EngineId },
    /// A sandbox with this name is not ours, or was made from another spec.
    #[error("{0}")]
    Foreign(String),
}

#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The engine that had it says that it is gone.
    #[error("the sandbox is gone")]
    Vanished,
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

/// What the engine knows of a sandbox. What it can't say is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The engine says that there is none.
    Absent,
    /// Made and not started.
    Created,
    Running {
        handle: Handle,
        started_at: Timestamp,
    },
    /// Ended; or its start failed for good.
    Exited {
        handle: Handle,
        report: ExitReport,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillMode {
    /// The image's stop signal, SIGTERM by default.
    Graceful,
    /// SIGKILL.
    Force,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillAck {
    Sent,
    /// It does not run.
    AlreadyGone,
}

/// What becomes of a sandbox that is accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// Whatever state it is in.
    Remove,
    /// Put aside under another name. It must have ended.
    Keep,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectRequest {
    /// The file that `$SUPERCARGO_OUTPUT` names is read up to this size.
    pub json_limit: u64,
    /// Output name → path in the sandbox.
    pub files: BTreeMap<String, String>,
    pub file_limit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    pub json: JsonFile,
    pub files: BTreeMap<String, FileResult>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonFile {
    Absent,
    Bytes(Vec<u8>),
    TooLarge {
        size: u64,
    },
    /// The backend hands back so many bytes of it at most, unless the task declares what is in it.
    Cut {
        at: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileResult {
    Stored(StoredFile),
    Missing,
    TooLarge {
        size: u64,
    },
    /// There, and not something that can be handed back (a device, a socket).
    Unsuitable(String),
}

/// Takes the file outputs of one attempt.
#[async_trait]
pub trait OutputSink: Send + Sync {
    /// Stores what `body` gives, for good, in place of anything stored under this name before.
    async fn store(
        &self,
        name: &str,
        path: &str,
        media_type: &str,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<StoredFile, SinkError>;
}

#[derive(Debug, thiserror::Error)]
#[error("the object store can't take it: {0}")]
pub struct SinkError(pub String);

impl From<SinkError> for RunnerError {
    fn from(it: SinkError) -> Self {
        Self::Unavailable(it.to_string())
    }
}

/// A sandbox with the label of an installation, as somebody finds it who runs nothing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    pub name: String,
    /// None: its labels don't say.
    pub owner: Option<(TaskId, AttemptId)>,
    /// Put aside on purpose.
    pub kept: bool,
}

/// The sandboxes of all installations on an engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub own: Vec<Labelled>,
    pub others: usize,
    /// There may be more.
    pub cut: bool,
}

/// A sandbox found on a backend by its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedSandbox {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub created_at: Timestamp,
    /// Put aside on purpose.
    pub kept: bool,
}
