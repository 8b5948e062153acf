//! NOTIFY between processes: a hint to look, never data, never the only way to learn of anything.

use sqlx::postgres::PgListener;

use super::{Error, Store};

const CHANNEL: &str = "supercargo_wake";

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
    pub async fn next(&mut self) -> Result<Option<()>, Error> {
        Ok(self.inner.try_recv().await?.map(|_| ()))
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
        sqlx::query!("select pg_notify($1, '')", CHANNEL).fetch_one(&self.pool).await?;
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
