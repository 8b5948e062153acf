//! The tasks that go through a service that dies: small ones that touch every step, and what has to come of each.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use serde_json::{Value, json};

/// What a task does, and what its caller does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// One line.
    Small,
    /// Both streams, bytes that are no text, an end without a line end.
    Streams,
    /// A JSON value and a file.
    Outputs,
    /// A file that takes a while to be stored.
    SlowOutput,
    /// Files are put into it.
    Files,
    /// Enough lines that some are stored while it runs.
    BigLog,
    /// Tried again by itself.
    FailsOnce,
    /// Tried again by its caller.
    ByHand,
    AtMostOnce,
    /// Stopped by its caller while it runs, and ends on the signal.
    Cancelled,
    /// So, and does not listen.
    Killed,
    /// Stopped while it waits for its next attempt.
    CancelledInQueue,
    /// Runs longer than it may.
    TimesOut,
    /// Waits longer in the queue than it may, for a [`Kind::Blocks`] that it takes the place of.
    Expires,
    Blocks,
    /// Its container stays.
    Kept,
    Skipped,
    NotFound,
    /// One of two in one request.
    Batch,
}

use Kind::{
    AtMostOnce, Batch, BigLog, Blocks, ByHand, Cancelled, CancelledInQueue, Expires, FailsOnce,
    Files, Kept, Killed, NotFound, Outputs, Skipped, SlowOutput, Small, Streams, TimesOut,
};

impl Kind {
    /// Those that are over soon.
    pub(crate) const QUICK: [Self; 14] = [
        Small,
        Streams,
        Outputs,
        Files,
        BigLog,
        FailsOnce,
        ByHand,
        AtMostOnce,
        Cancelled,
        CancelledInQueue,
        TimesOut,
        Kept,
        Skipped,
        Batch,
    ];
}

/// What one stream each has to have at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

/// A task of a kind, with a name of its own.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub kind: Kind,
    /// Its idempotency key, and a label.
    pub key: String,
}

const NUMBERS: u32 = 20_000;
const SLOW_BYTES: usize = 12 << 20;
const BIG_LINES: u32 = 20_000;

fn numbers(from: u32, to: u32) -> Vec<u8> {
    let mut text = String::new();
    for n in from..=to {
        writeln!(text, "{n}").unwrap();
    }
    text.into_bytes()
}

impl Order {
    pub(crate) fn new(kind: Kind, key: String) -> Self {
        Self { kind, key }
    }

    pub(crate) fn document(&self) -> Value {
        let script = match self.kind {
            Small | Batch | Kept | AtMostOnce => "echo did it".to_owned(),
            Streams => "echo out; usleep 30000; printf 'err \\377\\376\\n' >&2; usleep 30000; printf 'no end'".to_owned(),
            Outputs => format!(
                "mkdir /out; seq 1 {NUMBERS} > /out/numbers; echo '{{\"sum\": 7}}' > $SUPERCARGO_OUTPUT; echo made"
            ),
            SlowOutput => format!("mkdir /out; head -c {SLOW_BYTES} /dev/zero > /out/numbers; echo '{{\"sum\": 7}}' > $SUPERCARGO_OUTPUT; echo made"),
            Files => "cat /in/a.txt /in/b.txt".to_owned(),
            BigLog => {
                let quarter = BIG_LINES / 4;
                format!("for i in 0 1 2 3; do seq $((i*{quarter}+1)) $((i*{quarter}+{quarter})); usleep 150000; done")
            }
            FailsOnce => "echo try $SUPERCARGO_ATTEMPT; test $SUPERCARGO_ATTEMPT = 2 || exit 75".to_owned(),
            ByHand => "echo try $SUPERCARGO_ATTEMPT; test $SUPERCARGO_ATTEMPT = 2 || exit 3".to_owned(),
            CancelledInQueue => "echo try $SUPERCARGO_ATTEMPT; exit 75".to_owned(),
            Cancelled => "echo up; exec sleep 600".to_owned(),
            Killed | Blocks => "trap '' TERM; echo up; sleep 600".to_owned(),
            TimesOut => "exec sleep 600".to_owned(),
            Expires => "echo waited".to_owned(),
            Skipped => "echo no; exit 99".to_owned(),
            NotFound => String::new(),
        };
        let mut task = json!({
            "image": "busybox:latest", "command": ["sh", "-c", script], "labels": {"order": self.key},
        });
        let more = match self.kind {
            Outputs | SlowOutput => {
                json!({"outputs": {"sum": {"required": true}, "numbers": {"path": "/out/numbers", "required": true}}})
            }
            Files => json!({"files": [
                {"path": "/in/a.txt", "content": "a\n"}, {"path": "/in/b.txt", "content": "b\n"}]}),
            FailsOnce => json!({"retries": {"max": 2, "backoff": {"initial": "50ms"}}}),
            CancelledInQueue => {
                json!({"retries": {"max": 1, "backoff": {"initial": "1h", "max": "1h"}}})
            }
            AtMostOnce => json!({"at_most_once": true}),
            Cancelled => json!({"init": true, "timeouts": {"stop_grace": "20s"}}),
            Killed => json!({"timeouts": {"stop_grace": "1s"}}),
            Blocks => json!({"timeouts": {"stop_grace": "3s"}, "run_key": self.key}),
            Expires => {
                json!({"timeouts": {"queue": "300ms"}, "run_key": blocker(&self.key), "on_duplicate": "restart"})
            }
            TimesOut => json!({"init": true, "timeouts": {"run": "400ms", "stop_grace": "20s"}}),
            Kept => json!({"cleanup": "never"}),
            Skipped => json!({"skip_on_exit_codes": [99]}),
            NotFound => json!({"command": ["no-such-command"]}),
            Small | Streams | BigLog | ByHand | Batch => json!({}),
        };
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    }

