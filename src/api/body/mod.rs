//! Bodies of requests: one document, whatever notation it is sent in.
//!
//! JSON, YAML and forms all become the same [`Value`], and the same reader of the domain says what is
//! wrong with it. Here is what a notation can get wrong by itself: its syntax, its size, its speed.

mod form;
mod kinds;
mod receive;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::problem::{Problem, ProblemKind};
use super::state::App;
use crate::notation::{self, Malformed};

/// The document in the body, whatever notation it is written in and whatever name its type has.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let OptionalJsonBody(body) = OptionalJsonBody::from_request(request, app).await?;
        body.map(Self).ok_or_else(|| {
            Problem::new(
                ProblemKind::EmptyBody,
                "the request has no body: send a JSON object such as {\"image\": \"busybox:latest\"}",
            )
        })
    }
}

/// The same, where there need not be one.
#[derive(Debug)]
pub(super) struct OptionalJsonBody(pub(super) Option<Value>);

impl FromRequest<App> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let notation = Notation::of(&parts.headers);
        let bytes = receive::whole(&parts.headers, body, &app.settings).await?;
        // Of a body that is not there the type says nothing.
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(None));
        }
        read(notation?, &bytes).map(|it| Self(Some(it)))
    }
}

/// What a body says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    Json,
    Yaml,
    Form,
    /// aiohttp's name for text that was handed to it as it is.
    Text,
}

impl Notation {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(coding) = headers.get(header::CONTENT_ENCODING)
            && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(unsupported("compressed (Content-Encoding)"));
        }
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Json) };
        let text = String::from_utf8_lossy(value.as_bytes());
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "" | "application/json" | "text/json" => Ok(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => {
                Ok(Self::Yaml)
            }
            "application/x-www-form-urlencoded" => Ok(Self::Form),
            "text/plain" => Ok(Self::Text),
            it if it.ends_with("+json") => Ok(Self::Json),
            it if it.ends_with("+yaml") => Ok(Self::Yaml),
            other => Err(unsupported(other)),
        }
    }
}

fn read(notation: Notation, bytes: &[u8]) -> Result<Value, Problem> {
    // No form begins so: a brace in one is encoded. It is what `curl -d` calls the JSON that it sends.
    let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
    match notation {
        Notation::Text if !is_object => {
            Err(unsupported("text/plain whose text is not a JSON object"))
        }
        Notation::Form if !is_object => form::read(bytes),
        Notation::Yaml => notation::read_yaml(bytes)
            .map_err(|it| malformed(ProblemKind::MalformedYaml, "YAML", it)),
        Notation::Json | Notation::Text | Notation::Form => notation::read_json(bytes)
            .map_err(|it| malformed(ProblemKind::MalformedJson, "JSON", it)),
    }
}

fn unsupported(what: &str) -> Problem {
    let detail = format!(
        "the body is {what}: send JSON, with \"Content-Type: application/json\"; YAML (application/yaml) and \
         forms (application/x-www-form-urlencoded) are read, too"
    );
    Problem::new(ProblemKind::UnsupportedMediaType, detail)
}

/// A body that is not of its notation, with the place.
fn malformed(kind: ProblemKind, notation: &str, it: Malformed) -> Problem {
    let detail = format!("the body is not valid {notation}: {it}");
    let members = [("line", it.line), ("column", it.column)];
    let members: Map<_, _> =
        members.into_iter().map(|(key, it)| (key.to_owned(), it.into())).collect();
    Problem::new(kind, detail).members(members)
}
