//! Logs in all their forms, over chunks in a real database.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;
use supercargo::domain::log::{LogFrame, LogStream};
use supercargo::ids::TaskId;
use supercargo::logs::MAIN_CONTAINER;
use supercargo::logs::chunk::Builder;
use supercargo::store::ClaimedTask;
use tower::ServiceExt as _;

use crate::support::api::{Answer, TOKEN, TestApp};
use crate::support::within;
use crate::support::worker::{TestWorker, failed, succeeded};
use crate::test_app;

/// 2026-11-21T04:54:10Z.
const START: i64 = 1_795_236_850_000_000_000;
const SECOND: i64 = 1_000_000_000;

/// Stores the log of one attempt as its worker does.
struct Writer<'a> {
    app: &'a TestApp,
    claimed: ClaimedTask,
    container: &'static str,
    seq: i32,
    bytes: i64,
    at: i64,
}

impl<'a> Writer<'a> {
    async fn start(app: &'a TestApp, worker: &TestWorker, task: TaskId) -> Self {
        let claimed = worker.claim_one(task).await;
        worker.run(&claimed).await;
        Self { app, claimed, container: MAIN_CONTAINER, seq: 0, bytes: 0, at: START }
    }

    /// Goes on with the log of another container, at this many seconds.
    fn of(&mut self, container: &'static str, seconds: i64) {
        (self.container, self.seq, self.bytes, self.at) =
            (container, 0, 0, START + seconds * SECOND);
    }

    /// One chunk of frames, a second apart; those that begin with `!` are of stderr.
    async fn chunk(&mut self, frames: &[&[u8]]) {
        let mut builder = Builder::default();
        for bytes in frames {
            let (stream, bytes) = match bytes.strip_prefix(b"!") {
                Some(rest) => (LogStream::Stderr, rest),
                None => (LogStream::Stdout, *bytes),
            };
            builder.push(&LogFrame { at: self.at, stream, bytes: Bytes::copy_from_slice(bytes) });
            self.at += SECOND;
        }
        let chunk = builder.take(self.container, self.seq, self.bytes);
        self.seq += 1;
        self.bytes += i64::from(chunk.byte_len);
        let it = &self.claimed;
        self.app.store.append_chunk(it.task, it.fence, it.attempt_no, &chunk).await.unwrap();
        self.app.wake.task_changed(it.task);
    }
}

/// Ten lines in three chunks: `line 1` to `line 9` with some of stderr, and a last one without an end.
async fn ten_lines(app: &TestApp) -> TaskId {
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(app, &worker, id).await;
    writer.chunk(&[b"line 1\n", b"!line 2\n", b"line 3\n", b"line 4\n"]).await;
    writer.chunk(&[b"line 5\n", b"!\x1b[31mline 6\x1b[0m\n", b"li"]).await;
    writer.chunk(&[b"ne 7\n", b"10%\r20%\rline 8\n", b"line \xff\x00 9\n", b"line 10"]).await;
    worker.finish(&writer.claimed, succeeded(), Vec::new()).await;
    id
}

const ALL: &[u8] = b"line 1\nline 2\nline 3\nline 4\nline 5\n\x1b[31mline 6\x1b[0m\nline 7\n10%\r20%\rline 8\nline \xff\x00 9\nline 10";

fn path(id: TaskId, query: &str) -> String {
    format!("/api/v1/tasks/{id}/logs{query}")
}

async fn get(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
    app.call(Method::GET, path, headers, Body::empty()).await
}

fn records(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), "application/x-ndjson", "{answer:?}");
    answer.text().lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// What the records say that the container wrote.
fn rebuilt(records: &[Value]) -> Vec<u8> {
    use base64::Engine as _;
    let mut all = Vec::new();
    for it in records {
        assert_eq!(it["offset"], all.len(), "{it}");
        match (it["line"].as_str(), it["line_base64"].as_str()) {
            (Some(text), None) => all.extend_from_slice(text.as_bytes()),
            (None, Some(text)) => {
                all.extend(base64::engine::general_purpose::STANDARD.decode(text).unwrap());
            }
            _ => panic!("{it}"),
        }
        if it.get("partial").is_none() {
            all.push(b'\n');
        }
    }
    all
}

