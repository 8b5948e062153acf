//! What must hold after every step of a schedule, and what at its end.

use std::collections::{BTreeMap, BTreeSet};

use supercargo::domain::failure::Reason;
use supercargo::domain::outcome::OutputValue;
use supercargo::domain::state::TaskState;
use supercargo::ids::{AttemptId, TaskId};
use supercargo::logs::{MAIN_CONTAINER, chunk};
use supercargo::runner::fake::{FakeEngine, Seen, SeenState};
use supercargo::store::StoredChunk;

use super::model::{Attempt, Tables};

type Found = Result<(), String>;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Checker {
    attempts: BTreeMap<(TaskId, i32), Attempt>,
    /// Ends of sandboxes that an engine has lost since.
    lost: BTreeMap<AttemptId, SeenState>,
    /// How often an engine has lost a started sandbox of them: then nobody can know that it was started.
    losses: BTreeMap<AttemptId, u32>,
    /// The attempt that an acknowledged cancel was for.
    cancelled: BTreeMap<TaskId, i32>,
    /// How many attempts somebody asked for.
    by_hand: BTreeMap<TaskId, u32>,
    /// What one request may have made.
    requests: Vec<BTreeSet<TaskId>>,
    accepted: BTreeSet<TaskId>,
}

impl Checker {
    // What callers were told.

    /// A request, with the ids that it proposes each time it is sent.
    pub(super) fn requested(&mut self, ids: impl IntoIterator<Item = TaskId>) {
        self.requests.push(ids.into_iter().collect());
    }

    pub(super) fn accepted(&mut self, task: TaskId) {
        self.accepted.insert(task);
    }

    pub(super) fn cancelled(&mut self, task: TaskId, attempt_no: i32) {
        self.cancelled.insert(task, attempt_no);
    }

    pub(super) fn retried(&mut self, task: TaskId) {
        self.cancelled.remove(&task);
        *self.by_hand.entry(task).or_default() += 1;
    }

    /// The engine is about to lose everything.
    pub(super) fn loses(&mut self, seen: Vec<Seen>) {
        for it in seen.into_iter().filter(|it| it.state != SeenState::Created) {
            self.lost.insert(it.attempt, it.state);
            *self.losses.entry(it.attempt).or_default() += 1;
        }
    }

    /// A violation, if this step was one.
    pub(super) fn step(&mut self, tables: &Tables, engines: &[FakeEngine; 2]) -> Option<String> {
        let seen: Vec<Seen> = engines.iter().flat_map(FakeEngine::seen).collect();
        let checks = self
            .tasks(tables)
            .and_then(|()| self.ended_attempts(tables, &seen))
            .and_then(|()| requests(&self.requests, &self.accepted, tables))
            .and_then(|()| removed(tables, engines))
            .and_then(|()| self.starts(tables, engines, &seen));
        checks.err()
    }

    fn tasks(&self, tables: &Tables) -> Found {
        for task in tables.specs.keys() {
            let count = tables.attempts.range((*task, i32::MIN)..=(*task, i32::MAX)).count();
            let count = i32::try_from(count).unwrap();
            let no = match (tables.live.get(task), tables.ended.get(task)) {
                (Some(live), None) if live.attempt_no == count + 1 => live.attempt_no,
                (None, Some(ended)) if ended.attempt_no == count => ended.attempt_no,
                (live, ended) => {
                    return Err(format!(
                        "task {task} has {count} ended attempts, live {:?} and ended {:?}",
                        live.map(|it| it.attempt_no),
                        ended.map(|it| it.attempt_no)
                    ));
                }
            };
            if self.cancelled.get(task).is_some_and(|it| no > *it) {
                return Err(format!("attempt {no} of task {task} follows an acknowledged cancel"));
            }
        }
        Ok(())
    }

