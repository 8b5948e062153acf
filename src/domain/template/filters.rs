//! What expressions can do to values: the part of Jinja that grows no faster than its input, and bounded forms of what
//! would.

use std::sync::Arc;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value as Jinja, filters, functions, tests};
use serde_json::Value;

use super::expression::{MOST_BYTES, to_json, too_large};

/// In alphabetical order, as they are listed to people.
pub(super) const FILTERS: [&str; 39] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "fromjson",
    "int",
    "items",
    "join",
    "keys",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "times",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

pub(super) const TESTS: [&str; 27] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "integer",
    "iterable",
    "le",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "lower",
    "upper",
];

/// What a piece of a list weighs, whatever is in it.
const PIECE: usize = 32;

pub(super) fn add_to(jinja: &mut Environment<'static>) {
    jinja.add_filter("abs", filters::abs);
    jinja.add_filter("bool", filters::bool);
    jinja.add_filter("capitalize", filters::capitalize);
    jinja.add_filter("count", filters::length);
    jinja.add_filter("d", filters::default);
    jinja.add_filter("default", filters::default);
    jinja.add_filter("dictsort", filters::dictsort);
    jinja.add_filter("first", filters::first);
    jinja.add_filter("float", filters::float);
    jinja.add_filter("fromjson", from_json);
    jinja.add_filter("int", filters::int);
    jinja.add_filter("items", filters::items);
    jinja.add_filter("join", join);
    jinja.add_filter("keys", keys);
    jinja.add_filter("last", filters::last);
    jinja.add_filter("length", filters::length);
    jinja.add_filter("lines", lines);
    jinja.add_filter("list", list);
    jinja.add_filter("lower", filters::lower);
    jinja.add_filter("map", filters::map);
    jinja.add_filter("max", filters::max);
    jinja.add_filter("min", filters::min);
    jinja.add_filter("reject", filters::reject);
    jinja.add_filter("rejectattr", filters::rejectattr);
    jinja.add_filter("replace", replace);
    jinja.add_filter("reverse", filters::reverse);
    jinja.add_filter("round", filters::round);
    jinja.add_filter("select", filters::select);
    jinja.add_filter("selectattr", filters::selectattr);
    jinja.add_filter("sort", filters::sort);
    jinja.add_filter("split", split);
    jinja.add_filter("string", string);
    jinja.add_filter("sum", filters::sum);
    jinja.add_filter("times", times);
    jinja.add_filter("title", filters::title);
    jinja.add_filter("tojson", to_json_text);
    jinja.add_filter("trim", filters::trim);
    jinja.add_filter("unique", filters::unique);
    jinja.add_filter("upper", filters::upper);

    jinja.add_test("boolean", tests::is_boolean);
    jinja.add_test("defined", tests::is_defined);
    jinja.add_test("divisibleby", tests::is_divisibleby);
    jinja.add_test("endingwith", tests::is_endingwith);
    jinja.add_test("eq", tests::is_eq);
    jinja.add_test("equalto", tests::is_eq);
    jinja.add_test("even", tests::is_even);
    jinja.add_test("false", tests::is_false);
    jinja.add_test("float", tests::is_float);
    jinja.add_test("ge", tests::is_ge);
    jinja.add_test("gt", tests::is_gt);
    jinja.add_test("integer", tests::is_integer);
    jinja.add_test("iterable", tests::is_iterable);
    jinja.add_test("le", tests::is_le);
    jinja.add_test("lower", tests::is_lower);
    jinja.add_test("lt", tests::is_lt);
    jinja.add_test("mapping", tests::is_mapping);
    jinja.add_test("ne", tests::is_ne);
    jinja.add_test("none", tests::is_none);
    jinja.add_test("number", tests::is_number);
    jinja.add_test("odd", tests::is_odd);
    jinja.add_test("sequence", tests::is_sequence);
    jinja.add_test("startingwith", tests::is_startingwith);
    jinja.add_test("string", tests::is_string);
    jinja.add_test("true", tests::is_true);
    jinja.add_test("undefined", tests::is_undefined);
    jinja.add_test("upper", tests::is_upper);

    jinja.add_function("range", functions::range);
}

/// What the filters of one evaluation may still make.
struct Left(usize);

fn spend(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let left = state.get_or_insert_extension_with(|| Left(MOST_BYTES / 2));
    left.0 = left.0.checked_sub(bytes).ok_or_else(|| wrong(too_large()))?;
    Ok(())
}

fn wrong(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

fn as_text<'v>(value: &'v Jinja, filter: &str) -> Result<&'v str, Error> {
    value.as_str().ok_or_else(|| wrong(format!("{filter} takes a text, not a {}", value.kind())))
}

