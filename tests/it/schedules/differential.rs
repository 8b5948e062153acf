//! The model is the store: random calls to both, and every answer and every row are the same.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use supercargo::clock::ManualClock;
use supercargo::domain::failure::{Budget, Failure, Reason};
use supercargo::domain::outcome::{Outcome, Output, OutputValue};
use supercargo::domain::state::TaskState;
use supercargo::domain::target::Placement;
use supercargo::domain::work::{OnDuplicate, RunKey, Work};
use supercargo::ids::{AttemptId, AttemptNo, Fence, RunId, TaskId, WorkerId};
use supercargo::store::{
    AttemptEnd, ClaimTarget, ClaimedTask, Error, IdempotencyKey, Ledger, LogSeal, NewChunk,
    NewEvent, NewTask, Reopening, Requeue, Store, Submitter,
};

use super::dice::Dice;
use super::model::Model;
use super::plan;
use crate::support::database;

const SEQUENCES: u64 = 100;
const CALLS: u32 = 60;
const LEASE: f64 = 18.0;
const CALLER: Submitter<'static> = Submitter { project: "p", token: None, name: "a caller" };

/// Statements ask this clock for the time, which goes before the one of Postgres.
const CLOCK: &str = "
    create schema sim;
    create table sim.clock (at timestamptz);
    insert into sim.clock values (now());
    create function sim.now() returns timestamptz language sql stable as 'select at from sim.clock';
    alter table workers alter column heartbeat_at set default sim.now();
    do $$ begin
        execute format('alter database %I set search_path = sim, pg_catalog, public', current_database());
    end $$;
";

const TABLES: [(&str, &str); 6] = [
    ("live_tasks", "task_id"),
    ("attempts", "task_id, attempt_no"),
    ("ended_tasks", "task_id"),
    ("superseded_specs", "task_id, attempt_no"),
    ("idempotency_keys", "project, key"),
    ("run_keys", "project, key"),
];

struct Both {
    store: Store,
    model: Model,
    clock: ManualClock,
    now: Timestamp,
    connection: PgConnection,
    tasks: Vec<TaskId>,
    /// Those that were ever given out, of which most are stale.
    claims: Vec<ClaimedTask>,
    workers: [WorkerId; 2],
    requests: u8,
}

fn same<T: Debug>(what: &str, store: Result<T, Error>, model: Result<T, Error>) -> Option<T> {
    let told = |it: &Result<T, Error>| match it {
        Ok(it) => format!("{it:?}"),
        Err(Error::Fenced) => "fenced".to_owned(),
        Err(Error::Conflict { .. }) => "conflict".to_owned(),
        Err(other) => panic!("{what}: {other}"),
    };
    assert_eq!(told(&store), told(&model), "{what}: Postgres, then the model");
    store.ok()
}