    fn ended_attempts(&mut self, tables: &Tables, seen: &[Seen]) -> Found {
        for ((task, no), now) in &tables.attempts {
            match self.attempts.get(&(*task, *no)) {
                Some(before) if before == now => {}
                Some(before) => {
                    return Err(format!("an ended attempt changed: {before:?} is now {now:?}"));
                }
                None => {
                    let what = |it: String| format!("attempt {no} of task {task} {it}");
                    self.end(tables, seen, *task, *no, now).map_err(what)?;
                    self.attempts.insert((*task, *no), now.clone());
                }
            }
        }
        if self.attempts.len() != tables.attempts.len() {
            return Err("an ended attempt is gone".to_owned());
        }
        Ok(())
    }

    /// An attempt has just ended.
    fn end(
        &self,
        tables: &Tables,
        seen: &[Seen],
        task: TaskId,
        no: i32,
        attempt: &Attempt,
    ) -> Found {
        let spec = &tables.specs.get(&task).ok_or("has no task")?.spec;
        let lost = self.lost.get(&attempt.attempt).copied();
        let reason = attempt.failure.as_ref().map(|it| it.reason);
        if let Some(code) = attempt.exit_code {
            let states = seen.iter().filter(|it| it.attempt == attempt.attempt).map(|it| it.state);
            let reported = states.chain(lost).any(|it| it == SeenState::Ended(Some(code)));
            if !reported {
                return Err(format!("ended with {code}, which its engine did not report"));
            }
        }
        // One that was lost with its engine before anybody knew of it was made and started once more.
        let again = lost.is_some() || spec.env.contains_key("FAKE_VANISH");
        let ran_out = attempt.state == TaskState::Succeeded || reason == Some(Reason::ExitNonzero);
        // One that ends as if by itself after a stop signal may have ended before its time.
        let complete = ran_out && !again && !spec.env.contains_key("FAKE_ON_TERM");
        let lines = |name: &str| spec.env.get(name).map_or(0, |it| it.parse().unwrap());
        let mut logs = vec![(MAIN_CONTAINER, lines("FAKE_LOG_LINES"))];
        if spec.env.contains_key("FAKE_SIDE_LOGS") {
            logs.extend([("init", 2), ("proxy", 40), ("next", 0)]);
        }
        for (container, lines) in logs {
            let text = log(tables, task, no, container)?;
            let whole: String = (1..=lines).map(|it| format!("line {it}\n")).collect();
            if !again && !whole.starts_with(&text) {
                return Err(format!("has another log of {container} than it wrote: {text:?}"));
            }
            let Some(seals) = &attempt.log else { continue };
            let Some(seal) = seals.get(container) else {
                if seals.contains_key(MAIN_CONTAINER) {
                    return Err(format!("has no seal of the log of {container}: {seals:?}"));
                }
                continue;
            };
            if seal.bytes != text.len() as u64 {
                let bytes = text.len();
                return Err(format!("has {bytes} bytes of log of {container}, sealed as {seal:?}"));
            }
            // A log beside that of the main container holds nothing up: its seal says what is missing.
            let may_lack = container != MAIN_CONTAINER && seal.incomplete;
            if complete && !may_lack && text.len() != whole.len() {
                let (bytes, all) = (text.len(), whole.len());
                return Err(format!("has {bytes} of {all} bytes of log of {container}: {seal:?}"));
            }
        }
        if attempt.state == TaskState::Succeeded {
            if attempt.exit_code != Some(0) {
                return Err(format!("succeeded with {:?}", attempt.exit_code));
            }
            for name in spec.outputs.keys() {
                let stored = tables.outputs.get(&(task, no, name.clone()));
                let wanted = OutputValue::Json(serde_json::json!(7));
                if stored.is_none_or(|it| it.value != wanted) {
                    return Err(format!("succeeded, and its output {name} is {stored:?}"));
                }
            }
        }
        Ok(())
    }

