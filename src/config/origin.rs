//! Where a value came from, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;

/// What set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    File {
        path: PathBuf,
        line: Option<usize>,
    },
    /// The name of an environment variable.
    Env(String),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Such as `http.listen`; empty where the fault is not about one key.
    pub key: String,
    pub origin: Origin,
    /// What is wrong, and the fix. Never holds a secret.
    pub detail: String,
}

impl Fault {
    pub(super) fn new(key: impl Into<String>, origin: Origin, detail: impl Into<String>) -> Self {
        Self { key: key.into(), origin, detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, detail } = self;
        match (key.as_str(), origin) {
            ("", origin) => write!(f, "{origin}: {detail}"),
            (key, origin) => write!(f, "{key} ({origin}): {detail}"),
        }
    }
}

/// Everything that is wrong with the configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
