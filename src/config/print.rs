//! Shows the configuration that is in force.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::merge::{Merged, Setting};
use super::origin::Origin;
use super::secret::redact;
use super::target::ConfiguredTarget;
use crate::domain::target::to_document;

/// One key as it is shown; holds no secret.
#[derive(Debug, Clone)]
pub(super) struct Line {
    section: String,
    key: String,
    value: String,
    origin: Origin,
}

pub(super) fn lines(
    merged: &Merged,
    data_dir: &Path,
    targets: &BTreeMap<String, ConfiguredTarget>,
) -> Vec<Line> {
    let line = |Setting { key, value, origin }: &Setting| {
        let value = match value {
            // What an empty one stands for is what a reader wants to know.
            Value::String(_) if key == "data_dir" => Value::from(data_dir.to_string_lossy()),
            Value::String(text) => Value::from(redact(text)),
            other => other.clone(),
        };
        let (section, key) = key.split_once('.').unwrap_or(("", key));
        let (section, key) = (section.to_owned(), key.to_owned());
        Line { section, key, value: toml_text(value), origin: origin.clone() }
    };
    let mut lines: Vec<Line> = merged.settings.iter().map(line).collect();
    for (name, table) in &merged.targets {
        let Some(configured) = targets.get(name) else { continue };
        let document = to_document(&configured.target, true);
        let given = document.as_object().into_iter().flatten().filter(|(key, _)| table.has(key));
        for (key, value) in given {
            let origin = table.origin(key).clone();
            let section = format!("targets.{name}");
            lines.push(Line { section, key: key.clone(), value: toml_text(value.clone()), origin });
        }
    }
    lines
}

fn toml_text(value: Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| String::new(), |it| it.to_string())
}

/// TOML, with the origin behind each value that is not the default.
pub(super) struct Toml<'a>(pub(super) &'a [Line]);

impl fmt::Display for Toml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for Line { section: of, key: name, value, origin } in self.0 {
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
