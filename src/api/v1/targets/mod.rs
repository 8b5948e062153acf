//! Targets: where tasks run. What is stored is wanted; workers follow it, and say how it is.

pub(in crate::api) mod check_target;
pub(in crate::api) mod delete_target;
pub(in crate::api) mod document;
pub(in crate::api) mod get_target;
pub(in crate::api) mod list_targets;
pub(in crate::api) mod put_target;
pub(in crate::api) mod view;

use crate::api::problem::{Problem, ProblemKind};
use crate::domain::spec::suggest;
use crate::targets::{Entry, Known, Origin};

fn find<'a>(known: &'a Known, name: &str) -> Result<&'a Entry, Problem> {
    known.entries.get(name).ok_or_else(|| {
        let names: Vec<&str> = known.entries.keys().map(String::as_str).collect();
        let hint = suggest(name, &names);
        let detail = format!("there is no target {name:?}{hint}: there is {}", names.join(", "));
        Problem::new(ProblemKind::TargetNotFound, detail)
    })
}

/// What the API does not change.
fn refuse_fixed(name: &str, entry: &Entry) -> Result<(), Problem> {
    let why = match &entry.origin {
        Origin::BuiltIn => format!("the target {name:?} is built in and stays as it is"),
        Origin::Config(_) if entry.retired => return Ok(()),
        Origin::Api => return Ok(()),
        Origin::Config(place) => configured(name, place.as_deref()),
    };
    Err(Problem::new(ProblemKind::TargetFixed, why))
}

fn configured(name: &str, place: Option<&str>) -> String {
    let place = place.unwrap_or("that of another process of this service");
    format!("the target {name:?} is defined in the configuration ({place}): change it there")
}
