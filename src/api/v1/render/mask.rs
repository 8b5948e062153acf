//! Hides what looks like a secret in an environment. Pure.

use std::collections::BTreeMap;

const MASK: &str = "***";
/// Parts of names whose values nobody else should read.
const SECRET: [&str; 8] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "KEY", "CREDENTIAL", "AUTH"];

pub(super) fn environment(env: &mut BTreeMap<String, String>) {
    for (name, value) in env.iter_mut() {
        let name = name.to_ascii_uppercase();
        if SECRET.iter().any(|it| name.contains(it)) {
            MASK.clone_into(value);
        } else if let Some(masked) = without_password(value) {
            *value = masked;
        }
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
        }
    }
}
