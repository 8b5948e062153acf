//! Attempts of one task, in real containers: what is tried again, what is kept of each, what a caller sees.

use serde_json::{Value, json};

use crate::support::containers;
use crate::support::service::Service;

fn attempt(task: &Value, number: usize) -> &Value {
    &task["attempts"][number - 1]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_tried_again_from_its_own_budget_and_every_attempt_is_kept() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let script = "echo try $SUPERCARGO_ATTEMPT; echo \"{\\\"n\\\": $SUPERCARGO_ATTEMPT}\" > $SUPERCARGO_OUTPUT; \
         test $SUPERCARGO_ATTEMPT = 3 || exit 75";
    let id = service
        .submit(json!({
            "image": "busybox:latest", "command": ["sh", "-c", script],
            "retries": {"max": 5, "backoff": {"initial": "50ms"}, "on_exit_codes": [75]},
        }))
        .await;
    let task = service.ended(&id).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(3)), "{task:#}");
    for number in 1..=3 {
        let kept = attempt(&task, number);
        let code = if number == 3 { 0 } else { 75 };
        assert_eq!(
            (&kept["number"], &kept["exit_code"]),
            (&json!(number), &json!(code)),
            "{kept:#}"
        );
        for field in ["node", "sandbox", "spec_hash", "image_digest", "queued_at", "started_at"] {
            assert!(kept[field].is_string(), "attempt {number} has no {field}: {kept:#}");
        }
        let of = |what: &str| format!("/tasks/{id}/{what}?attempt={number}");
        let log = service.request("GET", &of("logs"), None).await.text();
        assert_eq!(log, format!("try {number}\n"));
        let outputs = service.request("GET", &of("outputs"), None).await.json();
        assert_eq!(outputs["items"][0]["value"], number, "{outputs:#}");
    }
    assert_eq!(task["outputs"]["n"], 3);
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_budget_does_not_cover_is_final() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let sh = |script: &str, more: Value| {
        let mut task = json!({"image": "busybox:latest", "command": ["sh", "-c", script],
            "retries": {"max": 1, "backoff": {"initial": "10ms"}}});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let only = |codes: Value| json!({"retries": {"max": 1, "backoff": {"initial": "10ms"}, "on_exit_codes": codes}});
    let cases = [
        (sh("exit 3", json!({})), "failed", 2),
        (sh("exit 3", only(json!([75]))), "failed", 1),
        (sh("exit 3", json!({"at_most_once": true})), "failed", 1),
        (sh("exit 3", json!({"skip_on_exit_codes": [3]})), "skipped", 1),
        (sh("no-such-command", json!({})), "failed", 1),
        (sh("sleep 60", json!({"timeouts": {"run": "200ms", "stop_grace": "0s"}})), "failed", 2),
    ];
    for (task, state, attempts) in cases {
        let id = service.submit(task.clone()).await;
        let ended = service.ended(&id).await;
        let told = (ended["state"].as_str().unwrap(), ended["attempt"].as_u64().unwrap());
        assert_eq!(told, (state, attempts), "{task}: {ended:#}");
        containers::gone(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_submit_of_the_work_goes_on_with_it_and_runs_nothing_twice() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let starts = containers::Starts::record().await;
    let task = |code: u8| {
        json!({"image": "busybox:latest", "run_key": "nightly",
            "command": ["sh", "-c", format!("echo with {code}; sleep 0.3; exit {code}")]})
    };
    let id = service.submit(task(3)).await;
    let again = service.request("POST", "/tasks?wait=30s", Some(&task(3))).await;
    assert_eq!((again.status, &again.json()["id"]), (424, &json!(id)));
    assert_eq!(starts.of(&id), 1);
    let fixed = service.request("PUT", "/tasks/key:nightly", Some(&task(0))).await;
    assert_eq!((fixed.status, &fixed.json()["state"]), (200, &json!("failed")));
    let fixed = service.request("POST", "/tasks?wait=30s", Some(&task(0))).await;
    assert_eq!((fixed.status, &fixed.json()["attempt"]), (200, &json!(2)), "{}", fixed.text());
    assert_eq!(service.log(&id).await, "with 0\n");
    let spec = service.request("GET", &format!("/tasks/{id}/spec?attempt=1"), None).await.json();
    assert_eq!(spec["command"][2], "echo with 3; sleep 0.3; exit 3");
    let last = service.request("POST", "/tasks", Some(&task(5))).await;
    assert_eq!((last.status, &last.json()["state"]), (200, &json!("succeeded")));
    assert_eq!(starts.of(&id), 2);

    // A restart does not overlap with what it takes the place of.
    let mut forever = task(0);
    forever["command"] = json!(["sleep", "600"]);
    forever["on_duplicate"] = json!("restart");
    forever["timeouts"] = json!({"stop_grace": "300ms"});
    let first = service.submit(forever.clone()).await;
    service.until_state(&first, "running").await;
    let second = service.submit(forever).await;
    let running = service.until_state(&second, "running").await;
    let before = service.task(&first).await;
    assert_eq!(before["state"], "cancelled", "{before:#}");
    let time = |it: &Value| it.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(
        time(&before["timings"]["finished_at"]) <= time(&running["timings"]["started_at"]),
        "{before:#} {running:#}"
    );
    service.request("POST", &format!("/tasks/{second}/cancel"), None).await;
    service.ended(&second).await;
    for id in [&id, &first, &second] {
        containers::gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_a_log_while_it_is_written_and_end_with_the_result() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    // The rest is only written when the first line was on a page.
    let script = "echo line 1; while [ ! -e /tmp/go ]; do usleep 20000; done; \
         echo line 2; echo line 3; echo '{\"n\": 3}' > $SUPERCARGO_OUTPUT";
    let id =
        service.submit(json!({"image": "busybox:latest", "command": ["sh", "-c", script]})).await;
    let mut path = format!("/tasks/{id}/poll");
    let mut pages = Vec::new();
    loop {
        let page = service.request("POST", &path, None).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        if page["lines"] == json!(["line 1"]) {
            containers::exec(&id, &["touch", "/tmp/go"]).await;
        }
        pages.push(page.clone());
        assert!(pages.len() < 50, "{pages:#?}");
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => break,
        }
    }
    let lines: Vec<&Value> = pages.iter().flat_map(|it| it["lines"].as_array().unwrap()).collect();
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);
    let with_lines = pages.iter().filter(|it| it["lines"] != json!([])).count();
    assert!(with_lines >= 2, "the log did not come while it was written: {pages:#?}");
    assert_eq!(pages.last().unwrap()["result"], json!({"n": 3}));
    containers::gone(&id).await;
}
