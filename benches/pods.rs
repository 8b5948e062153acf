//! The tax on a pod: submit → end known to the caller, against the bare calls of a cluster, the one that
//! `KUBECONFIG` names. Without one nothing is measured.
//!
//! `pods`: one after the other. `pods_parallel`: several in flight, their removal included. `pods_requests`:
//! what is asked of the API server for each, counted on the way. `pods_memory`: what pods that wait weigh.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;

use support::cluster::{self, Cluster, Steps};
use support::counting::{Counter, Counts};
use support::database::Database;
use support::http::Http;
use support::service::Service;
use support::stats::{Samples, float, median, ms, per_second};
use support::{Bench, engine, machine, note, task};

const COMMAND: [&str; 1] = ["/bin/true"];
/// Long enough for its log to be followed.
const SLOW: [&str; 2] = ["sleep", "2"];
const TARGET: &str = "cluster";
const CONCURRENCY: usize = 64;

const BLOCKS: usize = 10;
const PODS: usize = 4;
/// A node looks at its containers once a second, and who always begins at the same time after that is always
/// as lucky: the ones that are measured begin spread over more than that, both ways alike.
const SPREAD: Duration = Duration::from_secs(1);
const GOLDEN: f64 = 0.618_034;

const PARALLEL: usize = 8;
const PARALLEL_BLOCKS: usize = 4;
const PARALLEL_PODS: usize = 24;

const COUNTED: usize = 10;
const COUNTED_PARALLEL: usize = 24;

const PENDING: usize = 1_000;
const QUICK_PENDING: usize = 20;
/// More than any node has.
const TOO_MANY_CORES: u32 = 1_000;
const AFTER: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_millis(500);

const LATENCY_BUDGET: f64 = 1.10;
const PARALLEL_BUDGET: f64 = 0.95;
const REQUESTS_BUDGET: f64 = 12.0;
const MEMORY_BUDGET_MIB: f64 = 30.0;
const MIB: f64 = 1_024.0;

fn main() -> ExitCode {
    support::main("pods", measure)
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let Some(cluster) = Cluster::find().await? else {
        note("pods: not measured, as KUBECONFIG names no cluster");
        return Ok(());
    };
    cluster.prepare().await?;
    let measured = measure_on(bench, &cluster).await;
    let erased = cluster.erase().await;
    measured.and(erased)
}

async fn measure_on(bench: &Bench, cluster: &Cluster) -> anyhow::Result<()> {
    let both = Both::begin(cluster).await?;
    latency(bench, &both).await?;
    parallel(bench, &both).await?;
    both.service.stop();
    requests(bench, cluster).await?;
    memory(bench, cluster).await
}

/// Both ways to run the same pod on the same cluster.
struct Both<'a> {
    cluster: &'a Cluster,
    service: Service,
    /// That all pods of the service have.
    label: String,
    pod: Pod,
}

impl<'a> Both<'a> {
    async fn begin(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let service = Service::start(&[]).await?;
        put_target(&service, cluster, CONCURRENCY).await?;
        let label = Database::open(&service).await?.container_label().await?;
        let mut http = service.connect().await?;
        let request = service.request("POST", "/render", Some(&document(&COMMAND)));
        let (_, rendered) = http.expect(&request, &[200]).await?;
        let rendered: Value = serde_json::from_slice(&rendered)?;
        let pod = cluster::bare(&rendered["pod"])?;
        let both = Self { cluster, service, label, pod };
        // The first ones make connections.
        both.cluster.run(&both.pod).await?;
        both.run(&mut http).await?;
        both.cluster.until_gone(&both.label).await?;
        Ok(both)
    }

    /// Submit → end known.
    async fn run(&self, http: &mut Http<TcpStream>) -> anyhow::Result<Duration> {
        run(&self.service, http, &document(&COMMAND)).await
    }
}

fn document(command: &[&str]) -> String {
    json!({"name": "bench", "image": engine::IMAGE, "target": TARGET, "command": command})
        .to_string()
}

async fn put_target(
    service: &Service,
    cluster: &Cluster,
    concurrency: usize,
) -> anyhow::Result<()> {
    let target = cluster.target(concurrency)?;
    let request = service.request("PUT", &format!("/targets/{TARGET}"), Some(&target));
    service.connect().await?.expect(&request, &[200, 201]).await.map(|_| ())
}

async fn run(
    service: &Service,
    http: &mut Http<TcpStream>,
    document: &str,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let id = task::submit(service, http, document).await?;
    let ended = task::end(service, http, &id).await?;
    let total = begun.elapsed();
    ensure!(ended["state"] == "succeeded", "a task ended as {ended}");
    Ok(total)
}

