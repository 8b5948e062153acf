//! One postmaster process: found or started, waited for, stopped.
//!
//! Invariants: at most one per cluster (Postgres' own interlock, which is never bypassed while a
//! process of the cluster may live); it is in a process group of its own and holds none of our pipes,
//! so neither Ctrl-C in a terminal nor our death reaches it; its end is noticed whether it is our
//! child or was adopted.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, fixed_settings, last_lines};
use super::pid_file::{self, PidFile, Status, is_postmaster};
use super::{Error, PORT, socket_dir};

/// How often files and processes are looked at that can't tell us by themselves.
const POLL: Duration = Duration::from_millis(5);
const POLL_ADOPTED: Duration = Duration::from_millis(100);
/// Replaying 1 GB of WAL on a slow disk takes minutes.
const READY_WITHIN: Duration = Duration::from_mins(5);
/// After a killed postmaster its backends end one by one, at the latest when their statement ends.
const BACKENDS_END_WITHIN: Duration = Duration::from_mins(1);
/// A fast shutdown writes a checkpoint.
const FAST_STOP_WITHIN: Duration = Duration::from_secs(30);
const QUIT_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    /// `None` if another process of ours started it.
    child: Option<Child>,
}

impl Postmaster {
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// The postmaster that runs on the cluster, ready or not.
    pub(super) fn running(cluster: &Cluster) -> Option<Self> {
        let pid = PidFile::read(&cluster.dir)?.pid;
        is_postmaster(pid, &cluster.dir).then_some(Self { pid, child: None })
    }

    /// Adopts the postmaster that runs on the cluster, or starts one. It accepts connections then,
    /// at the socket directory that the cluster value names afterwards.
    pub(super) async fn launch(cluster: &mut Cluster) -> Result<Self, Error> {
        let backends_deadline = Instant::now() + BACKENDS_END_WITHIN;
        let mut pause = Duration::from_millis(20);
        loop {
            if let Some(adopted) = Self::adopt(cluster).await? {
                return Ok(adopted);
            }
            let stale = PidFile::read(&cluster.dir);
            remove_stale(cluster, stale.as_ref());
            match Self::start(cluster).await {
                Ok(started) => return Ok(started),
                // Postgres refuses while another one comes up (its service was killed just now) …
                Err(Error::NotStarted { .. }) if Self::running(cluster).is_some() => {}
                // … and while backends of a killed one live; then it leaves that one's file alone.
                Err(Error::NotStarted { .. })
                    if stale.is_some()
                        && stale.map(|file| file.pid)
                            == PidFile::read(&cluster.dir).map(|file| file.pid)
                        && Instant::now() < backends_deadline =>
                {
                    tracing::info!("waiting for the last processes of a killed postgres");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The postmaster that runs already, once it is ready; `None` if there is none, or none any more.
    async fn adopt(cluster: &mut Cluster) -> Result<Option<Self>, Error> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let Some(file) = PidFile::read(&cluster.dir) else { return Ok(None) };
            if !is_postmaster(file.pid, &cluster.dir) {
                return Ok(None);
            }
            let found = Self { pid: file.pid, child: None };
            if let (Status::Ready, Some(dir)) = (file.status, file.socket_dir) {
                cluster.socket_dir = dir;
                // Lets it read the settings that this version of the service has written.
                found.signal(cluster, Signal::HUP);
                return Ok(Some(found));
            }
            if Instant::now() > deadline {
                return Err(found.not_ready(cluster));
            }
            sleep(POLL).await;
        }
    }

    async fn start(cluster: &Cluster) -> Result<Self, Error> {
        socket_dir::ensure(&cluster.socket_dir, &cluster.account)?;
        let log = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&cluster.log)
            .map_err(Error::io("open", &cluster.log))?;
        let log_too = log.try_clone().map_err(Error::io("open", &cluster.log))?;
        let mut command = Command::from(cluster.command("postgres"));
        let child = command
            .arg("-D")
            .arg(&cluster.dir)
            .args(fixed_settings())
            .stdout(log)
            .stderr(log_too)
            .process_group(0)
            .spawn()
            .map_err(Error::io("run", cluster.binaries.program("postgres")))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Err(not_started(cluster, "it ended at once".to_owned()));
        };
        let mut started = Self { pid, child: Some(child) };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = started.try_exit(cluster)? {
                return Err(not_started(cluster, status));
            }
            let ready = PidFile::read(&cluster.dir)
                .is_some_and(|file| file.pid == pid && file.status == Status::Ready);
            if ready {
                return Ok(started);
            }
            if Instant::now() > deadline {
                return Err(started.not_ready(cluster));
            }
            sleep(POLL).await;
        }
    }

    /// Returns when the process has ended. Cancel-safe.
    pub(super) async fn exited(&mut self, cluster: &Cluster) -> String {
        if let Some(child) = &mut self.child {
            return describe(child.wait().await.ok());
        }
        while is_postmaster(self.pid, &cluster.dir) {
            sleep(POLL_ADOPTED).await;
        }
        describe(None)
    }

    /// Open transactions are rolled back, everything is written; if that takes too long the processes
    /// end at once and the next start recovers.
    pub(super) async fn stop(mut self, cluster: &Cluster) -> Result<(), Error> {
        for (signal, within) in [(Signal::INT, FAST_STOP_WITHIN), (Signal::QUIT, QUIT_WITHIN)] {
            self.signal(cluster, signal);
            if self.exits_within(cluster, within).await? {
                return Ok(());
            }
            tracing::warn!(pid = self.pid(), "postgres does not end in time");
        }
        Err(Error::NotStopped { pid: self.pid(), log: cluster.log_tail().0 })
    }

    async fn exits_within(&mut self, cluster: &Cluster, within: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + within;
        while self.try_exit(cluster)?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(POLL).await;
        }
        Ok(true)
    }

    fn try_exit(&mut self, cluster: &Cluster) -> Result<Option<String>, Error> {
        match &mut self.child {
            Some(child) => {
                let status =
                    child.try_wait().map_err(Error::io("wait for postgres in", &cluster.dir))?;
                Ok(status.map(|status| describe(Some(status))))
            }
            None if is_postmaster(self.pid, &cluster.dir) => Ok(None),
            None => Ok(Some(describe(None))),
        }
    }

    /// Without a checkpoint: for one that can't be used any more.
    pub(super) fn quit(&self, cluster: &Cluster) {
        self.signal(cluster, Signal::QUIT);
    }

    /// Only ever to a process that is known to be ours; one that has ended needs no signal.
    fn signal(&self, cluster: &Cluster, signal: Signal) {
        if is_postmaster(self.pid, &cluster.dir)
            && let Err(error) = kill_process(self.pid, signal)
        {
            tracing::debug!(pid = self.pid(), %error, "signal did not reach postgres");
        }
    }

    fn not_ready(&self, cluster: &Cluster) -> Error {
        Error::NotReady { pid: self.pid(), after: READY_WITHIN, log: cluster.log_tail().0 }
    }
}

