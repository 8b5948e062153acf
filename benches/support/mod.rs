//! What the benches share: the service as it ships, a bare client of the engine and of Postgres, and
//! figures as lines of JSON.
//!
//! A bench measures and never judges by failing: `ok` says whether the budget of the design was kept on
//! this machine, now. Floors are measured in the same run, interleaved, so that ratios mean something on a
//! machine whose absolute figures do not.

#[cfg(feature = "kubernetes")]
pub(crate) mod cluster;
#[cfg(feature = "kubernetes")]
pub(crate) mod counting;
pub(crate) mod database;
pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod pattern;
pub(crate) mod report;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod task;

use std::process::ExitCode;

pub(crate) use report::{Bench, note};

/// Runs a bench to its end, or until Ctrl-C; either way what it started is stopped.
pub(crate) fn main(
    name: &'static str,
    measure: impl AsyncFnOnce(&Bench) -> anyhow::Result<()>,
) -> ExitCode {
    let bench = Bench::from_arguments(name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let measured = match runtime {
        // One thread for the load, so that the other cores are the service's.
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                measured = measure(&bench) => measured,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            }
        }),
        Err(error) => Err(error.into()),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("{name}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
