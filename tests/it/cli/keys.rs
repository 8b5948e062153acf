//! Commands that name work, tokens and attempts: what they send, and what they print.

use serde_json::{Value, json};

use super::fake::{Answer, Fake};
use super::{command, finish, supercargo};

const TASKS: &str = "/api/v1/tasks";

fn task(state: &str, attempt: i64) -> Value {
    json!({"id": "7", "name": "count", "state": state, "attempt": attempt})
}

#[tokio::test]
async fn a_retry_names_the_attempt_that_it_goes_on_from() {
    let fake = Fake::start().await;
    let get = format!("GET {TASKS}/key:etl%2F1");
    let retry = format!("POST {TASKS}/key:etl%2F1/retry");
    fake.on(&get, [Answer::json(200, &task("failed", 2))]);
    // The answer to the first one is lost: the same request is no second attempt.
    fake.on(&retry, [Answer::bytes(202, "{").broken(), Answer::json(202, &task("queued", 3))]);
    let done = supercargo(&fake, &["retry", "key:etl/1"]).await.exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("7\n", "task 7 gets attempt 3\n"));
    let bodies: Vec<Value> = fake
        .asked()
        .iter()
        .filter(|it| it.line == retry)
        .map(|it| serde_json::from_slice(&it.body).unwrap())
        .collect();
    assert_eq!(bodies, vec![json!({"from_attempt": 2}); 2]);

    fake.on(&retry, [Answer::json(202, &task("succeeded", 2))]);
    let args = ["retry", "key:etl/1", "--from-attempt", "2", "--output", "json"];
    let done = supercargo(&fake, &args).await.exits_with(0);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), task("succeeded", 2));
    assert_eq!(done.stderr, "task 7 is succeeded: there is nothing to try again\n");
}

#[tokio::test]
async fn a_retry_can_be_followed() {
    let fake = Fake::start().await;
    let mut failed = task("failed", 2);
    failed["exit_code"] = json!(9);
    fake.on(
        &format!("GET {TASKS}/7"),
        [Answer::json(200, &task("failed", 1)), Answer::json(200, &failed)],
    );
    fake.on(&format!("POST {TASKS}/7/retry"), [Answer::json(202, &task("queued", 2))]);
    fake.on(
        &format!("GET {TASKS}/7/logs"),
        [Answer::lines(2, &[(0, "stdout", "again")]), Answer::lines(2, &[])],
    );
    let done = supercargo(&fake, &["retry", "7", "--follow"]).await.exits_with(9);
    assert_eq!(done.stdout, "again\n");
    assert!(fake.lines().iter().any(|it| it.contains("attempt=2&offset=0")), "{:?}", fake.lines());
}

#[tokio::test]
async fn several_tasks_are_waited_for_at_once() {
    let fake = Fake::start().await;
    let on = |id: &str, status: u16, state: &str, code: Option<i64>| {
        let mut task = json!({"id": id, "name": format!("n{id}"), "state": state, "attempt": 1});
        if let Some(code) = code {
            task["exit_code"] = json!(code);
        }
        fake.on(&format!("GET {TASKS}/{id}"), [Answer::json(status, &task)]);
    };
    on("1", 200, "succeeded", Some(0));
    on("2", 424, "failed", Some(9));
    on("3", 200, "skipped", Some(99));
    let done = supercargo(&fake, &["wait", "1", "2", "3"]).await.exits_with(9);
    assert_eq!(
        done.stdout,
        "ID  NAME  STATE      EXIT\n1   n1    succeeded  0\n2   n2    failed     9\n3   n3    skipped    99\n"
    );
    let done = supercargo(&fake, &["wait", "1", "3", "--output", "json"]).await.exits_with(0);
    let ids: Vec<Value> = serde_json::from_str::<Value>(&done.stdout).unwrap()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].clone())
        .collect();
    assert_eq!(ids, [json!("1"), json!("3")]);

    fake.on(&format!("GET {TASKS}/4"), [Answer::bytes(303, "")]);
    let done = supercargo(&fake, &["wait", "1", "2", "4", "--timeout", "1ms"]).await.exits_with(4);
    assert!(done.stderr.contains("task 4 has not ended yet and goes on"), "{done:?}");
    let done = supercargo(&fake, &["wait", "2", "5"]).await.exits_with(2);
    assert!(done.stderr.contains("nobody expected GET /api/v1/tasks/5"), "{done:?}");
    supercargo(&fake, &["wait"]).await.exits_with(2);
}

#[tokio::test]
async fn a_run_key_that_is_known_is_said() {
    let fake = Fake::start().await;
    for (duplicate, news) in [
        ("attached", "task 7 has this run key already: following that one\n"),
        ("retried", "task 7 has this run key and did not succeed: trying it again\n"),
        ("restarted", "task 7 takes the place of the one that had this run key\n"),
        ("", ""),
    ] {
        let answer =
            Answer::json(200, &task("queued", 1)).header("supercargo-duplicate", duplicate);
        fake.on(&format!("POST {TASKS}"), [answer]);
        let args = ["run", "--detach", "--run-key", "etl.1", "--on-duplicate", "attach", "a"];
        let done = supercargo(&fake, &args).await.exits_with(0);
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("7\n", news));
    }
    let body: Value = serde_json::from_slice(&fake.asked()[0].body).unwrap();
    assert_eq!(body, json!({"image": "a", "run_key": "etl.1", "on_duplicate": "attach"}));
}