    /// The ways that it may end: state, and reason where there is one.
    pub(crate) fn ends(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            Small | Streams | Outputs | SlowOutput | Files | BigLog | FailsOnce | ByHand | Kept
            | Batch => &[("succeeded", "")],
            AtMostOnce => &[("succeeded", ""), ("failed", "node_lost")],
            Cancelled | Killed | CancelledInQueue | Blocks => &[("cancelled", "cancelled")],
            TimesOut => &[("failed", "timeout")],
            // What it waits for may be gone before somebody looks.
            Expires => &[("failed", "timeout"), ("succeeded", "")],
            Skipped => &[("skipped", "")],
            NotFound => &[("failed", "command_not_found")],
        }
    }

    pub(crate) fn attempts(&self) -> u64 {
        match self.kind {
            FailsOnce | ByHand | CancelledInQueue => 2,
            _ => 1,
        }
    }

    /// How many containers may start.
    pub(crate) fn starts(&self, state: &str) -> RangeInclusive<usize> {
        match (self.kind, state) {
            // A start that was on its way when nobody knew of it any more is the only one.
            (AtMostOnce, "failed") => 0..=1,
            (Expires, "failed") | (NotFound, _) => 0..=0,
            (FailsOnce | ByHand, _) => 2..=2,
            _ => 1..=1,
        }
    }

    /// Of an attempt that has an exit code.
    pub(crate) fn log(&self, attempt: u64) -> Log {
        let out = match self.kind {
            Small | Batch | Kept | AtMostOnce => b"did it\n".to_vec(),
            Streams => {
                return Log { out: b"out\nno end".to_vec(), err: b"err \xff\xfe\n".to_vec() };
            }
            Outputs | SlowOutput => b"made\n".to_vec(),
            Files => b"a\nb\n".to_vec(),
            BigLog => numbers(1, BIG_LINES),
            FailsOnce | ByHand | CancelledInQueue => format!("try {attempt}\n").into_bytes(),
            Cancelled | Killed | Blocks => b"up\n".to_vec(),
            TimesOut | NotFound => Vec::new(),
            Expires => b"waited\n".to_vec(),
            Skipped => b"no\n".to_vec(),
        };
        Log { out, err: Vec::new() }
    }

    /// The value of `sum` and the bytes of `numbers`, where it has them.
    pub(crate) fn outputs(&self) -> Option<(i64, Vec<u8>)> {
        match self.kind {
            Outputs => Some((7, numbers(1, NUMBERS))),
            SlowOutput => Some((7, vec![0; SLOW_BYTES])),
            _ => None,
        }
    }
}

/// The key of what a [`Kind::Expires`] takes the place of.
pub(crate) fn blocker(key: &str) -> String {
    format!("{key}-blocks")
}
