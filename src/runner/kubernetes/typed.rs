//! From a document to the pod that it says, without dropping anything of it. Pure.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::merge::without_directives;
use crate::domain::spec::Fault;

/// What Kubernetes would not understand of a pod template, with pointers into it. Beside the rules that
/// [`check_template`](crate::domain::spec::check_template) knows.
pub fn check(template: &Value) -> Vec<Fault> {
    typed(without_directives(template)).err().unwrap_or_default()
}

/// The first of them in one line.
pub(super) fn refusal(faults: &[Fault]) -> String {
    let first = faults.first();
    let all = first.map(|it| format!("{}: {}", it.pointer, it.detail)).unwrap_or_default();
    format!("the pod template: {all}")
}

/// The document as what it says. A field that Kubernetes does not know is refused: it would be dropped.
pub(super) fn typed(mut pod: Value) -> Result<Pod, Vec<Fault>> {
    quantities_as_text(&mut pod);
    let typed: Pod = serde_path_to_error::deserialize(&pod).map_err(|error| {
        let pointer = pointer(error.path().iter());
        let field = field(&pointer);
        let why = error.into_inner();
        let detail = format!("{why}: `kubectl explain {field}` says what it takes");
        vec![Fault::new(pointer, "wrong_type", detail)]
    })?;
    let understood = serde_json::to_value(&typed).unwrap_or_default();
    let mut unknown = Vec::new();
    lost(&pod, &understood, "", &mut unknown);
    if unknown.is_empty() {
        return Ok(typed);
    }
    let fault = |it: String| {
        let (parent, name) = it.rsplit_once('/').unwrap_or(("", &it));
        let detail = format!(
            "pods have no field {name:?} there: take it out, or write it as `kubectl explain {}` does",
            field(parent)
        );
        Fault::new(it, "unknown_field", detail)
    };
    Err(unknown.into_iter().map(fault).collect())
}

fn pointer<'a>(path: impl Iterator<Item = &'a Segment>) -> String {
    let one = |it: &Segment| match it {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => format!("/{}", escaped(key)),
        Segment::Unknown => String::new(),
    };
    path.map(one).collect()
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// `/spec/containers/0/image` → `pod.spec.containers.image`.
fn field(pointer: &str) -> String {
    let names = pointer.split('/').skip(1).filter(|it| it.parse::<usize>().is_err());
    names.fold("pod".to_owned(), |path, name| path + "." + name)
}

/// `cpu: 1` is how people write it.
fn quantities_as_text(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("limits" | "requests", Value::Object(amounts)) => {
                        amounts.values_mut().for_each(number_as_text);
                    }
                    ("sizeLimit", value) => number_as_text(value),
                    (_, value) => quantities_as_text(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_as_text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn number_as_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

/// The pointers of what is said and was not understood.
fn lost(said: &Value, understood: &Value, pointer: &str, found: &mut Vec<String>) {
    match (said, understood) {
        (Value::Object(said), Value::Object(understood)) => {
            for (key, value) in said {
                let pointer = format!("{pointer}/{}", escaped(key));
                match understood.get(key) {
                    Some(it) => lost(value, it, &pointer, found),
                    None if value.is_null() => {}
                    None => found.push(pointer),
                }
            }
        }
        (Value::Array(said), Value::Array(understood)) => {
            for (index, (said, understood)) in said.iter().zip(understood).enumerate() {
                lost(said, understood, &format!("{pointer}/{index}"), found);
            }
        }
        (_, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_is_said_is_dropped() {
        for (template, fault) in [
            (
                json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 1}}}]}}),
                None,
            ),
            (json!({"metadata": {"labels": {"a": null, "limits": "x"}}}), None),
            (json!({"spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1024}}]}}), None),
            (
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x"}]}}),
                Some(
                    "/spec/containers/1/imagee pods have no field \"imagee\" there: take it out, or write it as `kubectl explain pod.spec.containers` does",
                ),
            ),
            // What a merge is told is no field, and changes no pointer.
            (
                json!({"spec": {"volumes": [{"name": "v", "$patch": "delete"}, {"name": "w", "x": 1}]}}),
                Some("/spec/volumes/1/x"),
            ),
            (
                json!({"spec": {"tolerations": [{"$patch": "delete"}]}}),
                Some("/spec/tolerations/0/$patch"),
            ),
            (json!({"metadata": {"annotations": {"a/b": 1}}}), Some("/metadata/annotations/a~1b")),
            (json!({"spec": {"nodeSelektor": {}}}), Some("/spec/nodeSelektor")),
            (
                json!({"spec": {"containers": [], "volumes": [{"name": "v", "$patch": "replace"}]}}),
                Some("/spec/volumes/0/$patch"),
            ),
            (
                json!({"spec": {"containers": [], "hostNetwork": "yes"}}),
                Some("/spec/hostNetwork invalid type: string \"yes\", expected a boolean"),
            ),
        ] {
            let found = check(&template);
            let found = found.first().map(|it| format!("{} {}", it.pointer, it.detail));
            match (&found, fault) {
                (None, None) => {}
                (Some(text), Some(fault)) if text.starts_with(fault) => {}
                (found, _) => panic!("{template}: {found:?}, not {fault:?}"),
            }
        }
    }
}
