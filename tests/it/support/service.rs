//! The real binary as a process of its own, with a data directory of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::until;

/// How to start it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Another engine than the machine's.
    pub docker_host: Option<String>,
    /// Another database than the private one.
    pub database_url: Option<String>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// A running service. Dropped, it and its Postgres are gone.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    data_dir: TempDir,
    options: Options,
    pub url: String,
    pub token: String,
    client: reqwest::Client,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A way to ask a service.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    url: String,
    token: String,
    client: reqwest::Client,
}

/// Longer than any answer takes: the caller takes it for lost.
const LOST: Duration = Duration::from_secs(20);
/// Of the log of a service, where its test fails.
const LOG_LINES: usize = 150;

impl Api {
    /// Below `/api/v1`.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> reqwest::Result<Answer> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("{}/api/v1{path}", self.url));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.bearer_auth(&self.token).timeout(LOST).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, bytes: answer.bytes().await?.to_vec() })
    }
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        // Its own Postgres runs as another user, who has to be able to get here.
        let data_dir = tempfile::Builder::new().prefix("sc-it-").tempdir_in("/var/tmp").unwrap();
        super::open_to_others(data_dir.path());
        let child = spawn(data_dir.path(), &options, "127.0.0.1:0");
        // The provider of a client in the same process; another test may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let (url, token) = (String::new(), String::new());
        let mut service = Self { child, data_dir, options, url, token, client };
        service.until_ready().await;
        service
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn until_ready(&mut self) {
        let folder = self.data_dir.path().join("data");
        let pid = self.child.id();
        let service = until("the service is up", Duration::from_mins(1), async || {
            let text = std::fs::read_to_string(folder.join("service.json")).ok()?;
            let service: Value = serde_json::from_str(&text).ok()?;
            (service["pid"] == pid).then_some(service)
        })
        .await;
        service["url"].as_str().unwrap().clone_into(&mut self.url);
        // There is none where none is asked for.
        let token = std::fs::read_to_string(folder.join("admin.token")).unwrap_or_default();
        token.trim().clone_into(&mut self.token);
        until("it is ready", Duration::from_mins(1), async || {
            let answer = self.client.get(format!("{}/readyz", self.url)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// The end without notice.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.data_dir.path(), &self.options, "127.0.0.1:0");
        self.until_ready().await;
    }

    /// Starts it again on the same data and on the same port.
    pub(crate) async fn restart_here(&mut self) {
        let here = self.url.trim_start_matches("http://").to_owned();
        self.child = spawn(self.data_dir.path(), &self.options, &here);
        self.until_ready().await;
    }

    /// As a process that gets no time from its machine: nothing of it happens until it goes on.
    pub(crate) fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// What several may use at once, and over a restart on the same port.
    pub(crate) fn api(&self) -> Api {
        let (url, token) = (self.url.clone(), self.token.clone());
        Api { url, token, client: self.client.clone() }
    }

    /// The end in order: SIGTERM, and what it exits with.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_request(method, path, body).await.unwrap()
    }

    pub(crate) async fn try_request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<Answer> {
        let at_the_root = ["/readyz", "/livez", "/version", "/metrics"].contains(&path);
        let url = if path.starts_with("/api/") || at_the_root {
            format!("{}{path}", self.url)
        } else {
            format!("{}/api/v1{path}", self.url)
        };
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, bytes: answer.bytes().await?.to_vec() })
    }

    /// Asks with these headers. The body is the caller's to read, or to leave.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.get(format!("{}/api/v1{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.bearer_auth(&self.token).send().await.unwrap()
    }

    /// Submits, and gives the id.
    pub(crate) async fn submit(&self, task: Value) -> String {
        let answer = self.request("POST", "/tasks", Some(&task)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn task(&self, id: &str) -> Value {
        let answer = self.request("GET", &format!("/tasks/{id}"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        until(&format!("task {id} is {state}"), Duration::from_mins(1), async || {
            let task = self.try_request("GET", &format!("/tasks/{id}"), None).await.ok()?;
            let task = serde_json::from_slice::<Value>(&task.bytes).ok()?;
            (task["state"] == state).then_some(task)
        })
        .await
    }

    /// Waits for the end, whatever it is.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        until(&format!("task {id} has ended"), Duration::from_secs(90), async || {
            let task = self.try_request("GET", &format!("/tasks/{id}"), None).await.ok()?;
            let task = serde_json::from_slice::<Value>(&task.bytes).ok()?;
            let state = task["state"].as_str()?;
            ["succeeded", "failed", "skipped", "cancelled"].contains(&state).then_some(task)
        })
        .await
    }

    pub(crate) async fn log(&self, id: &str) -> String {
        self.request("GET", &format!("/tasks/{id}/logs"), None).await.text()
    }

    /// For a test that fails: more would hide what it says itself.
    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.data_dir.path().join("service.log"));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|it| !is_request(it)).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// The command line, as its user would call it here.
    pub(crate) fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supercargo"));
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("SUPERCARGO__DATA_DIR", self.data_dir.path().join("data"));
        command
    }
}

