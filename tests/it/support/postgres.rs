//! A Postgres server of a test's own: it may be stopped and killed. Its commits are durable.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// How it is stopped, as `pg_ctl` names it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shutdown {
    /// Sessions are cut, and it ends in order.
    Fast,
    /// As a crash: it recovers when it starts again.
    Immediate,
}

/// Dropped, it is gone.
pub(crate) struct OwnPostgres {
    folder: TempDir,
    bin: PathBuf,
}

impl OwnPostgres {
    /// Started, and empty. None: the programs are not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            super::skip("no Postgres server programs are installed: run the tests by `make test`");
            return None;
        };
        // Paths of sockets are short, and another user has to get here.
        let folder = tempfile::Builder::new().prefix("scpg").tempdir().unwrap();
        super::open_to_others(folder.path());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(folder.path()));
        }
        let own = Self { folder, bin };
        run(own
            .tool("initdb")
            .args(["--auth=trust", "--locale=C", "--encoding=UTF8"])
            .args(["-U", "postgres", "-D"])
            .arg(&data));
        own.run();
        Some(own)
    }

    /// The address of the server's own database.
    pub(crate) fn url(&self) -> String {
        let folder = self.folder.path().display();
        format!("postgres:///postgres?host={folder}&port=5432&user=postgres&sslmode=disable")
    }

    /// Starts it again, at the same address.
    pub(crate) fn run(&self) {
        let socket = self.folder.path().display();
        let options = format!(
            "-k {socket} -c listen_addresses= -c max_connections=200 -c shared_buffers=32MB"
        );
        let log = self.folder.path().join("log");
        run(self.control().args(["-w", "-t", "60", "-l"]).arg(log).args(["-o", &options, "start"]));
    }

    pub(crate) fn stop(&self, how: Shutdown) {
        let mode = match how {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        run(self.control().args(["-w", "-t", "60", "-m", mode, "stop"]));
    }

    fn control(&self) -> Command {
        let mut command = self.tool("pg_ctl");
        command.arg("-D").arg(self.folder.path().join("data"));
        command
    }

    /// Postgres does not run as root.
    fn tool(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // It may be stopped already.
        self.control().args(["-w", "-t", "20", "-m", "immediate", "stop"]).output().ok();
    }
}

fn run(command: &mut Command) {
    // Not piped: a server that was started would keep the pipe open.
    let status = command.stdout(std::process::Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// The newest installed ones.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|it| it.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    folders.into_iter().rev().chain(in_path).find(|it| has_server(it))
}

fn has_server(folder: &Path) -> bool {
    folder.join("initdb").exists() && folder.join("pg_ctl").exists()
}
