//! A kill at the steps that more than a task and an engine leads to.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use supercargo::failpoints::Point;
use tokio::sync::oneshot;

use super::points::APART;
use crate::support::engine::{SOCKET, docker};
use crate::support::proxy::{Fate, Proxy};
use crate::support::registry::{Mood, Registry};
use crate::support::service::{Options, Service};
use crate::support::starts::Starts;
use crate::support::{containers, until, within};

/// Starts it so that it dies at a step.
fn begin(service: &mut Service, point: Point) {
    assert!(APART.iter().any(|it| it.0 == point), "{point:?} is for the sweep");
    service.begin(vec![("SUPERCARGO_FAILPOINTS".to_owned(), format!("{}=kill", point.as_str()))]);
}

async fn ready(service: &mut Service) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !service.is_ready().await {
        tick.tick().await;
    }
}

async fn killed(service: &mut Service) {
    use std::os::unix::process::ExitStatusExt as _;
    let status = until("it is killed", Duration::from_secs(30), async || service.ended_with());
    assert_eq!(status.await.signal(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_behind_a_pull_starts_what_was_pulled_once() {
    if !containers::available().await {
        return;
    }
    let registry = Registry::start(Mood::Kind).await;
    let mut service = Service::start().await;
    assert!(service.stop().success());
    begin(&mut service, Point::PullDone);
    within("it is up", ready(&mut service)).await;
    let id = service.submit(json!({"image": registry.image(), "command": ["/none"]})).await;
    killed(&mut service).await;
    service.restart().await;
    let task = service.ended(&id).await;
    assert_eq!(task["failure"]["reason"], "command_not_found", "{task:#}");
    assert_eq!((&task["attempt"], registry.asked() > 0), (&json!(1), true), "{task:#}");
    containers::gone(&id).await;
    let options = bollard::query_parameters::RemoveImageOptionsBuilder::new().force(true).build();
    let engine = docker(SOCKET.as_ref()).unwrap();
    engine.remove_image(&registry.image(), Some(options), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_behind_a_return_to_the_queue_starts_it_once() {
    if !containers::available().await {
        return;
    }
    let starts = Starts::record().await;
    let proxy = Proxy::start(SOCKET);
    let options = Options { docker_host: Some(proxy.host()), ..Options::default() };
    let mut service = Service::start_with(options).await;
    assert!(service.stop().success());
    begin(&mut service, Point::UnclaimCommitted);
    within("it is up", ready(&mut service)).await;
    let (arrive, arrived) = oneshot::channel();
    let (go_on, released) = oneshot::channel();
    proxy.next("PUT", "/archive", Fate::Held(arrive, released));
    let id = service
        .submit(json!({"image": "busybox:latest", "command": ["cat", "/in"],
            "files": [{"path": "/in", "content": "a\n"}]}))
        .await;
    within("its files are on their way", arrived).await.unwrap();
    let container = starts.containers(&id).await.remove(0);
    containers::remove(&container).await;
    go_on.send(()).unwrap();
    killed(&mut service).await;
    service.restart().await;
    let task = service.ended(&id).await;
    assert_eq!((&task["state"], &task["attempt"]), (&json!("succeeded"), &json!(1)), "{task:#}");
    assert_eq!((service.log(&id).await.as_str(), starts.of(&id)), ("a\n", 1));
    containers::gone(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_behind_the_rows_of_a_week_leaves_no_file_of_it() {
    let mut service = Service::start().await;
    let kept = service.submit(json!({"image": "none", "target": "simulated"})).await;
    service.ended(&kept).await;
    let mut database = PgConnection::connect(&service.database_url()).await.unwrap();
    let id = "0190e209-a000-7000-8000-000000000001";
    let statements = [
        "call ensure_partitions('2024-07-22', '2024-07-22')".to_owned(),
        format!(
            "insert into task_specs (task_id, run_id, name, image, target, priority, spec, spec_hash)
             values ('{id}', '{id}', 'old', 'none', 'simulated', 0, '{{}}', '')"
        ),
        format!(
            "insert into ended_tasks (task_id, state, attempt_no, queued_at, finished_at)
             values ('{id}', 'succeeded', 1, now(), now())"
        ),
    ];
    for statement in statements {
        database.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let week = service.data_dir().join("data/objects/2024w30");
    std::fs::create_dir_all(week.join(id)).unwrap();
    std::fs::write(week.join(id).join("a.out"), "old").unwrap();
    let rows = format!("select count(*) from task_specs where task_id = '{id}'");
    let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(rows.clone()))
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(count, 1);
    service.kill9();
    begin(&mut service, Point::WeekDropped);
    killed(&mut service).await;
    let count: i64 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&mut database).await.unwrap();
    assert_eq!((count, week.exists()), (0, true), "the rows go first");
    database.close().await.unwrap();
    service.restart().await;
    let gone = until("the files are gone", Duration::from_secs(30), async || {
        (!week.exists()).then_some(())
    });
    gone.await;
    assert_eq!(service.task(&kept).await["state"], "succeeded");
}
