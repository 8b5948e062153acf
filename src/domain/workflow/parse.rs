//! Reads the document.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::check::{Checker, below, tidied};
use super::fields::Layers;
use super::params::Params;
use super::task::{NODE_FIELDS, Task, positive};
use super::{FAULTS, Workflow};
use crate::domain::dag::NodeId;
use crate::domain::plan::{NodePlan, RunRules, Stage};
use crate::domain::spec::{Fault, Limits, ObjectReader, is_output_name, read_labels};
use crate::domain::template::{RunScope, Tree};

/// Of one document: a fan-out has its own, larger bound.
const MOST_TASKS: usize = 20_000;
const OUTPUTS: usize = 100;
const NAME_CHARS: usize = 128;

/// What each part of the document with tasks in it is called.
const STAGES: [(&str, Stage); 3] =
    [("tasks", Stage::Main), ("on_failure", Stage::OnFailure), ("on_exit", Stage::OnExit)];

/// Reads a document that somebody hands in.
pub fn parse(document: &Value, limits: &Limits) -> Result<Workflow, Vec<Fault>> {
    read(document, Depth::Full(limits))
}

/// Reads a document without knowing the deployment: its targets, and what those can't honour, are not looked at.
pub fn parse_offline(document: &Value) -> Result<Workflow, Vec<Fault>> {
    read(document, Depth::Offline)
}

/// Reads a document that was taken before. What its tasks are is not checked again: targets and limits may be others
/// by now, and that is for the task that they concern.
pub fn parse_stored(document: &Value) -> Result<Workflow, Vec<Fault>> {
    read(document, Depth::Stored)
}

/// How far what is to run is looked at.
#[derive(Debug, Clone, Copy)]
enum Depth<'l> {
    Full(&'l Limits),
    Offline,
    Stored,
}

impl Depth<'_> {
    fn check(self, name: &str, layers: &Layers<'_>) -> Vec<Fault> {
        match self {
            Self::Full(limits) => layers.check(name, &RunScope::UNKNOWN, limits),
            Self::Offline => {
                // No target is known, so that none is asked what it can honour.
                let limits = Limits { targets: Arc::default(), ..Limits::default() };
                let mut faults = layers.check(name, &RunScope::UNKNOWN, &limits);
                faults.retain(|it| it.code != "unknown_target");
                faults
            }
            Self::Stored => Vec::new(),
        }
    }
}

fn read(document: &Value, depth: Depth<'_>) -> Result<Workflow, Vec<Fault>> {
    let mut faults = Vec::new();
    let Some(mut it) = ObjectReader::open(document, String::new(), &mut faults) else {
        return Err(faults);
    };
    let name = read_name(&mut it);
    let description = it.text("description").map(str::to_owned);
    let params = Params::read(&mut it);
    let labels = read_labels(&mut it);
    let timeout = it.duration("timeout");
    let rules = RunRules {
        max_parallel: positive(&mut it, "max_parallel"),
        fail_fast: it.bool("fail_fast").unwrap_or(false),
    };
    let env = match it.map("env") {
        Some(_) => read_tree(&mut it, "env"),
        None => Tree::Plain(Value::Null),
    };
    let defaults = read_defaults(&mut it);
    let nodes = read_tasks(&mut it);
    let outputs = read_outputs(&mut it);
    it.finish();
    let Nodes { names, tasks, plans } = nodes;
    let mut checker = Checker::new(&names, &plans, &params);
    for (index, task) in tasks.iter().enumerate() {
        let node = NodeId(index as u32);
        let layers = Layers::new(&env, &defaults, task);
        checker.task(node, task, &layers, &mut faults);
        if !task.is_broken && faults.len() < 2 * FAULTS {
            faults.extend(depth.check(&names[index], &layers));
        }
    }
    for (name, tree) in &outputs {
        checker.output(&below("/outputs", name), tree, &mut faults);
    }
    let graph = checker.graph(&tasks, &mut faults);
    match graph {
        Some(graph) if faults.is_empty() => Ok(Workflow {
            name,
            description,
            params,
            labels,
            timeout,
            rules,
            graph: Arc::new(graph),
            nodes: plans.into(),
            tasks,
            defaults,
            env,
            outputs,
        }),
        _ => Err(tidied(faults)),
    }
}

fn read_tree(it: &mut ObjectReader<'_>, key: &'static str) -> Tree {
    let pointer = it.pointer(key);
    let value = it.value(key).unwrap_or(&Value::Null);
    Tree::read(value, &pointer, it.faults())
}

/// A name that a path can hold, and `name@3`.
fn read_name(it: &mut ObjectReader<'_>) -> Option<String> {
    let name = it.text("name")?;
    let is_part = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.');
    let is_name = (1..=NAME_CHARS).contains(&name.len())
        && name.bytes().all(is_part)
        && name.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
    if !is_name {
        let detail = format!(
            "{name:?} can't name a workflow: use at most {NAME_CHARS} letters, digits, \"_\", \"-\" and \".\", and begin with \
             a letter, a digit or \"_\""
        );
        it.fault("name", "invalid_value", detail);
    }
    Some(name.to_owned())
}

