//! A container's log from its node, through the API server.
//!
//! - **One stream.** The API has stdout and stderr in one: all of it is stdout here.
//! - **Bytes** are what the container runtime stored: containerd takes the `\r` of a `\r\n` for a part of the
//!   line end, and leaves it out.
//! - **Only the newest file is read.** A kubelet puts a file aside that has grown over its limit (10 MiB by
//!   default, looked at every ten seconds), and followers of kubelets like 1.20 hear nothing from then on. So
//!   a follower that is silent ends, and its reader goes on from where it is: soon where much was written,
//!   after a while where little was.
//! - **`sinceTime` has whole seconds**: what is older than asked for is left out here.

mod entries;

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::io::AsyncBufRead;
use futures_util::stream::{self, BoxStream};
use futures_util::{AsyncBufReadExt as _, StreamExt as _};
use jiff::Timestamp;
use kube::Client;
use kube::api::{LogParams, Request};
use tokio::time::timeout;

use self::entries::Entries;
use super::errors::Fault;
use super::session::now;
use crate::runner::{LogFrame, RunnerError};

const NANOS: i64 = 1_000_000_000;
/// Between two parts of what is stored already.
const STALL: Duration = Duration::from_secs(30);
/// How long a follower may be silent: at least, where much was written; at least, where little was; at most.
const SHORT_SILENCE: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(30);
const LONG_SILENCE: Duration = Duration::from_mins(1);
/// What is much for one reading, in bytes.
const MUCH: usize = 64 << 10;
/// A kubelet looks at the sizes of logs every ten seconds: what is read within them can't have been put
/// aside twice.
pub(super) const TURNOVER: Duration = Duration::from_secs(10);

/// Whose log it is. The name of a pod is never used twice.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    /// As it is called in its pod.
    pub(super) container: String,
}

/// What is read of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// From this time on, in nanoseconds, and whether it is followed.
    From(Option<i64>, bool),
    /// The last frames, so many.
    Last(usize),
}

pub(super) fn read(
    source: Source,
    part: Part,
) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
    stream::unfold(State::Closed(Box::new(source), part), |state| async move {
        let mut reader = match state {
            State::Closed(source, part) => match Reader::open(*source, part).await {
                Ok(reader) => Box::new(reader?),
                Err(error) => return Some((Err(error), State::Done)),
            },
            State::Open(reader) => reader,
            State::Done => return None,
        };
        match reader.next().await? {
            Ok(frame) => Some((Ok(frame), State::Open(reader))),
            Err(error) => Some((Err(error), State::Done)),
        }
    })
    .boxed()
}

/// Resolves when the container has ended, as the log that is followed ends then: true. False: who followed it
/// was cut off, or there is nothing to follow.
pub(super) async fn until_the_end(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
) -> bool {
    let params = LogParams {
        container: Some(container.to_owned()),
        follow: true,
        tail_lines: Some(0),
        ..LogParams::default()
    };
    let Ok(request) =
        Request::new(format!("/api/v1/namespaces/{namespace}/pods")).logs(pod, &params)
    else {
        return false;
    };
    let Ok(body) = client.request_stream(request).await else { return false };
    let mut body = std::pin::pin!(body);
    loop {
        let taken = match body.fill_buf().await {
            Ok([]) => return true,
            Ok(bytes) => bytes.len(),
            Err(_) => return false,
        };
        body.consume_unpin(taken);
    }
}

enum State {
    Closed(Box<Source>, Part),
    Open(Box<Reader>),
    Done,
}

struct Reader {
    body: Pin<Box<dyn AsyncBufRead + Send>>,
    entries: Entries,
    since: i64,
    follow: bool,
    /// The whole answer has come.
    ended: bool,
    /// Bytes that came.
    taken: usize,
    /// The latest time, by the clock of the node.
    latest: Option<i64>,
}

impl Reader {
    /// None: there is nothing to read.
    async fn open(source: Source, part: Part) -> Result<Option<Self>, RunnerError> {
        let (since, follow) = match part {
            Part::From(since, follow) => (since, follow),
            Part::Last(_) => (None, false),
        };
        let path = format!("/api/v1/namespaces/{}/pods", source.namespace);
        let request = Request::new(path)
            .logs(&source.pod, &params(&source.container, part))
            .map_err(|it| RunnerError::Unavailable(it.to_string()))?;
        // A kubelet answers a follower when there is something to follow.
        let limit = if follow { silence(0, since, now()) } else { STALL };
        let opened = timeout(limit, source.client.request_stream(request)).await;
        let body: Pin<Box<dyn AsyncBufRead + Send>> = match opened {
            Ok(Ok(body)) => Box::pin(body),
            Ok(Err(error)) => {
                let fault = Fault::from(error);
                return match fault.status() {
                    // It has not begun to run: the name of a container of a pod is no bad request otherwise.
                    Some(400) if follow => Err(RunnerError::Unavailable(fault.message())),
                    Some(400) => Ok(None),
                    Some(404) => {
                        let (pod, uid) = (&source.pod, &source.uid);
                        let why = format!("pod {pod} ({uid}) is gone, and its logs with it");
                        Err(RunnerError::Unavailable(why))
                    }
                    _ => Err(fault.into()),
                };
            }
            Err(_) if follow => return Ok(None),
            Err(_) => return Err(stands_still()),
        };
        Ok(Some(Self {
            body,
            entries: Entries::new(since.is_some()),
            since: since.unwrap_or(i64::MIN),
            follow,
            ended: false,
            taken: 0,
            latest: since,
        }))
    }