/// For those who end it at its steps.
#[cfg(feature = "failpoints")]
impl Service {
    /// Starts it again with this environment on top, and waits for nothing.
    pub(crate) fn begin(&mut self, env: Vec<(String, String)>) {
        let env = self.options.env.iter().cloned().chain(env).collect();
        let options = Options { env, ..self.options.clone() };
        self.child = spawn(self.data_dir.path(), &options, "127.0.0.1:0");
    }

    /// How the process ended, if it did.
    pub(crate) fn ended_with(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Whether it is up, asked once. Its address is known then.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let text = std::fs::read_to_string(self.data_dir.path().join("data/service.json"));
        let said = text.ok().and_then(|it| serde_json::from_str::<Value>(&it).ok());
        let Some(said) = said.filter(|it| it["pid"] == self.child.id()) else { return false };
        said["url"].as_str().unwrap().clone_into(&mut self.url);
        let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
        answer.is_ok_and(|it| it.status().is_success())
    }

    /// Of its private Postgres, which outlives a kill.
    pub(crate) fn database_url(&self) -> String {
        let file = self.data_dir.path().join("data/postgres/postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap();
        let socket = text.lines().nth(4).unwrap();
        format!("postgres:///supercargo?host={socket}&port=5432&user=supercargo&sslmode=disable")
    }

    /// What it logged that names this, but for requests that were answered.
    pub(crate) fn log_of(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.data_dir.path().join("service.log"));
        let log = log.unwrap_or_default();
        log.lines().filter(|it| it.contains(what) && !is_request(it)).collect::<Vec<_>>().join("\n")
    }
}

/// A request that was answered as it should be: there are hundreds of these.
fn is_request(line: &str) -> bool {
    line.contains("request answered")
}

fn spawn(data_dir: &Path, options: &Options, listen: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supercargo"));
    command
        .args(["serve", "--listen", listen, "--data-dir"])
        .arg(data_dir.join("data"))
        .args(&options.args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("SUPERCARGO__TELEMETRY__LOG", "info")
        .envs(options.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if let Some(host) = options.docker_host.clone().or_else(|| std::env::var("DOCKER_HOST").ok()) {
        command.env("DOCKER_HOST", host);
    }
    if let Some(url) = &options.database_url {
        command.env("DATABASE_URL", url);
    }
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(data_dir.join("service.log"))
        .unwrap();
    command.stderr(log).spawn().unwrap()
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the log of the service\n{}", self.end_of_log());
        }
        // In order, so that its Postgres goes with it; a start after a kill is for the test to make.
        let pid = rustix::process::Pid::from_child(&self.child);
        // One that is paused would never hear of it.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        if self.child.try_wait().is_ok_and(|it| it.is_none()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        } else {
            super::end_private_postgres(&self.data_dir.path().join("data"));
        }
    }
}
