//! The targets of this deployment: the local engine and the simulated one.

use std::sync::Arc;

use anyhow::Context;

use crate::config::Config;
use crate::ids::InstallationId;
use crate::runner::Targets;
use crate::runner::docker::{DockerConfig, DockerRunner};
use crate::runner::fake::{FakeEngine, FakeRunner};

const LOCAL: &str = "local";
const SIMULATED: &str = "simulated";

pub(super) fn names() -> Vec<String> {
    vec![LOCAL.to_owned(), SIMULATED.to_owned()]
}

pub(super) fn connect(config: &Config, installation: InstallationId) -> anyhow::Result<Targets> {
    let docker = DockerRunner::new(DockerConfig {
        host: config.docker.host.clone(),
        log_max_bytes: config.limits.log,
        ..DockerConfig::new(installation)
    })
    .context("the target \"local\"")?;
    let simulated = FakeRunner::new(FakeEngine::new(SIMULATED), installation);
    Ok(Targets::from([
        (LOCAL.to_owned(), Arc::new(docker) as Arc<_>),
        (SIMULATED.to_owned(), Arc::new(simulated) as Arc<_>),
    ]))
}
