//! A caller who does what callers should: each request is sent again, with its key, until it is answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::mix::{Kind, Order, blocker};
use crate::support::service::{Answer, Api};
use crate::support::within;

/// The service may be killed all the time until then.
const PATIENCE: Duration = Duration::from_mins(5);
/// Behind an answer that means nothing, and between two looks.
const PAUSE: Duration = Duration::from_millis(60);

/// Where the service is, while it is.
pub(crate) type Front = watch::Sender<Option<Api>>;

/// What was accepted, by id.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub accepted: Mutex<Vec<(String, Order)>>,
    /// What was answered and should not have been.
    pub faults: Mutex<Vec<String>>,
    /// Requests that were not answered, or by 503, and so were sent again.
    pub again: AtomicU64,
}

impl Book {
    fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    front: watch::Receiver<Option<Api>>,
    book: Arc<Book>,
}

impl Client {
    pub(crate) fn new(front: &Front, book: &Arc<Book>) -> Self {
        Self { front: front.subscribe(), book: Arc::clone(book) }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let mut front = self.front.clone();
        loop {
            let api = front.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            match api.call(method, path, key, body).await {
                Ok(answer) if answer.status < 500 => return answer,
                Ok(answer) if answer.status != 503 => {
                    self.book.fault(format!("{method} {path} was answered {answer:?}"));
                }
                Ok(_) | Err(_) => {}
            }
            self.book.again.fetch_add(1, Ordering::Relaxed);
            pause(&front).await;
        }
    }

    async fn submit(&self, order: &Order) -> String {
        let answer = self.ask("POST", "/tasks", Some(&order.key), Some(&order.document())).await;
        self.accepted(&answer, order, |it| it["id"].as_str()).unwrap_or_default()
    }

    fn accepted(
        &self,
        answer: &Answer,
        order: &Order,
        id: impl Fn(&Value) -> Option<&str>,
    ) -> Option<String> {
        let body = answer.json();
        let replayed = answer.headers.contains_key("idempotent-replayed");
        match (answer.status, replayed, id(&body)) {
            (201, false, Some(id)) | (200, true, Some(id)) => {
                self.book.accepted.lock().unwrap().push((id.to_owned(), order.clone()));
                Some(id.to_owned())
            }
            _ => {
                self.book.fault(format!("the submit {} was answered {answer:?}", order.key));
                None
            }
        }
    }

    /// Looks at a task until it is as it should be.
    async fn until(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) {
        let looking = async {
            loop {
                let answer = self.ask("GET", &format!("/tasks/{id}"), None, None).await;
                if answer.status != 200 {
                    self.book.fault(format!("task {id} was accepted and is {answer:?}"));
                    return;
                }
                if is(&answer.json()) {
                    return;
                }
                pause(&self.front).await;
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looking).await;
        assert!(looked.is_ok(), "waited {PATIENCE:?} until task {id} {what}");
    }

    async fn ended(&self, id: &str, attempt: u64) {
        self.until(id, "has ended", |it| is_over(it) && it["attempt"].as_u64() >= Some(attempt))
            .await;
    }

    /// It runs, and its first line is readable.
    async fn up(&self, id: &str) {
        self.until(id, "runs", |it| it["state"] != "queued" && it["state"] != "starting").await;
        let looking = async {
            while self.ask("GET", &format!("/tasks/{id}/logs"), None, None).await.text() != "up\n" {
                pause(&self.front).await;
            }
        };
        within(&format!("task {id} has said that it is up"), looking).await;
    }

    async fn cancel(&self, id: &str) {
        let answer = self.ask("POST", &format!("/tasks/{id}/cancel"), None, None).await;
        if answer.status != 202 {
            self.book.fault(format!("a cancel of {id} was answered {answer:?}"));
        }
    }

    /// Brings one order to its end.
    pub(crate) async fn carry_out(self, order: Order) {
        if order.kind == Kind::Batch {
            return self.batch(order).await;
        }
        if order.kind == Kind::Expires {
            return self.expire(order).await;
        }
        let id = self.submit(&order).await;
        match order.kind {
            Kind::Cancelled | Kind::Killed => {
                self.up(&id).await;
                self.cancel(&id).await;
            }
            Kind::CancelledInQueue => {
                let waits =
                    |it: &Value| it["attempt"] == 2 && (it["state"] == "queued" || is_over(it));
                self.until(&id, "waits for its second attempt", waits).await;
                self.cancel(&id).await;
            }
            Kind::ByHand => {
                self.ended(&id, 1).await;
                let path = format!("/tasks/{id}/retry");
                let answer = self.ask("POST", &path, None, Some(&json!({"from_attempt": 1}))).await;
                if answer.status != 202 {
                    self.book.fault(format!("a retry of {id} was answered {answer:?}"));
                }
            }
            _ => {}
        }
        self.ended(&id, order.attempts()).await;
    }

    async fn batch(&self, order: Order) {
        let parts = [1, 2].map(|n| Order::new(Kind::Batch, format!("{}-{n}", order.key)));
        let body = json!({"tasks": parts.each_ref().map(Order::document)});
        let answer = self.ask("POST", "/tasks/batch", Some(&order.key), Some(&body)).await;
        for (n, part) in parts.iter().enumerate() {
            let id = self.accepted(&answer, part, |it| it["items"][n]["id"].as_str());
            self.ended(&id.unwrap_or_default(), 1).await;
        }
    }

    async fn expire(&self, order: Order) {
        let first = Order::new(Kind::Blocks, blocker(&order.key));
        let before = self.submit(&first).await;
        self.up(&before).await;
        let id = self.submit(&order).await;
        self.ended(&id, 1).await;
        self.ended(&before, 1).await;
    }
}

/// A little while, or until there is another service.
async fn pause(front: &watch::Receiver<Option<Api>>) {
    let mut front = front.clone();
    front.mark_unchanged();
    let _ = tokio::time::timeout(PAUSE, front.changed()).await;
}

fn is_over(task: &Value) -> bool {
    let state = task["state"].as_str().unwrap_or_default();
    ["succeeded", "failed", "skipped", "cancelled"].contains(&state)
}
