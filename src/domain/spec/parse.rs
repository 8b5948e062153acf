//! The rules of the task document: from JSON to a [`TaskSpec`], or to every fault in it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "JSON has six kinds of values, and always will"
)]

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::reader::escape;
use super::{
    Cleanup, Fault, InputFile, ObjectReader, OutputDecl, OutputSource, PullPolicy, Resources,
    TaskSpec, Timeouts, suggest,
};
use crate::domain::quantity;

/// What a deployment allows and fills in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Used where the document names none.
    pub default_target: String,
    /// Every target there is.
    pub targets: Vec<String>,
    /// `NAME=value` with its end, in bytes. The kernel refuses more than 128 KiB.
    pub env_value_bytes: usize,
    pub files_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_target: "local".to_owned(),
            targets: vec!["local".to_owned(), "simulated".to_owned()],
            env_value_bytes: 128 << 10,
            files_bytes: 4 << 20,
        }
    }
}

const DEFAULT_PLATFORM_RETRIES: u32 = 3;
const NAME_CHARS: usize = 255;
const LABELS: usize = 64;
const LABEL_CHARS: usize = 255;
const OUTPUTS: usize = 100;
const FILES: usize = 200;

/// Reads a task document.
pub fn parse(document: &Value, limits: &Limits) -> Result<TaskSpec, Vec<Fault>> {
    let mut faults = Vec::new();
    let spec = ObjectReader::open(document, String::new(), &mut faults).map(|mut task| {
        let spec = read_task(&mut task, limits);
        task.finish();
        spec
    });
    match spec {
        Some(spec) if faults.is_empty() => Ok(spec),
        _ => Err(faults),
    }
}

fn read_task(task: &mut ObjectReader<'_>, limits: &Limits) -> TaskSpec {
    // In the order of the documentation: an unknown field's message lists them so.
    let name = read_name(task);
    let image = read_image(task);
    let entrypoint = words(task, "entrypoint", limits);
    let mut command = words(task, "command", limits);
    if let Some(args) = words(task, "args", limits) {
        command.get_or_insert_default().extend(args);
    }
    let env = read_env(task, limits);
    let files = read_files(task, limits);
    let workdir = absolute(task, "workdir");
    let user = task.text("user").map(str::to_owned);
    if user.as_deref() == Some("") {
        task.fault(
            "user",
            "invalid_value",
            "\"user\" is empty: write \"1000\", \"1000:1000\" or a name",
        );
    }
    let resources = task.object("resources", read_resources).unwrap_or_default();
    let init = task.bool("init").unwrap_or(false);
    let target = read_target(task, limits);
    let pull_policy = task
        .choice(
            "pull_policy",
            &[
                ("always", PullPolicy::Always),
                ("if_not_present", PullPolicy::IfNotPresent),
                ("never", PullPolicy::Never),
            ],
        )
        .unwrap_or_default();
    let timeouts = task.object("timeouts", read_timeouts).unwrap_or_default();
    let platform_retries = task
        .integer("platform_retries", 0, 100)
        .and_then(|it| u32::try_from(it).ok())
        .unwrap_or(DEFAULT_PLATFORM_RETRIES);
    let skip_on_exit_codes = read_exit_codes(task, "skip_on_exit_codes");
    let at_most_once = task.bool("at_most_once").unwrap_or(false);
    let outputs = read_outputs(task);
    let labels = read_labels(task);
    let priority = task
        .integer("priority", i16::MIN.into(), i16::MAX.into())
        .and_then(|it| i16::try_from(it).ok())
        .unwrap_or(0);
    let cleanup = task
        .choice(
            "cleanup",
            &[
                ("always", Cleanup::Always),
                ("on_success", Cleanup::OnSuccess),
                ("never", Cleanup::Never),
            ],
        )
        .unwrap_or_default();
    let name = name.unwrap_or_else(|| name_of_image(&image));
    TaskSpec {
        name,
        image,
        entrypoint,
        command,
        env,
        files,
        workdir,
        user,
        resources,
        init,
        target,
        pull_policy,
        timeouts,
        platform_retries,
        skip_on_exit_codes,
        at_most_once,
        outputs,
        labels,
        priority,
        cleanup,
    }
}

fn read_name(task: &mut ObjectReader<'_>) -> Option<String> {
    let name = task.text("name")?;
    if name.is_empty() || name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
        task.fault(
            "name",
            "invalid_value",
            format!("a name has 1 to {NAME_CHARS} characters and no control characters"),
        );
        return None;
    }
    Some(name.to_owned())
}

