//! The session with an engine: one stream of events for all containers of this installation.
//!
//! The session lasts as long as its stream. Each one starts by asking the engine who it is, after the
//! stream was opened, and ends with the stream or with a check that gets no answer; until the next one
//! the engine is down. Events are lossy, and the past is not asked for: whoever waits looks for itself
//! when a session starts, at each event of its container, and when the list that is read every few
//! seconds no longer shows it running.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Listed, EventMessage};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use futures_util::future::FusedFuture as _;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::errors::{Fault, bounded};
use super::observe::{Context, Seen};
use super::outages::Outages;
use super::transport::Opened;
use crate::clock::{Clock as _, SystemClock};
use crate::ids::{AttemptId, InstallationId};
use crate::runner::{EngineId, EngineState, RunnerError, SandboxKey, naming};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often the log says that the engine is still down.
const REMIND: Duration = Duration::from_mins(10);
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Clocks and the granularity of what is compared with them.
const SLACK: SignedDuration = SignedDuration::from_millis(500);

/// A verified connection to one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) engine: EngineId,
    epoch: u64,
}

type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, Error>> + Send>>;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) docker: Docker,
    pub(super) installation: InstallationId,
    call_timeout: Duration,
    state: watch::Sender<EngineState>,
    link: watch::Sender<Option<Link>>,
    watched: Mutex<HashMap<String, watch::Sender<()>>>,
    /// Attempts that we sent a signal to.
    killed: Mutex<HashSet<AttemptId>>,
    outages: Mutex<Outages>,
    /// When the engine last answered a new call, in our time.
    last_answer: AtomicI64,
    suspect: Notify,
}

/// What is remembered from one session to the next.
#[derive(Debug, Default)]
struct Memory {
    epochs: u64,
    /// Where the engine says when it started, it is the same as long as it runs.
    boot: Option<String>,
    /// Its clock minus ours.
    clock: SignedDuration,
    /// The last sign of life before it went down, in its own time.
    lost: Option<Timestamp>,
    /// When the log was told last that it is down.
    said: Option<Instant>,
}

impl Session {
    pub(super) fn new(
        docker: Docker,
        installation: InstallationId,
        call_timeout: Duration,
    ) -> Self {
        Self {
            docker,
            installation,
            call_timeout,
            state: watch::Sender::new(EngineState::Connecting),
            link: watch::Sender::new(None),
            watched: Mutex::default(),
            killed: Mutex::default(),
            outages: Mutex::default(),
            last_answer: AtomicI64::default(),
            suspect: Notify::new(),
        }
    }

    pub(super) const fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    pub(super) fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// The session with this very engine.
    pub(super) fn with(&self, engine: &EngineId) -> Result<Link, RunnerError> {
        let link = self.link()?;
        if &link.engine == engine {
            return Ok(link);
        }
        Err(RunnerError::OtherEngine { expected: engine.clone(), found: link.engine })
    }

    pub(super) fn link(&self) -> Result<Link, RunnerError> {
        let link = self.link.borrow().clone();
        link.ok_or_else(|| RunnerError::Unavailable(self.why_down()))
    }

    fn why_down(&self) -> String {
        match &*self.state.borrow() {
            EngineState::Down { why, .. } => why.clone(),
            EngineState::Connecting | EngineState::Ready { .. } => "not connected yet".to_owned(),
        }
    }

