//! The description of the API: what no operation brings along, and what the macros leave wrong.
//!
//! [`finish`] puts right what the macros make, [`problems`] adds what can go wrong, [`downgrade`] says it all
//! once more in the older version of the standard. [`workflow`] is the schema of the workflow document.

mod downgrade;
mod examples;
mod json;
mod problems;
mod workflow;

use std::collections::BTreeSet;

use json::{Json, Members};
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, RefOr};
use utoipa::{Modify, OpenApi as _};

use super::problem::ProblemDocument;
use super::v1::tasks::view::TaskProblem;

pub(super) use workflow::SCHEMA as WORKFLOW_SCHEMA;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Supercargo",
        description = "Runs containers for pipelines: submit a task, and get its log, exit code and outputs back.\n\n\
            Every call but those marked open needs a token: `Authorization: Bearer <token>`, `X-API-Key: <token>`, \
            or Basic with the token as the password. The service writes the first token to `admin.token` in its \
            data directory.\n\n\
            Whatever is not a success is a problem document (RFC 9457) with a stable `code` and one line of \
            `detail` that says what to do. Each operation lists the codes that it answers with; a path that is not there \
            is 404 `not_found` everywhere, and a method that a path does not take is 405 `method_not_allowed`.\n\n\
            In a body, a field that is null counts as left out, and an unknown one is an error.\n\n\
            The ids in paths are examples: to try a call out, submit a task first and put its id, or `key:` and its \
            run key, in their place. `/openapi-3.0.json` says the same for tools that know no newer version.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "tasks", description = "One container to run each"),
        (name = "targets", description = "Where tasks run"),
        (name = "tokens", description = "Who may call"),
        (name = "system", description = "For operators and probes"),
    ),
    components(schemas(ProblemDocument, TaskProblem)),
    security(("bearer" = []), ("api_key" = []), ("basic" = [])),
    modifiers(&Schemes)
)]
struct Description;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_with(Components::new);
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token, such as the one in `admin.token` of the data directory"));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        let key = ApiKeyValue::with_description("X-API-Key", "The same token");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let basic = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("Any user name, and the token as the password"));
        components.add_security_scheme("basic", SecurityScheme::Http(basic.build()));
    }
}

/// The part that no operation brings along.
pub(super) fn base() -> OpenApi {
    Description::openapi()
}

/// The description as text, in both versions of the standard.
#[derive(Debug, Clone)]
pub struct Documents {
    pub v3_1: String,
    pub v3_0: String,
}

/// Makes it say what the API does, in a form that generators of clients take.
pub(super) fn documents(mut openapi: OpenApi) -> Documents {
    finish(&mut openapi);
    let text = serde_json::to_string(&openapi).unwrap_or_default();
    let mut document: Json = serde_json::from_str(&text).unwrap_or_else(|_| Members::new().into());
    name_notations(&mut document);
    close_what_is_read(&mut document);
    bytes_are_bytes(&mut document);
    problems::declare(&mut document);
    declare_headers(&mut document);
    Documents { v3_0: pretty(&downgrade::to_3_0(&document)), v3_1: pretty(&document) }
}

fn pretty(document: &Json) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

fn finish(openapi: &mut OpenApi) {
    let schemas = openapi.components.iter_mut().flat_map(|it| it.schemas.values_mut());
    schemas.for_each(tidy);
    for item in openapi.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        operations.into_iter().flatten().for_each(finish_operation);
    }
}

fn finish_operation(operation: &mut Operation) {
    operation.parameters.iter_mut().flatten().for_each(finish_parameter);
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in body.content.values_mut() {
            if let RefOr::T(content) = content {
                content.schema.iter_mut().for_each(tidy);
            }
        }
    }
}

/// YAML says what JSON says, and a form says a task. Told in words, as generators of clients make a mess of one
/// body in three types.
fn name_notations(document: &mut Json) {
    for item in document.at(&["paths"]).values_mut() {
        for operation in item.children_mut() {
            let Some(body) = operation.members_mut().and_then(|it| it.get_mut("requestBody"))
            else {
                continue;
            };
            let is_task = referenced(body).iter().any(|it| it == "TaskSpec");
            let form = if is_task { ", and `application/x-www-form-urlencoded`" } else { "" };
            let text = body.get("description").and_then(Json::text).unwrap_or_default();
            let text =
                format!("{}. `application/yaml` is taken, too{form}.", text.trim_end_matches('.'));
            body.at(&[]).insert("description".to_owned(), text.as_str().into());
        }
    }
}

/// What is no text is a stream of bytes to generators.
fn bytes_are_bytes(it: &mut Json) {
    for media_type in ["application/octet-stream", "*/*"] {
        if let Some(content) = it.members_mut().and_then(|it| it.get_mut(media_type)) {
            let bytes = serde_json::json!({"type": "string", "format": "binary"});
            content.at(&[]).insert("schema".to_owned(), bytes.into());
        }
    }
    it.children_mut().for_each(bytes_are_bytes);
}

/// An unknown field of a document is an error, whichever object it stands in.
fn close_what_is_read(document: &mut Json) {
    let mut open = Vec::new();
    for item in document.at(&["paths"]).values() {
        for operation in item.members().into_iter().flat_map(Members::values) {
            open.extend(operation.get("requestBody").into_iter().flat_map(referenced));
        }
    }
    let schemas = document.at(&["components", "schemas"]);
    let mut read = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(schema) = schemas.get_mut(&name).filter(|_| read.insert(name)) else { continue };
        open.extend(referenced(schema));
        let members = schema.members_mut().filter(|it| it.contains_key("properties"));
        members.map(|it| it.insert("additionalProperties".to_owned(), Json::Other(false.into())));
    }
}

