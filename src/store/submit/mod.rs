//! Accepting tasks: durable before the caller hears of it.

mod work;

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{Error, Store, document, opt_sql, sql};
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::domain::work::Work;
use crate::failpoints::{self, Guard, Point};
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
    pub work: Option<Work>,
}

/// What became of one [`NewTask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    Created,
    /// The same request was accepted before, as this task.
    Replayed(TaskId),
    /// The key belongs to another request.
    KeyReused(TaskId),
    /// Its work has this task already.
    Attached(TaskId),
    /// Its work has this task, which got a new attempt.
    Retried(TaskId),
    /// Its work has this task, and it wants nothing else than to be the first.
    Rejected(TaskId),
    /// It took its work over from this task, which is cancelled where it still lived.
    Restarted(TaskId),
}

impl Submitted {
    /// Nothing of the call was stored because of it.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::KeyReused(_) | Self::Rejected(_))
    }
}

/// Who submits.
#[derive(Debug, Clone, Copy)]
pub struct Submitter<'a> {
    pub project: &'a str,
    pub token: Option<TokenId>,
    pub name: &'a str,
}

impl Store {
    /// Accepts the tasks, all or none. When it returns they are durable.
    ///
    /// A key is stored with its task in one transaction: of any number of concurrent requests with the same
    /// key one makes the task, and the others wait for that commit and find it. Where one of the tasks is
    /// refused nothing is stored, and only its answer means anything.
    pub async fn submit(
        &self,
        submitter: Submitter<'_>,
        now: Timestamp,
        tasks: &[NewTask],
    ) -> Result<Vec<Submitted>, Error> {
        if let [task] = tasks
            && !failpoints::holds(Guard::KeyInSubmit)
        {
            return self.submit_before_its_key(submitter, now, task).await;
        }
        let names_work = tasks.iter().any(|it| it.work.is_some());
        if !names_work && (tasks.len() <= 1 || tasks.iter().all(|it| it.key.is_none())) {
            // Nothing can be half done: the one statement is its own transaction.
            let columns = Columns::of(tasks, now)?;
            let mut connection = self.pool.acquire().await?;
            let submitted = submit(&mut connection, submitter, now, tasks, columns).await?;
            failpoints::at(Point::SubmitCommitted);
            return Ok(submitted);
        }
        let mut transaction = self.pool.begin().await?;
        let submitted = if names_work {
            work::submit(&mut transaction, submitter, now, tasks).await?
        } else {
            let columns = Columns::of(tasks, now)?;
            submit(&mut transaction, submitter, now, tasks, columns).await?
        };
        if submitted.iter().any(|it| it.is_refusal()) {
            transaction.rollback().await?;
        } else {
            failpoints::at(Point::SubmitUncommitted);
            transaction.commit().await?;
            failpoints::at(Point::SubmitCommitted);
        }
        Ok(submitted)
    }

    /// What the guard is against: the key is looked up before, and stored after its task.
    async fn submit_before_its_key(
        &self,
        submitter: Submitter<'_>,
        now: Timestamp,
        task: &NewTask,
    ) -> Result<Vec<Submitted>, Error> {
        let mut connection = self.pool.acquire().await?;
        let columns = Columns::of([task], now)?;
        let known = keyed_tasks(&mut connection, submitter.project, &columns.keys).await?;
        if !known.is_empty() {
            return Ok(vec![replay(task, &known)?]);
        }
        let keyless = Columns { keys: vec![None], ..columns };
        let submitted =
            submit(&mut connection, submitter, now, std::slice::from_ref(task), keyless).await?;
        failpoints::at(Point::SubmitCommitted);
        if let Some(key) = &task.key {
            sqlx::query!(
                "insert into idempotency_keys (kind, project, key, task_id, fingerprint)
                 values ('task', $1, $2, $3, $4) on conflict do nothing",
                submitter.project,
                key.key,
                task.task.uuid(),
                &key.fingerprint[..],
            )
            .execute(&mut *connection)
            .await?;
        }
        Ok(submitted)
    }
}