    /// Waits for a session, with whatever engine.
    pub(super) async fn linked(&self) -> Link {
        let mut link = self.link.subscribe();
        loop {
            if let Some(link) = link.borrow_and_update().clone() {
                return link;
            }
            if link.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the end of this session.
    pub(super) fn lost(&self, link: Link) -> impl Future<Output = ()> + Send + use<> {
        let mut current = self.link.subscribe();
        async move {
            let changed = current.wait_for(|now| now.as_ref() != Some(&link));
            if changed.await.is_err() {
                tracing::debug!("session dropped");
            }
        }
    }

    /// A plain call.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Fault> {
        self.call_within(self.call_timeout, call).await
    }

    pub(super) async fn call_within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Fault> {
        let result = bounded(limit, call).await;
        match &result {
            Ok(_) | Err(Fault::Status { .. }) => self.answered(),
            Err(Fault::NotSent(_) | Fault::Lost(_)) => self.suspect.notify_one(),
        }
        result
    }

    fn answered(&self) {
        self.last_answer.store(SystemClock.now().as_microsecond(), Ordering::Relaxed);
    }

    /// One container by name or id; none if the engine says that there is none.
    pub(super) async fn inspect(
        &self,
        name: &str,
        attempt: AttemptId,
    ) -> Result<Option<Seen>, Fault> {
        match self.call(self.docker.inspect_container(name, None::<InspectContainerOptions>)).await
        {
            Ok(it) => {
                let outages = lock(&self.outages).clone();
                let killed_by_us = lock(&self.killed).contains(&attempt);
                let context = Context { outages: &outages, killed_by_us, now: SystemClock.now() };
                let seen = Seen::read(it, context);
                seen.map(Some).ok_or_else(|| {
                    Fault::Lost("it describes a container without a state".to_owned())
                })
            }
            Err(Fault::Status { code: 404, .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Whether the engine has a container under this name or id.
    pub(super) async fn exists(&self, name: &str) -> Result<bool, RunnerError> {
        match self.call(self.docker.inspect_container(name, None::<InspectContainerOptions>)).await
        {
            Ok(_) => Ok(true),
            Err(Fault::Status { code: 404, .. }) => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Asks who answers right now: what makes "not found" final.
    pub(super) async fn confirm(&self, engine: &EngineId) -> Result<(), RunnerError> {
        let info = self.call(self.docker.info()).await?;
        match info.id {
            Some(id) if id == engine.0 => Ok(()),
            Some(id) => {
                self.suspect.notify_one();
                Err(RunnerError::OtherEngine { expected: engine.clone(), found: EngineId(id) })
            }
            None => Err(RunnerError::Unavailable("it does not say who it is".to_owned())),
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<ContainerSummary>, Fault> {
        self.list_labelled(self.installation, Vec::new()).await
    }

    /// Everything that was made for an attempt.
    pub(super) async fn list_attempt(
        &self,
        key: &SandboxKey,
    ) -> Result<Vec<ContainerSummary>, Fault> {
        let label = format!("{}={}", naming::LABEL_ATTEMPT, key.attempt);
        self.list_labelled(key.installation, vec![label]).await
    }

    async fn list_labelled(
        &self,
        installation: InstallationId,
        mut labels: Vec<String>,
    ) -> Result<Vec<ContainerSummary>, Fault> {
        labels.push(format!("{}={installation}", naming::LABEL_INSTALLATION));
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.call(self.docker.list_containers(Some(options))).await
    }

    pub(super) fn note_kill(&self, attempt: AttemptId) {
        lock(&self.killed).insert(attempt);
    }

    pub(super) fn forget(&self, attempt: AttemptId) {
        lock(&self.killed).remove(&attempt);
    }

    /// Hears whenever the container may have changed.
    pub(super) fn watch(self: &Arc<Self>, container: &str) -> Watch {
        let changed = lock(&self.watched)
            .entry(container.to_owned())
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        Watch { session: Arc::clone(self), container: container.to_owned(), changed }
    }

    fn poke(&self, wanted: impl Fn(&str) -> bool) {
        for (container, changed) in &*lock(&self.watched) {
            if wanted(container) {
                changed.send_replace(());
            }
        }
    }

    /// Keeps a session open, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut backoff = BACKOFF_MIN;
        loop {
            let why = match self.open(&mut memory).await {
                Ok(events) => {
                    backoff = BACKOFF_MIN;
                    self.follow(events).await
                }
                Err(why) => why,
            };
            self.down(why, &mut memory);
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// A new session, or why there is none.
    async fn open(&self, memory: &mut Memory) -> Result<Events, String> {
        let opened = Opened::default();
        let label = format!("{}={}", naming::LABEL_INSTALLATION, self.installation);
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", vec![label]),
            ("event", vec!["die".to_owned(), "destroy".to_owned()]),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events: Events = Box::pin(opened.on(&self.docker).events(Some(options)));
        let first = async {
            tokio::select! {
                biased;
                () = opened.wait() => Ok(()),
                item = events.next() => match item {
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => Err(Fault::from(error).message()),
                    None => Err("it closed the stream of events".to_owned()),
                },
            }
        };
        match timeout(self.call_timeout, first).await {
            Ok(result) => result?,
            Err(_) => return Err(format!("no events within {:?}", self.call_timeout)),
        }
        let info = self.call(self.docker.info()).await.map_err(|fault| fault.message())?;
        let engine = info.id.filter(|it| !it.is_empty()).ok_or("it does not say who it is")?;
        let now = SystemClock.now();
        let engine_now = info.system_time.and_then(|it| it.parse().ok()).unwrap_or(now);
        let boot = self
            .call(self.docker.inspect_network("bridge", None))
            .await
            .ok()
            .and_then(|it| it.created);
        if let Some(from) = memory.lost.take() {
            // One that keeps its containers over its restart keeps its network, too.
            let restarted = boot.is_none() || boot != memory.boot;
            lock(&self.outages).add(from - SLACK, engine_now + SLACK, restarted);
        }
        if memory.epochs == 0
            && let Some(up) = boot.as_deref().and_then(|it| it.parse::<Timestamp>().ok())
        {
            // What ended by a signal before this engine came up, while nobody looked, went down with it: as
            // after a restart of the machine.
            lock(&self.outages).add(Timestamp::UNIX_EPOCH, up + SLACK, true);
        }
        memory.boot = boot;
        memory.clock = engine_now.duration_since(now);
        memory.epochs += 1;
        let engine = EngineId(engine);
        let version = info.server_version.unwrap_or_default();
        tracing::info!(engine.id = %engine, engine.version = version, "engine ready");
        self.link.send_replace(Some(Link { engine: engine.clone(), epoch: memory.epochs }));
        self.state.send_replace(EngineState::Ready { id: engine, version, node: info.name });
        self.poke(|_| true);
        Ok(events)
    }

    /// Listens until the session ends, and says why it did.
    async fn follow(&self, mut events: Events) -> String {
        let mut tick = interval_at(Instant::now() + CHECK_PERIOD, CHECK_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = futures_util::future::Fuse::terminated();
        loop {
            tokio::select! {
                item = events.next() => match item {
                    Some(Ok(event)) => {
                        if let Some(id) = event.actor.and_then(|it| it.id) {
                            self.poke(|it| it == id);
                        }
                    }
                    Some(Err(error)) => return Fault::from(error).message(),
                    None => return "it closed the stream of events".to_owned(),
                },
                // One at a time, to its end or its time-out: an engine that hangs is found down.
                _ = tick.tick(), if check.is_terminated() => check = Box::pin(self.check()).fuse(),
                () = self.suspect.notified(), if check.is_terminated() => check = Box::pin(self.check()).fuse(),
                result = &mut check => if let Err(why) = result { return why },
            }
        }
    }

    /// Whether the same engine still answers, and what it has that no event told of.
    async fn check(&self) -> Result<(), String> {
        let engine = self.link().map_err(|it| it.to_string())?.engine;
        self.confirm(&engine).await.map_err(|it| it.to_string())?;
        if lock(&self.watched).is_empty() {
            return Ok(());
        }
        let list = self.list().await.map_err(|fault| fault.message())?;
        let running: HashSet<String> =
            list.into_iter().filter(|it| runs(it.state)).filter_map(|it| it.id).collect();
        self.poke(|it| !running.contains(it));
        Ok(())
    }

    fn down(&self, why: String, memory: &mut Memory) {
        if self.link.send_replace(None).is_some() {
            let answered = self.last_answer.load(Ordering::Relaxed);
            let answered =
                Timestamp::from_microsecond(answered).unwrap_or_else(|_| SystemClock.now());
            memory.lost = Some(answered + memory.clock);
        }
        let before = self.state.borrow().clone();
        let (is_news, since) = match &before {
            EngineState::Down { why: before, since } => (*before != why, Some(*since)),
            EngineState::Connecting | EngineState::Ready { .. } => (true, None),
        };
        // One line for each change, and a reminder from time to time.
        if is_news || memory.said.is_none_or(|it| it.elapsed() >= REMIND) {
            memory.said = Some(Instant::now());
            tracing::warn!(why, since = since.map(tracing::field::display), "engine down");
        } else {
            tracing::debug!(why, "engine still down");
        }
        self.state.send_modify(|state| {
            let since = match state {
                EngineState::Down { since, .. } => *since,
                EngineState::Connecting | EngineState::Ready { .. } => SystemClock.now(),
            };
            *state = EngineState::Down { since, why };
        });
    }
}

/// Whether a container of a list has ever run.
pub(super) fn has_started(it: &ContainerSummary) -> bool {
    !matches!(it.state, None | Some(Listed::CREATED))
}

const fn runs(state: Option<Listed>) -> bool {
    matches!(state, Some(Listed::RUNNING | Listed::PAUSED | Listed::RESTARTING | Listed::STOPPING))
}

/// Hears whenever one container may have changed.
#[derive(Debug)]
pub(super) struct Watch {
    session: Arc<Session>,
    container: String,
    changed: watch::Receiver<()>,
}

impl Watch {
    pub(super) fn mark_seen(&mut self) {
        self.changed.borrow_and_update();
    }

    pub(super) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&self.session.watched);
        // The last one, this, is still counted.
        if watched.get(&self.container).is_some_and(|it| it.receiver_count() <= 1) {
            watched.remove(&self.container);
        }
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
