//! Looks at every task that was accepted from every side, and says what is not as it has to be: the API, the
//! tables, the engine.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use bollard::Docker;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection};

use super::client::Book;
use super::mix::{Kind, Log, Order};
use crate::support::containers;
use crate::support::database::{Booked, booked};
use crate::support::service::{Answer, Api};
use crate::support::starts::Starts;

/// After the end of everything: the sweeper has looked twice by then.
const GRACE: Duration = Duration::from_secs(20);

/// What was found, where all is well.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub tasks: usize,
    pub attempts: usize,
    pub started: usize,
    pub adopted: i64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        self.tasks += other.tasks;
        self.attempts += other.attempts;
        self.started += other.started;
        self.adopted += other.adopted;
    }
}

/// What the tables have besides [`Booked`].
struct Tables {
    /// Order → its tasks.
    orders: HashMap<String, Vec<String>>,
    /// Idempotency key → its task.
    keys: HashMap<String, String>,
    /// Task and attempt → the seal of its log.
    seals: HashMap<(String, i32), Value>,
    booked: HashMap<String, Booked>,
    adopted: i64,
    workers: i64,
}

impl Tables {
    async fn read(url: &str, prefix: &str) -> Self {
        let mut db = PgConnection::connect(url).await.unwrap();
        let like = format!("{prefix}%");
        let tasks: Vec<(String, String)> = sqlx::query_as(
            "select coalesce(labels->>'order', '-'), task_id::text from task_specs
             where coalesce(labels->>'order', '-') like $1",
        )
        .bind(&like)
        .fetch_all(&mut db)
        .await
        .unwrap();
        let keys: Vec<(String, String)> =
            sqlx::query_as("select key, task_id::text from idempotency_keys where key like $1")
                .bind(&like)
                .fetch_all(&mut db)
                .await
                .unwrap();
        let seals: Vec<(String, i32, Option<String>)> = sqlx::query_as(
            "select a.task_id::text, a.attempt_no, a.log::text from attempts a join task_specs s using (task_id)
             where labels->>'order' like $1",
        )
        .bind(&like)
        .fetch_all(&mut db)
        .await
        .unwrap();
        let adopted = sqlx::query_scalar(
            "select count(*) from task_events e join task_specs s using (task_id)
             where reason = 'adopted' and labels->>'order' like $1",
        )
        .bind(&like)
        .fetch_one(&mut db)
        .await
        .unwrap();
        let workers =
            sqlx::query_scalar("select count(*) from workers").fetch_one(&mut db).await.unwrap();
        db.close().await.unwrap();
        let mut orders = HashMap::<String, Vec<String>>::new();
        for (order, task) in tasks {
            orders.entry(order).or_default().push(task);
        }
        let seal = |it: Option<String>| it.map(|it| serde_json::from_str(&it).unwrap());
        Self {
            orders,
            keys: keys.into_iter().collect(),
            seals: seals
                .into_iter()
                .map(|(task, no, log)| ((task, no), seal(log).unwrap_or_default()))
                .collect(),
            booked: booked(url).await.into_iter().map(|it| (it.task.clone(), it)).collect(),
            adopted,
            workers,
        }
    }
}

