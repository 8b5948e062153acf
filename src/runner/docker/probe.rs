//! A look at an engine without a session: who it is, what it can do, and which of its containers are ours.
//!
//! For an examination by somebody who runs nothing on it. Calls are bounded by their caller.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::Docker;
use bollard::models::{ContainerSummary, SystemInfo};
use bollard::query_parameters::ListContainersOptionsBuilder;
use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use super::errors::Fault;
use super::transport::{self, HostError};
use crate::ids::InstallationId;
use crate::runner::{Found, Labelled, TargetCheck, naming};

/// The driver that keeps the logs of attempts.
pub const LOG_DRIVER: &str = "local";

/// An engine as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub id: String,
    pub version: String,
    pub storage_driver: String,
    pub log_drivers: Vec<String>,
    /// On its own machine.
    pub root: Option<PathBuf>,
    pub time: Option<Timestamp>,
    pub live_restore: bool,
}

#[derive(Debug)]
pub struct Probe {
    docker: Docker,
    /// Connections end with their answers: nothing is left when the probe goes.
    _connections: TaskTracker,
}

impl Probe {
    pub fn new(host: Option<&str>) -> Result<Self, HostError> {
        let connections = TaskTracker::new();
        Ok(Self { docker: transport::connect(host, &connections)?, _connections: connections })
    }

    /// Who answers, or why nobody does.
    pub async fn describe(&self) -> Result<Description, String> {
        let info = self.docker.info().await.map_err(|it| Fault::from(it).message())?;
        describe(info).ok_or_else(|| "it does not say who it is".to_owned())
    }

    /// The containers of this installation and the number of those of others, the newest ones up to a limit.
    pub async fn list(&self, installation: InstallationId, limit: i32) -> Result<Found, String> {
        let filters = HashMap::from([("label", vec![naming::LABEL_INSTALLATION])]);
        let options =
            ListContainersOptionsBuilder::new().all(true).limit(limit).filters(&filters).build();
        let list = self.docker.list_containers(Some(options)).await;
        let list = list.map_err(|it| Fault::from(it).message())?;
        Ok(sort(list, installation, limit))
    }
}

/// What a description says about running tasks there.
pub(super) fn judge(it: Description) -> TargetCheck {
    let mut warnings = Vec::new();
    if !it.log_drivers.is_empty() && !it.log_drivers.iter().any(|it| it == LOG_DRIVER) {
        warnings
            .push(format!("the engine has no log driver {LOG_DRIVER:?}: no container can start"));
    }
    if !it.live_restore {
        warnings.push(
            "live-restore is off: a restart of the engine ends the containers that run; set \
             \"live-restore\": true in its daemon.json"
                .to_owned(),
        );
    }
    TargetCheck {
        reachable: true,
        version: Some(it.version),
        engine: Some(it.id),
        warnings,
        ..TargetCheck::default()
    }
}

fn describe(info: SystemInfo) -> Option<Description> {
    Some(Description {
        id: info.id.filter(|it| !it.is_empty())?,
        version: info.server_version.unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        log_drivers: info.plugins.and_then(|it| it.log).unwrap_or_default(),
        root: info.docker_root_dir.filter(|it| !it.is_empty()).map(PathBuf::from),
        time: info.system_time.and_then(|it| it.parse().ok()),
        live_restore: info.live_restore_enabled.unwrap_or_default(),
    })
}

fn sort(list: Vec<ContainerSummary>, installation: InstallationId, limit: i32) -> Found {
    let cut = usize::try_from(limit).is_ok_and(|limit| list.len() >= limit);
    let mut found = Found { cut, ..Found::default() };
    for it in list {
        let labels = it.labels.unwrap_or_default();
        if labels.get(naming::LABEL_INSTALLATION) != Some(&installation.to_string()) {
            found.others += 1;
            continue;
        }
        let names = it.names.unwrap_or_default();
        let name = names.first().map(|it| it.trim_start_matches('/').to_owned()).or(it.id);
        let name = name.unwrap_or_default();
        found.own.push(Labelled {
            kept: naming::is_kept_name(&name),
            owner: naming::owner(installation, |label| labels.get(label).cloned()),
            name,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::{AttemptId, TaskId};

    #[test]
    fn containers_of_other_installations_are_counted_and_no_more() {
        let installation = InstallationId::generate();
        let (task, attempt) = (TaskId::generate(), AttemptId::generate());
        let own = |name: &str| {
            json!({"Names": [format!("/{name}")], "Labels": {
                naming::LABEL_INSTALLATION: installation, naming::LABEL_TASK: task, naming::LABEL_ATTEMPT: attempt}})
        };
        let list = json!([own("sc-a"), own("sc-a-kept"),
            {"Id": "x", "Labels": {naming::LABEL_INSTALLATION: installation}},
            {"Id": "y", "Labels": {naming::LABEL_INSTALLATION: InstallationId::generate()}}]);
        let list: Vec<ContainerSummary> = serde_json::from_value(list).unwrap();
        let found = sort(list.clone(), installation, 5);
        let labelled = |name: &str, owner, kept| Labelled { name: name.to_owned(), owner, kept };
        let owner = Some((task, attempt));
        assert_eq!(
            found.own,
            [
                labelled("sc-a", owner, false),
                labelled("sc-a-kept", owner, true),
                labelled("x", None, false)
            ]
        );
        assert_eq!((found.others, found.cut), (1, false));
        assert!(sort(list, installation, 4).cut);
    }
}
