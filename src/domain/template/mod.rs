//! References in documents: `${{ tasks.a.outputs.x }}` inside of texts, and `{"$from": "tasks.a.outputs.x"}` where a
//! value stands, for those whose own templating eats braces.
//!
//! What stands between the braces is an expression of Jinja (minijinja), which has no statements and so no loops.
//! Everything that can be known before anything runs is found when it is read: syntax, filters, functions, and which
//! values it asks for ([`Reference`]). Evaluating is strict (a value that is not there is a fault, unless the
//! expression asks `is defined` or names a `default`) and bounded: in instructions, in the text that filters make, and in
//! the size of what comes out. A value keeps its type where the expression is all that stands there.
//!
//! This is the only place that names minijinja.

mod expression;
mod filters;
mod scan;
#[cfg(test)]
mod tests;
mod tree;

use std::borrow::Cow;

use serde_json::{Map, Value};

pub use expression::Expression;
pub use tree::{Renderer, Tree, render};

/// What an expression may ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    Param(String),
    TaskOutput {
        task: String,
        output: String,
    },
    TaskState(String),
    TaskExitCode(String),
    /// `{reason, class, message, log_tail}`, or null.
    TaskFailure(String),
    RunId,
    RunName,
    /// Only known when the tasks have ended.
    RunState,
    /// The item of a task that runs for each of a list.
    Item,
    /// One key of the item of a task that has a matrix.
    Matrix(String),
}

impl Reference {
    /// The task that has to come first.
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::TaskOutput { task, .. }
            | Self::TaskState(task)
            | Self::TaskExitCode(task)
            | Self::TaskFailure(task) => Some(task),
            Self::Param(_)
            | Self::RunId
            | Self::RunName
            | Self::RunState
            | Self::Item
            | Self::Matrix(_) => None,
        }
    }
}

/// What a scope says of a reference.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    Value(Cow<'a, Value>),
    /// There is none, and there won't be.
    Missing,
    /// It is not known yet: what hangs on it can't be checked yet either.
    Later,
}

/// Where values come from.
pub trait Scope {
    fn find(&self, reference: &Reference) -> Found<'_>;
}

/// What is known of a run's tasks when a template is evaluated.
pub trait Tasks {
    /// A list in the order of the items where the task has some.
    fn output(&self, task: &str, output: &str) -> Found<'_>;
    fn state(&self, task: &str) -> Found<'_>;
    fn exit_code(&self, task: &str) -> Found<'_>;
    fn failure(&self, task: &str) -> Found<'_>;
}

/// Of no task anything is known yet.
#[derive(Debug, Clone, Copy)]
pub struct NoTasks;

impl Tasks for NoTasks {
    fn output(&self, _: &str, _: &str) -> Found<'_> {
        Found::Later
    }

    fn state(&self, _: &str) -> Found<'_> {
        Found::Later
    }

    fn exit_code(&self, _: &str) -> Found<'_> {
        Found::Later
    }

    fn failure(&self, _: &str) -> Found<'_> {
        Found::Later
    }
}

/// The scope of one run, and of one item where there is one. None: not known yet.
#[derive(Clone, Copy)]
pub struct RunScope<'a> {
    /// With every default filled in.
    pub params: Option<&'a Map<String, Value>>,
    pub run_id: Option<&'a str>,
    pub run_name: Option<&'a str>,
    pub run_state: Option<&'a str>,
    pub tasks: &'a dyn Tasks,
    /// With a matrix, the object of its keys.
    pub item: Option<&'a Value>,
}

impl RunScope<'static> {
    /// Nothing is known: for looking at a document before there are params.
    pub const UNKNOWN: Self = Self {
        params: None,
        run_id: None,
        run_name: None,
        run_state: None,
        tasks: &NoTasks,
        item: None,
    };
}

