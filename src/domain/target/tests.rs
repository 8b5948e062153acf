use serde_json::{Value, json};

use super::*;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMA==\n-----END EC PRIVATE KEY-----\n";

fn read(document: Value) -> Target {
    parse(&document, None).unwrap_or_else(|it| panic!("{document}: {it:?}"))
}

/// `pointer code: detail`, a line for each fault.
fn faults(document: &Value, before: Option<&Target>) -> String {
    let faults = parse(document, before).unwrap_err();
    faults.iter().map(|it| format!("{} {}: {}\n", it.pointer, it.code, it.detail)).collect()
}

/// One of each way there is.
fn documents() -> Vec<Value> {
    let token = json!({"kind": "kubernetes", "server": "https://10.0.0.1:6443", "token": "s3cret"});
    let with = |more: Value| {
        let mut it = token.clone();
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        it
    };
    vec![
        json!({"kind": "simulated"}),
        json!({"kind": "simulated", "enabled": false, "concurrency": 7, "labels": {"gpu": "yes", "a/b.c-d_e": "1"}}),
        json!({"kind": "docker"}),
        json!({"kind": "docker", "host": "tcp://h:2375"}),
        json!({"kind": "kubernetes", "in_cluster": true, "namespace": "etl", "namespaces": ["a", "b"]}),
        json!({"kind": "kubernetes", "kubeconfig": {}}),
        json!({"kind": "kubernetes", "kubeconfig": {"path": "/etc/k", "context": "prod"}}),
        json!({"kind": "kubernetes", "kubeconfig": {"content": "apiVersion: v1\ns3cret: 1\n"}}),
        token.clone(),
        with(
            json!({"ca": CERTIFICATE, "tls_skip_verify": true, "proxy": "http://u:s3cret@h:3128"}),
        ),
        json!({"kind": "kubernetes", "server": "https://h", "token_file": "/run/token"}),
        json!({"kind": "kubernetes", "server": "https://h", "client_certificate": CERTIFICATE,
               "client_key": KEY.replace("MA==", "s3cret")}),
        with(json!({"impersonate": {"user": "u", "groups": ["g"]}, "pod_security": "restricted",
                    "pod_template": {"spec": {"nodeSelector": {"a": null}}},
                    "collector": {"image": "b:1", "resources": {"cpu": "20m", "memory": "32Mi"}}})),
    ]
}

#[test]
fn a_target_reads_back_as_written_and_as_stored() {
    for document in documents() {
        let target = read(document);
        assert_eq!(read(to_document(&target, false)), target);
        let stored = serde_json::to_value(&target).unwrap();
        assert_eq!(serde_json::from_value::<Target>(stored).unwrap(), target);
    }
}

#[test]
fn secrets_are_never_shown_and_what_is_shown_can_be_put_back() {
    for document in documents() {
        let target = read(document);
        let shown = to_document(&target, true);
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
        assert_eq!(parse(&shown, Some(&target)).unwrap(), target, "{shown}");
        let has_secret = to_document(&target, false) != shown;
        assert_eq!(parse(&shown, None).is_err(), has_secret, "{shown}");
    }
}

#[test]
fn no_debug_form_has_a_secret() {
    for document in documents() {
        let target = read(document);
        let shown = format!("{target:?} {target:#?} {:?}", target.backend);
        assert!(!shown.contains("s3cret"), "{shown}");
        let has_secret = to_document(&target, false) != to_document(&target, true);
        assert_eq!(shown.contains(MASK), has_secret, "{shown}");
    }
}

#[test]
fn stored_credentials_go_nowhere_else() {
    let stored = read(json!({
        "kind": "kubernetes", "server": "https://h", "ca": CERTIFICATE, "token": "s3cret",
        "proxy": "http://u:pw@p:1"}));
    let shown = to_document(&stored, true);
    for (key, value) in [
        ("server", json!("https://evil")),
        ("ca", json!(CERTIFICATE.replace("MA", "MB"))),
        ("tls_skip_verify", json!(true)),
        ("proxy", json!("http://evil:1")),
        ("proxy", Value::Null),
    ] {
        let mut changed = shown.clone();
        changed[key] = value;
        let faults = faults(&changed, Some(&stored));
        assert!(faults.starts_with("/token invalid_value: \"***\" stands for"), "{key}: {faults}");
    }
    let mut moved = shown;
    moved["proxy"] = json!("http://u:***@evil:1");
    assert!(faults(&moved, Some(&stored)).contains("/proxy invalid_value"));
}

