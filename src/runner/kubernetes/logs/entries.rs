//! What a kubelet answers with `timestamps=true`, back to the bytes that the container wrote. Pure.
//!
//! The kubelet puts its time and a space before each *entry* of the file that the container runtime writes,
//! and nothing behind it. An entry is a line; a line of more than 16 KiB is several, and so is the end of a
//! stream without a line end, which the other stream may follow. Up to 1.26 each entry has its time, so that
//! times stand in the middle of lines; since then only what begins a line has one.
//!
//! What a container wrote may look like such a time. It is one of the kubelet's only where one has to be:
//! right behind 16 KiB, or where it continues the time of the entry before it. A container that writes the
//! time writes one that has passed when the runtime takes it in.

use bytes::{Buf as _, Bytes, BytesMut};
use jiff::Timestamp;

use crate::runner::{LogFrame, LogStream};

const NANOS: i64 = 1_000_000_000;
/// Of one entry, as container runtimes cut lines, and of a frame.
const PIECE: usize = 16 << 10;
/// The longest time: `2026-11-21T04:54:10.262517843+01:00`.
const LONGEST_TIME: usize = 35;
/// Without its zone.
const TIME_DIGITS: usize = 29;
/// `2026-11-21T`
const DAY: usize = 11;
/// Up to the fraction: `2026-11-21T04:54:10.`
const WHOLE_SECONDS: usize = 20;
/// How long after an entry without line end another one may follow in the same line.
const FOLLOWS_WITHIN: i64 = 2 * NANOS;
/// Of what is told of a text that is no log.
const TOLD: usize = 300;

/// Puts frames together from pieces of the answer.
#[derive(Debug)]
pub(super) struct Entries {
    buffer: BytesMut,
    times: Times,
    entry: Option<Entry>,
    /// The answer may begin in the middle of a line whose beginning is too old to be asked for.
    may_begin_within: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: i64,
    day: [u8; DAY],
}

