//! The description of the API: what no operation brings along, and what the macros leave wrong.

use serde_json::Value;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};

use super::limits::is_probe;
use super::problem::ProblemKind;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Supercargo",
        description = "Runs containers for pipelines: submit a task, and get its log, exit code and outputs back.\n\n\
            Every call but those marked open needs a token: `Authorization: Bearer <token>`, `X-API-Key: <token>`, \
            or Basic with the token as the password. The service writes the first token to `admin.token` in its \
            data directory.\n\n\
            Whatever is not a success is a problem document (RFC 9457) with a stable `code` and one line of \
            `detail` that says what to do.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "tasks", description = "One container to run each"),
        (name = "tokens", description = "Who may call"),
        (name = "system", description = "For operators and probes"),
    ),
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

/// Makes it say what the API does, in a form that generators of clients take.
pub(super) fn finish(openapi: &mut OpenApi) {
    let schemas = openapi.components.iter_mut().flat_map(|it| it.schemas.values_mut());
    schemas.for_each(tidy);
    let components = openapi.components.get_or_insert_with(Components::new);
    for it in &REFUSALS {
        components.responses.insert(it.name.to_owned(), RefOr::T(it.response()));
    }
    for (path, item) in &mut openapi.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            finish_operation(path, operation);
        }
    }
}

/// A refusal that no operation thinks of, as every one may meet it.
struct Refusal {
    name: &'static str,
    kind: ProblemKind,
    description: &'static str,
    applies: fn(path: &str, has_body: bool) -> bool,
}

const REFUSALS: [Refusal; 5] = [
    Refusal {
        name: "Unauthorized",
        kind: ProblemKind::Unauthorized,
        description: "No token, or not a valid one",
        applies: |path, _| path.starts_with("/api/"),
    },
    Refusal {
        name: "RequestTimeout",
        kind: ProblemKind::RequestTimeout,
        description: "The body stopped coming",
        applies: |_, has_body| has_body,
    },
    Refusal {
        name: "RateLimited",
        kind: ProblemKind::RateLimited,
        description: "Too many requests, or too many tasks wait: again after `Retry-After`",
        applies: |path, _| !is_probe(path),
    },
    Refusal {
        name: "HeadersTooLarge",
        kind: ProblemKind::HeadersTooLarge,
        description: "The head of the request is too large",
        applies: |_, _| true,
    },
    Refusal {
        name: "Unavailable",
        kind: ProblemKind::Unavailable,
        description: "Something that the service depends on is away: again after `Retry-After`",
        applies: |path, _| path.starts_with("/api/"),
    },
];

impl Refusal {
    fn response(&self) -> Response {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(self.description)
            .content("application/problem+json", problem);
        if matches!(self.kind, ProblemKind::RateLimited | ProblemKind::Unavailable) {
            let mut header = Header::new(Object::with_type(Type::Integer));
            header.description = Some("Seconds".to_owned());
            return response.header("Retry-After", header).build();
        }
        response.build()
    }
}

/// YAML says what JSON says; a form says a task.
fn add_notations(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    let Some(RefOr::T(json)) = body.content.get("application/json") else { return };
    let schema = json.schema.clone();
    let is_task = matches!(&schema, Some(RefOr::Ref(it)) if it.ref_location.ends_with("/TaskSpec"));
    let content = ContentBuilder::new().schema(schema).build();
    if is_task {
        let form = "application/x-www-form-urlencoded".to_owned();
        body.content.insert(form, RefOr::T(content.clone()));
    }
    body.content.insert("application/yaml".to_owned(), RefOr::T(content));
}

fn finish_operation(path: &str, operation: &mut Operation) {
    add_notations(operation);
    let has_body = operation.request_body.is_some();
    for refusal in REFUSALS.iter().filter(|it| (it.applies)(path, has_body)) {
        let status = refusal.kind.status().as_str().to_owned();
        let response = RefOr::Ref(Ref::from_response_name(refusal.name));
        operation.responses.responses.entry(status).or_insert(response);
    }
    operation.parameters.iter_mut().flatten().for_each(finish_parameter);
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in body.content.values_mut() {
            if let RefOr::T(content) = content {
                content.schema.iter_mut().for_each(tidy);
            }
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for header in response.headers.values_mut() {
            if let RefOr::T(header) = header {
                header.schema.iter_mut().for_each(tidy);
            }
        }
    }
    operation.responses.responses.insert("default".to_owned(), RefOr::T(any_problem()));
}

fn any_problem() -> Response {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new()
        .description("Any other refusal or failure: no valid token, a request of another web site, no database …")
        .content("application/problem+json", problem)
        .build()
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
