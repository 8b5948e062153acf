//! The task document as the API's description shows it. Nothing is read by these types:
//! [`crate::domain::spec::parse`] is what reads documents, and a test holds the two together.

#![expect(dead_code, reason = "documentation: nothing makes or reads these")]

use std::collections::HashMap;

use utoipa::ToSchema;

/// A container to run, wherever the deployment says. Only `image` is required.
#[derive(ToSchema)]
pub(in crate::api) struct TaskSpec {
    /// For people and filters. Default: the name of the image.
    #[schema(required = false, max_length = 255, examples("count"))]
    name: String,
    /// As the engine takes it: name, tag, digest.
    #[schema(examples("busybox:latest"))]
    image: String,
    /// Docker's Entrypoint, Kubernetes' command. Default: that of the image.
    #[schema(required = false)]
    entrypoint: Words,
    /// Docker's Cmd, Kubernetes' args. Default: that of the image.
    #[schema(required = false)]
    command: Words,
    /// Appended to `command`.
    #[schema(required = false)]
    args: Words,
    /// Environment variables. Numbers and booleans are written as such; a value has 128 KiB at most.
    #[schema(required = false, examples(json!({"LANG": "C"})))]
    env: HashMap<String, TextValue>,
    /// Files put into the container before it starts, 4 MiB in all.
    #[schema(required = false)]
    files: Vec<InputFile>,
    /// The directory that the command starts in, absolute. Default: that of the image.
    #[schema(required = false, examples("/"))]
    workdir: String,
    /// `uid`, `uid:gid` or a name, which Kubernetes can't look up. Default: that of the image.
    #[schema(required = false, examples("1000"))]
    user: String,
    #[schema(required = false)]
    resources: Resources,
    /// Run a small init as the first process: it forwards signals and reaps.
    #[schema(required = false, default = false)]
    init: bool,
    /// Where to run. Default: the deployment's own. `simulated` runs no container.
    #[schema(required = false, examples("local"))]
    target: String,
    #[schema(required = false)]
    pull_policy: PullPolicy,
    #[schema(required = false)]
    timeouts: Timeouts,
    #[schema(required = false)]
    retries: Retries,
    /// Further attempts after failures of the platform: they never count as the task's own.
    #[schema(required = false, minimum = 0, maximum = 100, default = 3)]
    platform_retries: u32,
    /// Exit codes that mean skipped, not failed.
    #[schema(required = false, examples(json!([99])))]
    skip_on_exit_codes: Vec<u8>,
    /// Rather fail than risk that the command runs twice.
    #[schema(required = false, default = false)]
    at_most_once: bool,
    /// What the task hands back, by name. The keys of the JSON object that it writes to
    /// `$SUPERCARGO_OUTPUT` are outputs without being declared; with nothing declared and nothing written
    /// the last line of stdout is the result.
    #[schema(required = false, examples(json!({"report": {"path": "/out/report.csv", "required": true}})))]
    outputs: HashMap<String, OutputDeclaration>,
    /// For filters: 64 at most.
    #[schema(required = false, examples(json!({"team": "a"})))]
    labels: HashMap<String, TextValue>,
    /// Higher goes first.
    #[schema(required = false, default = 0)]
    priority: i16,
    #[schema(required = false)]
    cleanup: Cleanup,
    /// Names the work, over all its submits: one task has it at a time. 1 to 255 printable ASCII characters.
    #[schema(required = false, min_length = 1, max_length = 255, examples("etl.2026-11-21.count"))]
    run_key: String,
    #[schema(required = false)]
    on_duplicate: OnDuplicate,
    /// The W3C trace that the task belongs to: the container gets it as `TRACEPARENT`. Default: the header of
    /// the same name, where it is valid.
    #[schema(
        required = false,
        examples("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    )]
    traceparent: String,
    /// What vendors add to it; `TRACESTATE` in the container.
    #[schema(required = false, examples("congo=t61rcWkgMzE"))]
    tracestate: String,
    #[schema(required = false)]
    kubernetes: Kubernetes,
}

/// What is for targets of kind kubernetes alone. Others pass it over.
#[derive(ToSchema)]
pub(in crate::api) struct Kubernetes {
    /// One of those that the target names. Default: its own.
    #[schema(
        required = false,
        max_length = 63,
        pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        examples("etl")
    )]
    namespace: String,
    /// The account that the pod runs as. Its token is mounted, too. Default: that of the namespace, without a token.
    #[schema(
        required = false,
        max_length = 253,
        pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        examples("etl")
    )]
    service_account: String,
    /// A `Pod` with `metadata` and `spec`, merged as Kubernetes merges (lists of containers, volumes and variables by
    /// name; null takes a field away): over the target's own, under the other fields of the task. The container
    /// `main` is the task.
    #[schema(value_type = Object, required = false, examples(json!({"spec": {"nodeSelector": {"disk": "ssd"}}})))]
    pod_template: serde_json::Value,
    /// Refuse a target of another kind.
    #[schema(required = false, default = false)]
    strict: bool,
}

/// What a submit means whose `run_key` is known. `attach_if_active`: the task that lives or succeeded; one that
/// failed or was cancelled or skipped gets a new attempt with this document. `attach`: the task, whatever became
/// of it. `reject`: 409. `restart`: a new task; the old one is cancelled, and the new one starts after its end.
/// Default: `attach_if_active`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", default = "attach_if_active")]
pub(in crate::api) enum OnDuplicate {
    AttachIfActive,
    Attach,
    Reject,
    Restart,
}

