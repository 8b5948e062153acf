//! Why an attempt failed, who is to blame, and from which budget it is tried again.
//!
//! [`Reason`] is the one table: reason → class → budget. Everything else asks it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who has to act: the author of the task, the people who run the platform, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The task itself: its code, image, limits or outputs.
    User,
    /// What runs it: engine, registry, node. Tried again from a budget of its own.
    Platform,
    /// Somebody asked for it.
    Control,
}

impl Class {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Platform => "platform",
            Self::Control => "control",
        }
    }
}

/// Which budget a failed attempt may be tried again from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// The task's own `retries`.
    User,
    /// `platform_retries`, which never eats the user's.
    Platform,
    /// Trying again can't help, or nobody wants it.
    Never,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $text:literal $class:ident $budget:ident;)*) => {
        /// Why an attempt failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            pub const fn budget(self) -> Budget {
                match self { $(Self::$name => Budget::$budget,)* }
            }
        }
    };
}

reasons! {
    /// The main container ended with a code that is not 0.
    ExitNonzero "exit_nonzero" User User;
    /// It ended by a signal that we did not send.
    SignalKilled "signal_killed" User User;
    /// It was killed for using more memory than its limit.
    OomKilled "oom_killed" User User;
    /// The command is not in the image (127).
    CommandNotFound "command_not_found" User Never;
    /// The command is there and can't be executed (126).
    CommandNotExecutable "command_not_executable" User Never;
    /// One of its timeouts passed.
    Timeout "timeout" User User;
    /// The registry, or the engine when nothing may be pulled, does not have the image.
    ImageNotFound "image_not_found" User Never;
    /// The engine does not take the image's name.
    InvalidImage "invalid_image" User Never;
    /// The registry refused us.
    RegistryAuth "registry_auth" User Never;
    /// The registry could not be reached, was overloaded or broke off.
    RegistryTransient "registry_transient" Platform Platform;
    /// The backend refused the sandbox.
    CreateConfigError "create_config_error" User Never;
    /// The engine made it and could not start it, for a reason of its own or one that it does not tell
    /// from those. It never ran.
    StartError "start_error" Platform Platform;
    /// No room for it before its timer passed.
    Unschedulable "unschedulable" Platform Platform;
    /// Put out by its node for want of resources.
    Evicted "evicted" Platform Platform;
    /// Put out for something of higher priority.
    Preempted "preempted" Platform Platform;
    /// Its engine or node stopped under it.
    NodeLost "node_lost" Platform Platform;
    /// Somebody else removed it.
    DeletedExternally "deleted_externally" Platform Platform;
    /// An init container failed.
    InitFailed "init_failed" User User;
    /// A task of a workflow that could not be made of what it refers to: a value is missing or of another kind.
    TaskInvalid "task_invalid" User Never;
    /// A required output is missing, or one is not what it must be.
    OutputInvalid "output_invalid" User Never;
    /// An output is larger than its limit.
    OutputTooLarge "output_too_large" User Never;
    /// The outputs could not be stored before `timeouts.finish`.
    OutputStoreUnavailable "output_store_unavailable" Platform Never;
    /// Somebody cancelled it.
    Cancelled "cancelled" Control Never;
    /// A newer attempt took its place.
    Superseded "superseded" Control Never;
    /// Our own fault.
    Internal "internal" Platform Platform;
}

impl Reason {
    /// Why a sandbox could not be started, by the exit code that engines give it.
    pub const fn of_failed_start(code: i32) -> Self {
        match code {
            127 => Self::CommandNotFound,
            126 => Self::CommandNotExecutable,
            _ => Self::StartError,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown reason {text:?}")))
    }
}

/// A failed or cancelled attempt's story in one line, with the end of its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), log_tail: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_text() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
    }

    #[test]
    fn only_platform_reasons_draw_on_the_platform_budget() {
        for &reason in Reason::ALL {
            match reason.budget() {
                Budget::Platform => assert_eq!(reason.class(), Class::Platform, "{reason}"),
                Budget::User => assert_eq!(reason.class(), Class::User, "{reason}"),
                Budget::Never => {}
            }
        }
    }
}
