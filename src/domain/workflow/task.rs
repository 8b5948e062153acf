//! One task of a workflow: what it says besides what is to run.

use serde_json::{Map, Value};

use super::items::Items;
use crate::domain::plan::{NodePlan, Stage, Trigger};
use crate::domain::spec::{Fault, ObjectReader, absolute};
use crate::domain::template::{Reference, RunScope, Template, Tree};

/// The fields that say when and how often a task runs; the others say what.
pub(super) const NODE_FIELDS: [&str; 12] = [
    "needs",
    "depends_on",
    "when",
    "trigger",
    "matrix",
    "for_each",
    "max_parallel",
    "fail_fast",
    "allow_failure",
    "inputs",
    "workflow",
    "params",
];

/// A file that another task hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub task: String,
    pub output: String,
    /// Where it is put, absolute.
    pub path: String,
}

#[derive(Debug)]
pub(super) enum When {
    Always(bool),
    Asks(Template),
}

/// A task as the document says it.
#[derive(Debug)]
pub struct Task {
    pub inputs: Vec<Input>,
    pub(super) pointer: String,
    /// What is to run; the pointers of these are below the task's.
    pub(super) fields: Vec<(String, Tree)>,
    pub(super) items: Items,
    pub(super) asks_for_params: bool,
    /// What it is to run can't be looked at, which has been said.
    pub(super) is_broken: bool,
    pub(super) when: Option<When>,
    /// As they are written, with their pointers.
    pub(super) needs: Vec<(String, String)>,
}

impl Task {
    /// Reads all but the fields that say what is to run: those are looked at together with the defaults.
    pub(super) fn read(
        value: &Value,
        pointer: String,
        stage: Stage,
        faults: &mut Vec<Fault>,
    ) -> Option<(Self, NodePlan)> {
        let mut it = ObjectReader::open(value, pointer.clone(), faults)?;
        let needs = read_needs(&mut it);
        let when = read_when(&mut it);
        let triggers = Trigger::ALL.map(|it| (it.as_str(), it));
        let trigger = it.choice("trigger", &triggers).unwrap_or_default();
        let (items, fan_out) = Items::read(&mut it);
        let max_parallel = positive(&mut it, "max_parallel");
        let fail_fast = it.bool("fail_fast").unwrap_or(true);
        let allow_failure = it.bool("allow_failure").unwrap_or(false);
        let inputs = read_inputs(&mut it);
        let calls = it.value("workflow").is_some();
        if calls {
            it.fault(
                "workflow",
                "not_supported",
                "a workflow as a task is not supported yet: write its tasks out",
            );
        } else if it.value("params").is_some() {
            it.fault(
                "params",
                "conflict",
                "\"params\" are those of a \"workflow\": a task gets values by references",
            );
        }
        if it.value("run_key").is_some() || it.value("on_duplicate").is_some() {
            let key = if it.value("run_key").is_some() { "run_key" } else { "on_duplicate" };
            it.fault(
                key,
                "conflict",
                "a key names a whole run: give it where the run is submitted",
            );
        }
        let mut fields = Vec::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            let is_ours =
                NODE_FIELDS.contains(&key.as_str()) || key == "run_key" || key == "on_duplicate";
            if !is_ours {
                fields.push((key.clone(), Tree::read_field(value, &pointer, key, it.faults())));
            }
        }
        let condition = when.as_ref().is_some_and(|it| !matches!(it, When::Always(true)));
        let plan =
            NodePlan { trigger, condition, fan_out, max_parallel, fail_fast, allow_failure, stage };
        let mut task = Self {
            inputs,
            pointer,
            fields,
            items,
            asks_for_params: false,
            is_broken: calls,
            when,
            needs,
        };
        let mut asks = false;
        let mut look = |_: &str, it: &Template| {
            asks |= it.references().iter().any(|it| matches!(it, Reference::Param(_)));
        };
        task.fields.iter().for_each(|(_, it)| it.templates("", &mut look));
        if let Some((_, tree)) = task.items.tree() {
            tree.templates("", &mut look);
        }
        task.asks_for_params = asks;
        Some((task, plan))
    }

    pub(super) fn when(&self) -> Option<&Template> {
        match &self.when {
            Some(When::Asks(it)) => Some(it),
            Some(When::Always(_)) | None => None,
        }
    }

    pub(super) fn condition(&self, scope: &RunScope<'_>) -> Result<bool, Fault> {
        let template = match &self.when {
            None => return Ok(true),
            Some(When::Always(it)) => return Ok(*it),
            Some(When::Asks(it)) => it,
        };
        let wrong = |code, detail| Err(Fault::new(format!("{}/when", self.pointer), code, detail));
        match template.evaluate(scope) {
            Ok(Some(Value::Bool(it))) => Ok(it),
            Ok(Some(other)) => {
                let shown: String = other.to_string().chars().take(100).collect();
                let detail = format!(
                    "\"when\" must come to true or false, not to {} ({shown}): compare it, as in params.mode == \"full\"",
                    super::schema::kind_of(&other)
                );
                wrong("wrong_type", detail)
            }
            Ok(None) => wrong("template_failed", "its value is not known yet".to_owned()),
            Err(detail) => wrong("template_failed", detail),
        }
    }
}

