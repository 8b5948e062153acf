//! The same description in version 3.0 of the standard, for generators that know no newer one. What 3.0 can't
//! say is left out: it says less, and nothing else.

use serde_json::{Value, json};

use super::json::{Json, Members};

pub(super) fn to_3_0(document: &Json) -> Json {
    let mut document = document.clone();
    let root = document.at(&[]);
    root.insert("openapi".to_owned(), "3.0.3".into());
    for newer in ["jsonSchemaDialect", "webhooks"] {
        root.shift_remove(newer);
    }
    let info = document.at(&["info"]);
    info.shift_remove("summary");
    if let Some(license) = info.get_mut("license").and_then(Json::members_mut) {
        license.shift_remove("identifier");
    }
    for item in document.at(&["paths"]).values_mut() {
        for operation in item.children_mut() {
            in_operation(operation);
        }
    }
    let components = document.at(&["components"]);
    components.shift_remove("pathItems");
    for (kind, all) in components {
        let convert: fn(&mut Json) = match kind.as_str() {
            "schemas" => schema,
            "responses" => response,
            "parameters" | "headers" => with_schema,
            "requestBodies" => with_content,
            _ => continue,
        };
        all.children_mut().for_each(convert);
    }
    document
}

fn in_operation(operation: &mut Json) {
    each(operation, "parameters", with_schema);
    if let Some(body) = operation.members_mut().and_then(|it| it.get_mut("requestBody")) {
        with_content(body);
    }
    each(operation, "responses", response);
}

fn response(response: &mut Json) {
    each(response, "headers", with_schema);
    with_content(response);
}

/// A request body or an answer.
fn with_content(it: &mut Json) {
    bare_reference(it);
    each(it, "content", with_schema);
}

/// A parameter, a header or a media type.
fn with_schema(it: &mut Json) {
    bare_reference(it);
    if let Some(it) = it.members_mut().and_then(|it| it.get_mut("schema")) {
        schema(it);
    }
}

fn each(it: &mut Json, name: &str, convert: fn(&mut Json)) {
    let all = it.members_mut().and_then(|it| it.get_mut(name));
    all.into_iter().flat_map(Json::children_mut).for_each(convert);
}

/// What stands beside a reference counts for nothing in 3.0.
fn bare_reference(it: &mut Json) {
    if let Some(members) = it.members_mut()
        && members.contains_key("$ref")
    {
        members.retain(|name, _| name == "$ref");
    }
}

/// Of JSON Schema, and not of the dialect of 3.0.
const UNKNOWN: [&str; 20] = [
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$schema",
    "contains",
    "contentMediaType",
    "contentSchema",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

fn schema(it: &mut Json) {
    // `true` is everything, `false` is nothing.
    if let Json::Other(Value::Bool(anything)) = it {
        *it = if *anything { json!({}) } else { json!({"not": {}}) }.into();
    }
    let Some(members) = it.members_mut() else { return };
    if members.contains_key("$ref") {
        reference(members);
        return;
    }
    types(members);
    values(members);
    bounds(members);
    encoding(members);
    if members.shift_remove("patternProperties").is_some() {
        members.insert("additionalProperties".to_owned(), Json::Other(true.into()));
    }
    members.retain(|name, _| !UNKNOWN.contains(&name.as_str()));
    for name in ["items", "not"] {
        members.get_mut(name).into_iter().for_each(schema);
    }
    if let Some(it) = members.get_mut("additionalProperties").filter(|it| it.members().is_some()) {
        schema(it);
    }
    for name in ["properties", "allOf", "anyOf", "oneOf"] {
        members.get_mut(name).into_iter().flat_map(Json::children_mut).for_each(schema);
    }
}

/// A description beside it is worth a wrapper. What narrows it is not: many generators would make a type of
/// each.
fn reference(members: &mut Members) {
    if let Some(description) = members.get("description").cloned() {
        let target = members.get("$ref").cloned();
        let only = target.map(|it| Members::from_iter([("$ref".to_owned(), it)]));
        let all = only.map(|it| Json::Array(vec![Json::Object(it)]));
        *members = Members::from_iter([("description".to_owned(), description)]);
        members.extend(all.map(|it| ("allOf".to_owned(), it)));
        return;
    }
    members.retain(|name, _| name == "$ref");
}

/// One type each; null is a property of a type.
fn types(members: &mut Members) {
    let mut nullable = false;
    if let Some(Json::Array(types)) = members.get_mut("type") {
        let all = types.len();
        types.retain(|it| it.text() != Some("null"));
        nullable = types.len() < all;
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        } else {
            let one = |it: &Json| Members::from_iter([("type".to_owned(), it.clone())]).into();
            let each = Json::Array(types.iter().map(one).collect());
            members.shift_remove("type");
            members.insert("anyOf".to_owned(), each);
        }
    }
    for name in ["anyOf", "oneOf"] {
        if let Some(Json::Array(choices)) = members.get_mut(name) {
            let all = choices.len();
            choices.retain(|it| it.get("type").and_then(Json::text) != Some("null"));
            nullable |= choices.len() < all;
        }
    }
    if nullable {
        members.insert("nullable".to_owned(), Json::Other(true.into()));
    }
}

