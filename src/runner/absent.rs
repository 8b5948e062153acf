//! Stands for a backend that nobody could connect to: it says why, and does nothing.

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    CollectRequest, Collected, Disposal, EngineId, EngineState, Handle, KillAck, KillMode,
    LaunchError, LaunchRequest, Launched, LogFrame, Observation, OutputSink, OwnedSandbox,
    Progress, Runner, RunnerError, RunnerKind, SandboxKey, WaitError,
};
use crate::domain::exit::ExitReport;
use crate::ids::Fence;

#[derive(Debug)]
pub struct AbsentRunner {
    kind: RunnerKind,
    why: String,
    state: watch::Sender<EngineState>,
}

impl AbsentRunner {
    pub fn new(kind: RunnerKind, why: impl Into<String>, since: Timestamp) -> Self {
        let why = why.into();
        let state = watch::channel(EngineState::Down { since, why: why.clone() }).0;
        Self { kind, why, state }
    }

    fn error(&self) -> RunnerError {
        RunnerError::Unavailable(self.why.clone())
    }
}

#[async_trait]
impl Runner for AbsentRunner {
    fn kind(&self) -> RunnerKind {
        self.kind
    }

    fn engine(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    async fn launch(
        &self,
        _: &LaunchRequest<'_>,
        _: &dyn Progress,
        _: &CancellationToken,
    ) -> Result<Launched, LaunchError> {
        Err(LaunchError::Unavailable(self.why.clone()))
    }

    async fn adopt(
        &self,
        _: &SandboxKey,
        _: &EngineId,
        _: Fence,
    ) -> Result<Observation, RunnerError> {
        Err(self.error())
    }

    async fn inspect(&self, _: &SandboxKey, _: &EngineId) -> Result<Observation, RunnerError> {
        Err(self.error())
    }

    async fn wait(&self, _: &SandboxKey, _: &Handle) -> Result<ExitReport, WaitError> {
        Err(self.error().into())
    }

    fn side_logs(&self, _: &Handle) -> Vec<(String, Handle)> {
        Vec::new()
    }

    fn logs(
        &self,
        _: &Handle,
        _: Option<i64>,
        _: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        let error = self.error();
        stream::once(async { Err(error) }).boxed()
    }

    fn log_end(&self, _: &Handle, _: usize) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        let error = self.error();
        stream::once(async { Err(error) }).boxed()
    }

    async fn kill(&self, _: &SandboxKey, _: KillMode) -> Result<KillAck, RunnerError> {
        Err(self.error())
    }

    async fn collect(
        &self,
        _: &Handle,
        _: &CollectRequest,
        _: &dyn OutputSink,
    ) -> Result<Collected, RunnerError> {
        Err(self.error())
    }

    async fn cleanup(&self, _: &SandboxKey, _: Disposal) -> Result<(), RunnerError> {
        Err(self.error())
    }

    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError> {
        Err(self.error())
    }
}
