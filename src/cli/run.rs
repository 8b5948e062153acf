//! `supercargo run`: submits a task, follows its log and exits with its exit code.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cancel::cancel;
use super::client::{Client, Error, Follower, Task};
use super::exit::Exit;
use super::format::{self, Format};
use super::out;
use super::submit::{parse_timeout, still_running, submit};
use super::task_args::TaskArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,

    /// Follow this task, instead of submitting one
    #[arg(long, value_name = "ID", conflicts_with = "TaskArgs")]
    attach: Option<String>,

    /// Stop following after this long, with exit code 4; the task goes on
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    wait_timeout: Option<Duration>,

    /// Cancel the task on Ctrl-C or SIGTERM, instead of leaving it to run
    #[arg(long)]
    cancel_on_interrupt: bool,

    /// Say nothing besides the log
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let note = |text: String| {
        if !args.quiet {
            out::note(text);
        }
    };
    let mut interrupts = Interrupts::new()?;
    let task = match &args.attach {
        Some(id) => client.task(id).await?,
        None => submit(client, &args.task).await?,
    };
    note(format!("task {} {}", task.id, task.state.0));
    // From this attempt on: the latest may be another one by the time that the log is asked for.
    let mut follower = Follower::new(&task.id, task.latest_attempt());
    let task = follow(client, &mut follower, &mut interrupts, &args, &task.id).await?;
    let Some(task) = task else { return Ok(Exit::Interrupted) };
    note(task.summary());
    if args.task.format() == Format::Json {
        format::json(&task.document)?;
    }
    Ok(task.exit())
}

/// None: interrupted, and the task goes on.
async fn follow(
    client: &mut Client,
    follower: &mut Follower,
    interrupts: &mut Interrupts,
    args: &Args,
    id: &str,
) -> Result<Option<Task>, Error> {
    let timeout = async {
        match args.wait_timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    // With JSON asked for, stdout is for the task alone.
    let mut sink = match args.task.format() {
        Format::Table => out::data,
        Format::Json => out::aside,
    };
    let mut cancelled = false;
    loop {
        tokio::select! {
            task = follower.follow(client, &mut sink) => return task.map(Some),
            () = &mut timeout => return Err(still_running(id)),
            () = interrupts.next() => {}
        }
        if !args.cancel_on_interrupt || cancelled {
            let after = if cancelled { "ends without being watched" } else { "goes on" };
            out::note(format_args!(
                "task {id} {after}: `supercargo run --attach {id}` comes back to it"
            ));
            return Ok(None);
        }
        cancelled = true;
        out::note(format_args!("cancelling task {id}"));
        cancel(client, id).await?;
    }
}

/// Ctrl-C, and what a CI system sends before it kills.
#[derive(Debug)]
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
