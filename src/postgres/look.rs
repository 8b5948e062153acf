//! What runs in a data directory, looked at from outside: nothing is locked, made, started or signalled.

use std::io::ErrorKind;
use std::path::Path;

use rustix::process::Pid;

use super::pid_file::{self, PidFile, Status, is_postmaster};
use super::{Endpoint, cluster, lock};

/// The private Postgres of a data directory, as somebody finds it who is not its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existing {
    /// It was never made.
    None,
    Stopped,
    /// It comes up or goes down.
    Moving {
        pid: u32,
    },
    Ready {
        pid: u32,
        endpoint: Endpoint,
    },
    /// This user may not look.
    Hidden,
}

impl Existing {
    pub fn find(data_dir: &Path) -> Self {
        // The postmaster has the path without links on its command line.
        let Ok(data_dir) = data_dir.canonicalize() else { return Self::None };
        let cluster = data_dir.join(cluster::DIR_NAME);
        if !cluster.exists() {
            return Self::None;
        }
        match cluster.join(pid_file::FILE_NAME).metadata() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Self::Hidden,
            _ => {}
        }
        let Some(file) = PidFile::read(&cluster).filter(|it| is_postmaster(it.pid, &cluster))
        else {
            return Self::Stopped;
        };
        let pid = file.pid.as_raw_pid().unsigned_abs();
        match (file.status, file.socket_dir) {
            (Status::Ready, Some(socket_dir)) => {
                Self::Ready { pid, endpoint: Endpoint { socket_dir } }
            }
            _ => Self::Moving { pid },
        }
    }
}

/// The service that works in this data directory, by what its lock says. The lock is not tried: a service that
/// starts in this moment would find it taken.
pub fn service_of(data_dir: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data_dir.join(lock::FILE_NAME)).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    // Another user's process is there, too.
    let there = !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
    let pid = pid.as_raw_pid().unsigned_abs();
    (there && holds_a_lock(pid)).then_some(pid)
}

/// Pids are used again, mostly by programs that lock nothing. Where the kernel does not tell, the pid counts.
fn holds_a_lock(pid: u32) -> bool {
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return true };
    // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(2).and_then(|it| it.parse().ok()) == Some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::DataDirLock;

    #[test]
    fn a_service_is_seen_by_its_lock_as_long_as_it_lives() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(service_of(dir.path()), None);
        let lock = DataDirLock::acquire(dir.path()).unwrap();
        assert_eq!(service_of(dir.path()), Some(std::process::id()));
        drop(lock);
        std::fs::write(dir.path().join(lock::FILE_NAME), format!("{}\n", i32::MAX)).unwrap();
        assert_eq!(service_of(dir.path()), None);
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Existing::find(&dir.path().join("x")), Existing::None);
        assert_eq!(Existing::find(dir.path()), Existing::None);
        std::fs::create_dir(dir.path().join("postgres")).unwrap();
        assert_eq!(Existing::find(dir.path()), Existing::Stopped);
        std::fs::write(dir.path().join("postgres/postmaster.pid"), "1\n/x\n0\n5432\n").unwrap();
        assert_eq!(
            Existing::find(dir.path()),
            Existing::Stopped,
            "process 1 is no postmaster of it"
        );
    }
}
