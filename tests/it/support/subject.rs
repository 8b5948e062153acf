//! The backends under test, and what a test may do to each of them.

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use supercargo::domain::spec::TaskSpec;
use supercargo::ids::InstallationId;
use supercargo::runner::docker::{DockerConfig, DockerRunner};
use supercargo::runner::fake::{FakeEngine, FakeRunner, Held as FakeHeld};
use supercargo::runner::kubernetes::{KubernetesConfig, KubernetesRunner};
use supercargo::runner::{Disposal, EngineId, EngineState, Runner, SandboxKey, naming};
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::engine::local;
use super::proxy::{Fate, Proxy};
use super::sandbox::Attempt;
use super::within;

/// One backend with an installation of its own on it.
pub(crate) struct Subject {
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) installation: InstallationId,
    pub(crate) engine: EngineId,
    backend: Backend,
}

enum Backend {
    Fake(FakeEngine),
    Docker(Proxy),
    Kubernetes(Box<(Proxy, Cluster)>),
}

/// A start on its way.
pub(crate) enum Held {
    Fake(FakeHeld),
    AtProxy { arrived: oneshot::Receiver<()>, go_on: oneshot::Sender<()> },
}

impl Held {
    pub(crate) async fn arrived(&mut self) {
        let arrived = async {
            match self {
                Self::Fake(held) => held.arrived().await,
                Self::AtProxy { arrived, .. } => arrived.await.is_ok(),
            }
        };
        assert!(within("a start arrives", arrived).await, "it never came to a start");
    }

    pub(crate) fn release(self) {
        match self {
            Self::Fake(held) => held.release(),
            Self::AtProxy { go_on, .. } => go_on.send(()).unwrap(),
        }
    }
}

impl Subject {
    pub(crate) async fn fake() -> Option<Self> {
        let backend = Backend::Fake(FakeEngine::recording("fake-1"));
        Some(Self::over(backend).await)
    }

    pub(crate) async fn docker() -> Option<Self> {
        let backend = Backend::Docker(Proxy::start(local().await?));
        Some(Self::over(backend).await)
    }

    pub(crate) async fn kubernetes() -> Option<Self> {
        let cluster = Cluster::find().await?;
        let backend = Backend::Kubernetes(Box::new((cluster.proxy(), cluster)));
        Some(Self::over(backend).await)
    }

    async fn over(backend: Backend) -> Self {
        let installation = InstallationId::generate();
        let runner = backend.runner(installation);
        let engine = ready(&*runner).await;
        Self { runner, installation, engine, backend }
    }

    /// As another worker of the same installation has it.
    pub(crate) async fn another(&self) -> Arc<dyn Runner> {
        let runner = self.backend.runner(self.installation);
        ready(&*runner).await;
        runner
    }

    pub(crate) fn attempt(&self, spec: TaskSpec) -> Attempt {
        Attempt::new(self.installation, self.engine.clone(), spec)
    }

    /// Returns when the runner knows.
    pub(crate) async fn engine_down(&self) {
        match &self.backend {
            Backend::Fake(engine) => engine.go_down("a test"),
            Backend::Docker(proxy) => proxy.close(),
            Backend::Kubernetes(it) => it.0.close(),
        }
        let mut engine = self.runner.engine();
        let down = engine.wait_for(|it| matches!(it, EngineState::Down { .. }));
        within("the engine is down", down).await.unwrap();
    }

    /// Returns when the runner knows.
    pub(crate) async fn engine_up(&self) {
        match &self.backend {
            Backend::Fake(engine) => engine.come_up(),
            Backend::Docker(proxy) => proxy.open(),
            Backend::Kubernetes(it) => it.0.open(),
        }
        ready(&*self.runner).await;
    }

    /// The next launch breaks off with the sandbox created and not started.
    pub(crate) fn lose_next_create(&self) {
        match &self.backend {
            Backend::Fake(engine) => engine.lose_next_create(),
            Backend::Docker(proxy) => proxy.next("POST", "/start", Fate::Unheard),
            Backend::Kubernetes(it) => it.0.next("POST", "/secrets", Fate::Unheard),
        }
    }

