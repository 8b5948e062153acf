//! YAML, read so that nothing is guessed: a plain scalar that JSON would write the same is that JSON value,
//! and every other one is the text that stands there. So `1.20` stays `1.20`, `0755` keeps its zero, and
//! `no` is a word.
//!
//! Anchors, aliases and merge keys are taken, and bounded: what they unfold to must be no larger than what
//! could have been written out.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error, Options, Spanned};

use super::{Malformed, Place, Places, pointer_token};

/// As deep as JSON is read.
const DEPTH: usize = 127;
/// Scalars, lists and maps, those that aliases repeat included. A batch of 1,000 tasks has some 50,000.
const NODES: usize = 250_000;
const ALIASES: usize = 1_000;
/// How much longer than the body its text may become where aliases repeat it.
const TIMES: usize = 4;

pub(super) fn read(bytes: &[u8], places: Option<&mut Places>) -> Result<Value, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|it| *it == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|it| **it != b'\n').count();
        not_yaml("it is not UTF-8", line as u64, column as u64)
    })?;
    let text_limit = TIMES * text.len() + (64 << 10);
    let node: Spanned<Node> =
        serde_saphyr::from_str_with_options(text, options(text_limit)).map_err(refused)?;
    let key = None;
    Reader { text, left: text_limit, places, pointer: String::new() }.value(node, key)
}

fn options(text_limit: usize) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_nodes: NODES,
            max_events: 3 * NODES,
            max_aliases: ALIASES,
            max_anchors: ALIASES,
            max_merge_keys: ALIASES,
            max_recorded_anchor_events: 3 * NODES,
            max_recorded_anchor_bytes: text_limit,
            max_total_scalar_bytes: text_limit,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: ALIASES,
        },
        // The words of YAML 1.1 stay words.
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

fn refused(error: Error) -> Malformed {
    let at = error.location();
    let (line, column) = at.map_or((1, 1), |it| (it.line(), it.column()));
    let what = match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} is there twice in one object: keep one of the two,")
        }
        Error::MultipleDocuments { .. } => {
            "there is more than one document: send one at a time,".to_owned()
        }
        other => {
            // The place is told once, in our own words.
            let text = other.to_string();
            text.split(" at line ").next().unwrap_or_default().to_owned()
        }
    };
    not_yaml(&what, line, column)
}

fn not_yaml(what: &str, line: u64, column: u64) -> Malformed {
    Malformed { detail: format!("{what} at line {line} column {column}"), line, column }
}

