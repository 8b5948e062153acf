//! The one shape of a periodic loop: look on start, on a wake-up, and from time to time.
//!
//! A tick takes no input but the state of the world, so the first one after a crash is like any other. An
//! error backs off, a panic is caught and counts as one.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There was more than one tick takes.
    AtOnce,
    After(Duration),
}

/// Ticks until `stop`. A tick that runs is not cut short, but by the caller's own deadline.
pub async fn run<T, E, F, W>(
    name: &'static str,
    stop: CancellationToken,
    mut wake: impl FnMut() -> W,
    mut tick: impl FnMut() -> T,
) where
    T: Future<Output = Result<Next, E>>,
    E: fmt::Display,
    W: Future<Output = F>,
{
    let mut failures = 0_u32;
    loop {
        let ticked = AssertUnwindSafe(tick()).catch_unwind().await;
        let pause = match &ticked {
            Ok(Ok(Next::AtOnce)) => Duration::ZERO,
            Ok(Ok(Next::After(pause))) => *pause,
            Ok(Err(error)) => {
                tracing::warn!(loop.name = name, %error, failures, "the tick failed");
                FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(LONGEST_BACKOFF)
            }
            Err(_) => {
                tracing::error!(loop.name = name, failures, "the tick panicked");
                FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(LONGEST_BACKOFF)
            }
        };
        failures = if matches!(ticked, Ok(Ok(_))) { 0 } else { failures.saturating_add(1) };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // A wake-up must not turn a failure into a hot loop.
            _ = wake(), if failures == 0 => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// For loops that nothing wakes.
pub async fn nothing() {
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tick_that_fails_or_panics_is_tried_again_later() {
        let stop = CancellationToken::new();
        let ticks = AtomicU32::new(0);
        let started = tokio::time::Instant::now();
        run("test", stop.clone(), nothing, || async {
            match ticks.fetch_add(1, Ordering::Relaxed) {
                0 => Err("broken"),
                1 => panic!("on purpose"),
                2 => Ok(Next::AtOnce),
                _ => {
                    stop.cancel();
                    Ok(Next::After(Duration::from_hours(1)))
                }
            }
        })
        .await;
        assert_eq!(ticks.into_inner(), 4);
        assert_eq!(started.elapsed(), Duration::from_millis(1_500));
    }
}
