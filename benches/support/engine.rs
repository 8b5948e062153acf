//! The floor: what a careful client asks of a Docker engine to run a container, and nothing more.
//!
//! Create, start, wait, read the log, remove, over one kept connection. The container is the one that the
//! service makes of the same task (image, network, log driver), but without the service's own labels and
//! without the anonymous volume in which it takes outputs: what these cost is the service's tax.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::http::{Http, request};
use super::pattern::Repeated;

pub(crate) const IMAGE: &str = "busybox:latest";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const GONE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// An engine on this machine.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
}

/// One kept connection.
#[derive(Debug)]
pub(crate) struct Bare {
    http: Http<UnixStream>,
}

/// How long each call took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) create: Duration,
    pub(crate) start: Duration,
    pub(crate) wait: Duration,
    pub(crate) logs: Duration,
    pub(crate) remove: Duration,
}

impl Steps {
    pub(crate) fn total(&self) -> Duration {
        self.create + self.start + self.wait + self.logs + self.remove
    }
}

impl Engine {
    /// The one that the service takes, too.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let host = std::env::var_os("DOCKER_HOST").filter(|it| !it.is_empty());
        let socket = match host.as_ref().map(|it| it.to_string_lossy()) {
            None => PathBuf::from(DEFAULT_SOCKET),
            Some(host) => {
                let path = host.strip_prefix("unix://");
                path.context("only an engine behind a Unix socket can be measured here")?.into()
            }
        };
        Ok(Self { socket })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Bare> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.with_context(|| {
            format!("no engine answers at {}: scripts/setup starts one", self.socket.display())
        })?;
        Ok(Bare { http: Http::new(stream) })
    }

    /// Waits until no container with this label (`name=value`) is left, looking every few milliseconds.
    pub(crate) async fn until_gone(&self, label: &str) -> anyhow::Result<()> {
        let mut bare = self.connect().await?;
        let give_up = Instant::now() + GONE_WITHIN;
        while !bare.list(label, true).await?.is_empty() {
            ensure!(Instant::now() < give_up, "containers with {label} are not removed");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// The create body of the same container that the service makes.
pub(crate) fn container(command: &[&str]) -> Value {
    json!({
        "Image": IMAGE,
        "Cmd": command,
        "HostConfig": {"LogConfig": {"Type": "local", "Config": {
            "max-size": "1073741824", "max-file": "1", "compress": "false",
        }}},
    })
}

/// With an anonymous volume, as the service has one.
pub(crate) fn with_volume(mut container: Value) -> Value {
    container["Volumes"] = json!({"/out": {}});
    container
}

fn call(method: &str, path: &str) -> Vec<u8> {
    request(method, path, "engine", &[], None)
}

impl Bare {
    /// The whole life of a container that says nothing much.
    pub(crate) async fn run(&mut self, container: &Value) -> anyhow::Result<Steps> {
        let mut at = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            now - std::mem::replace(&mut at, now)
        };
        let id = self.create(container).await?;
        let create = lap();
        self.start(&id).await?;
        let start = lap();
        self.wait(&id).await?;
        let wait = lap();
        self.http.expect(&logs(&id, false, false), &[200]).await?;
        let logs = lap();
        self.remove(&id).await?;
        Ok(Steps { create, start, wait, logs, remove: lap() })
    }

    pub(crate) async fn create(&mut self, container: &Value) -> anyhow::Result<String> {
        let body = container.to_string();
        let call = request("POST", "/containers/create", "engine", &[], Some(&body));
        let answer = self.http.create(&call).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["Id"].as_str().context("the engine gives no id")?.to_owned())
    }

    pub(crate) async fn start(&mut self, id: &str) -> anyhow::Result<()> {
        let call = call("POST", &format!("/containers/{id}/start"));
        self.http.expect(&call, &[204]).await.map(|_| ())
    }

    pub(crate) async fn wait(&mut self, id: &str) -> anyhow::Result<()> {
        let call = call("POST", &format!("/containers/{id}/wait"));
        let (_, answer) = self.http.expect(&call, &[200]).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        ensure!(answer["StatusCode"] == 0, "the container ended with {answer}");
        Ok(())
    }

    pub(crate) async fn remove(&mut self, id: &str) -> anyhow::Result<()> {
        let call = call("DELETE", &format!("/containers/{id}?v=1"));
        self.http.expect(&call, &[204]).await.map(|_| ())
    }

    /// Reads the log as `docker logs -f` does, and compares it.
    pub(crate) async fn follow(
        &mut self,
        id: &str,
        timestamps: bool,
        expected: &mut Repeated,
    ) -> anyhow::Result<()> {
        let head = self.http.send(&logs(id, true, timestamps)).await?;
        ensure!(head.status == 200, "the engine answers {} for a log", head.status);
        let mut frames = Frames::default();
        while let Some(piece) = self.http.piece().await? {
            frames.put(&piece);
            while let Some(frame) = frames.next() {
                let text = if timestamps { without_time(frame)? } else { frame };
                expected.take(text)?;
            }
        }
        Ok(())
    }

    /// Follows a log, and hands out the frames as they come.
    pub(crate) async fn watch(
        &mut self,
        id: &str,
        mut frame: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let head = self.http.send(&logs(id, true, false)).await?;
        ensure!(head.status == 200, "the engine answers {} for a log", head.status);
        let mut frames = Frames::default();
        while let Some(piece) = self.http.piece().await? {
            frames.put(&piece);
            while let Some(it) = frames.next() {
                frame(it);
            }
        }
        Ok(())
    }

    /// The ids of the containers with this label (`name=value`), all of them or those that run.
    pub(crate) async fn list(&mut self, label: &str, all: bool) -> anyhow::Result<Vec<String>> {
        // As in a URL: {"label":["…"]}
        let filter = format!("%7B%22label%22%3A%5B%22{}%22%5D%7D", label.replace('=', "%3D"));
        let call = call("GET", &format!("/containers/json?all={all}&filters={filter}"));
        let (_, answer) = self.http.expect(&call, &[200]).await?;
        let answer: Vec<Value> = serde_json::from_slice(&answer)?;
        Ok(answer.iter().filter_map(|it| it["Id"].as_str().map(str::to_owned)).collect())
    }
}

fn logs(id: &str, follow: bool, timestamps: bool) -> Vec<u8> {
    let path = format!(
        "/containers/{id}/logs?stdout=1&stderr=1&follow={}&timestamps={}",
        u8::from(follow),
        u8::from(timestamps),
    );
    call("GET", &path)
}

fn without_time(frame: &[u8]) -> anyhow::Result<&[u8]> {
    let space = frame.iter().position(|it| *it == b' ').context("a frame without a time")?;
    Ok(&frame[space + 1..])
}

/// Takes the frames of the engine's stream apart: 4 bytes of kind, 4 of length, then the bytes.
#[derive(Debug, Default)]
struct Frames {
    buffer: Vec<u8>,
    at: usize,
}

impl Frames {
    fn put(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(piece);
    }

    fn next(&mut self) -> Option<&[u8]> {
        let head: [u8; 8] = self.buffer.get(self.at..self.at + 8)?.try_into().ok()?;
        let [_, _, _, _, length @ ..] = head;
        let begin = self.at + head.len();
        let end = begin + u32::from_be_bytes(length) as usize;
        let frame = self.buffer.get(begin..end)?;
        self.at = end;
        Some(frame)
    }
}
