//! `supercargo cancel`: cancels a task.

use reqwest::Method;

use super::client::{Client, Error, Task};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs};
use super::out;
use super::wait::WaitArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task
    id: String,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let mut task = cancel(client, &args.id).await?;
    if args.wait.wanted() {
        task = args.wait.until_terminal(client, &task.id).await?;
        out::note(task.summary());
    } else {
        out::note(format_args!("cancelling task {} ({})", task.id, task.state.0));
    }
    match args.format.output {
        Format::Json => format::json(&task.document)?,
        Format::Table => out::text(&task.id)?,
    }
    // Cancelled is what was asked for; that it ended otherwise before is no failure of this command.
    Ok(Exit::Ok)
}

/// Asks for the end of a task. Whatever its state is, asking twice does no harm.
pub(crate) async fn cancel(client: &Client, id: &str) -> Result<Task, Error> {
    let task = client.json(client.request(Method::POST, &["tasks", id, "cancel"], &[])).await?;
    client.read_task(task)
}
