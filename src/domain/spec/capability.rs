//! What a kind of target can't honour. A field that would be dropped is a fault at the submit, naming the field
//! and the target.

use serde_json::Value;

use super::kubernetes::MAIN_CONTAINER;
use super::reader::escape;
use super::{Fault, InputFile, OUTPUT_DIR, OutputSource, TaskSpec, pod_security};
use crate::domain::target::{Backend, KubernetesBackend, PodSecurity};

/// What one `Secret` holds at most, less room for what else is in it.
pub const SECRET_BYTES: usize = 900 << 10;
/// Of a file in a volume.
const MOST_MODE: u32 = 0o777;
/// The largest number of a user or group on Kubernetes.
const MAX_ID: i64 = i32::MAX as i64;

/// Everything in `spec` that the target can't do.
pub fn faults(spec: &TaskSpec, target: &str, backend: &Backend) -> Vec<Fault> {
    match backend {
        Backend::Docker(_) | Backend::Simulated => other_than_kubernetes(spec, target, backend),
        Backend::Kubernetes(it) => {
            let who = format!("target {target:?} (kubernetes)");
            let mut faults = pod_faults(spec, &who, it.pod_security, it.pod_template.as_ref());
            faults.extend(other_namespace(spec, &who, it));
            faults
        }
    }
}

fn other_than_kubernetes(spec: &TaskSpec, target: &str, backend: &Backend) -> Vec<Fault> {
    let strict = spec.kubernetes.as_ref().is_some_and(|it| it.strict);
    let detail = format!(
        "target {target:?} is of kind {}, and \"kubernetes\" is \"strict\": choose a target of kind kubernetes",
        backend.kind()
    );
    strict.then(|| Fault::new("/kubernetes/strict", UNSUPPORTED, detail)).into_iter().collect()
}

/// Where the target leaves its own namespace to its credentials, the launch knows.
fn other_namespace(spec: &TaskSpec, who: &str, backend: &KubernetesBackend) -> Option<Fault> {
    let wanted = spec.kubernetes.as_ref()?.namespace.as_ref()?;
    let own = backend.namespace.as_ref()?;
    if wanted == own || backend.namespaces.contains(wanted) {
        return None;
    }
    let detail = format!(
        "{who} can't use the namespace {wanted:?}: \"namespaces\" of the target names those that tasks may use beside {own:?}"
    );
    Some(Fault::new("/kubernetes/namespace", UNSUPPORTED, detail))
}

const UNSUPPORTED: &str = "unsupported";

/// The same for a target of kind kubernetes with these settings. `who` can't, the details say.
pub fn pod_faults(
    spec: &TaskSpec,
    who: &str,
    security: PodSecurity,
    template: Option<&Value>,
) -> Vec<Fault> {
    let mut found = Found { who, faults: Vec::new() };
    if spec.resources.pids.is_some() {
        found.cannot(
            "/resources/pids",
            "limit the processes of one pod: leave \"pids\" out, and set podPidsLimit on its nodes",
        );
    }
    if let Some(user) = &spec.user
        && numeric_user(user).is_none()
    {
        found.cannot(
            "/user",
            format!("look up the user {user:?} in the image: write its number, such as \"1000\" or \"1000:1000\""),
        );
    }
    for name in spec.env.keys().filter(|it| !is_variable_name(it)) {
        found.cannot(
            &format!("/env/{}", escape(name)),
            format!(
                "set {name:?}: use letters, digits, \"_\", \"-\" and \".\", and no digit first"
            ),
        );
    }
    for (index, file) in spec.files.iter().enumerate() {
        if let Err((field, why)) = deliverable(file) {
            found.cannot(&format!("/files/{index}/{field}"), why);
        }
    }
    for (name, output) in &spec.outputs {
        if let OutputSource::Path(path) = &output.source
            && let Err(why) = output_directory(path)
        {
            found.cannot(&format!("/outputs/{}/path", escape(name)), why);
        }
    }
    if security == PodSecurity::Restricted {
        found.restricted(spec, template);
    }
    found.faults
}

struct Found<'a> {
    who: &'a str,
    faults: Vec<Fault>,
}

impl Found<'_> {
    fn cannot(&mut self, pointer: &str, what: impl AsRef<str>) {
        let detail = format!("{} can't {}", self.who, what.as_ref());
        self.faults.push(Fault::new(pointer, UNSUPPORTED, detail));
    }

    fn restricted(&mut self, spec: &TaskSpec, template: Option<&Value>) {
        let own = spec.kubernetes.as_ref().and_then(|it| it.pod_template.as_ref());
        let said = spec.user.as_deref().and_then(|it| numeric_user(it).map(|it| it.0));
        match said.or_else(|| user_of([own, template])) {
            Some(0) => self.cannot(
                "/user",
                "run anything as root, as its pod_security is restricted: give another \"user\"",
            ),
            // A name has its fault already.
            None if spec.user.is_none() => self.cannot(
                "/user",
                "know whether the image runs as root, which its pod_security restricted forbids: give a numeric \"user\", such as \"1000\"",
            ),
            Some(_) | None => {}
        }
        for (pointer, allowed) in own.map(pod_security::violations).unwrap_or_default() {
            self.cannot(
                &format!("/kubernetes/pod_template{pointer}"),
                format!("take this, as its pod_security is restricted: allowed is {allowed}"),
            );
        }
    }
}

