//! Kubernetes: one bare pod for each attempt.
//!
//! - [`access`] makes a client of what an operator says, [`credentials`] when there has to be one, or another;
//!   [`session`] keeps watch: which cluster answers, whether it does, and one watch per namespace instead of questions about each pod.
//! - [`launch`] is the launch protocol; [`convert`], [`merge`], [`seen`] and [`observe`] are its pure parts.
//! - [`logs`] and [`collect`] are streams of their own, without a limit but their own.
//!
//! **A create starts nothing.** Every container of a pod takes a variable from a Secret that is made after the
//! pod, owned by it, under a name with a random part that the pod names: making it is the start. So a pod
//! that is made late, by a process that stood still, never runs; and a start that comes late finds no pod to
//! own it. Who takes over a pod that was not started makes the Secret without the variable: of the two makers
//! the API server lets one win.
//!
//! **A stop is not a removal.** A pod is stopped by a deadline, so that it and its log stay until they are
//! accounted for; a finalizer of ours keeps those that others delete.

mod access;
mod check;
mod collect;
mod collector;
mod convert;
mod credentials;
mod errors;
mod files;
mod happenings;
mod launch;
mod logs;
#[cfg(test)]
mod manifests;
mod merge;
mod observe;
pub mod probe;
mod removal;
mod render;
mod seen;
mod session;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::convert::Rules;
use self::errors::Fault;
use self::launch::{Launch, pause_until};
use self::observe::{Context, Standing, standing};
pub use self::render::render;
use self::seen::{LABEL_KEPT, Role, Seen, State};
use self::session::{Place, Session, now};
pub use self::typed::check as check_pod_template;
use super::{
    CollectRequest, Collected, Disposal, EngineId, EngineState, Handle, KillAck, KillMode,
    LaunchError, LaunchRequest, Launched, LogFrame, Observation, OutputSink, OwnedSandbox,
    Progress, Runner, RunnerError, RunnerKind, SandboxKey, WaitError, naming,
};
use crate::domain::exit::ExitReport;
use crate::domain::failure::{Failure, Reason};
use crate::domain::spec::TaskSpec;
use crate::domain::target::{KubernetesBackend, TargetCheck};
use crate::failpoints::{self, Point};
use crate::ids::{Fence, InstallationId};

const HANDLE_VERSION: u32 = 1;
/// What ends a pod at once that is stopped: it has run for longer.
const DEADLINE_SECONDS: i64 = 1;
/// Beyond what a pod that is removed has to end, before its node is asked for.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

/// How to reach a cluster, and what to make of tasks there.
#[derive(Debug, Clone)]
pub struct KubernetesConfig {
    pub backend: KubernetesBackend,
    pub installation: InstallationId,
}

/// Runs attempts as pods of one cluster.
#[derive(Debug)]
pub struct KubernetesRunner {
    session: Arc<Session>,
    /// Calls that go on when their callers give up.
    tasks: TaskTracker,
    session_task: AbortHandle,
}

/// What a [`Handle`] of this runner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    namespace: String,
    pod: String,
    uid: String,
    cluster: EngineId,
    /// Whose log is read by it.
    container: String,
    /// Those whose logs are kept beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<String>,
}

impl Pointer {
    fn of(seen: &Seen, cluster: &EngineId) -> Self {
        let others = seen.containers.iter().filter(|it| matches!(it.role, Role::Init | Role::Side));
        Self {
            namespace: seen.namespace.clone(),
            pod: seen.name.clone(),
            uid: seen.uid.clone(),
            cluster: cluster.clone(),
            container: convert::MAIN.to_owned(),
            others: others.map(|it| it.name.clone()).collect(),
        }
    }

    fn handle(&self) -> Handle {
        let state = serde_json::to_value(self).unwrap_or_default();
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

    fn place(&self) -> Place {
        Place { namespace: self.namespace.clone(), pod: self.pod.clone() }
    }
}

impl KubernetesRunner {
    /// Returns at once, whether the cluster answers or not; must be called within a tokio runtime.
    pub fn new(config: KubernetesConfig) -> Self {
        let tasks = TaskTracker::new();
        let session = Arc::new(Session::new(config.backend, config.installation));
        let session_task = tasks.spawn(Arc::clone(&session).run()).abort_handle();
        Self { session, tasks, session_task }
    }

    fn rules(&self) -> Rules<'_> {
        Rules::of(self.session.backend())
    }

    /// Where the pod of a task goes.
    fn namespace_of(&self, spec: &TaskSpec) -> Result<String, Failure> {
        let all = self.session.namespaces();
        match spec.kubernetes.as_ref().and_then(|it| it.namespace.as_ref()) {
            Some(wanted) if all.contains(wanted) => Ok(wanted.clone()),
            Some(wanted) => Err(Failure::new(
                Reason::CreateConfigError,
                format!(
                    "the target has no namespace {wanted:?}: it has {}; \"namespaces\" of the target names those that tasks may use",
                    all.join(", ")
                ),
            )),
            None => all.first().cloned().ok_or_else(|| {
                Failure::new(Reason::Internal, "the namespace of the target is not known yet")
            }),
        }
    }

