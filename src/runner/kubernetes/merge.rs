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
                        keep(it, |field| field == *key || item.get(field).is_some())
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
