//! Pod templates over each other, by the rules of Kubernetes' strategic merge. Pure.
//!
//! Objects are merged field by field, an explicit null takes a field away. Lists of things that have a name of
//! their own (containers, volumes, variables …) are merged item by item: what is there stays where it is, what is
//! new comes behind it, and `{"name": …, "$patch": "delete"}` takes one away. Every other list is replaced.

use serde_json::{Map, Value};

/// What becomes of two items of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    Merged,
    /// It is one of several kinds, each with a field of its own: fields that the patch does not name go.
    KindOfPatch,
    Replaced,
}

/// List → the field that tells its items apart. Wherever in a pod they stand: no other list has these names.
const KEYED: [(&str, &str, Meeting); 10] = [
    ("containers", "name", Meeting::Merged),
    ("initContainers", "name", Meeting::Merged),
    ("volumes", "name", Meeting::KindOfPatch),
    ("env", "name", Meeting::Replaced),
    ("imagePullSecrets", "name", Meeting::Merged),
    ("volumeMounts", "mountPath", Meeting::Merged),
    ("volumeDevices", "devicePath", Meeting::Merged),
    ("ports", "containerPort", Meeting::Merged),
    ("hostAliases", "ip", Meeting::Merged),
    ("topologySpreadConstraints", "topologyKey", Meeting::Merged),
];
/// A list of words, of which each is there once.
const FINALIZERS: &str = "finalizers";
const DIRECTIVE: &str = "$patch";

/// The template without what is said to a merge alone. Everything else stays at its place.
pub(super) fn without_directives(template: &Value) -> Value {
    undirected(template, false)
}

fn undirected(value: &Value, in_keyed: bool) -> Value {
    match value {
        Value::Object(all) => {
            let said = |(name, value): &(&String, &Value)| {
                let directs = in_keyed && *name == DIRECTIVE && **value == *"delete";
                !directs && !value.is_null()
            };
            let of = |(name, value): (&String, &Value)| {
                let keyed = KEYED.iter().any(|it| it.0 == name);
                let value = match value {
                    Value::Array(items) => items.iter().map(|it| undirected(it, keyed)).collect(),
                    other => undirected(other, false),
                };
                (name.clone(), value)
            };
            Value::Object(all.iter().filter(said).map(of).collect())
        }
        Value::Array(items) => items.iter().map(|it| undirected(it, false)).collect(),
        other => other.clone(),
    }
}

/// Puts `patch` over `base`.
pub(super) fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => fields(base, patch),
        (base, patch) => *base = plain("", patch),
    }
}

fn fields(base: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (base.get_mut(name), value) {
            (_, Value::Null) => {
                base.remove(name);
            }
            (Some(Value::Array(base)), Value::Array(patch)) => list(name, base, patch),
            (Some(base), patch) if base.is_object() => merge(base, patch),
            (_, patch) => {
                base.insert(name.clone(), plain(name, patch));
            }
        }
    }
}

fn list(name: &str, base: &mut Vec<Value>, patch: &[Value]) {
    if name == FINALIZERS {
        let new: Vec<&Value> = patch.iter().filter(|it| !base.contains(it)).collect();
        base.extend(new.into_iter().cloned());
        return;
    }
    let Some((_, key, meeting)) = KEYED.iter().find(|(list, ..)| *list == name) else {
        *base = patch.iter().map(|it| plain("", it)).collect();
        return;
    };
    for item in patch {
        let at = base.iter().position(|it| same(key, it, item));
        if is_removal(item) {
            at.map(|at| base.remove(at));
            continue;
        }
        match at.and_then(|at| base.get_mut(at)) {
            None => base.push(plain("", item)),
            Some(it) => {
                match meeting {
                    Meeting::Merged => {}
                    Meeting::KindOfPatch => {
                        keep(it, |field| field == *key || item.get(field).is_some());
                    }
                    Meeting::Replaced => keep(it, |_| false),
                }
                merge(it, item);
            }
        }
    }
}

fn same(key: &str, a: &Value, b: &Value) -> bool {
    // One number may be open over several protocols.
    let protocol = |it: &Value| it["protocol"].as_str().unwrap_or("TCP").to_owned();
    a[key] == b[key] && !a[key].is_null() && (key != "containerPort" || protocol(a) == protocol(b))
}

fn is_removal(item: &Value) -> bool {
    item[DIRECTIVE] == "delete"
}

fn keep(item: &mut Value, wanted: impl Fn(&str) -> bool) {
    if let Value::Object(fields) = item {
        fields.retain(|field, _| wanted(field));
    }
}

