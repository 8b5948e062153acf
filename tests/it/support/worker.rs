//! A worker in as much as the store knows one: it takes tasks and writes how they ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use supercargo::domain::failure::{Budget, Failure, Reason};
use supercargo::domain::outcome::{Outcome, Output, OutputValue};
use supercargo::domain::state::TaskState;
use supercargo::ids::{AttemptId, TaskId, WorkerId};
use supercargo::store::{
    AttemptEnd, ClaimTarget, ClaimedTask, LogSeal, LogSeals, NewEvent, Requeue, Store,
    TargetHealth, WorkerTargets,
};

pub(crate) struct TestWorker {
    store: Store,
    id: WorkerId,
    epoch: i64,
}

impl TestWorker {
    /// Registers with the target `local`, ready.
    pub(crate) async fn start(store: &Store) -> Self {
        let id = WorkerId::generate();
        let epoch = store.register_worker(id, "test", "0").await.unwrap();
        let worker = Self { store: store.clone(), id, epoch };
        worker.report("local", true, None).await;
        worker
    }

    pub(crate) async fn report(&self, target: &str, ready: bool, why: Option<&str>) {
        self.report_engine(target, "engine", ready, why).await;
    }

    pub(crate) async fn report_engine(
        &self,
        target: &str,
        engine: &str,
        ready: bool,
        why: Option<&str>,
    ) {
        let health = TargetHealth {
            kind: "docker".to_owned(),
            ready,
            engine: Some(engine.to_owned()),
            version: Some("20.10".to_owned()),
            why: why.map(str::to_owned),
            since: Some("2026-11-21T00:00:00Z".parse().unwrap()),
        };
        let targets: WorkerTargets = [(target.to_owned(), health)].into_iter().collect();
        assert!(self.store.heartbeat(self.id, self.epoch, &targets).await.unwrap());
    }

    pub(crate) async fn claim(&self) -> Vec<ClaimedTask> {
        self.claim_for("local", &[]).await
    }

    pub(crate) async fn claim_for(&self, target: &str, selectors: &[&str]) -> Vec<ClaimedTask> {
        let target = ClaimTarget {
            name: target.to_owned(),
            engine: "engine".to_owned(),
            slots: 100,
            selectors: selectors.iter().map(|it| (*it).to_owned()).collect(),
        };
        self.store.claim(self.id, &[target]).await.unwrap()
    }

    pub(crate) async fn claim_one(&self, task: TaskId) -> ClaimedTask {
        let claimed = self.claim().await;
        claimed.into_iter().find(|it| it.task == task).expect("the task was not in the queue")
    }

    pub(crate) async fn run(&self, it: &ClaimedTask) {
        let pulled = NewEvent {
            at: Timestamp::now(),
            source: "docker",
            reason: "pulled".to_owned(),
            message: "pulled the image".to_owned(),
        };
        let handle = serde_json::json!({});
        let (now, events) = (Timestamp::now(), [pulled]);
        let running =
            self.store.record_running(it.task, it.fence, now, &handle, Some("sha256:abc"), &events);
        running.await.unwrap();
    }

    pub(crate) async fn finish(&self, it: &ClaimedTask, outcome: Outcome, outputs: Vec<Output>) {
        self.store.finish_attempt(it.task, it.fence, &end(outcome, outputs, None)).await.unwrap();
    }

    pub(crate) async fn requeue(&self, it: &ClaimedTask, not_before: Timestamp) {
        let failure = Failure::new(Reason::RegistryTransient, "the registry broke off");
        let requeue =
            Requeue { attempt: AttemptId::generate(), not_before, budget: Budget::Platform };
        let end = end(Outcome::failed(failure), Vec::new(), Some(requeue));
        self.store.finish_attempt(it.task, it.fence, &end).await.unwrap();
    }

    /// Takes, runs and ends it.
    pub(crate) async fn complete(&self, task: TaskId, outcome: Outcome, outputs: Vec<Output>) {
        let claimed = self.claim_one(task).await;
        self.run(&claimed).await;
        self.finish(&claimed, outcome, outputs).await;
    }
}

fn end(outcome: Outcome, outputs: Vec<Output>, requeue: Option<Requeue>) -> AttemptEnd {
    let seal = LogSeal { bytes: 6, truncated: false, incomplete: false };
    let seals: LogSeals = BTreeMap::from([("main".to_owned(), seal)]);
    AttemptEnd {
        outcome,
        handle: None,
        image_digest: None,
        node: None,
        sandbox: None,
        started_at: None,
        finished_at: Timestamp::now(),
        outputs,
        seals,
        chunks: Vec::new(),
        events: Vec::new(),
        keep_sandbox: false,
        requeue,
    }
}

pub(crate) fn succeeded() -> Outcome {
    Outcome { state: TaskState::Succeeded, exit_code: Some(0), failure: None, unconfirmed: false }
}

pub(crate) fn failed(code: i32, last_line: &str) -> Outcome {
    let mut failure = Failure::new(Reason::ExitNonzero, format!("exited with code {code}"));
    failure.log_tail = vec![last_line.to_owned()];
    Outcome {
        state: TaskState::Failed,
        exit_code: Some(code),
        failure: Some(failure),
        unconfirmed: false,
    }
}

pub(crate) fn json_output(name: &str, value: serde_json::Value) -> Output {
    Output { name: name.to_owned(), value: OutputValue::Json(value) }
}
