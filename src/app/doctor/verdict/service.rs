//! Whether the service runs here.

use super::Check;
use crate::app::doctor::facts::{Api, Readiness, ServiceFacts, TokenState};

const NAME: &str = "service";
const LOG: &str = "look at its log";

pub(super) fn judge(facts: &ServiceFacts) -> Check {
    let ServiceFacts { process, api } = facts;
    match (api, process) {
        (Api::Answers { url, readiness, token }, _) => answers(url, readiness, token),
        (Api::NoAddress | Api::Silent { .. }, None) => Check::fail(
            NAME,
            "it does not run with this data directory",
            "start it: `supercargo serve`, or what starts it on this machine (for example `systemctl start \
             supercargo`); another data directory is named by --data-dir",
        ),
        (Api::NoAddress, Some(pid)) => Check::warn(
            NAME,
            format!("process {pid} has the data directory, and is not up yet"),
            format!("wait; if it stays so, {LOG}: it says what it waits for"),
        ),
        (Api::Silent { url, why }, Some(pid)) => Check::fail(
            NAME,
            format!("process {pid} does not answer at {url}: {why}"),
            format!(
                "{LOG}; if it hangs, `kill {pid}` and start it again: containers go on, and it takes them back"
            ),
        ),
    }
}

fn answers(url: &str, readiness: &Readiness, token: &TokenState) -> Check {
    match (readiness, token) {
        (Readiness::NotReady(why), _) => Check::fail(
            NAME,
            format!("it answers at {url}, and takes no requests: {why}"),
            format!("see the check \"database\"; {LOG}"),
        ),
        (_, TokenState::Refused(why)) => Check::fail(
            NAME,
            format!("it answers at {url}, and refuses the token: {why}"),
            "name the token by --token or SUPERCARGO_TOKEN; if the administrator's was revoked, remove its file \
             and start the service again",
        ),
        (Readiness::Degraded(targets), _) => Check::warn(
            NAME,
            format!("it answers at {url}; no worker reaches {}", targets.join(", ")),
            "see the checks of the engines: tasks wait until one is reached",
        ),
        (Readiness::Ready, TokenState::Works) => {
            Check::ok(NAME, format!("it answers at {url} and takes the token"))
        }
        (Readiness::Ready, TokenState::NoApi) => Check::ok(
            NAME,
            format!("it answers at {url}; it has not the role api, and takes no requests"),
        ),
    }
}
