//! The `simulated` target, and the double of every backend in tests: no containers, scripted by the
//! environment of the task.
//!
//! | variable | meaning |
//! |---|---|
//! | `FAKE_EXIT=3` | Exit code. A list (`75,75,0`) has one for each attempt; the last one repeats. |
//! | `FAKE_RUN_FOR=200ms` | How long it runs. 0 by default: it has ended when its launch returns. |
//! | `FAKE_LOG_LINES=100` | So many lines `line <n>`, spread evenly over the run. |
//! | `FAKE_LOG_BYTES=1000000` | So many bytes, in lines of 128, in place of `FAKE_LOG_LINES`. |
//! | `FAKE_STDERR_EVERY=3` | Each third line goes to stderr. |
//! | `FAKE_SIDE_LOGS=init:3,proxy:5+` | Containers beside the main one, and how many lines each writes over the run. `+`: it runs on when the task has ended; `-` in place of a number: it is never started; `!`: its log can't be read. |
//! | `FAKE_OUTPUT={"words":7}` | What it writes to `$SUPERCARGO_OUTPUT`. |
//! | `FAKE_FILES={"/out/a.csv":"1,2"}` | Files that it leaves, as text. |
//! | `FAKE_LAUNCH=slow` | Its launch takes a second. |
//! | `FAKE_LAUNCH=unavailable` | Its first launch finds the engine away. |
//! | `FAKE_LAUNCH=indeterminate` | Its first launch starts it and loses the answer. |
//! | `FAKE_LAUNCH=refused:image_not_found` | Every launch is refused for this reason (`create_config_error` if none is named). |
//! | `FAKE_START_FAILS=127` | The engine can't start it. |
//! | `FAKE_VANISH=1` | Somebody removes it at the end of its run. |
//! | `FAKE_IGNORE_TERM=1` | The graceful signal does nothing to it. |
//! | `FAKE_ON_TERM=7` | Exit code after the graceful signal, 143 by default. |
//! | `FAKE_OOM=1` | The kernel kills it for memory: 137. |
//!
//! Sandboxes live in a [`FakeEngine`] that outlives its runners, as an engine outlives a worker that
//! crashes. Nothing runs in the background: time is looked at when somebody asks.

mod engine;
mod sandbox;
mod script;
mod way;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::engine::{FakeEngine, Held, Seen, SeenState};
use self::engine::{LogOf, Order, Place, Started};
pub use self::script::render;
use self::script::{LaunchScript, Script};
pub use self::way::{Fate, Request, Way};
use super::{
    CollectRequest, Collected, Disposal, EngineId, EngineState, FileResult, Handle, JsonFile,
    KillAck, KillMode, LaunchError, LaunchRequest, Launched, LogFrame, Observation, OutputSink,
    OwnedSandbox, Progress, Runner, RunnerError, RunnerKind, SandboxKey, WaitError,
};
use crate::domain::exit::ExitReport;
use crate::domain::failure::{Failure, Reason};
use crate::ids::{Fence, InstallationId};

const SLOW_LAUNCH: Duration = Duration::from_secs(1);
const HANDLE_VERSION: u32 = 1;

/// One worker's way to a [`FakeEngine`].
#[derive(Debug, Clone)]
pub struct FakeRunner {
    way: Arc<dyn Way>,
    installation: InstallationId,
}

/// No answer came.
enum Unheard {
    /// The request never arrived.
    Unsent,
    /// Whether it was carried out is not known.
    Unknown,
}

impl From<Unheard> for RunnerError {
    fn from(it: Unheard) -> Self {
        Self::Unavailable(it.why().to_owned())
    }
}

impl Unheard {
    const fn why(&self) -> &'static str {
        match self {
            Self::Unsent => "the engine could not be reached",
            Self::Unknown => "the connection broke off",
        }
    }

    fn in_launch(self) -> LaunchError {
        match self {
            Self::Unsent => LaunchError::Unavailable(self.why().to_owned()),
            Self::Unknown => LaunchError::Indeterminate(self.why().to_owned()),
        }
    }
}

