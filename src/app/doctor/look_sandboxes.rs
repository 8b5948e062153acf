//! Which targets there are, and what their engines have of this installation, against what its books say.

use std::collections::{BTreeMap, HashSet};

use super::facts::{Asked, Given, LeaseFacts, Sandboxes, Unknown};
use super::look::{DEADLINE, asked};
use super::verdict::is_alive;
use crate::config::Config;
use crate::domain::target::{Backend, Target};
use crate::ids::InstallationId;
use crate::runner::Found;
use crate::store::{SandboxFate, Store};

const MOST_ATTEMPTS: i64 = 5_000;
/// A worker removes the sandbox of an attempt right after its end, and a sweeper what is left a minute later.
const REMOVED_WITHIN_SECS: f64 = 150.0;

/// The targets of the configuration, and of the store where it can be asked.
pub(super) async fn backends(config: &Config, store: &Asked<&Store>) -> Vec<(String, Backend)> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    if let Ok(store) = store
        && let Ok(stored) = asked(store.list_targets()).await
    {
        targets.extend(stored.into_iter().filter_map(|it| Some((it.name, it.target.ok()?))));
    }
    targets.extend(config.targets.iter().map(|(name, it)| (name.clone(), it.target.clone())));
    targets.into_iter().map(|(name, it)| (name, it.backend)).collect()
}

pub(super) async fn within<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answer = tokio::time::timeout(DEADLINE, call).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
}

/// Where the live attempts of a target are.
pub(super) fn given(target: &str, leases: &LeaseFacts) -> Vec<Given> {
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

/// `list` asks the engine for what it has.
pub(super) async fn look_at_sandboxes<F>(
    store: &Store,
    target: &str,
    engine: &str,
    list: impl FnOnce(InstallationId) -> F,
) -> Asked<Sandboxes>
where
    F: Future<Output = Result<Found, String>>,
{
    let Some(installation) = asked(store.installation()).await? else {
        return Ok(Sandboxes::default());
    };
    // In this order: what ends in between is in the books by the last look.
    let started = asked(store.started_on(target, engine, MOST_ATTEMPTS)).await?;
    let found = within(list(installation)).await.map_err(Unknown::Failed)?;
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
