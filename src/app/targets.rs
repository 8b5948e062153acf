//! The targets of this deployment: the local engine and the simulated one.

use std::sync::Arc;

use crate::config::{Config, TARGETS};
use crate::ids::InstallationId;
use crate::runner::fake::{FakeEngine, FakeRunner};
use crate::runner::{Runner, Targets};

#[cfg(feature = "docker")]
pub(super) const LOCAL: &str = "local";
pub(super) const SIMULATED: &str = "simulated";

pub(super) fn names() -> Vec<String> {
    TARGETS.iter().copied().map(str::to_owned).collect()
}

pub(super) fn connect(config: &Config, installation: InstallationId) -> anyhow::Result<Targets> {
    let simulated = FakeRunner::new(FakeEngine::new(SIMULATED), installation);
    let targets: [(&str, Arc<dyn Runner>); _] = [
        #[cfg(feature = "docker")]
        (LOCAL, Arc::new(docker(config, installation)?)),
        (SIMULATED, Arc::new(simulated)),
    ];
    Ok(targets.into_iter().map(|(name, runner)| (name.to_owned(), runner)).collect())
}

#[cfg(feature = "docker")]
fn docker(
    config: &Config,
    installation: InstallationId,
) -> anyhow::Result<crate::runner::docker::DockerRunner> {
    use anyhow::Context as _;

    use crate::runner::docker::{DockerConfig, DockerRunner};

    DockerRunner::new(DockerConfig {
        host: config.docker.host.clone(),
        log_max_bytes: config.limits.log,
        ..DockerConfig::new(installation)
    })
    .context("the target \"local\"")
}
