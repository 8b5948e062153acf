//! What a task runs for: once, for each combination of a matrix, or for each item of a list.

use serde_json::{Map, Value};

use super::schema::kind_of;
use crate::domain::plan::FanOut;
use crate::domain::spec::{Fault, ObjectReader};
use crate::domain::template::{Renderer, RunScope, Tree};

/// Of one task.
pub const MOST_ITEMS: usize = 100_000;
/// What a list of items may take.
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) enum Items {
    /// No items: it runs once.
    #[default]
    One,
    /// With the pointer of the field.
    Matrix(String, Tree),
    ForEach(String, Tree),
}

impl Items {
    /// Reads `matrix` and `for_each`.
    pub(super) fn read(task: &mut ObjectReader<'_>) -> (Self, FanOut) {
        let (matrix, list) = (task.value("matrix"), task.value("for_each"));
        if matrix.is_some() && list.is_some() {
            let detail = "give \"matrix\" or \"for_each\", not both: a matrix with the list as one of its keys makes all \
                          combinations";
            task.fault("for_each", "conflict", detail);
        }
        if let Some(value) = matrix {
            let pointer = task.pointer("matrix");
            let tree = Tree::read(value, &pointer, task.faults());
            let plan = match &tree {
                Tree::Plain(value) => {
                    let mut faults = Vec::new();
                    let count = Matrix::read(value, &pointer, &mut faults)
                        .map_or(0, |it| it.expand().len());
                    if count == 0 && faults.is_empty() {
                        let detail = "no combination is left: the task would never run";
                        faults.push(Fault::new(pointer.clone(), "invalid_value", detail));
                    }
                    task.faults().append(&mut faults);
                    FanOut::Items(u32::try_from(count).unwrap_or(u32::MAX))
                }
                Tree::Map(_) | Tree::Template(_) | Tree::List(_) | Tree::Broken => FanOut::Later,
            };
            return (Self::Matrix(pointer, tree), plan);
        }
        let Some(value) = list else { return (Self::One, FanOut::One) };
        let pointer = task.pointer("for_each");
        let tree = Tree::read(value, &pointer, task.faults());
        let plan = match (&tree, value) {
            (Tree::Template(template), _) if template.is_whole() => FanOut::Later,
            (Tree::Broken, _) => FanOut::Later,
            (_, Value::Array(items)) => {
                if let Err(fault) = bounded(items.len(), &pointer) {
                    task.faults().push(fault);
                }
                FanOut::Items(u32::try_from(items.len()).unwrap_or(u32::MAX))
            }
            _ => {
                task.faults().push(no_list(value, &pointer));
                FanOut::Later
            }
        };
        (Self::ForEach(pointer, tree), plan)
    }

    pub(super) fn tree(&self) -> Option<(&str, &Tree)> {
        match self {
            Self::One => None,
            Self::Matrix(pointer, tree) | Self::ForEach(pointer, tree) => Some((pointer, tree)),
        }
    }

    /// The names that `matrix.NAME` may have; None where that is not known.
    pub(super) fn keys(&self) -> Option<Vec<&str>> {
        let tree = match self {
            Self::Matrix(_, tree) => tree,
            Self::One | Self::ForEach(..) => return Some(Vec::new()),
        };
        let Tree::Plain(Value::Object(fields)) = tree else {
            return match tree {
                Tree::Map(fields) if !fields.iter().any(|(key, _)| key == INCLUDE) => Some(
                    fields
                        .iter()
                        .map(|(key, _)| key.as_str())
                        .filter(|it| *it != EXCLUDE)
                        .collect(),
                ),
                _ => None,
            };
        };
        let mut keys: Vec<&str> = fields
            .keys()
            .map(String::as_str)
            .filter(|it| ![INCLUDE, EXCLUDE].contains(it))
            .collect();
        let more = fields.get(INCLUDE).and_then(Value::as_array).into_iter().flatten();
        for key in more.filter_map(Value::as_object).flat_map(Map::keys) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        Some(keys)
    }

    /// In order; one item without a value where the task has none.
    pub(super) fn expand(&self, scope: &RunScope<'_>) -> Result<Vec<Value>, Fault> {
        let (pointer, value) = match self {
            Self::One => return Ok(vec![Value::Null]),
            Self::Matrix(pointer, tree) | Self::ForEach(pointer, tree) => {
                (pointer, filled_in(tree, pointer, scope)?)
            }
        };
        let value = value.ok_or_else(|| {
            Fault::new(pointer.clone(), "template_failed", "its value is not known yet")
        })?;
        self.of(value, pointer)
    }

    /// What is wrong with them, as far as that can be told by now.
    pub(super) fn check(&self, scope: &RunScope<'_>) -> Option<Fault> {
        let (pointer, tree) = self.tree()?;
        let value = filled_in(tree, pointer, scope);
        value.and_then(|it| it.map_or(Ok(Vec::new()), |it| self.of(it, pointer))).err()
    }

    fn of(&self, value: Value, pointer: &str) -> Result<Vec<Value>, Fault> {
        match (self, value) {
            (Self::Matrix(..), value) => {
                let mut faults = Vec::new();
                let matrix = Matrix::read(&value, pointer, &mut faults);
                match (matrix, faults.into_iter().next()) {
                    (Some(it), None) => Ok(it.expand()),
                    (_, Some(fault)) => Err(fault),
                    (None, None) => Err(Fault::new(pointer, "invalid_value", "it is no matrix")),
                }
            }
            (_, Value::Array(items)) => {
                bounded(items.len(), pointer)?;
                Ok(items)
            }
            (_, other) => Err(no_list(&other, pointer)),
        }
    }
}

