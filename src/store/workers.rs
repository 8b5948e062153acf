//! Workers and their leases.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, Store, parse_document};
use crate::failpoints::{self, Point};
use crate::ids::WorkerId;

/// How a worker finds one of its targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHealth {
    pub kind: String,
    pub ready: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// An engine that tasks were given to which are not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInUse {
    pub target: String,
    pub engine: String,
    pub tasks: i64,
}

/// The targets of one live worker.
pub type WorkerTargets = BTreeMap<String, TargetHealth>;

impl Store {
    /// Makes this process the holder of the worker's identity. An older process with it is told by its
    /// next heartbeat.
    pub async fn register_worker(
        &self,
        worker: WorkerId,
        hostname: &str,
        version: &str,
    ) -> Result<i64, Error> {
        let epoch = sqlx::query_scalar!(
            "insert into workers (id, epoch, hostname, version) values ($1, 1, $2, $3)
             on conflict (id) do update
             set epoch = workers.epoch + 1, hostname = excluded.hostname, version = excluded.version,
                 started_at = now(), heartbeat_at = now(), targets = '{}'
             returning epoch",
            worker.uuid(),
            hostname,
            version
        )
        .fetch_one(&self.pool)
        .await?;
        failpoints::at(Point::WorkerRegistered);
        Ok(epoch)
    }

    /// Renews the lease of everything that the worker holds. False: another process has its identity.
    pub async fn heartbeat(
        &self,
        worker: WorkerId,
        epoch: i64,
        targets: &WorkerTargets,
    ) -> Result<bool, Error> {
        let targets = serde_json::to_value(targets).map_err(|it| Error::Corrupt(it.to_string()))?;
        let renewed = sqlx::query!(
            "update workers set heartbeat_at = now(), targets = $3 where id = $1 and epoch = $2",
            worker.uuid(),
            epoch,
            targets
        )
        .execute(&self.pool)
        .await?;
        failpoints::at(Point::LeaseRenewed);
        Ok(renewed.rows_affected() == 1)
    }

    /// Gives up the lease at a clean stop, so that others need not wait for it to expire. Attempts that
    /// nobody else can reach stay with this worker, which takes them back when it starts again.
    pub async fn release_lease(&self, worker: WorkerId, epoch: i64) -> Result<(), Error> {
        sqlx::query!(
            "update workers set heartbeat_at = '-infinity', targets = '{}' where id = $1 and epoch = $2",
            worker.uuid(),
            epoch
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many seconds are left until the lease of another worker expires, if it renews it no more. None:
    /// nobody else has a valid one.
    pub async fn next_expiry(
        &self,
        worker: WorkerId,
        lease_secs: f64,
    ) -> Result<Option<f64>, Error> {
        let left = sqlx::query_scalar!(
            r#"
            select extract(epoch from min(heartbeat_at) - now())::float8 + $2::float8 as "left"
            from workers
            where id <> $1 and heartbeat_at >= now() - make_interval(secs => $2)
            "#,
            worker.uuid(),
            lease_secs
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(left)
    }

    /// The engines that the tasks were given to which workers hold.
    pub async fn engines_in_use(&self) -> Result<Vec<EngineInUse>, Error> {
        let rows = sqlx::query_as!(
            EngineInUse,
            r#"
            select target, engine_id as "engine!", count(*) as "tasks!" from live_tasks
            where worker_id is not null and engine_id is not null
            group by target, engine_id order by target, engine_id
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// The targets of every worker whose lease is valid.
    pub async fn live_targets(&self, lease_secs: f64) -> Result<Vec<WorkerTargets>, Error> {
        let rows = sqlx::query_scalar!(
            "select targets from workers where heartbeat_at > now() - make_interval(secs => $1)",
            lease_secs
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|it| parse_document("targets of a worker", it)).collect()
    }
}
