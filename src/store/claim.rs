//! Giving tasks to workers: from the queue, back to the worker that had them, or from a dead one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{Error, Store, opt_jiff, parse_document};
use crate::domain::attempt::Phase;
use crate::domain::outcome::StopReason;
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::failpoints::{self, Point};
use crate::ids::{AttemptId, AttemptNo, Fence, RunId, TaskId, WorkerId};

/// A target that can be asked now, and how many more tasks it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimTarget {
    pub name: String,
    pub engine: String,
    pub slots: i64,
    /// Labels that tasks wait for and that it has, in the text of
    /// [`Placement`](crate::domain::target::Placement).
    pub selectors: Vec<String>,
}

/// An attempt that ended in the books while nobody could ask its engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    pub attempt: AttemptId,
    pub engine: String,
}

/// A task that is now held by the worker that asked.
#[derive(Debug, Clone)]
pub struct ClaimedTask {
    pub task: TaskId,
    pub run: RunId,
    pub attempt: AttemptId,
    pub attempt_no: AttemptNo,
    pub fence: Fence,
    pub phase: Phase,
    pub target: String,
    pub engine: String,
    pub stop: Option<StopReason>,
    pub started_at: Option<Timestamp>,
    pub user_failures: u32,
    pub platform_failures: u32,
    /// An earlier attempt that may still run: its sandbox has to go first.
    pub unconfirmed: Option<Unconfirmed>,
    /// An error where a newer or broken binary wrote it.
    pub spec: Result<TaskSpec, String>,
    pub spec_hash: SpecHash,
    /// Its run is a workflow's, which goes on by its end.
    pub is_planned: bool,
}

struct Row {
    task_id: uuid::Uuid,
    run_id: uuid::Uuid,
    attempt_id: uuid::Uuid,
    attempt_no: i32,
    fence: i64,
    state: String,
    target: String,
    engine_id: Option<String>,
    stop_reason: Option<String>,
    started_at: Option<jiff_sqlx::Timestamp>,
    user_failures: i32,
    platform_failures: i32,
    unconfirmed: Option<serde_json::Value>,
    spec: serde_json::Value,
    spec_hash: String,
    is_planned: bool,
}

impl Row {
    fn into_claimed(self) -> Result<ClaimedTask, Error> {
        let phase = Phase::parse(&self.state).ok_or_else(|| {
            Error::Corrupt(format!("task {} is in state {:?}", self.task_id, self.state))
        })?;
        Ok(ClaimedTask {
            task: TaskId::from_uuid(self.task_id),
            run: RunId::from_uuid(self.run_id),
            attempt: AttemptId::from_uuid(self.attempt_id),
            attempt_no: AttemptNo(self.attempt_no),
            fence: Fence(self.fence),
            phase,
            target: self.target,
            engine: self.engine_id.unwrap_or_default(),
            stop: self.stop_reason.as_deref().and_then(StopReason::parse),
            started_at: opt_jiff(self.started_at),
            user_failures: u32::try_from(self.user_failures).unwrap_or_default(),
            platform_failures: u32::try_from(self.platform_failures).unwrap_or_default(),
            unconfirmed: self
                .unconfirmed
                .map(|it| parse_document("unconfirmed attempt", it))
                .transpose()?,
            spec: serde_json::from_value(self.spec).map_err(|it| it.to_string()),
            spec_hash: parse_document("spec hash", serde_json::Value::String(self.spec_hash))?,
            is_planned: self.is_planned,
        })
    }
}

impl Store {
    /// Takes queued tasks, by priority, then age: no more for each target than it has slots.
    pub async fn claim(
        &self,
        worker: WorkerId,
        targets: &[ClaimTarget],
    ) -> Result<Vec<ClaimedTask>, Error> {
        let (by_name, by_labels): (Vec<_>, Vec<_>) =
            targets.iter().partition(|it| it.selectors.is_empty());
        let rows = if by_labels.is_empty() {
            // The one statement is its own transaction.
            let mut connection = self.pool.acquire().await?;
            claim_by_name(&mut connection, worker, &by_name).await?
        } else {
            let mut transaction = self.pool.begin().await?;
            let mut rows = claim_by_name(&mut transaction, worker, &by_name).await?;
            for target in by_labels {
                rows.extend(claim_by_labels(&mut transaction, worker, target).await?);
            }
            transaction.commit().await?;
            rows
        };
        if !rows.is_empty() {
            failpoints::at(Point::ClaimCommitted);
        }
        rows.into_iter().map(Row::into_claimed).collect()
    }