#[tokio::test]
async fn a_key_of_the_ci_job_is_the_same_for_the_same_task() {
    let fake = Fake::start().await;
    fake.on(&format!("POST {TASKS}"), [Answer::json(201, &task("queued", 1))]);
    let submit = async |image: &str, job: &str| {
        let args = ["submit", "--idempotency-key", "auto", "--image", image];
        let child = command(fake.data_dir(), &args).env("CI_JOB_ID", job).spawn().unwrap();
        finish(child).await.exits_with(0);
        fake.asked().last().unwrap().headers["idempotency-key"].to_str().unwrap().to_owned()
    };
    let first = submit("a", "5").await;
    assert!(first.starts_with("gitlab-5-"), "{first}");
    assert_eq!(submit("a", "5").await, first);
    assert_ne!(submit("b", "5").await, first);
    assert_ne!(submit("a", "6").await, first);
    let args = ["submit", "--idempotency-key", "auto", "--image", "a"];
    let done = supercargo(&fake, &args).await.exits_with(2);
    assert!(done.stderr.contains("GITHUB_RUN_ID nor CI_JOB_ID"), "{done:?}");
}

#[tokio::test]
async fn a_token_is_printed_alone_and_once() {
    let fake = Fake::start().await;
    let made =
        json!({"id": "t1", "name": "ci", "token": "sc_1", "created_at": "2026-11-21T09:00:00Z"});
    fake.on("POST /api/v1/tokens", [Answer::json(201, &made)]);
    let done = supercargo(&fake, &["token", "create", "ci", "--expires-in", "30d"]).await;
    let done = done.exits_with(0);
    assert_eq!(done.stdout, "sc_1\n");
    assert!(!done.stderr.contains("sc_1") && done.stderr.contains("token revoke t1"), "{done:?}");
    let body: Value = serde_json::from_slice(&fake.asked()[0].body).unwrap();
    assert_eq!(body, json!({"name": "ci", "expires_in": "30d"}));

    let list = json!({"items": [{"id": "t1", "name": "ci", "created_at": "2026-11-21T09:00:00.5Z",
        "expires_at": "2026-12-21T09:00:00Z"}]});
    fake.on("GET /api/v1/tokens", [Answer::json(200, &list)]);
    let done = supercargo(&fake, &["token", "list"]).await.exits_with(0);
    assert_eq!(
        done.stdout,
        "ID  NAME  CREATED               EXPIRES               REVOKED\n\
         t1  ci    2026-11-21T09:00:00Z  2026-12-21T09:00:00Z\n"
    );
    let done = supercargo(&fake, &["token", "list", "--output", "json"]).await.exits_with(0);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), list);

    fake.on("DELETE /api/v1/tokens/t1", [Answer::bytes(204, "")]);
    let done = supercargo(&fake, &["token", "revoke", "t1"]).await.exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "token t1 is worthless now\n"));
    supercargo(&fake, &["token", "revoke", "t2"]).await.exits_with(2);
}

#[tokio::test]
async fn every_shell_gets_a_script_that_knows_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let child = command(folder.path(), &["completions", shell]).spawn().unwrap();
        let done = finish(child).await.exits_with(0);
        for word in ["healthcheck", "cancel-on-interrupt", "junit"] {
            assert!(done.stdout.contains(word), "{shell}: {word}");
        }
    }
    // Bash at least is here to read its own.
    let script = finish(command(folder.path(), &["completions", "bash"]).spawn().unwrap()).await;
    let file = folder.path().join("completions.bash");
    std::fs::write(&file, &script.stdout).unwrap();
    let complete = "source completions.bash; COMP_WORDS=(supercargo heal); COMP_CWORD=1; \
        _supercargo supercargo heal supercargo; echo \"${COMPREPLY[*]}\"";
    let bash = std::process::Command::new("bash")
        .args(["--norc", "-c", complete])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "healthcheck\n", "{bash:?}");
}

#[tokio::test]
async fn a_data_directory_without_a_service_is_not_taken_for_another_one() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["healthcheck"][..], &["run", "busybox"], &["list"]] {
        let done = finish(command(folder.path(), args).spawn().unwrap()).await.exits_with(5);
        let file = folder.path().join("service.json");
        assert!(done.stderr.contains(file.to_str().unwrap()), "{done:?}");
    }
}

#[tokio::test]
async fn the_wrong_scheme_is_said() {
    let fake = Fake::start().await;
    let url = fake.url().replace("http://", "https://");
    let done = supercargo(&fake, &["list", "--url", &url]).await.exits_with(5);
    assert!(done.stderr.contains("does not speak TLS: write http://"), "{done:?}");
}
