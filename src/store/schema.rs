//! Brings the schema up to date and makes what every deployment has once.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::{Connection, PgConnection};

use super::{Error, NewToken, Store, tokens};
use crate::ids::InstallationId;

static MIGRATOR: Migrator = sqlx::migrate!();

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Held over migrations and first rows, so that processes that start together take turns.
const SCHEMA_LOCK: i64 = 0x0053_7570_6572_6361;

/// What [`Store::migrate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrateReport {
    pub applied: usize,
    pub version: i64,
}

/// What [`Store::prepare`] found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    pub installation: InstallationId,
    pub migrated: MigrateReport,
}

/// How the schema of a database stands to this binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaState {
    /// The newest migration of this binary.
    pub newest: i64,
    /// Migrations of this binary that the database does not have.
    pub pending: usize,
    /// The newest migration that this binary does not know.
    pub unknown: Option<i64>,
    /// The first migration that was applied with another content, or not to its end.
    pub different: Option<i64>,
}

impl SchemaState {
    /// Whether every query of this binary has what it asks for.
    pub const fn is_usable(&self) -> bool {
        self.pending == 0 && self.different.is_none()
    }
}

impl Store {
    /// Looks, and changes nothing.
    pub async fn schema_state(&self) -> Result<SchemaState, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut applied = Vec::new();
        if has_migrations(&mut connection).await? {
            // Not checked at build time: the table is sqlx's own and not in the migrations.
            #[expect(
                clippy::disallowed_methods,
                reason = "sqlx's own table is unknown to its macros"
            )]
            let rows = sqlx::query_as::<_, (i64, bool, Vec<u8>)>(
                "select version, success, checksum from _sqlx_migrations order by version",
            );
            applied = rows.fetch_all(&mut *connection).await?;
        }
        let known = |version: i64| ups().find(|it| it.version == version);
        let is_applied = |version: i64| applied.iter().any(|it| it.0 == version);
        let differs = |(version, success, checksum): &(i64, bool, Vec<u8>)| {
            let other = known(*version).is_some_and(|it| *it.checksum != **checksum);
            (other || !success).then_some(*version)
        };
        Ok(SchemaState {
            newest: ups().map(|it| it.version).max().unwrap_or_default(),
            pending: ups().filter(|it| !is_applied(it.version)).count(),
            unknown: applied.iter().map(|it| it.0).rfind(|it| known(*it).is_none()),
            different: applied.iter().find_map(differs),
        })
    }

    /// Applies the migrations that are missing. Refuses a schema that is newer than this binary.
    pub async fn migrate(&self) -> Result<MigrateReport, Error> {
        let mut connection = self.schema_connection().await?;
        let report = migrate(&mut connection).await;
        unlock(connection).await;
        report
    }

    /// Migrates, and makes sure of the installation's id, the partitions and the admin token.
    pub async fn prepare(&self, admin: Option<&NewToken>) -> Result<Prepared, Error> {
        let mut connection = self.schema_connection().await?;
        let prepared = prepare(&mut connection, admin).await;
        unlock(connection).await;
        prepared
    }

    async fn schema_connection(&self) -> Result<PgConnection, Error> {
        // Not of the pool: waiting for the lock and long migrations must not hit its timeouts, and what
        // keeps a database from being reached is told as it is.
        let options = self.pool.connect_options();
        let connecting = PgConnection::connect_with(&options);
        let mut connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| Error::Unavailable(sqlx::Error::PoolTimedOut))??;
        sqlx::query!("select set_config('statement_timeout', '0', false)")
            .fetch_one(&mut connection)
            .await?;
        sqlx::query!("select pg_advisory_lock($1)", SCHEMA_LOCK).fetch_one(&mut connection).await?;
        Ok(connection)
    }
}

async fn unlock(connection: PgConnection) {
    // The lock ends with its session.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the schema connection did not close cleanly");
    }
}

async fn prepare(
    connection: &mut PgConnection,
    admin: Option<&NewToken>,
) -> Result<Prepared, Error> {
    let migrated = migrate(connection).await?;
    let candidate = InstallationId::generate();
    sqlx::query!(
        "insert into installation (id) values ($1) on conflict do nothing",
        candidate.uuid()
    )
    .execute(&mut *connection)
    .await?;
    let id = sqlx::query_scalar!("select id from installation").fetch_one(&mut *connection).await?;
    super::partitions::ensure(connection).await?;
    if let Some(token) = admin {
        tokens::insert_if_missing(connection, token).await?;
    }
    Ok(Prepared { installation: InstallationId::from_uuid(id), migrated })
}

async fn migrate(connection: &mut PgConnection) -> Result<MigrateReport, Error> {
    let before = applied(connection).await?;
    // Not `run`: its future is not `Send` for every lifetime, by a limit of the compiler.
    MIGRATOR.run_direct(None, connection, false).await.map_err(schema_error)?;
    let version = MIGRATOR.iter().map(|it| it.version).max().unwrap_or_default();
    Ok(MigrateReport { applied: applied(connection).await?.saturating_sub(before), version })
}

async fn applied(connection: &mut PgConnection) -> Result<usize, Error> {
    if !has_migrations(connection).await? {
        return Ok(0);
    }
    // Not checked at build time: the table is sqlx's own and not in the migrations.
    #[expect(clippy::disallowed_methods, reason = "sqlx's own table is unknown to its macros")]
    let count: i64 =
        sqlx::query_scalar("select count(*) from _sqlx_migrations").fetch_one(connection).await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Without what undoes them.
fn ups() -> impl Iterator<Item = &'static Migration> {
    MIGRATOR.iter().filter(|it| it.migration_type.is_up_migration())
}

async fn has_migrations(connection: &mut PgConnection) -> Result<bool, Error> {
    let exists =
        sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "exists!""#)
            .fetch_one(connection)
            .await?;
    Ok(exists)
}

fn schema_error(error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(version) => Error::Schema(format!(
            "the database has migration {version}, which this binary does not know: it is newer than \
             this version of supercargo; start the newer version"
        )),
        MigrateError::VersionMismatch(version) => Error::Schema(format!(
            "migration {version} was applied with another content than this binary has: start the \
             version of supercargo that made the database, or give this one another database"
        )),
        MigrateError::Execute(it) | MigrateError::ExecuteMigration(it, _) => it.into(),
        other => Error::Schema(format!("the schema can't be migrated: {other}")),
    }
}
