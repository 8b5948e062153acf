use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::oracle::{Fact, Facts, Oracle, View};
use super::*;
use crate::domain::plan::rules::Trigger;

/// What a run is made from, and the choices of everybody in it.
#[derive(Debug, Clone)]
struct Script {
    needs: Vec<Vec<NodeId>>,
    plans: Vec<NodePlan>,
    rules: RunRules,
    choices: Vec<u32>,
}

impl Script {
    fn graph(&self) -> Graph {
        let names = (0..self.needs.len()).map(|it| it.to_string()).collect();
        Graph::build(names, self.needs.clone()).unwrap()
    }
}

fn node_plan() -> impl Strategy<Value = NodePlan> {
    let fan_out = prop_oneof![
        3 => Just(FanOut::One),
        2 => (0_u32..4).prop_map(FanOut::Items),
        2 => Just(FanOut::Later),
    ];
    let stage =
        prop_oneof![5 => Just(Stage::Main), 1 => Just(Stage::OnFailure), 1 => Just(Stage::OnExit)];
    let trigger = prop_oneof![
        1 => Just(Trigger::AllSuccess),
        1 => proptest::sample::select(Trigger::ALL.to_vec()),
    ];
    let some_parallel = proptest::option::weighted(0.2, 0_u32..3);
    let flags = (any::<bool>(), proptest::bool::weighted(0.25), proptest::bool::weighted(0.2));
    (trigger, fan_out, some_parallel, stage, flags).prop_map(
        |(trigger, fan_out, max_parallel, stage, (fail_fast, condition, allow_failure))| NodePlan {
            trigger,
            condition,
            fan_out,
            max_parallel,
            fail_fast,
            allow_failure,
            stage,
        },
    )
}

prop_compose! {
    fn script()(count in 0_usize..9)(
        plans in proptest::collection::vec(node_plan(), count),
        needs in proptest::collection::vec(proptest::collection::vec(0_u32..9, 0..4), count),
        max_parallel in proptest::option::weighted(0.3, 0_u32..4),
        fail_fast in proptest::bool::weighted(0.3),
        choices in proptest::collection::vec(any::<u32>(), 0..120),
    ) -> Script {
        let needs = (0..plans.len())
            .map(|node| {
                let among = |it: &NodeId| it.index() < node && plans[it.index()].stage == plans[node].stage;
                needs[node].iter().copied().map(NodeId).filter(among).collect()
            })
            .collect();
        Script { needs, plans, rules: RunRules { max_parallel, fail_fast }, choices }
    }
}

/// A scheduler, the tasks, and the people who meddle.
struct World {
    script: Script,
    graph: Arc<Graph>,
    run: RunPlan,
    facts: Facts,
    choices: std::vec::IntoIter<u32>,
    /// Said and not answered.
    asked: BTreeSet<Step>,
    /// Stops that were said.
    stopped: BTreeSet<(NodeId, u32)>,
    /// How often each task was made.
    made: BTreeMap<(NodeId, u32), u32>,
    ended: Option<RunEnd>,
}

impl World {
    fn new(script: Script) -> Self {
        let graph = Arc::new(script.graph());
        let run = RunPlan::new(Arc::clone(&graph), script.plans.clone().into(), script.rules);
        Self {
            graph,
            run,
            facts: Facts::default(),
            choices: script.choices.clone().into_iter(),
            script,
            asked: BTreeSet::new(),
            stopped: BTreeSet::new(),
            made: BTreeMap::new(),
            ended: None,
        }
    }

    fn view(&self) -> View {
        let (graph, plans) = (&*self.graph, &*self.script.plans);
        Oracle { graph, plans, rules: self.script.rules, facts: &self.facts }.view()
    }

    /// The next choice of so many; none are left: the first.
    fn choose(&mut self, of: usize) -> usize {
        self.choices.next().unwrap_or_default() as usize % of.max(1)
    }

    fn compare(&self) {
        let view = self.view();
        let ends: Vec<_> = self.run.nodes.iter().map(|it| it.part.end).collect();
        assert_eq!(ends, view.ends);
        let states: Vec<_> = self.graph.nodes().map(|it| self.run.node_state(it)).collect();
        assert_eq!(states, view.states);
        assert_eq!(self.run.counts(), view.counts);
        let each: Vec<_> = self.graph.nodes().map(|it| self.run.node_counts(it).total).collect();
        assert_eq!(each.iter().sum::<u32>(), view.counts.total);
        assert_eq!(self.run.would_end(), view.would_end);
        match (self.run.state(), view.end) {
            (RunState::Ended(end), oracle) => assert_eq!(Some(end), oracle),
            (_, oracle) => assert_eq!(oracle, None),
        }
    }

