//! What the service holds in memory: idle, with running tasks, with queued ones.
//!
//! The budget is of the main process. Its Postgres is shown beside it, what the two share counted once.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use support::Bench;
use support::database::Database;
use support::machine::{self, Memory};
use support::report::Line;
use support::service::Service;
use support::stats::float;
use support::task;

const AFTER: Duration = Duration::from_secs(10);
const QUICK_AFTER: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_secs(30);
const RUNNING: usize = 64;
const QUEUED: usize = 1_000;
const ENDED: usize = 2_000;
const LOUD_BYTES: &str = "20000000";

const MIB: f64 = 1_024.0;
const IDLE_BUDGET_MIB: f64 = 40.0;
const TASK_BUDGET_KIB: f64 = 160.0;

fn main() -> ExitCode {
    support::main("memory", measure)
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let service = Service::start(&[]).await?;
    let mut database = Database::open(&service).await?;
    let after = bench.either(AFTER, QUICK_AFTER);

    let line = bench.measurement("memory").await;
    sleep(after).await;
    let (idle, line) = sizes(&service, line.set("state", "idle"))?;
    let mib = idle.resident / MIB;
    line.at_most(mib, IDLE_BUDGET_MIB).print();

    let line = bench.measurement("memory").await;
    submit(&service, &task::simulated_for("1h"), RUNNING).await?;
    until(&mut database, "running", RUNNING).await?;
    sleep(after).await;
    let (running, line) = sizes(&service, line.set("state", "running").set("tasks", RUNNING))?;
    let each = (running.resident - idle.resident) / float(RUNNING);
    line.figure("kib_per_task", each).at_most(each, TASK_BUDGET_KIB).print();

    // Every place is taken: these wait.
    let line = bench.measurement("memory").await;
    submit(&service, &task::simulated(), QUEUED).await?;
    until(&mut database, "queued", QUEUED).await?;
    sleep(after).await;
    let (queued, line) = sizes(&service, line.set("state", "queued").set("tasks", QUEUED))?;
    line.figure("kib_more", queued.resident - running.resident).print();
    service.stop();

    let service = Service::start(&[]).await?;
    let mut database = Database::open(&service).await?;
    let line = bench.measurement("memory").await;
    let mut loud = task::simulated();
    loud["env"]["FAKE_LOG_BYTES"] = LOUD_BYTES.into();
    submit(&service, &task::simulated(), ENDED).await?;
    submit(&service, &loud, 2).await?;
    until_ended(&mut database, ENDED + 2).await?;
    sleep(after).await;
    let (_, line) = sizes(&service, line.set("state", "idle_after_load").set("tasks", ENDED))?;
    line.print();
    service.stop();
    Ok(())
}

fn sizes(service: &Service, line: Line) -> anyhow::Result<(Memory, Line)> {
    let memory = machine::memory(service.pid())?;
    let with_postgres = machine::proportional(service.pid())?;
    let line = line
        .figure("main_mib", memory.resident / MIB)
        .figure("main_anonymous_mib", memory.anonymous / MIB)
        .figure("with_postgres_mib", with_postgres / MIB);
    Ok((memory, line))
}

async fn submit(service: &Service, task: &Value, mut count: usize) -> anyhow::Result<()> {
    let mut http = service.connect().await?;
    while count > 0 {
        let now = count.min(1_000);
        let batch = task::batch(task, now);
        http.create(&service.request("POST", "/tasks/batch", Some(&batch))).await?;
        count -= now;
    }
    Ok(())
}

async fn until(database: &mut Database, state: &str, count: usize) -> anyhow::Result<()> {
    let query = format!("select count(*)::float8 from live_tasks where state = '{state}'");
    let give_up = Instant::now() + WITHIN;
    while database.number(&query).await? < float(count) {
        ensure!(Instant::now() < give_up, "there are not {count} tasks {state}");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn until_ended(database: &mut Database, count: usize) -> anyhow::Result<()> {
    let give_up = Instant::now() + WITHIN;
    while database.ended_tasks().await? < float(count) {
        ensure!(Instant::now() < give_up, "{count} tasks have not ended");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
