//! Tasks as what the cluster gets: the snapshots are posted to a real API server by `tests/it/kubernetes`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::convert::{self, Rules};
use super::files;
use crate::domain::spec::capability::SECRET_BYTES;
use crate::domain::spec::{Limits, SpecHash, TaskSpec, parse};
use crate::domain::target::{Collector, KubernetesBackend, PodSecurity};
use crate::ids::AttemptNo;
use crate::runner::{EngineId, LaunchRequest, SandboxKey};

const NONCE: &str = "0a1b2c3d";

fn with_request<T>(spec: &TaskSpec, then: impl FnOnce(&LaunchRequest<'_>) -> T) -> T {
    let id = "01930000-0000-7000-8000-000000000001";
    // In the place of its own, which changes with every field that there will be.
    let spec_hash: SpecHash = serde_json::from_value(json!("0".repeat(32))).unwrap();
    then(&LaunchRequest {
        key: SandboxKey { installation: id.parse().unwrap(), attempt: id.parse().unwrap() },
        run: id.parse().unwrap(),
        task: id.parse().unwrap(),
        attempt_no: AttemptNo::FIRST,
        spec,
        spec_hash: &spec_hash,
        took_over: None,
        engine: &EngineId("E".to_owned()),
    })
}

fn task(document: &Value) -> TaskSpec {
    parse(document, &Limits::default()).unwrap()
}

/// The pod of a task, or why there is none.
fn pod(document: &Value, security: PodSecurity, template: Option<&Value>) -> Result<Value, String> {
    let collector = Collector::default();
    let rules = Rules { security, template, collector: &collector };
    let pod = with_request(&task(document), |it| convert::pod(it, &rules, NONCE));
    pod.map(|it| serde_json::to_value(it).unwrap()).map_err(|it| it.message)
}

/// Everything that is made for a task, in the order in which it is made.
fn documents(document: &Value, security: PodSecurity, template: Option<&Value>) -> String {
    let mut all = vec![pod(document, security, template).unwrap()];
    with_request(&task(document), |it| {
        let uid = "00000000-0000-0000-0000-000000000001";
        let secrets = convert::more_secrets(it, NONCE, uid);
        all.extend(secrets.iter().map(|it| serde_json::to_value(it).unwrap()));
        all.push(serde_json::to_value(convert::gate(it, NONCE, uid)).unwrap());
        for secret in all.iter_mut().skip(1) {
            // The caller's to say, as for the pod.
            secret["metadata"].as_object_mut().unwrap().remove("namespace");
        }
    });
    serde_json::to_string_pretty(&sorted(Value::Array(all))).unwrap()
}

fn baseline(document: &Value) -> String {
    documents(document, PodSecurity::Baseline, None)
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[test]
fn a_rendering_has_no_contents_of_files() {
    let document = json!({"image": "a", "files": [{"path": "/in/a", "content": "hush"}]});
    let target =
        json!({"access": {"by": "in_cluster"}, "pod_template": {"spec": {"nodeName": "n"}}});
    let backend: KubernetesBackend = serde_json::from_value(target).unwrap();
    let (name, pod, secrets) =
        with_request(&task(&document), |it| super::render(it, &backend)).unwrap();
    assert_eq!((&pod["metadata"]["name"], &pod["spec"]["nodeName"]), (&json!(name), &json!("n")));
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0]["stringData"], json!({"attempt": "1", "file-0": "***"}));
    assert_eq!(secrets[0]["data"], Value::Null);
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["spec"]["containers"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap()
}

#[test]
fn the_least_task() {
    insta::assert_snapshot!(baseline(&json!({"image": "busybox", "command": ["true"]})));
}

#[test]
fn everything_that_a_task_can_say() {
    insta::assert_snapshot!(baseline(&json!({
        "name": "count", "image": "r.example/a/b:1", "entrypoint": ["/bin/sh", "-c"], "command": ["wc -w"],
        "env": {"B": "2", "A": "1", "SUPERCARGO_OUTPUT": "/elsewhere", "SUPERCARGO_ATTEMPT": "7"},
        "workdir": "/w", "user": "1000:100", "init": true, "pull_policy": "always",
        "resources": {"cpu": "1.5", "memory": "256Mi"}, "timeouts": {"stop_grace": "2500ms"},
        "files": [{"path": "/in//a.txt", "content": "hello"}, {"path": "/in/run.sh", "content": "#!/bin/sh\n", "mode": "0755"}],
        "outputs": {"last": {"from": "last_line"}}, "labels": {"team": "a"},
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "kubernetes": {"namespace": "etl", "service_account": "default"},
    })));
}

#[test]
fn restricted() {
    let target = json!({"spec": {
        "initContainers": [{"name": "prepare", "image": "busybox", "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}],
        "securityContext": null,
    }});
    let document =
        json!({"image": "busybox", "user": "1000", "outputs": {"r": {"path": "/out/r"}}});
    insta::assert_snapshot!(documents(&document, PodSecurity::Restricted, Some(&target)));
}

#[test]
fn templates_are_merged_below_what_the_task_says() {
    let target = json!({
        "metadata": {"labels": {"team": "platform", "zone": "a"}, "annotations": {"x.example/keep": "1"}, "finalizers": ["x.example/hold"]},
        "spec": {
            "automountServiceAccountToken": true, "nodeSelector": {"disk": "ssd"}, "serviceAccountName": "default",
            "tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "registry"}],
            "initContainers": [{"name": "prepare", "image": "busybox:1", "command": ["true"]}],
            "containers": [
                {"name": "proxy", "image": "proxy:1", "resources": {"limits": {"cpu": 1}}},
                {"name": "main", "image": "lost:1", "imagePullPolicy": "Always", "workingDir": "/lost", "args": ["kept"],
                 "env": [{"name": "A", "value": "lost"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                 "securityContext": {"runAsGroup": 7, "readOnlyRootFilesystem": true},
                 "resources": {"requests": {"memory": "1Gi", "cpu": "100m"}, "limits": {"memory": "2Gi"}}},
            ],
            "volumes": [{"name": "cache", "emptyDir": {"medium": "Memory"}}],
        },
    });
    let document = json!({
        "image": "busybox", "workdir": "/w", "env": {"A": "1", "B": "$(A)"}, "user": "1000",
        "resources": {"memory": "256Mi"}, "labels": {"team": "mine"},
        "kubernetes": {"pod_template": {
            "metadata": {"labels": {"zone": null, "team": "template"}},
            "spec": {
                "securityContext": {"seccompProfile": null, "fsGroup": 7}, "enableServiceLinks": null,
                "nodeSelector": {"disk": null, "gpu": "yes"}, "tolerations": [{"key": "c", "operator": "Exists"}],
                "imagePullSecrets": [{"name": "other"}], "priority": null,
                "containers": [
                    {"name": "main", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]},
                    {"name": "proxy", "image": "proxy:2", "restartPolicy": null},
                    {"name": "side", "image": "side:1", "securityContext": {"allowPrivilegeEscalation": null},
                     "env": [{"name": "SUPERCARGO_ATTEMPT", "value": "lost"}, {"name": "NUMBER", "value": "$(SUPERCARGO_ATTEMPT)"}]},
                ],
                "initContainers": [{"name": "prepare", "$patch": "delete"}, {"name": "fetch", "image": "busybox", "securityContext": {"privileged": true}}],
                "volumes": [{"name": "cache", "configMap": {"name": "c"}}],
            },
        }},
    });
    insta::assert_snapshot!(documents(&document, PodSecurity::Baseline, Some(&target)));
}

#[test]
fn a_collector_shares_the_folders_of_outputs() {
    insta::assert_snapshot!(baseline(&json!({
        "image": "busybox", "user": "1000:1000", "timeouts": {"run": "1h"},
        "files": [{"path": "/out/in.txt", "content": "x"}],
        "outputs": {
            "a": {"path": "/out/a"}, "b": {"path": "/out/deep/b/"}, "c": {"path": "/job/x/c"}, "d": {"path": "/data/d"}, "e": {},
        },
        "kubernetes": {"pod_template": {"spec": {
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/else", "subPath": "e"}]}],
        }}},
    })));
}

#[test]
fn a_collector_is_there_where_a_termination_message_will_not_do() {
    for (outputs, needed) in [
        (json!({}), false),
        (json!({"a": {"from": "last_line"}, "b": {"from": "all_lines"}}), false),
        (json!({"a": {}}), true),
        (json!({"a": {"path": "/out/a"}}), true),
    ] {
        let document = json!({"image": "a", "outputs": outputs});
        assert_eq!(convert::needs_collector(&task(&document)), needed, "{document}");
        let pod = pod(&document, PodSecurity::Baseline, None).unwrap();
        let containers = pod["spec"]["containers"].as_array().unwrap().len();
        assert_eq!(containers, if needed { 2 } else { 1 });
        let path = container(&pod, "main")["terminationMessagePath"].as_str();
        assert_eq!(path, (!needed).then_some("/supercargo/output.json"));
    }
}

#[test]
fn a_collector_can_read_what_the_task_wrote() {
    let of_pod = |context: Value| Some(json!({"spec": {"securityContext": context}}));
    for (user, template, wanted) in [
        (None, None, json!([0, null])),
        (Some("1000:7"), None, json!([1000, 7])),
        (None, of_pod(json!({"runAsUser": 5, "runAsGroup": 6})), json!([5, 6])),
        (Some("1000"), of_pod(json!({"runAsUser": 5})), json!([1000, null])),
        (None, of_pod(json!({"runAsNonRoot": true})), json!([65_534, null])),
    ] {
        let mut document = json!({"image": "a", "outputs": {"a": {}}});
        if let Some(user) = user {
            document["user"] = json!(user);
        }
        let pod = pod(&document, PodSecurity::Baseline, template.as_ref()).unwrap();
        let context = &container(&pod, "supercargo-collector")["securityContext"];
        let found = json!([context["runAsUser"], context["runAsGroup"]]);
        assert_eq!(found, wanted, "{user:?} over {template:?}");
    }
}

#[test]
fn labels_that_kubernetes_does_not_take_are_kept_beside() {
    insta::assert_snapshot!(baseline(&json!({"image": "busybox", "labels": {
        "team": "a", "empty": "", "example.com/x": "1.0_b-c", "spaces": "a b", "Ünicode": "x", "long": "x".repeat(64), "end-": "x",
        "a/b/c": "x", "/x": "x", "x/": "x", "UPPER.example/x": "x", "kubernetes.io/x": "x", "node.k8s.io/x": "x",
        "supercargo.dev/task": "forged", "supercargo.dev/more": "x", "n": 7,
    }})));
}

#[test]
fn a_text_means_the_same_as_on_every_other_backend() {
    insta::assert_snapshot!(baseline(&json!({
        "image": "busybox", "entrypoint": ["sh", "-c"], "command": ["echo $(date) $HOME $$ $$(A) $ ${A}", "$(A)"],
        "env": {"A": "1", "B": "$(A)", "C": "$$(A)", "D": "$A $"},
        "kubernetes": {"pod_template": {"spec": {"containers": [{"name": "main", "env": [{"name": "T", "value": "$(A)"}]}]}}},
    })));
}

#[test]
fn an_escaped_text_is_the_text_again() {
    // As the kubelet does it (`expansion.Expand`), with every variable known.
    let expand = |text: &str| {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                (out, rest) = (out + "$", after);
            } else if let Some((_, after)) =
                rest.strip_prefix('(').and_then(|it| it.split_once(')'))
            {
                (out, rest) = (out + "EXPANDED", after);
            } else {
                out.push('$');
            }
        }
        out + rest
    };
    assert_eq!(expand("$(A) $$(A)"), "EXPANDED $(A)");
    for text in
        ["", "$", "$$", "$$$", "$(A)", "$$(A)", "$$$(A)", "$(", "a$b$$c$(d)$", "$()", "ä$(ö)"]
    {
        assert_eq!(expand(&convert::escaped(text)), text);
    }
}

#[test]
fn an_empty_list_is_no_list() {
    let document = json!({"image": "busybox", "entrypoint": [], "command": []});
    let pod = pod(&document, PodSecurity::Baseline, None).unwrap();
    let main = container(&pod, "main");
    assert_eq!((&main["command"], &main["args"]), (&Value::Null, &Value::Null));
}

#[test]
fn files_are_spread_over_as_many_secrets_as_they_need() {
    let of = |sizes: &[usize]| {
        let files: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(at, size)| json!({"path": format!("/in/{at}"), "content": "x".repeat(*size)}))
            .collect();
        task(&json!({"image": "a", "files": files}))
    };
    let half = SECRET_BYTES / 2;
    for (sizes, wanted) in [
        (vec![], vec![0]),
        (vec![SECRET_BYTES, 0, 1], vec![2, 1]),
        (vec![half, half, half, half, 1], vec![2, 2, 1]),
        (vec![1, SECRET_BYTES, 1], vec![1, 1, 1]),
    ] {
        let spec = of(&sizes);
        with_request(&spec, |it| {
            let gate = convert::gate(it, NONCE, "u");
            assert!(gate.data.as_ref().unwrap().contains_key(files::ATTEMPT_KEY));
            let held = |it: &k8s_openapi::api::core::v1::Secret| {
                it.data.iter().flatten().filter(|(key, _)| key.starts_with("file-")).count()
            };
            let mut found = vec![held(&gate)];
            found.extend(convert::more_secrets(it, NONCE, "u").iter().map(held));
            assert_eq!(found, wanted, "{sizes:?}");
        });
        let pod = pod(&json!({"image": "a"}), PodSecurity::Baseline, None).unwrap();
        assert_eq!(pod["spec"]["volumes"], Value::Null, "without files no volume");
        with_request(&spec, |it| {
            let collector = Collector::default();
            let rules =
                Rules { security: PodSecurity::Baseline, template: None, collector: &collector };
            let pod = serde_json::to_value(convert::pod(it, &rules, NONCE).unwrap()).unwrap();
            let secrets = pod
                .pointer("/spec/volumes/0/projected/sources")
                .map(|it| it.as_array().unwrap().len());
            assert_eq!(secrets, (!sizes.is_empty()).then_some(wanted.len()));
        });
    }
}

#[test]
fn what_can_not_be_honoured_is_refused_and_not_dropped() {
    let good = json!({"image": "a", "user": "7"});
    let named = |template: Value| json!({"image": "a", "user": "7", "kubernetes": {"pod_template": template}});
    for (document, security, template, text) in [
        (json!({"image": "a", "user": "www"}), PodSecurity::Baseline, None, "/user"),
        (
            json!({"image": "a", "resources": {"pids": 5}}),
            PodSecurity::Baseline,
            None,
            "/resources/pids",
        ),
        (json!({"image": "a"}), PodSecurity::Restricted, None, "/user"),
        (
            named(json!({"spec": {"nodeSelektor": {}}})),
            PodSecurity::Baseline,
            None,
            "/spec/nodeSelektor",
        ),
        (
            named(json!({"spec": {"hostNetwork": "yes"}})),
            PodSecurity::Baseline,
            None,
            "/spec/hostNetwork: invalid type",
        ),
        (
            named(json!({"spec": {"containers": [{"name": "main", "securityContext": 3}]}})),
            PodSecurity::Restricted,
            None,
            "/spec/containers/0/securityContext: invalid type",
        ),
        (
            good.clone(),
            PodSecurity::Restricted,
            Some(json!({"spec": {"hostNetwork": true}})),
            "/spec/hostNetwork",
        ),
        (good, PodSecurity::Baseline, Some(json!({"spec": 3, "metadata": []})), ": invalid type"),
    ] {
        let found = pod(&document, security, template.as_ref()).unwrap_err();
        assert!(found.contains(text), "{document}: {found}");
    }
}

#[test]
fn nothing_but_names_depends_on_the_attempt() {
    let pod = |nonce: &str| {
        let spec = task(
            &json!({"image": "a", "files": [{"path": "/a", "content": ""}], "outputs": {"a": {}}}),
        );
        let collector = Collector::default();
        let rules =
            Rules { security: PodSecurity::Baseline, template: None, collector: &collector };
        let pod = with_request(&spec, |it| convert::pod(it, &rules, nonce)).unwrap();
        serde_json::to_string(&pod).unwrap()
    };
    assert_eq!(pod("aaaaaaaa").replace("aaaaaaaa", "bbbbbbbb"), pod("bbbbbbbb"));
    // The gate of every container, its volume, and the annotation.
    assert_eq!(pod("aaaaaaaa").matches("aaaaaaaa").count(), 4);
}
