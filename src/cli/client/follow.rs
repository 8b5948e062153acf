//! Follows the log of a task to its end: no byte lost and none twice, over lost connections, restarts of
//! the service and further attempts.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, Response};

use super::backoff::Backoff;
use super::position::{Position, Start};
use super::wait::PATIENCE;
use super::{Client, Error, Task};
use crate::cli::out;

const OFFSET_HEADER: &str = "supercargo-log-offset";
const ATTEMPT_HEADER: &str = "supercargo-attempt";
/// Between looks, where a stream ended with neither news nor an end of the task.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A reader of one log. It keeps its place when a call of [`Follower::follow`] is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    id: String,
    position: Position,
}

impl Follower {
    /// Begins with this attempt, from 1.
    pub(crate) fn new(id: impl Into<String>, attempt: i64) -> Self {
        Self { id: id.into(), position: Position::beginning_of(attempt) }
    }

    /// Hands on the log until the task is terminal, and all of its log was read.
    pub(crate) async fn follow(
        &mut self,
        client: &mut Client,
        sink: &mut impl FnMut(Stream, &[u8]) -> std::io::Result<()>,
    ) -> Result<Task, Error> {
        let mut backoff = Backoff::new(PATIENCE);
        // How the task stood before the stream that is read next was opened.
        let mut before: Option<Task> = None;
        loop {
            let from = self.position;
            let step = async {
                self.read(client, sink).await?;
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
                    Some(task) if task.latest_attempt() > self.position.attempt => {
                        self.position = Position::beginning_of(self.position.attempt + 1);
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
        task.state.is_terminal() || task.latest_attempt() > self.position.attempt
    }

    async fn read(
        &mut self,
        client: &Client,
        sink: &mut impl FnMut(Stream, &[u8]) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let place = self.position.query();
        let mut query = vec![("follow", "true")];
        query.extend(place.iter().map(|(name, value)| (*name, value.as_str())));
        let request = client.request(Method::GET, &["tasks", &self.id, "logs"], &query);
        let response = client.accepted(request).await?;
        let fit = self
            .position
            .meet(start_of(&response))
            .ok_or_else(|| client.unexpected(&"it sent the log of another attempt"))?;
        if fit.missing > 0 {
            out::note(format_args!("{} bytes of the log are missing here", fit.missing));
        }
        let mut skip = fit.skip;
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| client.lost(&error))?;
            let had = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= had as u64;
            let new = &chunk[had..];
            if !new.is_empty() {
                sink(Stream::Stdout, new)?;
                self.position.advance(new.len());
            }
        }
        Ok(())
    }
}

fn start_of(response: &Response) -> Start {
    let number = |name| response.headers().get(name).and_then(|it| it.to_str().ok());
    Start {
        attempt: number(ATTEMPT_HEADER).and_then(|it| it.parse().ok()),
        offset: number(OFFSET_HEADER).and_then(|it| it.parse().ok()),
    }
}
