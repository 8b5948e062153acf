//! The configuration: `defaults.toml`, a file, the environment and the command line, in that order,
//! read into typed sections.
//!
//! [`Config::load`] gives a value that is valid, or every fault at once: nothing checks it again.
//! `defaults.toml` is the reference of all keys; a key that is not there is a fault, and a test
//! holds that every key there is read. Secrets never appear in [`Config::print`], in a fault or in
//! the debug form.

mod merge;
mod origin;
mod print;
mod read;
mod secret;
mod sections;
mod sources;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use merge::Merged;
use read::{Section, show};
use sections::read_target;

use crate::domain::spec::ObjectReader;

pub use origin::{Fault, Faults, Origin};
pub use secret::SecretUrl;
pub use sections::{
    Auth, Database, Docker, Http, Limits, LogFormat, Logs, ObjectStore, Retention, Role, Telemetry,
    Worker,
};
pub use sources::{CONFIG_VARIABLE, Env, Flag, Sources, default_data_dir, is_root};
pub use target::ConfiguredTarget;

/// The commented reference of every key, which is also the defaults.
pub const REFERENCE: &str = merge::DEFAULTS;

/// Everything that can be set, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Absolute.
    pub data_dir: PathBuf,
    /// Sorted, each once, at least one.
    pub roles: Vec<Role>,
    pub default_target: String,
    pub http: Http,
    pub auth: Auth,
    pub database: Database,
    pub docker: Docker,
    /// By name, the one of `docker` among them.
    pub targets: BTreeMap<String, ConfiguredTarget>,
    pub object_store: ObjectStore,
    pub worker: Worker,
    pub limits: Limits,
    pub logs: Logs,
    pub retention: Retention,
    pub telemetry: Telemetry,
    /// For [`Config::print`]; the passwords are masked.
    effective: Vec<print::Line>,
}

impl Config {
    pub fn load(sources: &Sources) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let merged = Merged::read(sources, &mut faults);
        Self::from_merged(&merged, sources, faults)
    }

    fn from_merged(
        merged: &Merged,
        sources: &Sources,
        mut faults: Vec<Fault>,
    ) -> Result<Self, Faults> {
        let mut read_faults = Vec::new();
        let document = merged.document();
        let config =
            ObjectReader::open(&document, String::new(), &mut read_faults).and_then(|mut root| {
                let config = read_root(&mut root, sources);
                root.finish();
                config
            });
        faults.extend(read_faults.into_iter().map(|it| {
            let key = it.pointer.trim_start_matches('/').replace('/', ".");
            let origin = merged.origin(&key);
            Fault::new(key, origin, it.detail)
        }));
        let docker = config.as_ref().map(|it| &it.docker);
        let targets = target::read(merged, docker, &mut faults);
        if let Some(config) = &config {
            check_together(config, merged, &mut faults);
        }
        match config {
            Some(config) if faults.is_empty() => {
                let effective = print::lines(merged, &config.data_dir, &targets);
                Ok(Self { targets, effective, ..config })
            }
            _ => Err(Faults(faults)),
        }
    }

    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The file of the administrator's token, whoever writes it.
    pub fn admin_token_path(&self) -> PathBuf {
        self.auth.admin_token_file.clone().unwrap_or_else(|| self.data_dir.join("admin.token"))
    }

    /// The folder of the object store, whoever named it.
    pub fn objects_folder(&self) -> PathBuf {
        self.object_store.folder.clone().unwrap_or_else(|| self.data_dir.join("objects"))
    }

    /// What is in force, as TOML that reads back, with where each value came from.
    pub fn print(&self) -> String {
        print::Toml(&self.effective).to_string()
    }

    /// What works as it is, and is worth a second look.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let listen = self.http.listen;
        if !is_loopback(listen) {
            notes.push(format!(
                "http.listen {listen} is reachable from other machines and speaks plain HTTP: put TLS \
                 in front of it, as tokens travel in headers"
            ));
        }
        if !self.auth.enabled {
            notes.push(
                "auth.enabled is false: every user of this machine can run containers".to_owned(),
            );
        }
        if self.database.url.is_none() && self.roles.len() < Role::ALL.len() {
            notes.push(
                "roles names a part of the roles, and database.url is empty: no other process shares \
                 the private Postgres, so set database.url where the rest runs elsewhere"
                    .to_owned(),
            );
        }
        notes
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// None where a whole section could not be read; its fault is there by then.
fn read_root(root: &mut ObjectReader<'_>, sources: &Sources) -> Option<Config> {
    let mut top = Section(root);
    let data_dir = read_data_dir(&mut top, sources);
    let mut roles = top.list("roles", Role::parse);
    roles.sort_unstable();
    roles.dedup();
    let default_target = top.parsed("default_target", read_target).unwrap_or_default();
    // Not one `?` before all are read: every fault is to be found.
    let http = section(root, "http", Http::read);
    let auth = section(root, "auth", Auth::read);
    let database = section(root, "database", Database::read);
    let docker = section(root, "docker", Docker::read);
    let object_store = section(root, "object_store", ObjectStore::read);
    let worker = section(root, "worker", Worker::read);
    let limits = section(root, "limits", Limits::read);
    let logs = section(root, "logs", Logs::read);
    let retention = section(root, "retention", Retention::read);
    let telemetry = section(root, "telemetry", Telemetry::read);
    Some(Config {
        data_dir,
        roles,
        default_target,
        http: http?,
        auth: auth?,
        database: database?,
        docker: docker?,
        targets: BTreeMap::new(),
        object_store: object_store?,
        worker: worker?,
        limits: limits?,
        logs: logs?,
        retention: retention?,
        telemetry: telemetry?,
        effective: Vec::new(),
    })
}

