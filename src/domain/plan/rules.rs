//! The trigger rules: whether a task may start, from how the tasks that it needs have ended.
//!
//! The names and their meaning are Airflow's (`TriggerRule`; "Trigger Rules" in its core concepts, and
//! `TriggerRuleDep`). Where Airflow's answer depends on who ended first, ours does not: [`judge`] says
//! what Airflow would say of all ends at once, as soon as no end to come can change it. So a verdict stays
//! whatever happens later, and whoever takes a run over comes to the same one from the ends alone.

/// When a task may start. Without needs it always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Trigger {
    #[default]
    AllSuccess,
    AllFailed,
    AllDone,
    OneSuccess,
    OneFailed,
    OneDone,
    NoneFailed,
    NoneFailedMinOneSuccess,
    NoneSkipped,
    AllSkipped,
    Always,
}

impl Trigger {
    pub const ALL: [Self; 11] = [
        Self::AllSuccess,
        Self::AllFailed,
        Self::AllDone,
        Self::OneSuccess,
        Self::OneFailed,
        Self::OneDone,
        Self::NoneFailed,
        Self::NoneFailedMinOneSuccess,
        Self::NoneSkipped,
        Self::AllSkipped,
        Self::Always,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllSuccess => "all_success",
            Self::AllFailed => "all_failed",
            Self::AllDone => "all_done",
            Self::OneSuccess => "one_success",
            Self::OneFailed => "one_failed",
            Self::OneDone => "one_done",
            Self::NoneFailed => "none_failed",
            Self::NoneFailedMinOneSuccess => "none_failed_min_one_success",
            Self::NoneSkipped => "none_skipped",
            Self::AllSkipped => "all_skipped",
            Self::Always => "always",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// How a task ended, as those that need it see it: a fan-out as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskEnd {
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
    /// It never started, since what it needs did not end as its rule asks.
    UpstreamFailed,
}

impl TaskEnd {
    pub const ALL: [Self; 5] =
        [Self::Succeeded, Self::Failed, Self::Skipped, Self::Cancelled, Self::UpstreamFailed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::UpstreamFailed => "upstream_failed",
        }
    }
}

/// The needs of a task, counted by how they ended. Each is in one count at most; those in none go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upstream {
    pub total: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub upstream_failed: u32,
    pub skipped: u32,
    pub cancelled: u32,
}

/// What a rule says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// An end to come decides.
    Wait,
    Start,
    Skip,
    UpstreamFailed,
}

impl Upstream {
    /// How many have ended.
    pub const fn ended(&self) -> u32 {
        self.succeeded + self.unsuccessful() + self.skipped
    }

    /// Those that ended and hold back what asks for success. Airflow has no cancel of its own: what a
    /// person stops there is marked failed.
    const fn unsuccessful(&self) -> u32 {
        self.failed + self.upstream_failed + self.cancelled
    }

    /// The count of this end.
    pub const fn of(&mut self, end: TaskEnd) -> &mut u32 {
        match end {
            TaskEnd::Succeeded => &mut self.succeeded,
            TaskEnd::Failed => &mut self.failed,
            TaskEnd::Skipped => &mut self.skipped,
            TaskEnd::Cancelled => &mut self.cancelled,
            TaskEnd::UpstreamFailed => &mut self.upstream_failed,
        }
    }
}

