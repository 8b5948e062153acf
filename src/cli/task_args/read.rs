//! What the command line takes from files and from its environment.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::usage;
use crate::cli::client::Error;

pub(super) fn read_document(path: &Path) -> Result<Map<String, Value>, Error> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        ("stdin".into(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (path.to_string_lossy(), std::fs::read_to_string(path))
    };
    let text = text.map_err(|error| usage(format!("can't read {name}: {error}")))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(task)) => Ok(task),
        Ok(_) => Err(usage(format!("{name} is not a task: write an object, {{\"image\": …}}"))),
        Err(error) => Err(usage(format!("{name} is not JSON: {error}"))),
    }
}

pub(super) fn inherited(name: &str) -> Result<String, Error> {
    std::env::var_os(name)
        .and_then(|it| it.into_string().ok())
        .ok_or_else(|| usage(format!("--env {name}: it has no value here: write {name}=VALUE")))
}

/// `./a.txt:/in/a.txt`. The path in the container is absolute, so that the colon before its slash
/// is the border, whatever the name here holds.
pub(super) fn input_file(text: &str) -> Result<Value, Error> {
    let (here, there) =
        text.rsplit_once(":/").filter(|(here, _)| !here.is_empty()).ok_or_else(|| {
            usage(format!("--file {text}: write HERE:/THERE, as in ./a.txt:/in/a.txt"))
        })?;
    let bytes = std::fs::read(here)
        .map_err(|error| usage(format!("--file: can't read {here}: {error}")))?;
    let mut file = json!({"path": format!("/{there}")});
    match String::from_utf8(bytes) {
        Ok(text) => file["content"] = json!(text),
        Err(error) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
            file["content_base64"] = json!(encoded);
        }
    }
    if is_executable(here) {
        file["mode"] = json!("0755");
    }
    Ok(file)
}

fn is_executable(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o100 != 0)
}
