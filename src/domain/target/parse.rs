//! The rules of the document of a target: from JSON to a [`Target`], or to every fault in it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "JSON has six kinds of values, and always will"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::secret::{MASK, Secret, SecretAddress, has_user, without_password};
use super::{
    Access, Backend, Collector, DockerBackend, Impersonate, KubeconfigSource, KubernetesBackend,
    PodSecurity, SIMULATED, Server, Target, TokenSource,
};
use crate::domain::quantity;
use crate::domain::spec::{Fault, ObjectReader, check_template, escape};

const NAME_CHARS: usize = 63;
const LABELS: usize = 64;
const MOST_TASKS: i64 = 100_000;

/// Whether targets can be called so. The error says what a name looks like.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    if name == SIMULATED {
        return Err(format!(
            "the target {SIMULATED:?} is built in and stays as it is: choose another name"
        ));
    }
    if name.is_empty()
        || name.len() > NAME_CHARS
        || name.starts_with('-')
        || !name.bytes().all(fits)
    {
        return Err(format!(
            "{name:?} is not a name for a target: 1 to {NAME_CHARS} of a-z, 0-9 and \"-\", and no \"-\" first"
        ));
    }
    Ok(())
}

/// Reads the document of a target. Where it says `***` for a secret, that of `before` is kept.
pub fn parse(document: &Value, before: Option<&Target>) -> Result<Target, Vec<Fault>> {
    let mut faults = Vec::new();
    let target = ObjectReader::open(document, String::new(), &mut faults).and_then(|mut it| {
        let target = read_target(&mut it, before);
        // Which fields there are depends on the kind.
        if target.is_some() {
            it.finish();
        }
        target
    });
    match target {
        Some(target) if faults.is_empty() => Ok(target),
        _ => Err(faults),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Docker,
    Kubernetes,
    Simulated,
}

fn read_target(it: &mut ObjectReader<'_>, before: Option<&Target>) -> Option<Target> {
    const KINDS: [(&str, Kind); 3] = [
        ("docker", Kind::Docker),
        ("kubernetes", Kind::Kubernetes),
        ("simulated", Kind::Simulated),
    ];
    if it.value("kind").is_none() {
        it.fault("kind", "required", "\"kind\" is required: docker, kubernetes or simulated");
    }
    let kind = it.choice("kind", &KINDS)?;
    let backend = match kind {
        Kind::Docker => Backend::Docker(read_docker(it)),
        Kind::Kubernetes => {
            let before = before.and_then(|it| match &it.backend {
                Backend::Kubernetes(it) => Some(&**it),
                Backend::Docker(_) | Backend::Simulated => None,
            });
            let read = read_kubernetes(it, before);
            // What is left out is a fault by now: the value is never seen.
            let nowhere = || KubernetesBackend::over(Access::InCluster);
            Backend::Kubernetes(Box::new(read.unwrap_or_else(nowhere)))
        }
        Kind::Simulated => Backend::Simulated,
    };
    Some(Target {
        backend,
        enabled: it.bool("enabled").unwrap_or(true),
        concurrency: it.integer("concurrency", 1, MOST_TASKS).and_then(|it| u32::try_from(it).ok()),
        labels: read_labels(it, "labels"),
    })
}

/// Labels of targets, or those that a task asks for: their text in the queue has to be read back.
pub(in crate::domain) fn read_labels(
    it: &mut ObjectReader<'_>,
    key: &'static str,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(map) = it.map(key) else { return labels };
    if map.len() > LABELS {
        it.fault(key, "too_large", format!("{} labels, at most {LABELS} are taken", map.len()));
        return labels;
    }
    for (name, value) in map {
        let pointer = format!("{}/{}", it.pointer(key), escape(name));
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(it) => it.to_string(),
            Value::Bool(it) => it.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let detail = format!("the value of label {name:?} must be text");
                it.faults().push(Fault::new(pointer, "wrong_type", detail));
                continue;
            }
        };
        let fits = |it: u8| it.is_ascii_alphanumeric() || b"-._/".contains(&it);
        let good = |it: &str| (1..=NAME_CHARS).contains(&it.len()) && it.bytes().all(fits);
        if good(name) && good(&text) {
            labels.insert(name.clone(), text);
        } else {
            let detail = format!(
                "the name and the value of a target's label have 1 to {NAME_CHARS} letters, digits and \
                 \"-._/\" each, such as \"gpu\": \"yes\""
            );
            it.faults().push(Fault::new(pointer, "invalid_value", detail));
        }
    }
    labels
}