impl FakeRunner {
    pub fn new(engine: FakeEngine, installation: InstallationId) -> Self {
        Self::over(Arc::new(engine), installation)
    }

    pub fn over(way: Arc<dyn Way>, installation: InstallationId) -> Self {
        Self { way, installation }
    }

    /// Has the engine do something.
    async fn ask<T: Send + 'static>(
        &self,
        request: Request,
        key: Option<SandboxKey>,
        work: impl FnOnce(&FakeEngine) -> T + Send + 'static,
    ) -> Result<T, Unheard> {
        let fate = self.way.send(request, key).await;
        let way = Arc::clone(&self.way);
        let carry_out = move || {
            let answer = work(&way.engine());
            way.carried_out(request, key);
            answer
        };
        match fate {
            Fate::Answered => Ok(carry_out()),
            Fate::Lost => Err(Unheard::Unsent),
            Fate::AnswerLost => {
                carry_out();
                Err(Unheard::Unknown)
            }
            Fate::Astray(by) => {
                TaskTracker::new().spawn(async move {
                    sleep(by).await;
                    carry_out();
                });
                Err(Unheard::Unknown)
            }
            Fate::Late(by) => {
                let (answer, answered) = oneshot::channel();
                // It is on its way, whoever waits for it.
                TaskTracker::new().spawn(async move {
                    sleep(by).await;
                    // Who asked may be gone.
                    answer.send(carry_out()).ok();
                });
                answered.await.map_err(|_| Unheard::Unknown)
            }
        }
    }
}

fn refused(reason: Reason, message: impl Into<String>) -> LaunchError {
    LaunchError::Refused(Failure::new(reason, message))
}

fn handle(place: &Place, script: &Script) -> Handle {
    let mut state = serde_json::json!({
        "installation": place.key.installation, "attempt": place.key.attempt, "engine": place.engine,
    });
    if !script.side_logs.is_empty() {
        state["side_logs"] = script.side_logs.keys().cloned().collect();
    }
    Handle { version: HANDLE_VERSION, state }
}

fn place(handle: &Handle) -> Result<Place, RunnerError> {
    let field = |name: &str| handle.state.get(name).and_then(|it| it.as_str());
    let read = || {
        let installation = field("installation")?.parse().ok()?;
        let attempt = field("attempt")?.parse().ok()?;
        let engine = EngineId(field("engine")?.to_owned());
        Some(Place { key: SandboxKey { installation, attempt }, engine })
    };
    read().ok_or_else(|| RunnerError::Foreign("not a handle of this runner".to_owned()))
}

#[async_trait]
impl Runner for FakeRunner {
    fn kind(&self) -> RunnerKind {
        RunnerKind::Simulated
    }

    fn engine(&self) -> watch::Receiver<EngineState> {
        self.way.state()
    }

    async fn launch(
        &self,
        request: &LaunchRequest<'_>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Launched, LaunchError> {
        let script = Script::read(&request.spec.env, request.attempt_no)
            .map_err(|why| refused(Reason::CreateConfigError, why))?;
        match &script.launch {
            LaunchScript::Slow => tokio::select! {
                biased;
                () = sleep(SLOW_LAUNCH) => {}
                () = cancel.cancelled() => {}
            },
            LaunchScript::Refused(reason) => {
                return Err(refused(*reason, "refused, as FAKE_LAUNCH says"));
            }
            LaunchScript::Plain | LaunchScript::Unavailable | LaunchScript::Indeterminate => {}
        }
        if cancel.is_cancelled() {
            return Err(LaunchError::Cancelled);
        }
        let key = Some(request.key);
        let order = Order::of(request);
        let ordered = order.clone();
        let place = Place { key: request.key, engine: request.engine.clone() };
        let handle = handle(&place, &script);
        self.ask(Request::Create, key, move |it| it.create(&ordered, script))
            .await
            .map_err(Unheard::in_launch)??;
        let ordered = order.clone();
        let found = self
            .ask(Request::Inspect, key, move |it| it.startable(&ordered))
            .await
            .map_err(|it| LaunchError::Indeterminate(it.why().to_owned()))??;
        let Started { started_at, already } = if let Some(found) = found {
            found
        } else {
            if !progress.may_start() {
                return Err(LaunchError::Cancelled);
            }
            self.way.engine().let_start().await;
            self.ask(Request::Start, key, move |it| it.start(&order))
                .await
                .map_err(|it| LaunchError::Indeterminate(it.why().to_owned()))??
        };
        if !already {
            progress.step("started", "started".to_owned());
        }
        Ok(Launched { handle, started_at, image_digest: None, already })
    }

