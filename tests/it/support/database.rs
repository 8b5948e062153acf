//! A database of its own for each test, on the server that `TEST_DATABASE_URL` names.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use supercargo::store::{Settings, Store};

/// The server, or a reason to skip the test.
pub(crate) fn server() -> Option<String> {
    if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        Some(url)
    } else {
        super::skip("TEST_DATABASE_URL names no Postgres: run the tests by `make test`");
        None
    }
}

/// Makes an empty database with a name of its own.
pub(crate) async fn create(server: &str, what: &str) -> String {
    let name = format!("it_{what}_{}", uuid::Uuid::now_v7().simple());
    execute(server, &format!("create database {name}")).await;
    let (base, query) = server.split_once('?').unwrap_or((server, ""));
    let host = base.rsplit_once('/').map_or(base, |(host, _)| host);
    if query.is_empty() { format!("{host}/{name}") } else { format!("{host}/{name}?{query}") }
}

pub(crate) async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnectOptions::from_str(url).unwrap().connect().await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// A store on a migrated database of its own.
pub(crate) async fn store() -> Option<Store> {
    let url = create(&server()?, "store").await;
    let store = open(&url);
    store.prepare(None).await.unwrap();
    Some(store)
}

pub(crate) fn open(url: &str) -> Store {
    Store::open(&Settings {
        url: url.to_owned(),
        max_connections: 10,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(30),
        idle_in_transaction_timeout: Duration::from_secs(30),
    })
    .unwrap()
}
