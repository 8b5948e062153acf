//! The targets of the deployment as this process knows them: what is stored, over it what its own configuration
//! says, and the one that is built in.
//!
//! The store is the truth for all processes, and is looked at whenever something may have changed and once a
//! second. The own configuration goes over it, as it may name what only this machine has, such as a socket. Nothing here
//! knows of backends: who connects to them follows [`Catalogue::watch`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};

use crate::domain::target::{Backend, SIMULATED, Target};
use crate::store::{Error, Store, TargetOrigin, TargetRecord, TargetsState};

/// A target of this process's own configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Configured {
    pub target: Target,
    /// Where it is defined, for people.
    pub place: String,
}

/// Who says what a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    Api,
    /// And where, if it is in the configuration of this process.
    Config(Option<String>),
}

/// A target as it is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Not enabled either where it is gone from the configuration.
    pub target: Target,
    pub origin: Origin,
    /// Gone from the configuration, and kept because tasks were still on it.
    pub retired: bool,
    /// Of what is stored. None: another document is in force here.
    pub revision: Option<i64>,
    pub updated_at: Option<Timestamp>,
}

/// All of them at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub entries: BTreeMap<String, Entry>,
    /// The same, for those who read tasks.
    pub targets: Arc<BTreeMap<String, Target>>,
}

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Catalogue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    own: BTreeMap<String, Configured>,
    known: watch::Sender<Arc<Known>>,
    /// Held while the store is asked, so that what was read later is never overwritten by what was read before.
    seen: Mutex<Option<TargetsState>>,
}

impl Catalogue {
    /// Knows of its own targets until it has looked.
    pub fn new(store: Store, own: BTreeMap<String, Configured>) -> Self {
        let known = Arc::new(known(&own, Vec::new()));
        let known = watch::channel(known).0;
        Self { shared: Arc::new(Shared { store, own, known, seen: Mutex::new(None) }) }
    }

    /// Writes its own targets to the store.
    pub async fn publish(&self) -> Result<(), Error> {
        self.shared.store.configure_targets(&self.own()).await
    }

    /// Looks at the store if anything there has changed. Returns how many checks wait for a worker.
    pub async fn refresh(&self) -> Result<i64, Error> {
        let mut seen = self.shared.seen.lock().await;
        let state = self.shared.store.targets_state().await?;
        let unchanged = |it: &TargetsState| {
            (it.count, it.newest, it.sum) == (state.count, state.newest, state.sum)
        };
        if seen.as_ref().is_some_and(unchanged) {
            return Ok(state.checks);
        }
        let records = self.shared.store.list_targets().await?;
        self.restore(&records).await?;
        let known = Arc::new(known(&self.shared.own, records));
        self.shared.known.send_if_modified(|it| {
            let changed = **it != *known;
            *it = known;
            changed
        });
        // What changed since is another state.
        *seen = Some(state);
        Ok(state.checks)
    }

    /// A process with another configuration has taken away what is in this one's.
    async fn restore(&self, records: &[TargetRecord]) -> Result<(), Error> {
        let is_there = |name: &str| {
            let mut stored = records.iter().filter(|it| it.name == name);
            stored.any(|it| it.origin == TargetOrigin::Config && !it.retired)
        };
        let missing: Vec<_> = self.own().into_iter().filter(|(name, _)| !is_there(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.shared.store.restore_targets(&missing).await
    }

    fn own(&self) -> Vec<(String, Target)> {
        let own = self.shared.own.iter();
        own.map(|(name, it)| (name.clone(), it.target.clone())).collect()
    }

    pub fn current(&self) -> Arc<Known> {
        Arc::clone(&self.shared.known.borrow())
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Known>> {
        self.shared.known.subscribe()
    }
}

fn known(own: &BTreeMap<String, Configured>, records: Vec<TargetRecord>) -> Known {
    let mut entries = BTreeMap::new();
    for it in records {
        let mut target = match it.target {
            Ok(target) => target,
            Err(error) => {
                // A newer process wrote it, and serves it.
                tracing::warn!(target.name = it.name, error, "a stored target can't be read");
                continue;
            }
        };
        target.enabled &= !it.retired;
        let origin = match it.origin {
            TargetOrigin::Api => Origin::Api,
            TargetOrigin::Config => Origin::Config(None),
        };
        let (revision, updated_at) = (Some(it.revision), Some(it.updated_at));
        let retired = it.retired;
        entries.insert(it.name, Entry { target, origin, retired, revision, updated_at });
    }
    for (name, it) in own {
        let Configured { target, place } = it.clone();
        let stored: Option<Entry> = entries.remove(name);
        // The clock of the store says when it came to be as it is.
        let same = stored.filter(|it| it.target == target);
        let revision = same.as_ref().and_then(|it| it.revision);
        let updated_at = same.and_then(|it| it.updated_at);
        let origin = Origin::Config(Some(place));
        let entry = Entry { target, origin, retired: false, revision, updated_at };
        entries.insert(name.clone(), entry);
    }
    let simulated = Entry {
        target: Target::plain(Backend::Simulated),
        origin: Origin::BuiltIn,
        retired: false,
        revision: None,
        updated_at: None,
    };
    entries.insert(SIMULATED.to_owned(), simulated);
    let targets = entries.iter().map(|(name, it)| (name.clone(), it.target.clone())).collect();
    Known { entries, targets: Arc::new(targets) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::target::DockerBackend;

    fn docker(host: &str) -> Target {
        Target::plain(Backend::Docker(DockerBackend { host: Some(host.to_owned()) }))
    }

    fn record(name: &str, origin: TargetOrigin, retired: bool) -> TargetRecord {
        TargetRecord {
            name: name.to_owned(),
            target: Ok(docker("tcp://stored")),
            origin,
            retired,
            revision: 7,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_own_configuration_goes_over_what_is_stored() {
        let place = "here".to_owned();
        let own = Configured { target: docker("tcp://own"), place: place.clone() };
        let own = BTreeMap::from([("local".to_owned(), own)]);
        let broken = TargetRecord {
            target: Err("new".to_owned()),
            ..record("new", TargetOrigin::Api, false)
        };
        let known = known(
            &own,
            vec![
                record("local", TargetOrigin::Config, false),
                record("api", TargetOrigin::Api, false),
                record("old", TargetOrigin::Config, true),
                broken,
            ],
        );
        let entries = &known.entries;
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["api", "local", "old", "simulated"]);
        assert_eq!(entries["local"].target, docker("tcp://own"));
        assert_eq!(
            (&entries["local"].origin, entries["local"].revision),
            (&Origin::Config(Some(place)), None)
        );
        assert_eq!((&entries["api"].origin, entries["api"].revision), (&Origin::Api, Some(7)));
        assert!(!entries["old"].target.enabled && entries["api"].target.enabled);
        assert_eq!(known.targets["api"], docker("tcp://stored"));
    }
}
