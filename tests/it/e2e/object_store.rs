//! The files of an installation: one object store for all of its processes.

use std::process::Output;

use serde_json::json;
use tempfile::TempDir;

use crate::support::containers;
use crate::support::database;
use crate::support::service::{Options, Service};
use crate::support::within;

/// A process of an installation of several, with a data directory of its own.
fn options(database: &str, roles: &str, folder: Option<&TempDir>) -> Options {
    let folder = folder
        .map(|it| ("SUPERCARGO__OBJECT_STORE__FOLDER".to_owned(), it.path().display().to_string()));
    Options {
        database_url: Some(database.to_owned()),
        args: vec!["--roles".to_owned(), roles.to_owned()],
        env: folder.into_iter().collect(),
        ..Options::default()
    }
}

/// Starts another process of the same installation, which is to be refused.
async fn start_beside(service: &Service, database: &str) -> Output {
    let mut command = service.cli(&["serve", "--listen", "127.0.0.1:0", "--roles", "api"]);
    command
        .env("SUPERCARGO__DATA_DIR", service.data_dir().join("other"))
        .env("DATABASE_URL", database);
    let mut command = tokio::process::Command::from(command);
    within("the start is refused", command.kill_on_drop(true).output()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_another_object_store_is_refused_with_the_fix() {
    let Some(database) = database::test_database().await else { return };
    let worker = Service::start_with(options(&database.url, "worker", None)).await;
    let first = worker.data_dir().join("data/objects");
    let id = std::fs::read_to_string(first.join("store.id")).unwrap();

    let refused = start_beside(&worker, &database.url).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    let second = worker.data_dir().join("other/objects");
    for part in
        [second.to_str().unwrap(), first.to_str().unwrap(), id.trim(), "object_store.folder"]
    {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    assert!(!second.join("store.id").exists(), "a refused folder must not look like a store");

    // What the refusal says to do with a folder whose files were moved.
    std::fs::write(second.join("store.id"), &id).unwrap();
    let moved = Service::start_with(Options {
        env: vec![("SUPERCARGO__OBJECT_STORE__FOLDER".to_owned(), second.display().to_string())],
        ..options(&database.url, "api", None)
    })
    .await;
    assert_eq!(moved.request("GET", "/tasks", None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_files_from_before_is_taken_into_use_silently() {
    let Some(database) = database::test_database().await else { return };
    let mut service =
        Service::start_with(options(&database.url, "api,scheduler,worker", None)).await;
    let objects = service.data_dir().join("data/objects");
    let marker = objects.join("store.id");
    assert!(service.stop().success());
    // As an earlier version left it.
    std::fs::create_dir_all(objects.join("2026w47/x/1")).unwrap();
    std::fs::remove_file(&marker).unwrap();
    let forget = "update installation set object_store_id = null, object_store_place = null";
    database::execute(&database.url, forget).await;
    service.restart().await;
    let id = std::fs::read_to_string(&marker).unwrap();
    service.stop();
    service.restart().await;
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_stored_by_one_process_is_read_through_another() {
    if !containers::available().await {
        return;
    }
    let Some(database) = database::test_database().await else { return };
    let shared = tempfile::tempdir_in("/var/tmp").unwrap();
    // Together: whoever is first gives the folder its id.
    let (worker, api) = tokio::join!(
        Service::start_with(options(&database.url, "worker", Some(&shared))),
        Service::start_with(options(&database.url, "api,scheduler", Some(&shared))),
    );
    let command = "mkdir -p /out && echo hello > /out/a.txt";
    let id = api
        .submit(json!({"image": "busybox:latest", "command": ["sh", "-c", command],
            "outputs": {"a": {"path": "/out/a.txt"}}}))
        .await;
    let task = api.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task:#}");
    let file = api.request("GET", &format!("/tasks/{id}/outputs/a"), None).await;
    assert_eq!((file.status, file.text().as_str()), (200, "hello\n"));
    for process in [&worker, &api] {
        assert!(!process.data_dir().join("data/objects").exists());
    }
    containers::gone(&id).await;
}
