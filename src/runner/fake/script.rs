//! What a simulated task does, read from its environment. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::json;

use crate::domain::exit::ExitStatus;
use crate::domain::failure::Reason;
use crate::domain::quantity::format_duration;
use crate::ids::AttemptNo;
use crate::runner::{LaunchRequest, LogFrame, LogStream};

const SIGKILL_CODE: i32 = 137;
const SIGTERM_CODE: i32 = 143;
const LINE_BYTES: u64 = 128;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum LaunchScript {
    #[default]
    Plain,
    Slow,
    /// The first time.
    Unavailable,
    /// The first time.
    Indeterminate,
    Refused(Reason),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) launch: LaunchScript,
    /// How it ends if nothing else ends it.
    pub(super) status: ExitStatus,
    pub(super) run_for: Duration,
    pub(super) vanish: bool,
    /// None: the graceful signal does nothing.
    pub(super) on_term: Option<i32>,
    pub(super) log: Log,
    /// Of the containers beside the main one.
    pub(super) side_logs: BTreeMap<String, SideLog>,
    pub(super) output: Option<Vec<u8>>,
    pub(super) files: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Log {
    lines: u64,
    /// In all, if the lines are padded.
    bytes: Option<u64>,
    stderr_every: u64,
}

/// What a container beside the main one leaves to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideLog {
    /// It has ended when the main one has.
    Ends(Log),
    /// It runs on.
    GoesOn(Log),
    /// It has not been started, and never is.
    Unstarted,
    /// Nobody can read it.
    Unreadable,
}

impl SideLog {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = |text: &str| {
            let lines = text.parse().map_err(|_| format!("{text:?} is no number of lines"))?;
            Ok::<Log, String>(Log { lines, bytes: None, stderr_every: 0 })
        };
        Ok(match (text, text.strip_suffix('+')) {
            ("-", _) => Self::Unstarted,
            ("!", _) => Self::Unreadable,
            (_, Some(text)) => Self::GoesOn(lines(text)?),
            (text, None) => Self::Ends(lines(text)?),
        })
    }
}

impl Script {
    pub(super) fn read(env: &BTreeMap<String, String>, attempt: AttemptNo) -> Result<Self, String> {
        let env = Env(env);
        let flag = |name| Ok::<bool, String>(env.get(name) == Some("1"));
        let code = env.exit_code(attempt)?;
        let status = if let Some(code) = env.parse("FAKE_START_FAILS")? {
            ExitStatus::StartFailed {
                code,
                message: "could not be started, as FAKE_START_FAILS says".to_owned(),
            }
        } else if flag("FAKE_OOM")? {
            ExitStatus::Code { code: SIGKILL_CODE, oom_killed: true }
        } else {
            ExitStatus::Code { code, oom_killed: false }
        };
        let bytes: Option<u64> = env.parse("FAKE_LOG_BYTES")?;
        let lines = match bytes {
            Some(bytes) => bytes.div_ceil(LINE_BYTES),
            None => env.parse("FAKE_LOG_LINES")?.unwrap_or_default(),
        };
        let on_term = env.parse("FAKE_ON_TERM")?.unwrap_or(SIGTERM_CODE);
        Ok(Self {
            launch: env.launch()?,
            status,
            run_for: env.parse("FAKE_RUN_FOR")?.map(duration).transpose()?.unwrap_or_default(),
            vanish: flag("FAKE_VANISH")?,
            on_term: (!flag("FAKE_IGNORE_TERM")?).then_some(on_term),
            log: Log {
                lines,
                bytes,
                stderr_every: env.parse("FAKE_STDERR_EVERY")?.unwrap_or_default(),
            },
            side_logs: env.side_logs()?,
            output: env.get("FAKE_OUTPUT").map(|it| it.as_bytes().to_vec()),
            files: env.files()?,
        })
    }

    /// After SIGKILL.
    pub(super) const fn killed() -> ExitStatus {
        ExitStatus::Code { code: SIGKILL_CODE, oom_killed: false }
    }
}

