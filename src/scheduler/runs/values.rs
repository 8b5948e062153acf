//! What references see of the tasks of a run.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Value, json};

use crate::domain::dag::NodeId;
use crate::domain::plan::NodeState;
use crate::domain::template::{Found, Reference, Tasks};
use crate::ids::RunId;
use crate::store::{Error, Planning};

/// Values by what asks for them: a copy of what the store has, for as long as it stays true.
#[derive(Debug, Default)]
pub(super) struct Values {
    known: HashMap<Reference, Option<Value>>,
    of_node: HashMap<NodeId, Vec<Reference>>,
}

impl Values {
    /// The task lives again.
    pub(super) fn forget(&mut self, node: NodeId) {
        for it in self.of_node.remove(&node).into_iter().flatten() {
            self.known.remove(&it);
        }
    }

    /// `items`: how many the task has, where it runs for each of a list.
    pub(super) async fn fetch(
        &mut self,
        planning: &mut Planning,
        run: RunId,
        (node, reference): (NodeId, &Reference),
        state: NodeState,
        items: Option<u32>,
    ) -> Result<(), Error> {
        let ended = matches!(state, NodeState::Ended(_));
        if ended && self.known.contains_key(reference) {
            return Ok(());
        }
        let value = match reference {
            Reference::TaskState(_) => Some(json!(name_of(state))),
            Reference::TaskOutput { output, .. } => {
                let found = planning.outputs(run, node.0, output).await?;
                folded(found, items)
            }
            Reference::TaskExitCode(_) => {
                let ends = planning.ends(run, node.0).await?;
                folded(ends.into_iter().map(|it| (it.item, json!(it.exit_code))), items)
            }
            Reference::TaskFailure(_) => {
                let ends = planning.ends(run, node.0).await?;
                let failures = ends.into_iter().map(|it| {
                    let failure = it.failure.map(|it| {
                        json!({
                            "reason": it.reason.as_str(), "class": it.reason.class().as_str(),
                            "message": it.message, "log_tail": it.log_tail,
                        })
                    });
                    (it.item, json!(failure))
                });
                folded(failures, items)
            }
            Reference::Param(_)
            | Reference::RunId
            | Reference::RunName
            | Reference::RunState
            | Reference::Item
            | Reference::Matrix(_) => return Ok(()),
        };
        self.known.insert(reference.clone(), value);
        if ended {
            self.of_node.entry(node).or_default().push(reference.clone());
        }
        Ok(())
    }

    fn get(&self, reference: &Reference) -> Found<'_> {
        match self.known.get(reference) {
            Some(Some(it)) => Found::Value(Cow::Borrowed(it)),
            Some(None) | None => Found::Missing,
        }
    }
}

/// One value, or a list with null for each item that has none.
fn folded(found: impl IntoIterator<Item = (u32, Value)>, items: Option<u32>) -> Option<Value> {
    let Some(items) = items else { return found.into_iter().next().map(|(_, it)| it) };
    let mut list = vec![Value::Null; items as usize];
    for (item, value) in found {
        if let Some(it) = list.get_mut(item as usize) {
            *it = value;
        }
    }
    Some(Value::Array(list))
}

const fn name_of(state: NodeState) -> &'static str {
    match state {
        NodeState::Waiting | NodeState::Ready => "waiting",
        NodeState::Running => "running",
        NodeState::Ended(it) => it.as_str(),
    }
}

impl Tasks for Values {
    fn output(&self, task: &str, output: &str) -> Found<'_> {
        self.get(&Reference::TaskOutput { task: task.to_owned(), output: output.to_owned() })
    }

    fn state(&self, task: &str) -> Found<'_> {
        self.get(&Reference::TaskState(task.to_owned()))
    }

    fn exit_code(&self, task: &str) -> Found<'_> {
        self.get(&Reference::TaskExitCode(task.to_owned()))
    }

    fn failure(&self, task: &str) -> Found<'_> {
        self.get(&Reference::TaskFailure(task.to_owned()))
    }
}
