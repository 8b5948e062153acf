//! Remembers every accepted task with what has to come of it, and says at the end what is not so.
//!
//! A task is made by a [`Work`], which knows what each attempt prints and hands back. [`Ledger::verify`]
//! asks the API, the database and the engine, and reports every violation that it finds.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::database::{Booked, booked};
use super::service::Api;
use super::starts::Starts;
use super::until;

/// A task whose every byte is known beforehand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    pub name: String,
    pub lines: u32,
    /// Between two lines.
    pub pause_ms: u32,
    /// So many attempts fail before one succeeds.
    pub fails: u32,
    pub at_most_once: bool,
    /// It is cancelled some time after it was accepted.
    pub cancelled: bool,
    /// It runs no container, prints nothing and hands nothing back.
    pub simulated: bool,
}

/// Attempts that may fail by themselves.
const RETRIES: u32 = 5;
/// For the ends of all tasks together.
const PATIENCE: Duration = Duration::from_mins(3);
/// After the end of a task its container may be the sweeper's, who comes once a minute.
const REMOVED_WITHIN: Duration = Duration::from_secs(75);

impl Work {
    pub(crate) fn document(&self) -> Value {
        let Self { name, lines, pause_ms, fails, at_most_once, .. } = self;
        if self.simulated {
            return json!({"name": name, "image": "busybox:latest", "target": "simulated"});
        }
        let pause =
            if *pause_ms == 0 { "true".to_owned() } else { format!("usleep {pause_ms}000") };
        let script = format!(
            "i=0; while [ $i -lt {lines} ]; do echo \"{name} $SUPERCARGO_ATTEMPT.$i\"; i=$((i+1)); {pause}; done; \
             echo \"{{\\\"name\\\": \\\"{name}\\\", \\\"attempt\\\": $SUPERCARGO_ATTEMPT}}\" > $SUPERCARGO_OUTPUT; \
             [ $SUPERCARGO_ATTEMPT -gt {fails} ] || exit 75"
        );
        json!({"name": name, "image": "busybox:latest", "command": ["sh", "-c", script],
            "at_most_once": at_most_once, "timeouts": {"stop_grace": "200ms"}, "platform_retries": 20,
            "retries": {"max": RETRIES, "backoff": {"initial": "50ms"}, "on_exit_codes": [75]}})
    }

    fn log(&self, attempt: u64) -> String {
        (0..self.lines).fold(String::new(), |mut log, line| {
            writeln!(log, "{} {attempt}.{line}", self.name).unwrap();
            log
        })
    }

    /// What may not be of a task that is over.
    fn judge(&self, task: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let state = task["state"].as_str().unwrap_or_default();
        let reason = task["failure"]["reason"].as_str().unwrap_or_default();
        let attempt = task["attempt"].as_u64().unwrap_or_default();
        let allowed = match state {
            "succeeded" => u64::from(self.fails) < attempt,
            "cancelled" => self.cancelled,
            // What may have been started once is not started again.
            "failed" if self.at_most_once => {
                reason == "node_lost" || (self.fails > 0 && reason == "exit_nonzero")
            }
            _ => false,
        };
        if !allowed {
            faults.push(format!("it ended as {state} {reason}: {}", task["failure"]["message"]));
        }
        if self.at_most_once && attempt != 1 {
            faults.push(format!(
                "at_most_once, and it has {attempt} attempts: {:#}",
                task["attempts"]
            ));
        }
        let expected =
            if self.simulated { json!({}) } else { json!({"name": self.name, "attempt": attempt}) };
        if state == "succeeded" && task["outputs"] != expected {
            faults.push(format!("its outputs are {} and not {expected}", task["outputs"]));
        }
        let empty = Vec::new();
        let attempts = task["attempts"].as_array().unwrap_or(&empty);
        let numbers: Vec<u64> = attempts.iter().filter_map(|it| it["number"].as_u64()).collect();
        if numbers != (1..=attempt).collect::<Vec<_>>() {
            faults.push(format!("the API tells attempts {numbers:?}, the last is {attempt}"));
        }
        faults
    }

    /// What may not be of the log of one attempt.
    fn judge_log(&self, attempt: &Value, log: &str, may_be_cut: bool) -> Option<String> {
        let number = attempt["number"].as_u64().unwrap_or_default();
        let whole = self.log(number);
        // It ended by itself: what it prints before that is known to the byte.
        let by_itself = matches!(attempt["exit_code"].as_i64(), Some(0 | 75));
        // Nobody saw how it ended. One that never ran has printed nothing, and one that was cancelled as much as
        // it came to.
        let unseen =
            may_be_cut && attempt["started_at"].is_string() && attempt["state"] != "cancelled";
        // What nobody read is told.
        let is_told = may_be_cut && attempt["log"]["incomplete"] == true;
        let right =
            if (by_itself || unseen) && !is_told { log == whole } else { whole.starts_with(log) };
        (!right).then(|| {
            let (got, wanted) = (log.lines().count(), whole.lines().count());
            let at = log.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
            let from = &log.as_bytes()[at..log.len().min(at + 80)];
            format!(
                "the log of attempt {number} has {got} lines, {wanted} were written; from byte {at} on it is {:?}",
                String::from_utf8_lossy(from)
            )
        })
    }
}

