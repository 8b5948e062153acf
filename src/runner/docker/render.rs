//! What a launch would send, without a launch. Pure.

use serde_json::Value;

use super::convert;
use crate::runner::{LaunchRequest, naming};

/// The name of the container, and the body of the create call.
pub fn render(request: &LaunchRequest<'_>, log_max_bytes: u64) -> (String, Value) {
    let body = convert::create_body(request, log_max_bytes);
    (naming::sandbox_name(&request.key), serde_json::to_value(body).unwrap_or_default())
}
