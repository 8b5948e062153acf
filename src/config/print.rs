//! Shows the configuration that is in force.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::merge::{Merged, Setting};
use super::origin::Origin;
use super::secret::redact;

/// One key as it is shown; holds no secret.
#[derive(Debug, Clone)]
pub(super) struct Line {
    key: String,
    value: String,
    origin: Origin,
}

pub(super) fn lines(merged: &Merged, data_dir: &Path) -> Vec<Line> {
    let line = |Setting { key, value, origin }: &Setting| {
        let value = match value {
            // What an empty one stands for is what a reader wants to know.
            Value::String(_) if key == "data_dir" => Value::from(data_dir.to_string_lossy()),
            Value::String(text) => Value::from(redact(text)),
            other => other.clone(),
        };
        let value =
            toml::Value::try_from(value).map_or_else(|_| String::new(), |it| it.to_string());
        Line { key: key.clone(), value, origin: origin.clone() }
    };
    merged.settings.iter().map(line).collect()
}

/// TOML, with the origin behind each value that is not the default.
pub(super) struct Toml<'a>(pub(super) &'a [Line]);

impl fmt::Display for Toml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for Line { key, value, origin } in self.0 {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                write!(f, "\n[{of}]\n")?;
                section = of;
            }
            match origin {
                Origin::Default => writeln!(f, "{name} = {value}")?,
                origin => writeln!(f, "{name} = {value} # {origin}")?,
            }
        }
        Ok(())
    }
}