fn values(members: &mut Members) {
    if let Some(only) = members.shift_remove("const") {
        members.insert("enum".to_owned(), Json::Array(vec![only]));
    }
    if let Some(Json::Array(examples)) = members.shift_remove("examples")
        && let Some(first) = examples.into_iter().next()
    {
        members.entry("example".to_owned()).or_insert(first);
    }
}

/// A bound is a number, and whether it is left out a flag beside it.
fn bounds(members: &mut Members) {
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if let Some(Json::Other(Value::Number(_))) = members.get(exclusive)
            && let Some(number) = members.shift_remove(exclusive)
        {
            members.insert(bound.to_owned(), number);
            members.insert(exclusive.to_owned(), Json::Other(true.into()));
        }
    }
}

/// Bytes are a format of text.
fn encoding(members: &mut Members) {
    let encoding = members.shift_remove("contentEncoding");
    let media_type = members.get("contentMediaType").and_then(Json::text);
    let format = match (encoding.as_ref().and_then(Json::text), media_type) {
        (Some("base64"), _) => "byte",
        (None, Some("application/octet-stream")) => "binary",
        _ => return,
    };
    members.insert("format".to_owned(), format.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(before: Value) -> Value {
        let mut it = Json::from(before);
        schema(&mut it);
        serde_json::to_value(it).unwrap()
    }

    #[test]
    fn what_3_0_says_otherwise_is_said_its_way() {
        for (before, after) in [
            (json!({"type": ["string", "null"]}), json!({"type": "string", "nullable": true})),
            (
                json!({"type": ["string", "integer"]}),
                json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
            ),
            (
                json!({"oneOf": [{"type": "null"}, {"$ref": "#/a"}]}),
                json!({"oneOf": [{"$ref": "#/a"}], "nullable": true}),
            ),
            (json!({"const": 1}), json!({"enum": [1]})),
            (json!({"examples": [{"const": 1}, 2]}), json!({"example": {"const": 1}})),
            (json!({"exclusiveMinimum": 0}), json!({"minimum": 0, "exclusiveMinimum": true})),
            (json!({"contentEncoding": "base64"}), json!({"format": "byte"})),
            (json!({"contentMediaType": "application/octet-stream"}), json!({"format": "binary"})),
            (json!({"propertyNames": {"pattern": "a"}}), json!({})),
            (
                json!({"$ref": "#/a", "description": "x"}),
                json!({"description": "x", "allOf": [{"$ref": "#/a"}]}),
            ),
            (json!({"$ref": "#/a", "properties": {"b": {"const": 1}}}), json!({"$ref": "#/a"})),
            (json!({"additionalProperties": true}), json!({"additionalProperties": true})),
            (json!(true), json!({})),
            (
                json!({"properties": {"const": {"const": 1}}, "items": {"items": {"const": 2}}}),
                json!({"properties": {"const": {"enum": [1]}}, "items": {"items": {"enum": [2]}}}),
            ),
        ] {
            assert_eq!(converted(before.clone()), after, "{before}");
        }
    }
}
