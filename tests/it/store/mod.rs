//! The statements, on a real Postgres.

mod claims;
mod fences;
mod migrations;
mod retention;
mod submits;
mod targets;
mod work;

use jiff::Timestamp;
use serde_json::json;
use supercargo::domain::spec;
use supercargo::ids::{AttemptId, RunId, TaskId, WorkerId};
use supercargo::store::{
    ClaimTarget, ClaimedTask, IdempotencyKey, NewTask, Store, Submitted, Submitter,
};

const SUBMITTER: Submitter<'_> = Submitter { project: "default", token: None, name: "tester" };

fn task(document: serde_json::Value) -> NewTask {
    let spec = spec::parse(&document, &spec::Limits::default()).unwrap();
    NewTask {
        task: TaskId::generate(),
        run: RunId::generate(),
        attempt: AttemptId::generate(),
        spec_hash: spec.hash(),
        spec,
        key: None,
        work: None,
    }
}

fn simple() -> NewTask {
    task(json!({"image": "x"}))
}

fn keyed(key: &str, fingerprint: u8) -> NewTask {
    let key = IdempotencyKey { key: key.to_owned(), fingerprint: [fingerprint; 32] };
    NewTask { key: Some(key), ..simple() }
}

async fn submit(store: &Store, tasks: &[NewTask]) -> Vec<Submitted> {
    store.submit(SUBMITTER, Timestamp::now(), tasks).await.unwrap()
}

fn local(slots: i64) -> Vec<ClaimTarget> {
    vec![ClaimTarget {
        name: "local".to_owned(),
        engine: "engine-1".to_owned(),
        slots,
        selectors: Vec::new(),
    }]
}

async fn worker(store: &Store) -> WorkerId {
    let worker = WorkerId::generate();
    store.register_worker(worker, "host", "0").await.unwrap();
    worker
}

async fn claim_one(store: &Store, worker: WorkerId) -> ClaimedTask {
    store.claim(worker, &local(1)).await.unwrap().remove(0)
}
