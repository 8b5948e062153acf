//! Logs: how fast they come in whole, and how far a live one is behind.
//!
//! `logs`: a container writes half a million lines as fast as it can. From the submit until the service has
//! all of it stored, against a bare reader of the engine's own log (`docker logs -f`) on the same kind of
//! container from its creation; both take turns, and every byte is compared. `log_tail`: a line every 100 ms
//! with the time in it, seen by a follower of the service and by one of the engine.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use support::Bench;
use support::database::Database;
use support::engine::{self, Engine};
use support::pattern::{self, Repeated};
use support::service::Service;
use support::stats::{Samples, float, median};
use support::task;

const LINES: usize = 500_000;
const QUICK_LINES: usize = 20_000;
const ROUNDS: usize = 3;
const TICKS: usize = 150;
const QUICK_TICKS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(10);

const BUDGET: f64 = 0.9;
const TAIL_BUDGET_MS: f64 = 150.0;
const MEGA: f64 = 1e6;

fn main() -> ExitCode {
    support::main("logs", measure)
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let engine = Engine::find()?;
    let service = Service::start(&[]).await?;
    let label = Database::open(&service).await?.container_label().await?;
    ingest(bench, &engine, &service, &label).await?;
    tail(bench, &engine, &service).await?;
    service.stop();
    Ok(())
}

struct Loud {
    script: String,
    line: String,
    lines: usize,
}

impl Loud {
    fn new(lines: usize) -> Self {
        let line = pattern::line();
        let script = format!("yes '{}' | head -n {lines}", line.trim_end());
        Self { script, line, lines }
    }

    fn command(&self) -> [&str; 3] {
        ["sh", "-c", &self.script]
    }

    fn megabytes(&self) -> f64 {
        float(self.lines * self.line.len()) / MEGA
    }

    fn expected(&self) -> Repeated {
        Repeated::new(&self.line)
    }
}

async fn ingest(
    bench: &Bench,
    engine: &Engine,
    service: &Service,
    label: &str,
) -> anyhow::Result<()> {
    let line = bench.measurement("logs").await;
    let loud = Loud::new(bench.either(LINES, QUICK_LINES));
    let (mut bare, mut with_times, mut unread) = <(Vec<f64>, Vec<f64>, Vec<f64>)>::default();
    let (mut ours, mut followed, mut again) = <(Vec<f64>, Vec<f64>, Vec<f64>)>::default();
    let mut told = Vec::new();
    let rate = |since: Instant| loud.megabytes() / since.elapsed().as_secs_f64();
    for _ in 0..bench.either(ROUNDS, 1) {
        bare.push(read_bare(engine, &loud, Some(false)).await?);
        let begun = Instant::now();
        let mut http = service.connect().await?;
        let seen = task::run(service, &mut http, &task::local(&loud.command())).await?;
        ours.push(rate(begun));
        told.push(seen.told());
        let begun = Instant::now();
        read(service, &seen.id, &loud, false).await?;
        again.push(rate(begun));
        engine.until_gone(label).await?;

        with_times.push(read_bare(engine, &loud, Some(true)).await?);
        // The service closes connections that are idle for long.
        let mut http = service.connect().await?;
        let begun = Instant::now();
        let id = task::submit(service, &mut http, &task::local(&loud.command())).await?;
        read(service, &id, &loud, true).await?;
        followed.push(rate(begun));
        task::end(service, &mut service.connect().await?, &id).await?;
        engine.until_gone(label).await?;
        unread.push(read_bare(engine, &loud, None).await?);
    }
    let ratio = median(&ours) / median(&bare);
    line.set("lines", loud.lines)
        .set("n", ours.len())
        .figure("mb", loud.megabytes())
        .figure("service_mb_per_s", median(&ours))
        .figure("bare_mb_per_s", median(&bare))
        .figure("ratio", ratio)
        .figure("bare_with_times_mb_per_s", median(&with_times))
        .figure("bare_unread_mb_per_s", median(&unread))
        .figure("followed_mb_per_s", median(&followed))
        .figure("read_again_mb_per_s", median(&again))
        .figure("end_of_container_to_end_of_task_ms", median(&told))
        .set("bytes_lost", 0)
        .at_least(ratio, BUDGET)
        .print();
    Ok(())
}

