//! `supercargo graph`: which task comes after which.

use std::fmt::Write as _;

use super::exit::Exit;
use super::format::Table;
use super::out;
use super::workflow_file::{FileArgs, WorkflowFile};
use crate::domain::dag::NodeId;
use crate::domain::plan::{FanOut, Stage};
use crate::domain::workflow::Workflow;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    file: FileArgs,

    /// For Graphviz: `supercargo graph -f FILE --dot | dot -Tsvg > graph.svg`
    #[arg(long)]
    dot: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let WorkflowFile { name, read } = args.file.read()?;
    let workflow = match read {
        Ok(workflow) => workflow,
        Err(faults) => {
            for it in &faults {
                out::hint(it.line(&name));
            }
            out::error(format_args!("{name} is not valid, and has no graph"));
            return Ok(Exit::Failed);
        }
    };
    if args.dot {
        out::text(dot(&workflow))?;
    } else {
        out::text(layers(&workflow))?;
    }
    Ok(Exit::Ok)
}

const STAGES: [(Stage, &str); 3] =
    [(Stage::Main, "tasks"), (Stage::OnFailure, "on_failure"), (Stage::OnExit, "on_exit")];

fn layers(workflow: &Workflow) -> String {
    let graph = &workflow.graph;
    let mut table = Table::new(&["LAYER", "TASK", "ITEMS", "TRIGGER", "NEEDS"]);
    for (stage, name) in STAGES {
        let mut nodes: Vec<NodeId> = workflow.stage(stage).collect();
        nodes.sort_by_key(|it| (graph.layer(*it), *it));
        for node in nodes {
            let layer = match stage {
                Stage::Main => graph.layer(node).to_string(),
                Stage::OnFailure | Stage::OnExit => format!("{name} {}", graph.layer(node)),
            };
            let plan = &workflow.nodes[node.index()];
            let needs: Vec<&str> = graph.needs(node).iter().map(|it| graph.name(*it)).collect();
            table.row([
                layer,
                graph.name(node).to_owned(),
                items(plan.fan_out).unwrap_or_default(),
                plan.trigger.as_str().to_owned(),
                needs.join(" "),
            ]);
        }
    }
    table.to_string()
}

/// How many it is, where it is not one.
fn items(fan_out: FanOut) -> Option<String> {
    match fan_out {
        FanOut::One => None,
        FanOut::Items(count) => Some(format!("×{count}")),
        FanOut::Later => Some("×?".to_owned()),
    }
}

/// Names of tasks and workflows have no character that would need an escape.
fn dot(workflow: &Workflow) -> String {
    let graph = &workflow.graph;
    let name = workflow.name.as_deref().unwrap_or("workflow");
    let mut text =
        format!("digraph \"{name}\" {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    let mut line = |it: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{it}");
    };
    for (stage, name) in STAGES {
        let nodes: Vec<NodeId> = workflow.stage(stage).collect();
        let inside = if stage == Stage::Main { "  " } else { "    " };
        if stage != Stage::Main && !nodes.is_empty() {
            line(format_args!("  subgraph \"cluster_{name}\" {{\n    label=\"{name}\";"));
        }
        for node in &nodes {
            let task = graph.name(*node);
            match items(workflow.nodes[node.index()].fan_out) {
                Some(items) => line(format_args!("{inside}\"{task}\" [label=\"{task} {items}\"];")),
                None => line(format_args!("{inside}\"{task}\";")),
            }
        }
        if stage != Stage::Main && !nodes.is_empty() {
            line(format_args!("  }}"));
        }
    }
    for node in graph.nodes() {
        for need in graph.needs(node) {
            line(format_args!("  \"{}\" -> \"{}\";", graph.name(*need), graph.name(node)));
        }
    }
    text.push_str("}\n");
    text
}
