//! Runs that people would draw on a board, each with what they would expect of it.

use std::sync::Arc;

use super::*;
use crate::domain::plan::rules::Trigger;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);

fn run(nodes: Vec<(&[NodeId], NodePlan)>, rules: RunRules) -> RunPlan {
    let names = (0..nodes.len()).map(|it| it.to_string()).collect();
    let needs = nodes.iter().map(|it| it.0.to_vec()).collect();
    let plans = nodes.into_iter().map(|it| it.1).collect();
    RunPlan::new(Arc::new(Graph::build(names, needs).unwrap()), plans, rules)
}

fn one() -> NodePlan {
    NodePlan::default()
}

fn fan(count: u32) -> NodePlan {
    NodePlan { fan_out: FanOut::Items(count), ..one() }
}

fn stage(stage: Stage) -> NodePlan {
    NodePlan { stage, ..one() }
}

/// Starts what may start, and says what that was.
fn go(run: &mut RunPlan) -> Vec<Step> {
    let steps = run.next(usize::MAX);
    for step in &steps {
        if let Step::Start(node, item) = *step {
            run.started(node, item);
        }
    }
    steps
}

#[test]
fn fan_outs_take_turns_whatever_their_size() {
    let mut run =
        run(vec![(&[], fan(1_000)), (&[], fan(2)), (&[A, B], one())], RunRules::default());
    assert_eq!(run.state(), RunState::Queued);
    let start = |node, item| Step::Start(node, item);
    let steps = run.next(5);
    assert_eq!(steps, [start(A, 0), start(B, 0), start(A, 1), start(B, 1), start(A, 2)]);
    assert_eq!(run.next(0), []);
    assert_eq!(run.counts().live, 5);
    assert_eq!(run.counts().total, 1_003);
}

#[test]
fn a_failed_item_stops_the_others_and_the_run_fails() {
    let mut run = run(vec![(&[], fan(4)), (&[A], one()), (&[], one())], RunRules::default());
    let start = |node, item| Step::Start(node, item);
    assert_eq!(run.next(3), [start(A, 0), start(C, 0), start(A, 1)]);
    run.started(A, 0);
    run.ended(A, 1, TaskEnd::Failed);
    assert_eq!(go(&mut run), [Step::Stop(A, 0)]);
    assert_eq!(run.item_state(A, 3), ItemState::Ended(TaskEnd::Cancelled));
    run.ended(A, 0, TaskEnd::Cancelled);
    assert_eq!(run.node_state(A), NodeState::Ended(TaskEnd::Failed));
    assert_eq!(run.node_state(B), NodeState::Ended(TaskEnd::UpstreamFailed));
    run.ended(C, 0, TaskEnd::Succeeded);
    assert_eq!(go(&mut run), [Step::End(RunEnd::Failed)]);
    assert_eq!(run.next(9), []);
}

#[test]
fn a_failure_that_is_allowed_holds_nothing_up() {
    let optional = NodePlan { allow_failure: true, ..one() };
    let rules = RunRules { fail_fast: true, ..RunRules::default() };
    let mut run = run(vec![(&[], optional), (&[A], one())], rules);
    go(&mut run);
    run.ended(A, 0, TaskEnd::Failed);
    assert_eq!(run.node_state(A), NodeState::Ended(TaskEnd::Failed));
    assert_eq!(go(&mut run), [Step::Start(B, 0)]);
    run.ended(B, 0, TaskEnd::Succeeded);
    assert_eq!(go(&mut run), [Step::End(RunEnd::Succeeded)]);
}

#[test]
fn the_stages_come_one_after_the_other() {
    for (end, expected) in
        [(TaskEnd::Failed, RunEnd::Failed), (TaskEnd::Succeeded, RunEnd::Succeeded)]
    {
        let nodes =
            vec![(&[][..], one()), (&[], stage(Stage::OnFailure)), (&[], stage(Stage::OnExit))];
        let mut run = run(nodes, RunRules::default());
        assert_eq!(go(&mut run), [Step::Start(A, 0)]);
        run.ended(A, 0, end);
        if end == TaskEnd::Failed {
            assert_eq!(go(&mut run), [Step::Start(B, 0)]);
            assert_eq!(run.would_end(), RunEnd::Failed);
            run.ended(B, 0, TaskEnd::Failed);
        }
        assert_eq!(go(&mut run), [Step::Start(C, 0)]);
        run.ended(C, 0, TaskEnd::Failed);
        assert_eq!(go(&mut run), [Step::End(expected)]);
    }
}

#[test]
fn a_cancel_stops_what_is_live_and_leaves_what_runs_at_the_exit() {
    let nodes = vec![(&[][..], one()), (&[A], one()), (&[], stage(Stage::OnExit))];
    let mut run = run(nodes, RunRules::default());
    go(&mut run);
    run.pause();
    run.cancel();
    assert_eq!(run.node_state(B), NodeState::Ended(TaskEnd::Cancelled));
    assert_eq!(run.next(9), [Step::Stop(A, 0)]);
    run.ended(A, 0, TaskEnd::Cancelled);
    assert_eq!(run.node_state(B), NodeState::Ended(TaskEnd::Cancelled));
    assert_eq!(go(&mut run), [Step::Start(C, 0)]);
    run.cancel();
    assert_eq!(run.next(9), []);
    run.ended(C, 0, TaskEnd::Succeeded);
    assert_eq!(run.next(9), [Step::End(RunEnd::Cancelled)]);
    assert_eq!(run.counts().cancelled, 2);
}