impl std::fmt::Debug for RunScope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunScope").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Scope for RunScope<'_> {
    fn find(&self, reference: &Reference) -> Found<'_> {
        let text = |it: Option<&str>| match it {
            Some(it) => Found::Value(Cow::Owned(it.into())),
            None => Found::Later,
        };
        let field = |of: Option<&'_ Value>, name: &str| match of {
            Some(it) => {
                it.get(name).map_or(Found::Missing, |it| Found::Value(Cow::Owned(it.clone())))
            }
            None => Found::Later,
        };
        match reference {
            Reference::Param(name) => match self.params {
                Some(it) => {
                    it.get(name).map_or(Found::Missing, |it| Found::Value(Cow::Borrowed(it)))
                }
                None => Found::Later,
            },
            Reference::TaskOutput { task, output } => self.tasks.output(task, output),
            Reference::TaskState(task) => self.tasks.state(task),
            Reference::TaskExitCode(task) => self.tasks.exit_code(task),
            Reference::TaskFailure(task) => self.tasks.failure(task),
            Reference::RunId => text(self.run_id),
            Reference::RunName => text(self.run_name),
            Reference::RunState => text(self.run_state),
            Reference::Item => self.item.map_or(Found::Later, |it| Found::Value(Cow::Borrowed(it))),
            Reference::Matrix(key) => field(self.item, key),
        }
    }
}

/// A text with expressions in it.
#[derive(Debug)]
pub struct Template {
    pieces: Vec<Piece>,
    references: Vec<Reference>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Whether there is anything to evaluate in a text: most have nothing.
    pub fn is_in(text: &str) -> bool {
        memchr::memmem::find(text.as_bytes(), scan::OPEN.as_bytes()).is_some()
    }

    /// Reads a text with `${{ … }}` in it. What is wrong is said with the character where it is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        for piece in scan::pieces(text)? {
            pieces.push(match piece {
                scan::Piece::Text(it) => Piece::Text(it.to_owned()),
                scan::Piece::Expression { start, text: inner } => {
                    let read = Expression::parse(inner);
                    Piece::Expression(read.map_err(|it| it.inside(&text[..start]))?)
                }
            });
        }
        Ok(Self::of(pieces))
    }

    /// Reads what is an expression by itself: the value of `$from`, or a `when`, which may stand in `${{ }}` as well.
    pub fn parse_bare(text: &str) -> Result<Self, String> {
        if Self::is_in(text) {
            let whole = Self::parse(text)?;
            if !whole.is_whole() {
                return Err("text stands beside ${{ }}: write one expression, such as \
                            ${{ params.n > 1 and tasks.a.state == \"succeeded\" }}"
                    .to_owned());
            }
            return Ok(whole);
        }
        let read = Expression::parse(text).map_err(|it| it.inside(""))?;
        Ok(Self::of(vec![Piece::Expression(read)]))
    }

    fn of(pieces: Vec<Piece>) -> Self {
        let mut references: Vec<Reference> = Vec::new();
        for piece in &pieces {
            if let Piece::Expression(it) = piece {
                for reference in it.references() {
                    if !references.contains(reference) {
                        references.push(reference.clone());
                    }
                }
            }
        }
        Self { pieces, references }
    }

    /// Everything that it asks for, each once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Whether it is exactly one expression, so that its value keeps its type.
    pub fn is_whole(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Expression(_)])
    }

    /// The reference that is all there is, without anything behind it.
    pub fn only_reference(&self) -> Option<&Reference> {
        match self.pieces.as_slice() {
            [Piece::Expression(it)] => it.only_reference(),
            _ => None,
        }
    }

    /// None: it hangs on something that is not known yet.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Option<Value>, String> {
        if let [Piece::Expression(only)] = self.pieces.as_slice() {
            return only.evaluate(scope);
        }
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(it) => text.push_str(it),
                Piece::Expression(it) => match it.evaluate(scope)? {
                    Some(value) => text.push_str(&as_text(&value)),
                    None => return Ok(None),
                },
            }
            if text.len() > expression::MOST_BYTES {
                return Err(expression::too_large());
            }
        }
        Ok(Some(Value::String(text)))
    }
}

/// A value inside of a text: text as it is, nothing for null, and JSON for the rest.
pub fn as_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(it) => Cow::Borrowed(it),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Owned(value.to_string())
        }
    }
}
