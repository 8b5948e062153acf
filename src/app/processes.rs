//! Wake-ups over the borders of processes: one connection listens, hints go out together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::loops::{self, Next};
use crate::store::{Error, Hint, Store};
use crate::wake::Wake;

/// Hints that come within this time go out as one.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often it is looked whether anybody else listens at all.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Whether a hint came since the others were counted last.
type Heard = Arc<AtomicBool>;

pub(super) fn spawn(tracker: &TaskTracker, stop: &CancellationToken, store: &Store, wake: &Wake) {
    let heard = Heard::default();
    {
        let (store, wake, heard) = (store.clone(), wake.clone(), Arc::clone(&heard));
        tracker.spawn(loops::run("listener", stop.clone(), loops::nothing, {
            let stop = stop.clone();
            move || listen(store.clone(), wake.clone(), Arc::clone(&heard), stop.clone())
        }));
    }
    let (store, wake) = (store.clone(), wake.clone());
    tracker.spawn(loops::run("notifier", stop.clone(), loops::nothing, {
        let stop = stop.clone();
        move || notify(store.clone(), wake.clone(), Arc::clone(&heard), stop.clone())
    }));
}

async fn listen(
    store: Store,
    wake: Wake,
    heard: Heard,
    stop: CancellationToken,
) -> Result<Next, Error> {
    let mut listener = tokio::select! {
        listener = store.listen() => listener?,
        () = stop.cancelled() => return Ok(Next::AtOnce),
    };
    // Whoever believed to be alone hears that it is not.
    store.notify().await?;
    loop {
        // Something may have happened while nobody listened.
        wake.anything();
        tokio::select! {
            // A lost connection is made anew from the top, after a pause if need be.
            hint = listener.next() => match hint? {
                Some(Hint::Anything) => {}
                Some(Hint::Targets) => wake.targets_changed(),
                None => return Ok(Next::AtOnce),
            },
            () = stop.cancelled() => return Ok(Next::AtOnce),
        }
        heard.store(true, Ordering::Relaxed);
    }
}

async fn notify(
    store: Store,
    wake: Wake,
    heard: Heard,
    stop: CancellationToken,
) -> Result<Next, Error> {
    let mut others = store.count_listeners().await? > 1;
    let mut counted = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = wake.until_changed_here() => {}
            () = stop.cancelled() => return Ok(Next::AtOnce),
        }
        let told = !others && heard.swap(false, Ordering::Relaxed);
        if told || counted.elapsed() > COUNT_EVERY {
            others = store.count_listeners().await? > 1;
            counted = tokio::time::Instant::now();
        }
        if others {
            store.notify().await?;
        }
        tokio::time::sleep(TOGETHER).await;
    }
}
