//! What is measured, as a scraper sees it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use supercargo::measures::{self, Kind};

use crate::support::service::{Options, Service};
use crate::support::{PATIENCE, until};

type Labels = BTreeMap<String, String>;

/// One line: a name, its labels and its value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

/// The text form of Prometheus, read strictly.
#[derive(Debug, Default)]
struct Scrape {
    /// Family → kind.
    kinds: BTreeMap<String, String>,
    help: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|it| !it.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert_eq!(scrape.help.insert(name.to_owned(), help.to_owned()), None, "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(scrape.kinds.insert(name.to_owned(), kind.to_owned()), None, "{line}");
            } else {
                assert!(!line.starts_with('#'), "{line}");
                scrape.samples.push(Sample::parse(line));
            }
        }
        scrape
    }

    /// The name of what a sample belongs to.
    fn family<'a>(&self, sample: &'a str) -> &'a str {
        ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|it| sample.strip_suffix(it))
            .find(|it| self.kinds.get(*it).is_some_and(|it| it == "histogram"))
            .unwrap_or(sample)
    }

    fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |it: &&Sample| {
            it.name == name
                && labels
                    .iter()
                    .all(|(key, value)| it.labels.get(*key).is_some_and(|it| it == value))
        };
        let found: Vec<f64> = self.samples.iter().filter(matches).map(|it| it.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// There is exactly one.
    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.find(name, labels).is_some_and(|it| it.to_string() == "1")
    }

    fn shown(&self, name: &str, labels: &[(&str, &str)]) -> String {
        self.get(name, labels).to_string()
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels)
            .unwrap_or_else(|| panic!("no {name} {labels:?} in {:#?}", self.samples))
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            None => (series, BTreeMap::new()),
            Some((name, rest)) => {
                let inner = rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
                let pairs = inner.split("\",").filter(|it| !it.is_empty()).map(|pair| {
                    let (key, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    (key.to_owned(), value.trim_end_matches('"').to_owned())
                });
                (name, pairs.collect())
            }
        };
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        Self { name: name.to_owned(), labels, value }
    }
}

