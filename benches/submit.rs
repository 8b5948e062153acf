//! Durable submits: `POST /tasks` one by one over kept connections, and in batches of 1,000.
//!
//! The service has the role `api` alone, so nothing is claimed meanwhile. The floor is a bare loop of
//! inserts of one row, durable each, into the same Postgres over as many connections; both take turns.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::try_join_all;
use serde_json::Value;

use support::Bench;
use support::database::Database;
use support::service::Service;
use support::stats::{Samples, median, per_second};
use support::task;

const CONNECTIONS: [usize; 3] = [1, 8, 32];
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const QUICK_ROUND: Duration = Duration::from_millis(300);

const BUDGET_CONNECTIONS: usize = 32;
const BUDGET: f64 = 3_000.0;
const BATCH: usize = 1_000;
const BATCH_BUDGET: f64 = 20_000.0;

fn main() -> ExitCode {
    support::main("submit", measure)
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let service = Service::start(&["--roles", "api"]).await?;
    let mut database = Database::open(&service).await?;
    database.prepare_floor().await?;
    let plain = task::simulated();
    let mut labelled = plain.clone();
    labelled["labels"] = serde_json::json!({"team": "a", "dag": "etl", "stage": "count"});
    for connections in CONNECTIONS {
        one_by_one(bench, &service, &mut database, connections, &plain, false).await?;
    }
    one_by_one(bench, &service, &mut database, BUDGET_CONNECTIONS, &labelled, true).await?;
    for connections in [1, 4] {
        batches(bench, &service, &mut database, connections, &plain).await?;
    }
    service.stop();
    Ok(())
}

async fn one_by_one(
    bench: &Bench,
    service: &Service,
    database: &mut Database,
    connections: usize,
    task: &Value,
    labels: bool,
) -> anyhow::Result<()> {
    let line = bench.measurement("submit").await;
    let round = bench.either(ROUND, QUICK_ROUND);
    let task = task.to_string();
    let (mut latency, mut floor_latency) = <(Samples, Samples)>::default();
    let (mut rates, mut floors, mut ratios) = <(Vec<f64>, Vec<f64>, Vec<f64>)>::default();
    let stored = database.live_tasks().await?;
    let before = database.written().await?;
    for _ in 0..bench.either(ROUNDS, 1) {
        let floor = database.insert(connections, round, &task).await?;
        let ours = submit_for(service, connections, round, &task).await?;
        floors.push(per_second(floor.len(), round));
        rates.push(per_second(ours.len(), round));
        ratios.push(per_second(ours.len(), round) / per_second(floor.len(), round));
        latency.extend([ours]);
        floor_latency.extend([floor]);
    }
    let written = database.written().await?.since(before);
    let stored = database.live_tasks().await? - stored;
    let answered = support::stats::float(latency.len());
    ensure!((stored - answered).abs() < 0.5, "{stored} tasks are stored of {answered} accepted");
    let rate = median(&rates);
    let line = line
        .set("connections", connections)
        .set("labels", labels)
        .set("n", latency.len())
        .figure("per_s", rate)
        .latency("service", &latency)
        .figure("floor_per_s", median(&floors))
        .latency("floor", &floor_latency)
        .figure("ratio", median(&ratios))
        .figure(
            "wal_bytes_per_row",
            written.wal_bytes / (answered + support::stats::float(floor_latency.len())),
        );
    if connections == BUDGET_CONNECTIONS { line.at_least(rate, BUDGET) } else { line }.print();
    Ok(())
}

/// Sends one task after the other over each connection. Returns how long each took.
async fn submit_for(
    service: &Service,
    connections: usize,
    within: Duration,
    task: &str,
) -> anyhow::Result<Samples> {
    let request = service.request("POST", "/tasks", Some(task));
    let mut connections = try_join_all((0..connections).map(|_| service.connect())).await?;
    let until = Instant::now() + within;
    let lanes = connections.iter_mut().map(|http| {
        let request = &request;
        async move {
            let mut samples = Samples::default();
            while Instant::now() < until {
                let begun = Instant::now();
                http.create(request).await?;
                samples.add(begun.elapsed());
            }
            anyhow::Ok(samples)
        }
    });
    let mut all = Samples::default();
    all.extend(try_join_all(lanes).await?);
    Ok(all)
}

async fn batches(
    bench: &Bench,
    service: &Service,
    database: &mut Database,
    connections: usize,
    task: &Value,
) -> anyhow::Result<()> {
    let line = bench.measurement("submit_batch").await;
    let times = bench.either(8, 1);
    let request = service.request("POST", "/tasks/batch", Some(&task::batch(task, BATCH)));
    let mut latency = Samples::default();
    let (mut rates, mut floors) = <(Vec<f64>, Vec<f64>)>::default();
    for _ in 0..bench.either(3, 1) {
        floors.push(database.insert_many(BATCH, times, &task.to_string()).await?);
        let mut lanes = try_join_all((0..connections).map(|_| service.connect())).await?;
        let begun = Instant::now();
        let lanes = lanes.iter_mut().map(|http| {
            let request = &request;
            async move {
                let mut samples = Samples::default();
                for _ in 0..times {
                    let begun = Instant::now();
                    http.create(request).await?;
                    samples.add(begun.elapsed());
                }
                anyhow::Ok(samples)
            }
        });
        let all = try_join_all(lanes).await?;
        rates.push(per_second(connections * times * BATCH, begun.elapsed()));
        latency.extend(all);
    }
    let rate = median(&rates);
    line.set("connections", connections)
        .set("tasks_per_request", BATCH)
        .set("n", latency.len() * BATCH)
        .figure("tasks_per_s", rate)
        .latency("service", &latency)
        .figure("floor_tasks_per_s", median(&floors))
        .figure("ratio", rate / median(&floors))
        .at_least(rate, BATCH_BUDGET)
        .print();
    Ok(())
}
