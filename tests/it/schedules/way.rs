//! The way of one process to the engines: what it asks for gets lost, comes late, or comes to another engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use supercargo::domain::exit::ExitReport;
use supercargo::failpoints::Guard;
use supercargo::ids::Fence;
use supercargo::runner::fake::{FakeEngine, FakeRunner, Fate, Request, Way};
use supercargo::runner::{
    CollectRequest, Collected, Disposal, EngineId, EngineState, Handle, KillAck, KillMode,
    LaunchError, LaunchRequest, Launched, LogFrame, Observation, OutputSink, OwnedSandbox,
    Progress, Runner, RunnerError, RunnerKind, SandboxKey, WaitError,
};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::world::{Fault, World};

#[derive(Debug, Clone)]
pub(super) struct SimWay {
    world: Arc<World>,
    process: usize,
}

#[async_trait]
impl Way for SimWay {
    fn engine(&self) -> FakeEngine {
        let engine = self.world.state().engine;
        self.world.engines[engine].clone()
    }

    fn state(&self) -> watch::Receiver<EngineState> {
        self.world.watch_engine(self.process)
    }

    async fn send(&self, request: Request, key: Option<SandboxKey>) -> Fate {
        let (world, process) = (&self.world, self.process);
        world.pass(process).await;
        if let Some(fate) = self.aimed(request) {
            return fate;
        }
        let fault = world.draw(process);
        world.say(|names| {
            let attempt = key.map(|it| names.attempt(it.attempt)).unwrap_or_default();
            let fault = if fault == Fault::None { String::new() } else { format!(" {fault:?}") };
            format!("w{process} engine.{request:?} {attempt}{fault}")
        });
        match fault {
            Fault::Slow(by) => sleep(by).await,
            Fault::Freeze { before: true, lasts } => {
                world.freeze(process, lasts);
                tokio::task::yield_now().await;
            }
            Fault::Kill { before: true, away } => {
                world.kill(process, away);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        if world.reached(process).is_none() {
            return Fate::Lost;
        }
        match fault {
            Fault::Refused => Fate::Lost,
            Fault::AnswerLost => Fate::AnswerLost,
            // Its sender hears that it broke off, and the engine has it all the same.
            Fault::AnswerLate(by) if request == Request::Start => Fate::Astray(by),
            Fault::Late(by) | Fault::AnswerLate(by) => Fate::Late(by),
            Fault::Freeze { before: false, .. } | Fault::Kill { before: false, .. } => {
                world.after_next(process, fault);
                Fate::Answered
            }
            _ => Fate::Answered,
        }
    }

    fn carried_out(&self, request: Request, key: Option<SandboxKey>) {
        self.world.say(|names| {
            let attempt = key.map(|it| names.attempt(it.attempt)).unwrap_or_default();
            format!("   engine.{request:?} {attempt} of w{} is carried out", self.process)
        });
        let changes = !matches!(request, Request::Inspect | Request::List | Request::Collect);
        self.world.carried_out(self.process, changes);
    }
}

impl SimWay {
    /// What the schedules of one guard want: a start that comes late, as what it was for is over.
    fn aimed(&self, request: Request) -> Option<Fate> {
        let (world, process) = (&self.world, self.process);
        let mut state = world.state();
        if state.calm || request != Request::Start || state.aimed.len() > 2 {
            return None;
        }
        if state.focus != Some(Guard::RenameAdopted) {
            return None;
        }
        state.aimed.push(process);
        drop(state);
        world.say(|_| format!("w{process} engine.Start is on its way, and its sender dies"));
        let dying = Arc::clone(world);
        tokio::spawn(async move { dying.kill(process, Duration::from_millis(100)) });
        Some(Fate::Late(Duration::from_secs(7)))
    }
}

/// The runner of one process.
#[derive(Debug)]
pub(super) struct SimRunner {
    inner: FakeRunner,
    way: SimWay,
}

impl SimRunner {
    pub(super) fn new(world: &Arc<World>, process: usize) -> Self {
        let way = SimWay { world: Arc::clone(world), process };
        let inner = FakeRunner::over(Arc::new(way.clone()), world.installation);
        Self { inner, way }
    }

    /// Resolves when something else answers, or nothing any more.
    async fn cut(&self) {
        let (world, process) = (&self.way.world, self.way.process);
        let before = world.reached(process);
        loop {
            let changed = world.way_changed.notified();
            if before.is_none() || world.reached(process) != before {
                return;
            }
            changed.await;
        }
    }
}

fn broken_off() -> RunnerError {
    RunnerError::Unavailable("the connection broke off".to_owned())
}

#[async_trait]
impl Runner for SimRunner {
    fn kind(&self) -> RunnerKind {
        self.inner.kind()
    }

    fn engine(&self) -> watch::Receiver<EngineState> {
        self.inner.engine()
    }

    async fn launch(
        &self,
        request: &LaunchRequest<'_>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Launched, LaunchError> {
        self.inner.launch(request, progress, cancel).await
    }

    async fn adopt(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
        took_over: Fence,
    ) -> Result<Observation, RunnerError> {
        self.inner.adopt(key, engine, took_over).await
    }

    async fn inspect(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
    ) -> Result<Observation, RunnerError> {
        self.inner.inspect(key, engine).await
    }

    async fn wait(&self, key: &SandboxKey, handle: &Handle) -> Result<ExitReport, WaitError> {
        let (world, process) = (&self.way.world, self.way.process);
        let mut fault = world.draw(process);
        if world.state().focus == Some(Guard::RenameAdopted) && fault == Fault::None {
            fault = Fault::AnswerLate(Duration::from_secs(15));
        }
        world.say(|names| {
            format!("w{process} engine.wait {} {fault:?}", names.attempt(key.attempt))
        });
        let heard = async {
            match fault {
                Fault::Slow(by) => sleep(by).await,
                Fault::Refused | Fault::AnswerLost => return Err(broken_off().into()),
                _ => {}
            }
            let exit = self.inner.wait(key, handle).await;
            if let Fault::Late(by) | Fault::AnswerLate(by) = fault {
                // The notice is missing, and found by somebody who looks.
                sleep(by).await;
            }
            exit
        };
        let exit = tokio::select! {
            biased;
            exit = heard => exit,
            () = self.cut() => Err(broken_off().into()),
        };
        match fault {
            Fault::Freeze { lasts, .. } => {
                world.freeze(process, lasts);
                tokio::task::yield_now().await;
            }
            Fault::Kill { away, .. } => {
                world.kill(process, away);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        exit
    }

    fn side_logs(&self, handle: &Handle) -> Vec<(String, Handle)> {
        self.inner.side_logs(handle)
    }

    fn logs(
        &self,
        handle: &Handle,
        since: Option<i64>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        let (world, process) = (Arc::clone(&self.way.world), self.way.process);
        if world.reached(process).is_none() {
            return stream::once(async { Err(broken_off()) }).boxed();
        }
        let frames = self.inner.logs(handle, since, follow);
        let breaks = match world.draw(process) {
            Fault::Refused => Some(0),
            Fault::AnswerLost => Some(2),
            Fault::Late(by) | Fault::AnswerLate(by) => Some(by.as_millis() % 20),
            _ => None,
        };
        let runner = Self { inner: self.inner.clone(), way: self.way.clone() };
        stream::unfold((Some(frames), 0_u128, runner), move |(frames, count, runner)| async move {
            let mut frames = frames?;
            if breaks == Some(count) {
                return Some((Err(broken_off()), (None, count, runner)));
            }
            let next = tokio::select! {
                biased;
                next = frames.next() => next?,
                () = runner.cut() => return Some((Err(broken_off()), (None, count, runner))),
            };
            Some((next, (Some(frames), count + 1, runner)))
        })
        .boxed()
    }

    fn log_end(
        &self,
        handle: &Handle,
        frames: usize,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        let all = self.logs(handle, None, false);
        let end = async move {
            let mut all: Vec<_> = all.collect().await;
            stream::iter(all.split_off(all.len().saturating_sub(frames)))
        };
        stream::once(end).flatten().boxed()
    }

    async fn kill(&self, key: &SandboxKey, mode: KillMode) -> Result<KillAck, RunnerError> {
        self.inner.kill(key, mode).await
    }

    async fn collect(
        &self,
        handle: &Handle,
        request: &CollectRequest,
        sink: &dyn OutputSink,
    ) -> Result<Collected, RunnerError> {
        self.inner.collect(handle, request, sink).await
    }

    async fn cleanup(&self, key: &SandboxKey, disposal: Disposal) -> Result<(), RunnerError> {
        self.inner.cleanup(key, disposal).await
    }

    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError> {
        self.inner.list_owned().await
    }
}
