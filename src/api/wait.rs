//! How long a caller wants to wait inside one request, and how its wait goes on in the next one.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;

use super::state::Shared;
use crate::domain::quantity::format_duration;

/// Load balancers cut requests at 60 s.
pub(super) const LONGEST: Duration = Duration::from_secs(50);
/// The wake-up is a hint and may be missing.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the caller wants to wait: `?wait=50s`, or else `Prefer: wait=50`.
pub(super) fn wanted(query: Option<Duration>, headers: &HeaderMap) -> Option<Duration> {
    query.or_else(|| prefer_wait(headers)).filter(|it| !it.is_zero()).map(|it| it.min(LONGEST))
}

/// RFC 7240. A preference that can't be read is none.
fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all("prefer").iter().filter_map(|it| it.to_str().ok());
    let mut preferences = lines.flat_map(|it| it.split([',', ';'])).map(str::trim);
    let seconds: u32 = preferences.find_map(|it| {
        let (name, value) = it.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim().trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds.into()))
}

/// 303 to the same wait: followed as a GET by HTTP clients, so that a call lasts as long as what it waits for.
pub(super) fn see_again(app: &Shared, path: &str, wait: Duration) -> Response {
    let wait = SignedDuration::try_from(wait).map(format_duration).unwrap_or_default();
    let location = app.public_url.location(&format!("{path}?wait={wait}"));
    let location = HeaderValue::try_from(location).ok();
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().extend(location.map(|it| (header::LOCATION, it)));
    response
}

pub(super) fn preference_applied(
    headers: &HeaderMap,
    wait: Duration,
) -> Option<(HeaderName, HeaderValue)> {
    prefer_wait(headers)?;
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()?;
    Some((HeaderName::from_static("preference-applied"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(prefer: &'static str) -> HeaderMap {
        [(HeaderName::from_static("prefer"), HeaderValue::from_static(prefer))]
            .into_iter()
            .collect()
    }

    #[test]
    fn the_wait_is_read_from_either_place_and_bounded() {
        let seconds = Duration::from_secs;
        assert_eq!(wanted(None, &headers("respond-async, wait=20")), Some(seconds(20)));
        assert_eq!(wanted(Some(seconds(5)), &headers("wait=20")), Some(seconds(5)));
        assert_eq!(wanted(Some(seconds(3_600)), &HeaderMap::new()), Some(LONGEST));
        assert_eq!(wanted(Some(Duration::ZERO), &HeaderMap::new()), None);
        assert_eq!(wanted(None, &headers("wait=soon")), None);
        assert_eq!(wanted(None, &headers("handling=strict")), None);
    }
}
