//! Logs of real containers: large ones, long lines, bytes of any kind, and readers that come back.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::service::Service;
use crate::support::{containers, until, within};

fn sh(script: &str) -> Value {
    json!({"image": "busybox:latest", "command": ["sh", "-c", script]})
}

async fn text(service: &Service, id: &str, query: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let answer = service.open(&format!("/tasks/{id}/logs{query}"), headers).await;
    assert!(answer.status().is_success(), "{query}: {answer:?}");
    within("the log", answer.bytes()).await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_are_kept_and_found() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let id = service.submit(sh("seq 1 1000000; echo done >&2")).await;
    // The engine takes its time for so many.
    let ended = until("all is read", Duration::from_mins(5), async || {
        let task = service.task(&id).await;
        task["exit_code"].is_number().then_some(task)
    });
    assert_eq!(ended.await["state"], "succeeded");
    let mut expected: String = (1..=1_000_000).map(|it| format!("{it}\n")).collect();
    let bytes = expected.len();
    expected.push_str("done\n");
    assert!(text(&service, &id, "?stream=stdout", &[]).await == expected.as_bytes()[..bytes]);
    assert_eq!(text(&service, &id, "", &[]).await.len(), expected.len());
    assert_eq!(text(&service, &id, "?stream=stderr", &[]).await, b"done\n");
    assert_eq!(text(&service, &id, "?stream=stdout&tail=2", &[]).await, b"999999\n1000000\n");
    assert_eq!(text(&service, &id, "?grep=%5E77777%5B17%5D%24", &[]).await, b"777771\n777777\n");
    assert_eq!(text(&service, &id, "?stream=stdout&grep=%5E5%24", &[]).await, b"5\n");
    let part = text(&service, &id, "?attempt=1", &[("range", "bytes=0-9")]).await;
    assert_eq!(part, expected.as_bytes()[..10]);
    let ndjson = text(&service, &id, "?format=ndjson", &[]).await;
    assert_eq!(ndjson.split(|it| *it == b'\n').count(), 1_000_002);
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_and_bytes_of_any_kind_survive_in_every_form() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let script = r"head -c 1000000 /dev/zero | tr '\0' x; echo; printf '\033[31mred\033[0m\n10%%\r20%%\r\n'; \
        printf '\377\000\001\n'; printf 'no end'";
    let id = service.submit(sh(script)).await;
    assert_eq!(service.ended(&id).await["state"], "succeeded");
    let long = "x".repeat(1_000_000);
    let mut expected = format!("{long}\n\u{1b}[31mred\u{1b}[0m\n10%\r20%\r\n").into_bytes();
    expected.extend(b"\xff\x00\x01\nno end");
    assert!(text(&service, &id, "", &[]).await == expected);
    let ndjson = text(&service, &id, "", &[("accept", "application/x-ndjson")]).await;
    let records: Vec<Value> = ndjson
        .split(|it| *it == b'\n')
        .filter(|it| !it.is_empty())
        .map(|it| serde_json::from_slice(it).unwrap())
        .collect();
    let lines: Vec<_> = records.iter().map(|it| it["line"].as_str()).collect();
    let expected =
        [Some(&*long), Some("\u{1b}[31mred\u{1b}[0m"), Some("10%\r20%\r"), None, Some("no end")];
    assert!(lines == expected, "{:?}", &lines[1..]);
    assert_eq!(
        (&records[3]["line_base64"], &records[4]["partial"]),
        (&json!("/wAB"), &json!(true))
    );
    containers::gone(&id).await;
}

