//! The launch protocol: a pod that can't start, a look, the Secret that lets it start, and the wait for its
//! node, its image and its first container.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{Patch, PostParams};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::errors::Fault;
use super::observe::{Context, Standing, missed_its_gate, standing};
use super::seen::Seen;
use super::session::{CALL_TIMEOUT, Place, now};
use super::{KubernetesRunner, Pointer, convert};
use crate::domain::exit::ExitStatus;
use crate::domain::failure::{Failure, Reason};
use crate::failpoints::{self, Point};
use crate::runner::{LaunchError, LaunchRequest, Launched, Progress, RunnerError, naming};

/// Between two tries at a quota that is used up.
const QUOTA_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks where a timer was reached and the pod did not change.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// Between two changes to a pod whose node has not seen its Secret, to begin with, and how many there are.
const NUDGE_PAUSE: SignedDuration = SignedDuration::from_secs(2);
const NUDGES: u32 = 4;
/// How far the watch may be behind before the pod itself is asked for.
const WATCH_LAG: SignedDuration = SignedDuration::from_secs(2);

/// On a pod: how often its node was made to look at it again.
const NUDGE_ANNOTATION: &str = "supercargo.dev/nudges";
/// What a change that is only of use at once may take.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Launch<'a> {
    runner: &'a KubernetesRunner,
    request: &'a LaunchRequest<'a>,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    place: Place,
}

impl<'a> Launch<'a> {
    pub(super) fn new(
        runner: &'a KubernetesRunner,
        request: &'a LaunchRequest<'a>,
        progress: &'a dyn Progress,
        cancel: &'a CancellationToken,
    ) -> Result<Self, LaunchError> {
        let pod = naming::sandbox_name(&request.key);
        let namespace = runner.namespace_of(request.spec).map_err(LaunchError::Refused)?;
        Ok(Self { runner, request, progress, cancel, place: Place { namespace, pod } })
    }

    pub(super) async fn run(&self) -> Result<Launched, LaunchError> {
        self.may_go_on()?;
        // Heard of from the first moment on.
        let mut watched = self.runner.session.watch(&self.place);
        let seen = self.create().await?;
        let already = seen.has_run() || !self.start(&seen).await?;
        self.progress.waits();
        self.wait(&mut watched, &seen.uid, already).await
    }

    /// Before each step: nobody gave up, and it is still the cluster that the attempt was given to.
    fn may_go_on(&self) -> Result<(), LaunchError> {
        if self.cancel.is_cancelled() {
            return Err(LaunchError::Cancelled);
        }
        let with = self.runner.session.with(self.request.engine);
        with.map_err(|it| LaunchError::Unavailable(it.to_string()))
    }

    /// Sees to it that the pod exists.
    async fn create(&self) -> Result<Arc<Seen>, LaunchError> {
        let begun = now();
        let mut told = false;
        loop {
            self.may_go_on()?;
            let fault = match self.send_create().await? {
                Ok(pod) => {
                    self.progress.step("created", format!("pod {} created", self.place.pod));
                    let seen = Seen::read(pod).map(Arc::new);
                    return seen.ok_or_else(|| {
                        LaunchError::Indeterminate("the pod lost our marks on its way".to_owned())
                    });
                }
                Err(fault) => fault,
            };
            if fault.already_exists() {
                if let Some(seen) = self.look().await? {
                    return Ok(seen);
                }
                // It went away in between.
                sleep(LEAST_PAUSE).await;
                continue;
            }
            if !is_quota(&fault) {
                return Err(create_failed(&fault));
            }
            let limit = self.request.spec.timeouts.schedule;
            if now().duration_since(begun) > limit {
                let why = fault.message();
                let message = format!("no room within timeouts.schedule ({limit:#}): {why}");
                return Err(refused(Reason::Unschedulable, message));
            }
            if !std::mem::replace(&mut told, true) {
                self.progress.step("quota_exceeded", fault.message());
                self.progress.waits();
            }
            tokio::select! {
                () = sleep(QUOTA_PAUSE) => {}
                () = self.cancel.cancelled() => return Err(LaunchError::Cancelled),
            }
        }
    }

