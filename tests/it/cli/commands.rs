//! Each command: what it asks, what it prints, and what it exits with.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::fake::{Answer, Fake};
use super::{command, finish, supercargo};

const TASKS: &str = "/api/v1/tasks";
/// A privileged port, which no test and hardly anything else listens on.
const NOWHERE: &str = "http://127.0.0.1:1";

fn task(state: &str) -> Value {
    json!({"id": "7", "name": "count", "state": state, "target": "local"})
}

#[tokio::test]
async fn submit_prints_the_id_alone() {
    let fake = Fake::start().await;
    fake.on(&format!("POST {TASKS}"), [Answer::json(201, &task("queued"))]);
    let done = supercargo(&fake, &["submit", "--image", "a", "--idempotency-key", "k1"])
        .await
        .exits_with(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("7\n", ""));
    assert_eq!(fake.asked()[0].headers["idempotency-key"], "k1");

    fake.on(
        &format!("POST {TASKS}"),
        [Answer::json(200, &task("running")).header("idempotent-replayed", "true")],
    );
    let args = ["submit", "--image", "a", "--idempotency-key", "k1", "--output", "json"];
    let done = supercargo(&fake, &args).await.exits_with(0);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap(), task("running"));
    assert_eq!(done.stderr, "task 7 was submitted before under this key\n");
}