    /// The pod of an attempt, but for one that was put aside.
    async fn seen(&self, key: &SandboxKey) -> Result<Option<Arc<Seen>>, RunnerError> {
        let seen = match self.session.find(key).await {
            Ok(seen) => seen,
            Err(Fault::Status { code: 409, message, .. }) => {
                return Err(RunnerError::Foreign(message));
            }
            Err(fault) => return Err(fault.into()),
        };
        let Some(seen) = seen else { return Ok(None) };
        let owner = naming::owner(key.installation, |label| seen.labels.get(label).cloned());
        if owner.is_none_or(|(_, attempt)| attempt != key.attempt) {
            let why = format!("the name {} is taken by a pod of somebody else", seen.name);
            return Err(RunnerError::Foreign(why));
        }
        Ok(Some(seen).filter(|it| !it.is_kept()))
    }

    fn standing(&self, seen: &Seen) -> Standing {
        let place = Place { namespace: seen.namespace.clone(), pod: seen.name.clone() };
        let happenings = self.session.happenings(&place);
        let stopped_by_us = self.session.is_stopped(&seen.uid);
        let context =
            Context { timeouts: None, happenings: &happenings, stopped_by_us, now: now() };
        standing(seen, context)
    }

    fn observation(&self, engine: &EngineId, seen: &Seen) -> Observation {
        let handle = Pointer::of(seen, engine).handle();
        match self.standing(seen) {
            // Whether it will ever run is for the launch to say, which has the timers.
            Standing::Waiting { .. } | Standing::Refused(_) => Observation::Created,
            Standing::Running { started_at, .. } => Observation::Running { handle, started_at },
            Standing::Ended(report) => Observation::Exited { handle, report },
        }
    }
}

impl Drop for KubernetesRunner {
    fn drop(&mut self) {
        self.session_task.abort();
    }
}

#[async_trait]
impl Runner for KubernetesRunner {
    fn kind(&self) -> RunnerKind {
        RunnerKind::Kubernetes
    }

    fn engine(&self) -> watch::Receiver<EngineState> {
        self.session.state()
    }

    async fn check(&self) -> TargetCheck {
        check::check(&self.session).await
    }

    async fn launch(
        &self,
        request: &LaunchRequest<'_>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Launched, LaunchError> {
        Launch::new(self, request, progress, cancel)?.run().await
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
        Ok(self.observation(engine, &seen))
    }

    async fn adopt(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
        _took_over: Fence,
    ) -> Result<Observation, RunnerError> {
        self.session.with(engine)?;
        if let Some(seen) = self.seen(key).await?
            && !seen.has_run()
            && self.make_void(&seen).await?
        {
            failpoints::at(Point::AdoptRenamed);
            self.remove(&seen).await?;
        }
        self.inspect(key, engine).await
    }

    async fn wait(&self, _key: &SandboxKey, handle: &Handle) -> Result<ExitReport, WaitError> {
        let pointer = Pointer::read(handle)?;
        let place = pointer.place();
        let mut watched = self.session.watch(&place);
        loop {
            let current = watched.current().filter(|it| it.uid == pointer.uid);
            let until = if let Some(seen) = current {
                match self.standing(&seen) {
                    Standing::Ended(report) => return Ok(report),
                    Standing::Refused(failure) => {
                        return Err(WaitError::Runner(RunnerError::Unavailable(failure.message)));
                    }
                    Standing::Running { .. } | Standing::Waiting { .. }
                        if self.lost_its_node(&seen).await =>
                    {
                        return Ok(observe::lost_with_node(&seen, now()));
                    }
                    Standing::Running { .. } if seen.is_dying() => {
                        tokio::select! {
                            ended = self.are_ended(&seen) => if ended {
                                return Ok(observe::ended_by_deadline(&seen, now()));
                            },
                            () = watched.changed() => {}
                        }
                        Some(now())
                    }
                    Standing::Running { until, .. } => {
                        let ask_node = seen.deletion.map(|it| {
                            it.due_at.max(now()).checked_add(NODE_PATIENCE).unwrap_or(it.due_at)
                        });
                        until.into_iter().chain(ask_node).min()
                    }
                    Standing::Waiting { until } => Some(until),
                }
            } else {
                // Gone, or not heard of yet: the API server says which.
                self.session.with(&pointer.cluster)?;
                match self.session.look(&place).await {
                    Ok(Some(seen)) if seen.uid == pointer.uid => continue,
                    Ok(_) => {
                        self.session.confirm(&pointer.cluster).await?;
                        return Err(WaitError::Vanished);
                    }
                    Err(fault) => return Err(WaitError::Runner(fault.into())),
                }
            };
            tokio::select! {
                () = watched.changed() => {}
                () = pause_until(until) => {}
            }
        }
    }

