//! An idempotency key of the CI job that this runs in.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::usage;
use crate::cli::client::Error;

/// The same for the same task in the same try of the same job. A job that is run again gets another one.
pub(super) fn of_ci(document: &Value) -> Result<String, Error> {
    let env = |name: &str| std::env::var_os(name).and_then(|it| it.into_string().ok());
    make(&env, document).ok_or_else(|| {
        usage(
            "--idempotency-key auto: neither GITHUB_RUN_ID nor CI_JOB_ID is set here, so there is no CI job \
             to make a key of: name one",
        )
    })
}

fn make(env: &dyn Fn(&str) -> Option<String>, document: &Value) -> Option<String> {
    let env = |name: &str| env(name).filter(|it| !it.is_empty());
    let all = |names: &[&str]| names.iter().map(|it| env(it)).collect::<Option<Vec<_>>>();
    let (system, place, job) = if let Some(run) = all(&["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"]) {
        let place = ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_JOB", "GITHUB_ACTION"];
        ("github", place.map(env).to_vec(), run.join("-"))
    } else {
        ("gitlab", vec![env("CI_SERVER_URL")], env("CI_JOB_ID")?)
    };
    let mut hash = Sha256::new();
    for it in place {
        hash.update(it.unwrap_or_default());
        // So that no two lists run together into the same bytes.
        hash.update([0]);
    }
    hash.update(document.to_string());
    let hash: String = hash.finalize().iter().take(12).map(|it| format!("{it:02x}")).collect();
    Some(format!("{system}-{job}-{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GITHUB: [(&str, &str); 4] = [
        ("GITHUB_RUN_ID", "77"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "etl"),
        ("GITHUB_REPOSITORY", "a/b"),
    ];

    fn key(vars: &[(&str, &str)], document: Value) -> Option<String> {
        let env = |name: &str| {
            vars.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned())
        };
        make(&env, &document)
    }

    #[test]
    fn a_key_is_that_of_the_task_in_this_try_of_this_job() {
        let task = || json!({"image": "a"});
        let first = key(&GITHUB, task()).unwrap();
        assert!(first.starts_with("github-77-1-"), "{first}");
        assert_eq!(key(&GITHUB, task()).unwrap(), first);
        let change = |name: &str, value: &'static str| {
            let change = |(it, old)| if it == name { (it, value) } else { (it, old) };
            key(&GITHUB.map(change), task()).unwrap()
        };
        let mut keys = vec![first, key(&GITHUB, json!({"image": "b"})).unwrap()];
        keys.push(change("GITHUB_RUN_ATTEMPT", "2"));
        keys.push(change("GITHUB_JOB", "other"));
        keys.push(change("GITHUB_REPOSITORY", "a/c"));
        keys.push(key(&[("CI_JOB_ID", "5")], task()).unwrap());
        assert!(keys[5].starts_with("gitlab-5-"), "{keys:?}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6, "{keys:?}");
    }

    #[test]
    fn without_a_job_there_is_no_key() {
        assert_eq!(key(&[], json!({})), None);
        assert_eq!(key(&[("GITHUB_RUN_ID", "1")], json!({})), None);
        assert_eq!(key(&[("CI_JOB_ID", "")], json!({})), None);
    }
}
