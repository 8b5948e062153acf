//! Finds out how things are. Every look has a deadline; one that fails is an answer, too.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::facts::{
    Api, Asked, ClusterFacts, DatabaseFacts, EngineFacts, Facts, HereFacts, LeaseFacts,
    ObjectFacts, PrivateFacts, PrivateState, ServerFacts, ServiceFacts, Skew, Space, Unknown,
};
use super::look_sandboxes::backends;
use crate::app::files;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::domain::target::{Backend, DockerBackend, KubernetesBackend};
use crate::ids::WorkerId;
use crate::outputs::FolderStore;
use crate::postgres::{self, Existing};
use crate::store::{self, Store};

/// Of each look.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Between the two looks at who has the identity of this data directory's worker.
const AGAIN_AFTER: Duration = Duration::from_millis(1500);
const MOST_WORKERS: i64 = 500;
const MOST_GROUPS: i64 = 1_000;
/// Enough to tell a round trip from a connection that is being made.
const ROUND_TRIPS: usize = 3;
const NO_DATABASE: &str = "the database can't be asked";
const NO_SCHEMA: &str = "the schema is not the one of this program";

pub(super) async fn everything(config: &Config, api: impl Future<Output = Api>) -> Facts {
    let process = postgres::service_of(&config.data_dir);
    let ((database, objects, leases, (engines, clusters)), api) =
        tokio::join!(all_but_the_service(config), api);
    Facts { service: ServiceFacts { process, api }, database, objects, leases, engines, clusters }
}

type Looked = (DatabaseFacts, ObjectFacts, Asked<LeaseFacts>, Targets);
type Targets = (Vec<EngineFacts>, Vec<ClusterFacts>);

async fn all_but_the_service(config: &Config) -> Looked {
    let (connected, mut objects) = tokio::join!(Connected::open(config), look_at_objects(config));
    let Connected { store, facts: database } = connected;
    // What asks for tables needs those of this program.
    let usable = match (&database.server, &database.schema) {
        (Ok(_), Ok(schema)) if schema.is_usable() => Ok(()),
        (Ok(_), Ok(_)) => Err(Unknown::Skipped(NO_SCHEMA)),
        _ => Err(Unknown::Skipped(NO_DATABASE)),
    };
    let tables = usable.and(store.as_ref().map_err(Clone::clone));
    let (in_use, leases) = match &tables {
        Ok(store) => {
            tokio::join!(asked(store.object_store()), look_at_leases(config, store))
        }
        Err(unknown) => (Err(unknown.clone()), Err(unknown.clone())),
    };
    objects.in_use = in_use;
    let targets = look_at_targets(config, tables, &leases).await;
    if let Ok(store) = &store {
        // A connection that hangs must not hold up the end.
        drop(tokio::time::timeout(DEADLINE, store.close()).await);
    }
    (database, objects, leases, targets)
}

async fn look_at_targets(
    config: &Config,
    store: Asked<&Store>,
    leases: &Asked<LeaseFacts>,
) -> Targets {
    let (mut dockers, mut clusters) = (Vec::new(), Vec::new());
    for (name, backend) in backends(config, &store).await {
        match backend {
            Backend::Docker(it) => dockers.push((name, it)),
            Backend::Kubernetes(it) => clusters.push((name, *it)),
            Backend::Simulated => {}
        }
    }
    tokio::join!(
        look_at_engines(dockers, &store, leases),
        look_at_clusters(clusters, &store, leases)
    )
}

#[cfg(feature = "docker")]
async fn look_at_engines(
    targets: Vec<(String, DockerBackend)>,
    store: &Asked<&Store>,
    leases: &Asked<LeaseFacts>,
) -> Vec<EngineFacts> {
    use super::look_engine::look;
    let look = async |(name, it): (String, _)| look(&name, it, store.clone(), leases).await;
    futures_util::future::join_all(targets.into_iter().map(look)).await
}

#[cfg(not(feature = "docker"))]
fn look_at_engines(
    _: Vec<(String, DockerBackend)>,
    _: &Asked<&Store>,
    _: &Asked<LeaseFacts>,
) -> std::future::Ready<Vec<EngineFacts>> {
    std::future::ready(Vec::new())
}

#[cfg(feature = "kubernetes")]
async fn look_at_clusters(
    targets: Vec<(String, KubernetesBackend)>,
    store: &Asked<&Store>,
    leases: &Asked<LeaseFacts>,
) -> Vec<ClusterFacts> {
    use super::look_cluster::look;
    let look = async |(name, it): (String, _)| look(&name, it, store.clone(), leases).await;
    futures_util::future::join_all(targets.into_iter().map(look)).await
}

#[cfg(not(feature = "kubernetes"))]
fn look_at_clusters(
    _: Vec<(String, KubernetesBackend)>,
    _: &Asked<&Store>,
    _: &Asked<LeaseFacts>,
) -> std::future::Ready<Vec<ClusterFacts>> {
    std::future::ready(Vec::new())
}

