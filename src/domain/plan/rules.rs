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
