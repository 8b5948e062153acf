//! What is kept of each task of a run: a byte for each item, and the sums of them.

use crate::domain::plan::rules::{TaskEnd, Upstream};

use super::types::ItemState;

/// The items of a task. Most tasks have one.
#[derive(Debug, Clone, Default)]
pub(super) struct Items {
    marks: Vec<u8>,
    /// No item below it is left to start. Only ever goes up: an item that started stays started.
    cursor: u32,
    live: u32,
    ended: [u32; TaskEnd::ALL.len()],
    kept: u32,
}

const UNSTARTED: u8 = 0;
/// It was said to start, or it did.
const LIVE: u8 = 1;
/// And so on, in the order of [`TaskEnd::ALL`].
const FIRST_END: u8 = 2;
const STATE: u8 = 0b111;

/// It is in the list of those to be asked to stop.
pub(super) const STOPPING: u8 = 1 << 7;
/// It was asked to stop.
pub(super) const STOPPED: u8 = 1 << 3;
/// It ended in an earlier run.
const KEPT: u8 = 1 << 4;
/// Somebody asked for it: the failure of another one does not stop it.
pub(super) const REOPENED: u8 = 1 << 5;
/// Its task exists. Until then it was only said to start.
pub(super) const MADE: u8 = 1 << 6;

impl Items {
    /// How many started, in this run or an earlier one.
    pub(super) fn touched(&self) -> u32 {
        self.live + self.ended.iter().sum::<u32>()
    }

    /// How many started in this run: its rule allowed it.
    pub(super) fn started_here(&self) -> u32 {
        self.touched() - self.kept
    }

    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    pub(super) const fn all_ended(&self) -> [u32; TaskEnd::ALL.len()] {
        self.ended
    }

    pub(super) const fn ended(&self, end: TaskEnd) -> u32 {
        self.ended[end as usize]
    }

    pub(super) fn state(&self, item: u32) -> ItemState {
        match self.marks.get(item as usize).map_or(UNSTARTED, |it| it & STATE) {
            UNSTARTED => ItemState::Waiting,
            LIVE => ItemState::Live,
            end => ItemState::Ended(TaskEnd::ALL[usize::from(end - FIRST_END)]),
        }
    }

    pub(super) fn has(&self, item: u32, flag: u8) -> bool {
        self.marks.get(item as usize).is_some_and(|it| it & flag != 0)
    }

    pub(super) fn is_kept(&self, item: u32) -> bool {
        self.has(item, KEPT)
    }

    /// Marks one that ended as taken over from an earlier run.
    pub(super) fn keep(&mut self, item: u32) {
        self.kept += 1;
        self.flag(item, KEPT, true);
    }

    /// Items beyond the last one that was touched are not there, and not touched.
    pub(super) fn highest(&self) -> u32 {
        self.marks.len() as u32
    }

    pub(super) fn flag(&mut self, item: u32, flag: u8, set: bool) {
        if let Some(mark) = self.marks.get_mut(item as usize) {
            *mark = if set { *mark | flag } else { *mark & !flag };
        }
    }

    /// Puts it into this state, without flags. `expected` is how many items there will be, if that is known.
    pub(super) fn set(&mut self, item: u32, state: ItemState, expected: Option<u32>) {
        let at = item as usize;
        if self.marks.len() <= at {
            if let Some(expected) = expected {
                self.marks.reserve_exact((expected as usize).saturating_sub(self.marks.len()));
            }
            self.marks.resize(at + 1, UNSTARTED);
        }
        self.count(self.state(item), false);
        self.count(state, true);
        self.marks[at] = match state {
            ItemState::Waiting => UNSTARTED,
            ItemState::Live => LIVE,
            ItemState::Ended(end) => FIRST_END + end as u8,
        };
    }

    fn count(&mut self, state: ItemState, more: bool) {
        let count = match state {
            ItemState::Waiting => return,
            ItemState::Live => &mut self.live,
            ItemState::Ended(end) => &mut self.ended[end as usize],
        };
        *count = if more { *count + 1 } else { *count - 1 };
    }

    /// Forgets the items from this one on: there are only so many.
    pub(super) fn truncate(&mut self, count: u32) {
        for item in count..self.highest() {
            self.count(self.state(item), false);
            self.kept -= u32::from(self.is_kept(item));
        }
        self.marks.truncate(count as usize);
    }

    /// The first that did not start, of so many.
    pub(super) fn first_unstarted(&mut self, count: u32) -> Option<u32> {
        while self.cursor < self.highest() && self.state(self.cursor) != ItemState::Waiting {
            self.cursor += 1;
        }
        (self.cursor < count).then_some(self.cursor)
    }

    /// How a task with these items ended, when `open` of them never started and no more will.
    pub(super) const fn fold(&self, open: u32) -> TaskEnd {
        if self.ended(TaskEnd::Failed) > 0 {
            TaskEnd::Failed
        } else if self.ended(TaskEnd::UpstreamFailed) > 0 {
            TaskEnd::UpstreamFailed
        } else if self.ended(TaskEnd::Cancelled) > 0 || open > 0 {
            TaskEnd::Cancelled
        } else if self.ended(TaskEnd::Skipped) > 0 && self.ended(TaskEnd::Succeeded) == 0 {
            TaskEnd::Skipped
        } else {
            TaskEnd::Succeeded
        }
    }
}

/// How many items a task has, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Unknown,
    Known(u32),
    /// It can't be told.
    Failed,
}

impl List {
    pub(super) const fn count(self) -> Option<u32> {
        match self {
            Self::Known(count) => Some(count),
            Self::Unknown | Self::Failed => None,
        }
    }
}

/// What a task waits for, once its rule lets it start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Want {
    #[default]
    Nothing,
    Decide,
    Expand,
    /// Room for an item.
    Start,
    /// Its live items to end.
    Ends,
}

/// What follows from the facts on a task, and what of it the sums of the run have in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Part {
    pub(super) end: Option<TaskEnd>,
    /// It failed, or never started because of a failure, and not of a cancel.
    pub(super) because_of_failure: bool,
    /// Items that did not start, and how they are counted: as waiting, or by an end.
    pub(super) open: u32,
    pub(super) open_end: Option<TaskEnd>,
    pub(super) live: u32,
    pub(super) ended: [u32; TaskEnd::ALL.len()],
    /// Failures and cancels that make the run fail.
    pub(super) failures: u32,
    pub(super) cancels: u32,
    /// Items that ended otherwise than they would have, had nobody stopped anything.
    pub(super) stopped: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) items: Items,
    /// Its needs, by how they ended in its eyes.
    pub(super) needs: Upstream,
    /// How many of them it lost to a failure.
    pub(super) failed_needs: u32,
    pub(super) condition: Option<Result<bool, ()>>,
    pub(super) list: List,
    pub(super) want: Want,
    /// What was asked for already.
    pub(super) asked: Want,
    /// How many live items it had when it was put among those that may start one.
    pub(super) ready_with: Option<u32>,
    pub(super) part: Part,
}
