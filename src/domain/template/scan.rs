//! From text to expressions, and from an expression to what it asks for.
//!
//! minijinja reads `tasks.a-b.outputs.x` as a subtraction, and tells of names only what was undefined when it ran. So
//! the words of an expression are read here first: each path that begins with a name of ours is a [`Mention`], and is
//! replaced by a variable of the same width, so that columns stay what they are.

use super::Reference;
use crate::domain::spec::suggest;

pub(super) const OPEN: &str = "${{";

/// One expression asks for this many values at most, each of which may be a large one.
const MENTIONS: usize = 64;
/// And is no longer than this.
const LENGTH: usize = 4_096;
/// Each call of `range` may make a long list.
const CALLS: usize = 2;

const ROOTS: [&str; 5] = ["params", "tasks", "run", "item", "matrix"];
const TASK_FIELDS: [&str; 4] = ["outputs", "state", "exit_code", "failure"];
const RUN_FIELDS: [&str; 3] = ["id", "name", "state"];
const WORDS: [&str; 13] = [
    "and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None",
];
pub(super) const FUNCTIONS: [&str; 1] = ["range"];

/// What is wrong with an expression, and at which of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) detail: String,
    /// The expression itself, up to there.
    pub(super) before: String,
}

impl Wrong {
    pub(super) fn new(text: &str, at: usize, detail: impl Into<String>) -> Self {
        let before = text.get(..at).unwrap_or(text).to_owned();
        Self { at, detail: detail.into(), before }
    }

    /// In words, where this text stands before the expression.
    pub(super) fn inside(self, before: &str) -> String {
        let column = before.chars().count() + self.before.chars().count() + 1;
        format!("{} (at character {column})", self.detail)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    /// `start` is a byte of the whole text.
    Expression {
        start: usize,
        text: &'t str,
    },
}

/// Cuts a text at its `${{ }}`.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = 0;
    while let Some(found) = text.get(rest..).and_then(|it| it.find(OPEN)) {
        let open = rest + found;
        if open > rest {
            pieces.push(Piece::Text(&text[rest..open]));
        }
        let start = open + OPEN.len();
        let Some(end) = end_of(text.as_bytes(), start) else {
            let column = text[..open].chars().count() + 1;
            return Err(format!(
                "\"${{{{\" is not closed: write \"}}}}\" behind the expression, or ${{{{ '${{{{' }}}} for the characters \
                 themselves (at character {column})"
            ));
        };
        pieces.push(Piece::Expression { start, text: &text[start..end] });
        rest = end + 2;
    }
    if rest < text.len() {
        pieces.push(Piece::Text(&text[rest..]));
    }
    Ok(pieces)
}

/// The byte of the `}}` that closes, which is in no text and closes no object of the expression.
fn end_of(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_u32);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => at = end_of_text(bytes, at)?,
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The byte of the quote that closes the one at `at`.
fn end_of_text(bytes: &[u8], at: usize) -> Option<usize> {
    let quote = bytes.get(at)?;
    let mut end = at + 1;
    loop {
        match bytes.get(end)? {
            b'\\' => end += 1,
            it if it == quote => return Some(end),
            _ => {}
        }
        end += 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Mark,
}

#[derive(Debug, Clone, Copy)]
struct Token<'t> {
    kind: Kind,
    text: &'t str,
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    fn is(&self, text: &str) -> bool {
        self.kind != Kind::Text && self.text == text
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, Wrong> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let run =
        |at: usize, of: fn(u8) -> bool| at + bytes[at..].iter().take_while(|it| of(**it)).count();
    let is_word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    while let Some(byte) = bytes.get(at) {
        let after_dot = tokens.last().is_some_and(|it: &Token<'_>| it.is(".") && it.end() == at);
        let (kind, end) = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => (Kind::Name, run(at, is_word)),
            // `list.0.x` is a path.
            b'0'..=b'9' if after_dot => (Kind::Number, run(at, |it| it.is_ascii_digit())),
            b'0'..=b'9' => {
                let whole = run(at, is_word);
                let is_fraction = bytes.get(whole) == Some(&b'.')
                    && bytes.get(whole + 1).is_some_and(u8::is_ascii_digit);
                (Kind::Number, if is_fraction { run(whole + 1, is_word) } else { whole })
            }
            b'"' | b'\'' => match end_of_text(bytes, at) {
                Some(end) => (Kind::Text, end + 1),
                None => return Err(Wrong::new(text, at, "a quote is not closed")),
            },
            b'*' => {
                let detail = "\"*\" is not taken, as it repeats texts without a bound: write params.n|times(2)";
                return Err(Wrong::new(text, at, detail));
            }
            b'=' | b'!' | b'<' | b'>' if bytes.get(at + 1) == Some(&b'=') => (Kind::Mark, at + 2),
            b'&' | b'!' => {
                let detail =
                    "write \"and\", \"or\" and \"not\" instead of \"&&\", \"||\" and \"!\"";
                return Err(Wrong::new(text, at, detail));
            }
            b'|' if bytes.get(at + 1) == Some(&b'|') => {
                return Err(Wrong::new(text, at, "write \"or\" instead of \"||\""));
            }
            b'.' | b',' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b':' | b'|' | b'~' | b'+'
            | b'-' | b'/' | b'%' | b'<' | b'>' | b'=' => (Kind::Mark, at + 1),
            _ => {
                let found = text[at..].chars().next().unwrap_or_default();
                return Err(Wrong::new(text, at, format!("{found:?} has no meaning here")));
            }
        };
        tokens.push(Token { kind, text: &text[at..end], start: at });
        at = end;
    }
    Ok(tokens)
}

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A value that an expression asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) reference: Reference,
    /// What of the value.
    pub(super) path: Vec<Step>,
    /// It may be missing: the expression asks `is defined`, or has a `default`.
    pub(super) guarded: bool,
    /// As it is written.
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) mentions: Vec<Mention>,
    /// For minijinja, with `_0`, `_1` … for the mentions.
    pub(super) source: String,
    /// The first mention is all there is.
    pub(super) is_bare: bool,
}

