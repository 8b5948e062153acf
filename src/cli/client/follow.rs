//! Follows the log of a task to its end: no byte lost and none twice, over lost connections, restarts of
//! the service and further attempts.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response};

use super::backoff::Backoff;
use super::lines::{Decoder, NDJSON, Piece, Stream};
use super::position::{Position, Start};
use super::wait::PATIENCE;
use super::{Client, Error, Task};
use crate::cli::out;

const OTHER_ATTEMPT: &str = "it sent the log of another attempt";
const CUT: &str = "it ended the logs of all containers before the task: one log at a time can be followed over that";
const OFFSET_HEADER: &str = "supercargo-log-offset";
const ATTEMPT_HEADER: &str = "supercargo-attempt";
/// Between looks, where a stream ended with neither news nor an end of the task.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A run of bytes that one stream got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) stream: Stream,
    pub(crate) bytes: &'a [u8],
    /// As the service wrote it, where it wrote JSON.
    pub(crate) json: Option<&'a [u8]>,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Parameters that let only some lines pass.
    pub(crate) filters: Vec<(&'static str, String)>,
    /// Begin with this many lines of what is there.
    pub(crate) tail: Option<u64>,
    /// Of this container, or of all of them: else of the main one.
    pub(crate) container: Option<String>,
}

impl Selection {
    /// Each line is of one of several logs, which have their own places: there is no going on behind it.
    pub(crate) fn is_of_several(&self) -> bool {
        matches!(self.container.as_deref(), Some("*" | "all"))
    }
}

/// A reader of one log. It keeps its place when a call of [`Follower::follow`] is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    id: String,
    position: Position,
    selection: Selection,
}

impl Follower {
    /// Begins with this attempt, from 1.
    pub(crate) fn new(id: impl Into<String>, attempt: Option<i64>) -> Self {
        let position = Position::beginning_of(attempt);
        Self { id: id.into(), position, selection: Selection::default() }
    }

    pub(crate) fn selecting(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// Hands on what is there now.
    pub(crate) async fn print(
        &mut self,
        client: &Client,
        sink: &mut impl FnMut(Chunk<'_>) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        self.read(client, false, sink).await
    }

    /// Hands on the log until the task is terminal, and all of its log was read.
    pub(crate) async fn follow(
        &mut self,
        client: &mut Client,
        sink: &mut impl FnMut(Chunk<'_>) -> std::io::Result<()>,
    ) -> Result<Task, Error> {
        if self.selection.is_of_several() {
            self.read(client, true, sink).await?;
            let task = client.task(&self.id).await?;
            return if self.is_over(&task) { Ok(task) } else { Err(client.unexpected(&CUT)) };
        }
        let mut backoff = Backoff::new(PATIENCE);
        // How the task stood before the stream that is read next was opened.
        let mut before: Option<Task> = None;
        loop {
            let from = self.position;
            let step = async {
                self.read(client, true, sink).await?;
                let all_read =
                    before.as_ref().is_some_and(|it| self.is_over(it)) && self.position == from;
                // A stream may also end because somebody on the way restarts. Only one that was opened
                // after its attempt was over, and brought nothing new, says that this was all.
                if !all_read {
                    before = Some(client.task(&self.id).await?);
                }
                Ok::<_, Error>(all_read)
            };
            match step.await {
                Ok(true) => match before.take() {
                    Some(task) if task.latest_attempt() > self.attempt() => {
                        self.position = Position::beginning_of(Some(self.attempt() + 1));
                        self.selection.tail = None;
                        before = Some(task);
                    }
                    Some(task) => return Ok(task),
                    None => {}
                },
                Ok(false) => {
                    backoff.reset();
                    let is_over = before.as_ref().is_some_and(|it| self.is_over(it));
                    if !is_over && self.position == from {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                }
                Err(error) => {
                    // Bytes that came before it broke show that the service was there.
                    if self.position != from {
                        backoff.reset();
                    }
                    backoff.after(error).await?;
                    client.find_again();
                }
            }
        }
    }

    /// Whether nothing will be added to the log of the attempt that is read.
    fn is_over(&self, task: &Task) -> bool {
        task.state.is_terminal() || task.latest_attempt() > self.attempt()
    }

    fn attempt(&self) -> i64 {
        self.position.attempt.unwrap_or(1)
    }

    /// The parameters that ask for what is wanted from here on.
    fn query(&self, follow: bool) -> Vec<(&'static str, String)> {
        let mut query = self.position.query();
        if let Some(tail) = self.selection.tail {
            query.retain(|(name, _)| *name != "offset");
            query.push(("tail", tail.to_string()));
        }
        if self.selection.is_of_several() {
            query.retain(|(name, _)| *name != "offset");
        }
        query.extend(self.selection.container.iter().map(|it| ("container", it.clone())));
        if follow {
            query.insert(0, ("follow", "true".to_owned()));
        }
        query.extend(self.selection.filters.iter().cloned());
        query
    }

    async fn read(
        &mut self,
        client: &Client,
        follow: bool,
        sink: &mut impl FnMut(Chunk<'_>) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let query = self.query(follow);
        let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = client.request(Method::GET, &["tasks", &self.id, "logs"], &query);
        let response = client.accepted(request.header(ACCEPT, NDJSON)).await?;
        let mut decoder = Decoder::of(content_type(&response));
        let fit = self
            .position
            .meet(start_of(&response))
            .ok_or_else(|| client.unexpected(&OTHER_ATTEMPT))?;
        self.tell_missing(fit.missing);
        let mut skip = fit.skip;
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| client.lost(&error))?;
            for piece in decoder.push(&chunk).map_err(|error| client.unexpected(&error))? {
                if self.selection.is_of_several() {
                    let bytes = piece.told();
                    sink(Chunk {
                        stream: piece.stream,
                        bytes: &bytes,
                        json: piece.json.as_deref(),
                    })?;
                    continue;
                }
                let Piece { stream, attempt, offset, bytes, json, .. } = piece;
                if offset.is_some() {
                    let fit = self.position.meet(Start { attempt, offset });
                    let fit = fit.ok_or_else(|| client.unexpected(&OTHER_ATTEMPT))?;
                    self.tell_missing(fit.missing);
                    skip = fit.skip;
                }
                let had = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                skip -= had as u64;
                let new = &bytes[had..];
                if !new.is_empty() {
                    sink(Chunk { stream, bytes: new, json: json.as_deref() })?;
                    self.position.advance(new.len());
                    self.selection.tail = None;
                }
            }
        }
        Ok(())
    }

    /// What was not asked for is not missing.
    fn tell_missing(&self, bytes: u64) {
        if bytes > 0 && self.selection.filters.is_empty() && self.selection.tail.is_none() {
            out::hint(format_args!("{bytes} bytes of the log are missing here"));
        }
    }
}

fn content_type(response: &Response) -> Option<&str> {
    response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok())
}

fn start_of(response: &Response) -> Start {
    let number = |name| response.headers().get(name).and_then(|it| it.to_str().ok());
    Start {
        attempt: number(ATTEMPT_HEADER).and_then(|it| it.parse().ok()),
        offset: number(OFFSET_HEADER).and_then(|it| it.parse().ok()),
    }
}
