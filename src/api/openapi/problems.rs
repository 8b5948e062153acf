//! Which problems an operation answers with. It names those of its own (`x-problems` beside its responses);
//! those that every operation of its form may meet are added here. Every status has its codes, and an example
//! of each.

use std::collections::BTreeMap;

use serde_json::json;

use super::examples::example;
use super::json::{Json, Members};
use crate::api::limits::is_probe;
use crate::api::problem::ProblemKind;

/// Where an operation lists its own.
const OWN: &str = "x-problems";
const MEDIA_TYPE: &str = "application/problem+json";

/// What decides which refusals an operation may meet.
struct Form<'a> {
    path: &'a str,
    is_open: bool,
    is_safe: bool,
    has_body: bool,
}

impl<'a> Form<'a> {
    fn of(path: &'a str, method: &str, operation: &Json) -> Self {
        Self {
            path,
            is_open: operation.get("security").is_some(),
            is_safe: method == "get",
            has_body: operation.get("requestBody").is_some(),
        }
    }

    fn is_api(&self) -> bool {
        self.path.starts_with("/api/")
    }

    fn is_probe(&self) -> bool {
        is_probe(self.path)
    }
}

/// What an operation need not name, as it comes with its form.
struct Refusal {
    /// Of the shared answer, for where an operation has no other problem of this status.
    name: &'static str,
    kinds: &'static [ProblemKind],
    applies: fn(&Form<'_>) -> bool,
}

const REFUSALS: &[Refusal] = &[
    Refusal {
        name: "InvalidParameter",
        kinds: &[ProblemKind::InvalidParameter],
        applies: |it| it.is_api(),
    },
    Refusal {
        name: "UnreadableBody",
        kinds: &[
            ProblemKind::MalformedJson,
            ProblemKind::MalformedYaml,
            ProblemKind::MalformedForm,
            ProblemKind::InvalidRequest,
        ],
        applies: |it| it.has_body,
    },
    Refusal {
        name: "Unauthorized",
        kinds: &[ProblemKind::Unauthorized],
        applies: |it| !it.is_open,
    },
    Refusal {
        name: "HostNotAllowed",
        kinds: &[ProblemKind::HostNotAllowed],
        applies: |it| it.is_safe && !it.is_probe(),
    },
    Refusal {
        name: "Forbidden",
        kinds: &[ProblemKind::ForeignOrigin, ProblemKind::HostNotAllowed],
        applies: |it| !it.is_safe,
    },
    Refusal {
        name: "NotFound",
        kinds: &[ProblemKind::NotFound],
        applies: |it| it.path.contains('{'),
    },
    Refusal {
        name: "RequestTimeout",
        kinds: &[ProblemKind::RequestTimeout],
        applies: |it| it.has_body,
    },
    Refusal {
        name: "BodyTooLarge",
        kinds: &[ProblemKind::BodyTooLarge],
        applies: |it| it.has_body,
    },
    Refusal {
        name: "UnsupportedMediaType",
        kinds: &[ProblemKind::UnsupportedMediaType],
        applies: |it| it.has_body,
    },
    Refusal {
        name: "RateLimited",
        kinds: &[ProblemKind::RateLimited],
        applies: |it| !it.is_probe(),
    },
    Refusal { name: "HeadersTooLarge", kinds: &[ProblemKind::HeadersTooLarge], applies: |_| true },
    Refusal { name: "Internal", kinds: &[ProblemKind::Internal], applies: |_| true },
    Refusal { name: "Unavailable", kinds: &[ProblemKind::Unavailable], applies: |it| !it.is_open },
];

/// Describes what each operation answers where it does not succeed.
pub(super) fn declare(document: &mut Json) {
    let mut shared = Members::new();
    for (path, item) in document.at(&["paths"]) {
        for (method, operation) in item.members_mut().into_iter().flatten() {
            declare_for(path, method, operation, &mut shared);
        }
    }
    shared.sort_keys();
    document.at(&["components", "responses"]).extend(shared);
    let examples = ProblemKind::ALL.iter().map(|it| {
        let example = json!({"summary": it.title(), "value": example(*it)});
        (it.code().to_owned(), Json::from(example))
    });
    document.at(&["components", "examples"]).extend(examples);
}

fn declare_for(path: &str, method: &str, operation: &mut Json, shared: &mut Members) {
    let form = Form::of(path, method, operation);
    let refusals: Vec<&Refusal> = REFUSALS.iter().filter(|it| (it.applies)(&form)).collect();
    let own = operation.members_mut().and_then(|it| it.shift_remove(OWN));
    let mut kinds: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in own_kinds(own.as_ref()).chain(refusals.iter().flat_map(|it| it.kinds).copied()) {
        kinds.entry(kind.status().as_u16()).or_default().push(kind);
    }
    let responses = operation.at(&["responses"]);
    for (status, kinds) in kinds {
        let response = match refusals.iter().find(|it| it.kinds == kinds) {
            Some(refusal) => {
                shared.insert(refusal.name.to_owned(), response(&kinds));
                json!({"$ref": format!("#/components/responses/{}", refusal.name)}).into()
            }
            None => response(&kinds),
        };
        responses.insert(status.to_string(), response);
    }
    responses.sort_keys();
}

/// In the order of the catalogue.
fn own_kinds(own: Option<&Json>) -> impl Iterator<Item = ProblemKind> {
    let codes: Vec<&str> = match own {
        Some(Json::Array(codes)) => codes.iter().filter_map(Json::text).collect(),
        _ => Vec::new(),
    };
    ProblemKind::ALL.iter().copied().filter(move |it| codes.contains(&it.code()))
}

/// One status, and the kinds of problem that it stands for.
fn response(kinds: &[ProblemKind]) -> Json {
    let ends = kinds.iter().any(|it| is_end_of_task(*it));
    let schema = if ends { "TaskProblem" } else { "Problem" };
    let codes: Vec<&str> = kinds.iter().map(|it| it.code()).collect();
    let status = kinds.first().map(|it| it.status().as_u16());
    let mut response = Json::from(json!({"description": description(kinds)}));
    for (name, what) in kinds.iter().flat_map(|it| headers(*it)) {
        let schema = if *name == "Retry-After" { "integer" } else { "string" };
        let header = json!({"description": what, "required": true, "schema": {"type": schema}});
        response.at(&["headers"]).insert((*name).to_owned(), header.into());
    }
    let content = response.at(&["content", MEDIA_TYPE]);
    let narrowed = json!({
        "$ref": format!("#/components/schemas/{schema}"),
        "properties": {"status": {"const": status}, "code": {"enum": codes}},
    });
    content.insert("schema".to_owned(), narrowed.into());
    let examples = kinds.iter().map(|it| {
        let example = json!({"$ref": format!("#/components/examples/{}", it.code())});
        (it.code().to_owned(), Json::from(example))
    });
    content.insert("examples".to_owned(), Json::Object(examples.collect()));
    response
}

fn description(kinds: &[ProblemKind]) -> String {
    if let [only] = kinds {
        return format!("`{}`: {}", only.code(), only.title());
    }
    let lines = kinds.iter().map(|it| format!("- `{}`: {}", it.code(), it.title()));
    lines.collect::<Vec<_>>().join("\n")
}

/// These have the whole task beside the problem.
fn is_end_of_task(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::TaskFailed | ProblemKind::TaskCancelled)
}

