//! Docker and what speaks its API.
//!
//! - [`events`] keeps the session: which engine answers, whether it does, what changes.
//! - [`launch`] is the launch protocol; [`convert`] and [`observe`] are its pure parts.
//! - [`logs`], [`collect`] and [`pull`] are streams of their own, without a limit but their own.
//!
//! Not here: retries, deadlines of a task, what an exit means.

mod archive;
mod collect;
mod convert;
mod errors;
mod events;
mod launch;
mod logs;
mod observe;
mod outages;
pub mod probe;
mod pull;
mod render;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
};
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::errors::Fault;
use self::events::Session;
use self::logs::Part;
use self::observe::{Phase, Seen};
use self::probe::Probe;
pub use self::render::render;
pub use self::transport::HostError;
use super::{
    CollectRequest, Collected, Disposal, EngineId, EngineState, Handle, KillAck, KillMode,
    LaunchError, LaunchRequest, Launched, LogFrame, Observation, OutputSink, OwnedSandbox,
    Progress, Runner, RunnerError, RunnerKind, SandboxKey, TargetCheck, WaitError, naming,
};
use crate::domain::exit::ExitReport;
use crate::failpoints::{self, Guard, Point};
use crate::ids::{Fence, InstallationId};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
const LAUNCH_TIMEOUT: Duration = Duration::from_mins(2);
const LOG_MAX_BYTES: u64 = 1 << 30;
const HANDLE_VERSION: u32 = 1;
/// Between two looks at what the engine is doing and gives no event for.
const POLL: Duration = Duration::from_millis(100);
/// Between two attempts of `wait` at an engine that does not answer although its session lasts.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How to reach an engine, and within which bounds.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// As in `DOCKER_HOST`: `unix:///path`, `tcp://host:port`. None: the local socket.
    pub host: Option<String>,
    pub installation: InstallationId,
    /// How much of a log the engine keeps.
    pub log_max_bytes: u64,
    /// Of every plain call.
    pub call_timeout: Duration,
    /// Of a create or start: a busy engine takes its time.
    pub launch_timeout: Duration,
}

impl DockerConfig {
    pub const fn new(installation: InstallationId) -> Self {
        Self {
            host: None,
            installation,
            log_max_bytes: LOG_MAX_BYTES,
            call_timeout: CALL_TIMEOUT,
            launch_timeout: LAUNCH_TIMEOUT,
        }
    }
}

/// Runs attempts as containers of one engine.
#[derive(Debug)]
pub struct DockerRunner {
    config: DockerConfig,
    session: Arc<Session>,
    pulls: pull::Pulls,
    /// Calls that go on when their callers give up.
    tasks: TaskTracker,
    session_task: AbortHandle,
}

/// What a [`Handle`] of this runner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    container: String,
    engine: EngineId,
}

impl Pointer {
    fn handle(&self) -> Handle {
        let state = serde_json::json!({"container": self.container, "engine": self.engine});
        Handle { version: HANDLE_VERSION, state }
    }

    fn read(handle: &Handle) -> Result<Self, RunnerError> {
        if handle.version != HANDLE_VERSION {
            return Err(RunnerError::Foreign(format!(
                "a handle of version {} is not ours",
                handle.version
            )));
        }
        Self::deserialize(&handle.state)
            .map_err(|it| RunnerError::Foreign(format!("not a handle of ours: {it}")))
    }
}

impl DockerRunner {
    /// Returns at once, whether the engine is up or not; must be called within a tokio runtime.
    pub fn new(config: DockerConfig) -> Result<Self, HostError> {
        let tasks = TaskTracker::new();
        let docker = transport::connect(config.host.as_deref(), &tasks)?;
        let session = Arc::new(Session::new(docker, config.installation, config.call_timeout));
        let session_task = tasks.spawn(Arc::clone(&session).run()).abort_handle();
        Ok(Self { config, session, pulls: pull::Pulls::default(), tasks, session_task })
    }

    /// What the engine has under this name or id, if it is the attempt's.
    async fn seen_as(&self, name: &str, key: &SandboxKey) -> Result<Option<Seen>, RunnerError> {
        let Some(seen) = self.session.inspect(name, key.attempt).await? else {
            return Ok(None);
        };
        match naming::owner(key.installation, |label| seen.labels.get(label).cloned()) {
            Some((_, attempt)) if attempt == key.attempt => Ok(Some(seen)),
            _ => Err(RunnerError::Foreign(format!(
                "the name {name} is taken by a container of somebody else"
            ))),
        }
    }

