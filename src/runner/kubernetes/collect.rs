//! The outputs of a pod whose main container has ended.
//!
//! What fits into a termination message comes with the status of the pod. For more there is a collector: a
//! container of ours beside the main one, which has the folders of the outputs at the same paths and a shell.
//! It is not told to end here, as collecting may have to be repeated: it ends with its pod, once all is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::convert::COLLECTOR;
use super::errors::Fault;
use crate::runner::files::{Exact, Limited, TAR, media_type};
use crate::runner::{
    CollectRequest, Collected, FileResult, JsonFile, OutputSink, RunnerError, naming,
};

/// Of the termination message of one container, and of those of a whole pod: a kubelet cuts off the rest.
const MESSAGE_BYTES: usize = 4_096;
const POD_MESSAGE_BYTES: usize = 12 << 10;
/// What is on the way between the cluster and the object store.
const BUFFER: usize = 256 << 10;
/// Of the answer to a look: a type, a size and a path.
const LOOK_BYTES: u64 = 16 << 10;
const UNREADABLE: &str = "not to be read (a link that leads in a circle?)";

/// Tells what a path leads to: `<type> <size>`, and where it is behind all links.
const LOOK: &str = r#"
p=$1
if [ ! -e "$p" ]; then
  if [ -L "$p" ] && [ -z "$(readlink -f "$p")" ]; then echo circle 0; else echo nothing 0; fi
  exit
fi
r=$(readlink -f "$p" && echo .) || { echo circle 0; exit; }
r=${r%??}
if [ -d "$r" ]; then echo folder 0
elif [ -f "$r" ]; then echo "file $(stat -c %s "$r")"
elif [ -p "$r" ]; then echo pipe 0
elif [ -S "$r" ]; then echo socket 0
elif [ -b "$r" ] || [ -c "$r" ]; then echo device 0
else echo other 0
fi
printf %s "$r"
"#;

/// From the termination message of the main container, in a pod of so many containers.
pub(super) fn from_message(
    message: &str,
    containers: usize,
    request: &CollectRequest,
) -> Collected {
    let size = message.len() as u64;
    let limit = MESSAGE_BYTES.min(POD_MESSAGE_BYTES / containers.max(1));
    let json = if message.is_empty() {
        JsonFile::Absent
    } else if message.len() >= limit {
        JsonFile::Cut { at: size }
    } else if size > request.json_limit {
        JsonFile::TooLarge { size }
    } else {
        JsonFile::Bytes(message.as_bytes().to_vec())
    };
    let files = request.files.keys().map(|name| (name.clone(), FileResult::Missing));
    Collected { json, files: files.collect() }
}

/// Through the collector of a pod. Repeating it stores the same again.
pub(super) async fn from_collector(
    client: &Client,
    namespace: &str,
    pod: &str,
    request: &CollectRequest,
    sink: &dyn OutputSink,
) -> Result<Collected, RunnerError> {
    let pods = Api::namespaced(client.clone(), namespace);
    let collector = Collector { pods, pod, shared: shared(request) };
    let json = collector.json(request.json_limit).await?;
    let mut files = BTreeMap::new();
    for (name, path) in &request.files {
        let result = collector.file(name, path, request.file_limit, sink).await?;
        files.insert(name.clone(), result);
    }
    Ok(Collected { json, files })
}

/// The folders that the collector has in common with the main container. Its other files are its own.
fn shared(request: &CollectRequest) -> BTreeSet<String> {
    let parents = request.files.values().filter_map(|path| {
        let (parent, _) = trimmed(path).rsplit_once('/')?;
        (!parent.is_empty()).then(|| parent.to_owned())
    });
    parents.chain([naming::OUTPUT_DIR.to_owned()]).collect()
}

fn trimmed(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    File { path: String, size: u64 },
    Folder { path: String },
    Unsuitable(&'static str),
}

struct Collector<'a> {
    pods: Api<Pod>,
    pod: &'a str,
    shared: BTreeSet<String>,
}

