//! Finds the installed Postgres server programs.
//!
//! Invariants: a program is taken only from a directory that holds both `initdb` and `postgres`; an
//! existing cluster gets the programs of its own major version, a new one the newest. Debian and
//! Homebrew keep the programs of each version in a directory of its own, which is not in PATH.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// The oldest version with everything that the migrations use.
const OLDEST_MAJOR: u32 = 14;

/// Folders with one subfolder per version; `<entry>/<suffix>` holds the programs.
const VERSIONED: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
];

/// A directory with the server programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The programs for a cluster of that version, or the newest ones.
    pub(super) fn find(wanted: Option<u32>) -> Result<Self, Error> {
        let found =
            candidates().into_iter().filter_map(|dir| Some(Self { major: major_of(&dir)?, dir }));
        choose(found, wanted)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        if path.exists() {
            return path;
        }
        // Client programs can come from another package with another folder.
        in_path(name).unwrap_or(path)
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }
}

fn choose(found: impl Iterator<Item = Binaries>, wanted: Option<u32>) -> Result<Binaries, Error> {
    let best = match wanted {
        Some(wanted) => found.into_iter().find(|binaries| binaries.major == wanted),
        // Of equal versions the first one, which is the one in PATH.
        None => found.fold(None, |best: Option<Binaries>, next| match best {
            Some(best) if best.major >= next.major => Some(best),
            _ => Some(next),
        }),
    };
    match best {
        None => Err(Error::NotInstalled { major: wanted, install: install_command(wanted) }),
        Some(best) if best.major < OLDEST_MAJOR => Err(Error::TooOld {
            found: best.major,
            oldest: OLDEST_MAJOR,
            install: install_command(None),
            dir: best.dir,
        }),
        Some(best) => Ok(best),
    }
}

/// What to type on this kind of system.
fn install_command(major: Option<u32>) -> String {
    let suffix = |separator: &str| major.map(|m| format!("{separator}{m}")).unwrap_or_default();
    let debian = format!("apt-get install postgresql{}", suffix("-"));
    let homebrew = format!("brew install postgresql{}", suffix("@"));
    let fedora = format!("dnf install postgresql{}-server", suffix(""));
    if cfg!(target_os = "macos") {
        homebrew
    } else if Path::new("/etc/debian_version").exists() {
        debian
    } else if Path::new("/etc/redhat-release").exists() {
        fedora
    } else {
        format!("{debian}, {fedora} or {homebrew}")
    }
}

/// Every folder with server programs, those in PATH first.
fn candidates() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = path_dirs().collect();
    for (parent, prefix, suffix) in VERSIONED {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        dirs.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .map(|entry| entry.path().join(suffix)),
        );
    }
    dirs.retain(|dir| {
        dir.is_absolute() && dir.join("initdb").is_file() && dir.join("postgres").is_file()
    });
    dirs
}

fn path_dirs() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn in_path(name: &str) -> Option<PathBuf> {
    path_dirs().map(|dir| dir.join(name)).find(|path| path.is_absolute() && path.is_file())
}

/// Debian's folders say their version; the others are asked.
fn major_of(dir: &Path) -> Option<u32> {
    if let Ok(below) = dir.strip_prefix("/usr/lib/postgresql") {
        let version = below.iter().next().and_then(OsStr::to_str);
        return version?.parse().ok();
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15; `… 18beta1` → 18.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(major: u32, dir: &str) -> Binaries {
        Binaries { dir: PathBuf::from(dir), major }
    }

    #[test]
    fn version_is_read_from_what_the_program_says() {
        for (text, major) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 17", Some(17)),
            ("postgres 17", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), major, "{text}");
        }
    }

    #[test]
    fn new_cluster_gets_the_newest_version_and_the_first_place_among_equals() {
        let found = [binaries(15, "/b"), binaries(17, "/a"), binaries(17, "/z"), binaries(9, "/c")];
        assert_eq!(choose(found.into_iter(), None).unwrap(), binaries(17, "/a"));
    }

    #[test]
    fn existing_cluster_gets_its_own_version_or_an_error_that_names_it() {
        let found = [binaries(15, "/b"), binaries(17, "/a")];
        assert_eq!(choose(found.clone().into_iter(), Some(15)).unwrap(), binaries(15, "/b"));

        let error = choose(found.into_iter(), Some(16)).unwrap_err().to_string();
        assert!(error.contains("no postgresql 16 server found"), "{error}");
        assert!(error.contains("DATABASE_URL"), "{error}");
    }

    #[test]
    fn error_without_any_version_says_what_to_install() {
        let error = choose(std::iter::empty(), None).unwrap_err().to_string();
        assert!(error.contains("install postgresql"), "{error}");
        assert!(error.contains("set DATABASE_URL to an existing server"), "{error}");
    }

    #[test]
    fn version_that_is_too_old_is_refused() {
        let error = choose([binaries(9, "/old")].into_iter(), None).unwrap_err();
        assert!(matches!(error, Error::TooOld { found: 9, .. }), "{error}");
    }
}
