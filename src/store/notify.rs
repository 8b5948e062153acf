//! NOTIFY between processes: a hint to look, never data, never the only way to learn of anything.

use sqlx::postgres::PgListener;

use super::{Error, Store};

const CHANNEL: &str = "supercargo_wake";

const TARGETS: &str = "targets";

/// What there may be to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    Anything,
    /// A target has changed, or is to be checked.
    Targets,
}

/// One connection that waits for hints.
pub struct Listener {
    inner: PgListener,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    /// Waits for the next hint. Ok(None): the connection was lost and made again, hints may be missing.
    pub async fn next(&mut self) -> Result<Option<Hint>, Error> {
        let hint = |payload: &str| match payload {
            TARGETS => Hint::Targets,
            _ => Hint::Anything,
        };
        Ok(self.inner.try_recv().await?.map(|it| hint(it.payload())))
    }
}

impl Store {
    pub async fn listen(&self) -> Result<Listener, Error> {
        let mut inner = PgListener::connect_with(&self.pool).await?;
        inner.ignore_pool_close_event(false);
        inner.listen(CHANNEL).await?;
        Ok(Listener { inner })
    }

    /// Wakes the other processes. Its own transaction: inside a submit it would put commits in a row.
    pub async fn notify(&self) -> Result<(), Error> {
        self.notify_of(Hint::Anything).await
    }

    pub(super) async fn notify_of(&self, hint: Hint) -> Result<(), Error> {
        let payload = match hint {
            Hint::Anything => "",
            Hint::Targets => TARGETS,
        };
        sqlx::query!("select pg_notify($1, $2)", CHANNEL, payload).fetch_one(&self.pool).await?;
        Ok(())
    }

    /// How many processes listen.
    pub async fn count_listeners(&self) -> Result<i64, Error> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from pg_stat_activity
               where datname = current_database() and application_name = 'supercargo'
                 and state = 'idle' and query = 'LISTEN "supercargo_wake"'"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(count)
    }
}
