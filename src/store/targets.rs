//! The targets of the deployment, and questions about them to the workers.

use jiff::Timestamp;
use serde_json::Value;

use super::{Error, Hint, Store, parse_document};
use crate::domain::target::{Target, TargetCheck};
use crate::ids::TargetCheckId;

/// Who says what a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetOrigin {
    Api,
    Config,
}

impl TargetOrigin {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Config => "config",
        }
    }
}

/// A stored target.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetRecord {
    pub name: String,
    /// An error where a newer binary wrote it.
    pub target: Result<Target, String>,
    pub origin: TargetOrigin,
    /// Gone from the configuration, and kept because tasks were still on it.
    pub retired: bool,
    pub revision: i64,
    pub updated_at: Timestamp,
}

/// Other than before where any target has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetsState {
    pub count: i64,
    pub newest: i64,
    /// Who commits late has a revision below the newest.
    pub sum: i64,
    /// Questions that nobody has taken.
    pub checks: i64,
}

/// What became of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutTarget {
    Created,
    Replaced,
    /// It is defined in the configuration.
    Configured,
    /// It is not any more what it was when the document was read.
    Changed,
}

/// What became of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedTarget {
    Done,
    NotFound,
    Configured,
    /// So many tasks wait for it or run on it.
    InUse(i64),
}

/// A question that this process took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenCheck {
    pub id: TargetCheckId,
    pub target: String,
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredCheck {
    pub check: TargetCheck,
    pub checked_at: Timestamp,
    pub checked_by: String,
}

const CONFIGURE_LOCK: i64 = 0x0053_7570_6572_7461;
/// Nobody waits for longer.
const CHECK_SECS: f64 = 60.0;

