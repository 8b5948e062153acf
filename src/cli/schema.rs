//! `supercargo schema`: the JSON Schema of the workflow document.

use super::exit::Exit;
use super::out;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An editor with a YAML language server completes and checks a workflow whose first line is
# yaml-language-server: $schema=FILE_OR_ADDRESS
The service has the same at /api/v1/schema/workflow.json.")]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: &Args) -> anyhow::Result<Exit> {
    out::text(crate::api::workflow_schema())?;
    Ok(Exit::Ok)
}