pub(super) fn positive(it: &mut ObjectReader<'_>, key: &'static str) -> Option<u32> {
    it.integer(key, 1, i64::from(u32::MAX)).and_then(|it| u32::try_from(it).ok())
}

/// `needs`, or `depends_on` for those who are used to it: one name or a list.
fn read_needs(it: &mut ObjectReader<'_>) -> Vec<(String, String)> {
    let (needs, depends) = (it.value("needs"), it.value("depends_on"));
    if needs.is_some() && depends.is_some() {
        it.fault(
            "depends_on",
            "conflict",
            "\"needs\" and \"depends_on\" say the same: keep one of the two",
        );
    }
    let (key, value) = match (needs, depends) {
        (Some(value), _) => ("needs", value),
        (None, Some(value)) => ("depends_on", value),
        (None, None) => return Vec::new(),
    };
    let base = it.pointer(key);
    let mut names = Vec::new();
    match value {
        Value::String(name) => names.push((name.clone(), base)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let pointer = format!("{base}/{index}");
                match item {
                    Value::String(name) => names.push((name.clone(), pointer)),
                    other => {
                        let detail =
                            format!("{other} is no name of a task: write names as text, in quotes");
                        it.faults().push(Fault::new(pointer, "wrong_type", detail));
                    }
                }
            }
        }
        other => {
            it.wrong::<()>(key, "the name of a task, or a list of names", other);
        }
    }
    names
}

fn read_when(it: &mut ObjectReader<'_>) -> Option<When> {
    let read = match it.value("when")? {
        Value::Bool(always) => return Some(When::Always(*always)),
        Value::String(text) => Template::parse_bare(text),
        other => match from(other) {
            Some(text) => Template::parse_bare(text),
            None => return it.wrong("when", "an expression, such as \"params.full\"", other),
        },
    };
    match read {
        Ok(template) => Some(When::Asks(template)),
        Err(detail) => {
            it.fault("when", "invalid_template", detail);
            None
        }
    }
}

fn from(value: &Value) -> Option<&str> {
    let fields: &Map<String, Value> = value.as_object().filter(|it| it.len() == 1)?;
    fields.get("$from")?.as_str()
}

fn read_inputs(task: &mut ObjectReader<'_>) -> Vec<Input> {
    let base = task.pointer("inputs");
    let mut inputs: Vec<Input> = Vec::new();
    for (index, value) in task.list("inputs").into_iter().flatten().enumerate() {
        let pointer = format!("{base}/{index}");
        let Some(mut it) = ObjectReader::open(value, pointer, task.faults()) else { continue };
        let output = match it.value("from") {
            None => {
                it.fault(
                    "from",
                    "required",
                    "\"from\" says which output: write \"tasks.a.outputs.report\"",
                );
                None
            }
            Some(Value::String(text)) => output_of(text).or_else(|| {
                let detail = format!(
                    "{text:?} must be an output of a task, such as \"tasks.a.outputs.report\""
                );
                it.fault("from", "invalid_value", detail);
                None
            }),
            Some(other) => {
                it.wrong("from", "an output of a task, such as \"tasks.a.outputs.report\"", other)
            }
        };
        if it.value("path").is_none() {
            it.fault(
                "path",
                "required",
                "\"path\" says where the file is put: write \"/in/report.csv\"",
            );
        }
        let path = absolute(&mut it, "path");
        if let Some(path) = path.as_ref().filter(|path| inputs.iter().any(|it| it.path == **path)) {
            it.fault("path", "duplicate", format!("{path:?} is there twice: keep one of the two"));
        }
        it.finish();
        if let (Some((task, output)), Some(path)) = (output, path) {
            inputs.push(Input { task, output, path });
        }
    }
    inputs
}

fn output_of(text: &str) -> Option<(String, String)> {
    let template = Template::parse_bare(text).ok()?;
    match template.only_reference()? {
        Reference::TaskOutput { task, output } => Some((task.clone(), output.clone())),
        Reference::Param(_)
        | Reference::TaskState(_)
        | Reference::TaskExitCode(_)
        | Reference::TaskFailure(_)
        | Reference::RunId
        | Reference::RunName
        | Reference::RunState
        | Reference::Item
        | Reference::Matrix(_) => None,
    }
}