    /// Asks for steps, and checks each against what the oracle allows.
    fn ask(&mut self, room: usize) {
        let before = self.view();
        let held = self.facts.paused && !self.facts.cancelled && !self.facts.expired;
        let live_of = |facts: &Facts, node: Option<NodeId>| {
            let live = facts.items.iter().filter(|(_, it)| it.end.is_none());
            live.filter(|((it, _), _)| node.is_none_or(|node| node == *it)).count() as u32
        };
        let steps = self.run.next(room);
        let starts = steps.iter().filter(|it| matches!(it, Step::Start(..))).count();
        assert!(starts <= room);
        for step in &steps {
            match *step {
                Step::Decide(node) => assert!(before.decide.contains(&node)),
                Step::Expand(node) => assert!(before.expand.contains(&node)),
                Step::Start(node, item) => {
                    assert!(!held, "started while paused");
                    assert!(before.may_start.contains(&(node, item)), "{step:?} is not allowed");
                    let fact = Fact { end: None, kept: false, reopened: false, made: false };
                    assert_eq!(self.facts.items.insert((node, item), fact), None, "twice");
                    for (most, live) in [
                        (self.script.rules.max_parallel, live_of(&self.facts, None)),
                        (
                            self.script.plans[node.index()].max_parallel,
                            live_of(&self.facts, Some(node)),
                        ),
                    ] {
                        assert!(most.is_none_or(|it| live <= it.max(1)), "too many at a time");
                    }
                }
                Step::Stop(node, item) => {
                    assert!(before.must_stop.contains(&(node, item)));
                    assert!(self.stopped.insert((node, item)), "stopped twice");
                }
                Step::End(end) => {
                    assert_eq!(Some(end), before.end);
                    assert_eq!(self.ended, None, "ended twice");
                    self.ended = Some(end);
                }
            }
            if !matches!(step, Step::Stop(..) | Step::End(_)) {
                assert!(self.asked.insert(*step), "{step:?} was said twice");
            }
        }
        assert!(
            before.must_stop.is_subset(&self.stopped),
            "{:?} of {:?} {:?}",
            before.must_stop,
            self.stopped,
            self.facts
        );
        assert_eq!(before.end, self.ended);
        for step in before.decide.into_iter().map(Step::Decide) {
            assert!(self.asked.contains(&step), "{step:?} was not said");
        }
        for step in before.expand.into_iter().map(Step::Expand) {
            assert!(self.asked.contains(&step), "{step:?} was not said");
        }
        let full = self
            .script
            .rules
            .max_parallel
            .is_some_and(|it| it.max(1) <= live_of(&self.facts, None));
        if starts < room && !held && !full {
            let left = self.view().may_start.into_iter().find(|(node, _)| {
                let most = self.script.plans[node.index()].max_parallel;
                most.is_none_or(|it| live_of(&self.facts, Some(*node)) < it.max(1))
            });
            assert_eq!(left, None, "there is room for it");
        }
        self.compare();
    }

    fn choose_end(&mut self) -> TaskEnd {
        [
            TaskEnd::Succeeded,
            TaskEnd::Succeeded,
            TaskEnd::Failed,
            TaskEnd::Skipped,
            TaskEnd::Cancelled,
        ][self.choose(5)]
    }

