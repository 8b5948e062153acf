//! What was asked of the attempts that a worker holds, and what became of attempts it finds.

use std::collections::HashMap;

use super::{Error, Store};
use crate::domain::outcome::StopReason;
use crate::ids::{AttemptId, TaskId, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRequest {
    pub task: TaskId,
    pub reason: StopReason,
}

/// What the database says of the attempt that a sandbox was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFate {
    /// It is the live attempt of its task.
    Live,
    /// It is accounted for.
    Ended { keep_sandbox: bool },
}

impl Store {
    /// The stops that are wanted of this worker's attempts.
    pub async fn stop_requests(&self, worker: WorkerId) -> Result<Vec<StopRequest>, Error> {
        let rows = sqlx::query!(
            r#"select task_id, stop_reason as "stop_reason!" from live_tasks
               where worker_id = $1 and stop_reason is not null"#,
            worker.uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .filter_map(|it| {
                let reason = StopReason::parse(&it.stop_reason)?;
                Some(StopRequest { task: TaskId::from_uuid(it.task_id), reason })
            })
            .collect())
    }

    /// The stop that is wanted of one task, if any.
    pub async fn stop_request(&self, task: TaskId) -> Result<Option<StopReason>, Error> {
        let reason = sqlx::query_scalar!(
            "select stop_reason from live_tasks where task_id = $1",
            task.uuid()
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(reason.flatten().as_deref().and_then(StopReason::parse))
    }

    /// What became of these attempts. An attempt that is not in the answer is not in the database.
    pub async fn attempt_fates(
        &self,
        attempts: &[(TaskId, AttemptId)],
    ) -> Result<HashMap<AttemptId, AttemptFate>, Error> {
        let tasks: Vec<_> = attempts.iter().map(|(task, _)| task.uuid()).collect();
        let ids: Vec<_> = attempts.iter().map(|(_, attempt)| attempt.uuid()).collect();
        let rows = sqlx::query!(
            r#"
            select l.attempt_id as "attempt_id!", null::boolean as keep_sandbox
            from live_tasks l where l.task_id = any($1) and l.attempt_id = any($2)
            union all
            select a.attempt_id, a.keep_sandbox
            from attempts a where a.task_id = any($1) and a.attempt_id = any($2)
            "#,
            &tasks,
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| {
                let fate = match it.keep_sandbox {
                    None => AttemptFate::Live,
                    Some(keep_sandbox) => AttemptFate::Ended { keep_sandbox },
                };
                (AttemptId::from_uuid(it.attempt_id), fate)
            })
            .collect())
    }
}