    async fn send_create(&self) -> Result<Result<Pod, Fault>, LaunchError> {
        let nonce = nonce();
        let rules = self.runner.rules();
        let pod = convert::pod(self.request, &rules, &nonce).map_err(LaunchError::Refused)?;
        let namespace = self.place.namespace.clone();
        let created = self
            .unbroken(Point::CreateInFlight, async move |client| {
                let params = PostParams::default();
                Api::<Pod>::namespaced(client, &namespace).create(&params, &pod).await
            })
            .await;
        failpoints::at(Point::CreateAnswered);
        Ok(created)
    }

    /// What the cluster has under our name, which must be this attempt, made from this spec.
    async fn look(&self) -> Result<Option<Arc<Seen>>, LaunchError> {
        let seen = match self.runner.session.look(&self.place).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(None),
            Err(Fault::Status { code: 409, message, .. }) => {
                return Err(refused(Reason::CreateConfigError, message));
            }
            // It may be one that an earlier call has started.
            Err(fault) => return Err(LaunchError::Indeterminate(fault.message())),
        };
        let of = |label: &str| seen.labels.get(label).cloned();
        let owner = naming::owner(self.request.key.installation, of);
        if owner.is_none_or(|(_, attempt)| attempt != self.request.key.attempt) {
            let why = format!("the name {} is taken by a pod of somebody else", self.place.pod);
            return Err(refused(Reason::CreateConfigError, why));
        }
        if seen.is_kept() {
            let why = "the pod was put aside before it was started";
            return Err(refused(Reason::DeletedExternally, why.to_owned()));
        }
        if of(naming::LABEL_SPEC).as_deref() != Some(self.request.spec_hash.as_str()) {
            let why = format!("{} exists and was made from another spec", self.place.pod);
            return Err(refused(Reason::CreateConfigError, why));
        }
        Ok(Some(seen))
    }

    /// Lets it start. False: that had been done before.
    async fn start(&self, seen: &Seen) -> Result<bool, LaunchError> {
        self.may_go_on()?;
        if !self.progress.may_start() {
            return Err(LaunchError::Cancelled);
        }
        for secret in convert::more_secrets(self.request, &seen.gate, &seen.uid) {
            self.put_secret(secret).await?;
            failpoints::at(Point::FilesPut);
        }
        if !self.progress.may_start() {
            return Err(LaunchError::Cancelled);
        }
        failpoints::at(Point::StartBegun);
        let gate = convert::gate(self.request, &seen.gate, &seen.uid);
        let namespace = self.place.namespace.clone();
        let sent = self
            .unbroken(Point::StartInFlight, async move |client| {
                let params = PostParams::default();
                Api::<Secret>::namespaced(client, &namespace).create(&params, &gate).await
            })
            .await;
        failpoints::at(Point::StartAnswered);
        match sent {
            Ok(_) => Ok(true),
            Err(fault) if fault.already_exists() => {
                if self.runner.is_void(seen).await.map_err(indeterminate)? {
                    let why = "whoever took the attempt over made sure that its pod never starts";
                    return Err(refused(Reason::DeletedExternally, why.to_owned()));
                }
                Ok(false)
            }
            Err(fault) => Err(start_failed(&fault)),
        }
    }

    /// What the start needs beside it. One that is there is as it should be: its name has our nonce in it.
    async fn put_secret(&self, secret: Secret) -> Result<(), LaunchError> {
        let put = self
            .runner
            .session
            .call(async |client| {
                let params = PostParams::default();
                Api::<Secret>::namespaced(client, &self.place.namespace)
                    .create(&params, &secret)
                    .await
            })
            .await;
        match put {
            Ok(_) => Ok(()),
            Err(fault) if fault.already_exists() => Ok(()),
            Err(fault) => Err(start_failed(&fault)),
        }
    }

    /// Waits until its first container runs, or until it is certain that none will.
    async fn wait(
        &self,
        watched: &mut super::session::Watched<'_>,
        uid: &str,
        already: bool,
    ) -> Result<Launched, LaunchError> {
        let mut told = 0;
        let mut known = false;
        let mut ask_at = now().checked_add(WATCH_LAG).ok();
        let (mut nudges, mut nudge_at) = (0, Timestamp::MIN);
        loop {
            // First, so that what happens from here on is one more round.
            let current = watched.current();
            let happenings = self.runner.session.happenings(&self.place);
            for it in happenings.iter().skip(told) {
                if let Some(reason) = step_of(&it.reason) {
                    self.progress.step(reason, it.message.clone());
                }
            }
            told = happenings.len();
            let context = Context {
                timeouts: Some(&self.request.spec.timeouts),
                happenings: &happenings,
                stopped_by_us: false,
                now: now(),
            };
            let until = match current.as_deref().filter(|it| it.uid == uid) {
                // The watch may be a moment behind.
                None if !known && ask_at.is_some_and(|it| now() < it) => ask_at,
                None if !known && self.look().await?.is_some_and(|it| it.uid == uid) => {
                    ask_at = now().checked_add(WATCH_LAG).ok();
                    continue;
                }
                None => {
                    return Err(refused(
                        Reason::DeletedExternally,
                        "the pod was removed before it was started".to_owned(),
                    ));
                }
                Some(seen) => {
                    known = true;
                    match standing(seen, context) {
                        Standing::Running { started_at, .. } => {
                            self.tell_started(already);
                            return Ok(self.launched(seen, started_at, already));
                        }
                        Standing::Ended(report) => {
                            if let ExitStatus::StartFailed { code, message } = report.status {
                                return Err(refused(Reason::of_failed_start(code), message));
                            }
                            self.tell_started(already);
                            let started_at = report.started_at.unwrap_or_else(now);
                            return Ok(self.launched(seen, started_at, already));
                        }
                        Standing::Refused(failure) => return Err(LaunchError::Refused(failure)),
                        Standing::Waiting { until } if missed_its_gate(seen) && nudges < NUDGES => {
                            if nudge_at <= now() {
                                nudges += 1;
                                self.nudge(seen, nudges).await;
                                let pause = NUDGE_PAUSE * nudges.cast_signed();
                                nudge_at = now().checked_add(pause).unwrap_or(until);
                            }
                            Some(until.min(nudge_at))
                        }
                        Standing::Waiting { until } => Some(until),
                    }
                }
            };
            // Thousands may wait here.
            drop((happenings, current));
            tokio::select! {
                () = watched.changed() => {}
                () = pause_until(until) => {}
                () = self.cancel.cancelled() => return Err(LaunchError::Cancelled),
            }
        }
    }

    /// Changes nothing but that its node looks at the pod again, soon: nodes hear of a pod before they may read its
    /// Secrets, and those that are busy give up on them for a while.
    async fn nudge(&self, seen: &Seen, times: u32) {
        let annotations = json!({NUDGE_ANNOTATION: times.to_string()});
        let patch = json!({"metadata": {"uid": seen.uid, "annotations": annotations}});
        let patched = timeout(LEAST_PATIENCE, self.runner.patch(seen, Patch::Merge(patch))).await;
        // It looks again anyway.
        tracing::debug!(pod = seen.name, times, done = matches!(patched, Ok(Ok(_))), "nudged");
    }

    fn tell_started(&self, already: bool) {
        if !already {
            self.progress.step("started", format!("pod {} started", self.place.pod));
        }
    }

    fn launched(&self, seen: &Seen, started_at: Timestamp, already: bool) -> Launched {
        Launched {
            handle: Pointer::of(seen, self.request.engine).handle(),
            started_at,
            image_digest: seen.main().and_then(|it| digest(it.image_id.as_deref()?)),
            already,
        }
    }

    /// A call that goes on to its own end when its caller gives up.
    async fn unbroken<T, F>(
        &self,
        point: Point,
        call: impl FnOnce(kube::Client) -> F + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, kube::Error>> + Send + 'static,
    {
        let client = self.runner.session.client()?;
        let task =
            self.runner.tasks.spawn(async move { timeout(CALL_TIMEOUT, call(client)).await });
        failpoints::in_flight(point).await;
        let result = match task.await {
            Ok(Ok(result)) => result.map_err(Fault::from),
            Ok(Err(_)) => Err(Fault::Lost(format!("no answer within {CALL_TIMEOUT:?}"))),
            Err(_) => Err(Fault::Lost("the call broke off".to_owned())),
        };
        self.runner.session.note(&result);
        result
    }
}

