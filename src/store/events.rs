//! What happened to a task beyond what its columns tell.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{Error, Store};
use crate::ids::{AttemptNo, Fence, TaskId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Timestamp,
    /// Who saw it: `api`, `scheduler`, `worker`, or the kind of the backend.
    pub source: &'static str,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    pub at: Timestamp,
    pub attempt_no: AttemptNo,
    pub source: String,
    pub reason: String,
    pub message: String,
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    task: TaskId,
    attempt_no: i32,
    events: &[NewEvent],
) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = events.iter().map(|_| uuid::Uuid::now_v7()).collect();
    let times: Vec<_> = events.iter().map(|it| super::sql(it.at)).collect();
    let sources: Vec<_> = events.iter().map(|it| it.source.to_owned()).collect();
    let reasons: Vec<_> = events.iter().map(|it| it.reason.clone()).collect();
    // Engines put anything into their messages; text columns take no NUL.
    let messages: Vec<_> = events.iter().map(|it| it.message.replace('\0', "\u{fffd}")).collect();
    sqlx::query!(
        "insert into task_events (task_id, event_id, attempt_no, at, source, reason, message)
         select $1, e.id, $2, e.at, e.source, e.reason, e.message
         from unnest($3::uuid[], $4::timestamptz[], $5::text[], $6::text[], $7::text[])
              as e (id, at, source, reason, message)",
        task.uuid(),
        attempt_no,
        &ids,
        &times as _,
        &sources,
        &reasons,
        &messages,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
    /// Adds events of an attempt that the caller holds.
    pub async fn append_events(
        &self,
        task: TaskId,
        fence: Fence,
        attempt_no: AttemptNo,
        events: &[NewEvent],
    ) -> Result<(), Error> {
        let fence = self.fence(task, fence).await?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query_scalar!(
            "select 1 from live_tasks where task_id = $1 and fence = $2 for key share",
            task.uuid(),
            fence.0
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(Error::Fenced)?;
        insert(&mut transaction, task, attempt_no.0, events).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub async fn list_events(&self, task: TaskId) -> Result<Vec<EventRecord>, Error> {
        let rows = sqlx::query!(
            "select at, attempt_no, source, reason, message from task_events
             where task_id = $1 order by at, event_id limit 10000",
            task.uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| EventRecord {
                at: it.at.to_jiff(),
                attempt_no: AttemptNo(it.attempt_no),
                source: it.source,
                reason: it.reason,
                message: it.message,
            })
            .collect())
    }
}