    fn starts(&self, tables: &Tables, engines: &[FakeEngine; 2], seen: &[Seen]) -> Found {
        let starts = |it: AttemptId| engines.iter().map(|engine| engine.starts(it)).sum::<u32>();
        for it in seen {
            let vanishes = tables.specs[&it.task].spec.env.contains_key("FAKE_VANISH");
            let losses = self.losses.get(&it.attempt).copied().unwrap_or_default();
            if starts(it.attempt) > 1 + losses && !vanishes {
                return Err(format!("attempt {} was started twice", it.attempt));
            }
        }
        for (task, spec) in &tables.specs {
            let mut running =
                seen.iter().filter(|it| it.task == *task && it.state == SeenState::Running);
            let (first, second) = (running.next(), running.next());
            if let (Some(first), Some(second)) = (first, second)
                && !spec.spec.retries.on_unconfirmed
            {
                return Err(format!(
                    "attempts {} and {} of task {task} run at the same time",
                    first.attempt, second.attempt
                ));
            }
            if spec.spec.at_most_once {
                let ended = tables.attempts.range((*task, i32::MIN)..=(*task, i32::MAX));
                let ended: u32 = ended.map(|(_, it)| starts(it.attempt)).sum();
                let live = tables.live.get(task).map_or(0, |it| starts(it.attempt));
                let allowed = 1 + self.by_hand.get(task).copied().unwrap_or_default();
                if ended + live > allowed {
                    return Err(format!("task {task} was started twice, and is at_most_once"));
                }
            }
        }
        Ok(())
    }

    /// Nothing goes wrong any more, and time has passed. None: not yet.
    pub(super) fn is_over(tables: &Tables, engines: &[FakeEngine; 2]) -> Result<(), String> {
        if let Some((task, live)) = tables.live.iter().next() {
            return Err(format!("task {task} is {:?} on {:?}", live.state, live.engine));
        }
        for it in engines.iter().flat_map(FakeEngine::seen) {
            let row = tables.attempts.values().find(|row| row.attempt == it.attempt);
            if !it.kept || row.is_none_or(|it| !it.keep_sandbox) {
                return Err(format!("a sandbox is left: {it:?}, {row:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn contract(engines: &[FakeEngine; 2]) -> Option<String> {
        let all = engines.iter().flat_map(FakeEngine::violations);
        // Whether that was allowed is told by `starts`.
        all.into_iter()
            .find(|it| !it.contains("of the same task runs") && !it.contains("was started twice"))
    }
}

fn requests(requests: &[BTreeSet<TaskId>], accepted: &BTreeSet<TaskId>, tables: &Tables) -> Found {
    if let Some(lost) = accepted.iter().find(|it| !tables.specs.contains_key(it)) {
        return Err(format!("task {lost} was accepted, and is lost"));
    }
    for ids in requests {
        if ids.iter().filter(|it| tables.specs.contains_key(it)).count() > 1 {
            return Err(format!("one key made two tasks: {ids:?}"));
        }
    }
    Ok(())
}

fn removed(tables: &Tables, engines: &[FakeEngine; 2]) -> Found {
    for attempt in engines.iter().flat_map(FakeEngine::take_removed) {
        if tables.live.values().any(|it| it.attempt == attempt) {
            return Err(format!("attempt {attempt} is live, and its sandbox was removed"));
        }
    }
    Ok(())
}

/// The stored log, whose chunks must follow each other.
fn log(tables: &Tables, task: TaskId, no: i32, container: &str) -> Result<String, String> {
    let container = || container.to_owned();
    let chunks =
        tables.chunks.range((task, no, container(), i32::MIN)..=(task, no, container(), i32::MAX));
    let mut bytes = Vec::new();
    for (seq, (_, it)) in (0..).zip(chunks) {
        if it.seq != seq || it.byte_offset != i64::try_from(bytes.len()).unwrap() {
            return Err(format!("has a gap in its log: chunk {} at {}", it.seq, it.byte_offset));
        }
        let stored = StoredChunk {
            seq: it.seq,
            byte_offset: it.byte_offset,
            byte_len: it.byte_len,
            last_at: it.last_at,
            crc32c: it.crc32c,
            encoding: it.encoding.to_owned(),
            data: it.data.clone(),
        };
        let frames = chunk::unpack(&stored).map_err(|it| it.to_string())?;
        bytes.extend(frames.iter().flat_map(|it| it.bytes.iter().copied()));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
