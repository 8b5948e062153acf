//! `supercargo token`: tokens for callers of the service.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::client::Client;
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table};
use super::out;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a token and print it, this once
    Create(CreateArgs),
    /// List tokens, without their secrets
    List(ListArgs),
    /// Make a token worthless
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Who or what it is for
    name: String,

    /// Worthless after this long, for example 30d [default: never]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Id of the token, as `token list` shows it
    id: String,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::Create(args) => create(client, args).await,
        Command::List(args) => list(client, args).await,
        Command::Revoke(args) => revoke(client, args).await,
    }
}

async fn create(client: &Client, args: CreateArgs) -> anyhow::Result<Exit> {
    let CreateArgs { name, expires_in, format } = args;
    let mut body = json!({"name": name});
    if let Some(expires_in) = expires_in {
        body["expires_in"] = json!(expires_in);
    }
    let request = client
        .request(Method::POST, &["tokens"], &[])
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string());
    let made = client.json(request).await?;
    let text = |key: &str| made[key].as_str().unwrap_or_default();
    match format.output {
        Format::Json => format::json(&made)?,
        Format::Table => out::text(text("token"))?,
    }
    out::note(format_args!(
        "token {} is shown this once; `supercargo token revoke {}` makes it worthless",
        text("name"),
        text("id")
    ));
    Ok(Exit::Ok)
}

async fn list(client: &Client, args: ListArgs) -> anyhow::Result<Exit> {
    let tokens = client.json(client.request(Method::GET, &["tokens"], &[])).await?;
    match args.format.output {
        Format::Json => format::json(&tokens)?,
        Format::Table => table(&tokens).print()?,
    }
    Ok(Exit::Ok)
}

fn table(tokens: &Value) -> Table {
    let mut table = Table::new(&["ID", "NAME", "CREATED", "EXPIRES", "REVOKED"]);
    for item in tokens["items"].as_array().into_iter().flatten() {
        let cell = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let time = |key: &str| {
            let text = cell(key);
            text.parse::<jiff::Timestamp>().map_or(text, format::time)
        };
        table.row([
            cell("id"),
            cell("name"),
            time("created_at"),
            time("expires_at"),
            time("revoked_at"),
        ]);
    }
    table
}

async fn revoke(client: &Client, args: RevokeArgs) -> anyhow::Result<Exit> {
    let request = client.request(Method::DELETE, &["tokens", &args.id], &[]);
    client.accepted(request.timeout(super::client::REQUEST_TIMEOUT)).await?;
    out::note(format_args!("token {} is worthless now", args.id));
    Ok(Exit::Ok)
}
