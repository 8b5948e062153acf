//! Finds out how the engine of a Docker target is, and what it has of this installation.

use super::facts::{Asked, Engine, EngineFacts, LeaseFacts, Skew, Unknown};
use super::look::space_of;
use super::look_sandboxes::{given, look_at_sandboxes, within};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::target::DockerBackend;
use crate::runner::docker::probe::{LOG_DRIVER, Probe};
use crate::store::Store;

/// Containers that are looked at, the newest first.
const MOST_CONTAINERS: i32 = 5_000;

pub(super) async fn look(
    target: &str,
    docker: DockerBackend,
    store: Asked<&Store>,
    leases: &Asked<LeaseFacts>,
) -> EngineFacts {
    let host = docker.host;
    let given = leases.as_ref().map(|it| given(target, it)).map_err(Clone::clone);
    let facts = |engine, sandboxes| EngineFacts {
        target: target.to_owned(),
        host: Some(host.clone().unwrap_or_default()),
        engine,
        given: given.clone(),
        sandboxes,
    };
    let unasked = || Err(Unknown::Skipped("the engine can't be asked"));
    let probe = match Probe::new(host.as_deref()) {
        Ok(probe) => probe,
        Err(error) => return facts(Err(error.to_string()), unasked()),
    };
    let here = host.as_deref().is_none_or(|it| it.starts_with("unix://"));
    let engine = match describe(&probe, here).await {
        Ok(engine) => engine,
        Err(why) => return facts(Err(why), unasked()),
    };
    let sandboxes = match store {
        Ok(store) => {
            let list = |it| probe.list(it, MOST_CONTAINERS);
            look_at_sandboxes(store, target, &engine.id, list).await
        }
        Err(unknown) => Err(unknown),
    };
    facts(Ok(engine), sandboxes)
}

async fn describe(probe: &Probe, here: bool) -> Result<Engine, String> {
    // Twice: the engine takes its time for the first answer after a while, which makes its clock unsure.
    within(probe.describe()).await?;
    let before = SystemClock.now();
    let it = within(probe.describe()).await?;
    let after = SystemClock.now();
    Ok(Engine {
        keeps_logs: it.log_drivers.iter().any(|it| it == LOG_DRIVER),
        // Elsewhere the path is another folder, or none.
        space: it.root.as_deref().filter(|_| here).and_then(space_of),
        clock: it.time.map(|time| Skew::between(before, time, after)),
        id: it.id,
        version: it.version,
        storage_driver: it.storage_driver,
    })
}