    /// The scheduler or a task answers.
    fn answer(&mut self) {
        let live = self.facts.items.iter().filter(|(_, it)| it.end.is_none() && it.made);
        let live: Vec<_> = live.map(|(it, _)| *it).collect();
        let asked: Vec<_> = self.asked.iter().copied().collect();
        let choice = self.choose(live.len() + asked.len());
        if let Some(&(node, item)) = live.get(choice) {
            let end = self.choose_end();
            self.end(node, item, end);
        } else if let Some(step) = asked.get(choice - live.len()) {
            self.asked.remove(step);
            match *step {
                Step::Decide(node) => {
                    let holds = [Ok(true), Ok(true), Ok(false), Err(())][self.choose(4)];
                    if self.ended.is_none() {
                        self.facts.conditions.entry(node).or_insert(holds);
                    }
                    self.run.condition(node, holds);
                }
                Step::Expand(node) => {
                    // The same list as ever, if the run went on from it once.
                    let started = self.facts.items.keys().filter(|it| it.0 == node);
                    let least = started.map(|it| it.1 + 1).max().unwrap_or_default();
                    let items = match self.choose(6) {
                        5 if least == 0 => Err(()),
                        count => Ok(least.max(count as u32)),
                    };
                    if self.ended.is_none() {
                        self.facts.lists.entry(node).or_insert(items);
                    }
                    self.run.expanded(node, items);
                }
                Step::Start(node, item) if self.choose(8) == 7 => {
                    self.end(node, item, TaskEnd::Failed);
                }
                Step::Start(node, item) => {
                    *self.made.entry((node, item)).or_default() += 1;
                    assert_eq!(self.made[&(node, item)], 1, "made twice");
                    if let Some(fact) = self.facts.items.get_mut(&(node, item)) {
                        fact.made = true;
                    }
                    self.run.started(node, item);
                }
                Step::Stop(..) | Step::End(_) => {}
            }
        }
    }

    fn end(&mut self, node: NodeId, item: u32, end: TaskEnd) {
        let before = self.view().ends;
        let fact = Fact { end: Some(end), kept: false, reopened: false, made: true };
        self.facts.items.insert((node, item), fact);
        self.stopped.remove(&(node, item));
        self.run.ended(node, item, end);
        // Nothing takes a verdict back.
        let kept = before.iter().zip(self.view().ends);
        assert!(kept.into_iter().all(|(before, now)| before.is_none_or(|it| Some(it) == now)));
    }

    /// Somebody retries a task that ended.
    fn reopen(&mut self) {
        let ended = self.facts.items.iter().filter(|(_, it)| it.end.is_some() && !it.kept);
        let ended: Vec<_> = ended.map(|(it, _)| *it).collect();
        if ended.is_empty() {
            return;
        }
        let (node, item) = ended[self.choose(ended.len())];
        if self.view().ends[node.index()].is_some() {
            // Downstream, what has not started is asked for its answers anew.
            let mut again = self.graph.dependents(node).to_vec();
            while let Some(next) = again.pop() {
                if !self.facts.items.keys().any(|it| it.0 == next) {
                    self.facts.conditions.remove(&next);
                    self.facts.lists.remove(&next);
                    self.asked.remove(&Step::Decide(next));
                    self.asked.remove(&Step::Expand(next));
                    again.extend_from_slice(self.graph.dependents(next));
                }
            }
            self.ended = None;
        }
        let fact = Fact { end: None, kept: false, reopened: true, made: true };
        self.facts.items.insert((node, item), fact);
        self.run.reopened(node, item);
    }

    /// The process is gone; another one goes on from the facts, read in any order.
    fn take_over(&mut self) {
        let said = self.facts.items.values().any(|it| !it.made);
        self.facts.items.retain(|_, it| it.made);
        let mut facts: Vec<Told> = Vec::new();
        facts.extend(
            self.facts.items.iter().map(|((node, item), it)| Told::Item(*node, *item, *it)),
        );
        facts.extend(self.facts.conditions.iter().map(|(node, it)| Told::Condition(*node, *it)));
        facts.extend(self.facts.lists.iter().map(|(node, it)| Told::List(*node, *it)));
        facts.extend(self.facts.cancelled.then_some(Told::Cancelled));
        facts.extend(self.facts.expired.then_some(Told::Expired));
        facts.extend(self.facts.paused.then_some(Told::Paused));
        for at in (1..facts.len()).rev() {
            let other = self.choose(at + 1);
            facts.swap(at, other);
        }
        let plans = self.script.plans.clone().into();
        let mut run = RunPlan::new(Arc::clone(&self.graph), plans, self.script.rules);
        for fact in facts {
            match fact {
                Told::Item(node, item, Fact { end, kept, reopened, .. }) => match end {
                    Some(end) if kept => run.kept(node, item, end),
                    Some(end) => run.ended(node, item, end),
                    None if reopened => run.reopened(node, item),
                    None => run.started(node, item),
                },
                Told::Condition(node, holds) => run.condition(node, holds),
                Told::List(node, items) => run.expanded(node, items),
                Told::Cancelled => run.cancel(),
                Told::Expired => run.expire(),
                Told::Paused => run.pause(),
            }
        }
        if !said {
            // The steps that the other one would have said now, and those that it had said.
            let starts = |run: &RunPlan| {
                let mut steps = run.clone().next(usize::MAX);
                steps.retain(|it| matches!(it, Step::Start(..)));
                steps
            };
            assert_eq!(starts(&run), starts(&self.run));
        }
        self.run = run;
        self.asked.clear();
        self.stopped.clear();
        self.ended = None;
    }

