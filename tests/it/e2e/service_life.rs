//! Starting, stopping, and what is refused.

use serde_json::json;

use crate::support::service::{Options, Service};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_on_the_same_data_is_refused_clearly() {
    let service = Service::start().await;
    let second = service.cli(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("in use") && text.contains(&service.pid().to_string()), "{text}");
    assert_eq!(service.request("GET", "/readyz", None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_auth_it_listens_on_loopback_only() {
    let service =
        Service::start_with(Options { args: vec!["--no-auth".to_owned()], ..Options::default() })
            .await;
    let refused = service
        .cli(&["serve", "--no-auth", "--listen", "0.0.0.0:0"])
        .env("SUPERCARGO__DATA_DIR", service.data_dir().join("other"))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("loopback"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_history_and_token_are_there_after_a_restart() {
    let mut service = Service::start().await;
    let id = service
        .submit(json!({"image": "x", "target": "simulated", "env": {"FAKE_LOG_LINES": 3}}))
        .await;
    let before = service.ended(&id).await;
    let token = service.token.clone();
    assert!(service.stop().success());
    assert!(
        crate::support::postmaster(&service.data_dir().join("data")).is_none(),
        "its postgres stops with it"
    );
    service.restart().await;
    assert_eq!(service.token, token);
    assert_eq!(service.task(&id).await, before);
    assert_eq!(service.log(&id).await.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_binary_refuses_a_newer_schema() {
    let Some(database) = crate::support::database::empty_database().await else { return };
    let url = database.url.clone();
    let service =
        Service::start_with(Options { database_url: Some(url.clone()), ..Options::default() })
            .await;
    drop(service);
    crate::support::database::execute(
        &url,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (99990101000000, 'from the future', true, '', 0)",
    )
    .await;
    let older = std::process::Command::new(env!("CARGO_BIN_EXE_supercargo"))
        .args(["migrate", "--database-url", &url])
        .output()
        .unwrap();
    assert!(!older.status.success());
    let text = String::from_utf8(older.stderr).unwrap();
    assert!(text.contains("newer"), "{text}");
}
