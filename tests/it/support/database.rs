//! A migrated database for each test, cloned from a template that is made once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use supercargo::store::{Settings, Store};
use tokio::sync::OnceCell;

/// Goes away with its value.
pub(crate) struct TestDatabase {
    pub url: String,
    server: String,
    name: String,
}

static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The server, or a reason to skip the test.
fn server() -> Option<String> {
    let server = std::env::var("TEST_DATABASE_URL").ok();
    if server.is_none() {
        super::skip("TEST_DATABASE_URL names no Postgres server: run the tests by `make test`");
    }
    server
}

/// A database with nothing in it.
pub(crate) async fn empty_database() -> Option<TestDatabase> {
    let server = server()?;
    let name = next_name();
    execute(&server, &format!("create database {name}")).await;
    Some(TestDatabase { url: with_name(&server, &name), server, name })
}

/// A migrated store on a database of its own.
pub(crate) struct TestStore {
    store: Store,
    _database: TestDatabase,
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

pub(crate) async fn test_store() -> Option<TestStore> {
    let database = test_database().await?;
    Some(TestStore { store: open(&database.url), _database: database })
}

fn next_name() -> String {
    format!("it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A database with the schema.
pub(crate) async fn test_database() -> Option<TestDatabase> {
    let server = server()?;
    let template = TEMPLATE.get_or_init(|| template(&server)).await;
    let name = next_name();
    execute(&server, &format!("create database {name} template {template}")).await;
    Some(TestDatabase { url: with_name(&server, &name), server, name })
}

impl TestDatabase {
    /// Cuts every connection and lets none in.
    pub(crate) async fn take_away(&self) {
        execute(&self.server, &format!("alter database {} allow_connections false", self.name))
            .await;
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = ";
        execute(&self.server, &format!("{cut}'{}'", self.name)).await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime of its own: the test's may be on its way out.
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(
                &server,
                &format!("drop database if exists {name} with (force)"),
            ));
        });
        dropping.join().unwrap();
    }
}

/// Kept between runs, with a name that says what is in it.
async fn template(server: &str) -> String {
    let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    let mut files: Vec<_> = migrations.map(|it| it.unwrap().path()).collect();
    files.sort();
    let mut text = String::new();
    for file in files {
        text.push_str(&std::fs::read_to_string(file).unwrap());
    }
    let name = format!("it_template_{:08x}", crc32c::crc32c(text.as_bytes()));
    let mut connection = PgConnection::connect(server).await.unwrap();
    // Test processes that start together take turns.
    sqlx::query("select pg_advisory_lock(724)").execute(&mut connection).await.unwrap();
    let ready: Option<bool> =
        sqlx::query_scalar("select datistemplate from pg_database where datname = $1")
            .bind(&name)
            .fetch_optional(&mut connection)
            .await
            .unwrap();
    if ready != Some(true) {
        execute(server, &format!("drop database if exists {name} with (force)")).await;
        execute(server, &format!("create database {name}")).await;
        let store = open(&with_name(server, &name));
        store.prepare(None).await.unwrap();
        store.close().await;
        execute(server, &format!("alter database {name} is_template true")).await;
    }
    connection.close().await.unwrap();
    name
}

/// What the tables say of a task.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Booked {
    pub task: String,
    /// Rows in `live_tasks`.
    pub live: i64,
    /// Rows in `ended_tasks`.
    pub ended: i64,
    pub state: Option<String>,
    pub attempts: Vec<i32>,
}

/// Every task of a database.
pub(crate) async fn booked(url: &str) -> Vec<Booked> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query_as(
        "select s.task_id::text as task,
                (select count(*) from live_tasks l where l.task_id = s.task_id) as live,
                (select count(*) from ended_tasks e where e.task_id = s.task_id) as ended,
                (select e.state from ended_tasks e where e.task_id = s.task_id) as state,
                array(select a.attempt_no from attempts a where a.task_id = s.task_id order by 1) as attempts
         from task_specs s",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    rows
}

/// How many tasks the worker of a data directory holds.
pub(crate) async fn held_by(url: &str, worker: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let count = sqlx::query_scalar("select count(*) from live_tasks where worker_id::text = $1")
        .bind(worker)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    count
}

/// When a task was taken over last, whichever it was.
pub(crate) async fn latest_adoption(url: &str) -> Option<jiff::Timestamp> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let micros: Option<i64> = sqlx::query_scalar(
        "select (extract(epoch from max(at)) * 1000000)::bigint from task_events where reason = 'adopted'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    micros.and_then(|it| jiff::Timestamp::from_microsecond(it).ok())
}

/// When a worker renewed its lease last, as the database writes it.
pub(crate) async fn heartbeat_of(url: &str, worker: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let at = sqlx::query_scalar("select heartbeat_at::text from workers where id::text = $1")
        .bind(worker)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    at
}

pub(crate) fn open(url: &str) -> Store {
    let url = url.to_owned();
    Store::open(&Settings {
        url,
        max_connections: 8,
        acquire_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(30),
        idle_in_transaction_timeout: Duration::from_secs(30),
    })
    .unwrap()
}

pub(crate) async fn execute(server: &str, statement: &str) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    connection.execute(statement).await.unwrap();
    connection.close().await.unwrap();
}

/// The one text that a query gives.
pub(crate) async fn query_one(server: &str, query: &str) -> String {
    let mut connection = PgConnection::connect(server).await.unwrap();
    let query = sqlx::AssertSqlSafe(query.to_owned());
    let text = sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    text
}

fn with_name(server: &str, name: &str) -> String {
    let (before, query) = server.split_once('?').unwrap_or((server, ""));
    let (base, _) = before.rsplit_once('/').unwrap();
    format!("{base}/{name}?{query}")
}