/// Every task that was accepted.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tasks: Mutex<BTreeMap<String, Work>>,
    faults: Mutex<Vec<String>>,
    /// When no engine read what containers wrote.
    unread: Mutex<Vec<(Timestamp, Timestamp)>>,
}

/// What was found, where all is well.
#[derive(Default)]
pub(crate) struct Verified {
    pub tasks: usize,
    pub attempts: u64,
    pub states: BTreeMap<String, usize>,
    pub took: Duration,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tasks, attempts, states, took } = self;
        write!(
            f,
            "{tasks} tasks, {attempts} attempts, {states:?}, verified in {:.1} s",
            took.as_secs_f64()
        )
    }
}

impl Ledger {
    pub(crate) fn accepted(&self, task: &str, work: Work) {
        let mut tasks = self.tasks.lock().unwrap();
        if let Some(other) = tasks.get(task)
            && other.name != work.name
        {
            self.fault(format!("task {task} is {} and {}", other.name, work.name));
        }
        tasks.insert(task.to_owned(), work);
    }

    /// The engine was away so long, and its containers were not. It never reads what one of them wrote that has
    /// ended before it was back: such a log may lack its end.
    pub(crate) fn nobody_read(&self, from: Timestamp, to: Timestamp) {
        self.unread.lock().unwrap().push((from, to));
    }

    fn may_be_cut(&self, attempt: &Value) -> bool {
        let ended: Option<Timestamp> =
            attempt["finished_at"].as_str().and_then(|it| it.parse().ok());
        let unread = self.unread.lock().unwrap();
        ended.is_some_and(|it| unread.iter().any(|(from, to)| *from <= it && it <= *to))
    }

    /// Something was seen on the way that may not be.
    pub(crate) fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    /// Waits for the end of every task, then looks at each from every side. Every violation is told.
    ///
    /// With `database`, its tables have to say the same, and have nothing else.
    pub(crate) async fn verify(
        &self,
        api: &Api,
        database: Option<&str>,
        starts: &Starts,
    ) -> Verified {
        let begun = Instant::now();
        let works = self.tasks.lock().unwrap().clone();
        let mut faults = std::mem::take(&mut *self.faults.lock().unwrap());
        let mut verified = Verified { tasks: works.len(), ..Verified::default() };
        let deadline = Instant::now() + PATIENCE;
        let mut ended = BTreeMap::new();
        for (id, work) in &works {
            let mut found = Vec::new();
            match end_of(api, id, deadline).await {
                Ok(task) => {
                    found.extend(work.judge(&task));
                    found.extend(self.logs_of(api, id, work, &task).await);
                    if !work.simulated {
                        found.extend(starts_of(starts, id, work, &task));
                    }
                    verified.attempts += task["attempt"].as_u64().unwrap_or_default();
                    let state = task["state"].as_str().unwrap_or_default().to_owned();
                    *verified.states.entry(state).or_default() += 1;
                    ended.insert(id.clone(), task);
                }
                Err(why) => found.push(why),
            }
            faults.extend(found.into_iter().map(|it| format!("{} ({id}): {it}", work.name)));
        }
        let ids: HashSet<String> = works.keys().cloned().collect();
        faults.extend(starts.faults(&ids));
        if let Some(database) = database {
            faults.extend(books(&booked(database).await, &ended));
        }
        let deadline = Instant::now() + REMOVED_WITHIN;
        for id in ended.keys() {
            faults.extend(left_of(starts, id, deadline).await);
        }
        verified.took = begun.elapsed();
        assert!(
            faults.is_empty(),
            "{} violations in {} tasks:\n{}",
            faults.len(),
            works.len(),
            faults.join("\n")
        );
        verified
    }

    async fn logs_of(&self, api: &Api, id: &str, work: &Work, task: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        for attempt in task["attempts"].as_array().into_iter().flatten() {
            let path = format!("/tasks/{id}/logs?attempt={}", attempt["number"]);
            match api.call("GET", &path, None, None).await {
                Ok(log) if log.status == 200 => {
                    faults.extend(work.judge_log(attempt, &log.text(), self.may_be_cut(attempt)));
                }
                Ok(other) => {
                    faults.push(format!("its log is answered {}: {}", other.status, other.text()));
                }
                Err(error) => faults.push(format!("its log can't be read: {error}")),
            }
        }
        faults
    }
}

