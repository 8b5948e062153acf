//! From what is stored back to the document that says it.

use std::collections::BTreeMap;

use base64::Engine as _;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{Cleanup, InputFile, OutputDecl, OutputSource, PullPolicy, Retries, TaskSpec};
use crate::domain::quantity::{format_bytes, format_cpu_millis, format_duration};

/// The document that reads as this spec, with every default filled in.
pub fn to_document(spec: &TaskSpec) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty() && key != "command" && key != "entrypoint",
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        if !empty {
            document.insert(key.to_owned(), value);
        }
    };
    put("name", json!(spec.name));
    put("image", json!(spec.image));
    put("entrypoint", json!(spec.entrypoint));
    put("command", json!(spec.command));
    put("env", json!(spec.env));
    put("files", spec.files.iter().map(file).collect());
    put("workdir", json!(spec.workdir));
    put("user", json!(spec.user));
    let resources = &spec.resources;
    put(
        "resources",
        present([
            ("cpu", resources.cpu_millis.map(|it| json!(format_cpu_millis(it)))),
            ("memory", resources.memory_bytes.map(|it| json!(format_bytes(it)))),
            ("pids", resources.pids.map(|it| json!(it))),
        ]),
    );
    put("init", json!(spec.init));
    put("target", json!(spec.target));
    put("pull_policy", json!(pull_policy(spec.pull_policy)));
    let timeouts = &spec.timeouts;
    put(
        "timeouts",
        present([
            ("queue", timeouts.queue.map(duration)),
            ("schedule", Some(duration(timeouts.schedule))),
            ("pull", Some(duration(timeouts.pull))),
            ("start", Some(duration(timeouts.start))),
            ("run", timeouts.run.map(duration)),
            ("stop_grace", Some(duration(timeouts.stop_grace))),
            ("finish", Some(duration(timeouts.finish))),
        ]),
    );
    put("retries", retries(&spec.retries));
    put("platform_retries", json!(spec.platform_retries));
    put("skip_on_exit_codes", json!(spec.skip_on_exit_codes));
    put("at_most_once", json!(spec.at_most_once));
    put("outputs", outputs(&spec.outputs));
    put("labels", json!(spec.labels));
    put("priority", json!(spec.priority));
    put("cleanup", json!(cleanup(spec.cleanup)));
    let trace = spec.trace.as_ref();
    put("traceparent", json!(trace.map(|it| &it.parent)));
    put("tracestate", json!(trace.and_then(|it| it.state.as_ref())));
    put("kubernetes", json!(spec.kubernetes));
    Value::Object(document)
}

fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn duration(it: SignedDuration) -> Value {
    Value::String(format_duration(it))
}

fn file(it: &InputFile) -> Value {
    let mode = format!("{:04o}", it.mode);
    if let Ok(text) = std::str::from_utf8(&it.content) {
        json!({"path": it.path, "content": text, "mode": mode})
    } else {
        let encoded = base64::engine::general_purpose::STANDARD.encode(&it.content);
        json!({"path": it.path, "content_base64": encoded, "mode": mode})
    }
}

fn retries(it: &Retries) -> Value {
    let mut fields = json!({
        "max": it.max,
        "backoff": {"initial": duration(it.backoff_initial), "max": duration(it.backoff_max)},
        "on_unconfirmed": it.on_unconfirmed,
    });
    if !it.on_exit_codes.is_empty() {
        fields["on_exit_codes"] = json!(it.on_exit_codes);
    }
    fields
}

fn outputs(outputs: &BTreeMap<String, OutputDecl>) -> Value {
    let one = |(name, it): (&String, &OutputDecl)| {
        let source = match &it.source {
            OutputSource::Json => None,
            OutputSource::LastLine => Some(("from", json!("last_line"))),
            OutputSource::AllLines => Some(("from", json!("all_lines"))),
            OutputSource::Path(path) => Some(("path", json!(path))),
        };
        let mut fields = json!({"required": it.required});
        if let Some((key, value)) = source {
            fields[key] = value;
        }
        (name.clone(), fields)
    };
    outputs.iter().map(one).collect()
}

const fn pull_policy(it: PullPolicy) -> &'static str {
    match it {
        PullPolicy::Always => "always",
        PullPolicy::IfNotPresent => "if_not_present",
        PullPolicy::Never => "never",
    }
}

const fn cleanup(it: Cleanup) -> &'static str {
    match it {
        Cleanup::Always => "always",
        Cleanup::OnSuccess => "on_success",
        Cleanup::Never => "never",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::domain::spec::{Limits, parse};
    use crate::domain::target::{Access, Backend, KubernetesBackend, Target};

    #[test]
    fn the_document_of_a_spec_reads_as_that_spec() {
        let mut limits = Limits::default();
        let mut zoned = Target::plain(Backend::Simulated);
        zoned.labels.insert("zone".to_owned(), "a".to_owned());
        let cluster = KubernetesBackend::over(Access::InCluster);
        let cluster = Target::plain(Backend::Kubernetes(Box::new(cluster)));
        Arc::make_mut(&mut limits.targets)
            .extend([("zoned".to_owned(), zoned), ("prod".to_owned(), cluster)]);
        for document in [
            json!({"image": "a"}),
            json!({"image": "a", "command": [], "entrypoint": []}),
            json!({
                "name": "all", "image": "a:1", "entrypoint": "sh -c", "command": ["x y"], "args": ["z"],
                "env": {"A": "1", "B": "x y"}, "workdir": "/w", "user": "1000:1000",
                "files": [{"path": "/f", "content": "a\u{0}ä", "mode": "0755"}, {"path": "/g", "content_base64": "/wAB"}],
                "resources": {"cpu": "1.5", "memory": "1.5Gi", "pids": 10}, "init": true, "target": "simulated",
                "pull_policy": "never", "timeouts": {"queue": "1h", "schedule": "1h", "run": "90s", "stop_grace": "250ms"},
                "kubernetes": {"namespace": "etl", "service_account": "a", "pod_template": {"spec": {
                    "nodeSelector": {"z": "1", "a": null}, "containers": [{"name": "side", "image": "s"}]}}},
                "retries": {"max": 2, "backoff": {"initial": "2s", "max": "1h"}, "on_exit_codes": [75, 3], "on_unconfirmed": true},
                "platform_retries": 0, "skip_on_exit_codes": [99], "at_most_once": true,
                "outputs": {"j": {}, "l": {"from": "last_line", "required": true}, "a": {"from": "all_lines"}, "p": {"path": "/p"}},
                "labels": {"team": "a"}, "priority": -5, "cleanup": "on_success",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1,b=2",
            }),
            json!({"image": "a", "resources": {"memory": "500000001"}}),
            json!({"image": "a", "kubernetes": {}}),
            json!({"image": "a", "target": "prod", "kubernetes": {"strict": true}}),
            json!({"image": "a", "target": {"labels": {"zone": "a"}}}),
        ] {
            let spec = parse(&document, &limits).unwrap();
            let written = to_document(&spec);
            assert_eq!(parse(&written, &limits).unwrap(), spec, "{written}");
        }
    }
}
