//! The Secrets of a pod: the one whose creation starts it, and those that hold files of the task for which there
//! is no room in it. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::convert::MAIN;
use crate::domain::spec::InputFile;
use crate::domain::spec::capability::{SECRET_BYTES, plain_path};
use crate::runner::{LaunchRequest, naming};

/// In the gate: the number of the attempt, which every container waits for.
pub(super) const ATTEMPT_KEY: &str = "attempt";
const VOLUME: &str = "supercargo-files";

pub(super) fn gate_name(pod_name: &str, nonce: &str) -> String {
    format!("{pod_name}-{nonce}")
}

/// The Secret whose creation starts the pod, with the first of the files. The cluster removes it with the pod.
pub(super) fn gate(request: &LaunchRequest<'_>, nonce: &str, pod_uid: &str) -> Secret {
    let mut gate = secret(request, nonce, pod_uid, 0);
    let attempt = ByteString(request.attempt_no.to_string().into_bytes());
    gate.data.get_or_insert_default().insert(ATTEMPT_KEY.to_owned(), attempt);
    gate
}

/// The Secrets with the other files: to be made before the gate.
pub(super) fn more_secrets(request: &LaunchRequest<'_>, nonce: &str, pod_uid: &str) -> Vec<Secret> {
    (1..parts(&request.spec.files).len()).map(|at| secret(request, nonce, pod_uid, at)).collect()
}

/// The Secret in the gate's place that starts nothing: what every container waits for is not in it.
pub(super) fn void_gate(pod_name: &str, nonce: &str, pod_uid: &str) -> Secret {
    owned(gate_name(pod_name, nonce), pod_name, pod_uid)
}

fn secret(request: &LaunchRequest<'_>, nonce: &str, pod_uid: &str, part: usize) -> Secret {
    let files = &request.spec.files;
    let held = parts(files).into_iter().nth(part).unwrap_or_default();
    let contents =
        held.filter_map(|at| Some((file_key(at), ByteString(files.get(at)?.content.clone()))));
    let pod_name = naming::sandbox_name(&request.key);
    let mut secret = owned(part_name(&pod_name, nonce, part), &pod_name, pod_uid);
    // Nobody watches what can't change. The gate may be taken back, which its node must hear of.
    secret.immutable = (part > 0).then_some(true);
    secret.metadata.labels = Some(naming::labels(request));
    secret.data = Some(contents.collect::<BTreeMap<_, _>>());
    secret
}

/// The cluster removes it with its pod.
fn owned(name: String, pod_name: &str, pod_uid: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod_name.to_owned(),
                uid: pod_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn part_name(pod_name: &str, nonce: &str, part: usize) -> String {
    match part {
        0 => gate_name(pod_name, nonce),
        part => format!("{}-{part}", gate_name(pod_name, nonce)),
    }
}

fn file_key(index: usize) -> String {
    format!("file-{index}")
}

/// Which files are together in a Secret: in their order, as many as there is room for.
fn parts(files: &[InputFile]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, file) in files.iter().enumerate() {
        let more = file.content.len();
        if bytes + more > SECRET_BYTES && index > start {
            parts.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += more;
    }
    parts.push(start..files.len());
    parts
}

/// The volume with all files, and the place of each in the main container.
pub(super) fn layer(request: &LaunchRequest<'_>, nonce: &str) -> Value {
    let files = &request.spec.files;
    if files.is_empty() {
        return json!({});
    }
    let pod_name = naming::sandbox_name(&request.key);
    let source = |(part, held): (usize, Range<usize>)| {
        let item = |at: usize| {
            let mode = files.get(at).map(|it| it.mode);
            json!({"key": file_key(at), "path": at.to_string(), "mode": mode})
        };
        let items: Vec<_> = held.map(item).collect();
        json!({"secret": {"name": part_name(&pod_name, nonce, part), "items": items}})
    };
    let sources: Vec<_> = parts(files).into_iter().enumerate().map(source).collect();
    // One by one: a volume in the place of their folder would hide what the image has there.
    let mount = |(at, it): (usize, &InputFile)| {
        json!({
            "name": VOLUME,
            "mountPath": plain_path(&it.path),
            "subPath": at.to_string(),
            "readOnly": true,
        })
    };
    let mounts: Vec<_> = files.iter().enumerate().map(mount).collect();
    json!({"spec": {
        "volumes": [{"name": VOLUME, "projected": {"sources": sources}}],
        "containers": [{"name": MAIN, "volumeMounts": mounts}],
    }})
}
