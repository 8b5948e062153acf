//! `supercargo doctor` on real installations, healthy and not.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::containers;
use crate::support::database::{self, execute, query_one};
use crate::support::engine::OwnEngine;
use crate::support::service::{Options, Service};

#[derive(Debug)]
struct Report {
    code: Option<i32>,
    checks: Vec<Value>,
}

impl Report {
    /// Examines with JSON. `command` has the arguments of the service.
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {} {}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let checks = document["checks"].as_array().unwrap().clone();
        let worst = |status: &str| checks.iter().any(|it| it["status"] == status);
        let expected = if worst("fail") {
            "fail"
        } else if worst("warn") {
            "warn"
        } else {
            "ok"
        };
        assert_eq!(document["status"], expected, "{document:#}");
        assert_eq!(output.status.code(), Some(i32::from(expected == "fail")), "{document:#}");
        Self { code: output.status.code(), checks }
    }

    fn check(&self, name: &str) -> &Value {
        self.checks
            .iter()
            .find(|it| it["check"] == name)
            .unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }

    #[track_caller]
    fn says(&self, name: &str, status: &str, found: &str) -> &Self {
        let check = self.check(name);
        assert_eq!(check["status"], status, "{self:#?}");
        assert!(check["found"].as_str().unwrap().contains(found), "{found:?}: {check:#}");
        self
    }

    #[track_caller]
    fn advises(&self, name: &str, fix: &str) -> &Self {
        let check = self.check(name);
        assert!(check["fix"].as_str().unwrap().contains(fix), "{fix:?}: {check:#}");
        self
    }
}

fn doctor(service: &Service) -> Command {
    let mut command = service.cli(&["doctor", "--json"]);
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        command.env("DOCKER_HOST", host);
    }
    command
}

