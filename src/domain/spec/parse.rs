//! The rules of the task document: from JSON to a [`TaskSpec`], or to every fault in it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "JSON has six kinds of values, and always will"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::files::{read_files, read_outputs};
use super::kubernetes::read_kubernetes;
use super::{
    Cleanup, Fault, KubernetesOptions, ObjectReader, PullPolicy, Resources, Retries, TaskSpec,
    Timeouts, capability, escape, suggest,
};
use crate::domain::quantity;
use crate::domain::target::{
    Backend, DockerBackend, LOCAL, Placement, SIMULATED, Target, read_labels as read_target_labels,
};
use crate::domain::trace::TraceContext;
use crate::domain::work::{OnDuplicate, RunKey, Work};

/// What a deployment allows and fills in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Used where the document names none.
    pub default_target: String,
    /// Every target there is, by its name.
    pub targets: Arc<BTreeMap<String, Target>>,
    /// `NAME=value` with its end, in bytes. The kernel refuses more than 128 KiB.
    pub env_value_bytes: usize,
    pub files_bytes: usize,
    /// What is wrong with a pod template beside what is known here, with pointers into it. None: nobody knows.
    pub pod_template: Option<fn(&Value) -> Vec<Fault>>,
}

impl Limits {
    /// The faults of the template that stands at `pointer`.
    pub fn check_template(&self, template: &Value, pointer: &str) -> Vec<Fault> {
        let found = self.pod_template.map(|it| it(template)).unwrap_or_default();
        let placed = |it: Fault| Fault { pointer: format!("{pointer}{}", it.pointer), ..it };
        found.into_iter().map(placed).collect()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_target: LOCAL.to_owned(),
            targets: Arc::new(
                [
                    (LOCAL, Backend::Docker(DockerBackend::default())),
                    (SIMULATED, Backend::Simulated),
                ]
                .into_iter()
                .map(|(name, backend)| (name.to_owned(), Target::plain(backend)))
                .collect(),
            ),
            env_value_bytes: 128 << 10,
            files_bytes: 4 << 20,
            pod_template: None,
        }
    }
}

const DEFAULT_PLATFORM_RETRIES: u32 = 3;
const NAME_CHARS: usize = 255;
const LABELS: usize = 64;
const LABEL_CHARS: usize = 255;

/// What a submitted document says: what to run, and which work that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub spec: TaskSpec,
    /// Of the document's `run_key`.
    pub work: Option<Work>,
}

/// Reads a task document for what it runs.
pub fn parse(document: &Value, limits: &Limits) -> Result<TaskSpec, Vec<Fault>> {
    parse_submission(document, limits).map(|it| it.spec)
}

/// Reads a task document.
pub fn parse_submission(document: &Value, limits: &Limits) -> Result<Submission, Vec<Fault>> {
    let mut faults = Vec::new();
    let read = ObjectReader::open(document, String::new(), &mut faults).map(|mut task| {
        let spec = read_task(&mut task, limits);
        let work = read_work(&mut task);
        task.finish();
        Submission { spec, work }
    });
    match read {
        Some(it) if faults.is_empty() => match unsupported(&it.spec, limits) {
            none if none.is_empty() => Ok(it),
            faults => Err(faults),
        },
        _ => Err(faults),
    }
}

/// What a target that may get the task can't honour. Each that has the labels has to be able to.
pub(in crate::domain) fn unsupported(spec: &TaskSpec, limits: &Limits) -> Vec<Fault> {
    let mut fits = limits.targets.iter().filter(|(name, it)| spec.target.matches(name, it));
    let faults = fits.find_map(|(name, it)| {
        Some(capability::faults(spec, name, &it.backend)).filter(|it| !it.is_empty())
    });
    faults.unwrap_or_default()
}

/// Reads the fields that say what to run, of an object that may have others.
pub(in crate::domain) fn read_task(task: &mut ObjectReader<'_>, limits: &Limits) -> TaskSpec {
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
    let retries = task.object("retries", read_retries).unwrap_or_default();
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
    let trace = read_trace(task);
    let kubernetes = task
        .object("kubernetes", |it| read_kubernetes(it, limits))
        .filter(|it| *it != KubernetesOptions::default());
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
        retries,
        platform_retries,
        skip_on_exit_codes,
        at_most_once,
        outputs,
        labels,
        priority,
        cleanup,
        trace,
        kubernetes,
    }
}