/// Further attempts after failures of the task itself: exit codes, signals, memory, `timeouts.run`.
#[derive(ToSchema)]
pub(in crate::api) struct Retries {
    #[schema(required = false, minimum = 0, maximum = 100, default = 0)]
    max: u32,
    #[schema(required = false)]
    backoff: Backoff,
    /// Only ends with one of these codes are tried again. Default: every failure that may be.
    #[schema(required = false, examples(json!([75])))]
    on_exit_codes: Vec<u8>,
    /// Also where nobody could say that the container of the attempt before has ended: two may run then.
    #[schema(required = false, default = false)]
    on_unconfirmed: bool,
}

/// The wait before another attempt: it doubles from `initial` to `max`, and is spread by up to a fifth.
#[derive(ToSchema)]
pub(in crate::api) struct Backoff {
    #[schema(
        required = false,
        default = "1s",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("1s")
    )]
    initial: String,
    #[schema(
        required = false,
        default = "1m",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("1m")
    )]
    max: String,
}

/// A list of words, or a string that is split as a shell splits words.
#[derive(ToSchema)]
#[schema(examples(json!(["sh", "-c", "echo hello"])))]
#[serde(untagged)]
pub(in crate::api) enum Words {
    List(Vec<TextValue>),
    Line(String),
}

/// Text; numbers and booleans are written as such.
#[derive(ToSchema)]
#[schema(examples("C"))]
#[serde(untagged)]
pub(in crate::api) enum TextValue {
    Text(String),
    Number(f64),
    Boolean(bool),
}

/// A file; give `content`, or `content_base64` for bytes.
#[derive(ToSchema)]
pub(in crate::api) struct InputFile {
    /// Absolute, without `..`.
    #[schema(examples("/in/a.txt"))]
    path: String,
    #[schema(required = false, examples("hello\n"))]
    content: String,
    #[schema(required = false, content_encoding = "base64", examples("aGVsbG8K"))]
    content_base64: String,
    /// Octal.
    #[schema(required = false, default = "0644", examples("0644"))]
    mode: String,
}

/// Hard limits of the container. Default: none.
#[derive(ToSchema)]
pub(in crate::api) struct Resources {
    /// CPUs, in Kubernetes form: `500m`, `0.5`, `2`.
    #[schema(required = false)]
    cpu: Cpu,
    /// Bytes, in Kubernetes form: `256Mi`, `1Gi`.
    #[schema(required = false)]
    memory: Memory,
    /// Processes and threads. Not on Kubernetes.
    #[schema(required = false, minimum = 1, examples(200))]
    pids: u32,
}

/// CPUs, in Kubernetes form: `500m`, `0.5`, `2`.
#[derive(ToSchema)]
#[schema(examples("500m"))]
#[serde(untagged)]
pub(in crate::api) enum Cpu {
    Text(String),
    Number(f64),
}

/// Bytes, in Kubernetes form: `256Mi`, `1Gi`.
#[derive(ToSchema)]
#[schema(examples("256Mi"))]
#[serde(untagged)]
pub(in crate::api) enum Memory {
    Text(String),
    Number(u64),
}

/// Default: `if_not_present`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", default = "if_not_present")]
pub(in crate::api) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// What becomes of the container once its log and outputs are stored. Default: `always` removed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", default = "always")]
pub(in crate::api) enum Cleanup {
    Always,
    OnSuccess,
    Never,
}

/// How long each step of an attempt may take, such as `50s`, `10m` or `1h30m`.
#[derive(ToSchema)]
pub(in crate::api) struct Timeouts {
    /// From submit until a worker takes the task. Default: as long as it takes.
    #[schema(required = false, pattern = "^([0-9]+(ms|s|m|h|d))+$", examples("1h"))]
    queue: String,
    /// Until there is a node for the pod. Engines that place nothing pass it over.
    #[schema(
        required = false,
        default = "10m",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("10m")
    )]
    schedule: String,
    #[schema(
        required = false,
        default = "10m",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("10m")
    )]
    pull: String,
    /// Creating and starting, without the pull.
    #[schema(
        required = false,
        default = "2m",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("2m")
    )]
    start: String,
    /// Default: as long as it takes.
    #[schema(required = false, pattern = "^([0-9]+(ms|s|m|h|d))+$", examples("30m"))]
    run: String,
    /// Between the stop signal and the kill.
    #[schema(
        required = false,
        default = "10s",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("10s")
    )]
    stop_grace: String,
    /// Storing the log and the outputs after the exit.
    #[schema(
        required = false,
        default = "10m",
        pattern = "^([0-9]+(ms|s|m|h|d))+$",
        examples("10m")
    )]
    finish: String,
}

/// An output: a file by its `path`, stdout by `from`, or, with neither, a key of the JSON object in
/// `$SUPERCARGO_OUTPUT`.
#[derive(ToSchema)]
pub(in crate::api) struct OutputDeclaration {
    /// A file or folder of the container, absolute.
    #[schema(required = false, examples("/out/report.csv"))]
    path: String,
    #[schema(required = false)]
    from: OutputFrom,
    /// Without it the task fails.
    #[schema(required = false, default = false)]
    required: bool,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(in crate::api) enum OutputFrom {
    LastLine,
    AllLines,
}