#[tokio::test]
async fn submit_reads_the_task_from_stdin() {
    let fake = Fake::start().await;
    fake.on(&format!("POST {TASKS}"), [Answer::json(201, &task("queued"))]);
    let mut child = command(fake.data_dir(), &["submit", "-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(br#"{"image": "a", "command": "x y"}"#).await.unwrap();
    finish(child).await.exits_with(0);
    let body: Value = serde_json::from_slice(&fake.asked()[0].body).unwrap();
    assert_eq!(body, json!({"image": "a", "command": "x y"}));
}

#[tokio::test]
async fn a_submit_whose_answer_was_lost_is_sent_again_under_the_same_key() {
    let fake = Fake::start().await;
    fake.on(
        &format!("POST {TASKS}"),
        [
            Answer::bytes(201, "{").broken(),
            Answer::json(409, &json!({"code": "request_in_flight", "detail": "in flight"})),
            Answer::json(200, &task("queued")).header("idempotent-replayed", "true"),
        ],
    );
    let done = supercargo(&fake, &["submit", "--image", "a"]).await.exits_with(0);
    assert_eq!(done.stdout, "7\n");
    let asked = fake.asked();
    assert_eq!(asked.len(), 3);
    let keys: Vec<_> = asked.iter().map(|it| &it.headers["idempotency-key"]).collect();
    assert!(keys.iter().all(|it| *it == keys[0]));
    assert!(asked.iter().all(|it| it.body == asked[0].body));
}

#[tokio::test]
async fn a_refusal_is_shown_with_every_pointer() {
    let fake = Fake::start().await;
    let problem = json!({"title": "The task is not valid", "code": "spec_invalid", "detail": "2 faults",
        "errors": [{"pointer": "/image", "detail": "is empty"}, {"pointer": "/env", "detail": "is a list"}]});
    fake.on(&format!("POST {TASKS}"), [Answer::json(422, &problem)]);
    let done = supercargo(&fake, &["submit", "--image", ""]).await.exits_with(2);
    assert_eq!(done.stderr, "error: 2 faults\n  at /image: is empty\n  at /env: is a list\n");
    assert_eq!(done.stdout, "");
    assert_eq!(fake.asked().len(), 1, "a refusal is final");
}

#[tokio::test]
async fn waiting_repeats_until_the_task_has_ended() {
    let fake = Fake::start().await;
    fake.on(&format!("POST {TASKS}"), [Answer::json(201, &task("queued"))]);
    let mut failed = task("failed");
    failed["exit_code"] = json!(9);
    fake.on(
        &format!("GET {TASKS}/7"),
        [
            Answer::bytes(303, "").header("location", "/api/v1/tasks/7?wait=50s"),
            Answer::bytes(503, "{}"),
            Answer::json(424, &failed),
        ],
    );
    let done = supercargo(&fake, &["submit", "--image", "a", "--wait"]).await.exits_with(9);
    assert_eq!(done.stdout, "7\n");
    let waits = fake.lines().into_iter().filter(|it| it.contains("wait="));
    assert_eq!(waits.collect::<Vec<_>>(), vec![format!("GET {TASKS}/7?wait=50s"); 3]);
}

#[tokio::test]
async fn waiting_ends_after_the_time_that_was_given() {
    let fake = Fake::start().await;
    fake.on(&format!("GET {TASKS}/7"), [Answer::bytes(303, "")]);
    let done = supercargo(&fake, &["get", "7", "--timeout", "1ms"]).await.exits_with(4);
    assert!(done.stderr.contains("task 7 has not ended yet and goes on"), "{done:?}");
}

#[tokio::test]
async fn without_a_service_the_message_says_how_to_start_one() {
    let data_dir = tempfile::tempdir().unwrap();
    for args in [&["get", "7"][..], &["run", "--image", "a"], &["list"]] {
        let args = [&["--url", NOWHERE], args].concat();
        let done = finish(command(data_dir.path(), &args).spawn().unwrap()).await.exits_with(5);
        assert!(done.stderr.contains("supercargo serve"), "{done:?}");
    }
}

#[tokio::test]
async fn a_refused_token_is_named_with_its_place() {
    let fake = Fake::start().await;
    fake.on(&format!("GET {TASKS}"), [Answer::json(401, &json!({"detail": "no"}))]);
    let done = supercargo(&fake, &["list"]).await.exits_with(5);
    let path = fake.data_dir().join("admin.token");
    assert!(done.stderr.contains(path.to_str().unwrap()), "{done:?}");
    assert!(!done.stderr.contains("t0"), "{done:?}");

    let done = supercargo(&fake, &["list", "--token", "t1"]).await.exits_with(5);
    assert!(done.stderr.contains("SUPERCARGO_TOKEN or --token"), "{done:?}");
    assert_eq!(fake.asked()[1].headers["authorization"], "Bearer t1");

    std::fs::remove_file(&path).unwrap();
    let done = supercargo(&fake, &["list"]).await.exits_with(5);
    assert!(done.stderr.contains("there is none at"), "{done:?}");
    assert!(!fake.asked()[2].headers.contains_key("authorization"));
}

#[tokio::test]
async fn list_asks_for_what_was_named_and_goes_through_all_pages() {
    let fake = Fake::start().await;
    let page = |id: &str, next: Option<&str>| {
        let mut page = json!({"items": [{"id": id, "name": "n", "state": "failed", "exit_code": 1,
            "target": "local", "timings": {"queued_at": "2026-11-21T09:00:00.5Z"}}]});
        if let Some(next) = next {
            page["next_cursor"] = json!(next);
        }
        Answer::json(200, &page)
    };
    fake.on(&format!("GET {TASKS}"), [page("1", Some("c=1"))]);
    let args = [
        "list", "--state", "failed", "--label", "a=b", "--label", "c=d", "--name", "n", "--limit",
        "1",
    ];
    let done = supercargo(&fake, &args).await.exits_with(0);
    assert_eq!(
        done.stdout,
        "ID  NAME  STATE   EXIT  TARGET  QUEUED\n1   n     failed  1     local   2026-11-21T09:00:00Z\n"
    );
    assert!(done.stderr.contains("--cursor c=1"), "{done:?}");
    assert_eq!(
        fake.lines(),
        [format!("GET {TASKS}?state=failed&name=n&limit=1&label=a%3Db&label=c%3Dd")]
    );

    fake.on(&format!("GET {TASKS}"), [page("1", Some("c=1")), page("2", None)]);
    let done = supercargo(&fake, &["list", "--all", "--output", "json"]).await.exits_with(0);
    let list: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(fake.lines()[2], format!("GET {TASKS}?limit=500&cursor=c%3D1"));
}

#[tokio::test]
async fn result_prints_what_the_service_sent_and_nothing_else() {
    let fake = Fake::start().await;
    let path = format!("GET {TASKS}/7/result");
    fake.on(&path, [Answer::bytes(200, "{\"words\":7}")]);
    assert_eq!(supercargo(&fake, &["result", "7"]).await.exits_with(0).stdout, "{\"words\":7}\n");
    for (status, code) in [(425, 4), (424, 1), (404, 2), (500, 5)] {
        fake.on(&path, [Answer::json(status, &json!({"detail": "because"}))]);
        let done = supercargo(&fake, &["result", "7"]).await.exits_with(code);
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "error: because\n"));
    }
}

