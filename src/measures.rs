//! What is measured: the one list of metrics, with kind, unit and help, and the few helpers that more than
//! one module counts with. Names are API: they are only added.
//!
//! No id is ever a label: labels have few values, or the memory of whoever scrapes grows without end.

use metrics::Unit;

macro_rules! measures {
    ($($kind:ident $constant:ident $name:literal $unit:ident $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = concat!("supercargo_", $name);)*

        /// Name, kind and help of each.
        pub const ALL: &[(&str, Kind, &str)] =
            &[$((concat!("supercargo_", $name), Kind::$kind, $help),)*];

        /// Tells the recorder what is measured.
        pub fn describe() {
            $(describe_one(concat!("supercargo_", $name), Kind::$kind, Unit::$unit, $help);)*
        }
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As the text form of Prometheus names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

measures! {
    Gauge BUILD_INFO "build_info" Count "1, with the version that runs";

    Counter TASKS_SUBMITTED "tasks_submitted_total" Count "Tasks that were accepted by this process, by target";
    Counter TASKS "tasks_total" Count "Tasks that this process saw end, by state";
    Counter ATTEMPTS "attempts_total" Count "Attempts that this worker saw end, by target and state";
    Counter ATTEMPT_FAILURES "attempt_failures_total" Count "Attempts that failed or were cancelled, by target, reason and class";
    Counter ATTEMPTS_FENCED "attempts_fenced_total" Count "Attempts that this worker let go of because another one has them";
    Counter LEASE_LOST "lease_lost_total" Count "How often the lease of this worker was not renewed in time, or taken";
    Histogram QUEUE_WAIT "queue_wait_seconds" Seconds "From the submit of a task to its first claim, by target";
    Histogram LAUNCH "launch_seconds" Seconds "What it takes to have a container started, by target and by whether its image was pulled";
    Histogram TASK_DURATION "task_duration_seconds" Seconds "From the start of a container to its end, by target and state";
    Counter LOG_BYTES "log_bytes_total" Bytes "Bytes of containers' logs that were stored";
    Gauge TARGET_UP "target_up" Count "1 where this worker reaches the target's engine, 0 where it does not";

    Gauge QUEUE_DEPTH "queue_depth" Count "Tasks of the installation that wait, by target";
    Gauge TASKS_RUNNING "tasks_running" Count "Tasks of the installation that a worker has, by target";
    Gauge QUEUE_OLDEST_AGE "queue_oldest_age_seconds" Seconds "How long the oldest task that could start has been there, by target";

    Histogram HTTP_DURATION "http_request_duration_seconds" Seconds "From the head of a request to the head of its answer, by route, method and status";
    Gauge HTTP_OPEN "http_requests_open" Count "Requests whose answer has not been sent to its end, by route: waits and followed logs too";
    Gauge HTTP_WAITS "http_waits" Count "Requests that wait for the end of a task";
    Counter HTTP_LIMITED "http_limited_total" Count "Requests that were refused, by the limit that refused them";
    Gauge CONNECTIONS "http_connections" Count "Connections that are open";
    Counter CONNECTIONS_ALL "http_connections_total" Count "Connections that were accepted";
    Counter CONNECTIONS_FULL "http_connections_full_total" Count "How often every connection was in use, so that further ones had to wait";

    Gauge DB_OPEN "db_connections" Count "Connections to the database that are open";
    Gauge DB_IDLE "db_connections_idle" Count "Connections to the database that nobody uses";
    Gauge DB_MOST "db_connections_max" Count "The most connections to the database";
}

fn describe_one(name: &'static str, kind: Kind, unit: Unit, help: &'static str) {
    match kind {
        Kind::Counter => metrics::describe_counter!(name, unit, help),
        Kind::Gauge => metrics::describe_gauge!(name, unit, help),
        Kind::Histogram => metrics::describe_histogram!(name, unit, help),
    }
}

/// A task has ended.
pub fn task_ended(state: &'static str) {
    metrics::counter!(TASKS, "state" => state).increment(1);
}

/// A request was refused by a limit.
pub fn limited(limit: &'static str) {
    metrics::counter!(HTTP_LIMITED, "limit" => limit).increment(1);
}

/// Counts something in a gauge for as long as it is there.
#[derive(Debug)]
pub struct Held(metrics::Gauge);

impl Held {
    pub fn new(gauge: metrics::Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        for (name, kind, help) in ALL {
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(
                *kind == Kind::Histogram,
                name.ends_with("_seconds") && *kind != Kind::Gauge,
                "{name}"
            );
            assert!(help.starts_with(|it: char| it.is_ascii_uppercase() || it == '1'), "{name}");
            assert_eq!(ALL.iter().filter(|(other, ..)| other == name).count(), 1, "{name}");
        }
    }
}
