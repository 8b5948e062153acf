//! Listing and getting tasks with a million of them in history, against the same with next to none.
//!
//! History is seeded by SQL, over three weeks, as the service would have left it. Each query is asked over
//! one kept connection, the same number of times before and after.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;

use support::Bench;
use support::database::Database;
use support::service::Service;
use support::stats::{Samples, float};

const TASKS: usize = 1_000_000;
const QUICK_TASKS: usize = 20_000;
const FEW: usize = 200;
const TIMES: usize = 400;
const QUICK_TIMES: usize = 20;
const BUDGET_MS: f64 = 25.0;

/// What people and programs ask for. `{id}` is a task somewhere in history.
const QUERIES: [(&str, &str); 9] = [
    ("get", "/tasks/{id}"),
    ("result", "/tasks/{id}/result"),
    ("events", "/tasks/{id}/events"),
    ("list newest", "/tasks?limit=100"),
    ("list failed", "/tasks?state=failed&limit=100"),
    ("list running", "/tasks?state=running&limit=100"),
    ("list by name", "/tasks?name=task-7&limit=100"),
    ("list by label", "/tasks?label=team=3&limit=100"),
    ("list by a label that few have", "/tasks?label=rare=1&limit=100"),
];

fn main() -> ExitCode {
    support::main("history", measure)
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let service = Service::start(&["--roles", "api"]).await?;
    let mut database = Database::open(&service).await?;
    seed(&mut database, FEW).await?;
    let mut before = Vec::new();
    for (_, path) in QUERIES {
        before.push(ask(bench, &service, &mut database, path).await?);
    }
    let tasks = bench.either(TASKS, QUICK_TASKS);
    seed(&mut database, tasks).await?;
    for ((name, path), few) in QUERIES.into_iter().zip(before) {
        let line = bench.measurement(&format!("history: {name}")).await;
        let many = ask(bench, &service, &mut database, path).await?;
        line.set("tasks", tasks)
            .latency("few", &few)
            .latency("many", &many)
            .figure("ratio_p50", many.p50() / few.p50())
            .at_most(many.p99(), BUDGET_MS)
            .print();
    }
    service.stop();
    Ok(())
}

/// Puts so many ended tasks into the last three weeks.
async fn seed(database: &mut Database, tasks: usize) -> anyhow::Result<()> {
    let tasks = float(tasks);
    let statements = [
        "call ensure_partitions(now() - interval '4 weeks', now() + interval '4 weeks')".to_owned(),
        // The same ids in every table: by the time of the submit, with a random end.
        format!(
            "create temporary table seeded as
             select overlay(uuid_at(at)::text placing right(gen_random_uuid()::text, 22) from 15)::uuid as id, at, n
             from (select now() - n * interval '21 days' / {tasks} as at, n
                   from generate_series(1, {tasks}::bigint) as n) as t"
        ),
        "insert into task_specs (task_id, run_id, name, image, target, labels, priority, spec, spec_hash)
         select id, gen_random_uuid(), 'task-' || n % 100, 'busybox:latest', 'simulated',
                jsonb_build_object('team', (n % 10)::text)
                    || case when n % 50000 = 1 then '{\"rare\": \"1\"}'::jsonb else '{}' end,
                0, '{\"name\": \"x\", \"image\": \"x\", \"target\": \"simulated\", \"platform_retries\": 3}', 'h'
         from seeded"
            .to_owned(),
        "insert into ended_tasks (task_id, state, attempt_no, exit_code, queued_at, started_at, finished_at)
         select id, case when n % 20 = 0 then 'failed' else 'succeeded' end, 1, (n % 20 = 0)::int, at, at,
                at + interval '1 second'
         from seeded"
            .to_owned(),
        "insert into attempts (task_id, attempt_no, attempt_id, state, exit_code, target, keep_sandbox, queued_at,
                               started_at, finished_at)
         select id, 1, gen_random_uuid(), case when n % 20 = 0 then 'failed' else 'succeeded' end,
                (n % 20 = 0)::int, 'simulated', false, at, at, at + interval '1 second'
         from seeded"
            .to_owned(),
        "insert into outputs (task_id, attempt_no, name, kind, value)
         select id, 1, 'words', 'json', '7' from seeded where n % 20 <> 0"
            .to_owned(),
        "drop table seeded".to_owned(),
        // As autovacuum does after such an import.
        "vacuum analyze task_specs, ended_tasks, attempts, outputs".to_owned(),
    ];
    for statement in statements {
        database.execute(&statement).await?;
    }
    Ok(())
}

async fn ask(
    bench: &Bench,
    service: &Service,
    database: &mut Database,
    path: &str,
) -> anyhow::Result<Samples> {
    let mut http = service.connect().await?;
    let mut samples = Samples::default();
    let times = bench.either(TIMES, QUICK_TIMES);
    let ids = database
        .texts(&format!(
            "select task_id::text from ended_tasks tablesample bernoulli (20)
             where state = 'succeeded' order by random() limit {times}"
        ))
        .await?;
    for id in ids.iter().cycle().take(times) {
        let request = service.request("GET", &path.replace("{id}", id), None);
        let begun = Instant::now();
        let (answer, _) = http.call(&request).await?;
        samples.add(begun.elapsed());
        ensure!(answer.status == 200, "{path} answers {}", answer.status);
    }
    Ok(samples)
}
