//! How the targets of a worker are.

use crate::runner::{EngineState, EngineWatch, Registry};
use crate::store::{TargetHealth, WorkerTargets};

/// Watches every target.
#[derive(Debug)]
pub(super) struct Health {
    targets: Registry,
    watch: EngineWatch,
}

impl Health {
    pub(super) fn watch(targets: &Registry) -> Self {
        Self { targets: targets.clone(), watch: EngineWatch::new(targets) }
    }

    /// Waits until one of them changes, comes or goes.
    pub(super) async fn changed(&mut self) {
        self.watch.changed().await;
    }

    pub(super) fn current(&self) -> WorkerTargets {
        let connected = self.targets.current();
        connected
            .iter()
            .map(|(name, it)| {
                let none = TargetHealth {
                    kind: it.runner.kind().as_str().to_owned(),
                    ready: false,
                    engine: None,
                    version: None,
                    why: None,
                    since: None,
                };
                let health = match &*it.runner.engine().borrow() {
                    EngineState::Connecting => {
                        TargetHealth { why: Some("connecting".to_owned()), ..none }
                    }
                    EngineState::Ready { id, version, node: _ } => TargetHealth {
                        ready: true,
                        engine: Some(id.0.clone()),
                        version: Some(version.clone()),
                        ..none
                    },
                    EngineState::Down { since, why } => {
                        TargetHealth { why: Some(why.clone()), since: Some(*since), ..none }
                    }
                };
                (name.clone(), health)
            })
            .collect()
    }
}
