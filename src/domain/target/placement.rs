//! Where a task is to run: on the target of a name, or on any that has certain labels.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Target;

/// Which targets may have a task.
///
/// Its text is the name, or the labels as `gpu=yes,zone=a`: neither holds the `=` or `,` of the other. A task
/// waits in the queue under this text, until a target takes it and its own name stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Named(String),
    /// Any target that has all of these; never empty.
    Labels(BTreeMap<String, String>),
}

impl Placement {
    /// Of its text.
    pub fn of_text(text: &str) -> Self {
        if !text.contains('=') {
            return Self::Named(text.to_owned());
        }
        let pair = |it: &str| {
            let (name, value) = it.split_once('=').unwrap_or((it, ""));
            (name.to_owned(), value.to_owned())
        };
        Self::Labels(text.split(',').map(pair).collect())
    }

    /// Whether a target of this name may have the task.
    pub fn matches(&self, name: &str, target: &Target) -> bool {
        match self {
            Self::Named(it) => it == name,
            Self::Labels(labels) => {
                labels.iter().all(|(key, value)| target.labels.get(key) == Some(value))
            }
        }
    }

    pub const fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    /// For metrics, whose labels are few: what waits for no target of its own is counted together.
    pub fn gauge(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Labels(_) => BY_LABELS,
        }
    }
}

/// No target can have this name.
const BY_LABELS: &str = "(labels)";

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Labels(labels) => {
                for (index, (key, value)) in labels.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{key}={value}")?;
                }
                Ok(())
            }
        }
    }
}

/// As callers write it: the name as text, the labels as `{"labels": {…}}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Named(String),
    Labels { labels: BTreeMap<String, String> },
}

impl Serialize for Placement {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Labels(labels) => {
                Written::Labels { labels: labels.clone() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Named(name) => Self::Named(name),
            Written::Labels { labels } => Self::Labels(labels),
        })
    }
}