    fn side_logs(&self, handle: &Handle) -> Vec<(String, Handle)> {
        let Ok(pointer) = Pointer::read(handle) else { return Vec::new() };
        let of = |name: &String| {
            let it = Pointer { container: name.clone(), others: Vec::new(), ..pointer.clone() };
            (name.clone(), it.handle())
        };
        pointer.others.iter().map(of).collect()
    }

    fn logs(
        &self,
        handle: &Handle,
        since: Option<i64>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        self.read_log(handle, logs::Part::From(since, follow))
    }

    fn log_end(
        &self,
        handle: &Handle,
        frames: usize,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        self.read_log(handle, logs::Part::Last(frames))
    }

    fn log_turnover(&self) -> Option<Duration> {
        Some(logs::TURNOVER)
    }

    async fn kill(&self, key: &SandboxKey, mode: KillMode) -> Result<KillAck, RunnerError> {
        self.session.engine()?;
        let Some(seen) = self.seen(key).await? else {
            return Ok(KillAck::AlreadyGone);
        };
        if !matches!(self.standing(&seen), Standing::Running { .. }) {
            return Ok(KillAck::AlreadyGone);
        }
        self.session.note_stop(&seen.uid);
        let found = match mode {
            KillMode::Graceful => {
                let patch = json!({"spec": {"activeDeadlineSeconds": DEADLINE_SECONDS}});
                self.patch(&seen, Patch::Merge(patch)).await?
            }
            KillMode::Force => self.delete(&seen, 1).await?,
        };
        Ok(if found.is_some() { KillAck::Sent } else { KillAck::AlreadyGone })
    }

    async fn collect(
        &self,
        handle: &Handle,
        request: &CollectRequest,
        sink: &dyn OutputSink,
    ) -> Result<Collected, RunnerError> {
        let pointer = Pointer::read(handle)?;
        // How its main container ended never changes any more, and need not be asked for.
        let ended = |it: &Arc<Seen>| {
            let main = it.main().map(|it| &it.state);
            it.uid == pointer.uid && matches!(main, Some(State::Ended { .. }))
        };
        let seen = match self.session.known(&pointer.place()).filter(ended) {
            Some(seen) => Some(seen),
            None => self.session.look(&pointer.place()).await?,
        };
        let Some(seen) = seen.filter(|it| it.uid == pointer.uid) else {
            return Err(RunnerError::Unavailable(
                "the pod is gone, and its outputs with it".to_owned(),
            ));
        };
        let collector = seen.containers.iter().find(|it| it.role == Role::Collector);
        match (collector, seen.main().map(|it| &it.state)) {
            (Some(_), _) => {
                collect::from_collector(
                    &self.session.client()?,
                    &pointer.namespace,
                    &pointer.pod,
                    request,
                    sink,
                )
                .await
            }
            (None, Some(State::Ended { message, .. })) => {
                Ok(collect::from_message(message, seen.containers.len(), request))
            }
            (None, _) => Ok(collect::from_message("", seen.containers.len(), request)),
        }
    }

    async fn cleanup(&self, key: &SandboxKey, disposal: Disposal) -> Result<(), RunnerError> {
        self.session.engine()?;
        let Some(seen) = self.session.find(key).await? else { return Ok(()) };
        let owner = naming::owner(key.installation, |label| seen.labels.get(label).cloned());
        if owner.is_none_or(|(_, attempt)| attempt != key.attempt) {
            return Ok(());
        }
        match disposal {
            Disposal::Remove => self.remove(&seen).await?,
            Disposal::Keep if seen.is_kept() => {}
            Disposal::Keep => self.put_aside(&seen).await?,
        }
        self.session.forget(&seen.uid);
        Ok(())
    }

    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError> {
        self.session.engine()?;
        let owned = |it: ObjectMeta| {
            let labels = it.labels?;
            let of = |label: &str| labels.get(label).cloned();
            let (task, attempt) = naming::owner(self.session.installation, of)?;
            let kept = labels.contains_key(LABEL_KEPT);
            Some(OwnedSandbox { attempt, task, created_at: it.creation_timestamp?.0, kept })
        };
        Ok(self.session.list(owned).await?)
    }
}

impl KubernetesRunner {
    fn read_log(
        &self,
        handle: &Handle,
        part: logs::Part,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        let source = Pointer::read(handle).and_then(|it| {
            Ok(logs::Source {
                client: self.session.client()?,
                namespace: it.namespace,
                pod: it.pod,
                uid: it.uid,
                container: it.container,
            })
        });
        match source {
            Ok(source) => logs::read(source, part),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }
}
