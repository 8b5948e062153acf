//! What a task is to run: the validated form of a submitted document.
//!
//! [`parse`] turns JSON into a [`TaskSpec`] or into every [`Fault`] it found, each with a JSON
//! pointer and the fix. A [`TaskSpec`] that exists is valid; nothing checks it again.

pub mod capability;
mod document;
mod files;
mod kubernetes;
mod parse;
pub mod pod_security;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::target::Placement;
use super::trace::TraceContext;

pub use document::to_document;
pub use files::is_output_name;
pub use kubernetes::{
    COLLECTOR_CONTAINER, KubernetesOptions, MAIN_CONTAINER, OWN_PREFIX, check_template,
};
pub use parse::{Limits, Submission, parse, parse_submission};
pub(in crate::domain) use parse::{absolute, read_labels, read_task, unsupported};
pub(in crate::domain) use reader::escape;
pub use reader::{Fault, ObjectReader, suggest};

/// The folder in the sandbox that is ours.
pub const OUTPUT_DIR: &str = "/supercargo";
/// Where `$SUPERCARGO_OUTPUT` points.
pub const OUTPUT_FILE: &str = "/supercargo/output.json";

/// One container to run, with every default filled in.
///
/// Its serialised form is what the store keeps: fields may be added with a default, and none may
/// change its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub name: String,
    pub image: String,
    /// Docker's Entrypoint, Kubernetes' command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Docker's Cmd, Kubernetes' args; `args` of the document are appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InputFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default)]
    pub resources: Resources,
    /// A small init as PID 1 that forwards signals and reaps.
    #[serde(default)]
    pub init: bool,
    pub target: Placement,
    #[serde(default)]
    pub pull_policy: PullPolicy,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default, skip_serializing_if = "Retries::is_default")]
    pub retries: Retries,
    pub platform_retries: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_on_exit_codes: Vec<i32>,
    #[serde(default)]
    pub at_most_once: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, OutputDecl>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub priority: i16,
    #[serde(default)]
    pub cleanup: Cleanup,
    /// Where the task belongs in a trace of its caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// What other backends pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesOptions>,
}

impl TaskSpec {
    /// Tells two specs apart that would make different sandboxes. Part of a sandbox's identity.
    pub fn hash(&self) -> SpecHash {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&bytes);
        SpecHash(hex(digest.iter().take(16)))
    }
}

/// Lower-case hex, as checksums are written.
pub fn hex<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    use std::fmt::Write as _;
    bytes.fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 hex digits: short enough for a label on every backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpecHash(String);

impl SpecHash {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file put into the sandbox before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Absolute, without `..`.
    pub path: String,
    #[serde(with = "base64_bytes")]
    pub content: Vec<u8>,
    pub mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// A hard limit, in thousandths of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// What becomes of the sandbox once its log and outputs are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleanup {
    #[default]
    Always,
    OnSuccess,
    Never,
}

/// How long each step of an attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From submit to the claim by a worker. None: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_duration_ms")]
    pub queue: Option<SignedDuration>,
    /// Until the backend has a place for the sandbox, where it looks for one: a node for the pod.
    #[serde(
        with = "duration_ms",
        default = "default_schedule",
        skip_serializing_if = "is_default_schedule"
    )]
    pub schedule: SignedDuration,
    #[serde(with = "duration_ms")]
    pub pull: SignedDuration,
    /// Creating and starting, without the pull.
    #[serde(with = "duration_ms")]
    pub start: SignedDuration,
    /// None: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_duration_ms")]
    pub run: Option<SignedDuration>,
    /// Between the stop signal and the kill.
    #[serde(with = "duration_ms")]
    pub stop_grace: SignedDuration,
    /// Storing the log and the outputs after the exit.
    #[serde(with = "duration_ms")]
    pub finish: SignedDuration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            queue: None,
            schedule: default_schedule(),
            pull: SignedDuration::from_mins(10),
            start: SignedDuration::from_mins(2),
            run: None,
            stop_grace: SignedDuration::from_secs(10),
            finish: SignedDuration::from_mins(10),
        }
    }
}

const fn default_schedule() -> SignedDuration {
    SignedDuration::from_mins(10)
}

/// The default is not stored: it came later than the first tasks, whose identity must not change.
fn is_default_schedule(it: &SignedDuration) -> bool {
    *it == default_schedule()
}

/// The task's own budget of further attempts, for failures of class `user`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    pub max: u32,
    /// Before the first further attempt; doubles from one to the next.
    #[serde(with = "duration_ms")]
    pub backoff_initial: SignedDuration,
    #[serde(with = "duration_ms")]
    pub backoff_max: SignedDuration,
    /// Only ends with one of these codes are tried again. Empty: every failure that may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_exit_codes: Vec<i32>,
    /// Also where it could not be confirmed that the attempt before has ended: two may run then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_unconfirmed: bool,
}

impl Retries {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max: 0,
            backoff_initial: SignedDuration::from_secs(1),
            backoff_max: SignedDuration::from_mins(1),
            on_exit_codes: Vec::new(),
            on_unconfirmed: false,
        }
    }
}

/// A declared output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputDecl {
    pub source: OutputSource,
    #[serde(default)]
    pub required: bool,
}

/// Where an output comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputSource {
    /// A key of the JSON object in `$SUPERCARGO_OUTPUT`.
    Json,
    /// The last line of stdout.
    LastLine,
    /// Every line of stdout.
    AllLines,
    /// A file or folder of the sandbox.
    Path(String),
}

mod duration_ms {
    use jiff::SignedDuration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(it: &SignedDuration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(i64::try_from(it.as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SignedDuration, D::Error> {
        i64::deserialize(d).map(SignedDuration::from_millis)
    }
}

mod opt_duration_ms {
    use jiff::SignedDuration;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's `with` hands it so")]
    pub(super) fn serialize<S: Serializer>(
        it: &Option<SignedDuration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match it {
            Some(it) => super::duration_ms::serialize(it, s),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<SignedDuration>, D::Error> {
        Ok(Option::<i64>::deserialize(d)?.map(SignedDuration::from_millis))
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}
