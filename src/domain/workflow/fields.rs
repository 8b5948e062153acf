//! What is to run: the fields of a task over the defaults of the workflow, over its `env`.
//!
//! Objects are put together by their keys, one level deep (`env`, `labels`, `resources` …); of everything else the task's
//! own stands. Null takes a default away. A fault points at where the value was written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::check::{below, is_at_or_below};
use super::task::{NODE_FIELDS, Task};
use crate::domain::spec::{Fault, Limits, ObjectReader, TaskSpec, read_task, unsupported};
use crate::domain::target::Placement;
use crate::domain::template::{Renderer, RunScope, Template, Tree, as_text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Env,
    Defaults,
    Own,
}

#[derive(Debug, Clone, Copy)]
enum Part<'w> {
    Tree(&'w Tree),
    Value(&'w Value),
}

impl Part<'_> {
    fn is_null(self) -> bool {
        matches!(self, Self::Value(Value::Null) | Self::Tree(Tree::Plain(Value::Null)))
    }
}

#[derive(Debug)]
enum Field<'w> {
    One(Part<'w>, Origin),
    /// By key, from several origins.
    Keys(BTreeMap<&'w str, (Part<'w>, Origin)>),
}

/// The fields of one task, as they stand in the document.
#[derive(Debug)]
pub(super) struct Layers<'w> {
    task: &'w Task,
    fields: BTreeMap<&'w str, Field<'w>>,
}

/// The keys of an object.
fn keys(tree: &Tree) -> Option<Vec<(&str, Part<'_>)>> {
    match tree {
        Tree::Plain(Value::Object(fields)) => {
            Some(fields.iter().map(|(key, it)| (key.as_str(), Part::Value(it))).collect())
        }
        Tree::Map(fields) => {
            Some(fields.iter().map(|(key, it)| (key.as_str(), Part::Tree(it))).collect())
        }
        Tree::Plain(_) | Tree::Template(_) | Tree::List(_) | Tree::Broken => None,
    }
}

impl<'w> Layers<'w> {
    pub(super) fn new(env: &'w Tree, defaults: &'w [(String, Tree)], task: &'w Task) -> Self {
        let mut layers = Self { task, fields: BTreeMap::new() };
        if !matches!(env, Tree::Plain(Value::Null)) {
            layers.put("env", env, Origin::Env);
        }
        for (key, tree) in defaults.iter().filter(|(key, _)| !NODE_FIELDS.contains(&key.as_str())) {
            layers.put(key, tree, Origin::Defaults);
        }
        for (key, tree) in &task.fields {
            layers.put(key, tree, Origin::Own);
        }
        layers
    }

    fn put(&mut self, key: &'w str, tree: &'w Tree, origin: Origin) {
        let below = self.fields.remove(key);
        let merged = match (below, keys(tree)) {
            (Some(below), Some(own)) if key != "target" => {
                let mut all = match below {
                    Field::Keys(all) => Some(all),
                    Field::One(Part::Tree(it), from) => keys(it)
                        .map(|it| it.into_iter().map(|(key, it)| (key, (it, from))).collect()),
                    Field::One(Part::Value(_), _) => None,
                };
                if let Some(all) = &mut all {
                    for (key, part) in own {
                        if part.is_null() && all.remove(key).is_some() {
                            continue;
                        }
                        all.insert(key, (part, origin));
                    }
                }
                all.map(Field::Keys)
            }
            _ => None,
        };
        self.fields.insert(key, merged.unwrap_or(Field::One(Part::Tree(tree), origin)));
    }

