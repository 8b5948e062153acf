//! What an engine has of this installation.

use super::{Check, attempts, count, some, unknown};
use crate::app::doctor::facts::{Asked, Given, Sandboxes};

/// How a kind of backend calls things, and how they are done by hand there.
pub(super) struct Words<'a> {
    pub(super) what: &'static str,
    pub(super) engine: &'static str,
    /// By the name of one.
    pub(super) remove: &'a dyn Fn(&str) -> String,
    /// By the installation.
    pub(super) remove_kept: &'a dyn Fn(&str) -> String,
}

/// Another engine at the same address knows nothing of the attempts of the first.
pub(super) fn identity(name: &str, what: &str, id: &str, given: &Asked<Vec<Given>>) -> Check {
    let name = format!("{name} identity");
    let given = match given {
        Ok(given) => given,
        Err(why) => return unknown(name, why),
    };
    let lost: Vec<_> = given.iter().filter(|it| it.engine != id && !it.reached).collect();
    if !lost.is_empty() {
        let lost: Vec<_> = lost
            .iter()
            .map(|it| format!("{} on {what} {}", attempts(it.attempts), it.engine))
            .collect();
        return Check::fail(
            name,
            format!("{}, which no worker reaches: another one answers here", some(&lost)),
            format!(
                "bring that {what} back at this address, or start a worker that reaches it: they keep their state \
                 until then"
            ),
        );
    }
    let here: i64 = given.iter().filter(|it| it.engine == id).map(|it| it.attempts).sum();
    let elsewhere: i64 = given.iter().filter(|it| it.engine != id).map(|it| it.attempts).sum();
    let elsewhere = match elsewhere {
        0 => String::new(),
        number => format!("; {} on {what}s of other workers", attempts(number)),
    };
    Check::ok(name, format!("{} here{elsewhere}", attempts(here)))
}

pub(super) fn judge(target: &str, words: &Words<'_>, sandboxes: &Asked<Sandboxes>) -> Vec<Check> {
    let Words { what, engine, remove, remove_kept } = words;
    let name = format!("{what} {target}");
    let it = match sandboxes {
        Ok(it) => it,
        Err(why) => return vec![unknown(name, why)],
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
                "a worker on this {engine} removes each 5 min after it was made; by hand: {}",
                remove(first(&it.unknown))
            ),
        ));
    }
    if !it.left_over.is_empty() {
        checks.push(Check::warn(
            format!("{name} left over"),
            format!("their attempts have ended: {}", some(&it.left_over)),
            format!(
                "a worker on this {engine} removes them within a minute or two; by hand: {}",
                remove(first(&it.left_over))
            ),
        ));
    }
    if !it.missing.is_empty() {
        let tasks: Vec<_> = it.missing.iter().map(ToString::to_string).collect();
        checks.push(Check::warn(
            format!("{name} missing"),
            format!("the {engine} does not have the {what} of live tasks: {}", some(&tasks)),
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
        kept.fix =
            Some(format!("remove them when nobody needs them: {}", remove_kept(&it.installation)));
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
