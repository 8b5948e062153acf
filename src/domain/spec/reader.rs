//! Reads a JSON object field by field and keeps every fault, so that one answer names them all.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "JSON has six kinds of values, and always will"
)]

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::domain::quantity;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the document.
    pub pointer: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people: what is wrong, and the fix.
    pub detail: String,
}

impl Fault {
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

/// Nobody reads more: a body of megabytes must not make an answer of gigabytes.
const FAULTS: usize = 1_000;

/// Up to here a number with a fraction holds every whole one.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Takes the fields of one JSON object. A field that nobody asked for is a fault at the end.
#[derive(Debug)]
pub struct ObjectReader<'a> {
    fields: &'a Map<String, Value>,
    pointer: String,
    known: Vec<&'static str>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> ObjectReader<'a> {
    /// None, and a fault, where `value` is not an object.
    pub fn open(value: &'a Value, pointer: String, faults: &'a mut Vec<Fault>) -> Option<Self> {
        match value {
            Value::Object(fields) => Some(Self { fields, pointer, known: Vec::new(), faults }),
            other => {
                faults.push(wrong_type(pointer, "an object", other));
                None
            }
        }
    }

    pub fn pointer(&self, key: &str) -> String {
        format!("{}/{}", self.pointer, escape(key))
    }

    pub fn fault(&mut self, key: &str, code: &'static str, detail: impl Into<String>) {
        let pointer = self.pointer(key);
        self.faults.push(Fault::new(pointer, code, detail));
    }

    /// The raw value; explicit null counts as left out.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.fields.get(key).filter(|it| !it.is_null())
    }

    pub fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.value(key)?;
        match value {
            Value::String(text) if text.contains('\0') => {
                self.fault(
                    key,
                    "invalid_value",
                    format!("{key:?} holds a NUL character: leave it out"),
                );
                None
            }
            Value::String(text) => Some(text),
            other => self.wrong(key, "a string", other),
        }
    }

    pub fn bool(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(it) => Some(*it),
            other => self.wrong(key, "true or false", other),
        }
    }

    /// A whole number between `min` and `max`.
    pub fn integer(&mut self, key: &'static str, min: i64, max: i64) -> Option<i64> {
        let value = self.value(key)?;
        // 3.0 is as whole as 3.
        let whole = |it: &f64| it.fract() == 0.0 && it.abs() < MOST_EXACT;
        let number = value.as_i64().or_else(|| value.as_f64().filter(whole).map(|it| it as i64));
        match number {
            Some(it) if (min..=max).contains(&it) => Some(it),
            _ if value.is_number() => {
                self.fault(
                    key,
                    "out_of_range",
                    format!("{value} is not a whole number from {min} to {max}"),
                );
                None
            }
            _ => self.wrong(key, "a whole number", value),
        }
    }

    pub fn duration(&mut self, key: &'static str) -> Option<jiff::SignedDuration> {
        let value = self.value(key)?;
        match value {
            Value::String(text) => self.checked(key, quantity::parse_duration(text)),
            other => self.wrong(key, "a duration such as \"50s\", \"10m\" or \"1h30m\"", other),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, it)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*it);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.fault(
            key,
            "invalid_value",
            format!("{text:?} is not one of {}{}", names.join(", "), suggest(text, &names)),
        );
        None
    }

    pub fn list(&mut self, key: &'static str) -> Option<&'a [Value]> {
        match self.value(key)? {
            Value::Array(items) => Some(items),
            other => self.wrong(key, "a list", other),
        }
    }

    pub fn map(&mut self, key: &'static str) -> Option<&'a Map<String, Value>> {
        match self.value(key)? {
            Value::Object(map) => Some(map),
            other => self.wrong(key, "an object", other),
        }
    }

    /// The object under `key`, read by `read`; faults inside carry the longer pointer.
    pub fn object<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut ObjectReader<'_>) -> T,
    ) -> Option<T> {
        let value = self.value(key)?;
        let pointer = self.pointer(key);
        let mut inner = ObjectReader::open(value, pointer, self.faults)?;
        let it = read(&mut inner);
        inner.finish();
        Some(it)
    }

    /// Keeps the value, or the fault that a parser of text gave.
    pub fn checked<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|detail| self.fault(key, "invalid_value", detail)).ok()
    }

    pub fn wrong<T>(&mut self, key: &str, wanted: &str, got: &Value) -> Option<T> {
        let pointer = self.pointer(key);
        self.faults.push(wrong_type(pointer, wanted, got));
        None
    }

    pub fn faults(&mut self) -> &mut Vec<Fault> {
        self.faults
    }

    /// Reports the fields that nobody asked for.
    pub fn finish(self) {
        for key in self.fields.keys() {
            if self.faults.len() >= FAULTS {
                return;
            }
            if !self.known.contains(&key.as_str()) {
                let pointer = format!("{}/{}", self.pointer, escape(key));
                let hint = suggest(key, &self.known);
                let detail = if hint.is_empty() {
                    format!("unknown field {key:?}: the fields here are {}", self.known.join(", "))
                } else {
                    format!("unknown field {key:?}{hint}")
                };
                self.faults.push(Fault::new(pointer, "unknown_field", detail));
            }
        }
    }
}

fn wrong_type(pointer: String, wanted: &str, got: &Value) -> Fault {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let what = pointer.rsplit('/').next().filter(|it| !it.is_empty()).map_or_else(
        || "the document".to_owned(),
        |it| format!("{:?}", it.replace("~1", "/").replace("~0", "~")),
    );
    Fault::new(pointer, "wrong_type", format!("{what} must be {wanted}, not {got}"))
}

/// `: did you mean "command"?`, or nothing where no candidate is near.
pub fn suggest(word: &str, candidates: &[&str]) -> String {
    let most = |it: &str| (it.len().min(word.len()) / 3).max(1);
    candidates
        .iter()
        // Words of so different a length can't be near, and comparing long ones takes long.
        .filter(|it| it.len().abs_diff(word.len()) <= 4 * most(it))
        .map(|it| (strsim::damerau_levenshtein(word, it), it))
        .filter(|(distance, it)| *distance <= most(it))
        .min()
        .map(|(_, it)| format!(": did you mean {it:?}?"))
        .unwrap_or_default()
}

pub(in crate::domain) fn escape(key: &str) -> Cow<'_, str> {
    if key.contains(['~', '/']) {
        return Cow::Owned(key.replace('~', "~0").replace('/', "~1"));
    }
    Cow::Borrowed(key)
}
