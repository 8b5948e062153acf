//! Pulls, from a registry that does what a test says.

use std::sync::Arc;

use serde_json::json;
use supercargo::domain::failure::Reason;
use supercargo::runner::LaunchError;
use tokio_util::sync::CancellationToken;

use crate::support::engine::{SOCKET, docker};
use crate::support::registry::{Mood, Registry};
use crate::support::sandbox::{Attempt, Steps, task_with};
use crate::support::subject::{Subject, run};
use crate::support::{eventually, within};

fn attempt(subject: &Subject, image: &str, more: serde_json::Value) -> Attempt {
    let mut fields = json!({"image": image, "pull_policy": "if_not_present", "command": ["/none"]});
    for (field, value) in more.as_object().unwrap() {
        fields[field] = value.clone();
    }
    subject.attempt(task_with("", &[], &fields))
}

/// The image has nothing to run: whoever has it fails for that.
fn reason(result: Result<supercargo::runner::Launched, LaunchError>) -> Reason {
    match result.unwrap_err() {
        LaunchError::Refused(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}

async fn remove(image: &str) {
    let options = bollard::query_parameters::RemoveImageOptionsBuilder::new().force(true).build();
    docker(SOCKET.as_ref()).unwrap().remove_image(image, Some(options), None).await.unwrap();
}

fn pulls(subject: &Subject) -> usize {
    subject.requests().iter().filter(|it| it.contains("/images/create")).count()
}

#[tokio::test]
async fn an_image_is_pulled_when_it_is_missing_or_always() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let registry = Registry::start(Mood::Kind).await;
        let image = registry.image();
        let cases = [
            ("if_not_present", &["pulling", "pulled", "created"][..], 1),
            ("if_not_present", &["created"], 1),
            ("always", &["pulling", "pulled", "created"], 2),
        ];
        for (policy, expected, pulled) in cases {
            let attempt = attempt(&subject, &image, json!({"pull_policy": policy}));
            let steps = Steps::default();
            let cancel = CancellationToken::new();
            let result = subject.runner.launch(&attempt.request(), &steps, &cancel).await;
            assert_eq!(reason(result), Reason::CommandNotFound);
            assert_eq!(*steps.heard.lock().unwrap(), expected);
            assert_eq!(pulls(&subject), pulled);
        }
        remove(&image).await;
    })
    .await;
}

#[tokio::test]
async fn one_pull_serves_all_who_wait_and_outlives_those_who_give_up() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let registry = Registry::start(Mood::Slow).await;
        let image = registry.image();
        let attempts: Vec<Attempt> = (0..4).map(|_| attempt(&subject, &image, json!({}))).collect();
        let steps = Steps::default();
        let (never, cancel) = (CancellationToken::new(), CancellationToken::new());
        let requests: Vec<_> = attempts.iter().map(Attempt::request).collect();
        let launch = |index: usize, cancel| subject.runner.launch(&requests[index], &steps, cancel);
        let meanwhile = async {
            eventually("all of them wait for the pull", || async {
                let pulling =
                    steps.heard.lock().unwrap().iter().filter(|it| **it == "pulling").count();
                pulling == 4 && registry.asked() > 0
            })
            .await;
            // The first one, too: it is nobody's pull.
            cancel.cancel();
        };
        let (first, second, third, fourth, ()) = tokio::join!(
            async {
                let result = within("a cancelled launch", launch(0, &cancel)).await;
                registry.release();
                result
            },
            launch(1, &never),
            launch(2, &never),
            launch(3, &never),
            meanwhile,
        );
        assert!(matches!(first, Err(LaunchError::Cancelled)), "{first:?}");
        for result in [second, third, fourth] {
            assert_eq!(reason(result), Reason::CommandNotFound);
        }
        assert_eq!(pulls(&subject), 1);
        remove(&image).await;
    })
    .await;
}

#[tokio::test]
async fn a_pull_ends_with_its_timeout() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let registry = Registry::start(Mood::Slow).await;
        let attempt = attempt(&subject, &registry.image(), json!({"timeouts": {"pull": "1s"}}));
        assert_eq!(reason(attempt.try_launch(&*subject.runner).await), Reason::Timeout);
        // Nobody waits for it any more: the next one begins anew.
        assert_eq!(reason(attempt.try_launch(&*subject.runner).await), Reason::Timeout);
        assert_eq!(pulls(&subject), 2);
    })
    .await;
}

#[tokio::test]
async fn what_the_registry_says_is_the_reason() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let cases = [
            (Mood::Refuses(404, "MANIFEST_UNKNOWN"), Reason::ImageNotFound),
            (Mood::Refuses(401, "UNAUTHORIZED"), Reason::RegistryAuth),
            (Mood::Refuses(429, "TOOMANYREQUESTS"), Reason::RegistryTransient),
            (Mood::Refuses(503, "UNAVAILABLE"), Reason::RegistryTransient),
            (Mood::BreaksOff, Reason::RegistryTransient),
        ];
        for (mood, expected) in cases {
            let registry = Registry::start(mood).await;
            let attempt = attempt(&subject, &registry.image(), json!({}));
            let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
            let LaunchError::Refused(failure) = error else { panic!("{mood:?}: {error:?}") };
            assert_eq!(failure.reason, expected, "{mood:?}: {}", failure.message);
        }
    })
    .await;
}
