//! What can be told of references before anything runs: that what they name is there, can be seen from where they
//! stand, and that nobody waits for himself.

use std::collections::{HashMap, HashSet};

use super::FAULTS;
use super::fields::Layers;
use super::items::Items;
use super::params::Params;
use super::schema::Kind;
use super::task::Task;
use crate::domain::dag::{Cycle, Graph, NodeId};
use crate::domain::plan::{NodePlan, Stage};
use crate::domain::spec::{Fault, escape, suggest};
use crate::domain::template::{Reference, Template, Tree};

/// Each cycle is a fault, up to so many.
const CYCLES: usize = 20;
/// Looking for a name that is meant takes longer than all the rest where there are many.
const COMPARED: usize = 2_000;

pub(super) fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", escape(key))
}

pub(super) fn is_at_or_below(it: &str, place: &str) -> bool {
    it.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Each fault once, and no more than anybody reads.
pub(super) fn tidied(mut faults: Vec<Fault>) -> Vec<Fault> {
    let mut seen = HashSet::new();
    faults.retain(|it| seen.insert((it.pointer.clone(), it.code, it.detail.clone())));
    faults.truncate(FAULTS);
    faults
}

/// Where a template stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// What is filled in for each item.
    Field,
    /// What is evaluated once, before there are items.
    When,
    List,
    Output,
}

pub(super) struct Checker<'d> {
    names: &'d [String],
    plans: &'d [NodePlan],
    params: &'d Params,
    by_name: HashMap<&'d str, NodeId>,
    needs: Vec<Vec<NodeId>>,
}

impl<'d> Checker<'d> {
    pub(super) fn new(names: &'d [String], plans: &'d [NodePlan], params: &'d Params) -> Self {
        let ids = (0..).map(NodeId);
        let by_name = names.iter().map(String::as_str).zip(ids).collect();
        Self { names, plans, params, by_name, needs: vec![Vec::new(); names.len()] }
    }

    pub(super) fn task(
        &mut self,
        node: NodeId,
        task: &Task,
        layers: &Layers<'_>,
        faults: &mut Vec<Fault>,
    ) {
        for (name, pointer) in &task.needs {
            self.need(node, name, pointer, faults);
        }
        layers.templates(&mut |pointer, template| {
            self.template(Some((node, task)), Place::Field, pointer, template, faults);
        });
        if let Some(template) = task.when() {
            let pointer = below(&task.pointer, "when");
            self.template(Some((node, task)), Place::When, &pointer, template, faults);
            if let Some(fault) = self.wrong_kind(
                template,
                Kind::Boolean,
                &pointer,
                "\"when\" must come to true or false",
            ) {
                faults.push(fault);
            }
        }
        if let Some((pointer, tree)) = task.items.tree() {
            tree.templates(pointer, &mut |pointer, template| {
                self.template(Some((node, task)), Place::List, pointer, template, faults);
            });
            if let (Tree::Template(template), Items::ForEach(..)) = (tree, &task.items) {
                faults.extend(self.wrong_kind(
                    template,
                    Kind::Array,
                    pointer,
                    "\"for_each\" must be a list",
                ));
            }
        }
        for (index, input) in task.inputs.iter().enumerate() {
            let pointer = format!("{}/inputs/{index}/from", task.pointer);
            if let Err(fault) = self.sees(Some(node), &input.task, &pointer) {
                faults.push(fault);
            }
        }
    }

    pub(super) fn output(&mut self, pointer: &str, tree: &Tree, faults: &mut Vec<Fault>) {
        tree.templates(pointer, &mut |pointer, template| {
            self.template(None, Place::Output, pointer, template, faults);
        });
    }

    fn stage(&self, node: NodeId) -> Stage {
        self.plans[node.index()].stage
    }

    fn wrong_kind(
        &self,
        template: &Template,
        wanted: Kind,
        pointer: &str,
        rule: &str,
    ) -> Option<Fault> {
        let Reference::Param(name) = template.only_reference()? else { return None };
        let kind = self.params.get(name)?.kind.filter(|it| *it != wanted)?;
        let detail = format!("{rule}, and the param {name:?} is of type {}", kind.as_str());
        Some(Fault::new(pointer, "wrong_type", detail))
    }

    fn unknown_task(&self, name: &str, pointer: &str) -> Fault {
        let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut hint = if known.len() <= COMPARED { suggest(name, &known) } else { String::new() };
        if hint.is_empty() && known.len() <= 10 {
            hint = format!(": there is {}", known.join(", "));
        }
        let shown: String = name.chars().take(80).collect();
        Fault::new(pointer, "unknown_task", format!("no task {shown:?}{hint}"))
    }

    fn need(&mut self, node: NodeId, name: &str, pointer: &str, faults: &mut Vec<Fault>) {
        let Some(&other) = self.by_name.get(name) else {
            faults.push(self.unknown_task(name, pointer));
            return;
        };
        if other == node {
            faults.push(Fault::new(
                pointer,
                "self_reference",
                format!("{name:?} needs itself: take that away"),
            ));
        } else if self.stage(other) == self.stage(node) {
            self.needs[node.index()].push(other);
        } else {
            let detail = match (self.stage(node), self.stage(other)) {
                (Stage::OnFailure | Stage::OnExit, Stage::Main)
                | (Stage::OnExit, Stage::OnFailure) => format!(
                    "{name:?} has ended by then anyway: \"needs\" names tasks of the same part of the document; leave it out"
                ),
                _ => format!(
                    "{name:?} runs after all tasks of this part of the document: nothing here can wait for it"
                ),
            };
            faults.push(Fault::new(pointer, "not_upstream", detail));
        }
    }

