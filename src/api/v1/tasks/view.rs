//! How a task looks from outside.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::path_of;
use crate::api::conditions::Condition;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::state::Shared;
use crate::domain::failure::{self, Class, Reason};
use crate::domain::outcome::OutputValue;
use crate::domain::state::TaskState;
use crate::domain::target::Placement;
use crate::ids::{AttemptNo, RunId, TaskId};
use crate::store::{AttemptRecord, LogSeal, LogSeals, OutputRecord, TaskRecord};

/// A task as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Task {
    #[schema(value_type = uuid::Uuid, examples("0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"))]
    id: TaskId,
    /// The run around this task.
    #[schema(value_type = uuid::Uuid, examples("0199d2a4-8c1e-7c33-9a52-3f70c0b2d9e4"))]
    run_id: RunId,
    #[schema(examples("count"))]
    name: String,
    #[schema(examples("busybox:latest"))]
    image: String,
    #[schema(schema_with = state_schema)]
    state: &'static str,
    /// Where it runs: the name of the target that took it, or what it asked for while it waits for one.
    #[schema(value_type = super::document::Placement)]
    target: Placement,
    /// The name of the work that it does, where the submit gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("etl.2026-11-21.count"))]
    run_key: Option<String>,
    /// The number of the current or last attempt, from 1.
    #[schema(value_type = i32, examples(1))]
    attempt: AttemptNo,
    /// Of the main container, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples(0))]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    /// Name → JSON value, or a reference to a file. Of terminal tasks, and not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>, examples(json!({"words": 7})))]
    outputs: Option<Map<String, Value>>,
    /// Somebody cancelled it; it is about to end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    stop_requested: bool,
    /// What holds a live task up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    conditions: Vec<Condition>,
    #[schema(examples(json!({"team": "a"})))]
    labels: BTreeMap<String, String>,
    #[schema(examples(0))]
    priority: i16,
    /// The attempts that have ended. Not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    attempts: Vec<Attempt>,
    timings: Timings,
    links: Links,
}

/// A task that failed or was cancelled, and the same as a problem.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documentation: a problem takes the task's members along")]
pub(in crate::api) struct TaskProblem {
    #[serde(flatten)]
    task: Task,
    #[serde(flatten)]
    problem: ProblemDocument,
}

/// When the task got where it is.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "as the API names them")]
pub(in crate::api) struct Timings {
    queued_at: Timestamp,
    /// Of the current attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Links {
    #[serde(rename = "self")]
    this: String,
    logs: String,
    result: String,
    outputs: String,
    events: String,
    spec: String,
    cancel: String,
    retry: String,
    poll: String,
    sensor: String,
}

/// Why an attempt failed.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Failure {
    #[schema(schema_with = reason_schema)]
    reason: &'static str,
    /// Who has to act: `user` (the task itself), `platform` (what runs it) or `control` (somebody asked).
    #[schema(schema_with = class_schema)]
    class: &'static str,
    #[schema(examples("exited with code 3"))]
    message: String,
    /// The last lines of the log.
    #[schema(examples(json!(["no such file"])))]
    log_tail: Vec<String>,
}

/// One try of a task, after its end.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Attempt {
    #[schema(value_type = i32, examples(1))]
    number: AttemptNo,
    #[schema(schema_with = state_schema)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples(3))]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    /// Of the image that ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7"))]
    image_digest: Option<String>,
    /// The machine that it ran on, as its engine calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("worker-3"))]
    node: Option<String>,
    /// The name of its container on the engine; one that was not kept is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("sc-1f2e3d4c-0199d2a48c1e7c339a523f6f6a3a1c11"))]
    sandbox: Option<String>,
    /// Of the document that it ran: `GET /tasks/{id}/spec?attempt=1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("5f8a1c0d9b7e4f32a6c1d0e9f8b7a6c5"))]
    spec_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
    queued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
}

/// How complete the stored log of an attempt is, of all its containers.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Log {
    bytes: u64,
    /// More was written than the limit takes; head and tail are kept.
    truncated: bool,
    /// Some of it could not be read.
    incomplete: bool,
    /// Each of them by its name, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Option<BTreeMap<String, ContainerLog>>)]
    containers: BTreeMap<String, ContainerLog>,
}

/// How complete the stored log of one container is.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ContainerLog {
    bytes: u64,
    truncated: bool,
    incomplete: bool,
}

