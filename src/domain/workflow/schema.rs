//! What a param may be: a type, and a part of JSON Schema that takes no more time to check than the value is large. A
//! keyword that is not read is a fault, as a check that is not made would be believed in.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::domain::spec::{Fault, ObjectReader, escape};

/// The types of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Array,
    Object,
    Null,
}

impl Kind {
    pub const ALL: [(&'static str, Self); 7] = [
        ("string", Self::String),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("array", Self::Array),
        ("object", Self::Object),
        ("null", Self::Null),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
            Self::Null => "null",
        }
    }

    /// Whether a value is of it. 3.0 is as whole as 3.
    pub fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Integer, Value::Number(it)) => {
                it.is_i64() || it.is_u64() || it.as_f64().is_some_and(|it| it.fract() == 0.0)
            }
            (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::Array, Value::Array(_))
            | (Self::Object, Value::Object(_))
            | (Self::Null, Value::Null) => true,
            _ => false,
        }
    }
}

/// What a value is, in words.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[derive(Debug, Clone, Default)]
pub struct Schema {
    kinds: Vec<Kind>,
    choices: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
    multiple_of: Option<f64>,
    lengths: (Option<i64>, Option<i64>),
    pattern: Option<Regex>,
    items: Option<Box<Schema>>,
    counts: (Option<i64>, Option<i64>),
    unique: bool,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    others: Others,
}

/// Properties that are not named.
#[derive(Debug, Clone, Default)]
enum Others {
    #[default]
    Any,
    None,
    Like(Box<Schema>),
}

const MOST_COUNT: i64 = 1 << 40;

impl Schema {
    pub(super) fn read(value: &Value, pointer: String, faults: &mut Vec<Fault>) -> Self {
        let mut schema = Self::default();
        let Some(mut it) = ObjectReader::open(value, pointer, faults) else { return schema };
        schema.kinds = read_kinds(&mut it);
        schema.choices = it.list("enum").map(<[Value]>::to_vec);
        if let Some(only) = it.value("const") {
            schema.choices = Some(vec![only.clone()]);
        }
        schema.minimum = number(&mut it, "minimum");
        schema.maximum = number(&mut it, "maximum");
        schema.above = number(&mut it, "exclusiveMinimum");
        schema.below = number(&mut it, "exclusiveMaximum");
        schema.multiple_of = number(&mut it, "multipleOf").filter(|it| *it > 0.0);
        schema.lengths =
            (it.integer("minLength", 0, MOST_COUNT), it.integer("maxLength", 0, MOST_COUNT));
        schema.pattern = it.text("pattern").and_then(|text| {
            let read = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
            it.checked(
                "pattern",
                read.map_err(|error| format!("not a regular expression: {error}")),
            )
        });
        schema.items = sub(&mut it, "items");
        schema.counts =
            (it.integer("minItems", 0, MOST_COUNT), it.integer("maxItems", 0, MOST_COUNT));
        schema.unique = it.bool("uniqueItems").unwrap_or(false);
        let base = it.pointer("properties");
        for (name, value) in it.map("properties").into_iter().flatten() {
            let inner = Self::read(value, format!("{base}/{}", escape(name)), it.faults());
            schema.properties.insert(name.clone(), inner);
        }
        for (index, name) in it.list("required").into_iter().flatten().enumerate() {
            match name {
                Value::String(name) => schema.required.push(name.clone()),
                _ => {
                    let pointer = format!("{}/{index}", it.pointer("required"));
                    it.faults().push(Fault::new(
                        pointer,
                        "wrong_type",
                        "the name of a property is text",
                    ));
                }
            }
        }
        schema.others = match it.value("additionalProperties") {
            None | Some(Value::Bool(true)) => Others::Any,
            Some(Value::Bool(false)) => Others::None,
            Some(_) => sub(&mut it, "additionalProperties").map_or(Others::Any, Others::Like),
        };
        // For people and editors.
        for word in ["title", "description", "$comment", "examples", "default", "format"] {
            it.value(word);
        }
        it.finish();
        schema
    }

