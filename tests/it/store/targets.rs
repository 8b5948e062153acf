use serde_json::json;
use supercargo::domain::target::{Backend, DockerBackend, Target, TargetCheck};
use supercargo::store::{
    AttemptEnd, ClaimTarget, DeletedTarget, PutTarget, Requeue, Store, TargetOrigin, TargetRecord,
};

use super::{SUBMITTER, claim_one, simple, submit, task, worker};
use crate::support::{PATIENCE, database, until};

fn docker(host: &str) -> Target {
    Target::plain(Backend::Docker(DockerBackend { host: Some(host.to_owned()) }))
}

async fn stored(store: &Store, name: &str) -> Option<TargetRecord> {
    store.list_targets().await.unwrap().into_iter().find(|it| it.name == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_put_replaced_and_deleted() {
    let Some(store) = database::test_store().await else { return };
    let before = store.targets_state().await.unwrap();
    assert_eq!(store.put_target("a", &docker("tcp://1"), None).await.unwrap(), PutTarget::Created);
    let first = stored(&store, "a").await.unwrap();
    assert_eq!((&first.target, first.origin), (&Ok(docker("tcp://1")), TargetOrigin::Api));
    assert_ne!(store.targets_state().await.unwrap(), before);

    // Nobody writes over what it has not seen.
    for stale in [None, Some(first.revision - 1)] {
        let answer = store.put_target("a", &docker("tcp://2"), stale).await.unwrap();
        assert_eq!(answer, PutTarget::Changed);
    }
    let answer = store.put_target("a", &docker("tcp://2"), Some(first.revision)).await.unwrap();
    assert_eq!(answer, PutTarget::Replaced);
    let second = stored(&store, "a").await.unwrap();
    assert_eq!(second.target, Ok(docker("tcp://2")));
    assert!(second.revision > first.revision);

    assert_eq!(store.delete_target("b").await.unwrap(), DeletedTarget::NotFound);
    assert_eq!(store.delete_target("a").await.unwrap(), DeletedTarget::Done);
    assert_eq!(stored(&store, "a").await, None);
    let answer = store.put_target("a", &docker("tcp://3"), Some(second.revision)).await.unwrap();
    assert_eq!(answer, PutTarget::Changed, "it was deleted meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_tasks_are_on_stays() {
    let Some(store) = database::test_store().await else { return };
    store.put_target("local", &docker("tcp://1"), None).await.unwrap();
    submit(&store, &[simple(), simple()]).await;
    assert_eq!(store.delete_target("local").await.unwrap(), DeletedTarget::InUse(2));
    let worker = worker(&store).await;
    claim_one(&store, worker).await;
    assert_eq!(store.delete_target("local").await.unwrap(), DeletedTarget::InUse(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_configuration_goes_or_drains() {
    let Some(store) = database::test_store().await else { return };
    let two = [("local".to_owned(), docker("tcp://1")), ("idle".to_owned(), docker("tcp://2"))];
    store.put_target("own", &docker("tcp://3"), None).await.unwrap();
    store.configure_targets(&two).await.unwrap();
    let state = store.targets_state().await.unwrap();
    store.configure_targets(&two).await.unwrap();
    assert_eq!(store.targets_state().await.unwrap(), state, "the same again changes nothing");
    let answer = store.put_target("idle", &docker("tcp://9"), None).await.unwrap();
    assert_eq!(answer, PutTarget::Configured);
    assert_eq!(store.delete_target("idle").await.unwrap(), DeletedTarget::Configured);

    submit(&store, &[simple()]).await;
    store.configure_targets(&[]).await.unwrap();
    let local = stored(&store, "local").await.unwrap();
    assert!(local.retired, "a task waits for it");
    assert_eq!(stored(&store, "idle").await, None);
    assert!(!stored(&store, "own").await.unwrap().retired, "the API's are no business of it");

    // A process that still has it puts it back.
    store.restore_targets(&two[..1]).await.unwrap();
    assert!(!stored(&store, "local").await.unwrap().retired);
    // The configuration wins over the API.
    store.configure_targets(&[("own".to_owned(), docker("tcp://4"))]).await.unwrap();
    let own = stored(&store, "own").await.unwrap();
    assert_eq!((own.target, own.origin), (Ok(docker("tcp://4")), TargetOrigin::Config));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_taken_once_by_who_knows_the_document_and_answered() {
    let Some(store) = database::test_store().await else { return };
    let id = store.ask_check("a", Some(7)).await.unwrap();
    assert_eq!(store.targets_state().await.unwrap().checks, 1);
    for other in [("b", Some(7)), ("a", Some(6)), ("a", None)] {
        let targets = [(other.0.to_owned(), other.1)];
        assert_eq!(store.take_checks("w", &targets).await.unwrap(), []);
    }
    let targets = [("a".to_owned(), Some(7)), ("b".to_owned(), None)];
    let taken = store.take_checks("w", &targets).await.unwrap();
    assert_eq!((taken.len(), taken[0].id, &*taken[0].target), (1, id, "a"));
    assert_eq!(store.take_checks("w", &targets).await.unwrap(), []);
    assert_eq!(store.find_answer(id).await.unwrap(), None);
    let check = TargetCheck { reachable: true, ..TargetCheck::default() };
    store.answer_check(id, &check).await.unwrap();
    let answer = store.find_answer(id).await.unwrap().unwrap();
    assert_eq!((answer.check, &*answer.checked_by), (check, "w"));
    store.end_check(id).await.unwrap();
    assert_eq!(store.find_answer(id).await.unwrap(), None);
    // Of any revision.
    store.ask_check("b", None).await.unwrap();
    assert_eq!(store.take_checks("w", &targets).await.unwrap().len(), 1);
}

fn labelled() -> supercargo::store::NewTask {
    let mut it = task(json!({"image": "x"}));
    it.spec.target = supercargo::domain::target::Placement::of_text("gpu=yes");
    it
}

fn target(name: &str, slots: i64, selectors: &[&str]) -> ClaimTarget {
    ClaimTarget {
        name: name.to_owned(),
        engine: format!("engine-{name}"),
        slots,
        selectors: selectors.iter().map(|it| (*it).to_owned()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_asks_for_labels_has_the_name_of_who_took_it() {
    let Some(store) = database::test_store().await else { return };
    let worker = worker(&store).await;
    let (one, plain) = (labelled(), simple());
    submit(&store, &[one.clone(), plain.clone()]).await;
    assert_eq!(store.queued_selectors().await.unwrap(), ["gpu=yes"]);
    assert!(store.claim(worker, &[target("big", 5, &[])]).await.unwrap().is_empty());
    let filter = |target: &str| supercargo::store::TaskFilter {
        target: Some(target.to_owned()),
        limit: 10,
        ..Default::default()
    };
    let listed = async |target: &str| {
        let listed = store.list_tasks(&filter(target)).await.unwrap();
        listed.into_iter().map(|it| it.task).collect::<Vec<_>>()
    };
    assert_eq!(listed("gpu=yes").await, [one.task]);

    let claimed = store.claim(worker, &[target("big", 5, &["gpu=yes"])]).await.unwrap().remove(0);
    assert_eq!((claimed.task, &*claimed.target, &*claimed.engine), (one.task, "big", "engine-big"));
    assert_eq!(store.queued_selectors().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.find_task(one.task).await.unwrap().unwrap().target, "big");
    assert_eq!((listed("big").await, listed("local").await), (vec![one.task], vec![plain.task]));

    // Not started: any may take it again.
    store.unclaim(claimed.task, claimed.fence).await.unwrap();
    assert_eq!(store.find_task(one.task).await.unwrap().unwrap().target, "gpu=yes");
    let other = [target("other", 5, &["gpu=yes"])];
    let claimed = until("it may be claimed again", PATIENCE, async || {
        store.claim(worker, &other).await.unwrap().pop()
    })
    .await;

    // A further attempt goes to any of them, too.
    let end = |requeue| AttemptEnd { requeue, ..failed() };
    let next = Requeue {
        attempt: supercargo::ids::AttemptId::generate(),
        not_before: jiff::Timestamp::UNIX_EPOCH,
        budget: supercargo::domain::failure::Budget::User,
    };
    store.finish_attempt(claimed.task, claimed.fence, &end(Some(next))).await.unwrap();
    assert_eq!(store.find_task(one.task).await.unwrap().unwrap().target, "gpu=yes");
    let claimed = store.claim(worker, &[target("big", 5, &["gpu=yes"])]).await.unwrap().remove(0);
    store.finish_attempt(claimed.task, claimed.fence, &end(None)).await.unwrap();
    assert_eq!(store.find_task(one.task).await.unwrap().unwrap().target, "big");
    assert_eq!((listed("big").await, listed("other").await), (vec![one.task], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_end_is_not_confirmed_the_next_attempt_stays_where_it_can_be_asked_for() {
    let Some(store) = database::test_store().await else { return };
    let worker = worker(&store).await;
    submit(&store, &[labelled()]).await;
    let big = [target("big", 5, &["gpu=yes"])];
    let claimed = store.claim(worker, &big).await.unwrap().remove(0);
    let next = Requeue {
        attempt: supercargo::ids::AttemptId::generate(),
        not_before: jiff::Timestamp::UNIX_EPOCH,
        budget: supercargo::domain::failure::Budget::User,
    };
    let mut end = AttemptEnd { requeue: Some(next), ..failed() };
    end.outcome.unconfirmed = true;
    store.finish_attempt(claimed.task, claimed.fence, &end).await.unwrap();
    assert!(store.claim(worker, &[target("other", 5, &["gpu=yes"])]).await.unwrap().is_empty());
    assert_eq!(store.claim(worker, &big).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_and_priorities_hold_over_names_and_labels() {
    let Some(store) = database::test_store().await else { return };
    let worker = worker(&store).await;
    let mut tasks = vec![labelled(), simple(), labelled(), simple()];
    tasks[2].spec.priority = 5;
    for it in &mut tasks {
        it.spec_hash = it.spec.hash();
    }
    store.submit(SUBMITTER, jiff::Timestamp::now(), &tasks).await.unwrap();
    let one = store.claim(worker, &[target("local", 3, &["gpu=yes"])]).await.unwrap();
    let order: Vec<_> = one.iter().map(|it| it.task).collect();
    assert_eq!(order, [2, 0, 1].map(|it: usize| tasks[it].task));
    let both = [target("other", 3, &["gpu=yes"]), target("local", 3, &[])];
    let rest = store.claim(worker, &both).await.unwrap();
    assert_eq!(rest.into_iter().map(|it| it.task).collect::<Vec<_>>(), [tasks[3].task]);
}

fn failed() -> AttemptEnd {
    use supercargo::domain::failure::{Failure, Reason};
    use supercargo::domain::outcome::Outcome;
    let failure = Failure::new(Reason::ExitNonzero, "exited with code 1");
    AttemptEnd {
        outcome: Outcome::failed(failure),
        started_at: None,
        finished_at: jiff::Timestamp::now(),
        handle: None,
        image_digest: None,
        node: None,
        sandbox: None,
        outputs: Vec::new(),
        seals: supercargo::store::LogSeals::new(),
        chunks: Vec::new(),
        events: Vec::new(),
        keep_sandbox: false,
        requeue: None,
    }
}