    /// Facts that say nothing new, or of nothing there is.
    fn repeat(&mut self) {
        for (&(node, item), fact) in &self.facts.items {
            match fact.end {
                Some(_) => {
                    self.run.started(node, item);
                    self.run.ended(node, item, TaskEnd::Cancelled);
                    self.run.kept(node, item, TaskEnd::Failed);
                }
                None if fact.made => {
                    self.run.started(node, item);
                    self.run.kept(node, item, TaskEnd::Failed);
                }
                None => self.run.kept(node, item, TaskEnd::Failed),
            }
        }
        let none = NodeId(self.graph.len() as u32);
        self.run.ended(none, 0, TaskEnd::Failed);
        self.run.started(none, 0);
        self.run.reopened(none, 0);
        self.run.condition(none, Err(()));
        self.run.expanded(none, Err(()));
        for node in self.graph.nodes() {
            self.run.ended(node, MOST_ITEMS, TaskEnd::Failed);
            if self.facts.conditions.contains_key(&node) {
                self.run.condition(node, Err(()));
            }
            if self.facts.lists.contains_key(&node) {
                self.run.expanded(node, Err(()));
            }
        }
    }

    fn meddle(&mut self) {
        match self.choose(9) {
            0 => {
                self.facts.paused = true;
                self.run.pause();
            }
            1 => {
                self.facts.paused = false;
                self.run.resume();
            }
            2 if self.ended.is_none() => {
                self.facts.cancelled = true;
                self.run.cancel();
            }
            3 if self.ended.is_none() => {
                self.facts.expired = true;
                self.run.expire();
            }
            4 | 5 => self.reopen(),
            6 => self.take_over(),
            _ => self.repeat(),
        }
        self.compare();
    }

    /// Whatever happens by the script, and then nothing but answers, until the run is over.
    fn play(&mut self) {
        self.compare();
        while self.choices.len() > 0 {
            match self.choose(8) {
                0..=2 => {
                    let room = self.choose(4);
                    self.ask(room);
                }
                3..=6 => self.answer(),
                _ => self.meddle(),
            }
            self.compare();
        }
        self.facts.paused = false;
        self.run.resume();
        let mut turns = 0;
        while self.ended.is_none() {
            self.ask(3);
            self.answer();
            turns += 1;
            assert!(turns < 500, "it is stuck: {:?}", self.view());
        }
        self.take_over();
        self.ask(1);
    }
}

enum Told {
    Item(NodeId, u32, Fact),
    Condition(NodeId, Result<bool, ()>),
    List(NodeId, Result<u32, ()>),
    Cancelled,
    Expired,
    Paused,
}

proptest! {
    #[test]
    fn any_run_ends_and_stands_where_the_oracle_says_at_every_step(script in script()) {
        World::new(script).play();
    }

    /// A run that keeps some items of an earlier one.
    #[test]
    fn what_is_kept_is_not_done_again(script in script(), kept in proptest::collection::vec(any::<u32>(), 9 * 4)) {
        let mut world = World::new(script);
        for node in world.graph.nodes() {
            for item in 0..4 {
                let count = match world.script.plans[node.index()].fan_out {
                    FanOut::One => 1,
                    FanOut::Items(count) => count,
                    FanOut::Later => 4,
                };
                let choice = kept[node.index() * 4 + item as usize];
                if item < count && choice % 3 == 0 {
                    let end = TaskEnd::ALL[choice as usize / 3 % 4];
                    world.run.kept(node, item, end);
                    let fact = Fact { end: Some(end), kept: true, reopened: false, made: true };
                    world.facts.items.insert((node, item), fact);
                }
            }
        }
        world.play();
    }
}
