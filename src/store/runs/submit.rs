//! Accepting runs: durable before the caller hears of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::ids::RunId;
use crate::store::{Error, IdempotencyKey, Store, Submitter, document, opt_sql, sql};

/// A run to accept.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub run: RunId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// As it was submitted.
    pub document: Value,
    /// With defaults.
    pub params: Map<String, Value>,
    pub deadline: Option<Timestamp>,
    pub key: Option<IdempotencyKey>,
}

/// What became of a [`NewRun`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmittedRun {
    Created,
    /// The same request was accepted before, as this run.
    Replayed(RunId),
    /// The key belongs to another request.
    KeyReused(RunId),
}

impl Store {
    /// Accepts a run. When it returns the run is durable. Its key is stored in the same transaction.
    pub async fn submit_run(
        &self,
        submitter: Submitter<'_>,
        now: Timestamp,
        new: &NewRun,
    ) -> Result<SubmittedRun, Error> {
        let mut transaction = self.pool.begin().await?;
        if let Some(key) = &new.key {
            let taken = sqlx::query!(
                "insert into idempotency_keys (kind, project, key, task_id, fingerprint)
                 values ('run', $1, $2, $3, $4) on conflict do nothing",
                submitter.project,
                key.key,
                new.run.uuid(),
                &key.fingerprint[..],
            )
            .execute(&mut *transaction)
            .await?;
            if taken.rows_affected() == 0 {
                let before = sqlx::query!(
                    "select task_id, fingerprint from idempotency_keys
                     where kind = 'run' and project = $1 and key = $2",
                    submitter.project,
                    key.key,
                )
                .fetch_one(&mut *transaction)
                .await?;
                let run = RunId::from_uuid(before.task_id);
                return Ok(if before.fingerprint == key.fingerprint {
                    SubmittedRun::Replayed(run)
                } else {
                    SubmittedRun::KeyReused(run)
                });
            }
        }
        let labels = (!new.labels.is_empty()).then(|| document(&new.labels)).transpose()?;
        sqlx::query!(
            "with told as (
                 insert into run_inbox (run_id) values ($1)
             ), live as (
                 insert into live_runs (run_id, state, queued_at, deadline) values ($1, 'queued', $7, $8)
             )
             insert into runs (run_id, name, labels, document, params, submitted_by, queued_at)
             values ($1, $2, $3::text::jsonb, $4::text::json, $5::text::json, $6, $7)",
            new.run.uuid(),
            new.name,
            labels,
            document(&new.document)?,
            document(&new.params)?,
            submitter.token.map(crate::ids::TokenId::uuid) as _,
            sql(now),
            opt_sql(new.deadline) as _,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(SubmittedRun::Created)
    }
}
