//! The forms that a log is answered in.
//!
//! None of them touches what the container wrote: no byte is dropped, replaced or interpreted. JSON can't
//! hold bytes that are not UTF-8; a line with such bytes is in `line_base64` instead.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::log::lines::Line;
use crate::domain::log::{LogPlace, LogStream};
use crate::ids::{AttemptNo, TaskId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Format {
    Text,
    Ndjson,
    Sse,
}

impl Format {
    const ALL: [Self; 3] = [Self::Text, Self::Ndjson, Self::Sse];

    pub(in crate::api) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Ndjson => "ndjson",
            Self::Sse => "sse",
        }
    }

    pub(in crate::api) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is not text, ndjson or sse"))
    }

    pub(in crate::api) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
        })
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
        }
    }

    /// The one that `Accept` likes most, and plain text where it likes none.
    pub(in crate::api) fn negotiate(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
        let ranges: Vec<&str> = values.flat_map(|it| it.split(',')).collect();
        let mut best = (0.0, Self::Text);
        for format in Self::ALL {
            let quality = quality(&ranges, format);
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// How much a media type is wanted: what the range that names it best says.
fn quality(ranges: &[&str], format: Format) -> f32 {
    let (kind, _) = format.media_type().split_once('/').unwrap_or_default();
    let mut best = (0, 0.0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let precision = match name.split_once('/') {
            Some(("*", "*")) => 1,
            Some((it, "*")) if it == kind => 2,
            _ if name == format.media_type() => 3,
            _ => 0,
        };
        let quality =
            parts.find_map(|it| it.strip_prefix("q=")).map_or(Some(1.0), |it| it.parse().ok());
        if precision > best.0 {
            best = (precision, quality.unwrap_or(1.0));
        }
    }
    best.1
}

/// One line of a log. A line that is longer than 1 MiB comes in parts, as does one into which the other
/// stream writes.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct LogLine<'a> {
    #[schema(value_type = String, examples("stdout"))]
    stream: &'static str,
    #[schema(value_type = String, examples("main"))]
    container: &'a str,
    /// The engine's time of the line.
    #[schema(value_type = String, format = DateTime, examples("2026-11-21T09:30:00.123456789Z"))]
    ts: String,
    #[schema(examples(1))]
    attempt: i32,
    /// Of its first byte, in the log of both streams.
    #[schema(examples(0))]
    offset: u64,
    /// Without its line end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("hello"))]
    line: Option<&'a str>,
    /// In place of `line`, where the bytes are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("/wA="))]
    line_base64: Option<String>,
    /// There, and true, where no line end follows: the rest is another line of the same stream, or the log
    /// ends without one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(value_type = Option<bool>, examples(true))]
    partial: bool,
}

impl<'a> LogLine<'a> {
    fn new(container: &'a str, attempt: AttemptNo, line: &'a Line) -> Self {
        let text = std::str::from_utf8(&line.text).ok();
        Self {
            stream: match line.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            },
            container,
            ts: time(line.at),
            attempt: attempt.0,
            offset: line.offset,
            line: text,
            line_base64: text.is_none().then(|| STANDARD.encode(&line.text)),
            partial: !line.ended,
        }
    }
}

/// What `event: end` says.
#[derive(Debug, Serialize)]
struct End {
    id: TaskId,
    state: &'static str,
    attempt: i32,
}

/// Always nine digits, so that columns stand below each other.
fn time(nanos: i64) -> String {
    match Timestamp::from_nanosecond(nanos.into()) {
        Ok(it) => format!("{it:.9}"),
        Err(_) => "1970-01-01T00:00:00.000000000Z".to_owned(),
    }
}

/// A line as the container wrote it, perhaps behind its time. What goes on in the middle of a line has no
/// time before it.
pub(in crate::api) fn text(to: &mut Vec<u8>, line: &Line, timestamps: bool) {
    if timestamps && line.begins {
        to.extend_from_slice(time(line.at).as_bytes());
        to.push(b' ');
    }
    to.extend_from_slice(&line.text);
    if line.ended {
        to.push(b'\n');
    }
}

/// One of several containers: whose it is stands before it, and each part of a line is a line of its own.
pub(in crate::api) fn text_of(to: &mut Vec<u8>, container: &str, line: &Line, timestamps: bool) {
    to.extend_from_slice(container.as_bytes());
    to.extend_from_slice(b" | ");
    text(to, line, timestamps);
    if !line.ended {
        to.push(b'\n');
    }
}

pub(in crate::api) fn ndjson(to: &mut Vec<u8>, container: &str, attempt: AttemptNo, line: &Line) {
    json(to, &LogLine::new(container, attempt, line));
    to.push(b'\n');
}

/// Its id is the place behind the line: where a reader goes on who has it. One of several containers has none,
/// as it says nothing about the others.
pub(in crate::api) fn event(
    to: &mut Vec<u8>,
    container: &str,
    attempt: AttemptNo,
    line: &Line,
    one_of_several: bool,
) {
    if !one_of_several {
        id(to, LogPlace { attempt, offset: line.end });
    }
    to.extend_from_slice(b"data: ");
    json(to, &LogLine::new(container, attempt, line));
    to.extend_from_slice(b"\n\n");
}

pub(in crate::api) fn end(
    to: &mut Vec<u8>,
    place: Option<LogPlace>,
    task: TaskId,
    state: &'static str,
    attempt: AttemptNo,
) {
    to.extend_from_slice(b"event: end\n");
    if let Some(place) = place {
        id(to, place);
    }
    to.extend_from_slice(b"data: ");
    json(to, &End { id: task, state, attempt: attempt.0 });
    to.extend_from_slice(b"\n\n");
}