/// What is told of the events of the cluster, by our own names.
fn step_of(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "Scheduled" => "scheduled",
        "FailedScheduling" => "unschedulable",
        "TriggeredScaleUp" => "scale_up",
        "NotTriggerScaleUp" => "no_scale_up",
        "Pulling" => "pulling",
        "Pulled" => "pulled",
        "BackOff" => "back_off",
        "Failed" | "FailedCreatePodSandBox" => "start_problem",
        "FailedMount" | "FailedAttachVolume" => "volume_problem",
        "Preempted" => "preempted",
        "Evicted" => "evicted",
        "Killing" => "killing",
        _ => return None,
    })
}

/// The cluster refused it for want of quota, which others give back. The API has no other word for it.
fn is_quota(fault: &Fault) -> bool {
    matches!(fault, Fault::Status { code: 403, message, .. } if message.contains("exceeded quota"))
}

fn create_failed(fault: &Fault) -> LaunchError {
    match fault {
        Fault::NotSent(why) => LaunchError::Unavailable(why.clone()),
        Fault::Lost(why) => LaunchError::Indeterminate(why.clone()),
        Fault::Status { code: 401 | 429 | 503, .. } => LaunchError::Unavailable(fault.message()),
        Fault::Status { code: 500.., .. } => LaunchError::Indeterminate(fault.message()),
        Fault::Status { .. } => refused(
            Reason::CreateConfigError,
            format!("the cluster refused the pod: {}", fault.message()),
        ),
    }
}

