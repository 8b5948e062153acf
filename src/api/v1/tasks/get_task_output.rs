use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::io::ReaderStream;

use super::existing_attempt;
use super::get_task_result::not_finished;
use super::get_task_spec::AttemptQuery;
use crate::api::extract::{Caller, OutputPath, no_such_task};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::Params;
use crate::api::state::{App, Shared};
use crate::domain::outcome::{OutputValue, StoredFile};

static REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const PIECE: usize = 64 << 10;

/// Get an output of a task
///
/// A JSON value as it is, or the bytes of a file with its type and checksum.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/outputs/{name}",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        ("name" = String, Path, description = "The name of the output", example = "report"),
        AttemptQuery,
    ),
    extensions(("x-problems" = json!(["task_not_found", "attempt_not_found", "output_not_found", "output_gone", "not_finished"]))),
    responses(
        (status = 200, description = "The value as JSON, or the bytes of the file with the type that its name says",
         content(
            (String = "application/octet-stream"),
            (serde_json::Value = "application/json", example = json!(7)),
            (String = "*/*"),
         ),
         headers(
            ("ETag" = Option<String>, description = "Of a file: its SHA-256, in hex"),
            ("Repr-Digest" = Option<String>, description = "Of a file: its SHA-256 (RFC 9530)"),
            ("Content-Disposition" = Option<String>, description = "Of a file: the name that it had"),
         )),
        (status = 304, description = "The file is the one of `If-None-Match`"),
    )
)]
pub(in crate::api) async fn get_task_output(
    State(app): State<App>,
    _caller: Caller,
    path: OutputPath,
    Params(query): Params<AttemptQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let record = app.store.find_task(path.task).await?.ok_or_else(|| no_such_task(path.task))?;
    let attempt = existing_attempt(&record, query.attempt)?;
    let outputs = app.store.list_outputs(path.task, attempt).await?;
    let names: Vec<String> = outputs.iter().map(|it| it.name.clone()).collect();
    match outputs.into_iter().find(|it| it.name == path.name) {
        Some(it) => match it.value {
            OutputValue::Json(value) => Ok(Json(value).into_response()),
            OutputValue::File(file) => send(&app, &file, &headers).await,
        },
        None if attempt == record.attempt_no && !record.state.is_terminal() => {
            Err(not_finished(&record))
        }
        None => Err(no_such_output(&path.name, &names)),
    }
}

fn no_such_output(name: &str, names: &[String]) -> Problem {
    let there = if names.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {}", names.join(", "))
    };
    Problem::new(ProblemKind::OutputNotFound, format!("the task has no output {name:?}: {there}"))
}

async fn send(app: &Shared, file: &StoredFile, asked: &HeaderMap) -> Result<Response, Problem> {
    let etag = format!("\"{}\"", file.sha256);
    if asked.get_all(header::IF_NONE_MATCH).iter().any(|it| matches(it, &etag)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().extend(HeaderValue::try_from(etag).map(|it| (header::ETAG, it)));
        return Ok(response);
    }
    let (size, reader) = app.objects.open(&file.object_key).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let detail =
                format!("the file {:?} was stored once, and is not there any more", file.path);
            return Problem::new(ProblemKind::OutputGone, detail);
        }
        Problem::unavailable("the object store can't be read now: try again", error)
    })?;
    let mut response =
        Body::from_stream(ReaderStream::with_capacity(reader, PIECE)).into_response();
    let headers = response.headers_mut();
    // The type comes from a task: it must not become a page of this site.
    let media_type = HeaderValue::try_from(file.media_type.as_str());
    let fallback = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, media_type.unwrap_or(fallback));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    headers.extend(HeaderValue::try_from(etag).map(|it| (header::ETAG, it)));
    headers.extend(repr_digest(&file.sha256).map(|it| (REPR_DIGEST.clone(), it)));
    headers.extend(disposition(file).map(|it| (header::CONTENT_DISPOSITION, it)));
    Ok(response)
}

fn matches(value: &HeaderValue, etag: &str) -> bool {
    let value = value.to_str().unwrap_or_default();
    value.split(',').map(|it| it.trim().trim_start_matches("W/")).any(|it| it == "*" || it == etag)
}

/// RFC 9530.
fn repr_digest(sha256: &str) -> Option<HeaderValue> {
    let pairs: Option<Vec<u8>> = sha256
        .as_bytes()
        .chunks(2)
        .map(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok())
        .collect();
    HeaderValue::try_from(format!("sha-256=:{}:", STANDARD.encode(pairs?))).ok()
}

/// RFC 6266: a plain name for everybody, and the exact one where that differs.
fn disposition(file: &StoredFile) -> Option<HeaderValue> {
    let base = file.path.trim_end_matches('/').rsplit('/').next().filter(|it| !it.is_empty());
    let mut name = base.unwrap_or("output").to_owned();
    if file.media_type == "application/x-tar" && !name.to_lowercase().ends_with(".tar") {
        name.push_str(".tar");
    }
    let plain: String =
        name.chars()
            .map(|it| {
                if (it.is_ascii_graphic() || it == ' ') && !"\"\\%".contains(it) { it } else { '_' }
            })
            .collect();
    let exact = if plain == name {
        String::new()
    } else {
        format!("; filename*=UTF-8''{}", percent(&name))
    };
    HeaderValue::try_from(format!("attachment; filename=\"{plain}\"{exact}")).ok()
}

fn percent(text: &str) -> String {
    let byte = |it: u8| {
        if it.is_ascii_alphanumeric() || b"-._~".contains(&it) {
            char::from(it).to_string()
        } else {
            format!("%{it:02X}")
        }
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, media_type: &str) -> StoredFile {
        StoredFile {
            object_key: String::new(),
            media_type: media_type.to_owned(),
            size: 0,
            sha256: String::new(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn a_file_name_can_not_break_out_of_its_header() {
        for (path, media_type, expected) in [
            ("/out/report.csv", "text/csv", "attachment; filename=\"report.csv\""),
            ("/out/", "application/x-tar", "attachment; filename=\"out.tar\""),
            (
                "/a\"\r\nX: é",
                "",
                "attachment; filename=\"a___X: _\"; filename*=UTF-8''a%22%0D%0AX%3A%20%C3%A9",
            ),
            ("/", "", "attachment; filename=\"output\""),
        ] {
            assert_eq!(disposition(&file(path, media_type)).unwrap(), expected);
        }
    }

    #[test]
    fn a_digest_is_base64_of_the_bytes() {
        assert_eq!(repr_digest("00ff10").unwrap(), "sha-256=:AP8Q:");
        assert_eq!(repr_digest("xy"), None);
    }
}
