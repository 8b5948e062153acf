//! The engine of a target, and what it has of this installation.

use super::sandboxes::{self, Words, identity};
use super::{Check, skew, space};
use crate::app::doctor::facts::{Engine, EngineFacts};

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
            checks.push(identity(&name, "engine", &engine.id, given));
            checks.push(logs(&name, engine));
            checks.extend(engine.space.map(|free| {
                let fix = "make room: `docker system df` says what takes it, `docker image prune` removes images \
                           that nothing uses";
                space(format!("{name} disk"), "where it keeps containers", free, fix)
            }));
            checks.extend(engine.clock.map(|it| skew(format!("{name} clock"), "the engine", it)));
        }
    }
    let docker = match host.as_deref().filter(|it| !it.is_empty()) {
        Some(host) => format!("docker --host {host}"),
        None => "docker".to_owned(),
    };
    let words = Words {
        what: "containers",
        engine: "engine",
        remove: &|it| format!("{docker} rm --force --volumes {it}"),
        remove_kept: &|installation| {
            format!(
                "{docker} ps --all --quiet --filter label=supercargo.dev/installation={installation} \
                 --filter name=-kept$ | xargs {docker} rm --volumes"
            )
        },
    };
    checks.extend(sandboxes::judge(target, &words, sandboxes));
    checks
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