fn start_failed(fault: &Fault) -> LaunchError {
    match fault {
        Fault::NotSent(why) => LaunchError::Unavailable(why.clone()),
        Fault::Lost(why) => LaunchError::Indeterminate(why.clone()),
        Fault::Status { code: 401 | 429 | 503, .. } => LaunchError::Unavailable(fault.message()),
        Fault::Status { code: 500.., .. } => LaunchError::Indeterminate(fault.message()),
        Fault::Status { .. } => refused(
            Reason::CreateConfigError,
            format!("the cluster refused the Secret that the pod starts by: {}", fault.message()),
        ),
    }
}

fn indeterminate(error: RunnerError) -> LaunchError {
    LaunchError::Indeterminate(error.to_string())
}

fn refused(reason: Reason, message: String) -> LaunchError {
    LaunchError::Refused(Failure::new(reason, message))
}

pub(super) async fn pause_until(until: Option<Timestamp>) {
    let Some(until) = until else { return std::future::pending().await };
    let left = Duration::try_from(now().duration_until(until)).unwrap_or_default();
    sleep(left.max(LEAST_PAUSE)).await;
}

/// `docker.io/library/busybox@sha256:…` → `sha256:…`.
fn digest(image_id: &str) -> Option<String> {
    let at = image_id.find("sha256:")?;
    image_id.get(at..).map(str::to_owned)
}

/// Eight hex digits that nobody can have had before.
fn nonce() -> String {
    let mut bytes = [0_u8; 4];
    // Without randomness the whole process would not have come this far.
    getrandom::fill(&mut bytes).expect("the machine has randomness");
    crate::domain::spec::hex(bytes.iter())
}