/// What such an answer says in its head.
fn headers(kind: ProblemKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        ProblemKind::Unauthorized => &[("WWW-Authenticate", "Which kind of token is taken")],
        ProblemKind::NotFinished
        | ProblemKind::RateLimited
        | ProblemKind::QueueFull
        | ProblemKind::Unavailable => &[("Retry-After", "After how many seconds to ask again")],
        ProblemKind::RangeNotSatisfiable => {
            &[("Content-Range", "How many bytes there are: `bytes */1000`")]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_that_an_operation_names_is_in_the_catalogue() {
        let openapi = serde_json::to_string(&crate::api::operations().into_openapi()).unwrap();
        let mut document: Json = serde_json::from_str(&openapi).unwrap();
        let mut count = 0;
        for (path, item) in document.at(&["paths"]) {
            for operation in item.children_mut() {
                let own = operation.at(&[]).shift_remove(OWN);
                let Some(Json::Array(codes)) = &own else { continue };
                count += codes.len();
                assert_eq!(own_kinds(own.as_ref()).count(), codes.len(), "{path}: {codes:?}");
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn every_problem_is_declared_somewhere_but_those_of_no_operation() {
        let document = crate::api::openapi().v3_1;
        let mut document: Json = serde_json::from_str(&document).unwrap();
        let components = document.at(&["components"]);
        components.shift_remove("schemas");
        components.shift_remove("examples");
        let text = serde_json::to_string(&document).unwrap();
        let missing: Vec<&str> = ProblemKind::ALL
            .iter()
            .map(|it| it.code())
            .filter(|it| !text.contains(&format!("#/components/examples/{it}\"")))
            .collect();
        // A path that takes no such method is none of the operations.
        assert_eq!(missing, ["method_not_allowed"]);
    }
}
