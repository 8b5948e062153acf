//! Stands between a client and an engine or a cluster, and lets single answers get lost.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, UnixListener, UnixStream};
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
    /// What everybody gets for an answer that comes now.
    answer: Mutex<Option<String>>,
    /// How many got it.
    answered: AtomicU32,
    requests: Mutex<Vec<String>>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes a connection to what is behind.
pub(crate) type Connect =
    Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync>;

fn socket(path: PathBuf) -> Connect {
    Arc::new(move || {
        let path = path.clone();
        async move {
            let stream: Box<dyn Stream> = Box::new(UnixStream::connect(path).await?);
            Ok(stream)
        }
        .boxed()
    })
}

/// Where clients come in.
#[derive(Clone)]
enum Door {
    Socket(PathBuf),
    Port(SocketAddr),
}

pub(crate) struct Proxy {
    _folder: Option<TempDir>,
    door: Door,
    upstream: Mutex<Connect>,
    state: Arc<State>,
    listener: Mutex<Option<AbortHandle>>,
    /// Counts the times that everything was cut.
    cuts: watch::Sender<u32>,
    tasks: Mutex<JoinSet<()>>,
}

impl Proxy {
    /// Behind a socket, in front of one.
    pub(crate) fn start(upstream: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::Socket(folder.path().join("engine.sock"));
        Self::over(Some(folder), door, socket(upstream.into()))
    }

    /// Behind a port of this machine. Each connection has one request.
    pub(crate) fn start_at_a_port(upstream: Connect) -> Self {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let door = Door::Port(free.local_addr().unwrap());
        drop(free);
        Self::over(None, door, upstream)
    }

    fn over(folder: Option<TempDir>, door: Door, upstream: Connect) -> Self {
        let proxy = Self {
            _folder: folder,
            door,
            upstream: Mutex::new(upstream),
            state: Arc::default(),
            listener: Mutex::default(),
            cuts: watch::Sender::new(0),
            tasks: Mutex::default(),
        };
        proxy.open();
        proxy
    }

    pub(crate) fn host(&self) -> String {
        match &self.door {
            Door::Socket(path) => format!("unix://{}", path.display()),
            Door::Port(address) => format!("http://{address}"),
        }
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
        *self.upstream.lock().unwrap() = socket(upstream.into());
        self.open();
    }

    pub(crate) fn open(&self) {
        if self.listener.lock().unwrap().is_some() {
            return;
        }
        let listener = Listener::bind(&self.door);
        let (state, upstream, cuts) =
            (Arc::clone(&self.state), self.upstream.lock().unwrap().clone(), self.cuts.subscribe());
        let one_request = matches!(self.door, Door::Port(_));
        let task = async move {
            let mut connections = JoinSet::new();
            while let Ok(client) = listener.accept().await {
                let (state, upstream, mut cuts) =
                    (Arc::clone(&state), Arc::clone(&upstream), cuts.clone());
                connections.spawn(async move {
                    cuts.mark_unchanged();
                    tokio::select! {
                        // A broken connection is what this is for.
                        result = serve(&state, client, &upstream, one_request) => {
                            result.unwrap_or_default();
                        }
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

    /// Answers every request that comes from now on by itself, with this head; or lets them through again. What
    /// goes on is not touched. Says how many it has answered so.
    pub(crate) fn answer(&self, head: Option<&str>) -> u32 {
        let whole =
            |it: &str| format!("HTTP/1.1 {it}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        *self.state.answer.lock().unwrap() = head.map(whole);
        self.answered()
    }

    pub(crate) fn answered(&self) -> u32 {
        self.state.answered.load(Ordering::Relaxed)
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

enum Listener {
    Socket(UnixListener),
    Port(TcpListener),
}

impl Listener {
    fn bind(door: &Door) -> Self {
        match door {
            Door::Socket(path) => {
                std::fs::remove_file(path).ok();
                Self::Socket(UnixListener::bind(path).unwrap())
            }
            Door::Port(address) => {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                socket.bind(*address).unwrap();
                Self::Port(socket.listen(1_024).unwrap())
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Socket(listener) => Box::new(listener.accept().await?.0),
            Self::Port(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Of a whole request, by its head.
fn length(text: &str) -> usize {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let body = head.lines().find_map(|it| {
        let (name, value) = it.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    head.len() + 4 + body.unwrap_or_default()
}

async fn serve(
    state: &State,
    mut client: Box<dyn Stream>,
    upstream: &Connect,
    one_request: bool,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let answer = state.answer.lock().unwrap().clone();
    if let Some(answer) = answer {
        while head.len() < length(&text) {
            client.read_buf(&mut head).await?;
        }
        client.write_all(answer.as_bytes()).await?;
        client.shutdown().await?;
        state.answered.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
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
    // Behind a lost answer nothing more is handed on: the request has to be whole.
    while loses && head.len() < length(&text) {
        client.read_buf(&mut head).await?;
    }
    let mut engine = upstream().await?;
    state.requests.lock().unwrap().push(line);
    if one_request && !text.to_ascii_lowercase().contains("\r\nupgrade:") {
        let end = text.find("\r\n").unwrap_or_default() + 2;
        head.splice(end..end, b"connection: close\r\n".iter().copied());
    }
    engine.write_all(&head).await?;
    engine.flush().await?;
    if loses {
        engine.read_u8().await?;
        return Ok(());
    }
    copy_bidirectional(&mut client, &mut engine).await?;
    Ok(())
}