/// Reads an expression for what it asks for, and for every name that means nothing.
pub(super) fn scan(text: &str) -> Result<Scanned, Wrong> {
    if text.len() > LENGTH {
        let detail = format!(
            "the expression has {} bytes, at most {LENGTH} are taken: let a task work it out",
            text.len()
        );
        return Err(Wrong::new(text, 0, detail));
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        let detail = "there is no expression here: write for example ${{ params.name }}";
        return Err(Wrong::new(text, 0, detail));
    }
    let mut scanned = Scanned { mentions: Vec::new(), source: text.to_owned(), is_bare: false };
    let mut scan = Scan { text, tokens: &tokens, calls: 0 };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.kind != Kind::Name {
            at += 1;
            continue;
        }
        at = match scan.name(at)? {
            Named::Word(next) => next,
            Named::Value(mention, next) => {
                let (start, end) = (token.start, tokens[next - 1].end());
                scanned.is_bare = at == 0 && next == tokens.len();
                let known = |it: &Mention| it.text == mention.text && it.guarded == mention.guarded;
                let index = scanned.mentions.iter().position(known).unwrap_or_else(|| {
                    scanned.mentions.push(mention);
                    scanned.mentions.len() - 1
                });
                if index >= MENTIONS {
                    let detail = format!(
                        "more than {MENTIONS} values are asked for: let a task work it out"
                    );
                    return Err(Wrong::new(text, start, detail));
                }
                // The shortest mention, `item`, is as wide as the longest variable.
                let variable = format!("{:<width$}", format!("_{index}"), width = end - start);
                scanned.source.replace_range(start..end, &variable);
                next
            }
        };
    }
    Ok(scanned)
}

enum Named {
    /// It is no value of ours; go on there.
    Word(usize),
    Value(Mention, usize),
}

struct Scan<'s, 't> {
    text: &'t str,
    tokens: &'s [Token<'t>],
    calls: usize,
}

