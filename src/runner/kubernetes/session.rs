//! The session with a cluster: who answers, whether it does, and one watch per namespace in place of questions.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as ClusterEvent, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::access::Connection;
use super::credentials::Credentials;
use super::errors::{Fault, chain};
use super::happenings::{self, Happening, Happenings};
use super::seen::Seen;
use crate::clock::{Clock as _, SystemClock};
use crate::domain::target::KubernetesBackend;
use crate::ids::InstallationId;
use crate::runner::{EngineId, EngineState, RunnerError, SandboxKey, naming};

/// Of every plain call.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Of the questions by which the session is kept.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two of them while all is well.
const PROBE_PERIOD: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// While it is down the log says so once in a while.
const SAY_AGAIN: Duration = Duration::from_mins(5);
/// A watch is opened anew so often: one that hangs is found out.
const WATCH_SECONDS: u32 = 240;
/// How many pods are read at once.
const PAGE: u32 = 100;
/// Whose UID is that of its cluster.
const CLUSTER_NAMESPACE: &str = "kube-system";

#[derive(Debug)]
pub(super) struct Session {
    backend: KubernetesBackend,
    pub(super) installation: InstallationId,
    credentials: Credentials,
    state: watch::Sender<EngineState>,
    /// The namespaces that are watched, the one for pods that name none first. Empty: not known yet.
    namespaces: watch::Sender<Vec<String>>,
    pods: Mutex<HashMap<Place, Entry>>,
    /// How many namespaces have been listed.
    listed: watch::Sender<usize>,
    /// Why the last list or watch failed.
    not_listed: Mutex<String>,
    happenings: Mutex<Happenings>,
    /// The pods whose end we asked for, by UID.
    stopped: Mutex<HashSet<String>>,
    suspect: Notify,
}

/// Where a pod is. There is never another one of this name: the name has the attempt in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) pod: String,
}

#[derive(Debug)]
struct Entry {
    pod: watch::Sender<Option<Arc<Seen>>>,
    /// Met in the list that is being read.
    met: bool,
}

impl Default for Entry {
    fn default() -> Self {
        Self { pod: watch::Sender::new(None), met: false }
    }
}

impl Session {
    pub(super) fn new(backend: KubernetesBackend, installation: InstallationId) -> Self {
        Self {
            backend,
            installation,
            credentials: Credentials::default(),
            state: watch::Sender::new(EngineState::Connecting),
            namespaces: watch::Sender::default(),
            pods: Mutex::default(),
            listed: watch::Sender::new(0),
            not_listed: Mutex::default(),
            happenings: Mutex::default(),
            stopped: Mutex::default(),
            suspect: Notify::new(),
        }
    }

    pub(super) const fn backend(&self) -> &KubernetesBackend {
        &self.backend
    }

    pub(super) fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// That this very cluster answers.
    pub(super) fn with(&self, engine: &EngineId) -> Result<(), RunnerError> {
        let found = self.engine()?;
        if &found == engine {
            return Ok(());
        }
        Err(RunnerError::OtherEngine { expected: engine.clone(), found })
    }

    /// Which cluster answers.
    pub(super) fn engine(&self) -> Result<EngineId, RunnerError> {
        match &*self.state.borrow() {
            EngineState::Ready { id, .. } => Ok(id.clone()),
            EngineState::Down { why, .. } => Err(RunnerError::Unavailable(why.clone())),
            EngineState::Connecting => {
                Err(RunnerError::Unavailable("not connected yet".to_owned()))
            }
        }
    }

    /// Asks who answers right now: what makes "not found" final.
    pub(super) async fn confirm(&self, engine: &EngineId) -> Result<(), RunnerError> {
        let found = self.identity().await?;
        if &found == engine {
            return Ok(());
        }
        self.suspect.notify_one();
        Err(RunnerError::OtherEngine { expected: engine.clone(), found })
    }

