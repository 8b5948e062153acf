//! The service is killed at each step of the life of a pod, and started again.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use supercargo::failpoints::Point;

use super::scene::{PATIENCE, Scene, task};
use crate::support::cluster::Cluster;
use crate::support::until;

const LINES: usize = 200;

/// The steps between two writes: to the API server, to the database.
const STEPS: &[Point] = &[
    Point::LaunchBegun,
    Point::CreateInFlight,
    Point::CreateAnswered,
    Point::FilesPut,
    Point::StartBegun,
    Point::StartInFlight,
    Point::StartAnswered,
    Point::RunningCommitted,
    Point::ChunkStored,
    Point::ExitSeen,
    Point::LogDrained,
    Point::Collected,
    Point::RecordCommitted,
    Point::CleanupBegun,
    Point::RemoveInFlight,
    Point::CleanupDone,
];

/// One task through a service that dies at this step.
async fn killed_at(point: Point, cluster: Cluster) {
    let what = point.as_str();
    let mut scene = Scene::start(cluster, &[]).await;
    scene.service.kill9();
    scene.service.begin(vec![("SUPERCARGO_FAILPOINTS".to_owned(), format!("{what}=kill"))]);
    until(&format!("{what}: it is up"), PATIENCE, async || {
        scene.service.is_ready().await.then_some(())
    })
    .await;
    // More files than go into the Secret that the pod starts by.
    let big = "x".repeat(800 << 10);
    let script = format!(
        "test $(cat /in/a /in/b | wc -c) -eq {} || exit 9; \
         i=1; while [ $i -le {LINES} ]; do echo line $i; i=$((i+1)); done; sleep 1; \
         echo '{{\"done\": true}}' > $SUPERCARGO_OUTPUT",
        2 * big.len()
    );
    let files = json!([{"path": "/in/a", "content": big}, {"path": "/in/b", "content": big}]);
    // The answer may die with the service: the key says which task it is.
    let document = task(&script, json!({"files": files, "platform_retries": 3}));
    scene.service.try_request("PUT", &format!("/tasks/key:{what}"), Some(&document)).await.ok();
    let status = until(&format!("{what}: it is killed there"), PATIENCE, async || {
        scene.service.ended_with()
    })
    .await;
    assert_eq!(status.signal(), Some(9), "{what}");
    scene.service.restart().await;
    let ended = scene.ended(&format!("key:{what}")).await;
    assert_eq!(
        (&ended["state"], &ended["attempt"], &ended["outputs"]),
        (&json!("succeeded"), &json!(1), &json!({"done": true})),
        "{what}: {ended:#}"
    );
    let expected: String = (1..=LINES).map(|it| format!("line {it}\n")).collect();
    assert!(scene.service.log(&format!("key:{what}")).await == expected, "{what}: its log");
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_pod_loses_nothing_and_runs_nothing_twice() {
    let Some(cluster) = Cluster::find().await else { return };
    // Three at a time: a node has but so much to give.
    let lanes = (0..3).map(|lane| {
        let cluster = &cluster;
        async move {
            for point in STEPS.iter().skip(lane).step_by(3) {
                let killed = Box::pin(killed_at(*point, cluster.clone()));
                tokio::time::timeout(Duration::from_mins(5), killed).await.unwrap();
            }
        }
    });
    join_all(lanes).await;
}