async fn latency(bench: &Bench, both: &Both<'_>) -> anyhow::Result<()> {
    let line = bench.measurement("pods").await;
    let (blocks, pods) = (bench.either(BLOCKS, 1), bench.either(PODS, 2));
    let (mut ours, mut bare) = <(Samples, Samples)>::default();
    let (mut steps, mut removed) = (Vec::new(), Samples::default());
    for block in 0..blocks {
        let pauses = (0..pods).map(|it| {
            let place = (float(block * pods + it) * GOLDEN).fract();
            SPREAD + SPREAD.mul_f64(place)
        });
        for pause in pauses.clone() {
            sleep(pause).await;
            let it = both.cluster.run(&both.pod).await?;
            bare.add(it.total());
            steps.push(it);
        }
        for pause in pauses {
            sleep(pause).await;
            // One that did nothing for a while would be closed.
            let mut http = both.service.connect().await?;
            let begun = Instant::now();
            ours.add(both.run(&mut http).await?);
            both.cluster.until_gone(&both.label).await?;
            removed.add(begun.elapsed());
        }
    }
    let ratio = ours.p50() / bare.p50();
    let step =
        |of: fn(&Steps) -> Duration| median(&steps.iter().map(|it| ms(of(it))).collect::<Vec<_>>());
    line.set("n", ours.len())
        .latency("service", &ours)
        .latency("bare", &bare)
        .figure("ratio_p50", ratio)
        .figure("ratio_p99", ours.p99() / bare.p99())
        .figure("ratio_mean", ours.mean() / bare.mean())
        .figure("bare_create_ms", step(|it| it.create))
        .figure("bare_end_ms", step(|it| it.end))
        .figure("bare_log_ms", step(|it| it.log))
        .figure("bare_delete_ms", step(|it| it.delete))
        .latency("service_removed", &removed)
        .at_most(ratio, LATENCY_BUDGET)
        .print();
    Ok(())
}

async fn parallel(bench: &Bench, both: &Both<'_>) -> anyhow::Result<()> {
    let line = bench.measurement("pods_parallel").await;
    let (blocks, pods) = (bench.either(PARALLEL_BLOCKS, 1), bench.either(PARALLEL_PODS, PARALLEL));
    let (mut ours, mut bare) = <(Vec<f64>, Vec<f64>)>::default();
    for block in 0..2 * blocks {
        // What a node still does for those before is not for these.
        machine::settle(bench.quick).await;
        let begun = Instant::now();
        // Bare, ours, ours, bare: what drifts drifts for both.
        if matches!(block % 4, 0 | 3) {
            in_lanes(pods, |_| async { both.cluster.run(&both.pod).await.map(|_| ()) }).await?;
            bare.push(per_second(pods, begun.elapsed()));
        } else {
            ours_in_lanes(&both.service, pods, &COMMAND).await?;
            both.cluster.until_gone(&both.label).await?;
            ours.push(per_second(pods, begun.elapsed()));
        }
    }
    let ratio = median(&ours) / median(&bare);
    line.set("in_flight", PARALLEL)
        .set("n", pods * blocks)
        .figure("service_per_s", median(&ours))
        .figure("bare_per_s", median(&bare))
        .set("service_blocks", ours)
        .set("bare_blocks", bare)
        .figure("ratio", ratio)
        .at_least(ratio, PARALLEL_BUDGET)
        .print();
    Ok(())
}

