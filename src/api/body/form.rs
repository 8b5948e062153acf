//! Forms: `image=busybox:latest&command=echo hello&env.LANG=C&priority=5`.
//!
//! A dotted name reaches into an object, a number into a list, and a name that is there more than once is a
//! list of its values. Everything in a form is text; the kind of the field says what it stands for. A form
//! is of a task: what it can't say is a fault, and never a guess.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use serde_json::Value;

use super::kinds::{Kind, TASK};
use crate::api::problem::{Problem, ProblemKind};
use crate::domain::spec::Fault;
use crate::notation::pointer_token;

/// The fields of a form.
const PAIRS: usize = 10_000;

pub(super) fn read(bytes: &[u8]) -> Result<Value, Problem> {
    let pairs = pairs(bytes)?;
    let (value, faults) = document(&TASK, pairs);
    if faults.is_empty() {
        Ok(value)
    } else {
        Err(Problem::faults(ProblemKind::SpecInvalid, &faults))
    }
}

fn pairs(bytes: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let malformed = |detail: String| Problem::new(ProblemKind::MalformedForm, detail);
    let mut pairs = Vec::new();
    for piece in bytes.trim_ascii().split(|it| *it == b'&').filter(|it| !it.is_empty()) {
        if pairs.len() == PAIRS {
            return Err(malformed(format!("the form has more than {PAIRS} fields: send JSON")));
        }
        let mut halves = piece.splitn(2, |it| *it == b'=');
        let mut half = || decode(halves.next().unwrap_or_default());
        let (Some(name), Some(value)) = (half(), half()) else {
            let shown = String::from_utf8_lossy(piece).chars().take(50).collect::<String>();
            return Err(malformed(format!("the form is not UTF-8 at {shown:?}")));
        };
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// None where it is not UTF-8.
fn decode(bytes: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = bytes.iter().map(|it| if *it == b'+' { b' ' } else { *it }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

fn document(kind: &Kind, pairs: Vec<(String, String)>) -> (Value, Vec<Fault>) {
    let mut names: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs {
        let all = values.entry(name.clone()).or_default();
        if all.is_empty() {
            names.push(name);
        }
        all.push(value);
    }
    let (mut root, mut faults) = (Tree::Map(BTreeMap::new()), Vec::new());
    for name in names {
        let values = values.remove(&name).unwrap_or_default();
        let put = find(kind, &name).and_then(|found| {
            let value = found.kind.map_or_else(|| text(&found, &name, &values), |kind| {
                coerce(kind, &found, &name, &values)
            })?;
            root.put(&found.path, value).map_err(|()| {
                let detail = format!("{name:?} says something else than another field of the form: keep one of the two");
                Fault::new(found.pointer(), "conflict", detail)
            })
        });
        faults.extend(put.err());
    }
    (root.into_value(), faults)
}

/// A place in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

struct Found<'k> {
    path: Vec<Step>,
    /// None: no such field, and the reader of the document will say so.
    kind: Option<&'k Kind>,
}

impl Found<'_> {
    fn pointer(&self) -> String {
        let token = |it: &Step| match it {
            Step::Key(key) => format!("/{}", pointer_token(key)),
            Step::Item(index) => format!("/{index}"),
        };
        self.path.iter().map(token).collect()
    }
}

/// The place that a dotted name means.
fn find<'k>(kind: &'k Kind, name: &str) -> Result<Found<'k>, Fault> {
    let mut found = Found { path: Vec::new(), kind: Some(kind) };
    let mut rest = Some(name);
    while let Some(text) = rest {
        let (first, after) = match text.split_once('.') {
            Some((first, after)) => (first, Some(after)),
            None => (text, None),
        };
        match found.kind {
            Some(Kind::Object(fields)) => {
                // The name that filters of lists have.
                let first = if first == "label" && after.is_some() { "labels" } else { first };
                found.path.push(Step::Key(first.to_owned()));
                found.kind = fields.get(first);
                rest = after;
            }
            // Names of variables and labels have dots of their own; so have those of outputs, and the last
            // one is before the field.
            Some(Kind::Map(values)) => {
                let (key, after) = match (&**values, text.rsplit_once('.')) {
                    (Kind::Object(_), Some((key, field))) => (key, Some(field)),
                    _ => (text, None),
                };
                found.path.push(Step::Key(key.to_owned()));
                found.kind = Some(values);
                rest = after;
            }
            Some(Kind::List(items)) => {
                let Ok(index) = first.parse() else {
                    let detail = format!(
                        "{name:?}: {first:?} is not the number of an item: write for example {:?}",
                        name.replacen(&format!(".{first}"), ".0", 1)
                    );
                    return Err(Fault::new(found.pointer(), "invalid_value", detail));
                };
                found.path.push(Step::Item(index));
                found.kind = Some(items);
                rest = after;
            }
            Some(Kind::Text | Kind::Whole | Kind::Bool | Kind::Words) => {
                let detail = format!(
                    "{name:?}: there is nothing inside of {:?}",
                    name.trim_end_matches(&format!(".{text}"))
                );
                return Err(Fault::new(found.pointer(), "wrong_type", detail));
            }
            None => {
                found.path.push(Step::Key(text.to_owned()));
                rest = None;
            }
        }
    }
    Ok(found)
}

