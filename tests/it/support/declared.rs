//! Holds every answer that a test gets against the description of the API: its operation must declare the
//! status, the type, the headers and the form of the body.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::{HeaderMap, Method, StatusCode};
use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

/// Where the compiler of schemas has the description.
const DOCUMENT: &str = "https://supercargo.test/openapi.json";

pub(crate) struct Description {
    pub document: Value,
    schemas: Schemas,
    /// Every schema of the description, by its place.
    places: HashMap<String, SchemaIndex>,
}

static DESCRIPTION: LazyLock<Description> = LazyLock::new(Description::new);

pub(crate) fn description() -> &'static Description {
    &DESCRIPTION
}

/// Fails where the answer is not one that the description has for this request.
pub(crate) fn check(
    method: &Method,
    path: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) {
    if let Err(fault) = DESCRIPTION.check(method, path, status, headers, body) {
        let body = String::from_utf8_lossy(body);
        panic!("{method} {path} answered {status}, and the description does not: {fault}\n{body}");
    }
}

impl Description {
    fn new() -> Self {
        let document: Value = serde_json::from_str(&supercargo::api::openapi().v3_1).unwrap();
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource(DOCUMENT, document.clone()).unwrap();
        let (mut schemas, mut places) = (Schemas::new(), HashMap::new());
        for place in places_of_schemas(&document) {
            // A pointer in the fragment of an address is written as one.
            let fragment = place.replace('{', "%7B").replace('}', "%7D");
            let schema = compiler.compile(&format!("{DOCUMENT}#{fragment}"), &mut schemas);
            let schema = schema.unwrap_or_else(|it| panic!("{place}: {it:#}"));
            places.insert(place, schema);
        }
        Self { document, schemas, places }
    }

    fn check(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), String> {
        let path = path.split('?').next().unwrap_or_default();
        let is_head = *method == Method::HEAD;
        let verb = if is_head { "get".to_owned() } else { method.as_str().to_lowercase() };
        // What is no operation is refused the same everywhere.
        let Some(operation) = self.operation(path, &verb) else {
            return if verb == "get" || status.as_u16() >= 300 {
                Ok(())
            } else {
                Err("there is no such operation".to_owned())
            };
        };
        let place = format!("{operation}/responses/{}", status.as_u16());
        let place = self.follow(place).ok_or("it does not declare this status")?;
        let response = self.document.pointer(&place).unwrap_or(&Value::Null);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.resolve(header);
            if header["required"] == true && !headers.contains_key(name.as_str()) {
                return Err(format!("it declares the header {name}"));
            }
        }
        let Some(content) = response["content"].as_object() else {
            return if body.is_empty() { Ok(()) } else { Err("it declares no body".to_owned()) };
        };
        let media_type = headers.get("content-type").map(|it| it.to_str().unwrap_or_default());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let declared = [media_type, "*/*"].into_iter().find(|it| content.contains_key(*it));
        let declared = declared.ok_or_else(|| format!("it does not declare {media_type:?}"))?;
        let schema = format!("{place}/content/{}/schema", escaped(declared));
        // What is compressed is the same body in another coding.
        let is_coded = headers.contains_key("content-encoding");
        if is_head || is_coded || self.document.pointer(&schema).is_none() {
            return Ok(());
        }
        if media_type.ends_with("json") {
            let text = String::from_utf8_lossy(body);
            // One document, or one on each line.
            let one = media_type != "application/x-ndjson";
            let documents = if one { vec![&*text] } else { text.lines().collect() };
            for it in documents {
                let it: Value = serde_json::from_str(it).map_err(|it| it.to_string())?;
                self.validate(&schema, &it)?;
            }
        }
        Ok(())
    }

    /// Where the operation stands that a request goes to.
    fn operation(&self, path: &str, verb: &str) -> Option<String> {
        let paths = self.document["paths"].as_object().unwrap();
        let known = |template: &&String| {
            let mut parts = template.split('/');
            let matches = path.split('/').all(|part| {
                parts
                    .next()
                    .is_some_and(|it| it == part || (it.starts_with('{') && !part.is_empty()))
            });
            matches && parts.next().is_none()
        };
        // A fixed path goes before one with a place to fill in.
        let template = paths.keys().filter(known).min_by_key(|it| it.matches('{').count())?;
        let operation = format!("/paths/{}/{verb}", escaped(template));
        self.document.pointer(&operation).map(|_| operation)
    }

    /// The place that is meant: the one that a reference at it names, or itself.
    fn follow(&self, place: String) -> Option<String> {
        let there = self.document.pointer(&place)?;
        let target = there["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
        Some(target.map_or(place, str::to_owned))
    }

    fn resolve<'a>(&'a self, it: &'a Value) -> &'a Value {
        let target = it["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
        target.and_then(|it| self.document.pointer(it)).unwrap_or(it)
    }

    /// Whether `value` is what the schema at this place says.
    pub(crate) fn validate(&self, place: &str, value: &Value) -> Result<(), String> {
        let schema = *self.places.get(place).ok_or_else(|| format!("no schema at {place}"))?;
        self.schemas.validate(value, schema).map_err(|it| it.to_string())
    }
}

/// Where the description has schemas of its own: of parameters, bodies, answers and by name.
fn places_of_schemas(document: &Value) -> Vec<String> {
    let named = document["components"]["schemas"].as_object().into_iter().flatten();
    let mut places: Vec<String> =
        named.map(|(name, _)| format!("/components/schemas/{}", escaped(name))).collect();
    let mut open = vec![(String::new(), document)];
    while let Some((place, it)) = open.pop() {
        let members = it.as_object().into_iter().flatten();
        let items = it.as_array().into_iter().flatten().enumerate();
        let items = items.map(|(at, it)| (at.to_string(), it));
        for (name, it) in members.map(|(name, it)| (escaped(name), it)).chain(items) {
            let place = format!("{place}/{name}");
            match name.as_str() {
                "schema" => places.push(place),
                // What stands there is no part of the description.
                "schemas" | "example" | "examples" => {}
                _ => open.push((place, it)),
            }
        }
    }
    places
}

/// A name as a part of a JSON pointer.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
