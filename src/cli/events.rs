//! `supercargo events`: what happened to a task, in its order.

use reqwest::Method;
use serde_json::Value;

use super::client::Client;
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task
    id: String,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let events =
        client.json(client.request(Method::GET, &["tasks", &args.id, "events"], &[])).await?;
    match args.format.output {
        Format::Json => format::json(&events)?,
        Format::Table => table(&events).print()?,
    }
    Ok(Exit::Ok)
}

fn table(events: &Value) -> Table {
    let mut table = Table::new(&["AT", "ATTEMPT", "SOURCE", "REASON", "MESSAGE"]);
    for item in events["items"].as_array().into_iter().flatten() {
        let cell = |key: &str| match &item[key] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // Always to the millisecond, so that the column lines up.
        let at = cell("at");
        let at = at.parse::<jiff::Timestamp>().map_or(at, |it| format!("{it:.3}"));
        let rest = ["attempt", "source", "reason", "message"].map(cell);
        table.row([at].into_iter().chain(rest));
    }
    table
}
