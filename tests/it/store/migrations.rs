use supercargo::store::Error;

use crate::support::database;

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_goes_up_down_and_up_again() {
    let Some(database) = database::empty_database().await else { return };
    let up = include_str!("../../../migrations/20261121090000_create_schema.up.sql");
    let down = include_str!("../../../migrations/20261121090000_create_schema.down.sql");
    for sql in [up, down, up] {
        database::execute(&database.url, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_migrate_once_and_agree() {
    let Some(database) = database::empty_database().await else { return };
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let store = database::open(&database.url);
            tokio::spawn(async move { store.prepare(None).await.unwrap() })
        })
        .collect();
    let mut prepared = Vec::new();
    for it in starts {
        prepared.push(it.await.unwrap());
    }
    // One of them applied everything that there is.
    let mut applied: Vec<_> = prepared.iter().map(|it| it.migrated.applied).collect();
    applied.sort_unstable();
    let files = std::fs::read_dir("migrations").unwrap().flatten();
    let all = files.filter(|it| it.path().to_string_lossy().ends_with(".up.sql")).count();
    assert_eq!(applied, [0, 0, 0, 0, 0, all]);
    assert!(prepared.iter().all(|it| it.installation == prepared[0].installation));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_from_the_future_is_refused() {
    let Some(database) = database::empty_database().await else { return };
    let store = database::open(&database.url);
    store.migrate().await.unwrap();
    database::execute(
        &database.url,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (99990101000000, 'from the future', true, '', 0)",
    )
    .await;
    match store.migrate().await {
        Err(Error::Schema(message)) => assert!(message.contains("newer"), "{message}"),
        other => panic!("{other:?}"),
    }
}
