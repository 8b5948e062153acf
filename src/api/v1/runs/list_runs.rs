use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::view::Run;
use crate::api::extract::Caller;
use crate::api::page;
use crate::api::problem::Problem;
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::domain::spec::suggest;
use crate::domain::state::RunState;
use crate::ids::RunId;
use crate::store::RunFilter;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the documentation of what `RunFilter` is read from")]
pub(in crate::api) struct ListRunsQuery {
    /// Only runs in one of these states: several by commas, or the parameter several times.
    #[param(
        pattern = "^(queued|running|paused|succeeded|failed|cancelled)(,(queued|running|paused|succeeded|failed|cancelled))*$",
        example = "failed,cancelled"
    )]
    state: Option<String>,
    /// Only runs with this label. Several times: with all of them.
    #[param(pattern = "^[^=]+=", example = "team=a")]
    label: Option<String>,
    /// Only runs of a workflow of this name.
    #[param(example = "etl")]
    name: Option<String>,
    /// Only runs that were submitted at this time or later.
    #[param(example = "2026-11-21T00:00:00Z")]
    submitted_after: Option<Timestamp>,
    /// Only runs that were submitted before this time.
    #[param(example = "2030-01-01T00:00:00Z")]
    submitted_before: Option<Timestamp>,
    /// So many runs at most.
    #[param(minimum = 1, maximum = 1000, default = 100, example = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before, with the same filters.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$", example = "AZnSpIweezOaUj9vajocEQ")]
    cursor: Option<String>,
}

impl ReadQuery for RunFilter {
    fn read(query: &mut QueryReader) -> Self {
        Self {
            states: read_states(query),
            labels: page::read_labels(query),
            name: query.one("name"),
            submitted_after: query.parsed("submitted_after", page::parse_time),
            submitted_before: query.parsed("submitted_before", page::parse_time),
            limit: page::read_limit(query),
            before: query.parsed("cursor", page::parse_cursor).map(RunId::from_uuid),
        }
    }
}

fn read_states(query: &mut QueryReader) -> Vec<RunState> {
    let mut states = Vec::new();
    for word in query.all("state").iter().flat_map(|it| it.split(',')).map(str::trim) {
        if let Some(state) = RunState::parse(word) {
            states.push(state);
            continue;
        }
        let known = RunState::ALL.map(RunState::as_str);
        let hint = suggest(word, &known);
        query.fault(format!("state: {word:?} is not one of {}{hint}", known.join(", ")));
    }
    states
}

/// A page of runs.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct RunPage {
    items: Vec<Run>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("AZnSpIweezOaUj9vajocEQ"))]
    next_cursor: Option<String>,
}

/// List runs
///
/// Of workflows, the newest first. `next_cursor` leads to the next page; there is none on the last one.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    tag = "runs",
    params(ListRunsQuery),
    responses((status = 200, description = "A page of runs", body = RunPage))
)]
pub(in crate::api) async fn list_runs(
    State(app): State<App>,
    _caller: Caller,
    Params(mut filter): Params<RunFilter>,
) -> Result<Json<RunPage>, Problem> {
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    // One more tells whether there is another page.
    filter.limit += 1;
    let mut records = app.store.list_runs(&filter).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next_cursor = records.last().filter(|_| more).map(|it| page::cursor_of(it.run.uuid()));
    let items = records.into_iter().map(|it| Run::brief(&app, it)).collect();
    Ok(Json(RunPage { items, next_cursor }))
}
