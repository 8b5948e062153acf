//! What the holder of an attempt writes. Each write names its fence; a stale one changes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{Error, NewChunk, NewEvent, Store, document, events, logs, opt_sql, outputs, sql};
use crate::domain::failure::Budget;
use crate::domain::outcome::{Outcome, Output};
use crate::failpoints::{self, Guard, Point};
use crate::ids::{AttemptId, Fence, TaskId};

/// Says how complete the stored log of one container is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogSeal {
    pub bytes: u64,
    /// More was written than the limit takes; head and tail are kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Some of it could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// Container → seal.
pub type LogSeals = BTreeMap<String, LogSeal>;

/// The end of an attempt: everything that becomes visible at once.
#[derive(Debug, Clone)]
pub struct AttemptEnd {
    pub outcome: Outcome,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// Where it ended before it was written that it runs.
    pub handle: Option<serde_json::Value>,
    pub image_digest: Option<String>,
    /// The machine that it ran on, and the name of its sandbox there, for people.
    pub node: Option<String>,
    pub sandbox: Option<String>,
    pub outputs: Vec<Output>,
    pub seals: LogSeals,
    /// The last chunks of the log, not stored yet.
    pub chunks: Vec<NewChunk>,
    pub events: Vec<NewEvent>,
    pub keep_sandbox: bool,
    /// Another attempt follows, instead of the end of the task.
    pub requeue: Option<Requeue>,
}

#[derive(Debug, Clone)]
pub struct Requeue {
    pub attempt: AttemptId,
    pub not_before: Timestamp,
    /// Which of the task's budgets it costs.
    pub budget: Budget,
}

/// Whether the end was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Done,
    /// A stop was requested since: there must be no other attempt. Nothing was written.
    StopRequested,
}

