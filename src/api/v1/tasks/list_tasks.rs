use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::view::Task;
use crate::api::extract::Caller;
use crate::api::page;
use crate::api::problem::Problem;
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::domain::spec::suggest;
use crate::domain::state::TaskState;
use crate::ids::{RunId, TaskId};
use crate::store::TaskFilter;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the documentation of what `TaskFilter` is read from")]
pub(in crate::api) struct ListTasksQuery {
    /// Only tasks in one of these states: several by commas, or the parameter several times.
    #[param(
        pattern = "^(queued|starting|running|finishing|succeeded|failed|skipped|cancelled)(,(queued|starting|running|finishing|succeeded|failed|skipped|cancelled))*$",
        example = "failed,cancelled"
    )]
    state: Option<String>,
    /// Only tasks with this label. Several times: with all of them.
    #[param(pattern = "^[^=]+=", example = "team=a")]
    label: Option<String>,
    /// Only tasks of this name.
    #[param(example = "count")]
    name: Option<String>,
    /// Only tasks of this target.
    #[param(example = "local")]
    target: Option<String>,
    /// Only tasks of this run.
    #[param(value_type = Option<uuid::Uuid>, example = "0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4")]
    run_id: Option<RunId>,
    /// Only tasks that were submitted at this time or later.
    #[param(example = "2026-11-21T00:00:00Z")]
    submitted_after: Option<Timestamp>,
    /// Only tasks that were submitted before this time.
    #[param(example = "2030-01-01T00:00:00Z")]
    submitted_before: Option<Timestamp>,
    /// So many tasks at most.
    #[param(minimum = 1, maximum = 1000, default = 100, example = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before, with the same filters.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$", example = "AZnSpIweezOaUj9vajocEQ")]
    cursor: Option<String>,
}

impl ReadQuery for TaskFilter {
    fn read(query: &mut QueryReader) -> Self {
        Self {
            states: read_states(query),
            labels: page::read_labels(query),
            name: query.one("name"),
            target: query.one("target"),
            run: query.parsed("run_id", |it| {
                it.parse().map_err(|_| format!("{it:?} is not the id of a run"))
            }),
            submitted_after: query.parsed("submitted_after", page::parse_time),
            submitted_before: query.parsed("submitted_before", page::parse_time),
            limit: page::read_limit(query),
            before: query.parsed("cursor", page::parse_cursor).map(TaskId::from_uuid),
        }
    }
}

fn read_states(query: &mut QueryReader) -> Vec<TaskState> {
    let mut states = Vec::new();
    for word in query.all("state").iter().flat_map(|it| it.split(',')).map(str::trim) {
        if let Some(state) = TaskState::parse(word) {
            states.push(state);
            continue;
        }
        let known = TaskState::ALL.map(TaskState::as_str);
        let hint = suggest(word, &known);
        query.fault(format!("state: {word:?} is not one of {}{hint}", known.join(", ")));
    }
    states
}

/// A page of tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct TaskPage {
    items: Vec<Task>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("AZnSpIweezOaUj9vajocEQ"))]
    next_cursor: Option<String>,
}

/// List tasks
///
/// The newest first. `next_cursor` leads to the next page; there is none on the last one.
#[utoipa::path(
    get,
    path = "/api/v1/tasks",
    tag = "tasks",
    params(ListTasksQuery),
    responses(
        (status = 200, description = "A page of tasks, without their attempts and outputs", body = TaskPage),
    )
)]
pub(in crate::api) async fn list_tasks(
    State(app): State<App>,
    _caller: Caller,
    Params(mut filter): Params<TaskFilter>,
) -> Result<Json<TaskPage>, Problem> {
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    // One more tells whether there is another page.
    filter.limit += 1;
    let mut records = app.store.list_tasks(&filter).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next_cursor = records.last().filter(|_| more).map(|it| page::cursor_of(it.task.uuid()));
    let mut items = Vec::with_capacity(records.len());
    for record in records {
        items.push(Task::brief(&app, record).await);
    }
    Ok(Json(TaskPage { items, next_cursor }))
}