/// The user that templates give the main container, the first template first.
fn user_of(templates: [Option<&Value>; 2]) -> Option<i64> {
    let of_main = |it: &Value| {
        let containers = it.pointer("/spec/containers")?.as_array()?;
        let main = containers.iter().find(|it| it["name"] == MAIN_CONTAINER)?;
        main.pointer("/securityContext/runAsUser")?.as_i64()
    };
    let of_pod = |it: &Value| it.pointer("/spec/securityContext/runAsUser")?.as_i64();
    let present = || templates.into_iter().flatten();
    present().find_map(of_main).or_else(|| present().find_map(of_pod))
}

/// `1000` or `1000:1000` as numbers. `root` is 0 in every image.
pub fn numeric_user(user: &str) -> Option<(i64, Option<i64>)> {
    let number = |text: &str| match text {
        "root" => Some(0),
        _ if text.bytes().all(|it| it.is_ascii_digit()) => {
            text.parse().ok().filter(|it| *it <= MAX_ID)
        }
        _ => None,
    };
    match user.split_once(':') {
        None => Some((number(user)?, None)),
        Some((user, group)) => Some((number(user)?, Some(number(group)?))),
    }
}

fn is_variable_name(name: &str) -> bool {
    let inside = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.');
    !name.starts_with(|it: char| it.is_ascii_digit())
        && name.bytes().all(inside)
        && !matches!(name, "." | "..")
}

/// A path without what says nothing: `/in//./a/` → `/in/a`.
pub fn plain_path(path: &str) -> String {
    let parts = path.split('/').filter(|it| !matches!(*it, "" | "."));
    parts.fold(String::new(), |path, part| path + "/" + part)
}

/// Else the field that is in the way, and why.
fn deliverable(file: &InputFile) -> Result<(), (&'static str, String)> {
    let path = plain_path(&file.path);
    if within(&path, OUTPUT_DIR) {
        let why = format!("put a file into {OUTPUT_DIR}, which is ours: choose another folder");
        return Err(("path", why));
    }
    if path.contains(':') {
        let why = "put a file where there is a \":\" in its path: choose another name";
        return Err(("path", why.to_owned()));
    }
    if file.mode > MOST_MODE {
        let why = format!("give a file the mode {:04o}: {MOST_MODE:04o} is the most", file.mode);
        return Err(("mode", why));
    }
    if file.content.len() > SECRET_BYTES {
        let why = format!(
            "take a file of {} bytes: {SECRET_BYTES} are the most; cut it in two, put it into the image or fetch it",
            file.content.len()
        );
        return Err(("content", why));
    }
    Ok(())
}

/// Below these, and at them, the image has what the command needs.
const SYSTEM: [&str; 12] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin",
    "/sys", "/usr",
];
/// At these alone.
const CROWDED: [&str; 5] = ["", "/home", "/run", "/var", "/var/run"];

/// The folder that is shared with the collector so that it finds this output: its parent. What the image has
/// there is hidden, so that it can't be one that the command needs.
pub fn output_directory(path: &str) -> Result<String, String> {
    let path = plain_path(path);
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let fix = "write it into a folder of its own, such as /out";
    if path.contains(':') {
        return Err("hand out a path with a \":\" in it: choose another name".to_owned());
    }
    let system = SYSTEM.iter().any(|it| within(parent, it));
    if system || CROWDED.contains(&parent) {
        let parent = if parent.is_empty() { "/" } else { parent };
        return Err(format!("hand out what is in {parent}, a folder of the system: {fix}"));
    }
    Ok(parent.to_owned())
}

