//! The launch protocol: create by name, look, start only what was created and never started.

use std::future::Future;
use std::sync::Arc;

use bollard::body_full;
use bollard::errors::Error;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, StartContainerOptions, UploadToContainerOptionsBuilder,
};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::errors::{Fault, bounded};
use super::observe::{Phase, Seen};
use super::pull::PullError;
use super::{DockerRunner, POLL, Pointer, archive, convert};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::exit::ExitStatus;
use crate::domain::failure::{Failure, Reason};
use crate::domain::spec::PullPolicy;
use crate::failpoints::{self, Guard, Point};
use crate::runner::{LaunchError, LaunchRequest, Launched, Progress, RunnerError, naming};

/// Create, and pull what was missing: an image may be removed again in between, but not for ever.
const MAX_PULLS: u32 = 2;

pub(super) struct Launch<'a> {
    runner: &'a DockerRunner,
    request: &'a LaunchRequest<'a>,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    name: String,
}

type Session = Arc<super::events::Session>;

impl<'a> Launch<'a> {
    pub(super) fn new(
        runner: &'a DockerRunner,
        request: &'a LaunchRequest<'a>,
        progress: &'a dyn Progress,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self {
            runner,
            request,
            progress,
            cancel,
            name: naming::held_name(&request.key, request.took_over),
        }
    }

    pub(super) async fn run(&self) -> Result<Launched, LaunchError> {
        self.may_go_on()?;
        let (seen, deadline) = self.create().await?;
        self.may_go_on()?;
        match seen.phase {
            Phase::Created => self.start(seen, deadline).await,
            _ if !failpoints::holds(Guard::InspectBeforeStart) => self.start(seen, deadline).await,
            Phase::Running { .. } | Phase::Ended(_) | Phase::Removing => self.adopt(seen),
        }
    }

    fn session(&self) -> &Session {
        &self.runner.session
    }

    /// Before each step: nobody gave up, and it is still the engine that the attempt was given to.
    fn may_go_on(&self) -> Result<(), LaunchError> {
        if self.cancel.is_cancelled() {
            return Err(LaunchError::Cancelled);
        }
        let link = self.session().with(self.request.engine);
        link.map(|_| ()).map_err(|it| LaunchError::Unavailable(it.to_string()))
    }

    /// Sees to it that the container exists, and looks at it. Returns until when it has to be started.
    async fn create(&self) -> Result<(Seen, Instant), LaunchError> {
        let mut pulls = 0;
        if self.request.spec.pull_policy == PullPolicy::Always {
            // One that exists needs no image any more, and a registry that fails must not hide it.
            if let Some(seen) = self.find().await? {
                return Ok((seen, self.start_deadline()));
            }
            self.pull().await?;
            pulls += 1;
        }
        let mut deadline = self.start_deadline();
        loop {
            self.may_go_on()?;
            let created = self.send_create(deadline).await;
            let (seen, missing) = match created {
                Ok(()) => {
                    self.progress.step("created", format!("container {} created", self.name));
                    (self.look().await?, None)
                }
                // The name is taken: mine, made before, or not; the look at it tells.
                Err(Fault::Status { code: 409, .. }) => (self.find().await?, None),
                Err(Fault::Status { code: 404, message }) => (self.find().await?, Some(message)),
                Err(fault) => return Err(self.create_failed(fault).await),
            };
            if let Some(seen) = seen {
                return Ok((seen, deadline));
            }
            if let Some(message) = missing {
                if self.request.spec.pull_policy == PullPolicy::Never || pulls == MAX_PULLS {
                    let image = &self.request.spec.image;
                    return Err(refused(
                        Reason::ImageNotFound,
                        format!("{image} is not there: {message}"),
                    ));
                }
                self.pull().await?;
                pulls += 1;
                deadline = self.start_deadline();
            } else if Instant::now() < deadline {
                // Another launch holds the name and is still making the container; or it was removed.
                sleep(POLL).await;
            } else {
                let why = "the container was removed before it was started";
                return Err(LaunchError::Unavailable(why.to_owned()));
            }
        }
    }

    fn start_deadline(&self) -> Instant {
        Instant::now() + positive(self.request.spec.timeouts.start)
    }

    async fn send_create(&self, deadline: Instant) -> Result<(), Fault> {
        let docker = self.session().docker.clone();
        let options = CreateContainerOptionsBuilder::new().name(&self.name).build();
        let body = convert::create_body(self.request, self.runner.config.log_max_bytes);
        let created = self
            .unbroken(Point::CreateInFlight, deadline, async move {
                docker.create_container(Some(options), body).await.map(|_| ())
            })
            .await;
        failpoints::at(Point::CreateAnswered);
        created
    }

    async fn create_failed(&self, fault: Fault) -> LaunchError {
        match fault {
            Fault::NotSent(why) => LaunchError::Unavailable(why),
            Fault::Lost(why) => LaunchError::Indeterminate(why),
            Fault::Status { code: 503, .. } => LaunchError::Unavailable(fault.message()),
            // The image's name or anything else: the engine says it by its name alone once more.
            Fault::Status { code: 400, .. } => {
                let image = &self.request.spec.image;
                let asked = self.session().call(self.session().docker.inspect_image(image)).await;
                let bad_name = asked.err().and_then(|it| it.status()) == Some(400);
                let reason =
                    if bad_name { Reason::InvalidImage } else { Reason::CreateConfigError };
                refused(reason, fault.message())
            }
            Fault::Status { code: 500.., .. } => {
                refused(Reason::Internal, format!("the engine failed: {}", fault.message()))
            }
            Fault::Status { .. } => refused(Reason::CreateConfigError, fault.message()),
        }
    }

    async fn pull(&self) -> Result<(), LaunchError> {
        let image = &self.request.spec.image;
        self.progress.step("pulling", format!("pulling {image}"));
        self.progress.waits();
        let begun = Instant::now();
        let limit = self.request.spec.timeouts.pull;
        let pull = timeout(positive(limit), self.runner.pulls.pull(&self.session().docker, image));
        let result = tokio::select! {
            result = pull => result,
            () = self.cancel.cancelled() => return Err(LaunchError::Cancelled),
        };
        match result {
            Ok(Ok(())) => {
                failpoints::at(Point::PullDone);
                self.progress.step(
                    "pulled",
                    format!("pulled {image} in {} ms", begun.elapsed().as_millis()),
                );
                Ok(())
            }
            Ok(Err(PullError::Refused(failure))) => Err(LaunchError::Refused(failure)),
            Ok(Err(PullError::Unavailable(why))) => Err(LaunchError::Unavailable(why)),
            Err(_) => Err(refused(
                Reason::Timeout,
                format!("{image} was not pulled within timeouts.pull ({limit:#})"),
            )),
        }
    }

    /// What the engine has under our name, which must be this attempt, made from this spec. Before
    /// anything of ours could have started.
    async fn look(&self) -> Result<Option<Seen>, LaunchError> {
        let seen =
            self.runner.seen_as(&self.name, &self.request.key).await.map_err(
                |error| match error {
                    RunnerError::Foreign(why) => refused(Reason::CreateConfigError, why),
                    // It may be one that an earlier call has started.
                    other => LaunchError::Indeterminate(other.to_string()),
                },
            )?;
        match seen {
            Some(seen)
                if seen.labels.get(naming::LABEL_SPEC).map(String::as_str)
                    != Some(self.request.spec_hash.as_str()) =>
            {
                let why = format!("{} exists and was made from another spec", self.name);
                Err(refused(Reason::CreateConfigError, why))
            }
            other => Ok(other),
        }
    }

    /// What was made before, by a create whose answer nobody has. One that was only made in part is removed, and
    /// there is none.
    async fn find(&self) -> Result<Option<Seen>, LaunchError> {
        match self.look().await? {
            Some(seen) if seen.phase == Phase::Created && !seen.is_whole => {
                // Another one of its name may be started late, but not this one.
                tracing::warn!(
                    container = seen.id,
                    "the engine made the container only in part when it died: it is made anew"
                );
                let removed = self.runner.remove(&seen.id).await;
                removed.map_err(|error| LaunchError::Indeterminate(error.to_string()))?;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// It had been launched before.
    fn adopt(&self, seen: Seen) -> Result<Launched, LaunchError> {
        let started_at = match seen.phase {
            Phase::Running { started_at } => started_at,
            Phase::Ended(report) => match report.status {
                ExitStatus::StartFailed { code, message } => {
                    return Err(start_failed(code, message));
                }
                ExitStatus::Code { .. }
                | ExitStatus::EngineStopped { .. }
                | ExitStatus::Disrupted { .. } => {
                    report.started_at.unwrap_or_else(|| SystemClock.now())
                }
            },
            Phase::Created => {
                return Err(LaunchError::Unavailable(
                    "the engine did not start it, and does not say why".to_owned(),
                ));
            }
            Phase::Removing => {
                return Err(LaunchError::Unavailable("the container is being removed".to_owned()));
            }
        };
        Ok(self.launched(seen.id, seen.image_id, started_at, true))
    }

    fn launched(
        &self,
        container: String,
        image_digest: Option<String>,
        started_at: Timestamp,
        already: bool,
    ) -> Launched {
        let handle = Pointer { container, engine: self.request.engine.clone() }.handle();
        Launched { handle, started_at, image_digest, already }
    }

    async fn start(&self, seen: Seen, deadline: Instant) -> Result<Launched, LaunchError> {
        self.put_files(&seen).await?;
        self.may_go_on()?;
        if !self.progress.may_start() {
            return Err(LaunchError::Cancelled);
        }
        failpoints::at(Point::StartBegun);
        let docker = self.session().docker.clone();
        // By name: one that was put aside, removed or adopted by another holder meanwhile is not found, and
        // not started late.
        let name = self.name.clone();
        let sent = self
            .unbroken(Point::StartInFlight, deadline, async move {
                docker.start_container(&name, None::<StartContainerOptions>).await
            })
            .await;
        failpoints::at(Point::StartAnswered);
        match sent {
            Ok(()) => {
                self.progress.step("started", format!("container {} started", self.name));
                Ok(self.launched(seen.id, seen.image_id, SystemClock.now(), false))
            }
            Err(Fault::NotSent(why)) => Err(LaunchError::Unavailable(why)),
            Err(Fault::Lost(why)) => Err(LaunchError::Indeterminate(why)),
            Err(Fault::Status { .. }) => match self.look().await? {
                Some(seen) => self.adopt(seen),
                None => Err(refused(
                    Reason::DeletedExternally,
                    "the container was removed or put aside before it was started".to_owned(),
                )),
            },
        }
    }

    /// The task's files, and where root is not the user a folder for the output that it may write to.
    async fn put_files(&self, seen: &Seen) -> Result<(), LaunchError> {
        let files = &self.request.spec.files;
        let open_output_dir = !seen.is_root();
        if files.is_empty() && !open_output_dir {
            return Ok(());
        }
        let tar = archive::inputs(files, open_output_dir, SystemClock.now()).map_err(|error| {
            refused(Reason::CreateConfigError, format!("the files can't be packed: {error}"))
        })?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let call = self.session().docker.upload_to_container(
            &seen.id,
            Some(options),
            body_full(tar.into()),
        );
        match self.session().call_within(self.runner.config.launch_timeout, call).await {
            Ok(()) => {
                failpoints::at(Point::FilesPut);
                Ok(())
            }
            Err(Fault::Status { code: 404, .. }) => Err(LaunchError::Unavailable(
                "the container was removed before it was started".to_owned(),
            )),
            Err(Fault::Status { code: 503, message }) => Err(LaunchError::Unavailable(message)),
            Err(fault @ Fault::Status { .. }) => Err(refused(
                Reason::CreateConfigError,
                format!("its files can't be put into the container: {}", fault.message()),
            )),
            Err(fault @ (Fault::NotSent(_) | Fault::Lost(_))) => {
                Err(LaunchError::Unavailable(fault.message()))
            }
        }
    }

    /// A call that goes on to its own end when its caller gives up or runs out of time.
    async fn unbroken(
        &self,
        point: Point,
        deadline: Instant,
        call: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Fault> {
        let task = self.runner.tasks.spawn(bounded(self.runner.config.launch_timeout, call));
        failpoints::in_flight(point).await;
        match timeout_at(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::Lost("the call broke off".to_owned())),
            Err(_) => Err(Fault::Lost("no answer within timeouts.start".to_owned())),
        }
    }
}

fn refused(reason: Reason, message: String) -> LaunchError {
    LaunchError::Refused(Failure::new(reason, message))
}

fn start_failed(code: i32, message: String) -> LaunchError {
    refused(Reason::of_failed_start(code), message)
}

fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
