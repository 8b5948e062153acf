//! What the process itself takes, by the names that every exporter gives it. Of Linux, from `/proc`.

use std::fmt::Write as _;
use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// In the text form of Prometheus. What can't be read is left out.
pub(super) fn metrics() -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let stat = stat.as_deref().and_then(Stat::parse);
    let it = stat.as_ref();
    put(
        "process_cpu_seconds_total",
        "counter",
        "Processor time, of the user and of the system",
        it.map(|it| it.cpu_seconds),
    );
    put(
        "process_resident_memory_bytes",
        "gauge",
        "Memory that is in use",
        it.map(|it| it.resident),
    );
    put("process_virtual_memory_bytes", "gauge", "Memory that is mapped", it.map(|it| it.mapped));
    put("process_threads", "gauge", "Threads", it.map(|it| it.threads));
    put(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970",
        it.and_then(|it| Some(boot_time()? + it.start)),
    );
    let files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    put("process_open_fds", "gauge", "Files and sockets that are open", files.map(number));
    let most = getrlimit(Resource::Nofile).current;
    put(
        "process_max_fds",
        "gauge",
        "The most that may be open",
        most.map(|it| number(it as usize)),
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(it: usize) -> f64 {
    it as f64
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|it| it.strip_prefix("btime "))?.trim().parse().ok()
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// After the start of the machine.
    start: f64,
    mapped: f64,
    resident: f64,
}

impl Stat {
    /// See proc(5). The name of the program stands in parentheses, and may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first one after the name is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let ticks = number(clock_ticks_per_second() as usize);
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            start: field(22)? / ticks,
            mapped: field(23)?,
            resident: field(24)? * number(page_size()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_process_is_read_whatever_it_is_called() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 12 0 3000 8192 2 18446744073709551615 1";
        let ticks = number(clock_ticks_per_second() as usize);
        let expected = Stat {
            cpu_seconds: 300.0 / ticks,
            threads: 12.0,
            start: 3000.0 / ticks,
            mapped: 8192.0,
            resident: 2.0 * number(page_size()),
        };
        assert_eq!(Stat::parse(text), Some(expected));
    }

    #[test]
    fn this_process_has_all_of_it() {
        let text = metrics();
        assert_eq!(text.matches("# TYPE").count(), 7, "{text}");
    }
}
