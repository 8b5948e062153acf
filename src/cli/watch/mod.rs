//! Watches one task to its end: its log, its progress, what interrupts the watching, and the reports.
//!
//! Shared by `run`, `submit` and `retry`, which differ in how they come to their task.

mod progress;

use std::time::Duration;

use super::cancel::cancel;
use super::client::{Chunk, Client, Error, Follower, Stream, Task};
use super::exit::Exit;
use super::format::{self, Format};
use super::interrupts::Interrupts;
use super::out::{self, Style};
use super::report::{Report, ReportArgs, Tail, Verdict};
use super::wait::until_terminal;
use progress::Progress;

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WatchArgs {
    /// Stop waiting after this long, with exit code 4; the task goes on
    #[arg(long, alias = "wait-timeout", value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,

    /// Cancel the task on Ctrl-C or SIGTERM, instead of leaving it to run
    #[arg(long)]
    pub(crate) cancel_on_interrupt: bool,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

impl WatchArgs {
    /// Whether something is asked for that only waiting brings.
    pub(crate) fn wanted(&self) -> bool {
        self.timeout.is_some() || self.cancel_on_interrupt || self.report.junit.is_some()
    }
}

pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    crate::domain::quantity::parse_duration(text).map(jiff::SignedDuration::unsigned_abs)
}

/// What becomes of the log of a task that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogTo {
    /// Its stdout to ours, its stderr to ours.
    Streams,
    /// All of it to stderr, as stdout is for something else.
    Aside,
    Nowhere,
}

impl LogTo {
    /// Of a command that follows: with JSON asked for, stdout is for the task's document alone.
    pub(crate) const fn with(format: Format) -> Self {
        match format {
            Format::Table => Self::Streams,
            Format::Json => Self::Aside,
        }
    }

    pub(crate) fn print(self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        match (self, stream) {
            (Self::Streams, Stream::Stdout) => out::data(bytes),
            (Self::Streams, Stream::Stderr) | (Self::Aside, _) => out::aside(bytes),
            (Self::Nowhere, _) => Ok(()),
        }
    }
}

/// One watching.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) args: &'a WatchArgs,
    pub(crate) log: LogTo,
    pub(crate) format: Format,
    /// Of the task, as far as it is known before it is there.
    pub(crate) name: String,
    /// What to say where it is interrupted before the service has answered.
    pub(crate) in_doubt: String,
}

/// How the watching ended.
enum End {
    Over(Box<Task>),
    /// The task goes on.
    Interrupted,
}