/// What a task would do, for people. Pure.
pub fn render(request: &LaunchRequest<'_>) -> serde_json::Value {
    let script = match Script::read(&request.spec.env, request.attempt_no) {
        Ok(script) => script,
        Err(why) => return json!({"refused": why}),
    };
    let run_for = SignedDuration::try_from(script.run_for).map(format_duration).unwrap_or_default();
    let mut said = match &script.status {
        ExitStatus::Code { code, oom_killed } => {
            json!({"exit_code": code, "oom_killed": oom_killed, "run_for": run_for})
        }
        ExitStatus::StartFailed { message, .. } => json!({"start_fails": message}),
        ExitStatus::EngineStopped { code } => json!({"exit_code": code, "run_for": run_for}),
        ExitStatus::Disrupted { reason, .. } => {
            json!({"disrupted": reason.as_str(), "run_for": run_for})
        }
    };
    match &script.launch {
        LaunchScript::Plain | LaunchScript::Slow => {}
        LaunchScript::Unavailable => said["first_launch"] = json!("unavailable"),
        LaunchScript::Indeterminate => said["first_launch"] = json!("indeterminate"),
        LaunchScript::Refused(reason) => said["refused"] = json!(reason.as_str()),
    }
    said["log_lines"] = json!(script.log.lines);
    said["on_stop_signal"] = script.on_term.map_or(json!("nothing"), |it| json!({"exit_code": it}));
    if !script.side_logs.is_empty() {
        said["side_logs"] = json!(script.side_logs.keys().collect::<Vec<_>>());
    }
    if let Some(output) = &script.output {
        said["output"] = json!(String::from_utf8_lossy(output));
    }
    if script.vanish {
        said["vanishes"] = json!(true);
    }
    said
}

fn duration(it: SignedDuration) -> Result<Duration, String> {
    Duration::try_from(it).map_err(|_| "FAKE_RUN_FOR is negative".to_owned())
}

struct Env<'a>(&'a BTreeMap<String, String>);

impl Env<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        self.get(name)
            .map(|text| text.trim().parse().map_err(|error| format!("{name}={text:?}: {error}")))
            .transpose()
    }

    fn exit_code(&self, attempt: AttemptNo) -> Result<i32, String> {
        let Some(text) = self.get("FAKE_EXIT") else { return Ok(0) };
        let codes: Result<Vec<i32>, _> = text.split(',').map(|it| it.trim().parse()).collect();
        let codes = codes.map_err(|error| format!("FAKE_EXIT={text:?}: {error}"))?;
        let index = usize::try_from(attempt.0 - 1).unwrap_or_default();
        Ok(codes.get(index).or(codes.last()).copied().unwrap_or_default())
    }

    fn launch(&self) -> Result<LaunchScript, String> {
        let Some(text) = self.get("FAKE_LAUNCH") else { return Ok(LaunchScript::Plain) };
        let (word, reason) =
            text.split_once(':').unwrap_or((text, Reason::CreateConfigError.as_str()));
        Ok(match word {
            "slow" => LaunchScript::Slow,
            "unavailable" => LaunchScript::Unavailable,
            "indeterminate" => LaunchScript::Indeterminate,
            "refused" => LaunchScript::Refused(
                Reason::parse(reason)
                    .ok_or_else(|| format!("FAKE_LAUNCH={text:?} names no reason"))?,
            ),
            _ => {
                return Err(format!(
                    "FAKE_LAUNCH={text:?} is not slow, unavailable, indeterminate or refused"
                ));
            }
        })
    }

    fn side_logs(&self) -> Result<BTreeMap<String, SideLog>, String> {
        let Some(text) = self.get("FAKE_SIDE_LOGS") else { return Ok(BTreeMap::new()) };
        let each = text.split(',').map(|it| {
            let (name, log) = it.trim().split_once(':').ok_or("a name and no \":\"".to_owned())?;
            Ok((name.to_owned(), SideLog::parse(log)?))
        });
        let all: Result<_, String> = each.collect();
        all.map_err(|why| format!("FAKE_SIDE_LOGS={text:?}: {why}"))
    }

    fn files(&self) -> Result<BTreeMap<String, String>, String> {
        let Some(text) = self.get("FAKE_FILES") else { return Ok(BTreeMap::new()) };
        serde_json::from_str(text).map_err(|error| format!("FAKE_FILES: {error}"))
    }
}

