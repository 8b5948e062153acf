//! Workers, their leases, and the attempts that nobody drives.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, attempts, count, seconds, some, unknown};
use crate::app::doctor::facts::{Asked, HereFacts, LeaseFacts};
use crate::ids::WorkerId;
use crate::store::{HeldAttempts, WorkerState};

const WORKERS: &str = "workers";
const ATTEMPTS: &str = "attempts";
const IDENTITY: &str = "worker identity";

/// Whether its lease is valid.
pub(in crate::app::doctor) fn is_alive(worker: &WorkerState, lease: Duration) -> bool {
    worker.silent_secs.is_some_and(|it| it <= lease.as_secs_f64())
}

pub(super) fn judge(facts: &Asked<LeaseFacts>) -> Vec<Check> {
    match facts {
        Ok(facts) => {
            let here = facts.here.as_ref().map(|here| identity(facts, here));
            [Some(workers(facts)), here, Some(undriven(facts))].into_iter().flatten().collect()
        }
        Err(why) => [WORKERS, ATTEMPTS].map(|name| unknown(name, why)).to_vec(),
    }
}

fn workers(facts: &LeaseFacts) -> Check {
    let alive: Vec<_> = facts.workers.iter().filter(|it| is_alive(it, facts.lease)).collect();
    let gone = facts.workers.len() - alive.len();
    let gone = match gone {
        0 => String::new(),
        gone => format!("; {gone} of the last day without one"),
    };
    let hosts = alive
        .iter()
        .map(|it| {
            let silent = it.silent_secs.unwrap_or_default().max(0.0);
            format!("{} on {} ({} ago)", short(it.id), it.hostname, seconds(silent))
        })
        .collect::<Vec<_>>();
    if alive.is_empty() {
        return Check::fail(
            WORKERS,
            format!("none has a valid lease{gone}: tasks wait"),
            "start a service with the role worker: `supercargo serve`",
        );
    }
    Check::ok(
        WORKERS,
        format!(
            "{}: {}{gone}",
            count(alive.len() as i128, "has a valid lease", "have a valid lease"),
            some(&hosts)
        ),
    )
}

fn identity(facts: &LeaseFacts, here: &HereFacts) -> Check {
    let id = here.worker;
    let fix = "stop the other process; a data directory that was copied needs an identity of its own: stop that \
               service, remove worker.id there, and start it again";
    if here.taken > 0 {
        let found =
            format!("another process took the identity of worker {id} just now: two share it");
        return Check::fail(IDENTITY, found, fix);
    }
    match facts.workers.iter().find(|it| it.id == id) {
        Some(it) if it.hostname != here.hostname && is_alive(it, facts.lease) => Check::fail(
            IDENTITY,
            format!(
                "worker {id} of this data directory runs on {}, and this machine is {}: was the directory copied?",
                it.hostname, here.hostname
            ),
            fix,
        ),
        _ => Check::ok(IDENTITY, format!("worker {id} is this data directory's alone")),
    }
}

/// The attempts of workers without a valid lease, and who could take them.
fn undriven(facts: &LeaseFacts) -> Check {
    let total: i64 = facts.held.iter().map(|it| it.attempts).sum();
    let alive: Vec<_> = facts.workers.iter().filter(|it| is_alive(it, facts.lease)).collect();
    let mut stranded: BTreeMap<WorkerId, i64> = BTreeMap::new();
    let mut waiting: BTreeMap<WorkerId, i64> = BTreeMap::new();
    for held in facts.held.iter().filter(|it| !alive.iter().any(|worker| worker.id == it.worker)) {
        let reached = alive.iter().any(|worker| reaches(worker, held));
        let list = if reached { &mut waiting } else { &mut stranded };
        *list.entry(held.worker).or_default() += held.attempts;
    }
    let say = |list: &BTreeMap<WorkerId, i64>| {
        let parts: Vec<_> = list
            .iter()
            .map(|(id, number)| format!("{} of {}", attempts(*number), described(facts, *id)))
            .collect();
        some(&parts)
    };
    if !stranded.is_empty() {
        return Check::fail(
            ATTEMPTS,
            format!("nobody drives {}, and no other worker reaches their engine", say(&stranded)),
            "start the service on that machine again, with the same data directory: it takes them back; or give \
             another worker the same engine (docker.host)",
        );
    }
    if !waiting.is_empty() {
        return Check::warn(
            ATTEMPTS,
            format!("nobody drives {}, and other workers reach their engine", say(&waiting)),
            "those take them over within seconds: look again; if it stays so, look at their logs",
        );
    }
    Check::ok(ATTEMPTS, format!("{}, each with a worker", attempts(total)))
}

fn reaches(worker: &WorkerState, held: &HeldAttempts) -> bool {
    let target = worker.targets.get(&held.target);
    target.is_some_and(|it| it.ready && it.engine.as_deref() == Some(&*held.engine))
}

fn described(facts: &LeaseFacts, id: WorkerId) -> String {
    match facts.workers.iter().find(|it| it.id == id) {
        None => format!("worker {id}, which is not known"),
        Some(it) => match it.silent_secs {
            None => format!("worker {id} on {}, which was stopped", it.hostname),
            Some(silent) => {
                format!("worker {id} on {}, silent for {}", it.hostname, seconds(silent))
            }
        },
    }
}

/// The end of an id tells workers apart.
fn short(id: WorkerId) -> String {
    let text = id.to_string();
    text.get(text.len() - 12..).unwrap_or(&text).to_owned()
}
