//! The JSON Schema of the workflow document, for editors and other programs.
//!
//! What a workflow adds stands in `workflow.json`; what is to run is the task document of this API, where any value may
//! also be a reference.

use std::sync::LazyLock;

use utoipa::{PartialSchema as _, ToSchema as _};

use super::json::{Json, Members};
use super::{pretty, tidy};
use crate::api::v1::tasks::document::TaskSpec;

const WORKFLOW: &str = include_str!("workflow.json");
/// They name a submit, not a task of a run.
const OF_A_SUBMIT: [&str; 2] = ["run_key", "on_duplicate"];

/// As text.
pub(in crate::api) static SCHEMA: LazyLock<String> = LazyLock::new(schema);

fn schema() -> String {
    let mut schema: Json = serde_json::from_str(WORKFLOW).unwrap_or_else(|_| Members::new().into());
    let mut schemas = Vec::new();
    TaskSpec::schemas(&mut schemas);
    let described = |mut it| {
        tidy(&mut it);
        let text = serde_json::to_string(&it).unwrap_or_default();
        let it = serde_json::from_str(&text);
        let mut it: Json = it.unwrap_or_else(|_| Members::new().into());
        refer_to_definitions(&mut it);
        it
    };
    let task = described(TaskSpec::schema());
    let fields = task.get("properties").and_then(Json::members).cloned().unwrap_or_default();
    for (name, field) in fields {
        if OF_A_SUBMIT.contains(&name.as_str()) {
            continue;
        }
        let mut field = or_reference(field);
        // It takes a default away.
        field.at(&[]).entry("anyOf".to_owned()).and_modify(|it| {
            if let Json::Array(all) = it {
                all.push(serde_json::json!({"type": "null"}).into());
            }
        });
        for of in ["Task", "Defaults"] {
            schema.at(&["$defs", of, "properties"]).insert(name.clone(), field.clone());
        }
    }
    for (name, it) in schemas {
        if name != "TaskSpec" && !OF_A_SUBMIT.contains(&name.as_str()) && name != "OnDuplicate" {
            let mut it = described(it);
            fill_in(&mut it);
            schema.at(&["$defs"]).insert(name, it);
        }
    }
    pretty(&schema)
}

fn refer_to_definitions(it: &mut Json) {
    if let Some(name) = it.get("$ref").and_then(Json::text) {
        let name = name.replace("#/components/schemas/", "#/$defs/");
        it.at(&[]).insert("$ref".to_owned(), name.as_str().into());
    }
    it.children_mut().for_each(refer_to_definitions);
}

/// Every value inside may be a reference, and nothing may be there that is not named.
fn fill_in(schema: &mut Json) {
    let Some(members) = schema.members_mut() else { return };
    if let Some(properties) = members.get_mut("properties") {
        for it in properties.at(&[]).values_mut() {
            *it = or_reference(std::mem::replace(it, Members::new().into()));
        }
        members.insert("additionalProperties".to_owned(), Json::Other(false.into()));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(it) = members.get_mut(inner)
            && it.members().is_some()
        {
            *it = or_reference(std::mem::replace(it, Members::new().into()));
        }
    }
    for alternatives in ["anyOf", "oneOf", "allOf"] {
        if let Some(it) = members.get_mut(alternatives) {
            it.children_mut().for_each(fill_in);
        }
    }
}

/// The schema, or a reference; what is said about it stays outside, where editors look.
fn or_reference(mut schema: Json) -> Json {
    fill_in(&mut schema);
    let mut outside = Members::new();
    for word in ["description", "default", "examples"] {
        if let Some(it) = schema.at(&[]).shift_remove(word) {
            outside.insert(word.to_owned(), it);
        }
    }
    let reference = serde_json::json!({"$ref": "#/$defs/Reference"});
    outside.insert("anyOf".to_owned(), Json::Array(vec![schema, reference.into()]));
    outside.into()
}
