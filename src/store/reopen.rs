//! A new attempt of a task that has ended.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::submit::queue_deadline;
use super::{Error, NewEvent, Store, document, events, opt_sql, parse_document, sql};
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::failpoints::{self, Point};
use crate::ids::{AttemptId, AttemptNo, TaskId};

/// How a task that has ended goes on.
#[derive(Debug, Clone)]
pub struct Reopening<'a> {
    pub attempt: AttemptId,
    /// What to run from now on. None: the same.
    pub spec: Option<(&'a TaskSpec, &'a SpecHash)>,
    /// Only if this is its last attempt.
    pub from_attempt: Option<AttemptNo>,
    /// Who asked for it, for the events.
    pub message: String,
}

impl Store {
    /// Opens a new attempt, with fresh budgets, of a task that failed or was cancelled or skipped. False:
    /// it is no such task, and nothing happened.
    pub async fn retry(
        &self,
        task: TaskId,
        reopening: &Reopening<'_>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let reopened = reopen(&mut transaction, task, reopening, now).await?;
        failpoints::at(Point::RetryUncommitted);
        transaction.commit().await?;
        failpoints::at(Point::RetryCommitted);
        Ok(reopened)
    }

    /// The validated document that an attempt of a task ran, as it was stored. None: there is no such task.
    pub async fn find_spec(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
    ) -> Result<Option<TaskSpec>, Error> {
        let spec = sqlx::query_scalar!(
            r#"
            select coalesce(
                (select o.spec from superseded_specs o
                 where o.task_id = s.task_id and o.attempt_no >= $2 order by o.attempt_no limit 1),
                s.spec) as spec
            from task_specs s where s.task_id = $1
            "#,
            task.uuid(),
            attempt.map(|it| it.0),
        )
        .fetch_optional(&self.pool)
        .await?;
        // A task that could not be made has none.
        spec.flatten().map(|it| parse_document("spec", it)).transpose()
    }
}

pub(super) async fn reopen(
    connection: &mut PgConnection,
    task: TaskId,
    reopening: &Reopening<'_>,
    now: Timestamp,
) -> Result<bool, Error> {
    let ended = sqlx::query!(
        r#"
        delete from ended_tasks
        where task_id = $1 and state in ('failed', 'skipped', 'cancelled')
          and ($2::integer is null or attempt_no = $2)
          -- A task of a run goes on with it, or not at all.
          and not exists (
              select from task_specs s where s.task_id = $1 and s.node is not null
              and (s.spec is null or not exists (select from live_runs l where l.run_id = s.run_id)))
        returning attempt_no, queued_at
        "#,
        task.uuid(),
        reopening.from_attempt.map(|it| it.0),
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(ended) = ended else { return Ok(false) };
    let stored: Option<TaskSpec>;
    let spec = if let Some((spec, hash)) = reopening.spec {
        replace_spec(connection, task, ended.attempt_no, spec, hash).await?;
        Some(spec)
    } else {
        let spec = sqlx::query_scalar!(
            r#"select spec as "spec!" from task_specs where task_id = $1"#,
            task.uuid()
        )
        .fetch_one(&mut *connection)
        .await?;
        stored = Some(parse_document("spec", spec)?);
        stored.as_ref()
    };
    let deadline = spec.and_then(|it| queue_deadline(it, now));
    sqlx::query!(
        "insert into live_tasks
             (task_id, state, priority, target, queued_at, queue_deadline, attempt_id, attempt_no,
              attempt_queued_at, fence, unconfirmed, run_id, node, item)
         select s.task_id, 'queued', s.priority,
                case when position('=' in s.target) > 0 then coalesce(
                    (select a.target from attempts a
                     where a.task_id = $1 and a.unconfirmed order by a.attempt_no desc limit 1),
                    s.target) else s.target end,
                $2, $3, $4, $5, $6, $7,
                (select json_build_object('attempt', a.attempt_id, 'engine', coalesce(a.engine_id, ''))
                 from attempts a where a.task_id = $1 and a.unconfirmed order by a.attempt_no desc limit 1),
                case when s.node is not null then s.run_id end, s.node, s.item
         from task_specs s where s.task_id = $1",
        task.uuid(),
        ended.queued_at as _,
        opt_sql(deadline) as _,
        reopening.attempt.uuid(),
        ended.attempt_no + 1,
        sql(now),
        first_fence(ended.attempt_no),
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "insert into run_inbox (run_id, node, item, task_id)
         select run_id, node, item, task_id from live_tasks where task_id = $1 and run_id is not null",
        task.uuid(),
    )
    .execute(&mut *connection)
    .await?;
    let event = NewEvent {
        at: now,
        source: "api",
        reason: "retry_requested".to_owned(),
        message: reopening.message.clone(),
    };
    events::insert(connection, task, ended.attempt_no + 1, &[event]).await?;
    Ok(true)
}

/// Higher than any fence that a holder of the attempts so far may have: one of them may still write. They are not
/// stored with what has ended, so each attempt that somebody asks for begins its own range.
const fn first_fence(attempts: i32) -> i64 {
    (attempts as i64) << 32
}

/// The document from now on; that of the attempts so far is kept.
async fn replace_spec(
    connection: &mut PgConnection,
    task: TaskId,
    last_attempt: i32,
    spec: &TaskSpec,
    hash: &SpecHash,
) -> Result<(), Error> {
    let labels = (!spec.labels.is_empty()).then(|| document(&spec.labels)).transpose()?;
    sqlx::query!(
        r#"
        with changed as (
            select * from task_specs where task_id = $1 and spec_hash <> $4
        ), kept as (
            insert into superseded_specs (task_id, attempt_no, spec, spec_hash)
            select task_id, $2, spec, spec_hash from changed
        )
        update task_specs s
        set spec = $3::text::json, spec_hash = $4, name = $5, image = $6, target = $7, priority = $8,
            labels = $9::text::jsonb
        from changed where s.task_id = changed.task_id and s.task_id = $1
        "#,
        task.uuid(),
        last_attempt,
        document(spec)?,
        hash.as_str(),
        spec.name,
        spec.image,
        spec.target.to_string(),
        spec.priority,
        labels,
    )
    .execute(connection)
    .await?;
    Ok(())
}
