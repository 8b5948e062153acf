//! The database: whether it answers, keeps what it was told, and is the one of this program.

use super::{Check, seconds, skew, space, unknown};
use crate::app::doctor::facts::{
    Asked, DatabaseFacts, PrivateFacts, PrivateState, ServerFacts, Unknown,
};
use crate::store::{SchemaState, ServerState};

const DISK_FIX: &str = "make room: without it nothing more is accepted";

pub(super) fn judge(facts: &DatabaseFacts) -> Vec<Check> {
    let mut checks = vec![reached(facts)];
    if let Ok(ServerFacts { state, .. }) = &facts.server {
        checks.push(durability(state));
        checks.push(connections(state));
    }
    if let Some(PrivateFacts { folder, space: Some(free), .. }) = &facts.private {
        let wherein = format!("where it lies ({})", folder.display());
        checks.push(space("database disk", &wherein, *free, DISK_FIX));
    }
    checks.push(schema(&facts.schema));
    checks.push(match &facts.server {
        Ok(server) => skew("clock", "the database", server.clock),
        Err(_) => unknown("clock", &Unknown::Skipped("the database can't be asked")),
    });
    checks
}

fn reached(facts: &DatabaseFacts) -> Check {
    const NAME: &str = "database";
    let place = &facts.place;
    match (&facts.server, &facts.private) {
        (Ok(ServerFacts { state, round_trip, .. }), private) => {
            let version = &state.version;
            let process = match private.as_ref().map(|it| it.state) {
                Some(PrivateState::Ready(pid)) => format!(" (process {pid})"),
                _ => String::new(),
            };
            let answers = format!("{:.1} ms", round_trip.as_secs_f64() * 1e3);
            let found = format!("{place}{process}, version {version}, answers within {answers}");
            if state.standby {
                return Check::fail(
                    NAME,
                    format!("{found}, and is a standby that takes no writes"),
                    "let DATABASE_URL name the primary, or promote this one",
                );
            }
            if round_trip.as_millis() > 100 {
                return Check::warn(
                    NAME,
                    format!(
                        "{place}, version {version}, takes {} to answer",
                        seconds(round_trip.as_secs_f64())
                    ),
                    "each step of a task waits for it: bring the service nearer to it, or see what it is busy with",
                );
            }
            Check::ok(NAME, found)
        }
        (Err(_), Some(PrivateFacts { state: PrivateState::Stopped | PrivateState::None, .. })) => {
            Check::fail(
                NAME,
                format!("{place} does not run"),
                "it runs as long as the service: start that, by `supercargo serve`",
            )
        }
        (Err(_), Some(PrivateFacts { state: PrivateState::Moving(pid), .. })) => Check::fail(
            NAME,
            format!("{place} (process {pid}) comes up or goes down"),
            "wait, and look again; after a crash it recovers first, which postgres/log/ tells",
        ),
        (Err(_), Some(PrivateFacts { state: PrivateState::Hidden, .. })) => Check::fail(
            NAME,
            format!("{place} can't be looked at by this user"),
            "run this as the user that runs the service, or as root",
        ),
        (Err(why), Some(PrivateFacts { state: PrivateState::Ready(pid), .. })) => Check::fail(
            NAME,
            format!("{place} (process {pid}) does not answer: {}", said(why)),
            "see postgres/log/ in the data directory, and run this as the user that runs the service",
        ),
        (Err(why), None) => Check::fail(
            NAME,
            format!("{place} does not answer: {}", said(why)),
            "see that it runs, and that database.url (DATABASE_URL) names it with the right user and password: \
             until it answers nothing is accepted, and containers go on",
        ),
    }
}

fn said(why: &Unknown) -> &str {
    match why {
        Unknown::Skipped(why) => why,
        Unknown::Failed(why) => why,
    }
}

fn durability(state: &ServerState) -> Check {
    const NAME: &str = "database durability";
    let ServerState { fsync, synchronous_commit, full_page_writes, .. } = state;
    if fsync != "on" {
        return Check::fail(
            NAME,
            format!("fsync = {fsync}: a power cut may lose the whole database"),
            "`alter system set fsync = on`, then `select pg_reload_conf()`",
        );
    }
    if synchronous_commit == "off" {
        return Check::fail(
            NAME,
            "synchronous_commit = off: a crash may lose tasks that were accepted",
            "`alter system reset synchronous_commit` (or `alter role` or `alter database … reset …`), then `select \
             pg_reload_conf()`",
        );
    }
    if full_page_writes != "on" {
        return Check::warn(
            NAME,
            format!("full_page_writes = {full_page_writes}: a power cut may tear pages"),
            "`alter system set full_page_writes = on`, unless its storage writes whole pages, as ZFS does",
        );
    }
    Check::ok(
        NAME,
        format!(
            "fsync = {fsync}, synchronous_commit = {synchronous_commit}, full_page_writes = {full_page_writes}"
        ),
    )
}

fn connections(state: &ServerState) -> Check {
    const NAME: &str = "database connections";
    let ServerState { connections, max_connections, .. } = state;
    let found = format!("{connections} of {max_connections} in use");
    // Three are kept for superusers.
    if max_connections - connections <= 5 || connections * 10 >= max_connections * 9 {
        return Check::warn(
            NAME,
            found,
            "lower database.max_connections of the processes, or raise max_connections of the server",
        );
    }
    Check::ok(NAME, found)
}

fn schema(schema: &Asked<SchemaState>) -> Check {
    const NAME: &str = "schema";
    let SchemaState { newest, pending, unknown: newer, different } = match schema {
        Ok(schema) => schema,
        Err(why) => return unknown(NAME, why),
    };
    if let Some(version) = newer {
        return Check::fail(
            NAME,
            format!("it has migration {version}, which this program does not know: it is newer"),
            "use the program of the service that runs on it, or a newer one",
        );
    }
    if let Some(version) = different {
        return Check::fail(
            NAME,
            format!(
                "migration {version} was not applied to its end, or with another content than this program has"
            ),
            "use the version that made this database, or another database",
        );
    }
    match pending {
        0 => Check::ok(NAME, format!("version {newest}, up to date")),
        pending => Check::warn(
            NAME,
            format!(
                "{} to version {newest}",
                super::count(*pending as i128, "migration is missing", "migrations are missing")
            ),
            "the next start of this version of the service applies them; `supercargo migrate` does that alone",
        ),
    }
}
