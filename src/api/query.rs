//! Query parameters: each operation names the ones that it knows, and any other is a fault.

use std::fmt::Display;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::problem::{Problem, ProblemKind};
use crate::domain::quantity;
use crate::domain::spec::suggest;

/// What an operation takes from the query.
pub(super) trait ReadQuery: Sized {
    fn read(query: &mut QueryReader) -> Self;
}

/// The parameters of one operation.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: ReadQuery, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = match parts.uri.query() {
            None | Some("") => Vec::new(),
            Some(_) => Query::try_from_uri(&parts.uri)
                .map(|Query(it)| it)
                .map_err(|it| Problem::new(ProblemKind::InvalidParameter, it.body_text()))?,
        };
        let mut reader = QueryReader { pairs, known: Vec::new(), fault: None };
        let it = T::read(&mut reader);
        reader.finish()?;
        Ok(Self(it))
    }
}

/// An operation without parameters.
#[derive(Debug)]
pub(super) struct Nothing;

impl ReadQuery for Nothing {
    fn read(_: &mut QueryReader) -> Self {
        Self
    }
}

/// Takes parameters by name and keeps the first fault.
#[derive(Debug)]
pub(super) struct QueryReader {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    fault: Option<String>,
}

impl QueryReader {
    /// Every value of a parameter that may be repeated.
    pub(super) fn all(&mut self, key: &'static str) -> Vec<String> {
        self.known.push(key);
        let values: Vec<String> =
            self.pairs.iter().filter(|(name, _)| name == key).map(|(_, it)| it.clone()).collect();
        if values.iter().any(|it| it.contains('\0')) {
            self.fault(format!("{key:?} holds a NUL character: leave it out"));
            return Vec::new();
        }
        values
    }

    pub(super) fn one(&mut self, key: &'static str) -> Option<String> {
        let mut values = self.all(key);
        if values.len() > 1 {
            self.fault(format!("{key:?} is there {} times: give it once", values.len()));
        }
        values.pop()
    }

    /// A value that is text of a certain form; `parse` says what is wrong with it.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.one(key)?;
        parse(&text).map_err(|it| self.fault(format!("{key}: {it}"))).ok()
    }

    /// `true`, `1`, or the bare name.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        let read = |text: &str| match text {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{other:?} is not true or false")),
        };
        self.parsed(key, read).unwrap_or_default()
    }

    /// A duration; a bare number counts seconds.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<std::time::Duration> {
        let read = |text: &str| match text.parse::<u32>() {
            Ok(seconds) => Ok(std::time::Duration::from_secs(seconds.into())),
            Err(_) => quantity::parse_duration(text).map(jiff::SignedDuration::unsigned_abs),
        };
        self.parsed(key, read)
    }

    pub(super) fn fault(&mut self, detail: impl Into<String>) {
        self.fault.get_or_insert(detail.into());
    }

    fn finish(self) -> Result<(), Problem> {
        let unknown = self.pairs.iter().find(|(key, _)| !self.known.contains(&key.as_str()));
        let unknown = unknown.map(|(key, _)| {
            let hint = suggest(key, &self.known);
            if hint.is_empty() && self.known.is_empty() {
                format!("unknown parameter {key:?}: this path takes none")
            } else if hint.is_empty() {
                format!("unknown parameter {key:?}: this path takes {}", self.known.join(", "))
            } else {
                format!("unknown parameter {key:?}{hint}")
            }
        });
        match unknown.or(self.fault) {
            Some(detail) => Err(Problem::new(ProblemKind::InvalidParameter, detail)),
            None => Ok(()),
        }
    }
}
