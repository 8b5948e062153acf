//! What an engine did with the containers of tasks, by its own events: each start and each end, past the
//! service.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Listed, EventMessage};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use futures_util::StreamExt;

use super::until;

const TASK: &str = "supercargo.dev/task";
const ATTEMPT: &str = "supercargo.dev/attempt";

/// Records from now on: the engine itself remembers few events. Reads on where the engine was away.
#[derive(Debug)]
pub(crate) struct Starts {
    docker: Docker,
    seen: Arc<Mutex<Seen>>,
    reading: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Events that were read, since some are read again after a break.
    events: HashSet<(i64, String, String)>,
    last: i64,
    /// Task → its containers that run, and how many ever started.
    running: HashMap<String, BTreeSet<String>>,
    starts: HashMap<String, usize>,
    /// By task and attempt.
    attempts: HashMap<(String, String), usize>,
    /// Container → its volumes.
    volumes: HashMap<String, Vec<String>>,
    /// Task → every container that started.
    containers: HashMap<String, Vec<String>>,
    overlaps: Vec<String>,
}

impl Seen {
    fn take(&mut self, event: EventMessage) {
        let action = event.action.unwrap_or_default();
        let actor = event.actor.unwrap_or_default();
        let (id, labels) = (actor.id.unwrap_or_default(), actor.attributes.unwrap_or_default());
        let at = event.time_nano.unwrap_or_default();
        self.last = self.last.max(at);
        // A volume is mounted for several containers, never twice for one.
        let whose = labels.get("container").cloned().unwrap_or_else(|| id.clone());
        if !self.events.insert((at, action.clone(), whose.clone())) {
            return;
        }
        if action == "mount" {
            self.volumes.entry(whose).or_default().push(id);
            return;
        }
        let Some(task) = labels.get(TASK).cloned() else { return };
        if action == "start" {
            self.started(task, labels.get(ATTEMPT).cloned().unwrap_or_default(), id, true);
        } else {
            self.running.entry(task).or_default().remove(&id);
        }
    }

    fn started(&mut self, task: String, attempt: String, id: String, runs: bool) {
        let running = self.running.entry(task.clone()).or_default();
        if runs {
            running.insert(id.clone());
        }
        if running.len() > 1 {
            let count = running.len();
            self.overlaps.push(format!("task {task} runs in {count} containers at a time"));
        }
        *self.starts.entry(task.clone()).or_default() += 1;
        *self.attempts.entry((task.clone(), attempt)).or_default() += 1;
        self.containers.entry(task).or_default().push(id);
    }

    /// What an engine that died did not tell: what has ended with it or meanwhile, and what it started last,
    /// which may have ended, too.
    fn after_a_break(&mut self, list: Vec<ContainerSummary>) {
        let list: HashMap<String, _> = list
            .into_iter()
            .filter(|it| it.state.is_some_and(|it| it != Listed::CREATED))
            .filter_map(|it| Some((it.id?, (runs(it.state?), it.labels?))))
            .collect();
        for running in self.running.values_mut() {
            running.retain(|it| list.get(it).is_some_and(|(runs, _)| *runs));
        }
        if self.events.is_empty() {
            return;
        }
        for (id, (runs, mut labels)) in list {
            let Some(task) = labels.remove(TASK) else { continue };
            let known = self.containers.get(&task).is_some_and(|it| it.contains(&id));
            if !known {
                let attempt = labels.remove(ATTEMPT).unwrap_or_default();
                self.started(task, attempt, id, runs);
            }
        }
    }
}

impl Starts {
    /// Of the engine of the machine.
    pub(crate) async fn record() -> Self {
        let docker = Docker::connect_with_defaults().unwrap();
        Self::record_by(docker).await
    }

    pub(crate) async fn record_at(socket: &Path) -> Self {
        Self::record_by(super::engine::docker(socket).unwrap()).await
    }

    async fn record_by(docker: Docker) -> Self {
        let info = docker.info().await.unwrap();
        let now: jiff::Timestamp = info.system_time.unwrap().parse().unwrap();
        let seen = Seen { last: i64::try_from(now.as_nanosecond()).unwrap(), ..Seen::default() };
        let seen = Arc::new(Mutex::new(seen));
        let reading = tokio::spawn(read(docker.clone(), Arc::clone(&seen)));
        Self { docker, seen, reading }
    }

    /// How many containers of a task were started.
    pub(crate) fn of(&self, task: &str) -> usize {
        self.seen.lock().unwrap().starts.get(task).copied().unwrap_or_default()
    }

    /// Everything that may not be, in the tasks of this list.
    pub(crate) fn faults(&self, tasks: &HashSet<String>) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mut faults: Vec<String> = seen
            .overlaps
            .iter()
            .filter(|it| tasks.iter().any(|task| it.contains(task.as_str())))
            .cloned()
            .collect();
        for ((task, attempt), starts) in &seen.attempts {
            if *starts > 1 && tasks.contains(task) {
                faults.push(format!("attempt {attempt} of task {task} was started {starts} times"));
            }
        }
        faults
    }

    /// What is left on the engine of the containers that a task started, once nothing of them runs.
    pub(crate) async fn left(&self, task: &str) -> Vec<String> {
        until(
            &format!("the engine has told the end of every container of task {task}"),
            Duration::from_secs(30),
            async || {
                let seen = self.seen.lock().unwrap();
                seen.running.get(task).is_none_or(BTreeSet::is_empty).then_some(())
            },
        )
        .await;
        let (containers, volumes) = {
            let seen = self.seen.lock().unwrap();
            let containers = seen.containers.get(task).cloned().unwrap_or_default();
            let volumes = containers.iter().filter_map(|it| seen.volumes.get(it)).flatten();
            let volumes: Vec<String> = volumes.cloned().collect();
            (containers, volumes)
        };
        let mut left = Vec::new();
        for id in containers {
            if self.docker.inspect_container(&id, None::<InspectContainerOptions>).await.is_ok() {
                left.push(format!("container {id}"));
            }
        }
        for name in volumes {
            if self.docker.inspect_volume(&name).await.is_ok() {
                left.push(format!("volume {name}"));
            }
        }
        left
    }

    /// The containers of a task, whether they were started or not.
    pub(crate) async fn containers(&self, task: &str) -> Vec<String> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{TASK}={task}")])]);
        let options =
            ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let list = self.docker.list_containers(Some(options)).await.unwrap();
        list.into_iter().filter_map(|it| it.id).collect()
    }
}

const fn runs(state: Listed) -> bool {
    matches!(state, Listed::RUNNING | Listed::PAUSED | Listed::RESTARTING | Listed::STOPPING)
}

impl Drop for Starts {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read(docker: Docker, seen: Arc<Mutex<Seen>>) {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let options = ListContainersOptions { all: true, ..Default::default() };
        let Ok(list) = docker.list_containers(Some(options)).await else {
            continue;
        };
        seen.lock().unwrap().after_a_break(list);
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned(), "volume".to_owned()]),
            ("event".to_owned(), ["start", "die", "mount"].map(str::to_owned).to_vec()),
        ]);
        let last = seen.lock().unwrap().last;
        let since = format!("{}.{:09}", last / 1_000_000_000, last % 1_000_000_000);
        let options = EventsOptions { since: Some(since), until: None, filters: Some(filters) };
        let mut events = docker.events(Some(options));
        while let Some(Ok(event)) = events.next().await {
            seen.lock().unwrap().take(event);
        }
    }
}
