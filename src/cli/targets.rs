//! `supercargo targets`: where the service runs tasks.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::client::{Client, Error, REQUEST_TIMEOUT};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table};
use super::out;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the targets, and how the workers find them
    List(ListArgs),
    /// Print what a target is, as it can be put; secrets are ***
    Get(GetArgs),
    /// Make a target, or replace what it is
    Put(PutArgs),
    /// Remove a target that no task is on
    Delete(NameArgs),
    /// Have a worker ask a target whether it answers, and what is missing
    Check(CheckArgs),
    /// Let tasks start on a target
    Enable(NameArgs),
    /// Start nothing new on a target; what runs there goes on
    Disable(NameArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without one: list
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NameArgs {
    /// Name of the target
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// Name of the target
    name: String,

    /// With its state, as the service sends it
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// Name of the target: a-z, 0-9 and "-"
    name: String,

    /// File with what it is, as JSON or YAML; "-" for stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Name of the target
    name: String,

    #[command(flatten)]
    format: FormatArgs,
}

/// A worker may take 20 s for its answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(40);

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    match args.command {
        None => list(client, ListArgs::default()).await,
        Some(Command::List(args)) => list(client, args).await,
        Some(Command::Get(args)) => get(client, args).await,
        Some(Command::Put(args)) => put(client, args).await,
        Some(Command::Delete(args)) => delete(client, args).await,
        Some(Command::Check(args)) => check(client, args).await,
        Some(Command::Enable(args)) => enable(client, &args.name, true).await,
        Some(Command::Disable(args)) => enable(client, &args.name, false).await,
    }
}

async fn list(client: &Client, args: ListArgs) -> anyhow::Result<Exit> {
    let targets = client.json(client.request(Method::GET, &["targets"], &[])).await?;
    match args.format.output {
        Format::Json => format::json(&targets)?,
        Format::Table => table(&targets).print()?,
    }
    Ok(Exit::Ok)
}

fn table(targets: &Value) -> Table {
    let headings = ["NAME", "KIND", "ORIGIN", "STATE", "VERSION", "RUNNING", "QUEUED", "LABELS"];
    let mut table = Table::new(&headings);
    for item in targets["items"].as_array().into_iter().flatten() {
        let (document, state) = (&item["document"], &item["state"]);
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let labels = document["labels"].as_object().into_iter().flatten();
        let labels: Vec<String> =
            labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
        table.row([
            text(&item["name"]),
            text(&document["kind"]),
            text(&item["origin"]),
            how(document, state),
            text(&state["version"]),
            text(&state["running"]),
            text(&state["queued"]),
            labels.join(","),
        ]);
    }
    table
}

fn how(document: &Value, state: &Value) -> String {
    let disabled = if document["enabled"] == false { "disabled, " } else { "" };
    if state["reachable"] == true {
        return format!("{disabled}ready");
    }
    format!("{disabled}away: {}", state["why"].as_str().unwrap_or_default())
}

async fn get(client: &Client, args: GetArgs) -> anyhow::Result<Exit> {
    let target = client.json(client.request(Method::GET, &["targets", &args.name], &[])).await?;
    format::json(if args.all { &target } else { &target["document"] })?;
    Ok(Exit::Ok)
}

async fn put(client: &Client, args: PutArgs) -> anyhow::Result<Exit> {
    let (text, media_type) = read(&args.file)?;
    let request = client
        .request(Method::PUT, &["targets", &args.name], &[])
        .header(CONTENT_TYPE, media_type)
        .body(text);
    client.json(request).await?;
    out::note(format_args!(
        "target {} is put; `supercargo targets check {}` tells whether tasks can run there",
        args.name, args.name
    ));
    Ok(Exit::Ok)
}

/// The text, and what it is: YAML says everything that JSON says.
fn read(path: &Path) -> Result<(String, &'static str), Error> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        ("stdin".into(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (path.to_string_lossy(), std::fs::read_to_string(path))
    };
    let text = text.map_err(|error| Error::Usage(format!("can't read {name}: {error}")))?;
    let is_json = text.trim_start().starts_with('{');
    Ok((text, if is_json { "application/json" } else { "application/yaml" }))
}

