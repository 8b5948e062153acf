//! What callers ask of the model: submit, cancel, retry.

use jiff::Timestamp;
use supercargo::domain::attempt::Phase;
use supercargo::domain::outcome::{Outcome, StopReason};
use supercargo::domain::spec::TaskSpec;
use supercargo::domain::work::{Resolution, resolve};
use supercargo::failpoints::{self, Guard};
use supercargo::ids::TaskId;
use supercargo::store::{Cancelled, NewEvent, NewTask, Reopening, Submitted, Submitter};

use super::tables::{Live, Spec, Tables};
use super::{Answer, Model};

impl Model {
    /// As `Store::submit`.
    pub(crate) async fn submit(
        &self,
        submitter: Submitter<'_>,
        now: Timestamp,
        tasks: &[NewTask],
    ) -> Answer<Vec<Submitted>> {
        if let [task] = tasks
            && !failpoints::holds(Guard::KeyInSubmit)
        {
            return Ok(vec![self.submit_before_its_key(submitter, now, task).await]);
        }
        self.transaction(|tables| {
            let named = tasks.iter().any(|it| it.work.is_some());
            let mut answers = vec![None; tasks.len()];
            // The keys of all the requests come first.
            for (task, answer) in tasks.iter().zip(&mut answers) {
                *answer = tables.take_key(submitter, task);
            }
            for (task, answer) in tasks.iter().zip(&mut answers) {
                if answer.is_none() {
                    *answer = Some(tables.accept(submitter, now, task));
                }
            }
            let answers: Vec<_> = answers.into_iter().flatten().collect();
            let refused = answers.iter().any(|it| it.is_refusal());
            let alone = !named && tasks.len() <= 1;
            Ok((answers, !refused || alone))
        })
    }

    async fn submit_before_its_key(
        &self,
        submitter: Submitter<'_>,
        now: Timestamp,
        task: &NewTask,
    ) -> Submitted {
        if let Some(known) = self.tables().known_key(submitter, task) {
            return known;
        }
        let accepted = self.tables().accept(submitter, now, task);
        tokio::task::yield_now().await;
        self.tables().take_key(submitter, task);
        accepted
    }

    /// As `Store::cancel`.
    pub(crate) fn cancel(&self, task: TaskId, by: &str, now: Timestamp) -> Cancelled {
        self.tables().cancel(task, by, now)
    }

    /// As `Store::retry`.
    pub(crate) fn retry(&self, task: TaskId, reopening: &Reopening<'_>, now: Timestamp) -> bool {
        self.tables().reopen(task, reopening, now)
    }
}

fn queue_deadline(spec: &TaskSpec, now: Timestamp) -> Option<Timestamp> {
    spec.timeouts.queue.map(|it| now + it)
}

impl Tables {
    /// What became of the request whose key was taken before.
    fn known_key(&self, submitter: Submitter<'_>, task: &NewTask) -> Option<Submitted> {
        let key = task.key.as_ref()?;
        let (first, print) = self.keys.get(&(submitter.project.to_owned(), key.key.clone()))?;
        Some(if *print == key.fingerprint {
            Submitted::Replayed(*first)
        } else {
            Submitted::KeyReused(*first)
        })
    }

    /// Takes the key of the request. None: it was free.
    fn take_key(&mut self, submitter: Submitter<'_>, task: &NewTask) -> Option<Submitted> {
        let known = self.known_key(submitter, task);
        if let (None, Some(key)) = (known, &task.key) {
            let name = (submitter.project.to_owned(), key.key.clone());
            self.keys.insert(name, (task.task, key.fingerprint));
        }
        known
    }

    fn accept(&mut self, submitter: Submitter<'_>, now: Timestamp, task: &NewTask) -> Submitted {
        let Some(work) = &task.work else {
            self.add(now, task, None);
            return Submitted::Created;
        };
        let name = (submitter.project.to_owned(), work.key.as_str().to_owned());
        let Some(first) = self.run_keys.get(&name).copied() else {
            self.run_keys.insert(name, task.task);
            self.add(now, task, None);
            return Submitted::Created;
        };
        let state = self.record(first).map(|it| it.state);
        match resolve(work.on_duplicate, state) {
            Resolution::Reject => Submitted::Rejected(first),
            Resolution::Attach => self.answer_with(submitter, task, Submitted::Attached(first)),
            Resolution::Retry => {
                let reopening = Reopening {
                    attempt: task.attempt,
                    spec: Some((&task.spec, &task.spec_hash)),
                    from_attempt: None,
                    message: format!("submitted again by {}", submitter.name),
                };
                let retried = self.reopen(first, &reopening, now);
                let answer =
                    if retried { Submitted::Retried(first) } else { Submitted::Attached(first) };
                self.answer_with(submitter, task, answer)
            }
            Resolution::Replace => {
                self.run_keys.insert(name, task.task);
                if state.is_none() {
                    self.add(now, task, None);
                    return Submitted::Created;
                }
                self.cancel(first, submitter.name, now);
                self.add(now, task, Some(first));
                Submitted::Restarted(first)
            }
        }
    }

