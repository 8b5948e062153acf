//! Connects to the targets of the deployment, follows their changes, and answers questions about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::target::{Backend, DockerBackend, KubernetesBackend, Target};
use crate::ids::InstallationId;
use crate::loops::Next;
use crate::runner::fake::{FakeEngine, FakeRunner};
use crate::runner::{AbsentRunner, Connected, Registry, Runner, RunnerKind, TargetCheck, Targets};
use crate::store::{Error, Store};
use crate::targets::{Catalogue, Configured, Known};

/// Between two looks where no hint comes.
const PERIOD: Duration = Duration::from_secs(1);
/// Before another try where a backend could not even be set up, as where a file can't be read.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Of a check, however slow its engine is.
const CHECK_DEADLINE: Duration = Duration::from_secs(15);

/// The targets of this process's own configuration.
pub(super) fn configured(config: &Config) -> BTreeMap<String, Configured> {
    let of = |it: &crate::config::ConfiguredTarget| Configured {
        target: it.target.clone(),
        place: it.place.clone(),
    };
    config.targets.iter().map(|(name, it)| (name.clone(), of(it))).collect()
}

/// What connecting takes beside the document of a target.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) installation: InstallationId,
    #[cfg_attr(
        not(feature = "docker"),
        expect(dead_code, reason = "only engines that keep logs ask")
    )]
    pub(super) log_max_bytes: u64,
}

/// Keeps the registry of a worker as the catalogue is.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) setup: Setup,
    pub(super) registry: Registry,
    pub(super) catalogue: Catalogue,
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    /// As others are told who answered.
    pub(super) name: String,
    pub(super) checks: TaskTracker,
    /// Targets that could not be set up: when it was tried, and why.
    pub(super) failed: BTreeMap<String, (Instant, String)>,
}

impl Connector {
    pub(super) async fn tick(&mut self) -> Result<Next, Error> {
        let waiting = self.catalogue.refresh().await?;
        let known = self.catalogue.current();
        self.apply(&known);
        if waiting > 0 {
            self.answer(&known).await?;
        }
        Ok(Next::After(PERIOD))
    }

    /// Connects to what is new or other than before. A backend that is the same keeps its runner.
    pub(super) fn apply(&mut self, known: &Known) {
        let before = self.registry.current();
        let mut targets = Targets::new();
        let mut changed = before.len() != known.targets.len();
        for (name, target) in &*known.targets {
            let again = self.failed.get(name).is_some_and(|it| it.0.elapsed() >= AGAIN_AFTER);
            let connected = match before.get(name) {
                Some(it) if *it.target == *target && !again => it.clone(),
                Some(it) if it.target.backend == target.backend && !again => {
                    changed = true;
                    let runner = Arc::clone(&it.runner);
                    Connected { runner, target: Arc::new(target.clone()) }
                }
                it => {
                    let known = it.filter(|it| *it.target == *target);
                    let connected = self.connect(name, target, known);
                    changed |= known.is_none_or(|it| !Arc::ptr_eq(&it.runner, &connected.runner));
                    connected
                }
            };
            targets.insert(name.clone(), connected);
        }
        self.failed.retain(|name, _| targets.contains_key(name));
        if changed {
            self.registry.replace(targets);
        }
    }

    /// `known`: the same target, which could not be set up before.
    fn connect(&mut self, name: &str, target: &Target, known: Option<&Connected>) -> Connected {
        let runner = match connect(name, target, &self.setup) {
            Ok(runner) => {
                if self.failed.remove(name).is_some() {
                    tracing::info!(target.name = name, "the target is set up now");
                }
                runner
            }
            Err(error) => {
                let why = format!("{error:#}");
                let before = self.failed.insert(name.to_owned(), (Instant::now(), why.clone()));
                if let Some(known) = known
                    && before.is_some_and(|it| it.1 == why)
                {
                    return known.clone();
                }
                tracing::warn!(target.name = name, why, "the target can't be set up");
                Arc::new(AbsentRunner::new(kind(target), why, self.clock.now()))
            }
        };
        Connected { runner, target: Arc::new(target.clone()) }
    }

    /// Takes the questions that this worker can answer.
    async fn answer(&self, known: &Known) -> Result<(), Error> {
        let revisions: Vec<(String, Option<i64>)> =
            known.entries.iter().map(|(name, it)| (name.clone(), it.revision)).collect();
        for taken in self.store.take_checks(&self.name, &revisions).await? {
            let (runner, store) = (self.registry.runner(&taken.target), self.store.clone());
            self.checks.spawn(async move {
                let check = match runner {
                    Some(runner) => tokio::time::timeout(CHECK_DEADLINE, runner.check())
                        .await
                        .unwrap_or_else(|_| {
                            let why = format!("no answer within {} s", CHECK_DEADLINE.as_secs());
                            TargetCheck::unreachable(why)
                        }),
                    None => TargetCheck::unreachable("it was deleted meanwhile"),
                };
                if let Err(error) = store.answer_check(taken.id, &check).await {
                    tracing::warn!(target.name = taken.target, %error, "the answer to a check could not be stored");
                }
            });
        }
        Ok(())
    }
}

/// Looks at the store for those who connect to nothing.
pub(super) async fn refresh(catalogue: &Catalogue) -> Result<Next, Error> {
    catalogue.refresh().await?;
    Ok(Next::After(PERIOD))
}

const fn kind(target: &Target) -> RunnerKind {
    match target.backend {
        Backend::Docker(_) => RunnerKind::Docker,
        Backend::Kubernetes(_) => RunnerKind::Kubernetes,
        Backend::Simulated => RunnerKind::Simulated,
    }
}

fn connect(name: &str, target: &Target, setup: &Setup) -> anyhow::Result<Arc<dyn Runner>> {
    match &target.backend {
        Backend::Docker(docker) => connect_docker(docker, setup),
        Backend::Kubernetes(kubernetes) => connect_kubernetes(kubernetes, setup),
        Backend::Simulated => {
            Ok(Arc::new(FakeRunner::new(FakeEngine::new(name), setup.installation)))
        }
    }
}

#[cfg(feature = "docker")]
fn connect_docker(docker: &DockerBackend, setup: &Setup) -> anyhow::Result<Arc<dyn Runner>> {
    use crate::runner::docker::{DockerConfig, DockerRunner};

    let config = DockerConfig {
        host: docker.host.clone(),
        log_max_bytes: setup.log_max_bytes,
        ..DockerConfig::new(setup.installation)
    };
    Ok(Arc::new(DockerRunner::new(config)?))
}

#[cfg(not(feature = "docker"))]
fn connect_docker(_: &DockerBackend, _: &Setup) -> anyhow::Result<Arc<dyn Runner>> {
    anyhow::bail!("Docker is not built into this program")
}

#[cfg(feature = "kubernetes")]
fn connect_kubernetes(it: &KubernetesBackend, setup: &Setup) -> anyhow::Result<Arc<dyn Runner>> {
    use crate::runner::kubernetes::{KubernetesConfig, KubernetesRunner, check_pod_template};

    if let Some(template) = &it.pod_template
        && let Some(it) = check_pod_template(template).first()
    {
        anyhow::bail!("/pod_template{}: {}", it.pointer, it.detail);
    }
    let config = KubernetesConfig { backend: it.clone(), installation: setup.installation };
    Ok(Arc::new(KubernetesRunner::new(config)))
}

#[cfg(not(feature = "kubernetes"))]
fn connect_kubernetes(_: &KubernetesBackend, _: &Setup) -> anyhow::Result<Arc<dyn Runner>> {
    anyhow::bail!("Kubernetes is not built into this program")
}