fn read_retries(it: &mut ObjectReader<'_>) -> Retries {
    let default = Retries::default();
    let max = it.integer("max", 0, 100).and_then(|it| u32::try_from(it).ok()).unwrap_or(0);
    let (initial, longest) =
        it.object("backoff", |it| (it.duration("initial"), it.duration("max"))).unwrap_or_default();
    let backoff_initial = initial.unwrap_or(default.backoff_initial);
    let backoff_max = match (initial, longest) {
        // Whoever names the first wait alone does not want it cut.
        (Some(initial), None) => default.backoff_max.max(initial),
        (_, longest) => longest.unwrap_or(default.backoff_max),
    };
    if backoff_max < backoff_initial {
        it.fault(
            "backoff",
            "out_of_range",
            "the longest wait \"max\" is shorter than the first one: raise \"max\" or lower \"initial\"",
        );
    }
    Retries {
        max,
        backoff_initial,
        backoff_max,
        on_exit_codes: read_exit_codes(it, "on_exit_codes"),
        on_unconfirmed: it.bool("on_unconfirmed").unwrap_or(false),
    }
}

fn read_work(task: &mut ObjectReader<'_>) -> Option<Work> {
    let on_duplicate = task.choice("on_duplicate", &OnDuplicate::ALL.map(|it| (it.as_str(), it)));
    let has_key = task.value("run_key").is_some();
    if !has_key && on_duplicate.is_some() {
        task.fault(
            "on_duplicate",
            "conflict",
            "\"on_duplicate\" says what becomes of a second submit with the same \"run_key\": give one, or leave it out",
        );
    }
    let key = task.text("run_key")?;
    let key = task.checked("run_key", RunKey::parse(key))?;
    Some(Work { key, on_duplicate: on_duplicate.unwrap_or_default() })
}

fn read_trace(task: &mut ObjectReader<'_>) -> Option<TraceContext> {
    let (parent, state) = (task.text("traceparent"), task.text("tracestate"));
    let trace = TraceContext::parse(parent?, state);
    if trace.is_none() {
        let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        task.fault(
            "traceparent",
            "invalid_value",
            format!("not a W3C traceparent such as {example:?}"),
        );
    }
    trace
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

pub(in crate::domain) fn absolute(
    reader: &mut ObjectReader<'_>,
    key: &'static str,
) -> Option<String> {
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
        schedule: it.duration("schedule").unwrap_or(default.schedule),
        pull: it.duration("pull").unwrap_or(default.pull),
        start: it.duration("start").unwrap_or(default.start),
        run: it.duration("run"),
        stop_grace: it.duration("stop_grace").unwrap_or(default.stop_grace),
        finish: it.duration("finish").unwrap_or(default.finish),
    }
}

fn read_target(task: &mut ObjectReader<'_>, limits: &Limits) -> Placement {
    match task.value("target") {
        Some(Value::Object(_)) => read_selector(task, limits),
        Some(_) => {
            let Some(target) = task.text("target") else { return Placement::Named(String::new()) };
            if !limits.targets.contains_key(target) {
                let known: Vec<&str> = limits.targets.keys().map(String::as_str).collect();
                let hint = suggest(target, &known);
                let detail = format!("no target {target:?}{hint}: there is {}", known.join(", "));
                task.fault("target", "unknown_target", detail);
            }
            Placement::Named(target.to_owned())
        }
        None => {
            let target = &limits.default_target;
            if !limits.targets.contains_key(target) {
                let known: Vec<&str> = limits.targets.keys().map(String::as_str).collect();
                let detail = format!(
                    "the task names no target, and the default one of this service, {target:?}, is not there: \
                     name one of {}",
                    known.join(", ")
                );
                task.fault("target", "unknown_target", detail);
            }
            Placement::Named(target.clone())
        }
    }
}

/// `{"labels": {"gpu": "yes"}}`: any target that has them.
fn read_selector(task: &mut ObjectReader<'_>, limits: &Limits) -> Placement {
    let before = task.faults().len();
    let labels = task.object("target", |it| {
        let labels = read_target_labels(it, "labels");
        if labels.is_empty() && it.value("labels").is_none_or(|it| it == &json!({})) {
            let detail = "say which labels the target is to have, such as {\"gpu\": \"yes\"}, or name a target";
            it.fault("labels", "required", detail);
        }
        labels
    });
    let placement = Placement::Labels(labels.unwrap_or_default());
    let mut targets = limits.targets.iter();
    if task.faults().len() == before && !targets.any(|(name, it)| placement.matches(name, it)) {
        let known: BTreeSet<String> = limits
            .targets
            .values()
            .flat_map(|it| it.labels.iter().map(|(key, value)| format!("{key}={value}")))
            .collect();
        let known = if known.is_empty() {
            "no target has labels".to_owned()
        } else {
            format!("there is {}", known.into_iter().collect::<Vec<_>>().join(", "))
        };
        let detail = format!("no target has the labels {placement}: {known}");
        task.fault("target", "unknown_target", detail);
    }
    placement
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

pub(in crate::domain) fn read_labels(task: &mut ObjectReader<'_>) -> BTreeMap<String, String> {
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
