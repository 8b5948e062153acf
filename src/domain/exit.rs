//! How a sandbox ended, as its backend reports it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::Reason;

/// What a backend knows of the end of a sandbox. Stored with the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    pub status: ExitStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The engine itself was away: what was written last may have reached nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwatched: bool,
    /// What it left goes at any moment, or is gone: it is read as far as it can be now, and not waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fleeting: bool,
}

/// How the main container ended. A sandbox that vanished has none of these: it is never an exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExitStatus {
    /// The main process ended by itself, or by a signal (128 + n).
    Code {
        code: i32,
        /// The kernel killed a process of this sandbox for memory. The code decides all the same.
        #[serde(default)]
        oom_killed: bool,
    },
    /// It never ran: the engine could not start it (`code` as the engine gives it: 126, 127, …).
    StartFailed { code: i32, message: String },
    /// The engine went down under it, and took it with it.
    EngineStopped { code: i32 },
    /// The backend ended it, or gave it up before the main container ran, and says why: evicted, preempted,
    /// deleted by somebody else, an init container that failed. `code` where the main container had one.
    Disrupted {
        reason: Reason,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
    },
}

impl ExitStatus {
    /// The exit code to show, if the main process had one.
    pub const fn code(&self) -> Option<i32> {
        match self {
            Self::Code { code, .. }
            | Self::StartFailed { code, .. }
            | Self::EngineStopped { code } => Some(*code),
            Self::Disrupted { code, .. } => *code,
        }
    }
}
