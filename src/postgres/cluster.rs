//! The cluster's files: where they are, how they come into being, and the settings.
//!
//! Invariants: `<data-dir>/postgres` is either absent or a whole cluster that has reached the disk
//! (it is made under another name and renamed); the settings are written anew at every start, so an
//! upgrade of the service takes effect; those that durability rests on are also given on the command
//! line, where no file and no `alter system` can undo them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::binaries::Binaries;
use super::{Error, PORT, USER, socket_dir};

pub(super) const DIR_NAME: &str = "postgres";
/// Prefix of a cluster that is being made.
const NEW_PREFIX: &str = "postgres.new-";
const SETTINGS_FILE: &str = "supercargo.conf";
/// What Postgres says until its log collector runs. Outside the cluster: root writes it.
const LOG_NAME: &str = "postgres.log";
/// The collector's folder in the cluster.
const LOG_DIR: &str = "log";

/// No lost work: an answer 201 means that the commit is on the disk.
pub(super) const DURABLE: &[(&str, &str)] =
    &[("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")];

const SETTINGS: &[(&str, &str)] = &[
    ("max_connections", "100"),
    ("shared_buffers", "128MB"),
    ("max_wal_size", "1GB"),
    ("wal_compression", "on"),
    ("huge_pages", "off"),
    ("jit", "off"),
    ("cluster_name", "supercargo"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    // A week of logs, one file per weekday.
    ("logging_collector", "on"),
    ("log_destination", "stderr"),
    ("log_directory", LOG_DIR),
    ("log_filename", "postgres-%a.log"),
    ("log_rotation_age", "1d"),
    ("log_rotation_size", "0"),
    ("log_truncate_on_rotation", "on"),
    ("log_line_prefix", "%m [%p] %q%a "),
];

/// An existing cluster with all that is needed to run it.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub(super) dir: PathBuf,
    pub(super) account: Account,
    pub(super) binaries: Binaries,
    /// Where a postmaster that is started here listens.
    pub(super) socket_dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Cluster {
    /// Finds the cluster of that data directory, or makes it.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let dir = data_dir.join(DIR_NAME);
        let version = read_version(&dir)?;
        let account = Account::choose(&dir)?;
        let binaries = Binaries::find(version)?;
        account.check_may_enter(data_dir, &binaries.program("postgres"))?;
        let socket_dir = socket_dir::choose(data_dir, &account)?;
        let log = data_dir.join(LOG_NAME);
        let cluster = Self { dir, account, binaries, socket_dir, log };
        remove_unfinished(data_dir);
        if version.is_none() {
            cluster.create(data_dir)?;
        }
        Ok(cluster)
    }

    /// What every program of Postgres is run with: as its user, in the data directory.
    pub(super) fn command(&self, program: &str) -> Command {
        let dir = self.dir.parent().unwrap_or(&self.dir);
        self.account.command(&self.binaries.program(program), dir)
    }

    pub(super) fn write_settings(&self) -> Result<(), Error> {
        self.write_file(SETTINGS_FILE, &settings_text(&self.socket_dir))
    }

    /// The last lines of whichever log was written last, with its path.
    pub(super) fn log_tail(&self) -> (PathBuf, String) {
        let collected = fs::read_dir(self.dir.join(LOG_DIR)).into_iter().flatten().flatten();
        let newest = collected
            .map(|entry| entry.path())
            .chain([self.log.clone()])
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .max();
        let path = newest.map_or_else(|| self.log.clone(), |(_, path)| path);
        let text = last_lines(&fs::read(&path).unwrap_or_default());
        (path, text)
    }

    fn create(&self, data_dir: &Path) -> Result<(), Error> {
        // A name of its own: an initdb whose service was killed may still be writing to another.
        let new = data_dir.join(format!("{NEW_PREFIX}{:016x}", random()?));
        DirBuilder::new().mode(0o700).create(&new).map_err(Error::io("create", &new))?;
        let made = File::open(&new).map_err(Error::io("open", &new))?;
        self.account.take(&made, &new, 0o700)?;
        let output = self
            .command("initdb")
            .arg("-D")
            .arg(&new)
            .args(["--username", USER, "--auth-local=trust", "--auth-host=reject"])
            .args(["--encoding=UTF8", "--locale=C"])
            .output()
            .map_err(Error::io("run", self.binaries.program("initdb")))?;
        if !output.status.success() {
            remove_unfinished(data_dir);
            return Err(Error::Program {
                program: "initdb",
                status: output.status.to_string(),
                output: last_lines(&output.stderr),
            });
        }
        let fresh = Self { dir: new.clone(), ..self.clone() };
        let main_file = new.join("postgresql.conf");
        let main = fs::read_to_string(&main_file).map_err(Error::io("read", &main_file))?;
        fresh.write_file(
            "postgresql.conf",
            &format!("{main}\n# Last, so that it wins.\ninclude_if_exists = '{SETTINGS_FILE}'\n"),
        )?;
        fresh.write_settings()?;
        fs::rename(&new, &self.dir).map_err(Error::io("create", &self.dir))?;
        sync_dir(data_dir)
    }

    /// Replaces a file of the cluster; after a crash it is the old or the new one, never a part.
    fn write_file(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let new = self.dir.join(format!("{name}.new"));
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(Error::io("replace", &new)(error));
        }
        // `create_new` follows no link that the cluster's owner might have put there.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(Error::io("create", &new))?;
        self.account.take(&file, &new, 0o600)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", &new))?;
        fs::rename(&new, &path).map_err(Error::io("replace", &path))?;
        sync_dir(&self.dir)
    }
}