impl Scan<'_, '_> {
    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|it| it.is(text))
    }

    fn wrong(&self, at: usize, detail: impl Into<String>) -> Wrong {
        let byte = self.tokens.get(at).map_or(self.text.len(), |it| it.start);
        Wrong::new(self.text, byte, detail)
    }

    fn name(&mut self, at: usize) -> Result<Named, Wrong> {
        let name = self.tokens[at].text;
        let before = at.checked_sub(1);
        let follows = |text: &str| before.is_some_and(|it| self.is(it, text));
        if follows(".") {
            return match self.is(at + 1, "(") {
                true => Err(self.wrong(
                    at,
                    format!("{name:?}: values have no methods; filters are written value|filter"),
                )),
                false => Ok(Named::Word(at + 1)),
            };
        }
        if follows("|") {
            return self.known("filter", name, &super::filters::FILTERS, at);
        }
        let negated = follows("not") && at >= 2 && self.is(at - 2, "is");
        if (follows("is") && name != "not") || negated {
            return self.known("test", name, &super::filters::TESTS, at);
        }
        if WORDS.contains(&name) {
            return Ok(Named::Word(at + 1));
        }
        if self.is(at + 1, "=") {
            return Ok(Named::Word(at + 1));
        }
        if self.is(at + 1, "(") {
            self.calls += 1;
            return self.function(name, at);
        }
        if !ROOTS.contains(&name) {
            let hint = suggest(name, &ROOTS);
            let hint = if hint.is_empty() {
                format!(": values begin with {}, and texts stand in quotes", ROOTS.join(", "))
            } else {
                hint
            };
            return Err(self.wrong(at, format!("unknown name {name:?}{hint}")));
        }
        self.value(at)
    }

    fn known(&self, what: &str, name: &str, all: &[&str], at: usize) -> Result<Named, Wrong> {
        if all.contains(&name) {
            return Ok(Named::Word(at + 1));
        }
        let hint = match (what, name) {
            ("filter", "toJSON" | "tojson" | "to_json" | "json") => {
                ": did you mean \"tojson\"?".to_owned()
            }
            _ => suggest(name, all),
        };
        let hint = if hint.is_empty() { format!(": there is {}", all.join(", ")) } else { hint };
        Err(self.wrong(at, format!("unknown {what} {name:?}{hint}")))
    }

    fn function(&self, name: &str, at: usize) -> Result<Named, Wrong> {
        if FUNCTIONS.contains(&name) {
            if self.calls > CALLS {
                return Err(self.wrong(
                    at,
                    format!("more than {CALLS} calls of functions: let a task work it out"),
                ));
            }
            return Ok(Named::Word(at + 1));
        }
        // What those who come from GitHub Actions write.
        let instead = match name {
            "always" => "write \"trigger\": \"always\"",
            "failure" => "write \"trigger\": \"one_failed\"",
            "success" => "that is what \"trigger\": \"all_success\" says, and it is the default",
            "cancelled" => "ask for tasks.NAME.state",
            "fromJSON" | "fromJson" | "fromjson" => "write value|fromjson",
            "toJSON" | "toJson" | "tojson" => "write value|tojson",
            "contains" => "write \"x\" in value",
            "startsWith" => "write value is startingwith(\"x\")",
            "endsWith" => "write value is endingwith(\"x\")",
            "format" => "put texts together with ~",
            "join" => "write list|join(\",\")",
            _ => "there is range; what is done to a value is a filter, value|filter",
        };
        Err(self.wrong(at, format!("unknown function {name:?}: {instead}")))
    }

    /// A path that begins with a name of ours.
    fn value(&self, root: usize) -> Result<Named, Wrong> {
        let (steps, next) = self.path(root + 1)?;
        if self.is(next, "(") {
            return Err(
                self.wrong(next, "values have no methods; filters are written value|filter")
            );
        }
        let (reference, used) = self.reference(root, &steps, next)?;
        let guarded = if self.is(next, "|") {
            self.is(next + 1, "default") || self.is(next + 1, "d")
        } else {
            let test = if self.is(next + 1, "not") { next + 2 } else { next + 1 };
            self.is(next, "is") && (self.is(test, "defined") || self.is(test, "undefined"))
        };
        let end = self.tokens[next - 1].end();
        let text = self.text[self.tokens[root].start..end].to_owned();
        let path = steps.into_iter().skip(used).collect();
        Ok(Named::Value(Mention { reference, path, guarded, text }, next))
    }

    /// `.name`, `.0`, `["name"]` and `[0]`, as many as there are. A dash between letters belongs to the name.
    fn path(&self, mut at: usize) -> Result<(Vec<Step>, usize), Wrong> {
        let mut steps = Vec::new();
        loop {
            let inner = self.tokens.get(at + 1);
            if self.is(at, ".") {
                let Some(inner) = inner else {
                    return Err(self.wrong(at, "a name is missing behind \".\""));
                };
                let index = inner.text.parse().ok().filter(|_| inner.kind == Kind::Number);
                match (inner.kind, index) {
                    (_, Some(index)) => {
                        steps.push(Step::Index(index));
                        at += 2;
                    }
                    (Kind::Name, None) => {
                        let last = self.dashes(at + 1);
                        steps.push(Step::Key(
                            self.text[inner.start..self.tokens[last].end()].to_owned(),
                        ));
                        at = last + 1;
                    }
                    _ => return Err(self.wrong(at + 1, "a name is missing behind \".\"")),
                }
            } else if let Some(inner) = inner.filter(|_| self.is(at, "[") && self.is(at + 2, "]")) {
                match (inner.kind, inner.text.parse()) {
                    (Kind::Text, _) => {
                        let key = &inner.text[1..inner.text.len() - 1];
                        if key.contains('\\') {
                            return Err(self.wrong(at + 1, "a name has no backslash"));
                        }
                        steps.push(Step::Key(key.to_owned()));
                    }
                    (Kind::Number, Ok(index)) => steps.push(Step::Index(index)),
                    _ => return Ok((steps, at)),
                }
                at += 3;
            } else {
                return Ok((steps, at));
            }
        }
    }

    /// The last token of a name with dashes.
    fn dashes(&self, mut at: usize) -> usize {
        loop {
            let touch = |a: usize, b: usize| {
                let (Some(a), Some(b)) = (self.tokens.get(a), self.tokens.get(b)) else {
                    return false;
                };
                a.end() == b.start
            };
            let is_part = self
                .tokens
                .get(at + 2)
                .is_some_and(|it| matches!(it.kind, Kind::Name | Kind::Number));
            if self.is(at + 1, "-") && touch(at, at + 1) && touch(at + 1, at + 2) && is_part {
                at += 2;
            } else {
                return at;
            }
        }
    }

    /// What the first steps mean, and how many those are.
    fn reference(
        &self,
        root: usize,
        steps: &[Step],
        next: usize,
    ) -> Result<(Reference, usize), Wrong> {
        let key = |at: usize| match steps.get(at) {
            Some(Step::Key(it)) => Some(it.as_str()),
            Some(Step::Index(_)) | None => None,
        };
        let say = |what: &str| {
            let detail = match self.is(next, "[") {
                true => {
                    format!("{what}; the name itself has to stand there, in quotes or behind a dot")
                }
                false => what.to_owned(),
            };
            self.wrong(root, detail)
        };
        match self.tokens[root].text {
            "params" => match key(0) {
                Some(name) => Ok((Reference::Param(name.to_owned()), 1)),
                None => Err(say("say which param: params.NAME")),
            },
            "tasks" => {
                let Some(task) = key(0) else {
                    return Err(say("say which task: tasks.NAME.outputs.x"));
                };
                let task = task.to_owned();
                match (key(1), key(2)) {
                    (Some("state"), _) => Ok((Reference::TaskState(task), 2)),
                    (Some("exit_code"), _) => Ok((Reference::TaskExitCode(task), 2)),
                    (Some("failure"), _) => Ok((Reference::TaskFailure(task), 2)),
                    (Some("outputs"), Some(output)) => {
                        Ok((Reference::TaskOutput { task, output: output.to_owned() }, 3))
                    }
                    (Some("outputs"), None) => {
                        Err(say(&format!("say which output: tasks.{task}.outputs.NAME")))
                    }
                    (Some(other), _) => {
                        let hint = suggest(other, &TASK_FIELDS);
                        let hint = if hint.is_empty() {
                            format!(": there is {}", TASK_FIELDS.join(", "))
                        } else {
                            hint
                        };
                        Err(say(&format!("a task has no {other:?}{hint}")))
                    }
                    (None, _) => Err(say(&format!(
                        "say what of task {task:?}: tasks.{task}.outputs.NAME, .state, .exit_code or .failure"
                    ))),
                }
            }
            "run" => match key(0) {
                Some("id") => Ok((Reference::RunId, 1)),
                Some("name") => Ok((Reference::RunName, 1)),
                Some("state") => Ok((Reference::RunState, 1)),
                Some(other) => {
                    let hint = suggest(other, &RUN_FIELDS);
                    let hint = if hint.is_empty() {
                        format!(": there is {}", RUN_FIELDS.join(", "))
                    } else {
                        hint
                    };
                    Err(say(&format!("a run has no {other:?}{hint}")))
                }
                None => Err(say("say what of the run: run.id, run.name or run.state")),
            },
            "matrix" => match key(0) {
                Some(name) => Ok((Reference::Matrix(name.to_owned()), 1)),
                None => Err(say(
                    "say which key of the matrix: matrix.NAME, or write item for all of them",
                )),
            },
            _ => Ok((Reference::Item, 0)),
        }
    }
}