    async fn identity(&self) -> Result<EngineId, Fault> {
        let asked = self
            .call(async |client| {
                Api::<Namespace>::all(client).get_metadata(CLUSTER_NAMESPACE).await
            })
            .await;
        match asked {
            Ok(it) => {
                let uid = it.metadata.uid.unwrap_or_default();
                Ok(EngineId(uid))
            }
            // Nobody has to be allowed to look there: the address and its certificate tell, too.
            Err(Fault::Status { code: 403, .. }) => Ok(EngineId(self.connection()?.fingerprint)),
            Err(fault) => Err(fault),
        }
    }

    fn connection(&self) -> Result<Connection, Fault> {
        self.credentials.connection()
    }

    /// Nobody checks that it is the API server who answers.
    pub(super) fn is_unverified(&self) -> bool {
        self.connection().is_ok_and(|it| it.unverified)
    }

    /// Where its credentials lead to, once they are read.
    pub(super) fn place(&self) -> Option<String> {
        self.connection().ok().map(|it| it.place)
    }

    /// A client as it is now; streams and sockets that it opens are not looked after here.
    pub(super) fn client(&self) -> Result<Client, Fault> {
        Ok(self.connection()?.client)
    }

    /// A plain call. Credentials that are refused are read anew, once, and the call is made again: they may
    /// have been exchanged under us, and no task has to do with that.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let mut result = self.call_once(&call).await;
        if let Err(Fault::Status { code: 401, .. }) = result
            && self.renew().await.is_ok()
        {
            result = self.call_once(&call).await;
        }
        self.note(&result);
        result
    }

    /// A call that failed so that the session itself may be at fault.
    pub(super) fn note<T>(&self, result: &Result<T, Fault>) {
        if let Err(Fault::NotSent(_) | Fault::Lost(_) | Fault::Status { code: 401 | 500.., .. }) =
            result
        {
            self.suspect.notify_one();
        }
    }

    async fn call_once<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        match timeout(CALL_TIMEOUT, call(self.client()?)).await {
            Ok(result) => result.map_err(Fault::from),
            Err(_) => Err(Fault::Lost(format!("no answer within {CALL_TIMEOUT:?}"))),
        }
    }

    /// Reads the credentials anew.
    async fn renew(&self) -> Result<(), Fault> {
        let namespace = self.credentials.renew(&self.backend).await?;
        self.namespaces.send_if_modified(|it| {
            if !it.is_empty() {
                return false;
            }
            it.push(namespace.clone());
            it.extend(self.backend.namespaces.iter().filter(|it| **it != namespace).cloned());
            true
        });
        Ok(())
    }

    /// Reads the credentials anew where there are none yet, where their files have changed, and now and then while
    /// the cluster is down: it may be elsewhere by now, or have another certificate.
    async fn look_at_credentials(&self) -> Result<(), Fault> {
        if self.client().is_err() {
            return self.renew().await;
        }
        let is_down = matches!(&*self.state.borrow(), EngineState::Down { .. });
        let is_due = is_down && self.credentials.are_older_than(PROBE_PERIOD).await;
        if is_due || self.credentials.have_changed(&self.backend).await {
            // Those that there are may still do: a file that is written anew is empty for a moment.
            let _ = self.renew().await;
        }
        Ok(())
    }

    /// The namespace of pods that name none, and the others that pods may name.
    pub(super) fn namespaces(&self) -> Vec<String> {
        self.namespaces.borrow().clone()
    }

    // The pods.

    /// Hears of a pod: None while the watch does not know it.
    pub(super) fn watch(&self, place: &Place) -> Watched<'_> {
        let mut pods = lock(&self.pods);
        let pod = pods.entry(place.clone()).or_default().pod.subscribe();
        Watched { session: self, place: place.clone(), pod }
    }

    /// A pod as the watch has it.
    pub(super) fn known(&self, place: &Place) -> Option<Arc<Seen>> {
        lock(&self.pods).get(place).and_then(|it| it.pod.borrow().clone())
    }

    /// One pod as the API server has it now.
    pub(super) async fn look(&self, place: &Place) -> Result<Option<Arc<Seen>>, Fault> {
        let asked = self
            .call(async |client| {
                Api::<Pod>::namespaced(client, &place.namespace).get_opt(&place.pod).await
            })
            .await?;
        let Some(pod) = asked else { return Ok(None) };
        let seen = Seen::read(pod).map(Arc::new);
        if let Some(seen) = &seen {
            self.heard(Arc::clone(seen), false);
        }
        // A pod without our marks is nobody's that we could know.
        seen.map(Some).ok_or_else(|| Fault::Status {
            code: 409,
            reason: "Foreign".to_owned(),
            message: format!("the name {} is taken by a pod of somebody else", place.pod),
        })
    }

    /// The pod of an attempt, wherever it is.
    pub(super) async fn find(&self, key: &SandboxKey) -> Result<Option<Arc<Seen>>, Fault> {
        let pod = naming::sandbox_name(key);
        let mut namespaces = self.namespaces();
        // The one that is known to have it is asked first, and the others not.
        let known = {
            let pods = lock(&self.pods);
            namespaces.iter().position(|it| {
                let place = Place { namespace: it.clone(), pod: pod.clone() };
                pods.get(&place).is_some_and(|it| it.pod.borrow().is_some())
            })
        };
        if let Some(known) = known {
            namespaces.swap(0, known);
        }
        for namespace in namespaces {
            if let Some(seen) = self.look(&Place { namespace, pod: pod.clone() }).await? {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// What is made of the metadata of every pod of this installation. By pages: a whole pod weighs a hundred times
    /// what is kept of it, and there may be thousands.
    pub(super) async fn list<T>(
        &self,
        read: impl Fn(ObjectMeta) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        for namespace in self.namespaces() {
            let mut params = ListParams::default().labels(&self.selector()).limit(PAGE);
            loop {
                let page = self
                    .call(async |client| {
                        Api::<Pod>::namespaced(client, &namespace).list_metadata(&params).await
                    })
                    .await?;
                found.extend(page.items.into_iter().filter_map(|it| read(it.metadata)));
                match page.metadata.continue_.filter(|it| !it.is_empty()) {
                    Some(next) => params = params.continue_token(&next),
                    None => break,
                }
            }
        }
        Ok(found)
    }

    fn selector(&self) -> String {
        format!("{}={}", naming::LABEL_INSTALLATION, self.installation)
    }

    /// Whether a node is there no more. An error where that can't be told.
    pub(super) async fn node_is_gone(&self, node: &str) -> Result<bool, Fault> {
        let asked =
            self.call(async |client| Api::<Node>::all(client).get_metadata_opt(node).await).await?;
        Ok(asked.is_none())
    }

    fn heard(&self, seen: Arc<Seen>, in_list: bool) {
        let place = Place { namespace: seen.namespace.clone(), pod: seen.name.clone() };
        let mut pods = lock(&self.pods);
        let entry = pods.entry(place).or_default();
        entry.met |= in_list;
        entry.pod.send_replace(Some(seen));
    }

    fn gone(&self, place: &Place) {
        let mut pods = lock(&self.pods);
        if let Some(entry) = pods.get(place) {
            entry.pod.send_replace(None);
            if entry.pod.receiver_count() == 0 {
                pods.remove(place);
            }
        }
        drop(pods);
        lock(&self.happenings).forget(place);
    }

    /// What the cluster told about a pod. Who watches the pod is woken by it, and by that of no other pod:
    /// thousands may wait, each told again and again that there is no room.
    pub(super) fn happenings(&self, place: &Place) -> Vec<Happening> {
        lock(&self.happenings).of(place)
    }

    fn happened(&self, event: ClusterEvent) {
        let Some(place) = happenings::place(&event) else { return };
        // Of others, and of those that are long gone, nothing is kept.
        if let Some(entry) = lock(&self.pods).get(&place)
            && lock(&self.happenings).hear(&place, event)
        {
            entry.pod.send_modify(|_| {});
        }
    }

    pub(super) fn note_stop(&self, uid: &str) {
        lock(&self.stopped).insert(uid.to_owned());
    }

    pub(super) fn is_stopped(&self, uid: &str) -> bool {
        lock(&self.stopped).contains(uid)
    }

    pub(super) fn forget(&self, uid: &str) {
        lock(&self.stopped).remove(uid);
    }

    // What keeps the session.

    /// Keeps it, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let probes = self.probe();
        let watches = async {
            let mut namespaces = self.namespaces.subscribe();
            if namespaces.wait_for(|it| !it.is_empty()).await.is_err() {
                return;
            }
            let all = self.namespaces();
            let mut loops: FuturesUnordered<_> =
                all.iter().map(|it| self.watch_pods(it.clone())).collect();
            let mut events: FuturesUnordered<_> =
                all.iter().map(|it| self.watch_events(it.clone())).collect();
            tokio::join!(async { while loops.next().await.is_some() {} }, async {
                while events.next().await.is_some() {}
            });
        };
        tokio::join!(probes, watches);
    }

    /// Asks who answers: at the start, from time to time, and when a call has failed.
    async fn probe(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut said: Option<Instant> = None;
        loop {
            match self.ask_now().await {
                Ok(ready) => {
                    backoff = BACKOFF_MIN;
                    let was = self.state.send_replace(ready.clone());
                    if was != ready {
                        said = None;
                        tracing::info!(state = ?ready, "cluster ready");
                    }
                    tokio::select! {
                        () = sleep(PROBE_PERIOD) => {}
                        () = self.suspect.notified() => {}
                    }
                }
                Err(why) => {
                    if said.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
                        tracing::warn!(why, "cluster down");
                        said = Some(Instant::now());
                    }
                    self.state.send_modify(|state| match state {
                        EngineState::Down { why: before, .. } => *before = why,
                        EngineState::Connecting | EngineState::Ready { .. } => {
                            *state = EngineState::Down { since: SystemClock.now(), why };
                        }
                    });
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Who answers now, and whether its pods can be followed.
    pub(super) async fn ask_now(&self) -> Result<EngineState, String> {
        self.within_the_timeout(self.ask()).await
    }

    /// Who answers now, and with which version, whether its pods can be followed or not.
    pub(super) async fn who_now(&self) -> Result<(EngineId, String), String> {
        self.within_the_timeout(self.who()).await
    }

    async fn within_the_timeout<T>(
        &self,
        question: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let asked = timeout(PROBE_TIMEOUT, question).await;
        let seconds = PROBE_TIMEOUT.as_secs();
        match (asked, self.connection()) {
            (Ok(Ok(answer)), _) => Ok(answer),
            (Ok(Err(why)), Ok(it)) => Err(format!("{}: {why}", it.place)),
            (Ok(Err(why)), Err(_)) => Err(why),
            (Err(_), Ok(it)) => Err(format!("{}: no answer within {seconds} s", it.place)),
            (Err(_), Err(_)) => Err(format!(
                "the credentials could not be read within {seconds} s: does the exec plugin of the kubeconfig hang?"
            )),
        }
    }

    async fn who(&self) -> Result<(EngineId, String), String> {
        self.look_at_credentials().await.map_err(|it| it.answer())?;
        let version = self.call(async |client| client.apiserver_version().await).await;
        let version = version.map_err(|it| it.answer())?;
        let id = self.identity().await.map_err(|it| it.answer())?;
        Ok((id, version.git_version))
    }

    async fn ask(&self) -> Result<EngineState, String> {
        let (id, version) = self.who().await?;
        // Without a list nothing can be said of any pod.
        let wanted = self.namespaces().len();
        if *self.listed.borrow() < wanted {
            let mut listed = self.listed.subscribe();
            if timeout(PROBE_TIMEOUT / 2, listed.wait_for(|it| *it >= wanted)).await.is_err() {
                let why = lock(&self.not_listed).clone();
                let why = if why.is_empty() { "no answer yet" } else { &why };
                return Err(format!("the pods can't be listed: {why}"));
            }
        }
        Ok(EngineState::Ready { id, version, node: None })
    }

    async fn until_ready(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|it| matches!(it, EngineState::Ready { .. })).await;
    }

    async fn watch_pods(&self, namespace: String) {
        let mut first = true;
        loop {
            let generation = self.credentials.generation();
            let Ok(client) = self.client() else {
                sleep(BACKOFF_MIN).await;
                continue;
            };
            let config = watcher::Config::default()
                .labels(&self.selector())
                .timeout(WATCH_SECONDS)
                .page_size(PAGE);
            let mut events =
                std::pin::pin!(watcher(Api::<Pod>::namespaced(client, &namespace), config));
            // A client of new credentials is taken after a failure: the watch that there is goes on.
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(pod)) => {
                        if let Some(seen) = Seen::read(pod) {
                            self.heard(Arc::new(seen), false);
                        }
                    }
                    Ok(Event::Delete(pod)) => {
                        if let (Some(namespace), Some(pod)) =
                            (pod.metadata.namespace, pod.metadata.name)
                        {
                            self.gone(&Place { namespace, pod });
                        }
                    }
                    Ok(Event::Init) => self.begin_list(&namespace),
                    Ok(Event::InitApply(pod)) => {
                        if let Some(seen) = Seen::read(pod) {
                            self.heard(Arc::new(seen), true);
                        }
                    }
                    Ok(Event::InitDone) => {
                        self.end_list(&namespace);
                        if std::mem::take(&mut first) {
                            self.listed.send_modify(|it| *it += 1);
                        }
                    }
                    Err(error) => {
                        self.watch_failed(&namespace, &error).await;
                        if generation != self.credentials.generation() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Waits until it may be tried again, perhaps with a new client.
    async fn watch_failed(&self, namespace: &str, error: &watcher::Error) {
        tracing::debug!(namespace, %error, "the watch broke off");
        *lock(&self.not_listed) = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.message.clone(),
            other => format!("{namespace}: {}", chain(other)),
        };
        let unauthorized = matches!(
            error,
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 401
        );
        if unauthorized {
            let _ = self.renew().await;
            sleep(BACKOFF_MIN).await;
            return;
        }
        self.suspect.notify_one();
        sleep(BACKOFF_MIN).await;
        if *self.listed.borrow() > 0 {
            self.until_ready().await;
        } else {
            sleep(BACKOFF_MAX).await;
        }
    }

    fn begin_list(&self, namespace: &str) {
        for (place, entry) in lock(&self.pods).iter_mut() {
            if place.namespace == namespace {
                entry.met = false;
            }
        }
    }

    /// What the list does not have is gone.
    fn end_list(&self, namespace: &str) {
        let missing: Vec<Place> = lock(&self.pods)
            .iter()
            .filter(|(place, entry)| {
                place.namespace == namespace && !entry.met && entry.pod.borrow().is_some()
            })
            .map(|(place, _)| place.clone())
            .collect();
        for place in missing {
            self.gone(&place);
        }
    }

    /// What the cluster tells about its pods. Where that may not be read, pods say less of why they wait.
    async fn watch_events(&self, namespace: String) {
        loop {
            self.until_ready().await;
            let Ok(client) = self.client() else { continue };
            let config = watcher::Config::default()
                .fields("involvedObject.kind=Pod")
                .timeout(WATCH_SECONDS)
                .page_size(PAGE);
            let api = Api::<ClusterEvent>::namespaced(client, &namespace);
            let mut events = std::pin::pin!(watcher(api, config));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(it) | Event::InitApply(it)) => self.happened(it),
                    Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
                    Err(error) => {
                        tracing::debug!(namespace, %error, "the events of the cluster can't be read");
                        sleep(BACKOFF_MAX * 5).await;
                        break;
                    }
                }
            }
        }
    }
}

/// A pod as it changes, and as the cluster tells about it.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    session: &'a Session,
    place: Place,
    pod: watch::Receiver<Option<Arc<Seen>>>,
}

impl Watched<'_> {
    pub(super) fn current(&mut self) -> Option<Arc<Seen>> {
        self.pod.borrow_and_update().clone()
    }

    pub(super) async fn changed(&mut self) {
        if self.pod.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut pods = lock(&self.session.pods);
        // The last one to look at what is not there any more.
        if let Some(entry) = pods.get(&self.place)
            && entry.pod.receiver_count() == 1
            && entry.pod.borrow().is_none()
        {
            pods.remove(&self.place);
            lock(&self.session.happenings).forget(&self.place);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now, as this machine has it.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}