impl Task {
    /// What can be told from the record alone.
    pub(super) fn new(app: &Shared, it: TaskRecord, conditions: Vec<Condition>) -> Self {
        let path = app.public_url.link(&path_of(it.task));
        Self {
            id: it.task,
            run_id: it.run,
            name: it.name,
            image: it.image,
            state: it.state.as_str(),
            target: Placement::of_text(&it.target),
            run_key: it.run_key,
            attempt: it.attempt_no,
            exit_code: it.exit_code,
            failure: it.failure.map(Into::into),
            outputs: None,
            stop_requested: it.stop_requested,
            conditions,
            labels: it.labels,
            priority: it.priority,
            attempts: Vec::new(),
            timings: Timings {
                queued_at: it.queued_at,
                claimed_at: it.claimed_at,
                started_at: it.started_at,
                finished_at: it.finished_at,
            },
            links: Links {
                logs: format!("{path}/logs"),
                result: format!("{path}/result"),
                outputs: format!("{path}/outputs"),
                events: format!("{path}/events"),
                spec: format!("{path}/spec"),
                cancel: format!("{path}/cancel"),
                retry: format!("{path}/retry"),
                poll: format!("{path}/poll"),
                sensor: format!("{path}/sensor"),
                this: path,
            },
        }
    }

    /// A line of a list.
    pub(super) async fn brief(app: &Shared, record: TaskRecord) -> Self {
        let conditions = app.live.conditions(&record, app.clock.now()).await;
        Self::new(app, record, conditions)
    }

    /// With its attempts, and with its outputs where it is over.
    pub(super) async fn whole(app: &Shared, record: TaskRecord) -> Result<Self, Problem> {
        let (task, attempt_no, over) = (record.task, record.attempt_no, record.state.is_terminal());
        let attempts = async {
            // A first attempt that is not over leaves none behind.
            if !over && attempt_no == AttemptNo::FIRST {
                return Ok(Vec::new());
            }
            app.store.list_attempts(task).await
        };
        let outputs = async {
            if !over {
                return Ok(None);
            }
            app.store.list_outputs(task, attempt_no).await.map(Some)
        };
        let (attempts, outputs) = futures_util::try_join!(attempts, outputs)?;
        let mut it = Self::brief(app, record).await;
        // It may have ended since the record was read: then its last attempt is not told yet.
        let ended = attempts.into_iter().filter(|it| over || it.attempt_no < attempt_no);
        it.attempts = ended.map(Into::into).collect();
        it.outputs = outputs.map(|outputs| outputs_json(app, task, outputs));
        Ok(it)
    }
}

impl From<failure::Failure> for Failure {
    fn from(it: failure::Failure) -> Self {
        Self {
            reason: it.reason.as_str(),
            class: it.reason.class().as_str(),
            message: it.message,
            log_tail: it.log_tail,
        }
    }
}

impl From<AttemptRecord> for Attempt {
    fn from(it: AttemptRecord) -> Self {
        Self {
            number: it.attempt_no,
            state: it.state.as_str(),
            exit_code: it.exit_code,
            failure: it.failure.map(Into::into),
            image_digest: it.image_digest,
            node: it.node,
            sandbox: it.sandbox,
            spec_hash: it.spec_hash,
            log: whole_log(&it.seals),
            queued_at: it.queued_at,
            claimed_at: it.claimed_at,
            started_at: it.started_at,
            finished_at: it.finished_at,
        }
    }
}

fn of_container((name, it): (&String, &LogSeal)) -> (String, ContainerLog) {
    let LogSeal { bytes, truncated, incomplete } = *it;
    (name.clone(), ContainerLog { bytes, truncated, incomplete })
}

fn whole_log(seals: &LogSeals) -> Option<Log> {
    (!seals.is_empty()).then(|| Log {
        bytes: seals.values().map(|it| it.bytes).sum(),
        truncated: seals.values().any(|it| it.truncated),
        incomplete: seals.values().any(|it| it.incomplete),
        containers: if seals.len() > 1 {
            seals.iter().map(of_container).collect()
        } else {
            BTreeMap::new()
        },
    })
}

/// Name → value; a file is a reference to its bytes.
pub(super) fn outputs_json(
    app: &Shared,
    task: TaskId,
    outputs: Vec<OutputRecord>,
) -> Map<String, Value> {
    let json = |it: OutputRecord| {
        let value = output_json(app, task, &it.name, it.value);
        (it.name, value)
    };
    outputs.into_iter().map(json).collect()
}

fn output_json(app: &Shared, task: TaskId, name: &str, value: OutputValue) -> Value {
    match value {
        OutputValue::Json(value) => value,
        OutputValue::File(it) => serde_json::json!({
            "path": it.path,
            "size": it.size,
            "sha256": it.sha256,
            "media_type": it.media_type,
            "href": output_href(app, task, name),
        }),
    }
}

/// Output names need no escaping in a path.
pub(super) fn output_href(app: &Shared, task: TaskId, name: &str) -> String {
    app.public_url.link(&format!("{}/outputs/{name}", path_of(task)))
}

pub(super) fn text_enum(values: impl Iterator<Item = &'static str>, example: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(values))
        .examples([example])
        .build()
}

pub(super) fn state_schema() -> Object {
    text_enum(TaskState::ALL.into_iter().map(TaskState::as_str), "succeeded")
}

fn reason_schema() -> Object {
    text_enum(Reason::ALL.iter().map(|it| it.as_str()), "exit_nonzero")
}

fn class_schema() -> Object {
    text_enum([Class::User, Class::Platform, Class::Control].iter().map(|it| it.as_str()), "user")
}