async fn end_of(api: &Api, id: &str, deadline: Instant) -> Result<Value, String> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let mut last = String::new();
    let asked = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            let Ok(answer) = api.call("GET", &format!("/tasks/{id}"), None, None).await else {
                continue;
            };
            last = answer.text();
            if answer.status != 200 {
                continue;
            }
            let task = answer.json();
            let state = task["state"].as_str().unwrap_or_default();
            if ["succeeded", "failed", "skipped", "cancelled"].contains(&state) {
                return task;
            }
        }
    };
    let ended = tokio::time::timeout(left, asked).await;
    ended.map_err(|_| format!("it has not ended: {last}"))
}

/// Every attempt that has an exit ran, and ran once; what has none may have run once.
fn starts_of(starts: &Starts, id: &str, work: &Work, task: &Value) -> Vec<String> {
    let attempts = task["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ran = attempts.iter().filter(|it| it["exit_code"].is_i64()).count();
    let (started, most) = (starts.of(id), if work.at_most_once { 1 } else { attempts.len() });
    let right = ran <= started && started <= most;
    let fault = format!("{started} containers were started, between {ran} and {most} should be");
    (!right).then_some(fault).into_iter().collect()
}

/// Where the tables say something else than the API.
fn books(rows: &[Booked], ended: &BTreeMap<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    let booked: HashSet<&str> = rows.iter().map(|it| it.task.as_str()).collect();
    for id in ended.keys().filter(|it| !booked.contains(it.as_str())) {
        faults.push(format!("task {id} is not in the database"));
    }
    for row in rows {
        let Some(task) = ended.get(&row.task) else {
            faults.push(format!("task {} is in the database, and nobody knows of it", row.task));
            continue;
        };
        let attempts = i32::try_from(task["attempt"].as_u64().unwrap_or_default()).unwrap();
        let one_end = (row.live, row.ended) == (0, 1)
            && row.state.as_deref() == task["state"].as_str()
            && row.attempts == (1..=attempts).collect::<Vec<_>>();
        if !one_end {
            faults.push(format!("the database has {row:?}, the API told {task}"));
        }
    }
    faults
}

async fn left_of(starts: &Starts, id: &str, deadline: Instant) -> Option<String> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let gone = until("nothing is left", left + Duration::from_mins(1), async || {
        if starts.containers(id).await.is_empty() || Instant::now() > deadline {
            return Some(starts.containers(id).await);
        }
        None
    });
    let containers = gone.await;
    if !containers.is_empty() {
        return Some(format!("task {id} has left the containers {containers:?} on the engine"));
    }
    let left = starts.left(id).await;
    (!left.is_empty()).then(|| format!("task {id} has left {left:?} on the engine"))
}

#[test]
fn a_log_is_whole_unless_it_was_cut_by_a_stop_or_is_told_to_be_incomplete() {
    let work = Work { name: "w".to_owned(), lines: 2, ..Work::default() };
    let ran = |state: &str, code: i64, incomplete: bool| {
        json!({"number": 1, "state": state, "exit_code": code, "started_at": "2026-11-21T05:08:09Z",
            "log": {"incomplete": incomplete}})
    };
    let queued = json!({"number": 1, "state": "cancelled"});
    let refused = json!({"number": 1, "state": "failed", "failure": {"reason": "start_error"}});
    let (all, some, other) = ("w 1.0\nw 1.1\n", "w 1.0\n", "w 1.1\n");
    for (attempt, log, may_be_cut, right) in [
        (ran("succeeded", 0, false), all, false, true),
        (ran("succeeded", 0, false), some, false, false),
        (ran("succeeded", 0, true), some, false, false),
        (ran("succeeded", 0, false), some, true, false),
        (ran("succeeded", 0, true), some, true, true),
        (ran("succeeded", 0, true), other, true, false),
        (ran("cancelled", 0, false), some, true, false),
        (ran("failed", 75, false), some, true, false),
        (ran("failed", 255, false), some, true, false),
        (ran("failed", 255, true), some, true, true),
        (ran("failed", 255, false), some, false, true),
        (ran("cancelled", 137, false), some, true, true),
        (ran("cancelled", 137, false), other, true, false),
        (queued, "", true, true),
        (refused, "", true, true),
    ] {
        let fault = work.judge_log(&attempt, log, may_be_cut);
        assert_eq!(fault.is_none(), right, "{attempt} {log:?} {may_be_cut}: {fault:?}");
    }
}
