//! From a launch request to the engine's create body. Pure.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};

use crate::domain::spec::{Resources, TaskSpec};
use crate::runner::{LaunchRequest, naming};

const NANO_PER_MILLI: i64 = 1_000_000;

pub(super) fn create_body(request: &LaunchRequest<'_>, log_max_bytes: u64) -> ContainerCreateBody {
    let spec = request.spec;
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        // An empty list means what no list means, as on every other backend.
        entrypoint: spec.entrypoint.clone().filter(|it| !it.is_empty()),
        cmd: spec.command.clone().filter(|it| !it.is_empty()),
        env: Some(environment(request)),
        labels: Some(labels(request)),
        user: spec.user.clone(),
        working_dir: spec.workdir.clone(),
        // The folder of $SUPERCARGO_OUTPUT, without an upload where root writes it: that costs 40 ms.
        volumes: Some(vec![naming::OUTPUT_DIR.to_owned()]),
        host_config: Some(host_config(spec, log_max_bytes)),
        ..ContainerCreateBody::default()
    }
}

fn environment(request: &LaunchRequest<'_>) -> Vec<String> {
    naming::environment(request).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// The task's own labels as they are, and ours, which win.
fn labels(request: &LaunchRequest<'_>) -> HashMap<String, String> {
    request.spec.labels.clone().into_iter().chain(naming::labels(request)).collect()
}

fn host_config(spec: &TaskSpec, log_max_bytes: u64) -> HostConfig {
    let Resources { cpu_millis, memory_bytes, pids } = spec.resources;
    HostConfig {
        nano_cpus: cpu_millis.map(|it| it.saturating_mul(NANO_PER_MILLI)),
        memory: memory_bytes,
        // Equal to memory: no swap on top, so that the limit is a hard one.
        memory_swap: memory_bytes,
        pids_limit: pids,
        init: spec.init.then_some(true),
        log_config: Some(log_config(log_max_bytes)),
        network_mode: network_mode(spec),
        ..HostConfig::default()
    }
}

/// The network step of a launch: the engine's default, until the spec can say more.
const fn network_mode(_spec: &TaskSpec) -> Option<String> {
    None
}

/// One file, uncompressed, and so large that it does not rotate before our own limit: a follower of a
/// rotated log loses lines. The engine adds some 30 bytes to each line. `local` keeps bytes as they are, which `json-file` does not.
fn log_config(log_max_bytes: u64) -> HostConfigLogConfig {
    let options = BTreeMap::from([
        ("max-size", log_max_bytes.saturating_mul(4).to_string()),
        ("max-file", "1".to_owned()),
        ("compress", "false".to_owned()),
    ]);
    HostConfigLogConfig {
        typ: Some("local".to_owned()),
        config: Some(options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
    }
}

/// The name and tag to pull: an image without a tag means `latest` (the engine would pull every tag).
pub(super) fn pull_reference(image: &str) -> (String, Option<String>) {
    if image.contains('@') {
        return (image.to_owned(), None);
    }
    let after_slash = image.rfind('/').map_or(0, |at| at + 1);
    match image.get(after_slash..).and_then(|it| it.rsplit_once(':')) {
        Some((name, tag)) => {
            let folder = image.get(..after_slash).unwrap_or_default();
            (format!("{folder}{name}"), Some(tag.to_owned()))
        }
        None => (image.to_owned(), Some("latest".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::spec::{Limits, parse};
    use crate::ids::AttemptNo;
    use crate::runner::{EngineId, SandboxKey};

    fn convert(spec: &TaskSpec) -> ContainerCreateBody {
        let engine = EngineId("E".to_owned());
        let id = "01930000-0000-7000-8000-000000000001";
        let request = LaunchRequest {
            key: SandboxKey { installation: id.parse().unwrap(), attempt: id.parse().unwrap() },
            run: id.parse().unwrap(),
            task: id.parse().unwrap(),
            attempt_no: AttemptNo::FIRST,
            spec,
            spec_hash: &spec.hash(),
            took_over: None,
            engine: &engine,
        };
        create_body(&request, 1 << 30)
    }

    fn body(document: &Value) -> String {
        let spec = parse(document, &Limits::default()).unwrap();
        let value = serde_json::to_value(convert(&spec)).unwrap();
        let text = serde_json::to_string_pretty(&sorted(value)).unwrap();
        text.replace(spec.hash().as_str(), "<spec hash>")
    }

    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields: BTreeMap<String, Value> =
                    fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                Value::Object(fields.into_iter().collect())
            }
            other => other,
        }
    }

    #[test]
    fn the_least_task() {
        insta::assert_snapshot!(body(&json!({"image": "busybox", "command": ["true"]})));
    }

    #[test]
    fn everything_that_a_task_can_say() {
        insta::assert_snapshot!(body(&json!({
            "name": "count", "image": "r.example/a/b:1", "entrypoint": ["/bin/sh", "-c"],
            "command": ["wc -w"], "env": {"B": "2", "A": "1", "SUPERCARGO_OUTPUT": "/elsewhere"},
            "workdir": "/w", "user": "1000:100", "init": true,
            "resources": {"cpu": "500m", "memory": "256Mi", "pids": 200},
            "labels": {"team": "a", "supercargo.example": "theirs"}
        })));
    }

    #[test]
    fn an_empty_list_is_no_list() {
        let document = json!({"image": "busybox", "command": ["true"]});
        let mut spec = parse(&document, &Limits::default()).unwrap();
        (spec.entrypoint, spec.command) = (Some(Vec::new()), Some(Vec::new()));
        let body = convert(&spec);
        assert_eq!((body.entrypoint, body.cmd), (None, None));
    }

    #[test]
    fn a_pull_names_one_tag() {
        for (image, name, tag) in [
            ("busybox", "busybox", Some("latest")),
            ("busybox:1.36", "busybox", Some("1.36")),
            ("r.example:5000/a/b", "r.example:5000/a/b", Some("latest")),
            ("r.example:5000/a/b:2", "r.example:5000/a/b", Some("2")),
            ("a@sha256:00", "a@sha256:00", None),
            ("a:1@sha256:00", "a:1@sha256:00", None),
        ] {
            assert_eq!(pull_reference(image), (name.to_owned(), tag.map(str::to_owned)), "{image}");
        }
    }
}
