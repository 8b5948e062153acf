//! Reading tasks: one statement sees a task either live or ended, never neither.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{Postgres, QueryBuilder};

use super::partitions::first_id_at;
use super::{Error, LogSeals, Store, opt_jiff, parse_document};
use crate::domain::failure::Failure;
use crate::domain::state::TaskState;
use crate::ids::{AttemptId, AttemptNo, RunId, TaskId};

/// A task as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    pub task: TaskId,
    pub run: RunId,
    pub name: String,
    pub image: String,
    pub target: String,
    pub labels: BTreeMap<String, String>,
    pub priority: i16,
    pub state: TaskState,
    pub attempt_no: AttemptNo,
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
    pub queued_at: Timestamp,
    pub claimed_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Queued, and not to be started before.
    pub not_before: Option<Timestamp>,
    pub stop_requested: bool,
    pub run_key: Option<String>,
    /// It starts after the end of this task.
    pub after_task: Option<TaskId>,
    /// Not over, and given to this engine.
    pub engine: Option<String>,
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    pub attempt: AttemptId,
    pub attempt_no: AttemptNo,
    pub state: TaskState,
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
    pub image_digest: Option<String>,
    pub node: Option<String>,
    pub sandbox: Option<String>,
    pub spec_hash: Option<String>,
    pub seals: LogSeals,
    pub queued_at: Timestamp,
    pub claimed_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
}

/// Which tasks to list, the newest first.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    pub states: Vec<TaskState>,
    pub name: Option<String>,
    pub target: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub run: Option<RunId>,
    pub submitted_after: Option<Timestamp>,
    pub submitted_before: Option<Timestamp>,
    /// Only tasks older than this one.
    pub before: Option<TaskId>,
    pub limit: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    task_id: uuid::Uuid,
    run_id: uuid::Uuid,
    name: String,
    image: String,
    target: String,
    labels: Option<serde_json::Value>,
    priority: i16,
    state: Option<String>,
    attempt_no: Option<i32>,
    exit_code: Option<i32>,
    failure: Option<serde_json::Value>,
    queued_at: Option<jiff_sqlx::Timestamp>,
    claimed_at: Option<jiff_sqlx::Timestamp>,
    started_at: Option<jiff_sqlx::Timestamp>,
    finished_at: Option<jiff_sqlx::Timestamp>,
    not_before: Option<jiff_sqlx::Timestamp>,
    stop_reason: Option<String>,
    run_key: Option<String>,
    after_task_id: Option<uuid::Uuid>,
    engine_id: Option<String>,
}

const COLUMNS: &str = "
    select s.task_id, s.run_id, s.name, s.image,
           coalesce(l.target, case when position('=' in s.target) > 0 then (
               select a.target from attempts a
               where a.task_id = s.task_id and a.attempt_no = e.attempt_no) end, s.target) as target,
           s.labels, s.priority,
           coalesce(l.state, e.state) as state, coalesce(l.attempt_no, e.attempt_no) as attempt_no,
           e.exit_code, e.failure, coalesce(l.queued_at, e.queued_at) as queued_at, l.claimed_at,
           coalesce(l.started_at, e.started_at) as started_at, e.finished_at, l.not_before, l.stop_reason,
           s.run_key, l.after_task_id, l.engine_id
    from task_specs s
    left join live_tasks l on l.task_id = s.task_id
    left join ended_tasks e on e.task_id = s.task_id
    where true";

impl Row {
    fn into_record(self) -> Result<TaskRecord, Error> {
        let broken = |what: &str| Error::Corrupt(format!("task {} has no {what}", self.task_id));
        let state =
            self.state.as_deref().and_then(TaskState::parse).ok_or_else(|| broken("state"))?;
        Ok(TaskRecord {
            task: TaskId::from_uuid(self.task_id),
            run: RunId::from_uuid(self.run_id),
            state,
            attempt_no: AttemptNo(self.attempt_no.ok_or_else(|| broken("attempt"))?),
            queued_at: opt_jiff(self.queued_at).ok_or_else(|| broken("time"))?,
            name: self.name,
            image: self.image,
            target: self.target,
            labels: self
                .labels
                .map(|it| parse_document("labels", it))
                .transpose()?
                .unwrap_or_default(),
            priority: self.priority,
            exit_code: self.exit_code,
            failure: self.failure.map(|it| parse_document("failure", it)).transpose()?,
            claimed_at: opt_jiff(self.claimed_at),
            started_at: opt_jiff(self.started_at),
            finished_at: opt_jiff(self.finished_at),
            not_before: opt_jiff(self.not_before),
            stop_requested: self.stop_reason.is_some(),
            run_key: self.run_key,
            after_task: self.after_task_id.map(TaskId::from_uuid),
            engine: self.engine_id,
        })
    }
}