/// A question to the database, within the deadline.
pub(super) async fn asked<T>(question: impl Future<Output = Result<T, store::Error>>) -> Asked<T> {
    match tokio::time::timeout(DEADLINE, question).await {
        Ok(answer) => answer.map_err(|it| Unknown::Failed(it.to_string())),
        Err(_) => Err(Unknown::Failed(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

struct Connected {
    store: Asked<Store>,
    facts: DatabaseFacts,
}

impl Connected {
    async fn open(config: &Config) -> Self {
        let (place, private, url) = if let Some(url) = &config.database.url {
            (url.to_string(), None, Ok(url.expose().to_owned()))
        } else {
            let folder = config.data_dir.join("postgres");
            let (state, url) = private(Existing::find(&config.data_dir));
            let place = format!("the private Postgres in {}", folder.display());
            let space = space_of(&folder).or_else(|| space_of(&config.data_dir));
            (place, Some(PrivateFacts { folder, space, state }), url)
        };
        let store = match url {
            Ok(url) => {
                let settings = store::Settings {
                    url,
                    // A service that has taken them all leaves few.
                    max_connections: 2,
                    acquire_timeout: DEADLINE,
                    statement_timeout: DEADLINE,
                    idle_in_transaction_timeout: DEADLINE,
                };
                asked(Store::open_to_look(&settings)).await
            }
            Err(why) => Err(why),
        };
        let (server, schema) = match &store {
            Ok(store) => match look_at_server(store).await {
                Ok(server) => (Ok(server), asked(store.schema_state()).await),
                Err(why) => (Err(why), Err(Unknown::Skipped(NO_DATABASE))),
            },
            Err(why) => (Err(why.clone()), Err(Unknown::Skipped(NO_DATABASE))),
        };
        Self { store, facts: DatabaseFacts { place, private, server, schema } }
    }
}

fn private(found: Existing) -> (PrivateState, Asked<String>) {
    match found {
        Existing::Ready { pid, endpoint } => {
            (PrivateState::Ready(pid), Ok(endpoint.connection_url()))
        }
        Existing::Moving { pid } => {
            (PrivateState::Moving(pid), Err(Unknown::Skipped("it does not take connections yet")))
        }
        Existing::Stopped => (PrivateState::Stopped, Err(Unknown::Skipped("it does not run"))),
        Existing::None => (PrivateState::None, Err(Unknown::Skipped("it was not made yet"))),
        Existing::Hidden => {
            (PrivateState::Hidden, Err(Unknown::Skipped("this user may not look at it")))
        }
    }
}

async fn look_at_server(store: &Store) -> Asked<ServerFacts> {
    let looked = async {
        let state = store.server_state().await?;
        let mut best: Option<(Duration, Skew)> = None;
        for _ in 0..ROUND_TRIPS {
            let (asked, began) = (SystemClock.now(), Instant::now());
            let now = store.now().await?;
            let took = began.elapsed();
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, Skew::between(asked, now, SystemClock.now())));
            }
        }
        let (round_trip, clock) = best.unwrap_or((Duration::ZERO, Skew { millis: 0, unsure: 0 }));
        Ok(ServerFacts { state, round_trip, clock })
    };
    asked(looked).await
}

async fn look_at_leases(config: &Config, store: &Store) -> Asked<LeaseFacts> {
    let held = asked(store.held_attempts(MOST_GROUPS)).await?;
    let mine = files::known_worker_id(&config.data_dir);
    let mut ids: Vec<WorkerId> = held.iter().map(|it| it.worker).chain(mine).collect();
    ids.sort_unstable();
    ids.dedup();
    let workers = asked(store.worker_states(&ids, MOST_WORKERS)).await?;
    let known = mine.and_then(|mine| workers.iter().find(|it| it.id == mine));
    let here = match known {
        Some(known) => {
            // Processes that share an identity take it from each other again and again.
            tokio::time::sleep(AGAIN_AFTER).await;
            let later = asked(store.worker_states(&[known.id], MOST_WORKERS)).await?;
            let epoch =
                later.iter().find(|it| it.id == known.id).map_or(known.epoch, |it| it.epoch);
            Some(HereFacts {
                worker: known.id,
                hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                taken: epoch - known.epoch,
            })
        }
        None => None,
    };
    Ok(LeaseFacts { lease: config.worker.lease, workers, held, here })
}

async fn look_at_objects(config: &Config) -> ObjectFacts {
    let folder = config.objects_folder();
    let named = folder.clone();
    // A file system over a network may hang: its thread is left alone then.
    let looking = tokio::task::spawn_blocking(move || look_at_folder(&named));
    let looked = match tokio::time::timeout(DEADLINE, looking).await {
        Ok(Ok(looked)) => looked,
        Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => {
            let why = format!("the file system does not answer within {} s", DEADLINE.as_secs());
            (Some(Err(why.clone())), None, Err(why))
        }
    };
    let (probe, space, id) = looked;
    ObjectFacts { folder, probe, space, id, in_use: Err(Unknown::Skipped(NO_DATABASE)) }
}

type Folder = (
    Option<Result<Duration, String>>,
    Option<Space>,
    Result<Option<crate::ids::ObjectStoreId>, String>,
);

fn look_at_folder(folder: &Path) -> Folder {
    if matches!(fs::metadata(folder), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return (None, None, Ok(None));
    }
    let began = Instant::now();
    let probe = probe(folder).map(|()| began.elapsed()).map_err(|it| it.to_string());
    let id = FolderStore::id_of(folder).map_err(|it| it.to_string());
    (Some(probe), space_of(folder), id)
}

/// Writes, syncs, reads and removes a file.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".doctor-{}.part", uuid::Uuid::now_v7()));
    let written =
        OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
            file.write_all(path.as_os_str().as_encoded_bytes())?;
            file.sync_all()
        });
    let read = written.and_then(|()| {
        let mut bytes = Vec::new();
        File::open(&path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if read? != path.as_os_str().as_encoded_bytes() {
        return Err(io::Error::other("what was written there reads back as something else"));
    }
    removed
}

pub(super) fn space_of(path: &Path) -> Option<Space> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
}
