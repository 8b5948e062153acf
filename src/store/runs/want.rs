//! What somebody wants of a run that lives.

use crate::ids::RunId;
use crate::store::{Error, Store};

/// What is wanted of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Run,
    /// Nothing new starts.
    Pause,
    /// It ends, and what runs of it is stopped.
    Cancel,
}

impl Wanted {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Cancel => "cancel",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Run, Self::Pause, Self::Cancel].into_iter().find(|it| it.as_str() == text)
    }
}

/// What a wish came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedRun {
    Noted,
    /// It is wanted already, or a cancel is, which nothing takes back.
    Unchanged,
    Ended,
    NotFound,
}

impl Store {
    /// Notes what is wanted of a run; whoever plans it acts.
    pub async fn want_run(&self, run: RunId, wanted: Wanted, by: &str) -> Result<WantedRun, Error> {
        let mut transaction = self.pool.begin().await?;
        let noted = sqlx::query!(
            "update live_runs set wanted = $2, wanted_by = $3
             where run_id = $1 and wanted <> $2 and wanted <> 'cancel'",
            run.uuid(),
            wanted.as_str(),
            by,
        )
        .execute(&mut *transaction)
        .await?;
        if noted.rows_affected() > 0 {
            sqlx::query!("insert into run_inbox (run_id) values ($1)", run.uuid())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            return Ok(WantedRun::Noted);
        }
        let known = sqlx::query!(
            r#"select exists (select from live_runs where run_id = $1) as "live!",
                      exists (select from runs where run_id = $1) as "known!""#,
            run.uuid()
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok(match (known.live, known.known) {
            (true, _) => WantedRun::Unchanged,
            (false, true) => WantedRun::Ended,
            (false, false) => WantedRun::NotFound,
        })
    }
}
