//! The database that the configuration names, or the private one.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::postgres::{Embedded, Watch};
use crate::store::{self, NewToken, Prepared, Store};

/// How long a start waits for a database that does not answer yet.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) enum Database {
    Named(String),
    Private(Watch),
}

impl Database {
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        if let Some(url) = &config.database.url {
            return Ok(Self::Named(url.expose().to_owned()));
        }
        let embedded =
            Embedded::start(&config.data_dir).await.context("start the private Postgres")?;
        Ok(Self::Private(embedded.watch(&CancellationToken::new())))
    }

    pub(super) fn settings(&self, config: &Config) -> store::Settings {
        let url = match self {
            Self::Named(url) => url.clone(),
            Self::Private(watch) => watch.endpoint().connection_url(),
        };
        store::Settings {
            url,
            max_connections: config.database.max_connections,
            acquire_timeout: config.database.acquire_timeout,
            statement_timeout: config.database.statement_timeout,
            idle_in_transaction_timeout: config.database.idle_in_transaction_timeout,
        }
    }

    /// Stops the private one. One that somebody named goes on.
    pub(super) async fn stop(self) {
        if let Self::Private(watch) = self
            && let Err(error) = watch.stop().await
        {
            tracing::warn!(%error, "the private postgres did not stop cleanly");
        }
    }
}

/// Waits for the database to answer, and brings it up to date.
pub(super) async fn prepare(store: &Store, admin: Option<&NewToken>) -> anyhow::Result<Prepared> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match store.prepare(admin).await {
            Ok(prepared) => {
                let migrated = prepared.migrated;
                tracing::info!(
                    applied = migrated.applied,
                    version = migrated.version,
                    "the schema is up to date"
                );
                return Ok(prepared);
            }
            Err(error) if error.is_transient() && Instant::now() < give_up => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error).context("prepare the database"),
        }
    }
}
