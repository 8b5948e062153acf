//! Where a reader stands in the log of a task, so that it goes on there over every interruption.

/// An attempt, and the bytes of its log that were had.
///
/// Attempts are read one after the other, each by its number: a stream that went from one into the next
/// would leave a reader that is interrupted without a place to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// From 1. None: the one that the service takes for the latest.
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
    pub(crate) const fn beginning_of(attempt: Option<i64>) -> Self {
        Self { attempt, offset: 0 }
    }

    /// The parameters that ask for the log from here.
    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let attempt = self.attempt.map(|it| ("attempt", it.to_string()));
        attempt.into_iter().chain([("offset", self.offset.to_string())]).collect()
    }

    /// Takes up an answer that begins at `start`. None: it is the log of another attempt.
    pub(crate) fn meet(&mut self, start: Start) -> Option<Fit> {
        let attempt = self.attempt.or(start.attempt);
        if start.attempt.is_some() && start.attempt != attempt {
            return None;
        }
        self.attempt = attempt;
        let offset = start.offset.unwrap_or(self.offset);
        let fit = Fit {
            skip: self.offset.saturating_sub(offset),
            missing: offset.saturating_sub(self.offset),
        };
        self.offset += fit.missing;
        Some(fit)
    }

    pub(crate) fn advance(&mut self, bytes: usize) {
        self.offset += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Position = Position { attempt: Some(2), offset: 10 };

    fn meet(attempt: Option<i64>, offset: Option<u64>) -> (Option<Fit>, Position) {
        let mut position = HERE;
        (position.meet(Start { attempt, offset }), position)
    }

    #[test]
    fn a_place_is_asked_for_by_attempt_and_byte() {
        let mut position = Position::beginning_of(Some(2));
        position.advance(7);
        position.advance(3);
        assert_eq!(position, HERE);
        assert_eq!(position.query(), [("attempt", "2".to_owned()), ("offset", "10".to_owned())]);
    }

    #[test]
    fn an_answer_from_here_is_taken_as_it_is() {
        assert_eq!(meet(Some(2), Some(10)), (Some(Fit::default()), HERE));
        assert_eq!(meet(None, None), (Some(Fit::default()), HERE));
    }

    #[test]
    fn what_was_had_before_is_skipped() {
        assert_eq!(meet(Some(2), Some(7)), (Some(Fit { skip: 3, missing: 0 }), HERE));
    }

    #[test]
    fn what_is_missing_is_counted_and_never_asked_for_again() {
        let behind = Position { attempt: Some(2), offset: 15 };
        assert_eq!(meet(Some(2), Some(15)), (Some(Fit { skip: 0, missing: 5 }), behind));
    }

    #[test]
    fn the_latest_attempt_is_the_one_that_the_service_says() {
        let mut position = Position::beginning_of(None);
        assert_eq!(position.query(), [("offset", "0".to_owned())]);
        assert!(position.meet(Start { attempt: Some(3), offset: Some(0) }).is_some());
        assert_eq!(position, Position::beginning_of(Some(3)));
    }

    #[test]
    fn the_log_of_another_attempt_is_not_taken() {
        assert_eq!(meet(Some(3), Some(0)), (None, HERE));
        assert_eq!(meet(Some(1), Some(10)), (None, HERE));
    }
}