#[tokio::test]
async fn an_output_becomes_a_whole_file_or_none() {
    let fake = Fake::start().await;
    let path = format!("GET {TASKS}/key:a%2Fb/outputs/report");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.csv");
    let args = ["output", "key:a/b", "report", "-o", file.to_str().unwrap()];

    fake.on(&path, [Answer::bytes(200, "a,b\n").broken()]);
    supercargo(&fake, &args).await.exits_with(5);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    fake.on(&path, [Answer::bytes(200, "a,b\n1,2\n")]);
    supercargo(&fake, &args).await.exits_with(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a,b\n1,2\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let done = supercargo(&fake, &["output", "key:a/b", "report"]).await.exits_with(0);
    assert_eq!(done.stdout, "a,b\n1,2\n");
}

#[tokio::test]
async fn events_stand_in_their_order() {
    let fake = Fake::start().await;
    let events = json!({"items": [
        {"at": "2026-11-21T09:00:00Z", "reason": "queued", "message": "submitted", "source": "api"},
        {"at": "2026-11-21T09:00:01.123456Z", "reason": "started", "message": "started", "source": "worker", "attempt": 1}
    ]});
    fake.on(&format!("GET {TASKS}/7/events"), [Answer::json(200, &events)]);
    let done = supercargo(&fake, &["events", "7"]).await.exits_with(0);
    assert_eq!(
        done.stdout,
        "AT                        ATTEMPT  SOURCE  REASON   MESSAGE\n\
         2026-11-21T09:00:00.000Z           api     queued   submitted\n\
         2026-11-21T09:00:01.123Z  1        worker  started  started\n"
    );
}

#[tokio::test]
async fn events_can_be_followed_to_the_end_and_are_told_once() {
    let fake = Fake::start().await;
    let event = |second: u8, reason: &str| {
        json!({"at": format!("2026-11-21T09:00:0{second}Z"),
        "reason": reason, "message": "m", "source": "worker", "attempt": 1})
    };
    let (first, second, third) = (event(0, "submitted"), event(1, "claimed"), event(2, "finished"));
    fake.on(
        &format!("GET {TASKS}/7/events"),
        [
            Answer::json(200, &json!({"items": [first, third]})),
            Answer::bytes(503, "{}"),
            Answer::json(200, &json!({"items": [first, second, third]})),
        ],
    );
    fake.on(
        &format!("GET {TASKS}/7"),
        [
            Answer::json(200, &task("running")),
            Answer::json(200, &task("running")),
            Answer::json(200, &task("succeeded")),
        ],
    );
    let done = supercargo(&fake, &["events", "-f", "7", "--output", "json"]).await.exits_with(0);
    let told: Vec<Value> =
        done.stdout.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(told, [first, third, second]);
    let done = supercargo(&fake, &["events", "--follow", "7"]).await.exits_with(0);
    assert_eq!(done.stdout.lines().count(), 4, "{done:?}");
}

#[tokio::test]
async fn cancel_asks_and_may_wait() {
    let fake = Fake::start().await;
    fake.on(&format!("POST {TASKS}/7/cancel"), [Answer::json(202, &task("running"))]);
    let done = supercargo(&fake, &["cancel", "7"]).await.exits_with(0);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("7\n", "cancelling task 7 (running)\n")
    );

    fake.on(&format!("GET {TASKS}/7"), [Answer::json(424, &task("cancelled"))]);
    let done = supercargo(&fake, &["cancel", "7", "--wait"]).await.exits_with(0);
    assert_eq!(done.stderr, "task 7 cancelled\n");
}

#[tokio::test]
async fn health_is_0_or_5() {
    let fake = Fake::start().await;
    fake.on("GET /readyz", [Answer::bytes(200, "{}")]);
    supercargo(&fake, &["healthcheck"]).await.exits_with(0);
    fake.on("GET /readyz", [Answer::json(503, &json!({"detail": "the database is away"}))]);
    let done = supercargo(&fake, &["healthcheck"]).await.exits_with(5);
    assert_eq!(done.stderr, "error: the database is away\n");
    let nowhere = tempfile::tempdir().unwrap();
    let args = ["healthcheck", "--url", NOWHERE];
    finish(command(nowhere.path(), &args).spawn().unwrap()).await.exits_with(5);
}

#[tokio::test]
async fn usage_is_2_and_help_is_not_an_error() {
    let fake = Fake::start().await;
    for args in [
        &["frobnicate"][..],
        &["get"],
        &["submit"],
        &["list", "--output", "yaml"],
        &["--url", "x", "list"],
        &["run", "--attach", "7", "--image", "a"],
        &["run", "--attach", "7", "a"],
        &["run", "--detach", "--junit", "j.xml", "a"],
        &["run", "--detach", "--timeout", "1s", "a"],
        &["run", "--color", "sometimes", "a"],
        &["retry", "7", "--from-attempt", "0"],
    ] {
        let done = supercargo(&fake, args).await.exits_with(2);
        assert_eq!(done.stdout, "", "{args:?}");
    }
    let done = supercargo(&fake, &["--help"]).await.exits_with(0);
    assert!(done.stdout.contains("Exit codes:"));
    assert_eq!(fake.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn the_api_document_is_compared_and_the_fix_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("api/openapi.json");
    let path = file.to_str().unwrap();
    let run = async |args: &[&str]| finish(command(folder.path(), args).spawn().unwrap()).await;
    let done = run(&["openapi", "--check", "--output", path]).await.exits_with(1);
    assert!(done.stderr.contains(&format!("run `supercargo openapi --output {path}`")), "{done:?}");
    run(&["openapi", "--output", path]).await.exits_with(0);
    run(&["openapi", "--check", "--output", path]).await.exits_with(0);
    let printed = run(&["openapi", "--output", "-"]).await.exits_with(0).stdout;
    assert_eq!(printed, std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, "{\n").unwrap();
    run(&["openapi", "--check", "--output", path]).await.exits_with(1);
}
