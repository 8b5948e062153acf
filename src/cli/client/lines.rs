//! Reads the answer of the log API: lines of JSON that say which stream they are of, or plain bytes from a
//! service that does not tell the streams apart.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// What a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What is asked for.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// A run of bytes of one stream, at its place in the log of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) stream: Stream,
    /// None: of the one that was asked for.
    pub(super) container: Option<String>,
    /// None: of the one that was asked for.
    pub(super) attempt: Option<i64>,
    /// None: right behind the piece before.
    pub(super) offset: Option<u64>,
    pub(super) bytes: Vec<u8>,
    /// The lines as the service wrote them, where it wrote JSON.
    pub(super) json: Option<Vec<u8>>,
}

impl Piece {
    fn is_followed_by(&self, next: &Self) -> bool {
        let end = self.offset.map(|it| it + self.bytes.len() as u64);
        (next.stream, &next.container, next.attempt) == (self.stream, &self.container, self.attempt)
            && next.offset == end
    }

    /// Its lines, each behind the name of its container.
    pub(super) fn told(&self) -> Vec<u8> {
        let container = self.container.as_deref().unwrap_or_default();
        let mut told = Vec::new();
        for line in self.bytes.split_inclusive(|it| *it == b'\n') {
            told.extend_from_slice(container.as_bytes());
            told.extend_from_slice(b" | ");
            told.extend_from_slice(line);
        }
        if !told.ends_with(b"\n") {
            told.push(b'\n');
        }
        told
    }

    /// A call for each line would cost more than all the rest.
    fn append(&mut self, next: Self) {
        self.bytes.extend(next.bytes);
        if let (Some(json), Some(next)) = (&mut self.json, next.json) {
            json.push(b'\n');
            json.extend(next);
        }
    }
}

/// One line, as the service writes it.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    stream: Stream,
    #[serde(borrow)]
    container: Option<Cow<'a, str>>,
    attempt: Option<i64>,
    offset: Option<u64>,
    #[serde(borrow)]
    line: Option<Cow<'a, str>>,
    /// In its place, where the bytes are not UTF-8.
    #[serde(borrow)]
    line_base64: Option<Cow<'a, str>>,
    /// No line end follows.
    #[serde(default)]
    partial: bool,
}

/// Takes the answer as it comes in.
#[derive(Debug)]
pub(super) enum Decoder {
    Plain,
    /// With the line that is not over.
    Ndjson(Vec<u8>),
}

impl Decoder {
    pub(super) fn of(content_type: Option<&str>) -> Self {
        match content_type {
            Some(it) if it.starts_with(NDJSON) => Self::Ndjson(Vec::new()),
            _ => Self::Plain,
        }
    }

    /// The pieces that are whole with these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Piece>, serde_json::Error> {
        match self {
            Self::Plain => {
                let (stream, bytes) = (Stream::Stdout, bytes.to_vec());
                let (container, attempt, offset, json) = (None, None, None, None);
                Ok(vec![Piece { stream, container, attempt, offset, bytes, json }])
            }
            Self::Ndjson(rest) => {
                rest.extend_from_slice(bytes);
                let whole = rest.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
                let lines = rest[..whole].split(|it| *it == b'\n');
                let mut pieces: Vec<Piece> = Vec::new();
                for line in lines.filter(|it| !it.trim_ascii().is_empty()) {
                    let piece = read(line)?;
                    match pieces.last_mut().filter(|it| it.is_followed_by(&piece)) {
                        Some(last) => last.append(piece),
                        None => pieces.push(piece),
                    }
                }
                rest.drain(..whole);
                Ok(pieces)
            }
        }
    }
}

fn read(json: &[u8]) -> Result<Piece, serde_json::Error> {
    let Line { stream, container, attempt, offset, line, line_base64, partial } =
        serde_json::from_slice(json)?;
    let mut bytes = match line_base64 {
        Some(text) => STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?,
        None => line.unwrap_or_default().into_owned().into_bytes(),
    };
    if !partial {
        bytes.push(b'\n');
    }
    let container = container.map(Cow::into_owned);
    Ok(Piece { stream, container, attempt, offset, bytes, json: Some(json.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = (Stream, Option<i64>, Option<u64>, Vec<u8>);

    fn piece(stream: Stream, offset: u64, bytes: &[u8]) -> Told {
        (stream, Some(2), Some(offset), bytes.to_vec())
    }

    #[test]
    fn lines_come_out_as_the_bytes_they_were_wherever_the_answer_is_cut() {
        let answer = concat!(
            r#"{"stream":"stdout","container":"main","ts":"t","attempt":2,"offset":0,"line":"a \"b\"\t\u001b"}"#,
            "\n",
            r#"{"stream":"stderr","container":"main","ts":"t","attempt":2,"offset":8,"line_base64":"/wA="}"#,
            "\n\n",
            r#"{"stream":"stdout","attempt":2,"offset":11,"line":"zählt","partial":true}"#,
            "\n",
        );
        let expected = vec![
            piece(Stream::Stdout, 0, b"a \"b\"\t\x1b\n"),
            piece(Stream::Stderr, 8, b"\xff\x00\n"),
            piece(Stream::Stdout, 11, "zählt".as_bytes()),
        ];
        for size in 1..answer.len() {
            let mut decoder = Decoder::of(Some("application/x-ndjson; charset=utf-8"));
            let pieces: Vec<Told> = answer
                .as_bytes()
                .chunks(size)
                .flat_map(|it| decoder.push(it).expect("lines of JSON"))
                .map(|it| (it.stream, it.attempt, it.offset, it.bytes))
                .collect();
            assert_eq!(pieces, expected, "in chunks of {size}");
        }
    }

    #[test]
    fn lines_of_one_stream_come_together() {
        let line = |stream: &str, offset: u64, line: &str| {
            format!(r#"{{"stream":"{stream}","attempt":2,"offset":{offset},"line":"{line}"}}"#)
        };
        let lines = [
            line("stdout", 0, "a"),
            line("stdout", 2, "b"),
            line("stderr", 4, "c"),
            line("stderr", 9, "d"),
        ];
        let mut decoder = Decoder::of(Some(NDJSON));
        let pieces = decoder.push(format!("{}\n", lines.join("\n")).as_bytes()).unwrap();
        let json = |it: &Piece| String::from_utf8(it.json.clone().unwrap()).unwrap();
        assert_eq!(json(&pieces[0]), lines[..2].join("\n"));
        let told: Vec<Told> =
            pieces.into_iter().map(|it| (it.stream, it.attempt, it.offset, it.bytes)).collect();
        // What is missing in between is not jumped over.
        let expected = [
            piece(Stream::Stdout, 0, b"a\nb\n"),
            piece(Stream::Stderr, 4, b"c\n"),
            piece(Stream::Stderr, 9, b"d\n"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_line_that_is_cut_off_is_not_taken() {
        let mut decoder = Decoder::of(Some(NDJSON));
        let cut = br#"{"stream":"stdout","line":"a"}"#;
        assert_eq!(decoder.push(cut).unwrap(), []);
        assert!(decoder.push(b"nonsense\n").is_err());
    }

    #[test]
    fn plain_bytes_are_taken_as_they_are() {
        let mut decoder = Decoder::of(Some("text/plain; charset=utf-8"));
        let pieces = decoder.push(b"\xff{").unwrap();
        assert_eq!(pieces[0].bytes, b"\xff{");
        assert_eq!((pieces[0].offset, pieces[0].stream), (None, Stream::Stdout));
    }
}
