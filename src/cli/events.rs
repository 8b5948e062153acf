//! `supercargo events`: what happened to a task, in its order.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::client::{Backoff, Client, Error, PATIENCE};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table, printable};
use super::out;

/// Between looks at a task that goes on.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const HEADINGS: [&str; 5] = ["AT", "ATTEMPT", "SOURCE", "REASON", "MESSAGE"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task, or key:<its run key>
    id: String,

    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let format = args.format.output;
    if args.follow {
        follow(client, &args.id, format).await?;
        return Ok(Exit::Ok);
    }
    let events = load(client, &args.id).await?;
    match format {
        Format::Json => format::json(&events)?,
        Format::Table => table(&events).print()?,
    }
    Ok(Exit::Ok)
}

async fn load(client: &Client, id: &str) -> Result<Value, Error> {
    client.json(client.request(Method::GET, &["tasks", id, "events"], &[])).await
}

/// Prints each event once, as it comes, over restarts of the service: a line each, also as JSON.
async fn follow(client: &mut Client, id: &str, format: Format) -> Result<(), Error> {
    let mut told = HashSet::new();
    let mut backoff = Backoff::new(PATIENCE);
    if format == Format::Table {
        out::text(line(&HEADINGS.map(str::to_owned)))?;
    }
    loop {
        // The state first: what happened up to an end is all there.
        let step = async { Ok::<_, Error>((client.task(id).await?, load(client, id).await?)) };
        let (task, events) = match step.await {
            Ok(it) => it,
            Err(error) => {
                backoff.after(error).await?;
                client.find_again();
                continue;
            }
        };
        backoff.reset();
        for item in items(&events).filter(|it| told.insert(it.to_string())) {
            match format {
                Format::Json => out::text(item)?,
                Format::Table => out::text(line(&cells(item)))?,
            }
        }
        if task.state.is_terminal() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn items(events: &Value) -> impl Iterator<Item = &Value> {
    events["items"].as_array().into_iter().flatten()
}

fn cells(item: &Value) -> [String; 5] {
    let cell = |key: &str| match &item[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // Always to the millisecond, so that the column lines up.
    let at = cell("at");
    let at = at.parse::<jiff::Timestamp>().map_or(at, |it| format!("{it:.3}"));
    [at, cell("attempt"), cell("source"), cell("reason"), cell("message")]
}

/// In columns whose widths are known before what is in them.
fn line([at, attempt, source, reason, message]: &[String; 5]) -> String {
    printable(&format!("{at:<24}  {attempt:<7}  {source:<9}  {reason:<16}  {message}"))
}

fn table(events: &Value) -> Table {
    let mut table = Table::new(&HEADINGS);
    for item in items(events) {
        table.row(cells(item));
    }
    table
}
