//! Finds out how the engine of a Docker target is, and what it has of this installation.

use std::collections::{BTreeMap, HashSet};

use super::facts::{Asked, Engine, EngineFacts, Given, LeaseFacts, Sandboxes, Skew, Unknown};
use super::look::{DEADLINE, asked, space_of};
use super::verdict::is_alive;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::domain::target::{Backend, DockerBackend, Target};
use crate::runner::docker::probe::{LOG_DRIVER, Probe};
use crate::store::{SandboxFate, Store};

/// Containers that are looked at, the newest first.
const MOST_CONTAINERS: i32 = 5_000;
const MOST_ATTEMPTS: i64 = 5_000;
/// A worker removes the sandbox of an attempt right after its end, and a sweeper what is left a minute later.
const REMOVED_WITHIN_SECS: f64 = 150.0;

/// The Docker targets: of the configuration, and of the store where it can be asked.
pub(super) async fn targets(
    config: &Config,
    store: &Asked<&Store>,
) -> Vec<(String, DockerBackend)> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    if let Ok(store) = store
        && let Ok(stored) = asked(store.list_targets()).await
    {
        targets.extend(stored.into_iter().filter_map(|it| Some((it.name, it.target.ok()?))));
    }
    targets.extend(config.targets.iter().map(|(name, it)| (name.clone(), it.target.clone())));
    targets
        .into_iter()
        .filter_map(|(name, it)| match it.backend {
            Backend::Docker(docker) => Some((name, docker)),
            Backend::Kubernetes(_) | Backend::Simulated => None,
        })
        .collect()
}

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
        Ok(store) => look_at_sandboxes(&probe, store, target, &engine.id).await,
        Err(unknown) => Err(unknown),
    };
    facts(Ok(engine), sandboxes)
}

async fn within<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answer = tokio::time::timeout(DEADLINE, call).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
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

/// Where the live attempts of a target are.
fn given(target: &str, leases: &LeaseFacts) -> Vec<Given> {
    let mut all: Vec<Given> = Vec::new();
    for held in leases.held.iter().filter(|it| it.target == target) {
        match all.iter_mut().find(|it| it.engine == held.engine) {
            Some(known) => known.attempts += held.attempts,
            None => all.push(Given {
                engine: held.engine.clone(),
                attempts: held.attempts,
                reached: leases
                    .workers
                    .iter()
                    .filter(|it| is_alive(it, leases.lease))
                    .filter_map(|it| it.targets.get(target))
                    .any(|it| it.ready && it.engine.as_deref() == Some(&*held.engine)),
            }),
        }
    }
    all
}

async fn look_at_sandboxes(
    probe: &Probe,
    store: &Store,
    target: &str,
    engine: &str,
) -> Asked<Sandboxes> {
    let Some(installation) = asked(store.installation()).await? else {
        return Ok(Sandboxes::default());
    };
    // In this order: what ends in between is in the books by the last look.
    let started = asked(store.started_on(target, engine, MOST_ATTEMPTS)).await?;
    let found = within(probe.list(installation, MOST_CONTAINERS)).await.map_err(Unknown::Failed)?;
    let mut attempts = started.clone();
    attempts.extend(found.own.iter().filter_map(|it| it.owner));
    let fates = asked(store.sandbox_fates(&attempts)).await?;

    let mut sandboxes = Sandboxes {
        installation: installation.to_string(),
        others: found.others,
        cut: found.cut,
        ..Sandboxes::default()
    };
    for it in &found.own {
        match it.owner.and_then(|(_, attempt)| fates.get(&attempt)) {
            _ if it.kept => sandboxes.kept += 1,
            Some(SandboxFate::Live) => sandboxes.live += 1,
            Some(SandboxFate::Ended { ago_secs }) if *ago_secs < REMOVED_WITHIN_SECS => {}
            Some(SandboxFate::Ended { .. }) => sandboxes.left_over.push(it.name.clone()),
            None => sandboxes.unknown.push(it.name.clone()),
        }
    }
    if !found.cut {
        let there: HashSet<_> = found.own.iter().filter_map(|it| it.owner).collect();
        let lives = |it: &(_, _)| fates.get(&it.1) == Some(&SandboxFate::Live);
        let missing = started.iter().filter(|it| lives(it) && !there.contains(it));
        sandboxes.missing = missing.map(|it| it.0).collect();
    }
    Ok(sandboxes)
}
