//! The params of a workflow: what a run may be given, and what it has without.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::schema::{Kind, Schema, kind_of, not_one_of, same};
use crate::domain::spec::{Fault, ObjectReader, escape, suggest};

/// By name.
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, Param>);

#[derive(Debug, Clone, Default)]
pub struct Param {
    pub kind: Option<Kind>,
    pub default: Option<Value>,
    /// A run has to give it. Without a default that is what is meant, unless `required` is false: then it is null.
    pub required: bool,
    pub choices: Option<Vec<Value>>,
    pub schema: Option<Schema>,
    pub description: Option<String>,
}

impl Params {
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, it)| (name.as_str(), it))
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    pub(super) fn read(workflow: &mut ObjectReader<'_>) -> Self {
        let mut params = BTreeMap::new();
        let base = workflow.pointer("params");
        for (name, value) in workflow.map("params").into_iter().flatten() {
            let pointer = format!("{base}/{}", escape(name));
            let is_name = (1..=128).contains(&name.len())
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.'));
            if !is_name {
                let detail = format!(
                    "{name:?} can't name a param: use letters, digits, \"_\", \"-\" and \".\""
                );
                workflow.faults().push(Fault::new(pointer.clone(), "invalid_value", detail));
            }
            if !value.is_object() {
                let detail = format!("a param is an object: write {{\"default\": {value}}}");
                workflow.faults().push(Fault::new(pointer, "wrong_type", detail));
                params.insert(name.clone(), Param::default());
                continue;
            }
            let Some(mut it) = ObjectReader::open(value, pointer, workflow.faults()) else {
                continue;
            };
            let param = Param::read(&mut it);
            it.finish();
            params.insert(name.clone(), param);
        }
        Self(params)
    }

    pub(super) fn bind(
        &self,
        given: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Vec<Fault>> {
        let (mut bound, mut faults) = (Map::new(), Vec::new());
        for name in given.keys().filter(|it| !self.0.contains_key(*it)) {
            let known = self.names();
            let hint = suggest(name, &known);
            let detail = match (hint.is_empty(), known.is_empty()) {
                (false, _) => format!("the workflow has no param {name:?}{hint}"),
                (true, true) => "the workflow takes no params".to_owned(),
                (true, false) => {
                    format!("the workflow has no param {name:?}: there is {}", known.join(", "))
                }
            };
            faults.push(Fault::new(pointer(name), "unknown_param", detail));
        }
        for (name, param) in &self.0 {
            match given.get(name) {
                Some(value) => {
                    param.check(value, &pointer(name), &mut faults);
                    bound.insert(name.clone(), value.clone());
                }
                None if param.required => {
                    let of_kind = param
                        .kind
                        .map(|it| format!(" of type {}", it.as_str()))
                        .unwrap_or_default();
                    let detail =
                        format!("the param {name:?} has no default: give it a value{of_kind}");
                    faults.push(Fault::new(pointer(name), "required", detail));
                }
                None => {
                    bound.insert(name.clone(), param.default.clone().unwrap_or_default());
                }
            }
        }
        if faults.is_empty() { Ok(bound) } else { Err(faults) }
    }

    /// A param as a command line gives it: text is what the param's type makes of it.
    pub fn read_text(&self, name: &str, text: &str) -> Value {
        let read = || serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        match self.get(name).and_then(|it| it.kind) {
            Some(Kind::String) => Value::from(text),
            Some(_) => read(),
            None => Value::from(text),
        }
    }
}

fn pointer(name: &str) -> String {
    format!("/params/{}", escape(name))
}

impl Param {
    fn read(it: &mut ObjectReader<'_>) -> Self {
        let kind = it.choice("type", &Kind::ALL);
        let default = it.value("default").cloned();
        let choices = it.list("enum").map(<[Value]>::to_vec);
        let required = it.bool("required");
        let schema = it.value("schema").map(|value| {
            let pointer = it.pointer("schema");
            Schema::read(value, pointer, it.faults())
        });
        let description = it.text("description").map(str::to_owned);
        if choices.as_ref().is_some_and(Vec::is_empty) {
            it.fault(
                "enum",
                "invalid_value",
                "no value is one of none: name some, or leave \"enum\" out",
            );
        }
        if required == Some(true) && default.is_some() {
            let detail =
                "a param that is required never gets its default: leave one of the two out";
            it.fault("required", "conflict", detail);
        }
        let required = required.unwrap_or(default.is_none());
        let param = Self { kind, default, required, choices, schema, description };
        if let Some(value) = &param.default {
            let pointer = it.pointer("default");
            param.check(value, &pointer, it.faults());
        }
        param
    }

    fn check(&self, value: &Value, pointer: &str, faults: &mut Vec<Fault>) {
        if value.is_null() && !self.required && self.default.is_none() {
            return;
        }
        if let Some(kind) = self.kind.filter(|it| !it.takes(value)) {
            let shown: String = value.to_string().chars().take(100).collect();
            let detail =
                format!("must be of type {}, not {}: {shown}", kind.as_str(), kind_of(value));
            faults.push(Fault::new(pointer, "wrong_type", detail));
            return;
        }
        if let Some(choices) = &self.choices
            && !choices.iter().any(|it| same(it, value))
        {
            faults.push(Fault::new(pointer, "invalid_value", not_one_of(value, choices)));
        }
        if let Some(schema) = &self.schema {
            schema.check(value, pointer, faults);
        }
    }
}
