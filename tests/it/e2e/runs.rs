//! Runs of workflows: graphs of tasks, in real containers where it matters, simulated where it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::service::{Answer, Service};
use crate::support::{containers, until};

const PATIENCE: Duration = Duration::from_secs(90);

async fn submit(service: &Service, request: &Value) -> String {
    let answer = service.request("POST", "/runs", Some(request)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn found(service: &Service, id: &str) -> Option<Value> {
    let answer: Answer = service.try_request("GET", &format!("/runs/{id}"), None).await.ok()?;
    serde_json::from_slice(&answer.bytes).ok()
}

async fn ended(service: &Service, id: &str) -> Value {
    until(&format!("run {id} has ended"), PATIENCE, async || {
        let run = found(service, id).await?;
        let state = run["state"].as_str()?;
        ["succeeded", "failed", "cancelled"].contains(&state).then_some(run)
    })
    .await
}

/// The tasks of a run that were made, by name; the newest of a name.
async fn tasks(service: &Service, id: &str) -> BTreeMap<String, Value> {
    let path = format!("/tasks?run_id={id}&limit=1000");
    let page = service.request("GET", &path, None).await.json();
    let items = page["items"].as_array().unwrap().iter().rev();
    items.map(|it| (it["name"].as_str().unwrap().to_owned(), it.clone())).collect()
}

async fn task(service: &Service, id: &str, name: &str) -> Value {
    until(&format!("task {name} is made"), PATIENCE, async || tasks(service, id).await.remove(name))
        .await
}

/// The states of its tasks, as its graph shows them.
async fn states(service: &Service, id: &str) -> BTreeMap<String, String> {
    let graph = service.request("GET", &format!("/runs/{id}/graph"), None).await.json();
    let nodes = graph["nodes"].as_array().unwrap().iter();
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    nodes.map(|it| (text(&it["name"]), text(&it["state"]))).collect()
}

fn simulated(tasks: Value, more: Value) -> Value {
    let mut workflow = json!({
        "name": "test", "defaults": {"image": "none", "target": "simulated"}, "tasks": tasks,
    });
    workflow.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"workflow": workflow})
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_from_task_to_task_through_a_fan_out() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let sh = |script: &str| json!(["sh", "-c", script]);
    let request = json!({
        "workflow": {
            "name": "squares",
            "params": {"up_to": {"type": "integer", "default": 2}},
            "defaults": {"image": "busybox:latest"},
            "tasks": {
                "list": {
                    "env": {"N": "${{ params.up_to }}"},
                    "command": sh("echo \"{\\\"items\\\": [$(seq -s, 1 $N)]}\" > $SUPERCARGO_OUTPUT"),
                },
                "square": {
                    "for_each": "${{ tasks.list.outputs.items }}",
                    "env": {"I": {"$from": "item"}},
                    "command": sh("echo \"{\\\"it\\\": $((I * I))}\" > $SUPERCARGO_OUTPUT"),
                },
                "add": {
                    "env": {"ALL": "${{ tasks.square.outputs.it | join('+') }}"},
                    "command": sh("echo $ALL; echo \"{\\\"sum\\\": $((ALL))}\" > $SUPERCARGO_OUTPUT"),
                },
                "celebrate": {"when": "tasks.add.outputs.sum > 1000", "command": ["true"]},
            },
            "outputs": {"sum": "${{ tasks.add.outputs.sum }}", "text": "sum ${{ tasks.add.outputs.sum }}"},
        },
        "params": {"up_to": 3},
    });
    let id = submit(&service, &request).await;
    let run = ended(&service, &id).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert_eq!(run["counts"], json!({"succeeded": 5, "skipped": 1}));
    let result = service.request("GET", &format!("/runs/{id}/result"), None).await.json();
    assert_eq!(result, json!({"sum": 14, "text": "sum 14"}));
    let add = task(&service, &id, "add").await;
    assert_eq!(service.log(add["id"].as_str().unwrap()).await, "1+4+9\n");
    assert_eq!(states(&service, &id).await["celebrate"], "skipped");
    let spec = service.request("GET", &format!("/runs/{id}/spec"), None).await.json();
    assert_eq!(spec["params"], json!({"up_to": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stops_what_needs_it_and_is_told_to_those_who_ask() {
    let service = Service::start().await;
    let request = simulated(
        json!({
            "bad": {"env": {"FAKE_EXIT": "3"}},
            "after": {"needs": ["bad"]},
            "cleans": {"needs": ["bad"], "trigger": "all_done"},
            "beside": {},
        }),
        json!({
            "on_failure": {"tells": {"labels": {"why": "${{ tasks.bad.failure.reason }}", "code": "${{ tasks.bad.exit_code }}"}}},
            "on_exit": {"says": {"labels": {"state": "${{ run.state }}"}}},
        }),
    );
    let answer = service.request("POST", "/runs?wait=30s", Some(&request)).await;
    assert_eq!(answer.status, 424, "{}", answer.text());
    let run = answer.json();
    assert_eq!(
        (&run["code"], &run["state"], &run["failure"]["reason"]),
        (&json!("run_failed"), &json!("failed"), &json!("exit_nonzero")),
        "{run:#}"
    );
    let id = run["id"].as_str().unwrap();
    let expected = [
        ("bad", "failed"),
        ("after", "upstream_failed"),
        ("cleans", "succeeded"),
        ("beside", "succeeded"),
        ("tells", "succeeded"),
        ("says", "succeeded"),
    ];
    let expected = expected.map(|(name, state)| (name.to_owned(), state.to_owned()));
    assert_eq!(states(&service, id).await, BTreeMap::from(expected));
    let tells = task(&service, id, "tells").await;
    assert_eq!(tells["labels"], json!({"why": "exit_nonzero", "code": "3"}));
    assert_eq!(task(&service, id, "says").await["labels"]["state"], "failed");
    let result = service.request("GET", &format!("/runs/{id}/result"), None).await;
    assert_eq!(result.status, 424);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_paused_and_resumed() {
    let service = Service::start().await;
    let tasks = json!({"long": {"env": {"FAKE_RUN_FOR": "10m"}}, "after": {"needs": ["long"]}});
    let id = submit(&service, &simulated(tasks, json!({"on_exit": {"says": {}}}))).await;
    let long = task(&service, &id, "long").await;
    service.until_state(long["id"].as_str().unwrap(), "running").await;
    for _ in 0..2 {
        let answer = service.request("POST", &format!("/runs/{id}/cancel"), None).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let run = ended(&service, &id).await;
    assert_eq!(run["state"], "cancelled", "{run:#}");
    assert_eq!(run["counts"], json!({"cancelled": 2, "succeeded": 1}), "{run:#}");
    let answer = service.request("POST", &format!("/runs/{id}/pause"), None).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("run_over")));

    let tasks = json!({"first": {"env": {"FAKE_RUN_FOR": "1s"}}, "second": {"needs": ["first"]}});
    let id = submit(&service, &simulated(tasks, json!({}))).await;
    let first = task(&service, &id, "first").await;
    service.request("POST", &format!("/runs/{id}/pause"), None).await;
    service.ended(first["id"].as_str().unwrap()).await;
    until("it is paused", PATIENCE, async || {
        let run = found(&service, &id).await?;
        (run["state"] == "paused" && run["counts"]["succeeded"] == 1).then_some(())
    })
    .await;
    assert!(!tasks_has(&service, &id, "second").await);
    service.request("POST", &format!("/runs/{id}/resume"), None).await;
    assert_eq!(ended(&service, &id).await["state"], "succeeded");
}

async fn tasks_has(service: &Service, id: &str, name: &str) -> bool {
    tasks(service, id).await.contains_key(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_made_of_its_values_fails_and_nothing_is_stuck() {
    let service = Service::start().await;
    let output = |text: &str| json!({"env": {"FAKE_OUTPUT": text}});
    let request = simulated(
        json!({
            "a": output("{\"word\": \"x\", \"n\": 1}"),
            "no_such_output": {"env": {"X": "${{ tasks.a.outputs.none }}"}},
            "no_list": {"for_each": "${{ tasks.a.outputs.word }}"},
            "no_condition": {"when": "tasks.a.outputs.n"},
            "no_quantity": {"resources": {"memory": "${{ tasks.a.outputs.word }}"}},
            "after": {"needs": ["no_such_output", "no_list", "no_condition", "no_quantity"], "trigger": "all_failed"},
        }),
        json!({}),
    );
    let id = submit(&service, &request).await;
    let run = ended(&service, &id).await;
    assert_eq!(run["state"], "failed", "{run:#}");
    let tasks = tasks(&service, &id).await;
    for (name, says) in [
        ("no_such_output", "none"),
        ("no_list", "list"),
        ("no_condition", "true or false"),
        ("no_quantity", "memory"),
    ] {
        let failure = &tasks[name]["failure"];
        assert_eq!(failure["reason"], "task_invalid", "{name}: {failure:#}");
        assert!(failure["message"].as_str().unwrap().contains(says), "{name}: {failure:#}");
    }
    assert_eq!(tasks["after"]["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_workflow_is_said_at_once_and_nothing_is_stored() {
    let service = Service::start().await;
    let cases = [
        (json!({}), "/workflow"),
        (simulated(json!({"a": {"needs": ["b"]}}), json!({})), "/workflow/tasks/a/needs/0"),
        (
            simulated(json!({"a": {"env": {"X": "${{ params.x }}"}}}), json!({})),
            "/workflow/tasks/a/env/X",
        ),
        (simulated(json!({"a": {"comand": []}}), json!({})), "/workflow/tasks/a/comand"),
    ];
    for (request, pointer) in cases {
        let answer = service.request("POST", "/runs", Some(&request)).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["code"], "workflow_invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem:#}");
    }
    let mut request = simulated(json!({"a": {}}), json!({"params": {"n": {"type": "integer"}}}));
    request["params"] = json!({"n": "many"});
    let answer = service.request("POST", "/runs", Some(&request)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (422, &json!("params_invalid")));
    let page = service.request("GET", "/runs", None).await.json();
    assert_eq!(page["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_is_one_run() {
    let service = Service::start().await;
    let api = service.api();
    let request = simulated(json!({"a": {}}), json!({}));
    let first = api.call("POST", "/runs", Some("once"), Some(&request)).await.unwrap();
    let again = api.call("POST", "/runs", Some("once"), Some(&request)).await.unwrap();
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = simulated(json!({"b": {}}), json!({}));
    let other = api.call("POST", "/runs", Some("once"), Some(&other)).await.unwrap();
    assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency_key_reused")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_is_stopped() {
    let service = Service::start().await;
    let tasks = json!({"long": {"env": {"FAKE_RUN_FOR": "10m"}}, "after": {"needs": ["long"]}});
    let request = simulated(tasks, json!({"timeout": "1s", "on_failure": {"tells": {}}}));
    let id = submit(&service, &request).await;
    let run = ended(&service, &id).await;
    assert_eq!(
        (&run["state"], &run["failure"]["reason"]),
        (&json!("failed"), &json!("timeout")),
        "{run:#}"
    );
    assert_eq!(states(&service, &id).await["tells"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_retried_takes_its_run_on() {
    let service = Service::start().await;
    // The second attempt ends well.
    let tasks = json!({
        "flaky": {"env": {"FAKE_EXIT": "3,0"}},
        "long": {"env": {"FAKE_RUN_FOR": "10m"}},
        "after": {"needs": ["flaky"]},
    });
    let id = submit(&service, &simulated(tasks, json!({}))).await;
    let flaky = task(&service, &id, "flaky").await;
    let flaky = flaky["id"].as_str().unwrap();
    service.until_state(flaky, "failed").await;
    until("what needs it is not to run", PATIENCE, async || {
        (states(&service, &id).await["after"] == "upstream_failed").then_some(())
    })
    .await;
    service.request("POST", &format!("/tasks/{flaky}/retry"), None).await;
    let after = task(&service, &id, "after").await;
    service.until_state(after["id"].as_str().unwrap(), "succeeded").await;
    service.request("POST", &format!("/runs/{id}/cancel"), None).await;
    ended(&service, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_graph_it_goes_on_where_it_was() {
    if !containers::available().await {
        return;
    }
    let starts = containers::Starts::record().await;
    let mut service = Service::start().await;
    let sh = |script: &str| json!(["sh", "-c", script]);
    let request = json!({"workflow": {
        "name": "killed", "defaults": {"image": "busybox:latest"},
        "tasks": {
            "a": {"command": sh("usleep 300000; echo '{\"list\": [1, 2, 3, 4]}' > $SUPERCARGO_OUTPUT")},
            "b": {"for_each": "${{ tasks.a.outputs.list }}", "env": {"I": "${{ item }}"},
                  "command": sh("usleep 500000; echo \"{\\\"it\\\": $I}\" > $SUPERCARGO_OUTPUT")},
            "c": {"command": ["echo", "${{ tasks.b.outputs.it | join(' ') }}"]},
        },
        "outputs": {"all": "${{ tasks.b.outputs.it }}"},
    }});
    let id = submit(&service, &request).await;
    for after in ["a", "b", "c"] {
        task(&service, &id, after).await;
        service.kill9();
        service.restart().await;
    }
    let run = ended(&service, &id).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert_eq!(run["counts"], json!({"succeeded": 6}), "{run:#}");
    let result = service.request("GET", &format!("/runs/{id}/result"), None).await.json();
    assert_eq!(result, json!({"all": [1, 2, 3, 4]}));
    let page = service.request("GET", &format!("/tasks?run_id={id}"), None).await.json();
    let made = page["items"].as_array().unwrap();
    assert_eq!(made.len(), 6);
    for it in made {
        let task = it["id"].as_str().unwrap();
        assert_eq!((&it["attempt"], starts.of(task)), (&json!(1), 1), "{it:#}");
        containers::gone(task).await;
    }
}