/// What the parser makes of a node, before the text that stands there is looked at.
#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    /// A number that JSON has none for.
    NotFinite,
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML node")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Node, E> {
        Ok(Node::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Node, E> {
        Ok(Node::Number(it.into()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Node, E> {
        Ok(Node::Number(it.into()))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Node, E> {
        Ok(Number::from_f64(it).map_or(Node::NotFinite, Node::Number))
    }

    fn visit_str<E>(self, it: &str) -> Result<Node, E> {
        Ok(Node::Text(it.to_owned()))
    }

    fn visit_string<E>(self, it: String) -> Result<Node, E> {
        Ok(Node::Text(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}

/// Whether JSON writes the value in another way.
fn is_other(value: &Value, text: &str) -> bool {
    let written = value.to_string();
    written != text
}

struct Reader<'a> {
    text: &'a str,
    /// How many bytes of text may still come: aliases repeat them.
    left: usize,
    /// Where to note what stands where.
    places: Option<&'a mut Places>,
    /// Of the value that is read, where places are noted.
    pointer: String,
}

fn place(at: &serde_saphyr::Location) -> Place {
    Place { line: at.line(), column: at.column() }
}

impl Reader<'_> {
    fn value(&mut self, node: Spanned<Node>, key: Option<Place>) -> Result<Value, Malformed> {
        if let Some(places) = &mut self.places {
            places.put(self.pointer.clone(), key, place(&node.referenced));
        }
        let span = node.defined.span();
        let source = || {
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
            self.text.get(start..end).map(str::trim)
        };
        let as_written = |value: Value| match source() {
            Some(text) if is_other(&value, text) => Value::from(text),
            _ => value,
        };
        let value = match node.value {
            Node::Null => Value::Null,
            Node::Bool(it) => as_written(Value::Bool(it)),
            Node::Number(it) => as_written(Value::Number(it)),
            Node::NotFinite => as_written(Value::Null),
            Node::Text(it) => {
                self.spend(it.len(), &node.referenced)?;
                Value::String(it)
            }
            Node::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    let token =
                        if self.places.is_some() { index.to_string() } else { String::new() };
                    list.push(self.below(&token, item, None)?);
                }
                Value::Array(list)
            }
            Node::Map(fields) => {
                let mut map = Map::new();
                for (key, value) in fields {
                    self.spend(key.value.len(), &value.referenced)?;
                    let value = self.below(&key.value, value, Some(place(&key.referenced)))?;
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        };
        Ok(value)
    }

    fn below(
        &mut self,
        token: &str,
        node: Spanned<Node>,
        key: Option<Place>,
    ) -> Result<Value, Malformed> {
        let before = self.pointer.len();
        if self.places.is_some() {
            self.pointer.push('/');
            self.pointer.push_str(&pointer_token(token));
        }
        let value = self.value(node, key);
        self.pointer.truncate(before);
        value
    }

    fn spend(&mut self, bytes: usize, at: &serde_saphyr::Location) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            not_yaml("its aliases unfold to too much text", at.line(), at.column())
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Value {
        read(text.as_bytes(), None).unwrap()
    }

    fn fault(text: &str) -> String {
        read(text.as_bytes(), None).unwrap_err().to_string()
    }

    #[test]
    fn a_document_is_the_one_that_json_would_say() {
        assert_eq!(
            yaml(concat!(
                "# a task\n",
                "image: busybox:1.36\n",
                "command: [sh, -c, \"echo hello\"]\n",
                "env:\n  LANG: C\n  N: 7\n",
                "init: true\n",
                "args:\n- |\n  two\n  lines\n- >-\n  one\n  line\n",
                "resources: {cpu: 0.5, memory: 64Mi}\n",
                "labels: {}\n",
                "user: null\n",
                "workdir: ~\n",
            )),
            json!({
                "image": "busybox:1.36", "command": ["sh", "-c", "echo hello"], "env": {"LANG": "C", "N": 7},
                "init": true, "args": ["two\nlines\n", "one line"], "resources": {"cpu": 0.5, "memory": "64Mi"},
                "labels": {}, "user": null, "workdir": null,
            })
        );
        assert_eq!(
            yaml("{\"image\": \"a\", \"priority\": -5}"),
            json!({"image": "a", "priority": -5})
        );
    }

    #[test]
    fn a_plain_scalar_is_what_stands_there() {
        for (text, expected) in [
            ("no", json!("no")),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("y", json!("y")),
            ("true", json!(true)),
            ("True", json!("True")),
            ("1.20", json!("1.20")),
            ("1.5", json!(1.5)),
            ("1e3", json!("1e3")),
            ("0755", json!("0755")),
            ("0o755", json!("0o755")),
            ("0x1F", json!("0x1F")),
            ("1_000", json!("1_000")),
            ("+5", json!("+5")),
            ("-5", json!(-5)),
            (".5", json!(".5")),
            (".inf", json!(".inf")),
            (".nan", json!(".nan")),
            ("12345678901234567890123", json!("12345678901234567890123")),
            ("12:30:45", json!("12:30:45")),
            ("2026-11-21", json!("2026-11-21")),
            ("\"5\"", json!("5")),
            ("'true'", json!("true")),
            ("\"null\"", json!("null")),
            ("", Value::Null),
            ("null", Value::Null),
            ("~", Value::Null),
        ] {
            assert_eq!(yaml(&format!("ä: é\nv: {text} # comment\n"))["v"], expected, "{text}");
            assert_eq!(
                yaml(&format!("v: [{text}]"))["v"].get(0).unwrap_or(&Value::Null),
                &expected,
                "{text}"
            );
        }
        assert_eq!(yaml("1: a\ntrue: b"), json!({"1": "a", "true": "b"}));
    }

    #[test]
    fn anchors_are_followed() {
        assert_eq!(
            yaml("base: &b {A: 1.20, B: x}\nenv: {<<: *b, B: y}\nc: *b\n"),
            json!({"base": {"A": "1.20", "B": "x"}, "env": {"A": "1.20", "B": "y"}, "c": {"A": "1.20", "B": "x"}})
        );
    }

    #[test]
    fn faults_are_named_with_their_place() {
        insta::assert_snapshot!(
            [
                "image: a\n name: b\n",
                "image: [a\n",
                "image: a\nenv:\n  A: 1\n  A: 2\n",
                "image: a\n---\nimage: b\n",
                "image: *nowhere\n",
                "image: \"a\n",
                "image:\n\t- a\n",
                "? [a]\n: b\n",
                "image: !!int x\n",
            ]
            .map(fault)
            .join("\n")
        );
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for n in 1..12 {
            laughs += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
        }
        let long = "x".repeat(1 << 20);
        let copies = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 90].join(", "));
        let deep = "[".repeat(100_000);
        let many = format!("[{}]", "1,".repeat(NODES + 1));
        for bomb in [laughs, copies, deep, "a: &a [*a]\n".to_owned(), many] {
            let fault = fault(&bomb);
            assert!(fault.contains(" at line ") && fault.len() < 300, "{fault}");
        }
    }
}