/// The JSON of a value, or the text itself.
fn written(state: &mut State<'_, '_>, value: &Jinja) -> Result<String, Error> {
    let text = match value.as_str() {
        Some(it) => it.to_owned(),
        None => json(value)?.to_string(),
    };
    spend(state, text.len())?;
    Ok(text)
}

fn json(value: &Jinja) -> Result<Value, Error> {
    let mut left = MOST_BYTES;
    to_json(value, &mut left).map_err(wrong)
}

fn string(state: &mut State<'_, '_>, value: Jinja) -> Result<Jinja, Error> {
    written(state, &value).map(Jinja::from)
}

fn to_json_text(state: &mut State<'_, '_>, value: Jinja) -> Result<Jinja, Error> {
    let text = json(&value)?.to_string();
    spend(state, text.len())?;
    Ok(Jinja::from(text))
}

fn from_json(state: &mut State<'_, '_>, value: Jinja) -> Result<Jinja, Error> {
    let text = as_text(&value, "fromjson")?;
    // A byte of JSON may make a value.
    spend(state, text.len().saturating_mul(4))?;
    let read: Value = serde_json::from_str(text)
        .map_err(|error| wrong(format!("fromjson: not JSON: {error}")))?;
    let mut left = MOST_BYTES;
    super::expression::to_jinja(&read, &mut left).ok_or_else(|| wrong(too_large()))
}

fn times(value: Jinja, by: Jinja) -> Result<Jinja, Error> {
    let whole = |it: &Jinja| i64::try_from(it.clone()).ok().filter(|_| it.is_integer());
    if let (Some(a), Some(b)) = (whole(&value), whole(&by)) {
        return a.checked_mul(b).map(Jinja::from).ok_or_else(|| wrong("times: too large a number"));
    }
    match (value.is_number(), by.is_number()) {
        (true, true) => Ok(Jinja::from(f64::try_from(value)? * f64::try_from(by)?)),
        _ => Err(wrong("times takes numbers")),
    }
}

fn join(state: &mut State<'_, '_>, value: Jinja, with: Option<Jinja>) -> Result<Jinja, Error> {
    let with = with.as_ref().map_or(Ok(""), |it| as_text(it, "join"))?;
    if value.kind() == ValueKind::String {
        return Err(wrong("join takes a list, not a text"));
    }
    let mut text = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            spend(state, with.len())?;
            text.push_str(with);
        }
        text.push_str(&written(state, &item)?);
    }
    Ok(Jinja::from(text))
}

fn keys(value: Jinja) -> Result<Vec<Jinja>, Error> {
    if value.kind() != ValueKind::Map {
        return Err(wrong(format!("keys takes an object, not a {}", value.kind())));
    }
    Ok(value.try_iter()?.collect())
}

fn list(state: &mut State<'_, '_>, value: Jinja) -> Result<Vec<Jinja>, Error> {
    if value.kind() == ValueKind::String {
        return Err(wrong("list takes no text: write value|split(\",\")"));
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        spend(state, PIECE)?;
        items.push(item);
    }
    Ok(items)
}

fn pieces<'t>(
    state: &mut State<'_, '_>,
    pieces: impl Iterator<Item = &'t str>,
) -> Result<Vec<Jinja>, Error> {
    let mut list = Vec::new();
    for piece in pieces {
        spend(state, PIECE + piece.len())?;
        list.push(Jinja::from(piece));
    }
    Ok(list)
}

fn split(
    state: &mut State<'_, '_>,
    value: Jinja,
    at: Option<Arc<str>>,
) -> Result<Vec<Jinja>, Error> {
    let text = as_text(&value, "split")?;
    match at.as_deref() {
        None => pieces(state, text.split_whitespace()),
        Some("") => Err(wrong("split needs a text to split at")),
        Some(at) => pieces(state, text.split(at)),
    }
}

fn lines(state: &mut State<'_, '_>, value: Jinja) -> Result<Vec<Jinja>, Error> {
    pieces(state, as_text(&value, "lines")?.lines())
}

fn replace(state: &mut State<'_, '_>, value: Jinja, args: Rest<Jinja>) -> Result<Jinja, Error> {
    let [from, to] = args.0.as_slice() else {
        return Err(wrong("replace takes two texts: what, and by what"));
    };
    let (text, from, to) =
        (as_text(&value, "replace")?, as_text(from, "replace")?, as_text(to, "replace")?);
    if from.is_empty() {
        return Err(wrong("replace needs a text to look for"));
    }
    let found = memchr::memmem::find_iter(text.as_bytes(), from.as_bytes()).count();
    spend(state, text.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(Jinja::from(text.replace(from, to)))
}
