//! The ways to a cluster: each leads to it, what is wrong with one is told, and credentials are read again when they
//! are not taken any more, and shown to nobody.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::scene::{PATIENCE, Scene, task};
use crate::support::cluster::{Account, Cluster, client_certificate, other_ca};
use crate::support::tunnel::Tunnel;
use crate::support::until;

const PASSWORD: &str = "hunter2-of-the-proxy";
/// The same, as it goes over the wire.
const BASIC: &str = "Basic dXNlcjpodW50ZXIyLW9mLXRoZS1wcm94eQ==";
/// Nobody listens there.
const NOBODY: &str = "https://127.0.0.1:9";

/// All that tasks need.
fn rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods"],
            "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "get", "delete"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
    ])
}

/// Of a target, with what it is reached by on top.
fn document(scene: &Scene, way: &Value) -> Value {
    let mut it = json!({"kind": "kubernetes", "namespace": scene.namespace});
    it.as_object_mut().unwrap().extend(way.as_object().unwrap().clone());
    it
}

async fn put(scene: &Scene, name: &str, way: &Value) -> String {
    let path = format!("/targets/{name}");
    let answer = scene.service.request("PUT", &path, Some(&document(scene, way))).await;
    assert!([200, 201].contains(&answer.status), "{way:#}: {}", answer.text());
    answer.text()
}

