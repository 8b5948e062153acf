//! The weekly partitions of history: made ahead, dropped when retention says so.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Store};

/// So far ahead that a deployment that is down for weeks still finds its partition.
const WEEKS_AHEAD: i64 = 4;

pub(super) async fn ensure(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!(
        "call ensure_partitions(now() - interval '1 week', now() + make_interval(weeks => $1::bigint::integer))",
        WEEKS_AHEAD
    )
    .execute(connection)
    .await?;
    Ok(())
}

const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

const PARENTS: [&str; 10] = [
    "task_specs",
    "superseded_specs",
    "ended_tasks",
    "attempts",
    "outputs",
    "task_events",
    "log_chunks",
    "runs",
    "ended_runs",
    "run_decisions",
];

impl Store {
    pub async fn ensure_partitions(&self) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        ensure(&mut connection).await
    }

    /// Drops the partitions of weeks that ended before `horizon`, and the keys of their tasks. A week
    /// that still has a live task is kept, the others go. Returns the weeks that went.
    ///
    /// `keys_secs`: keys younger than that stay, even without their task.
    pub async fn drop_partitions_before(
        &self,
        horizon: Timestamp,
        keys_secs: f64,
    ) -> Result<Vec<String>, Error> {
        let mut dropped = Vec::new();
        for suffix in self.partition_weeks().await? {
            let Some(end) = week_end(&suffix) else { continue };
            let ids = (first_id_at(end - WEEK), first_id_at(end));
            if end > horizon || self.has_live(ids).await? {
                continue;
            }
            self.drop_week(&suffix, ids, keys_secs).await?;
            dropped.push(suffix);
        }
        Ok(dropped)
    }

    /// Whether a week was over before `horizon` and has no partition any more: nothing of it is needed.
    pub async fn is_dropped(&self, week: &str, horizon: Timestamp) -> Result<bool, Error> {
        let over = week_end(week).is_some_and(|end| end <= horizon);
        Ok(over && !self.partition_weeks().await?.iter().any(|it| it == week))
    }

    /// What a run did goes when the run has ended: how far it is is told from its tasks.
    async fn has_live(&self, (first, end): (Uuid, Uuid)) -> Result<bool, Error> {
        let live = sqlx::query_scalar!(
            r#"select exists (select from live_tasks where task_id >= $1 and task_id < $2)
                   or exists (select from live_runs where run_id < $2) as "live!""#,
            first,
            end
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(live)
    }

    async fn partition_weeks(&self) -> Result<Vec<String>, Error> {
        let names = sqlx::query_scalar!(
            r#"select c.relname as "name!" from pg_inherits i join pg_class c on c.oid = i.inhrelid
               where i.inhparent = 'task_specs'::regclass order by 1"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(names
            .iter()
            .filter_map(|it| it.strip_prefix("task_specs_y"))
            .map(str::to_owned)
            .collect())
    }

    async fn drop_week(
        &self,
        suffix: &str,
        (first, end): (Uuid, Uuid),
        keys_secs: f64,
    ) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "delete from idempotency_keys
             where task_id >= $1 and task_id < $2 and created_at < now() - make_interval(secs => $3)",
            first,
            end,
            keys_secs
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "delete from run_keys
             where task_id >= $1 and task_id < $2 and created_at < now() - make_interval(secs => $3)",
            first,
            end,
            keys_secs
        )
        .execute(&mut *transaction)
        .await?;
        for parent in PARENTS {
            let statement = format!("drop table if exists {parent}_y{suffix}");
            #[expect(clippy::disallowed_methods, reason = "a table's name can't be a parameter")]
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// `2026w47` → the Monday after that ISO week, in UTC.
fn week_end(suffix: &str) -> Option<Timestamp> {
    let (year, week) = suffix.split_once('w')?;
    let monday = jiff::civil::ISOWeekDate::new(
        year.parse().ok()?,
        week.parse().ok()?,
        jiff::civil::Weekday::Monday,
    )
    .ok()?;
    let start = monday.date().to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    start.checked_add(WEEK).ok()
}

/// The smallest UUIDv7 of a moment; `uuid_at` in SQL says the same.
pub(super) fn first_id_at(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.as_millisecond()).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_ends_on_the_next_monday() {
        assert_eq!(week_end("2026w47").unwrap().to_string(), "2026-11-23T00:00:00Z");
        assert_eq!(week_end("2026w53").unwrap().to_string(), "2027-01-04T00:00:00Z");
        assert_eq!(week_end("default"), None);
    }
}
