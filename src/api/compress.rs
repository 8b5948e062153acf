//! Compresses answers that are worth it, for clients that take it: gzip or zstd, whole answers of some size
//! that are text.
//!
//! Never what is streamed (logs, events, files: a client of those wants every byte when it comes, and counts
//! them), and never what has an `ETag`, which names the bytes.

use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use hyper::body::Body;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

/// Smaller ones travel in a few packets anyway.
const LEAST: u64 = 4 << 10;

pub(super) fn layer() -> CompressionLayer<Worthwhile> {
    // Half of the gain of the best level is here for a tenth of its time.
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(Worthwhile)
}

/// Before the layer: it would answer 406 to who refuses the plain form, and that after the request was carried
/// out. The standard leaves it to us (RFC 9110, 12.5.3): they get the plain form.
pub(super) async fn take_plain(mut request: Request) -> Request {
    let values = request.headers().get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    if codings.any(refuses_plain) {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    request
}

/// `*;q=0` or `identity;q=0`
fn refuses_plain(coding: &str) -> bool {
    let Some((name, weight)) = coding.split_once(';') else { return false };
    let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|it| it.trim().strip_prefix('='));
    let is_zero = weight.is_some_and(|it| it.trim().parse() == Ok(0.0_f32));
    is_zero && matches!(name.trim().to_ascii_lowercase().as_str(), "*" | "identity")
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Worthwhile;

impl Predicate for Worthwhile {
    fn should_compress<B: Body>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        // What is streamed does not know its size.
        let is_large = response.body().size_hint().exact().is_some_and(|it| it >= LEAST);
        let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        is_large
            && kind.is_some_and(is_text)
            && response.status() != StatusCode::PARTIAL_CONTENT
            && !headers.contains_key(header::ETAG)
            && !headers.contains_key(header::CONTENT_ENCODING)
    }
}

fn is_text(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    match essence.split_once('/') {
        Some(("text", subtype)) => subtype != "event-stream",
        Some(("application", subtype)) => {
            matches!(subtype, "json" | "javascript" | "xml" | "yaml") || subtype.ends_with("+json")
        }
        Some(("image", subtype)) => subtype == "svg+xml",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_what_is_packed_already() {
        for kind in
            ["application/json", "application/problem+json", "text/html; charset=utf-8", "text/css"]
        {
            assert!(is_text(kind), "{kind}");
        }
        for kind in
            ["text/event-stream", "application/gzip", "application/octet-stream", "image/png", ""]
        {
            assert!(!is_text(kind), "{kind}");
        }
    }
}
