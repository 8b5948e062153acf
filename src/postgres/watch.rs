//! Keeps the private Postgres running while the service runs.
//!
//! Invariants: a postmaster that ends is started again at the same address, forever, with growing
//! pauses; cancelling the token ends the watching and leaves Postgres as it is.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::postmaster::Postmaster;
use super::{Embedded, Endpoint, Error, bring_up, socket_dir};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After so long a life an end counts as the first one again.
const STABLE_AFTER: Duration = Duration::from_mins(1);
/// How often the socket itself is looked for: tidy-up jobs remove old files from `/tmp`.
const SOCKET_CHECK: Duration = Duration::from_secs(5);

/// A Postgres under supervision.
#[derive(Debug)]
pub struct Watch {
    endpoint: Endpoint,
    cancel: CancellationToken,
    task: JoinHandle<Embedded>,
}

impl Embedded {
    /// Starts to watch over Postgres until the token is cancelled or [`Watch::stop`] is called.
    pub fn watch(self, cancel: &CancellationToken) -> Watch {
        let cancel = cancel.child_token();
        Watch { endpoint: self.endpoint(), task: spawn(supervise(self, cancel.clone())), cancel }
    }
}

impl Watch {
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Ends the watching and leaves Postgres running.
    pub async fn release(self) -> Embedded {
        self.cancel.cancel();
        match self.task.await {
            Ok(embedded) => embedded,
            // The task is never aborted, so it can only have panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Ends the watching and then Postgres; see [`Embedded::stop`].
    ///
    /// # Errors
    /// As [`Embedded::stop`].
    pub async fn stop(self) -> Result<(), Error> {
        self.release().await.stop().await
    }
}

#[expect(clippy::disallowed_methods, reason = "its handle is kept, and it is awaited at the stop")]
fn spawn(task: impl Future<Output = Embedded> + Send + 'static) -> JoinHandle<Embedded> {
    tokio::spawn(task)
}

async fn supervise(mut embedded: Embedded, cancel: CancellationToken) -> Embedded {
    let mut pause = Duration::ZERO;
    loop {
        let started = Instant::now();
        let reason = tokio::select! {
            reason = ended(&mut embedded) => reason,
            () = cancel.cancelled() => return embedded,
        };
        if started.elapsed() > STABLE_AFTER {
            pause = Duration::ZERO;
        }
        tracing::error!(pid = embedded.pid(), reason, "private postgres ended, starting it again");
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => return embedded,
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            let up = tokio::select! {
                up = bring_up(&mut embedded.cluster) => up,
                () = cancel.cancelled() => {
                    // A start that was under way goes on by itself; `stop` must know it.
                    if let Some(postmaster) = Postmaster::running(&embedded.cluster) {
                        embedded.postmaster = postmaster;
                    }
                    return embedded;
                }
            };
            match up {
                Ok(postmaster) => {
                    embedded.postmaster = postmaster;
                    tracing::info!(pid = embedded.pid(), "private postgres is up again");
                    break;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "private postgres does not start");
                }
            }
        }
    }
}

/// Returns when the postmaster has ended, or can't be reached any more and was therefore ended.
async fn ended(embedded: &mut Embedded) -> String {
    let Embedded { cluster, postmaster } = embedded;
    let socket = socket_dir::socket_file(&cluster.socket_dir);
    loop {
        tokio::select! {
            reason = postmaster.exited(cluster) => return reason,
            () = sleep(SOCKET_CHECK) => {}
        }
        if !socket.exists() {
            postmaster.quit(cluster);
            return format!(
                "its socket {} was removed; {}",
                socket.display(),
                postmaster.exited(cluster).await
            );
        }
    }
}
