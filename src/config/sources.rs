//! What the configuration is made from, apart from the built-in defaults.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::origin::Origin;

/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "SUPERCARGO_CONFIG";
/// What the variables of settings begin with.
pub(super) const PREFIX: &str = "SUPERCARGO__";
/// Variables that other programs use too, with the key that each one sets.
pub(super) const PLAIN: [(&str, &str); 2] =
    [("DATABASE_URL", "database.url"), ("DOCKER_HOST", "docker.host")];
const NEEDED: [&str; 2] = ["HOME", "XDG_STATE_HOME"];

/// What the process was given.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`; wins over [`CONFIG_VARIABLE`].
    pub file: Option<PathBuf>,
    pub env: Env,
    pub flags: Vec<Flag>,
    /// Whether the process runs as root, which decides the default data directory.
    pub root: bool,
}

impl Sources {
    /// The environment and the user of this process, without any flags.
    pub fn of_process() -> Self {
        Self { env: Env::of_process(), root: is_root(), ..Self::default() }
    }

    pub(super) fn file(&self) -> Option<(PathBuf, Origin)> {
        if let Some(path) = &self.file {
            return Some((path.clone(), Origin::Flag("--config")));
        }
        let path = self.env.get(CONFIG_VARIABLE).filter(|it| !it.is_empty())?;
        Some((PathBuf::from(path), Origin::Env(CONFIG_VARIABLE.to_owned())))
    }
}

/// A key that a flag of the command line sets.
#[derive(Debug, Clone)]
pub struct Flag {
    pub key: &'static str,
    /// With its dashes.
    pub flag: &'static str,
    pub value: Value,
}

impl Flag {
    pub fn new(key: &'static str, flag: &'static str, value: impl Into<Value>) -> Self {
        Self { key, flag, value: value.into() }
    }
}

/// The environment variables that mean something to the configuration.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, OsString>);

impl Env {
    pub fn of_process() -> Self {
        Self::from_vars(std::env::vars_os())
    }

    /// Keeps the variables that matter here.
    pub fn from_vars<N: AsRef<OsStr>, V: Into<OsString>>(
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let matters = |name: &str| {
            name.starts_with("SUPERCARGO_")
                || NEEDED.contains(&name)
                || PLAIN.iter().any(|(plain, _)| *plain == name)
        };
        let vars = vars.into_iter().filter_map(|(name, value)| {
            let name = name.as_ref().to_str().filter(|it| matters(it))?.to_owned();
            Some((name, value.into()))
        });
        Self(vars.collect())
    }

    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_os_str()))
    }
}

/// Names only: values hold passwords.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the service keeps its things when nothing names a place.
pub fn default_data_dir(env: &Env, root: bool) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/supercargo"));
    }
    // The XDG rules: a path that is not absolute counts as not set.
    let absolute = |name| env.get(name).map(Path::new).filter(|it| it.is_absolute());
    absolute("XDG_STATE_HOME")
        .map(Path::to_path_buf)
        .or_else(|| absolute("HOME").map(|it| it.join(".local/state")))
        .map(|it| it.join("supercargo"))
}
