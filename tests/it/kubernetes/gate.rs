//! A node that hears of a pod before it can see the Secret that the pod starts by.

use std::sync::Arc;

use supercargo::runner::naming;

use super::scene::PATIENCE;
use crate::support::sandbox::task;
use crate::support::subject::{Subject, run};
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_missed_it_is_made_to_look_again() {
    run(Subject::kubernetes(), |subject: Arc<Subject>| async move {
        let Some(pods) = subject.pods() else { return };
        let attempt = subject.attempt(task("true", &[]));
        let name = naming::sandbox_name(&attempt.key);
        subject.lose_next_create();
        attempt.try_launch(&*subject.runner).await.unwrap_err();
        until("its node has missed it", PATIENCE, async || {
            let statuses = pods.get(&name).await.ok()?.status?.container_statuses?;
            let waiting = statuses.first()?.state.as_ref()?.waiting.as_ref()?;
            (waiting.reason.as_deref()? == "CreateContainerConfigError").then_some(())
        })
        .await;
        let launched = attempt.launch(&*subject.runner).await;
        assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
        let nudge = |it: &String| it.starts_with("PATCH ") && it.contains(&name);
        assert!(subject.requests().iter().any(nudge), "{:?}", subject.requests());
    })
    .await;
}
