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

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::engine::{FakeEngine, Held};
use self::engine::{Place, Started};
pub use self::script::render;
use self::script::{LaunchScript, Script};
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
    engine: FakeEngine,
    installation: InstallationId,
}

impl FakeRunner {
    pub const fn new(engine: FakeEngine, installation: InstallationId) -> Self {
        Self { engine, installation }
    }
}

fn refused(reason: Reason, message: impl Into<String>) -> LaunchError {
    LaunchError::Refused(Failure::new(reason, message))
}

fn handle(place: &Place) -> Handle {
    let state = serde_json::json!({
        "installation": place.key.installation, "attempt": place.key.attempt, "engine": place.engine,
    });
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
        self.engine.state()
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
        self.engine.create(request, script)?;
        let found = self.engine.startable(request)?;
        let Started { started_at, already } = if let Some(found) = found {
            found
        } else {
            if !progress.may_start() {
                return Err(LaunchError::Cancelled);
            }
            self.engine.let_start().await;
            self.engine.start(request)?
        };
        if !already {
            progress.step("started", "started".to_owned());
        }
        let place = Place { key: request.key, engine: request.engine.clone() };
        Ok(Launched { handle: handle(&place), started_at, image_digest: None, already })
    }

    async fn inspect(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
    ) -> Result<Observation, RunnerError> {
        let place = Place { key: *key, engine: engine.clone() };
        self.engine.inspect(&place, || handle(&place))
    }

    async fn adopt(
        &self,
        key: &SandboxKey,
        engine: &EngineId,
        took_over: Fence,
    ) -> Result<Observation, RunnerError> {
        let place = Place { key: *key, engine: engine.clone() };
        self.engine.adopt(&place, took_over)?;
        self.inspect(key, engine).await
    }

    async fn wait(&self, _key: &SandboxKey, handle: &Handle) -> Result<ExitReport, WaitError> {
        self.engine.wait(&place(handle)?).await
    }

    fn logs(
        &self,
        handle: &Handle,
        since: Option<i64>,
        follow: bool,
    ) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
        match place(handle) {
            Ok(place) => self.engine.logs(place, since.unwrap_or(i64::MIN), follow).boxed(),
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
        self.engine.kill(key, mode)
    }

    async fn collect(
        &self,
        handle: &Handle,
        request: &CollectRequest,
        sink: &dyn OutputSink,
    ) -> Result<Collected, RunnerError> {
        let script = self.engine.ended(&place(handle)?)?;
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
        self.engine.cleanup(key, disposal)
    }

    async fn list_owned(&self) -> Result<Vec<OwnedSandbox>, RunnerError> {
        self.engine.list(self.installation)
    }
}
