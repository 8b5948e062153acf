//! The engine that is there, and engines of a test's own that may be killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{eventually, within};

pub(crate) const SOCKET: &str = "/var/run/docker.sock";
pub(crate) const IMAGE: &str = "busybox:latest";

/// Whether tests of this backend must run: where they are skipped, nobody sees them fail.
pub(crate) fn required(backend: &str) -> bool {
    let list = std::env::var("SUPERCARGO_TEST_REQUIRE").unwrap_or_default();
    list.split(',').any(|it| it.trim() == backend)
        || std::env::var("CI").is_ok_and(|it| it == "true")
}

/// The local engine with the image that tests use, or the reason why its tests are skipped.
pub(crate) async fn local() -> Option<PathBuf> {
    let why = match docker(Path::new(SOCKET)) {
        Err(error) => error,
        Ok(docker) => match docker.inspect_image(IMAGE).await {
            Ok(_) => return Some(PathBuf::from(SOCKET)),
            Err(error) => error.to_string(),
        },
    };
    assert!(!required("docker"), "the tests of docker must run here, and can't: {why}");
    eprintln!("skipped: no Docker engine with {IMAGE} at {SOCKET}: {why}");
    None
}

pub(crate) fn docker(socket: &Path) -> Result<Docker, String> {
    let socket = socket.to_str().unwrap_or_default();
    Docker::connect_with_unix(socket, 60, API_DEFAULT_VERSION).map_err(|it| it.to_string())
}

/// A dockerd of its own: it may be killed. It starts a containerd of its own, which dies with it
/// (`PDEATHSIG`); the shims and their containers do not. What becomes of those is decided by the next dockerd,
/// when it starts: without live-restore it kills what it finds running, with it the containers go on, and
/// what they wrote meanwhile is in the pipe of their shim (64 KiB, then they wait); it is lost where they end
/// before the next dockerd is there. A start that the crash cut in the middle is forgotten: the engine says
/// `created`, whether the command runs or not, and can't start that container any more.
pub(crate) struct OwnEngine {
    folder: TempDir,
    process: Option<Child>,
}

impl OwnEngine {
    /// Started, with the image of the local engine.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(json!({})).await
    }

    /// Its containers outlive it.
    pub(crate) async fn start_with_live_restore() -> Option<Self> {
        Self::start_with(json!({"live-restore": true})).await
    }

    async fn start_with(mut config: Value) -> Option<Self> {
        let local = local().await?;
        // Paths of sockets are short: 107 bytes.
        let folder = tempfile::Builder::new().prefix("sce").tempdir().unwrap();
        // Its own key: the key is where its id comes from, and the default one is the machine's.
        config["deprecated-key-path"] = json!(folder.path().join("key.json"));
        std::fs::write(folder.path().join("daemon.json"), config.to_string()).unwrap();
        let mut engine = Self { folder, process: None };
        engine.make_network().await;
        engine.run().await;
        let image: Vec<u8> = docker(&local)
            .unwrap()
            .export_image(IMAGE)
            .map(|it| it.unwrap().to_vec())
            .concat()
            .await;
        let docker = docker(&engine.socket()).unwrap();
        let options = bollard::query_parameters::ImportImageOptionsBuilder::new().build();
        let mut steps = docker.import_image(options, bollard::body_full(image.into()), None);
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
        Some(engine)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("d.sock")
    }

    /// A network of its own: an engine without a bridge removes docker0, and with one it shares it. It
    /// outlives the engine, as the network of a machine does.
    async fn make_network(&self) {
        let file = self.folder.path().join("net");
        std::fs::write(&file, "").unwrap();
        let made =
            Command::new("unshare").arg(format!("--net={}", file.display())).arg("true").status();
        assert!(made.await.unwrap().success(), "no network namespace can be made");
    }

    /// Starts it, first or again.
    pub(crate) async fn run(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let log = std::fs::File::options().create(true).append(true).open(path("log")).unwrap();
        // A killed one leaves it behind.
        std::fs::remove_file(path("pid")).ok();
        let process = Command::new("nsenter")
            .args([&format!("--net={}", path("net")), "dockerd"])
            .args(["--host", &format!("unix://{}", path("d.sock"))])
            .args([
                "--data-root",
                &path("data"),
                "--exec-root",
                &path("exec"),
                "--pidfile",
                &path("pid"),
            ])
            .args(["--config-file", &path("daemon.json"), "--iptables=false"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is not installed");
        self.process = Some(process);
        let socket = self.socket();
        eventually("an engine of our own answers", || async {
            match docker(&socket) {
                Ok(docker) => docker.ping().await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    /// SIGKILL: as a crash.
    pub(crate) async fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.start_kill().unwrap();
            within("the engine is dead", process.wait()).await.unwrap();
            self.end_containerd();
        }
    }

    /// Its containerd dies with it. A next one must not take the dying one for a living one.
    fn end_containerd(&self) {
        let file = self.folder.path().join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&file).ok().and_then(|it| it.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        std::fs::remove_file(file).ok();
    }

    /// It hangs: connections are taken, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = self.process.as_ref().and_then(pid_of) {
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }

    /// SIGTERM: as a restart by the system.
    pub(crate) async fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            terminate(process);
            within("the engine stops", process.wait()).await.unwrap();
            self.process = None;
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It stops what runs in it.
            terminate(process);
            if let Some(pid) = pid_of(process) {
                rustix::process::kill_process(pid, rustix::process::Signal::CONT).ok();
            }
            let ended = || process.try_wait().is_ok_and(|it| it.is_some());
            if !super::holds_within(Duration::from_secs(20), ended) {
                process.start_kill().ok();
            }
        }
        self.end_containers();
        self.unmount();
    }
}

impl OwnEngine {
    /// What has outlived it.
    fn end_containers(&self) {
        let ids =
            std::fs::read_dir(self.folder.path().join("data/containers")).into_iter().flatten();
        let ids: Vec<String> =
            ids.flatten().map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        let folder = self.folder.path().display().to_string();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let pid = name.to_str().and_then(|it| it.parse().ok());
            let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
            let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            let is_shim = command.contains("containerd-shim") && command.contains(&folder);
            if is_shim || ids.iter().any(|id| groups.contains(id.as_str())) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
    }

    /// What it leaves mounted, which would keep its folder from being removed.
    fn unmount(&self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = mounts
            .lines()
            .filter_map(|it| it.split(' ').nth(1))
            .filter(|it| Path::new(it).starts_with(self.folder.path()));
        for path in below {
            std::process::Command::new("umount").args(["--lazy", path]).status().ok();
        }
    }
}

fn pid_of(process: &Child) -> Option<rustix::process::Pid> {
    process.id().and_then(|it| i32::try_from(it).ok()).and_then(rustix::process::Pid::from_raw)
}

fn terminate(process: &Child) {
    if let Some(pid) = pid_of(process) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
    }
}