    /// The next launch starts the sandbox and gets no answer.
    pub(crate) fn lose_next_start(&self) {
        match &self.backend {
            Backend::Fake(engine) => engine.lose_next_start(),
            Backend::Docker(proxy) => proxy.next("POST", "/start", Fate::AnswerLost),
            Backend::Kubernetes(it) => it.0.next("POST", "/secrets", Fate::AnswerLost),
        }
    }

    pub(crate) fn hold_next_start(&self) -> Held {
        let (proxy, path) = match &self.backend {
            Backend::Fake(engine) => return Held::Fake(engine.hold_next_start()),
            Backend::Docker(proxy) => (proxy, "/start"),
            Backend::Kubernetes(it) => (&it.0, "/secrets"),
        };
        let (arrive, arrived) = oneshot::channel();
        let (go_on, released) = oneshot::channel();
        proxy.next("POST", path, Fate::Held(arrive, released));
        Held::AtProxy { arrived, go_on }
    }

    /// Those of Kubernetes, without a proxy.
    pub(crate) fn pods(&self) -> Option<Api<Pod>> {
        match &self.backend {
            Backend::Kubernetes(it) => Some(it.1.pods()),
            Backend::Fake(_) | Backend::Docker(_) => None,
        }
    }

    pub(crate) const fn is_kubernetes(&self) -> bool {
        matches!(self.backend, Backend::Kubernetes(_))
    }

    /// How often a simulated attempt was started.
    #[cfg(feature = "failpoints")]
    pub(crate) fn simulated_starts(&self, attempt: &Attempt) -> Option<u32> {
        match &self.backend {
            Backend::Fake(engine) => Some(engine.starts(attempt.key.attempt)),
            Backend::Docker(_) | Backend::Kubernetes(_) => None,
        }
    }

    /// What the engine was asked, where that goes over a wire.
    pub(crate) fn requests(&self) -> Vec<String> {
        match &self.backend {
            Backend::Fake(_) => Vec::new(),
            Backend::Docker(proxy) => proxy.requests(),
            Backend::Kubernetes(it) => it.0.requests(),
        }
    }

    /// Somebody else removes the sandbox.
    pub(crate) async fn remove_behind_its_back(&self, key: &SandboxKey) {
        match &self.backend {
            Backend::Fake(_) | Backend::Docker(_) => {
                self.another().await.cleanup(key, Disposal::Remove).await.unwrap();
            }
            // Not as this service does it, which tells.
            Backend::Kubernetes(it) => it.1.erase(&naming::sandbox_name(key)).await,
        }
    }

    async fn clean(&self) {
        for owned in self.runner.list_owned().await.unwrap() {
            let key = SandboxKey { installation: self.installation, attempt: owned.attempt };
            self.runner.cleanup(&key, Disposal::Remove).await.unwrap();
        }
    }
}

impl Backend {
    fn runner(&self, installation: InstallationId) -> Arc<dyn Runner> {
        match self {
            Self::Fake(engine) => Arc::new(FakeRunner::new(engine.clone(), installation)),
            Self::Docker(proxy) => Arc::new(docker_runner(&proxy.host(), installation)),
            Self::Kubernetes(it) => {
                let backend = it.1.backend_behind(&it.0);
                Arc::new(KubernetesRunner::new(KubernetesConfig { backend, installation }))
            }
        }
    }
}

pub(crate) fn docker_runner(host: &str, installation: InstallationId) -> DockerRunner {
    let config = DockerConfig { host: Some(host.to_owned()), ..DockerConfig::new(installation) };
    DockerRunner::new(config).unwrap()
}

pub(crate) async fn ready(runner: &dyn Runner) -> EngineId {
    let mut engine = runner.engine();
    let state = engine.wait_for(|it| matches!(it, EngineState::Ready { .. }));
    match within("the engine is ready", state).await.unwrap().clone() {
        EngineState::Ready { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

/// Runs one case, and leaves nothing behind whatever becomes of it.
pub(crate) async fn run<F, R>(subject: impl Future<Output = Option<Subject>>, case: F)
where
    F: FnOnce(Arc<Subject>) -> R,
    R: Future<Output = ()>,
{
    let Some(subject) = subject.await else { return };
    let subject = Arc::new(subject);
    let outcome = std::panic::AssertUnwindSafe(case(Arc::clone(&subject))).catch_unwind().await;
    if let Err(panic) = outcome {
        subject.engine_up().await;
        subject.clean().await;
        std::panic::resume_unwind(panic);
    }
    subject.clean().await;
}
