//! How a target looks from outside.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::document::TargetDocument;
use crate::api::conditions::Live;
use crate::api::problem::Problem;
use crate::api::state::Shared;
use crate::domain::target::to_document;
use crate::store::TargetHealth;
use crate::targets::{Entry, Origin};

/// A target, and how the workers find it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Target {
    #[schema(examples("prod"))]
    name: String,
    origin: OriginName,
    /// Where, if in the configuration of the process that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("[targets.prod] of /etc/supercargo.toml:12"))]
    defined_in: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Timestamp>,
    /// As it can be put: what is secret is `***`.
    #[schema(value_type = TargetDocument)]
    document: Value,
    state: TargetState,
}

/// Who says what the target is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum OriginName {
    Api,
    Config,
    BuiltIn,
}

/// How the workers find a target.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct TargetState {
    /// A worker reaches it.
    reachable: bool,
    /// Why not, or not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("connection refused"))]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("20.10.24"))]
    version: Option<String>,
    /// The engine that answers, as it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("7TKQ:OSSK:UJLQ:J3RS:RNU5:RTJK:UVHJ:WZ2V:ZWGB:WZ2L:3GMX:VVVH"))]
    engine: Option<String>,
    /// How many workers have it.
    #[schema(examples(1))]
    workers: usize,
    /// Tasks that workers have there.
    #[schema(examples(3))]
    running: i64,
    /// Tasks that wait for it by its name, counted up to 10,000.
    #[schema(maximum = 10_000, examples(0))]
    queued: i64,
}

const MOST_QUEUED: i64 = 10_000;

/// Looks at these targets as they are now.
pub(super) async fn targets(
    app: &Shared,
    entries: impl Iterator<Item = (&String, &Entry)>,
) -> Result<Vec<Target>, Problem> {
    let entries: Vec<_> = entries.collect();
    let names: Vec<String> = entries.iter().map(|(name, _)| (*name).clone()).collect();
    let live = app.live.load().await?;
    let queued: HashMap<String, i64> =
        app.store.queued_for(&names, MOST_QUEUED).await?.into_iter().collect();
    let target = |(name, entry): (&String, &Entry)| {
        let queued = queued.get(name).copied().unwrap_or_default();
        target(name, entry, &live, queued)
    };
    Ok(entries.into_iter().map(target).collect())
}

fn target(name: &str, entry: &Entry, live: &Live, queued: i64) -> Target {
    let (origin, defined_in) = match &entry.origin {
        Origin::Api => (OriginName::Api, None),
        Origin::BuiltIn => (OriginName::BuiltIn, None),
        Origin::Config(place) => (OriginName::Config, place.clone()),
    };
    Target {
        name: name.to_owned(),
        origin,
        defined_in,
        updated_at: entry.updated_at,
        document: to_document(&entry.target, true),
        state: state(name, live, queued),
    }
}

fn state(name: &str, live: &Live, queued: i64) -> TargetState {
    let health: Vec<&TargetHealth> = live.workers.iter().filter_map(|it| it.get(name)).collect();
    // It is as ready as the worker that finds it best.
    let best = health.iter().find(|it| it.ready).or(health.first());
    let unreached = live.unreached(name).next();
    let why = match (best, unreached) {
        (None, _) => Some("no worker that runs now has it".to_owned()),
        (Some(it), Some(other)) if it.ready => Some(format!(
            "another engine answers than the one that has {} of its tasks ({:?})",
            other.tasks, other.engine
        )),
        (Some(it), _) => it.why.clone(),
    };
    TargetState {
        reachable: best.is_some_and(|it| it.ready),
        why,
        since: best.and_then(|it| it.since),
        version: best.and_then(|it| it.version.clone()),
        engine: best.and_then(|it| it.engine.clone()),
        workers: health.len(),
        running: live.engines.iter().filter(|it| it.target == name).map(|it| it.tasks).sum(),
        queued,
    }
}
