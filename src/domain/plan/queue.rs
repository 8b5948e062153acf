//! The tasks that waited too long for a worker, found in a snapshot of the queue.

use jiff::Timestamp;

use crate::domain::failure::{Failure, Reason};
use crate::domain::outcome::Outcome;
use crate::domain::quantity::format_duration;
use crate::ids::TaskId;

/// A task that waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedTask {
    pub task: TaskId,
    pub queued_at: Timestamp,
    pub queue_deadline: Option<Timestamp>,
}

/// What is to be done, and when to look again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    pub expire: Vec<(TaskId, Outcome)>,
    pub next_at: Option<Timestamp>,
}

/// Plans from the queued tasks that have a deadline.
pub fn plan(queued: &[QueuedTask], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for it in queued {
        match it.queue_deadline {
            Some(deadline) if deadline <= now => {
                let waited = format_duration(it.queued_at.duration_until(now));
                let outcome = Outcome::failed(Failure::new(
                    Reason::Timeout,
                    format!("waited {waited} in the queue, longer than timeouts.queue"),
                ));
                plan.expire.push((it.task, outcome));
            }
            Some(deadline) => {
                plan.next_at = Some(plan.next_at.map_or(deadline, |it| it.min(deadline)));
            }
            None => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_too_long_expires_and_the_rest_sets_the_next_look() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let task = |deadline: Option<i64>| QueuedTask {
            task: TaskId::generate(),
            queued_at: at(0),
            queue_deadline: deadline.map(at),
        };
        let queued = [task(Some(10)), task(Some(30)), task(None), task(Some(20))];
        let plan = plan(&queued, at(10));
        assert_eq!(plan.expire.len(), 1);
        assert_eq!(plan.expire[0].0, queued[0].task);
        assert!(plan.expire[0].1.failure.as_ref().unwrap().message.contains("10s"));
        assert_eq!(plan.next_at, Some(at(20)));
    }
}
