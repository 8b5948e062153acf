//! The cluster of a target, and what it has of this installation.

use super::sandboxes::{self, Words, identity};
use super::{Check, some, unknown};
use crate::app::doctor::facts::{Asked, Cluster, ClusterFacts};
use crate::domain::target::{MissingPermission, TargetCheck};

pub(super) fn judge(facts: &ClusterFacts) -> Vec<Check> {
    let ClusterFacts { target, cluster, given, pods } = facts;
    let name = format!("cluster {target}");
    let mut checks = Vec::new();
    match cluster {
        Err(why) => checks.push(Check::fail(
            &name,
            format!("it can't be used: {why}"),
            format!(
                "see that its address, its credentials and its certificate are right (`supercargo targets get \
                 {target}`), and that this machine reaches it: until then tasks wait, with a condition"
            ),
        )),
        Ok(cluster) => {
            let Cluster { place, version, id, rights } = cluster;
            let found = format!("{place} answers: version {version}, identity {id}");
            checks.push(Check::ok(&name, found));
            checks.push(identity(&name, "cluster", id, given));
            checks.extend(judge_rights(&name, target, rights));
        }
    }
    let words = Words {
        what: "pods",
        engine: "cluster",
        remove: &|it| {
            let (namespace, pod) = it.split_once('/').unwrap_or(("default", it));
            // Ours would keep it.
            format!(
                "kubectl --namespace {namespace} patch pod {pod} --type merge --patch \
                 '{{\"metadata\": {{\"finalizers\": null}}}}' && kubectl --namespace {namespace} delete pod {pod}"
            )
        },
        remove_kept: &|installation| {
            format!(
                "kubectl delete pods --all-namespaces --selector \
                 supercargo.dev/installation={installation},supercargo.dev/kept"
            )
        },
    };
    checks.extend(sandboxes::judge(target, &words, pods));
    checks
}

fn judge_rights(name: &str, target: &str, rights: &Asked<TargetCheck>) -> Vec<Check> {
    let permissions = format!("{name} permissions");
    let rights = match rights {
        Ok(rights) => rights,
        Err(why) => return vec![unknown(permissions, why)],
    };
    let mut checks = vec![judge_missing(permissions, target, &rights.missing)];
    if !rights.warnings.is_empty() {
        checks.push(Check::warn(
            format!("{name} notes"),
            rights.warnings.join("; "),
            "tasks run without; the rules in deploy/kubernetes/rbac.yaml have what is missing",
        ));
    }
    checks
}

fn judge_missing(name: String, target: &str, missing: &[MissingPermission]) -> Check {
    if missing.is_empty() {
        return Check::ok(name, "its credentials may do there what tasks need");
    }
    let one = |it: &MissingPermission| {
        let MissingPermission { verb, resource, namespace, needed_for } = it;
        format!("{verb} {resource} in {namespace} ({needed_for})")
    };
    let all: Vec<_> = missing.iter().map(one).collect();
    let found = format!("its credentials may not: {}", some(&all));
    let fix = format!(
        "give its account a Role with them, as deploy/kubernetes/rbac.yaml does; `supercargo targets check {target}` \
         names them all"
    );
    // What is told of events is only said: everything else holds up work, or loses what it made.
    if missing.iter().all(|it| it.resource == "events") {
        Check::warn(name, found, fix)
    } else {
        Check::fail(name, found, fix)
    }
}
