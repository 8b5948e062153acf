//! Follows the log of a task to its end: no byte lost and none twice, over lost connections and
//! restarts of the service.

use futures_util::StreamExt as _;
use reqwest::{Method, Response};

use super::backoff::Backoff;
use super::position::Start;
use super::wait::PATIENCE;
use super::{Client, Error, Position, Task};
use crate::cli::out;

const OFFSET_HEADER: &str = "supercargo-log-offset";
const ATTEMPT_HEADER: &str = "supercargo-attempt";

/// A reader of one log. It keeps its place when a call of [`Follower::follow`] is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    id: String,
    position: Position,
}

impl Follower {
    pub(crate) fn new(id: impl Into<String>, position: Position) -> Self {
        Self { id: id.into(), position }
    }

    /// Hands on the log until the task is terminal, and all of its log was read.
    pub(crate) async fn follow(
        &mut self,
        client: &mut Client,
        sink: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<Task, Error> {
        let mut backoff = Backoff::new(PATIENCE);
        let mut terminal: Option<Task> = None;
        loop {
            let before = self.position;
            let step = async {
                match self.read(client, sink).await {
                    // A task that never started has no log; whether it will, the task says.
                    Err(Error::Problem(problem)) if matches!(problem.status, 404 | 416 | 425) => {}
                    read => read?,
                }
                // A stream also ends when the service stops. Only one that was opened after the task
                // had ended, and brought nothing new, says that this was all.
                match terminal.take() {
                    Some(task) if self.position == before => Ok(Ok(task)),
                    _ => client.task(&self.id).await.map(Err),
                }
            };
            match step.await {
                Ok(Ok(task)) => return Ok(task),
                Ok(Err(task)) => {
                    backoff.reset();
                    let is_over = task.state.is_terminal();
                    terminal = Some(task).filter(|_| is_over);
                    if terminal.is_none() && self.position == before {
                        // Neither news nor an end: let a service that starts or stops get on with it.
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
                Err(error) => {
                    // Bytes that came before it broke show that the service was there.
                    if self.position != before {
                        backoff.reset();
                    }
                    backoff.after(error).await?;
                    client.find_again();
                }
            }
        }
    }

    async fn read(
        &mut self,
        client: &Client,
        sink: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let place = self.position.query();
        let mut query = vec![("follow", "true")];
        query.extend(place.iter().map(|(name, value)| (*name, value.as_str())));
        let request = client.request(Method::GET, &["tasks", &self.id, "logs"], &query);
        let response = client.accepted(request).await?;
        let fit = self.position.meet(start_of(&response));
        if fit.missing > 0 {
            out::note(format!("{} bytes of the log are missing here", fit.missing));
        }
        let mut skip = fit.skip;
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| client.lost(&error))?;
            let had = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= had as u64;
            let new = &chunk[had..];
            if !new.is_empty() {
                sink(new)?;
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