impl Log {
    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// When the line is written, in nanoseconds since the start. Different for each line.
    pub(super) fn offset(&self, index: u64, run_for: Duration) -> i64 {
        let spread = run_for.as_nanos() * u128::from(index) / u128::from(self.lines.max(1));
        i64::try_from(spread.max(u128::from(index))).unwrap_or(i64::MAX)
    }

    pub(super) fn frame(&self, index: u64, at: i64) -> LogFrame {
        let stream = if self.stderr_every > 0 && (index + 1).is_multiple_of(self.stderr_every) {
            LogStream::Stderr
        } else {
            LogStream::Stdout
        };
        let mut line = format!("line {}", index + 1);
        if let Some(bytes) = self.bytes {
            let length = (bytes - index * LINE_BYTES).min(LINE_BYTES);
            let length = usize::try_from(length).unwrap_or_default();
            line.truncate(length.saturating_sub(1));
            line.extend(std::iter::repeat_n('.', length.saturating_sub(line.len() + 1)));
        }
        line.push('\n');
        LogFrame { at, stream, bytes: Bytes::from(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)], attempt: i32) -> Result<Script, String> {
        let env = env.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        Script::read(&env, AttemptNo(attempt))
    }

    #[test]
    fn nothing_said_is_an_immediate_success() {
        let script = read(&[], 1).unwrap();
        assert_eq!(script.status.code(), Some(0));
        assert_eq!((script.run_for, script.log.lines()), (Duration::ZERO, 0));
    }

    #[test]
    fn each_attempt_has_its_exit_code() {
        for (attempt, code) in [(1, 75), (2, 3), (3, 0), (9, 0)] {
            assert_eq!(
                read(&[("FAKE_EXIT", "75,3,0")], attempt).unwrap().status.code(),
                Some(code)
            );
        }
    }

    #[test]
    fn a_script_that_can_t_be_read_names_its_variable() {
        for (name, value) in [
            ("FAKE_EXIT", "x"),
            ("FAKE_RUN_FOR", "soon"),
            ("FAKE_RUN_FOR", "-1s"),
            ("FAKE_LAUNCH", "never"),
            ("FAKE_LAUNCH", "refused:boredom"),
            ("FAKE_FILES", "[]"),
            ("FAKE_SIDE_LOGS", "proxy"),
            ("FAKE_SIDE_LOGS", "proxy:many"),
        ] {
            let why = read(&[(name, value)], 1).unwrap_err();
            assert!(why.contains(name), "{why}");
        }
    }

    #[test]
    fn containers_beside_the_main_one_have_logs_of_their_own() {
        let read = read(&[("FAKE_SIDE_LOGS", "init:3, proxy:5+,next:-,broken:!")], 1).unwrap();
        let log = |lines| Log { lines, bytes: None, stderr_every: 0 };
        let expected = [
            ("broken", SideLog::Unreadable),
            ("init", SideLog::Ends(log(3))),
            ("next", SideLog::Unstarted),
            ("proxy", SideLog::GoesOn(log(5))),
        ];
        assert_eq!(read.side_logs, expected.map(|(name, it)| (name.to_owned(), it)).into());
    }

    #[test]
    fn a_log_has_the_bytes_that_were_asked_for() {
        for bytes in [1, 127, 128, 129, 1_000] {
            let log = read(&[("FAKE_LOG_BYTES", &bytes.to_string())], 1).unwrap().log;
            let all: usize = (0..log.lines()).map(|index| log.frame(index, 0).bytes.len()).sum();
            assert_eq!(all, bytes);
        }
    }

    #[test]
    fn lines_are_spread_over_the_run_and_never_share_a_time() {
        let log = read(&[("FAKE_LOG_LINES", "4")], 1).unwrap().log;
        let at = |run_for| -> Vec<i64> { (0..4).map(|index| log.offset(index, run_for)).collect() };
        assert_eq!(at(Duration::ZERO), [0, 1, 2, 3]);
        assert_eq!(at(Duration::from_micros(4)), [0, 1_000, 2_000, 3_000]);
    }
}