impl Store {
    /// Writes that the sandbox runs.
    pub async fn record_running(
        &self,
        task: TaskId,
        fence: Fence,
        started_at: Timestamp,
        handle: &serde_json::Value,
        image_digest: Option<&str>,
        new_events: &[NewEvent],
    ) -> Result<(), Error> {
        let fence = self.fence(task, fence).await?;
        let mut transaction = self.pool.begin().await?;
        let attempt_no = sqlx::query_scalar!(
            "update live_tasks
             set state = 'running', started_at = coalesce(started_at, $3), handle = $4::text::json,
                 image_digest = coalesce($5, image_digest)
             where task_id = $1 and fence = $2
             returning attempt_no",
            task.uuid(),
            fence.0,
            sql(started_at),
            document(handle)?,
            image_digest,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(Error::Fenced)?;
        events::insert(&mut transaction, task, attempt_no, new_events).await?;
        failpoints::at(Point::RunningUncommitted);
        transaction.commit().await?;
        failpoints::at(Point::RunningCommitted);
        Ok(())
    }

    /// Writes that the sandbox has ended, where storing what it left takes a while.
    pub async fn record_finishing(&self, task: TaskId, fence: Fence) -> Result<(), Error> {
        let fence = self.fence(task, fence).await?;
        let updated = sqlx::query!(
            "update live_tasks set state = 'finishing' where task_id = $1 and fence = $2",
            task.uuid(),
            fence.0,
        )
        .execute(&self.pool)
        .await?;
        failpoints::at(Point::FinishingCommitted);
        if updated.rows_affected() == 0 { Err(Error::Fenced) } else { Ok(()) }
    }

    /// Writes the end of an attempt: state, outputs, log seal and last chunks, events, and the next
    /// attempt if there is to be one. All of it or nothing.
    pub async fn finish_attempt(
        &self,
        task: TaskId,
        fence: Fence,
        end: &AttemptEnd,
    ) -> Result<Recorded, Error> {
        let fence = self.fence(task, fence).await?;
        if end.outputs.is_empty()
            && end.chunks.is_empty()
            && end.events.is_empty()
            && end.requeue.is_none()
        {
            // The common case of a task without output, in one round trip.
            let mut connection = self.pool.acquire().await?;
            let recorded = end_task(&mut connection, task, fence, end).await;
            failpoints::at(Point::RecordCommitted);
            return recorded;
        }
        let mut transaction = self.pool.begin().await?;
        let attempt_no = sqlx::query_scalar!(
            "select attempt_no from live_tasks where task_id = $1 and fence = $2 for update",
            task.uuid(),
            fence.0
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(Error::Fenced)?;
        logs::insert(&mut transaction, task, attempt_no, &end.chunks).await?;
        outputs::insert(&mut transaction, task, attempt_no, &end.outputs).await?;
        events::insert(&mut transaction, task, attempt_no, &end.events).await?;
        let recorded = match &end.requeue {
            None => end_task(&mut transaction, task, fence, end).await?,
            Some(next) => requeue(&mut transaction, task, fence, end, next).await?,
        };
        match recorded {
            Recorded::Done => {
                failpoints::at(Point::RecordUncommitted);
                transaction.commit().await?;
                failpoints::at(Point::RecordCommitted);
            }
            Recorded::StopRequested => transaction.rollback().await?,
        }
        Ok(recorded)
    }

    /// The fence to write under: the caller's own.
    pub(super) async fn fence(&self, task: TaskId, own: Fence) -> Result<Fence, Error> {
        if failpoints::holds(Guard::Fence) {
            return Ok(own);
        }
        let current =
            sqlx::query_scalar!("select fence from live_tasks where task_id = $1", task.uuid())
                .fetch_optional(&self.pool)
                .await?;
        Ok(current.map_or(own, Fence))
    }
}

async fn end_task(
    connection: &mut PgConnection,
    task: TaskId,
    fence: Fence,
    end: &AttemptEnd,
) -> Result<Recorded, Error> {
    let failure = end.outcome.failure.as_ref().map(document).transpose()?;
    let seals = document(&end.seals)?;
    let handle = end.handle.as_ref().map(document).transpose()?;
    let gone = sqlx::query_scalar!(
        r#"
        with gone as (
            delete from live_tasks where task_id = $1 and fence = $2 returning *
        ), attempt as (
            insert into attempts
                (task_id, attempt_no, attempt_id, state, exit_code, failure, target, engine_id, worker_id,
                 handle, image_digest, keep_sandbox, log, queued_at, claimed_at, started_at, finished_at,
                 node, sandbox, unconfirmed)
            select task_id, attempt_no, attempt_id, $3, $4, $5::text::json, target, engine_id, worker_id,
                   coalesce(handle, $10::text::json), coalesce(image_digest, $11), $6, $7::text::json,
                   coalesce(attempt_queued_at, queued_at), claimed_at, coalesce($8, started_at), $9,
                   $12, $13, $14
            from gone
        ), ended as (
            insert into ended_tasks
                (task_id, state, attempt_no, exit_code, failure, queued_at, started_at, finished_at)
            select task_id, $3, attempt_no, $4, $5::text::json, queued_at, coalesce($8, started_at), $9
            from gone
        ), told as (
            insert into run_inbox (run_id, node, item, task_id, state)
            select run_id, node, item, task_id, $3 from gone where run_id is not null
        )
        select count(*) as "count!" from gone
        "#,
        task.uuid(),
        fence.0,
        end.outcome.state.as_str(),
        end.outcome.exit_code,
        failure,
        end.keep_sandbox,
        seals,
        opt_sql(end.started_at) as _,
        sql(end.finished_at),
        handle,
        end.image_digest,
        end.node,
        end.sandbox,
        end.outcome.unconfirmed,
    )
    .fetch_one(connection)
    .await?;
    if gone == 0 { Err(Error::Fenced) } else { Ok(Recorded::Done) }
}

async fn requeue(
    connection: &mut PgConnection,
    task: TaskId,
    fence: Fence,
    end: &AttemptEnd,
    next: &Requeue,
) -> Result<Recorded, Error> {
    let failure = end.outcome.failure.as_ref().map(document).transpose()?;
    let seals = document(&end.seals)?;
    let handle = end.handle.as_ref().map(document).transpose()?;
    sqlx::query!(
        r#"
        insert into attempts
            (task_id, attempt_no, attempt_id, state, exit_code, failure, target, engine_id, worker_id,
             handle, image_digest, keep_sandbox, log, queued_at, claimed_at, started_at, finished_at,
             node, sandbox, unconfirmed)
        select task_id, attempt_no, attempt_id, $3, $4, $5::text::json, target, engine_id, worker_id,
               coalesce(handle, $10::text::json), coalesce(image_digest, $11), $6, $7::text::json,
               coalesce(attempt_queued_at, queued_at), claimed_at, coalesce($8, started_at), $9,
               $12, $13, $14
        from live_tasks where task_id = $1 and fence = $2
        "#,
        task.uuid(),
        fence.0,
        end.outcome.state.as_str(),
        end.outcome.exit_code,
        failure,
        end.keep_sandbox,
        seals,
        opt_sql(end.started_at) as _,
        sql(end.finished_at),
        handle,
        end.image_digest,
        end.node,
        end.sandbox,
        end.outcome.unconfirmed,
    )
    .execute(&mut *connection)
    .await?;
    let moved = sqlx::query!(
        "update live_tasks
         set state = 'queued', worker_id = null, engine_id = null, claimed_at = null, started_at = null,
             handle = null, image_digest = null, attempt_id = $3, attempt_no = attempt_no + 1,
             user_failures = user_failures + $5, platform_failures = platform_failures + $6,
             not_before = $4, queue_deadline = null,
             -- Any that has the labels may take it; but where the end could not be confirmed, the one that can
             -- be asked about it.
             target = case when $8 then target
                 else (select s.target from task_specs s where s.task_id = $1) end, attempt_queued_at = $7, fence = fence + 1,
             unconfirmed = case when $8
                 then json_build_object('attempt', attempt_id, 'engine', coalesce(engine_id, '')) end
         where task_id = $1 and fence = $2 and stop_reason is null",
        task.uuid(),
        fence.0,
        next.attempt.uuid(),
        sql(next.not_before),
        i32::from(next.budget == Budget::User),
        i32::from(next.budget == Budget::Platform),
        sql(end.finished_at),
        end.outcome.unconfirmed,
    )
    .execute(connection)
    .await?;
    // The row is locked by this transaction: it is there, so it must be the stop.
    Ok(if moved.rows_affected() == 0 { Recorded::StopRequested } else { Recorded::Done })
}
