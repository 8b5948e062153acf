//! What `postmaster.pid` and the process list say about a postmaster.
//!
//! Invariants: a pid counts only if the process with that pid is a postmaster of this very cluster,
//! since pids are used again; what can't be read is "not ours".

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

pub(super) const FILE_NAME: &str = "postmaster.pid";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It accepts connections.
    Ready,
    /// Recovery, or not that far yet.
    Starting,
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: Pid,
    pub(super) socket_dir: Option<PathBuf>,
    pub(super) status: Status,
}

impl PidFile {
    /// `None` if there is none, or none that can be understood (Postgres writes it in several steps).
    pub(super) fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read(cluster.join(FILE_NAME)).ok()?)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // pid, data directory, start time, port, socket directory, listen address, shared memory, status
        let mut lines = text.split(|byte| *byte == b'\n');
        let pid = std::str::from_utf8(lines.next()?).ok()?.trim().parse().ok();
        let socket_dir = lines.nth(3).filter(|dir| dir.starts_with(b"/"));
        let status = match lines.nth(2).unwrap_or_default().trim_ascii() {
            b"ready" => Status::Ready,
            b"stopping" => Status::Stopping,
            _ => Status::Starting,
        };
        Some(Self {
            // Negative: a single-user server, which is nobody's postmaster.
            pid: pid.filter(|pid: &i32| *pid > 0).and_then(Pid::from_raw)?,
            socket_dir: socket_dir.map(|dir| PathBuf::from(OsStr::from_bytes(dir))),
            status,
        })
    }
}

/// Whether that process lives and is a postmaster on that cluster (an absolute path without links).
pub(super) fn is_postmaster(pid: Pid, cluster: &Path) -> bool {
    let proc_dir = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
    if Path::new("/proc/self/cmdline").exists() {
        // A process that ended and was not waited for yet has an empty command line.
        let Ok(command_line) = fs::read(proc_dir.join("cmdline")) else {
            return false;
        };
        let mut words = command_line.split(|byte| *byte == 0);
        if !words.next().is_some_and(is_postmaster_program) {
            return false;
        }
        // Also by directory: whoever started it may have written the path in another way.
        words.any(|word| word == cluster.as_os_str().as_bytes())
            || is_same(&proc_dir.join("cwd"), cluster)
    } else {
        let pid = pid.as_raw_pid().to_string();
        let Ok(output) = Command::new("ps").args(["-o", "command=", "-p", &pid]).output() else {
            return false;
        };
        let line = output.stdout.trim_ascii();
        let program = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let path = cluster.as_os_str().as_bytes();
        is_postmaster_program(program) && line.windows(path.len()).any(|part| part == path)
    }
}

/// The other processes of a cluster call themselves `postgres: <role>`.
fn is_postmaster_program(program: &[u8]) -> bool {
    matches!(program.rsplit(|byte| *byte == b'/').next(), Some(b"postgres" | b"postmaster"))
}

fn is_same(left: &Path, right: &Path) -> bool {
    match (fs::metadata(left), fs::metadata(right)) {
        (Ok(left), Ok(right)) => (left.dev(), left.ino()) == (right.dev(), right.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_matters_is_read() {
        let text = b"123\n/data\n1763699636\n5432\n/run/x\n\n  5432001   32770\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!(file.pid.as_raw_pid(), 123);
        assert_eq!(file.socket_dir.as_deref(), Some(Path::new("/run/x")));
        assert_eq!(file.status, Status::Ready);
    }

    #[test]
    fn file_that_is_not_complete_yet_means_starting() {
        for text in ["123\n/data\n1763699636\n5432\n/run/x\n\n", "123\n/data\n", "123"] {
            let file = PidFile::parse(text.as_bytes()).unwrap();
            assert_eq!(file.status, Status::Starting, "{text}");
        }
        for text in ["", "x\n", "-5\n", "0\n"] {
            assert_eq!(PidFile::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn process_of_another_program_is_no_postmaster() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!is_postmaster(own, &std::env::current_dir().unwrap()));
        assert!(!is_postmaster(Pid::from_raw(i32::MAX).unwrap(), Path::new("/")));
    }

    #[test]
    fn only_the_postmaster_itself_has_the_name_of_the_program() {
        assert!(is_postmaster_program(b"/usr/lib/postgresql/15/bin/postgres"));
        assert!(is_postmaster_program(b"postmaster"));
        assert!(!is_postmaster_program(b"postgres: walwriter "));
        assert!(!is_postmaster_program(b"/usr/bin/psql"));
    }
}
