//! Lays the sources over each other: for every key of `defaults.toml`, the value that counts and
//! where it came from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::origin::{Fault, Origin};
use super::sources::{PLAIN, PREFIX, Sources};
use super::target::TargetTable;
use crate::domain::spec::suggest;

pub(super) const DEFAULTS: &str = include_str!("defaults.toml");

/// A key with the value that counts.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// `section.key`, or `key` outside the sections.
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Every setting there is, in the order of `defaults.toml`, and the targets, whose keys are not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Merged {
    pub(super) settings: Vec<Setting>,
    pub(super) targets: BTreeMap<String, TargetTable>,
}

impl Merged {
    /// Lays the sources over the defaults, weakest first.
    pub(super) fn read(sources: &Sources, faults: &mut Vec<Fault>) -> Self {
        let mut merged = Self::defaults(faults);
        if let Some((path, named_by)) = sources.file() {
            merged.add_file(&path, named_by, faults);
        }
        merged.add_env(sources, faults);
        for flag in &sources.flags {
            merged.set(flag.key, flag.value.clone(), Origin::Flag(flag.flag), faults);
        }
        merged
    }

    fn defaults(faults: &mut Vec<Fault>) -> Self {
        let mut settings = Vec::new();
        match read_toml(DEFAULTS) {
            Ok((entries, _)) => {
                settings.extend(entries.into_iter().map(|(key, value, _)| Setting {
                    key,
                    value,
                    origin: Origin::Default,
                }));
            }
            Err((_, detail)) => faults.push(Fault::new("", Origin::Default, detail)),
        }
        Self { settings, targets: BTreeMap::new() }
    }

    fn add_file(&mut self, path: &Path, named_by: Origin, faults: &mut Vec<Fault>) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let detail = format!("can't read {}: {error}", path.display());
                faults.push(Fault::new("", named_by, detail));
                return;
            }
        };
        let origin = |line| Origin::File { path: path.to_owned(), line };
        match read_toml(&text) {
            Ok((entries, targets)) => {
                for (key, value, line) in entries {
                    self.set(&key, value, origin(Some(line)), faults);
                }
                for (name, value, line) in targets {
                    self.targets.insert(name, TargetTable::new(value, origin(Some(line))));
                }
            }
            Err((line, detail)) => faults.push(Fault::new("", origin(line), detail)),
        }
    }

    fn add_env(&mut self, sources: &Sources, faults: &mut Vec<Fault>) {
        let plain = PLAIN.iter().filter_map(|(name, key)| {
            let value = sources.env.get(name).filter(|it| !it.is_empty())?;
            Some(((*key).to_owned(), *name, value))
        });
        let ours = sources.env.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
            Some((key, name, value))
        });
        let all: Vec<(String, &str, &OsStr)> = plain.chain(ours).collect();
        for (name, _) in sources.env.iter() {
            // SUPERCARGO_HTTP_LISTEN: near enough to be meant, and without effect.
            let Some(rest) = name.strip_prefix("SUPERCARGO_") else { continue };
            if name.starts_with(PREFIX) {
                continue;
            }
            let meant = rest.to_lowercase().replace("__", "_");
            let is_meant = |it: &&Setting| it.key.replace('.', "_") == meant;
            if let Some(setting) = self.settings.iter().find(is_meant) {
                let detail = format!("has no effect: write {}", variable(&setting.key));
                faults.push(Fault::new("", Origin::Env(name.to_owned()), detail));
            }
        }
        for (key, name, value) in all {
            let origin = Origin::Env(name.to_owned());
            if let Some(of_target) = key.strip_prefix("targets.") {
                if let Err(detail) = self.set_target(of_target, value, &origin) {
                    faults.push(Fault::new(key, origin, detail));
                }
                continue;
            }
            let value = match self.find(&key) {
                None => Ok(Value::Null),
                Some(setting) => from_text(value, &setting.value),
            };
            match value {
                Ok(value) => self.set(&key, value, origin, faults),
                Err(detail) => faults.push(Fault::new(key, origin, detail)),
            }
        }
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin, faults: &mut Vec<Fault>) {
        if let Some(setting) = self.settings.iter_mut().find(|it| it.key == key) {
            setting.value = value;
            setting.origin = origin;
        } else if !(self.is_section(key) && value.is_object()) {
            let detail = self.unknown(key, &origin);
            faults.push(Fault::new(key, origin, detail));
        }
    }

    fn set_target(&mut self, key: &str, text: &OsStr, origin: &Origin) -> Result<(), String> {
        let (name, path) = key.split_once('.').ok_or(
            "no key of a target is named: write for example SUPERCARGO__TARGETS__PROD__KIND",
        )?;
        let text = text.to_str().ok_or("the value is not UTF-8")?;
        let new = || TargetTable::new(Value::Object(Map::new()), origin.clone());
        // Names of targets have "-" where those of variables have "_".
        self.targets.entry(name.replace('_', "-")).or_insert_with(new).set(path, text, origin)
    }

    fn is_section(&self, key: &str) -> bool {
        let inside =
            |it: &Setting| it.key.split_once('.').is_some_and(|(section, _)| section == key);
        self.settings.iter().any(inside)
    }

    fn unknown(&self, key: &str, origin: &Origin) -> String {
        if self.is_section(key) {
            return format!("{key} is a section: set its keys, for example {}", self.example(key));
        }
        let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
        let keys: Vec<&str> = self.settings.iter().map(|it| it.key.as_str()).collect();
        // A key in the wrong section is a more likely slip than many letters at once.
        let near = keys.iter().find(|it| last(it) == last(key)).copied().or_else(|| {
            let hint = suggest(key, &keys);
            keys.iter().find(|it| hint.contains(&format!("{it:?}"))).copied()
        });
        match (near, origin) {
            (Some(near), Origin::Env(_)) => {
                format!("there is no such setting: did you mean {}?", variable(near))
            }
            (Some(near), _) => format!("there is no such key: did you mean {near:?}?"),
            (None, _) => "there is no such setting: `supercargo config` lists them".to_owned(),
        }
    }

    fn example(&self, section: &str) -> String {
        let first = self.settings.iter().find(|it| it.key.starts_with(&format!("{section}.")));
        first.map(|it| it.key.clone()).unwrap_or_default()
    }

    pub(super) fn find(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|it| it.key == key)
    }

    /// The origin of the setting that `key` is or lies in.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let covers = |it: &&Setting| {
            key.strip_prefix(&it.key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.settings.iter().find(covers).map_or(Origin::Default, |it| it.origin.clone())
    }

    /// One nested object, as the readers of the sections want it.
    pub(super) fn document(&self) -> Value {
        let mut root = Map::new();
        for Setting { key, value, .. } in &self.settings {
            match key.split_once('.') {
                None => {
                    root.insert(key.clone(), value.clone());
                }
                Some((section, key)) => {
                    let section = root.entry(section).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(section) = section {
                        section.insert(key.to_owned(), value.clone());
                    }
                }
            }
        }
        Value::Object(root)
    }
}

