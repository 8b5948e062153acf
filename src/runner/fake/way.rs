//! The way of requests to a simulated engine, where a test can lose, delay and divert them.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::engine::FakeEngine;
use crate::runner::{EngineState, SandboxKey};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Create,
    Start,
    Inspect,
    Adopt,
    Kill,
    Collect,
    Cleanup,
    List,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// It never comes to the engine.
    Lost,
    /// It is carried out, and nobody hears of it.
    AnswerLost,
    /// It is carried out later, even if who sent it is gone by then.
    Late(Duration),
    /// It is carried out later, and who sent it hears at once that the connection broke.
    Astray(Duration),
}

/// How a runner reaches an engine. An engine itself is the way without faults.
#[async_trait]
pub trait Way: fmt::Debug + Send + Sync + 'static {
    /// Which engine answers at the target.
    fn engine(&self) -> FakeEngine;

    fn state(&self) -> watch::Receiver<EngineState>;

    /// A request sets out.
    async fn send(&self, request: Request, key: Option<SandboxKey>) -> Fate;

    /// It was carried out.
    fn carried_out(&self, request: Request, key: Option<SandboxKey>);
}

#[async_trait]
impl Way for FakeEngine {
    fn engine(&self) -> FakeEngine {
        self.clone()
    }

    fn state(&self) -> watch::Receiver<EngineState> {
        self.watch()
    }

    async fn send(&self, _: Request, _: Option<SandboxKey>) -> Fate {
        Fate::Answered
    }

    fn carried_out(&self, _: Request, _: Option<SandboxKey>) {}
}
