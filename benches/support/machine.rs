//! How busy the machine is, and what processes use of it.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

/// How idle the machine is before something is measured on it, if it can be had.
const QUIET: f64 = 0.85;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

/// Waits until hardly anything runs, or until patience ends. Returns how idle the machine was last.
pub(crate) async fn settle(quick: bool) -> f64 {
    let give_up = Instant::now() + if quick { LOOK } else { PATIENCE };
    loop {
        let idle = idle(LOOK).await;
        if idle >= QUIET || Instant::now() >= give_up {
            return idle;
        }
    }
}

/// The idle share of all cores over a while. 1 where the system does not say.
async fn idle(over: Duration) -> f64 {
    let before = ticks();
    sleep(over).await;
    let (Some((idle, all)), Some((idle_now, all_now))) = (before, ticks()) else { return 1.0 };
    (idle_now - idle) / (all_now - all).max(1.0)
}

/// Idle ones (those that wait for a disk too) and all.
fn ticks() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the guest ones are in user already.
    let all = fields.iter().take(8).sum();
    Some((fields.get(3)? + fields.get(4)?, all))
}

pub(crate) fn load1() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(f64::NAN)
}

/// Seconds since the epoch by the clock that containers have, too.
pub(crate) fn clock() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with the clock of another process")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(f64::NAN, |it| it.as_secs_f64())
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// What a process holds in memory, in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    /// Without the pages of its files.
    pub(crate) anonymous: f64,
}

pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(Memory { resident: field(&status, "VmRSS:")?, anonymous: field(&status, "RssAnon:")? })
}

/// Of a process and all that it started, in KiB; what they share is counted once.
pub(crate) fn proportional(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut sum = field(&rollup, "Pss:")?;
    for child in children(pid) {
        // One that has just ended holds nothing.
        sum += proportional(child).unwrap_or_default();
    }
    Ok(sum)
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
    lists
        .flat_map(|it| it.split_whitespace().filter_map(|it| it.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn field(text: &str, name: &str) -> anyhow::Result<f64> {
    let value = text.lines().find_map(|it| it.strip_prefix(name));
    let value = value.and_then(|it| it.split_whitespace().next()).and_then(|it| it.parse().ok());
    value.with_context(|| format!("the system tells no {name}"))
}
