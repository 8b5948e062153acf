//! Submits that name their work, and new attempts of tasks that have ended.

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use supercargo::domain::failure::{Failure, Reason};
use supercargo::domain::outcome::Outcome;
use supercargo::domain::spec::TaskSpec;
use supercargo::domain::state::TaskState;
use supercargo::domain::work::{OnDuplicate, RunKey, Work};
use supercargo::ids::{AttemptId, AttemptNo, TaskId};
use supercargo::store::{IdempotencyKey, NewTask, Reopening, Store, Submitted};

use super::{simple, submit, task};
use crate::support::database;
use crate::support::worker::{TestWorker, failed, succeeded};

fn work(key: &str, on_duplicate: OnDuplicate) -> NewTask {
    let key = RunKey::parse(key).unwrap();
    NewTask { work: Some(Work { key, on_duplicate }), ..simple() }
}

async fn one(store: &Store, task: NewTask) -> Submitted {
    submit(store, &[task]).await[0]
}

async fn state(store: &Store, task: TaskId) -> TaskState {
    store.find_task(task).await.unwrap().unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn many_submits_at_once_of_one_work_make_one_task() {
    let Some(store) = database::test_store().await else { return };
    let submits = (0..64).map(|n| {
        let mut task = work("w", OnDuplicate::AttachIfActive);
        // Each request has a key of its own, as a client would give it.
        task.key = Some(IdempotencyKey { key: format!("r{n}"), fingerprint: [1; 32] });
        let store = store.clone();
        async move { (task.task, one(&store, task).await) }
    });
    let answers = join_all(submits).await;
    let made: Vec<TaskId> =
        answers.iter().filter(|(_, it)| *it == Submitted::Created).map(|(id, _)| *id).collect();
    assert_eq!(made.len(), 1, "{answers:?}");
    let others = answers.iter().filter(|(_, it)| *it == Submitted::Attached(made[0])).count();
    assert_eq!(others, 63, "{answers:?}");
    assert_eq!(store.find_run_key("default", "w").await.unwrap(), Some(made[0]));
    // The key of a request leads to the task that it was answered with.
    let mut again = work("w", OnDuplicate::Restart);
    again.key = Some(IdempotencyKey { key: "r7".to_owned(), fingerprint: [1; 32] });
    assert_eq!(one(&store, again).await, Submitted::Replayed(made[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_succeed_is_tried_again_with_the_new_document() {
    let Some(store) = database::test_store().await else { return };
    let worker = TestWorker::start(&store).await;
    let first = work("w", OnDuplicate::AttachIfActive);
    let id = first.task;
    assert_eq!(one(&store, first).await, Submitted::Created);
    assert_eq!(one(&store, work("w", OnDuplicate::AttachIfActive)).await, Submitted::Attached(id));
    worker.complete(id, failed(3, "x"), Vec::new()).await;
    assert_eq!(one(&store, work("w", OnDuplicate::Attach)).await, Submitted::Attached(id));
    assert_eq!(one(&store, work("w", OnDuplicate::Reject)).await, Submitted::Rejected(id));

    // 16 at once: one of them opens the attempt, the others find it live.
    let submits = (0..16).map(|n| {
        let document = json!({"image": "y", "labels": {"n": n}, "timeouts": {"queue": "1h"}});
        let again = NewTask { work: work("w", OnDuplicate::AttachIfActive).work, ..task(document) };
        let store = store.clone();
        async move { one(&store, again).await }
    });
    let answers = join_all(submits).await;
    assert_eq!(
        answers.iter().filter(|it| **it == Submitted::Retried(id)).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(answers.iter().filter(|it| **it == Submitted::Attached(id)).count(), 15);

    let record = store.find_task(id).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.attempt_no, record.exit_code),
        (TaskState::Queued, AttemptNo(2), None)
    );
    assert_eq!((record.image.as_str(), record.run_key.as_deref()), ("y", Some("w")));
    let image = async |attempt| {
        let spec: Option<TaskSpec> = store.find_spec(id, attempt).await.unwrap();
        spec.unwrap().image
    };
    assert_eq!(image(Some(AttemptNo(1))).await, "x");
    assert_eq!(image(Some(AttemptNo(2))).await, "y");
    assert_eq!(image(None).await, "y");
    let claimed = worker.claim_one(id).await;
    assert_eq!(claimed.spec.as_ref().unwrap().image, "y");
    worker.run(&claimed).await;
    worker.finish(&claimed, succeeded(), Vec::new()).await;
    let attempts = store.list_attempts(id).await.unwrap();
    let hashes: Vec<_> = attempts.iter().map(|it| it.spec_hash.clone().unwrap()).collect();
    assert_ne!(hashes[0], hashes[1]);
    assert!(attempts[1].queued_at > attempts[0].queued_at, "{attempts:?}");
    // What succeeded stays.
    assert_eq!(one(&store, work("w", OnDuplicate::AttachIfActive)).await, Submitted::Attached(id));
    assert_eq!(state(&store, id).await, TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_the_work_over_and_waits_for_the_end_of_the_first() {
    let Some(store) = database::test_store().await else { return };
    let worker = TestWorker::start(&store).await;
    let first = work("w", OnDuplicate::default());
    let old = first.task;
    one(&store, first).await;
    let claimed = worker.claim_one(old).await;
    worker.run(&claimed).await;

    let second = work("w", OnDuplicate::Restart);
    let new = second.task;
    assert_eq!(one(&store, second).await, Submitted::Restarted(old));
    assert_eq!(store.find_run_key("default", "w").await.unwrap(), Some(new));
    assert!(store.find_task(old).await.unwrap().unwrap().stop_requested);
    let record = store.find_task(new).await.unwrap().unwrap();
    assert_eq!((record.state, record.after_task), (TaskState::Queued, Some(old)));
    assert!(worker.claim().await.is_empty(), "both would run at a time");

    worker.finish(&claimed, Outcome::cancelled("cancelled while it ran"), Vec::new()).await;
    let claimed = worker.claim_one(new).await;
    worker.run(&claimed).await;
    worker.finish(&claimed, succeeded(), Vec::new()).await;

    // One that waits in the queue ends at once.
    let third = work("w", OnDuplicate::Restart);
    let queued = third.task;
    assert_eq!(one(&store, third).await, Submitted::Restarted(new));
    assert_eq!(one(&store, work("w", OnDuplicate::Restart)).await, Submitted::Restarted(queued));
    assert_eq!(state(&store, queued).await, TaskState::Cancelled);
    assert_eq!(state(&store, new).await, TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_rejected_work_stores_nothing() {
    let Some(store) = database::test_store().await else { return };
    let first = work("b", OnDuplicate::default());
    let id = first.task;
    one(&store, first).await;
    let batch = [work("a", OnDuplicate::default()), work("b", OnDuplicate::Reject), simple()];
    let answers = submit(&store, &batch).await;
    assert_eq!(answers[1], Submitted::Rejected(id));
    assert_eq!(store.find_run_key("default", "a").await.unwrap(), None);
    assert_eq!(store.find_task(batch[2].task).await.unwrap(), None);
    let mixed = [work("a", OnDuplicate::default()), work("b", OnDuplicate::default()), simple()];
    let answers = submit(&store, &mixed).await;
    assert_eq!(answers, [Submitted::Created, Submitted::Attached(id), Submitted::Created]);
    assert_eq!(state(&store, mixed[2].task).await, TaskState::Queued);
}

fn retry(from_attempt: Option<AttemptNo>) -> Reopening<'static> {
    let message = "asked for".to_owned();
    Reopening { attempt: AttemptId::generate(), spec: None, from_attempt, message }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_opens_one_attempt_with_fresh_budgets() {
    let Some(store) = database::test_store().await else { return };
    let worker = TestWorker::start(&store).await;
    let task = simple();
    let id = task.task;
    one(&store, task).await;
    let now = Timestamp::now();
    assert!(!store.retry(id, &retry(None), now).await.unwrap(), "it lives");
    let claimed = worker.claim_one(id).await;
    worker.requeue(&claimed, now).await;
    let claimed = worker.claim_one(id).await;
    assert_eq!((claimed.attempt_no, claimed.platform_failures), (AttemptNo(2), 1));
    worker.run(&claimed).await;
    worker.finish(&claimed, failed(3, "x"), Vec::new()).await;

    assert!(!store.retry(id, &retry(Some(AttemptNo(1))), now).await.unwrap(), "sent before");
    let retries =
        join_all(
            (0..8).map(|_| {
                let store = store.clone();
                async move {
                    store.retry(id, &retry(Some(AttemptNo(2))), Timestamp::now()).await.unwrap()
                }
            }),
        );
    assert_eq!(retries.await.into_iter().filter(|it| *it).count(), 1);
    let claimed = worker.claim_one(id).await;
    assert_eq!((claimed.attempt_no, claimed.platform_failures), (AttemptNo(3), 0));
    assert_eq!((claimed.started_at, claimed.stop), (None, None));
    worker.run(&claimed).await;
    worker.finish(&claimed, succeeded(), Vec::new()).await;
    assert!(!store.retry(id, &retry(None), now).await.unwrap(), "it succeeded");
    assert_eq!(store.list_attempts(id).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_end_nobody_confirmed_is_handed_to_the_next() {
    let Some(store) = database::test_store().await else { return };
    let worker = TestWorker::start(&store).await;
    let task = simple();
    let id = task.task;
    one(&store, task).await;
    let first = worker.claim_one(id).await;
    worker.run(&first).await;
    let failure = Failure::new(Reason::Timeout, "the target can't be asked");
    let outcome = Outcome { unconfirmed: true, ..Outcome::failed(failure) };
    worker.finish(&first, outcome, Vec::new()).await;
    store.retry(id, &retry(None), Timestamp::now()).await.unwrap();
    // Also over an attempt in between that never had a sandbox.
    store.cancel(id, "tester", Timestamp::now()).await.unwrap();
    store.retry(id, &retry(None), Timestamp::now()).await.unwrap();
    let third = worker.claim_one(id).await;
    let before = third.unconfirmed.unwrap();
    assert_eq!((before.attempt, before.engine), (first.attempt, first.engine));
}