/// Reads events until so many came, or the end. Ids and lines.
async fn some_events(
    service: &Service,
    id: &str,
    seen: Option<&str>,
    most: usize,
) -> Vec<(String, Value)> {
    let path = format!("/tasks/{id}/logs?follow=true");
    let mut headers = vec![("accept", "text/event-stream")];
    headers.extend(seen.map(|it| ("last-event-id", it)));
    let mut pieces = service.open(&path, &headers).await.bytes_stream();
    let (mut buffer, mut events) = (Vec::new(), Vec::new());
    while let Some(piece) = within("an event", pieces.next()).await {
        buffer.extend_from_slice(&piece.unwrap());
        while let Some(end) = buffer.windows(2).position(|it| it == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let event = String::from_utf8(event).unwrap();
            let field = |name: &str| event.lines().find_map(|it| it.strip_prefix(name));
            let Some(id) = field("id: ") else { continue };
            let data: Value = serde_json::from_str(field("data: ").unwrap()).unwrap();
            events.push((id.to_owned(), data));
            if events.len() == most || event.starts_with("event: end") {
                return events;
            }
        }
    }
    panic!("the stream was cut after {events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_cut_again_and_again_are_whole_over_every_attempt() {
    const LINES: usize = 40;
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do echo $SUPERCARGO_ATTEMPT line $i; \
         [ $((i % 4)) = 0 ] && echo $SUPERCARGO_ATTEMPT warning $i >&2; usleep 5000; i=$((i + 1)); done; \
         [ $SUPERCARGO_ATTEMPT = 3 ]"
    );
    let mut task = sh(&script);
    task["retries"] = json!({"max": 2, "backoff": {"initial": "10ms"}});
    let id = service.submit(task).await;
    let mut all: Vec<(String, Value)> = Vec::new();
    while all.last().is_none_or(|(_, it)| it.get("state").is_none()) {
        let seen = all.last().map(|(id, _)| id.clone());
        let some = some_events(&service, &id, seen.as_deref(), 7).await;
        all.extend(some);
    }
    let (place, end) = all.pop().unwrap();
    assert_eq!((&end["state"], &end["attempt"]), (&json!("succeeded"), &json!(3)));
    let of = |attempt: usize, stream: &str| -> Vec<&str> {
        let wanted = |it: &&(String, Value)| it.1["attempt"] == attempt && it.1["stream"] == stream;
        all.iter().filter(wanted).map(|(_, it)| it["line"].as_str().unwrap()).collect()
    };
    for attempt in 1..=3 {
        let lines: Vec<_> = (0..LINES).map(|it| format!("{attempt} line {it}")).collect();
        assert_eq!(of(attempt, "stdout"), lines);
        let warnings: Vec<_> =
            (0..LINES).step_by(4).map(|it| format!("{attempt} warning {it}")).collect();
        assert_eq!(of(attempt, "stderr"), warnings);
        // The ids lead through the whole log, without a hole.
        let mut offset = 0;
        for (id, it) in all.iter().filter(|(_, it)| it["attempt"] == attempt) {
            assert_eq!(it["offset"], offset, "{it}");
            offset += it["line"].as_str().unwrap().len() + 1;
            assert_eq!(*id, format!("{attempt}:{offset}"));
        }
        let query = format!("?attempt={attempt}");
        assert_eq!(text(&service, &id, &query, &[]).await.len(), offset);
    }
    assert_eq!(place, all.last().unwrap().0);
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_container_decides_whatever_becomes_of_the_others() {
    let service = Service::start().await;
    let env = json!({
        "FAKE_RUN_FOR": "300ms", "FAKE_LOG_LINES": "3",
        "FAKE_SIDE_LOGS": "setup:2,proxy:4+,next:-,broken:!",
    });
    let id = service.submit(json!({"image": "x", "target": "simulated", "env": env})).await;
    let task = service.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task}");
    let log = |bytes: u64, incomplete: bool| json!({"bytes": bytes, "truncated": false, "incomplete": incomplete});
    let mut expected = log(63, true);
    expected["containers"] = json!({
        "main": log(21, false), "setup": log(14, false), "proxy": log(28, false),
        "next": log(0, false), "broken": log(0, true),
    });
    assert_eq!(task["attempts"][0]["log"], expected);
    let lines = |count: usize| (1..=count).map(|it| format!("line {it}\n")).collect::<String>();
    for (container, expected) in
        [("main", lines(3)), ("setup", lines(2)), ("proxy", lines(4)), ("next", lines(0))]
    {
        let log = text(&service, &id, &format!("?container={container}"), &[]).await;
        assert_eq!(String::from_utf8_lossy(&log), expected, "{container}");
    }
    let all = text(&service, &id, "?container=*", &[]).await;
    let all = String::from_utf8_lossy(&all);
    let of = |name: &str| all.lines().filter(|it| it.starts_with(&format!("{name} | "))).count();
    assert_eq!((of("main"), of("setup"), of("proxy")), (3, 2, 4), "{all}");
}
