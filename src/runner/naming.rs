//! Names and labels of sandboxes, the same on every backend. Pure.

use std::collections::BTreeMap;

use super::{LaunchRequest, SandboxKey};
use crate::failpoints::{self, Guard};
use crate::ids::{AttemptId, Fence, InstallationId, TaskId};

pub const LABEL_INSTALLATION: &str = "supercargo.dev/installation";
pub const LABEL_RUN: &str = "supercargo.dev/run";
pub const LABEL_TASK: &str = "supercargo.dev/task";
pub const LABEL_ATTEMPT: &str = "supercargo.dev/attempt";
pub const LABEL_SPEC: &str = "supercargo.dev/spec";

pub use crate::domain::spec::{OUTPUT_DIR, OUTPUT_FILE};

/// The name that a sandbox is made under, from its key alone: 49 characters, fit for every backend.
pub fn sandbox_name(key: &SandboxKey) -> String {
    // The random end of the installation's id tells deployments on one engine apart.
    let installation = key.installation.uuid().as_u128() & 0xffff_ffff;
    format!("sc-{installation:08x}-{}", key.attempt.uuid().simple())
}

/// The name of a sandbox whose holder took it over. A start that an earlier holder sent, and that arrives
/// late, goes to a name that nothing has any more.
pub fn held_name(key: &SandboxKey, took_over: Option<Fence>) -> String {
    match took_over {
        Some(fence) if failpoints::holds(Guard::RenameAdopted) => {
            format!("{}-{}", sandbox_name(key), fence.0)
        }
        Some(_) | None => sandbox_name(key),
    }
}

/// The name of a sandbox that was put aside.
pub fn kept_name(key: &SandboxKey) -> String {
    format!("{}-kept", sandbox_name(key))
}

pub fn is_kept_name(name: &str) -> bool {
    name.ends_with("-kept")
}

pub fn labels(request: &LaunchRequest<'_>) -> BTreeMap<String, String> {
    [
        (LABEL_INSTALLATION, request.key.installation.to_string()),
        (LABEL_RUN, request.run.to_string()),
        (LABEL_TASK, request.task.to_string()),
        (LABEL_ATTEMPT, request.key.attempt.to_string()),
        (LABEL_SPEC, request.spec_hash.as_str().to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The environment of a sandbox: the task's own, the trace of its caller where the task does not say
/// otherwise, and ours, which wins.
pub fn environment(request: &LaunchRequest<'_>) -> BTreeMap<String, String> {
    let mut env = request.spec.env.clone();
    if let Some(trace) = &request.spec.trace
        && !env.contains_key("TRACEPARENT")
    {
        env.insert("TRACEPARENT".to_owned(), trace.parent.clone());
        if let Some(state) = &trace.state {
            env.entry("TRACESTATE".to_owned()).or_insert_with(|| state.clone());
        }
    }
    env.extend(own_environment(request));
    env
}

fn own_environment(request: &LaunchRequest<'_>) -> BTreeMap<String, String> {
    [
        ("SUPERCARGO_OUTPUT", OUTPUT_FILE.to_owned()),
        ("SUPERCARGO_RUN_ID", request.run.to_string()),
        ("SUPERCARGO_TASK_ID", request.task.to_string()),
        ("SUPERCARGO_ATTEMPT", request.attempt_no.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Who a labelled sandbox belongs to, where it is this installation's.
pub fn owner(
    installation: InstallationId,
    label: impl Fn(&str) -> Option<String>,
) -> Option<(TaskId, AttemptId)> {
    let mine = label(LABEL_INSTALLATION)? == installation.to_string();
    let task = label(LABEL_TASK)?.parse().ok()?;
    let attempt = label(LABEL_ATTEMPT)?.parse().ok()?;
    mine.then_some((task, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(installation: &str, attempt: &str) -> SandboxKey {
        SandboxKey {
            installation: installation.parse().unwrap(),
            attempt: attempt.parse().unwrap(),
        }
    }

    #[test]
    fn a_name_depends_on_the_key_alone() {
        let a = key("01920000-0000-7000-8000-00000000abcd", "01930000-0000-7000-8000-000000000001");
        let name = sandbox_name(&a);
        assert_eq!(name, "sc-0000abcd-01930000000070008000000000000001");
        assert_eq!(held_name(&a, None), name);
        assert_eq!(held_name(&a, Some(Fence(7))), format!("{name}-7"));
        assert!(is_kept_name(&kept_name(&a)) && !is_kept_name(&name));
        let b = key("01920000-0000-7000-8000-00000000abce", "01930000-0000-7000-8000-000000000001");
        assert_ne!(sandbox_name(&b), name);
    }
}
