//! From a document to the pod that it says, without dropping anything of it. Pure.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::merge::merge;

/// What Kubernetes would not understand of a pod template. Beside the rules that
/// [`check_template`](crate::domain::spec::check_template) knows.
pub fn check(template: &Value) -> Result<(), String> {
    let mut pod = json!({});
    merge(&mut pod, template);
    typed(pod).map(|_| ())
}

/// The document as what it says. A field that Kubernetes does not know is refused: it would be dropped.
pub(super) fn typed(mut pod: Value) -> Result<Pod, String> {
    quantities_as_text(&mut pod);
    let typed: Pod = serde_json::from_value(pod.clone())
        .map_err(|it| format!("the pod template is not one of a pod: {it}"))?;
    let understood = serde_json::to_value(&typed).unwrap_or_default();
    let mut unknown = Vec::new();
    lost(&pod, &understood, "", &mut unknown);
    if unknown.is_empty() {
        return Ok(typed);
    }
    Err(format!("the pod template has unknown fields: {}", unknown.join(", ")))
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
                let pointer = format!("{pointer}/{key}");
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
                Some("/spec/containers/1/imagee"),
            ),
            (json!({"spec": {"nodeSelektor": {}}}), Some("/spec/nodeSelektor")),
            (
                json!({"spec": {"containers": [], "volumes": [{"name": "v", "$patch": "replace"}]}}),
                Some("/spec/volumes/0/$patch"),
            ),
            (json!({"spec": {"containers": [], "hostNetwork": "yes"}}), Some("not one of a pod")),
        ] {
            match (check(&template), fault) {
                (Ok(()), None) => {}
                (Err(text), Some(fault)) if text.contains(fault) => {}
                (found, _) => panic!("{template}: {found:?}"),
            }
        }
    }
}
