//! One process among several, as a test plays it in its own: it can be stopped at any await, as by SIGSTOP, and
//! ended there, as by SIGKILL.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Shut,
    Ended,
}

#[derive(Debug)]
struct Inner {
    state: State,
    waiting: Vec<Waker>,
}

/// What is polled through it, and everything that is spawned by it, goes on only while it is open. Cheap to
/// clone: all clones are one.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Mutex<Inner>>);

thread_local! {
    static CURRENT: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { state: State::Open, waiting: Vec::new() })))
    }
}

impl Gate {
    /// Nothing behind it goes on until it is opened.
    pub fn shut(&self) {
        let mut inner = self.lock();
        if inner.state == State::Open {
            inner.state = State::Shut;
        }
    }

    pub fn open(&self) {
        let mut inner = self.lock();
        if inner.state == State::Shut {
            inner.state = State::Open;
        }
        wake(inner);
    }

    /// Nothing behind it ever goes on.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.state = State::Ended;
        wake(inner);
    }

    pub fn is_open(&self) -> bool {
        self.lock().state == State::Open
    }

    pub fn has_ended(&self) -> bool {
        self.lock().state == State::Ended
    }

    /// Puts a future behind it.
    pub fn hold<F: Future>(&self, future: F) -> Gated<F> {
        Gated { gate: Some(self.clone()), future: Some(Box::pin(future)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waiting = std::mem::take(&mut inner.waiting);
    drop(inner);
    waiting.into_iter().for_each(Waker::wake);
}

/// A future that is to be spawned: it is behind the gate of whoever spawns it.
pub fn gated<F: Future>(future: F) -> Gated<F> {
    Gated { gate: CURRENT.with_borrow(Clone::clone), future: Some(Box::pin(future)) }
}

/// See [`Gate::hold`] and [`gated`].
#[derive(Debug)]
pub struct Gated<F> {
    gate: Option<Gate>,
    /// None: it was ended.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if let Some(gate) = &self.gate {
            let mut inner = gate.lock();
            match inner.state {
                State::Open => {}
                State::Shut => {
                    inner.waiting.push(context.waker().clone());
                    return Poll::Pending;
                }
                State::Ended => {
                    drop(inner);
                    self.future = None;
                }
            }
        }
        let _current = Current::set(self.gate.clone());
        match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

/// Which gate is being gone through on this thread.
struct Current(Option<Gate>);

impl Current {
    fn set(gate: Option<Gate>) -> Self {
        Self(CURRENT.replace(gate))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn what_is_spawned_behind_a_gate_stops_and_ends_with_it() {
        let (gate, count) = (Gate::default(), Arc::new(Mutex::new(0)));
        let counting = Arc::clone(&count);
        let outer = gate.hold(async move {
            let inner = gated(async move {
                loop {
                    *counting.lock().unwrap() += 1;
                    yield_now().await;
                }
            });
            tokio_util::task::TaskTracker::new().spawn(inner);
        });
        outer.await;
        let after = async |turns: u32| {
            for _ in 0..turns {
                yield_now().await;
            }
            *count.lock().unwrap()
        };
        let running = after(5).await;
        assert!(after(5).await > running);
        gate.shut();
        let stopped = after(5).await;
        assert_eq!(after(5).await, stopped);
        gate.open();
        assert!(after(5).await > stopped);
        gate.end();
        let ended = after(5).await;
        gate.open();
        assert_eq!(after(5).await, ended);
        assert!(gate.has_ended() && Arc::strong_count(&count) == 1, "what it held was dropped");
    }
}
