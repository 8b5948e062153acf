//! `supercargo list`: lists tasks.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, Error, Task};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table, time};
use super::out;

/// The size of a page when all are asked for.
const ALL_LIMIT: u32 = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only tasks in this state; several with commas
    #[arg(long)]
    state: Option<String>,

    /// Only tasks with this label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Only tasks of this name
    #[arg(long)]
    name: Option<String>,

    /// Only tasks on this target
    #[arg(long)]
    target: Option<String>,

    /// How many to list
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,

    /// Go on where an earlier list ended
    #[arg(long, conflicts_with = "all")]
    cursor: Option<String>,

    /// List all there are, whatever their number
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    #[command(flatten)]
    format: FormatArgs,
}

/// One page of a list.
#[derive(Debug, serde::Deserialize)]
struct Page {
    items: Vec<Value>,
    #[serde(default)]
    next_cursor: Option<String>,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let mut items = Vec::new();
    let mut cursor = args.cursor.clone();
    loop {
        let page = page(client, &args, cursor.as_deref()).await?;
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() || !args.all {
            break;
        }
    }
    match args.format.output {
        Format::Json => {
            let mut list = json!({"items": items});
            if let Some(cursor) = &cursor {
                list["next_cursor"] = json!(cursor);
            }
            format::json(&list)?;
        }
        Format::Table => {
            table(client, items)?.print()?;
            if let Some(cursor) = cursor {
                out::note(format_args!(
                    "there are more: --cursor {cursor} goes on, --all lists all"
                ));
            }
        }
    }
    Ok(Exit::Ok)
}

async fn page(client: &Client, args: &Args, cursor: Option<&str>) -> Result<Page, Error> {
    let limit = if args.all { Some(ALL_LIMIT) } else { args.limit }.map(|it| it.to_string());
    let single = [
        ("state", args.state.as_deref()),
        ("name", args.name.as_deref()),
        ("target", args.target.as_deref()),
        ("limit", limit.as_deref()),
        ("cursor", cursor),
    ];
    let query: Vec<(&str, &str)> = single
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .chain(args.label.iter().map(|it| ("label", it.as_str())))
        .collect();
    let page = client.json(client.request(Method::GET, &["tasks"], &query)).await?;
    serde_json::from_value(page).map_err(|error| client.unexpected(&error))
}

fn table(client: &Client, items: Vec<Value>) -> Result<Table, Error> {
    let mut table = Table::new(&["ID", "NAME", "STATE", "EXIT", "TARGET", "QUEUED"]);
    for item in items {
        let task: Task = client.read_task(item)?;
        table.row([
            task.id,
            task.name,
            task.state.0,
            task.exit_code.map(|it| it.to_string()).unwrap_or_default(),
            task.target,
            task.timings.queued.map(time).unwrap_or_default(),
        ]);
    }
    Ok(table)
}
