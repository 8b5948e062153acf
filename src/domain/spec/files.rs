//! The parts of the document that name files and outputs.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::parse::{Limits, absolute};
use super::reader::escape;
use super::{Fault, InputFile, ObjectReader, OutputDecl, OutputSource};

const OUTPUTS: usize = 100;
const FILES: usize = 200;

pub(super) fn read_files(task: &mut ObjectReader<'_>, limits: &Limits) -> Vec<InputFile> {
    let mut files: Vec<InputFile> = Vec::new();
    let Some(items) = task.list("files") else { return files };
    if items.len() > FILES {
        task.fault(
            "files",
            "too_large",
            format!("{} files, at most {FILES} are taken", items.len()),
        );
        return files;
    }
    let base = task.pointer("files");
    for (index, item) in items.iter().enumerate() {
        let pointer = format!("{base}/{index}");
        let Some(mut file) = ObjectReader::open(item, pointer, task.faults()) else { continue };
        let read = read_file(&mut file);
        file.finish();
        let Some(read) = read else { continue };
        if files.iter().any(|it| it.path == read.path) {
            task.faults().push(Fault::new(
                format!("{base}/{index}/path"),
                "duplicate",
                format!("{:?} is there twice: keep one of the two", read.path),
            ));
        }
        files.push(read);
    }
    let total: usize = files.iter().map(|it| it.content.len()).sum();
    if total > limits.files_bytes {
        task.fault(
            "files",
            "too_large",
            format!(
                "the files have {total} bytes in all, at most {} are taken",
                limits.files_bytes
            ),
        );
    }
    files
}

fn read_file(file: &mut ObjectReader<'_>) -> Option<InputFile> {
    let path = match file.value("path") {
        None => {
            file.fault("path", "required", "\"path\" is required: write for example \"/in/a.txt\"");
            None
        }
        Some(_) => absolute(file, "path"),
    };
    if path.as_deref().is_some_and(|it| it.ends_with('/')) {
        file.fault("path", "invalid_value", "the path of a file does not end in \"/\"");
    }
    // Not `text()`: the content of a file may hold NUL characters.
    let content = match file.value("content") {
        Some(Value::String(text)) => Some(text.clone().into_bytes()),
        Some(other) => file.wrong("content", "a string", other),
        None => None,
    };
    let encoded = file.text("content_base64").and_then(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        file.checked("content_base64", bytes.map_err(|it| format!("not base64: {it}")))
    });
    let mode = match file.text("mode") {
        None => 0o644,
        Some(text) => {
            u32::from_str_radix(text, 8).ok().filter(|it| *it <= 0o7777).unwrap_or_else(|| {
                file.fault(
                    "mode",
                    "invalid_value",
                    format!("{text:?} is not a file mode: write \"0644\""),
                );
                0
            })
        }
    };
    let content = match (content, encoded) {
        (Some(_), Some(_)) => {
            file.fault("content", "conflict", "give \"content\" or \"content_base64\", not both");
            return None;
        }
        (None, None) => {
            if file.value("content").is_none() && file.value("content_base64").is_none() {
                file.fault(
                    "content",
                    "required",
                    "give \"content\", or \"content_base64\" for bytes",
                );
            }
            return None;
        }
        (Some(it), None) | (None, Some(it)) => it,
    };
    Some(InputFile { path: path?, content, mode })
}

pub(super) fn read_outputs(task: &mut ObjectReader<'_>) -> BTreeMap<String, OutputDecl> {
    let mut outputs = BTreeMap::new();
    let Some(map) = task.map("outputs") else { return outputs };
    if map.len() > OUTPUTS {
        task.fault(
            "outputs",
            "too_large",
            format!("{} outputs, at most {OUTPUTS} are taken", map.len()),
        );
        return outputs;
    }
    let base = task.pointer("outputs");
    for (name, value) in map {
        let pointer = format!("{base}/{}", escape(name));
        if !is_output_name(name) {
            task.faults().push(Fault::new(
                pointer,
                "invalid_value",
                format!(
                    "{name:?} can't name an output: use letters, digits, \"_\", \"-\" and \".\""
                ),
            ));
            continue;
        }
        let Some(mut decl) = ObjectReader::open(value, pointer, task.faults()) else { continue };
        let path = absolute(&mut decl, "path");
        let from = decl.choice("from", &[("last_line", false), ("all_lines", true)]);
        let required = decl.bool("required").unwrap_or(false);
        let source = match (path, from) {
            (Some(_), Some(_)) => {
                decl.fault("from", "conflict", "give \"path\" or \"from\", not both");
                OutputSource::Json
            }
            (Some(path), None) => OutputSource::Path(path),
            (None, Some(true)) => OutputSource::AllLines,
            (None, Some(false)) => OutputSource::LastLine,
            (None, None) => OutputSource::Json,
        };
        decl.finish();
        outputs.insert(name.clone(), OutputDecl { source, required });
    }
    outputs
}

/// Also the rule for the keys of the JSON object that a task writes.
pub fn is_output_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.'))
}
