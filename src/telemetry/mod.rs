//! The service's own log and metrics.

use std::io::IsTerminal;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Sets up the log, on stderr. Only the first call of a process counts.
pub fn init(settings: &Telemetry) {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = match settings.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    if let Err(error) = set {
        tracing::debug!(error, "the log is set up already");
    }
}

const SECONDS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The text of `/metrics`. The recorder is the process's: several services in one process share it.
pub fn render_metrics() -> String {
    handle().map(PrometheusHandle::render).unwrap_or_default()
}

/// Begins to record. Without it metrics go nowhere.
pub fn init_metrics() {
    if let Some(handle) = handle() {
        metrics::gauge!("supercargo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle.run_upkeep();
    }
}

fn handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
                .ok()?;
            builder.install_recorder().map_err(|error| tracing::warn!(%error, "no metrics")).ok()
        })
        .as_ref()
}