    /// Adds what is wrong with a value.
    pub(super) fn check(&self, value: &Value, pointer: &str, faults: &mut Vec<Fault>) {
        let mut wrong =
            |code: &'static str, detail: String| faults.push(Fault::new(pointer, code, detail));
        if !self.kinds.is_empty() && !self.kinds.iter().any(|it| it.takes(value)) {
            let wanted: Vec<_> = self.kinds.iter().map(|it| it.as_str()).collect();
            wrong(
                "wrong_type",
                format!("must be of type {}, not {}", wanted.join(" or "), kind_of(value)),
            );
            return;
        }
        if let Some(choices) = &self.choices
            && !choices.iter().any(|it| same(it, value))
        {
            wrong("invalid_value", not_one_of(value, choices));
        }
        match value {
            Value::Number(it) => {
                if let Some(detail) = it.as_f64().and_then(|it| self.off_bounds(it)) {
                    wrong("out_of_range", detail);
                }
            }
            Value::String(text) => {
                let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
                if let Some(detail) = off_counts(count, self.lengths, "characters") {
                    wrong("out_of_range", detail);
                }
                if let Some(pattern) = self.pattern.as_ref().filter(|it| !it.is_match(text)) {
                    wrong(
                        "invalid_value",
                        format!("does not match the pattern {:?}", pattern.as_str()),
                    );
                }
            }
            Value::Array(items) => {
                let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
                if let Some(detail) = off_counts(count, self.counts, "items") {
                    wrong("out_of_range", detail);
                }
                let mut seen = std::collections::HashSet::new();
                if self.unique && !items.iter().all(|it| seen.insert(it.to_string())) {
                    wrong("duplicate", "an item is there twice".to_owned());
                }
                for (index, item) in items.iter().enumerate() {
                    if let Some(schema) = &self.items {
                        schema.check(item, &format!("{pointer}/{index}"), faults);
                    }
                }
            }
            Value::Object(fields) => {
                for name in &self.required {
                    if !fields.contains_key(name) {
                        wrong("required", format!("{name:?} is required"));
                    }
                }
                for (name, value) in fields {
                    let inner = format!("{pointer}/{}", escape(name));
                    match (self.properties.get(name), &self.others) {
                        (Some(schema), _) => schema.check(value, &inner, faults),
                        (None, Others::Like(schema)) => schema.check(value, &inner, faults),
                        (None, Others::None) => {
                            faults.push(Fault::new(
                                inner,
                                "unknown_field",
                                format!("unknown property {name:?}"),
                            ));
                        }
                        (None, Others::Any) => {}
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn off_bounds(&self, value: f64) -> Option<String> {
        let bounds = [
            (self.minimum.filter(|it| value < *it), "less than the minimum"),
            (self.maximum.filter(|it| value > *it), "more than the maximum"),
            (self.above.filter(|it| value <= *it), "not more than"),
            (self.below.filter(|it| value >= *it), "not less than"),
            (self.multiple_of.filter(|it| (value / it).fract() != 0.0), "not a multiple of"),
        ];
        bounds.into_iter().find_map(|(bound, what)| Some(format!("{value} is {what} {}", bound?)))
    }
}

fn off_counts(count: i64, (least, most): (Option<i64>, Option<i64>), what: &str) -> Option<String> {
    let few = least
        .filter(|it| count < *it)
        .map(|it| format!("{count} {what}, at least {it} are wanted"));
    few.or_else(|| {
        most.filter(|it| count > *it).map(|it| format!("{count} {what}, at most {it} are taken"))
    })
}

/// As JSON Schema compares: 1 is 1.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

pub(super) fn not_one_of(value: &Value, choices: &[Value]) -> String {
    let shown: Vec<String> = choices.iter().take(20).map(Value::to_string).collect();
    let value: String = value.to_string().chars().take(100).collect();
    format!("{value} is not one of {}", shown.join(", "))
}

fn number(it: &mut ObjectReader<'_>, key: &'static str) -> Option<f64> {
    let value = it.value(key)?;
    value.as_f64().or_else(|| it.wrong(key, "a number", value))
}

fn sub(it: &mut ObjectReader<'_>, key: &'static str) -> Option<Box<Schema>> {
    let value = it.value(key)?;
    let pointer = it.pointer(key);
    Some(Box::new(Schema::read(value, pointer, it.faults())))
}

/// One type, or a list of them.
fn read_kinds(it: &mut ObjectReader<'_>) -> Vec<Kind> {
    match it.value("type") {
        Some(Value::Array(items)) => {
            let mut kinds = Vec::new();
            for (index, item) in items.iter().enumerate() {
                match Kind::ALL.iter().find(|(name, _)| item == name) {
                    Some((_, kind)) => kinds.push(*kind),
                    None => {
                        let pointer = format!("{}/{index}", it.pointer("type"));
                        it.faults().push(Fault::new(
                            pointer,
                            "invalid_value",
                            format!("{item} is not a type of JSON"),
                        ));
                    }
                }
            }
            kinds
        }
        _ => it.choice("type", &Kind::ALL).into_iter().collect(),
    }
}
