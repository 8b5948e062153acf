//! What the level `restricted` of the Pod Security Standards forbids a pod to say. What it wants said, the
//! conversion says.

use serde_json::Value;

/// Of `spec.volumes`.
const VOLUMES: [&str; 9] = [
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SYSCTLS: [&str; 5] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_syncookies",
];
const SELINUX_TYPES: [&str; 4] =
    ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Each as (JSON pointer into the pod, what is allowed there). `pod` may be a template.
pub fn violations(pod: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut no = |pointer: String, allowed: &str| found.push((pointer, allowed.to_owned()));
    for (key, value) in
        pod.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten()
    {
        let profile = value.as_str().unwrap_or_default();
        if key.starts_with(APPARMOR)
            && profile != "runtime/default"
            && !profile.starts_with("localhost/")
        {
            no(
                format!("/metadata/annotations/{}", super::reader::escape(key)),
                "\"runtime/default\"",
            );
        }
    }
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.pointer("/spec").is_some_and(|it| it[key] == true) {
            no(format!("/spec/{key}"), "false");
        }
    }
    for (index, volume) in list(pod, "/spec/volumes") {
        for kind in volume.as_object().into_iter().flatten().filter(|it| !it.1.is_null()) {
            if !VOLUMES.contains(&kind.0.as_str()) && !kind.0.starts_with('$') {
                no(
                    format!("/spec/volumes/{index}/{}", kind.0),
                    "a volume of another kind, such as persistentVolumeClaim",
                );
            }
        }
    }
    if let Some(context) = pod.pointer("/spec/securityContext") {
        common(context, "/spec/securityContext", &mut no);
        for (index, it) in list(context, "/sysctls") {
            if !it["name"].as_str().is_some_and(|it| SYSCTLS.contains(&it)) {
                no(
                    format!("/spec/securityContext/sysctls/{index}"),
                    "what the cluster counts as safe",
                );
            }
        }
    }
    for kind in ["containers", "initContainers"] {
        for (index, it) in list(pod, &format!("/spec/{kind}")) {
            container(it, &format!("/spec/{kind}/{index}"), &mut no);
        }
    }
    found
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn container(it: &Value, pointer: &str, no: &mut impl FnMut(String, &str)) {
    for (index, port) in list(it, "/ports") {
        if port["hostPort"].as_i64().is_some_and(|it| it != 0) {
            no(format!("{pointer}/ports/{index}/hostPort"), "none");
        }
    }
    let Some(context) = it.get("securityContext") else { return };
    let pointer = format!("{pointer}/securityContext");
    common(context, &pointer, no);
    for key in ["privileged", "allowPrivilegeEscalation"] {
        if context[key] == true {
            no(format!("{pointer}/{key}"), "false");
        }
    }
    if context["procMount"].as_str().is_some_and(|it| it != "Default") {
        no(format!("{pointer}/procMount"), "\"Default\"");
    }
    for (index, it) in list(context, "/capabilities/add") {
        if it != "NET_BIND_SERVICE" {
            no(format!("{pointer}/capabilities/add/{index}"), "\"NET_BIND_SERVICE\" alone");
        }
    }
    let dropped = context.pointer("/capabilities/drop").and_then(Value::as_array);
    if dropped.is_some_and(|it| !it.iter().any(|it| it == "ALL")) {
        no(format!("{pointer}/capabilities/drop"), "\"ALL\"");
    }
}

/// What the pod's and a container's security context have both.
fn common(context: &Value, pointer: &str, no: &mut impl FnMut(String, &str)) {
    if context["runAsNonRoot"] == false {
        no(format!("{pointer}/runAsNonRoot"), "true");
    }
    if context["runAsUser"].as_i64() == Some(0) {
        no(format!("{pointer}/runAsUser"), "any other than 0");
    }
    for kind in ["seccompProfile", "appArmorProfile"] {
        if context[kind]["type"].as_str().is_some_and(|it| it == "Unconfined") {
            no(format!("{pointer}/{kind}/type"), "\"RuntimeDefault\" or \"Localhost\"");
        }
    }
    let selinux = &context["seLinuxOptions"];
    if selinux["type"].as_str().is_some_and(|it| !it.is_empty() && !SELINUX_TYPES.contains(&it)) {
        no(format!("{pointer}/seLinuxOptions/type"), "\"container_t\" and its kin");
    }
    for key in ["user", "role"] {
        if selinux[key].as_str().is_some_and(|it| !it.is_empty()) {
            no(format!("{pointer}/seLinuxOptions/{key}"), "none");
        }
    }
    if context["windowsOptions"]["hostProcess"] == true {
        no(format!("{pointer}/windowsOptions/hostProcess"), "false");
    }
}
