use jiff::{SignedDuration, Timestamp};

use super::{keyed, submit};
use crate::support::database;

#[tokio::test(flavor = "multi_thread")]
async fn weeks_that_are_over_are_dropped_unless_a_task_still_lives_in_them() {
    let Some(store) = database::test_store().await else { return };
    let task = keyed("k", 1);
    submit(&store, std::slice::from_ref(&task)).await;
    let later = Timestamp::now() + SignedDuration::from_hours(24 * 400);

    let dropped = store.drop_partitions_before(later, 0.0).await.unwrap();
    assert!(!dropped.is_empty(), "last week is over");
    assert!(store.find_task(task.task).await.unwrap().is_some(), "a live task keeps its week");

    store.cancel(task.task, "test", Timestamp::now()).await.unwrap();
    let dropped = store.drop_partitions_before(later, 0.0).await.unwrap();
    assert!(!dropped.is_empty());
    assert!(store.find_task(task.task).await.unwrap().is_none());
    // The key went with its task: it is free again.
    store.ensure_partitions().await.unwrap();
    let again = submit(&store, &[keyed("k", 2)]).await;
    assert_eq!(again, [supercargo::store::Submitted::Created]);
}