/// So many, as many at once as there are lanes.
async fn in_lanes<F: Future<Output = anyhow::Result<()>>>(
    count: usize,
    one: impl Fn(usize) -> F,
) -> anyhow::Result<()> {
    let begun = AtomicUsize::new(0);
    let lanes = (0..PARALLEL).map(async |lane| {
        while begun.fetch_add(1, Ordering::Relaxed) < count {
            one(lane).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(lanes).await.map(|_| ())
}

async fn ours_in_lanes(service: &Service, count: usize, command: &[&str]) -> anyhow::Result<()> {
    let document = document(command);
    let connections = try_join_all((0..PARALLEL).map(|_| service.connect())).await?;
    let connections: Vec<_> = connections.into_iter().map(tokio::sync::Mutex::new).collect();
    in_lanes(count, |lane| {
        let (http, document) = (connections.get(lane), &document);
        async move {
            let mut http = http.context("a lane has no connection")?.lock().await;
            run(service, &mut http, document).await.map(|_| ())
        }
    })
    .await
}

async fn requests(bench: &Bench, cluster: &Cluster) -> anyhow::Result<()> {
    let line = bench.measurement("pods_requests").await;
    let counter = Counter::start(&cluster.config).await?;
    let counted = cluster.at(&counter.url())?;
    let both = Both::begin(&counted).await?;
    let (alone, parallel) = (bench.either(COUNTED, 2), bench.either(COUNTED_PARALLEL, PARALLEL));
    counter.take();
    // Not over the way that counts: these looks are not the service's.
    let gone = || cluster.until_gone(&both.label);
    let mut http = both.service.connect().await?;
    for _ in 0..alone {
        both.run(&mut http).await?;
        gone().await?;
    }
    let of_one = counter.take();
    ours_in_lanes(&both.service, parallel, &COMMAND).await?;
    gone().await?;
    let of_many = counter.take();
    ours_in_lanes(&both.service, parallel, &SLOW).await?;
    gone().await?;
    let of_slow = counter.take();
    both.cluster.run(&both.pod).await?;
    let of_bare = counter.take();
    both.service.stop();
    let one = own(&of_one, alone);
    let (many, slow) = (own(&of_many, parallel), own(&of_slow, parallel));
    let shown = |counts: &Counts, tasks: usize| {
        let each = |(kind, count): (&String, &usize)| {
            (kind.clone(), json!((float(*count) / float(tasks) * 100.0).round() / 100.0))
        };
        Value::Object(counts.iter().map(each).collect())
    };
    line.set("n", alone + 2 * parallel)
        .figure("per_task_alone", one)
        .figure("per_task_parallel", many)
        .figure("per_slow_task", slow)
        .set("kinds_alone", shown(&of_one, alone))
        .set("kinds_parallel", shown(&of_many, parallel))
        .set("kinds_slow", shown(&of_slow, parallel))
        .set("kinds_bare", shown(&of_bare, 1))
        .at_most(one.max(many).max(slow), REQUESTS_BUDGET)
        .print();
    Ok(())
}

/// For each task, without what is asked once for all of them: the watches, and who answers.
fn own(counts: &Counts, tasks: usize) -> f64 {
    let shared =
        |kind: &str| kind.starts_with("WATCH ") || matches!(kind, "GET version" | "GET namespaces");
    let own = counts.iter().filter(|(kind, _)| !shared(kind)).map(|(_, count)| count);
    float(own.sum()) / float(tasks)
}

async fn memory(bench: &Bench, cluster: &Cluster) -> anyhow::Result<()> {
    let pending = bench.either(PENDING, QUICK_PENDING);
    let after = bench.either(AFTER, AFTER / 10);
    let service = Service::start(&[]).await?;
    put_target(&service, cluster, pending).await?;
    let mut database = Database::open(&service).await?;
    let label = database.container_label().await?;
    let mut http = service.connect().await?;
    run(&service, &mut http, &document(&COMMAND)).await?;
    cluster.until_gone(&label).await?;
    let line = bench.measurement("pods_memory").await;
    sleep(after).await;
    let before = machine::memory(service.pid())?;
    let too_large = json!({
        "name": "bench", "image": engine::IMAGE, "target": TARGET, "command": COMMAND,
        "resources": {"cpu": TOO_MANY_CORES},
    });
    let batch = service.request("POST", "/tasks/batch", Some(&task::batch(&too_large, pending)));
    // A connection that did nothing for a while would be closed.
    service.connect().await?.create(&batch).await?;
    let give_up = Instant::now() + WITHIN;
    while cluster.count(&label).await? < pending {
        ensure!(Instant::now() < give_up, "there are not {pending} pods");
        sleep(LOOK).await;
    }
    sleep(after).await;
    let with = machine::memory(service.pid())?;
    let mib = (with.resident - before.resident) / MIB;
    line.set("pods", pending)
        .figure("before_mib", before.resident / MIB)
        .figure("with_mib", with.resident / MIB)
        .figure("anonymous_more_mib", (with.anonymous - before.anonymous) / MIB)
        .figure("more_mib", mib)
        .at_most(mib, MEMORY_BUDGET_MIB)
        .print();
    let mut http = service.connect().await?;
    for id in database.texts("select task_id::text from live_tasks").await? {
        let cancel = service.request("POST", &format!("/tasks/{id}/cancel"), None);
        http.expect(&cancel, &[200, 202]).await?;
    }
    cluster.until_gone(&label).await?;
    service.stop();
    Ok(())
}