/// Of an event stream: ids and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let event = |it: &str| {
        let id = it.lines().find_map(|it| it.strip_prefix("id: "))?.to_owned();
        let data = it.lines().find_map(|it| it.strip_prefix("data: ")).unwrap();
        Some((id, serde_json::from_str(data).unwrap()))
    };
    text.split_terminator("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn the_same_log_in_every_form() {
    let app = test_app!();
    let id = ten_lines(&app).await;
    let text = app.get(&path(id, "")).await;
    assert_eq!(&text.body[..], ALL);
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("accept-ranges", "bytes"),
        ("vary", "Accept"),
        ("supercargo-log-offset", "0"),
    ] {
        assert_eq!(text.header(name), value);
    }
    let ndjson = app.get(&path(id, "?format=ndjson")).await;
    assert_eq!(rebuilt(&records(&ndjson)), ALL);
    insta::assert_snapshot!(ndjson.text());
    let sse = get(&app, &path(id, ""), &[("accept", "text/event-stream")]).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("vary", "Accept"),
    ] {
        assert_eq!(sse.header(name), value);
    }
    insta::assert_snapshot!(sse.text().replace(&id.to_string(), "[id]"));
    // What the parameter says goes before the header.
    let both = get(&app, &path(id, "?format=ndjson"), &[("accept", "text/event-stream")]).await;
    assert_eq!(both.body, ndjson.body);
}

#[tokio::test]
async fn filters_leave_lines_out_and_never_renumber() {
    let app = test_app!();
    let id = ten_lines(&app).await;
    for (query, expected) in [
        ("?stream=stderr", &b"line 2\n\x1b[31mline 6\x1b[0m\n"[..]),
        ("?stream=stdout&grep=line+[0-4]", b"line 1\nline 3\nline 4\nline 10"),
        ("?grep=%5E10", b"10%\r20%\rline 8\n"),
        ("?grep=(?-u)%5Cxff", b"line \xff\x00 9\n"),
        ("?grep=nothing", b""),
        ("?container=main&tail=2", b"line \xff\x00 9\nline 10"),
        ("?tail=0", b""),
        ("?tail=4", b"line 7\n10%\r20%\rline 8\nline \xff\x00 9\nline 10"),
        ("?tail=1000", ALL),
        ("?tail=2&stream=stderr", b"line 2\n\x1b[31mline 6\x1b[0m\n"),
        ("?tail=1&stream=stderr", b"\x1b[31mline 6\x1b[0m\n"),
        ("?tail=1&grep=line+[34]", b"line 4\n"),
        ("?since=2026-11-21T04:54:18Z", b"10%\r20%\rline 8\nline \xff\x00 9\nline 10"),
        ("?since=2026-11-21T04:54:18Z&tail=1", b"line 10"),
        ("?since=2026-11-21T04:54:18Z&tail=100", b"10%\r20%\rline 8\nline \xff\x00 9\nline 10"),
        ("?since=1ms", b""),
        ("?since=10000d&tail=1", b"line 10"),
        ("?offset=70", &ALL[70..]),
        ("?after=1:70", &ALL[70..]),
        ("?timestamps&tail=1", b"2026-11-21T04:54:20.000000000Z line 10"),
        (
            "?timestamps&grep=line+[67]",
            b"2026-11-21T04:54:15.000000000Z \x1b[31mline 6\x1b[0m\n2026-11-21T04:54:16.000000000Z line 7\n",
        ),
    ] {
        let answer = app.get(&path(id, query)).await;
        assert_eq!(answer.body, expected, "{query}: {answer:?}");
    }
    let whole = records(&app.get(&path(id, "?format=ndjson")).await);
    for query in ["&stream=stderr", "&grep=[2468]", "&tail=3", "&since=2026-11-21T04:54:14Z"] {
        let some = records(&app.get(&path(id, &format!("?format=ndjson{query}"))).await);
        assert!(!some.is_empty() && some.iter().all(|it| whole.contains(it)), "{query}");
    }
}

/// Three containers, of which `setup` writes before `main`, and `proxy` between its lines.
async fn three_containers(app: &TestApp) -> TaskId {
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(app, &worker, id).await;
    writer.of("setup", -3);
    writer.chunk(&[b"made\n", b"ready"]).await;
    writer.of("main", 0);
    writer.chunk(&[b"main 0\n", b"!main 1\n"]).await;
    writer.chunk(&[b"main 2\n"]).await;
    writer.of("proxy", 1);
    writer.at += SECOND / 2;
    writer.chunk(&[b"proxy 1\n", b"proxy 2\n"]).await;
    worker.finish(&writer.claimed, succeeded(), Vec::new()).await;
    id
}