impl Watch<'_> {
    /// Comes to a task, watches it, reports, and says what to exit with.
    pub(crate) async fn run(
        self,
        client: &mut Client,
        begin: impl AsyncFnOnce(&mut Client) -> Result<Task, Error>,
    ) -> anyhow::Result<Exit> {
        let mut report = Report::new(&self.args.report);
        let mut interrupts = Interrupts::new()?;
        let mut seen = Seen { id: String::new(), name: self.name.clone(), tail: Tail::default() };
        let watching = self.watch(client, begin, &mut interrupts, &mut report, &mut seen).await;
        report.unfold().await;
        let (verdict, result) = match watching {
            Ok(End::Over(task)) => {
                out::note(task.summary());
                let mut verdict = Verdict::of_task(&task);
                if self.log != LogTo::Nowhere {
                    verdict.log = seen.tail.text();
                }
                (verdict, Ok((task.exit(), Some(task))))
            }
            Ok(End::Interrupted) => {
                let message = "interrupted while it was waited for; it goes on".to_owned();
                let verdict =
                    Verdict { message, reason: "interrupted".to_owned(), ..seen.verdict() };
                (verdict, Ok((Exit::Interrupted, None)))
            }
            Err(error) => {
                let log = seen.tail.text();
                (Verdict { log, ..Verdict::of_error(&seen.id, &seen.name, &error) }, Err(error))
            }
        };
        report.finish(&[verdict]).await;
        let (exit, task) = result?;
        if let Some(task) = task {
            match (self.format, self.log) {
                (Format::Json, _) => format::json(&task.document)?,
                // Stdout has the log.
                (Format::Table, LogTo::Streams | LogTo::Aside) => {}
                (Format::Table, LogTo::Nowhere) => out::text(&task.id)?,
            }
        }
        Ok(exit)
    }

    async fn watch(
        &self,
        client: &mut Client,
        begin: impl AsyncFnOnce(&mut Client) -> Result<Task, Error>,
        interrupts: &mut Interrupts,
        report: &mut Report,
        seen: &mut Seen,
    ) -> Result<End, Error> {
        let Some((task, mut cancelling)) = self.begin(client, begin, interrupts).await? else {
            return Ok(End::Interrupted);
        };
        seen.id.clone_from(&task.id);
        if !task.name.is_empty() {
            seen.name.clone_from(&task.name);
        }
        out::note(format_args!("task {} {}", task.id, task.state.painted()));
        if cancelling {
            cancel(client, &task.id).await?;
        }
        if self.log != LogTo::Nowhere {
            report.fold(&format!("log of {} ({})", seen.name, task.id)).await;
        }
        let timeout = async {
            match self.args.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(timeout);
        // From this attempt on: the latest may be another one by the time that the log is asked for.
        let mut follower = Follower::new(&task.id, Some(task.latest_attempt()));
        let mut progress = Progress::new(&task);
        let mut sink = |it: Chunk<'_>| {
            seen.tail.add(it.bytes);
            self.log.print(it.stream, it.bytes)
        };
        loop {
            let looker = client.clone();
            let ended = async {
                match self.log {
                    LogTo::Streams | LogTo::Aside => follower.follow(client, &mut sink).await,
                    LogTo::Nowhere => until_terminal(client, &task.id, None).await,
                }
            };
            tokio::select! {
                ended = ended => return ended.map(|it| End::Over(Box::new(it))),
                never = progress.tell(looker) => match never {},
                () = &mut timeout => return Err(still_running(&task.id)),
                () = interrupts.next() => {}
            }
            if !self.args.cancel_on_interrupt || cancelling {
                let after = if cancelling { "ends without being watched" } else { "goes on" };
                out::hint(format_args!("task {} {after}: {}", task.id, come_back(&task.id)));
                return Ok(End::Interrupted);
            }
            cancelling = true;
            out::hint(format_args!("cancelling task {}", task.id));
            cancel(client, &task.id).await?;
        }
    }

    /// The task, and whether it is to be cancelled. None: interrupted.
    async fn begin(
        &self,
        client: &mut Client,
        begin: impl AsyncFnOnce(&mut Client) -> Result<Task, Error>,
        interrupts: &mut Interrupts,
    ) -> Result<Option<(Task, bool)>, Error> {
        let begun = begin(client);
        tokio::pin!(begun);
        let mut cancelling = false;
        loop {
            tokio::select! {
                task = &mut begun => return Ok(Some((task?, cancelling))),
                () = interrupts.next() => {}
            }
            if !self.args.cancel_on_interrupt || cancelling {
                out::hint(&self.in_doubt);
                return Ok(None);
            }
            // There is nothing to cancel before it is known what.
            cancelling = true;
            out::hint("cancelling the task as soon as its id is known");
        }
    }
}

/// What the watching knows of its task, also where it ends early.
#[derive(Debug)]
struct Seen {
    id: String,
    name: String,
    tail: Tail,
}

impl Seen {
    fn verdict(&self) -> Verdict {
        let (id, name) = (self.id.clone(), self.name.clone());
        Verdict { id, name, log: self.tail.text(), ..Verdict::default() }
    }
}

pub(crate) fn still_running(id: &str) -> Error {
    Error::TimedOut(format!("task {id} has not ended yet and goes on: {}", come_back(id)))
}

fn come_back(id: &str) -> String {
    let id = shlex::try_quote(id).unwrap_or(id.into());
    format!("`supercargo run --attach {id}` comes back to it")
}

impl super::client::State {
    /// As it stands in a line for people.
    pub(crate) fn painted(&self) -> String {
        let style = match self.0.as_str() {
            "succeeded" => Style::Good,
            "failed" => Style::Bad,
            "cancelled" | "skipped" => Style::Odd,
            _ => return self.0.clone(),
        };
        out::paint(style, &self.0)
    }
}
