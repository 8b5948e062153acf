//! What an examination asks: of the server, the schema, workers, and the attempts that they hold.
//!
//! Every list has a limit, since an installation may be large, and nothing here writes: the connections of
//! [`Store::open_to_look`] could not.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::{Error, Settings, Store, WorkerTargets, parse_document};
use crate::ids::{AttemptId, InstallationId, TaskId, WorkerId};

/// The server, and those of its settings that a commit rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    pub version: String,
    pub fsync: String,
    pub synchronous_commit: String,
    pub full_page_writes: String,
    /// Of every program that uses the server.
    pub connections: i64,
    pub max_connections: i64,
    /// It takes no writes.
    pub standby: bool,
}

/// A worker as the others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerState {
    pub id: WorkerId,
    pub epoch: i64,
    pub hostname: String,
    pub version: String,
    /// Since its last heartbeat. None: it gave its lease up, as at a stop.
    pub silent_secs: Option<f64>,
    pub targets: WorkerTargets,
}

/// Attempts that one worker holds on one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAttempts {
    pub worker: WorkerId,
    pub target: String,
    pub engine: String,
    pub attempts: i64,
}

/// What the database says of the attempt that a sandbox was made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SandboxFate {
    Live,
    Ended { ago_secs: f64 },
}

/// Workers that were heard of within this time are listed, and those that hold something.
const RECENT_SECS: f64 = 24.0 * 3600.0;

impl Store {
    /// A store that can't write. Connects once past the pool, which would not say why that fails.
    pub async fn open_to_look(settings: &Settings) -> Result<Self, Error> {
        let store = Self::open_with(settings, [("default_transaction_read_only", "on")])?;
        let connection = PgConnection::connect_with(&store.pool.connect_options()).await?;
        connection.close().await?;
        Ok(store)
    }

    pub async fn server_state(&self) -> Result<ServerState, Error> {
        let state = sqlx::query_as!(
            ServerState,
            r#"select current_setting('server_version') as "version!",
                      current_setting('fsync') as "fsync!",
                      current_setting('synchronous_commit') as "synchronous_commit!",
                      current_setting('full_page_writes') as "full_page_writes!",
                      (select coalesce(sum(numbackends), 0) from pg_stat_database)::bigint as "connections!",
                      current_setting('max_connections')::bigint as "max_connections!",
                      pg_is_in_recovery() as "standby!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(state)
    }

    /// What the clock says by which leases are judged.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let now =
            sqlx::query_scalar!(r#"select clock_timestamp() as "now!: jiff_sqlx::Timestamp""#)
                .fetch_one(&self.pool)
                .await?;
        Ok(now.to_jiff())
    }

    /// None: no service has started on this database.
    pub async fn installation(&self) -> Result<Option<InstallationId>, Error> {
        let id =
            sqlx::query_scalar!("select id from installation").fetch_optional(&self.pool).await?;
        Ok(id.map(InstallationId::from_uuid))
    }

    /// Those that were heard of lately, the last ones first, and `also` these.
    pub async fn worker_states(
        &self,
        also: &[WorkerId],
        limit: i64,
    ) -> Result<Vec<WorkerState>, Error> {
        let also: Vec<_> = also.iter().map(|it| it.uuid()).collect();
        let rows = sqlx::query!(
            r#"select id, epoch, hostname, version, targets,
                      case when heartbeat_at = '-infinity' then null
                           else extract(epoch from now() - heartbeat_at)::float8 end as silent_secs
               from workers
               where id = any($1) or heartbeat_at > now() - make_interval(secs => $2)
               order by heartbeat_at desc limit $3"#,
            &also,
            RECENT_SECS,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |targets| parse_document("targets of a worker", targets);
        rows.into_iter()
            .map(|it| {
                Ok(WorkerState {
                    id: WorkerId::from_uuid(it.id),
                    epoch: it.epoch,
                    hostname: it.hostname,
                    version: it.version,
                    silent_secs: it.silent_secs,
                    targets: read(it.targets)?,
                })
            })
            .collect()
    }

    /// Who holds how much, and where.
    pub async fn held_attempts(&self, limit: i64) -> Result<Vec<HeldAttempts>, Error> {
        let rows = sqlx::query!(
            r#"select worker_id as "worker_id!", target, engine_id, count(*) as "attempts!"
               from live_tasks where worker_id is not null
               group by worker_id, target, engine_id order by 4 desc limit $1"#,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| HeldAttempts {
                worker: WorkerId::from_uuid(it.worker_id),
                target: it.target,
                engine: it.engine_id.unwrap_or_default(),
                attempts: it.attempts,
            })
            .collect())
    }

    /// Live attempts whose sandbox has to be on this engine: it was started, and is not accounted for.
    pub async fn started_on(
        &self,
        target: &str,
        engine: &str,
        limit: i64,
    ) -> Result<Vec<(TaskId, AttemptId)>, Error> {
        let rows = sqlx::query!(
            "select task_id, attempt_id from live_tasks
             where worker_id is not null and target = $1 and engine_id = $2
               and state in ('running', 'finishing')
             limit $3",
            target,
            engine,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| (TaskId::from_uuid(it.task_id), AttemptId::from_uuid(it.attempt_id)))
            .collect())
    }

    /// What became of these attempts. One that is not in the answer is not in the database.
    pub async fn sandbox_fates(
        &self,
        attempts: &[(TaskId, AttemptId)],
    ) -> Result<HashMap<AttemptId, SandboxFate>, Error> {
        let tasks: Vec<_> = attempts.iter().map(|(task, _)| task.uuid()).collect();
        let ids: Vec<_> = attempts.iter().map(|(_, attempt)| attempt.uuid()).collect();
        let rows = sqlx::query!(
            r#"
            select l.attempt_id as "attempt_id!", null::float8 as ago_secs
            from live_tasks l where l.task_id = any($1) and l.attempt_id = any($2)
            union all
            select a.attempt_id, extract(epoch from now() - a.finished_at)::float8
            from attempts a where a.task_id = any($1) and a.attempt_id = any($2)
            "#,
            &tasks,
            &ids
        )
        .fetch_all(&self.pool)
        .await?;
        let fate = |ago: Option<f64>| match ago {
            None => SandboxFate::Live,
            Some(ago_secs) => SandboxFate::Ended { ago_secs },
        };
        Ok(rows
            .into_iter()
            .map(|it| (AttemptId::from_uuid(it.attempt_id), fate(it.ago_secs)))
            .collect())
    }
}
