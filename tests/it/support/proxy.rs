//! Stands between a client and an engine, and lets single answers get lost.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// What happens to one request.
pub(crate) enum Fate {
    /// The connection breaks before the engine hears of it.
    Unheard,
    /// The engine does it, and its answer gets lost.
    AnswerLost,
    /// It waits here until it is let go.
    Held(oneshot::Sender<()>, oneshot::Receiver<()>),
}

struct Rule {
    method: &'static str,
    path_end: &'static str,
    fate: Fate,
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<String>>,
}

pub(crate) struct Proxy {
    folder: TempDir,
    upstream: Mutex<PathBuf>,
    state: Arc<State>,
    listener: Mutex<Option<AbortHandle>>,
    /// Counts the times that everything was cut.
    cuts: watch::Sender<u32>,
    tasks: Mutex<JoinSet<()>>,
}

impl Proxy {
    pub(crate) fn start(upstream: impl Into<PathBuf>) -> Self {
        let proxy = Self {
            folder: tempfile::tempdir().unwrap(),
            upstream: Mutex::new(upstream.into()),
            state: Arc::default(),
            listener: Mutex::default(),
            cuts: watch::Sender::new(0),
            tasks: Mutex::default(),
        };
        proxy.open();
        proxy
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    /// Nobody listens any more, and every connection breaks.
    pub(crate) fn close(&self) {
        if let Some(listener) = self.listener.lock().unwrap().take() {
            listener.abort();
        }
        self.cuts.send_modify(|it| *it += 1);
    }

    /// Another engine answers from now on, as where a machine was exchanged.
    pub(crate) fn point_at(&self, upstream: impl Into<PathBuf>) {
        self.close();
        *self.upstream.lock().unwrap() = upstream.into();
        self.open();
    }

    pub(crate) fn open(&self) {
        std::fs::remove_file(self.path()).ok();
        let listener = UnixListener::bind(self.path()).unwrap();
        let (state, upstream, cuts) =
            (Arc::clone(&self.state), self.upstream.lock().unwrap().clone(), self.cuts.subscribe());
        let task = async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (state, upstream, mut cuts) =
                    (Arc::clone(&state), upstream.clone(), cuts.clone());
                connections.spawn(async move {
                    cuts.mark_unchanged();
                    tokio::select! {
                        // A broken connection is what this is for.
                        result = serve(&state, client, upstream) => result.unwrap_or_default(),
                        _ = cuts.changed() => {}
                    }
                });
            }
        };
        let handle = self.tasks.lock().unwrap().spawn(task);
        *self.listener.lock().unwrap() = Some(handle);
    }

    /// What becomes of the next request with this method whose path ends so.
    pub(crate) fn next(&self, method: &'static str, path_end: &'static str, fate: Fate) {
        self.state.rules.lock().unwrap().push(Rule { method, path_end, fate });
    }

    /// The first line of every request that was let through to the engine.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

fn matches(request: &str, method: &str, path_end: &str) -> bool {
    let mut words = request.split(' ');
    let path = |it: &str| it.split('?').next().unwrap_or_default().ends_with(path_end);
    words.next() == Some(method) && words.next().is_some_and(path)
}

async fn serve(state: &State, mut client: UnixStream, upstream: PathBuf) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let rule = {
        let mut rules = state.rules.lock().unwrap();
        let found = rules.iter().position(|it| matches(&line, it.method, it.path_end));
        found.map(|index| rules.remove(index))
    };
    let loses = match rule.map(|it| it.fate) {
        None => false,
        Some(Fate::Unheard) => return Ok(()),
        Some(Fate::AnswerLost) => true,
        Some(Fate::Held(arrived, go_on)) => {
            arrived.send(()).ok();
            go_on.await.ok();
            false
        }
    };
    let mut engine = UnixStream::connect(upstream).await?;
    state.requests.lock().unwrap().push(line);
    engine.write_all(&head).await?;
    if loses {
        engine.read_u8().await?;
        return Ok(());
    }
    copy_bidirectional(&mut client, &mut engine).await?;
    Ok(())
}
