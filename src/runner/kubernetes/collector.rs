//! The container that hands files out of a pod, where the task declares outputs that need one. Pure.
//!
//! It shares the folders of the outputs with the main container and waits to be told that everything is
//! collected. It ends by itself too, so that a pod ends also where nobody comes.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::convert::{COLLECTOR, MAIN, escaped, needs_collector};
use crate::domain::quantity::{format_bytes, format_cpu_millis};
use crate::domain::spec::capability::{output_directory, plain_path, within};
use crate::domain::spec::{OUTPUT_DIR, OutputSource, TaskSpec};
use crate::domain::target::Collector;

/// The file that ends it.
pub(super) const COLLECTED: &str = "/supercargo/.collected";
/// Of a task that may run as long as it takes.
const LONGEST_RUN: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The user of a collector that may not be root, where nothing says who else it could be.
const NOBODY: i64 = 65_534;

/// The collector, and the folders that it shares. `pod` has everything else.
pub(super) fn layer(spec: &TaskSpec, rules: &Collector, pod: &Value) -> Value {
    if !needs_collector(spec) {
        return json!({});
    }
    let main = container(pod, MAIN);
    let theirs: Vec<&Value> =
        main["volumeMounts"].as_array().into_iter().flatten().filter(|it| !it.is_null()).collect();
    let folders = folders(spec);
    // Where a template has mounted a volume of its own, that is the one to share.
    let is_theirs = |folder: &String| theirs.iter().any(|it| within(folder, &mount_path(it)));
    let own: Vec<&String> = folders.iter().filter(|it| !is_theirs(it)).collect();
    let volume = |at: usize| format!("supercargo-output-{at}");
    let mounts: Vec<_> = own
        .iter()
        .enumerate()
        .map(|(at, folder)| json!({"name": volume(at), "mountPath": folder}))
        .collect();
    let volumes: Vec<_> =
        (0..own.len()).map(|at| json!({"name": volume(at), "emptyDir": {}})).collect();
    let mut shared = mounts.clone();
    for it in theirs {
        let path = mount_path(it);
        if folders.iter().any(|folder| within(folder, &path) || within(&path, folder)) {
            let mut it = it.clone();
            it["readOnly"] = json!(true);
            shared.push(it);
        }
    }
    json!({"spec": {
        "volumes": volumes,
        "containers": [
            {"name": MAIN, "volumeMounts": mounts},
            {
                "name": COLLECTOR,
                "image": rules.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", escaped(&script(longest(spec)))],
                "resources": resources(rules),
                "securityContext": security_context(main, &pod["spec"]["securityContext"]),
                "volumeMounts": shared,
            },
        ],
    }})
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let containers = pod["spec"]["containers"].as_array();
    containers.into_iter().flatten().find(|it| it["name"] == name).unwrap_or(&Value::Null)
}

fn mount_path(mount: &Value) -> String {
    plain_path(mount["mountPath"].as_str().unwrap_or_default())
}

/// Ours, and the one around each output that is named by its path. One within another is the other.
fn folders(spec: &TaskSpec) -> Vec<String> {
    let mut all = vec![OUTPUT_DIR.to_owned()];
    for output in spec.outputs.values() {
        if let OutputSource::Path(path) = &output.source {
            all.extend(output_directory(path));
        }
    }
    all.sort();
    let mut folders: Vec<String> = Vec::new();
    for it in all {
        if !folders.iter().any(|folder| within(&it, folder)) {
            folders.push(it);
        }
    }
    folders
}

/// How long it may take from its start until everything is collected: the main container may start after it.
fn longest(spec: &TaskSpec) -> i64 {
    let it = &spec.timeouts;
    let run = it.run.unwrap_or(LONGEST_RUN);
    [it.pull, it.start, run, it.stop_grace, it.finish]
        .into_iter()
        .fold(0, |sum: i64, it| sum.saturating_add(it.as_secs()).saturating_add(1))
}

/// A `sleep` in the foreground would hold a TERM up.
fn script(seconds: i64) -> String {
    format!(
        "trap 'exit 0' TERM INT; n=0; while [ ! -e {COLLECTED} ] && [ $n -lt {seconds} ]; do sleep 1 & wait $!; n=$((n+1)); done"
    )
}

fn resources(rules: &Collector) -> Value {
    let memory = format_bytes(rules.memory_bytes);
    // It reserves what waiting takes, and may use more while it hands something out. Quotas want a limit.
    json!({
        "requests": {"cpu": format_cpu_millis(rules.cpu_millis), "memory": memory},
        "limits": {"cpu": format_cpu_millis(rules.cpu_millis.saturating_mul(10)), "memory": memory},
    })
}

/// The user of the main container, who can read what it wrote; root, where that is the image's to say.
fn security_context(main: &Value, of_pod: &Value) -> Value {
    let main = &main["securityContext"];
    let said = |key: &str| [main, of_pod].into_iter().map(|it| &it[key]).find(|it| !it.is_null());
    let user = said("runAsUser").and_then(Value::as_i64);
    let not_root = said("runAsNonRoot").is_some_and(|it| it == true);
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "runAsUser": user.unwrap_or(if not_root { NOBODY } else { 0 }),
    });
    if let Some(group) = said("runAsGroup") {
        context["runAsGroup"] = group.clone();
    }
    context
}