/// Every violation. Each order of the book begins with `prefix`, and nothing else does. Every task has ended.
pub(crate) async fn audit(
    book: &Book,
    prefix: &str,
    api: &Api,
    database: &str,
    starts: &Starts,
) -> (Figures, Vec<String>) {
    let mut faults = std::mem::take(&mut *book.faults.lock().unwrap());
    let mut tasks = BTreeMap::<String, Order>::new();
    for (id, order) in &*book.accepted.lock().unwrap() {
        let before = tasks.insert(id.clone(), order.clone());
        if before.is_some_and(|it| it.key != order.key) {
            faults.push(format!("task {id} was given to two requests"));
        }
    }
    // The removals may still be under way, and are the last that happens.
    let left = left(&tasks, starts).await;
    let tables = Tables::read(database, prefix).await;
    let mut figures = Figures { tasks: tasks.len(), adopted: tables.adopted, ..Figures::default() };
    for (id, order) in &tasks {
        let mut found = Vec::new();
        match api.call("GET", &format!("/tasks/{id}"), None, None).await {
            Ok(answer) if answer.status == 200 => {
                let task = answer.json();
                found.extend(told(order, &task));
                found.extend(outputs(order, id, &task, api).await);
                found.extend(logs(order, id, &task, api, &tables).await);
                found.extend(rows(order, id, &task, &tables));
                let (started, state) = (starts.of(id), task["state"].as_str().unwrap_or_default());
                if !order.starts(state).contains(&started) {
                    found
                        .push(format!("{started} containers were started of it, which is {state}"));
                }
                figures.started += started;
                figures.attempts += task["attempts"].as_array().map_or(0, Vec::len);
            }
            other => found.push(format!("it is answered {other:?}")),
        }
        faults.extend(found.into_iter().map(|it| format!("{} (task {id}): {it}", order.key)));
    }
    for (order, made) in &tables.orders {
        if made.len() > 1 || !made.iter().all(|it| tasks.contains_key(it)) {
            faults.push(format!("{order}: one request made the tasks {made:?}"));
        }
    }
    if tables.workers != 1 {
        faults.push(format!("there are {} workers and not the one", tables.workers));
    }
    faults.extend(starts.faults(&tasks.keys().cloned().collect::<HashSet<_>>()));
    faults.extend(left);
    (figures, faults)
}

/// What the API tells of it.
fn told(order: &Order, task: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let state = task["state"].as_str().unwrap_or_default();
    let reason = task["failure"]["reason"].as_str().unwrap_or_default();
    if !order.ends().contains(&(state, reason)) {
        faults.push(format!("it ended as {state} {reason}: {}", task["failure"]["message"]));
    }
    let attempt = task["attempt"].as_u64().unwrap_or_default();
    if attempt != order.attempts() {
        faults.push(format!("it had {attempt} attempts"));
    }
    let attempts = task["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let numbers: Vec<u64> = attempts.iter().filter_map(|it| it["number"].as_u64()).collect();
    if numbers != (1..=attempt).collect::<Vec<_>>() {
        faults.push(format!("its attempts are {numbers:?}, and the last is {attempt}"));
    }
    faults
}

fn rows(order: &Order, id: &str, task: &Value, tables: &Tables) -> Vec<String> {
    let mut faults = Vec::new();
    let attempts = i32::try_from(task["attempt"].as_u64().unwrap_or_default()).unwrap();
    let row = tables.booked.get(id);
    let right = row.is_some_and(|row| {
        (row.live, row.ended) == (0, 1)
            && row.state.as_deref() == task["state"].as_str()
            && row.attempts == (1..=attempts).collect::<Vec<_>>()
    });
    if !right {
        faults.push(format!("the tables have {row:?}, the API tells {task}"));
    }
    // The keys of a batch are made of its own.
    let key = tables.keys.get(&order.key);
    if order.kind != Kind::Batch && key.map(String::as_str) != Some(id) {
        faults.push(format!("its key is that of {key:?}"));
    }
    faults
}

async fn outputs(order: &Order, id: &str, task: &Value, api: &Api) -> Vec<String> {
    let (Some((sum, bytes)), "succeeded") =
        (order.outputs(), task["state"].as_str().unwrap_or_default())
    else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let hex: Vec<String> = Sha256::digest(&bytes).iter().map(|it| format!("{it:02x}")).collect();
    let told = &task["outputs"];
    let file = &told["numbers"];
    if told["sum"] != sum || file["size"] != bytes.len() || file["sha256"] != hex.concat() {
        faults.push(format!("its outputs are {told}"));
    }
    match api.call("GET", &format!("/tasks/{id}/outputs/numbers"), None, None).await {
        Ok(Answer { status: 200, bytes: got, .. }) if got == bytes => {}
        Ok(other) => faults.push(format!(
            "its file is answered {} with {} bytes that are not the right ones",
            other.status,
            other.bytes.len()
        )),
        Err(error) => faults.push(format!("its file can't be read: {error}")),
    }
    faults
}

/// Each attempt that has an exit has its log, whole and once.
async fn logs(order: &Order, id: &str, task: &Value, api: &Api, tables: &Tables) -> Vec<String> {
    let mut faults = Vec::new();
    for attempt in task["attempts"].as_array().into_iter().flatten() {
        let number = attempt["number"].as_u64().unwrap_or_default();
        let read = async |stream: &str| {
            let path = format!("/tasks/{id}/logs?attempt={number}&stream={stream}");
            api.call("GET", &path, None, None).await.map(|it| it.bytes).unwrap_or_default()
        };
        let log = Log { out: read("stdout").await, err: read("stderr").await };
        let ran = attempt["exit_code"].is_i64() && order.kind != Kind::NotFound;
        let wanted = if ran { order.log(number) } else { Log { out: Vec::new(), err: Vec::new() } };
        if log != wanted {
            faults.push(format!("the log of attempt {number} is {}", differs(&log, &wanted)));
        }
        let no = i32::try_from(number).unwrap();
        let seal = tables.seals.get(&(id.to_owned(), no)).map(|it| &it["main"]);
        let whole = seal.is_some_and(|it| {
            it["bytes"] == wanted.out.len() + wanted.err.len()
                && it["incomplete"].is_null()
                && it["truncated"].is_null()
        });
        if ran && !whole {
            faults.push(format!("the log of attempt {number} is sealed {seal:?}"));
        }
    }
    faults
}

fn differs(log: &Log, wanted: &Log) -> String {
    let of = |name: &str, got: &[u8], wanted: &[u8]| {
        let at = got.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        let from = String::from_utf8_lossy(&got[at..got.len().min(at + 60)]).into_owned();
        format!("{name}: {} bytes and not {}, from byte {at} on {from:?}", got.len(), wanted.len())
    };
    format!("{}; {}", of("stdout", &log.out, &wanted.out), of("stderr", &log.err, &wanted.err))
}

/// The containers of a task with their names, as soon as one was put aside and is the only one, or late.
async fn kept(docker: &Docker, starts: &Starts, id: &str, late: Instant) -> Vec<(String, String)> {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        let mut kept = Vec::new();
        for container in starts.containers(id).await {
            // It may be removed meanwhile, which is not kept.
            if let Ok(it) = docker.inspect_container(&container, None).await {
                kept.push((container, it.name.unwrap_or_default()));
            }
        }
        let is_right = matches!(&kept[..], [(_, name)] if name.ends_with("-kept"));
        if is_right || Instant::now() > late {
            return kept;
        }
    }
}

