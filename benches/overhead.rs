//! The tax on a container: submit → end known to the caller, against the bare calls of the engine.
//!
//! `overhead`: one after the other and several in flight, blocks of both in turn. `parallel`: what the
//! service sustains at its best parallelism, the removal of the containers included, over what bare calls
//! sustain at theirs.

#[expect(dead_code, reason = "every bench uses its part")]
mod support;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde_json::Value;

use support::engine::{self, Engine, Steps};
use support::service::Service;
use support::stats::{Samples, per_second};
use support::task::{self, Seen};
use support::{Bench, database::Database};

const COMMAND: [&str; 1] = ["/bin/true"];
/// How many in flight, containers in a block, blocks.
const PLAN: [(usize, usize, usize); 4] = [(1, 5, 12), (2, 12, 4), (4, 24, 4), (8, 48, 3)];
const PARALLEL: usize = 8;

const LATENCY_BUDGET: f64 = 1.07;
const PARALLEL_BUDGET: f64 = 0.93;

fn main() -> ExitCode {
    support::main("overhead", measure)
}

/// What came of one way to run containers.
#[derive(Default)]
struct Way {
    latency: Samples,
    count: usize,
    time: Duration,
}

impl Way {
    fn add(&mut self, count: usize, time: Duration) {
        self.count += count;
        self.time += time;
    }

    fn per_second(&self) -> f64 {
        per_second(self.count, self.time)
    }
}

async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let engine = Engine::find()?;
    let service = Service::start(&[]).await?;
    let label = Database::open(&service).await?.container_label().await?;
    warm_up(&engine, &service).await?;
    let (mut best_bare, mut best_bare_at, mut at_most_parallel) = (0.0, 0, 0.0);
    for (in_flight, containers, blocks) in PLAN {
        let containers = bench.either(containers, in_flight);
        let blocks = bench.either(blocks, 1);
        let line = bench.measurement("overhead").await;
        let (mut bare, mut ours, mut with_volume) = <(Way, Way, Way)>::default();
        let (mut steps, mut seen) = (Vec::new(), Vec::new());
        let mut removed = Samples::default();
        for _ in 0..blocks {
            let container = engine::container(&COMMAND);
            steps.extend(run_bare(&engine, in_flight, containers, &container, &mut bare).await?);
            let mut block =
                Ours { engine: &engine, service: &service, label: &label, removed: &mut removed };
            seen.extend(block.run(in_flight, containers, &mut ours).await?);
            if in_flight == 1 {
                let container = engine::with_volume(container);
                run_bare(&engine, in_flight, containers, &container, &mut with_volume).await?;
            }
        }
        if bare.per_second() > best_bare {
            (best_bare, best_bare_at) = (bare.per_second(), in_flight);
        }
        if in_flight == PARALLEL {
            at_most_parallel = ours.per_second();
        }
        let ratio = ours.latency.p50() / bare.latency.p50();
        let mut line = line
            .set("in_flight", in_flight)
            .set("n", ours.count)
            .latency("service", &ours.latency)
            .latency("bare", &bare.latency)
            .figure("ratio_p50", ratio)
            .figure("ratio_p99", ours.latency.p99() / bare.latency.p99())
            .figure("service_per_s", ours.per_second())
            .figure("bare_per_s", bare.per_second())
            .figure("ratio_per_s", ours.per_second() / bare.per_second());
        let step = |of: fn(&Steps) -> Duration| middle(&steps, |it| support::stats::ms(of(it)));
        line = line
            .figure("bare_create_ms", step(|it| it.create))
            .figure("bare_start_ms", step(|it| it.start))
            .figure("bare_wait_ms", step(|it| it.wait))
            .figure("bare_logs_ms", step(|it| it.logs))
            .figure("bare_remove_ms", step(|it| it.remove))
            .figure("service_queued_ms", middle(&seen, |it| it.queued))
            .figure("service_launched_ms", middle(&seen, |it| it.launched))
            .figure("service_ran_ms", middle(&seen, |it| it.ran))
            .figure("service_told_ms", middle(&seen, Seen::told));
        if in_flight == 1 {
            line = line
                .latency("service_removed", &removed)
                .latency("bare_with_volume", &with_volume.latency)
                .at_most(ratio, LATENCY_BUDGET);
        }
        line.print();
    }
    let ratio = at_most_parallel / best_bare;
    bench
        .measurement("parallel")
        .await
        .set("in_flight", PARALLEL)
        .figure("service_per_s", at_most_parallel)
        .figure("bare_best_per_s", best_bare)
        .set("bare_best_in_flight", best_bare_at)
        .figure("ratio", ratio)
        .at_least(ratio, PARALLEL_BUDGET)
        .print();
    service.stop();
    Ok(())
}

/// The first container of an engine, and of a service, is slower.
async fn warm_up(engine: &Engine, service: &Service) -> anyhow::Result<()> {
    let mut http = service.connect().await?;
    engine.connect().await?.run(&engine::container(&COMMAND)).await?;
    task::run(service, &mut http, &task::local(&COMMAND)).await.map(|_| ())
}

async fn run_bare(
    engine: &Engine,
    in_flight: usize,
    count: usize,
    container: &Value,
    way: &mut Way,
) -> anyhow::Result<Vec<Steps>> {
    let begun = AtomicUsize::new(0);
    let connections = try_join_all((0..in_flight).map(|_| engine.connect())).await?;
    let start = Instant::now();
    let lanes = connections.into_iter().map(|mut bare| {
        let begun = &begun;
        async move {
            let mut steps = Vec::new();
            while begun.fetch_add(1, Ordering::Relaxed) < count {
                steps.push(bare.run(container).await?);
            }
            anyhow::Ok(steps)
        }
    });
    let steps: Vec<Steps> = try_join_all(lanes).await?.concat();
    way.add(count, start.elapsed());
    for it in &steps {
        way.latency.add(it.total());
    }
    Ok(steps)
}

struct Ours<'a> {
    engine: &'a Engine,
    service: &'a Service,
    label: &'a str,
    /// Submit → the container is gone, where there is one at a time.
    removed: &'a mut Samples,
}

impl Ours<'_> {
    async fn run(
        &mut self,
        in_flight: usize,
        count: usize,
        way: &mut Way,
    ) -> anyhow::Result<Vec<Seen>> {
        let task = task::local(&COMMAND);
        let begun = AtomicUsize::new(0);
        let mut connections = try_join_all((0..in_flight).map(|_| self.service.connect())).await?;
        let mut seen = Vec::new();
        let start = Instant::now();
        if let [http] = connections.as_mut_slice() {
            for _ in 0..count {
                let start = Instant::now();
                seen.push(task::run(self.service, http, &task).await?);
                // Else its removal would weigh on the next one.
                self.engine.until_gone(self.label).await?;
                self.removed.add(start.elapsed());
            }
        } else {
            let lanes = connections.iter_mut().map(|http| {
                let (begun, task, service) = (&begun, &task, self.service);
                async move {
                    let mut seen = Vec::new();
                    while begun.fetch_add(1, Ordering::Relaxed) < count {
                        seen.push(task::run(service, http, task).await?);
                    }
                    anyhow::Ok(seen)
                }
            });
            seen.extend(try_join_all(lanes).await?.into_iter().flatten());
            self.engine.until_gone(self.label).await?;
        }
        way.add(count, start.elapsed());
        for it in &seen {
            way.latency.add(it.total);
        }
        Ok(seen)
    }
}

fn middle<T>(of: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    let values: Vec<f64> = of.iter().map(figure).collect();
    support::stats::median(&values)
}
