//! One attempt as the suite drives it, and what it learns on the way.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use supercargo::domain::outcome::StoredFile;
use supercargo::domain::spec::{Limits, SpecHash, TaskSpec, parse};
use supercargo::ids::{AttemptId, AttemptNo, Fence, InstallationId, RunId, TaskId};
use supercargo::runner::{
    CollectRequest, EngineId, Handle, LaunchError, LaunchRequest, Launched, LogFrame, OutputSink,
    Progress, Runner, SandboxKey, SinkError,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::sync::CancellationToken;

use super::engine::IMAGE;
use super::within;

/// A task for every backend: containers do `script`, a simulated sandbox does what `fake` says.
pub(crate) fn task(script: &str, fake: &[(&str, &str)]) -> TaskSpec {
    task_with(script, fake, &json!({}))
}

/// With more fields of the document.
pub(crate) fn task_with(script: &str, fake: &[(&str, &str)], more: &Value) -> TaskSpec {
    let env: BTreeMap<&str, &str> = fake.iter().copied().collect();
    let mut document = json!({
        "image": IMAGE, "command": ["sh", "-c", script], "env": env, "pull_policy": "never",
    });
    for (field, value) in more.as_object().unwrap() {
        document[field] = value.clone();
    }
    parse(&document, &Limits::default()).unwrap()
}

/// Runs until somebody ends it, and ends at the first signal.
pub(crate) fn endless() -> TaskSpec {
    task_with("while :; do sleep 1; done", &[("FAKE_RUN_FOR", "1h")], &json!({"init": true}))
}

pub(crate) struct Attempt {
    pub(crate) key: SandboxKey,
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) spec: TaskSpec,
    pub(crate) hash: SpecHash,
    pub(crate) engine: EngineId,
    pub(crate) took_over: Option<Fence>,
}

impl Attempt {
    pub(crate) fn new(installation: InstallationId, engine: EngineId, spec: TaskSpec) -> Self {
        let key = SandboxKey { installation, attempt: AttemptId::generate() };
        let hash = spec.hash();
        Self {
            key,
            run: RunId::generate(),
            task: TaskId::generate(),
            spec,
            hash,
            engine,
            took_over: None,
        }
    }

    /// The same attempt, by mistake, with another spec.
    pub(crate) fn with_spec(&self, spec: TaskSpec) -> Self {
        let hash = spec.hash();
        Self { spec, hash, engine: self.engine.clone(), ..*self }
    }

    /// The same attempt, in the hands of a later holder.
    pub(crate) fn taken_over(&self, fence: Fence) -> Self {
        let (spec, hash) = (self.spec.clone(), self.hash.clone());
        Self { spec, hash, engine: self.engine.clone(), took_over: Some(fence), ..*self }
    }

    pub(crate) fn request(&self) -> LaunchRequest<'_> {
        LaunchRequest {
            key: self.key,
            run: self.run,
            task: self.task,
            attempt_no: AttemptNo::FIRST,
            spec: &self.spec,
            spec_hash: &self.hash,
            engine: &self.engine,
            took_over: self.took_over,
        }
    }

    pub(crate) async fn try_launch(&self, runner: &dyn Runner) -> Result<Launched, LaunchError> {
        let steps = Steps::default();
        let cancel = CancellationToken::new();
        within("launch", runner.launch(&self.request(), &steps, &cancel)).await
    }

    pub(crate) async fn launch(&self, runner: &dyn Runner) -> Launched {
        self.try_launch(runner).await.unwrap()
    }

    pub(crate) async fn exit_code(&self, runner: &dyn Runner, handle: &Handle) -> Option<i32> {
        within("wait", runner.wait(&self.key, handle)).await.unwrap().status.code()
    }
}

#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) heard: Mutex<Vec<&'static str>>,
    /// The launch is that of a holder who has lost the attempt.
    pub(crate) may_not_start: bool,
}

impl Progress for Steps {
    fn step(&self, reason: &'static str, _message: String) {
        self.heard.lock().unwrap().push(reason);
    }

    fn waits(&self) {}

    fn may_start(&self) -> bool {
        !self.may_not_start
    }
}

/// The whole log from there on, to its end.
pub(crate) async fn log(
    runner: &dyn Runner,
    handle: &Handle,
    since: Option<i64>,
    follow: bool,
) -> Vec<LogFrame> {
    let frames = runner.logs(handle, since, follow).map(|it| it.unwrap()).collect();
    within("the log ends", frames).await
}

pub(crate) fn bytes(frames: &[LogFrame]) -> Vec<u8> {
    frames.iter().flat_map(|it| it.bytes.to_vec()).collect()
}

pub(crate) fn text(frames: &[LogFrame]) -> String {
    String::from_utf8(bytes(frames)).unwrap()
}

/// Keeps outputs in memory.
#[derive(Default)]
pub(crate) struct Sink(pub(crate) Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl OutputSink for Sink {
    async fn store(
        &self,
        name: &str,
        path: &str,
        media_type: &str,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<StoredFile, SinkError> {
        let mut content = Vec::new();
        body.read_to_end(&mut content).await.map_err(|it| SinkError(it.to_string()))?;
        let size = content.len() as u64;
        self.0.lock().unwrap().insert(name.to_owned(), content);
        Ok(StoredFile {
            object_key: name.to_owned(),
            media_type: media_type.to_owned(),
            size,
            sha256: String::new(),
            path: path.to_owned(),
        })
    }
}

pub(crate) fn wanted(files: &[(&str, &str)]) -> CollectRequest {
    let files = files.iter().map(|&(name, path)| (name.to_owned(), path.to_owned())).collect();
    CollectRequest { json_limit: 1 << 20, files, file_limit: 1 << 20 }
}