impl Store {
    pub async fn find_task(&self, task: TaskId) -> Result<Option<TaskRecord>, Error> {
        let row = sqlx::query_as!(
            Row,
            r#"
            select s.task_id, s.run_id, s.name, s.image,
                   coalesce(l.target, case when position('=' in s.target) > 0 then (
                       select a.target from attempts a
                       where a.task_id = s.task_id and a.attempt_no = e.attempt_no) end, s.target)
                       as "target!",
                   s.labels, s.priority,
                   coalesce(l.state, e.state) as state, coalesce(l.attempt_no, e.attempt_no) as attempt_no,
                   e.exit_code as "exit_code?", e.failure as "failure?",
                   coalesce(l.queued_at, e.queued_at) as queued_at, l.claimed_at as "claimed_at?",
                   coalesce(l.started_at, e.started_at) as started_at, e.finished_at as "finished_at?",
                   l.not_before as "not_before?", l.stop_reason as "stop_reason?",
                   s.run_key, l.after_task_id as "after_task_id?", l.engine_id as "engine_id?"
            from task_specs s
            left join live_tasks l on l.task_id = s.task_id
            left join ended_tasks e on e.task_id = s.task_id
            where s.task_id = $1
            "#,
            task.uuid()
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Row::into_record).transpose()
    }

    /// Those of the tasks that there are, in no order.
    pub async fn find_tasks(&self, tasks: &[TaskId]) -> Result<Vec<TaskRecord>, Error> {
        let tasks: Vec<_> = tasks.iter().map(|it| it.uuid()).collect();
        let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
        query.push(" and s.task_id = any(").push_bind(tasks).push(")");
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(Row::into_record).collect()
    }

    pub async fn list_tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskRecord>, Error> {
        let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
        push_states(&mut query, &filter.states);
        if let Some(name) = &filter.name {
            query.push(" and s.name = ").push_bind(name.clone());
        }
        if let Some(target) = &filter.target {
            // Of a task that asked for labels it is the one that took it.
            query.push(" and (s.target = ").push_bind(target.clone());
            query.push(" or position('=' in s.target) > 0 and (l.target = ");
            query.push_bind(target.clone());
            query.push(
                " or exists (select from attempts a where a.task_id = s.task_id
                   and a.attempt_no = e.attempt_no and a.target = ",
            );
            query.push_bind(target.clone()).push(")))");
        }
        if let Some(run) = filter.run {
            query.push(" and s.run_id = ").push_bind(run.uuid());
            // Those by themselves have no index.
            query.push(" and s.node is not null");
        }
        if !filter.labels.is_empty() {
            let labels = serde_json::to_value(&filter.labels).unwrap_or_default();
            query.push(" and s.labels @> ").push_bind(labels);
        }
        if let Some(after) = filter.submitted_after {
            query.push(" and s.task_id >= ").push_bind(first_id_at(after));
        }
        let before = [filter.submitted_before.map(first_id_at), filter.before.map(TaskId::uuid)];
        if let Some(before) = before.into_iter().flatten().min() {
            query.push(" and s.task_id < ").push_bind(before);
        }
        query.push(" order by s.task_id desc limit ").push_bind(filter.limit);
        let rows: Vec<Row> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(Row::into_record).collect()
    }

    /// The attempts of a task that have ended, in order.
    pub async fn list_attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, Error> {
        let rows = sqlx::query!(
            "select a.attempt_id, a.attempt_no, a.state, a.exit_code, a.failure, a.image_digest, a.node,
                    a.sandbox, a.log, a.queued_at, a.claimed_at, a.started_at, a.finished_at,
                    coalesce(
                        (select o.spec_hash from superseded_specs o
                         where o.task_id = $1 and o.attempt_no >= a.attempt_no order by o.attempt_no limit 1),
                        (select s.spec_hash from task_specs s where s.task_id = $1)) as spec_hash
             from attempts a where a.task_id = $1 order by a.attempt_no",
            task.uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|it| {
                Ok(AttemptRecord {
                    attempt: AttemptId::from_uuid(it.attempt_id),
                    attempt_no: AttemptNo(it.attempt_no),
                    state: TaskState::parse(&it.state)
                        .ok_or_else(|| Error::Corrupt(format!("attempt state {:?}", it.state)))?,
                    exit_code: it.exit_code,
                    failure: it.failure.map(|it| parse_document("failure", it)).transpose()?,
                    image_digest: it.image_digest,
                    node: it.node,
                    sandbox: it.sandbox,
                    spec_hash: it.spec_hash,
                    seals: it
                        .log
                        .map(|it| parse_document("log seal", it))
                        .transpose()?
                        .unwrap_or_default(),
                    queued_at: it.queued_at.to_jiff(),
                    claimed_at: opt_jiff(it.claimed_at),
                    started_at: opt_jiff(it.started_at),
                    finished_at: it.finished_at.to_jiff(),
                })
            })
            .collect()
    }
}

/// Each kind of state is in one table: naming the table lets its index drive the search.
fn push_states(query: &mut QueryBuilder<Postgres>, states: &[TaskState]) {
    if states.is_empty() {
        return;
    }
    let text = |terminal: bool| -> Vec<String> {
        let of_kind = states.iter().filter(|it| it.is_terminal() == terminal);
        of_kind.map(|it| it.as_str().to_owned()).collect()
    };
    let (live, ended) = (text(false), text(true));
    if ended.is_empty() {
        query.push(" and l.state = any(").push_bind(live).push(")");
    } else if live.is_empty() {
        if !states.contains(&TaskState::Succeeded) {
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