fn with_database(url: &str) -> Options {
    Options { database_url: Some(url.to_owned()), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_installation_is_ok_everywhere() {
    if !containers::available().await {
        return;
    }
    let service = Service::start().await;
    let id = service.submit(json!({"image": "busybox:latest", "command": ["sleep", "600"]})).await;
    service.until_state(&id, "running").await;
    let before = files_of(&service);

    let report = Report::of(&mut doctor(&service));
    assert_eq!(report.code, Some(0));
    for check in &report.checks {
        assert_eq!(check["status"], "ok", "{report:#?}");
    }
    report
        .says("service", "ok", &service.url)
        .says("database", "ok", "private Postgres")
        .says("database durability", "ok", "fsync = on")
        .says("engine local identity", "ok", "1 live attempt here")
        .says("attempts", "ok", "1 live attempt,")
        .says("containers local", "ok", "1 of a live attempt");
    assert_eq!(files_of(&service), before, "it left something behind");

    // For people, the same in lines.
    let output = service.cli(&["doctor"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), report.checks.len(), "{text}");
    assert!(text.lines().all(|it| it.starts_with("ok    ")), "{text}");

    service.request("POST", &format!("/tasks/{id}/cancel"), None).await;
    service.ended(&id).await;
    containers::gone(&id).await;
}

/// Of the data directory and the object store.
fn files_of(service: &Service) -> Vec<std::ffi::OsString> {
    let data = service.data_dir().join("data");
    let mut names: Vec<_> = [data.clone(), data.join("objects")]
        .iter()
        .flat_map(|it| std::fs::read_dir(it).unwrap())
        .map(|it| it.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_said_and_not_started() {
    let mut service = Service::start().await;
    assert!(service.stop().success());
    let report = Report::of(&mut doctor(&service));
    report
        .says("service", "fail", "does not run")
        .advises("service", "supercargo serve")
        .says("database", "fail", "does not run")
        .advises("database", "supercargo serve")
        .says("schema", "warn", "not checked")
        .says("object store", "ok", "takes a file");
    let data = service.data_dir().join("data");
    assert!(crate::support::postmaster(&data).is_none(), "it started a Postgres");

    // Killed, it leaves its Postgres behind, which can be asked.
    service.restart().await;
    service.kill9();
    let report = Report::of(&mut doctor(&service));
    report.says("service", "fail", "does not run").says("database", "ok", "private Postgres");
    assert!(crate::support::postmaster(&data).is_some(), "it stopped a Postgres");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_ever_ran_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let report = Report::of(
        Command::new(env!("CARGO_BIN_EXE_supercargo"))
            .args(["doctor", "--output", "json", "--data-dir"])
            .arg(&data)
            .env_clear(),
    );
    report.says("service", "fail", "does not run").says(
        "object store",
        "fail",
        "there is no folder",
    );
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_given_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("silent.sock");
    // They take connections, and never say anything.
    let engine = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let database = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let began = std::time::Instant::now();
    let report = Report::of(
        Command::new(env!("CARGO_BIN_EXE_supercargo"))
            .args(["doctor", "--json", "--data-dir"])
            .arg(dir.path().join("data"))
            .env_clear()
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DATABASE_URL", format!("postgres://u@{}/x", database.local_addr().unwrap())),
    );
    report.says("database", "fail", "no answer within 5 s").says(
        "engine local",
        "fail",
        "no answer within 5 s",
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
    drop((engine, database));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_and_one_that_forgets_are_told() {
    let Some(database) = database::test_database().await else { return };
    let service = Service::start_with(with_database(&database.url)).await;
    let report = Report::of(doctor(&service).env("DATABASE_URL", &database.url));
    // The throwaway server of the tests is fast and forgetful.
    report
        .says("database", "ok", "answers within")
        .says("database durability", "fail", "fsync = off")
        .advises("database durability", "fsync = on")
        .says("schema", "ok", "up to date")
        .says("clock", "ok", "this machine's");
    assert!(!report.checks.iter().any(|it| it["check"] == "database disk"), "{report:#?}");

    let wrong = "postgres://u:hunter2@127.0.0.1:1/none";
    let output = doctor(&service).env("DATABASE_URL", wrong).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"), "a password is shown");
    let report = Report::of(doctor(&service).env("DATABASE_URL", wrong));
    report
        .says("database", "fail", "refused")
        .advises("database", "DATABASE_URL")
        .says("service", "ok", "takes the token")
        .says("workers", "warn", "not checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_another_version_is_told_with_its_direction() {
    let Some(database) = database::test_database().await else { return };
    let service = Service::start_with(with_database(&database.url)).await;
    let asked = || Report::of(doctor(&service).env("DATABASE_URL", &database.url));
    let insert =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                  values (99990101000000, 'from the future', true, '', 0)";
    execute(&database.url, insert).await;
    asked().says("schema", "fail", "newer").says("workers", "ok", "valid lease");
    let forget = "delete from _sqlx_migrations where version in
                  (select version from _sqlx_migrations order by version desc limit 2)";
    execute(&database.url, forget).await;
    asked()
        .says("schema", "warn", "1 migration is missing")
        .advises("schema", "supercargo migrate")
        .says("workers", "warn", "not checked: the schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_is_told_with_the_way_back() {
    let Some(mut own) = OwnEngine::start().await else { return };
    let host = format!("unix://{}", own.socket().display());
    let service =
        Service::start_with(Options { docker_host: Some(host.clone()), ..Options::default() })
            .await;
    let id = service.submit(json!({"image": "busybox:latest", "command": ["sleep", "600"]})).await;
    service.until_state(&id, "running").await;

    // At the address of another engine the attempts of this one are not missing, but elsewhere.
    let other = Report::of(&mut doctor(&service));
    other.says("engine local identity", "ok", "1 live attempt on engines of other workers");

    own.crash().await;
    let asked = || Report::of(doctor(&service).env("DOCKER_HOST", &host));
    asked()
        .says("engine local", "fail", &host)
        .advises("engine local", "docker.host")
        .says("containers local", "warn", "not checked")
        .says("database", "ok", "");
    crate::support::until("the worker sees it", crate::support::PATIENCE, async || {
        let report = asked();
        (report.check("service")["status"] == "warn").then_some(())
    })
    .await;
    // What answers at the address is another engine, and no worker reaches the one that has the attempt.
    let other = Report::of(&mut doctor(&service));
    other
        .says("engine local identity", "fail", "1 live attempt on engine")
        .advises("engine local identity", "bring that engine back");
    own.run().await;
    service.request("POST", &format!("/tasks/{id}/cancel"), None).await;
    service.ended(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_nobody_knows_of_are_found_and_named() {
    if !containers::available().await {
        return;
    }
    let Some(database) = database::test_database().await else { return };
    let service = Service::start_with(with_database(&database.url)).await;
    let installation = query_one(&database.url, "select id::text from installation").await;
    let asked = || Report::of(doctor(&service).env("DATABASE_URL", &database.url));
    asked().says("containers local", "ok", "0 of live attempts");

    // Ids that nobody has given out.
    let (task, attempt) = (uuid::Uuid::now_v7().to_string(), uuid::Uuid::now_v7().to_string());
    let name = format!("sc-doctor-{attempt}");
    let orphan = containers::Made::labelled(&name, &installation, &task, &attempt).await;
    let kept =
        containers::Made::labelled(&format!("{name}-kept"), &installation, &task, &attempt).await;
    let elsewhere = uuid::Uuid::now_v7().to_string();
    let other =
        containers::Made::labelled(&format!("{name}-other"), &elsewhere, &task, &attempt).await;
    let report = asked();
    report
        .says("containers local unknown", "warn", &name)
        .advises("containers local unknown", &format!("docker rm --force --volumes {name}"))
        .says("containers local kept", "ok", "1 was put aside")
        .advises("containers local kept", &installation)
        .says("containers local", "ok", "of other installations");
    let found = report.check("containers local unknown")["found"].as_str().unwrap();
    assert!(!found.contains("-other") && !found.contains("-kept"), "{found}");
    drop((orphan, kept, other));
    asked().says("containers local", "ok", "0 of live attempts");

    // A container that somebody removes under a live task, before its worker looks: the books are put so.
    let id = service.submit(json!({"image": "busybox:latest", "command": ["sleep", "600"]})).await;
    service.until_state(&id, "running").await;
    let lost = "update live_tasks set attempt_id = '01930000-0000-7000-8000-000000000001'";
    execute(&database.url, lost).await;
    asked().says("containers local missing", "warn", &id).says(
        "containers local unknown",
        "warn",
        "sc-",
    );
    service.request("POST", &format!("/tasks/{id}/cancel"), None).await;
    drop(service);
    containers::remove_all(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_and_what_it_holds_are_told() {
    let Some(database) = database::test_database().await else { return };
    let lease = ("SUPERCARGO__WORKER__LEASE".to_owned(), "2s".to_owned());
    let heartbeat = ("SUPERCARGO__WORKER__HEARTBEAT".to_owned(), "500ms".to_owned());
    let options =
        Options { env: vec![lease.clone(), heartbeat.clone()], ..with_database(&database.url) };
    let mut service = Service::start_with(options).await;
    let task = json!({"image": "x", "target": "simulated", "env": {"FAKE_RUN_FOR": "10m"}});
    let id = service.submit(task).await;
    service.until_state(&id, "running").await;
    let asked = || {
        let mut doctor = doctor(&service);
        doctor.env("DATABASE_URL", &database.url);
        Report::of(doctor.envs([lease.clone(), heartbeat.clone()]))
    };
    asked().says("workers", "ok", "1 has a valid lease").says("attempts", "ok", "1 live attempt");
    let identity = query_one(&database.url, "select id::text from workers").await;
    asked().says("worker identity", "ok", &identity);

    service.kill9();
    let asked = || {
        let mut doctor = doctor(&service);
        doctor.env("DATABASE_URL", &database.url);
        Report::of(doctor.envs([lease.clone(), heartbeat.clone()]))
    };
    crate::support::until("the lease is over", crate::support::PATIENCE, async || {
        (asked().check("workers")["status"] == "fail").then_some(())
    })
    .await;
    asked()
        .says("workers", "fail", "none has a valid lease")
        .says("attempts", "fail", &format!("1 live attempt of worker {identity}"))
        .advises("attempts", "same data directory");

    // Processes that share an identity take it from each other.
    let url = database.url.clone();
    let taking = tokio::spawn(async move {
        loop {
            execute(&url, "update workers set epoch = epoch + 1").await;
        }
    });
    asked().says("worker identity", "fail", "two share it");
    taking.abort();

    // As another machine that has this data directory's identity shows it.
    let moved =
        "update workers set hostname = 'elsewhere', heartbeat_at = now() + interval '1 hour'";
    execute(&database.url, moved).await;
    asked().says("worker identity", "fail", "elsewhere").advises("worker identity", "worker.id");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_folder_as_object_store_is_told() {
    let Some(database) = database::test_database().await else { return };
    let service = Service::start_with(with_database(&database.url)).await;
    let other = tempfile::tempdir().unwrap();
    let asked = |folder: &std::path::Path| {
        let mut doctor = doctor(&service);
        doctor.env("DATABASE_URL", &database.url);
        Report::of(doctor.env("SUPERCARGO__OBJECT_STORE__FOLDER", folder))
    };
    let own = service.data_dir().join("data/objects");
    asked(&own).says("object store identity", "ok", "it is the one");
    asked(other.path())
        .says("object store", "ok", other.path().to_str().unwrap())
        .says("object store identity", "fail", own.to_str().unwrap())
        .advises("object store identity", "object_store.folder");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0, "it left something behind");
    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    asked(&file).says("object store", "fail", "does not take a file");
}
