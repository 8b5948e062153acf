//! Lines of JSON on stdout, words on stderr.

use std::fmt;
use std::io::Write as _;

use serde_json::Value;

use super::{machine, stats};

/// Tells a person what goes on.
pub(crate) fn note(text: impl fmt::Display) {
    // Nobody may be reading.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// One bench of a name, and how thorough it is to be.
#[derive(Debug)]
pub(crate) struct Bench {
    name: &'static str,
    /// A smoke run: every step once, figures that mean little.
    pub(crate) quick: bool,
}

impl Bench {
    /// `cargo bench` gives `--bench`. Who does not, as `cargo test --all-targets`, wants no figures.
    pub(crate) fn from_arguments(name: &'static str) -> Self {
        let given = |argument| std::env::args().any(|it| it == argument);
        Self { name, quick: given("--quick") || !given("--bench") }
    }

    /// The first in a thorough run, the second in a quick one.
    pub(crate) const fn either<T: Copy>(&self, thorough: T, quick: T) -> T {
        if self.quick { quick } else { thorough }
    }

    /// Waits for a quiet machine, within reason, and starts a line about what is measured then.
    pub(crate) async fn measurement(&self, what: &str) -> Line {
        let idle = machine::settle(self.quick).await;
        note(format_args!("{}: {what} (the machine is {:.0} % idle)", self.name, idle * 100.0));
        let mut line = Line::default();
        line.put("bench", what.into());
        line.put("quick", self.quick.into());
        line.put("cores", machine::cores().into());
        line.put("idle_before", number(idle, 2));
        line.put("load1_before", number(machine::load1(), 2));
        line
    }
}

/// One measurement: fields in the order in which they were set.
#[derive(Debug, Default)]
pub(crate) struct Line {
    fields: Vec<(String, Value)>,
}

impl Line {
    fn put(&mut self, name: impl Into<String>, value: Value) {
        self.fields.push((name.into(), value));
    }

    pub(crate) fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.put(name, value.into());
        self
    }

    /// A figure, with three places after the point.
    pub(crate) fn figure(mut self, name: &str, value: f64) -> Self {
        self.put(name, number(value, 3));
        self
    }

    /// Percentiles of durations in milliseconds, as `<name>_p50_ms` and `<name>_p99_ms`.
    pub(crate) fn latency(self, name: &str, samples: &stats::Samples) -> Self {
        self.figure(&format!("{name}_p50_ms"), samples.p50())
            .figure(&format!("{name}_p99_ms"), samples.p99())
    }

    /// A figure that must not be more than the budget.
    pub(crate) fn at_most(self, value: f64, budget: f64) -> Self {
        self.set("budget", budget).set("ok", value <= budget)
    }

    /// A figure that must not be less than the budget.
    pub(crate) fn at_least(self, value: f64, budget: f64) -> Self {
        self.set("budget", budget).set("ok", value >= budget)
    }

    pub(crate) fn print(self) {
        let field = |(name, value): &(String, Value)| format!("{}: {value}", Value::from(&**name));
        let fields: Vec<String> = self.fields.iter().map(field).collect();
        drop(writeln!(std::io::stdout(), "{{{}}}", fields.join(", ")));
    }
}

fn number(value: f64, places: i32) -> Value {
    let scale = 10_f64.powi(places);
    let rounded = (value * scale).round() / scale;
    // Not a number: there was nothing to measure.
    serde_json::Number::from_f64(rounded).map_or(Value::Null, Value::Number)
}
