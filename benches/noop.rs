//! What the service itself can do: tasks on the simulated target, through API, Postgres and worker, all in
//! one process.
//!
//! `noop`: a pile of tasks submitted in batches, until the last one has ended. `noop_steady`: submitted one
//! by one over kept connections while they are run. `pick_up`: few tasks, and how soon each is held by a
//! worker and over.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use futures_util::future::try_join_all;

use support::Bench;
use support::database::{Database, Written};
use support::note;
use support::service::Service;
use support::stats::{Samples, float, per_second};
use support::task;

const PILE: usize = 20_000;
const QUICK_PILE: usize = 2_000;
const BATCH: usize = 1_000;
const LOOK: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_mins(5);

const STEADY_CONNECTIONS: usize = 16;
const STEADY: Duration = Duration::from_secs(10);

const PICK_UPS: u32 = 500;
const QUICK_PICK_UPS: u32 = 50;
const PICK_UP_EVERY: Duration = Duration::from_millis(20);

const BUDGET: f64 = 800.0;
const PICK_UP_BUDGET_MS: f64 = 10.0;
const WAL_BUDGET: f64 = 4_096.0;

fn main() -> ExitCode {
    support::main("noop", measure)
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let service = Service::start(&[]).await?;
    let mut database = Database::open(&service).await?;
    pick_up(bench, &service, &mut database).await?;
    pile(bench, &service, &mut database).await?;
    steady(bench, &service, &mut database).await?;
    service.stop();
    Ok(())
}

async fn pile(bench: &Bench, service: &Service, database: &mut Database) -> anyhow::Result<()> {
    let line = bench.measurement("noop").await;
    let count = bench.either(PILE, QUICK_PILE);
    let request =
        service.request("POST", "/tasks/batch", Some(&task::batch(&task::simulated(), BATCH)));
    let ended_before = database.ended_tasks().await?;
    let before = database.written().await?;
    let mut http = service.connect().await?;
    let begun = Instant::now();
    for _ in 0..count / BATCH {
        http.create(&request).await?;
    }
    let submitted = begun.elapsed();
    let slowest = until_all_ended(database, begun).await?;
    let all = begun.elapsed();
    let written = database.written().await?.since(before);
    let ended = database.ended_tasks().await? - ended_before;
    ensure!((ended - float(count)).abs() < 0.5, "{ended} tasks have ended of {count}");
    let rate = per_second(count, all);
    let line = line
        .set("n", count)
        .figure("tasks_per_s", rate)
        .figure("submit_s", submitted.as_secs_f64())
        .figure("all_ended_s", all.as_secs_f64())
        .figure("slowest_second_per_s", slowest);
    costs(line, written, float(count)).at_least(rate, BUDGET).print();
    Ok(())
}

/// Waits until no task is live. Returns how many ended in the slowest whole second, per second.
async fn until_all_ended(database: &mut Database, begun: Instant) -> anyhow::Result<f64> {
    let mut slowest = f64::NAN;
    let mut looked = (Instant::now(), database.ended_tasks().await?);
    loop {
        tokio::time::sleep(LOOK).await;
        let live = database.live_tasks().await?;
        if live < 0.5 {
            return Ok(slowest);
        }
        if begun.elapsed() > WITHIN {
            bail!("{live} tasks are still live after {} s", WITHIN.as_secs());
        }
        if looked.0.elapsed() >= Duration::from_secs(1) {
            let ended = database.ended_tasks().await?;
            let rate = (ended - looked.1) / looked.0.elapsed().as_secs_f64();
            note(format_args!("  {rate:.0} tasks/s, {live:.0} live"));
            slowest = slowest.min(rate);
            looked = (Instant::now(), ended);
        }
    }
}

async fn steady(bench: &Bench, service: &Service, database: &mut Database) -> anyhow::Result<()> {
    let line = bench.measurement("noop_steady").await;
    let within = bench.either(STEADY, STEADY / 10);
    let request = service.request("POST", "/tasks", Some(&task::simulated().to_string()));
    let mut connections = try_join_all((0..STEADY_CONNECTIONS).map(|_| service.connect())).await?;
    let ended_before = database.ended_tasks().await?;
    let before = database.written().await?;
    let begun = Instant::now();
    let lanes = connections.iter_mut().map(|http| {
        let request = &request;
        async move {
            let mut samples = Samples::default();
            while begun.elapsed() < within {
                let begun = Instant::now();
                http.create(request).await?;
                samples.add(begun.elapsed());
            }
            anyhow::Ok(samples)
        }
    });
    let mut submits = Samples::default();
    submits.extend(try_join_all(lanes).await?);
    let ended_meanwhile = database.ended_tasks().await? - ended_before;
    let meanwhile = begun.elapsed();
    until_all_ended(database, begun).await?;
    let all = begun.elapsed();
    let written = database.written().await?.since(before);
    let rate = per_second(submits.len(), all);
    let line = line
        .set("connections", STEADY_CONNECTIONS)
        .set("n", submits.len())
        .figure("tasks_per_s", rate)
        .figure("submits_per_s", per_second(submits.len(), within))
        .figure("ended_meanwhile_per_s", ended_meanwhile / meanwhile.as_secs_f64())
        .figure("backlog", float(submits.len()) - ended_meanwhile)
        .latency("submit", &submits);
    costs(line, written, float(submits.len())).at_least(rate, BUDGET).print();
    Ok(())
}

fn costs(line: support::report::Line, written: Written, tasks: f64) -> support::report::Line {
    let wal = written.wal_bytes / tasks;
    line.figure("wal_bytes_per_task", wal)
        .figure("wal_budget", WAL_BUDGET)
        .set("wal_ok", wal <= WAL_BUDGET)
        .figure("commits_per_task", written.commits / tasks)
}

async fn pick_up(bench: &Bench, service: &Service, database: &mut Database) -> anyhow::Result<()> {
    let line = bench.measurement("pick_up").await;
    let mut http = service.connect().await?;
    let task = task::simulated().to_string();
    let request = service.request("POST", "/tasks?wait=50s", Some(&task));
    // The first ones make connections to Postgres, and its plans.
    for _ in 0..20 {
        http.expect(&request, &[200]).await?;
    }
    let mut whole = Samples::default();
    let mut at = tokio::time::interval(PICK_UP_EVERY);
    let count = bench.either(PICK_UPS, QUICK_PICK_UPS);
    for _ in 0..count {
        at.tick().await;
        let begun = Instant::now();
        http.expect(&request, &[200]).await?;
        whole.add(begun.elapsed());
    }
    // The last ones, and only those.
    let milliseconds = |from: &str, to: &str| {
        format!(
            "select extract(epoch from {to} - {from})::float8 * 1000 from attempts order by task_id desc limit {count}"
        )
    };
    let picked = database.samples(&milliseconds("queued_at", "claimed_at")).await?;
    let launched = database.samples(&milliseconds("claimed_at", "started_at")).await?;
    line.set("per_s", 1.0 / PICK_UP_EVERY.as_secs_f64())
        .set("n", count)
        .latency("ready_to_picked_up", &picked)
        .latency("picked_up_to_launched", &launched)
        .latency("submit_to_answer", &whole)
        .at_most(picked.p99(), PICK_UP_BUDGET_MS)
        .print();
    Ok(())
}