    /// The labels that queued tasks wait for, each once: as many looks into the index as there are different
    /// targets in the queue.
    pub async fn queued_selectors(&self) -> Result<Vec<String>, Error> {
        let targets = sqlx::query_scalar!(
            r#"
            with recursive queued as (
                (select target from live_tasks where state = 'queued' order by target limit 1)
                union all
                select (select l.target from live_tasks l
                        where l.state = 'queued' and l.target > q.target order by l.target limit 1)
                from queued q where q.target is not null
            )
            select target as "target!" from queued where position('=' in target) > 0
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(targets)
    }

    /// Takes back what this worker holds and nobody drives: everything after a restart, and what it took
    /// in a statement whose answer was lost. `driven` stays as it is.
    pub async fn take_own(
        &self,
        worker: WorkerId,
        driven: &[TaskId],
    ) -> Result<Vec<ClaimedTask>, Error> {
        let driven: Vec<_> = driven.iter().map(|it| it.uuid()).collect();
        let rows = sqlx::query_as!(
            Row,
            r#"
            with taken as (
                update live_tasks set fence = fence + 1
                where worker_id = $1 and task_id <> all($2)
                returning *
            )
            select c.task_id as "task_id!", s.run_id as "run_id!", c.attempt_id as "attempt_id!",
                   c.attempt_no as "attempt_no!", c.fence as "fence!", c.state as "state!",
                   c.target as "target!", c.engine_id, c.stop_reason, c.started_at,
                   c.user_failures as "user_failures!", c.platform_failures as "platform_failures!",
                   c.unconfirmed, s.spec as "spec!", s.spec_hash as "spec_hash!",
                   s.node is not null as "is_planned!"
            from taken c join task_specs s on s.task_id = c.task_id
            "#,
            worker.uuid(),
            &driven,
        )
        .fetch_all(&self.pool)
        .await?;
        if !rows.is_empty() {
            failpoints::at(Point::TakeCommitted);
        }
        rows.into_iter().map(Row::into_claimed).collect()
    }

    /// Takes a task again that this worker holds, to begin with it anew. None: it holds it no more.
    pub async fn retake(
        &self,
        worker: WorkerId,
        task: TaskId,
    ) -> Result<Option<ClaimedTask>, Error> {
        let row = sqlx::query_as!(
            Row,
            r#"
            with taken as (
                update live_tasks set fence = fence + 1 where task_id = $2 and worker_id = $1 returning *
            )
            select c.task_id as "task_id!", s.run_id as "run_id!", c.attempt_id as "attempt_id!",
                   c.attempt_no as "attempt_no!", c.fence as "fence!", c.state as "state!",
                   c.target as "target!", c.engine_id, c.stop_reason, c.started_at,
                   c.user_failures as "user_failures!", c.platform_failures as "platform_failures!",
                   c.unconfirmed, s.spec as "spec!", s.spec_hash as "spec_hash!",
                   s.node is not null as "is_planned!"
            from taken c join task_specs s on s.task_id = c.task_id
            "#,
            worker.uuid(),
            task.uuid(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Row::into_claimed).transpose()
    }

    /// Whether the attempt is still held under this fence.
    pub async fn holds(&self, task: TaskId, fence: Fence) -> Result<bool, Error> {
        let row = sqlx::query_scalar!(
            r#"select 1 as "one!" from live_tasks where task_id = $1 and fence = $2"#,
            task.uuid(),
            fence.0
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.is_some())
    }

    /// Puts a task back into the queue that was certainly not started: the same attempt waits again.
    pub async fn unclaim(&self, task: TaskId, fence: Fence) -> Result<(), Error> {
        let updated = sqlx::query!(
            "update live_tasks
             set state = 'queued', worker_id = null, engine_id = null, claimed_at = null, fence = fence + 1,
                 not_before = now() + interval '1 second',
                 target = case when unconfirmed is null
                     then (select s.target from task_specs s where s.task_id = $1) else target end
             where task_id = $1 and fence = $2 and state = 'starting'",
            task.uuid(),
            fence.0,
        )
        .execute(&self.pool)
        .await?;
        failpoints::at(Point::UnclaimCommitted);
        if updated.rows_affected() == 0 { Err(Error::Fenced) } else { Ok(()) }
    }

    /// Takes over from workers whose lease has expired what this one can reach: only tasks that were given
    /// to an engine that it is connected to.
    pub async fn take_expired(
        &self,
        worker: WorkerId,
        lease_secs: f64,
        targets: &[ClaimTarget],
    ) -> Result<Vec<ClaimedTask>, Error> {
        let names: Vec<String> = targets.iter().map(|it| it.name.clone()).collect();
        let engines: Vec<String> = targets.iter().map(|it| it.engine.clone()).collect();
        let rows = sqlx::query_as!(
            Row,
            r#"
            with dead as (
                select id from workers
                where heartbeat_at < now() - make_interval(secs => $2) and id <> $1
            ), picked as (
                select l.task_id from live_tasks l
                join unnest($3::text[], $4::text[]) as t (target, engine)
                  on l.target = t.target and l.engine_id = t.engine
                where l.worker_id in (select id from dead)
                limit 1000
                for update of l skip locked
            ), taken as (
                update live_tasks l set worker_id = $1, fence = l.fence + 1
                from picked p where l.task_id = p.task_id
                returning l.*
            )
            select c.task_id as "task_id!", s.run_id as "run_id!", c.attempt_id as "attempt_id!",
                   c.attempt_no as "attempt_no!", c.fence as "fence!", c.state as "state!",
                   c.target as "target!", c.engine_id, c.stop_reason, c.started_at,
                   c.user_failures as "user_failures!", c.platform_failures as "platform_failures!",
                   c.unconfirmed, s.spec as "spec!", s.spec_hash as "spec_hash!",
                   s.node is not null as "is_planned!"
            from taken c join task_specs s on s.task_id = c.task_id
            "#,
            worker.uuid(),
            lease_secs,
            &names,
            &engines,
        )
        .fetch_all(&self.pool)
        .await?;
        if !rows.is_empty() {
            failpoints::at(Point::TakeCommitted);
        }
        rows.into_iter().map(Row::into_claimed).collect()
    }
}

async fn claim_by_name(
    connection: &mut PgConnection,
    worker: WorkerId,
    targets: &[&ClaimTarget],
) -> Result<Vec<Row>, Error> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = targets.iter().map(|it| it.name.clone()).collect();
    let engines: Vec<String> = targets.iter().map(|it| it.engine.clone()).collect();
    let slots: Vec<i64> = targets.iter().map(|it| it.slots).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"
        with picked as (
            select q.task_id, t.engine
            from unnest($2::text[], $3::text[], $4::bigint[]) as t (target, engine, slots)
            cross join lateral (
                select l.task_id from live_tasks l
                where l.state = 'queued' and l.target = t.target
                  and (l.not_before is null or l.not_before <= now())
                  and (l.after_task_id is null
                       or not exists (select from live_tasks b where b.task_id = l.after_task_id))
                order by l.priority desc, l.task_id
                limit t.slots
                for update skip locked
            ) q
        ), claimed as (
            update live_tasks l
            set state = 'starting', worker_id = $1, engine_id = p.engine, fence = l.fence + 1,
                claimed_at = now()
            from picked p
            where l.task_id = p.task_id
            returning l.*
        )
        select c.task_id as "task_id!", s.run_id as "run_id!", c.attempt_id as "attempt_id!",
               c.attempt_no as "attempt_no!", c.fence as "fence!", c.state as "state!",
               c.target as "target!", c.engine_id, c.stop_reason, c.started_at,
               c.user_failures as "user_failures!", c.platform_failures as "platform_failures!",
               c.unconfirmed, s.spec as "spec!", s.spec_hash as "spec_hash!",
                   s.node is not null as "is_planned!"
        from claimed c join task_specs s on s.task_id = c.task_id
        order by c.priority desc, c.task_id
        "#,
        worker.uuid(),
        &names,
        &engines,
        &slots,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// One target that tasks may name or ask for by its labels: the best of several queues.
async fn claim_by_labels(
    connection: &mut PgConnection,
    worker: WorkerId,
    target: &ClaimTarget,
) -> Result<Vec<Row>, Error> {
    let mut queues = target.selectors.clone();
    queues.push(target.name.clone());
    let rows = sqlx::query_as!(
        Row,
        r#"
        with candidates as (
            select q.task_id, q.priority
            from unnest($2::text[]) as t (queue)
            cross join lateral (
                select l.task_id, l.priority from live_tasks l
                where l.state = 'queued' and l.target = t.queue
                  and (l.not_before is null or l.not_before <= now())
                  and (l.after_task_id is null
                       or not exists (select from live_tasks b where b.task_id = l.after_task_id))
                order by l.priority desc, l.task_id
                limit $5
                for update skip locked
            ) q
        ), picked as (
            select task_id from candidates order by priority desc, task_id limit $5
        ), claimed as (
            update live_tasks l
            set state = 'starting', worker_id = $1, engine_id = $4, target = $3, fence = l.fence + 1,
                claimed_at = now()
            from picked p
            where l.task_id = p.task_id
            returning l.*
        )
        select c.task_id as "task_id!", s.run_id as "run_id!", c.attempt_id as "attempt_id!",
               c.attempt_no as "attempt_no!", c.fence as "fence!", c.state as "state!",
               c.target as "target!", c.engine_id, c.stop_reason, c.started_at,
               c.user_failures as "user_failures!", c.platform_failures as "platform_failures!",
               c.unconfirmed, s.spec as "spec!", s.spec_hash as "spec_hash!",
                   s.node is not null as "is_planned!"
        from claimed c join task_specs s on s.task_id = c.task_id
        order by c.priority desc, c.task_id
        "#,
        worker.uuid(),
        &queues,
        target.name,
        target.engine,
        target.slots,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
