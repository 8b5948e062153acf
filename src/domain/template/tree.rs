//! A document with templates in it: read once, rendered as often as there are items.

use serde_json::{Map, Value};

use super::{Scope, Template};
use crate::domain::spec::{Fault, escape};

/// What a document may grow by where its templates are filled in, in bytes.
const MOST_ADDED: usize = 1 << 20;
/// The one key of an object that stands for a value.
const FROM: &str = "$from";

/// A value, or what becomes one.
#[derive(Debug)]
pub enum Tree {
    /// Nothing in it is to be filled in.
    Plain(Value),
    Template(Template),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    /// It was at fault, which has been said.
    Broken,
}

impl Tree {
    /// Reads what stands at `pointer`, and adds what is wrong with its templates.
    pub fn read(value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> Self {
        if !has_template(value) {
            return Self::Plain(value.clone());
        }
        Self::read_templates(value, pointer, faults)
    }

    /// The same for what stands under a key of the object at `pointer`: most has no template, and needs no pointer.
    pub fn read_field(value: &Value, pointer: &str, key: &str, faults: &mut Vec<Fault>) -> Self {
        if !has_template(value) {
            return Self::Plain(value.clone());
        }
        Self::read_templates(value, &format!("{pointer}/{}", escape(key)), faults)
    }

    fn read_templates(value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> Self {
        let template =
            |read: Result<Template, String>, pointer: String, faults: &mut Vec<Fault>| match read {
                Ok(it) => Self::Template(it),
                Err(detail) => {
                    faults.push(Fault::new(pointer, "invalid_template", detail));
                    Self::Broken
                }
            };
        match value {
            Value::String(text) => template(Template::parse(text), pointer.to_owned(), faults),
            Value::Array(items) => {
                let read = |(index, it): (usize, &Value)| {
                    Self::read(it, &format!("{pointer}/{index}"), faults)
                };
                Self::List(items.iter().enumerate().map(read).collect())
            }
            Value::Object(fields) => match fields.get(FROM) {
                Some(Value::String(text)) if fields.len() == 1 => {
                    template(Template::parse_bare(text), format!("{pointer}/{FROM}"), faults)
                }
                Some(_) => {
                    let detail = "\"$from\" stands alone in its object, with a text: {\"$from\": \"tasks.a.outputs.x\"}";
                    faults.push(Fault::new(pointer, "invalid_template", detail));
                    Self::Broken
                }
                None => {
                    let read = |(key, it): (&String, &Value)| {
                        (key.clone(), Self::read_field(it, pointer, key, faults))
                    };
                    Self::Map(fields.iter().map(read).collect())
                }
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Plain(value.clone()),
        }
    }

    /// A field of what is an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, it)| it),
            Self::Plain(_) | Self::Template(_) | Self::List(_) | Self::Broken => None,
        }
    }

    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Every template in it, with its pointer below `pointer`.
    pub fn templates<'t>(&'t self, pointer: &str, found: &mut impl FnMut(&str, &'t Template)) {
        match self {
            Self::Plain(_) | Self::Broken => {}
            Self::Template(it) => found(pointer, it),
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.templates(&format!("{pointer}/{index}"), found);
                }
            }
            Self::Map(fields) => {
                for (key, it) in fields {
                    if !it.is_plain() {
                        it.templates(&format!("{pointer}/{}", escape(key)), found);
                    }
                }
            }
        }
    }
}

fn has_template(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => Template::is_in(text),
        Value::Array(items) => items.iter().any(has_template),
        Value::Object(fields) => fields.iter().any(|(key, it)| key == FROM || has_template(it)),
    }
}

/// Fills templates in, and keeps what went wrong and what is not known yet.
pub struct Renderer<'s> {
    scope: &'s dyn Scope,
    left: usize,
    full: bool,
    pub faults: Vec<Fault>,
    /// Pointers of what can't be filled in yet.
    pub later: Vec<String>,
}

impl std::fmt::Debug for Renderer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl<'s> Renderer<'s> {
    /// For a document that becomes a task.
    pub fn new(scope: &'s dyn Scope) -> Self {
        Self::bounded(scope, MOST_ADDED)
    }

    /// For what may become larger than a task.
    pub fn bounded(scope: &'s dyn Scope, bytes: usize) -> Self {
        Self { scope, left: bytes, full: false, faults: Vec::new(), later: Vec::new() }
    }

    /// None: a fault, or not known yet. In a list the place is kept, with null.
    pub fn render(&mut self, tree: &Tree, pointer: &str) -> Option<Value> {
        match tree {
            Tree::Plain(value) => Some(value.clone()),
            Tree::Template(template) => match template.evaluate(self.scope) {
                Ok(Some(value)) => self.spend(value, pointer),
                Ok(None) => {
                    self.later.push(pointer.to_owned());
                    None
                }
                Err(detail) => {
                    self.faults.push(Fault::new(pointer, "template_failed", detail));
                    None
                }
            },
            Tree::List(items) => {
                let render = |(index, it): (usize, &Tree)| {
                    self.render(it, &format!("{pointer}/{index}")).unwrap_or_default()
                };
                Some(Value::Array(items.iter().enumerate().map(render).collect()))
            }
            Tree::Map(fields) => {
                let mut map = Map::new();
                for (key, it) in fields {
                    if let Some(value) = self.render(it, &format!("{pointer}/{}", escape(key))) {
                        map.insert(key.clone(), value);
                    }
                }
                Some(Value::Object(map))
            }
            Tree::Broken => {
                self.later.push(pointer.to_owned());
                None
            }
        }
    }

    fn spend(&mut self, value: Value, pointer: &str) -> Option<Value> {
        match self.left.checked_sub(weight(&value)) {
            Some(left) => {
                self.left = left;
                return Some(value);
            }
            None if self.full => {}
            None => {
                self.full = true;
                let detail = "what the references hand in is too large in all: hand large data on as a file (\"inputs\")";
                self.faults.push(Fault::new(pointer, "too_large", detail));
            }
        }
        None
    }
}

/// About how many bytes a value has as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(it) => it.len() + 2,
        Value::Array(items) => items.iter().map(|it| weight(it) + 1).sum(),
        Value::Object(fields) => fields.iter().map(|(key, it)| key.len() + 4 + weight(it)).sum(),
    }
}

/// Fills in a whole document.
pub fn render(value: &Value, scope: &dyn Scope) -> Result<Value, Vec<Fault>> {
    let mut faults = Vec::new();
    let tree = Tree::read(value, "", &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut renderer = Renderer::new(scope);
    let rendered = renderer.render(&tree, "");
    for pointer in std::mem::take(&mut renderer.later) {
        renderer.faults.push(Fault::new(pointer, "template_failed", "its value is not known yet"));
    }
    match rendered {
        Some(value) if renderer.faults.is_empty() => Ok(value),
        _ => Err(renderer.faults),
    }
}