/// The settings that belong on the postmaster's command line.
pub(super) fn fixed_settings() -> impl Iterator<Item = String> {
    let settings = DURABLE.iter().copied().chain([("listen_addresses", "")]);
    settings.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
}

/// The major version of an existing cluster; `None` if one is to be made.
fn read_version(dir: &Path) -> Result<Option<u32>, Error> {
    let path = dir.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(version) => Ok(Some(version)),
            Err(_) => Err(Error::NotACluster(dir.to_owned())),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // An empty folder may be a mount point that waits for its data.
            let is_empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
            if is_empty { Ok(None) } else { Err(Error::NotACluster(dir.to_owned())) }
        }
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// What is left of an initdb that was cut short. It is only rubbish, so a failure is no error.
fn remove_unfinished(data_dir: &Path) {
    for entry in fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(NEW_PREFIX) {
            continue;
        }
        let path = entry.path();
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed an unfinished database"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished database");
            }
        }
    }
}

fn settings_text(socket_dir: &Path) -> String {
    let mut text = String::from(
        "# Written by supercargo at every start. Your own settings: `alter system set …`, then a restart.\n",
    );
    // A list of directories: quoted as a name, so that a comma in it does not separate.
    let directories = format!("\"{}\"", socket_dir.display().to_string().replace('"', "\"\""));
    let port = PORT.to_string();
    let place = [
        ("listen_addresses", ""),
        ("unix_socket_directories", directories.as_str()),
        ("unix_socket_permissions", "0700"),
        ("port", port.as_str()),
    ];
    let lines = place.iter().chain(DURABLE).chain(SETTINGS);
    text.extend(lines.map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))));
    text
}

/// Enough to see what is wrong, without what says only that all is well.
pub(super) fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::io("read", "the system's random numbers")(error.into()))
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_every_commit() {
        let text = settings_text(Path::new("/run/x"));
        for line in [
            "fsync = 'on'",
            "synchronous_commit = 'on'",
            "full_page_writes = 'on'",
            "listen_addresses = ''",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn socket_directory_with_odd_characters_stays_one_directory() {
        let text = settings_text(Path::new("/run/it's, \"odd\""));
        assert!(
            text.contains("unix_socket_directories = '\"/run/it''s, \"\"odd\"\"\"'\n"),
            "{text}"
        );
    }

    #[test]
    fn folder_that_is_no_cluster_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(DIR_NAME);
        assert_eq!(read_version(&dir).unwrap(), None);
        fs::create_dir(&dir).unwrap();
        assert_eq!(read_version(&dir).unwrap(), None);

        fs::write(dir.join("letters.txt"), "").unwrap();
        assert!(matches!(read_version(&dir), Err(Error::NotACluster(_))));
        fs::write(dir.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(read_version(&dir).unwrap(), Some(15));
    }

    #[test]
    fn tail_has_the_last_lines_only() {
        let text = (1..=30).map(|n| format!("line {n}\n\n")).collect::<Vec<_>>().concat();
        let tail = last_lines(text.as_bytes());
        assert!(tail.starts_with("line 21\n") && tail.ends_with("line 30"), "{tail}");
        assert_eq!(last_lines(b""), "");
    }
}
