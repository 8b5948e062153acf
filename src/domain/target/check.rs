//! What a worker found out about a target when somebody asked.

use serde::{Deserialize, Serialize};

/// Whether a target could run tasks now, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetCheck {
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// As the engine calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What our credentials may not do there.
    pub missing: Vec<MissingPermission>,
    /// What works, and is worth a second look.
    pub warnings: Vec<String>,
}

impl TargetCheck {
    pub fn unreachable(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::default() }
    }
}

/// One thing that our credentials may not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPermission {
    pub verb: String,
    pub resource: String,
    /// Empty: of the whole cluster.
    pub namespace: String,
    /// What does not work without.
    pub needed_for: String,
}
