//! Execution backends: where the sandbox of an attempt runs.
//!
//! # Contract of a [`Runner`]
//!
//! One suite (`tests/it/runner_conformance.rs`) holds every implementation to these rules.
//!
//! - **Identity.** A sandbox belongs to a [`SandboxKey`]; its name is computed from the key, its labels
//!   carry installation, run, task, attempt and spec hash ([`naming`]). No fence: after a crash the
//!   same sandbox is adopted by whoever drives the attempt next.
//! - **`launch` ensures** that one sandbox for the key exists and has been told to start. A name that is
//!   taken means "mine, made before": compare the labels, adopt. It starts only after an inspect in the
//!   same step says *created*, and its holder says that it may; a list only discovers. Calling it again
//!   never starts anything twice.
//! - **Late requests start nothing.** A process may stand still for minutes with a request on its lips. It
//!   asks right before the start whether it is still the holder, and whoever took over has made sure
//!   ([`Runner::adopt`]) that a start of before finds nothing.
//! - **Absent is a strong word.** Only the engine that the attempt was given to ([`EngineId`]) can say so.
//!   Every doubt is an error, and callers do nothing on an error but ask again.
//! - **A vanished sandbox is not an exit.** `wait` then fails with [`WaitError::Vanished`].
//! - **The sandbox never waits for us.** Logs are read from the engine's own store, from any point, as
//!   often as needed; `wait`, `logs` and `collect` are independent, repeatable and may be dropped at any time.
//! - **Every call is bounded** by the runner's own call timeout, but for `wait` and a followed log, which
//!   last as long as the sandbox, and the pull, which `timeouts.pull` bounds.
//! - **Errors are classified by status and typed reason**, never by message text.

mod absent;
#[cfg(feature = "docker")]
pub mod docker;
pub mod fake;
#[cfg(any(feature = "docker", feature = "kubernetes"))]
mod files;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod naming;
mod registry;
mod types;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::exit::ExitReport;
pub use crate::domain::log::{LogFrame, LogStream};
pub use crate::domain::target::TargetCheck;
use crate::ids::Fence;

pub use absent::AbsentRunner;
pub use registry::{Connected, EngineWatch, Registry, Targets};

pub use types::{
    CollectRequest, Collected, Disposal, EngineId, EngineState, FileResult, Found, Handle,
    JsonFile, KillAck, KillMode, Labelled, LaunchError, LaunchRequest, Launched, Observation,
    OutputSink, OwnedSandbox, Progress, RunnerError, RunnerKind, SandboxKey, SinkError, WaitError,
};

/// One way of executing attempts. The module documentation is its contract.
#[async_trait]
pub trait Runner: fmt::Debug + Send + Sync + 'static {
    fn kind(&self) -> RunnerKind;

    /// Whether the engine answers, and which one it is. The runner keeps it up to date by itself; a
    /// target that is not ready claims nothing.
    fn engine(&self) -> watch::Receiver<EngineState>;

    /// Asks the engine now whether tasks could run on it, and what is lacking. Bounded as every call.
    async fn check(&self) -> TargetCheck {
        TargetCheck::from(&*self.engine().borrow())
    }

    /// Ensures that the sandbox exists and has been told to start. `cancel` gives up between steps and
    /// in the pull, never with a create or start in flight.
    async fn launch(
        &self,
        request: &LaunchRequest<'_>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Launched, LaunchError>;

    /// [`inspect`](Self::inspect) by a holder that took the attempt over. What the holder before it may still
    /// have sent must not start anything from now on: on Docker the sandbox gets another name, as starts go
    /// by name.
    async fn adopt(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
        took_over: Fence,
    ) -> Result<Observation, RunnerError>;

    /// What the engine knows of the sandbox, under whatever name. `engine` is the one that the attempt was given to: another
    /// one answering is [`RunnerError::OtherEngine`], never `Absent`.
    async fn inspect(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
    ) -> Result<Observation, RunnerError>;

    /// Waits for the exit.
    async fn wait(&self, key: &SandboxKey, handle: &Handle) -> Result<ExitReport, WaitError>;

    /// The logs beside that of the main container: the name of each container, and the handle that
    /// [`logs`](Self::logs) reads it by.
    fn side_logs(&self, handle: &Handle) -> Vec<(String, Handle)>;

    /// The log from the frames of `since` (nanoseconds since the epoch, inclusive) on, in the engine's
    /// order, which is the same at each reading. Followed, it ends after the exit, and may lack its very
    /// end (Docker leaves out a last line without a line end): it is whole when read without `follow`.
    fn logs(
        &self,
        handle: &Handle,
        since: Option<i64>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>>;

    /// The end of what `logs` reads without `follow`: the last frames, at least so many if there are, read
    /// without what is before them. A first line may have lost its beginning.
    fn log_end(
        &self,
        handle: &Handle,
        frames: usize,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>>;

    /// Where the engine puts a log aside from time to time, and then reads what came later alone: the least
    /// time between two such moments. What is read more often than that is whole.
    fn log_turnover(&self) -> Option<Duration> {
        None
    }

    /// Asks for the end of the sandbox; `wait` sees it. Works by key alone.
    async fn kill(&self, key: &SandboxKey, mode: KillMode) -> Result<KillAck, RunnerError>;

    /// Reads the outputs of a sandbox that has exited. Repeating it stores the same again.
    async fn collect(
        &self,
        handle: &Handle,
        request: &CollectRequest,
        sink: &dyn OutputSink,
    ) -> Result<Collected, RunnerError>;

    /// Removes everything that the sandbox owns, or puts it aside under another name so that a late
    /// start finds nothing. Idempotent, and safe after a half-done launch. Where a holder before made one
    /// late that was never started, one call may remove that alone: [`inspect`](Self::inspect) tells.
    async fn cleanup(&self, key: &SandboxKey, disposal: Disposal) -> Result<(), RunnerError>;

    /// Every sandbox of this installation, those put aside too.
    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError>;
}
