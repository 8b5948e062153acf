use supercargo::store::{Store, Submitted};

use super::{keyed, simple, submit};
use crate::support::database;

#[tokio::test(flavor = "multi_thread")]
async fn one_key_makes_one_task_however_many_ask_at_once() {
    let Some(store) = database::test_store().await else { return };
    let asked: Vec<_> = (0..64)
        .map(|_| {
            let store = Store::clone(&store);
            tokio::spawn(async move {
                let task = keyed("same", 1);
                (task.task, submit(&store, &[task]).await[0])
            })
        })
        .collect();
    let mut created = Vec::new();
    let mut replayed = Vec::new();
    for it in asked {
        match it.await.unwrap() {
            (task, Submitted::Created) => created.push(task),
            (_, Submitted::Replayed(task)) => replayed.push(task),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((created.len(), replayed.len()), (1, 63));
    assert!(replayed.iter().all(|it| *it == created[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_its_request_whatever_became_of_the_task() {
    let Some(store) = database::test_store().await else { return };
    let first = keyed("k", 1);
    assert_eq!(submit(&store, std::slice::from_ref(&first)).await, [Submitted::Created]);
    assert_eq!(submit(&store, &[keyed("k", 2)]).await, [Submitted::KeyReused(first.task)]);
    store.cancel(first.task, "test", jiff::Timestamp::now()).await.unwrap();
    assert_eq!(submit(&store, &[keyed("k", 1)]).await, [Submitted::Replayed(first.task)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_is_there_at_once_and_queued() {
    let Some(store) = database::test_store().await else { return };
    let tasks: Vec<_> = (0..1_000).map(|_| simple()).collect();
    assert!(submit(&store, &tasks).await.iter().all(|it| *it == Submitted::Created));
    for it in tasks.iter().step_by(97) {
        let found = store.find_task(it.task).await.unwrap().unwrap();
        assert_eq!(found.state.as_str(), "queued");
        assert_eq!(found.run, it.run);
    }
}
