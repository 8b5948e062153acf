//! What a task says to Kubernetes alone, and the rules of a pod template.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::capability::{plain_path, within};
use super::reader::escape;
use super::{Fault, Limits, OUTPUT_DIR, ObjectReader};

/// The name of the container that is the task. In a template it stands for the same one.
pub const MAIN_CONTAINER: &str = "main";
/// The name of the container that hands files out.
pub const COLLECTOR_CONTAINER: &str = "supercargo-collector";
/// Before the names of our labels, annotations and finalizers.
pub const OWN_PREFIX: &str = "supercargo.dev/";
/// Before the names of our volumes.
const OWN_VOLUMES: &str = "supercargo-";
/// Of a template as JSON. The engine's own limit for a whole pod is little more than a megabyte.
const TEMPLATE_BYTES: usize = 256 << 10;

/// The block `kubernetes` of a task document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KubernetesOptions {
    /// None: that of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its token is mounted, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// A `Pod` without what is ours to say, merged between the target's template and the portable fields.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "in_the_order_of_keys"
    )]
    pub pod_template: Option<Value>,
    /// The block must count: a target of another kind is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// Otherwise the identity of a spec would hang on the order in which a database hands out keys.
#[expect(clippy::ref_option, reason = "serde's `serialize_with` hands it so")]
fn in_the_order_of_keys<S: Serializer>(it: &Option<Value>, s: S) -> Result<S::Ok, S::Error> {
    it.as_ref().map(sorted).serialize(s)
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            let fields = fields.into_iter().map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

pub(super) fn read_kubernetes(it: &mut ObjectReader<'_>, limits: &Limits) -> KubernetesOptions {
    let namespace = it.text("namespace").map(str::to_owned);
    if namespace.as_deref().is_some_and(|it| !is_dns_label(it)) {
        let namespace = namespace.as_deref().unwrap_or_default();
        it.fault(
            "namespace",
            "invalid_value",
            format!("{namespace:?} can't name a namespace: {DNS_LABEL}"),
        );
    }
    let service_account = it.text("service_account").map(str::to_owned);
    if service_account.as_deref().is_some_and(|it| !is_dns_subdomain(it)) {
        let account = service_account.as_deref().unwrap_or_default();
        it.fault(
            "service_account",
            "invalid_value",
            format!(
                "{account:?} can't name a service account: use lower-case letters, digits, \"-\" and \".\""
            ),
        );
    }
    let pod_template = it.value("pod_template").cloned();
    if let Some(template) = &pod_template {
        let pointer = it.pointer("pod_template");
        let before = it.faults().len();
        check_template(template, &pointer, it.faults());
        // What is no template has no fields.
        if it.faults().len() == before {
            it.faults().extend(limits.check_template(template, &pointer));
        }
    }
    let strict = it.bool("strict").unwrap_or(false);
    KubernetesOptions { namespace, service_account, pod_template, strict }
}

const DNS_LABEL: &str =
    "use 1 to 63 lower-case letters, digits and \"-\", with a letter or digit at both ends";

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_word(text)
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_word)
}

fn is_dns_word(text: &str) -> bool {
    let inside = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let ends = text.starts_with('-') || text.ends_with('-');
    !text.is_empty() && text.bytes().all(inside) && !ends
}

/// Reports what a template of a task or of a target may not say: what is no template, and what is ours to
/// say. `pointer` is where it stands in its document.
pub fn check_template(template: &Value, pointer: &str, faults: &mut Vec<Fault>) {
    let mut check = Check { faults };
    let Some(fields) = check.object(template, pointer) else { return };
    if template.to_string().len() > TEMPLATE_BYTES {
        check.fault(
            pointer,
            "too_large",
            format!("the template has more than {} KiB", TEMPLATE_BYTES >> 10),
        );
        return;
    }
    for (key, value) in fields {
        let at = format!("{pointer}/{}", escape(key));
        match key.as_str() {
            "apiVersion" => check.word(value, &at, "v1"),
            "kind" => check.word(value, &at, "Pod"),
            "metadata" => check.metadata(value, &at),
            "spec" => check.spec(value, &at),
            _ => check.fault(
                &at,
                "unknown_field",
                format!("unknown field {key:?}: a pod template has \"metadata\" and \"spec\""),
            ),
        }
    }
}