#[tokio::test]
async fn each_container_has_a_log_of_its_own() {
    let app = test_app!();
    let id = three_containers(&app).await;
    for (query, expected) in [
        ("", "main 0\nmain 1\nmain 2\n"),
        ("?container=main", "main 0\nmain 1\nmain 2\n"),
        ("?container=setup", "made\nready"),
        ("?container=setup&offset=2", "de\nready"),
        ("?container=proxy&tail=1", "proxy 2\n"),
        ("?container=proxy&after=1:8", "proxy 2\n"),
        ("?container=setup&follow=true", "made\nready"),
    ] {
        assert_eq!(app.get(&path(id, query)).await.text(), expected, "{query}");
    }
    let range = get(&app, &path(id, "?container=setup"), &[("range", "bytes=-5")]).await;
    assert_eq!((range.status, range.text().as_str()), (StatusCode::PARTIAL_CONTENT, "ready"));
    let lines = records(&app.get(&path(id, "?container=proxy&format=ndjson")).await);
    let told = |it: &Value| (it["container"].clone(), it["offset"].clone());
    let told: Vec<_> = lines.iter().map(told).collect();
    assert_eq!(told, [("proxy".into(), 0.into()), ("proxy".into(), 8.into())]);
    let none = app.get(&path(id, "?container=sidecar")).await;
    assert_eq!(
        (none.status, none.json()["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("container_not_found"))
    );
    assert_eq!(
        none.json()["detail"],
        "the attempt has no log of a container \"sidecar\": it has [\"main\", \"proxy\", \"setup\"]"
    );
}

#[tokio::test]
async fn the_logs_of_all_containers_come_by_time() {
    let app = test_app!();
    let id = three_containers(&app).await;
    let all = "setup | made\nsetup | ready\nmain | main 0\nmain | main 1\nproxy | proxy 1\nmain | main 2\nproxy | proxy 2\n";
    // A line that has not ended is told when nothing more of it can come.
    let by_line = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_by_key(|it| it.starts_with("setup | ready"));
        lines
    };
    for query in ["?container=*", "?container=all", "?container=*&follow=true"] {
        let text = app.get(&path(id, query)).await.text();
        assert_eq!(by_line(&text), by_line(all), "{query}");
    }
    let lines =
        records(&app.get(&path(id, "?container=*&format=ndjson&stream=stdout&tail=1")).await);
    let told: Vec<_> = lines
        .iter()
        .map(|it| format!("{} {}", it["container"].as_str().unwrap(), it["line"].as_str().unwrap()))
        .collect();
    assert_eq!(told, ["main main 2", "proxy proxy 2", "setup ready"]);
    let events = app.get(&path(id, "?container=*&format=sse")).await.text();
    assert!(!events.contains("id: "), "{events}");
    assert!(events.contains("event: end"), "{events}");
    for (query, header) in [
        ("?container=*&offset=1", None),
        ("?container=*&after=1:1", None),
        ("?container=*", Some(("range", "bytes=0-1"))),
        ("?container=*&format=sse", Some(("last-event-id", "1:1"))),
        ("?container=Main", None),
    ] {
        let refused = get(&app, &path(id, query), header.as_slice()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query} {refused:?}");
    }
}

#[tokio::test]
async fn a_container_that_has_not_written_yet_is_waited_for() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(&app, &worker, id).await;
    assert_eq!(app.get(&path(id, "?container=proxy")).await.status, StatusCode::NOT_FOUND);
    let mut one = Live::open(&app, &path(id, "?container=proxy&follow=true")).await;
    let mut all = Live::open(&app, &path(id, "?container=*&follow=true")).await;
    writer.chunk(&[b"main\n"]).await;
    all.until("main | main\n").await;
    writer.of("proxy", 9);
    writer.chunk(&[b"late\n"]).await;
    one.until("late\n").await;
    all.until("proxy | late\n").await;
    worker.finish(&writer.claimed, succeeded(), Vec::new()).await;
    assert_eq!(one.rest().await, "late\n");
    assert_eq!(all.rest().await, "main | main\nproxy | late\n");
}