/// The order in which several rows are answered is nobody's business.
fn sorted(it: Result<Vec<ClaimedTask>, Error>) -> Result<Vec<ClaimedTask>, Error> {
    it.map(|mut it| {
        it.sort_by_key(|it| it.task);
        it
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_answers_as_postgres_does() {
    let Some(database) = database::test_database().await else { return };
    database::execute(&database.url, CLOCK).await;
    let store = database::open(&database.url);
    for seed in 0..SEQUENCES {
        let connection = PgConnection::connect(&database.url).await.unwrap();
        let mut dice = Dice::seeded(seed);
        let mut both = Both::begin(store.clone(), connection).await;
        for call in 0..CALLS {
            both.call(&mut dice).await;
            if call % 10 == 9 {
                both.compare_rows(seed).await;
            }
        }
        both.compare_rows(seed).await;
        both.compare_reads().await;
    }
    store.close().await;
}

impl Both {
    async fn begin(store: Store, mut connection: PgConnection) -> Self {
        for (table, _) in TABLES {
            let statement = sqlx::AssertSqlSafe(format!("delete from {table}"));
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        for table in ["workers", "task_specs", "outputs", "task_events", "log_chunks"] {
            let statement = sqlx::AssertSqlSafe(format!("delete from {table}"));
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        // To the millisecond: Postgres keeps no nanoseconds.
        let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
        let clock = ManualClock::at(now);
        let workers = [WorkerId::generate(), WorkerId::generate()];
        let mut both = Self {
            store,
            model: Model::new(Arc::new(clock.clone())),
            clock,
            now,
            connection,
            tasks: Vec::new(),
            claims: Vec::new(),
            workers,
            requests: 0,
        };
        both.pass(SignedDuration::ZERO).await;
        for worker in workers {
            both.register(worker).await;
        }
        both
    }

    async fn pass(&mut self, by: SignedDuration) {
        self.now += by;
        self.clock.advance(by);
        let statement = "update sim.clock set at = to_timestamp(0) + make_interval(secs => $1::bigint / 1000.0)";
        sqlx::query(statement)
            .bind(self.now.as_millisecond())
            .execute(&mut self.connection)
            .await
            .unwrap();
    }

    async fn register(&self, worker: WorkerId) -> i64 {
        let ledgers: [&dyn Ledger; 2] = [&self.store, &self.model];
        let [a, b] = ledgers.map(|it| it.register_worker(worker, "host", "1"));
        same("register_worker", a.await, b.await).unwrap()
    }

    async fn call(&mut self, dice: &mut Dice) {
        let worker = *dice.pick(&self.workers);
        match dice.below(26) {
            0..4 => self.submit(dice).await,
            4..8 => self.claim(worker, dice).await,
            8 => {
                let by = *dice.pick(&[1, 500, 1_000, 9_000, 17_999, 18_000, 18_001, 30_000]);
                self.pass(SignedDuration::from_millis(by)).await;
            }
            9 => self.take_own(worker, dice).await,
            10 | 11 => self.take_expired(worker, dice).await,
            12 => self.heartbeat(worker, dice).await,
            13 => self.cancel(dice).await,
            14 | 15 => self.retry(dice).await,
            16 => self.expire().await,
            _ => self.write(dice).await,
        }
    }

    fn new_task(&mut self, dice: &mut Dice) -> NewTask {
        let mut spec = plan::plain();
        spec.target =
            Placement::of_text(dice.pick::<&str>(&["a", "b", "a", "b", "x=1", "x=1,y=2"]));
        spec.priority = *dice.pick(&[0, 5]);
        spec.timeouts.queue = dice.chance(300).then(|| SignedDuration::from_secs(9));
        let key = dice.chance(400).then(|| IdempotencyKey {
            key: format!("k{}", dice.below(4)),
            fingerprint: [*dice.pick(&[1, 1, 2]); 32],
        });
        let work = dice.chance(400).then(|| Work {
            key: RunKey::parse(dice.pick::<&str>(&["w1", "w2"])).unwrap(),
            on_duplicate: *dice.pick(&OnDuplicate::ALL),
        });
        self.requests += 1;
        NewTask {
            task: TaskId::generate(),
            run: RunId::generate(),
            attempt: AttemptId::generate(),
            spec_hash: spec.hash(),
            spec,
            key,
            work,
        }
    }

    async fn submit(&mut self, dice: &mut Dice) {
        let count = *dice.pick(&[1, 1, 1, 2, 3]);
        let mut tasks: Vec<NewTask> = Vec::new();
        for _ in 0..count {
            let task = self.new_task(dice);
            // One key is there once in a batch: the API refuses any other.
            let key = |it: &NewTask| it.key.as_ref().map(|it| it.key.clone());
            let work = |it: &NewTask| it.work.as_ref().map(|it| it.key.clone());
            let fits = |it: &NewTask| {
                (key(it).is_none() || key(it) != key(&task))
                    && (work(it).is_none() || work(it) != work(&task))
            };
            if tasks.iter().all(fits) {
                tasks.push(task);
            }
        }
        self.tasks.extend(tasks.iter().map(|it| it.task));
        let store = self.store.submit(CALLER, self.now, &tasks).await;
        same("submit", store, self.model.submit(CALLER, self.now, &tasks).await);
    }

    fn targets(dice: &mut Dice) -> Vec<ClaimTarget> {
        let mut targets = Vec::new();
        for name in ["a", "b"] {
            let target = ClaimTarget {
                name: name.to_owned(),
                engine: (*dice.pick(&["e1", "e2"])).to_owned(),
                slots: i64::from(dice.below(3)),
                selectors: dice
                    .pick::<&[&str]>(&[&[], &["x=1"], &["x=1", "x=1,y=2"]])
                    .iter()
                    .map(|it| (*it).to_owned())
                    .collect(),
            };
            targets.push(target);
        }
        targets
    }

    fn took(&mut self, what: &str, both: [Result<Vec<ClaimedTask>, Error>; 2]) {
        let [store, model] = both.map(sorted);
        self.claims.extend(same(what, store, model).unwrap());
    }

    async fn claim(&mut self, worker: WorkerId, dice: &mut Dice) {
        let targets = Self::targets(dice);
        let store = self.store.claim(worker, &targets).await;
        let model = self.model.claim(worker, &targets).await;
        self.took("claim", [store, model]);
        let (store, model) = (self.store.queued_selectors(), self.model.queued_selectors());
        same("queued_selectors", store.await, model.await);
    }

    async fn take_own(&mut self, worker: WorkerId, dice: &mut Dice) {
        let driven: Vec<_> = self.tasks.iter().copied().filter(|_| dice.chance(500)).collect();
        let store = self.store.take_own(worker, &driven).await;
        let model = self.model.take_own(worker, &driven).await;
        self.took("take_own", [store, model]);
    }

    async fn take_expired(&mut self, worker: WorkerId, dice: &mut Dice) {
        let targets = Self::targets(dice);
        let store = self.store.take_expired(worker, LEASE, &targets).await;
        let model = self.model.take_expired(worker, LEASE, &targets).await;
        self.took("take_expired", [store, model]);
        let store = self.store.next_expiry(worker, LEASE).await;
        let millis = |it: Result<Option<f64>, Error>| it.map(|it| it.map(|it| (it * 1e3).round()));
        same("next_expiry", millis(store), millis(self.model.next_expiry(worker, LEASE).await));
    }

    async fn heartbeat(&self, worker: WorkerId, dice: &mut Dice) {
        let epoch = i64::from(1 + dice.below(2));
        let targets = std::collections::BTreeMap::new();
        let store = self.store.heartbeat(worker, epoch, &targets).await;
        same("heartbeat", store, self.model.heartbeat(worker, epoch, &targets).await);
        match dice.below(6) {
            4 => {
                let store = self.store.release_lease(worker, epoch).await;
                same("release_lease", store, self.model.release_lease(worker, epoch).await);
            }
            5 => {
                self.register(worker).await;
            }
            _ => {}
        }
    }

    fn any_task(&self, dice: &mut Dice) -> TaskId {
        if self.tasks.is_empty() { TaskId::generate() } else { *dice.pick(&self.tasks) }
    }

    async fn cancel(&self, dice: &mut Dice) {
        let task = self.any_task(dice);
        let store = self.store.cancel(task, "somebody", self.now).await;
        same("cancel", store, Ok(self.model.cancel(task, "somebody", self.now)));
    }

    async fn retry(&self, dice: &mut Dice) {
        let task = self.any_task(dice);
        let mut spec = plan::plain();
        spec.target = Placement::of_text(dice.pick::<&str>(&["b", "x=1"]));
        spec.priority = 3;
        let hash = spec.hash();
        let reopening = Reopening {
            attempt: AttemptId::generate(),
            spec: dice.chance(300).then_some((&spec, &hash)),
            from_attempt: dice.chance(300).then(|| AttemptNo(i32::from(1 + dice.below(2)))),
            message: "again".to_owned(),
        };
        let store = self.store.retry(task, &reopening, self.now).await;
        same("retry", store, Ok(self.model.retry(task, &reopening, self.now)));
    }

    async fn expire(&self) {
        let store = self.store.queued_with_deadline(10).await.map(|mut it| {
            it.sort_by_key(|it| it.task);
            it
        });
        let model = self.model.queued_with_deadline(10).await.map(|mut it| {
            it.sort_by_key(|it| it.task);
            it
        });
        let queued = same("queued_with_deadline", store, model).unwrap();
        let due = queued.iter().filter(|it| it.queue_deadline.is_some_and(|it| it <= self.now));
        let due: Vec<_> = due.map(|it| it.task).collect();
        let outcome = Outcome::failed(Failure::new(Reason::Timeout, "waited too long"));
        let store = self.store.expire_queued(&due, &outcome, self.now).await;
        same("expire_queued", store, self.model.expire_queued(&due, &outcome, self.now).await);
    }

    /// What the holder of an attempt writes, or one who held it once.
    async fn write(&self, dice: &mut Dice) {
        if self.claims.is_empty() {
            return;
        }
        // Mostly one of the last, which is likely to be current.
        let back = dice.index(self.claims.len().min(8));
        let held = &self.claims[self.claims.len() - 1 - back];
        let (task, fence, no) = (held.task, held.fence, held.attempt_no);
        let event = NewEvent {
            at: self.now,
            source: "worker",
            reason: "told".to_owned(),
            message: "a\0b".to_owned(),
        };
        let events = [event];
        let handle = json!({"version": 1, "state": {"x": dice.below(3)}});
        macro_rules! both {
            ($name:ident($($argument:expr),*)) => {{
                let store = self.store.$name($($argument),*).await;
                same(stringify!($name), store, self.model.$name($($argument),*).await)
            }};
        }
        match dice.below(11) {
            0 => drop(both!(holds(task, fence))),
            1 => drop(both!(unclaim(task, fence))),
            2 | 3 => {
                let digest = dice.chance(500).then_some("sha256:1");
                both!(record_running(task, fence, self.now, &handle, digest, &events));
            }
            4 => drop(both!(record_finishing(task, fence))),
            5 => drop(both!(append_events(task, fence, no, &events))),
            6 | 7 => {
                let chunk = self.chunk(task, no, dice).await;
                both!(append_chunk(task, fence, no, &chunk));
            }
            8 => self.retake(held.task, dice).await,
            _ => {
                let end = self.end(held, dice).await;
                both!(finish_attempt(task, fence, &end));
            }
        }
    }

    async fn retake(&self, task: TaskId, dice: &mut Dice) {
        let worker = *dice.pick(&self.workers);
        let store = self.store.retake(worker, task).await;
        same("retake", store, self.model.retake(worker, task).await);
    }

    async fn chunk(&self, task: TaskId, no: AttemptNo, dice: &mut Dice) -> NewChunk {
        let store = self.store.log_position(task, no, "main").await;
        let model = self.model.log_position(task, no, "main").await;
        let position = same("log_position", store, model).unwrap();
        let again = i32::from(dice.chance(250));
        let data = vec![b'x'; 1 + dice.index(5)];
        NewChunk {
            container: "main".to_owned(),
            seq: (position.next_seq - again).max(0),
            byte_offset: position.bytes,
            byte_len: i32::try_from(data.len()).unwrap(),
            first_at: 5,
            last_at: 5 + i64::from(dice.below(9)),
            crc32c: 7,
            encoding: "frames",
            data,
        }
    }

    async fn end(&self, held: &ClaimedTask, dice: &mut Dice) -> AttemptEnd {
        let failure = Failure::new(Reason::ExitNonzero, "exited with 3");
        let failed = Outcome {
            exit_code: Some(3),
            unconfirmed: dice.chance(300),
            ..Outcome::failed(failure)
        };
        let succeeded = Outcome {
            state: TaskState::Succeeded,
            exit_code: Some(0),
            failure: None,
            unconfirmed: false,
        };
        let outcome = dice.pick(&[failed, succeeded, Outcome::cancelled("no more")]).clone();
        let requeue = (outcome.state == TaskState::Failed && dice.chance(600)).then(|| Requeue {
            attempt: AttemptId::generate(),
            not_before: self.now + SignedDuration::from_secs(i64::from(dice.below(3))),
            budget: *dice.pick(&[Budget::User, Budget::Platform]),
        });
        let mut chunks = Vec::new();
        if dice.chance(400) {
            chunks.push(self.chunk(held.task, held.attempt_no, dice).await);
        }
        let output = Output { name: "n".to_owned(), value: OutputValue::Json(json!([1, null])) };
        let seal = LogSeal { bytes: 4, truncated: false, incomplete: true };
        AttemptEnd {
            outcome,
            started_at: dice.chance(500).then_some(self.now),
            finished_at: self.now,
            handle: dice.chance(500).then(|| json!({"at": "end"})),
            image_digest: dice.chance(500).then(|| "sha256:2".to_owned()),
            node: dice.chance(500).then(|| "node".to_owned()),
            sandbox: dice.chance(500).then(|| "sandbox".to_owned()),
            outputs: if dice.chance(300) { vec![output] } else { Vec::new() },
            seals: [("main".to_owned(), seal)].into_iter().collect(),
            chunks,
            events: Vec::new(),
            keep_sandbox: dice.chance(500),
            requeue,
        }
    }

    /// What anybody may read of each task.
    async fn compare_reads(&self) {
        let mut attempts = Vec::new();
        for task in &self.tasks {
            same("find_task", self.store.find_task(*task).await, self.model.find_task(*task).await);
            // Most have no log.
            let has_log = self.model.tables().chunks.keys().any(|it| it.0 == *task);
            for no in (1..3).map(AttemptNo).filter(|_| has_log) {
                macro_rules! read {
                    ($name:ident($($argument:expr),*)) => {
                        same(
                            stringify!($name),
                            self.store.$name(*task, no, "main", $($argument),*).await,
                            self.model.$name(*task, no, "main", $($argument),*).await,
                        )
                    };
                }
                read!(log_position());
                let store = self.store.log_containers(*task, no).await;
                same("log_containers", store, self.model.log_containers(*task, no).await);
                read!(log_length());
                read!(chunks_from(1, 2, 3));
                read!(chunks_backwards(3, 2));
                read!(chunk_before(4));
                read!(log_offset_since(7));
            }
            let store = self.store.list_events(*task).await.unwrap();
            let model = self.model.tables().events.get(task).cloned().unwrap_or_default();
            assert_eq!(store, model, "events");
            let live = self.model.tables().live.get(task).map(|it| it.attempt);
            attempts.extend(live.map(|it| (*task, it)));
        }
        attempts.extend(self.claims.iter().map(|it| (it.task, it.attempt)));
        let store = self.store.attempt_fates(&attempts).await.unwrap();
        assert_eq!(store, self.model.attempt_fates(&attempts).await.unwrap(), "attempt_fates");
        for worker in self.workers {
            let sort = |mut it: Vec<supercargo::store::StopRequest>| {
                it.sort_by_key(|it| it.task);
                it
            };
            let store = self.store.stop_requests(worker).await.map(sort);
            same("stop_requests", store, self.model.stop_requests(worker).await.map(sort));
        }
        let held: Vec<(TaskId, Fence)> = self.claims.iter().map(|it| (it.task, it.fence)).collect();
        for (task, fence) in held {
            same("holds", self.store.holds(task, fence).await, self.model.holds(task, fence).await);
        }
    }

    async fn compare_rows(&mut self, seed: u64) {
        let model = self.model.tables().rows();
        for (table, order) in TABLES {
            let statement = sqlx::AssertSqlSafe(format!(
                "select to_jsonb(t) from (select * from {table} order by {order}) t"
            ));
            let rows: Vec<Value> =
                sqlx::query_scalar(statement).fetch_all(&mut self.connection).await.unwrap();
            let rows: Vec<Value> = rows.into_iter().map(comparable).collect();
            assert_eq!(Value::from(rows), model[table], "seed {seed}: {table}, then the model's");
        }
    }
}

/// Times in microseconds; without what the model does not have.
fn comparable(mut row: Value) -> Value {
    let fields = row.as_object_mut().unwrap();
    for field in ["created_at", "fingerprint", "kind", "spec"] {
        fields.remove(field);
    }
    for (name, value) in fields.iter_mut() {
        let is_time = name.ends_with("_at") || name == "not_before" || name == "queue_deadline";
        if let (true, Some(text)) = (is_time, value.as_str()) {
            let at: Timestamp = text.parse().unwrap();
            *value = json!(at.as_microsecond());
        }
    }
    row
}
