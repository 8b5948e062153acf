//! What can go wrong between the command line and the service, in words that lead on.

use std::fmt;
use std::io;
use std::path::PathBuf;

use reqwest::StatusCode;
use serde::Deserialize;

use super::endpoint::{Endpoint, TokenFrom};
use crate::cli::exit::{Exit, is_broken_pipe};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(
        "no service answers at {url} ({reason}): start one with `supercargo serve`, or name another \
         with --url or SUPERCARGO_URL"
    )]
    NotRunning { url: String, reason: String },
    #[error(
        "no service runs with this data directory: there is no {}; start one with `supercargo serve`, or name \
         a service with --url or SUPERCARGO_URL", .0.display()
    )]
    NoServiceFile(PathBuf),
    /// TLS was spoken where none is, or the other way round.
    #[error("{url} {fault}")]
    Scheme { url: String, fault: &'static str },
    #[error("lost the service at {url}: {reason}")]
    Network { url: String, reason: String },
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    Problem(Problem),
    /// An answer that no service of ours gives.
    #[error("{url} does not answer as Supercargo does: {reason}")]
    Unexpected { url: String, reason: String },
    #[error("{0}")]
    TimedOut(String),
    #[error("can't write: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotRunning { .. }
            | Self::NoServiceFile(_)
            | Self::Scheme { .. }
            | Self::Network { .. }
            | Self::Unauthorized(_)
            | Self::Unexpected { .. } => Exit::Service,
            Self::Problem(problem) => match problem.status {
                400 | 404 | 405 | 409 | 413 | 415 | 422 => Exit::Usage,
                // The task failed, and there is no result of it.
                424 => Exit::Failed,
                // The task is not done.
                425 => Exit::TimedOut,
                _ => Exit::Service,
            },
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Output(error) if is_broken_pipe(error) => Exit::BrokenPipe,
            Self::Output(_) => Exit::Failed,
        }
    }

    /// What to say while it may pass; how to start a service is no advice to somebody who had one.
    pub(super) fn passing(&self) -> String {
        match self {
            Self::NotRunning { url, reason } | Self::Network { url, reason } => {
                format!("the service at {url} is away ({reason}): trying again")
            }
            other => format!("{other}: trying again"),
        }
    }

    /// Whether the same request may well succeed in a moment, as during a restart of the service.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Network { .. } => true,
            // 425: not there yet, and 409: the first of two equal requests is still in flight.
            Self::Problem(problem) => {
                matches!(problem.status, 408 | 425 | 429 | 502 | 503 | 504)
                    || problem.code.as_deref() == Some("request_in_flight")
            }
            Self::Usage(_)
            | Self::NoServiceFile(_)
            | Self::Scheme { .. }
            | Self::Unauthorized(_)
            | Self::Unexpected { .. }
            | Self::TimedOut(_)
            | Self::Output(_) => false,
        }
    }

    pub(super) fn transport(endpoint: &Endpoint, error: &reqwest::Error) -> Self {
        let (url, reason) = (endpoint.shown(), root_cause(error));
        if let Some(fault) = scheme_fault(error) {
            Self::Scheme { url, fault }
        } else if error.is_connect() {
            Self::NotRunning { url, reason }
        } else {
            Self::Network { url, reason }
        }
    }

    /// The refusal that an answer is.
    pub(super) fn refusal(endpoint: &Endpoint, status: StatusCode, body: &[u8]) -> Self {
        if status == StatusCode::UNAUTHORIZED {
            return Self::Unauthorized(where_tokens_are(endpoint));
        }
        Self::Problem(Problem::read(status, body))
    }
}

/// The other side did not understand the protocol at all.
fn scheme_fault(error: &reqwest::Error) -> Option<&'static str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(it) = cause {
        if let Some(rustls::Error::InvalidMessage(_)) = it.downcast_ref() {
            return Some("does not speak TLS: write http:// instead of https://");
        }
        if it.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return Some("does not speak plain HTTP: does its address begin with https://?");
        }
        // An error in an `io::Error` is not its source: its own source is.
        let inner = it.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inner.map(|it| it as &(dyn std::error::Error + 'static)).or_else(|| it.source());
    }
    None
}

