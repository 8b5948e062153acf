//! `supercargo outputs` and `supercargo output`: what a task handed back.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use reqwest::{Method, Response};
use serde_json::Value;

use super::client::Client;
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, Table};
use super::out;

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Id of the task
    id: String,

    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// Id of the task
    id: String,

    /// Name of the output
    name: String,

    /// File to write; "-" is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

pub(crate) async fn list(client: &mut Client, args: ListArgs) -> anyhow::Result<Exit> {
    let outputs =
        client.json(client.request(Method::GET, &["tasks", &args.id, "outputs"], &[])).await?;
    match args.format.output {
        Format::Json => format::json(&outputs)?,
        Format::Table => table(&outputs).print()?,
    }
    Ok(Exit::Ok)
}

fn table(outputs: &Value) -> Table {
    let mut table = Table::new(&["NAME", "KIND", "VALUE", "SIZE", "TYPE", "SHA256"]);
    for item in outputs["items"].as_array().into_iter().flatten() {
        let cell = |key: &str| match &item[key] {
            Value::Null => String::new(),
            Value::String(text) if key != "value" => text.clone(),
            other => other.to_string(),
        };
        table.row(["name", "kind", "value", "size", "media_type", "sha256"].map(cell));
    }
    table
}

pub(crate) async fn fetch(client: &mut Client, args: FetchArgs) -> anyhow::Result<Exit> {
    let FetchArgs { id, name, output } = args;
    let request = client.request(Method::GET, &["tasks", &id, "outputs", &name], &[]);
    let response = client.accepted(request).await?;
    if output == Path::new("-") {
        copy(client, response, &mut out::data).await?;
        return Ok(Exit::Ok);
    }
    // Whole or not at all: the name appears once every byte is there.
    let part = part_of(&output)?;
    let written = async {
        let mut file = File::create(&part).with_context(|| format!("write {}", part.display()))?;
        copy(client, response, &mut |bytes| file.write_all(bytes)).await?;
        std::fs::rename(&part, &output).with_context(|| format!("write {}", output.display()))
    };
    let written: anyhow::Result<()> = written.await;
    if written.is_err() {
        // What there is of it is of no use, and its absence is no news.
        std::fs::remove_file(&part).unwrap_or_default();
    }
    written?;
    Ok(Exit::Ok)
}

fn part_of(output: &Path) -> anyhow::Result<PathBuf> {
    let name = output.file_name().with_context(|| format!("{} is not a file", output.display()))?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(".part");
    Ok(output.with_file_name(part))
}

async fn copy(
    client: &Client,
    response: Response,
    sink: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        sink(&chunk.map_err(|error| client.lost(&error))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_and_files_stand_side_by_side() {
        let outputs = json!({"items": [
            {"name": "words", "kind": "json", "value": {"n": 7}},
            {"name": "title", "kind": "json", "value": "7"},
            {"name": "report", "kind": "file", "size": 12, "sha256": "ab", "media_type": "text/csv", "path": "/out/r.csv"}
        ]});
        assert_eq!(
            table(&outputs).to_string(),
            "NAME    KIND  VALUE    SIZE  TYPE      SHA256\n\
             words   json  {\"n\":7}\n\
             title   json  \"7\"\n\
             report  file           12    text/csv  ab\n"
        );
    }

    #[test]
    fn a_part_lies_beside_its_file() {
        assert_eq!(part_of(Path::new("/a/b.csv")).unwrap(), Path::new("/a/.b.csv.part"));
        assert_eq!(part_of(Path::new("b.csv")).unwrap(), Path::new(".b.csv.part"));
        assert!(part_of(Path::new("/a/..")).is_err());
    }
}
