//! Wake-ups over the borders of processes: one connection listens, hints go out together.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::loops::{self, Next};
use crate::store::{Error, Store};
use crate::wake::Wake;

/// Hints that come within this time go out as one.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often it is looked whether anybody else listens at all.
const COUNT_EVERY: Duration = Duration::from_secs(5);

pub(super) fn spawn(tracker: &TaskTracker, stop: &CancellationToken, store: &Store, wake: &Wake) {
    {
        let (store, wake) = (store.clone(), wake.clone());
        tracker.spawn(loops::run("listener", stop.clone(), loops::nothing, {
            let stop = stop.clone();
            move || listen(store.clone(), wake.clone(), stop.clone())
        }));
    }
    let (store, wake) = (store.clone(), wake.clone());
    tracker.spawn(loops::run("notifier", stop.clone(), loops::nothing, {
        let stop = stop.clone();
        move || notify(store.clone(), wake.clone(), stop.clone())
    }));
}

async fn listen(store: Store, wake: Wake, stop: CancellationToken) -> Result<Next, Error> {
    let mut listener = tokio::select! {
        listener = store.listen() => listener?,
        () = stop.cancelled() => return Ok(Next::AtOnce),
    };
    loop {
        // Something may have happened while nobody listened.
        wake.anything();
        tokio::select! {
            // A lost connection is made anew from the top, after a pause if need be.
            hint = listener.next() => if hint?.is_none() { return Ok(Next::AtOnce) },
            () = stop.cancelled() => return Ok(Next::AtOnce),
        }
    }
}

async fn notify(store: Store, wake: Wake, stop: CancellationToken) -> Result<Next, Error> {
    let mut others = store.count_listeners().await? > 1;
    let mut counted = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = wake.until_changed_here() => {}
            () = stop.cancelled() => return Ok(Next::AtOnce),
        }
        if counted.elapsed() > COUNT_EVERY {
            others = store.count_listeners().await? > 1;
            counted = tokio::time::Instant::now();
        }
        if others {
            store.notify().await?;
        }
        tokio::time::sleep(TOGETHER).await;
    }
}
