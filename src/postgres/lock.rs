//! The lock on the data directory: at most one service at a time works in it.
//!
//! Invariants: the lock is the kernel's (`flock`), so it ends with the process however that ends;
//! the pid in the file is for messages only, never evidence; the file is never removed. The file
//! descriptor closes on exec, so a Postgres that outlives the service does not hold the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Error;

pub(super) const FILE_NAME: &str = "supercargo.lock";

/// Held while the service uses its data directory; dropping it releases the directory.
#[derive(Debug)]
pub struct DataDirLock {
    data_dir: PathBuf,
    _file: File,
}

impl DataDirLock {
    /// Locks the data directory, which is created if it does not exist.
    ///
    /// # Errors
    /// [`Error::DataDirInUse`] if another service holds it.
    pub fn acquire(data_dir: &Path) -> Result<Self, Error> {
        let data_dir = create_data_dir(data_dir)?;
        let path = data_dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The other service may be writing it just now: then its pid is unknown.
                drop(file.read_to_string(&mut text));
                let pid = text.trim().parse().ok();
                return Err(Error::DataDirInUse { path: data_dir, pid });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { data_dir, _file: file })
    }

    /// The data directory as an absolute path without symbolic links.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// Creates the directory and its missing parents, whatever the umask is. The database user is not
/// root, so what root creates must be open to passing through.
pub(super) fn create_data_dir(data_dir: &Path) -> Result<PathBuf, Error> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let absolute = std::path::absolute(data_dir).map_err(Error::io("resolve", data_dir))?;
    let mut missing: Vec<&Path> = absolute.ancestors().take_while(|dir| !dir.exists()).collect();
    missing.reverse();
    for dir in missing {
        let created = DirBuilder::new().mode(mode).create(dir);
        match created {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(Error::io("create", dir))?;
    }
    absolute.canonicalize().map_err(Error::io("resolve", data_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_service_on_a_data_dir_is_refused_with_the_pid_of_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        let first = DataDirLock::acquire(&dir).unwrap();

        let refused = DataDirLock::acquire(&dir).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "data directory {} is in use by the service with pid {}; stop it or choose another --data-dir",
                first.data_dir().display(),
                std::process::id()
            )
        );

        drop(first);
        DataDirLock::acquire(&dir).unwrap();
    }

    #[test]
    fn shorter_pid_leaves_nothing_of_a_longer_one() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(FILE_NAME), "99999999999\n").unwrap();
        let _lock = DataDirLock::acquire(temp.path()).unwrap();
        assert_eq!(
            fs::read_to_string(temp.path().join(FILE_NAME)).unwrap(),
            format!("{}\n", std::process::id())
        );
    }

    #[test]
    fn created_directories_have_the_mode_for_their_owner() {
        let temp = tempfile::tempdir().unwrap();
        let dir = create_data_dir(&temp.path().join("a/b")).unwrap();
        let wanted = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        for dir in [dir.as_path(), dir.parent().unwrap()] {
            assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, wanted);
        }
    }
}
