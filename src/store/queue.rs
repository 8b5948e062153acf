//! Ending tasks that no worker holds: cancelled or expired in the queue.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{Error, NewEvent, Store, document, events, opt_sql, sql};
use crate::domain::outcome::Outcome;
use crate::domain::plan::QueuedTask;
use crate::domain::state::TaskState;
use crate::failpoints::{self, Point};
use crate::ids::TaskId;

/// What a request to cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued, and is cancelled now.
    AtOnce,
    /// Its worker will stop it.
    Requested,
    /// It was terminal, or is being cancelled already.
    Unchanged(Option<TaskState>),
    NotFound,
}

impl Store {
    /// Asks for the end of a task. Works in every state.
    pub async fn cancel(&self, task: TaskId, by: &str, now: Timestamp) -> Result<Cancelled, Error> {
        let mut transaction = self.pool.begin().await?;
        let cancelled = cancel(&mut transaction, task, by, now).await?;
        failpoints::at(Point::CancelUncommitted);
        transaction.commit().await?;
        failpoints::at(Point::CancelCommitted);
        Ok(cancelled)
    }

    /// The queued tasks that have a deadline, the nearest first.
    pub async fn queued_with_deadline(&self, limit: i64) -> Result<Vec<QueuedTask>, Error> {
        let rows = sqlx::query!(
            "select task_id, queued_at, queue_deadline from live_tasks
             where state = 'queued' and queue_deadline is not null
             order by queue_deadline limit $1",
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| QueuedTask {
                task: TaskId::from_uuid(it.task_id),
                queued_at: it.queued_at.to_jiff(),
                queue_deadline: super::opt_jiff(it.queue_deadline),
            })
            .collect())
    }

    /// Ends tasks that are still queued. Those that a worker took meanwhile are left alone. Returns how
    /// many ended.
    pub async fn expire_queued(
        &self,
        tasks: &[TaskId],
        outcome: &Outcome,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let mut transaction = self.pool.begin().await?;
        let ended = end_queued(&mut transaction, tasks, outcome, now).await?;
        if ended > 0 {
            failpoints::at(Point::ExpireUncommitted);
        }
        transaction.commit().await?;
        failpoints::at(Point::ExpireCommitted);
        Ok(ended)
    }
}

/// What [`Store::cancel`] does, within a transaction.
pub(super) async fn cancel(
    connection: &mut PgConnection,
    task: TaskId,
    by: &str,
    now: Timestamp,
) -> Result<Cancelled, Error> {
    let row = sqlx::query!(
        "select state, stop_reason, attempt_no from live_tasks where task_id = $1 for update",
        task.uuid()
    )
    .fetch_optional(&mut *connection)
    .await?;
    let requested = |message: &str| NewEvent {
        at: now,
        source: "api",
        reason: "cancel_requested".to_owned(),
        message: format!("{message} by {by}"),
    };
    let cancelled = match row {
        None => {
            let state = sqlx::query_scalar!(
                "select coalesce(e.state, '') from task_specs s left join ended_tasks e using (task_id)
                 where s.task_id = $1",
                task.uuid()
            )
            .fetch_optional(&mut *connection)
            .await?;
            match state {
                None => Cancelled::NotFound,
                Some(state) => Cancelled::Unchanged(state.as_deref().and_then(TaskState::parse)),
            }
        }
        Some(row) if row.state == "queued" => {
            let event = requested("cancelled in the queue");
            events::insert(connection, task, row.attempt_no, &[event]).await?;
            let outcome = Outcome::cancelled("cancelled before it started");
            end_queued(connection, &[task], &outcome, now).await?;
            Cancelled::AtOnce
        }
        Some(row) if row.stop_reason.is_some() => {
            Cancelled::Unchanged(TaskState::parse(&row.state))
        }
        Some(row) => {
            sqlx::query!(
                "update live_tasks set stop_reason = 'cancel', stop_requested_at = $2 where task_id = $1",
                task.uuid(),
                sql(now)
            )
            .execute(&mut *connection)
            .await?;
            let event = requested("asked to stop");
            events::insert(connection, task, row.attempt_no, &[event]).await?;
            Cancelled::Requested
        }
    };
    Ok(cancelled)
}

pub(super) async fn end_queued(
    connection: &mut PgConnection,
    tasks: &[TaskId],
    outcome: &Outcome,
    now: Timestamp,
) -> Result<usize, Error> {
    let ids: Vec<_> = tasks.iter().map(|it| it.uuid()).collect();
    let failure = outcome.failure.as_ref().map(document).transpose()?;
    let ended = sqlx::query_scalar!(
        r#"
        with gone as (
            delete from live_tasks where task_id = any($1) and state = 'queued' returning *
        ), attempt as (
            insert into attempts
                (task_id, attempt_no, attempt_id, state, failure, target, keep_sandbox, queued_at, finished_at)
            select task_id, attempt_no, attempt_id, $2, $3::text::json, target, false,
                   coalesce(attempt_queued_at, queued_at), $4
            from gone
        ), ended as (
            insert into ended_tasks (task_id, state, attempt_no, failure, queued_at, started_at, finished_at)
            select task_id, $2, attempt_no, $3::text::json, queued_at, $5, $4 from gone
        ), told as (
            insert into run_inbox (run_id, node, item, task_id, state)
            select run_id, node, item, task_id, $2 from gone where run_id is not null
        )
        select count(*) as "count!" from gone
        "#,
        &ids,
        outcome.state.as_str(),
        failure,
        sql(now),
        opt_sql(None) as _,
    )
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(ended).unwrap_or_default())
}
