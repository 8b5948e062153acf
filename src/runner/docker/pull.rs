//! Pulls: one per image at a time, however many tasks wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::convert::pull_reference;
use super::errors::{Fault, bounded};
use crate::domain::failure::{Failure, Reason};

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PullError {
    Refused(Failure),
    /// The engine itself could not be asked.
    Unavailable(String),
}

type Outcome = Option<Result<(), PullError>>;

/// One pull. It goes on as long as somebody waits for it.
#[derive(Debug)]
struct Pull {
    outcome: watch::Receiver<Outcome>,
    task: AbortHandle,
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
pub(super) struct Pulls {
    running: Mutex<HashMap<String, Weak<Pull>>>,
    tasks: TaskTracker,
}

impl Pulls {
    /// Pulls the image, or waits for the pull that is under way.
    pub(super) async fn pull(&self, docker: &Docker, image: &str) -> Result<(), PullError> {
        let pull = self.join(docker, image);
        let mut outcome = pull.outcome.clone();
        let lost = || PullError::Unavailable("the pull broke off".to_owned());
        let result = outcome.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        result.unwrap_or_else(|| Err(lost()))
    }

    fn join(&self, docker: &Docker, image: &str) -> Arc<Pull> {
        let mut pulls = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, it| it.strong_count() > 0);
        // One that is over was for those who waited for it: `pull_policy: always` asks again.
        let running =
            pulls.get(image).and_then(Weak::upgrade).filter(|it| it.outcome.borrow().is_none());
        if let Some(pull) = running {
            return pull;
        }
        let (done, outcome) = watch::channel(None);
        let (docker, name) = (docker.clone(), image.to_owned());
        let task = self.tasks.spawn(async move {
            done.send_replace(Some(fetch(&docker, &name).await));
        });
        let pull = Arc::new(Pull { outcome, task: task.abort_handle() });
        pulls.insert(image.to_owned(), Arc::downgrade(&pull));
        pull
    }
}

async fn fetch(docker: &Docker, image: &str) -> Result<(), PullError> {
    let (name, tag) = pull_reference(image);
    let mut options = CreateImageOptionsBuilder::new().from_image(&name);
    if let Some(tag) = &tag {
        options = options.tag(tag);
    }
    let mut steps = docker.create_image(Some(options.build()), None, None);
    while let Some(step) = steps.next().await {
        match step {
            Ok(_) => {}
            // The registry gave the manifest, and then something broke.
            Err(Error::DockerStreamError { error }) => {
                return Err(refused(Reason::RegistryTransient, image, &error));
            }
            Err(error) => return Err(classify(docker, image, Fault::from(error)).await),
        }
    }
    Ok(())
}

async fn classify(docker: &Docker, image: &str, fault: Fault) -> PullError {
    let Some(status) = fault.status() else { return PullError::Unavailable(fault.message()) };
    let reason = match by_status(status) {
        // The engine says 500 to nearly all that a registry may say; asked for the manifest alone it
        // hands on the registry's own status.
        Reason::RegistryTransient => {
            let asked =
                bounded(super::CALL_TIMEOUT, docker.inspect_registry_image(image, None)).await;
            asked.err().and_then(|it| it.status()).map_or(Reason::RegistryTransient, by_status)
        }
        reason => reason,
    };
    refused(reason, image, &fault.message())
}

const fn by_status(status: u16) -> Reason {
    match status {
        400 => Reason::InvalidImage,
        401 | 403 => Reason::RegistryAuth,
        404 => Reason::ImageNotFound,
        _ => Reason::RegistryTransient,
    }
}

fn refused(reason: Reason, image: &str, message: &str) -> PullError {
    PullError::Refused(Failure::new(reason, format!("{image} could not be pulled: {message}")))
}