#[test]
fn every_fault_is_named_with_its_fix() {
    let kubernetes = |more: Value| {
        let mut it = json!({"kind": "kubernetes"});
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        it
    };
    let all: String = [
        json!([]),
        json!({}),
        json!({"kind": "dokcer", "hots": 1}),
        json!({"kind": "docker", "hots": "x", "namespace": "x"}),
        json!({"kind": "docker", "host": "https://h:2376"}),
        json!({"kind": "docker", "host": "tcp://u:pw@h"}),
        json!({"kind": "simulated", "concurrency": 0, "enabled": "yes",
               "labels": {"": "x", "a=b": "x", "a": "b,c", "l": [], "n": 1}}),
        kubernetes(json!({})),
        kubernetes(json!({"in_cluster": false})),
        kubernetes(json!({"in_cluster": true, "server": "https://h", "token": "t"})),
        kubernetes(json!({"in_cluster": true, "token": "t", "ca": CERTIFICATE})),
        kubernetes(json!({"kubeconfig": {"path": "/a", "content": "x"}})),
        kubernetes(json!({"kubeconfig": {"path": "~/.kube/config", "contxt": "a"}})),
        kubernetes(json!({"kubeconfig": {"content": "***"}})),
        kubernetes(json!({"kubeconfig": {"content": [1]}})),
        kubernetes(json!({"server": "http://h", "token": "t"})),
        kubernetes(json!({"server": "https://u:pw@h", "token": "t"})),
        kubernetes(json!({"in_cluster": true, "proxy": "socks5://u:pw@h:1080"})),
        kubernetes(json!({"server": "https://h"})),
        kubernetes(json!({"server": "https://h", "token": "t", "token_file": "/t"})),
        kubernetes(json!({"server": "https://h", "client_key": "pw"})),
        kubernetes(json!({"server": "https://h", "client_certificate": CERTIFICATE})),
        kubernetes(json!({
            "kubeconfig": {}, "namespace": "A", "proxy": "ftp://u:pw@h", "impersonate": {"groups": [1]},
            "pod_security": "privileged", "pod_template": [], "collector": {"image": "", "resources": {"cpu": "x"}},
        })),
    ]
    .iter()
    .map(|it| faults(it, None) + "\n")
    .collect();
    assert!(!all.contains("pw"), "{all}");
    insta::assert_snapshot!(all);
}

#[test]
fn names_are_short_and_plain() {
    for name in ["a", "prod-eu-1", "1", &"a".repeat(63)] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    for name in ["", "-a", "A", "a_b", "a=b", "a/b", "ä", "simulated", &"a".repeat(64)] {
        assert!(check_name(name).is_err(), "{name}");
    }
}

#[test]
fn a_placement_is_read_back_from_its_text() {
    let labels = |it: &[(&str, &str)]| {
        Placement::Labels(it.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    };
    for (placement, text, json) in [
        (Placement::Named("prod".to_owned()), "prod", json!("prod")),
        (labels(&[("gpu", "yes")]), "gpu=yes", json!({"labels": {"gpu": "yes"}})),
        (
            labels(&[("z", "a"), ("gpu", "yes")]),
            "gpu=yes,z=a",
            json!({"labels": {"gpu": "yes", "z": "a"}}),
        ),
    ] {
        assert_eq!(placement.to_string(), text);
        assert_eq!(Placement::of_text(text), placement);
        assert_eq!(serde_json::to_value(&placement).unwrap(), json);
        assert_eq!(serde_json::from_value::<Placement>(json).unwrap(), placement);
    }
    let mut target = Target::plain(Backend::Simulated);
    assert!(!labels(&[("gpu", "yes")]).matches("a", &target));
    target.labels = [("gpu", "yes"), ("z", "a")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert!(labels(&[("gpu", "yes")]).matches("a", &target));
    assert!(!labels(&[("gpu", "no")]).matches("a", &target));
    assert!(!Placement::Named("b".to_owned()).matches("a", &target));
}