impl Store {
    pub async fn targets_state(&self) -> Result<TargetsState, Error> {
        let state = sqlx::query_as!(
            TargetsState,
            r#"select count(*) as "count!", coalesce(max(revision), 0) as "newest!",
                      coalesce(sum(revision), 0)::bigint as "sum!",
                      (select count(*) from target_checks where taken_at is null) as "checks!"
               from targets"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(state)
    }

    pub async fn list_targets(&self) -> Result<Vec<TargetRecord>, Error> {
        let rows = sqlx::query!(
            r#"select name, document, origin, retired, revision,
                      updated_at as "updated_at: jiff_sqlx::Timestamp"
               from targets order by name"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| TargetRecord {
                name: it.name,
                target: serde_json::from_value(it.document).map_err(|it| it.to_string()),
                origin: match it.origin.as_str() {
                    "config" => TargetOrigin::Config,
                    _ => TargetOrigin::Api,
                },
                retired: it.retired,
                revision: it.revision,
                updated_at: it.updated_at.to_jiff(),
            })
            .collect())
    }

    /// Stores a target of the API. `before`: only over this revision of it, or None where there is none.
    pub async fn put_target(
        &self,
        name: &str,
        target: &Target,
        before: Option<i64>,
    ) -> Result<PutTarget, Error> {
        let document = document(target)?;
        let mut transaction = self.pool.begin().await?;
        let stored = sqlx::query!(
            "select origin, retired, revision from targets where name = $1 for update",
            name
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let answer = match (&stored, before) {
            (Some(it), _) if it.origin == "config" && !it.retired => PutTarget::Configured,
            (Some(it), Some(before)) if it.revision == before => PutTarget::Replaced,
            (None, None) => PutTarget::Created,
            _ => PutTarget::Changed,
        };
        let written = match answer {
            PutTarget::Created => sqlx::query!(
                "insert into targets (name, document, origin) values ($1, $2, 'api')
                 on conflict do nothing",
                name,
                document
            )
            .execute(&mut *transaction)
            .await?
            .rows_affected(),
            PutTarget::Replaced => sqlx::query!(
                "update targets set document = $2, origin = 'api', retired = false,
                        revision = nextval('target_revisions'), updated_at = now()
                 where name = $1",
                name,
                document
            )
            .execute(&mut *transaction)
            .await?
            .rows_affected(),
            PutTarget::Configured | PutTarget::Changed => return Ok(answer),
        };
        transaction.commit().await?;
        if written == 0 {
            return Ok(PutTarget::Changed);
        }
        self.hint_targets().await;
        Ok(answer)
    }

    /// Removes a target that no task waits for or runs on.
    pub async fn delete_target(&self, name: &str) -> Result<DeletedTarget, Error> {
        let mut transaction = self.pool.begin().await?;
        let stored =
            sqlx::query!("select origin, retired from targets where name = $1 for update", name)
                .fetch_optional(&mut *transaction)
                .await?;
        match stored {
            None => return Ok(DeletedTarget::NotFound),
            Some(it) if it.origin == "config" && !it.retired => {
                return Ok(DeletedTarget::Configured);
            }
            Some(_) => {}
        }
        let live = sqlx::query_scalar!(
            r#"select count(*) as "count!" from live_tasks where target = $1"#,
            name
        )
        .fetch_one(&mut *transaction)
        .await?;
        if live > 0 {
            return Ok(DeletedTarget::InUse(live));
        }
        sqlx::query!("delete from targets where name = $1", name)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.hint_targets().await;
        Ok(DeletedTarget::Done)
    }

    /// Writes the targets of a configuration. Those of another configuration, or of an earlier one, go where no
    /// task is on them and drain where some are: a process that still has them puts them back by itself.
    pub async fn configure_targets(&self, targets: &[(String, Target)]) -> Result<(), Error> {
        let names: Vec<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        let documents =
            targets.iter().map(|(_, it)| document(it)).collect::<Result<Vec<Value>, _>>()?;
        let mut transaction = self.pool.begin().await?;
        // Processes that start together take turns.
        sqlx::query!("select pg_advisory_xact_lock($1)", CONFIGURE_LOCK)
            .fetch_one(&mut *transaction)
            .await?;
        let put = put_configured(&mut transaction, &names, &documents).await?;
        let retired = sqlx::query!(
            "update targets t set retired = true, revision = nextval('target_revisions'), updated_at = now()
             where origin = 'config' and not retired and name <> all($1)",
            &names
        )
        .execute(&mut *transaction)
        .await?;
        let gone = sqlx::query!(
            "delete from targets t where retired
               and not exists (select from live_tasks l where l.target = t.name)"
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if put + retired.rows_affected() + gone.rows_affected() > 0 {
            self.hint_targets().await;
        }
        Ok(())
    }

    /// Puts back those targets of a configuration that are not stored as such any more.
    pub async fn restore_targets(&self, targets: &[(String, Target)]) -> Result<(), Error> {
        let names: Vec<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        let documents =
            targets.iter().map(|(_, it)| document(it)).collect::<Result<Vec<Value>, _>>()?;
        let mut connection = self.pool.acquire().await?;
        put_configured(&mut connection, &names, &documents).await?;
        self.hint_targets().await;
        Ok(())
    }

    /// Asks the workers about a target.
    pub async fn ask_check(
        &self,
        target: &str,
        revision: Option<i64>,
    ) -> Result<TargetCheckId, Error> {
        let id = TargetCheckId::generate();
        sqlx::query!(
            "with old as (delete from target_checks where asked_at < now() - make_interval(secs => $4))
             insert into target_checks (id, target, revision) values ($1, $2, $3)",
            id.uuid(),
            target,
            revision,
            CHECK_SECS
        )
        .execute(&self.pool)
        .await?;
        self.hint_targets().await;
        Ok(id)
    }

    /// Takes questions about these targets, in these revisions, that nobody has taken.
    pub async fn take_checks(
        &self,
        worker: &str,
        targets: &[(String, Option<i64>)],
    ) -> Result<Vec<TakenCheck>, Error> {
        let names: Vec<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        let revisions: Vec<Option<i64>> = targets.iter().map(|(_, it)| *it).collect();
        let rows = sqlx::query!(
            "update target_checks c set taken_at = now(), worker = $1
             where id in (
                 select q.id from target_checks q
                 join unnest($2::text[], $3::bigint[]) as t (name, revision) on q.target = t.name
                 where q.taken_at is null and (q.revision is null or q.revision = t.revision)
                 for update of q skip locked)
             returning id, target",
            worker,
            &names,
            &revisions as _
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|it| TakenCheck { id: TargetCheckId::from_uuid(it.id), target: it.target })
            .collect())
    }

    pub async fn answer_check(&self, id: TargetCheckId, check: &TargetCheck) -> Result<(), Error> {
        sqlx::query!(
            "update target_checks set answer = $2, answered_at = now() where id = $1",
            id.uuid(),
            document(check)?
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The answer, where there is one.
    pub async fn find_answer(&self, id: TargetCheckId) -> Result<Option<AnsweredCheck>, Error> {
        let row = sqlx::query!(
            r#"select worker as "worker!", answer as "answer!",
                      answered_at as "answered_at!: jiff_sqlx::Timestamp"
               from target_checks where id = $1 and answer is not null"#,
            id.uuid()
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|it| {
            Ok(AnsweredCheck {
                check: parse_document("answer to a check", it.answer)?,
                checked_at: it.answered_at.to_jiff(),
                checked_by: it.worker,
            })
        })
        .transpose()
    }

    /// The question is over.
    pub async fn end_check(&self, id: TargetCheckId) -> Result<(), Error> {
        sqlx::query!("delete from target_checks where id = $1", id.uuid())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many tasks wait for each of these targets, counted up to `most`.
    pub async fn queued_for(
        &self,
        targets: &[String],
        most: i64,
    ) -> Result<Vec<(String, i64)>, Error> {
        let rows = sqlx::query!(
            r#"select t.name as "name!", q.tasks as "tasks!" from unnest($1::text[]) as t (name)
               cross join lateral (
                   select count(*) as tasks from (
                       select 1 as one from live_tasks l
                       where l.state = 'queued' and l.target = t.name limit $2) one) q"#,
            targets,
            most
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|it| (it.name, it.tasks)).collect())
    }
}

impl Store {
    /// Those who don't hear of it look a moment later.
    async fn hint_targets(&self) {
        if let Err(error) = self.notify_of(Hint::Targets).await {
            tracing::debug!(%error, "the other processes could not be told of a target");
        }
    }
}

fn document<T: serde::Serialize>(it: &T) -> Result<Value, Error> {
    serde_json::to_value(it).map_err(|it| Error::Corrupt(it.to_string()))
}

/// Returns how many were not as they are now.
async fn put_configured(
    connection: &mut sqlx::PgConnection,
    names: &[String],
    documents: &[Value],
) -> Result<u64, Error> {
    let put = sqlx::query!(
        "insert into targets as t (name, document, origin)
         select name, document, 'config' from unnest($1::text[], $2::jsonb[]) as n (name, document)
         on conflict (name) do update
         set document = excluded.document, origin = 'config', retired = false,
             revision = nextval('target_revisions'), updated_at = now()
         where t.document <> excluded.document or t.origin <> 'config' or t.retired",
        names,
        documents
    )
    .execute(connection)
    .await?;
    Ok(put.rows_affected())
}
