//! What the machine's engine knows of the containers of a task, asked past the service.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::StartExecOptions;
use bollard::models::{ContainerCreateBody, ContainerSummary, ExecConfig};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions,
};

pub(crate) use super::starts::Starts;
use super::until;

const LABEL: &str = "supercargo.dev/task";

fn engine() -> Docker {
    Docker::connect_with_defaults().unwrap()
}

/// Whether the tests that need an engine can run.
pub(crate) async fn available() -> bool {
    let there = match Docker::connect_with_defaults() {
        Ok(docker) => docker.inspect_image("busybox:latest").await.is_ok(),
        Err(_) => false,
    };
    if !there {
        super::skip("no Docker engine with busybox:latest answers: run the tests by `make test`");
    }
    there
}

fn labelled(task: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL}={task}")])])
}

async fn containers(task: &str) -> Vec<ContainerSummary> {
    let options =
        ListContainersOptions { all: true, filters: Some(labelled(task)), ..Default::default() };
    engine().list_containers(Some(options)).await.unwrap()
}

pub(crate) async fn is_running(task: &str) -> bool {
    containers(task).await.iter().any(|it| it.state.is_some_and(|it| it.to_string() == "running"))
}

/// Waits for the removal: it comes after the end is readable.
pub(crate) async fn gone(task: &str) {
    until(&format!("no container is left of task {task}"), Duration::from_secs(30), async || {
        containers(task).await.is_empty().then_some(())
    })
    .await;
}

/// Whether the container of a task was put aside.
pub(crate) async fn is_kept(task: &str) -> bool {
    let mut names = containers(task).await.into_iter().flat_map(|it| it.names.unwrap_or_default());
    names.any(|it| it.ends_with("-kept"))
}

/// Removes a container, by name or id, unless somebody else is at it or was faster.
pub(crate) async fn remove(container: &str) {
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    match engine().remove_container(container, Some(options)).await {
        Ok(())
        | Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Runs a command in the container of a task.
pub(crate) async fn exec(task: &str, command: &[&str]) {
    let id = containers(task).await.remove(0).id.unwrap();
    let config = ExecConfig {
        cmd: Some(command.iter().map(|it| (*it).to_owned()).collect()),
        ..Default::default()
    };
    let exec = engine().create_exec(&id, config).await.unwrap();
    let options = StartExecOptions { detach: true, ..Default::default() };
    engine().start_exec(&exec.id, Some(options)).await.unwrap();
}

/// Removes every container of a task: for one whose service is gone.
pub(crate) async fn remove_all(task: &str) {
    for it in containers(task).await {
        remove(&it.id.unwrap()).await;
    }
}

/// A container that was made past the service, and was never started. Goes away with its value.
#[derive(Debug)]
pub(crate) struct Made {
    name: String,
}

impl Made {
    pub(crate) async fn labelled(
        name: &str,
        installation: &str,
        task: &str,
        attempt: &str,
    ) -> Self {
        let labels = [("installation", installation), ("task", task), ("attempt", attempt)];
        let labels = labels.map(|(key, value)| (format!("supercargo.dev/{key}"), value.to_owned()));
        let body = ContainerCreateBody {
            image: Some("busybox:latest".to_owned()),
            cmd: Some(vec!["true".to_owned()]),
            labels: Some(labels.into_iter().collect()),
            ..Default::default()
        };
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        engine().create_container(Some(options), body).await.unwrap();
        Self { name: name.to_owned() }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A runtime of its own: the test's may be on its way out.
        let removing = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(remove(&name));
        });
        removing.join().unwrap();
    }
}
