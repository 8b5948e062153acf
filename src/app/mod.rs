//! Wiring: from the configuration to a running service, and back down in order.

mod database;
pub mod doctor;
mod files;
mod http;
mod objects;
mod ports;
mod processes;
mod render;
mod targets;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, AppState, Lifecycle};
use crate::auth::{self, AdminToken, Authenticator};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Role};
use crate::domain::spec;
use crate::failpoints;
use crate::ids::InstallationId;
use crate::logs::pump;
use crate::logs::reader::LogReader;
use crate::loops;
use crate::maintenance::orphan_sweeper::OrphanSweeper;
use crate::maintenance::queue_gauges::QueueGauges;
use crate::maintenance::retention::Retention;
use crate::measures;
use crate::outputs::FolderStore;
use crate::postgres::DataDirLock;
use crate::runner::Registry;
use crate::scheduler::{RunPlanner, Scheduler};
use crate::shutdown::Signals;
use crate::store::{MigrateReport, Store};
use crate::targets::Catalogue;
use crate::telemetry;
use crate::wake::Wake;
use crate::worker::{self, Worker};

use database::Database;
use targets::Connector;

pub use render::{CHECK_TEMPLATE, TargetRenderer};

/// Proxies cut what is silent for longer than half a minute.
const LOG_HEARTBEAT: Duration = Duration::from_secs(15);
/// How long supervisors may take to let go at a stop.
const DETACH_DEADLINE: Duration = Duration::from_secs(10);
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How long loops may take to finish their tick.
const LOOPS_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the service until a signal, or until it can't go on.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("listen for signals")?;
    if let Some(told) = failpoints::summary() {
        tracing::warn!(told, "a build for tests, which can be told to fail: not for production");
    }
    let app = tokio::select! {
        app = App::start(config) => app?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before it was up");
            return Ok(());
        }
    };
    app.announce();
    let ended = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping; containers go on running");
            Ok(())
        }
        () = app.until_replaced() => Err(anyhow::anyhow!(
            "another process has taken the identity of this worker; was the data directory copied?"
        )),
    };
    tokio::select! {
        () = app.stop() => {}
        signal = signals.next() => tracing::warn!(signal, "stopping at once"),
    }
    ended
}

/// Brings the schema up to date, and nothing else.
pub async fn migrate(config: &Config) -> anyhow::Result<MigrateReport> {
    let lock = match config.database.url {
        None => Some(DataDirLock::acquire(&config.data_dir)?),
        Some(_) => None,
    };
    let database = Database::open(config).await?;
    let store = Store::open(&database.settings(config))?;
    let report = store.migrate().await;
    store.close().await;
    database.stop().await;
    drop(lock);
    Ok(report?)
}

/// A running service.
#[derive(Debug)]
pub struct App {
    config: Config,
    address: SocketAddr,
    store: Store,
    database: Mutex<Option<Database>>,
    worker: Option<Worker>,
    lifecycle: Lifecycle,
    tracker: TaskTracker,
    http_stop: CancellationToken,
    http: TaskTracker,
    loops_stop: CancellationToken,
    admin: Option<AdminToken>,
    _lock: DataDirLock,
}