impl Collector<'_> {
    async fn json(&self, limit: u64) -> Result<JsonFile, RunnerError> {
        let (path, size) = match self.find(naming::OUTPUT_FILE).await? {
            Found::File { path, size } => (path, size),
            Found::Nothing | Found::Folder { .. } | Found::Unsuitable(_) => {
                return Ok(JsonFile::Absent);
            }
        };
        if size > limit {
            return Ok(JsonFile::TooLarge { size });
        }
        let mut body = Exact::new(self.run(&["cat", &path]).await?, size);
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).await.map_err(|it| broken(&it))?;
        Ok(JsonFile::Bytes(bytes))
    }

    async fn file(
        &self,
        name: &str,
        path: &str,
        limit: u64,
        sink: &dyn OutputSink,
    ) -> Result<FileResult, RunnerError> {
        match self.find(path).await? {
            Found::Nothing => Ok(FileResult::Missing),
            Found::Unsuitable(what) => Ok(FileResult::Unsuitable(format!("{path} is {what}"))),
            Found::File { size, .. } if size > limit => Ok(FileResult::TooLarge { size }),
            Found::File { path: found, size } => {
                let mut output = self.run(&["cat", &found]).await?;
                // A file without content is not looked into further, and may still not be readable.
                let stored = sink
                    .store(name, path, media_type(path), &mut Exact::new(&mut output, size))
                    .await;
                match (stored, output.failed) {
                    (Ok(stored), _) => Ok(FileResult::Stored(stored)),
                    (Err(_), Some(why)) => Ok(unreadable(path, &why)),
                    (Err(error), None) => Err(error.into()),
                }
            }
            Found::Folder { path: found } => {
                let (parent, folder) = found.rsplit_once('/').unwrap_or_default();
                let parent = if parent.is_empty() { "/" } else { parent };
                let output = self.run(&["tar", "-cf", "-", "-C", parent, "--", folder]).await?;
                let mut body = Limited::new(output, limit);
                match sink.store(name, path, TAR, &mut body).await {
                    Ok(stored) => Ok(FileResult::Stored(stored)),
                    Err(error) => match (body.exceeded(), body.into_inner().failed) {
                        (Some(size), _) => Ok(FileResult::TooLarge { size }),
                        (None, Some(why)) => Ok(unreadable(path, &why)),
                        (None, None) => Err(error.into()),
                    },
                }
            }
        }
    }

    async fn find(&self, path: &str) -> Result<Found, RunnerError> {
        let output = self.run(&["sh", "-c", LOOK, "sh", trimmed(path)]).await?;
        let mut said = Vec::new();
        output.take(LOOK_BYTES).read_to_end(&mut said).await.map_err(|it| broken(&it))?;
        found(&said, &self.shared).ok_or_else(|| {
            let said = String::from_utf8_lossy(&said);
            RunnerError::Unavailable(format!(
                "the collector does not know what {path} is: {said:?}"
            ))
        })
    }

    async fn run(&self, command: &[&str]) -> Result<Output, RunnerError> {
        let params =
            AttachParams::default().container(COLLECTOR).stderr(false).max_stdout_buf_size(BUFFER);
        let process = self.pods.exec(self.pod, command.iter().copied(), &params).await;
        let mut process = process.map_err(Fault::from)?;
        let (Some(stdout), Some(status)) = (process.stdout(), process.take_status()) else {
            return Err(RunnerError::Unavailable("the collector gives no output".to_owned()));
        };
        Ok(Output {
            stdout: Box::pin(stdout),
            status: Some(status.boxed()),
            failed: None,
            _process: process,
        })
    }
}

fn unreadable(path: &str, why: &str) -> FileResult {
    FileResult::Unsuitable(format!("{path} can't be read by the collector: {why}"))
}

fn broken(error: &io::Error) -> RunnerError {
    RunnerError::Unavailable(format!("the collector could not be heard to its end: {error}"))
}

