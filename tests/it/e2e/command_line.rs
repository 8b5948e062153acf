//! The command line against the real service and a real engine.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::containers;
use crate::support::service::{Options, Service};

const LINES: usize = 60;

/// As somebody calls it who has the address and the token, and not the data directory.
fn supercargo(service: &Service, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supercargo"));
    command.args(args).env_clear();
    command.env("SUPERCARGO_URL", &service.url).env("SUPERCARGO_TOKEN", &service.token);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(service: &Service, args: &[&str]) -> Done {
    let output = tokio::time::timeout(Duration::from_mins(2), supercargo(service, args).output());
    Done::of(output.await.unwrap().unwrap())
}

#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_run_like_a_command_with_its_streams_and_its_exit_code() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let script = "echo out; echo err >&2; printf '\\001\\n'; printf tail; exit 3";
    let done = run(&service, &["run", "-q", "busybox:latest", "sh", "-c", script]).await;
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (Some(3), "out\n\u{1}\ntail", "err\n")
    );
    let args = ["submit", "--wait", "--follow", "--image", "busybox:latest", "--", "echo", "hi"];
    let done = run(&service, &args).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "hi\n"));
    let done = run(&service, &["run", "busybox:latest", "no-such-command"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.stderr.contains("command_not_found"), "{done:?}");
    let done = run(&service, &["run", "--memory", "512m", "busybox:latest"]).await;
    assert_eq!(done.code, Some(2), "{done:?}");
    let done = run(&service, &["healthcheck", "--output", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap()["status"], "ok", "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_come_through_both_streams() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let script = r"printf '\377\000\n\376'; printf '\200\n' >&2";
    let args = ["run", "-q", "busybox:latest", "sh", "-c", script];
    let done = supercargo(&service, &args).output().await.unwrap();
    assert_eq!(done.stdout, b"\xff\x00\n\xfe", "{done:?}");
    assert_eq!(done.stderr, b"\x80\n", "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_the_service_loses_no_line_and_repeats_none() {
    if !containers::available().await {
        return;
    }
    let mut service = Service::start().await;
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo out $i; echo err $i >&2; i=$((i+1)); usleep 50000; done; exit 3"
    );
    let args = ["run", "-q", "busybox:latest", "sh", "-c", script.as_str()];
    let following = tokio::task::JoinSet::from_iter([supercargo(&service, &args).output()]);
    for at in [5, 30] {
        crate::support::until("it is in the middle", Duration::from_mins(1), async || {
            let list = service.request("GET", "/tasks?limit=1", None).await.json();
            let id = list["items"][0]["id"].as_str()?.to_owned();
            service.log(&id).await.contains(&format!("out {at}\n")).then_some(())
        })
        .await;
        service.kill9();
        service.restart_here().await;
    }
    let done = tokio::time::timeout(Duration::from_mins(2), following.join_all()).await.unwrap();
    let done = Done::of(done.into_iter().next().unwrap().unwrap());
    let expected = |word: &str| (0..LINES).map(|n| format!("{word} {n}\n")).collect::<String>();
    assert_eq!(done.code, Some(3), "{done:?}");
    assert_eq!(done.stdout, expected("out"));
    // What was said of the service is between the lines.
    let errors: String = done
        .stderr
        .lines()
        .filter(|it| it.starts_with("err "))
        .map(|it| format!("{it}\n"))
        .collect();
    assert_eq!(errors, expected("err"));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_that_is_over_early_says_how_to_come_back() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("j.xml");
    let junit = junit.to_str().unwrap();
    let args = ["run", "--timeout", "500ms", "--junit", junit, "busybox:latest", "sleep", "600"];
    let done = run(&service, &args).await;
    assert_eq!(done.code, Some(4), "{done:?}");
    let id = done.stderr.split("supercargo run --attach ").nth(1).unwrap();
    let id = id.split('`').next().unwrap().to_owned();
    assert!(std::fs::read_to_string(junit).unwrap().contains("timed_out_waiting"));
    let done = run(&service, &["wait", &id, "--timeout", "100ms"]).await;
    assert_eq!(done.code, Some(4), "{done:?}");
    let cancel = ["cancel", &id, "--wait"];
    let done = run(&service, &cancel).await;
    assert_eq!((done.code, done.stdout), (Some(0), format!("{id}\n")));
    let done = run(&service, &["wait", &id]).await;
    assert_eq!(done.code, Some(3), "{done:?}");
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_task_up_is_told() {
    if !containers::available().await {
        return;
    }
    let docker_host = Some("tcp://127.0.0.1:1".to_owned());
    let options = Options { docker_host, ..Options::default() };
    let service = Service::start_with(options).await;
    let mut child = supercargo(&service, &["run", "busybox:latest", "true"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("target unavailable: ") {
                return;
            }
        }
        panic!("it ended without a word");
    };
    tokio::time::timeout(Duration::from_mins(1), told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_task_needs_no_engine_and_ends_the_same_way() {
    let service = Service::start().await;
    let task =
        json!({"image": "a", "target": "simulated", "env": {"FAKE_EXIT": 7, "FAKE_LOG_LINES": 2}});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("task.json");
    std::fs::write(&file, task.to_string()).unwrap();
    let done = run(&service, &["run", "-q", "-f", file.to_str().unwrap()]).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(7), "line 1\nline 2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_named_tried_again_and_found_by_its_name() {
    let service = Service::start().await;
    // Fails once.
    let work = [
        "--image",
        "a",
        "--target",
        "simulated",
        "--env",
        "FAKE_EXIT=9,0",
        "--env",
        "FAKE_LOG_LINES=1",
        "--run-key",
        "etl/1",
    ];
    let done = run(&service, &[&["run", "-q"], &work[..]].concat()).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(9), "line 1\n"), "{done:?}");
    let id = run(&service, &["get", "key:etl/1", "--output", "json"]).await;
    let id = serde_json::from_str::<Value>(&id.stdout).unwrap()["id"].as_str().unwrap().to_owned();

    let args = ["retry", "key:etl/1", "--from-attempt", "1", "--follow"];
    let done = run(&service, &args).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "line 1\n"), "{done:?}");
    assert!(done.stderr.contains(&format!("task {id} gets attempt 2")), "{done:?}");
    let done = run(&service, &["retry", "key:etl/1"]).await;
    assert_eq!((done.code, done.stdout), (Some(0), format!("{id}\n")));
    assert!(done.stderr.contains("there is nothing to try again"), "{}", done.stderr);

    let done = run(&service, &[&["submit"], &work[..]].concat()).await;
    assert_eq!(done.stdout, format!("{id}\n"));
    assert!(done.stderr.contains("has this run key already"), "{}", done.stderr);
    let done = run(&service, &[&["submit", "--on-duplicate", "reject"], &work[..]].concat()).await;
    assert_eq!(done.code, Some(2), "{done:?}");

    let args = [&["run", "--retries", "1", "-q"], &work[..8]].concat();
    let done = run(&service, &args).await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "line 1\nline 1\n"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_used_and_revoked() {
    let service = Service::start().await;
    let made = run(&service, &["token", "create", "ci", "--expires-in", "30d"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let with = async |args: &[&str]| {
        let mut command = supercargo(&service, args);
        Done::of(command.env("SUPERCARGO_TOKEN", made.stdout.trim()).output().await.unwrap())
    };
    assert_eq!(with(&["list"]).await.code, Some(0));
    let list = run(&service, &["token", "list", "--output", "json"]).await;
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    let token = list["items"].as_array().unwrap().iter().find(|it| it["name"] == "ci").unwrap();
    let table = run(&service, &["token", "list"]).await;
    assert!(table.stdout.contains("  ci  "), "{table:?}");
    let id = token["id"].as_str().unwrap();
    assert_eq!(run(&service, &["token", "revoke", id]).await.code, Some(0));
    let done = with(&["list"]).await;
    assert_eq!(done.code, Some(5), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_the_api_tells_its_health() {
    let args = ["--roles", "scheduler,worker"].map(str::to_owned).to_vec();
    let service = Service::start_with(Options { args, ..Options::default() }).await;
    let done = run(&service, &["healthcheck", "--output", "json"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let health: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(health["roles"], json!(["scheduler", "worker"]));
    let done = run(&service, &["list"]).await;
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stderr.contains("no role \"api\""), "{done:?}");
}
