//! Two nodes of one service: what one accepted the other answers for.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use super::{Deployment, Lease, seconds_after};
use crate::support::database::booked;
use crate::support::service::Service;
use crate::support::{containers, until};

/// A hint to another process takes milliseconds. Without one a node looks once a second: it would hear half a
/// second later than the one where it happens, on average.
const PROMPT: f64 = 0.35;
const TRIES: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn one_key_at_two_nodes_makes_one_task_also_where_one_is_killed_meanwhile() {
    let Some(all) = Deployment::new().await else { return };
    let a = all.process("api,scheduler,worker", Lease::Short).await;
    let mut b = all.process("api", Lease::Short).await;
    let task = json!({"image": "x", "target": "simulated"});
    let (to_a, to_b) = (a.api(), b.api());
    let both = (0..40).map(|n| {
        let (to_a, to_b, task) = (&to_a, &to_b, &task);
        async move {
            let key = format!("both-{n}");
            let (a, b) = tokio::join!(
                to_a.call("POST", "/tasks", Some(&key), Some(task)),
                to_b.call("POST", "/tasks", Some(&key), Some(task))
            );
            let (a, b) = (a.unwrap(), b.unwrap());
            let mut statuses = [a.status, b.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 201], "{} {}", a.text(), b.text());
            assert_eq!(a.json()["id"], b.json()["id"]);
        }
    });
    join_all(both).await;

    // One is killed while it is asked: what it answered stands, what it did not is sent to the other.
    let send = |n: usize| {
        let (to_b, task) = (to_b.clone(), task.clone());
        async move {
            let answer = to_b.call("POST", "/tasks", Some(&format!("cut-{n}")), Some(&task)).await;
            answer.ok().map(|it| (it.status, it.json()["id"].clone()))
        }
    };
    let mut asked: Vec<_> = (0..60).map(|n| tokio::spawn(send(n))).collect();
    let first = asked.remove(0).await.unwrap();
    b.kill9();
    let mut answers = vec![first];
    for it in asked {
        answers.push(it.await.unwrap());
    }
    let lost = answers.iter().filter(|it| it.is_none()).count();
    eprintln!("{lost} of {} answers were lost", answers.len());
    for (n, before) in answers.iter().enumerate() {
        let again = to_a.call("POST", "/tasks", Some(&format!("cut-{n}")), Some(&task)).await;
        let again = again.unwrap();
        assert!([200, 201].contains(&again.status), "{}", again.text());
        if let Some((status, id)) = before {
            assert_eq!((*status, again.status, id), (201, 200, &again.json()["id"]), "cut-{n}");
        }
    }
    assert_eq!(booked(all.url()).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_and_a_cancel_at_another_node_are_prompt() {
    if !containers::available().await {
        return;
    }
    let Some(all) = Deployment::new().await else { return };
    let mut options = all.options("api,scheduler,worker", Lease::Default);
    // Where no hint comes it would look in a minute.
    options.env.push(("SUPERCARGO__WORKER__POLL".to_owned(), "1m".to_owned()));
    let a = Service::start_with(options).await;
    let b = all.process("api", Lease::Default).await;
    let sh = |script: &str| json!({"image": "busybox:latest", "command": ["sh", "-c", script], "timeouts": {"stop_grace": "0s"}});
    let mut later = 0.0;
    for n in 0..TRIES {
        let id = b.submit(sh(&format!("usleep {}", 300_000 + 130_000 * n))).await;
        let path = format!("/tasks/{id}?wait=30s");
        let wait = async |at: &Service| {
            let answer = at.request("GET", &path, None).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            Timestamp::now()
        };
        let (here, there) = tokio::join!(wait(&a), wait(&b));
        later += seconds_after(here, there) / f64::from(TRIES);
    }
    let mut slowest_cancel = Duration::ZERO;
    for _ in 0..3 {
        let id = a.submit(sh("sleep 600")).await;
        b.until_state(&id, "running").await;
        let asked = Instant::now();
        let answer = b.request("POST", &format!("/tasks/{id}/cancel"), None).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        until("it is cancelled", Duration::from_secs(30), async || {
            (b.task(&id).await["state"] == "cancelled").then_some(())
        })
        .await;
        slowest_cancel = slowest_cancel.max(asked.elapsed());
        containers::gone(&id).await;
    }
    eprintln!(
        "the other node heard {later:.3} s later, a cancel took at most {slowest_cancel:.2?}"
    );
    assert!(later < PROMPT, "a wait at the other node ended {later} s later");
}