/// Whether `path` is `folder` or below it.
pub fn within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::domain::spec::{Limits, parse};
    use crate::domain::target::{DockerBackend, Target};

    fn kubernetes(pod_security: PodSecurity, pod_template: Option<Value>) -> Backend {
        let target = json!({
            "kind": "kubernetes", "access": {"by": "in_cluster"}, "pod_security": pod_security,
            "pod_template": pod_template,
        });
        serde_json::from_value(target).unwrap()
    }

    /// `pointer code: detail`, a line for each fault.
    fn found(document: &Value, backend: &Backend) -> String {
        let mut limits = Limits::default();
        let target = Target::plain(backend.clone());
        Arc::make_mut(&mut limits.targets).insert("prod".to_owned(), target);
        let mut document = document.clone();
        document["target"] = json!("prod");
        let faults = parse(&document, &limits).err().unwrap_or_default();
        faults.iter().map(|it| format!("{} {}: {}\n", it.pointer, it.code, it.detail)).collect()
    }

    #[test]
    fn what_a_pod_can_not_do_names_field_and_target() {
        let document = json!({
            "image": "a", "user": "www-data", "env": {"1A": "x", "a b": "x", "A.B-c_1": "x"},
            "resources": {"pids": 10},
            "files": [
                {"path": "/supercargo/output.json", "content": ""}, {"path": "/in/a:b", "content": ""},
                {"path": "/in/s", "content": "", "mode": "4755"},
                {"path": "/in/large", "content": "x".repeat(SECRET_BYTES + 1)},
                {"path": "/in/whole", "content": "x".repeat(SECRET_BYTES)},
            ],
            "outputs": {
                "a": {"path": "/report.csv"}, "b": {"path": "/usr/share/x/y"}, "c": {"path": "/var//run/x"},
                "d": {"path": "/out/x"}, "e": {"path": "/out/a:b"}, "f": {"path": "/lib64/x"}, "g": {"path": "/library/x"},
                "h": {"path": "/out"}, "i": {"path": "/tmp/x"}, "j": {"path": "/usrlocal/x"},
            },
        });
        insta::assert_snapshot!(found(&document, &kubernetes(PodSecurity::Baseline, None)));
        for backend in [Backend::Docker(DockerBackend::default()), Backend::Simulated] {
            assert_eq!(found(&document, &backend), "");
        }
    }

    #[test]
    fn a_strict_block_wants_a_target_of_its_kind() {
        let document = json!({"image": "a", "kubernetes": {"strict": true}});
        let fault = found(&document, &Backend::Simulated);
        assert!(fault.starts_with("/kubernetes/strict unsupported: target \"prod\""), "{fault}");
        assert_eq!(found(&document, &kubernetes(PodSecurity::Baseline, None)), "");
    }

    #[test]
    fn a_namespace_is_one_of_the_target() {
        let document = json!({"image": "a", "kubernetes": {"namespace": "etl"}});
        for (namespace, namespaces, good) in [
            (json!(null), json!([]), true),
            (json!("etl"), json!([]), true),
            (json!("jobs"), json!(["etl"]), true),
            (json!("jobs"), json!(["other"]), false),
        ] {
            let target = json!({
                "kind": "kubernetes", "access": {"by": "in_cluster"}, "namespace": namespace, "namespaces": namespaces,
            });
            let found = found(&document, &serde_json::from_value(target.clone()).unwrap());
            assert_eq!(found.is_empty(), good, "{target}: {found}");
            assert!(good || found.starts_with("/kubernetes/namespace unsupported"), "{found}");
        }
    }

    #[test]
    fn restricted_wants_a_numeric_user_that_is_not_root() {
        let main = |user: i64| json!({"spec": {"containers": [{"name": "main", "securityContext": {"runAsUser": user}}]}});
        let of_pod = |user: i64| json!({"spec": {"securityContext": {"runAsUser": user}}});
        for (user, template, of_target, good) in [
            (None, None, None, false),
            (Some("1000"), None, None, true),
            (Some("1000:0"), None, None, true),
            (Some("0"), None, None, false),
            (Some("root"), None, None, false),
            (Some("app"), None, None, false),
            (None, Some(main(7)), None, true),
            (None, Some(of_pod(7)), None, true),
            (None, None, Some(main(7)), true),
            (None, None, Some(of_pod(0)), false),
            (None, Some(of_pod(7)), Some(main(0)), false),
            (Some("7"), None, Some(main(0)), true),
        ] {
            let mut document = json!({"image": "a"});
            if let Some(user) = user {
                document["user"] = json!(user);
            }
            if let Some(template) = &template {
                document["kubernetes"] = json!({"pod_template": template});
            }
            let found = found(&document, &kubernetes(PodSecurity::Restricted, of_target.clone()));
            assert_eq!(found.is_empty(), good, "{document} over {of_target:?}: {found}");
            assert!(good || found.starts_with("/user unsupported"), "{found}");
        }
    }

    #[test]
    fn restricted_refuses_what_a_template_opens() {
        let template = json!({
            "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}},
            "spec": {
                "hostNetwork": true, "hostPID": true, "hostIPC": false,
                "securityContext": {
                    "runAsNonRoot": false, "seccompProfile": {"type": "Unconfined"},
                    "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": "kernel.msgmax", "value": "1"}],
                },
                "volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}}, {"name": "c", "nfs": {}}],
                "containers": [{
                    "name": "main", "ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 2}],
                    "securityContext": {
                        "privileged": true, "allowPrivilegeEscalation": true, "procMount": "Unmasked", "runAsUser": 0,
                        "capabilities": {"add": ["NET_BIND_SERVICE", "NET_ADMIN"], "drop": []},
                        "seLinuxOptions": {"type": "spc_t", "user": "system_u"},
                    },
                }],
                "initContainers": [{"name": "i", "securityContext": {"windowsOptions": {"hostProcess": true}}}],
            },
        });
        let document = json!({"image": "a", "user": "7", "kubernetes": {"pod_template": template}});
        insta::assert_snapshot!(found(&document, &kubernetes(PodSecurity::Restricted, None)));
        assert_eq!(found(&document, &kubernetes(PodSecurity::Baseline, None)), "");
    }
}
