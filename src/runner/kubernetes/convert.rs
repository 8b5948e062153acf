//! From a launch request to the pod and the Secret that starts it. Pure.
//!
//! Layers, each merged over the one before ([`merge`]): our defaults, the target's pod template, the service
//! account, the task's pod template, the portable fields of the task, and what is ours alone. A portable field
//! that is left at its default has its default in the first layer, so that a template may say otherwise.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, Pod, SeccompProfile, SecretKeySelector, SecurityContext,
};
use serde_json::{Map, Value, json};

use super::merge::merge;
use super::{collector, files, typed};
use crate::domain::failure::{Failure, Reason};
use crate::domain::quantity::{format_bytes, format_cpu_millis};
use crate::domain::spec::capability::{self, numeric_user};
use crate::domain::spec::{
    COLLECTOR_CONTAINER, KubernetesOptions, MAIN_CONTAINER, OWN_PREFIX, OutputSource, PullPolicy,
    TaskSpec, pod_security,
};
use crate::domain::target::{Collector, KubernetesBackend, PodSecurity};
use crate::runner::{LaunchRequest, naming};

pub(super) use super::files::{gate, gate_name, more_secrets};

/// On a pod: the random part of the name of the Secret whose creation starts it.
pub(super) const GATE_ANNOTATION: &str = "supercargo.dev/gate";
/// Holds a pod until it is accounted for, whoever deletes it.
pub(super) const FINALIZER: &str = "supercargo.dev/account";
/// The labels of the task that Kubernetes does not take as such, as a JSON object.
const LABELS_ANNOTATION: &str = "supercargo.dev/labels";
pub(super) const MAIN: &str = MAIN_CONTAINER;
pub(super) const COLLECTOR: &str = COLLECTOR_CONTAINER;
const ATTEMPT: &str = "SUPERCARGO_ATTEMPT";
/// How long a node may be out of reach before its pods are put out.
const UNREACHABLE_SECONDS: i64 = 300;

/// What a target says about all its pods.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) security: PodSecurity,
    pub(super) template: Option<&'a Value>,
    pub(super) collector: &'a Collector,
}

impl<'a> Rules<'a> {
    pub(super) fn of(backend: &'a KubernetesBackend) -> Self {
        Self {
            security: backend.pod_security,
            template: backend.pod_template.as_ref(),
            collector: &backend.collector,
        }
    }
}

/// Whether more has to come out of the pod than the kubelet hands on by itself: a termination message is cut
/// at 4,096 bytes.
pub(super) fn needs_collector(spec: &TaskSpec) -> bool {
    spec.outputs.values().any(|it| matches!(it.source, OutputSource::Json | OutputSource::Path(_)))
}

/// The pod of an attempt. `nonce`: 8 hex digits, new for each create.
pub(super) fn pod(
    request: &LaunchRequest<'_>,
    rules: &Rules<'_>,
    nonce: &str,
) -> Result<Pod, Failure> {
    let spec = request.spec;
    // Checked at the submit. The target may have changed since.
    let faults = capability::pod_faults(spec, "Kubernetes", rules.security, rules.template);
    if !faults.is_empty() {
        let texts: Vec<_> =
            faults.iter().map(|it| format!("{}: {}", it.pointer, it.detail)).collect();
        return Err(refused(texts.join("; ")));
    }
    let options = spec.kubernetes.as_ref();
    let template = options.and_then(|it| it.pod_template.as_ref());
    for it in [rules.template, template].into_iter().flatten() {
        let faults = typed::check(it);
        if !faults.is_empty() {
            return Err(refused(typed::refusal(&faults)));
        }
    }
    let mut pod = defaults(&[rules.template, template]);
    let layers = [rules.template.cloned(), options.map(account), template.cloned()];
    for layer in layers.iter().flatten() {
        merge(&mut pod, layer);
    }
    merge(&mut pod, &portable(request, nonce));
    // Folders before the files in them.
    let collector = collector::layer(spec, rules.collector, &pod);
    merge(&mut pod, &collector);
    merge(&mut pod, &files::layer(request, nonce));
    let pod = typed::typed(pod).map_err(|it| refused(typed::refusal(&it)))?;
    let gate = gate_name(&naming::sandbox_name(&request.key), nonce);
    settle(pod, rules.security, &gate, &naming::environment(request))
}

fn refused(message: impl Into<String>) -> Failure {
    Failure::new(Reason::CreateConfigError, message)
}

