//! Identifiers: one newtype per kind, so that a task's id never stands where an attempt's belongs.
//!
//! All are UUIDv7: they sort by creation time, and the tables that are partitioned by time are
//! partitioned by them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta] $name:ident)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new id that sorts after the ones made before it in this process.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// As the id itself says, in milliseconds.
            pub fn made_at(self) -> jiff::Timestamp {
                let millis = (self.0.as_u128() >> 80) as i64;
                jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(s).map(Self)
            }
        }
    )*};
}

id! {
    /// One try of a task.
    AttemptId
    /// One deployment: a database and all that it owns on the backends.
    InstallationId
    /// One object store: a folder with all that is in it, wherever it is mounted.
    ObjectStoreId
    /// One execution of a workflow or of a single task.
    RunId
    /// One question to the workers about a target.
    TargetCheckId
    /// One container to run.
    TaskId
    /// An API token.
    TokenId
    /// One worker process, stable over its restarts.
    WorkerId
}

/// Who may write to an attempt: each take-over of a task adds one, and writes with an older
/// fence are refused by the database. It guards writes to the database, and only those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub i64);

/// The number of an attempt within its task, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptNo(pub i32);

impl AttemptNo {
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for AttemptNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