/// The schemas that are named somewhere in it.
fn referenced(it: &Json) -> Vec<String> {
    let own = it.get("$ref").and_then(Json::text);
    let own = own.and_then(|it| it.strip_prefix("#/components/schemas/")).map(str::to_owned);
    own.into_iter().chain(it.children().flat_map(referenced)).collect()
}

/// Every answer names its request. A header that is not said to be missing sometimes is always there.
fn declare_headers(document: &mut Json) {
    const NAME: &str = "X-Request-Id";
    let header = serde_json::json!({
        "description": "That of the request, or a new one: the log of the service has it, too",
        "required": true,
        "schema": {"type": "string", "examples": ["0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"]},
    });
    document.at(&["components", "headers"]).insert(NAME.to_owned(), header.into());
    let mut finish = |response: &mut Json| {
        if response.get("$ref").is_some() {
            return;
        }
        let headers = response.at(&["headers"]);
        headers.values_mut().for_each(finish_header);
        let reference = serde_json::json!({"$ref": format!("#/components/headers/{NAME}")});
        headers.insert(NAME.to_owned(), reference.into());
    };
    for item in document.at(&["paths"]).values_mut() {
        for operation in item.children_mut() {
            operation.at(&["responses"]).values_mut().for_each(&mut finish);
        }
    }
    document.at(&["components", "responses"]).values_mut().for_each(finish);
}

fn finish_header(header: &mut Json) {
    let Some(members) = header.members_mut() else { return };
    let schema = members.get_mut("schema").and_then(Json::members_mut);
    let types = schema.and_then(|it| it.get_mut("type"));
    let mut optional = false;
    if let Some(types) = types
        && let Json::Array(all) = types
    {
        all.retain(|it| it.text() != Some("null"));
        optional = true;
        if let [only] = all.as_slice() {
            *types = only.clone();
        }
    }
    if !optional {
        members.insert("required".to_owned(), Json::Other(true.into()));
    }
}

/// The page fills in the example of a parameter. One that need not be given must not be there by itself,
/// or trying a call out would use somebody's cursor: its example moves into its schema.
fn finish_parameter(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(it) = parameter {
        it.schema.iter_mut().for_each(tidy);
    }
    // The member is private.
    let Ok(mut value) = serde_json::to_value(&*parameter) else { return };
    if value["required"] == true {
        return;
    }
    if let Some(example) = value.as_object_mut().and_then(|it| it.remove("example")) {
        value["schema"]["examples"] = serde_json::json!([example]);
    }
    if let Ok(moved) = serde_json::from_value(value) {
        *parameter = moved;
    }
}

/// Optional members are left out, never null; and examples of a list or a map stand beside it, not beside
/// its items or keys.
fn tidy(schema: &mut RefOr<Schema>) {
    let RefOr::T(it) = schema else { return };
    match it {
        Schema::Object(it) => {
            without_null(&mut it.schema_type);
            it.properties.values_mut().for_each(tidy);
            if let Some(keys) = it.property_names.take() {
                it.examples = examples_of(*keys);
            }
            if let Some(values) = &mut it.additional_properties
                && let AdditionalProperties::RefOr(values) = &mut **values
            {
                take_examples(values, Value::is_object);
                tidy(values);
            }
        }
        Schema::Array(it) => {
            without_null(&mut it.schema_type);
            if let ArrayItems::RefOrSchema(items) = &mut it.items {
                it.examples.extend(take_examples(items, Value::is_array));
                tidy(items);
            }
        }
        Schema::AllOf(it) => it.items.iter_mut().for_each(tidy),
        Schema::AnyOf(it) => it.items.iter_mut().for_each(tidy),
        Schema::OneOf(it) => {
            it.items.retain(|it| !is_null(it));
            it.items.iter_mut().for_each(tidy);
            if let [_] = it.items.as_slice()
                && let Some(only) = it.items.pop()
            {
                *schema = described(only, it.description.take());
            }
        }
        _ => {}
    }
}

fn without_null(schema_type: &mut SchemaType) {
    if let SchemaType::Array(types) = schema_type {
        types.retain(|it| *it != Type::Null);
        if let [only] = types.as_slice() {
            *schema_type = SchemaType::Type(only.clone());
        }
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(it)) if it.schema_type == SchemaType::Type(Type::Null))
}

fn described(mut schema: RefOr<Schema>, description: Option<String>) -> RefOr<Schema> {
    if let (RefOr::Ref(it), Some(description)) = (&mut schema, description) {
        it.description = description;
    }
    schema
}

fn examples_of(schema: Schema) -> Vec<Value> {
    match schema {
        Schema::Object(it) => it.examples,
        _ => Vec::new(),
    }
}

fn take_examples(schema: &mut RefOr<Schema>, which: impl Fn(&Value) -> bool) -> Vec<Value> {
    match schema {
        RefOr::T(Schema::Object(it)) if it.examples.iter().any(which) => {
            std::mem::take(&mut it.examples)
        }
        _ => Vec::new(),
    }
}