    /// What the engine has of the attempt, under whatever name, but for what was put aside.
    async fn seen(&self, key: &SandboxKey) -> Result<Option<Seen>, RunnerError> {
        match self.discover(key).await? {
            Some(id) => self.seen_as(&id, key).await,
            // A list may be behind: the name tells.
            None => self.seen_as(&naming::sandbox_name(key), key).await,
        }
    }

    /// The id of the attempt's container, but for what was put aside. Where there are several, all but one
    /// were made late and never started.
    async fn discover(&self, key: &SandboxKey) -> Result<Option<String>, RunnerError> {
        let found = self.session.list_attempt(key).await?;
        let found = found.into_iter().filter(|it| !is_put_aside(it));
        Ok(found.max_by_key(events::has_started).and_then(|it| it.id))
    }

    async fn remove_all(&self, key: &SandboxKey) -> Result<(), RunnerError> {
        for it in self.session.list_attempt(key).await? {
            if let Some(id) = it.id {
                self.remove(&id).await?;
            }
        }
        Ok(())
    }

    fn observation(engine: &EngineId, seen: Seen) -> Result<Observation, RunnerError> {
        let handle = Pointer { container: seen.id, engine: engine.clone() }.handle();
        Ok(match seen.phase {
            Phase::Created => Observation::Created,
            Phase::Running { started_at } => Observation::Running { handle, started_at },
            Phase::Ended(report) => Observation::Exited { handle, report },
            Phase::Removing => {
                return Err(RunnerError::Unavailable("it is being removed".to_owned()));
            }
        })
    }