    /// Lets `node` wait for the task, if it can. None: the outputs of the run, which see the main tasks.
    fn sees(&mut self, node: Option<NodeId>, name: &str, pointer: &str) -> Result<(), Fault> {
        let Some(&other) = self.by_name.get(name) else {
            return Err(self.unknown_task(name, pointer));
        };
        let here = node.map_or(Stage::OnFailure, |it| self.stage(it));
        let there = self.stage(other);
        match node {
            Some(node) if node == other => {
                let detail =
                    format!("{name:?} refers to itself: nothing of it is known before it has run");
                Err(Fault::new(pointer, "self_reference", detail))
            }
            Some(node) if here == there => {
                self.needs[node.index()].push(other);
                Ok(())
            }
            _ if there == Stage::Main || (here == Stage::OnExit && there == Stage::OnFailure) => {
                Ok(())
            }
            Some(_) => {
                let detail = format!(
                    "{name:?} runs only after all tasks of this part of the document: they can't see it"
                );
                Err(Fault::new(pointer, "not_upstream", detail))
            }
            None => {
                let detail =
                    format!("{name:?} is not one of \"tasks\": the outputs of a run are theirs");
                Err(Fault::new(pointer, "not_upstream", detail))
            }
        }
    }

    fn template(
        &mut self,
        of: Option<(NodeId, &Task)>,
        place: Place,
        pointer: &str,
        template: &Template,
        faults: &mut Vec<Fault>,
    ) {
        for reference in template.references() {
            if let Some(task) = reference.task() {
                faults.extend(self.sees(of.map(|(it, _)| it), task, pointer).err());
                continue;
            }
            let wrong = match reference {
                Reference::Param(name) => self.wrong_param(name),
                Reference::RunState => self.wrong_run_state(of.map(|(it, _)| it)),
                Reference::Item | Reference::Matrix(_) => {
                    wrong_item(reference, of.map(|(_, it)| it), place)
                }
                _ => None,
            };
            faults.extend(wrong.map(|(code, detail)| Fault::new(pointer, code, detail)));
        }
    }

    fn wrong_param(&self, name: &str) -> Option<(&'static str, String)> {
        if self.params.get(name).is_some() {
            return None;
        }
        let known = self.params.names();
        let before_dash = name.split('-').next().unwrap_or_default();
        let hint = if self.params.get(before_dash).is_some() {
            format!(": to subtract, write spaces around the minus, {before_dash} - …")
        } else if known.is_empty() {
            format!(": declare it, \"params\": {{{name:?}: {{\"type\": \"string\"}}}}")
        } else {
            let hint = suggest(name, &known);
            if hint.is_empty() { format!(": there is {}", known.join(", ")) } else { hint }
        };
        Some(("unknown_param", format!("no param {name:?}{hint}")))
    }

    fn wrong_run_state(&self, node: Option<NodeId>) -> Option<(&'static str, String)> {
        let is_main = node.is_some_and(|it| self.stage(it) == Stage::Main);
        is_main.then(|| {
            let detail = "run.state is known when the tasks have ended: ask for it in \"on_failure\", \"on_exit\" or \"outputs\"";
            ("not_available", detail.to_owned())
        })
    }

    /// The graph, or every cycle of it as a path.
    pub(super) fn graph(self, tasks: &[Task], faults: &mut Vec<Fault>) -> Option<Graph> {
        let Self { names, mut needs, .. } = self;
        for _ in 0..CYCLES {
            let Cycle(path) = match Graph::build(names.to_vec(), needs.clone()) {
                Ok(graph) => return Some(graph),
                Err(cycle) => cycle,
            };
            let (first, last) = (*path.first()?, *path.last()?);
            let mut shown: Vec<&str> = path.iter().map(|it| names[it.index()].as_str()).collect();
            if shown.len() > 12 {
                shown.splice(6..shown.len() - 5, ["…"]);
            }
            shown.push(&names[first.index()]);
            let detail = format!(
                "these tasks wait for each other: {} (each needs the next); take one of the needs or references away",
                shown.join(" → ")
            );
            faults.push(Fault::new(tasks[first.index()].pointer.clone(), "cycle", detail));
            // Without that edge the next one is found.
            needs[last.index()].retain(|it| *it != first);
        }
        None
    }
}

fn wrong_item(
    reference: &Reference,
    task: Option<&Task>,
    place: Place,
) -> Option<(&'static str, String)> {
    let wrong = |detail: &str| Some(("not_available", detail.to_owned()));
    let Some(task) = task else {
        return wrong("there is no item here: outputs are those of the whole run");
    };
    match place {
        Place::When => {
            return wrong(
                "\"when\" is asked once for the task, before it has items: put the choice into its list, \
                                     or skip in the task (\"skip_on_exit_codes\")",
            );
        }
        Place::List => return wrong("a list of items can't ask for one of its items"),
        Place::Field | Place::Output => {}
    }
    match (reference, &task.items) {
        (_, Items::One) => {
            wrong("there is no item here: the task has no \"matrix\" and no \"for_each\"")
        }
        (Reference::Matrix(_), Items::ForEach(..)) => {
            wrong("the task has no \"matrix\": what \"for_each\" hands in is called item")
        }
        (Reference::Matrix(key), Items::Matrix(..)) => {
            let keys = task.items.keys().filter(|it| !it.contains(&key.as_str()))?;
            let hint = suggest(key, &keys);
            let hint =
                if hint.is_empty() { format!(": there is {}", keys.join(", ")) } else { hint };
            Some(("unknown_matrix_key", format!("the matrix has no {key:?}{hint}")))
        }
        _ => None,
    }
}