    fn base(&self, origin: Origin) -> &'w str {
        match origin {
            Origin::Env => "",
            Origin::Defaults => "/defaults",
            Origin::Own => &self.task.pointer,
        }
    }

    /// Every template among the fields, with its pointer.
    pub(super) fn templates(&self, found: &mut impl FnMut(&str, &'w Template)) {
        let mut look = |part: &Part<'w>, pointer: &str| match part {
            Part::Tree(it) => it.templates(pointer, found),
            Part::Value(_) => {}
        };
        for (key, field) in &self.fields {
            match field {
                Field::One(Part::Tree(it), _) if it.is_plain() => {}
                Field::One(part, origin) => look(part, &below(self.base(*origin), key)),
                Field::Keys(all) => {
                    for (inner, (part, origin)) in all {
                        look(part, &below(&below(self.base(*origin), key), inner));
                    }
                }
            }
        }
    }

    /// The document of the task, with what can be filled in filled in.
    fn render(&self, renderer: &mut Renderer<'_>) -> Map<String, Value> {
        let mut document = Map::new();
        // Most needs no pointer.
        let mut one = |part: &Part<'_>, pointer: &dyn Fn() -> String| match part {
            Part::Value(value) => Some((*value).clone()),
            Part::Tree(Tree::Plain(value)) => Some(value.clone()),
            Part::Tree(tree) => renderer.render(tree, &pointer()),
        };
        for (key, field) in &self.fields {
            let value = match field {
                Field::One(part, origin) => {
                    let value = one(part, &|| below(self.base(*origin), key));
                    value.map(|it| written(key, it, *part))
                }
                Field::Keys(all) => {
                    let mut object = Map::new();
                    for (inner, (part, origin)) in all {
                        let pointer = || below(&below(self.base(*origin), key), inner);
                        if let Some(value) = one(part, &pointer) {
                            object.insert((*inner).to_owned(), written_in(key, value, *part));
                        }
                    }
                    Some(Value::Object(object))
                }
            };
            if let Some(value) = value {
                document.insert((*key).to_owned(), value);
            }
        }
        document
    }

    /// From a pointer below the task to where that was written.
    fn origin(&self, pointer: String) -> String {
        let Some(tail) = pointer.strip_prefix(self.task.pointer.as_str()) else { return pointer };
        let mut tokens = tail.split('/').skip(1).map(|it| it.replace("~1", "/").replace("~0", "~"));
        let Some(field) = tokens.next().and_then(|it| self.fields.get(it.as_str())) else {
            return pointer;
        };
        let origin = match field {
            Field::One(_, origin) => *origin,
            Field::Keys(all) => {
                let inner = tokens.next();
                inner.and_then(|it| all.get(it.as_str())).map_or(Origin::Own, |(_, origin)| *origin)
            }
        };
        match origin {
            Origin::Own => pointer,
            Origin::Env | Origin::Defaults => format!("{}{tail}", self.base(origin)),
        }
    }

    /// What is wrong, as far as that can be told by now.
    pub(super) fn check(&self, name: &str, scope: &RunScope<'_>, limits: &Limits) -> Vec<Fault> {
        self.read(name, scope, limits).1
    }

    /// The task to run.
    pub(super) fn spec(
        &self,
        name: &str,
        scope: &RunScope<'_>,
        limits: &Limits,
    ) -> Result<TaskSpec, Vec<Fault>> {
        let (spec, mut faults, later) = self.read(name, scope, limits);
        for pointer in later {
            faults.push(Fault::new(pointer, "template_failed", "its value is not known yet"));
        }
        match spec {
            Some(spec) if faults.is_empty() => Ok(spec),
            _ => Err(faults),
        }
    }

    fn read(
        &self,
        name: &str,
        scope: &RunScope<'_>,
        limits: &Limits,
    ) -> (Option<TaskSpec>, Vec<Fault>, Vec<String>) {
        let mut renderer = Renderer::new(scope);
        let mut document = self.render(&mut renderer);
        let Renderer { faults: mut found, later, .. } = renderer;
        let is_later = |it: &str| {
            let gone = found.iter().map(|it| &it.pointer).chain(&later);
            gone.into_iter().any(|gone| is_at_or_below(it, gone) || is_at_or_below(gone, it))
        };
        document.entry("name").or_insert_with(|| Value::from(name));
        // Something stands there, and the rest can be checked.
        if !document.contains_key("image") && self.fields.contains_key("image") {
            document.insert("image".to_owned(), Value::from("later"));
        }
        let target_later = !document.contains_key("target") && self.fields.contains_key("target");
        let document = Value::Object(document);
        let mut faults = Vec::new();
        let spec =
            ObjectReader::open(&document, self.task.pointer.clone(), &mut faults).map(|mut it| {
                for key in NODE_FIELDS {
                    it.value(key);
                }
                let spec = read_task(&mut it, limits);
                it.finish();
                spec
            });
        faults.retain_mut(|fault| {
            fault.pointer = self.origin(std::mem::take(&mut fault.pointer));
            !is_later(&fault.pointer)
        });
        let target_later = target_later || is_later(&below(&self.task.pointer, "target"));
        if let Some(spec) = &spec
            && faults.is_empty()
            && !target_later
            && spec.target != Placement::Named(String::new())
        {
            for mut fault in unsupported(spec, limits) {
                fault.pointer = self.origin(format!("{}{}", self.task.pointer, fault.pointer));
                if !is_later(&fault.pointer) {
                    faults.push(fault);
                }
            }
        }
        found.append(&mut faults);
        (spec, found, later)
    }
}

/// What came out where a task takes text: a list or an object is written as JSON.
fn written(field: &str, value: Value, part: Part<'_>) -> Value {
    let Part::Tree(tree) = part else { return value };
    if tree.is_plain() {
        return value;
    }
    match (field, value, tree) {
        ("env" | "labels", Value::Object(fields), Tree::Map(_)) => {
            let write = |(key, it): (String, Value)| {
                let part = tree.get(&key).map_or(Part::Value(&Value::Null), Part::Tree);
                let it = written_in(field, it, part);
                (key, it)
            };
            Value::Object(fields.into_iter().map(write).collect())
        }
        ("command" | "args" | "entrypoint", Value::Array(items), Tree::List(trees)) => {
            let write = |(it, tree): (Value, &Tree)| match tree {
                Tree::Template(_) => text(it),
                Tree::Plain(_) | Tree::List(_) | Tree::Map(_) | Tree::Broken => it,
            };
            items.into_iter().zip(trees).map(write).collect()
        }
        ("files", Value::Array(items), Tree::List(trees)) => {
            let write = |(mut it, tree): (Value, &Tree)| {
                if let (Some(content), Some(Tree::Template(_))) =
                    (it.get_mut("content"), tree.get("content"))
                {
                    *content = text(content.take());
                }
                it
            };
            items.into_iter().zip(trees).map(write).collect()
        }
        (_, value, _) => value,
    }
}

/// The same for one key of a field.
fn written_in(field: &str, value: Value, part: Part<'_>) -> Value {
    match (field, part) {
        ("env" | "labels", Part::Tree(Tree::Template(_))) => text(value),
        _ => value,
    }
}

fn text(value: Value) -> Value {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Value::String(as_text(&value).into_owned())
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => value,
    }
}