    async fn rename(&self, container: &str, name: &str) -> Result<(), RunnerError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        match self.session.call(self.session.docker.rename_container(container, options)).await {
            Ok(()) | Err(Fault::Status { code: 404, .. }) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn remove(&self, name: &str) -> Result<bool, RunnerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let call = self.session.call(self.session.docker.remove_container(name, Some(options)));
        let (removed, ()) = tokio::join!(call, failpoints::in_flight(Point::RemoveInFlight));
        match removed {
            Ok(()) => Ok(true),
            Err(Fault::Status { code: 404, .. }) => Ok(false),
            // Somebody is at it already.
            Err(Fault::Status { code: 409, .. }) => self.gone(name).await.map(|()| true),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn gone(&self, name: &str) -> Result<(), RunnerError> {
        let deadline = Instant::now() + self.config.call_timeout;
        while self.session.exists(name).await? {
            if Instant::now() > deadline {
                return Err(RunnerError::Unavailable(format!("{name} is still being removed")));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn put_aside(&self, key: &SandboxKey) -> Result<(), RunnerError> {
        let Some(seen) = self.seen(key).await? else { return Ok(()) };
        match seen.phase {
            Phase::Running { .. } => {
                Err(RunnerError::Unavailable("it still runs and can't be put aside".to_owned()))
            }
            Phase::Created | Phase::Ended(_) if failpoints::holds(Guard::RenameKept) => {
                self.rename(&seen.id, &naming::kept_name(key)).await?;
                failpoints::at(Point::KeptRenamed);
                Ok(())
            }
            Phase::Created | Phase::Ended(_) | Phase::Removing => Ok(()),
        }
    }
}

fn is_put_aside(it: &ContainerSummary) -> bool {
    it.names.iter().flatten().any(|name| naming::is_kept_name(name))
}

impl Drop for DockerRunner {
    fn drop(&mut self) {
        self.session_task.abort();
    }
}

#[async_trait]
impl Runner for DockerRunner {
    async fn check(&self) -> TargetCheck {
        let probe = match Probe::new(self.config.host.as_deref()) {
            Ok(probe) => probe,
            Err(error) => return TargetCheck::unreachable(error.to_string()),
        };
        match tokio::time::timeout(CHECK_TIMEOUT, probe.describe()).await {
            Ok(Ok(it)) => probe::judge(it),
            Ok(Err(why)) => TargetCheck::unreachable(why),
            Err(_) => {
                TargetCheck::unreachable(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()))
            }
        }
    }

    fn kind(&self) -> RunnerKind {
        RunnerKind::Docker
    }

    fn engine(&self) -> watch::Receiver<EngineState> {
        self.session.state()
    }

    async fn launch(
        &self,
        request: &LaunchRequest<'_>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Launched, LaunchError> {
        launch::Launch::new(self, request, progress, cancel).run().await
    }

    async fn inspect(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
    ) -> Result<Observation, RunnerError> {
        self.session.with(engine)?;
        let Some(seen) = self.seen(key).await? else {
            self.session.confirm(engine).await?;
            return Ok(Observation::Absent);
        };
        Self::observation(engine, seen)
    }

    async fn adopt(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
        took_over: Fence,
    ) -> Result<Observation, RunnerError> {
        self.session.with(engine)?;
        if let Some(container) = self.discover(key).await?
            && failpoints::holds(Guard::RenameAdopted)
        {
            self.rename(&container, &naming::held_name(key, Some(took_over))).await?;
            failpoints::at(Point::AdoptRenamed);
        }
        // Only now: a start of before may have come in between.
        self.inspect(key, engine).await
    }

    async fn wait(&self, key: &SandboxKey, handle: &Handle) -> Result<ExitReport, WaitError> {
        let pointer = Pointer::read(handle)?;
        let mut watch = self.session.watch(&pointer.container);
        loop {
            let link = self.session.linked().await;
            self.session.with(&pointer.engine).or_else(|error| match error {
                // It went down in this very moment.
                RunnerError::Unavailable(_) => Ok(link.clone()),
                other => Err(other),
            })?;
            watch.mark_seen();
            let asked = match self.session.inspect(&pointer.container, key.attempt).await {
                Ok(Some(Seen { phase: Phase::Ended(report), .. })) => return Ok(report),
                Ok(Some(_)) => true,
                Ok(None) => match self.session.confirm(&pointer.engine).await {
                    Ok(()) => return Err(WaitError::Vanished),
                    Err(error @ RunnerError::OtherEngine { .. }) => return Err(error.into()),
                    Err(_) => false,
                },
                Err(_) => false,
            };
            tokio::select! {
                () = watch.changed() => {}
                () = self.session.lost(link) => {}
                () = sleep(ASK_AGAIN), if !asked => {}
            }
        }
    }

    fn side_logs(&self, _handle: &Handle) -> Vec<(String, Handle)> {
        Vec::new()
    }

    fn logs(
        &self,
        handle: &Handle,
        since: Option<i64>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        logs::read(Arc::clone(&self.session), Pointer::read(handle), Part::From(since, follow))
    }

    fn log_end(
        &self,
        handle: &Handle,
        frames: usize,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        logs::read(Arc::clone(&self.session), Pointer::read(handle), Part::Last(frames))
    }

    async fn kill(&self, key: &SandboxKey, mode: KillMode) -> Result<KillAck, RunnerError> {
        self.session.link()?;
        let Some(seen) = self.seen(key).await? else {
            return Ok(KillAck::AlreadyGone);
        };
        if !matches!(seen.phase, Phase::Running { .. }) {
            return Ok(KillAck::AlreadyGone);
        }
        let signal = match mode {
            KillMode::Graceful => seen.stop_signal.as_deref().unwrap_or("SIGTERM"),
            KillMode::Force => "SIGKILL",
        };
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.session.note_kill(key.attempt);
        match self.session.call(self.session.docker.kill_container(&seen.id, Some(options))).await {
            Ok(()) => Ok(KillAck::Sent),
            Err(Fault::Status { code: 404 | 409, .. }) => Ok(KillAck::AlreadyGone),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn collect(
        &self,
        handle: &Handle,
        request: &CollectRequest,
        sink: &dyn OutputSink,
    ) -> Result<Collected, RunnerError> {
        collect::collect(&self.session, &Pointer::read(handle)?, request, sink).await
    }

    async fn cleanup(&self, key: &SandboxKey, disposal: Disposal) -> Result<(), RunnerError> {
        self.session.link()?;
        match disposal {
            Disposal::Remove => {
                if !self.remove(&naming::sandbox_name(key)).await? {
                    self.remove_all(key).await?;
                }
            }
            Disposal::Keep => self.put_aside(key).await?,
        }
        self.session.forget(key.attempt);
        Ok(())
    }

    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError> {
        self.session.link()?;
        let list = self.session.list().await?;
        let owned = list.into_iter().filter_map(|it| {
            let kept = is_put_aside(&it);
            let labels = it.labels.unwrap_or_default();
            let (task, attempt) =
                naming::owner(self.config.installation, |label| labels.get(label).cloned())?;
            let created_at = Timestamp::from_second(it.created.unwrap_or_default()).ok()?;
            Some(OwnedSandbox { attempt, task, created_at, kept })
        });
        Ok(owned.collect())
    }
}
