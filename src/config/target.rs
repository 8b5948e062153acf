//! The targets of a configuration: their documents are those of the API, in tables.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::merge::Merged;
use super::origin::{Fault, Origin};
use super::sections::Docker;
use crate::domain::target::{self, Backend, DockerBackend, LOCAL, Target};

/// One target, and where it is defined.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfiguredTarget {
    pub target: Target,
    /// For people: `[targets.prod] of /etc/supercargo.toml:12`.
    pub place: String,
}

/// What the sources say of one target. It may hold credentials.
#[derive(Clone)]
pub(super) struct TargetTable {
    value: Value,
    origin: Origin,
    /// Of those keys that came from elsewhere, as a path with dots.
    others: Vec<(String, Origin)>,
}

impl fmt::Debug for TargetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetTable").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl TargetTable {
    pub(super) const fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, others: Vec::new() }
    }

    /// Sets a key from the environment, which has text alone: the key says what it stands for.
    pub(super) fn set(&mut self, path: &str, text: &str, origin: &Origin) -> Result<(), String> {
        let value = match path {
            "enabled" | "in_cluster" | "tls_skip_verify" => match text {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => return Err(format!("{text:?} is neither \"true\" nor \"false\"")),
            },
            "concurrency" => {
                let number = text.parse::<i64>();
                Value::from(number.map_err(|_| format!("{text:?} is not a whole number"))?)
            }
            "impersonate.groups" => text.split(',').map(str::trim).collect(),
            _ => Value::from(text),
        };
        let mut place = &mut self.value;
        for key in path.split('.') {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[key];
        }
        *place = value;
        self.others.push((path.to_owned(), origin.clone()));
        Ok(())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    pub(super) fn origin(&self, path: &str) -> &Origin {
        let covers = |it: &&(String, Origin)| {
            path.strip_prefix(&it.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.others.iter().find(covers).map_or(&self.origin, |(_, origin)| origin)
    }
}

/// Every target that is configured, the one of Docker among them.
pub(super) fn read(
    merged: &Merged,
    docker: Option<&Docker>,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, ConfiguredTarget> {
    let mut targets = BTreeMap::new();
    for (name, table) in &merged.targets {
        if let Err(detail) = target::check_name(name) {
            faults.push(Fault::new(format!("targets.{name}"), table.origin.clone(), detail));
            continue;
        }
        match target::parse(&table.value, None) {
            Ok(target) => {
                let place = format!("[targets.{name}] of {}", table.origin);
                targets.insert(name.clone(), ConfiguredTarget { target, place });
            }
            Err(found) => faults.extend(found.into_iter().map(|it| {
                let path = it.pointer.trim_start_matches('/').replace('/', ".");
                let key = format!("targets.{name}.{path}");
                Fault::new(key.trim_end_matches('.'), table.origin(&path).clone(), it.detail)
            })),
        }
    }
    if let Some(docker) = docker.filter(|it| it.enabled && cfg!(feature = "docker")) {
        let local = || {
            let backend = Backend::Docker(DockerBackend { host: docker.host.clone() });
            let place = format!("[docker] of {}", merged.origin("docker.host"));
            ConfiguredTarget { target: Target::plain(backend), place }
        };
        if !merged.targets.contains_key(LOCAL) {
            targets.insert(LOCAL.to_owned(), local());
        }
    }
    targets
}