#[tokio::test]
async fn a_range_is_a_part_of_the_bytes() {
    let app = test_app!();
    let id = ten_lines(&app).await;
    let length = ALL.len();
    for (range, status, content_range, expected) in [
        ("bytes=0-5", 206, format!("bytes 0-5/{length}"), &ALL[..6]),
        ("bytes=30-", 206, format!("bytes 30-{}/{length}", length - 1), &ALL[30..]),
        ("bytes=-7", 206, format!("bytes {}-{}/{length}", length - 7, length - 1), b"line 10"),
        ("bytes=10-100000", 206, format!("bytes 10-{}/{length}", length - 1), &ALL[10..]),
        ("bytes=0-1,5-6", 200, String::new(), ALL),
        ("lines=0-1", 200, String::new(), ALL),
    ] {
        let answer = get(&app, &path(id, ""), &[("range", range)]).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (status, expected), "{range}");
        if status == 206 {
            assert_eq!(answer.header("content-range"), content_range);
            assert_eq!(answer.header("content-length"), expected.len().to_string());
        }
    }
    let outside = get(&app, &path(id, ""), &[("range", &format!("bytes={length}-"))]).await;
    assert_eq!(outside.header("content-range"), format!("bytes */{length}"));
    let detail = format!(
        "416 range_not_satisfiable: the log has {length} bytes now, and none of those that Range names"
    );
    assert_eq!(outside.problem(), detail);
    let conditional = [("range", "bytes=0-5"), ("if-range", "\"x\"")];
    assert_eq!(get(&app, &path(id, ""), &conditional).await.body, ALL);
}

#[tokio::test]
async fn a_log_that_grows_does_not_say_how_long_it_will_be() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let nothing = get(&app, &path(id, ""), &[("range", "bytes=0-")]).await;
    assert_eq!(nothing.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let mut writer = Writer::start(&app, &worker, id).await;
    writer.chunk(&[b"line 1\n"]).await;
    let part = get(&app, &path(id, ""), &[("range", "bytes=5-")]).await;
    assert_eq!((part.text(), part.header("content-range")), ("1\n".to_owned(), "bytes 5-6/*"));
}