impl App {
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        telemetry::init_metrics();
        let lock = DataDirLock::acquire(&config.data_dir)?;
        http::raise_file_limit();
        let listener = http::bind(config.http.listen).await?;
        let address = listener.local_addr().context("read the listen address")?;
        let database = Database::open(&config).await?;
        let started = Self::start_on(config, lock, listener, address, &database).await;
        match started {
            Ok(app) => {
                *app.database.lock().await = Some(database);
                Ok(app)
            }
            Err(error) => {
                database.stop().await;
                Err(error)
            }
        }
    }

    async fn start_on(
        config: Config,
        lock: DataDirLock,
        listener: tokio::net::TcpListener,
        address: SocketAddr,
        database: &Database,
    ) -> anyhow::Result<Self> {
        let admin = config
            .auth
            .enabled
            .then(|| AdminToken::load(&config.data_dir, config.auth.admin_token_file.as_deref()))
            .transpose()?;
        let store = Store::open(&database.settings(&config))?;
        let prepared =
            database::prepare(&store, admin.as_ref().map(AdminToken::new_token).as_ref()).await?;
        if let Some(admin) = &admin
            && store.find_token(&admin.new_token().sha256).await?.is_none()
        {
            tracing::warn!(
                "the token in {} was revoked: remove the file and start again, and a new one is made",
                admin.path().display()
            );
        }
        let wake = Wake::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let objects = objects::open(&config, &store).await?;
        let tracker = TaskTracker::new();
        let loops_stop = CancellationToken::new();
        let catalogue = Catalogue::new(store.clone(), targets::configured(&config));
        catalogue.publish().await?;
        catalogue.refresh().await?;
        if !catalogue.current().targets.contains_key(&config.default_target) {
            tracing::warn!(
                target.name = config.default_target,
                "there is no target of the name that default_target has: a task that names none is refused"
            );
        }
        let parts = Parts {
            config: &config,
            store: &store,
            wake: &wake,
            clock: &clock,
            objects: &objects,
            installation: prepared.installation,
            admin: admin.as_ref(),
            catalogue: &catalogue,
        };

        processes::spawn(&tracker, &loops_stop, &store, &wake);
        tracker.spawn(loops::run("metrics", loops_stop.clone(), loops::nothing, || async {
            telemetry::keep_up_metrics();
            Ok::<_, std::convert::Infallible>(loops::Next::After(METRICS_UPKEEP))
        }));
        if config.has_role(Role::Scheduler) {
            parts.spawn_scheduler(&tracker, &loops_stop);
            parts.spawn_queue_gauges(&tracker, &loops_stop);
        }
        let worker = if config.has_role(Role::Worker) {
            let registry = parts.connect(&tracker, &loops_stop);
            Some(parts.start_worker(&tracker, &loops_stop, registry).await?)
        } else {
            parts.follow_targets(&tracker, &loops_stop);
            None
        };
        let lifecycle = Lifecycle::default();
        lifecycle.schema_is_ready();
        let (http_stop, http) = (CancellationToken::new(), TaskTracker::new());
        let state = parts.api_state(&lifecycle);
        let is_api = config.has_role(Role::Api);
        let router = if is_api { api::router(state) } else { api::probes(state) };
        let limits = http::Limits {
            connections: config.http.max_connections,
            head_bytes: config.http.header_limit,
            head_timeout: config.http.header_timeout,
        };
        http.spawn(http::serve(listener, router, limits, http_stop.clone(), http.clone()));
        files::write_service(&config.data_dir, address).context("write service.json")?;
        Ok(Self {
            config,
            address,
            store,
            database: Mutex::new(None),
            worker,
            lifecycle,
            tracker,
            http_stop,
            http,
            loops_stop,
            admin,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when this process must not go on.
    pub async fn until_replaced(&self) {
        match &self.worker {
            Some(worker) => worker.until_replaced().await,
            None => std::future::pending().await,
        }
    }

    /// Says where everything is. The token itself goes to a terminal only.
    fn announce(&self) {
        let url = files::url(self.address);
        tracing::info!(%url, version = env!("CARGO_PKG_VERSION"), data_dir = %self.config.data_dir.display(), "ready");
        for note in self.config.notes() {
            tracing::warn!("{note}");
        }
        let mut lines = format!("\n  API      {url}/api/v1\n  Docs     {url}/docs\n");
        match &self.admin {
            None => lines.push_str("  Token    none is needed (--no-auth)\n"),
            Some(admin) => {
                lines.push_str(&format!("  Token    {}\n", admin.path().display()));
                if std::io::stderr().is_terminal() {
                    lines.push_str(&format!("           {}\n", admin.secret()));
                }
            }
        }
        lines.push('\n');
        // Nobody may be reading, and that is no reason to stop.
        let _ = std::io::stderr().write_all(lines.as_bytes());
    }

    /// Stops in order. Nothing that runs is touched, and nothing here is needed for a later start.
    pub async fn stop(self) {
        self.lifecycle.drain();
        if let Some(worker) = &self.worker {
            worker.drain();
        }
        self.http_stop.cancel();
        self.http.close();
        if tokio::time::timeout(self.config.http.shutdown_drain, self.http.wait()).await.is_err() {
            tracing::warn!(connections = self.http.len(), "requests were cut off");
        }
        if let Some(worker) = &self.worker {
            let left = worker.detach(DETACH_DEADLINE).await;
            if left > 0 {
                tracing::warn!(attempts = left, "some attempts were not let go of in time");
            }
        }
        self.loops_stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(LOOPS_DEADLINE, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "some loops did not end in time");
        }
        files::remove_service(&self.config.data_dir);
        // A connection that hangs must not hold up the end.
        let _ = tokio::time::timeout(LOOPS_DEADLINE, self.store.close()).await;
        if let Some(database) = self.database.lock().await.take() {
            database.stop().await;
        }
        tracing::info!("stopped");
    }
}

/// What the roles share.
struct Parts<'a> {
    config: &'a Config,
    store: &'a Store,
    wake: &'a Wake,
    clock: &'a Arc<dyn Clock>,
    objects: &'a FolderStore,
    installation: InstallationId,
    admin: Option<&'a AdminToken>,
    catalogue: &'a Catalogue,
}

