//! Puts the lines of a log together from its frames.
//!
//! Lines come out in the order of their bytes, each as a run of bytes of one stream, so that a reader who
//! stops behind any of them can go on from there. A line comes whole, but for two cases: one that is longer
//! than [`LONGEST`] comes in parts, and so does one into which the other stream writes. All bytes come out,
//! once, and memory is bounded, whatever the log.

use bytes::{Bytes, BytesMut};

use super::{LogFrame, LogStream};

/// Of a line, or of a part of one, in bytes.
pub const LONGEST: usize = 1 << 20;

/// A line without its line end, or a part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub stream: LogStream,
    /// The engine's time of its first frame, in nanoseconds since the epoch.
    pub at: i64,
    /// Of its first byte, in the log of both streams.
    pub offset: u64,
    /// Behind its last byte, and behind its line end.
    pub end: u64,
    pub text: Bytes,
    /// The line ends with it.
    pub ended: bool,
    /// The line begins with it, as far as was seen.
    pub begins: bool,
}

/// See the module. Frames of a stream that nobody wants are left out by the caller.
#[derive(Debug, Default)]
pub struct Lines {
    open: Option<Open>,
    /// Of stdout and stderr: a part of the line has come out.
    within: [bool; 2],
}

#[derive(Debug)]
struct Open {
    stream: LogStream,
    at: i64,
    offset: u64,
    end: u64,
    text: BytesMut,
}

const fn slot(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

impl Lines {
    /// Takes the frame that begins at `offset`.
    pub fn push(&mut self, mut offset: u64, frame: &LogFrame, mut line: impl FnMut(Line)) {
        if self.open.as_ref().is_some_and(|it| it.stream != frame.stream)
            && let Some(cut) = self.flush()
        {
            line(cut);
        }
        let mut rest = frame.bytes.clone();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', &rest);
            let text = rest.split_to(end.unwrap_or(rest.len()));
            let taken = text.len() + usize::from(end.is_some());
            self.extend(offset, frame, text, end.is_some(), &mut line);
            offset += taken as u64;
            if end.is_some() {
                drop(rest.split_to(1));
            }
        }
    }

    /// What is there of a line that has not ended. The rest of it comes as another part.
    pub fn flush(&mut self) -> Option<Line> {
        let open = self.open.take()?;
        Some(self.line(open.stream, open.at, open.offset, open.end, open.text.freeze(), false))
    }

    /// Whether a line is held back until it ends.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// `text` is without line end; `ended` says whether one follows.
    fn extend(
        &mut self,
        offset: u64,
        frame: &LogFrame,
        mut text: Bytes,
        ended: bool,
        line: &mut impl FnMut(Line),
    ) {
        let (stream, at) = (frame.stream, frame.at);
        let end = offset + text.len() as u64 + u64::from(ended);
        // Most lines are one frame each: nothing is copied.
        if self.open.is_none() && ended && text.len() <= LONGEST {
            line(self.line(stream, at, offset, end, text, true));
            return;
        }
        let mut open = self.open.take().unwrap_or_else(|| Open {
            stream,
            at,
            offset,
            end: offset,
            text: BytesMut::new(),
        });
        while open.text.len() + text.len() > LONGEST {
            let room = text.split_to(LONGEST - open.text.len());
            open.end += room.len() as u64;
            open.text.extend_from_slice(&room);
            let rest = open.text.split_off(whole_characters(&open.text, text.first().copied()));
            let cut = open.end - rest.len() as u64;
            line(self.line(stream, open.at, open.offset, cut, open.text.freeze(), false));
            open = Open { stream, at, offset: cut, end: open.end, text: rest };
        }
        open.end = end;
        open.text.extend_from_slice(&text);
        if ended {
            line(self.line(stream, open.at, open.offset, open.end, open.text.freeze(), true));
        } else {
            self.open = Some(open);
        }
    }

    fn line(
        &mut self,
        stream: LogStream,
        at: i64,
        offset: u64,
        end: u64,
        text: Bytes,
        ended: bool,
    ) -> Line {
        let within = std::mem::replace(&mut self.within[slot(stream)], !ended);
        Line { stream, at, offset, end, text, ended, begins: !within }
    }
}

