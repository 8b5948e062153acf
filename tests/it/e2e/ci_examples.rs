//! The examples for CI systems, as scripts that run: each snippet of shell in them, against the real service,
//! with the variables that such a system sets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::containers;
use crate::support::service::Service;

fn example(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci").join(name);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A checkout and a shell in it, with `supercargo` on its PATH.
struct Job {
    folder: tempfile::TempDir,
    vars: BTreeMap<String, String>,
}

impl Job {
    fn new(service: &Service, vars: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        std::os::unix::fs::symlink(examples, folder.path().join("examples")).unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_supercargo"), bin.join("supercargo"))
            .unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut job = Self { folder, vars: BTreeMap::new() };
        job.set("PATH", &format!("{}:{path}", bin.display()));
        job.set("HOME", job.folder.path().to_str().unwrap().to_owned().as_str());
        job.set("SUPERCARGO_URL", &service.url);
        job.set("SUPERCARGO_TOKEN", &service.token);
        for (name, value) in vars {
            job.set(name, value);
        }
        job
    }

    fn set(&mut self, name: &str, value: &str) {
        self.vars.insert(name.to_owned(), value.to_owned());
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    /// As GitHub calls it: a file, with the options of `shell: bash`.
    fn bash(&self, script: &str) -> Command {
        let file = self.file("step.sh");
        std::fs::write(&file, script).unwrap();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail"]).arg(file);
        command.current_dir(self.folder.path()).env_clear().envs(&self.vars);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn run(&self, script: &str) -> Output {
        let output = self.bash(script).output();
        tokio::time::timeout(Duration::from_mins(2), output).await.unwrap().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const COUNTED: &str = "      2 to\n      2 be\n      1 the\n";

fn github(service: &Service) -> Job {
    let vars = [
        ("CI", "true"),
        ("GITHUB_SHA", "0123abcd"),
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_JOB", "count-words"),
        ("GITHUB_RUN_ID", "7001"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_REPOSITORY", "octo/words"),
        ("GITHUB_ACTION", "__run"),
    ];
    let mut job = Job::new(service, &vars);
    for name in ["GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"] {
        let file = job.file(name);
        std::fs::write(&file, "").unwrap();
        job.set(name, file.to_str().unwrap());
    }
    job
}

/// The `run` of each step, in their order.
fn steps(workflow: &Value) -> Vec<String> {
    let steps = workflow["jobs"]["count-words"]["steps"].as_array().unwrap();
    steps.iter().filter_map(|it| it["run"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_github_workflow_runs_a_task_and_fetches_its_outputs() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let job = github(&service);
    let steps = steps(&example("github-actions.yml"));
    assert_eq!(steps.len(), 2);

    let done = job.run(&steps[0]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(text(&done.stdout).starts_with(COUNTED), "{done:?}");
    assert!(text(&done.stderr).contains("::group::"), "{done:?}");
    assert!(job.read("junit.xml").contains(r#"failures="0" errors="0""#));
    assert!(job.read("GITHUB_STEP_SUMMARY").contains("| succeeded | 0 |"));

    // The step again in the same try of the job, as by a shell that repeats it: no second task.
    let again = job.run(&steps[0]).await;
    assert!(text(&again.stderr).contains("was submitted before under this key"), "{again:?}");

    let done = job.run(&steps[1]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(job.read("counts.txt").starts_with(COUNTED));
    assert_eq!(job.read("GITHUB_OUTPUT"), "words=10\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_github_run_that_is_cancelled_cancels_its_task() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let job = github(&service);
    let endless = json!({"image": "busybox:latest", "command": "sleep 600", "timeouts": {"stop_grace": "100ms"}});
    std::fs::write(job.file("endless.json"), endless.to_string()).unwrap();
    let script = steps(&example("github-actions.yml"))[0]
        .replace("examples/tasks/word_count.json", "endless.json");
    let child = job.bash(&script).spawn().unwrap();
    let running = crate::support::until("the task runs", Duration::from_secs(30), async || {
        let task = service.request("GET", "/tasks/key:words.7001.1", None).await.json();
        let id = task["id"].as_str().map(str::to_owned);
        id.filter(|_| task["state"] == "running")
    });
    let id = running.await;
    // To the one process that GitHub knows.
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let done = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output());
    let done = done.await.unwrap().unwrap();
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert_eq!(service.task(&id).await["state"], "cancelled");
    assert!(job.read("junit.xml").contains(r#"errors="1""#));
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gitlab_job_runs_a_task_and_reports_it() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let vars = [
        ("CI", "true"),
        ("GITLAB_CI", "true"),
        ("CI_JOB_ID", "501"),
        ("CI_COMMIT_SHA", "0123abcd"),
        ("CI_SERVER_URL", "https://gitlab.example"),
    ];
    let job = Job::new(&service, &vars);
    let example = example("gitlab-ci.yml");
    let lines = example["count-words"]["script"].as_array().unwrap();
    // One script of all lines, as its runner makes it.
    let script: Vec<&str> = lines.iter().map(|it| it.as_str().unwrap()).collect();
    let done = job.run(&script.join("\n")).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let stdout = text(&done.stdout);
    assert!(stdout.starts_with(COUNTED) && stdout.contains("words   json  10"), "{done:?}");
    assert!(text(&done.stderr).contains("section_start:"), "{done:?}");
    let junit = &example["count-words"]["artifacts"]["reports"]["junit"];
    assert!(job.read(junit.as_str().unwrap()).contains(r#"failures="0" errors="0""#));

    let failing = script[0].replace("word_count.json", "failing.json").replace("words.", "no.");
    let done = job.run(&failing).await;
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(job.read("junit.xml").contains("exited with code 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_alone_runs_a_task_and_fails_with_it() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let job = Job::new(&service, &[]);
    let done = job.run("examples/ci/curl.sh examples/tasks/hello.json").await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(text(&done.stdout), "hello\n");
    let done = job.run("examples/ci/curl.sh examples/tasks/failing.json").await;
    assert_eq!(done.status.code(), Some(22), "{done:?}");
    let stderr = text(&done.stderr);
    assert!(stderr.contains("\"code\":\"task_failed\""), "{stderr}");
}