async fn scrape(service: &Service) -> Scrape {
    let answer = service.request("GET", "/metrics", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    Scrape::parse(&answer.text())
}

fn simulated(env: serde_json::Value) -> serde_json::Value {
    json!({"image": "none", "target": "simulated", "env": env})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_measured() {
    let service = Service::start().await;
    for _ in 0..3 {
        let id = service.submit(simulated(json!({"FAKE_LOG_LINES": 10}))).await;
        service.ended(&id).await;
    }
    let failed = service.submit(simulated(json!({"FAKE_EXIT": 3}))).await;
    service.ended(&failed).await;
    let running = service.submit(simulated(json!({"FAKE_RUN_FOR": "10m"}))).await;
    service.until_state(&running, "running").await;
    let retrying = json!({"image": "none", "target": "simulated", "env": {"FAKE_LAUNCH": "refused:registry_transient"}});
    let retrying = service.submit(retrying).await;
    let (wait, follow) =
        (format!("/tasks/{running}?wait=30s"), format!("/tasks/{running}/logs?follow=true"));
    let waits = service.request("GET", &wait, None);
    let follows = service.request("GET", &follow, None);
    let scraped = async {
        until("the gauges show it", PATIENCE, async || {
            let it = scrape(&service).await;
            let simulated = [("target", "simulated")];
            let shown = it.has(measures::TASKS_RUNNING, &simulated)
                && it.has(measures::HTTP_WAITS, &[])
                && it.has(measures::HTTP_OPEN, &[("route", "/api/v1/tasks/{id}/logs")]);
            shown.then_some(it)
        })
        .await
    };
    let it = tokio::select! {
        answer = waits => panic!("the wait is over: {}", answer.text()),
        answer = follows => panic!("the log has ended: {}", answer.text()),
        it = scraped => it,
    };
    let target = ("target", "simulated");
    assert_eq!(it.shown(measures::TASKS_SUBMITTED, &[target]), "6");
    assert_eq!(it.shown(measures::TASKS, &[("state", "succeeded")]), "3");
    assert_eq!(it.shown(measures::TASKS, &[("state", "failed")]), "1");
    assert_eq!(it.shown(measures::ATTEMPTS, &[target, ("state", "succeeded")]), "3");
    let failure = [target, ("reason", "exit_nonzero"), ("class", "user")];
    assert_eq!(it.shown(measures::ATTEMPT_FAILURES, &failure), "1");
    let platform = [target, ("reason", "registry_transient"), ("class", "platform")];
    assert!(it.get(measures::ATTEMPT_FAILURES, &platform) >= 1.0);
    assert_eq!(it.shown("supercargo_queue_wait_seconds_count", &[target]), "6");
    assert_eq!(it.shown("supercargo_launch_seconds_count", &[target, ("pulled", "false")]), "5");
    assert_eq!(
        it.shown("supercargo_task_duration_seconds_count", &[target, ("state", "failed")]),
        "1"
    );
    assert!(it.get(measures::LOG_BYTES, &[]) >= 3.0 * 10.0 * 6.0);
    assert_eq!(it.shown(measures::TARGET_UP, &[target]), "1");
    assert_eq!(it.shown(measures::LEASE_LOST, &[]), "0");
    assert!(it.get(measures::CONNECTIONS, &[]) >= 1.0);
    let submits = [("route", "/api/v1/tasks"), ("method", "POST"), ("status", "201")];
    assert_eq!(it.shown("supercargo_http_request_duration_seconds_count", &submits), "6");
    assert!(it.has(measures::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]));
    assert!(it.get(measures::DB_OPEN, &[]) >= it.get(measures::DB_IDLE, &[]));
    assert!(it.get("process_resident_memory_bytes", &[]) > 1e6);
    assert!(it.get("process_cpu_seconds_total", &[]) > 0.0);
    assert!(it.get("process_open_fds", &[]) > 5.0);
    check_form(&it);
    for task in [running, retrying] {
        service.request("POST", &format!("/tasks/{task}/cancel"), None).await;
        service.ended(&task).await;
    }
    let it = scrape(&service).await;
    assert_eq!(it.shown(measures::TASKS, &[("state", "cancelled")]), "2");
}

/// Whatever is measured: named, described, and bounded in its labels.
fn check_form(it: &Scrape) {
    const LABELS: [&str; 12] = [
        "class", "le", "limit", "method", "pulled", "reason", "route", "state", "status", "target",
        "version", "quantile",
    ];
    let mut seen = BTreeSet::new();
    for sample in &it.samples {
        let family = it.family(&sample.name);
        let kind = it.kinds.get(family).unwrap_or_else(|| panic!("no TYPE: {sample:?}"));
        assert!(it.help.contains_key(family), "no HELP: {sample:?}");
        if family.starts_with("supercargo_") {
            let known = measures::ALL.iter().find(|(name, ..)| *name == family);
            let (_, known, help) = known.unwrap_or_else(|| panic!("not in the list: {sample:?}"));
            assert_eq!((known.as_str(), *help), (kind.as_str(), it.help[family].as_str()));
            assert!(*known != Kind::Counter || sample.value >= 0.0, "{sample:?}");
        }
        for (key, value) in &sample.labels {
            assert!(LABELS.contains(&key.as_str()), "{sample:?}");
            assert!(uuid::Uuid::try_parse(value).is_err() && value.len() < 80, "{sample:?}");
        }
        let key = (sample.name.clone(), sample.labels.clone());
        assert!(seen.insert(key), "twice: {sample:?}");
    }
    // The buckets of a histogram add up, and end in all of them.
    let mut histograms: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for sample in it.samples.iter().filter(|it| it.name.ends_with("_bucket")) {
        let mut labels = sample.labels.clone();
        let le: f64 = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
        let family = it.family(&sample.name).to_owned();
        histograms.entry((family, labels)).or_default().push((le, sample.value));
    }
    assert!(!histograms.is_empty());
    for ((family, labels), buckets) in histograms {
        assert!(
            buckets.windows(2).all(|it| it[0].0 < it[1].0 && it[0].1 <= it[1].1),
            "{buckets:?}"
        );
        let count = it
            .samples
            .iter()
            .find(|it| it.name == format!("{family}_count") && it.labels == labels);
        let (le, all) = *buckets.last().unwrap();
        assert!(le.is_infinite(), "{family}");
        assert_eq!(all.to_string(), count.unwrap().value.to_string(), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_became_of_each_request() {
    let service = Service::start_with(Options {
        env: vec![("SUPERCARGO__TELEMETRY__FORMAT".to_owned(), "json".to_owned())],
        ..Options::default()
    })
    .await;
    let task = service.submit(simulated(json!({}))).await;
    service.ended(&task).await;
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/tasks/{task}/outputs/none", service.url);
    let asked = client.get(url).bearer_auth(&service.token).header("x-request-id", "etl:7/try@2");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "etl:7/try@2");
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(problem["instance"], "urn:request:etl:7/try@2");
    let lines = || {
        let text = std::fs::read_to_string(service.data_dir().join("service.log")).unwrap();
        let lines = text.lines().filter(|it| it.starts_with('{'));
        lines.map(|it| serde_json::from_str(it).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let line = until("the line of the request", PATIENCE, async || {
        lines().into_iter().find(|it| it["span"]["request.id"] == "etl:7/try@2")
    })
    .await;
    assert_eq!(
        (&line["level"], &line["message"]),
        (&json!("INFO"), &json!("request answered")),
        "{line}"
    );
    assert_eq!(
        (&line["status"], &line["code"]),
        (&json!(404), &json!("output_not_found")),
        "{line}"
    );
    assert!(line["latency_ms"].as_f64().unwrap() > 0.0 && line["timestamp"].is_string(), "{line}");
    let span = &line["span"];
    assert_eq!((&span["method"], &span["task.id"]), (&json!("GET"), &json!(task)), "{line}");
    assert_eq!(span["route"], "/api/v1/tasks/{id}/outputs/{name}", "{line}");
    assert_eq!(span["principal"], "admin", "{line}");
    // A submit is a line with the id that it made, and the end of the attempt one with its state.
    let has = async |message: &str, what: &dyn Fn(&serde_json::Value) -> bool| {
        until(&format!("it says {message}"), PATIENCE, async || {
            lines().iter().any(|it| it["message"] == message && what(it)).then_some(())
        })
        .await;
    };
    has("request answered", &|it| it["status"] == 201 && it["span"]["task.id"] == task.as_str())
        .await;
    has("attempt ended", &|it| it["task.id"] == task.as_str() && it["state"] == "succeeded").await;
    assert!(lines().iter().all(|it| it["span"]["route"] != "/readyz"), "{:#?}", lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_the_api_answers_probes_and_scrapers_alone() {
    let args = vec!["--roles".to_owned(), "worker,scheduler".to_owned()];
    let service = Service::start_with(Options { args, ..Options::default() }).await;
    assert_eq!(service.request("GET", "/livez", None).await.status, 200);
    let it = scrape(&service).await;
    assert!(it.has(measures::TARGET_UP, &[("target", "simulated")]), "{:#?}", it.samples);
    check_form(&it);
    assert_eq!(service.request("GET", "/tasks", None).await.status, 404);
}
