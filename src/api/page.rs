//! What all lists have in common: filters, and pages.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use super::query::QueryReader;

const DEFAULT_LIMIT: i64 = 100;
const MOST: i64 = 1_000;

/// How many a page has at most.
pub(super) fn read_limit(query: &mut QueryReader) -> i64 {
    query.parsed("limit", parse_limit).unwrap_or(DEFAULT_LIMIT)
}

pub(super) fn read_labels(query: &mut QueryReader) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for text in query.all("label") {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                let before = labels.insert(key.to_owned(), value.to_owned());
                if before.is_some_and(|it| it != value) {
                    query.fault(format!("label: {key:?} can't have two values at once"));
                }
            }
            _ => query.fault(format!("label: {text:?} is not name=value")),
        }
    }
    labels
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("{text:?} is not a time such as \"2026-11-21T09:30:00Z\""))
}

fn parse_limit(text: &str) -> Result<i64, String> {
    let limit = text.parse().ok().filter(|it| (1..=MOST).contains(it));
    limit.ok_or_else(|| format!("{text:?} is not a whole number from 1 to {MOST}"))
}

/// Callers hand it back as it is: what is in it is ours to change.
pub(super) fn cursor_of(last: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(last.as_bytes())
}

pub(super) fn parse_cursor(text: &str) -> Result<Uuid, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let uuid = bytes.and_then(|it| Uuid::from_slice(&it).ok());
    uuid.ok_or_else(|| format!("{text:?} is not a cursor: hand back \"next_cursor\" as it was"))
}