impl Entries {
    pub(super) fn new(may_begin_within: bool) -> Self {
        Self { buffer: BytesMut::new(), times: Times::default(), entry: None, may_begin_within }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that is there as a whole; once all has come (`ended`), also one that has no line end.
    /// An error is the kubelet's word in place of a log.
    pub(super) fn next(&mut self, ended: bool) -> Option<Result<LogFrame, String>> {
        loop {
            if self.buffer.is_empty() {
                return None;
            }
            if let Some(entry) = self.entry {
                return self.content(entry, ended).map(Ok);
            }
            match self.begin(ended) {
                Begin::Entry => continue,
                Begin::More => return None,
                Begin::NoTime => {}
            }
            let end = memchr::memchr(b'\n', &self.buffer);
            match end {
                Some(end) if self.may_begin_within => self.buffer.advance(end + 1),
                // Whatever its length: so much of it is enough to tell.
                None if self.may_begin_within && !ended => {
                    self.buffer.truncate(TOLD);
                    return None;
                }
                // The rest of it may come.
                None if !ended && self.buffer.len() < TOLD => return None,
                _ => return Some(Err(self.told())),
            }
        }
    }

    fn told(&mut self) -> String {
        let text = self.buffer.split();
        let line = text[..].split(|it| *it == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(&line[..line.len().min(TOLD)]).trim().to_owned()
    }

    fn begin(&mut self, ended: bool) -> Begin {
        let window = &self.buffer[..self.buffer.len().min(LONGEST_TIME + 1)];
        let Some(space) = memchr::memchr(b' ', window) else {
            let more = window.len() <= LONGEST_TIME && !ended && !window.contains(&b'\n');
            return if more { Begin::More } else { Begin::NoTime };
        };
        let Some(at) = self.times.read(&window[..space]) else { return Begin::NoTime };
        let Some(day) = window.first_chunk::<DAY>() else { return Begin::NoTime };
        self.entry = Some(Entry { at, day: *day });
        self.may_begin_within = false;
        self.buffer.advance(space + 1);
        Begin::Entry
    }

    fn content(&mut self, entry: Entry, ended: bool) -> Option<LogFrame> {
        let line_end = memchr::memchr(b'\n', &self.buffer[..self.buffer.len().min(PIECE + 1)]);
        // A time behind the piece is there as a whole.
        let enough = self.buffer.len() > PIECE + LONGEST_TIME;
        if line_end.is_none() && !enough && !ended {
            return None;
        }
        let end = line_end.map_or(self.buffer.len(), |it| it + 1);
        if let Some((place, at, taken)) = self.next_entry(entry, end) {
            let bytes = self.buffer.split_to(place).freeze();
            let day = self.buffer.first_chunk::<DAY>().copied().unwrap_or(entry.day);
            self.buffer.advance(taken);
            self.entry = Some(Entry { at, day });
            return Some(frame(entry.at, bytes));
        }
        if line_end.is_some() {
            self.entry = None;
            return Some(frame(entry.at, self.buffer.split_to(end).freeze()));
        }
        // The rest of the line goes on with the time of its beginning.
        let cut = self.buffer.len().min(PIECE);
        Some(frame(entry.at, self.buffer.split_to(cut).freeze()))
    }

    /// Where another entry begins before `end`, its time, and the length of that.
    fn next_entry(&mut self, entry: Entry, end: usize) -> Option<(usize, i64, usize)> {
        let head = &self.buffer[..end.min(PIECE)];
        for place in memchr::memmem::find_iter(head, &entry.day) {
            // Nothing is written before it: an entry without content has no entry.
            if place > 0
                && let Some((at, taken)) = time_at(&mut self.times, &self.buffer[place..])
                && (entry.at..=entry.at.saturating_add(FOLLOWS_WITHIN)).contains(&at)
            {
                return Some((place, at, taken));
            }
        }
        let (at, taken) = time_at(&mut self.times, self.buffer.get(PIECE..)?)?;
        (at >= entry.at).then_some((PIECE, at, taken))
    }
}

enum Begin {
    Entry,
    More,
    NoTime,
}

fn frame(at: i64, bytes: Bytes) -> LogFrame {
    // The kubelet has both streams in one.
    LogFrame { at, stream: LogStream::Stdout, bytes }
}

/// A time as kubelets write it, always with nine digits, and the space behind it.
fn time_at(times: &mut Times, bytes: &[u8]) -> Option<(i64, usize)> {
    let length = match bytes.get(TIME_DIGITS)? {
        b'Z' => TIME_DIGITS + 1,
        b'+' | b'-' => LONGEST_TIME,
        _ => return None,
    };
    let is_time = bytes.get(length) == Some(&b' ')
        && bytes[10] == b'T'
        && bytes[WHOLE_SECONDS - 1] == b'.'
        && bytes[WHOLE_SECONDS..TIME_DIGITS].iter().all(u8::is_ascii_digit);
    if !is_time {
        return None;
    }
    Some((times.read(&bytes[..length])?, length + 1))
}

/// Reads the times of entries. Many of them are of the same second, which is read once.
#[derive(Debug, Default)]
struct Times {
    /// The text of a second, that of its zone, and what it is in nanoseconds.
    second: Option<([u8; WHOLE_SECONDS], Vec<u8>, i64)>,
}

impl Times {
    fn read(&mut self, text: &[u8]) -> Option<i64> {
        if let Some((second, zone, begin)) = &self.second
            && let Some(rest) = text.strip_prefix(second)
            && let Some(digits) = rest.strip_suffix(&zone[..])
            && digits.len() == TIME_DIGITS - WHOLE_SECONDS
            && digits.iter().all(u8::is_ascii_digit)
        {
            return Some(begin + digits.iter().fold(0, |sum, it| sum * 10 + i64::from(it - b'0')));
        }
        let at: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
        let nanos = i64::try_from(at.as_nanosecond()).ok()?;
        self.second = text
            .first_chunk::<WHOLE_SECONDS>()
            .filter(|it| it.ends_with(b"."))
            .zip(text.get(TIME_DIGITS..))
            .map(|(second, zone)| (*second, zone.to_vec(), nanos - nanos.rem_euclid(NANOS)));
        Some(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BEGIN: i64 = 1_795_236_850_262_517_843;

    fn time(at: i64, zone: &str) -> String {
        let at = Timestamp::from_nanosecond(at.into()).unwrap();
        if zone == "Z" {
            return format!("{at:.9}");
        }
        let local = at.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(1)));
        local.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
    }

    fn read_by(text: &[u8], step: usize, ended: bool) -> Result<Vec<(i64, Vec<u8>)>, String> {
        let (mut entries, mut frames) = (Entries::new(false), Vec::new());
        for piece in text.chunks(step) {
            entries.push(piece);
            while let Some(frame) = entries.next(false) {
                frames.push(frame?);
            }
        }
        if ended {
            while let Some(frame) = entries.next(true) {
                frames.push(frame?);
            }
        }
        Ok(frames.into_iter().map(|it| (it.at - BEGIN, it.bytes.to_vec())).collect())
    }

    fn read(text: &[u8]) -> Vec<(i64, Vec<u8>)> {
        let whole = read_by(text, usize::MAX, true).unwrap();
        for step in [1, 7, 4_096] {
            assert_eq!(read_by(text, step, true).unwrap(), whole, "in steps of {step}");
        }
        whole
    }

    /// As a kubelet answers: entries, each with its time after [`BEGIN`].
    fn answer(entries: &[(i64, &[u8])], every: bool, zone: &str) -> Vec<u8> {
        let (mut text, mut begins) = (Vec::new(), true);
        for (at, bytes) in entries {
            if every || begins {
                text.extend(format!("{} ", time(BEGIN + at, zone)).bytes());
            }
            text.extend_from_slice(bytes);
            begins = bytes.ends_with(b"\n");
        }
        text
    }

    fn texts(frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
        frames.iter().flat_map(|(_, it)| it.clone()).collect()
    }

    #[test]
    fn each_entry_is_a_frame() {
        for zone in ["Z", "+01:00"] {
            let entries: [(i64, &[u8]); 5] =
                [(0, b"a b\n"), (1, b"\n"), (2, b"\xff\x00 \r\n"), (3, b" x\n"), (4, b"no end")];
            let expected = entries.map(|(at, it)| (at, it.to_vec()));
            assert_eq!(read(&answer(&entries, true, zone)), expected);
            assert_eq!(read(&answer(&entries, false, zone)), expected);
        }
    }

    #[test]
    fn a_long_line_comes_as_it_was_written_whether_each_entry_has_a_time() {
        let (piece, rest) = (vec![b'x'; PIECE], [b"y".repeat(7_232), b"\n".to_vec()].concat());
        let full = [vec![b'z'; PIECE], b"\n".to_vec()].concat();
        let entries: [(i64, &[u8]); 5] =
            [(0, &piece), (5, &piece), (9, &rest), (10, &full), (11, b"short\n")];
        let every = read(&answer(&entries, true, "Z"));
        assert_eq!(every, entries.map(|(at, it)| (at, it.to_vec())));
        let first = read(&answer(&entries, false, "Z"));
        assert_eq!(first.iter().map(|it| it.0).collect::<Vec<_>>(), [0, 0, 0, 10, 11]);
        assert_eq!(texts(&first), texts(&every));
    }

    #[test]
    fn the_end_of_one_stream_is_followed_by_the_other() {
        let entries: [(i64, &[u8]); 3] = [(0, b"abc"), (NANOS / 2, b"err"), (NANOS, b"end\n")];
        assert_eq!(
            read(&answer(&entries, true, "+01:00")),
            entries.map(|(at, it)| (at, it.to_vec()))
        );
    }

    #[test]
    fn times_that_the_container_wrote_are_its_own() {
        let past = time(BEGIN - 1, "Z");
        let other_day = time(BEGIN - 86_400 * NANOS, "Z");
        let future = time(BEGIN + 3_600 * NANOS, "Z");
        let now_in_json = format!("{{\"at\":\"{}\"}}", time(BEGIN + 5, "Z"));
        for own in [&past, &other_day, &future, &now_in_json] {
            let (first, within) = (format!("{own} first\n"), format!("then {own} in the middle\n"));
            let entries: [(i64, &[u8]); 3] =
                [(0, first.as_bytes()), (1, within.as_bytes()), (2, b"next\n")];
            assert_eq!(
                read(&answer(&entries, true, "Z")),
                entries.map(|(at, it)| (at, it.to_vec())),
                "{own}"
            );
        }
        // Right where another entry could begin.
        let long = format!("{}{past} {}\n", "x".repeat(PIECE), "y".repeat(100));
        assert_eq!(texts(&read(&answer(&[(0, long.as_bytes())], true, "Z"))), long.as_bytes());
    }

    #[test]
    fn what_is_followed_comes_as_whole_entries() {
        let text = answer(&[(0, b"one\n"), (1, b"open")], true, "Z");
        assert_eq!(read_by(&text, usize::MAX, false).unwrap(), [(0, b"one\n".to_vec())]);
    }

    #[test]
    fn the_word_of_the_kubelet_is_no_log() {
        let word = b"unable to retrieve container logs for containerd://abc";
        assert_eq!(read_by(word, 5, true).unwrap_err(), String::from_utf8_lossy(word));
        let text =
            [answer(&[(0, b"one\n")], true, "Z"), b"failed to watch file\n".to_vec()].concat();
        assert_eq!(read_by(&text, 9, true).unwrap_err(), "failed to watch file");
    }

    #[test]
    fn the_rest_of_a_line_that_is_too_old_is_left_out() {
        let text = [b"x".repeat(90_000), b"\n".to_vec(), answer(&[(0, b"one\n")], true, "Z")];
        let mut entries = Entries::new(true);
        let mut frames = Vec::new();
        for piece in text.concat().chunks(1_000) {
            entries.push(piece);
            frames.extend(std::iter::from_fn(|| entries.next(false)).map(Result::unwrap));
        }
        assert_eq!(frames, [frame(BEGIN, Bytes::from_static(b"one\n"))]);
        let mut entries = Entries::new(true);
        entries.push(b"unable to retrieve container logs");
        assert!(entries.next(false).is_none());
        assert!(entries.next(true).unwrap().is_err());
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_once(
            lines in proptest::collection::vec((0_usize..40_000, any::<u8>(), 0_i64..NANOS), 1..8),
            every: bool, step in 1_usize..50_000,
        ) {
            let mut at = 0;
            let mut entries: Vec<(i64, Vec<u8>)> = Vec::new();
            for (length, byte, later) in lines {
                let byte = if byte == b'\n' { b' ' } else { byte };
                let mut left = length;
                while left > PIECE {
                    entries.push((at, vec![byte; PIECE]));
                    left -= PIECE;
                    at += 1;
                }
                entries.push((at, [vec![byte; left], b"\n".to_vec()].concat()));
                at += later + 1;
            }
            let borrowed: Vec<_> = entries.iter().map(|(at, it)| (*at, &it[..])).collect();
            let text = answer(&borrowed, every, "Z");
            let frames = read_by(&text, step, true).unwrap();
            prop_assert_eq!(texts(&frames), texts(&entries));
            prop_assert_eq!(&frames, &read_by(&text, usize::MAX, true).unwrap());
            if every {
                prop_assert_eq!(frames, entries);
            }
        }
    }
}