async fn check(scene: &Scene, name: &str) -> Value {
    let answer = scene.service.request("POST", &format!("/targets/{name}/check"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn warns(check: &Value, of: &str) -> bool {
    check["warnings"].as_array().unwrap().iter().any(|it| it.as_str().unwrap().contains(of))
}

/// The log of the service.
fn log(scene: &Scene) -> String {
    std::fs::read_to_string(scene.service.data_dir().join("service.log")).unwrap()
}

/// A plugin of this script. It is shown how often it ran by the lines of the file.
fn plugin(folder: &Path, script: &str) -> (Value, PathBuf) {
    let (file, runs) = (folder.join("plugin"), folder.join("runs"));
    let text = format!("#!/bin/sh\necho ran >> {}\n{script}\n", runs.display());
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&runs, "").unwrap();
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": file.to_str().unwrap(), "env": [{"name": "PLUGIN_SECRET", "value": PASSWORD}]});
    (json!({"exec": exec}), runs)
}

/// Prints the token of a file, with what there is beside it.
fn printing(token: &Path, beside: &str) -> String {
    format!(
        "printf '{{\"apiVersion\": \"client.authentication.k8s.io/v1beta1\", \"kind\": \"ExecCredential\", \
         \"status\": {{\"token\": \"%s\"{beside}}}}}' \"$(cat {})\"",
        token.display()
    )
}

fn runs(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap().lines().count()
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// A kubeconfig of two contexts, of which the first leads nowhere and is the current one.
fn two_contexts(cluster: &Cluster, token: &str) -> Value {
    let mut it = cluster.kubeconfig(&cluster.server(), json!({"token": token}));
    it["clusters"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "away", "cluster": {"server": NOBODY}}));
    it["contexts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "away", "context": {"cluster": "away", "user": "it"}}));
    it["current-context"] = json!("away");
    it
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_leads_to_the_cluster_and_no_credential_is_shown() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(
        cluster.clone(),
        &[("SUPERCARGO__TELEMETRY__LOG", "debug,kube_client=debug,hyper=debug,rustls=debug")],
    )
    .await;
    let account = cluster.account(&scene.namespace, "all", rules()).await;
    let token = account.token("first").await;
    let files = Files::new();
    let (server, ca) = (cluster.server(), cluster.ca());
    let tunnel = Tunnel::start(BASIC).await;
    let plain = cluster.kubeconfig(&server, json!({"token": token}));
    let path = files.write("kubeconfig", &plain.to_string());
    // As `echo` writes it.
    let token_file = files.write("token", &format!("{token}\n"));
    let (exec, _) = plugin(files.folder.path(), &printing(&token_file, ""));
    let by_token = |more: Value| {
        let mut it = json!({"server": server, "token": token});
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        it
    };
    let mut ways = vec![
        ("path", json!({"kubeconfig": {"path": path}})),
        ("content", json!({"kubeconfig": {"content": plain.to_string()}})),
        ("object", json!({"kubeconfig": {"content": plain}})),
        (
            "context",
            json!({"kubeconfig": {"content": two_contexts(&cluster, &token), "context": "it"}}),
        ),
        ("plugin", json!({"kubeconfig": {"content": cluster.kubeconfig(&server, exec)}})),
        ("token", by_token(json!({"ca": ca}))),
        ("token-file", json!({"server": server, "ca": ca, "token_file": token_file})),
        ("unverified", by_token(json!({"ca": other_ca(), "tls_skip_verify": true}))),
        (
            "proxy",
            by_token(json!({"ca": ca,
                "proxy": format!("http://user:{PASSWORD}@{}", tunnel.address())})),
        ),
        ("socks", by_token(json!({"ca": ca, "proxy": format!("socks5://{}", tunnel.address())}))),
    ];
    let mut secrets = vec![token.clone(), PASSWORD.to_owned(), BASIC[6..].to_owned()];
    if let Some((certificate, key)) = client_certificate("/CN=by-certificate/O=system:masters") {
        secrets.extend(key.lines().filter(|it| !it.starts_with("---")).map(str::to_owned));
        let way = json!({"server": server, "ca": ca, "client_certificate": certificate, "client_key": key});
        ways.push(("certificate", way));
    }
    let mut shown = String::new();
    for (name, way) in &ways {
        shown += &put(&scene, name, way).await;
    }
    let engine = check(&scene, "cluster").await["engine"].clone();
    let mut tasks = Vec::new();
    for (name, _) in &ways {
        let found = check(&scene, name).await;
        assert_eq!(
            (&found["reachable"], &found["why"]),
            (&json!(true), &Value::Null),
            "{name}: {found:#}"
        );
        assert_eq!(found["permissions"]["missing"], json!([]), "{name}: {found:#}");
        // An account that may not look who the cluster is tells it by its address.
        let may_look = ["certificate"].contains(name);
        assert_eq!(found["engine"] == engine, may_look, "{name}: {found:#}");
        assert_eq!(warns(&found, "tls_skip_verify"), *name == "unverified", "{name}: {found:#}");
        shown += &found.to_string();
        let task = task(&format!("echo by {name}"), json!({"target": name}));
        tasks.push((name, scene.service.submit(task).await));
    }
    for (name, id) in &tasks {
        let ended = scene.ended(id).await;
        assert_eq!(ended["state"], "succeeded", "{name}: {ended:#}");
        assert_eq!(scene.service.log(id).await, format!("by {name}\n"));
        shown += &ended.to_string();
        shown += &scene.service.request("GET", &format!("/tasks/{id}/events"), None).await.text();
    }
    let (host, _) = server.trim_start_matches("https://").split_once(':').unwrap();
    let asked = tunnel.asked();
    for it in
        [format!("CONNECT {}", server.trim_start_matches("https://")), format!("socks5 {host}")]
    {
        assert!(asked.iter().any(|line| line.starts_with(&it)), "{it}: {asked:?}");
    }

    shown += &scene.service.request("GET", "/targets", None).await.text();
    for (name, _) in &ways {
        shown += &scene.service.request("GET", &format!("/targets/{name}"), None).await.text();
    }
    for args in [&["targets", "--output", "json"][..], &["targets", "get", "token"]] {
        let output = scene.service.cli(args).output().unwrap();
        shown += &String::from_utf8_lossy(&output.stdout);
        shown += &String::from_utf8_lossy(&output.stderr);
    }
    let log = log(&scene);
    assert!(log.contains("DEBUG"), "the log says little");
    assert!(log.contains("tls_skip_verify: whoever answers there"), "the log warns of nobody");
    for secret in &secrets {
        assert!(!shown.contains(secret.as_str()), "an answer shows {secret}");
        let line = log.lines().find(|it| it.contains(secret.as_str()));
        assert_eq!(line, None, "the log shows {secret}");
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_way_is_told_so_that_it_can_be_mended() {
    let Some(cluster) = Cluster::find().await else { return };
    let mut scene = Scene::start(cluster.clone(), &[]).await;
    let account = cluster.account(&scene.namespace, "all", rules()).await;
    let token = account.token("first").await;
    let files = Files::new();
    let (server, ca) = (cluster.server(), cluster.ca());
    let tunnel = Tunnel::start(BASIC).await;
    let hanging = files.folder.path().join("pid");
    let hangs = format!("echo $$ > {}; exec sleep 600", hanging.display());
    let by_plugin = |name: &str, script: &str| {
        let folder = files.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let user = plugin(&folder, script).0;
        json!({"kubeconfig": {"content": cluster.kubeconfig(&server, user)}})
    };
    let content = |it: &str| json!({"kubeconfig": {"content": it}});
    let by_token = |more: Value| {
        let mut it = json!({"server": server, "ca": ca, "token": token});
        it.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        it
    };
    let no_command = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "/no/such"}});
    let garbage = format!("clusters: [\ntoken: {token}\n");
    let cases = [
        ("ca", by_token(json!({"ca": other_ca()})), &["is not by the authority in \"ca\""][..]),
        ("token", by_token(json!({"token": format!("{token}x")})), &["401", "give new ones"]),
        ("host", by_token(json!({"server": NOBODY})), &[NOBODY, "refused"]),
        (
            "name",
            by_token(json!({"server": "https://no-such-host.invalid:6443"})),
            &["no-such-host.invalid"],
        ),
        (
            "proxy",
            by_token(json!({"proxy": "http://127.0.0.1:9"})),
            &["by the proxy http://127.0.0.1:9", "refused"],
        ),
        (
            "password",
            by_token(json!({"proxy": format!("http://user:wrong@{}", tunnel.address())})),
            &["by the proxy http://user:***@", "authorization required"],
        ),
        (
            "file",
            json!({"kubeconfig": {"path": "/no/such/kubeconfig"}}),
            &["/no/such/kubeconfig", "No such file"],
        ),
        (
            "token-file",
            json!({"server": server, "ca": ca, "token_file": "/no/such/token"}),
            &["/no/such/token", "No such file"],
        ),
        ("yaml", content(&garbage), &["it does not read as a kubeconfig, line"]),
        (
            "context",
            json!({"kubeconfig": {"content": two_contexts(&cluster, &token), "context": "prod"}}),
            &["prod", "its contexts are: it, away"],
        ),
        (
            "no-plugin",
            json!({"kubeconfig": {"content": cluster.kubeconfig(&server, no_command)}}),
            &["the exec plugin of the kubeconfig can't be started: No such file"],
        ),
        (
            "failing",
            by_plugin("failing", &format!("echo '{PASSWORD}'; echo 'log in first' >&2; exit 3")),
            &["the exec plugin of the kubeconfig failed (exit status: 3): log in first"],
        ),
        (
            "silly",
            by_plugin("silly", &format!("echo 'status: [{PASSWORD}'")),
            &["printed something else than an ExecCredential"],
        ),
        (
            "hanging",
            by_plugin("hanging", &hangs),
            &["does the exec plugin of the kubeconfig hang?"],
        ),
    ];
    for (name, way, _) in &cases {
        put(&scene, name, way).await;
    }
    let mut found = String::new();
    for (name, _, expected) in &cases {
        let check = check(&scene, name).await;
        assert_eq!(check["reachable"], false, "{name}: {check:#}");
        let why = check["why"].as_str().unwrap_or_default();
        found += &format!("{name}: {why}\n");
        for part in *expected {
            assert!(why.contains(part), "{name}: {part:?} is not in {why:?}\n{found}");
        }
    }
    // It is asked once, however often it is waited for.
    assert_eq!(runs(&files.folder.path().join("hanging/runs")), 1);
    let all = found + &log(&scene);
    for secret in [PASSWORD, token.as_str(), "wrong@"] {
        let line = all.lines().find(|it| it.contains(secret));
        assert_eq!(line, None, "shown: {secret}");
    }
    // Nobody waits for it at the end, either.
    let began = std::time::Instant::now();
    assert!(scene.service.stop().success());
    assert!(began.elapsed() < crate::support::PATIENCE, "{:?}", began.elapsed());
    let pid = std::fs::read_to_string(hanging).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_may_not_do_is_named() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster.clone(), &[]).await;
    let few = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "get"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]},
    ]);
    let account = cluster.account(&scene.namespace, "few", few).await;
    let none = cluster.account(&scene.namespace, "none", json!([])).await;
    let token = account.token("first").await;
    let missing = |check: &Value| -> Vec<String> {
        let all = check["permissions"]["missing"].as_array().unwrap();
        let of = |it: &Value| {
            format!("{} {}", it["verb"].as_str().unwrap(), it["resource"].as_str().unwrap())
        };
        assert!(all.iter().all(|it| it["namespace"] == scene.namespace), "{check:#}");
        all.iter().map(of).collect()
    };
    let lacks = [
        "delete pods",
        "delete secrets",
        "get pods/log",
        "get pods/exec",
        "list events",
        "watch events",
    ];
    let direct = json!({"server": cluster.server(), "ca": cluster.ca(), "token": token});
    put(&scene, "direct", &direct).await;
    let found = check(&scene, "direct").await;
    assert_eq!(
        (&found["reachable"], missing(&found)),
        (&json!(true), lacks.map(str::to_owned).to_vec()),
        "{found:#}"
    );
    assert!(warns(&found, "kube-system") && warns(&found, "nodes"), "{found:#}");

    // The administrator as somebody else: it is their permissions that count.
    let path = std::env::var("KUBECONFIG").unwrap();
    let as_user = |user: &str, groups: &[&str]| json!({"kubeconfig": {"path": path}, "impersonate": {"user": user, "groups": groups}});
    put(&scene, "as-user", &as_user(&account.user(), &[])).await;
    let found = check(&scene, "as-user").await;
    assert_eq!(
        (&found["reachable"], missing(&found)),
        (&json!(true), lacks.map(str::to_owned).to_vec()),
        "{found:#}"
    );
    put(&scene, "as-group", &as_user("somebody", &["system:masters", "others"])).await;
    let found = check(&scene, "as-group").await;
    assert_eq!((&found["reachable"], missing(&found)), (&json!(true), Vec::new()), "{found:#}");
    let id = scene.service.submit(task("echo as another", json!({"target": "as-group"}))).await;
    assert_eq!(scene.ended(&id).await["state"], "succeeded");

    // Who may list nothing can't say how a pod is; who may not be somebody else is told so.
    put(&scene, "as-nobody", &as_user(&none.user(), &[])).await;
    let found = check(&scene, "as-nobody").await;
    assert_eq!(found["reachable"], false, "{found:#}");
    assert!(
        found["why"].as_str().unwrap().contains("the pods can't be listed: pods is forbidden"),
        "{found:#}"
    );
    assert!(missing(&found).contains(&"list pods".to_owned()), "{found:#}");
    let mut forbidden = direct.clone();
    forbidden["impersonate"] = json!({"user": "somebody"});
    put(&scene, "forbidden", &forbidden).await;
    let found = check(&scene, "forbidden").await;
    assert!(found["why"].as_str().unwrap().contains("cannot impersonate"), "{found:#}");
    scene.close().await;
}

