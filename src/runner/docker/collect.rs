//! The outputs of a container that has exited. A HEAD costs 1.5 ms and a GET 40: only what is there is read.

use std::io;
use std::sync::Arc;

use bollard::container::PathStatResponse;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use super::Pointer;
use super::archive::first_file;
use super::errors::Fault;
use super::events::Session;
use crate::runner::files::{Limited, TAR, media_type};
use crate::runner::{
    CollectRequest, Collected, FileResult, JsonFile, OutputSink, RunnerError, naming,
};

/// Go's `fs.FileMode`.
const MODE_DIR: u32 = 1 << 31;
const MODE_SYMLINK: u32 = 1 << 27;
const MODE_DEVICE: u32 = 1 << 26;
const MODE_PIPE: u32 = 1 << 25;
const MODE_SOCKET: u32 = 1 << 24;
const MODE_OTHER: u32 = 1 << 19;

const UNREADABLE: &str = "not to be read (a link that leads in a circle?)";

pub(super) async fn collect(
    session: &Arc<Session>,
    pointer: &Pointer,
    request: &CollectRequest,
    sink: &dyn OutputSink,
) -> Result<Collected, RunnerError> {
    session.with(&pointer.engine)?;
    let source = Source { session, container: &pointer.container, pointer };
    let json = source.json(request.json_limit).await?;
    let mut files = std::collections::BTreeMap::new();
    for (name, path) in &request.files {
        let result = source.file(name, path, request.file_limit, sink).await?;
        files.insert(name.clone(), result);
    }
    Ok(Collected { json, files })
}

/// What a path leads to.
enum Found {
    Nothing,
    File { path: String, size: u64 },
    Folder { path: String },
    Unsuitable(&'static str),
}

/// What the engine says of a path.
enum Stat {
    Nothing,
    Is(PathStatResponse),
    /// There, and not to be reached.
    Unreadable,
}

struct Source<'a> {
    session: &'a Arc<Session>,
    container: &'a str,
    pointer: &'a Pointer,
}

impl Source<'_> {
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
        if size == 0 {
            return Ok(JsonFile::Bytes(Vec::new()));
        }
        let Some((size, mut body)) =
            first_file(self.download(&path)).await.map_err(|it| broken(&it))?
        else {
            return Ok(JsonFile::Absent);
        };
        if size > limit {
            return Ok(JsonFile::TooLarge { size });
        }
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
            Found::File { path: found, .. } => {
                let Some((size, mut body)) =
                    first_file(self.download(&found)).await.map_err(|it| broken(&it))?
                else {
                    return Ok(FileResult::Missing);
                };
                if size > limit {
                    return Ok(FileResult::TooLarge { size });
                }
                Ok(FileResult::Stored(sink.store(name, path, media_type(path), &mut body).await?))
            }
            Found::Folder { path: found } => {
                let mut body = Limited::new(self.download(&found), limit);
                match sink.store(name, path, TAR, &mut body).await {
                    Ok(stored) => Ok(FileResult::Stored(stored)),
                    Err(error) => match body.exceeded() {
                        Some(size) => Ok(FileResult::TooLarge { size }),
                        None => Err(error.into()),
                    },
                }
            }
        }
    }

    /// Follows a link as the container would: the engine tells where it ends.
    async fn find(&self, path: &str) -> Result<Found, RunnerError> {
        let path = match path.trim_end_matches('/') {
            "" => "/",
            trimmed => trimmed,
        };
        let stat = match self.stat(path).await? {
            Stat::Nothing => return Ok(Found::Nothing),
            Stat::Unreadable => return Ok(Found::Unsuitable(UNREADABLE)),
            Stat::Is(stat) => stat,
        };
        if stat.file_mode & MODE_SYMLINK == 0 {
            return Ok(found(path, &stat));
        }
        let target = stat.link_target;
        Ok(match self.stat(&target).await? {
            Stat::Nothing => Found::Nothing,
            Stat::Is(stat) if stat.file_mode & MODE_SYMLINK == 0 => found(&target, &stat),
            Stat::Is(_) | Stat::Unreadable => Found::Unsuitable(UNREADABLE),
        })
    }

    async fn stat(&self, path: &str) -> Result<Stat, RunnerError> {
        match self.head(path).await {
            Ok(stat) => Ok(Stat::Is(stat)),
            // No such path, or no such container: an answer to HEAD has no body to tell.
            Err(Fault::Status { code: 404, .. }) => {
                self.still_there().await?;
                Ok(Stat::Nothing)
            }
            // As for links that lead in a circle. Its root tells whether it is this path or the engine.
            Err(fault @ Fault::Status { code: 500, .. }) => match self.head("/").await {
                Ok(_) if path != "/" => Ok(Stat::Unreadable),
                _ => Err(fault.into()),
            },
            Err(fault) => Err(fault.into()),
        }
    }

    async fn head(&self, path: &str) -> Result<PathStatResponse, Fault> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let call = self.session.docker.get_container_archive_info(self.container, Some(options));
        self.session.call(call).await
    }

    async fn still_there(&self) -> Result<(), RunnerError> {
        if self.session.exists(&self.pointer.container).await? {
            return Ok(());
        }
        Err(RunnerError::Unavailable("the container is gone, and its outputs with it".to_owned()))
    }

    fn download(
        &self,
        path: &str,
    ) -> StreamReader<impl Stream<Item = io::Result<Bytes>> + Send + Unpin + use<>, Bytes> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let limit = self.session.call_timeout();
        let chunks = self.session.docker.download_from_container(self.container, Some(options));
        StreamReader::new(Box::pin(stream::unfold(Some(chunks), move |chunks| async move {
            let mut chunks = chunks?;
            match tokio::time::timeout(limit, chunks.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
                Ok(Some(Err(error))) => {
                    Some((Err(io::Error::other(Fault::from(error).message())), None))
                }
                Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
            }
        })))
    }
}

fn broken(error: &io::Error) -> RunnerError {
    RunnerError::Unavailable(format!("a file could not be read to its end: {error}"))
}

fn found(path: &str, stat: &PathStatResponse) -> Found {
    let is = |mode: u32| stat.file_mode & mode != 0;
    if is(MODE_DIR) {
        Found::Folder { path: path.to_owned() }
    } else if is(MODE_DEVICE) {
        Found::Unsuitable("a device")
    } else if is(MODE_PIPE) {
        Found::Unsuitable("a named pipe")
    } else if is(MODE_SOCKET) {
        Found::Unsuitable("a socket")
    } else if is(MODE_SYMLINK | MODE_OTHER) {
        Found::Unsuitable("not a regular file")
    } else {
        Found::File { path: path.to_owned(), size: u64::try_from(stat.size).unwrap_or_default() }
    }
}
