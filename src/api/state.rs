//! What handlers work with.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::conditions::LiveTargets;
use super::limits::{Admission, RateLimits};
use super::ports::{LogSource, ObjectSource, Renderer};
use super::url::PublicUrl;
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::domain::spec::Limits;
use crate::store::Store;
use crate::targets::Catalogue;
use crate::wake::Wake;

/// How the API behaves in this deployment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names that requests may call the service by, with or without a port; empty: any name, as long as
    /// tokens are asked for.
    pub allowed_hosts: Vec<String>,
    /// Other web sites whose pages may send requests, such as `https://console.example`.
    pub allowed_origins: Vec<String>,
    /// In bytes.
    pub body_limit: usize,
    /// Of the path and the headers, in bytes.
    pub header_limit: usize,
    /// Of one token, or of one address where none is needed: a second, and at once. 0: no limit, or twice
    /// the rate.
    pub rate_limit: u32,
    pub rate_burst: u32,
    /// Requests of one address without a valid token, a second. 0: no limit.
    pub failed_auth_limit: u32,
    /// Tasks that wait. 0: no limit.
    pub queued_tasks: u64,
    /// Between two pieces of a body.
    pub body_timeout: Duration,
    /// Whether `/metrics` answers without a token.
    pub metrics_open: bool,
    /// Between two signs of life of a log as events that has nothing to say.
    pub log_heartbeat: Duration,
    /// Tasks in one batch.
    pub batch_limit: usize,
    /// Where callers find the service, when that is not where it listens.
    pub public_url: Option<String>,
    /// A worker that was silent for longer does not count.
    pub lease: Duration,
    /// Of this process, for `/readyz`.
    pub roles: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            body_limit: 8 << 20,
            header_limit: 64 << 10,
            rate_limit: 0,
            rate_burst: 0,
            failed_auth_limit: 10,
            queued_tasks: 1_000_000,
            body_timeout: Duration::from_secs(30),
            metrics_open: false,
            log_heartbeat: Duration::from_secs(15),
            batch_limit: 1_000,
            public_url: None,
            lease: Duration::from_secs(18),
            roles: Vec::new(),
        }
    }
}

/// How far the process is: told by the one who starts and stops it. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    schema: Arc<AtomicBool>,
    draining: CancellationToken,
}

impl Lifecycle {
    /// The schema is the one that this binary works on.
    pub fn schema_is_ready(&self) {
        self.schema.store(true, Ordering::Release);
    }

    /// No new work should come; requests that wait are answered at once.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    pub(super) fn has_schema(&self) -> bool {
        self.schema.load(Ordering::Acquire)
    }

    pub(super) fn draining(&self) -> &CancellationToken {
        &self.draining
    }
}

/// Everything that the API works with.
#[derive(Clone)]
pub struct AppState {
    pub store: Store,
    pub wake: Wake,
    pub clock: Arc<dyn Clock>,
    pub settings: Arc<Settings>,
    /// The targets in it are those of the catalogue.
    pub limits: Limits,
    pub catalogue: Catalogue,
    pub auth: Authenticator,
    pub logs: Arc<dyn LogSource>,
    pub objects: Arc<dyn ObjectSource>,
    pub renderer: Arc<dyn Renderer>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub lifecycle: Lifecycle,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The state that is shared by all requests.
pub(super) struct Shared {
    state: AppState,
    pub(super) live: LiveTargets,
    pub(super) public_url: PublicUrl,
    pub(super) rates: RateLimits,
    pub(super) admission: Admission,
}

pub(super) type App = Arc<Shared>;

impl Shared {
    pub(super) fn new(state: AppState) -> Self {
        let live =
            LiveTargets::new(state.store.clone(), state.catalogue.clone(), state.settings.lease);
        let public_url = PublicUrl::new(state.settings.public_url.as_deref());
        let rates = RateLimits::new(&state.settings);
        let admission = Admission::new(state.store.clone(), state.settings.queued_tasks);
        Self { state, live, public_url, rates, admission }
    }
}

impl Shared {
    /// What tasks are read by, with the targets that there are now.
    pub(super) fn limits(&self) -> Limits {
        let targets = Arc::clone(&self.catalogue.current().targets);
        Limits { targets, ..self.limits.clone() }
    }
}

impl Deref for Shared {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.state
    }
}
