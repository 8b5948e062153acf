//! Submits that name the work they are for: at most one task has the key of a piece of work at a time.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{Columns, IdempotencyKey, NewTask, Submitted, Submitter, keyed_tasks, replay};
use crate::domain::state::TaskState;
use crate::domain::work::{Resolution, resolve};
use crate::ids::TaskId;
use crate::store::reopen::{self, Reopening};
use crate::store::{Error, Store, queue};

impl Store {
    /// The task that has the key of a piece of work.
    pub async fn find_run_key(&self, project: &str, key: &str) -> Result<Option<TaskId>, Error> {
        let task = sqlx::query_scalar!(
            "select task_id from run_keys where kind = 'task' and project = $1 and key = $2",
            project,
            key
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(task.map(TaskId::from_uuid))
    }
}

/// Keys of requests first: a request that is sent again is answered as before, whatever became of its
/// work. Then the keys of the work, whose rows are locked until the end of the transaction, in the order
/// of the keys, so that two calls never wait for each other.
pub(super) async fn submit(
    connection: &mut PgConnection,
    submitter: Submitter<'_>,
    now: Timestamp,
    tasks: &[NewTask],
) -> Result<Vec<Submitted>, Error> {
    let mut answers: Vec<Option<Submitted>> = vec![None; tasks.len()];
    replay_requests(connection, submitter, tasks, &mut answers).await?;
    let known = lock_work(connection, submitter, tasks, &answers).await?;

    // Everything that the statement of a plain submit may do for the rest.
    let mut plain = Vec::new();
    let mut after = Vec::new();
    for (task, answer) in tasks.iter().zip(&mut answers) {
        if answer.is_some() {
            continue;
        }
        let before = task.work.as_ref().and_then(|it| Some((it, known.get(it.key.as_str())?)));
        let (submitted, predecessor) = match before {
            None => (Submitted::Created, None),
            Some((work, (first, state))) => match resolve(work.on_duplicate, *state) {
                Resolution::Attach => (Submitted::Attached(*first), None),
                Resolution::Reject => (Submitted::Rejected(*first), None),
                Resolution::Retry => {
                    let by = submitter.name;
                    let reopening = Reopening {
                        attempt: task.attempt,
                        spec: Some((&task.spec, &task.spec_hash)),
                        from_attempt: None,
                        message: format!("submitted again by {by}"),
                    };
                    // Somebody else may have reopened it since its state was read: then it lives.
                    if reopen::reopen(connection, *first, &reopening, now).await? {
                        (Submitted::Retried(*first), None)
                    } else {
                        (Submitted::Attached(*first), None)
                    }
                }
                Resolution::Replace => {
                    hand_over(connection, submitter, work.key.as_str(), task.task).await?;
                    if state.is_some() {
                        queue::cancel(connection, *first, submitter.name, now).await?;
                        (Submitted::Restarted(*first), Some(*first))
                    } else {
                        // Retention has removed it.
                        (Submitted::Created, None)
                    }
                }
            },
        };
        if matches!(submitted, Submitted::Created | Submitted::Restarted(_)) {
            plain.push(task.clone());
            after.push(predecessor.map(TaskId::uuid));
        }
        *answer = Some(submitted);
    }
    point_requests(connection, submitter, tasks, &answers).await?;
    if !plain.is_empty() {
        let mut columns = Columns::of(&plain, now)?;
        columns.after = after;
        // They are stored already.
        columns.keys.fill(None);
        let stored = super::submit(connection, submitter, now, &plain, columns).await?;
        if stored.iter().any(|it| *it != Submitted::Created) {
            return Err(Error::Corrupt("a new task was not stored".to_owned()));
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// Takes the keys of the requests, and answers those that were taken before.
async fn replay_requests(
    connection: &mut PgConnection,
    submitter: Submitter<'_>,
    tasks: &[NewTask],
    answers: &mut [Option<Submitted>],
) -> Result<(), Error> {
    let mut keyed: Vec<(&IdempotencyKey, &NewTask)> =
        tasks.iter().filter_map(|it| Some((it.key.as_ref()?, it))).collect();
    if keyed.is_empty() {
        return Ok(());
    }
    keyed.sort_unstable_by(|(a, _), (b, _)| a.key.cmp(&b.key));
    let keys: Vec<String> = keyed.iter().map(|(key, _)| key.key.clone()).collect();
    let prints: Vec<Vec<u8>> = keyed.iter().map(|(key, _)| key.fingerprint.to_vec()).collect();
    let ids: Vec<_> = keyed.iter().map(|(_, task)| task.task.uuid()).collect();
    let taken = sqlx::query_scalar!(
        "insert into idempotency_keys (kind, project, key, task_id, fingerprint)
         select 'task', $1, t.key, t.task_id, t.fingerprint
         from unnest($2::text[], $3::uuid[], $4::bytea[]) as t (key, task_id, fingerprint)
         on conflict do nothing
         returning task_id",
        submitter.project,
        &keys,
        &ids,
        &prints
    )
    .fetch_all(&mut *connection)
    .await?;
    if taken.len() == keyed.len() {
        return Ok(());
    }
    let taken: HashSet<_> = taken.into_iter().collect();
    let all: Vec<Option<String>> = keys.into_iter().map(Some).collect();
    let known = keyed_tasks(connection, submitter.project, &all).await?;
    for (task, answer) in tasks.iter().zip(answers) {
        if task.key.is_some() && !taken.contains(&task.task.uuid()) {
            *answer = Some(replay(task, &known)?);
        }
    }
    Ok(())
}

/// Takes the keys of the work that is new, and locks those that are known: key → the task that has it and
/// what became of it, None where retention has removed it.
async fn lock_work(
    connection: &mut PgConnection,
    submitter: Submitter<'_>,
    tasks: &[NewTask],
    answers: &[Option<Submitted>],
) -> Result<HashMap<String, (TaskId, Option<TaskState>)>, Error> {
    let mut wanted: Vec<(&str, TaskId)> = tasks
        .iter()
        .zip(answers)
        .filter(|(_, answer)| answer.is_none())
        .filter_map(|(task, _)| Some((task.work.as_ref()?.key.as_str(), task.task)))
        .collect();
    wanted.sort_unstable();
    let keys: Vec<String> = wanted.iter().map(|(key, _)| (*key).to_owned()).collect();
    let ids: Vec<_> = wanted.iter().map(|(_, task)| task.uuid()).collect();
    let new = sqlx::query_scalar!(
        "insert into run_keys (kind, project, key, task_id)
         select 'task', $1, t.key, t.task_id from unnest($2::text[], $3::uuid[]) as t (key, task_id)
         on conflict do nothing
         returning key",
        submitter.project,
        &keys,
        &ids
    )
    .fetch_all(&mut *connection)
    .await?;
    if new.len() == keys.len() {
        return Ok(HashMap::new());
    }
    let known: Vec<String> = keys.into_iter().filter(|it| !new.contains(it)).collect();
    let rows = sqlx::query!(
        "select key, task_id from run_keys
         where kind = 'task' and project = $1 and key = any($2) order by key for update",
        submitter.project,
        &known
    )
    .fetch_all(&mut *connection)
    .await?;
    let ids: Vec<_> = rows.iter().map(|it| it.task_id).collect();
    // Two statements: who ends while the first one waits for its row is seen by the second.
    let mut states = HashMap::new();
    let live = sqlx::query!(
        "select task_id, state from live_tasks where task_id = any($1) order by task_id for update",
        &ids
    )
    .fetch_all(&mut *connection)
    .await?;
    states.extend(live.into_iter().map(|it| (it.task_id, it.state)));
    let ended =
        sqlx::query!("select task_id, state from ended_tasks where task_id = any($1)", &ids)
            .fetch_all(connection)
            .await?;
    states.extend(ended.into_iter().map(|it| (it.task_id, it.state)));
    Ok(rows
        .into_iter()
        .map(|it| {
            let state = states.get(&it.task_id).and_then(|it| TaskState::parse(it));
            (it.key, (TaskId::from_uuid(it.task_id), state))
        })
        .collect())
}

/// Another task has the key from now on.
async fn hand_over(
    connection: &mut PgConnection,
    submitter: Submitter<'_>,
    key: &str,
    task: TaskId,
) -> Result<(), Error> {
    sqlx::query!(
        "update run_keys set task_id = $3, created_at = now()
         where kind = 'task' and project = $1 and key = $2",
        submitter.project,
        key,
        task.uuid()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The key of a request leads to the task that it was answered with.
async fn point_requests(
    connection: &mut PgConnection,
    submitter: Submitter<'_>,
    tasks: &[NewTask],
    answers: &[Option<Submitted>],
) -> Result<(), Error> {
    let (mut keys, mut ids) = (Vec::new(), Vec::new());
    for (task, answer) in tasks.iter().zip(answers) {
        if let (Some(key), Some(Submitted::Attached(it) | Submitted::Retried(it))) =
            (&task.key, answer)
        {
            keys.push(key.key.clone());
            ids.push(it.uuid());
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update idempotency_keys k set task_id = t.task_id
         from unnest($2::text[], $3::uuid[]) as t (key, task_id)
         where k.kind = 'task' and k.project = $1 and k.key = t.key",
        submitter.project,
        &keys,
        &ids
    )
    .execute(connection)
    .await?;
    Ok(())
}
