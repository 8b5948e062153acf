//! What a task would be for its target, by the conversions that the runners themselves use.

use crate::api::{Renderer, Rendering};
use crate::domain::spec::{Fault, SpecHash, TaskSpec};
use crate::domain::target::{Backend, Target};
use crate::ids::{AttemptId, AttemptNo, InstallationId, RunId, TaskId};
use crate::runner::{EngineId, LaunchRequest, SandboxKey, fake};

/// Stands for what a task gets when it is submitted: it looks like an id, and is nobody's.
const PLACEHOLDER: uuid::Uuid = uuid::uuid!("00000000-0000-7000-8000-000000000000");

/// What is wrong with a pod template, where this program knows pods.
#[cfg(feature = "kubernetes")]
pub const CHECK_TEMPLATE: Option<fn(&serde_json::Value) -> Vec<Fault>> =
    Some(crate::runner::kubernetes::check_pod_template);
#[cfg(not(feature = "kubernetes"))]
pub const CHECK_TEMPLATE: Option<fn(&serde_json::Value) -> Vec<Fault>> = None;

#[derive(Debug, Clone)]
pub struct TargetRenderer {
    pub installation: InstallationId,
    pub log_max_bytes: u64,
}

impl Renderer for TargetRenderer {
    fn render(&self, target: &Target, spec: &TaskSpec, spec_hash: &SpecHash) -> Option<Rendering> {
        let attempt = AttemptId::from_uuid(PLACEHOLDER);
        let engine = EngineId(String::new());
        let request = LaunchRequest {
            key: SandboxKey { installation: self.installation, attempt },
            run: RunId::from_uuid(PLACEHOLDER),
            task: TaskId::from_uuid(PLACEHOLDER),
            attempt_no: AttemptNo::FIRST,
            spec,
            spec_hash,
            took_over: None,
            engine: &engine,
        };
        match &target.backend {
            Backend::Simulated => Some(Rendering::Simulated(fake::render(&request))),
            #[cfg(feature = "docker")]
            Backend::Docker(_) => {
                let (name, create) = crate::runner::docker::render(&request, self.log_max_bytes);
                Some(Rendering::Docker { name, create })
            }
            #[cfg(not(feature = "docker"))]
            Backend::Docker(_) => None,
            #[cfg(feature = "kubernetes")]
            Backend::Kubernetes(it) => {
                Some(match crate::runner::kubernetes::render(&request, it) {
                    Ok((name, pod, secrets)) => Rendering::Kubernetes { name, pod, secrets },
                    Err(failure) => Rendering::Refused(failure.message),
                })
            }
            #[cfg(not(feature = "kubernetes"))]
            Backend::Kubernetes(_) => None,
        }
    }
}
