//! How the targets of a worker are.

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use crate::runner::{EngineState, Targets};
use crate::store::{TargetHealth, WorkerTargets};

/// Watches every target.
#[derive(Debug)]
pub(super) struct Health {
    targets: Vec<(String, &'static str, watch::Receiver<EngineState>)>,
}

impl Health {
    pub(super) fn watch(targets: &Targets) -> Self {
        let targets = targets
            .iter()
            .map(|(name, runner)| (name.clone(), runner.kind().as_str(), runner.engine()))
            .collect();
        Self { targets }
    }

    /// Waits until one of them changes.
    pub(super) async fn changed(&mut self) {
        let mut changes: FuturesUnordered<_> =
            self.targets.iter_mut().map(|(_, _, engine)| engine.changed()).collect();
        if let Some(Ok(())) = changes.next().await {
            return;
        }
        // No target, or its runner is gone: nothing will change.
        std::future::pending::<()>().await;
    }

    pub(super) fn current(&self) -> WorkerTargets {
        self.targets
            .iter()
            .map(|(name, kind, engine)| {
                let none = TargetHealth {
                    kind: (*kind).to_owned(),
                    ready: false,
                    engine: None,
                    version: None,
                    why: None,
                    since: None,
                };
                let health = match &*engine.borrow() {
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