/// `registry:5000/team/busybox:1.36@sha256:…` → `busybox`.
fn name_of_image(image: &str) -> String {
    let path = image.split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default().to_owned()
}

fn read_image(task: &mut ObjectReader<'_>) -> String {
    let image = match task.value("image") {
        None => {
            task.fault(
                "image",
                "required",
                "\"image\" is required: write for example \"busybox:latest\"",
            );
            return String::new();
        }
        Some(_) => task.text("image").unwrap_or_default(),
    };
    let has_value = !image.is_empty();
    if !has_value {
        // A wrong type was reported already; an empty string was not.
        if task.value("image").is_some_and(|it| it.as_str() == Some("")) {
            task.fault(
                "image",
                "invalid_value",
                "\"image\" is empty: write for example \"busybox:latest\"",
            );
        }
    } else if image.chars().any(|it| it.is_whitespace() || it.is_control()) || image.len() > 4_096 {
        task.fault(
            "image",
            "invalid_value",
            format!("{image:?} is not an image name: leave out the spaces"),
        );
    }
    image.to_owned()
}

/// A list of words, or a string split as a shell splits words.
fn words(task: &mut ObjectReader<'_>, key: &'static str, limits: &Limits) -> Option<Vec<String>> {
    let value = task.value(key)?;
    let words: Vec<String> = match value {
        Value::String(text) if text.contains('\0') => {
            task.fault(
                key,
                "invalid_value",
                format!("{key:?} holds a NUL character: leave it out"),
            );
            return None;
        }
        Value::String(text) => {
            if let Some(words) = shlex::split(text) {
                words
            } else {
                task.fault(
                key,
                "invalid_value",
                format!("{key:?} can't be split into words: a quote is not closed; a list of words is clearer"),
            );
                return None;
            }
        }
        Value::Array(items) => {
            let mut words = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let pointer = format!("{}/{index}", task.pointer(key));
                match item {
                    Value::String(text) if text.contains('\0') => task.faults().push(Fault::new(
                        pointer,
                        "invalid_value",
                        format!("word {index} of {key:?} holds a NUL character: leave it out"),
                    )),
                    Value::String(text) => words.push(text.clone()),
                    Value::Number(it) => words.push(it.to_string()),
                    Value::Bool(it) => words.push(it.to_string()),
                    Value::Null | Value::Array(_) | Value::Object(_) => {
                        task.faults().push(Fault::new(
                            pointer,
                            "wrong_type",
                            format!("word {index} of {key:?} must be a string"),
                        ));
                    }
                }
            }
            words
        }
        other => return task.wrong(key, "a list of words or a string", other),
    };
    if let Some(index) = words.iter().position(|it| it.len() >= limits.env_value_bytes) {
        task.fault(
            key,
            "too_large",
            format!(
                "word {index} of {key:?} has {} bytes, the kernel takes less than {}: use \"files\"",
                words[index].len(),
                limits.env_value_bytes
            ),
        );
    }
    Some(words)
}

fn read_env(task: &mut ObjectReader<'_>, limits: &Limits) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, value) in task.map("env").into_iter().flatten() {
        let pointer = format!("{}/{}", task.pointer("env"), escape(name));
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(it) => it.to_string(),
            Value::Bool(it) => it.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                task.faults().push(Fault::new(
                    pointer,
                    "wrong_type",
                    format!("the value of {name:?} must be text, a number or a boolean"),
                ));
                continue;
            }
        };
        let fault = if name.is_empty() || name.contains(['=', '\0']) {
            Some((
                "invalid_value",
                format!("{name:?} can't be the name of an environment variable"),
            ))
        } else if text.contains('\0') {
            Some((
                "invalid_value",
                format!("the value of {name:?} holds a NUL character: leave it out"),
            ))
        } else if name.len() + text.len() + 2 > limits.env_value_bytes {
            Some((
                "too_large",
                format!(
                    "{name:?} has {} bytes, more than the {} that the kernel takes: put it into \"files\"",
                    text.len(),
                    limits.env_value_bytes
                ),
            ))
        } else {
            None
        };
        match fault {
            Some((code, detail)) => task.faults().push(Fault::new(pointer, code, detail)),
            None => {
                env.insert(name.clone(), text);
            }
        }
    }
    env
}

