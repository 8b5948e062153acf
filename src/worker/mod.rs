//! Drives attempts: claims tasks, keeps their lease, runs one supervisor for each.
//!
//! There is no recovery path. What a worker held before it was restarted, what it takes from a dead one and
//! what it claims from the queue go to the same supervisor, which asks the state machine what to do next.

mod claims;
mod collect;
mod events;
mod lease;
mod selectors;
mod slots;
mod supervisor;
mod targets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::domain::outcome::StopReason;
use crate::failpoints::gated;
use crate::ids::{Fence, InstallationId, TaskId, WorkerId};
use crate::logs::pump;
use crate::logs::reader::LogReader;
use crate::outputs::FolderStore;
use crate::runner::Registry;
use crate::store::{self, ClaimedTask, Ledger};
use crate::wake::Wake;

use lease::Lease;
use selectors::Selectors;
use slots::Slots;

/// What a worker may do at once, and how often it looks.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Tasks held for one target that does not say how many.
    pub concurrency: usize,
    /// Starts in flight for one target.
    pub starts: usize,
    pub heartbeat: Duration,
    /// How long after its last heartbeat the others take over.
    pub lease: Duration,
    /// Between looks where no wake-up comes.
    pub poll: Duration,
    pub log: pump::Limits,
    pub output_json_bytes: u64,
    pub output_file_bytes: u64,
}

/// What a worker works with.
#[derive(Debug)]
pub struct Parts {
    pub store: Arc<dyn Ledger>,
    pub wake: Wake,
    pub clock: Arc<dyn Clock>,
    pub installation: InstallationId,
    pub worker: WorkerId,
    pub targets: Registry,
    pub objects: FolderStore,
    pub settings: Settings,
}

/// One worker process.
#[derive(Debug, Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

/// A database that does not answer must not hold up a stop.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);
/// Of events that are written apart from a step of their attempt, at once.
const TELLING: usize = 4;

type Stops = HashMap<TaskId, (Fence, watch::Sender<Option<StopReason>>)>;

#[derive(Debug)]
struct Shared {
    parts: Parts,
    reader: LogReader,
    lease: Lease,
    slots: Slots,
    selectors: Selectors,
    /// The way to the supervisor of each task, and the fence that it has: a task that is claimed again may
    /// have two for a moment, of which the older one only cleans up.
    stops: Mutex<Stops>,
    /// Held while attempts are taken from the database and given to supervisors.
    taking: tokio::sync::Mutex<()>,
    /// No more tasks are claimed.
    draining: CancellationToken,
    /// Supervisors leave their sandboxes running and end.
    detach: CancellationToken,
    supervisors: TaskTracker,
    /// Who may write events before the next step of the attempt takes them along.
    telling: Semaphore,
}

impl Worker {
    /// Takes the identity, and back what it held before.
    pub async fn start(parts: Parts, tracker: &TaskTracker) -> Result<Self, store::Error> {
        let hostname = hostname();
        let epoch =
            parts.store.register_worker(parts.worker, &hostname, env!("CARGO_PKG_VERSION")).await?;
        let shared = Arc::new(Shared {
            reader: LogReader::new(Arc::clone(&parts.store), parts.wake.clone()),
            lease: Lease::new(epoch, parts.settings.lease),
            slots: Slots::new(parts.settings.concurrency, parts.settings.starts),
            selectors: Selectors::new(parts.settings.poll),
            stops: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            draining: CancellationToken::new(),
            detach: CancellationToken::new(),
            supervisors: TaskTracker::new(),
            telling: Semaphore::new(TELLING),
            parts,
        });
        let own = shared.parts.store.take_own(shared.parts.worker, &[]).await?;
        if !own.is_empty() {
            tracing::info!(tasks = own.len(), "taking back the tasks of before the restart");
        }
        for claimed in own {
            Shared::supervise(&shared, claimed, true, 0);
        }
        tracker.spawn(gated(lease::run(Arc::clone(&shared))));
        tracker.spawn(gated(claims::run(Arc::clone(&shared))));
        tracker.spawn(gated(claims::take_over(Arc::clone(&shared))));
        tracker.spawn(gated(claims::watch_stops(Arc::clone(&shared))));
        Ok(Self { shared })
    }

    /// Resolves when another process has taken this worker's identity: this one must end.
    pub async fn until_replaced(&self) {
        self.shared.lease.until_lost().await;
    }

    /// Claims nothing more.
    pub fn drain(&self) {
        self.shared.draining.cancel();
    }

    /// Lets go of everything that runs, without touching it, and gives the lease up. Attempts that could
    /// not be let go of in time are named in the answer by their number.
    pub async fn detach(&self, deadline: Duration) -> usize {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.detach.cancel();
        shared.supervisors.close();
        let left = match tokio::time::timeout(deadline, shared.supervisors.wait()).await {
            Ok(()) => 0,
            Err(_) => shared.supervisors.len(),
        };
        shared.lease.stop();
        let released = shared.parts.store.release_lease(shared.parts.worker, shared.lease.epoch());
        if let Ok(Err(error)) = tokio::time::timeout(RELEASE_DEADLINE, released).await {
            tracing::warn!(%error, "the lease could not be given up, others wait for it to expire");
        }
        left
    }
}

impl Shared {
    /// Starts the supervisor of an attempt that this worker was given. `lapses` is how often its lease had lapsed
    /// when it asked for it: the answer may have come so late that somebody else has the attempt by now.
    fn supervise(self: &Arc<Self>, claimed: ClaimedTask, taken_over: bool, lapses: u64) {
        let (stop, stopped) = watch::channel(claimed.stop);
        let fence = claimed.fence;
        self.stops().insert(claimed.task, (fence, stop));
        let shared = Arc::clone(self);
        let slot = self.slots.take(&claimed.target, taken_over);
        self.supervisors.spawn(gated(async move {
            let task = claimed.task;
            supervisor::run(&shared, claimed, taken_over, lapses, stopped, slot).await;
            let mut stops = shared.stops();
            if stops.get(&task).is_some_and(|(held, _)| *held == fence) {
                stops.remove(&task);
            }
        }));
    }

    fn stops(&self) -> std::sync::MutexGuard<'_, Stops> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
