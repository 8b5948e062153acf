//! `supercargo run`: submits a task, follows its log and exits with its exit code.

use super::client::Client;
use super::exit::Exit;
use super::format::{self, Format};
use super::out;
use super::submit::submit;
use super::task_args::{Submission, TaskArgs};
use super::watch::{LogTo, Watch, WatchArgs};

/// All but how to print.
const TASK_OPTIONS: [&str; 15] = [
    "task",
    "image",
    "name",
    "env",
    "file",
    "run_timeout",
    "retries",
    "target",
    "label",
    "memory",
    "cpu",
    "run_key",
    "on_duplicate",
    "idempotency_key",
    "words",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,

    /// Follow this task, instead of submitting one
    #[arg(long, value_name = "ID", conflicts_with_all = TASK_OPTIONS)]
    attach: Option<String>,

    /// Print the id and leave it to run, as `submit` does
    #[arg(short, long, conflicts_with_all = ["attach", "timeout", "cancel_on_interrupt", "junit"])]
    detach: bool,

    #[command(flatten)]
    watch: WatchArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let format = args.task.format();
    let submission = match &args.attach {
        Some(_) => None,
        None => Some(args.task.submission()?),
    };
    if args.detach
        && let Some(submission) = &submission
    {
        let task = submit(client, submission).await?;
        match format {
            Format::Json => format::json(&task.document)?,
            Format::Table => out::text(&task.id)?,
        }
        return Ok(Exit::Ok);
    }
    let id = args.attach.unwrap_or_default();
    let watch = Watch {
        args: &args.watch,
        log: LogTo::with(format),
        format,
        name: submission.as_ref().map_or(id.clone(), Submission::name),
        in_doubt: submission.as_ref().map_or(String::new(), Submission::in_doubt),
    };
    let begin = async |client: &mut Client| match &submission {
        Some(submission) => submit(client, submission).await,
        None => client.task(&id).await,
    };
    watch.run(client, begin).await
}