    async fn next(&mut self) -> Option<Result<LogFrame, RunnerError>> {
        loop {
            // A follower whose connection ended can't tell a line without end from one that is cut off.
            while let Some(entry) = self.entries.next(self.ended && !self.follow) {
                let frame = match entry {
                    Ok(frame) => frame,
                    Err(text) => {
                        let why = format!("the node can't read the log: {text}");
                        return Some(Err(RunnerError::Unavailable(why)));
                    }
                };
                self.latest = self.latest.max(Some(frame.at));
                // An entry may be empty.
                if frame.at >= self.since && !frame.bytes.is_empty() {
                    return Some(Ok(frame));
                }
            }
            if self.ended {
                return None;
            }
            let limit = if self.follow { silence(self.taken, self.latest, now()) } else { STALL };
            match timeout(limit, self.fill()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let why = format!("the log broke off: {error}");
                    return Some(Err(RunnerError::Unavailable(why)));
                }
                Err(_) if self.follow => return None,
                Err(_) => return Some(Err(stands_still())),
            }
        }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        let body = &mut self.body;
        let bytes = std::future::poll_fn(|cx| match body.as_mut().poll_fill_buf(cx) {
            Poll::Ready(Ok(bytes)) => {
                self.entries.push(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        self.body.consume_unpin(bytes);
        self.ended = bytes == 0;
        self.taken = self.taken.saturating_add(bytes);
        Ok(())
    }
}

fn params(container: &str, part: Part) -> LogParams {
    let (since, follow, tail) = match part {
        Part::From(since, follow) => (since, follow, None),
        Part::Last(frames) => (None, false, Some(i64::try_from(frames).unwrap_or(i64::MAX))),
    };
    LogParams {
        container: Some(container.to_owned()),
        follow,
        since_time: since
            .map(|it| it.div_euclid(NANOS))
            .filter(|it| *it > 0)
            .and_then(|it| Timestamp::from_second(it).ok()),
        tail_lines: tail,
        timestamps: true,
        ..LogParams::default()
    }
}

/// How long a follower waits that got so much, up to an entry of this time: as long as it is ago, so that who
/// asks again and again and finds nothing asks less and less often.
fn silence(taken: usize, latest: Option<i64>, now: Timestamp) -> Duration {
    let least = if taken >= MUCH { SHORT_SILENCE } else { SILENCE };
    let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
    let ago = latest.map_or(0, |it| now.saturating_sub(it));
    Duration::from_nanos(u64::try_from(ago).unwrap_or_default()).clamp(least, LONG_SILENCE)
}

fn stands_still() -> RunnerError {
    RunnerError::Unavailable("the node gives nothing of the log".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSECOND: i64 = 1_795_236_850_962_517_843;

    #[test]
    fn the_node_is_asked_from_the_whole_second_before() {
        for (since, second) in [
            (None, None),
            (Some(0), None),
            (Some(-5), None),
            (Some(NANOSECOND), Some("2026-11-21T04:54:10Z")),
        ] {
            let params = params("main", Part::From(since, true));
            assert_eq!(params.since_time.map(|it| it.to_string()).as_deref(), second);
            let request = Request::new("/pods").logs("p", &params).unwrap();
            let query = request.uri().query().unwrap().to_owned();
            let seconds = second.map(|it| format!("&sinceTime={}", it.replace(':', "%3A")));
            let seconds = seconds.unwrap_or_default();
            assert_eq!(query, format!("&container=main&follow=true{seconds}&timestamps=true"));
        }
    }

    #[test]
    fn a_follower_is_silent_for_less_where_much_was_written_and_for_longer_each_time() {
        let now = Timestamp::from_nanosecond(NANOSECOND.into()).unwrap();
        let ago = |seconds: i64| Some(NANOSECOND - seconds * NANOS);
        for (taken, latest, expected) in [
            (0, None, 30),
            (0, ago(0), 30),
            (MUCH, ago(0), 2),
            // The clock of the node is ahead.
            (MUCH, ago(-60), 2),
            (MUCH, ago(10), 10),
            (0, ago(40), 40),
            (MUCH, ago(3_600), 60),
        ] {
            assert_eq!(
                silence(taken, latest, now),
                Duration::from_secs(expected),
                "{taken} {latest:?}"
            );
        }
    }
}
