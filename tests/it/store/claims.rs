use std::collections::HashSet;

use serde_json::json;
use supercargo::domain::attempt::Phase;
use supercargo::store::{Error, Store};

use super::{claim_one, local, simple, submit, task, worker};
use crate::support::{PATIENCE, database, until};

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_never_get_the_same_task() {
    let Some(store) = database::test_store().await else { return };
    let tasks: Vec<_> = (0..400).map(|_| simple()).collect();
    submit(&store, &tasks).await;
    let mut claimers = Vec::new();
    for _ in 0..8 {
        let (store, worker) = (Store::clone(&store), worker(&store).await);
        claimers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let got = store.claim(worker, &local(7)).await.unwrap();
                assert!(got.len() <= 7);
                if got.is_empty() {
                    return mine;
                }
                mine.extend(got.into_iter().map(|it| it.task));
            }
        }));
    }
    let mut all = Vec::new();
    for it in claimers {
        all.extend(it.await.unwrap());
    }
    assert_eq!(all.len(), 400);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn priority_goes_before_age() {
    let Some(store) = database::test_store().await else { return };
    let worker = worker(&store).await;
    let documents = [0, 5, 0, 5].map(|it| task(json!({"image": "x", "priority": it})));
    submit(&store, &documents).await;
    let order: Vec<_> =
        store.claim(worker, &local(4)).await.unwrap().into_iter().map(|it| it.task).collect();
    let expected = [1, 3, 0, 2].map(|it: usize| documents[it].task);
    assert_eq!(order, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_its_own_back_and_others_wait_for_the_lease() {
    let Some(store) = database::test_store().await else { return };
    submit(&store, &[simple()]).await;
    let (first, second) = (worker(&store).await, worker(&store).await);
    let claimed = claim_one(&store, first).await;
    assert_eq!(claimed.phase, Phase::Starting);

    assert!(
        store.take_expired(second, 20.0, &local(0)).await.unwrap().is_empty(),
        "the lease is valid"
    );
    assert!(store.take_own(first, &[claimed.task]).await.unwrap().is_empty(), "it is driven");
    let own = store.take_own(first, &[]).await.unwrap();
    assert_eq!((own.len(), own[0].task), (1, claimed.task));
    assert!(own[0].fence > claimed.fence);

    store.release_lease(first, 1).await.unwrap();
    let mut elsewhere = local(0);
    elsewhere[0].engine = "engine-2".to_owned();
    let taken = store.take_expired(second, 20.0, &elsewhere).await.unwrap();
    assert!(taken.is_empty(), "what was given to another engine is out of reach");
    let taken = store.take_expired(second, 20.0, &local(0)).await.unwrap();
    assert_eq!((taken.len(), taken[0].task), (1, claimed.task));
    assert!(taken[0].fence > own[0].fence);
    assert!(store.take_own(first, &[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_expiry_is_that_of_the_oldest_valid_lease_of_another() {
    let Some(store) = database::test_store().await else { return };
    let (first, second) = (worker(&store).await, worker(&store).await);
    let left = async |of| store.next_expiry(of, 20.0).await.unwrap();
    let soon = left(first).await.unwrap();
    assert!((0.0..=20.0).contains(&soon), "{soon}");
    let third = worker(&store).await;
    assert!(left(first).await.unwrap() <= soon, "a younger lease changes nothing");
    store.release_lease(second, 1).await.unwrap();
    assert!(left(third).await.is_some());
    store.release_lease(first, 1).await.unwrap();
    assert_eq!(left(third).await, None, "what has expired does not expire again");
    assert!(left(first).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_replaced_is_told_by_its_heartbeat() {
    let Some(store) = database::test_store().await else { return };
    let it = worker(&store).await;
    let targets = supercargo::store::WorkerTargets::new();
    assert!(store.heartbeat(it, 1, &targets).await.unwrap());
    assert_eq!(store.register_worker(it, "host", "0").await.unwrap(), 2);
    assert!(!store.heartbeat(it, 1, &targets).await.unwrap());
    assert!(store.heartbeat(it, 2, &targets).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_certainly_not_started_goes_back_to_the_queue() {
    let Some(store) = database::test_store().await else { return };
    submit(&store, &[simple()]).await;
    let worker = worker(&store).await;
    let first = claim_one(&store, worker).await;
    store.unclaim(first.task, first.fence).await.unwrap();
    assert!(matches!(store.unclaim(first.task, first.fence).await, Err(Error::Fenced)));
    // After a pause, so that a target that refuses everything is no hot loop.
    let again = until("it may be claimed again", PATIENCE, async || {
        store.claim(worker, &local(1)).await.unwrap().pop()
    })
    .await;
    assert_eq!((again.attempt, again.attempt_no), (first.attempt, first.attempt_no));
    assert!(again.fence > first.fence);
}
