//! The engine of a target, and what it has of this installation.

use super::{Check, attempts, count, skew, some, space, unknown};
use crate::app::doctor::facts::{Asked, Engine, EngineFacts, Given, Sandboxes};

pub(super) fn judge(facts: &EngineFacts) -> Vec<Check> {
    let EngineFacts { target, host, engine, given, sandboxes } = facts;
    let name = format!("engine {target}");
    let at = host.as_deref().filter(|it| !it.is_empty()).unwrap_or("the local socket");
    let mut checks = Vec::new();
    match engine {
        Err(why) => checks.push(Check::fail(
            &name,
            format!("{at} does not answer: {why}"),
            "start it (`systemctl start docker`), see that this user may use its socket, and that docker.host \
             (DOCKER_HOST) names it: until then tasks wait, with a condition",
        )),
        Ok(engine) => {
            checks.push(Check::ok(
                &name,
                format!(
                    "{at} answers: version {}, {}, identity {}",
                    engine.version, engine.storage_driver, engine.id
                ),
            ));
            checks.push(identity(&name, engine, given));
            checks.push(logs(&name, engine));
            checks.extend(engine.space.map(|free| {
                let fix = "make room: `docker system df` says what takes it, `docker image prune` removes images \
                           that nothing uses";
                space(format!("{name} disk"), "where it keeps containers", free, fix)
            }));
            checks.extend(engine.clock.map(|it| skew(format!("{name} clock"), "the engine", it)));
        }
    }
    checks.extend(judge_sandboxes(target, host.as_deref(), sandboxes));
    checks
}

/// Another engine at the same address knows nothing of the attempts of the first.
fn identity(name: &str, engine: &Engine, given: &Asked<Vec<Given>>) -> Check {
    let name = format!("{name} identity");
    let given = match given {
        Ok(given) => given,
        Err(why) => return unknown(name, why),
    };
    let lost: Vec<_> = given.iter().filter(|it| it.engine != engine.id && !it.reached).collect();
    if !lost.is_empty() {
        let lost: Vec<_> = lost
            .iter()
            .map(|it| format!("{} on engine {}", attempts(it.attempts), it.engine))
            .collect();
        return Check::fail(
            name,
            format!("{}, which no worker reaches: another one answers here", some(&lost)),
            "bring that engine back at this address, or start a worker that reaches it: they keep their state until \
             then",
        );
    }
    let here: i64 = given.iter().filter(|it| it.engine == engine.id).map(|it| it.attempts).sum();
    let elsewhere: i64 =
        given.iter().filter(|it| it.engine != engine.id).map(|it| it.attempts).sum();
    let elsewhere = match elsewhere {
        0 => String::new(),
        number => format!("; {} on engines of other workers", attempts(number)),
    };
    Check::ok(name, format!("{} here{elsewhere}", attempts(here)))
}

fn logs(name: &str, engine: &Engine) -> Check {
    let name = format!("{name} logs");
    if engine.keeps_logs {
        return Check::ok(name, "it has the log driver that attempts use (local)");
    }
    Check::fail(
        name,
        "it lacks the log driver \"local\", so no attempt can be started",
        "use an engine that has it: Docker 18.09 or newer",
    )
}

fn judge_sandboxes(target: &str, host: Option<&str>, sandboxes: &Asked<Sandboxes>) -> Vec<Check> {
    let name = format!("containers {target}");
    let it = match sandboxes {
        Ok(it) => it,
        Err(why) => return vec![unknown(name, why)],
    };
    let docker = match host.filter(|it| !it.is_empty()) {
        Some(host) => format!("docker --host {host}"),
        None => "docker".to_owned(),
    };
    let mut checks = vec![Check::ok(&name, summary(it))];
    if !it.unknown.is_empty() {
        checks.push(Check::warn(
            format!("{name} unknown"),
            format!(
                "{} not known to the database: {}",
                count(it.unknown.len() as i128, "is", "are"),
                some(&it.unknown)
            ),
            format!(
                "a worker on this engine removes each 5 min after it was made; by hand: {docker} rm --force \
                 --volumes {}",
                first(&it.unknown)
            ),
        ));
    }
    if !it.left_over.is_empty() {
        checks.push(Check::warn(
            format!("{name} left over"),
            format!("their attempts have ended: {}", some(&it.left_over)),
            format!(
                "a worker on this engine removes them within a minute or two; by hand: {docker} rm --force \
                 --volumes {}",
                first(&it.left_over)
            ),
        ));
    }
    if !it.missing.is_empty() {
        let tasks: Vec<_> = it.missing.iter().map(ToString::to_string).collect();
        checks.push(Check::warn(
            format!("{name} missing"),
            format!("the engine does not have the containers of live tasks: {}", some(&tasks)),
            format!(
                "their worker finds out and tries them again; if they stay so, see `supercargo events {}`",
                first(&tasks)
            ),
        ));
    }
    if it.kept > 0 {
        let mut kept = Check::ok(
            format!("{name} kept"),
            count(it.kept as i128, "was put aside after its end", "were put aside after their end"),
        );
        kept.fix = Some(format!(
            "remove them when nobody needs them: {docker} ps --all --quiet --filter \
             label=supercargo.dev/installation={} --filter name=-kept$ | xargs {docker} rm --volumes",
            it.installation
        ));
        checks.push(kept);
    }
    checks
}

fn summary(it: &Sandboxes) -> String {
    let others = match it.others {
        0 => String::new(),
        number => format!(", {number} of other installations"),
    };
    let cut = if it.cut { "; only the newest were looked at" } else { "" };
    format!("{}{others}{cut}", count(it.live as i128, "of a live attempt", "of live attempts"))
}

fn first(names: &[String]) -> &str {
    names.first().map_or("", String::as_str)
}
