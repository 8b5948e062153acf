//! Reading runs: one statement sees a run either live or ended, never neither.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{Postgres, QueryBuilder};

use super::RunDefinition;
use super::plan::define;
use crate::domain::failure::Failure;
use crate::domain::state::{RunState, TaskState};
use crate::ids::{RunId, TaskId};
use crate::store::partitions::first_id_at;
use crate::store::{Error, Store, opt_jiff, parse_document};

/// A run as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    pub run: RunId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub state: RunState,
    pub cancel_requested: bool,
    pub failure: Option<Failure>,
    /// State of its tasks → how many, as of when it was planned last.
    pub counts: BTreeMap<String, u64>,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// Which runs to list, the newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub states: Vec<RunState>,
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub submitted_after: Option<Timestamp>,
    pub submitted_before: Option<Timestamp>,
    /// Only runs older than this one.
    pub before: Option<RunId>,
    pub limit: i64,
}

/// The tasks of one node of a run that are in one state.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    pub node: u32,
    pub state: TaskState,
    pub count: u64,
    /// The first of them.
    pub task: TaskId,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct Row {
    run_id: uuid::Uuid,
    name: String,
    labels: Option<Value>,
    state: Option<String>,
    wanted: Option<String>,
    failure: Option<Value>,
    counts: Option<Value>,
    queued_at: jiff_sqlx::Timestamp,
    started_at: Option<jiff_sqlx::Timestamp>,
    finished_at: Option<jiff_sqlx::Timestamp>,
}

const COLUMNS: &str = "
    select r.run_id, r.name, r.labels, coalesce(l.state, e.state) as state, l.wanted, e.failure,
           coalesce(l.counts, e.counts) as counts, r.queued_at,
           coalesce(l.started_at, e.started_at) as started_at, e.finished_at
    from runs r
    left join live_runs l on l.run_id = r.run_id
    left join ended_runs e on e.run_id = r.run_id
    where true";

impl Row {
    fn into_record(self) -> Result<RunRecord, Error> {
        let state = self.state.as_deref().and_then(RunState::parse);
        Ok(RunRecord {
            run: RunId::from_uuid(self.run_id),
            state: state
                .ok_or_else(|| Error::Corrupt(format!("run {} has no state", self.run_id)))?,
            name: self.name,
            labels: self
                .labels
                .map(|it| parse_document("labels", it))
                .transpose()?
                .unwrap_or_default(),
            cancel_requested: self.wanted.as_deref() == Some("cancel"),
            failure: self.failure.map(|it| parse_document("failure", it)).transpose()?,
            counts: self
                .counts
                .map(|it| parse_document("counts", it))
                .transpose()?
                .unwrap_or_default(),
            queued_at: self.queued_at.to_jiff(),
            started_at: opt_jiff(self.started_at),
            finished_at: opt_jiff(self.finished_at),
        })
    }
}

impl Store {
    pub async fn find_run(&self, run: RunId) -> Result<Option<RunRecord>, Error> {
        let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
        query.push(" and r.run_id = ").push_bind(run.uuid());
        let row: Option<Row> = query.build_query_as().fetch_optional(&self.pool).await?;
        row.map(Row::into_record).transpose()
    }

    pub async fn list_runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>, Error> {
        let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
        let text = |terminal: bool| -> Vec<String> {
            let of_kind = filter.states.iter().filter(|it| it.is_terminal() == terminal);
            of_kind.map(|it| it.as_str().to_owned()).collect()
        };
        let (live, ended) = (text(false), text(true));
        if !filter.states.is_empty() {
            if ended.is_empty() {
                query.push(" and l.state = any(").push_bind(live).push(")");
            } else if live.is_empty() {
                if !filter.states.contains(&RunState::Succeeded) {
                    query.push(" and e.state <> 'succeeded'");
                }
                query.push(" and e.state = any(").push_bind(ended).push(")");
            } else {
                query
                    .push(" and coalesce(l.state, e.state) = any(")
                    .push_bind([live, ended].concat())
                    .push(")");
            }
        }
        if let Some(name) = &filter.name {
            query.push(" and r.name = ").push_bind(name.clone());
        }
        if !filter.labels.is_empty() {
            let labels = serde_json::to_value(&filter.labels).unwrap_or_default();
            query.push(" and r.labels @> ").push_bind(labels);
        }
        if let Some(after) = filter.submitted_after {
            query.push(" and r.run_id >= ").push_bind(first_id_at(after));
        }
        let before = [filter.submitted_before.map(first_id_at), filter.before.map(RunId::uuid)];
        if let Some(before) = before.into_iter().flatten().min() {
            query.push(" and r.run_id < ").push_bind(before);
        }
        query.push(" order by r.run_id desc limit ").push_bind(filter.limit);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(Row::into_record).collect()
    }

    /// What a run was submitted with: its document and its params.
    pub async fn find_run_document(
        &self,
        run: RunId,
    ) -> Result<Option<(Value, Map<String, Value>)>, Error> {
        let row = sqlx::query!("select document, params from runs where run_id = $1", run.uuid())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|it| Ok((it.document, parse_document("params", it.params)?))).transpose()
    }

    /// All that is known of a run: what its plan is made of.
    pub async fn define_run(&self, run: RunId) -> Result<Option<RunDefinition>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut found = define(&mut connection, &[run.uuid()]).await?;
        Ok(found.remove(&run.uuid()))
    }

    /// The outputs that a run declares. None: it has not ended, or did not succeed.
    pub async fn find_run_result(&self, run: RunId) -> Result<Option<Map<String, Value>>, Error> {
        let result =
            sqlx::query_scalar!("select result from ended_runs where run_id = $1", run.uuid())
                .fetch_optional(&self.pool)
                .await?;
        result.flatten().map(|it| parse_document("result", it)).transpose()
    }

    /// How many tasks of a run that are made and have not ended are in each state.
    pub async fn live_tasks_of_run(&self, run: RunId) -> Result<BTreeMap<String, u64>, Error> {
        let rows = sqlx::query!(
            r#"select state, count(*) as "count!" from live_tasks where run_id = $1 group by state"#,
            run.uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|it| (it.state, it.count.unsigned_abs())).collect())
    }

    /// The tasks of a run that were made, by node and state.
    pub async fn run_nodes(&self, run: RunId) -> Result<Vec<NodeRecord>, Error> {
        let rows = sqlx::query!(
            r#"
            select s.node as "node!", coalesce(l.state, e.state) as "state!", count(*) as "count!",
                   (array_agg(s.task_id order by s.item))[1] as "task_id!",
                   min(coalesce(l.started_at, e.started_at)) as "started_at: jiff_sqlx::Timestamp",
                   max(e.finished_at) as "finished_at: jiff_sqlx::Timestamp"
            from task_specs s
            left join live_tasks l on l.task_id = s.task_id
            left join ended_tasks e on e.task_id = s.task_id
            where s.run_id = $1 and s.node is not null
            group by 1, 2 order by 1, 2
            "#,
            run.uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|it| {
                Ok(NodeRecord {
                    node: u32::try_from(it.node).unwrap_or_default(),
                    state: TaskState::parse(&it.state)
                        .ok_or_else(|| Error::Corrupt(format!("task state {:?}", it.state)))?,
                    count: it.count.unsigned_abs(),
                    task: TaskId::from_uuid(it.task_id),
                    started_at: opt_jiff(it.started_at),
                    finished_at: opt_jiff(it.finished_at),
                })
            })
            .collect()
    }
}
