//! The service as it ships: its release binary, a data directory of its own, a Postgres of its own.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::http::{Http, request};
use super::note;

const UP_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Where the user that root runs Postgres as may go.
const PARENT: &str = "/var/tmp";

/// A running service. Stopped when dropped, with its Postgres.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    data: TempDir,
    address: String,
    token: String,
}

impl Service {
    /// Starts one with a new data directory, durable settings and a free port.
    pub(crate) async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("supercargo-bench-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in(PARENT)
            .context("make a data directory")?;
        let log = File::create(data.path().join("service.log")).context("make a log")?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_supercargo"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Settings of this shell are not what is measured.
        let ours = |name: &str| name.starts_with("SUPERCARGO_") || name == "DATABASE_URL";
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        let child = command.spawn().context("start the service")?;
        let mut service = Self { child, data, address: String::new(), token: String::new() };
        let up = service.until_up().await;
        up.with_context(|| format!("the service does not come up: {}", service.log_tail()))?;
        Ok(service)
    }

    async fn until_up(&mut self) -> anyhow::Result<()> {
        let give_up = Instant::now() + UP_WITHIN;
        let document = loop {
            if let Ok(text) = fs::read_to_string(self.data.path().join("service.json")) {
                break text;
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if Instant::now() > give_up {
                bail!("not within {} s", UP_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let document: Value = serde_json::from_str(&document)?;
        let url = document["url"].as_str().context("service.json has no url")?;
        url.trim_start_matches("http://").clone_into(&mut self.address);
        let token = fs::read_to_string(self.data.path().join("admin.token"))?;
        token.trim().clone_into(&mut self.token);
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        self.data.path()
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Http<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await.context("connect to the service")?;
        stream.set_nodelay(true)?;
        Ok(Http::new(stream))
    }

    /// A request to a path below `/api/v1`.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&str>) -> Vec<u8> {
        let token = format!("Bearer {}", self.token);
        let path = format!("/api/v1{path}");
        request(method, &path, &self.address, &[("Authorization", &token)], body)
    }

    /// A request to a path that the service named.
    pub(crate) fn follow(&self, location: &str) -> Vec<u8> {
        let path = location.trim_start_matches("http://").trim_start_matches(&*self.address);
        self.request("GET", path.trim_start_matches("/api/v1"), None)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.data.path().join("service.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Stops it in order, and its Postgres with it.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let running = matches!(self.child.try_wait(), Ok(None));
        if let (true, Some(pid)) = (running, pid)
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            note(format_args!("the service (pid {}) can't be stopped: {error}", self.child.id()));
            return;
        }
        // It bounds its own end.
        match self.child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                note(format_args!("the service ended with {status}: {}", self.log_tail()));
            }
            Err(error) => note(format_args!("the end of the service was not seen: {error}")),
        }
    }
}