/// Keeps what is on the way from taking the connection for dead.
pub(in crate::api) fn heartbeat(to: &mut Vec<u8>) {
    to.extend_from_slice(b": heartbeat\n\n");
}

fn id(to: &mut Vec<u8>, place: LogPlace) {
    // Writing to memory does not fail.
    let _ = writeln!(to, "id: {}:{}", place.attempt.0, place.offset);
}

fn json(to: &mut Vec<u8>, it: &impl Serialize) {
    // Nor does writing text and numbers as JSON.
    let _ = serde_json::to_writer(to, it);
}

/// `<attempt>:<offset>`, as in the ids of events.
pub(in crate::api) fn parse_place(text: &str) -> Result<LogPlace, String> {
    let read = || {
        let (attempt, offset) = text.split_once(':')?;
        let attempt = attempt.parse().ok().filter(|it| *it >= 1).map(AttemptNo)?;
        let offset = offset.parse().ok().filter(|it| i64::try_from(*it).is_ok())?;
        Some(LogPlace { attempt, offset })
    };
    read().ok_or_else(|| {
        format!("{text:?} is not a place in a log: write <attempt>:<offset>, such as 1:0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const AT: i64 = 1_795_236_850_262_517_000;

    fn line(text: &'static [u8], ended: bool) -> Line {
        let end = 7 + text.len() as u64 + u64::from(ended);
        let text = Bytes::from_static(text);
        Line { stream: LogStream::Stdout, at: AT, offset: 7, end, text, ended, begins: true }
    }

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut to = Vec::new();
        write(&mut to);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn lines_in_every_form() {
        let attempt = AttemptNo(2);
        let error =
            Line { stream: LogStream::Stderr, ..line(b"\x1b[31mred\x1b[0m 10%\r20%\r", true) };
        let part = Line { begins: false, ..line(b"goes on", false) };
        let all = [line(b"hello", true), line(b"", true), error, line(b"\xff\x00", true), part];
        let mut told = String::new();
        for it in &all {
            told += &format!(
                "{:?}\n",
                written(|to| text(
                    to,
                    &Line {
                        text: Bytes::from(String::from_utf8_lossy(&it.text).into_owned()),
                        ..it.clone()
                    },
                    true
                ))
            );
            told += &written(|to| ndjson(to, "main", attempt, it));
            told += &written(|to| event(to, "main", attempt, it, false));
        }
        let place = LogPlace { attempt, offset: 900 };
        told += &written(|to| {
            end(
                to,
                Some(place),
                "00000000-0000-0000-0000-000000000000".parse().unwrap(),
                "succeeded",
                attempt,
            );
        });
        told += &written(heartbeat);
        insta::assert_snapshot!(told);
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let bytes: Vec<u8> = (0..=255_u8).filter(|it| *it != b'\n').collect();
        let it = Line { text: Bytes::from(bytes.clone()), ..line(b"", true) };
        let json: serde_json::Value =
            serde_json::from_str(&written(|to| ndjson(to, "main", AttemptNo(1), &it))).unwrap();
        assert!(json.get("line").is_none());
        assert_eq!(STANDARD.decode(json["line_base64"].as_str().unwrap()).unwrap(), bytes);
        let mut plain = Vec::new();
        text(&mut plain, &it, false);
        assert_eq!(plain, [&bytes[..], b"\n"].concat());
    }

    #[test]
    fn lines_of_several_containers_say_whose_they_are() {
        let lines = [line(b"one", true), line(b"open", false)];
        let all = |write: &dyn Fn(&mut Vec<u8>, &Line)| {
            written(|to| lines.iter().for_each(|it| write(to, it)))
        };
        let plain = all(&|to, it| text_of(to, "proxy", it, false));
        assert_eq!(plain, "proxy | one\nproxy | open\n");
        let events = all(&|to, it| event(to, "proxy", AttemptNo(1), it, true));
        assert!(events.contains(r#""container":"proxy""#) && !events.contains("id: "), "{events}");
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_the_line_holds() {
        let it = line(b"a\rb\x0bc\xe2\x80\xa8d\ndata: x", true);
        let text = written(|to| event(to, "main", AttemptNo(1), &it, false));
        let lines: Vec<&str> = text.split(['\n', '\r']).collect();
        assert_eq!(lines.len(), 4, "{text:?}");
        assert!(lines[0].starts_with("id: 1:") && lines[1].starts_with("data: {"));
    }

    #[test]
    fn the_form_is_the_one_that_is_liked_most() {
        use Format::{Ndjson, Sse, Text};
        for (accept, expected) in [
            (None, Text),
            (Some(""), Text),
            (Some("*/*"), Text),
            (Some("text/*"), Text),
            (Some("application/json"), Text),
            (Some("application/*"), Ndjson),
            (Some("text/event-stream"), Sse),
            (Some("Text/Event-Stream; charset=utf-8"), Sse),
            (Some("application/x-ndjson, */*;q=0.1"), Ndjson),
            (Some("text/plain;q=0.5, application/x-ndjson;q=0.8, text/event-stream;q=0.7"), Ndjson),
            (Some("text/plain;q=0, text/*"), Sse),
        ] {
            let headers: HeaderMap = accept
                .map(|it| (header::ACCEPT, HeaderValue::from_static(it)))
                .into_iter()
                .collect();
            assert_eq!(Format::negotiate(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_place_reads_back() {
        let place = LogPlace { attempt: AttemptNo(2), offset: 1_000 };
        assert_eq!(parse_place("2:1000"), Ok(place));
        for bad in ["", "1", "0:1", ":", "1:", "1:-1", "a:1", "1:9223372036854775808", "1:2:3"] {
            assert!(parse_place(bad).is_err(), "{bad}");
        }
    }
}
