//! A look at a cluster by somebody who runs nothing on it: who it is, what may be done there, and which of its pods
//! are ours. Calls are bounded by their caller.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::check;
use super::seen::LABEL_KEPT;
use super::session::Session;
use crate::domain::target::{KubernetesBackend, TargetCheck};
use crate::ids::InstallationId;
use crate::runner::{EngineId, Found, Labelled, naming};

#[derive(Debug)]
pub struct Probe {
    session: Session,
}

impl Probe {
    pub fn new(backend: KubernetesBackend) -> Self {
        // Nothing is watched, so it is no matter whose.
        Self { session: Session::new(backend, InstallationId::generate()) }
    }

    /// Who answers, or why nobody does.
    pub async fn describe(&self) -> Result<(EngineId, String), String> {
        self.session.who_now().await
    }

    /// What it lacks. For one that has answered.
    pub async fn rights(&self) -> TargetCheck {
        let mut found = TargetCheck::default();
        check::rights(&self.session, &mut found).await;
        found
    }

    /// The pods of this installation by their namespaces, and the number of those of others.
    pub async fn list(&self, installation: InstallationId, limit: u32) -> Result<Found, String> {
        let mut found = Found::default();
        let params = ListParams::default().labels(naming::LABEL_INSTALLATION).limit(limit);
        for namespace in self.session.namespaces() {
            let list = self
                .session
                .call(async |client| {
                    Api::<Pod>::namespaced(client, &namespace).list_metadata(&params).await
                })
                .await
                .map_err(|it| it.answer())?;
            found.cut |= list.metadata.continue_.is_some_and(|it| !it.is_empty());
            for it in list.items {
                let labels = it.metadata.labels.unwrap_or_default();
                if labels.get(naming::LABEL_INSTALLATION) != Some(&installation.to_string()) {
                    found.others += 1;
                    continue;
                }
                found.own.push(Labelled {
                    name: format!("{namespace}/{}", it.metadata.name.unwrap_or_default()),
                    owner: naming::owner(installation, |label| labels.get(label).cloned()),
                    kept: labels.contains_key(LABEL_KEPT),
                });
            }
        }
        Ok(found)
    }

    /// Where its credentials lead to, once they are read.
    pub fn place(&self) -> Option<String> {
        self.session.place()
    }
}
