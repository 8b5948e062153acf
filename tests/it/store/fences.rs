use jiff::Timestamp;
use supercargo::domain::failure::{Budget, Failure, Reason};
use supercargo::domain::outcome::{Outcome, Output, OutputValue};
use supercargo::domain::state::TaskState;
use supercargo::ids::{AttemptId, AttemptNo};
use supercargo::store::{
    AttemptEnd, AttemptFate, Cancelled, Error, LogSeals, NewChunk, NewEvent, Recorded, Reopening,
    Requeue,
};

use super::{claim_one, simple, submit, worker};
use crate::support::database;

fn end(outcome: Outcome) -> AttemptEnd {
    AttemptEnd {
        outcome,
        started_at: Some(Timestamp::now()),
        finished_at: Timestamp::now(),
        handle: None,
        image_digest: None,
        node: None,
        sandbox: None,
        outputs: Vec::new(),
        seals: LogSeals::new(),
        chunks: Vec::new(),
        events: Vec::new(),
        keep_sandbox: false,
        requeue: None,
    }
}

fn succeeded() -> Outcome {
    Outcome { state: TaskState::Succeeded, exit_code: Some(0), failure: None, unconfirmed: false }
}

fn chunk(seq: i32, text: &str) -> NewChunk {
    NewChunk {
        container: "main".to_owned(),
        seq,
        byte_offset: 0,
        byte_len: i32::try_from(text.len()).unwrap(),
        first_at: 1,
        last_at: 1,
        crc32c: 0,
        encoding: "frames",
        data: text.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_a_stale_holder_is_refused_and_changes_nothing() {
    let Some(store) = database::test_store().await else { return };
    submit(&store, &[simple()]).await;
    let worker = worker(&store).await;
    let stale = claim_one(&store, worker).await;
    let (task, old) = (stale.task, stale.fence);
    let fresh = store.retake(worker, task).await.unwrap().unwrap();
    let json = serde_json::json!({});
    let event = NewEvent {
        at: Timestamp::now(),
        source: "worker",
        reason: "late".to_owned(),
        message: String::new(),
    };

    let mut full = end(succeeded());
    full.outputs.push(Output { name: "late".to_owned(), value: OutputValue::Json(json.clone()) });
    full.events.push(event.clone());
    let refused = [
        store.record_running(task, old, Timestamp::now(), &json, None, &[]).await.err(),
        store.record_finishing(task, old).await.err(),
        store.append_events(task, old, AttemptNo::FIRST, &[event]).await.err(),
        store.append_chunk(task, old, AttemptNo::FIRST, &chunk(0, "late")).await.err(),
        store.unclaim(task, old).await.err(),
        store.finish_attempt(task, old, &end(succeeded())).await.err(),
        store.finish_attempt(task, old, &full).await.err(),
    ];
    for (n, error) in refused.into_iter().enumerate() {
        assert!(matches!(error, Some(Error::Fenced)), "write {n}: {error:?}");
    }
    assert!(!store.holds(task, old).await.unwrap());
    assert!(store.holds(task, fresh.fence).await.unwrap());
    assert_eq!(store.find_task(task).await.unwrap().unwrap().state, TaskState::Starting);
    assert!(store.list_events(task).await.unwrap().is_empty());
    assert!(store.list_outputs(task, AttemptNo::FIRST).await.unwrap().is_empty());
    assert_eq!(store.log_position(task, AttemptNo::FIRST, "main").await.unwrap().next_seq, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_attempt_is_all_there_or_not_at_all() {
    let Some(store) = database::test_store().await else { return };
    submit(&store, &[simple()]).await;
    let worker = worker(&store).await;
    let it = claim_one(&store, worker).await;
    store.append_chunk(it.task, it.fence, AttemptNo::FIRST, &chunk(0, "a")).await.unwrap();
    let mut whole = end(succeeded());
    whole.outputs.push(Output { name: "n".to_owned(), value: OutputValue::Json(7.into()) });
    // The seq is taken: the whole end has to be undone.
    whole.chunks.push(chunk(0, "b"));
    assert!(matches!(
        store.finish_attempt(it.task, it.fence, &whole).await,
        Err(Error::Conflict { .. })
    ));
    assert_eq!(store.find_task(it.task).await.unwrap().unwrap().state, TaskState::Starting);
    assert!(store.list_outputs(it.task, AttemptNo::FIRST).await.unwrap().is_empty());

    whole.chunks = vec![chunk(1, "b")];
    assert_eq!(store.finish_attempt(it.task, it.fence, &whole).await.unwrap(), Recorded::Done);
    let ended = store.find_task(it.task).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.exit_code), (TaskState::Succeeded, Some(0)));
    assert_eq!(store.list_outputs(it.task, AttemptNo::FIRST).await.unwrap().len(), 1);
    assert_eq!(store.log_position(it.task, AttemptNo::FIRST, "main").await.unwrap().next_seq, 2);
    let again = store.finish_attempt(it.task, it.fence, &whole).await;
    assert!(matches!(again, Err(Error::Fenced)), "an end is written once: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_failure_queues_the_next_attempt_unless_a_stop_is_wanted() {
    let Some(store) = database::test_store().await else { return };
    submit(&store, &[simple(), simple()]).await;
    let worker = worker(&store).await;
    let lost = || {
        let failure = Failure::new(Reason::NodeLost, "the engine stopped");
        let requeue = Requeue {
            attempt: AttemptId::generate(),
            not_before: Timestamp::now(),
            budget: Budget::Platform,
        };
        AttemptEnd { requeue: Some(requeue), ..end(Outcome::failed(failure)) }
    };
    let it = claim_one(&store, worker).await;
    assert_eq!(store.finish_attempt(it.task, it.fence, &lost()).await.unwrap(), Recorded::Done);
    let queued = store.find_task(it.task).await.unwrap().unwrap();
    assert_eq!((queued.state, queued.attempt_no), (TaskState::Queued, AttemptNo(2)));
    let attempts = store.list_attempts(it.task).await.unwrap();
    assert_eq!(attempts[0].failure.as_ref().unwrap().reason, Reason::NodeLost);
    let second = claim_one(&store, worker).await;
    assert_eq!((second.task, second.platform_failures), (it.task, 1));

    let other = claim_one(&store, worker).await;
    let asked = store.cancel(other.task, "test", Timestamp::now()).await.unwrap();
    assert_eq!(asked, Cancelled::Requested);
    let recorded = store.finish_attempt(other.task, other.fence, &lost()).await.unwrap();
    assert_eq!(recorded, Recorded::StopRequested);
    assert!(store.list_attempts(other.task).await.unwrap().is_empty());

    let fates = store
        .attempt_fates(&[
            (it.task, it.attempt),
            (it.task, second.attempt),
            (it.task, AttemptId::generate()),
        ])
        .await
        .unwrap();
    assert_eq!(fates.len(), 2);
    assert_eq!(fates[&it.attempt], AttemptFate::Ended { keep_sandbox: false });
    assert_eq!(fates[&second.attempt], AttemptFate::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_an_attempt_writes_nothing_into_one_that_a_retry_opened() {
    let Some(store) = database::test_store().await else { return };
    submit(&store, &[simple()]).await;
    let worker = worker(&store).await;
    let stale = claim_one(&store, worker).await;
    let fresh = store.retake(worker, stale.task).await.unwrap().unwrap();
    let failed = Outcome::failed(Failure::new(Reason::ExitNonzero, "exited with 1"));
    store.finish_attempt(stale.task, fresh.fence, &end(failed)).await.unwrap();
    let reopening = Reopening {
        attempt: AttemptId::generate(),
        spec: None,
        from_attempt: None,
        message: "again".to_owned(),
    };
    assert!(store.retry(stale.task, &reopening, Timestamp::now()).await.unwrap());
    let second = claim_one(&store, worker).await;
    assert!(second.fence > fresh.fence, "{:?} after {:?}", second.fence, fresh.fence);
    for old in [stale.fence, fresh.fence] {
        let refused = store.finish_attempt(stale.task, old, &end(succeeded())).await;
        assert!(matches!(refused, Err(Error::Fenced)), "{refused:?}");
    }
}