    async fn inspect(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
    ) -> Result<Observation, RunnerError> {
        let place = Place { key: *key, engine: engine.clone() };
        self.ask(Request::Inspect, Some(*key), move |it| {
            it.inspect(&place, |script| handle(&place, script))
        })
        .await?
    }

    async fn adopt(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
        took_over: Fence,
    ) -> Result<Observation, RunnerError> {
        let place = Place { key: *key, engine: engine.clone() };
        self.ask(Request::Adopt, Some(*key), move |it| it.adopt(&place, took_over)).await??;
        self.inspect(key, engine).await
    }

    async fn wait(&self, _key: &SandboxKey, handle: &Handle) -> Result<ExitReport, WaitError> {
        self.way.engine().wait(&place(handle)?).await
    }

    fn side_logs(&self, handle: &Handle) -> Vec<(String, Handle)> {
        let names = handle.state.get("side_logs").and_then(|it| it.as_array());
        let names = names.into_iter().flatten().filter_map(|it| it.as_str());
        let of = |name: &str| {
            let mut handle = handle.clone();
            handle.state["container"] = name.into();
            (name.to_owned(), handle)
        };
        names.map(of).collect()
    }

    fn logs(
        &self,
        handle: &Handle,
        since: Option<i64>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        match place(handle) {
            Ok(place) => {
                let container = handle.state.get("container").and_then(|it| it.as_str());
                let log = LogOf { place, container: container.map(str::to_owned) };
                self.way.engine().logs(log, since.unwrap_or(i64::MIN), follow).boxed()
            }
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
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
        let key = *key;
        self.ask(Request::Kill, Some(key), move |it| it.kill(&key, mode)).await?
    }

    async fn collect(
        &self,
        handle: &Handle,
        request: &CollectRequest,
        sink: &dyn OutputSink,
    ) -> Result<Collected, RunnerError> {
        let place = place(handle)?;
        let script =
            self.ask(Request::Collect, Some(place.key), move |it| it.ended(&place)).await??;
        let json = match &script.output {
            None => JsonFile::Absent,
            Some(bytes) if bytes.len() as u64 > request.json_limit => {
                JsonFile::TooLarge { size: bytes.len() as u64 }
            }
            Some(bytes) => JsonFile::Bytes(bytes.clone()),
        };
        let mut files = std::collections::BTreeMap::new();
        for (name, path) in &request.files {
            let result = match script.files.get(path) {
                None => FileResult::Missing,
                Some(text) if text.len() as u64 > request.file_limit => {
                    FileResult::TooLarge { size: text.len() as u64 }
                }
                Some(text) => {
                    let mut body = text.as_bytes();
                    FileResult::Stored(
                        sink.store(name, path, "application/octet-stream", &mut body).await?,
                    )
                }
            };
            files.insert(name.clone(), result);
        }
        Ok(Collected { json, files })
    }

    async fn cleanup(&self, key: &SandboxKey, disposal: Disposal) -> Result<(), RunnerError> {
        let key = *key;
        self.ask(Request::Cleanup, Some(key), move |it| it.cleanup(&key, disposal)).await?
    }

    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError> {
        let installation = self.installation;
        self.ask(Request::List, None, move |it| it.list(installation)).await?
    }
}
