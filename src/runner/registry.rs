//! The targets of this process with their runners, while the service runs: they come, change and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use super::{EngineState, Runner};
use crate::domain::target::Target;

/// A target that this process is connected to.
#[derive(Debug, Clone)]
pub struct Connected {
    pub runner: Arc<dyn Runner>,
    pub target: Arc<Target>,
}

/// All of them at one time, by name.
pub type Targets = BTreeMap<String, Connected>;

/// Cheap to clone; all clones are one. An attempt keeps the runner that it began with.
#[derive(Debug, Clone)]
pub struct Registry {
    targets: Arc<watch::Sender<Arc<Targets>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(Targets::new())
    }
}

impl Registry {
    pub fn new(targets: Targets) -> Self {
        Self { targets: Arc::new(watch::channel(Arc::new(targets)).0) }
    }

    pub fn current(&self) -> Arc<Targets> {
        Arc::clone(&self.targets.borrow())
    }

    pub fn runner(&self, target: &str) -> Option<Arc<dyn Runner>> {
        self.targets.borrow().get(target).map(|it| Arc::clone(&it.runner))
    }

    pub fn replace(&self, targets: Targets) {
        self.targets.send_replace(Arc::new(targets));
    }

    /// Hears of each change of the targets, but not of their engines.
    pub fn watch(&self) -> watch::Receiver<Arc<Targets>> {
        self.targets.subscribe()
    }
}

/// Targets with nothing but a runner each.
impl FromIterator<(String, Arc<dyn Runner>)> for Registry {
    fn from_iter<I: IntoIterator<Item = (String, Arc<dyn Runner>)>>(runners: I) -> Self {
        use crate::domain::target::Backend;

        let connected = |runner| {
            let target = Arc::new(Target::plain(Backend::Simulated));
            Connected { runner, target }
        };
        Self::new(runners.into_iter().map(|(name, it)| (name, connected(it))).collect())
    }
}

/// Hears of changes of the targets and of their engines.
#[derive(Debug)]
pub struct EngineWatch {
    changes: watch::Receiver<Arc<Targets>>,
    engines: Vec<watch::Receiver<EngineState>>,
}

impl EngineWatch {
    pub fn new(registry: &Registry) -> Self {
        let mut it = Self { changes: registry.watch(), engines: Vec::new() };
        it.look();
        it
    }

    fn look(&mut self) {
        let targets = self.changes.borrow_and_update();
        self.engines = targets.values().map(|it| it.runner.engine()).collect();
    }

    /// Waits for a change since the last call.
    pub async fn changed(&mut self) {
        let engine = async {
            let mut engines: FuturesUnordered<_> =
                self.engines.iter_mut().map(watch::Receiver::changed).collect();
            while let Some(changed) = engines.next().await {
                if changed.is_ok() {
                    return;
                }
            }
            // No target, or its runner is gone: nothing will change.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            Ok(()) = self.changes.changed() => {}
            () = engine => return,
        }
        self.look();
    }
}