fn read_defaults(it: &mut ObjectReader<'_>) -> Vec<(String, Tree)> {
    let base = it.pointer("defaults");
    let mut defaults = Vec::new();
    for (key, value) in it.map("defaults").into_iter().flatten() {
        let pointer = below(&base, key);
        if NODE_FIELDS.contains(&key.as_str()) {
            let detail = format!("{key:?} is for each task to say: defaults are of what is to run");
            it.faults().push(Fault::new(pointer, "conflict", detail));
            continue;
        }
        defaults.push((key.clone(), Tree::read(value, &pointer, it.faults())));
    }
    defaults
}

#[derive(Default)]
struct Nodes {
    names: Vec<String>,
    tasks: Vec<Task>,
    plans: Vec<NodePlan>,
}

fn read_tasks(it: &mut ObjectReader<'_>) -> Nodes {
    let mut nodes = Nodes::default();
    let mut places: HashMap<String, &'static str> = HashMap::new();
    if it.value("tasks").is_none() {
        it.fault(
            "tasks",
            "required",
            "\"tasks\" is required: write for example {\"hello\": {\"image\": \"busybox:latest\"}}",
        );
    }
    for (part, stage) in STAGES {
        let Some(map) = it.map(part) else { continue };
        if stage == Stage::Main && map.is_empty() {
            it.fault(part, "invalid_value", "a workflow has at least one task");
        }
        if map.len() > MOST_TASKS {
            let detail = format!(
                "{} tasks, at most {MOST_TASKS} are taken: use \"matrix\" or \"for_each\"",
                map.len()
            );
            it.fault(part, "too_large", detail);
            continue;
        }
        let base = it.pointer(part);
        for (name, value) in map {
            let pointer = below(&base, name);
            if let Some(detail) = wrong_name(name) {
                it.faults().push(Fault::new(pointer.clone(), "invalid_value", detail));
            }
            if let Some(other) = places.insert(name.clone(), part) {
                let detail =
                    format!("{name:?} is a task of {other:?}, too: each name is there once");
                it.faults().push(Fault::new(pointer.clone(), "duplicate", detail));
                continue;
            }
            // A task that can't be read is still one that others may name.
            let read = Task::read(value, pointer.clone(), stage, it.faults());
            let empty = || {
                let plan = NodePlan { stage, ..NodePlan::default() };
                Task::read(&Value::Object(serde_json::Map::new()), pointer, stage, &mut Vec::new())
                    .map(|(task, _)| (Task { is_broken: true, ..task }, plan))
            };
            if let Some((task, plan)) = read.or_else(empty) {
                nodes.names.push(name.clone());
                nodes.tasks.push(task);
                nodes.plans.push(plan);
            }
        }
    }
    nodes
}

/// What is wrong with the name of a task.
fn wrong_name(name: &str) -> Option<String> {
    const YAML: [&str; 12] =
        ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~", ""];
    if YAML.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(format!(
            "{name:?} is a boolean or nothing to many readers of YAML, and can't name a task, in quotes or without: write \
             for example \"task_{}\"",
            name.trim_start_matches('~')
        ));
    }
    let mut bytes = name.bytes();
    let is_name = name.len() <= 63
        && bytes.next().is_some_and(|it| it.is_ascii_alphabetic() || it == b'_')
        && bytes.all(|it| it.is_ascii_alphanumeric() || it == b'_' || it == b'-');
    let shown: String = name.chars().take(80).collect();
    (!is_name).then(|| {
        format!(
            "{shown:?} can't name a task: use at most 63 letters, digits, \"_\" and \"-\", and begin with a letter or \"_\""
        )
    })
}

fn read_outputs(it: &mut ObjectReader<'_>) -> Vec<(String, Tree)> {
    let mut outputs = BTreeMap::new();
    let base = it.pointer("outputs");
    let Some(map) = it.map("outputs") else { return Vec::new() };
    if map.len() > OUTPUTS {
        it.fault(
            "outputs",
            "too_large",
            format!("{} outputs, at most {OUTPUTS} are taken", map.len()),
        );
    }
    for (name, value) in map.iter().take(OUTPUTS) {
        let pointer = below(&base, name);
        if !is_output_name(name) {
            let detail = format!(
                "{name:?} can't name an output: use letters, digits, \"_\", \"-\" and \".\""
            );
            it.faults().push(Fault::new(pointer.clone(), "invalid_value", detail));
        }
        outputs.insert(name.clone(), Tree::read(value, &pointer, it.faults()));
    }
    outputs.into_iter().collect()
}
