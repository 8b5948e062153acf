//! `supercargo validate`: every fault of a workflow at once, without a service.

use serde_json::{Value, json};

use super::exit::Exit;
use super::format::{self, Format, FormatArgs};
use super::out;
use super::workflow_file::{FileArgs, Found, WorkflowFile, param, params};
use crate::domain::dag::NodeId;
use crate::domain::spec::Limits;
use crate::domain::workflow::Workflow;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 it is valid, 1 it is not, 2 the file can't be read. Targets are not looked at: which
there are, and what they can honour, is for the service to say.")]
pub(crate) struct Args {
    #[command(flatten)]
    file: FileArgs,

    /// A param of the run, to check what hangs on it, too; values are text or JSON, as its type says
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, String)>,

    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let WorkflowFile { name, read } = args.file.read()?;
    let (faults, counts) = match &read {
        Err(faults) => (faults.iter().map(|it| (it.line(&name), it.json())).collect(), None),
        Ok(workflow) => {
            let faults = of_params(workflow, &args.params);
            let told = faults.iter().map(|it| (it.line("params"), it.json()));
            (told.collect::<Vec<(String, Value)>>(), Some(counts(workflow)))
        }
    };
    match args.format.output {
        Format::Json => {
            let faults: Vec<&Value> = faults.iter().map(|(_, it)| it).collect();
            format::json(&json!({"valid": faults.is_empty(), "faults": faults}))?;
        }
        Format::Table => {
            for (line, _) in &faults {
                out::text(line)?;
            }
        }
    }
    if faults.is_empty() {
        let (tasks, layers) = counts.unwrap_or_default();
        out::note(format_args!("{name} is valid: {tasks} tasks in {layers} layers"));
        return Ok(Exit::Ok);
    }
    let faults = match faults.len() {
        1 => "1 fault".to_owned(),
        count => format!("{count} faults"),
    };
    out::error(format_args!("{name} is not valid: {faults}"));
    Ok(Exit::Failed)
}

fn of_params(workflow: &Workflow, given: &[(String, String)]) -> Vec<Found> {
    if given.is_empty() {
        return Vec::new();
    }
    let faults = match workflow.bind(&params(workflow, given)) {
        Err(faults) => faults,
        Ok(params) => {
            let limits = Limits { targets: std::sync::Arc::default(), ..Limits::default() };
            let mut faults = workflow.check(&params, &limits);
            faults.retain(|it| it.code != "unknown_target");
            faults
        }
    };
    faults.into_iter().map(|it| Found::new(it, None)).collect()
}

/// How many tasks, and in how many layers.
fn counts(workflow: &Workflow) -> (usize, u32) {
    let graph = &workflow.graph;
    let deepest = graph.nodes().map(|it: NodeId| graph.layer(it)).max();
    (graph.len(), deepest.map_or(0, |it| it + 1))
}
