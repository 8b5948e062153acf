//! What the service's own Postgres tells, and the floor of a durable insert into it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::service::Service;
use super::stats::Samples;

#[derive(Debug)]
pub(crate) struct Database {
    options: PgConnectOptions,
    connection: PgConnection,
}

/// What Postgres wrote so far: its statistics come late, these come at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) wal_bytes: f64,
    /// Transactions that changed something.
    pub(crate) commits: f64,
}

impl Written {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            wal_bytes: self.wal_bytes - before.wal_bytes,
            commits: self.commits - before.commits,
        }
    }
}

impl Database {
    /// Where Postgres says that it listens.
    pub(crate) async fn open(service: &Service) -> anyhow::Result<Self> {
        let file = service.data_dir().join("postgres/postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        let port = lines.get(3).and_then(|it| it.trim().parse().ok());
        let socket = lines.get(4).context("the postmaster names no socket")?.trim();
        let options = PgConnectOptions::new_without_pgpass()
            .socket(socket)
            .port(port.context("the postmaster names no port")?)
            .username("supercargo")
            .database("supercargo");
        let connection = PgConnection::connect_with(&options).await?;
        Ok(Self { options, connection })
    }

    /// The one figure that a query of the bench's own gives.
    pub(crate) async fn number(&mut self, query: &str) -> anyhow::Result<f64> {
        let row = sqlx::raw_sql(AssertSqlSafe(query)).fetch_one(&mut self.connection).await?;
        Ok(row.try_get::<f64, _>(0)?)
    }

    pub(crate) async fn text(&mut self, query: &'static str) -> anyhow::Result<String> {
        let row = sqlx::raw_sql(query).fetch_one(&mut self.connection).await?;
        Ok(row.try_get::<String, _>(0)?)
    }

    pub(crate) async fn samples(&mut self, query: &str) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for row in sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut self.connection).await? {
            samples.add_ms(row.try_get::<f64, _>(0)?);
        }
        Ok(samples)
    }

    pub(crate) async fn execute(&mut self, statements: &str) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut self.connection).await?;
        Ok(())
    }

    pub(crate) async fn texts(&mut self, query: &str) -> anyhow::Result<Vec<String>> {
        let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut self.connection).await?;
        rows.iter().map(|it| Ok(it.try_get::<String, _>(0)?)).collect()
    }

    /// The label that all containers of this service have.
    pub(crate) async fn container_label(&mut self) -> anyhow::Result<String> {
        let id = self.text("select id::text from installation").await?;
        Ok(format!("supercargo.dev/installation={id}"))
    }

    pub(crate) async fn live_tasks(&mut self) -> anyhow::Result<f64> {
        self.number("select count(*)::float8 from live_tasks").await
    }

    pub(crate) async fn ended_tasks(&mut self) -> anyhow::Result<f64> {
        self.number("select count(*)::float8 from ended_tasks").await
    }

    pub(crate) async fn written(&mut self) -> anyhow::Result<Written> {
        let wal = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
        let commits = "select pg_snapshot_xmax(pg_current_snapshot())::text::float8";
        Ok(Written { wal_bytes: self.number(wal).await?, commits: self.number(commits).await? })
    }

    /// Makes a table for [`Self::insert`] that is as wide as a task, with one index.
    pub(crate) async fn prepare_floor(&mut self) -> anyhow::Result<()> {
        let statements = "create table if not exists bench_floor
                          (id uuid primary key, name text not null, spec json not null)";
        sqlx::raw_sql(statements).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Inserts one row after the other, each in a transaction of its own that is on the disk before the next
    /// begins, over so many connections. Returns how long each took.
    pub(crate) async fn insert(
        &self,
        connections: usize,
        within: Duration,
        spec: &str,
    ) -> anyhow::Result<Samples> {
        let connect = (0..connections).map(|_| PgConnection::connect_with(&self.options));
        let connections = try_join_all(connect).await?;
        let until = Instant::now() + within;
        let all = connections.into_iter().map(|it| insert_until(it, until, spec));
        let mut samples = Samples::default();
        samples.extend(try_join_all(all).await?);
        Ok(samples)
    }

    /// The same with so many rows in each transaction, over one connection. Returns rows per second.
    pub(crate) async fn insert_many(
        &mut self,
        rows: usize,
        times: usize,
        spec: &str,
    ) -> anyhow::Result<f64> {
        let names = vec!["bench"; rows];
        let specs = vec![spec; rows];
        let begun = Instant::now();
        for _ in 0..times {
            let ids: Vec<uuid::Uuid> = (0..rows).map(|_| uuid::Uuid::now_v7()).collect();
            #[expect(clippy::disallowed_methods, reason = "a table that the schema does not have")]
            sqlx::query(
                "insert into bench_floor (id, name, spec)
                 select id, name, spec::json from unnest($1::uuid[], $2::text[], $3::text[]) as t (id, name, spec)",
            )
            .bind(&ids)
            .bind(&names)
            .bind(&specs)
            .execute(&mut self.connection)
            .await?;
        }
        Ok(super::stats::per_second(rows * times, begun.elapsed()))
    }
}

async fn insert_until(
    mut connection: PgConnection,
    until: Instant,
    spec: &str,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    while Instant::now() < until {
        let begun = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "a table that the schema does not have")]
        sqlx::query("insert into bench_floor (id, name, spec) values ($1, $2, $3::text::json)")
            .bind(uuid::Uuid::now_v7())
            .bind("bench")
            .bind(spec)
            .execute(&mut connection)
            .await?;
        samples.add(begun.elapsed());
    }
    connection.close().await?;
    Ok(samples)
}