/// Counts to thirty, for some seconds.
const COUNTS: &str = "for i in $(seq 30); do echo line $i; sleep 0.5; done";

fn counted() -> String {
    (1..=30).map(|it| format!("line {it}\n")).collect()
}

async fn until_it_counts(scene: &Scene, id: &str) {
    until("it writes", PATIENCE, async || {
        scene.service.log(id).await.contains("line 2\n").then_some(())
    })
    .await;
}

async fn has_counted(scene: &Scene, id: &str) {
    let ended = scene.ended(id).await;
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("succeeded"), &json!(1)), "{ended:#}");
    assert_eq!(scene.service.log(id).await, counted());
}

/// Exchanges the token under a running service, and waits until the old one is worth nothing.
async fn exchange(cluster: &Cluster, account: &Account, file: &Path) {
    let old = account.token("first").await;
    account.issue("second").await;
    std::fs::write(file, account.token("second").await).unwrap();
    account.revoke("first").await;
    let server = cluster.server();
    let ca = reqwest::Certificate::from_pem(cluster.ca().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
    // An API server remembers for a moment whom it knows.
    until("the old token is refused", PATIENCE, async || {
        let answer = client.get(format!("{server}/api")).bearer_auth(&old).send().await.ok()?;
        (answer.status() == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_exchanged_fail_no_task() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster.clone(), &[]).await;
    let files = Files::new();
    for way in ["file", "plugin"] {
        let account = cluster.account(&scene.namespace, way, rules()).await;
        let file = files.write(&format!("token-{way}"), &account.token("first").await);
        let (exec, _) = plugin(files.folder.path(), &printing(&file, ""));
        let server = cluster.server();
        let document = match way {
            "file" => json!({"server": server, "ca": cluster.ca(), "token_file": file}),
            _ => json!({"kubeconfig": {"content": cluster.kubeconfig(&server, exec)}}),
        };
        put(&scene, way, &document).await;
        let id = scene.service.submit(task(COUNTS, json!({"target": way}))).await;
        until_it_counts(&scene, &id).await;
        exchange(&cluster, &account, &file).await;
        let late = scene.service.submit(task("echo late", json!({"target": way}))).await;
        has_counted(&scene, &id).await;
        let late = scene.ended(&late).await;
        assert_eq!(
            (&late["state"], &late["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{late:#}"
        );
        assert_eq!(check(&scene, way).await["reachable"], true);
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_asked_again_when_its_credential_runs_out() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster.clone(), &[]).await;
    let account = cluster.account(&scene.namespace, "all", rules()).await;
    let files = Files::new();
    let token = files.write("token", &account.token("first").await);
    // A minute before its end a credential is exchanged: this one after a few seconds.
    let soon = ", \"expirationTimestamp\": \"'$(date -u -d '+65 seconds' +%Y-%m-%dT%H:%M:%SZ)'\"";
    let script = printing(&token, "@").replace('@', soon);
    let (exec, ran) = plugin(files.folder.path(), &script);
    put(
        &scene,
        "plugin",
        &json!({"kubeconfig": {"content": cluster.kubeconfig(&cluster.server(), exec)}}),
    )
    .await;
    assert_eq!(check(&scene, "plugin").await["reachable"], true);
    let before = runs(&ran);
    until("it was asked again", PATIENCE, async || (runs(&ran) > before).then_some(())).await;
    let id = scene.service.submit(task("echo ok", json!({"target": "plugin"}))).await;
    assert_eq!(scene.ended(&id).await["state"], "succeeded");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_for_a_while_fails_no_task() {
    let Some(cluster) = Cluster::find().await else { return };
    let scene = Scene::start(cluster.clone(), &[]).await;
    let account = cluster.account(&scene.namespace, "all", rules()).await;
    let proxy = cluster.proxy();
    let user = json!({"token": account.token("first").await});
    let way = json!({"kubeconfig": {"content": cluster.kubeconfig(&proxy.host(), user)}});
    put(&scene, "proxied", &way).await;
    for head in ["401 Unauthorized", "429 Too Many Requests\r\nretry-after: 2"] {
        let id = scene.service.submit(task(COUNTS, json!({"target": "proxied"}))).await;
        until_it_counts(&scene, &id).await;
        let before = proxy.answer(Some(head));
        let began = std::time::Instant::now();
        let late = scene.service.submit(task("echo late", json!({"target": "proxied"}))).await;
        until("it was refused often enough", PATIENCE, async || {
            (proxy.answered() >= before + 4).then_some(())
        })
        .await;
        // Whoever is told to wait asks no more often than it is told: there are a handful of askers at most.
        let often = f64::from(proxy.answered() - before) / began.elapsed().as_secs_f64().max(2.0);
        assert!(head.starts_with("401") || often < 6.0, "{often} times a second");
        proxy.answer(None);
        has_counted(&scene, &id).await;
        let late = scene.ended(&late).await;
        assert_eq!(
            (&late["state"], &late["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "{late:#}"
        );
    }
    scene.close().await;
}