async fn submit(
    connection: &mut PgConnection,
    submitter: Submitter<'_>,
    now: Timestamp,
    tasks: &[NewTask],
    columns: Columns,
) -> Result<Vec<Submitted>, Error> {
    let created = sqlx::query_scalar!(
            r#"
            with input as (
                select * from unnest(
                    $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::smallint[], $9::text[], $10::text[], $11::timestamptz[], $12::text[], $13::bytea[],
                    $17::text[], $18::uuid[]
                ) as t (task_id, run_id, attempt_id, name, image, target, labels, priority, spec, spec_hash,
                        queue_deadline, key, fingerprint, run_key, after_task_id)
            ), keyed as (
                insert into idempotency_keys (kind, project, key, task_id, fingerprint)
                select 'task', $14, key, task_id, fingerprint from input where key is not null
                on conflict do nothing
                returning task_id
            ), accepted as (
                select * from input where key is null or task_id in (select task_id from keyed)
            ), specs as (
                insert into task_specs
                    (task_id, run_id, name, image, target, labels, priority, spec, spec_hash, submitted_by,
                     run_key)
                select task_id, run_id, name, image, target, labels::jsonb, priority, spec::json, spec_hash,
                       $15, run_key
                from accepted
            )
            insert into live_tasks
                (task_id, state, priority, target, queued_at, queue_deadline, attempt_id, attempt_no,
                 after_task_id)
            select task_id, 'queued', priority, target, $16, queue_deadline, attempt_id, 1, after_task_id
            from accepted
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
            submitter.project,
            submitter.token.map(TokenId::uuid) as _,
            sql(now),
            &columns.run_keys as _,
            &columns.after as _,
        )
        .fetch_all(&mut *connection)
        .await?;
    if created.len() == tasks.len() {
        return Ok(vec![Submitted::Created; tasks.len()]);
    }
    let created: std::collections::HashSet<_> = created.into_iter().collect();
    let known = keyed_tasks(connection, submitter.project, &columns.keys).await?;
    tasks
        .iter()
        .map(|it| {
            if created.contains(&it.task.uuid()) {
                return Ok(Submitted::Created);
            }
            replay(it, &known)
        })
        .collect()
}

type KeyedTasks = HashMap<String, (TaskId, Vec<u8>)>;

/// What became of a request whose key was taken.
fn replay(it: &NewTask, known: &KeyedTasks) -> Result<Submitted, Error> {
    let before = it.key.as_ref().and_then(|key| Some((key, known.get(&key.key)?)));
    match before {
        Some((key, (task, fingerprint))) if *fingerprint == key.fingerprint => {
            Ok(Submitted::Replayed(*task))
        }
        Some((_, (task, _))) => Ok(Submitted::KeyReused(*task)),
        None => Err(Error::Corrupt(format!("task {} was neither stored nor a replay", it.task))),
    }
}

async fn keyed_tasks(
    connection: &mut PgConnection,
    project: &str,
    keys: &[Option<String>],
) -> Result<KeyedTasks, Error> {
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
    run_keys: Vec<Option<String>>,
    after: Vec<Option<uuid::Uuid>>,
}

impl Columns {
    fn of<'a>(tasks: impl IntoIterator<Item = &'a NewTask>, now: Timestamp) -> Result<Self, Error> {
        let mut columns = Self::default();
        for it in tasks {
            columns.push(it, now)?;
        }
        Ok(columns)
    }

    fn push(&mut self, it: &NewTask, now: Timestamp) -> Result<(), Error> {
        let spec = &it.spec;
        let deadline = queue_deadline(spec, now);
        self.task_ids.push(it.task.uuid());
        self.run_ids.push(it.run.uuid());
        self.attempt_ids.push(it.attempt.uuid());
        self.names.push(spec.name.clone());
        self.images.push(spec.image.clone());
        self.targets.push(spec.target.to_string());
        self.labels.push((!spec.labels.is_empty()).then(|| document(&spec.labels)).transpose()?);
        self.priorities.push(spec.priority);
        self.specs.push(document(spec)?);
        self.spec_hashes.push(it.spec_hash.as_str().to_owned());
        self.queue_deadlines.push(opt_sql(deadline));
        self.keys.push(it.key.as_ref().map(|key| key.key.clone()));
        self.fingerprints.push(it.key.as_ref().map(|key| key.fingerprint.to_vec()));
        self.run_keys.push(it.work.as_ref().map(|work| work.key.as_str().to_owned()));
        self.after.push(None);
        Ok(())
    }
}

pub(super) fn queue_deadline(spec: &TaskSpec, now: Timestamp) -> Option<Timestamp> {
    spec.timeouts.queue.and_then(|queue| now.checked_add(queue).ok())
}
