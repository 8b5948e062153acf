//! Keeps web pages out: a page that somebody happens to look at must not start containers.
//!
//! Browsers say where a request comes from (`Origin`, `Sec-Fetch-Site`), and a page that points its own
//! name at this machine is known by its `Host`. Clients that are no browsers send neither of the first
//! two and are not hindered. No CORS header is ever sent.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Problem, ProblemKind};
use super::state::{App, Shared};

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let host = host_of(&request);
    let checked = check_host(&app, request.uri().path(), host.as_deref())
        .and_then(|()| check_origin(&app, &request, host.as_deref()));
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What the client calls us.
fn host_of(request: &Request) -> Option<String> {
    let authority = request.uri().authority().map(|it| it.as_str().to_lowercase());
    authority.or_else(|| text(request.headers(), &header::HOST).map(str::to_lowercase))
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|it| it.to_str().ok())
}

fn check_host(app: &Shared, path: &str, host: Option<&str>) -> Result<(), Problem> {
    let allowed = &app.settings.allowed_hosts;
    let open = !app.auth.is_on();
    // Probes call a machine by its address, and learn nothing worth a secret.
    if matches!(path, "/livez" | "/readyz") || (allowed.is_empty() && !open) {
        return Ok(());
    }
    let Some(host) = host else {
        return Err(Problem::new(ProblemKind::HostNotAllowed, "the request names no Host"));
    };
    let name = host_name(host);
    let listed =
        allowed.iter().any(|it| it.eq_ignore_ascii_case(host) || it.eq_ignore_ascii_case(name));
    if listed || (open && is_loopback(name)) {
        return Ok(());
    }
    let fix = if open {
        "without tokens the service answers only to localhost and loopback addresses; turn authentication \
         on, or add the name to the allowed hosts of the configuration"
    } else {
        "add it to the allowed hosts of the configuration"
    };
    Err(Problem::new(
        ProblemKind::HostNotAllowed,
        format!("the host name {host:?} is not allowed: {fix}"),
    ))
}

/// `[::1]:8080` → `[::1]`.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_loopback())
}

fn check_origin(app: &Shared, request: &Request, host: Option<&str>) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let headers = request.headers();
    let refused = |what: &str| {
        Err(Problem::new(
            ProblemKind::ForeignOrigin,
            format!(
                "{what}: a web page of another site may not send requests here; add its origin to the allowed origins of the configuration if it is yours"
            ),
        ))
    };
    // A second one, or one that is not text, is nobody's own.
    let origins: Vec<&str> =
        headers.get_all(header::ORIGIN).iter().map(|it| it.to_str().unwrap_or("null")).collect();
    let listed = |origin: &str| {
        app.settings
            .allowed_origins
            .iter()
            .any(|it| it.trim_end_matches('/').eq_ignore_ascii_case(origin))
    };
    for origin in &origins {
        if !listed(origin) && !is_own(app, origin, host) {
            return refused(&format!("the origin {origin:?} is not this service"));
        }
    }
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"cross-site") => refused("the browser says that the request is cross-site"),
        Some(b"same-site") if !origins.iter().any(|it| listed(it)) => {
            refused("the browser says that the request comes from another host of this site")
        }
        _ => Ok(()),
    }
}

/// Whether a page of this origin was served by us. A proxy may have taken TLS off, so our own scheme is
/// that of the public address, or unknown.
fn is_own(app: &Shared, origin: &str, host: Option<&str>) -> bool {
    let Some((scheme, origin)) = origin_parts(origin) else { return false };
    let public = app.public_url.origin();
    if let Some((public_scheme, public_host)) = public
        && public_scheme == scheme
        && with_port(public_host, public_scheme) == with_port(&origin, &scheme)
    {
        return true;
    }
    let Some(host) = host else { return false };
    let public = public.filter(|(_, it)| host_name(it) == host_name(host));
    let own_scheme = public.map_or(scheme.as_str(), |(it, _)| it);
    with_port(host, own_scheme) == with_port(&origin, &scheme)
}

fn origin_parts(origin: &str) -> Option<(String, String)> {
    let uri: Uri = origin.parse().ok()?;
    let authority: &Authority = uri.authority()?;
    Some((uri.scheme_str()?.to_lowercase(), authority.as_str().to_lowercase()))
}

fn with_port(host: &str, scheme: &str) -> String {
    if host_name(host).len() < host.len() {
        return host.to_owned();
    }
    format!("{host}:{}", if scheme == "https" { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_told_from_others() {
        for name in [
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
            "localhost.",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(name), "{name}");
        }
        for name in
            ["localhost.evil.example", "10.0.0.1", "[::2]", "127.0.0.1.nip.io", "0.0.0.0", ""]
        {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn a_port_is_cut_off_or_put_on() {
        assert_eq!(host_name("[::1]:80"), "[::1]");
        assert_eq!(host_name("[::1]"), "[::1]");
        assert_eq!(with_port("a", "https"), "a:443");
        assert_eq!(with_port("a:1", "https"), "a:1");
    }
}
