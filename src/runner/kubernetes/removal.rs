//! The end of pods: stopped, let go of, put aside. And the one decision that is taken before: whether a pod that
//! was not started ever will be.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::convert::FINALIZER;
use super::errors::Fault;
use super::files::ATTEMPT_KEY;
use super::observe::Standing;
use super::seen::{LABEL_KEPT, Seen};
use super::session::{CALL_TIMEOUT, Place, now};
use super::{DEADLINE_SECONDS, KubernetesRunner, convert, files, logs};
use crate::failpoints::{self, Point};
use crate::runner::RunnerError;

/// How long the end of what is removed is waited for.
const REMOVAL_PATIENCE: Duration = CALL_TIMEOUT;
/// How long a container that its node was about to start may take to show up.
const START_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl KubernetesRunner {
    /// Whether somebody has made sure that a pod never starts.
    pub(super) async fn is_void(&self, seen: &Seen) -> Result<bool, RunnerError> {
        let name = convert::gate_name(&seen.name, &seen.gate);
        let secret = self
            .session
            .call(async |client| {
                Api::<Secret>::namespaced(client, &seen.namespace).get_opt(&name).await
            })
            .await?;
        let secret = secret.ok_or_else(|| {
            RunnerError::Unavailable("its Secret has just been removed".to_owned())
        })?;
        Ok(!secret.data.unwrap_or_default().contains_key(ATTEMPT_KEY))
    }

    /// Sees to it that a pod that was not started never is. False: it has been told to start.
    pub(super) async fn make_void(&self, seen: &Seen) -> Result<bool, RunnerError> {
        let secret = files::void_gate(&seen.name, &seen.gate, &seen.uid);
        let made = self
            .session
            .call(async |client| {
                let params = PostParams::default();
                Api::<Secret>::namespaced(client, &seen.namespace).create(&params, &secret).await
            })
            .await;
        match made {
            Ok(_) => Ok(true),
            Err(fault) if fault.already_exists() => self.is_void(seen).await,
            // As in a namespace that is going: its Secret may have been there, and be gone already.
            Err(Fault::Status { code: 403, .. }) => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Asks for the removal of a pod, and says how it is then. None: there is none any more.
    pub(super) async fn delete(
        &self,
        seen: &Seen,
        grace: u32,
    ) -> Result<Option<Seen>, RunnerError> {
        let params = DeleteParams::default().grace_period(grace).preconditions(Preconditions {
            uid: Some(seen.uid.clone()),
            ..Preconditions::default()
        });
        let call = self.session.call(async |client| {
            Api::<Pod>::namespaced(client, &seen.namespace).delete(&seen.name, &params).await
        });
        let (deleted, ()) = tokio::join!(call, failpoints::in_flight(Point::RemoveInFlight));
        match deleted {
            Ok(answer) => Ok(answer.left().and_then(Seen::read)),
            Err(fault) => self.gone_or(seen, fault).await,
        }
    }

    /// What it means that a change of a pod was refused. None: that pod is not there any more.
    pub(super) async fn gone_or(
        &self,
        seen: &Seen,
        fault: Fault,
    ) -> Result<Option<Seen>, RunnerError> {
        match fault {
            Fault::Status { code: 404, .. } => Ok(None),
            Fault::Status { code: 409, .. } => {
                let place = Place { namespace: seen.namespace.clone(), pod: seen.name.clone() };
                match self.session.look(&place).await? {
                    // Somebody else is at it.
                    Some(it) if it.uid == seen.uid => Err(fault.into()),
                    Some(_) | None => Ok(None),
                }
            }
            fault => Err(fault.into()),
        }
    }

    pub(super) async fn patch(
        &self,
        seen: &Seen,
        patch: Patch<serde_json::Value>,
    ) -> Result<Option<Seen>, RunnerError> {
        let patched = self
            .session
            .call(async |client| {
                let params = PatchParams::default();
                Api::<Pod>::namespaced(client, &seen.namespace)
                    .patch(&seen.name, &params, &patch)
                    .await
            })
            .await;
        match patched {
            Ok(pod) => Ok(Seen::read(pod)),
            Err(fault) => self.gone_or(seen, fault).await,
        }
    }

    /// Lets go of a pod: nothing of it runs, and it is accounted for.
    pub(super) async fn release(&self, seen: &Seen) -> Result<(), RunnerError> {
        // What holds it first: a removal that has to wait is one more thing that its node is told of and asks the
        // API server about, and old nodes ask five times a second at most.
        let patch = json!({"metadata": {"uid": seen.uid, "finalizers": others(seen)}});
        self.patch(seen, Patch::Merge(patch)).await?;
        // Otherwise it would be there until its node confirms what is known.
        if !seen.deletion.is_some_and(|it| it.is_confirmed) {
            self.delete(seen, 0).await?;
        }
        Ok(())
    }

    /// Removes a pod, whatever it does, and returns when it does nothing any more.
    pub(super) async fn remove(&self, seen: &Seen) -> Result<(), RunnerError> {
        let place = Place { namespace: seen.namespace.clone(), pod: seen.name.clone() };
        let mut watched = self.session.watch(&place);
        let never_ran = !seen.has_run() && self.make_void(seen).await?;
        if never_ran || (seen.is_over() && seen.node.is_some()) {
            return self.release(seen).await;
        }
        if !seen.has_run() {
            // It was told to start, and may wait for its image: without its Secret it can't go on.
            self.take_back_gate(seen).await?;
        }
        let Some(asked) = self.delete(seen, 1).await? else { return Ok(()) };
        let (begun, patience) = (Instant::now(), Instant::now() + REMOVAL_PATIENCE);
        let mut latest = Arc::new(asked);
        loop {
            // Nodes take a minute to confirm the end of what they have not started.
            let never_came = !latest.has_run() && begun.elapsed() > START_PATIENCE;
            let ended = latest.is_dying()
                && timeout(START_PATIENCE, self.are_ended(&latest)).await.unwrap_or(false);
            if latest.is_over() || never_came || ended || self.lost_its_node(&latest).await {
                return self.release(&latest).await;
            }
            if Instant::now() >= patience {
                return Err(RunnerError::Unavailable("its node has not ended it yet".to_owned()));
            }
            // What comes first: a change, or the next thing to look at.
            timeout_at(Instant::now() + LOOK_AGAIN, watched.changed()).await.ok();
            match watched.current() {
                Some(now) if now.uid == seen.uid => latest = now,
                Some(_) => return Ok(()),
                None => match self.session.look(&place).await? {
                    Some(now) if now.uid == seen.uid => latest = now,
                    Some(_) | None => return Ok(()),
                },
            }
        }
    }

    /// Waits for the end of the containers that are said to run in a pod that its node ends, as older nodes do
    /// not tell of it: a followed log ends with its container. False: that can't be told now.
    pub(super) async fn are_ended(&self, seen: &Seen) -> bool {
        for container in seen.running() {
            // A connection that breaks off may look the same, once.
            for _ in 0..2 {
                let Ok(client) = self.session.client() else { return false };
                let log =
                    logs::until_the_end(&client, &seen.namespace, &seen.name, &container.name);
                if !log.await {
                    sleep(LOOK_AGAIN).await;
                    return false;
                }
            }
        }
        true
    }

    pub(super) async fn take_back_gate(&self, seen: &Seen) -> Result<(), RunnerError> {
        let name = convert::gate_name(&seen.name, &seen.gate);
        let taken = self
            .session
            .call(async |client| {
                let params = DeleteParams::default();
                Api::<Secret>::namespaced(client, &seen.namespace).delete(&name, &params).await
            })
            .await;
        match taken {
            Ok(_) | Err(Fault::Status { code: 404, .. }) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Whether a pod that should have ended can't say so any more, as its node is gone.
    pub(super) async fn lost_its_node(&self, seen: &Seen) -> bool {
        let Some(node) = &seen.node else { return false };
        let due = seen.deletion.is_some_and(|it| it.due_at < now());
        // Without an answer nothing is known.
        due && self.session.node_is_gone(node).await.unwrap_or(false)
    }

    pub(super) async fn put_aside(&self, seen: &Seen) -> Result<(), RunnerError> {
        match self.standing(seen) {
            Standing::Ended(_) => {}
            // Nothing of it is worth keeping, and it would wait for ever.
            Standing::Waiting { .. } | Standing::Refused(_) => return self.remove(seen).await,
            Standing::Running { .. } => {
                let why = "it still runs and can't be put aside";
                return Err(RunnerError::Unavailable(why.to_owned()));
            }
        }
        let mut patch = json!({"metadata": {
            "uid": seen.uid, "labels": {LABEL_KEPT: "true"}, "finalizers": others(seen),
        }});
        if !seen.is_over() {
            // What ran beside the main container ends, and stays.
            patch["spec"] = json!({"activeDeadlineSeconds": DEADLINE_SECONDS});
        }
        self.patch(seen, Patch::Merge(patch)).await?;
        failpoints::at(Point::KeptRenamed);
        Ok(())
    }
}

/// Its finalizers without ours.
fn others(seen: &Seen) -> Vec<&String> {
    seen.finalizers.iter().filter(|it| *it != FINALIZER).collect()
}
