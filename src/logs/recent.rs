//! Which of the frames that an engine gives again are stored already.
//!
//! A log is read again from a little before the latest stored time, since two streams of one container
//! may be written to the engine's store slightly out of order. Frames are told apart by time, stream and
//! bytes, and counted: the same line twice in one nanosecond is two lines.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::runner::{LogFrame, LogStream};

/// How far back frames may be out of order.
const WINDOW_NANOS: i64 = 1_000_000_000;
/// Of a log that comes faster, a shorter time is remembered.
const MOST_FRAMES: usize = 4_096;
/// Frames of the end of a log that are looked for.
const ANCHORS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    at: i64,
    stream: LogStream,
    crc32c: u32,
    len: usize,
}

fn key(frame: &LogFrame) -> Key {
    Key {
        at: frame.at,
        stream: frame.stream,
        crc32c: crc32c::crc32c(&frame.bytes),
        len: frame.bytes.len(),
    }
}

const fn slot(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

/// The last frames that were taken in.
#[derive(Debug, Default)]
pub(super) struct Recent {
    frames: VecDeque<Key>,
    latest: Option<i64>,
    /// The latest time of a frame that is not remembered any more.
    forgotten: Option<i64>,
    /// Of stdout and stderr: the line that has not ended.
    open: [Option<OpenLine>; 2],
}

/// A line so long that it comes in several frames, which all carry the time of its beginning, however long
/// ago that was.
#[derive(Debug, Clone, Copy)]
struct OpenLine {
    at: i64,
    /// Frames of it that were taken in.
    taken: u32,
}

/// Drops the frames that were taken in before.
#[derive(Debug, Default)]
pub(super) struct Skip {
    counts: HashMap<Key, u32>,
    /// What is older than this was taken in, but for the rest of open lines.
    window: Option<i64>,
    open: [Option<OpenLine>; 2],
    /// Of the frames that were taken in before.
    latest: Option<i64>,
    /// Any of these came again.
    met: bool,
    /// The time of the first frame that had not been taken in.
    went_on_at: Option<i64>,
}

impl Recent {
    pub(super) fn add(&mut self, frame: &LogFrame) {
        let open = &mut self.open[slot(frame.stream)];
        *open = if frame.bytes.ends_with(b"\n") {
            None
        } else {
            let before = open.filter(|it| it.at == frame.at).map_or(0, |it| it.taken);
            Some(OpenLine { at: frame.at, taken: before + 1 })
        };
        self.latest = Some(self.latest.map_or(frame.at, |it| it.max(frame.at)));
        self.frames.push_back(key(frame));
        let horizon = self.latest.unwrap_or_default().saturating_sub(WINDOW_NANOS);
        while self.frames.len() > MOST_FRAMES
            || self.frames.front().is_some_and(|it| it.at < horizon)
        {
            if let Some(old) = self.frames.pop_front() {
                self.forgotten = Some(self.forgotten.map_or(old.at, |it| it.max(old.at)));
            }
        }
    }

    /// Frames of which only the times are known lie before everything that is added from now on.
    pub(super) fn forget_until(&mut self, at: i64) {
        self.latest = Some(self.latest.map_or(at, |it| it.max(at)));
        self.forgotten = Some(self.forgotten.map_or(at, |it| it.max(at)));
    }

    /// How many frames of the end of the log are known: those before them are, too, since a log only grows
    /// at its end. `whole`: there is nothing before. None: it can't be told.
    pub(super) fn known_at_end(&self, end: &[LogFrame], whole: bool) -> Option<usize> {
        if whole && self.forgotten.is_none() {
            // An engine that has put the beginning away gives less than was taken in.
            if let Some(count) = self.agree(0, end) {
                return Some(count);
            }
        }
        let mut candidates = end.iter().take(ANCHORS).enumerate();
        let (index, place) =
            candidates.find_map(|(index, it)| Some((index, self.anchor(&key(it))?)))?;
        self.agree(place.checked_sub(index)?, end)
    }

    /// How many frames were taken in from there on, if the first ones of `end` are the same.
    fn agree(&self, begin: usize, end: &[LogFrame]) -> Option<usize> {
        let count = self.frames.len() - begin;
        let known = self.frames.iter().skip(begin);
        let agree = count <= end.len() && known.zip(end).all(|(known, it)| *known == key(it));
        agree.then_some(count)
    }

    /// Where the frame is that this one must be. It is there once, and its stream went on to a later time:
    /// as the times of a stream never go back, nothing that is new can look the same.
    fn anchor(&self, wanted: &Key) -> Option<usize> {
        let mut places = self.frames.iter().enumerate().filter(|(_, it)| *it == wanted);
        let (place, _) = places.next()?;
        let mut later = self.frames.iter().skip(place + 1);
        let went_on = later.any(|it| it.stream == wanted.stream && it.at > wanted.at);
        (places.next().is_none() && went_on).then_some(place)
    }

    /// From where to read the log again, and what to drop of it. Every frame from there on that was taken
    /// in is known to [`Skip`].
    pub(super) fn resume(&self) -> (Option<i64>, Skip) {
        let Some(latest) = self.latest else { return (None, Skip::default()) };
        let mut since = latest.saturating_sub(WINDOW_NANOS);
        if let Some(forgotten) = self.forgotten {
            since = since.max(forgotten.saturating_add(1));
        }
        let mut counts = HashMap::new();
        for it in self.frames.iter().filter(|it| it.at >= since) {
            *counts.entry(*it).or_insert(0) += 1;
        }
        let from = self.open.iter().flatten().map(|it| it.at).fold(since, i64::min);
        let window = Some(since);
        (
            Some(from),
            Skip { counts, window, open: self.open, latest: self.latest, ..Skip::default() },
        )
    }
}

impl Skip {
    /// Frames that were to come again and did not: the engine has lost them, and perhaps others.
    pub(super) fn is_unmet(&self) -> bool {
        !self.counts.is_empty()
    }

    /// Something came that had not been taken in.
    pub(super) const fn went_on(&self) -> bool {
        self.went_on_at.is_some()
    }

    /// Of a log that the engine puts aside from time to time, at most so often. Nothing that was taken in came
    /// again, and what came is so much later that the log may have been put aside twice since.
    pub(super) fn may_lack(&self, turnover: Duration) -> bool {
        let turnover = i64::try_from(turnover.as_nanos()).unwrap_or(i64::MAX);
        let gap = self.went_on_at.zip(self.latest).map(|(at, latest)| at.saturating_sub(latest));
        self.is_unmet() && (self.met || gap.is_none_or(|it| it > turnover))
    }

    pub(super) fn is_known(&mut self, frame: &LogFrame) -> bool {
        let known = self.was_taken(frame);
        self.met |= known;
        if !known {
            self.went_on_at.get_or_insert(frame.at);
        }
        known
    }

    fn was_taken(&mut self, frame: &LogFrame) -> bool {
        if self.window.is_some_and(|window| frame.at < window) {
            return match &mut self.open[slot(frame.stream)] {
                Some(open) if open.at == frame.at && open.taken == 0 => false,
                Some(open) if open.at == frame.at => {
                    open.taken -= 1;
                    true
                }
                _ => true,
            };
        }
        if self.counts.is_empty() {
            return false;
        }
        let key = key(frame);
        match self.counts.get_mut(&key) {
            Some(1) => {
                self.counts.remove(&key);
                true
            }
            Some(count) => {
                *count -= 1;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(at: i64, text: &str) -> LogFrame {
        LogFrame { at, stream: LogStream::Stdout, bytes: text.to_owned().into() }
    }

    #[test]
    fn the_same_line_twice_in_one_nanosecond_is_two_lines() {
        let mut recent = Recent::default();
        recent.add(&frame(5, "a\n"));
        let (since, mut skip) = recent.resume();
        assert!(since.unwrap() <= 5);
        assert!(skip.is_known(&frame(5, "a\n")));
        assert!(!skip.is_known(&frame(5, "a\n")));
        assert!(!skip.is_known(&frame(5, "b\n")));
    }

    #[test]
    fn a_line_that_began_long_ago_goes_on_after_a_break() {
        let piece = |text: &str| LogFrame { stream: LogStream::Stderr, ..frame(5, text) };
        let log = [
            piece("10%\r"),
            piece("20%\r"),
            frame(60_000_000_000, "a minute later\n"),
            piece("30%\r"),
            piece("done\n"),
            frame(61_000_000_000, "end\n"),
        ];
        for taken in 0..=log.len() {
            let mut recent = Recent::default();
            for it in &log[..taken] {
                recent.add(it);
            }
            let (since, mut skip) = recent.resume();
            let rest: Vec<_> = log
                .iter()
                .filter(|it| since.is_none_or(|since| it.at >= since))
                .filter(|it| !skip.is_known(it))
                .cloned()
                .collect();
            assert_eq!(rest, log[taken..], "after {taken} frames");
        }
    }

    #[test]
    fn a_log_that_was_put_aside_once_goes_on_and_one_that_was_put_aside_twice_may_lack_some() {
        const SECOND: i64 = 1_000_000_000;
        let turnover = Duration::from_secs(10);
        let mut recent = Recent::default();
        for n in 0..5 {
            recent.add(&frame(n * SECOND / 10, "x\n"));
        }
        let may_lack = |frames: &[i64]| {
            let (_, mut skip) = recent.resume();
            for at in frames {
                skip.is_known(&frame(*at, "x\n"));
            }
            skip.may_lack(turnover)
        };
        let latest = 4 * SECOND / 10;
        assert!(!may_lack(&[0, SECOND / 10, 2 * SECOND / 10, 3 * SECOND / 10, latest]));
        assert!(!may_lack(&[latest + 1]), "the next file goes on at once");
        assert!(!may_lack(&[latest + 10 * SECOND, latest + 60 * SECOND]));
        assert!(may_lack(&[latest + 11 * SECOND]), "there may have been a file between them");
        assert!(may_lack(&[latest, latest + 1]), "a file is there as a whole, or not at all");
        assert!(may_lack(&[]), "nothing tells");
    }

    fn known(log: &[LogFrame], taken: usize, last: usize) -> Option<usize> {
        let mut recent = Recent::default();
        for it in &log[..taken] {
            recent.add(it);
        }
        let end = &log[log.len() - last.min(log.len())..];
        recent.known_at_end(end, last > log.len())
    }

    #[test]
    fn the_end_of_a_log_is_told_by_a_frame_that_can_not_be_new() {
        let log: Vec<_> = (0..10).map(|n| frame(n, &format!("{n}\n"))).collect();
        assert_eq!(known(&log, 10, 4), Some(4));
        assert_eq!(known(&log, 8, 4), Some(2));
        assert_eq!(known(&log, 6, 4), None, "nothing of it is known: there may be more before");
        assert_eq!(known(&log, 0, 20), Some(0));
        assert_eq!(known(&log, 10, 20), Some(10));
        assert_eq!(known(&[], 0, 20), Some(0));
        // The parts of one long line may be the same.
        let parts = vec![frame(5, "x"); 10];
        assert_eq!(known(&parts, 8, 4), None);
        assert_eq!(known(&parts, 8, 20), Some(8));
        // The engine lost what was taken in.
        let mut recent = Recent::default();
        for it in &log {
            recent.add(it);
        }
        assert_eq!(recent.known_at_end(&log[6..8], false), None);
        assert_eq!(recent.known_at_end(&[], true), None);
        // The engine put the beginning away, and the end is what was taken in.
        assert_eq!(recent.known_at_end(&log[6..], true), Some(4));
        assert_eq!(recent.known_at_end(&log[9..], true), None, "nothing that came later is known");
    }

    proptest! {
        /// What is said to be new at the end of a log is what was not taken in.
        #[test]
        fn the_end_of_a_log_takes_in_each_frame_once(
            texts in proptest::collection::vec((0_i64..3, 0_u8..2, any::<bool>()), 0..60),
            taken: usize,
            last in 0_usize..70,
        ) {
            // Each stream has its own time, which does not go back.
            let mut at = [0, 0];
            let log: Vec<_> = texts.iter().map(|(step, text, stderr)| {
                let stream = if *stderr { LogStream::Stderr } else { LogStream::Stdout };
                at[slot(stream)] += step;
                LogFrame { stream, ..frame(at[slot(stream)], &format!("{text}\n")) }
            }).collect();
            let taken = taken % (log.len() + 1);
            if let Some(known) = known(&log, taken, last) {
                prop_assert_eq!(log.len() - last.min(log.len()) + known, taken);
            }
        }

        /// Wherever the reading stops, going on from there takes in each frame once, even where the times
        /// are out of order by less than the window.
        #[test]
        fn a_log_read_in_two_parts_is_whole(
            steps in proptest::collection::vec((0_i64..400_000_000, 0_i64..300_000_000, 0_u8..3), 1..200),
            stop: usize,
        ) {
            let mut clock = 0_i64;
            let log: Vec<LogFrame> = steps.iter().map(|(step, early, text)| {
                clock += step;
                frame(clock - early, &format!("{text}\n"))
            }).collect();
            let stop = stop % (log.len() + 1);
            let mut recent = Recent::default();
            let mut taken: Vec<LogFrame> = Vec::new();
            for it in &log[..stop] {
                recent.add(it);
                taken.push(it.clone());
            }
            let (since, mut skip) = recent.resume();
            for it in log.iter().filter(|it| since.is_none_or(|since| it.at >= since)) {
                if !skip.is_known(it) {
                    taken.push(it.clone());
                }
            }
            let text = |it: &LogFrame| (it.at, it.bytes.clone());
            let (mut all, mut got): (Vec<_>, Vec<_>) =
                (log.iter().map(text).collect(), taken.iter().map(text).collect());
            all.sort();
            got.sort();
            prop_assert_eq!(got, all);
        }

        #[test]
        fn a_fast_log_repeats_nothing(count in 1_usize..10_000) {
            let mut recent = Recent::default();
            let log: Vec<_> = (0..count).map(|n| frame(i64::try_from(n).unwrap(), "x\n")).collect();
            for it in &log {
                recent.add(it);
            }
            let (since, mut skip) = recent.resume();
            let again = log.iter().filter(|it| it.at >= since.unwrap());
            prop_assert!(again.into_iter().all(|it| skip.is_known(it)));
        }
    }
}
