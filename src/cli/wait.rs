//! `supercargo wait`: waits until tasks have ended.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::client::{Client, Error, Task, wait_until_terminal};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table};
use super::interrupts::Interrupts;
use super::out;
use super::report::{Report, ReportArgs, Verdict};
use super::watch::{parse_timeout, still_running};

/// Waiting, of commands that show a task.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until the task has ended
    #[arg(long)]
    wait: bool,

    /// Stop waiting after this long, with exit code 4; the task goes on
    #[arg(long, alias = "wait-timeout", value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<Duration>,
}

impl WaitArgs {
    pub(crate) fn wanted(&self) -> bool {
        self.wait || self.timeout.is_some()
    }

    pub(crate) async fn until_terminal(
        &self,
        client: &mut Client,
        id: &str,
    ) -> Result<Task, Error> {
        until_terminal(client, id, self.timeout.map(|it| Instant::now() + it)).await
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids of the tasks, or key:<their run keys>
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,

    /// Stop waiting after this long, with exit code 4; the tasks go on
    #[arg(long, alias = "wait-timeout", value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<Duration>,

    #[command(flatten)]
    report: ReportArgs,

    #[command(flatten)]
    format: FormatArgs,
}

/// The task at its end, or that it was not there before the deadline.
pub(crate) async fn until_terminal(
    client: &mut Client,
    id: &str,
    deadline: Option<Instant>,
) -> Result<Task, Error> {
    wait_until_terminal(client, id, deadline).await?.ok_or_else(|| still_running(id))
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let report = Report::new(&args.report);
    let mut interrupts = Interrupts::new()?;
    let deadline = args.timeout.map(|it| Instant::now() + it);
    let waiting = join_all(args.ids.iter().map(async |id| {
        let ended = until_terminal(&mut client.clone(), id, deadline).await;
        match &ended {
            Ok(task) => out::note(task.summary()),
            Err(error) => out::error(error),
        }
        ended
    }));
    let ended = tokio::select! {
        ended = waiting => ended,
        () = interrupts.next() => {
            let ids: Vec<_> = args.ids.iter().map(String::as_str).collect();
            let ids = shlex::try_join(ids).unwrap_or_default();
            out::hint(format_args!("nothing was cancelled: `supercargo wait {ids}` goes on waiting"));
            return Ok(Exit::Interrupted);
        }
    };
    let verdict = |(id, ended): (&String, &Result<Task, Error>)| match ended {
        Ok(task) => Verdict::of_task(task),
        Err(error) => Verdict::of_error(id, "", error),
    };
    let verdicts: Vec<_> = args.ids.iter().zip(&ended).map(verdict).collect();
    report.finish(&verdicts).await;
    print(&ended, args.format.output)?;
    Ok(exit(&ended))
}

fn print(ended: &[Result<Task, Error>], format: Format) -> std::io::Result<()> {
    let tasks = ended.iter().filter_map(|it| it.as_ref().ok());
    match format {
        Format::Json => {
            let items: Vec<&Value> = tasks.map(|it| &it.document).collect();
            format::json(&json!({"items": items}))
        }
        Format::Table => {
            let mut table = Table::new(&["ID", "NAME", "STATE", "EXIT"]);
            for task in tasks {
                let code = task.exit_code.map(|it| it.to_string()).unwrap_or_default();
                table.row([task.id.clone(), task.name.clone(), task.state.0.clone(), code]);
            }
            table.print()
        }
    }
}

/// What the caller has to know first: that something was not found out, and which task failed.
fn exit(ended: &[Result<Task, Error>]) -> Exit {
    let exits: Vec<Exit> = ended
        .iter()
        .map(|it| match it {
            Ok(task) => task.exit(),
            Err(error) => error.exit(),
        })
        .collect();
    let of_errors = [Exit::Service, Exit::Usage, Exit::TimedOut];
    let first = of_errors.into_iter().find(|it| exits.contains(it));
    first.or_else(|| exits.into_iter().find(|it| *it != Exit::Ok)).unwrap_or(Exit::Ok)
}