/// What `trigger` says of a task whose needs stand like this.
///
/// A verdict other than [`Verdict::Wait`] holds for every way in which the rest may end.
pub const fn judge(trigger: Trigger, up: &Upstream) -> Verdict {
    if up.total == 0 {
        return Verdict::Start;
    }
    let (some_bad, some_skipped) = (up.unsuccessful() > 0, up.skipped > 0);
    let (some_good, all_ended) = (up.succeeded > 0, up.ended() >= up.total);
    // What it is at once if something has happened, and else at the end.
    let (at_once, at_the_end) = match trigger {
        Trigger::AllSuccess if some_skipped => {
            (choose(some_bad, Verdict::UpstreamFailed), Verdict::Skip)
        }
        Trigger::AllSuccess | Trigger::NoneFailed => {
            (choose(some_bad, Verdict::UpstreamFailed), Verdict::Start)
        }
        Trigger::AllFailed => (choose(some_good || some_skipped, Verdict::Skip), Verdict::Start),
        Trigger::AllDone => (Verdict::Wait, Verdict::Start),
        Trigger::OneSuccess if up.skipped == up.total => (Verdict::Wait, Verdict::Skip),
        Trigger::OneSuccess => (choose(some_good, Verdict::Start), Verdict::UpstreamFailed),
        Trigger::OneFailed => (choose(some_bad, Verdict::Start), Verdict::Skip),
        // A need that never started was not done, though it ended.
        Trigger::OneDone => {
            (choose(some_good || up.failed + up.cancelled > 0, Verdict::Start), Verdict::Skip)
        }
        Trigger::NoneFailedMinOneSuccess if some_good => {
            (choose(some_bad, Verdict::UpstreamFailed), Verdict::Start)
        }
        Trigger::NoneFailedMinOneSuccess => {
            (choose(some_bad, Verdict::UpstreamFailed), Verdict::Skip)
        }
        Trigger::NoneSkipped => (choose(some_skipped, Verdict::Skip), Verdict::Start),
        Trigger::AllSkipped => (choose(some_good || some_bad, Verdict::Skip), Verdict::Start),
        Trigger::Always => (Verdict::Start, Verdict::Start),
    };
    match at_once {
        Verdict::Wait if all_ended => at_the_end,
        Verdict::Wait | Verdict::Start | Verdict::Skip | Verdict::UpstreamFailed => at_once,
    }
}

const fn choose(happened: bool, verdict: Verdict) -> Verdict {
    if happened { verdict } else { Verdict::Wait }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::says_by_now;
    use super::*;

    /// Every way in which so many needs may stand, whichever of them it is.
    fn combinations(needs: usize) -> Vec<Vec<Option<TaskEnd>>> {
        let each: Vec<Option<TaskEnd>> = TaskEnd::ALL.into_iter().map(Some).chain([None]).collect();
        let mut all = vec![Vec::new()];
        for _ in 0..needs {
            all = all
                .into_iter()
                .flat_map(|it: Vec<Option<TaskEnd>>| {
                    let from = it.last().map_or(0, |last| {
                        each.iter().position(|it| it == last).unwrap_or_default()
                    });
                    each[from..].iter().map(move |next| [it.as_slice(), &[*next]].concat())
                })
                .collect();
        }
        all
    }

    fn count(needs: &[Option<TaskEnd>]) -> Upstream {
        let mut up = Upstream { total: needs.len() as u32, ..Upstream::default() };
        for end in needs.iter().flatten() {
            *up.of(*end) += 1;
        }
        up
    }

    #[test]
    fn every_rule_for_all_that_may_be_upstream() {
        let mut table = format!("{:51}", "needs");
        for trigger in Trigger::ALL {
            table.push_str(&format!(" {}", trigger.as_str()));
        }
        for needs in (0..=3).flat_map(combinations) {
            let words: Vec<_> = needs.iter().map(|it| it.map_or("…", TaskEnd::as_str)).collect();
            table.push_str(&format!("\n{:51}", words.join(", ")));
            for trigger in Trigger::ALL {
                let word = match judge(trigger, &count(&needs)) {
                    Verdict::Wait => "…",
                    Verdict::Start => "start",
                    Verdict::Skip => "skip",
                    Verdict::UpstreamFailed => "fail",
                };
                let width = trigger.as_str().len();
                table.push_str(&format!(" {word:width$}"));
            }
        }
        let table: Vec<_> = table.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn every_rule_says_what_airflow_says_as_soon_as_that_is_certain() {
        for needs in (0..=4).flat_map(combinations) {
            for trigger in Trigger::ALL {
                let (fast, slow) = (judge(trigger, &count(&needs)), says_by_now(trigger, &needs));
                assert_eq!(fast, slow, "{} after {needs:?}", trigger.as_str());
            }
        }
    }

    #[test]
    fn every_rule_reads_back_from_its_name() {
        for trigger in Trigger::ALL {
            assert_eq!(Trigger::parse(trigger.as_str()), Some(trigger));
        }
        assert_eq!(Trigger::parse("dummy"), None);
    }
}