#[test]
fn a_cancel_with_nothing_left_to_cancel_changes_no_end() {
    let mut run = run(vec![(&[], one()), (&[], stage(Stage::OnExit))], RunRules::default());
    go(&mut run);
    run.ended(A, 0, TaskEnd::Succeeded);
    go(&mut run);
    run.cancel();
    run.ended(B, 0, TaskEnd::Succeeded);
    assert_eq!(run.next(9), [Step::End(RunEnd::Succeeded)]);
}

#[test]
fn a_run_past_its_deadline_failed_and_tells_those_who_handle_failures() {
    let mut run = run(vec![(&[], one()), (&[], stage(Stage::OnFailure))], RunRules::default());
    go(&mut run);
    run.expire();
    assert_eq!(run.next(9), [Step::Stop(A, 0)]);
    run.ended(A, 0, TaskEnd::Cancelled);
    assert_eq!(go(&mut run), [Step::Start(B, 0)]);
    run.ended(B, 0, TaskEnd::Succeeded);
    assert_eq!(run.next(9), [Step::End(RunEnd::Failed)]);
}

#[test]
fn a_list_is_asked_for_once_its_rule_and_its_condition_hold() {
    let each = NodePlan { condition: true, fan_out: FanOut::Later, ..one() };
    let after = NodePlan { trigger: Trigger::AllDone, ..one() };
    let mut run = run(vec![(&[], one()), (&[A], each), (&[B], after)], RunRules::default());
    assert_eq!(go(&mut run), [Step::Start(A, 0)]);
    run.ended(A, 0, TaskEnd::Succeeded);
    assert_eq!(run.next(9), [Step::Decide(B)]);
    assert_eq!(run.next(9), []);
    run.condition(B, Ok(true));
    assert_eq!(run.next(9), [Step::Expand(B)]);
    run.expanded(B, Ok(0));
    assert_eq!(run.node_state(B), NodeState::Ended(TaskEnd::Succeeded));
    assert_eq!(go(&mut run), [Step::Start(C, 0)]);
    run.ended(C, 0, TaskEnd::Succeeded);
    assert_eq!(run.next(9), [Step::End(RunEnd::Succeeded)]);
}

#[test]
fn what_is_retried_is_waited_for_again() {
    let mut run = run(
        vec![(&[], one()), (&[A], one()), (&[], one())],
        RunRules { fail_fast: true, max_parallel: Some(1) },
    );
    assert_eq!(go(&mut run), [Step::Start(A, 0)]);
    run.ended(A, 0, TaskEnd::Failed);
    assert_eq!(go(&mut run), [Step::End(RunEnd::Failed)]);
    assert_eq!(run.node_state(C), NodeState::Ended(TaskEnd::Cancelled));
    run.reopened(A, 0);
    assert_eq!(run.state(), RunState::Running);
    assert_eq!(run.node_state(B), NodeState::Waiting);
    assert_eq!(run.node_state(C), NodeState::Ready);
    assert_eq!(go(&mut run), []);
    run.ended(A, 0, TaskEnd::Succeeded);
    assert_eq!(go(&mut run), [Step::Start(C, 0)]);
    run.ended(C, 0, TaskEnd::Succeeded);
    assert_eq!(go(&mut run), [Step::Start(B, 0)]);
    run.ended(B, 0, TaskEnd::Succeeded);
    assert_eq!(go(&mut run), [Step::End(RunEnd::Succeeded)]);
}

#[test]
fn what_was_decided_on_an_end_is_decided_anew_when_that_is_taken_back() {
    let checks = NodePlan { condition: true, trigger: Trigger::AllDone, ..one() };
    let mut run = run(vec![(&[], one()), (&[A], checks)], RunRules::default());
    go(&mut run);
    run.ended(A, 0, TaskEnd::Failed);
    assert_eq!(run.next(9), [Step::Decide(B)]);
    run.condition(B, Ok(false));
    assert_eq!(run.next(9), [Step::End(RunEnd::Failed)]);
    run.reopened(A, 0);
    assert_eq!(run.node_state(B), NodeState::Waiting);
    run.ended(A, 0, TaskEnd::Succeeded);
    assert_eq!(run.next(9), [Step::Decide(B)]);
    run.condition(B, Ok(true));
    assert_eq!(run.next(9), [Step::Start(B, 0)]);
}

#[test]
fn a_failure_that_only_a_halt_brought_about_does_not_keep_it_up() {
    let impossible = NodePlan { trigger: Trigger::AllDone, ..fan(MOST_ITEMS + 1) };
    let rules = RunRules { fail_fast: true, max_parallel: Some(1) };
    let mut run = run(vec![(&[], one()), (&[], one()), (&[B], impossible)], rules);
    go(&mut run);
    run.ended(A, 0, TaskEnd::Failed);
    assert_eq!(run.node_state(B), NodeState::Ended(TaskEnd::Cancelled));
    assert_eq!(run.node_state(C), NodeState::Ended(TaskEnd::Failed));
    run.reopened(A, 0);
    assert_eq!(run.node_state(B), NodeState::Ready);
    assert_eq!(run.node_state(C), NodeState::Waiting);
}

#[test]
fn a_run_of_nothing_is_over() {
    let mut run = run(Vec::new(), RunRules::default());
    assert_eq!(run.next(0), [Step::End(RunEnd::Succeeded)]);
    assert_eq!(run.state(), RunState::Ended(RunEnd::Succeeded));
}