fn read_docker(it: &mut ObjectReader<'_>) -> DockerBackend {
    let host = it.text("host").map(docker_host);
    DockerBackend { host: host.and_then(|host| it.checked("host", host)) }
}

/// The address of a Docker engine, with its scheme.
pub fn docker_host(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(format!("unix://{text}"));
    }
    if text.starts_with("ssh://") {
        return Err("an engine behind ssh can't be reached: forward its socket and name that, \
                    for example \"unix:///run/forwarded.sock\""
            .to_owned());
    }
    if text.starts_with("https://") {
        return Err(
            "an engine behind TLS can't be reached, as TLS is not spoken: forward its port or its \
                    socket, and name that, for example \"tcp://127.0.0.1:2375\""
                .to_owned(),
        );
    }
    let known = ["unix:///", "tcp://", "http://"].iter().any(|it| text.starts_with(it));
    if known && !has_user(text) {
        return Ok(text.to_owned());
    }
    let shown = without_password(text);
    Err(format!("{shown:?} is not a Docker host: write \"unix:///var/run/docker.sock\""))
}

fn read_kubernetes(
    it: &mut ObjectReader<'_>,
    before: Option<&KubernetesBackend>,
) -> Option<KubernetesBackend> {
    let proxy_before = before.and_then(|it| it.proxy.as_ref()).map(SecretAddress::expose);
    let proxy = it.text("proxy").and_then(|text| {
        let read = read_proxy(text, proxy_before);
        it.checked("proxy", read).map(SecretAddress::from)
    });
    let tls_skip_verify = it.bool("tls_skip_verify").unwrap_or(false);
    // Stored credentials go only where they went before.
    let before = before
        .filter(|it| it.proxy == proxy && (it.tls_skip_verify || !tls_skip_verify))
        .map(|it| &it.access);
    let access = read_access(it, before);
    Some(KubernetesBackend {
        namespace: it.text("namespace").and_then(|text| {
            let read = read_namespace(text);
            it.checked("namespace", read)
        }),
        namespaces: read_namespaces(it),
        tls_skip_verify,
        proxy,
        impersonate: it.object("impersonate", read_impersonate).flatten(),
        pod_security: it
            .choice(
                "pod_security",
                &[("baseline", PodSecurity::Baseline), ("restricted", PodSecurity::Restricted)],
            )
            .unwrap_or_default(),
        pod_template: read_template(it),
        collector: it.object("collector", read_collector).unwrap_or_default(),
        access: access?,
    })
}

/// The others that a task may name.
fn read_namespaces(it: &mut ObjectReader<'_>) -> Vec<String> {
    let mut read = Vec::new();
    for (index, item) in it.list("namespaces").into_iter().flatten().enumerate() {
        let namespace = match item.as_str() {
            Some(text) => read_namespace(text),
            None => Err("a namespace is a text, such as \"etl\"".to_owned()),
        };
        match namespace {
            Ok(namespace) => read.push(namespace),
            Err(detail) => {
                let pointer = format!("{}/{index}", it.pointer("namespaces"));
                it.faults().push(Fault::new(pointer, "invalid_value", detail));
            }
        }
    }
    read
}

fn read_template(it: &mut ObjectReader<'_>) -> Option<Value> {
    let template = Value::Object(it.map("pod_template")?.clone());
    let pointer = it.pointer("pod_template");
    check_template(&template, &pointer, it.faults());
    Some(template)
}

const WAYS: &str = "\"in_cluster\": true, \"kubeconfig\" ({} for the default one), or \"server\" with \
                    \"token\", \"token_file\", or \"client_certificate\" and \"client_key\"";

fn read_access(it: &mut ObjectReader<'_>, before: Option<&Access>) -> Option<Access> {
    let in_cluster = it.bool("in_cluster") == Some(true);
    let kubeconfig = it.object("kubeconfig", |it| read_kubeconfig(it, before));
    let server = it.value("server").is_some();
    let given: Vec<&str> =
        [("in_cluster", in_cluster), ("kubeconfig", kubeconfig.is_some()), ("server", server)]
            .into_iter()
            .filter_map(|(name, given)| given.then_some(name))
            .collect();
    let by_server = read_server(it, before);
    match given[..] {
        ["in_cluster"] => Some(Access::InCluster),
        ["kubeconfig"] => kubeconfig.flatten(),
        ["server"] => by_server,
        [] => {
            // A kubeconfig of the wrong type is a fault by now.
            if it.value("kubeconfig").is_none() {
                let detail = format!("it is not said how to reach the cluster: give {WAYS}");
                it.fault("server", "required", detail);
            }
            None
        }
        [first, ..] => {
            let detail = format!("{} are given, and one is to be: {WAYS}", given.join(" and "));
            it.fault(first, "conflict", detail);
            None
        }
    }
}