fn read_files(task: &mut ObjectReader<'_>, limits: &Limits) -> Vec<InputFile> {
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

fn absolute(reader: &mut ObjectReader<'_>, key: &'static str) -> Option<String> {
    let path = reader.text(key)?;
    if !path.starts_with('/') || path.split('/').any(|it| it == "..") || path.len() > 4_000 {
        reader.fault(
            key,
            "invalid_value",
            format!("{path:?} must be an absolute path without \"..\", such as \"/in/a.txt\""),
        );
        return None;
    }
    Some(path.to_owned())
}

fn read_resources(it: &mut ObjectReader<'_>) -> Resources {
    Resources {
        cpu_millis: quantity_field(it, "cpu", quantity::parse_cpu_millis),
        memory_bytes: quantity_field(it, "memory", quantity::parse_bytes).and_then(|bytes| {
            // Less than the runtime itself needs to set up the container.
            const LEAST: i64 = 6 << 20;
            if bytes < LEAST {
                it.fault(
                    "memory",
                    "out_of_range",
                    "less than 6Mi starts no container: ask for more",
                );
                return None;
            }
            Some(bytes)
        }),
        pids: it.integer("pids", 1, 4_194_304),
    }
}

fn quantity_field(
    reader: &mut ObjectReader<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<i64, String>,
) -> Option<i64> {
    let value = reader.value(key)?;
    match value {
        Value::String(text) => reader.checked(key, parse(text)),
        Value::Number(number) => reader.checked(key, parse(&number.to_string())),
        other => reader.wrong(key, "a quantity such as \"500m\" or \"256Mi\"", other),
    }
}

fn read_timeouts(it: &mut ObjectReader<'_>) -> Timeouts {
    let default = Timeouts::default();
    if it.value("run").is_some_and(|run| run == "0s") {
        it.fault(
            "run",
            "out_of_range",
            "a run of 0s ends before it begins: leave \"run\" out for no limit",
        );
    }
    Timeouts {
        queue: it.duration("queue"),
        pull: it.duration("pull").unwrap_or(default.pull),
        start: it.duration("start").unwrap_or(default.start),
        run: it.duration("run"),
        stop_grace: it.duration("stop_grace").unwrap_or(default.stop_grace),
        finish: it.duration("finish").unwrap_or(default.finish),
    }
}

fn read_target(task: &mut ObjectReader<'_>, limits: &Limits) -> String {
    let Some(target) = task.text("target") else { return limits.default_target.clone() };
    if !limits.targets.iter().any(|it| it == target) {
        let known: Vec<&str> = limits.targets.iter().map(String::as_str).collect();
        task.fault(
            "target",
            "unknown_target",
            format!(
                "no target {target:?}{}: there is {}",
                suggest(target, &known),
                known.join(", ")
            ),
        );
    }
    target.to_owned()
}

fn read_exit_codes(task: &mut ObjectReader<'_>, key: &'static str) -> Vec<i32> {
    let mut codes = Vec::new();
    for (index, item) in task.list(key).into_iter().flatten().enumerate() {
        match item.as_i64().and_then(|it| i32::try_from(it).ok()) {
            Some(code) if (1..=255).contains(&code) => codes.push(code),
            _ => {
                let pointer = format!("{}/{index}", task.pointer(key));
                task.faults().push(Fault::new(
                    pointer,
                    "out_of_range",
                    format!("{item} is not an exit code from 1 to 255"),
                ));
            }
        }
    }
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn read_outputs(task: &mut ObjectReader<'_>) -> BTreeMap<String, OutputDecl> {
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

fn read_labels(task: &mut ObjectReader<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(map) = task.map("labels") else { return labels };
    if map.len() > LABELS {
        task.fault(
            "labels",
            "too_large",
            format!("{} labels, at most {LABELS} are taken", map.len()),
        );
        return labels;
    }
    for (key, value) in map {
        let pointer = format!("{}/{}", task.pointer("labels"), escape(key));
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(it) => it.to_string(),
            Value::Bool(it) => it.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let detail = format!("the value of label {key:?} must be text");
                task.faults().push(Fault::new(pointer, "wrong_type", detail));
                continue;
            }
        };
        let bad = |it: &str| it.chars().count() > LABEL_CHARS || it.chars().any(char::is_control);
        if key.is_empty() || bad(key) || bad(&text) {
            let detail = format!(
                "a label has a name and at most {LABEL_CHARS} characters, without control characters"
            );
            task.faults().push(Fault::new(pointer, "invalid_value", detail));
        } else {
            labels.insert(key.clone(), text);
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(document: Value) -> TaskSpec {
        parse(&document, &Limits::default()).unwrap()
    }

    /// `pointer code: detail`, a line for each fault.
    fn faults(document: Value) -> String {
        let faults = parse(&document, &Limits::default()).unwrap_err();
        faults.iter().map(|it| format!("{} {}: {}\n", it.pointer, it.code, it.detail)).collect()
    }

    #[test]
    fn the_smallest_task_gets_every_default() {
        let spec = spec(json!({"image": "registry:5000/team/busybox:1.36"}));
        assert_eq!(spec.name, "busybox");
        assert_eq!(spec.target, "local");
        assert_eq!((spec.command, spec.entrypoint), (None, None));
        assert_eq!(spec.platform_retries, 3);
        assert_eq!(spec.timeouts, Timeouts::default());
        assert_eq!(spec.cleanup, Cleanup::Always);
    }

    #[test]
    fn a_command_is_a_list_or_is_split_as_a_shell_does() {
        let split =
            spec(json!({"image": "a", "command": "sh -c 'echo \"a b\"'", "args": ["x", 1, true]}));
        assert_eq!(split.command.unwrap(), ["sh", "-c", "echo \"a b\"", "x", "1", "true"]);
        assert_eq!(spec(json!({"image": "a", "command": []})).command, Some(vec![]));
        assert!(faults(json!({"image": "a", "command": "sh -c 'x"})).contains("quote"));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        insta::assert_snapshot!(faults(json!({
            "image": "", "comand": "x", "env": {"A": null, "B=": "x", "N": "a\u{0}"}, "command": ["a\u{0}", {}],
            "files": [{"path": "in/../a"}, {"content": "x"}, 3],
            "resources": {"cpu": "-1", "memory": "512m", "pids": 0, "gpu": 1},
            "timeouts": {"run": "-5s", "pull": 10}, "target": "locl", "pull_policy": "allways",
            "platform_retries": -1, "skip_on_exit_codes": [0, 256, "x"], "at_most_once": "yes",
            "outputs": {"a b": {}, "c": {"path": "x"}, "d": {"path": "/x", "from": "last_line"}, "e": {"from": "stdout"}},
            "labels": {"": "x", "l": []}, "priority": 99999, "cleanup": "later", "user": "", "workdir": "rel",
        })));
    }

    #[test]
    fn a_document_that_is_no_object_is_a_fault() {
        assert_eq!(faults(json!([])), " wrong_type: the document must be an object, not a list\n");
    }

    #[test]
    fn sizes_are_bounded() {
        let env = faults(json!({"image": "a", "env": {"BIG": "x".repeat(200 << 10)}}));
        assert!(env.starts_with("/env/BIG too_large"), "{env}");
        let arg = faults(json!({"image": "a", "command": ["x".repeat(200 << 10)]}));
        assert!(arg.starts_with("/command too_large"), "{arg}");
        let file = json!({"path": "/a", "content": "x".repeat(5 << 20)});
        assert!(faults(json!({"image": "a", "files": [file]})).starts_with("/files too_large"));
    }

    #[test]
    fn files_hold_any_bytes() {
        let files = spec(json!({"image": "a", "files": [
            {"path": "/in/a", "content": "a\u{0}b", "mode": "0755"},
            {"path": "/in/b", "content_base64": "/wAB"},
        ]}))
        .files;
        assert_eq!(files[0].content, b"a\0b");
        assert_eq!((files[0].mode, files[1].mode), (0o755, 0o644));
        assert_eq!(files[1].content, [255, 0, 1]);
    }

    #[test]
    fn a_stored_spec_reads_back_the_same() {
        let spec = spec(json!({
            "image": "a", "command": "x", "files": [{"path": "/f", "content": "a\u{0}"}],
            "timeouts": {"run": "1h30m", "queue": "5m"}, "outputs": {"r": {"path": "/r", "required": true}, "j": {}},
            "resources": {"cpu": 0.5, "memory": "64Mi"}, "labels": {"n": 1}, "cleanup": "never",
        }));
        let text = serde_json::to_string(&spec).unwrap();
        let back: TaskSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(back, spec);
        assert_eq!(back.hash(), spec.hash());
    }
}
