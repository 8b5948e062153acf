//! Finds where the last lines of a log begin, reading it backwards, block by block.

use super::lines::{LONGEST, Line, Lines};
use super::{LogBlock, LogFrame};

/// What is looked for, and what is between two blocks.
#[derive(Debug)]
pub struct TailSearch {
    /// Lines that are still to be found.
    wanted: usize,
    /// What stands before the first line end of the blocks that were seen: the end of a line that begins in
    /// a block before.
    head: Vec<(u64, LogFrame)>,
}

impl TailSearch {
    /// Looks for the last lines, so many. At least one: the end of a log needs no search.
    pub const fn new(wanted: usize) -> Self {
        Self { wanted, head: Vec::new() }
    }

    /// Takes the block before the one that was taken last; the first one is the end of the log. The offset
    /// to read from, once it is known: a reader who begins there, and wants the same frames, gets as many
    /// lines that pass as were asked for, or all that there are.
    pub fn take(
        &mut self,
        block: LogBlock,
        wants: impl Fn(&LogFrame) -> bool,
        passes: impl Fn(&Line) -> bool,
    ) -> Option<u64> {
        let begin = block.place.offset;
        let mut frames: Vec<_> = block.placed().filter(|(_, it)| wants(it)).collect();
        frames.append(&mut self.head);
        if begin > 0 {
            frames = self.keep_head(frames);
        }
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        let mut add = |it: Line| {
            if passes(&it) {
                found.push(it.offset);
            }
        };
        for (offset, frame) in &frames {
            lines.push(*offset, frame, &mut add);
        }
        lines.flush().into_iter().for_each(add);
        if found.len() >= self.wanted {
            return Some(found[found.len() - self.wanted]);
        }
        self.wanted -= found.len();
        (begin == 0).then_some(0)
    }

    /// Puts aside what may belong to a line of an earlier block, unless it is longer than any line.
    fn keep_head(&mut self, mut frames: Vec<(u64, LogFrame)>) -> Vec<(u64, LogFrame)> {
        let mut bytes = 0;
        for index in 0..frames.len() {
            let (offset, frame) = &mut frames[index];
            if let Some(end) = memchr::memchr(b'\n', &frame.bytes) {
                let first = frame.bytes.split_to(end + 1);
                let first = (*offset, LogFrame { bytes: first, ..frame.clone() });
                *offset += end as u64 + 1;
                let rest = frames.split_off(index);
                self.head = frames;
                self.head.push(first);
                return rest;
            }
            bytes += frame.bytes.len();
        }
        if bytes <= LONGEST {
            self.head = std::mem::take(&mut frames);
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogPlace, LogStream};
    use super::*;
    use crate::ids::AttemptNo;
    use proptest::prelude::*;

    fn frame(stderr: bool, bytes: Vec<u8>) -> LogFrame {
        let stream = if stderr { LogStream::Stderr } else { LogStream::Stdout };
        LogFrame { at: 1, stream, bytes: bytes.into() }
    }

    /// Blocks of so many frames.
    fn blocks(frames: &[LogFrame], each: usize) -> Vec<LogBlock> {
        let mut offset = 0;
        let block = |frames: &[LogFrame]| {
            let place = LogPlace { attempt: AttemptNo(1), offset };
            offset += frames.iter().map(|it| it.bytes.len() as u64).sum::<u64>();
            LogBlock { container: "main".into(), place, frames: frames.to_vec() }
        };
        frames.chunks(each).map(block).collect()
    }

    fn search(blocks: &[LogBlock], wanted: usize, passes: impl Fn(&Line) -> bool) -> Option<u64> {
        let mut search = TailSearch::new(wanted);
        blocks.iter().rev().find_map(|it| search.take(it.clone(), |_| true, &passes))
    }

    fn lines(blocks: &[LogBlock], from: u64) -> Vec<Line> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for (offset, mut frame) in blocks.iter().flat_map(|it| it.clone().placed()) {
            let skip = from.saturating_sub(offset).min(frame.bytes.len() as u64);
            drop(frame.bytes.split_to(usize::try_from(skip).unwrap()));
            lines.push(offset + skip, &frame, |it| all.push(it));
        }
        all.extend(lines.flush());
        all
    }

    #[test]
    fn the_blocks_before_the_wanted_lines_are_not_asked_for() {
        let frames: Vec<_> = (0..100).map(|n| frame(false, format!("{n}\n").into())).collect();
        let blocks = blocks(&frames, 10);
        assert_eq!(search(&blocks[8..], 5, |_| true), Some(290 - 15));
        assert_eq!(search(&blocks[8..], 15, |_| true), Some(290 - 45));
        // The first line of a block may have begun in the one before.
        assert_eq!(search(&blocks[8..], 20, |_| true), None);
        assert_eq!(search(&blocks, 1_000, |_| true), Some(0));
    }

    #[test]
    fn memory_is_bounded_where_a_line_has_no_end() {
        let mut search = TailSearch::new(10);
        for n in (1..40).rev() {
            let place = LogPlace { attempt: AttemptNo(1), offset: n * 100_000 };
            let frames = vec![frame(false, vec![b'x'; 100_000])];
            if search
                .take(LogBlock { container: "main".into(), place, frames }, |_| true, |_| true)
                .is_some()
            {
                break;
            }
            let held: usize = search.head.iter().map(|(_, it)| it.bytes.len()).sum();
            assert!(held <= LONGEST, "{held}");
        }
    }

    proptest! {
        #[test]
        fn the_last_lines_are_the_last_of_all_lines(
            frames in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'b')], 1..5)),
                1..40,
            ),
            each in 1_usize..8,
            wanted in 1_usize..12,
            only_b: bool,
        ) {
            let frames: Vec<_> = frames.into_iter().map(|(stderr, it)| frame(stderr, it)).collect();
            let blocks = blocks(&frames, each);
            let passes = |it: &Line| !only_b || it.text.contains(&b'b');
            let told = |it: Line| (it.offset, it.text, it.ended);
            let all: Vec<_> = lines(&blocks, 0).into_iter().filter(passes).map(told).collect();
            let from = search(&blocks, wanted, passes).unwrap();
            let got: Vec<_> = lines(&blocks, from).into_iter().filter(passes).map(told).collect();
            prop_assert_eq!(&got, &all[all.len().saturating_sub(wanted)..]);
        }
    }
}