#[tokio::test]
async fn what_can_not_go_together_is_refused_with_the_fix() {
    let app = test_app!();
    let id = ten_lines(&app).await;
    let mut lines = Vec::new();
    for (query, headers) in [
        ("?formt=sse", &[][..]),
        ("?format=json", &[]),
        ("?follow&follow", &[]),
        ("?tail=-1", &[]),
        ("?tail=many", &[]),
        ("?since=yesterday", &[]),
        ("?since=600", &[]),
        ("?stream=both", &[]),
        ("?container=sidecar", &[]),
        ("?grep=a(", &[]),
        ("?after=1", &[]),
        ("?after=7:0", &[]),
        ("?attempt=7", &[]),
        ("?attempt=1&after=2:0", &[]),
        ("?offset=1&tail=1", &[]),
        ("?after=1:1&tail=1", &[]),
        ("?format=sse&timestamps", &[]),
        ("?timestamps", &[("accept", "application/x-ndjson")]),
        ("?grep=x", &[("range", "bytes=0-1")]),
        ("?tail=1", &[("range", "bytes=0-1")]),
        ("?follow", &[("range", "bytes=0-1")]),
        ("?format=sse", &[("range", "bytes=0-1")]),
        ("", &[("range", "bytes=0-1"), ("accept", "text/event-stream")]),
        ("", &[("range", "bytes=5-1")]),
        ("?format=sse", &[("last-event-id", "abc")]),
        ("?format=sse&attempt=2", &[("last-event-id", "1:0")]),
    ] {
        let answer = get(&app, &path(id, query), headers).await;
        lines.push(format!("{query} {headers:?} {}", answer.problem()));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn events_go_on_behind_the_last_one_that_was_seen() {
    let app = test_app!();
    let id = ten_lines(&app).await;
    let whole = app.get(&path(id, "?format=sse")).await;
    let all = events(&whole.text());
    assert_eq!(all.len(), 10 + 1, "{all:?}");
    for (index, (seen, _)) in all.iter().enumerate() {
        // A browser comes back to the address that it began with.
        let query = "?format=sse&tail=3&follow";
        let rest = get(&app, &path(id, query), &[("last-event-id", seen)]).await;
        let expected = &all[(index + 1).min(all.len() - 1)..];
        assert_eq!(events(&rest.text()), expected, "behind {seen}");
        let after = app.get(&path(id, &format!("?format=sse&after={seen}"))).await;
        assert_eq!(after.body, rest.body);
    }
    // With a filter, ids still are places in the whole log.
    let some = events(&app.get(&path(id, "?format=sse&stream=stderr")).await.text());
    let of_all = all.iter().filter(|(_, it)| it["stream"] != "stdout").cloned();
    assert_eq!(some, of_all.collect::<Vec<_>>());
}

/// A body that is read as it comes.
struct Live {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Live {
    async fn open(app: &TestApp, path: &str) -> Self {
        let request = Request::builder().uri(path).header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        let answer = app.router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        Self { body: answer.into_body().into_data_stream(), text: String::new() }
    }

    async fn until(&mut self, needle: &str) {
        while !self.text.contains(needle) {
            let piece = within(needle, self.body.next()).await;
            let piece =
                piece.unwrap_or_else(|| panic!("it ended without {needle:?}: {}", self.text));
            self.text += std::str::from_utf8(&piece.unwrap()).unwrap();
        }
    }

    async fn rest(mut self) -> String {
        while let Some(piece) = within("the end", self.body.next()).await {
            self.text += std::str::from_utf8(&piece.unwrap()).unwrap();
        }
        self.text
    }
}

#[tokio::test]
async fn following_goes_on_into_the_next_attempt() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut first = Writer::start(&app, &worker, id).await;
    first.chunk(&[b"a\n"]).await;
    let mut sse = Live::open(&app, &path(id, "?format=sse&follow")).await;
    let mut named = Live::open(&app, &path(id, "?format=ndjson&follow&attempt=1")).await;
    let mut plain = Live::open(&app, &path(id, "?follow")).await;
    sse.until("id: 1:2\n").await;
    named.until("\"a\"").await;
    plain.until("a\n").await;
    first.chunk(&[b"b\n", b"open"]).await;
    sse.until("id: 1:4\n").await;
    worker.requeue(&first.claimed, "2020-01-01T00:00:00Z".parse().unwrap()).await;
    let mut second = Writer::start(&app, &worker, id).await;
    second.chunk(&[b"c\n"]).await;
    sse.until("id: 2:2\n").await;
    worker.finish(&second.claimed, failed(3, "c"), Vec::new()).await;
    app.wake.task_changed(id);
    let text = sse.rest().await;
    let told: Vec<_> = events(&text)
        .into_iter()
        .map(|(id, it)| format!("{id} {}", it["line"].as_str().or(it["state"].as_str()).unwrap()))
        .collect();
    assert_eq!(told, ["1:2 a", "1:4 b", "1:8 open", "2:2 c", "2:2 failed"]);
    assert!(text.contains("event: end\nid: 2:2\n"), "{text}");
    assert_eq!(plain.rest().await, "a\nb\nopenc\n");
    // A named attempt is followed to its own end.
    assert_eq!(named.rest().await.lines().count(), 3);
    // Who comes back after the end still gets what was missed, of both attempts.
    let late = app.get(&path(id, "?format=sse&follow&after=1:2")).await;
    let ids: Vec<_> = events(&late.text()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["1:4", "1:8", "2:2", "2:2"]);
}

#[tokio::test]
async fn a_quiet_stream_of_events_has_heartbeats_and_shows_an_open_line() {
    let app = test_app!(|settings, _| settings.log_heartbeat = Duration::from_millis(20));
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(&app, &worker, id).await;
    writer.chunk(&[b"a\n", b"open"]).await;
    let mut sse = Live::open(&app, &path(id, "?format=sse&follow")).await;
    let mut text = Live::open(&app, &path(id, "?follow&grep=a|o")).await;
    sse.until("id: 1:6\n").await;
    sse.until("\n\n: heartbeat\n\n: heartbeat\n\n").await;
    text.until("a\nopen").await;
    writer.chunk(&[b" line\n"]).await;
    sse.until("\"line\":\" line\"").await;
    worker.finish(&writer.claimed, succeeded(), Vec::new()).await;
    app.wake.task_changed(id);
    assert!(sse.rest().await.contains("event: end\nid: 1:12\n"));
    assert_eq!(text.rest().await, "a\nopen");
}

#[tokio::test]
async fn a_stream_that_is_cut_has_no_end_event() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(&app, &worker, id).await;
    writer.chunk(&[b"a\n"]).await;
    let path = path(id, "?format=sse&follow");
    let (followed, ()) = tokio::join!(app.get(&path), async { app.lifecycle.drain() });
    assert_eq!((followed.status, followed.broken), (StatusCode::OK, true));
}

#[tokio::test]
async fn a_line_of_three_mebibytes_comes_in_parts_and_whole_as_text() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(&app, &worker, id).await;
    let part = vec![b'x'; 16 << 10];
    for _ in 0..12 {
        writer.chunk(&[&part[..]; 16]).await;
    }
    writer.chunk(&[b"needle\n", b"last\n"]).await;
    worker.finish(&writer.claimed, succeeded(), Vec::new()).await;
    let text = app.get(&path(id, "")).await;
    assert_eq!(text.body.len(), (3 << 20) + 12);
    let records = records(&app.get(&path(id, "?format=ndjson")).await);
    assert_eq!(records.len(), 5);
    assert_eq!(rebuilt(&records), text.body);
    assert_eq!(app.get(&path(id, "?tail=2")).await.text(), "needle\nlast\n");
    assert_eq!(app.get(&path(id, "?tail=1")).await.text(), "last\n");
    assert_eq!(app.get(&path(id, "?grep=needle")).await.text(), "needle\n");
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_holds_nothing_up() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(&app, &worker, id).await;
    writer.chunk(&[b"line 0\n"]).await;
    let mut slow = Live::open(&app, &path(id, "?format=ndjson&follow")).await;
    slow.until("line 0").await;
    // It takes nothing while all of this is written.
    let mut expected = b"line 0\n".to_vec();
    for chunk in 0..50 {
        let lines: Vec<Vec<u8>> =
            (0..100).map(|n| format!("line {chunk} {n}\n").into_bytes()).collect();
        expected.extend(lines.concat());
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        within("a chunk", writer.chunk(&lines)).await;
    }
    worker.finish(&writer.claimed, succeeded(), Vec::new()).await;
    app.wake.task_changed(id);
    let text = slow.rest().await;
    let records: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(rebuilt(&records), expected);
}

