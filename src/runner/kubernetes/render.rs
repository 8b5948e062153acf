//! What a launch would send, without a launch. Pure.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{convert, files};
use crate::domain::failure::Failure;
use crate::domain::target::KubernetesBackend;
use crate::runner::{LaunchRequest, naming};

/// Stand for what is new at each launch.
const NONCE: &str = "00000000";
const UID: &str = "00000000-0000-0000-0000-000000000000";
const MASK: &str = "***";

/// The name of the pod, the pod, and its Secrets without what is in their files.
pub fn render(
    request: &LaunchRequest<'_>,
    backend: &KubernetesBackend,
) -> Result<(String, Value, Vec<Value>), Failure> {
    let pod = convert::pod(request, &convert::Rules::of(backend), NONCE)?;
    let mut secrets = convert::more_secrets(request, NONCE, UID);
    secrets.push(convert::gate(request, NONCE, UID));
    let name = naming::sandbox_name(&request.key);
    let pod = serde_json::to_value(pod).unwrap_or_default();
    Ok((name, pod, secrets.into_iter().map(masked).collect()))
}

fn masked(mut secret: Secret) -> Value {
    let data = secret.data.take().unwrap_or_default();
    let shown = |(key, value): (String, k8s_openapi::ByteString)| {
        let open = (key == files::ATTEMPT_KEY).then(|| String::from_utf8(value.0).ok()).flatten();
        (key, json!(open.unwrap_or_else(|| MASK.to_owned())))
    };
    let data: serde_json::Map<_, _> = data.into_iter().map(shown).collect();
    let mut secret = serde_json::to_value(secret).unwrap_or_default();
    secret["stringData"] = Value::Object(data);
    secret
}