fn coerce(kind: &Kind, at: &Found<'_>, name: &str, values: &[String]) -> Result<Value, Fault> {
    match kind {
        Kind::Words if values.len() > 1 => Ok(values.iter().map(String::as_str).collect()),
        Kind::Text | Kind::Words => text(at, name, values),
        Kind::Whole | Kind::Bool => scalar(kind, at, name, only(at, name, values)?),
        Kind::List(items) => match &**items {
            Kind::Object(_) | Kind::Map(_) | Kind::List(_) => Err(flattened(at, name, "0.FIELD")),
            items => values.iter().map(|it| scalar(items, at, name, it)).collect(),
        },
        Kind::Object(_) => Err(flattened(at, name, "FIELD")),
        Kind::Map(_) => Err(flattened(at, name, "NAME")),
    }
}

fn scalar(kind: &Kind, at: &Found<'_>, name: &str, text: &str) -> Result<Value, Fault> {
    let wrong = |wanted: &str| {
        Fault::new(at.pointer(), "wrong_type", format!("{name:?} must be {wanted}, not {text:?}"))
    };
    match kind {
        Kind::Whole => {
            text.trim().parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number"))
        }
        Kind::Bool if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
        Kind::Bool if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
        Kind::Bool => Err(wrong("true or false")),
        Kind::Text | Kind::Words | Kind::List(_) | Kind::Object(_) | Kind::Map(_) => {
            Ok(text.into())
        }
    }
}

fn text(at: &Found<'_>, name: &str, values: &[String]) -> Result<Value, Fault> {
    only(at, name, values).map(Value::from)
}

fn only<'v>(at: &Found<'_>, name: &str, values: &'v [String]) -> Result<&'v str, Fault> {
    if let [only] = values {
        return Ok(only);
    }
    let detail = format!("{name:?} is there {} times: give it once", values.len());
    Err(Fault::new(at.pointer(), "duplicate", detail))
}

/// What becomes of a dict inside of a dict, where a client makes a form of it.
fn flattened(at: &Found<'_>, name: &str, inner: &str) -> Fault {
    let detail = format!(
        "{name:?} has fields of its own, which this form has lost: write {name}.{inner}=value, or send JSON (in \
         Airflow's HttpOperator data=json.dumps(task) instead of a dict)"
    );
    Fault::new(at.pointer(), "wrong_type", detail)
}

/// The document as it is put together.
#[derive(Debug)]
enum Tree {
    Leaf(Value),
    Map(BTreeMap<String, Tree>),
    /// By number; what is between is left out.
    List(BTreeMap<usize, Tree>),
}

impl Tree {
    fn of(step: Option<&Step>) -> Self {
        match step {
            Some(Step::Item(_)) => Self::List(BTreeMap::new()),
            Some(Step::Key(_)) | None => Self::Map(BTreeMap::new()),
        }
    }

