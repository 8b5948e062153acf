//! Reads the keys of one section, each with its range, and keeps every fault.

use std::time::Duration;

use jiff::SignedDuration;

use crate::domain::quantity::{format_duration, parse_bytes};
use crate::domain::spec::ObjectReader;

/// The keys of one section. Every key has a default, so that nothing here is optional: after a
/// fault the value is empty, and the configuration is refused as a whole.
#[derive(Debug)]
pub(super) struct Section<'r, 'a>(pub(super) &'r mut ObjectReader<'a>);

impl Section<'_, '_> {
    pub(super) fn bool(&mut self, key: &'static str) -> bool {
        self.need(key);
        self.0.bool(key).unwrap_or_default()
    }

    /// Text that `read` understands.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.need(key);
        let text = self.0.text(key)?;
        self.0.checked(key, read(text))
    }

    /// As [`Section::parsed`], where empty text means that the key is not set.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.parsed(key, |text| if text.is_empty() { Ok(None) } else { read(text).map(Some) })?
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        self.need(key);
        self.0.choice(key, choices)
    }

    /// Each item of a list of text, as `read` understands it.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.need(key);
        let mut read_items = Vec::new();
        for item in self.0.list(key).unwrap_or_default() {
            match item.as_str() {
                Some(text) => read_items.extend(self.0.checked(key, read(text))),
                None => {
                    self.fault(key, format!("{item} is not text: write a list such as [\"a\"]"));
                }
            }
        }
        read_items
    }

    pub(super) fn count<T: TryFrom<i64> + Default>(
        &mut self,
        key: &'static str,
        (min, max): (i64, i64),
    ) -> T {
        self.need(key);
        self.0.integer(key, min, max).and_then(|it| T::try_from(it).ok()).unwrap_or_default()
    }

    /// Both bounds are written as a person would write the value.
    pub(super) fn duration(&mut self, key: &'static str, min: Duration, max: Duration) -> Duration {
        self.need(key);
        let Some(value) = self.0.duration(key) else { return Duration::ZERO };
        let value = value.unsigned_abs();
        if !(min..=max).contains(&value) {
            self.fault(key, format!("{} is not from {} to {}", show(value), show(min), show(max)));
        }
        value
    }

    /// Both bounds are bytes in Kubernetes form.
    pub(super) fn size<T: TryFrom<i64> + Default>(
        &mut self,
        key: &'static str,
        (min, max): (&str, &str),
    ) -> T {
        let range = |value: i64| {
            let inside = parse_bytes(min)? <= value && value <= parse_bytes(max)?;
            if inside {
                Ok(value)
            } else {
                Err(format!("{value} bytes is not from {min} to {max}"))
            }
        };
        self.parsed(key, |text| parse_bytes(text).and_then(range))
            .and_then(|it| T::try_from(it).ok())
            .unwrap_or_default()
    }

    pub(super) fn fault(&mut self, key: &str, detail: impl Into<String>) {
        self.0.fault(key, "invalid_value", detail);
    }

    /// A key that is read here and missing in `defaults.toml` would be one that nobody knows of.
    fn need(&mut self, key: &'static str) {
        if self.0.value(key).is_none() {
            self.fault(key, "has no default: defaults.toml lacks the key");
        }
    }
}

pub(super) fn show(duration: Duration) -> String {
    format_duration(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
}
