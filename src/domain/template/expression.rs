//! One expression: compiled once, evaluated against a scope.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::value::{Object, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::{Map, Number, Value};

use super::scan::{Mention, Scanned, Step, Wrong, scan};
use super::{Found, Reference, Scope, filters};

/// Instructions; the longest expression that is read has some thousand.
const FUEL: u64 = 20_000;
/// Of the values that go into an expression, of the text that its filters make, and of what comes out.
pub(super) const MOST_BYTES: usize = 16 << 20;
/// What a number or the like counts.
const SCALAR: usize = 16;

static JINJA: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut jinja = Environment::empty();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    jinja.set_fuel(Some(FUEL));
    jinja.set_debug(true);
    filters::add_to(&mut jinja);
    jinja
});

/// What stands between `${{` and `}}`.
pub struct Expression {
    mentions: Vec<Mention>,
    /// None: the first mention is all there is, and needs no engine.
    program: Option<minijinja::Expression<'static, 'static>>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("mentions", &self.mentions).finish_non_exhaustive()
    }
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let Scanned { mentions, source, is_bare } = scan(text)?;
        let program = if is_bare {
            None
        } else {
            let compiled = JINJA.compile_expression_owned(source);
            Some(compiled.map_err(|error| {
                let at = error.range().map_or(0, |it| it.start);
                Wrong::new(text, at, format!("not an expression: {}", in_words(&error)))
            })?)
        };
        Ok(Self { mentions, program })
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.mentions.iter().map(|it| &it.reference)
    }

    pub(super) fn only_reference(&self) -> Option<&Reference> {
        match (self.mentions.as_slice(), &self.program) {
            ([only], None) if only.path.is_empty() => Some(&only.reference),
            _ => None,
        }
    }

    /// None: it hangs on something that is not known yet.
    pub(super) fn evaluate(&self, scope: &dyn Scope) -> Result<Option<Value>, String> {
        let Some(program) = &self.program else {
            let Some(only) = self.mentions.first() else { return Err("nothing".to_owned()) };
            return match find(only, scope) {
                Found::Value(value) => Ok(Some(value.into_owned())),
                Found::Missing => Err(format!("{} has no value", only.text)),
                Found::Later => Ok(None),
            };
        };
        let mut values = Vec::with_capacity(self.mentions.len());
        let mut left = MOST_BYTES;
        for mention in &self.mentions {
            values.push(match find(mention, scope) {
                Found::Value(value) => Some(to_jinja(&value, &mut left).ok_or_else(too_large)?),
                Found::Missing => None,
                Found::Later => return Ok(None),
            });
        }
        let variables = Arc::new(Variables { values, missed: AtomicU64::new(0) });
        let result = program.eval(Jinja::from_dyn_object(Arc::clone(&variables)));
        // That something is missing explains more than what came of it.
        let missed = variables.missed.load(Ordering::Relaxed);
        let mut missing = self
            .mentions
            .iter()
            .enumerate()
            .filter(|(index, it)| !it.guarded && missed & bit(*index) != 0);
        if let Some((_, mention)) = missing.next() {
            return Err(format!("{} has no value", mention.text));
        }
        let value = result.map_err(|error| in_words(&error))?;
        if value.is_undefined() {
            return Err("the expression has no value".to_owned());
        }
        let mut left = MOST_BYTES;
        to_json(&value, &mut left).map(Some)
    }
}

pub(super) fn too_large() -> String {
    format!(
        "too large: an expression works on {} MiB at most; let a task work it out",
        MOST_BYTES >> 20
    )
}

fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|it| 1_u64.checked_shl(it)).unwrap_or_default()
}

/// The variables of one evaluation, and which of those were asked for that have no value.
#[derive(Debug)]
struct Variables {
    values: Vec<Option<Jinja>>,
    missed: AtomicU64,
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let index: usize = key.as_str()?.strip_prefix('_')?.parse().ok()?;
        let value = self.values.get(index)?;
        if value.is_none() {
            self.missed.fetch_or(bit(index), Ordering::Relaxed);
        }
        value.clone()
    }
}

/// The value of a mention: that of its reference, and what its path leads to.
fn find<'s>(mention: &Mention, scope: &'s dyn Scope) -> Found<'s> {
    match scope.find(&mention.reference) {
        Found::Value(Cow::Borrowed(value)) => {
            walk(value, &mention.path).map_or(Found::Missing, |it| Found::Value(Cow::Borrowed(it)))
        }
        Found::Value(Cow::Owned(value)) if mention.path.is_empty() => {
            Found::Value(Cow::Owned(value))
        }
        Found::Value(Cow::Owned(value)) => walk(&value, &mention.path)
            .map_or(Found::Missing, |it| Found::Value(Cow::Owned(it.clone()))),
        other @ (Found::Missing | Found::Later) => other,
    }
}

fn walk<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

/// None: too large.
pub(super) fn to_jinja(value: &Value, left: &mut usize) -> Option<Jinja> {
    *left = left.checked_sub(SCALAR)?;
    Some(match value {
        Value::Null => Jinja::from(()),
        Value::Bool(it) => Jinja::from(*it),
        Value::Number(it) => {
            if let Some(it) = it.as_i64() {
                Jinja::from(it)
            } else if let Some(it) = it.as_u64() {
                Jinja::from(it)
            } else {
                Jinja::from(it.as_f64().unwrap_or_default())
            }
        }
        Value::String(it) => {
            *left = left.checked_sub(it.len())?;
            Jinja::from(it.as_str())
        }
        Value::Array(items) => {
            let items: Option<Vec<Jinja>> = items.iter().map(|it| to_jinja(it, left)).collect();
            Jinja::from(items?)
        }
        Value::Object(fields) => {
            let mut map = std::collections::BTreeMap::new();
            for (key, value) in fields {
                *left = left.checked_sub(key.len())?;
                map.insert(key.clone(), to_jinja(value, left)?);
            }
            Jinja::from(map)
        }
    })
}

/// What an expression came to, as JSON.
pub(super) fn to_json(value: &Jinja, left: &mut usize) -> Result<Value, String> {
    *left = left.checked_sub(SCALAR).ok_or_else(too_large)?;
    match value.kind() {
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => {
            number(value).ok_or_else(|| format!("{value} is no number that JSON has"))
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            *left = left.checked_sub(text.len()).ok_or_else(too_large)?;
            Ok(Value::from(text))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| in_words(&error))?;
            items.map(|it| to_json(&it, left)).collect()
        }
        ValueKind::Map => {
            let keys = value.try_iter().map_err(|error| in_words(&error))?;
            let mut fields = Map::new();
            for key in keys {
                let inner = value.get_item(&key).map_err(|error| in_words(&error))?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                *left = left.checked_sub(name.len()).ok_or_else(too_large)?;
                fields.insert(name, to_json(&inner, left)?);
            }
            Ok(Value::Object(fields))
        }
        ValueKind::Undefined => Err("a part of it has no value".to_owned()),
        other => Err(format!("{other} is no value that JSON has")),
    }
}

fn number(value: &Jinja) -> Option<Value> {
    if value.is_integer() {
        let signed = i64::try_from(value.clone()).ok().map(Value::from);
        return signed.or_else(|| u64::try_from(value.clone()).ok().map(Value::from));
    }
    Number::from_f64(f64::try_from(value.clone()).ok()?).map(Value::Number)
}

fn in_words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps: let a task work it out".to_owned(),
        ErrorKind::UndefinedError => "a part of it has no value".to_owned(),
        // The part of the message that is ours or says more than the kind.
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    }
}
