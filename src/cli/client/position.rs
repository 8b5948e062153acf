//! Where a reader stands in the log of a task, so that it goes on there over every interruption.

/// An attempt, and the bytes already had since its log began.
///
/// A followed log goes on into the next attempt without a mark between the two. A reader that was
/// interrupted beyond such a border asks for an offset behind the end of the attempt that it named:
/// that many bytes from the beginning of that attempt, over all that came after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// None: the latest, whichever that is when the log is opened.
    pub(crate) attempt: Option<i64>,
    pub(crate) offset: u64,
}

/// Where the service says that its answer begins; it need not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Start {
    pub(crate) attempt: Option<i64>,
    pub(crate) offset: Option<u64>,
}

/// How an answer fits to what was had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fit {
    /// Bytes at the beginning of the answer that were had before.
    pub(crate) skip: u64,
    /// Bytes that nobody has any more.
    pub(crate) missing: u64,
}

impl Position {
    /// The parameters that ask for the log from here.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let attempt = self.attempt.map(|it| ("attempt", it.to_string()));
        attempt.into_iter().chain([("offset", self.offset.to_string())]).collect()
    }

    /// Takes up an answer that begins at `start`.
    pub(crate) fn meet(&mut self, start: Start) -> Fit {
        let offset = start.offset.unwrap_or(self.offset);
        match (self.attempt, start.attempt) {
            // The service counted on into a later attempt by itself: its word on where that is.
            (Some(ours), Some(theirs)) if theirs > ours => {
                *self = Self { attempt: Some(theirs), offset };
                return Fit::default();
            }
            (None, theirs) => self.attempt = theirs,
            (Some(_), _) => {}
        }
        let fit = Fit {
            skip: self.offset.saturating_sub(offset),
            missing: offset.saturating_sub(self.offset),
        };
        self.offset += fit.missing;
        fit
    }

    pub(crate) fn advance(&mut self, bytes: usize) {
        self.offset += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(attempt: i64, offset: u64) -> Position {
        Position { attempt: Some(attempt), offset }
    }

    const fn start(attempt: i64, offset: u64) -> Start {
        Start { attempt: Some(attempt), offset: Some(offset) }
    }

    #[test]
    fn the_first_answer_says_which_attempt_it_is() {
        let mut position = Position::default();
        assert_eq!(position.query(), [("offset", "0".to_owned())]);
        assert_eq!(position.meet(start(2, 0)), Fit::default());
        position.advance(10);
        assert_eq!(position, at(2, 10));
        assert_eq!(position.query(), [("attempt", "2".to_owned()), ("offset", "10".to_owned())]);
    }

    #[test]
    fn an_answer_from_here_is_taken_as_it_is() {
        let mut position = at(1, 10);
        assert_eq!(position.meet(start(1, 10)), Fit::default());
        assert_eq!(position.meet(Start::default()), Fit::default());
        assert_eq!(position, at(1, 10));
    }

    #[test]
    fn what_was_had_before_is_skipped_also_over_the_border_of_attempts() {
        // The first attempt had 7 bytes, and 3 of the second were read: the service goes back to
        // the end of the first, and what follows is the second from its beginning.
        let mut position = at(1, 10);
        assert_eq!(position.meet(start(1, 7)), Fit { skip: 3, missing: 0 });
        assert_eq!(position, at(1, 10));
    }

    #[test]
    fn a_service_that_counts_on_into_the_next_attempt_is_believed() {
        let mut position = at(1, 10);
        assert_eq!(position.meet(start(2, 3)), Fit::default());
        assert_eq!(position, at(2, 3));
    }

    #[test]
    fn what_is_missing_is_counted_and_never_asked_for_again() {
        let mut position = at(1, 10);
        assert_eq!(position.meet(start(1, 15)), Fit { skip: 0, missing: 5 });
        assert_eq!(position, at(1, 15));
    }
}