async fn delete(client: &Client, args: NameArgs) -> anyhow::Result<Exit> {
    let request = client.request(Method::DELETE, &["targets", &args.name], &[]);
    client.accepted(request.timeout(REQUEST_TIMEOUT)).await?;
    out::note(format_args!("target {} is gone", args.name));
    Ok(Exit::Ok)
}

async fn enable(client: &Client, name: &str, enabled: bool) -> anyhow::Result<Exit> {
    let target = client.json(client.request(Method::GET, &["targets", name], &[])).await?;
    let mut document = target["document"].clone();
    document["enabled"] = json!(enabled);
    let request = client
        .request(Method::PUT, &["targets", name], &[])
        .header(CONTENT_TYPE, "application/json")
        .body(document.to_string());
    client.json(request).await?;
    let how = if enabled { "enabled" } else { "disabled: what runs there goes on" };
    out::note(format_args!("target {name} is {how}"));
    Ok(Exit::Ok)
}

/// Exits with 1 where tasks can't run there as they should.
async fn check(client: &Client, args: CheckArgs) -> anyhow::Result<Exit> {
    let request = client.request(Method::POST, &["targets", &args.name, "check"], &[]);
    let response = client.accepted(request.timeout(CHECK_TIMEOUT)).await?;
    let body = client.body(response).await?;
    let answer: Value = serde_json::from_slice(&body).map_err(|it| client.unexpected(&it))?;
    match args.format.output {
        Format::Json => format::json(&answer)?,
        Format::Table => out::text(words(&args.name, &answer))?,
    }
    let missing = answer["permissions"]["missing"].as_array().is_some_and(|it| !it.is_empty());
    Ok(if answer["reachable"] == true && !missing { Exit::Ok } else { Exit::Failed })
}

fn words(name: &str, answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let mut lines = vec![if answer["reachable"] == true {
        format!("target {name} answers: version {}, engine {}", text("version"), text("engine"))
    } else {
        format!("target {name} can't be asked: {}", text("why"))
    }];
    for it in answer["permissions"]["missing"].as_array().into_iter().flatten() {
        let text = |key: &str| it[key].as_str().unwrap_or_default();
        let place = match text("namespace") {
            "" => "in the whole cluster".to_owned(),
            namespace => format!("in namespace {namespace}"),
        };
        let (verb, resource, why) = (text("verb"), text("resource"), text("needed_for"));
        lines.push(format!("missing: {verb} {resource} {place}, needed for {why}"));
    }
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    lines.extend(warnings.map(|it| format!("warning: {}", it.as_str().unwrap_or_default())));
    lines.push(format!("asked by {} at {}", text("checked_by"), text("checked_at")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_told_in_words() {
        let answer = json!({
            "reachable": true, "version": "1.30", "engine": "e", "warnings": ["TLS is not checked"],
            "permissions": {"missing": [
                {"verb": "create", "resource": "pods", "namespace": "etl", "needed_for": "running tasks"},
                {"verb": "list", "resource": "nodes", "namespace": "", "needed_for": "lost nodes"}]},
            "checked_at": "2026-11-21T00:00:00Z", "checked_by": "w1"});
        assert_eq!(
            words("prod", &answer),
            "target prod answers: version 1.30, engine e\n\
             missing: create pods in namespace etl, needed for running tasks\n\
             missing: list nodes in the whole cluster, needed for lost nodes\n\
             warning: TLS is not checked\n\
             asked by w1 at 2026-11-21T00:00:00Z"
        );
    }

    #[test]
    fn a_target_is_a_line() {
        let targets = json!({"items": [
            {"name": "a", "origin": "api", "document": {"kind": "docker", "enabled": false, "labels": {"z": "1"}},
             "state": {"reachable": false, "why": "refused", "running": 2, "queued": 0}}]});
        let text = table(&targets).to_string();
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "a     docker  api     disabled, away: refused           2        0       z=1"
        );
    }
}