/// What is left on the engine. What is kept is there, and is removed by this.
async fn left(tasks: &BTreeMap<String, Order>, starts: &Starts) -> Vec<String> {
    let mut faults = Vec::new();
    let deadline = Instant::now() + GRACE;
    let docker = Docker::connect_with_defaults().unwrap();
    for (id, order) in tasks {
        if order.kind == Kind::Kept {
            let kept = kept(&docker, starts, id, deadline).await;
            if kept.len() != 1 {
                faults.push(format!("{} (task {id}): {kept:?} is kept of it", order.key));
            }
            for (container, name) in kept {
                if !name.ends_with("-kept") {
                    faults.push(format!("{} (task {id}): it is kept as {name}", order.key));
                }
                containers::remove(&container).await;
            }
        }
    }
    let mut waiting: BTreeSet<&String> = tasks.keys().collect();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while !waiting.is_empty() {
        tick.tick().await;
        let mut there = Vec::new();
        for id in waiting {
            let containers = starts.containers(id).await;
            if !containers.is_empty() && Instant::now() > deadline {
                let key = &tasks[id].key;
                faults.push(format!("{key} (task {id}): the containers {containers:?} are left"));
            } else if !containers.is_empty() {
                there.push(id);
            }
        }
        waiting = there.into_iter().collect();
    }
    for (id, order) in tasks {
        let left = starts.left(id).await;
        if !left.is_empty() {
            faults.push(format!("{} (task {id}): {left:?} is left", order.key));
        }
    }
    faults
}