/// The variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Environment variables hold text: the type of the default says what it stands for.
fn from_text(text: &OsStr, like: &Value) -> Result<Value, String> {
    let text = text.to_str().ok_or("the value is not UTF-8")?;
    match like {
        Value::Bool(_) => match text {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(format!("{text:?} is neither \"true\" nor \"false\"")),
        },
        Value::Number(_) => text
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| format!("{text:?} is not a whole number")),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|it| !it.is_empty());
            Ok(Value::Array(items.map(Value::from).collect()))
        }
        Value::Null | Value::String(_) | Value::Object(_) => Ok(Value::from(text)),
    }
}

type Entry = (String, Value, usize);
/// The settings, and the targets by their names.
type Read = (Vec<Entry>, Vec<Entry>);

/// The keys of a TOML text in their order, with their lines. The error names a line and never
/// quotes it, as it may hold a password.
fn read_toml(text: &str) -> Result<Read, (Option<usize>, String)> {
    let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|it| *it == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        (error.span().map(|it| line_at(it.start)), format!("not TOML: {}", error.message()))
    })?;
    let (mut entries, mut targets) = (Vec::new(), Vec::new());
    for (name, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(inner) if name.get_ref() == "targets" => {
                targets.extend(inner.iter().map(|(name, value)| {
                    (name.get_ref().to_string(), to_json(value.get_ref()), name.span().start)
                }));
            }
            _ => flatten_entry("", name, value, &mut entries),
        }
    }
    entries.sort_by_key(|(_, _, offset)| *offset);
    let with_lines = |entries: Vec<Entry>| {
        entries.into_iter().map(|(key, value, offset)| (key, value, line_at(offset))).collect()
    };
    Ok((with_lines(entries), with_lines(targets)))
}

fn flatten_entry(
    prefix: &str,
    name: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    entries: &mut Vec<Entry>,
) {
    let key = format!("{prefix}{}", name.get_ref());
    match value.get_ref() {
        DeValue::Table(inner) if !inner.is_empty() => {
            for (name, value) in inner {
                flatten_entry(&format!("{key}."), name, value, entries);
            }
        }
        other => entries.push((key, to_json(other), name.span().start)),
    }
}

fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(it) => i64::from_str_radix(it.as_str(), it.radix())
            .map_or_else(|_| Value::from(it.as_str()), Value::from),
        DeValue::Float(it) => it
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map_or_else(|| Value::from(it.as_str()), Value::Number),
        DeValue::Boolean(it) => Value::Bool(*it),
        DeValue::Datetime(it) => Value::from(it.to_string()),
        DeValue::Array(items) => items.iter().map(|it| to_json(it.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(
            table
                .iter()
                .map(|(name, it)| (name.get_ref().to_string(), to_json(it.get_ref())))
                .collect(),
        ),
    }
}