    /// An error where something else is there.
    fn put(&mut self, path: &[Step], value: Value) -> Result<(), ()> {
        let Some((step, rest)) = path.split_first() else { return Err(()) };
        let next = if rest.is_empty() { None } else { Some(|| Self::of(rest.first())) };
        let child = match (self, step) {
            (Self::Map(fields), Step::Key(key)) => slot(fields, key.clone(), next, value)?,
            (Self::List(items), Step::Item(index)) => slot(items, *index, next, value)?,
            _ => return Err(()),
        };
        match child {
            Some((child, value)) => child.put(rest, value),
            None => Ok(()),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::Map(fields) => {
                Value::Object(fields.into_iter().map(|(key, it)| (key, it.into_value())).collect())
            }
            Self::List(items) => items.into_values().map(Self::into_value).collect(),
        }
    }
}

/// Puts the leaf, or gives back the value and what it belongs into.
fn slot<K: Ord>(
    children: &mut BTreeMap<K, Tree>,
    key: K,
    inner: Option<impl FnOnce() -> Tree>,
    value: Value,
) -> Result<Option<(&mut Tree, Value)>, ()> {
    match inner {
        Some(inner) => Ok(Some((children.entry(key).or_insert_with(inner), value))),
        None if children.contains_key(&key) => Err(()),
        None => {
            children.insert(key, Tree::Leaf(value));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::spec;

    fn form(text: &str) -> (Value, Vec<String>) {
        let (value, faults) = document(&TASK, pairs(text.as_bytes()).unwrap());
        (
            value,
            faults.iter().map(|it| format!("{} {}: {}", it.pointer, it.code, it.detail)).collect(),
        )
    }

    #[test]
    fn a_form_is_the_document_that_json_would_say() {
        let (document, faults) = form(concat!(
            "image=busybox%3A1.36&command=echo+hello&args=a&args=b+c&env.LANG=C&env.a.b=1&init=true&priority=-5",
            "&label.team=a&labels.example.com%2Fx=%C3%A9&resources.cpu=500m&resources.pids=20&timeouts.run=1h",
            "&skip_on_exit_codes=99&skip_on_exit_codes=98&outputs.report.csv.path=/out/r&outputs.report.csv.required=True",
            "&files.0.path=/in/a&files.0.content=x%3D1&files.7.path=/in/b&files.7.content=&at_most_once=False&user=1000",
        ));
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(
            document,
            json!({
                "image": "busybox:1.36", "command": "echo hello", "args": ["a", "b c"], "env": {"LANG": "C", "a.b": "1"},
                "init": true, "priority": -5, "labels": {"team": "a", "example.com/x": "é"},
                "resources": {"cpu": "500m", "pids": 20}, "timeouts": {"run": "1h"}, "skip_on_exit_codes": [99, 98],
                "outputs": {"report.csv": {"path": "/out/r", "required": true}}, "user": "1000", "at_most_once": false,
                "files": [{"path": "/in/a", "content": "x=1"}, {"path": "/in/b", "content": ""}],
            })
        );
        spec::parse(&document, &spec::Limits::default()).unwrap();
    }

    #[test]
    fn what_a_form_can_not_say_is_a_fault() {
        let faults: Vec<String> = [
            // requests makes this of {"image": "a", "env": {"LANG": "C"}, "resources": {"cpu": 1, "memory": 2}}.
            "image=a&env=LANG&resources=cpu&resources=memory",
            // … and this of {"files": [{"path": "/a", "content": "x"}]}.
            "image=a&files=path&files=content",
            "image=a&outputs.x=/out/x",
            "image=a&image=b",
            "image=a&env.A=1&env.A=2",
            "image=a&priority=high&init=yes&resources.pids=&skip_on_exit_codes=x",
            "image=a&image.tag=b&files.first.path=/a",
            "image=a&env=x&env.A=1",
        ]
        .iter()
        .flat_map(|it| form(it).1)
        .collect();
        insta::assert_snapshot!(faults.join("\n"));
    }

    #[test]
    fn an_unknown_field_is_left_to_the_reader_of_the_document() {
        assert_eq!(
            form("imag=a&evn.A=1&timeouts.rnu=1s").0,
            json!({"imag": "a", "evn": {"A": "1"}, "timeouts": {"rnu": "1s"}})
        );
    }

    #[test]
    fn what_is_no_form_is_an_error() {
        assert!(pairs(b"image=%FF").is_err());
        assert!(pairs("a=b&".repeat(PAIRS + 1).as_bytes()).is_err());
        assert_eq!(
            pairs(b"a&=b&&c=d=e\n").unwrap(),
            [("a", ""), ("", "b"), ("c", "d=e")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}
