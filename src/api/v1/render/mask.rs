//! Hides what looks like a secret in an environment. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

const MASK: &str = "***";
/// Parts of names whose values nobody else should read.
const SECRET: [&str; 8] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "KEY", "CREDENTIAL", "AUTH"];

pub(super) fn environment(env: &mut BTreeMap<String, String>) {
    for (name, value) in env.iter_mut() {
        variable(name, value);
    }
}

/// In the containers of a pod: what came of a template was not in the task's environment.
pub(super) fn pod(pod: &mut Value) {
    for kind in ["initContainers", "containers"] {
        let containers = pod.pointer_mut(&format!("/spec/{kind}")).and_then(Value::as_array_mut);
        for it in containers.into_iter().flatten() {
            let env = it.get_mut("env").and_then(Value::as_array_mut);
            for it in env.into_iter().flatten() {
                let name = it["name"].as_str().unwrap_or_default().to_owned();
                if let Some(Value::String(value)) = it.get_mut("value") {
                    variable(&name, value);
                }
            }
        }
    }
}

fn variable(name: &str, value: &mut String) {
    let name = name.to_ascii_uppercase();
    if SECRET.iter().any(|it| name.contains(it)) {
        MASK.clone_into(value);
    } else if let Some(masked) = without_password(value) {
        *value = masked;
    }
}

/// `postgres://user:password@host` without the password.
fn without_password(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, _) = authority.rsplit_once('@')?;
    let (name, _) = user.split_once(':')?;
    let after = rest.get(user.len()..)?;
    Some(format!("{scheme}://{name}:{MASK}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_not() {
        for (name, value, shown) in [
            ("API_TOKEN", "x", MASK),
            ("aws_secret_access_key", "x", MASK),
            ("DbPassword", "", MASK),
            ("DATABASE_URL", "postgres://u:p@ss@h:1/db?x=y@z", "postgres://u:***@h:1/db?x=y@z"),
            ("URL", "https://h/a:b@c", "https://h/a:b@c"),
            ("PROXY", "http://u@h", "http://u@h"),
            ("LANG", "C", "C"),
        ] {
            let mut env = [(name.to_owned(), value.to_owned())].into_iter().collect();
            environment(&mut env);
            assert_eq!(env[name], shown, "{name}");
            let one = serde_json::json!([{"name": "c", "env": [{"name": name, "value": value}]}]);
            let mut manifest =
                serde_json::json!({"spec": {"containers": one, "initContainers": one}});
            pod(&mut manifest);
            for kind in ["containers", "initContainers"] {
                assert_eq!(manifest["spec"][kind][0]["env"][0]["value"], shown, "{name}");
            }
        }
    }

    #[test]
    fn a_reference_is_no_secret() {
        let env =
            serde_json::json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s"}}}]);
        let mut manifest = serde_json::json!({"spec": {"containers": [{"name": "c", "env": env}]}});
        let before = manifest.clone();
        pod(&mut manifest);
        assert_eq!(manifest, before);
    }
}
