use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no private Postgres. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "no postgresql {}server found in PATH or in the usual places: install it ({install}), \
         or set DATABASE_URL to an existing server",
        .major.map(|m| format!("{m} ")).unwrap_or_default()
    )]
    NotInstalled {
        /// The version that an existing cluster needs.
        major: Option<u32>,
        install: String,
    },

    #[error(
        "the postgresql server in {} is version {found}, too old for this service: \
         install version {oldest} or newer ({install}), or set DATABASE_URL to an existing server",
        .dir.display()
    )]
    TooOld { dir: PathBuf, found: u32, oldest: u32, install: String },

    #[error(
        "data directory {} is in use by {}; stop it or choose another --data-dir",
        .path.display(),
        .pid.map_or_else(|| "another service".to_owned(), |pid| format!("the service with pid {pid}"))
    )]
    DataDirInUse { path: PathBuf, pid: Option<u32> },

    #[error(
        "the service runs as root, which postgresql refuses, and there is no user postgres or nobody to run it as: \
         create one (useradd --system postgres), run the service as another user, or set DATABASE_URL"
    )]
    NoUnprivilegedUser,

    #[error(
        "the database in {} belongs to user id {owner}, but this service runs as user id {own}: \
         run the service as its owner or as root, or choose another --data-dir",
        .cluster.display()
    )]
    ForeignCluster { cluster: PathBuf, owner: u32, own: u32 },

    #[error(
        "user {user}, whom the private postgresql runs as, may not enter {}: \
         allow it (chmod o+x {}), or choose another --data-dir",
        .dir.display(), .dir.display()
    )]
    Untraversable { user: String, dir: PathBuf },

    #[error(
        "user {user}, whom the private postgresql runs as, may not run {}: \
         make it executable for everyone, or set DATABASE_URL to an existing server",
        .program.display()
    )]
    NotExecutable { user: String, program: PathBuf },

    #[error(
        "{} is not empty and holds no postgresql cluster: move it away, or choose another --data-dir",
        .0.display()
    )]
    NotACluster(PathBuf),

    #[error(
        "socket directory {} is not safe to use ({problem}): remove it, or set XDG_RUNTIME_DIR to a private directory",
        .dir.display()
    )]
    UnsafeSocketDir { dir: PathBuf, problem: String },

    #[error(
        "no directory for the database socket has a path of at most {limit} bytes: \
         set XDG_RUNTIME_DIR to a shorter one"
    )]
    SocketPathTooLong { limit: usize },

    #[error("{program} failed ({status}){}", tail(.output))]
    Program { program: &'static str, status: String, output: String },

    #[error(
        "the private postgresql in {} did not start ({status}); its last messages, from {}{}",
        .cluster.display(), .log.display(), tail(.output)
    )]
    NotStarted { cluster: PathBuf, status: String, log: PathBuf, output: String },

    #[error(
        "the private postgresql (pid {pid}) does not accept connections after {} s: \
         wait until its recovery is done and start again, or look at {}",
        .after.as_secs(), .log.display()
    )]
    NotReady { pid: u32, after: Duration, log: PathBuf },

    #[error(
        "the private postgresql (pid {pid}) does not end: look at {}, then end it with kill -QUIT {pid}",
        .log.display()
    )]
    NotStopped { pid: u32, log: PathBuf },

    #[error(
        "the private postgresql runs with {setting} = {value}, so accepted work could be lost: \
         remove that setting (alter database or alter role … reset {setting})"
    )]
    NotDurable { setting: String, value: String },

    #[error("cannot {action} {}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    /// For `map_err`: what was tried on which path.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn tail(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}
