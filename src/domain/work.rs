//! A caller's name for a piece of work, and what a second submit under that name means.

use std::fmt;

use super::state::TaskState;

const KEY_BYTES: usize = 255;

/// Names the work that a task does, over all its submits: `etl.2026-11-21.count`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey(String);

impl RunKey {
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_key(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("a run key has 1 to {KEY_BYTES} printable ASCII characters"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Also the rule for the keys of requests.
pub fn is_key(text: &str) -> bool {
    (1..=KEY_BYTES).contains(&text.len())
        && text.bytes().all(|it| it.is_ascii_graphic() || it == b' ')
}

/// What a submit says about the work that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub key: RunKey,
    pub on_duplicate: OnDuplicate,
}

/// What a submit wants where the key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnDuplicate {
    /// The task that lives or succeeded; a new attempt of one that did not succeed.
    #[default]
    AttachIfActive,
    /// The task, whatever became of it.
    Attach,
    /// An error.
    Reject,
    /// A new task; the old one is cancelled, and the new one starts after its end.
    Restart,
}

impl OnDuplicate {
    pub const ALL: [Self; 4] = [Self::AttachIfActive, Self::Attach, Self::Reject, Self::Restart];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttachIfActive => "attach_if_active",
            Self::Attach => "attach",
            Self::Reject => "reject",
            Self::Restart => "restart",
        }
    }
}

/// What becomes of a submit under a key that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// It is answered with the task that there is.
    Attach,
    /// The task gets a new attempt.
    Retry,
    Reject,
    /// A new task takes the key over.
    Replace,
}

/// Decides by what became of the task that has the key. None: retention has removed it.
pub const fn resolve(wanted: OnDuplicate, state: Option<TaskState>) -> Resolution {
    let Some(state) = state else { return Resolution::Replace };
    match wanted {
        OnDuplicate::Reject => Resolution::Reject,
        OnDuplicate::Restart => Resolution::Replace,
        OnDuplicate::AttachIfActive if state.may_be_retried() => Resolution::Retry,
        OnDuplicate::AttachIfActive | OnDuplicate::Attach => Resolution::Attach,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_resolved_by_what_became_of_the_first() {
        use TaskState::{
            Cancelled, Failed, Finishing, Queued, Running, Skipped, Starting, Succeeded,
        };
        for state in TaskState::ALL {
            let state_of = Some(state);
            assert_eq!(resolve(OnDuplicate::Attach, state_of), Resolution::Attach);
            assert_eq!(resolve(OnDuplicate::Reject, state_of), Resolution::Reject);
            assert_eq!(resolve(OnDuplicate::Restart, state_of), Resolution::Replace);
            let expected = match state {
                Queued | Starting | Running | Finishing | Succeeded => Resolution::Attach,
                Failed | Cancelled | Skipped => Resolution::Retry,
            };
            assert_eq!(resolve(OnDuplicate::AttachIfActive, state_of), expected, "{state}");
        }
        for wanted in OnDuplicate::ALL {
            assert_eq!(resolve(wanted, None), Resolution::Replace);
        }
    }

    #[test]
    fn a_key_is_printable_and_short() {
        for good in [
            "a",
            "etl.2026-11-21.count",
            "manual__2026-11-21T00:00:00+00:00",
            "a b/c",
            &"x".repeat(255),
        ] {
            assert_eq!(RunKey::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "ä", "a\nb", "a\u{7f}", &"x".repeat(256)] {
            assert!(RunKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