/// None: not known yet.
fn filled_in(tree: &Tree, pointer: &str, scope: &RunScope<'_>) -> Result<Option<Value>, Fault> {
    let mut renderer = Renderer::bounded(scope, MOST_BYTES);
    let value = renderer.render(tree, pointer);
    match renderer.faults.into_iter().next() {
        Some(fault) => Err(fault),
        None if renderer.later.is_empty() => Ok(value),
        None => Ok(None),
    }
}

fn bounded(count: usize, pointer: &str) -> Result<(), Fault> {
    if count <= MOST_ITEMS {
        return Ok(());
    }
    let detail = format!(
        "{count} items, at most {MOST_ITEMS} are taken: let a task work on several of them"
    );
    Err(Fault::new(pointer, "too_large", detail))
}

fn no_list(value: &Value, pointer: &str) -> Fault {
    let detail = match value {
        Value::String(text) if text.starts_with("tasks.") || text.starts_with("params.") => {
            format!("a reference stands in braces: write \"${{{{ {text} }}}}\"")
        }
        other => format!(
            "\"for_each\" must be a list, or a reference to one such as \"${{{{ tasks.a.outputs.files }}}}\", not {}",
            kind_of(other)
        ),
    };
    Fault::new(pointer, "wrong_type", detail)
}

const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
/// Each is compared with each combination.
const ENTRIES: usize = 256;

/// As on GitHub: all combinations, less those that `exclude` matches, and what `include` adds to them or besides.
#[derive(Debug)]
struct Matrix<'v> {
    axes: Vec<(&'v str, &'v [Value])>,
    exclude: Vec<&'v Map<String, Value>>,
    include: Vec<&'v Map<String, Value>>,
}

impl<'v> Matrix<'v> {
    fn read(value: &'v Value, pointer: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let before = faults.len();
        let Some(fields) = value.as_object() else {
            let detail = format!(
                "\"matrix\" must be an object of lists, such as {{\"os\": [\"a\", \"b\"]}}, not {}",
                kind_of(value)
            );
            faults.push(Fault::new(pointer, "wrong_type", detail));
            return None;
        };
        let mut matrix = Self { axes: Vec::new(), exclude: Vec::new(), include: Vec::new() };
        let mut count = 1_usize;
        for (key, value) in fields {
            let place = super::check::below(pointer, key);
            let Some(items) = value.as_array() else {
                let detail = format!("{key:?} must be a list, not {}", kind_of(value));
                faults.push(Fault::new(place, "wrong_type", detail));
                continue;
            };
            if key != INCLUDE && key != EXCLUDE {
                count = count.saturating_mul(items.len());
                matrix.axes.push((key, items));
                continue;
            }
            if items.len() > ENTRIES {
                faults.push(Fault::new(
                    place,
                    "too_large",
                    format!("{} entries, at most {ENTRIES} are taken", items.len()),
                ));
                continue;
            }
            for (index, item) in items.iter().enumerate() {
                match item.as_object() {
                    Some(it) if key == INCLUDE => matrix.include.push(it),
                    Some(it) => matrix.exclude.push(it),
                    None => {
                        let detail =
                            format!("an entry of {key:?} must be an object, not {}", kind_of(item));
                        faults.push(Fault::new(format!("{place}/{index}"), "wrong_type", detail));
                    }
                }
            }
        }
        for (index, entry) in matrix.exclude.iter().enumerate() {
            for key in entry.keys().filter(|key| !matrix.axes.iter().any(|(axis, _)| axis == key)) {
                let detail = format!("the matrix has no key {key:?} to exclude by");
                faults.push(Fault::new(
                    format!("{pointer}/{EXCLUDE}/{index}"),
                    "invalid_value",
                    detail,
                ));
            }
        }
        if matrix.axes.is_empty() && matrix.include.is_empty() && faults.len() == before {
            faults.push(Fault::new(pointer, "invalid_value", "a matrix needs a key with a list"));
        }
        if let Err(fault) = bounded(count, pointer) {
            faults.push(fault);
        }
        (faults.len() == before).then_some(matrix)
    }

    fn expand(&self) -> Vec<Value> {
        let mut combinations: Vec<Map<String, Value>> = Vec::new();
        if !self.axes.is_empty() {
            combinations.push(Map::new());
        }
        for (key, items) in &self.axes {
            combinations = combinations
                .iter()
                .flat_map(|it| {
                    items.iter().map(move |item| {
                        let mut it = it.clone();
                        it.insert((*key).to_owned(), item.clone());
                        it
                    })
                })
                .collect();
        }
        let agrees = |it: &Map<String, Value>, entry: &Map<String, Value>| {
            entry.iter().all(|(key, value)| it.get(key) == Some(value))
        };
        combinations.retain(|it| !self.exclude.iter().any(|entry| agrees(it, entry)));
        let mut besides = Vec::new();
        let originals = combinations.len();
        for entry in &self.include {
            // Only what the matrix itself says must not be overwritten.
            let fits = |it: &Map<String, Value>| {
                self.axes
                    .iter()
                    .all(|(key, _)| entry.get(*key).is_none_or(|value| it.get(*key) == Some(value)))
            };
            let mut added = false;
            for it in combinations.iter_mut().take(originals).filter(|it| fits(it)) {
                it.extend(entry.iter().map(|(key, value)| (key.clone(), value.clone())));
                added = true;
            }
            if !added {
                besides.push((*entry).clone());
            }
        }
        combinations.extend(besides);
        combinations.into_iter().map(Value::Object).collect()
    }
}
