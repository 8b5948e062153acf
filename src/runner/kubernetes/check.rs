//! Whether a cluster could run tasks: does it answer, and may we do there what we do.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use tokio::time::timeout;

use super::session::{PROBE_TIMEOUT, Session};
use crate::domain::target::{Access, KubeconfigSource, MissingPermission, TargetCheck};
use crate::runner::{EngineState, RunnerError};

/// How long it may take to find out whether a cluster answers at all: the first probe, and a little more.
const CONNECT_PATIENCE: Duration = PROBE_TIMEOUT.saturating_add(Duration::from_secs(1));

const RUN: &str = "running tasks";
const FILES: &str = "outputs that are files";
const EVENTS: &str = "saying why a pod waits";

/// (verb, resource, subresource, what does not work without), in each namespace.
const WANTED: &[(&str, &str, &str, &str)] = &[
    ("create", "pods", "", RUN),
    ("get", "pods", "", RUN),
    ("list", "pods", "", RUN),
    ("watch", "pods", "", RUN),
    ("patch", "pods", "", RUN),
    ("delete", "pods", "", RUN),
    ("create", "secrets", "", RUN),
    ("get", "secrets", "", "taking over what another worker had begun"),
    ("delete", "secrets", "", "cancelling a pod that waits for its image"),
    ("get", "pods", "log", "logs"),
    // An exec begins with a GET, which newer clusters count as a create too.
    ("get", "pods", "exec", FILES),
    ("create", "pods", "exec", FILES),
    ("list", "events", "", EVENTS),
    ("watch", "events", "", EVENTS),
];

pub(super) async fn check(session: &Session) -> TargetCheck {
    let mut check = TargetCheck::default();
    // A target is asked right after it was put, as a rule. Whatever comes of it, the answer says.
    let mut state = session.state();
    let known = state.wait_for(|it| !matches!(it, EngineState::Connecting));
    let _ = timeout(CONNECT_PATIENCE, known).await;
    match &*session.state().borrow() {
        EngineState::Ready { id, version, .. } => {
            check.engine = Some(id.0.clone());
            check.version = Some(version.clone());
        }
        EngineState::Connecting => check.why = Some("not connected yet".to_owned()),
        EngineState::Down { why, .. } => check.why = Some(why.clone()),
    }
    let version = session.call(async |client| client.apiserver_version().await).await;
    match version {
        Ok(version) => check.version = Some(version.git_version),
        Err(fault) => {
            let why = RunnerError::from(fault).to_string();
            return TargetCheck { reachable: false, why: check.why.or(Some(why)), ..check };
        }
    }
    check.reachable = check.why.is_none();
    for namespace in session.namespaces() {
        for &(verb, resource, subresource, needed_for) in WANTED {
            if !is_allowed(session, &namespace, verb, resource, subresource, None).await {
                check.missing.push(missing(verb, resource, subresource, &namespace, needed_for));
            }
        }
    }
    if !is_allowed(session, "kube-system", "get", "namespaces", "", Some("kube-system")).await {
        check.warnings.push(
            "the namespace kube-system may not be looked at, whose UID tells clusters apart: they are told apart by \
             the address and the certificate of the API server"
                .to_owned(),
        );
    }
    if !is_allowed(session, "", "get", "nodes", "", None).await {
        check.warnings.push(
            "nodes may not be looked at: a task whose node is removed ends only by timeouts.run"
                .to_owned(),
        );
    }
    let backend = session.backend();
    if backend.tls_skip_verify {
        check.warnings.push(
            "tls_skip_verify: whoever answers at its address is taken for the API server"
                .to_owned(),
        );
    }
    if let Access::Kubeconfig { source: KubeconfigSource::Default, .. } = backend.access {
        let text = "the kubeconfig is that of each worker's own environment: they may differ";
        check.warnings.push(text.to_owned());
    }
    check
}

fn missing(
    verb: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
    needed_for: &str,
) -> MissingPermission {
    let resource = match subresource {
        "" => resource.to_owned(),
        subresource => format!("{resource}/{subresource}"),
    };
    MissingPermission {
        verb: verb.to_owned(),
        resource,
        namespace: namespace.to_owned(),
        needed_for: needed_for.to_owned(),
    }
}

/// Without an answer it is taken for allowed: the call itself will tell.
async fn is_allowed(
    session: &Session,
    namespace: &str,
    verb: &str,
    resource: &str,
    subresource: &str,
    name: Option<&str>,
) -> bool {
    let some = |text: &str| Some(text.to_owned()).filter(|it| !it.is_empty());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: some(namespace),
                verb: some(verb),
                resource: some(resource),
                subresource: some(subresource),
                name: name.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let asked = session
        .call(async |client| {
            Api::<SelfSubjectAccessReview>::all(client)
                .create(&PostParams::default(), &review)
                .await
        })
        .await;
    asked.ok().and_then(|it| it.status).is_none_or(|it| it.allowed)
}
