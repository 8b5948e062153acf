//! The logs of an attempt: a pump for the main container, and one for each beside it.
//!
//! The main container alone says when they end: at its exit the others are read to where they are then,
//! whether they run on, have ended or never started.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Shared;
use super::{Quit, Supervisor, insist};
use crate::failpoints::gated;
use crate::logs::MAIN_CONTAINER;
use crate::logs::pump::{LogEnd, Pump};
use crate::runner::Handle;
use crate::store::{LogSeals, NewChunk};

pub(super) struct Pumps {
    main: PumpTask,
    sides: Vec<(Arc<str>, PumpTask)>,
    exited: CancellationToken,
    give_up: CancellationToken,
}

struct PumpTask(JoinHandle<Option<LogEnd>>);

impl Drop for PumpTask {
    fn drop(&mut self) {
        // Whoever has the attempt next reads on from what is stored.
        self.0.abort();
    }
}

/// How long the end of a log is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) deadline: Instant,
    /// Longer than that where the database was away.
    pub(super) after_outage: Duration,
}

/// The ends of all logs.
#[derive(Debug)]
pub(super) struct LogEnds {
    /// Of the container that decides.
    pub(super) main: LogEnd,
    sides: Vec<(Arc<str>, LogEnd)>,
}

impl LogEnds {
    /// What is written with the end of the attempt.
    pub(super) fn into_stored(self) -> (LogSeals, Vec<NewChunk>) {
        let main = (Arc::from(MAIN_CONTAINER), self.main);
        let (mut seals, mut chunks) = (LogSeals::new(), Vec::new());
        for (container, log) in std::iter::once(main).chain(self.sides) {
            seals.insert(container.to_string(), log.seal);
            chunks.extend(log.chunk);
        }
        (seals, chunks)
    }
}

impl Supervisor<'_> {
    pub(super) fn start_pumps(&self, handle: &Handle) -> Pumps {
        let (exited, give_up) = (CancellationToken::new(), CancellationToken::new());
        let start = |container: Arc<str>, handle: Handle| {
            let parts = &self.shared.parts;
            let pump = Pump {
                store: Arc::clone(&parts.store),
                wake: parts.wake.clone(),
                runner: Arc::clone(&self.runner),
                handle,
                container,
                task: self.claimed.task,
                attempt_no: self.claimed.attempt_no,
                fence: self.claimed.fence,
                limits: parts.settings.log,
                taken_over: self.taken_over,
            };
            let pump = gated(pump.run(exited.clone(), give_up.clone()));
            PumpTask(self.shared.supervisors.spawn(pump))
        };
        // One pump for each name, as two of one name would write to the same place.
        let mut sides: BTreeMap<_, _> = self.runner.side_logs(handle).into_iter().collect();
        sides.remove(MAIN_CONTAINER);
        let sides = sides.into_iter().map(|(container, handle)| {
            let container: Arc<str> = container.into();
            (Arc::clone(&container), start(container, handle))
        });
        let sides = sides.collect();
        Pumps { main: start(MAIN_CONTAINER.into(), handle.clone()), sides, exited, give_up }
    }
}

impl Pumps {
    /// The main container has ended.
    pub(super) fn exited(&self) {
        self.exited.cancel();
    }

    /// Each to its end, or as far as they come in time.
    pub(super) async fn drain(
        mut self,
        shared: &Shared,
        Patience { deadline, after_outage }: Patience,
    ) -> Result<LogEnds, Quit> {
        let give_up = self.give_up.clone();
        let ends = self.ends();
        tokio::pin!(ends);
        if let Ok(ends) = tokio::time::timeout_at(deadline, &mut ends).await {
            return ends;
        }
        // They may have waited for the database, which does not count: the engine still has the logs.
        if insist(shared, || shared.parts.store.ping()).await.is_ok()
            && let Ok(ends) = tokio::time::timeout(after_outage, &mut ends).await
        {
            return ends;
        }
        give_up.cancel();
        ends.await
    }

    /// What was read of them is what there is.
    pub(super) async fn give_up(mut self) -> Result<LogEnds, Quit> {
        self.give_up.cancel();
        self.ends().await
    }

    fn ends(&mut self) -> impl Future<Output = Result<LogEnds, Quit>> {
        let Self { main, sides, .. } = self;
        let sides = sides
            .iter_mut()
            .map(async |(container, pump)| (Arc::clone(container), (&mut pump.0).await));
        let all = futures_util::future::join(&mut main.0, join_all(sides));
        async {
            let (main, sides) = all.await;
            let main = log_end(main)?;
            let sides: Result<Vec<_>, Quit> =
                sides.into_iter().map(|(container, it)| Ok((container, log_end(it)?))).collect();
            Ok(LogEnds { main, sides: sides? })
        }
    }
}

/// A pump that ended without a log was fenced off. One that panicked takes its supervisor along, which
/// then begins anew.
fn log_end(ended: Result<Option<LogEnd>, JoinError>) -> Result<LogEnd, Quit> {
    match ended {
        Ok(log) => log.ok_or(Quit::Fenced),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Quit::Anew),
        },
    }
}