impl Parts<'_> {
    fn spawn_scheduler(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        let scheduler = Scheduler {
            store: Arc::new(self.store.clone()),
            wake: self.wake.clone(),
            clock: Arc::clone(self.clock),
        };
        tracker.spawn(loops::run("scheduler", stop.clone(), loops::nothing, move || {
            let scheduler = scheduler.clone();
            async move { scheduler.tick().await }
        }));
        let planner = Arc::new(RunPlanner::new(
            self.store.clone(),
            spec_limits(self.config),
            self.catalogue.clone(),
            self.wake.clone(),
            Arc::clone(self.clock),
        ));
        let due = {
            let wake = self.wake.clone();
            move || {
                let wake = wake.clone();
                async move { wake.until_run_is_due().await }
            }
        };
        tracker.spawn(loops::run("runs", stop.clone(), due, move || {
            let planner = Arc::clone(&planner);
            async move { planner.tick().await }
        }));
        let keep =
            SignedDuration::try_from(self.config.retention.tasks).unwrap_or(SignedDuration::MAX);
        let retention = Arc::new(Retention {
            store: self.store.clone(),
            clock: Arc::clone(self.clock),
            objects: self.objects.clone(),
            keep,
            keep_keys: self.config.retention.idempotency_keys,
        });
        tracker.spawn(loops::run("retention", stop.clone(), loops::nothing, move || {
            let retention = Arc::clone(&retention);
            async move { retention.tick().await }
        }));
    }

    fn spawn_queue_gauges(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        let catalogue = self.catalogue.clone();
        let targets = move || catalogue.current().targets.keys().cloned().collect();
        let gauges = QueueGauges::new(self.store.clone(), Arc::clone(self.clock), targets);
        let gauges = Arc::new(Mutex::new(gauges));
        tracker.spawn(loops::run("queue_gauges", stop.clone(), loops::nothing, move || {
            let gauges = Arc::clone(&gauges);
            async move { gauges.lock().await.tick().await }
        }));
    }

    /// Connects to the targets, and follows them from now on.
    fn connect(&self, tracker: &TaskTracker, stop: &CancellationToken) -> Registry {
        let registry = Registry::default();
        let mut connector = Connector {
            setup: targets::Setup {
                installation: self.installation,
                log_max_bytes: self.config.limits.log,
            },
            registry: registry.clone(),
            catalogue: self.catalogue.clone(),
            store: self.store.clone(),
            clock: Arc::clone(self.clock),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            checks: TaskTracker::new(),
            failed: BTreeMap::new(),
        };
        connector.apply(&self.catalogue.current());
        let connector = Arc::new(Mutex::new(connector));
        tracker.spawn(loops::run("targets", stop.clone(), self.targets_waker(), move || {
            let connector = Arc::clone(&connector);
            async move { connector.lock().await.tick().await }
        }));
        registry
    }

    fn follow_targets(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        let catalogue = self.catalogue.clone();
        tracker.spawn(loops::run("targets", stop.clone(), self.targets_waker(), move || {
            let catalogue = catalogue.clone();
            async move { targets::refresh(&catalogue).await }
        }));
    }

    fn targets_waker(&self) -> impl FnMut() -> BoxFuture<'static, ()> + use<> {
        let wake = self.wake.clone();
        move || {
            let wake = wake.clone();
            async move { wake.until_targets_changed().await }.boxed()
        }
    }

    async fn start_worker(
        &self,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        targets: Registry,
    ) -> anyhow::Result<Worker> {
        let sweeper = OrphanSweeper::new(
            Arc::new(self.store.clone()),
            Arc::clone(self.clock),
            self.installation,
            targets.clone(),
        );
        let target_changed = sweeper.waker();
        let sweeper = Arc::new(Mutex::new(sweeper));
        let worker = Worker::start(
            worker::Parts {
                store: Arc::new(self.store.clone()),
                wake: self.wake.clone(),
                clock: Arc::clone(self.clock),
                installation: self.installation,
                worker: files::worker_id(&self.config.data_dir).context("read the worker's id")?,
                targets,
                objects: self.objects.clone(),
                settings: worker_settings(self.config),
            },
            tracker,
        )
        .await
        .context("start the worker")?;
        tracker.spawn(loops::run("orphan_sweeper", stop.clone(), target_changed, move || {
            let sweeper = Arc::clone(&sweeper);
            async move { sweeper.lock().await.tick().await }
        }));
        Ok(worker)
    }

    fn api_state(&self, lifecycle: &Lifecycle) -> AppState {
        let config = self.config;
        let mode = match self.admin {
            Some(admin) => auth::Mode::On { hint: admin.hint() },
            None => auth::Mode::Off,
        };
        AppState {
            store: self.store.clone(),
            wake: self.wake.clone(),
            clock: Arc::clone(self.clock),
            settings: Arc::new(api::Settings {
                allowed_hosts: config.http.allowed_hosts.clone(),
                allowed_origins: config.http.allowed_origins.clone(),
                body_limit: config.http.body_limit,
                header_limit: config.http.header_limit,
                rate_limit: config.http.rate_limit,
                rate_burst: config.http.rate_burst,
                failed_auth_limit: config.http.failed_auth_limit,
                queued_tasks: config.limits.queued_tasks,
                body_timeout: config.http.body_timeout,
                metrics_open: config.http.metrics_open,
                log_heartbeat: LOG_HEARTBEAT,
                batch_limit: config.limits.batch,
                public_url: None,
                lease: config.worker.lease,
                roles: config.roles.iter().map(|it| it.as_str().to_owned()).collect(),
            }),
            limits: spec_limits(config),
            catalogue: self.catalogue.clone(),
            auth: Authenticator::new(self.store.clone(), mode),
            logs: Arc::new(LogReader::new(Arc::new(self.store.clone()), self.wake.clone())),
            objects: Arc::new(self.objects.clone()),
            renderer: Arc::new(TargetRenderer {
                installation: self.installation,
                log_max_bytes: config.limits.log,
            }),
            metrics: Arc::new({
                let store = self.store.clone();
                move || {
                    let pool = store.pool_gauge();
                    metrics::gauge!(measures::DB_OPEN).set(f64::from(pool.open));
                    metrics::gauge!(measures::DB_IDLE).set(f64::from(pool.idle));
                    metrics::gauge!(measures::DB_MOST).set(f64::from(pool.most));
                    telemetry::render_metrics()
                }
            }),
            lifecycle: lifecycle.clone(),
        }
    }
}

fn worker_settings(config: &Config) -> worker::Settings {
    worker::Settings {
        concurrency: config.worker.concurrency,
        starts: config.worker.starts,
        heartbeat: config.worker.heartbeat,
        lease: config.worker.lease,
        poll: config.worker.poll,
        log: pump::Limits {
            log_bytes: config.limits.log,
            chunk_bytes: config.logs.chunk,
            linger: config.logs.flush,
        },
        output_json_bytes: config.limits.output_json as u64,
        output_file_bytes: config.limits.output_file,
    }
}

/// What tasks are read by; the targets in it are the catalogue's.
fn spec_limits(config: &Config) -> spec::Limits {
    spec::Limits {
        default_target: config.default_target.clone(),
        env_value_bytes: config.limits.env_value,
        files_bytes: config.limits.files,
        pod_template: render::CHECK_TEMPLATE,
        ..spec::Limits::default()
    }
}
