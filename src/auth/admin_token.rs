//! The token that a deployment starts with.
//!
//! The file comes first, its hash second: [`AdminToken::new_token`] is handed to the store with every
//! start, so a crash between the two, or a new database behind an old file, heals by itself.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::store::NewToken;

const FILE: &str = "admin.token";
const SHORTEST: usize = 24;
const LONGEST: u64 = 4_096;

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("the token file {} can't be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "the token in {} has fewer than {SHORTEST} characters: put a longer one there, or remove the \
         file from the data directory to get a new one",
        path.display()
    )]
    TooShort { path: PathBuf },
    #[error("the token in {} must be printable ASCII without spaces, in one line", path.display())]
    NotText { path: PathBuf },
    #[error("the token file {} can't be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// The admin token and where it is kept. Its text is in no log and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    secret: String,
    path: PathBuf,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AdminToken {
    /// Reads the configured file, or `admin.token` of the data directory, which is made where it is not
    /// there yet.
    pub fn load(data_dir: &Path, configured: Option<&Path>) -> Result<Self, TokenFileError> {
        if let Some(path) = configured {
            return Self::read(path);
        }
        let path = data_dir.join(FILE);
        match Self::read(&path) {
            Err(TokenFileError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                create(&path)?;
                // Another process may have been first: the file tells.
                Self::read(&path)
            }
            other => other,
        }
    }

    fn read(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |source| TokenFileError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o004 != 0 {
            tracing::warn!(path = %path.display(), "everybody on this machine can read the token file");
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(unreadable)?;
        let secret = text.trim();
        if secret.len() < SHORTEST {
            return Err(TokenFileError::TooShort { path: path.to_owned() });
        }
        if !secret.bytes().all(|it| it.is_ascii_graphic()) {
            return Err(TokenFileError::NotText { path: path.to_owned() });
        }
        Ok(Self { secret: secret.to_owned(), path: path.to_owned() })
    }

    /// What the store keeps of it.
    pub fn new_token(&self) -> NewToken {
        NewToken { name: "admin".to_owned(), sha256: super::hash(self.secret.as_bytes()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For the command line of this machine.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// For [`super::Mode::On`].
    pub fn hint(&self) -> String {
        format!("the admin token is in {} on the machine of the service", self.path.display())
    }
}

/// Makes the file, whole or not at all, and never over one that is there.
fn create(path: &Path) -> Result<(), TokenFileError> {
    let secret = super::new_secret().map_err(TokenFileError::Random)?;
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|it| TokenFileError::Random(it.to_string()))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", URL_SAFE_NO_PAD.encode(nonce)));
    let temporary = PathBuf::from(temporary);
    let written = write_new(&temporary, &secret).and_then(|()| publish(&temporary, path));
    if written.is_err() {
        // Best effort: what is left is a token that nothing knows.
        drop(std::fs::remove_file(&temporary));
    }
    written.map_err(|source| TokenFileError::Unwritable { path: path.to_owned(), source })
}

fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{secret}\n").as_bytes())?;
    file.sync_all()
}

fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => std::fs::remove_file(temporary)?,
        // A file system without it: a hard link does not replace either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            match std::fs::hard_link(temporary, path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => std::fs::remove_file(temporary)?,
            }
        }
        Err(error) => return Err(error.into()),
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let made = AdminToken::load(dir.path(), None).unwrap();
        assert!(made.secret().starts_with("sc_") && made.secret().len() == 46, "{}", made.secret());
        let mode = std::fs::metadata(made.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(AdminToken::load(dir.path(), None).unwrap(), made);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(!format!("{made:?}").contains(made.secret()));
        assert_eq!(made.new_token().sha256, super::super::hash(made.secret().as_bytes()));
    }

    #[test]
    fn processes_that_start_together_agree_on_one() {
        let dir = tempfile::tempdir().unwrap();
        let tokens: Vec<AdminToken> = std::thread::scope(|scope| {
            let load = || AdminToken::load(dir.path(), None).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(tokens.iter().all(|it| *it == tokens[0]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_configured_file_must_be_there_and_hold_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        let load = || AdminToken::load(dir.path(), Some(&file));
        assert!(matches!(load(), Err(TokenFileError::Unreadable { .. })));
        std::fs::write(&file, "short\n").unwrap();
        assert!(matches!(load(), Err(TokenFileError::TooShort { .. })));
        std::fs::write(&file, "two words that are long enough").unwrap();
        assert!(matches!(load(), Err(TokenFileError::NotText { .. })));
        std::fs::write(&file, " 0123456789012345678901234\n").unwrap();
        assert_eq!(load().unwrap().secret(), "0123456789012345678901234");
        assert!(!dir.path().join("admin.token").exists());
    }
}
