//! Accepting tasks: durable before the caller hears of it.

use std::collections::HashMap;

use jiff::Timestamp;

use sqlx::PgConnection;

use super::{Error, Store, document, opt_sql, parse_document, sql};
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::ids::{AttemptId, RunId, TaskId, TokenId};

/// The key that a caller gave to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    /// Of the body as it was submitted, before defaults.
    pub fingerprint: [u8; 32],
}

/// A task to accept.
#[derive(Debug, Clone)]
pub struct NewTask {
    pub task: TaskId,
    pub run: RunId,
    pub attempt: AttemptId,
    pub spec: TaskSpec,
    pub spec_hash: SpecHash,
    pub key: Option<IdempotencyKey>,
}

/// What became of one [`NewTask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    Created,
    /// The same request was accepted before, as this task.
    Replayed(TaskId),
    /// The key belongs to another request.
    KeyReused(TaskId),
}

impl Store {
    /// Accepts the tasks, all or none. When it returns they are durable.
    ///
    /// A key is stored with its task in one statement: of any number of concurrent requests with the same
    /// key one makes the task, and the others wait for that commit and find it. Where one of several keys
    /// belongs to another request, nothing is stored.
    pub async fn submit(
        &self,
        project: &str,
        submitted_by: Option<TokenId>,
        now: Timestamp,
        tasks: &[NewTask],
    ) -> Result<Vec<Submitted>, Error> {
        let mut columns = Columns::default();
        for it in tasks {
            columns.push(it, now)?;
        }
        if tasks.len() <= 1 || columns.keys.iter().all(Option::is_none) {
            // Nothing can be half done: the one statement is its own transaction.
            let mut connection = self.pool.acquire().await?;
            return submit(&mut connection, project, submitted_by, now, tasks, columns).await;
        }
        let mut transaction = self.pool.begin().await?;
        let submitted =
            submit(&mut transaction, project, submitted_by, now, tasks, columns).await?;
        if let Some(reused) = submitted.iter().find(|it| matches!(it, Submitted::KeyReused(_))) {
            transaction.rollback().await?;
            return Ok(vec![*reused; tasks.len()]);
        }
        transaction.commit().await?;
        Ok(submitted)
    }

    /// The validated document of a task, as it was stored.
    pub async fn find_spec(&self, task: TaskId) -> Result<Option<TaskSpec>, Error> {
        let spec =
            sqlx::query_scalar!("select spec from task_specs where task_id = $1", task.uuid())
                .fetch_optional(&self.pool)
                .await?;
        spec.map(|it| parse_document("spec", it)).transpose()
    }
}

async fn submit(
    connection: &mut PgConnection,
    project: &str,
    submitted_by: Option<TokenId>,
    now: Timestamp,
    tasks: &[NewTask],
    columns: Columns,
) -> Result<Vec<Submitted>, Error> {
    let created = sqlx::query_scalar!(
            r#"
            with input as (
                select * from unnest(
                    $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::smallint[], $9::text[], $10::text[], $11::timestamptz[], $12::text[], $13::bytea[]
                ) as t (task_id, run_id, attempt_id, name, image, target, labels, priority, spec, spec_hash,
                        queue_deadline, key, fingerprint)
            ), keyed as (
                insert into idempotency_keys (kind, project, key, task_id, fingerprint)
                select 'task', $14, key, task_id, fingerprint from input where key is not null
                on conflict do nothing
                returning task_id
            ), accepted as (
                select * from input where key is null or task_id in (select task_id from keyed)
            ), specs as (
                insert into task_specs
                    (task_id, run_id, name, image, target, labels, priority, spec, spec_hash, submitted_by)
                select task_id, run_id, name, image, target, labels::jsonb, priority, spec::json, spec_hash,
                       $15
                from accepted
            )
            insert into live_tasks
                (task_id, state, priority, target, queued_at, queue_deadline, attempt_id, attempt_no)
            select task_id, 'queued', priority, target, $16, queue_deadline, attempt_id, 1 from accepted
            returning task_id
            "#,
            &columns.task_ids,
            &columns.run_ids,
            &columns.attempt_ids,
            &columns.names,
            &columns.images,
            &columns.targets,
            &columns.labels as _,
            &columns.priorities,
            &columns.specs,
            &columns.spec_hashes,
            &columns.queue_deadlines as _,
            &columns.keys as _,
            &columns.fingerprints as _,
            project,
            submitted_by.map(TokenId::uuid) as _,
            sql(now),
        )
        .fetch_all(&mut *connection)
        .await?;
    if created.len() == tasks.len() {
        return Ok(vec![Submitted::Created; tasks.len()]);
    }
    let created: std::collections::HashSet<_> = created.into_iter().collect();
    let known = keyed_tasks(connection, project, &columns.keys).await?;
    tasks
        .iter()
        .map(|it| {
            if created.contains(&it.task.uuid()) {
                return Ok(Submitted::Created);
            }
            let before = it.key.as_ref().and_then(|key| Some((key, known.get(&key.key)?)));
            match before {
                Some((key, (task, fingerprint))) if *fingerprint == key.fingerprint => {
                    Ok(Submitted::Replayed(*task))
                }
                Some((_, (task, _))) => Ok(Submitted::KeyReused(*task)),
                None => {
                    Err(Error::Corrupt(format!("task {} was neither stored nor a replay", it.task)))
                }
            }
        })
        .collect()
}

async fn keyed_tasks(
    connection: &mut PgConnection,
    project: &str,
    keys: &[Option<String>],
) -> Result<HashMap<String, (TaskId, Vec<u8>)>, Error> {
    let keys: Vec<String> = keys.iter().flatten().cloned().collect();
    let rows = sqlx::query!(
        "select key, task_id, fingerprint from idempotency_keys
             where kind = 'task' and project = $1 and key = any($2)",
        project,
        &keys
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|it| (it.key, (TaskId::from_uuid(it.task_id), it.fingerprint)))
        .collect())
}

#[derive(Default)]
struct Columns {
    task_ids: Vec<uuid::Uuid>,
    run_ids: Vec<uuid::Uuid>,
    attempt_ids: Vec<uuid::Uuid>,
    names: Vec<String>,
    images: Vec<String>,
    targets: Vec<String>,
    labels: Vec<Option<String>>,
    priorities: Vec<i16>,
    specs: Vec<String>,
    spec_hashes: Vec<String>,
    queue_deadlines: Vec<Option<jiff_sqlx::Timestamp>>,
    keys: Vec<Option<String>>,
    fingerprints: Vec<Option<Vec<u8>>>,
}

impl Columns {
    fn push(&mut self, it: &NewTask, now: Timestamp) -> Result<(), Error> {
        let spec = &it.spec;
        let deadline = spec.timeouts.queue.and_then(|queue| now.checked_add(queue).ok());
        self.task_ids.push(it.task.uuid());
        self.run_ids.push(it.run.uuid());
        self.attempt_ids.push(it.attempt.uuid());
        self.names.push(spec.name.clone());
        self.images.push(spec.image.clone());
        self.targets.push(spec.target.clone());
        self.labels.push((!spec.labels.is_empty()).then(|| document(&spec.labels)).transpose()?);
        self.priorities.push(spec.priority);
        self.specs.push(document(spec)?);
        self.spec_hashes.push(it.spec_hash.as_str().to_owned());
        self.queue_deadlines.push(opt_sql(deadline));
        self.keys.push(it.key.as_ref().map(|key| key.key.clone()));
        self.fingerprints.push(it.key.as_ref().map(|key| key.fingerprint.to_vec()));
        Ok(())
    }
}