    /// The key of the request leads to the task that it is answered with.
    fn answer_with(
        &mut self,
        submitter: Submitter<'_>,
        task: &NewTask,
        answer: Submitted,
    ) -> Submitted {
        if let (Some(key), Submitted::Attached(first) | Submitted::Retried(first)) =
            (&task.key, answer)
        {
            let name = (submitter.project.to_owned(), key.key.clone());
            self.keys.insert(name, (first, key.fingerprint));
        }
        answer
    }

    fn add(&mut self, now: Timestamp, task: &NewTask, after: Option<TaskId>) {
        let spec = Spec {
            run: task.run,
            spec: task.spec.clone(),
            hash: task.spec_hash.clone(),
            run_key: task.work.as_ref().map(|it| it.key.as_str().to_owned()),
        };
        self.specs.insert(task.task, spec);
        let live = Live {
            state: Phase::Queued,
            priority: task.spec.priority,
            target: task.spec.target.to_string(),
            queued_at: now,
            not_before: None,
            queue_deadline: queue_deadline(&task.spec, now),
            attempt: task.attempt,
            attempt_no: 1,
            user_failures: 0,
            platform_failures: 0,
            fence: 0,
            worker: None,
            engine: None,
            claimed_at: None,
            started_at: None,
            handle: None,
            image_digest: None,
            stop: None,
            attempt_queued_at: None,
            after,
            unconfirmed: None,
        };
        self.live.insert(task.task, live);
    }

    fn cancel(&mut self, task: TaskId, by: &str, now: Timestamp) -> Cancelled {
        let requested = |message: &str| NewEvent {
            at: now,
            source: "api",
            reason: "cancel_requested".to_owned(),
            message: format!("{message} by {by}"),
        };
        let Some(live) = self.live.get_mut(&task) else {
            return match self.specs.get(&task) {
                None => Cancelled::NotFound,
                Some(_) => Cancelled::Unchanged(self.ended.get(&task).map(|it| it.state)),
            };
        };
        let attempt_no = live.attempt_no;
        if live.state == Phase::Queued {
            self.add_events(task, attempt_no, &[requested("cancelled in the queue")]);
            self.end_queued(&[task], &Outcome::cancelled("cancelled before it started"), now);
            return Cancelled::AtOnce;
        }
        if live.stop.is_some() {
            return Cancelled::Unchanged(live.state.task_state());
        }
        live.stop = Some((StopReason::Cancel, now));
        self.add_events(task, attempt_no, &[requested("asked to stop")]);
        Cancelled::Requested
    }

    fn reopen(&mut self, task: TaskId, reopening: &Reopening<'_>, now: Timestamp) -> bool {
        let wanted = reopening.from_attempt;
        let ended = self.ended.get(&task).filter(|it| it.state.may_be_retried());
        let Some(ended) = ended.filter(|it| wanted.is_none_or(|no| no.0 == it.attempt_no)).cloned()
        else {
            return false;
        };
        self.ended.remove(&task);
        let Some(row) = self.specs.get_mut(&task) else { return false };
        if let Some((spec, hash)) = reopening.spec
            && row.hash != *hash
        {
            let before = (row.spec.clone(), row.hash.clone());
            self.superseded.insert((task, ended.attempt_no), before);
            row.spec = spec.clone();
            row.hash = hash.clone();
        }
        let spec = row.spec.clone();
        let attempts = self.attempts.range((task, i32::MIN)..=(task, i32::MAX));
        let unconfirmed = attempts.rev().find(|(_, it)| it.unconfirmed);
        let unconfirmed_on = unconfirmed.map(|(_, it)| it.target.clone());
        let unconfirmed = unconfirmed.map(|(_, it)| {
            let engine = it.engine.clone().unwrap_or_default();
            supercargo::store::Unconfirmed { attempt: it.attempt, engine }
        });
        let live = Live {
            state: Phase::Queued,
            priority: spec.priority,
            target: match unconfirmed_on {
                Some(target) if !spec.target.is_named() => target,
                _ => spec.target.to_string(),
            },
            queued_at: ended.queued_at,
            not_before: None,
            queue_deadline: queue_deadline(reopening.spec.map_or(&spec, |it| it.0), now),
            attempt: reopening.attempt,
            attempt_no: ended.attempt_no + 1,
            user_failures: 0,
            platform_failures: 0,
            fence: i64::from(ended.attempt_no) << 32,
            worker: None,
            engine: None,
            claimed_at: None,
            started_at: None,
            handle: None,
            image_digest: None,
            stop: None,
            attempt_queued_at: Some(now),
            after: None,
            unconfirmed,
        };
        self.live.insert(task, live);
        let event = NewEvent {
            at: now,
            source: "api",
            reason: "retry_requested".to_owned(),
            message: reopening.message.clone(),
        };
        self.add_events(task, ended.attempt_no + 1, &[event]);
        true
    }
}