/// Where to cut before `next`, so that no character of UTF-8 is cut in two.
fn whole_characters(text: &[u8], next: Option<u8>) -> usize {
    let continues = |it: u8| it & 0xc0 == 0x80;
    if !next.is_some_and(continues) {
        return text.len();
    }
    let back = text.iter().rev().take(3).position(|it| !continues(*it));
    match back.map(|it| text.len() - 1 - it) {
        Some(lead) if lead > 0 && text[lead] >= 0xc0 => lead,
        _ => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogStream::{Stderr, Stdout};
    use proptest::prelude::*;

    fn frame(stream: LogStream, bytes: impl Into<Bytes>) -> LogFrame {
        LogFrame { at: 1, stream, bytes: bytes.into() }
    }

    fn split(frames: &[LogFrame]) -> Vec<Line> {
        let (mut lines, mut all, mut offset) = (Lines::default(), Vec::new(), 0);
        for it in frames {
            lines.push(offset, it, |it| all.push(it));
            offset += it.bytes.len() as u64;
        }
        all.extend(lines.flush());
        all
    }

    /// `out` or `err`, offset and end, the text, `$` for a line end, `+` where it does not begin a line.
    fn told(frames: &[(LogStream, &str)]) -> String {
        let frames: Vec<_> =
            frames.iter().map(|(stream, text)| frame(*stream, text.to_string())).collect();
        let line = |it: &Line| {
            format!(
                "{}{}{}-{}:{}{}",
                if it.begins { "" } else { "+" },
                &it.stream.as_str()[3..],
                it.offset,
                it.end,
                String::from_utf8_lossy(&it.text).replace('\r', "^"),
                if it.ended { "$" } else { "" },
            )
        };
        split(&frames).iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lines_are_put_together() {
        for (frames, expected) in [
            (vec![], ""),
            (vec![(Stdout, "a\n")], "out0-2:a$"),
            (vec![(Stdout, "\n"), (Stdout, "\n")], "out0-1:$ out1-2:$"),
            (vec![(Stdout, "a"), (Stdout, "b\n"), (Stdout, "c")], "out0-3:ab$ out3-4:c"),
            (vec![(Stdout, "a\nb\nc"), (Stdout, "\n")], "out0-2:a$ out2-4:b$ out4-6:c$"),
            (vec![(Stdout, "10%\r20%\r"), (Stdout, "\n")], "out0-9:10%^20%^$"),
            (vec![(Stdout, "a\r\n")], "out0-3:a^$"),
            // The other stream writes into a line: its bytes come out in order, in parts.
            (
                vec![(Stdout, "lo"), (Stderr, "err\n"), (Stdout, "ng\n"), (Stdout, "x\n")],
                "out0-2:lo err2-6:err$ +out6-9:ng$ out9-11:x$",
            ),
            (vec![(Stdout, "a"), (Stderr, "b"), (Stdout, "")], "out0-1:a err1-2:b"),
        ] {
            assert_eq!(told(&frames), expected, "{frames:?}");
        }
    }

    #[test]
    fn a_line_of_the_longest_length_is_whole_and_a_longer_one_comes_in_parts() {
        let line = |length: usize| frame(Stdout, [vec![b'x'; length], vec![b'\n']].concat());
        let lengths = |frames: &[LogFrame]| -> Vec<(usize, bool)> {
            split(frames).iter().map(|it| (it.text.len(), it.ended)).collect()
        };
        assert_eq!(lengths(&[line(LONGEST)]), [(LONGEST, true)]);
        assert_eq!(lengths(&[line(LONGEST + 1)]), [(LONGEST, false), (1, true)]);
        assert_eq!(
            lengths(&[line(3 * LONGEST)]),
            [(LONGEST, false), (LONGEST, false), (LONGEST, true)]
        );
        let halves = [frame(Stdout, vec![b'x'; LONGEST]), frame(Stdout, "\n")];
        assert_eq!(lengths(&halves), [(LONGEST, true)]);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        for ahead in 0..4 {
            let text = format!("{}{}\n", "x".repeat(ahead), "€".repeat(LONGEST));
            let lines = split(&[frame(Stdout, text.clone())]);
            assert!(lines.len() > 2);
            let texts: Vec<&str> =
                lines.iter().map(|it| std::str::from_utf8(&it.text).unwrap()).collect();
            assert_eq!(texts.concat() + "\n", text);
        }
        // Bytes that are no UTF-8 are cut where they have to be.
        let noise = split(&[frame(Stdout, vec![0x80; 2 * LONGEST])]);
        assert_eq!(noise.iter().map(|it| it.text.len()).collect::<Vec<_>>(), [LONGEST, LONGEST]);
    }

    fn any_frames() -> impl Strategy<Value = Vec<LogFrame>> {
        let bytes =
            proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..6);
        let frame = (any::<bool>(), bytes)
            .prop_map(|(stderr, bytes)| frame(if stderr { Stderr } else { Stdout }, bytes));
        proptest::collection::vec(frame, 0..30)
    }

    fn bytes(lines: &[Line]) -> Vec<u8> {
        let bytes = |it: &Line| [&it.text[..], if it.ended { b"\n" } else { b"" }].concat();
        lines.iter().flat_map(bytes).collect()
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_once_and_in_order(frames in any_frames()) {
            let lines = split(&frames);
            let all: Vec<u8> = frames.iter().flat_map(|it| it.bytes.to_vec()).collect();
            prop_assert_eq!(bytes(&lines), all);
            let mut offset = 0;
            for it in &lines {
                prop_assert_eq!(it.offset, offset);
                prop_assert_eq!(it.end - it.offset, it.text.len() as u64 + u64::from(it.ended));
                prop_assert!(!it.text.contains(&b'\n'));
                offset = it.end;
            }
        }

        /// A reader who stops behind any line and comes back gets the same others.
        #[test]
        fn going_on_behind_a_line_loses_and_repeats_nothing(frames in any_frames(), stop: usize) {
            let lines = split(&frames);
            prop_assume!(!lines.is_empty());
            let stop = stop % lines.len();
            let from = lines[stop].end;
            let (mut offset, mut rest) = (0, Vec::new());
            let mut again = Lines::default();
            for it in &frames {
                let skip = from.saturating_sub(offset).min(it.bytes.len() as u64);
                let new = LogFrame { bytes: it.bytes.slice(usize::try_from(skip).unwrap()..), ..it.clone() };
                again.push(offset + skip, &new, |it| rest.push(it));
                offset += it.bytes.len() as u64;
            }
            rest.extend(again.flush());
            let told = |it: &Line| (it.offset, it.end, it.stream, it.text.clone(), it.ended);
            prop_assert_eq!(
                rest.iter().map(told).collect::<Vec<_>>(),
                lines[stop + 1..].iter().map(told).collect::<Vec<_>>()
            );
        }
    }
}