/// A patch with nothing below it: what it takes away is not there.
fn plain(name: &str, patch: &Value) -> Value {
    match patch {
        Value::Object(patch) => {
            let mut base = Map::new();
            fields(&mut base, patch);
            Value::Object(base)
        }
        Value::Array(patch) => {
            let mut base = Vec::new();
            list(name, &mut base, patch);
            Value::Array(base)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(base: Value, patch: Value) -> Value {
        let mut base = base;
        merge(&mut base, &patch);
        base
    }

    #[test]
    fn objects_are_merged_and_null_takes_away() {
        for (base, patch, wanted) in [
            (json!({"a": 1}), json!({"b": 2}), json!({"a": 1, "b": 2})),
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"c": 3}}),
                json!({"a": {"b": 1, "c": 3}}),
            ),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null}}), json!({"a": {"c": 2}})),
            (json!({"a": 1}), json!({"a": null, "b": null}), json!({})),
            // What is taken away where nothing is leaves nothing behind.
            (json!({}), json!({"a": {"b": null, "c": [{"d": null}]}}), json!({"a": {"c": [{}]}})),
            (json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": {"b": 1}}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": {"b": 1}}), json!({"a": {}}), json!({"a": {"b": 1}})),
        ] {
            assert_eq!(merged(base.clone(), patch.clone()), wanted, "{patch} over {base}");
        }
    }

    #[test]
    fn lists_of_named_things_are_merged_item_by_item() {
        for (list, base, patch, wanted) in [
            (
                "containers",
                json!([{"name": "a", "image": "x", "tty": true}, {"name": "b"}]),
                json!([{"name": "c"}, {"name": "a", "image": "y", "tty": null}]),
                json!([{"name": "a", "image": "y"}, {"name": "b"}, {"name": "c"}]),
            ),
            (
                "initContainers",
                json!([{"name": "a"}, {"name": "b"}]),
                json!([{"name": "a", "$patch": "delete"}, {"name": "z", "$patch": "delete"}]),
                json!([{"name": "b"}]),
            ),
            (
                "volumes",
                json!([{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "w", "emptyDir": {"medium": "Memory"}}]),
                json!([{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "emptyDir": {"sizeLimit": "1Gi"}}]),
                json!([{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]),
            ),
            (
                "env",
                json!([{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {}}}]),
                json!([{"name": "A", "valueFrom": {"fieldRef": {}}}, {"name": "B", "value": "2"}]),
                json!([{"name": "A", "valueFrom": {"fieldRef": {}}}, {"name": "B", "value": "2"}]),
            ),
            (
                "volumeMounts",
                json!([{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]),
                json!([{"mountPath": "/a", "name": "w", "readOnly": true}, {"mountPath": "/c", "name": "v"}]),
                json!([{"mountPath": "/a", "name": "w", "readOnly": true}, {"mountPath": "/b", "name": "v"}, {"mountPath": "/c", "name": "v"}]),
            ),
            (
                "ports",
                json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]),
                json!([{"containerPort": 53, "protocol": "UDP", "name": "dns"}, {"containerPort": 53, "protocol": "TCP", "name": "tcp"}]),
                json!([{"containerPort": 53, "protocol": "TCP", "name": "tcp"}, {"containerPort": 53, "protocol": "UDP", "name": "dns"}]),
            ),
            (
                "imagePullSecrets",
                json!([{"name": "a"}]),
                json!([{"name": "a"}, {"name": "b"}]),
                json!([{"name": "a"}, {"name": "b"}]),
            ),
            (
                "hostAliases",
                json!([{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]),
                json!([{"ip": "10.0.0.1", "hostnames": ["c"]}, {"ip": "10.0.0.2"}]),
                json!([{"ip": "10.0.0.1", "hostnames": ["c"]}, {"ip": "10.0.0.2"}]),
            ),
            ("finalizers", json!(["a"]), json!(["b", "a"]), json!(["a", "b"])),
            // Replaced: nothing tells their items apart.
            (
                "tolerations",
                json!([{"key": "a"}, {"key": "b"}]),
                json!([{"key": "a", "x": null}]),
                json!([{"key": "a"}]),
            ),
            ("args", json!(["a"]), json!([]), json!([])),
            ("containers", json!([{"name": "a"}]), json!([]), json!([{"name": "a"}])),
            ("containers", json!([{"name": "a"}]), json!(null), json!(null)),
        ] {
            let found = merged(json!({list: base}), json!({list: patch.clone()}));
            assert_eq!(found[list], wanted, "{list}: {patch}");
        }
    }

    #[test]
    fn lists_within_items_follow_the_same_rules() {
        let base = json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}], "args": ["x"]}]});
        let patch = json!({"containers": [{"name": "a", "env": [{"name": "B", "value": "2"}], "args": ["y"]}]});
        let wanted = json!({"containers": [{
            "name": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["y"],
        }]});
        assert_eq!(merged(base, patch), wanted);
        // Also where there is nothing below.
        let twice = json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]});
        let wanted = json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "2"}]}]});
        assert_eq!(merged(json!({}), twice), wanted);
    }
}
