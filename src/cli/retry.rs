//! `supercargo retry`: tries a task again that did not succeed.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use super::client::{Backoff, Client, Error, Task};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs};
use super::out;
use super::submit::WaitArgs;
use super::watch::Watch;

const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task, or key:<its run key>
    id: String,

    /// Only if this is still the latest attempt [default: the one that is the latest now]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    from_attempt: Option<i64>,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let Args { id, from_attempt, wait, format } = args;
    let format = format.output;
    if !wait.wanted() {
        let task = retry(client, &id, from_attempt).await?;
        match format {
            Format::Json => format::json(&task.document)?,
            Format::Table => out::text(&task.id)?,
        }
        return Ok(Exit::Ok);
    }
    let watch = Watch {
        args: &wait.watch,
        log: wait.log(format),
        format,
        name: id.clone(),
        in_doubt: format!("task {id} may or may not be tried again: `supercargo get {id}` tells"),
    };
    watch.run(client, async |client| retry(client, &id, from_attempt).await).await
}

/// Names the attempt that it goes on from, so that a request whose answer was lost can be sent again.
async fn retry(client: &mut Client, id: &str, from: Option<i64>) -> Result<Task, Error> {
    let before = client.task(id).await?;
    let from = from.unwrap_or_else(|| before.latest_attempt());
    let mut backoff = Backoff::new(PATIENCE);
    let task = loop {
        let request = client
            .request(Method::POST, &["tasks", id, "retry"], &[])
            .header(CONTENT_TYPE, "application/json")
            .body(json!({"from_attempt": from}).to_string());
        match client.json(request).await {
            Ok(task) => break client.read_task(task)?,
            Err(error) => backoff.after(error).await?,
        }
        client.find_again();
    };
    if task.latest_attempt() > from {
        out::note(format_args!("task {} gets attempt {}", task.id, task.latest_attempt()));
    } else {
        out::note(format_args!(
            "task {} is {}: there is nothing to try again",
            task.id,
            task.state.painted()
        ));
    }
    Ok(task)
}