struct Check<'a> {
    faults: &'a mut Vec<Fault>,
}

/// Of the pod: (field, what says it instead).
const OURS: [(&str, &str); 7] = [
    ("name", "each attempt has a name of its own"),
    ("generateName", "each attempt has a name of its own"),
    ("namespace", "say it with \"kubernetes.namespace\""),
    ("ownerReferences", "a pod is removed by this service, and by nobody else"),
    ("activeDeadlineSeconds", "say it with \"timeouts.run\""),
    ("terminationGracePeriodSeconds", "say it with \"timeouts.stop_grace\""),
    ("ephemeralContainers", "a new pod has none"),
];
/// Of the main container: where `$SUPERCARGO_OUTPUT` is read from.
const OURS_OF_MAIN: [&str; 2] = ["terminationMessagePath", "terminationMessagePolicy"];

impl Check<'_> {
    fn fault(&mut self, pointer: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.push(Fault::new(pointer, code, detail));
    }

    fn wrong(&mut self, pointer: &str, wanted: &str) {
        let what = pointer.rsplit('/').next().unwrap_or_default();
        self.fault(pointer, "wrong_type", format!("{what:?} must be {wanted}"));
    }

    fn object<'a>(&mut self, value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
        let it = value.as_object();
        if it.is_none() {
            self.wrong(pointer, "an object");
        }
        it
    }

    fn word(&mut self, value: &Value, pointer: &str, wanted: &str) {
        if value != wanted {
            self.fault(pointer, "invalid_value", format!("a pod template is of {wanted:?}"));
        }
    }

    fn ours(&mut self, fields: &Map<String, Value>, pointer: &str) {
        for (key, instead) in OURS {
            if fields.get(key).is_some_and(|it| !it.is_null()) {
                let at = format!("{pointer}/{key}");
                self.fault(&at, "conflict", format!("a template can't say {key:?}: {instead}"));
            }
        }
    }

    fn metadata(&mut self, value: &Value, pointer: &str) {
        let Some(fields) = self.object(value, pointer) else { return };
        self.ours(fields, pointer);
        for kind in ["labels", "annotations"] {
            let Some(map) = fields.get(kind).filter(|it| !it.is_null()) else { continue };
            let at = format!("{pointer}/{kind}");
            for (key, value) in self.object(map, &at).into_iter().flatten() {
                let at = format!("{at}/{}", escape(key));
                self.own_name(key, &at);
                if !value.is_string() && !value.is_null() {
                    self.wrong(&at, "a string, or null to take it away");
                }
            }
        }
        let finalizers = fields.get("finalizers").and_then(Value::as_array);
        for (index, name) in finalizers.into_iter().flatten().enumerate() {
            let at = format!("{pointer}/finalizers/{index}");
            self.own_name(name.as_str().unwrap_or_default(), &at);
        }
    }

    fn own_name(&mut self, name: &str, pointer: &str) {
        if name.starts_with(OWN_PREFIX) {
            self.fault(
                pointer,
                "conflict",
                format!("names that begin with {OWN_PREFIX:?} are ours"),
            );
        }
    }

    fn spec(&mut self, value: &Value, pointer: &str) {
        let Some(fields) = self.object(value, pointer) else { return };
        self.ours(fields, pointer);
        if let Some(policy) = fields.get("restartPolicy")
            && policy != "Never"
        {
            self.fault(
                &format!("{pointer}/restartPolicy"),
                "conflict",
                "a pod runs once (\"Never\"): say how often a task is tried again with \"retries\"",
            );
        }
        if fields.get("containers").is_some_and(Value::is_null) {
            self.main_stays(&format!("{pointer}/containers"));
        }
        let mut names = Vec::new();
        for kind in ["containers", "initContainers"] {
            self.named(fields, kind, pointer, |check, name, it, at| {
                check.container(kind, name, it, at, &names);
                names.push(name.to_owned());
            });
        }
        self.named(fields, "volumes", pointer, |check, name, _, at| {
            if name.starts_with(OWN_VOLUMES) {
                let detail = format!("volumes that begin with {OWN_VOLUMES:?} are ours");
                check.fault(&format!("{at}/name"), "conflict", detail);
            }
        });
    }

    /// The items of a list whose items have names. The name is what they are merged by.
    fn named(
        &mut self,
        fields: &Map<String, Value>,
        kind: &str,
        pointer: &str,
        mut each: impl FnMut(&mut Self, &str, &Map<String, Value>, &str),
    ) {
        let Some(value) = fields.get(kind).filter(|it| !it.is_null()) else { return };
        let pointer = format!("{pointer}/{kind}");
        let Some(items) = value.as_array() else { return self.wrong(&pointer, "a list") };
        for (index, item) in items.iter().enumerate() {
            let at = format!("{pointer}/{index}");
            let Some(item) = self.object(item, &at) else { continue };
            match item.get("name").and_then(Value::as_str).filter(|it| is_dns_label(it)) {
                Some(name) => each(self, name, item, &at),
                None => self.fault(
                    &format!("{at}/name"),
                    "required",
                    format!("each of {kind:?} needs a \"name\": {DNS_LABEL}"),
                ),
            }
        }
    }

    fn container(
        &mut self,
        kind: &str,
        name: &str,
        fields: &Map<String, Value>,
        pointer: &str,
        others: &[String],
    ) {
        let at = format!("{pointer}/name");
        if others.iter().any(|it| it == name) {
            self.fault(&at, "duplicate", format!("there is a container {name:?} before it"));
        }
        if name == COLLECTOR_CONTAINER || (name == MAIN_CONTAINER && kind == "initContainers") {
            self.fault(&at, "conflict", format!("the name {name:?} is ours: take another one"));
        }
        for key in OURS_OF_MAIN.into_iter().filter(|_| name == MAIN_CONTAINER) {
            if fields.get(key).is_some_and(|it| !it.is_null()) {
                let detail = format!(
                    "a template can't say {key:?} of the main container: outputs are read by it"
                );
                self.fault(&format!("{pointer}/{key}"), "conflict", detail);
            }
        }
        if name == MAIN_CONTAINER && fields.contains_key("$patch") {
            self.main_stays(pointer);
        }
        let mounts = fields.get("volumeMounts").and_then(Value::as_array);
        for (index, mount) in mounts.into_iter().flatten().enumerate() {
            let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            if name == MAIN_CONTAINER && within(&plain_path(path), OUTPUT_DIR) {
                let at = format!("{pointer}/volumeMounts/{index}/mountPath");
                self.fault(&at, "conflict", format!("the folder {OUTPUT_DIR} is ours"));
            }
        }
    }

    fn main_stays(&mut self, pointer: &str) {
        self.fault(pointer, "conflict", "the main container is the task: it can't be left out");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::spec::{Limits, TaskSpec, parse};

    use super::*;

    fn read(block: Value) -> Result<TaskSpec, String> {
        parse(&json!({"image": "a", "kubernetes": block}), &Limits::default()).map_err(|faults| {
            faults.iter().map(|it| format!("{} {}: {}\n", it.pointer, it.code, it.detail)).collect()
        })
    }

    #[test]
    fn what_is_ours_to_say_is_refused_with_what_says_it_instead() {
        let faults = read(json!({
                "namespace": "Etl", "service_account": "a_b", "strict": 1, "pod": {},
                "pod_template": {
                    "apiVersion": "v2", "kind": "Job", "status": {},
                    "metadata": {
                        "name": "x", "generateName": "x", "namespace": "x", "ownerReferences": [],
                        "labels": {"supercargo.dev/task": "x", "n": 1, "fine": "x", "gone": null}, "annotations": {"supercargo.dev/gate": null},
                        "finalizers": ["supercargo.dev/account", "fine.example/x"],
                    },
                    "spec": {
                        "restartPolicy": "OnFailure", "activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 60, "ephemeralContainers": [],
                        "volumes": [{"name": "supercargo-files"}, {}, {"name": "fine"}],
                        "containers": [
                            {"name": "main", "terminationMessagePath": "/x", "terminationMessagePolicy": "FallbackToLogsOnError",
                             "volumeMounts": [{"name": "fine", "mountPath": "//supercargo/x"}, {"name": "fine", "mountPath": "/supercargo2"}]},
                            {"name": "main", "$patch": "delete"}, {"image": "x"}, {"name": "supercargo-collector"}, {"name": "Side"}, 3,
                        ],
                        "initContainers": [{"name": "main"}, {"name": "fine"}],
                    },
                },
            })).unwrap_err();
        insta::assert_snapshot!(faults);
    }

    #[test]
    fn a_template_is_an_object_of_objects() {
        for (template, fault) in [
            (json!([]), "/kubernetes/pod_template wrong_type"),
            (json!({"spec": []}), "/kubernetes/pod_template/spec wrong_type"),
            (json!({"metadata": null}), "/kubernetes/pod_template/metadata wrong_type"),
            (
                json!({"metadata": {"labels": []}}),
                "/kubernetes/pod_template/metadata/labels wrong_type",
            ),
            (
                json!({"spec": {"containers": {}}}),
                "/kubernetes/pod_template/spec/containers wrong_type",
            ),
            (
                json!({"spec": {"containers": null}}),
                "/kubernetes/pod_template/spec/containers conflict",
            ),
            (
                json!({"spec": {"restartPolicy": null}}),
                "/kubernetes/pod_template/spec/restartPolicy conflict",
            ),
            (json!({"spec": {"x": "y".repeat(300 << 10)}}), "/kubernetes/pod_template too_large"),
        ] {
            let found = read(json!({"pod_template": template})).unwrap_err();
            assert!(found.starts_with(fault), "{found}");
        }
        let fine = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"labels": null, "name": null},
            "spec": {"restartPolicy": "Never", "initContainers": null, "volumes": [{"name": "v", "$patch": "delete"}]},
        });
        assert!(read(json!({"pod_template": fine})).is_ok());
    }

    #[test]
    fn a_spec_that_says_nothing_of_it_is_stored_as_before() {
        let spec = read(json!({})).unwrap();
        assert_eq!(spec.kubernetes, None);
        let stored = serde_json::to_value(&spec).unwrap();
        assert_eq!((stored.get("kubernetes"), stored["timeouts"].get("schedule")), (None, None));
        let back: TaskSpec = serde_json::from_value(stored).unwrap();
        assert_eq!(back, spec);
    }

    #[test]
    fn the_identity_does_not_hang_on_the_order_of_keys() {
        let of = |text: &str| read(serde_json::from_str(text).unwrap()).unwrap();
        let one = of(
            r#"{"pod_template": {"spec": {"nodeSelector": {"a": "1", "b": "2"}, "priority": 1}}}"#,
        );
        let other = of(
            r#"{"pod_template": {"spec": {"priority": 1, "nodeSelector": {"b": "2", "a": "1"}}}}"#,
        );
        assert_eq!(one.hash(), other.hash());
        let third = of(r#"{"pod_template": {"spec": {"priority": 2}}}"#);
        assert_ne!(one.hash(), third.hash());
    }
}
