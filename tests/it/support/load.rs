//! A stream of small tasks, submitted at several services at once by callers who do what callers should:
//! each request has a key, and is sent again until it is answered.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::ledger::{Ledger, Work};
use super::service::{Answer, Api};

/// What the callers saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub accepted: AtomicU64,
    /// Answered with a task that was there already: an answer before was lost, or another caller was first.
    pub replayed: AtomicU64,
    /// Answers 503.
    pub refused: AtomicU64,
    /// No answer.
    pub lost: AtomicU64,
    /// The longest that a 503 took.
    pub slowest_refusal: Mutex<Duration>,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [accepted, replayed, refused, lost] =
            [&self.accepted, &self.replayed, &self.refused, &self.lost].map(Self::of);
        let slowest = self.slowest_refusal.lock().unwrap();
        write!(
            f,
            "{accepted} accepted, {replayed} replayed, {refused} refused (at most {slowest:.2?}), {lost} without an answer"
        )
    }
}

impl Seen {
    pub(crate) fn of(it: &AtomicU64) -> u64 {
        it.load(Ordering::Relaxed)
    }
}

pub(crate) struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

struct Shared {
    apis: Vec<Api>,
    ledger: Arc<Ledger>,
    seen: Arc<Seen>,
    stopped: AtomicBool,
    next: AtomicUsize,
    prefix: String,
}

/// Every eighth is cancelled, every eighth may run once only, every fourth fails once or twice.
fn work(prefix: &str, n: usize) -> Work {
    let small = u32::try_from(n % 5).unwrap();
    Work {
        name: format!("{prefix}-{n}"),
        lines: 3 + small * 8,
        pause_ms: [0, 20, 100][n % 3],
        fails: if n % 4 == 1 { 1 + small % 2 } else { 0 },
        at_most_once: n % 8 == 2,
        cancelled: n % 8 == 4,
        simulated: false,
    }
}

impl Load {
    /// A caller for each service, each with a task every so often.
    pub(crate) fn start(
        prefix: &str,
        apis: Vec<Api>,
        ledger: &Arc<Ledger>,
        every: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            apis,
            ledger: Arc::clone(ledger),
            seen: Arc::default(),
            stopped: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            prefix: prefix.to_owned(),
        });
        let mut callers = JoinSet::new();
        for first in 0..shared.apis.len() {
            callers.spawn(submit_all(Arc::clone(&shared), first, every));
        }
        Self { shared, callers }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.shared.seen
    }

    /// So many submits at once, at the services in turn, each sent until it is answered.
    pub(crate) async fn burst(&self, name: &str, size: usize) {
        let submits = (0..size).map(|n| {
            let work = Work { name: format!("{name}-{n}"), simulated: true, ..Work::default() };
            self.shared.insist(n, work)
        });
        join_all(submits).await;
    }

    /// Every request that was begun is answered when this returns.
    pub(crate) async fn stop(self) -> Arc<Seen> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        Arc::clone(&self.shared.seen)
    }
}

async fn submit_all(shared: Arc<Shared>, first: usize, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut to_cancel = None;
    while !shared.stopped.load(Ordering::Relaxed) {
        tick.tick().await;
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        let work = work(&shared.prefix, n);
        let id = shared.insist(first, work.clone()).await;
        if let Some(before) = to_cancel.replace((id, work.cancelled)).filter(|it| it.1) {
            shared.cancel(first + 1, &before.0).await;
        }
    }
    if let Some((id, true)) = to_cancel {
        shared.cancel(first + 1, &id).await;
    }
}

impl Shared {
    /// Sends it until it is accepted, at one service after the other, and gives the task.
    async fn insist(&self, first: usize, work: Work) -> String {
        let document = work.document();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut tries = first;
        loop {
            tick.tick().await;
            let api = &self.apis[tries % self.apis.len()];
            tries += 1;
            let asked_at = Instant::now();
            let answer = api.call("POST", "/tasks", Some(&work.name), Some(&document)).await;
            let Some(answer) = self.see(answer, asked_at, &work.name) else { continue };
            match answer.status {
                201 => self.seen.accepted.fetch_add(1, Ordering::Relaxed),
                200 => {
                    if !answer.headers.contains_key("idempotent-replayed") {
                        self.ledger.fault(format!("{}: 200 without a replay", work.name));
                    }
                    self.seen.replayed.fetch_add(1, Ordering::Relaxed)
                }
                _ => {
                    self.ledger.fault(format!(
                        "{}: a submit was answered {}: {}",
                        work.name,
                        answer.status,
                        answer.text()
                    ));
                    continue;
                }
            };
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            self.ledger.accepted(&id, work);
            self.look(api, &id).await;
            return id;
        }
    }

    /// What was accepted is there, or can't be asked for.
    async fn look(&self, api: &Api, id: &str) {
        let asked_at = Instant::now();
        let answer = api.call("GET", &format!("/tasks/{id}"), None, None).await;
        if let Some(answer) = self.see(answer, asked_at, id)
            && answer.status != 200
        {
            self.ledger.fault(format!(
                "{id} was accepted, and is {}: {}",
                answer.status,
                answer.text()
            ));
        }
    }

    async fn cancel(&self, first: usize, id: &str) {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut tries = first;
        loop {
            tick.tick().await;
            let api = &self.apis[tries % self.apis.len()];
            tries += 1;
            let asked_at = Instant::now();
            let answer = api.call("POST", &format!("/tasks/{id}/cancel"), None, None).await;
            match self.see(answer, asked_at, id) {
                None => {}
                Some(answer) if answer.status == 202 => return,
                Some(answer) => {
                    let (status, text) = (answer.status, answer.text());
                    self.ledger.fault(format!("a cancel of {id} was answered {status}: {text}"));
                    return;
                }
            }
        }
    }

    /// The answer, if it is one that means anything. A refusal has to say when to come again.
    fn see(
        &self,
        answer: reqwest::Result<Answer>,
        asked_at: Instant,
        what: &str,
    ) -> Option<Answer> {
        match answer {
            Ok(answer) if answer.status == 503 => {
                self.seen.refused.fetch_add(1, Ordering::Relaxed);
                let mut slowest = self.seen.slowest_refusal.lock().unwrap();
                *slowest = asked_at.elapsed().max(*slowest);
                let is_problem = answer
                    .headers
                    .get("content-type")
                    .is_some_and(|it| it == "application/problem+json");
                if !answer.headers.contains_key("retry-after") || !is_problem {
                    self.ledger.fault(format!("{what}: a refusal is {answer:?}"));
                }
                None
            }
            Ok(answer) => Some(answer),
            Err(_) => {
                self.seen.lost.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}
