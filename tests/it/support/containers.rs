//! What the machine's engine knows of the containers of a task, asked past the service.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::StartExecOptions;
use bollard::models::{ContainerSummary, ExecConfig};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::StreamExt;

use super::until;

const LABEL: &str = "supercargo.dev/task";

fn engine() -> Docker {
    Docker::connect_with_defaults().unwrap()
}

/// Whether the tests that need an engine can run.
pub async fn available() -> bool {
    let there = match Docker::connect_with_defaults() {
        Ok(docker) => docker.inspect_image("busybox:latest").await.is_ok(),
        Err(_) => false,
    };
    if !there {
        super::skip("no Docker engine with busybox:latest answers: run the tests by `make test`");
    }
    there
}

fn labelled(task: &str) -> Option<HashMap<String, Vec<String>>> {
    Some(HashMap::from([("label".to_owned(), vec![format!("{LABEL}={task}")])]))
}

async fn containers(task: &str) -> Vec<ContainerSummary> {
    let options = ListContainersOptions { all: true, filters: labelled(task), ..Default::default() };
    engine().list_containers(Some(options)).await.unwrap()
}

/// How many containers of a task were ever started.
pub async fn starts(task: &str) -> usize {
    let filters = labelled(task).map(|mut it| {
        it.insert("event".to_owned(), vec!["start".to_owned()]);
        it
    });
    let now = jiff::Timestamp::now().as_second();
    // The engine keeps its last 256 events: ask while they are there.
    let options =
        EventsOptions { since: Some((now - 600).to_string()), until: Some((now + 1).to_string()), filters };
    engine().events(Some(options)).filter(|it| std::future::ready(it.is_ok())).count().await
}

pub async fn is_running(task: &str) -> bool {
    containers(task).await.iter().any(|it| it.state.is_some_and(|it| it.to_string() == "running"))
}

/// Waits for the removal: it comes after the end is readable.
pub async fn gone(task: &str) {
    until(&format!("no container is left of task {task}"), Duration::from_secs(30), async || {
        containers(task).await.is_empty().then_some(())
    })
    .await;
}

/// Runs a command in the container of a task.
pub async fn exec(task: &str, command: &[&str]) {
    let id = containers(task).await.remove(0).id.unwrap();
    let config = ExecConfig {
        cmd: Some(command.iter().map(|it| (*it).to_owned()).collect()),
        ..Default::default()
    };
    let exec = engine().create_exec(&id, config).await.unwrap();
    let options = StartExecOptions { detach: true, ..Default::default() };
    engine().start_exec(&exec.id, Some(options)).await.unwrap();
}
