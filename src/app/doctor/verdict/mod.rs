//! From what was found to what is said. Pure.
//!
//! `fail` is for what loses or holds up work, `warn` for what will, and for what could not be found out.

mod cluster;
mod database;
mod engine;
mod leases;
mod objects;
mod sandboxes;
mod service;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Check;
use super::facts::{Facts, Skew, Space, Unknown};

pub(super) use leases::is_alive;

/// Leases of 20 s bear some of it; what is further off is not kept right by anybody.
const SKEW_WARN_MILLIS: i64 = 1_000;
const SKEW_FAIL_MILLIS: i64 = 5_000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![service::judge(&facts.service)];
    checks.extend(database::judge(&facts.database));
    checks.extend(objects::judge(&facts.objects));
    checks.extend(leases::judge(&facts.leases));
    checks.extend(facts.engines.iter().flat_map(engine::judge));
    checks.extend(facts.clusters.iter().flat_map(cluster::judge));
    checks
}

/// A check that could not be made.
fn unknown(check: impl Into<String>, why: &Unknown) -> Check {
    match why {
        Unknown::Skipped(why) => {
            Check::warn(check, format!("not checked: {why}"), "mend that first, then look again")
        }
        Unknown::Failed(why) => Check::warn(
            check,
            format!("could not be found out: {why}"),
            "look again; if it stays so, see what is wrong there",
        ),
    }
}

fn skew(check: impl Into<String>, whose: &str, skew: Skew) -> Check {
    // What is beyond doubt.
    let least = skew.millis.abs() - skew.unsure;
    let side = if skew.millis < 0 { "behind" } else { "ahead of" };
    let found = if least <= 0 {
        format!("the clock of {whose} is this machine's, to {}", span(skew.unsure))
    } else {
        format!("the clock of {whose} is {} {side} this machine's", span(skew.millis.abs()))
    };
    let fix = "keep both clocks by NTP (`timedatectl` shows whether it does; `systemctl enable --now \
               systemd-timesyncd`, or chrony)";
    if least > SKEW_FAIL_MILLIS {
        Check::fail(check, found, fix)
    } else if least > SKEW_WARN_MILLIS {
        Check::warn(check, found, fix)
    } else {
        Check::ok(check, found)
    }
}

fn space(check: impl Into<String>, wherein: &str, space: Space, fix: &str) -> Check {
    let Space { free, total } = space;
    let found = format!("{} of {} free {wherein}", bytes(free), bytes(total));
    if free < 128 * MIB {
        Check::fail(check, found, fix)
    } else if free < GIB || (free < 10 * GIB && free < total / 20) {
        Check::warn(check, found, fix)
    } else {
        Check::ok(check, found)
    }
}

#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
fn bytes(count: u64) -> String {
    if count >= GIB {
        format!("{:.1} GiB", count as f64 / GIB as f64)
    } else {
        format!("{} MiB", count / MIB)
    }
}

fn span(millis: i64) -> String {
    if millis < 1_000 {
        format!("{millis} ms")
    } else {
        seconds(Duration::from_millis(millis.unsigned_abs()).as_secs_f64())
    }
}

/// As people say it: to two digits or so.
fn seconds(secs: f64) -> String {
    match secs {
        secs if secs < 10.0 => format!("{secs:.1} s"),
        secs if secs < 120.0 => format!("{secs:.0} s"),
        secs if secs < 7_200.0 => format!("{:.0} min", secs / 60.0),
        secs => format!("{:.0} h", secs / 3_600.0),
    }
}

/// The first few of them, and how many there are beside.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn count(number: impl Into<i128>, one: &str, many: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

fn attempts(number: i64) -> String {
    count(number, "live attempt", "live attempts")
}