/// What holds where nobody says otherwise, for every container that a template names, too.
fn defaults(templates: &[Option<&Value>]) -> Value {
    let named = |kind: &str| {
        let mut names: Vec<&str> = Vec::new();
        for it in templates.iter().flatten() {
            let items = it.pointer(&format!("/spec/{kind}")).and_then(Value::as_array);
            for name in items.into_iter().flatten().filter_map(|it| it["name"].as_str()) {
                if !names.contains(&name) && name != MAIN {
                    names.push(name);
                }
            }
        }
        let one = |it| json!({"name": it, "securityContext": {"allowPrivilegeEscalation": false}});
        names.into_iter().map(one).collect::<Vec<_>>()
    };
    let mut containers = vec![json!({
        "name": MAIN,
        "imagePullPolicy": pull_policy(PullPolicy::default()),
        "securityContext": {"allowPrivilegeEscalation": false},
    })];
    containers.extend(named("containers"));
    // As long as clusters wait by themselves, where nobody has turned that off: a node that does not answer for
    // a moment ends nothing.
    let tolerations = ["not-ready", "unreachable"].map(|it| {
        json!({
            "key": format!("node.kubernetes.io/{it}"),
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": UNREACHABLE_SECONDS,
        })
    });
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "tolerations": tolerations,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": containers,
        },
    });
    let init = named("initContainers");
    if !init.is_empty() {
        pod["spec"]["initContainers"] = Value::Array(init);
    }
    pod
}

fn account(options: &KubernetesOptions) -> Value {
    match &options.service_account {
        Some(name) => json!({
            "spec": {"serviceAccountName": name, "automountServiceAccountToken": true}
        }),
        None => json!({}),
    }
}

const fn pull_policy(it: PullPolicy) -> &'static str {
    match it {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    }
}

fn portable(request: &LaunchRequest<'_>, nonce: &str) -> Value {
    let spec = request.spec;
    let mut pod = json!({
        "metadata": metadata(request, nonce),
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": whole_seconds(spec.timeouts.stop_grace),
            "containers": [main(request)],
        },
    });
    if spec.init {
        // The first process of the pod is then one that reaps, and the command is not the first.
        pod["spec"]["shareProcessNamespace"] = json!(true);
    }
    pod
}

fn whole_seconds(it: SignedDuration) -> i64 {
    it.as_secs().saturating_add(i64::from(it.subsec_nanos() > 0)).max(0)
}

