//! A container's log from the engine's own store, frame by frame.
//!
//! The engine puts its time before every frame. Times of one stream never go back, but a line over
//! 16 KiB comes as several frames that all carry the time of its beginning, so that a later frame of
//! stdout may be older than an earlier one of stderr. Whoever resumes goes back to the time of the last
//! frame of each stream whose line was still open, and leaves out as many frames as it has from there.
//!
//! The engine's `local` store loses the line end of such a line. It is put back ([`Mender`]): a frame
//! without one is followed by the rest of its line, with the same time, or its line has ended.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;

use super::Pointer;
use super::errors::Fault;
use super::events::Session;
use super::transport::{Driver, Inline};
use crate::runner::{LogFrame, LogStream, RunnerError};

const NANOS: i64 = 1_000_000_000;
/// Between two frames of what is stored already. The engine may have to skip a GiB before the first one.
const STALL: Duration = Duration::from_mins(2);

/// What is read of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// From this time on, and whether it is followed.
    From(Option<i64>, bool),
    /// The last frames, so many. The engine reads these from behind.
    Last(usize),
}

pub(super) fn read(
    session: Arc<Session>,
    pointer: Result<Pointer, RunnerError>,
    part: Part,
) -> BoxStream<'static, Result<LogFrame, RunnerError>> {
    let opened = async move {
        match pointer.and_then(|it| Ok((session.with(&it.engine)?, it))) {
            Ok((link, pointer)) => {
                let inline = Inline::default();
                let docker = inline.on(&session.docker);
                let (since, follow) = match part {
                    Part::From(since, follow) => (since, follow),
                    Part::Last(_) => (None, false),
                };
                let frames = docker.logs(&pointer.container, Some(options(part)));
                let reader = Reader {
                    frames: Box::pin(frames),
                    inline,
                    driver: None,
                    lost: session.lost(link).boxed(),
                    times: Times::default(),
                    mender: Mender::default(),
                    ready: None,
                    since: since.unwrap_or(i64::MIN),
                    stall: (!follow).then_some(STALL),
                };
                reader.stream().boxed()
            }
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    };
    stream::once(opened).flatten().boxed()
}

/// The engine takes whole seconds from bollard, so it is asked for more and the rest is left out here.
fn options(part: Part) -> LogsOptions {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
    match part {
        Part::From(since, follow) => {
            let seconds = since.map_or(0, |it| it.div_euclid(NANOS));
            let seconds = i32::try_from(seconds).unwrap_or(0).max(0);
            options.since(seconds).follow(follow).build()
        }
        Part::Last(frames) => options.tail(&frames.to_string()).build(),
    }
}

struct Reader {
    frames: BoxStream<'static, Result<LogOutput, Error>>,
    /// The connection that they come over: driven here, so that a line is not handed between threads.
    inline: Inline,
    driver: Option<Driver>,
    /// The end of the session: a connection to an engine that is gone may stay open and silent.
    lost: BoxFuture<'static, ()>,
    times: Times,
    mender: Mender,
    /// What comes after a line end that was put back.
    ready: Option<LogFrame>,
    since: i64,
    stall: Option<Duration>,
}

/// Knows the streams whose last frame had no line end, by its time.
#[derive(Debug, Default)]
struct Mender {
    stdout: Option<i64>,
    stderr: Option<i64>,
}

impl Mender {
    /// The line end that the engine lost before this frame.
    fn before(&mut self, frame: &LogFrame) -> Option<LogFrame> {
        let open = match frame.stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        let lost = open.filter(|&at| at != frame.at);
        *open = (!frame.bytes.ends_with(b"\n")).then_some(frame.at);
        lost.map(|at| LogFrame { at, stream: frame.stream, bytes: Bytes::from_static(b"\n") })
    }
}