const CREDENTIALS: [&str; 4] = ["token", "token_file", "client_certificate", "client_key"];

/// What goes with `server`. The fields are read in any case, so that they are known.
fn read_server(it: &mut ObjectReader<'_>, before: Option<&Access>) -> Option<Access> {
    let has_server = it.value("server").is_some();
    let url = it.text("server").and_then(|text| {
        let read = read_server_url(text);
        it.checked("server", read)
    });
    let ca = read_pem(it, "ca", "CERTIFICATE", None);
    let server = url.map(|url| Server { url, ca });
    // Stored credentials are not for another server.
    let same = |it: &Server| Some(it) == server.as_ref();
    let (token_before, key_before) = match before {
        Some(Access::Token { server, token: TokenSource::Content(token) }) if same(server) => {
            (Some(token.expose()), None)
        }
        Some(Access::ClientCertificate { server, key, .. }) if same(server) => {
            (None, Some(key.expose()))
        }
        _ => (None, None),
    };
    let token = secret(it, "token", token_before).map(|it| TokenSource::Content(it.into()));
    let token_file = it.text("token_file").and_then(|text| {
        let read = read_path(text);
        it.checked("token_file", read).map(TokenSource::Path)
    });
    let certificate = read_pem(it, "client_certificate", "CERTIFICATE", None);
    let key = read_pem(it, "client_key", "PRIVATE KEY", key_before);
    let given: Vec<&'static str> =
        CREDENTIALS.into_iter().filter(|field| it.value(field).is_some()).collect();
    if !has_server {
        for field in given.iter().copied().chain(it.value("ca").map(|_| "ca")) {
            it.fault(
                field,
                "conflict",
                format!("{field:?} goes with \"server\", which is not given"),
            );
        }
        return None;
    }
    match given[..] {
        ["token" | "token_file"] => {
            Some(Access::Token { server: server?, token: token.or(token_file)? })
        }
        ["client_certificate", "client_key"] => Some(Access::ClientCertificate {
            server: server?,
            certificate: certificate?,
            key: Secret::from(key?),
        }),
        ["client_certificate"] => {
            it.fault("client_key", "required", "\"client_certificate\" needs its \"client_key\"");
            None
        }
        ["client_key"] => {
            let detail = "\"client_key\" needs its \"client_certificate\"";
            it.fault("client_certificate", "required", detail);
            None
        }
        [] => {
            let detail = "\"server\" needs \"token\", \"token_file\", or \"client_certificate\" and \
                          \"client_key\"";
            it.fault("token", "required", detail);
            None
        }
        [first, ..] => {
            let detail = format!(
                "{} are given, and one is to be: \"token\", \"token_file\", or \"client_certificate\" with \
                 \"client_key\"",
                given.join(" and ")
            );
            it.fault(first, "conflict", detail);
            None
        }
    }
}

fn read_kubeconfig(it: &mut ObjectReader<'_>, before: Option<&Access>) -> Option<Access> {
    let before = match before {
        Some(Access::Kubeconfig { source: KubeconfigSource::Content(content), .. }) => {
            Some(content.expose())
        }
        _ => None,
    };
    let context = it.text("context").map(str::to_owned);
    let path = it.text("path").and_then(|text| {
        let read = read_path(text);
        it.checked("path", read)
    });
    let content = match it.value("content") {
        Some(Value::Object(map)) => serde_json::to_string(map).ok(),
        _ => secret(it, "content", before),
    };
    let (has_path, has_content) = (it.value("path").is_some(), it.value("content").is_some());
    if has_path && has_content {
        let detail = "\"path\" and \"content\" are given, and one is to be";
        it.fault("path", "conflict", detail);
        return None;
    }
    let source = match (has_path, has_content) {
        (true, _) => KubeconfigSource::Path(path?),
        (_, true) => KubeconfigSource::Content(content?.into()),
        _ => KubeconfigSource::Default,
    };
    Some(Access::Kubeconfig { source, context })
}

/// What is given, or what is stored where the mask is given.
fn secret(it: &mut ObjectReader<'_>, key: &'static str, before: Option<&str>) -> Option<String> {
    let text = it.text(key)?;
    if text == MASK {
        if before.is_none() {
            let detail = format!(
                "{MASK:?} stands for what is stored, and nothing is stored for this way to the cluster: \
                 give {key:?} itself"
            );
            it.fault(key, "invalid_value", detail);
        }
        return before.map(str::to_owned);
    }
    if text.trim().is_empty() {
        it.fault(key, "invalid_value", format!("{key:?} is empty"));
        return None;
    }
    Some(text.to_owned())
}

