//! Postgres: the only module that names sqlx.
//!
//! One method is one use case is one transaction; callers never see a connection, and no transaction is
//! open while anything but Postgres is asked. Every write to a live task is fenced. Leases and deadlines
//! are judged by the database's clock, since workers' clocks differ.

mod attempts;
mod claim;
mod diagnosis;
mod error;
mod events;
mod gauges;
mod installation;
mod ledger;
mod logs;
mod notify;
mod outputs;
mod partitions;
mod queue;
mod reopen;
mod runs;
mod schema;
mod stop;
mod submit;
mod targets;
mod tokens;
mod views;
mod workers;

use std::str::FromStr;
use std::time::Duration;

use jiff_sqlx::ToSqlx;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};

pub use attempts::{AttemptEnd, LogSeal, LogSeals, Recorded, Requeue};
pub use claim::{ClaimTarget, ClaimedTask, Unconfirmed};
pub use diagnosis::{HeldAttempts, SandboxFate, ServerState, WorkerState};
pub use error::Error;
pub use events::{EventRecord, NewEvent};
pub use gauges::{PoolGauge, QueueGauge};
pub use installation::ObjectStoreInUse;
pub use ledger::Ledger;
pub use logs::{LogPosition, NewChunk, StoredChunk};
pub use notify::{Hint, Listener};
pub use outputs::OutputRecord;
pub use queue::Cancelled;
pub use reopen::Reopening;
pub use runs::{
    BrokenTask, Decision, DueRun, Fact, ItemEnd, NewRun, NodeRecord, Planning, RunChange,
    RunDefinition, RunEnding, RunFilter, RunRecord, RunTask, SubmittedRun, Wanted, WantedRun,
};
pub use schema::{MigrateReport, Prepared, SchemaState};
pub use stop::{AttemptFate, StopRequest};
pub use submit::{IdempotencyKey, NewTask, Submitted, Submitter};
pub use targets::{
    AnsweredCheck, DeletedTarget, PutTarget, TakenCheck, TargetOrigin, TargetRecord, TargetsState,
};
pub use tokens::{NewToken, Principal, TokenRecord};
pub use views::{AttemptRecord, TaskFilter, TaskRecord};
pub use workers::{EngineInUse, TargetHealth, WorkerTargets};

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct Settings {
    pub url: String,
    pub max_connections: u32,
    /// How long a caller waits for a free connection.
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
    pub idle_in_transaction_timeout: Duration,
}

/// A pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

/// A connection that sat idle for longer is asked whether it still lives before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

impl Store {
    /// Makes the pool. Connects when first used.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        Self::open_with(settings, [])
    }

    fn open_with<const N: usize>(
        settings: &Settings,
        further: [(&str, &str); N],
    ) -> Result<Self, Error> {
        let statement_timeout = settings.statement_timeout.as_millis().to_string();
        let idle_timeout = settings.idle_in_transaction_timeout.as_millis().to_string();
        let options = PgConnectOptions::from_str(&settings.url)
            .map_err(|it| Error::Settings(format!("the database url is not valid: {it}")))?
            .application_name("supercargo")
            .options([
                ("statement_timeout", statement_timeout.as_str()),
                ("idle_in_transaction_session_timeout", idle_timeout.as_str()),
                ("default_transaction_isolation", "read committed"),
                ("jit", "off"),
            ])
            .options(further)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        sqlx::Connection::ping(connection).await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query_scalar!(r#"select 1 as "one!""#).fetch_one(&self.pool).await?;
        Ok(())
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn sql(at: jiff::Timestamp) -> jiff_sqlx::Timestamp {
    at.to_sqlx()
}

fn opt_sql(at: Option<jiff::Timestamp>) -> Option<jiff_sqlx::Timestamp> {
    at.map(sql)
}

fn opt_jiff(at: Option<jiff_sqlx::Timestamp>) -> Option<jiff::Timestamp> {
    at.map(jiff_sqlx::Timestamp::to_jiff)
}

/// A JSON document of ours for a `json` column, which takes it as text.
fn document<T: serde::Serialize>(it: &T) -> Result<String, Error> {
    serde_json::to_string(it)
        .map_err(|it| Error::Corrupt(format!("can't be written as JSON: {it}")))
}

fn parse_document<T: serde::de::DeserializeOwned>(
    what: &str,
    it: serde_json::Value,
) -> Result<T, Error> {
    serde_json::from_value(it).map_err(|it| Error::Corrupt(format!("{what}: {it}")))
}