impl Reader {
    fn stream(self) -> impl futures_util::Stream<Item = Result<LogFrame, RunnerError>> + Send {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Some(Ok(frame)) => Some((Ok(frame), Some(reader))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
    }

    async fn next(&mut self) -> Option<Result<LogFrame, RunnerError>> {
        loop {
            let frame = match self.ready.take() {
                Some(frame) => frame,
                None => match self.read().await? {
                    Ok(frame) => match self.mender.before(&frame) {
                        Some(line_end) => {
                            self.ready = Some(frame);
                            line_end
                        }
                        None => frame,
                    },
                    Err(error) => return Some(Err(error)),
                },
            };
            // The rest of a long line may be nothing.
            if frame.at >= self.since && !frame.bytes.is_empty() {
                return Some(Ok(frame));
            }
        }
    }

    async fn read(&mut self) -> Option<Result<LogFrame, RunnerError>> {
        let (inline, driver) = (&self.inline, &mut self.driver);
        let frames = &mut self.frames;
        let mut next = poll_fn(|cx| {
            let frame = frames.poll_next_unpin(cx);
            if frame.is_ready() {
                return frame;
            }
            if driver.is_none() {
                *driver = inline.take();
            }
            match driver {
                Some(it) => {
                    // What it has read meanwhile is there at once; its end shows in the frames.
                    if it.poll_unpin(cx).is_ready() {
                        *driver = None;
                    }
                    frames.poll_next_unpin(cx)
                }
                None => Poll::Pending,
            }
        });
        // The clock and the session are only asked when there is nothing to read.
        let frame = if let Some(frame) = (&mut next).now_or_never() {
            frame?
        } else {
            tokio::select! {
                biased;
                frame = next => frame?,
                () = &mut self.lost => return Some(unavailable("the session with the engine ended")),
                () = stalled(self.stall) => return Some(unavailable("its log stands still")),
            }
        };
        let times = &mut self.times;
        Some(frame.map_err(|it| Fault::from(it).into()).and_then(|it| parse(times, it)))
    }
}

async fn stalled(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn unavailable<T>(why: &str) -> Result<T, RunnerError> {
    Err(RunnerError::Unavailable(why.to_owned()))
}

/// `<time> <bytes>`.
fn parse(times: &mut Times, output: LogOutput) -> Result<LogFrame, RunnerError> {
    let (stream, payload) = match output {
        LogOutput::StdOut { message } => (LogStream::Stdout, message),
        LogOutput::StdErr { message } => (LogStream::Stderr, message),
        // What the decoder makes of a frame that it does not know: the engine's word that it can't
        // read its own store, or the rest of a stream that broke off.
        LogOutput::Console { message } | LogOutput::StdIn { message } => {
            let text = String::from_utf8_lossy(&message);
            let text = text.trim_matches(|it: char| it.is_control() || it.is_whitespace());
            return unavailable(&format!("its log broke off: {text}"));
        }
    };
    frame(times, stream, &payload)
        .map_or_else(|| unavailable("its log has a frame without a time"), Ok)
}

fn frame(times: &mut Times, stream: LogStream, payload: &Bytes) -> Option<LogFrame> {
    let space = memchr::memchr(b' ', payload)?;
    let at = times.read(payload.get(..space)?)?;
    Some(LogFrame { at, stream, bytes: payload.slice(space + 1..) })
}

/// Up to the fraction: `2026-11-21T04:54:10.`
const WHOLE_SECONDS: usize = 20;

/// Reads the times of frames. Many of them are of the same second, which is read once.
#[derive(Debug, Default)]
struct Times {
    /// The text of a second, and what it is in nanoseconds.
    second: Option<([u8; WHOLE_SECONDS], i64)>,
}

impl Times {
    fn read(&mut self, text: &[u8]) -> Option<i64> {
        if let Some((second, begin)) = &self.second
            && let Some(fraction) = text.strip_prefix(second)
            && let Some((b'Z', digits)) = fraction.split_last()
            && digits.len() == 9
            && digits.iter().all(u8::is_ascii_digit)
        {
            return Some(begin + digits.iter().fold(0, |sum, it| sum * 10 + i64::from(it - b'0')));
        }
        let at: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
        let nanos = i64::try_from(at.as_nanosecond()).ok()?;
        self.second = text
            .first_chunk::<WHOLE_SECONDS>()
            .filter(|it| it.ends_with(b".") && text.ends_with(b"Z"))
            .map(|it| (*it, nanos - nanos.rem_euclid(NANOS)));
        Some(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &[u8] = b"2026-11-21T04:54:10.262517843Z ";
    const NANOSECOND: i64 = 1_795_236_850_262_517_843;

    fn output(bytes: &[u8]) -> LogOutput {
        LogOutput::StdOut { message: Bytes::from([TIME, bytes].concat()) }
    }

    #[test]
    fn bytes_are_kept_as_they_are() {
        for bytes in [&b"a b\n"[..], b"\n", b"", b"\xff\x00 \r\n", b" two  spaces\n"] {
            let frame = parse(&mut Times::default(), output(bytes)).unwrap();
            assert_eq!((frame.at, &frame.bytes[..]), (NANOSECOND, bytes));
        }
    }

    #[test]
    fn times_of_one_second_are_read_as_each_alone() {
        let mut times = Times::default();
        for text in [
            "2026-11-21T04:54:10.262517843Z",
            "2026-11-21T04:54:10.262517844Z",
            "2026-11-21T04:54:10.000000000Z",
            "2026-11-21T04:54:10.999999999Z",
            "2026-11-21T04:54:10.5Z",
            "2026-11-21T04:54:11.000000001Z",
            "2026-11-21T05:54:11.000000001+01:00",
            "2026-11-21T04:54:11.000000001Z",
            "2026-11-21T04:54:11Z",
            "1969-12-31T23:59:59.250000000Z",
            "1969-12-31T23:59:59.750000000Z",
        ] {
            let alone: Timestamp = text.parse().unwrap();
            let expected = i64::try_from(alone.as_nanosecond()).unwrap();
            assert_eq!(times.read(text.as_bytes()), Some(expected), "{text}");
        }
        for bad in ["2026-11-21T04:54:11.0000x0001Z", "2026-11-21T04:54:11.", "", "yesterday"] {
            assert_eq!(times.read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_lost_line_end_is_put_back() {
        use LogStream::{Stderr, Stdout};
        let mut mender = Mender::default();
        let mut mended = Vec::new();
        for (at, stream, text) in [
            (1, Stdout, "long"),
            (1, Stdout, "er"),
            (2, Stderr, "other\n"),
            (1, Stdout, "."),
            (3, Stdout, "next\n"),
            (4, Stdout, "full"),
            (4, Stdout, ""),
            (5, Stderr, "open"),
            (6, Stdout, "last"),
        ] {
            let frame = LogFrame { at, stream, bytes: Bytes::from(text) };
            for it in mender.before(&frame).into_iter().chain([frame]) {
                let text = String::from_utf8_lossy(&it.bytes).replace('\n', "$");
                mended.push(format!("{}{}:{text}", &it.stream.as_str()[3..], it.at));
            }
        }
        assert_eq!(
            mended.join(" "),
            "out1:long out1:er err2:other$ out1:. out1:$ out3:next$ out4:full out4: err5:open out4:$ out6:last"
        );
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_never_a_line() {
        for message in [&b"no-time\n"[..], b"", b"yesterday x"] {
            let message = Bytes::copy_from_slice(message);
            assert!(parse(&mut Times::default(), LogOutput::StdErr { message }).is_err());
        }
        let message = Bytes::from_static(b"\x03\0\0\0\0\0\0\x05oops\n");
        let error = parse(&mut Times::default(), LogOutput::Console { message }).unwrap_err();
        assert_eq!(error.to_string(), "the engine can't be asked: its log broke off: oops");
    }

    #[test]
    fn the_engine_is_asked_from_the_whole_second_before() {
        for (since, seconds) in [
            (None, 0),
            (Some(0), 0),
            (Some(NANOSECOND), 1_795_236_850),
            (Some(-5), 0),
            (Some(i64::MAX), 0),
        ] {
            assert_eq!(options(Part::From(since, false)).since, seconds);
        }
    }
}