/// Never quotes what it reads.
fn read_pem(
    it: &mut ObjectReader<'_>,
    key: &'static str,
    what: &str,
    before: Option<&str>,
) -> Option<String> {
    let text = match what {
        "PRIVATE KEY" => secret(it, key, before)?,
        _ => it.text(key)?.to_owned(),
    };
    if text.contains("-----BEGIN ") && text.contains(&format!("{what}-----")) {
        return Some(text);
    }
    let detail = format!("{key:?} is not PEM: it begins with \"-----BEGIN {what}-----\"");
    it.fault(key, "invalid_value", detail);
    None
}

fn read_server_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").filter(|it| !it.is_empty() && !has_user(text));
    let fits = |it: char| !it.is_whitespace() && !it.is_control();
    if host.is_some_and(|it| !it.starts_with('/') && it.chars().all(fits)) {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    let shown = without_password(text);
    Err(format!("{shown:?} is not the address of an API server: write \"https://10.0.0.1:6443\""))
}

fn read_proxy(text: &str, before: Option<&str>) -> Result<String, String> {
    if let Some(before) = before
        && without_password(before) == text
    {
        return Ok(before.to_owned());
    }
    if without_password(text) == text && text.contains(&format!(":{MASK}@")) {
        return Err(format!(
            "{MASK:?} stands for the password that is stored, and none is stored for this proxy: give it"
        ));
    }
    if text.starts_with("socks5://") && has_user(text) {
        return Err(
            "a proxy by SOCKS can't be given a user or a password: use one that asks for none, or one by HTTP"
                .to_owned(),
        );
    }
    let host = ["http://", "socks5://"].iter().find_map(|it| text.strip_prefix(it));
    if host.is_some_and(|it| !it.is_empty() && !it.contains(char::is_whitespace)) {
        return Ok(text.to_owned());
    }
    let shown = without_password(text);
    Err(format!(
        "{shown:?} is not a proxy: write \"http://10.0.0.1:3128\" or \"socks5://10.0.0.1:1080\""
    ))
}

fn read_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("{text:?} is not an absolute path of the workers' machines"))
    }
}

fn read_namespace(text: &str) -> Result<String, String> {
    let fits = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let edges = text.starts_with('-') || text.ends_with('-');
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) && !edges {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a namespace: 1 to 63 of a-z, 0-9 and \"-\""))
    }
}

fn read_impersonate(it: &mut ObjectReader<'_>) -> Option<Impersonate> {
    let user = it.text("user").filter(|it| !it.is_empty()).map(str::to_owned);
    if user.is_none() {
        it.fault("user", "required", "\"user\" says whom to be taken for");
    }
    let mut groups = Vec::new();
    for (index, item) in it.list("groups").into_iter().flatten().enumerate() {
        if let Some(group) = item.as_str() {
            groups.push(group.to_owned());
        } else {
            let pointer = format!("{}/{index}", it.pointer("groups"));
            it.faults().push(Fault::new(pointer, "wrong_type", "the name of a group is text"));
        }
    }
    Some(Impersonate { user: user?, groups })
}

fn read_collector(it: &mut ObjectReader<'_>) -> Collector {
    let default = Collector::default();
    let image = it.text("image").map(str::to_owned);
    if image.as_deref().is_some_and(|it| it.is_empty() || it.contains(char::is_whitespace)) {
        it.fault("image", "invalid_value", "not the name of an image: write \"busybox:latest\"");
    }
    let (cpu, memory) = it
        .object("resources", |it| {
            let cpu = quantity_field(it, "cpu", quantity::parse_cpu_millis);
            (cpu, quantity_field(it, "memory", quantity::parse_bytes))
        })
        .unwrap_or_default();
    Collector {
        image: image.unwrap_or(default.image),
        cpu_millis: cpu.unwrap_or(default.cpu_millis),
        memory_bytes: memory.unwrap_or(default.memory_bytes),
    }
}

fn quantity_field(
    it: &mut ObjectReader<'_>,
    key: &'static str,
    read: fn(&str) -> Result<i64, String>,
) -> Option<i64> {
    let text = match it.value(key)? {
        Value::Number(number) => number.to_string(),
        _ => it.text(key)?.to_owned(),
    };
    it.checked(key, read(&text))
}