fn metadata(request: &LaunchRequest<'_>, nonce: &str) -> Value {
    let (mut labels, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        request.spec.labels.clone().into_iter().partition(|(key, value)| is_label(key, value));
    labels.extend(naming::labels(request));
    let mut metadata = json!({
        "name": naming::sandbox_name(&request.key),
        "labels": labels,
        "annotations": {GATE_ANNOTATION: nonce},
        "finalizers": [FINALIZER],
    });
    if !others.is_empty() {
        metadata["annotations"][LABELS_ANNOTATION] = json!(json!(others).to_string());
    }
    if let Some(namespace) = request.spec.kubernetes.as_ref().and_then(|it| it.namespace.as_ref()) {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// Whether Kubernetes takes it as a label, and it is the task's to give.
fn is_label(key: &str, value: &str) -> bool {
    let word = |it: &str| {
        let inside = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
        let end = |it: Option<u8>| it.is_some_and(|it| it.is_ascii_alphanumeric());
        it.len() <= 63 && it.bytes().all(inside) && end(it.bytes().next()) && end(it.bytes().last())
    };
    let domain = |it: &str| {
        let part = |it: &str| {
            let inside = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
            !it.is_empty() && it.bytes().all(inside) && !it.starts_with('-') && !it.ends_with('-')
        };
        let theirs = |it: &str, of: &str| it == of || it.ends_with(&format!(".{of}"));
        it.len() <= 253
            && it.split('.').all(part)
            && !theirs(it, "kubernetes.io")
            && !theirs(it, "k8s.io")
    };
    let named = match key.split_once('/') {
        Some((prefix, name)) => domain(prefix) && word(name) && !key.starts_with(OWN_PREFIX),
        None => word(key),
    };
    named && (value.is_empty() || word(value))
}

fn main(request: &LaunchRequest<'_>) -> Value {
    let spec = request.spec;
    let mut main = Map::new();
    let mut put = |key: &str, value: Value| main.insert(key.to_owned(), value);
    put("name", json!(MAIN));
    put("image", json!(spec.image));
    // An empty list means what no list means, as on every other backend.
    for (key, words) in [("command", &spec.entrypoint), ("args", &spec.command)] {
        if let Some(words) = words.as_ref().filter(|it| !it.is_empty()) {
            put(key, words.iter().map(|it| json!(escaped(it))).collect());
        }
    }
    let env = naming::environment(request).into_iter().filter(|(name, _)| name != ATTEMPT);
    put("env", env.map(|(name, it)| json!({"name": name, "value": escaped(&it)})).collect());
    if let Some(workdir) = &spec.workdir {
        put("workingDir", json!(workdir));
    }
    if spec.pull_policy != PullPolicy::default() {
        put("imagePullPolicy", json!(pull_policy(spec.pull_policy)));
    }
    if let Some((user, group)) = spec.user.as_deref().and_then(numeric_user) {
        let mut context = json!({"runAsUser": user});
        if let Some(group) = group {
            context["runAsGroup"] = json!(group);
        }
        put("securityContext", context);
    }
    let resources = resources(spec);
    if !resources.is_empty() {
        // What may be used is what is reserved, as a task that says how much it needs is to have it: on Docker
        // nothing else is in its way either.
        put("resources", json!({"limits": resources, "requests": resources}));
    }
    if !needs_collector(spec) {
        put("terminationMessagePath", json!(naming::OUTPUT_FILE));
        put("terminationMessagePolicy", json!("File"));
    }
    Value::Object(main)
}

fn resources(spec: &TaskSpec) -> Map<String, Value> {
    let cpu = spec.resources.cpu_millis.map(format_cpu_millis);
    let memory = spec.resources.memory_bytes.map(format_bytes);
    [("cpu", cpu), ("memory", memory)]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
        .collect()
}

/// Kubernetes puts variables in the place of `$(NAME)` and takes `$$` for `$`. This says the same text to it.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(it) = rest.next() {
        escaped.push(it);
        if it == '$' && matches!(rest.peek(), Some('$' | '(')) {
            escaped.push('$');
        }
    }
    escaped
}

/// What no template can change: the gate before every container, and the rules of the target.
fn settle(
    mut pod: Pod,
    security: PodSecurity,
    gate: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Pod, Failure> {
    let restricted = security == PodSecurity::Restricted;
    if restricted {
        check_restricted(&pod)?;
    }
    let spec = pod.spec.get_or_insert_default();
    if restricted {
        let context = spec.security_context.get_or_insert_default();
        context.run_as_non_root = Some(true);
        context.seccomp_profile.get_or_insert_with(|| SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        });
    }
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let context = container.security_context.get_or_insert_default();
        if restricted {
            context.allow_privilege_escalation = Some(false);
            context.run_as_non_root = Some(true);
            let capabilities = context.capabilities.get_or_insert_default();
            capabilities.drop = Some(vec!["ALL".to_owned()]);
        } else if gains_privileges(context) {
            // The API server refuses a container that may gain privileges and may not.
            context.allow_privilege_escalation = None;
        }
        let env = container.env.get_or_insert_default();
        env.retain(|it| it.name != ATTEMPT);
        // What a template says may refer to what is before it.
        env.sort_by_key(|it| container.name == MAIN && !environment.contains_key(&it.name));
        env.insert(0, attempt_variable(gate));
    }
    Ok(pod)
}

fn attempt_variable(gate: &str) -> EnvVar {
    let key = SecretKeySelector {
        name: gate.to_owned(),
        key: files::ATTEMPT_KEY.to_owned(),
        optional: None,
    };
    let source = EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() };
    EnvVar { name: ATTEMPT.to_owned(), value_from: Some(source), value: None }
}

fn check_restricted(pod: &Pod) -> Result<(), Failure> {
    let found = pod_security::violations(&serde_json::to_value(pod).unwrap_or_default());
    if found.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = found.iter().map(|(at, it)| format!("allowed at {at} is {it}")).collect();
    Err(refused(format!(
        "the pod_security of the target is restricted, and the pod template says otherwise: {}",
        texts.join("; ")
    )))
}

fn gains_privileges(context: &SecurityContext) -> bool {
    let added = context.capabilities.as_ref().and_then(|it| it.add.as_ref());
    let admin = |it: &String| it == "SYS_ADMIN" || it == "CAP_SYS_ADMIN";
    context.privileged == Some(true) || added.is_some_and(|it| it.iter().any(admin))
}