fn section<T>(
    root: &mut ObjectReader<'_>,
    key: &'static str,
    read: impl FnOnce(Section<'_, '_>) -> T,
) -> Option<T> {
    if root.value(key).is_none() {
        root.fault(key, "required", "has no default: defaults.toml lacks the section");
    }
    root.object(key, |it| read(Section(it)))
}

fn read_data_dir(top: &mut Section<'_, '_>, sources: &Sources) -> PathBuf {
    let named = top.optional("data_dir", |text| {
        std::path::absolute(text).map_err(|error| format!("{text:?} is not a path: {error}"))
    });
    let Some(data_dir) = named.or_else(|| default_data_dir(&sources.env, sources.root)) else {
        top.fault(
            "data_dir",
            "there is no default, as neither XDG_STATE_HOME nor HOME is set: name a folder with --data-dir",
        );
        return PathBuf::new();
    };
    data_dir
}

/// The rules over more than one key. A key that is faulty by itself is not judged again.
fn check_together(config: &Config, merged: &Merged, faults: &mut Vec<Fault>) {
    let mut check = |holds: bool, keys: [&str; 2], detail: String| {
        if holds || faults.iter().any(|it| keys.contains(&it.key.as_str())) {
            return;
        }
        // The one that somebody set is the one to change.
        let changed = |key: &&str| merged.origin(key) != Origin::Default;
        let key = keys.into_iter().find(changed).unwrap_or(keys[0]);
        faults.push(Fault::new(key, merged.origin(key), detail));
    };
    let Config { http, auth, worker, limits, .. } = config;
    check(
        worker.lease >= 3 * worker.heartbeat,
        ["worker.lease", "worker.heartbeat"],
        format!(
            "a lease of {} is less than three heartbeats of {}: one late heartbeat would lose it; \
             raise worker.lease or lower worker.heartbeat",
            show(worker.lease),
            show(worker.heartbeat)
        ),
    );
    check(
        auth.enabled || is_loopback(http.listen),
        ["auth.enabled", "http.listen"],
        format!(
            "without authentication only a loopback address is taken, as anybody who reaches {} could \
             run containers: set http.listen to \"127.0.0.1:7070\", or auth.enabled to true",
            http.listen
        ),
    );
    check(
        limits.files <= http.body_limit,
        ["limits.files", "http.body_limit"],
        "files can't be larger than the body that carries them: raise http.body_limit or lower \
         limits.files"
            .to_owned(),
    );
    check(
        !config.roles.is_empty(),
        ["roles", "roles"],
        "is empty: name at least one of api, scheduler, worker".to_owned(),
    );
}