/// Postgres refuses to start if the pid in a file of a dead postmaster belongs to some other process
/// of its user by now. Only then is the file removed here: in all other cases Postgres does so
/// itself, after it has seen that no backend is left.
fn remove_stale(cluster: &Cluster, stale: Option<&PidFile>) {
    let Some(stale) = stale else { return };
    let reused =
        is_process_of(stale.pid, cluster.account.uid) && !is_postmaster(stale.pid, &cluster.dir);
    if reused && !has_processes(&cluster.dir) {
        tracing::warn!(
            pid = stale.pid.as_raw_pid(),
            "removing the pid file of a postgres that is gone"
        );
        remove_file(&cluster.dir.join(pid_file::FILE_NAME));
        let socket = socket_dir::socket_file(&cluster.socket_dir);
        remove_file(&socket.with_extension(format!("{PORT}.lock")));
        remove_file(&socket);
    }
}

fn is_process_of(pid: Pid, uid: u32) -> bool {
    match fs::metadata(format!("/proc/{}", pid.as_raw_pid())) {
        Ok(meta) => meta.uid() == uid,
        // No process, or no `/proc`.
        Err(_) => rustix::process::test_kill_process(pid).is_ok(),
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a stale file");
    }
}

/// Whether any process works in that directory, as each process of a cluster does. Without `/proc`
/// that can't be known; a process that may not be looked at is not ours.
fn has_processes(cluster: &Path) -> bool {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|dir| dir == cluster))
}

fn not_started(cluster: &Cluster, status: String) -> Error {
    let (log, output) = cluster.log_tail();
    Error::NotStarted {
        cluster: cluster.dir.clone(),
        status,
        log,
        output: last_lines(output.as_bytes()),
    }
}

fn describe(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "it is gone".to_owned(), |status| status.to_string())
}
