//! Removes sandboxes that nobody answers for: left over when a removal failed, when an engine was away at
//! the end of its attempt, or when an attempt was given up on a target that could not be asked.
//!
//! A sandbox whose attempt is accounted for goes at once. One whose attempt the database does not know goes
//! only when it is old and was unknown in two passes in a row; and never on a failed read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::SignedDuration;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::failpoints::{self, Guard, Point};
use crate::ids::{AttemptId, InstallationId};
use crate::loops::Next;
use crate::runner::{
    Disposal, EngineState, EngineWatch, KillMode, OwnedSandbox, Registry, Runner, SandboxKey,
};
use crate::store::{AttemptFate, Error, Ledger};

const PERIOD: Duration = Duration::from_mins(1);
/// While a target is away, and behind the first look after it is back: what a process that died had asked of
/// the engine may still have been on its way then.
const SHORT_PERIOD: Duration = Duration::from_secs(2);
/// How old an unknown sandbox must be.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug)]
pub struct OrphanSweeper {
    pub store: Arc<dyn Ledger>,
    pub clock: Arc<dyn Clock>,
    pub installation: InstallationId,
    pub targets: Registry,
    unknown: HashSet<AttemptId>,
    /// The last look reached every target.
    settled: bool,
}

impl OrphanSweeper {
    pub fn new(
        store: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        installation: InstallationId,
        targets: Registry,
    ) -> Self {
        Self { store, clock, installation, targets, unknown: HashSet::new(), settled: false }
    }

    pub async fn tick(&mut self) -> Result<Next, Error> {
        let mut away = false;
        let mut unknown = HashSet::new();
        let connected = self.targets.current();
        for (name, it) in &*connected {
            let runner = &it.runner;
            if !matches!(&*runner.engine().borrow(), EngineState::Ready { .. }) {
                away = true;
                continue;
            }
            match runner.list_owned().await {
                Ok(owned) => self.sweep(name, runner.as_ref(), owned, &mut unknown).await?,
                Err(error) => {
                    tracing::warn!(target.name = name, %error, "the sandboxes can't be listed");
                    away = true;
                }
            }
        }
        self.unknown = unknown;
        let settled = std::mem::replace(&mut self.settled, !away);
        Ok(Next::After(if away || !settled { SHORT_PERIOD } else { PERIOD }))
    }

    /// What to wait for between two looks: a target that comes back, or is there for the first time.
    pub fn waker(&self) -> impl FnMut() -> BoxFuture<'static, ()> + use<> {
        let watch = Arc::new(Mutex::new(EngineWatch::new(&self.targets)));
        move || {
            let watch = Arc::clone(&watch);
            async move { watch.lock().await.changed().await }.boxed()
        }
    }

    async fn sweep(
        &self,
        target: &str,
        runner: &dyn Runner,
        owned: Vec<OwnedSandbox>,
        unknown: &mut HashSet<AttemptId>,
    ) -> Result<(), Error> {
        let owned: Vec<_> = owned.into_iter().filter(|it| !it.kept).collect();
        if owned.is_empty() {
            return Ok(());
        }
        let attempts: Vec<_> = owned.iter().map(|it| (it.task, it.attempt)).collect();
        let fates = self.store.attempt_fates(&attempts).await?;
        for it in owned {
            let disposal = match fates.get(&it.attempt) {
                Some(AttemptFate::Live) => continue,
                Some(AttemptFate::Ended { keep_sandbox: true }) => Disposal::Keep,
                Some(AttemptFate::Ended { keep_sandbox: false }) => Disposal::Remove,
                None => {
                    unknown.insert(it.attempt);
                    let old = it.created_at.duration_until(self.clock.now()) > GRACE;
                    let twice = self.unknown.contains(&it.attempt)
                        || !failpoints::holds(Guard::TwoPassSweep);
                    if !old || !twice {
                        continue;
                    }
                    Disposal::Remove
                }
            };
            let key = SandboxKey { installation: self.installation, attempt: it.attempt };
            tracing::info!(target.name = target, task.id = %it.task, attempt.id = %it.attempt, ?disposal, "sweeping a sandbox that is left over");
            failpoints::at(Point::SweepBegun);
            if let Err(error) = remove(runner, &key, disposal).await {
                tracing::warn!(target.name = target, attempt.id = %it.attempt, %error, "it could not be swept");
            }
            failpoints::at(Point::SweepDone);
        }
        Ok(())
    }
}

async fn remove(
    runner: &dyn Runner,
    key: &SandboxKey,
    disposal: Disposal,
) -> Result<(), crate::runner::RunnerError> {
    if disposal == Disposal::Keep {
        // Only what has ended is kept, and it may still run.
        runner.kill(key, KillMode::Force).await?;
    }
    runner.cleanup(key, disposal).await
}
