//! The directory of the database socket.
//!
//! Invariants: it belongs to the database user and nobody else may enter it, which is why the
//! database itself asks for no password; its path is short enough for a socket (the kernel takes 107
//! bytes). What somebody else put in its place is never used.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::account::Account;
use super::{Error, PORT};

/// What every Unix that we run on takes: Linux 107, macOS and BSD 103.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The socket's file in its directory. Postgres also makes `<file>.lock`, whose length does not matter.
pub(super) fn socket_file(dir: &Path) -> PathBuf {
    dir.join(format!(".s.PGSQL.{PORT}"))
}

/// The path to use for that data directory; nothing is created. `/tmp` comes before
/// `$XDG_RUNTIME_DIR`, since the latter is emptied when its user logs out.
pub(super) fn choose(data_dir: &Path, account: &Account) -> Result<PathBuf, Error> {
    let mut parents = vec![PathBuf::from("/tmp")];
    if rustix::process::geteuid().is_root() {
        parents.insert(0, PathBuf::from("/run"));
    } else if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        parents.push(PathBuf::from(dir));
    }
    choose_in(&parents, &name_for(data_dir), account)
}

fn choose_in(parents: &[PathBuf], name: &str, account: &Account) -> Result<PathBuf, Error> {
    let fitting: Vec<PathBuf> = parents
        .iter()
        .filter(|parent| parent.is_absolute() && is_writable(parent))
        .map(|parent| parent.join(name))
        .filter(|dir| fits(dir))
        .collect();
    let free = fitting.iter().find(|dir| match fs::symlink_metadata(dir) {
        Ok(meta) => meta.is_dir() && is_owner(meta.uid(), account),
        Err(_) => true,
    });
    // If none is free, `ensure` says what is wrong with the first.
    free.or(fitting.first()).cloned().ok_or(Error::SocketPathTooLong { limit: MAX_SOCKET_PATH })
}

/// Makes the directory, or accepts it if it is as it must be.
pub(super) fn ensure(dir: &Path, account: &Account) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", dir)(error)),
    }
    let unsafe_because = |problem: String| Error::UnsafeSocketDir { dir: dir.to_owned(), problem };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(dir, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Err(unsafe_because("it is not a directory".to_owned()));
        }
        Err(error) => return Err(Error::io("open", dir)(error.into())),
    };
    let owner = opened.metadata().map_err(Error::io("look at", dir))?.uid();
    if !is_owner(owner, account) {
        return Err(unsafe_because(format!("it belongs to user id {owner}")));
    }
    account.take(&opened, dir, 0o700)
}

/// The service's own user counts too: it may have ended between making the directory and handing it over.
fn is_owner(uid: u32, account: &Account) -> bool {
    uid == account.uid || uid == rustix::process::geteuid().as_raw()
}

fn name_for(data_dir: &Path) -> String {
    let hash = Sha256::digest(data_dir.as_os_str().as_bytes());
    let short = hash.iter().take(4).fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    format!("supercargo-{short:08x}")
}

fn fits(dir: &Path) -> bool {
    socket_file(dir).as_os_str().len() <= MAX_SOCKET_PATH
}

fn is_writable(dir: &Path) -> bool {
    dir.is_dir() && rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn own_account(dir: &Path) -> Account {
        Account::choose(&dir.join("no cluster yet")).unwrap()
    }

    #[test]
    fn path_is_stable_differs_by_data_dir_and_fits_a_socket() {
        let account = own_account(Path::new("/"));
        let long = Path::new("/x").join("deep/".repeat(60));
        let dir = choose(&long, &account).unwrap();
        assert_eq!(dir, choose(&long, &account).unwrap());
        assert_ne!(dir, choose(Path::new("/y"), &account).unwrap());
        assert!(fits(&dir));
    }

    #[test]
    fn longest_socket_path_is_the_kernels() {
        let temp = tempfile::tempdir().unwrap();
        let room = MAX_SOCKET_PATH
            - temp.path().as_os_str().len()
            - socket_file(Path::new("")).as_os_str().len()
            - 2;
        for (name, wanted) in [("x".repeat(room), true), ("x".repeat(room + 1), false)] {
            let dir = temp.path().join(name);
            fs::create_dir(&dir).unwrap();
            assert_eq!(fits(&dir), wanted);
            let bound = std::os::unix::net::UnixListener::bind(socket_file(&dir));
            assert_eq!(bound.is_ok(), wanted, "{bound:?}");
        }
    }

    #[test]
    fn directory_is_private_and_reused() {
        let temp = tempfile::tempdir().unwrap();
        let account = own_account(temp.path());
        let dir = temp.path().join("s");
        ensure(&dir, &account).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        ensure(&dir, &account).unwrap();
        let meta = fs::metadata(&dir).unwrap();
        assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (account.uid, 0o700));
    }

    #[test]
    fn symbolic_link_or_file_in_its_place_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let account = own_account(temp.path());
        let target = temp.path().join("target");
        fs::create_dir(&target).unwrap();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        for dir in [link, file] {
            let error = ensure(&dir, &account).unwrap_err();
            assert!(matches!(error, Error::UnsafeSocketDir { .. }), "{error}");
        }
    }

    #[test]
    fn directory_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can make a directory of another user");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("s");
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(12345), None).unwrap();
        let account = own_account(temp.path());
        let error = ensure(&dir, &account).unwrap_err().to_string();
        assert!(error.contains("belongs to user id 12345"), "{error}");

        let other = tempfile::tempdir().unwrap();
        let parents = [temp.path().to_owned(), other.path().to_owned()];
        assert_eq!(choose_in(&parents, "s", &account).unwrap(), other.path().join("s"));
        assert_eq!(choose_in(&parents[..1], "s", &account).unwrap(), dir);
    }
}