fn where_tokens_are(endpoint: &Endpoint) -> String {
    let url = endpoint.shown();
    let pass = "pass one with SUPERCARGO_TOKEN or --token";
    match &endpoint.token_from {
        TokenFrom::Named => {
            format!("{url} does not know this token: check SUPERCARGO_TOKEN or --token")
        }
        TokenFrom::File(path) => format!(
            "{url} does not know the token in {}: another service answers there, so {pass}",
            path.display()
        ),
        TokenFrom::Unreadable(path) => format!(
            "{url} wants a token: the administrator's is in {}, which you may not read; {pass}",
            path.display()
        ),
        TokenFrom::Elsewhere => format!(
            "{url} wants a token: {pass}; the administrator's is in admin.token, in the data directory \
             of that service"
        ),
        TokenFrom::Nowhere(path) => {
            let path = path
                .as_ref()
                .map_or_else(|| "the data directory".into(), |it| it.to_string_lossy());
            format!(
                "{url} wants a token, and there is none at {path}: name the data directory of the \
                 service with --data-dir, or {pass}"
            )
        }
    }
}

/// What was wrong in the first place, without the layers that passed it on.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    // `(os error 111)` says nothing to anybody.
    let text = cause.to_string();
    text.split(" (os error").next().map(str::to_lowercase).unwrap_or_default()
}

/// An answer of kind `application/problem+json`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(skip)]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<ProblemPart>,
}

#[derive(Debug, Clone, Deserialize)]
struct ProblemPart {
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    detail: String,
}

impl Problem {
    fn read(status: StatusCode, body: &[u8]) -> Self {
        let read: Self = serde_json::from_slice(body).unwrap_or_default();
        let detail = read.detail.or_else(|| read.title.clone()).unwrap_or_else(|| {
            // Not ours: a proxy on the way, as a rule.
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            format!("the answer was {status} {}", text.trim()).trim_end().to_owned()
        });
        Self { status: status.as_u16(), detail: Some(detail), ..read }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail.as_deref().unwrap_or_default();
        f.write_str(detail)?;
        for part in &self.errors {
            // A single fault is the detail already: its place is what is new.
            if part.detail.is_empty() || detail.contains(&part.detail) {
                write!(f, "\n  at {}", part.pointer)?;
            } else {
                write!(f, "\n  at {}: {}", part.pointer, part.detail)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, body: &str) -> Error {
        Error::Problem(Problem::read(StatusCode::from_u16(status).unwrap(), body.as_bytes()))
    }

    #[test]
    fn a_problem_is_its_detail_and_every_pointer() {
        let body = r#"{"type": "x", "title": "The task is not valid", "status": 422, "code": "spec_invalid",
            "detail": "unknown field \"comand\": did you mean \"command\"?",
            "errors": [{"pointer": "/comand", "code": "unknown_field", "detail": "did you mean \"command\"?"},
                       {"pointer": "/env/A", "code": "wrong_type", "detail": "must be text"}]}"#;
        let error = problem(422, body);
        assert_eq!(
            error.to_string(),
            "unknown field \"comand\": did you mean \"command\"?\n  at /comand\n  at /env/A: must be text"
        );
        assert_eq!(error.exit(), Exit::Usage);
        assert!(!error.is_passing());
    }

    #[test]
    fn an_answer_of_somebody_else_is_shown_in_short() {
        assert_eq!(
            problem(502, "<html>bad gateway</html>").to_string(),
            "the answer was 502 Bad Gateway <html>bad gateway</html>"
        );
        assert_eq!(problem(503, "").to_string(), "the answer was 503 Service Unavailable");
        assert_eq!(problem(404, r#"{"title": "Not found"}"#).to_string(), "Not found");
    }

    #[test]
    fn exit_codes_tell_the_caller_from_the_service() {
        for (status, exit) in [
            (404, Exit::Usage),
            (403, Exit::Service),
            (424, Exit::Failed),
            (425, Exit::TimedOut),
            (500, Exit::Service),
        ] {
            assert_eq!(problem(status, "{}").exit(), exit, "{status}");
        }
        assert!(problem(503, "{}").is_passing());
        assert!(problem(409, r#"{"code": "request_in_flight"}"#).is_passing());
        assert!(!problem(409, r#"{"code": "conflict"}"#).is_passing());
        let pipe = Error::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(pipe.exit(), Exit::BrokenPipe);
    }
}
