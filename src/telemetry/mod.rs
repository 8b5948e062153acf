//! The service's own log and metrics.

mod process;

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};
use crate::measures;

/// Sets up the log, on stderr. Only the first call of a process counts.
pub fn init(settings: &Telemetry) {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // The client of Kubernetes calls each call that fails an error. Whoever makes the call says what it means.
    let filter = match "kube_client=off".parse() {
        Ok(directive) if !settings.log.contains("kube_client") => filter.add_directive(directive),
        _ => filter,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = match settings.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
    if let Err(error) = set {
        tracing::debug!(error, "the log is set up already");
    }
}

/// For what takes milliseconds.
const SECONDS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// For what takes as long as a task may: up to a day.
const LONG_SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0,
    3_600.0, 10_800.0, 43_200.0, 86_400.0,
];

/// The text of `/metrics`. The recorder is the process's: several services in one process share it.
pub fn render_metrics() -> String {
    let Some(handle) = handle() else { return String::new() };
    let mut text = handle.render();
    text.push_str(&process::metrics());
    text
}

/// Begins to record. Without it metrics go nowhere.
pub fn init_metrics() {
    if handle().is_some() {
        measures::describe();
        metrics::gauge!(measures::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        // What is only seen when something is wrong is there from the start, as 0.
        for limit in ["requests", "failed_authentications", "queued_tasks", "headers"] {
            metrics::counter!(measures::HTTP_LIMITED, "limit" => limit).absolute(0);
        }
        metrics::counter!(measures::LEASE_LOST).absolute(0);
        metrics::counter!(measures::CONNECTIONS_FULL).absolute(0);
    }
}

/// Has to be done every few seconds: what was recorded is kept one by one until then.
pub fn keep_up_metrics() {
    if let Some(handle) = handle() {
        handle.run_upkeep();
    }
}

fn handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let long = |name: &str| Matcher::Full(name.to_owned());
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
                .and_then(|it| {
                    it.set_buckets_for_metric(long(measures::TASK_DURATION), LONG_SECONDS)
                })
                .and_then(|it| it.set_buckets_for_metric(long(measures::QUEUE_WAIT), LONG_SECONDS))
                .ok()?;
            builder.install_recorder().map_err(|error| tracing::warn!(%error, "no metrics")).ok()
        })
        .as_ref()
}
