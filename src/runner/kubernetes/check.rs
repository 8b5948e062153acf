//! Whether a cluster could run tasks: does it answer, and may we do there what we do.

use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::session::Session;
use crate::domain::target::{Access, KubeconfigSource, MissingPermission, TargetCheck};
use crate::runner::EngineState;

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
    // A connection that is upgraded begins with a GET; newer clusters count it as a create too.
    ("get", "pods", "exec", FILES),
    ("create", "pods", "exec", FILES),
    ("list", "events", "", EVENTS),
    ("watch", "events", "", EVENTS),
];

pub(super) async fn check(session: &Session) -> TargetCheck {
    let mut check = TargetCheck::default();
    match session.ask_now().await {
        Ok(EngineState::Ready { id, version, .. }) => {
            check.reachable = true;
            check.engine = Some(id.0);
            check.version = Some(version);
        }
        Ok(EngineState::Connecting | EngineState::Down { .. }) => {}
        Err(why) => {
            check.why = Some(why);
            // One that answers, and lets us do too little, can still say what that is.
            let Ok((_, version)) = session.who_now().await else { return check };
            check.version = Some(version);
        }
    }
    rights(session, &mut check).await;
    check
}

/// What our credentials may do where tasks go.
pub(super) async fn rights(session: &Session, check: &mut TargetCheck) {
    let namespaces = session.namespaces();
    let wanted =
        namespaces.iter().flat_map(|namespace| WANTED.iter().map(move |it| (namespace, it)));
    let asked = wanted.map(async |(namespace, &(verb, resource, subresource, needed_for))| {
        let allowed = is_allowed(session, namespace, verb, resource, subresource, None).await;
        (!allowed).then(|| missing(verb, resource, subresource, namespace, needed_for))
    });
    // One after another they would take as long as the answer may.
    check.missing.extend(join_all(asked).await.into_iter().flatten());
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
    if session.is_unverified() {
        let text = "tls_skip_verify: whoever answers at its address is taken for the API server, and gets the \
                    credentials; give its certificate in \"ca\" instead";
        check.warnings.push(text.to_owned());
    }
    if let Access::Kubeconfig { source: KubeconfigSource::Default, .. } = session.backend().access {
        let text = "the kubeconfig is that of each worker's own environment: they may differ";
        check.warnings.push(text.to_owned());
    }
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
