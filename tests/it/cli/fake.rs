//! A stand-in for the service: answers each request with what the test put there for it, in order,
//! and keeps what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub(crate) struct Fake {
    shared: Arc<Shared>,
    data_dir: Arc<tempfile::TempDir>,
    server: tokio::task::JoinHandle<()>,
    url: String,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /api/v1/tasks/1?wait=50s`
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What to answer. The last one for a path is given as often as it is asked for.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// Breaks the connection behind the body.
    broken: bool,
    /// Lets the stream stay open behind the body.
    open: bool,
    /// Told when the answer is about to be given.
    asked: Option<Arc<Notify>>,
    /// Waited for before the answer is given.
    gate: Option<Arc<Notify>>,
    /// Run when the answer is about to be given.
    act: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::bytes(status, body.to_string())
    }

    pub(crate) fn bytes(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self { status, body: body.into(), ..Self::default() }
    }

    /// A piece of log from `offset` of `attempt` on.
    pub(crate) fn log(attempt: i64, offset: u64, body: &'static str) -> Self {
        Self::bytes(200, body)
            .header("supercargo-attempt", attempt.to_string())
            .header("supercargo-log-offset", offset.to_string())
    }

    /// Lines of a log from both streams, each `(offset, stream, line)`.
    pub(crate) fn lines(attempt: i64, lines: &[(u64, &str, &str)]) -> Self {
        let line = |(offset, stream, line): &(u64, &str, &str)| {
            format!(
                "{}\n",
                json!({"stream": stream, "container": "main", "ts": "2026-11-21T09:00:00.000000000Z",
                       "attempt": attempt, "offset": offset, "line": line})
            )
        };
        Self::bytes(200, lines.iter().map(line).collect::<String>())
            .header("content-type", "application/x-ndjson")
            .header("supercargo-attempt", attempt.to_string())
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn broken(self) -> Self {
        Self { broken: true, ..self }
    }

    pub(crate) fn open(self) -> Self {
        Self { open: true, ..self }
    }

    pub(crate) fn tells(self, asked: &Arc<Notify>) -> Self {
        Self { asked: Some(Arc::clone(asked)), ..self }
    }

    pub(crate) fn behind(self, gate: &Arc<Notify>) -> Self {
        Self { gate: Some(Arc::clone(gate)), ..self }
    }

    pub(crate) fn doing(self, act: impl Fn() + Send + Sync + 'static) -> Self {
        Self { act: Some(Arc::new(act)), ..self }
    }

    async fn give(self) -> Response {
        if let Some(act) = &self.act {
            act();
        }
        if let Some(asked) = &self.asked {
            asked.notify_one();
        }
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        let first = stream::iter([Ok::<_, io::Error>(self.body)]);
        let body = if self.broken {
            // What is there is sent when the stream pauses; an error at once would swallow it.
            let pause_and_break = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::ErrorKind::ConnectionReset.into())
            });
            Body::from_stream(first.chain(pause_and_break))
        } else if self.open {
            Body::from_stream(first.chain(stream::pending()))
        } else {
            Body::from_stream(first)
        };
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body).expect("a response")
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let fake = Self::beside(Arc::new(tempfile::tempdir().expect("a folder"))).await;
        std::fs::write(fake.data_dir().join("admin.token"), "t0\n").expect("written");
        fake.announce()();
        fake
    }

    /// A second service for the same data directory, which is not announced yet.
    pub(crate) async fn successor(&self) -> Self {
        Self::beside(Arc::clone(&self.data_dir)).await
    }

    async fn beside(data_dir: Arc<tempfile::TempDir>) -> Self {
        let shared = Arc::<Shared>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = TaskTracker::new()
            .spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { shared, data_dir, server, url }
    }

    /// Writes what a service writes when it listens.
    pub(crate) fn announce(&self) -> impl Fn() + Send + Sync + 'static {
        let path = self.data_dir().join("service.json");
        let text = format!("{{\"url\": \"{}\", \"pid\": 1}}", self.url);
        move || std::fs::write(&path, &text).expect("written")
    }

    /// Removes what a service removes when it stops.
    pub(crate) fn withdraw(&self) -> impl Fn() + Send + Sync + 'static {
        let path = self.data_dir().join("service.json");
        move || std::fs::remove_file(&path).expect("removed")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Answers `GET /api/v1/tasks/1`, say, whatever stands behind the question mark.
    pub(crate) fn on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.shared
            .answers
            .lock()
            .expect("whole")
            .insert(path.to_owned(), answers.into_iter().collect());
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("whole").clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|it| it.line).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = format!("{} {}", request.method(), request.uri().path());
    let line = format!("{} {}", request.method(), request.uri());
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    shared.asked.lock().expect("whole").push(Asked { line, headers: parts.headers, body });
    let answer = {
        let mut answers = shared.answers.lock().expect("whole");
        match answers.get_mut(&path) {
            None => Answer::bytes(404, format!("{{\"detail\": \"nobody expected {path}\"}}")),
            Some(queue) if queue.len() > 1 => queue.pop_front().expect("one"),
            Some(queue) => queue.front().cloned().expect("an answer at least"),
        }
    };
    answer.give().await
}
