//! The private Postgres that the service runs for itself when no `DATABASE_URL` is configured.
//!
//! It lives in `<data-dir>/postgres`, listens on a Unix socket only, and is made from the server
//! programs that are installed on the machine. This module knows processes and files; it speaks no
//! SQL beyond making its one empty database, and nothing here names the store.
//!
//! Invariants:
//! - Commits are durable: `fsync`, `synchronous_commit` and `full_page_writes` are on, and that is checked at every start.
//! - The postmaster outlives a kill of the service and is adopted by the next start; a postmaster that was
//!   killed is started again, and recovers by itself.
//! - At most one service works in a data directory ([`DataDirLock`]); take the lock before [`Embedded::start`].
//! - Nothing runs as root, and nobody but root and the database user reaches the socket.

mod account;
mod binaries;
mod cluster;
mod database;
mod error;
mod lock;
mod look;
mod pid_file;
mod postmaster;
mod socket_dir;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Instant;

use cluster::Cluster;
use postmaster::Postmaster;

pub use error::Error;
pub use lock::DataDirLock;
pub use look::{Existing, service_of};
pub use watch::Watch;

/// The database user, who owns everything in the private cluster.
const USER: &str = "supercargo";
const DATABASE: &str = "supercargo";
/// Only a part of the socket's file name, as nothing listens on TCP.
const PORT: u16 = 5432;

/// How to connect; stays the same as long as the service runs, also when Postgres is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    socket_dir: PathBuf,
}

impl Endpoint {
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn port(&self) -> u16 {
        PORT
    }

    pub fn user(&self) -> &'static str {
        USER
    }

    pub fn database(&self) -> &'static str {
        DATABASE
    }

    /// As libpq and every driver that follows it understand it.
    pub fn connection_url(&self) -> String {
        let host = percent_encode(&self.socket_dir.to_string_lossy());
        format!("postgres:///{DATABASE}?host={host}&port={PORT}&user={USER}&sslmode=disable")
    }
}

/// A private Postgres that accepts connections. Dropping it leaves Postgres running, as a kill of
/// the service would; [`Embedded::stop`] ends it.
#[derive(Debug)]
pub struct Embedded {
    cluster: Cluster,
    postmaster: Postmaster,
}

impl Embedded {
    /// Adopts the Postgres of that data directory if it runs, else starts it, after making the
    /// directory and the cluster if they do not exist.
    ///
    /// # Errors
    /// If no server is installed, the place does not suit, or Postgres does not come up; see [`Error`].
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        let began = Instant::now();
        let data_dir = lock::create_data_dir(data_dir)?;
        let mut cluster = tokio::task::spawn_blocking(move || Cluster::open(&data_dir))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let postmaster = bring_up(&mut cluster).await?;
        tracing::info!(
            cluster = %cluster.dir.display(),
            version = cluster.binaries.major(),
            user = cluster.account.name,
            pid = postmaster.pid(),
            adopted = postmaster.is_adopted(),
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "private postgres is up"
        );
        Ok(Self { cluster, postmaster })
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint { socket_dir: self.cluster.socket_dir.clone() }
    }

    /// See [`Endpoint::connection_url`].
    pub fn connection_url(&self) -> String {
        self.endpoint().connection_url()
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid()
    }

    /// Whether it ran already, after a kill of the service.
    pub fn is_adopted(&self) -> bool {
        self.postmaster.is_adopted()
    }

    /// Fast shutdown: open transactions are rolled back, all data is written. Close the pool first.
    ///
    /// # Errors
    /// If a process does not end even when told to end at once.
    pub async fn stop(self) -> Result<(), Error> {
        self.postmaster.stop(&self.cluster).await?;
        // Empty now; a later start makes it again.
        drop(std::fs::remove_dir(&self.cluster.socket_dir));
        tracing::info!(cluster = %self.cluster.dir.display(), "private postgres stopped");
        Ok(())
    }
}

/// Settings, postmaster, database: the steps of every start and restart.
async fn bring_up(cluster: &mut Cluster) -> Result<Postmaster, Error> {
    cluster.write_settings()?;
    let postmaster = Postmaster::launch(cluster).await?;
    database::ensure(cluster).await?;
    Ok(postmaster)
}

fn percent_encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect::<Vec<_>>()
        .concat()
}