/// What a look says.
fn found(said: &[u8], shared: &BTreeSet<String>) -> Option<Found> {
    let line_end = memchr::memchr(b'\n', said)?;
    let (kind, size) = std::str::from_utf8(&said[..line_end]).ok()?.split_once(' ')?;
    let size = size.trim().parse().ok()?;
    let path = String::from_utf8_lossy(&said[line_end + 1..]).into_owned();
    let is_shared = shared.iter().any(|it| {
        path.strip_prefix(it.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    Some(match kind {
        "nothing" => Found::Nothing,
        "circle" => Found::Unsuitable(UNREADABLE),
        // The collector has another file there, or none.
        _ if !is_shared => Found::Unsuitable("a link to outside of the folder that it is in"),
        "folder" => Found::Folder { path },
        "file" => Found::File { path, size },
        "pipe" => Found::Unsuitable("a named pipe"),
        "socket" => Found::Unsuitable("a socket"),
        "device" => Found::Unsuitable("a device"),
        _ => Found::Unsuitable("not a regular file"),
    })
}

/// What a command writes. It ends well only if the command does: a connection that breaks off looks like an
/// end otherwise.
struct Output {
    stdout: Pin<Box<dyn AsyncRead + Send>>,
    status: Option<BoxFuture<'static, Option<Status>>>,
    /// How the command itself ended badly, which it would again.
    failed: Option<String>,
    /// Ends with it.
    _process: AttachedProcess,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.stdout.as_mut().poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(status) = &mut self.status else { return Poll::Ready(Ok(())) };
        let status = ready!(status.as_mut().poll(cx));
        let Some(status) = status else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        if status.status.as_deref() == Some("Success") {
            self.status = None;
            return Poll::Ready(Ok(()));
        }
        let why = status.message.unwrap_or_default();
        if status.reason.as_deref() == Some("NonZeroExitCode") {
            self.failed = Some(why.clone());
        }
        Poll::Ready(Err(io::Error::other(why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(files: &[(&str, &str)]) -> CollectRequest {
        let files = files.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned()));
        CollectRequest { json_limit: 1 << 20, files: files.collect(), file_limit: 1 << 30 }
    }

    #[test]
    fn a_message_is_the_file_unless_it_may_have_been_cut() {
        let json =
            |bytes, containers| from_message(&"x".repeat(bytes), containers, &request(&[])).json;
        assert_eq!(json(0, 1), JsonFile::Absent);
        assert_eq!(json(4_095, 1), JsonFile::Bytes(vec![b'x'; 4_095]));
        assert_eq!(json(4_096, 1), JsonFile::Cut { at: 4_096 });
        assert_eq!(json(4_095, 3), JsonFile::Bytes(vec![b'x'; 4_095]));
        assert_eq!(json(3_071, 4), JsonFile::Bytes(vec![b'x'; 3_071]));
        assert_eq!(json(3_072, 4), JsonFile::Cut { at: 3_072 });
        let small = CollectRequest { json_limit: 10, ..request(&[]) };
        assert_eq!(from_message("elevenbytes", 1, &small).json, JsonFile::TooLarge { size: 11 });
    }

    #[test]
    fn a_look_says_what_is_there_and_nothing_outside_is_taken() {
        let shared = shared(&request(&[("a", "/out/a.csv"), ("b", "/data/b/"), ("c", "/c")]));
        assert_eq!(shared.iter().collect::<Vec<_>>(), ["/data", "/out", "/supercargo"]);
        let found = |said: &str| found(said.as_bytes(), &shared);
        let path = |it: &str| it.to_owned();
        assert_eq!(found("nothing 0\n"), Some(Found::Nothing));
        assert_eq!(found("circle 0\n"), Some(Found::Unsuitable(UNREADABLE)));
        assert_eq!(
            found("file 7\n/out/a b"),
            Some(Found::File { path: path("/out/a b"), size: 7 })
        );
        assert_eq!(found("folder 0\n/data/b"), Some(Found::Folder { path: path("/data/b") }));
        assert_eq!(
            found("file 7\n/out/two\nlines"),
            Some(Found::File { path: path("/out/two\nlines"), size: 7 })
        );
        for outside in ["file 7\n/etc/passwd", "file 7\n/output/a", "folder 0\n/"] {
            assert!(matches!(found(outside), Some(Found::Unsuitable(_))), "{outside}");
        }
        assert_eq!(found("pipe 0\n/out/p"), Some(Found::Unsuitable("a named pipe")));
        for strange in ["", "file\n/out/a", "file x\n/out/a", "sh: not found"] {
            assert_eq!(found(strange), None, "{strange}");
        }
    }
}