/// Creates, starts and reads a container, with times or not, or lets it run unread. Megabytes per second.
async fn read_bare(engine: &Engine, loud: &Loud, times: Option<bool>) -> anyhow::Result<f64> {
    let mut bare = engine.connect().await?;
    let begun = Instant::now();
    let id = bare.create(&engine::container(&loud.command())).await?;
    bare.start(&id).await?;
    if let Some(times) = times {
        let mut expected = loud.expected();
        bare.follow(&id, times, &mut expected).await?;
        expected.finish(loud.lines)?;
    }
    bare.wait(&id).await?;
    let took = begun.elapsed();
    bare.remove(&id).await?;
    Ok(loud.megabytes() / took.as_secs_f64())
}

/// Reads the whole log from the service, and compares it.
async fn read(service: &Service, id: &str, loud: &Loud, follow: bool) -> anyhow::Result<()> {
    let mut http = service.connect().await?;
    let path = format!("/tasks/{id}/logs?follow={follow}");
    let head = http.send(&service.request("GET", &path, None)).await?;
    ensure!(head.status == 200, "the service answers {} for a log", head.status);
    let mut expected = loud.expected();
    while let Some(piece) = http.piece().await? {
        expected.take(&piece)?;
    }
    expected.finish(loud.lines)
}

/// What the container does: `adjtimex` is what busybox has that tells microseconds.
fn ticking(ticks: usize) -> String {
    format!(
        "i=0; while [ $i -lt {ticks} ]; do \
         adjtimex | awk '/tv_sec/ {{ s = $2 }} /tv_usec/ {{ printf \"%d.%06d\\n\", s, $2 }}'; \
         usleep 100000; i=$((i + 1)); done"
    )
}

async fn tail(bench: &Bench, engine: &Engine, service: &Service) -> anyhow::Result<()> {
    let line = bench.measurement("log_tail").await;
    let ticks = bench.either(TICKS, QUICK_TICKS);
    let script = ticking(ticks);
    let mut http = service.connect().await?;
    let id = task::submit(service, &mut http, &task::local(&["sh", "-c", &script])).await?;
    let (ours, bare) = tokio::try_join!(follow_ours(service, &id), follow_bare(engine, &id),)?;
    task::end(service, &mut service.connect().await?, &id).await?;
    ensure!(ours.len() == ticks, "{} of {ticks} lines came", ours.len());
    line.set("n", ours.len())
        .latency("service", &ours)
        .latency("bare", &bare)
        .figure("behind_bare_p50_ms", ours.p50() - bare.p50())
        .at_most(ours.p99(), TAIL_BUDGET_MS)
        .print();
    Ok(())
}

async fn follow_ours(service: &Service, id: &str) -> anyhow::Result<Samples> {
    let mut http = service.connect().await?;
    let path = format!("/tasks/{id}/logs?follow=true");
    let head = http.send(&service.request("GET", &path, None)).await?;
    ensure!(head.status == 200, "the service answers {} for a log", head.status);
    let mut behind = Behind::default();
    while let Some(piece) = http.piece().await? {
        behind.take(&piece);
    }
    Ok(behind.samples)
}

async fn follow_bare(engine: &Engine, task: &str) -> anyhow::Result<Samples> {
    let mut bare = engine.connect().await?;
    let label = format!("supercargo.dev/task={task}");
    let give_up = Instant::now() + PATIENCE;
    let container = loop {
        if let Some(container) = bare.list(&label, false).await?.pop() {
            break container;
        }
        ensure!(Instant::now() < give_up, "the container of the task does not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut behind = Behind::default();
    bare.watch(&container, |frame| behind.take(frame)).await.context("follow the engine's log")?;
    Ok(behind.samples)
}

/// How far behind the lines are when they come.
#[derive(Default)]
struct Behind {
    rest: Vec<u8>,
    samples: Samples,
}

impl Behind {
    fn take(&mut self, bytes: &[u8]) {
        let now = support::machine::clock();
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|it| *it == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let at = std::str::from_utf8(&line).ok().and_then(|it| it.trim().parse::<f64>().ok());
            if let Some(at) = at {
                self.samples.add_ms((now - at) * 1e3);
            }
        }
    }
}