#[tokio::test]
async fn a_chunk_that_is_broken_is_no_end() {
    let app = test_app!();
    let worker = TestWorker::start(&app.store).await;
    let id = app.submit_any().await;
    let mut writer = Writer::start(&app, &worker, id).await;
    writer.chunk(&[b"a\n"]).await;
    let mut broken = Builder::default();
    broken.push(&LogFrame { at: 0, stream: LogStream::Stdout, bytes: Bytes::from_static(b"b\n") });
    let mut broken = broken.take(MAIN_CONTAINER, 1, 2);
    broken.crc32c ^= 1;
    let it = &writer.claimed;
    app.store.append_chunk(id, it.fence, it.attempt_no, &broken).await.unwrap();
    // Nothing is sent yet: the status can still tell.
    let first = app.get(&path(id, "?offset=2")).await;
    assert!(first.problem().starts_with("500 internal"), "{first:?}");
    for query in ["", "?format=ndjson", "?format=sse", "?grep=a"] {
        let cut = app.get(&path(id, query)).await;
        assert_eq!((cut.status, cut.broken), (StatusCode::OK, true), "{query}");
    }
    let tail = app.get(&path(id, "?tail=1")).await;
    assert!(tail.problem().starts_with("500 internal"), "{tail:?}");
}

#[tokio::test]
async fn what_is_described_is_what_is_answered() {
    let app = test_app!();
    let id = ten_lines(&app).await;
    let document: Value = serde_json::from_str(&supercargo::api::openapi().v3_1).unwrap();
    let operation = &document["paths"]["/api/v1/tasks/{id}/logs"]["get"];
    let types: Vec<&String> =
        operation["responses"]["200"]["content"].as_object().unwrap().keys().collect();
    assert_eq!(types, ["application/x-ndjson", "text/event-stream", "text/plain"]);
    let described = document["components"]["schemas"]["LogLine"]["properties"].as_object().unwrap();
    for it in records(&app.get(&path(id, "?format=ndjson")).await) {
        for key in it.as_object().unwrap().keys() {
            assert!(described.contains_key(key), "{key} is not described");
        }
    }
    // Those of its own, beside the refusals that every operation has.
    for status in ["200", "206", "400", "404", "416"] {
        assert!(operation["responses"].get(status).is_some(), "{status} is not described");
    }
}
