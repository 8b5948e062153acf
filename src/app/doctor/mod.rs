//! An examination of an installation: what is healthy, what is not, and what to do about it.
//!
//! It looks and never mends: nothing is started, locked or written but one file of its own in the object store,
//! which it removes. Each look has a deadline, and none keeps another from being taken. [`verdict`] makes of
//! what was found what is said; it is pure.

mod facts;
mod look;
#[cfg(feature = "kubernetes")]
mod look_cluster;
#[cfg(feature = "docker")]
mod look_engine;
#[cfg_attr(
    not(any(feature = "docker", feature = "kubernetes")),
    expect(dead_code, reason = "only backends have sandboxes")
)]
mod look_sandboxes;
mod verdict;

use serde::Serialize;

use crate::config::Config;

pub use facts::{Api, Readiness, TokenState};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// It works, and somebody should look; or it could not be found out.
    Warn,
    Fail,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub check: String,
    pub status: Status,
    /// What was found, in one line.
    pub found: String,
    /// What to do, in one line. There where the status is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), status: Status::Ok, found: found.into(), fix: None }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Warn, fix: Some(fix.into()), ..Self::ok(check, found) }
    }

    fn fail(check: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Fail, fix: Some(fix.into()), ..Self::ok(check, found) }
    }
}

/// Looks at everything that these settings name. `api` is what the service of this data directory answers.
pub async fn examine(config: &Config, api: impl Future<Output = Api>) -> Vec<Check> {
    verdict::judge(&look::everything(config, api).await)
}
