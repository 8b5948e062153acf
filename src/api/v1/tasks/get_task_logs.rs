use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use regex::bytes::Regex;
use utoipa::IntoParams;

use crate::api::extract::{Caller, TaskPath, no_such_task};
use crate::api::logs::encode::{Format, LogLine, parse_place};
use crate::api::logs::output::{Form, MAIN_CONTAINER, Output, tail};
use crate::api::logs::range::{self, Part};
use crate::api::logs::select::{Select, pattern};
use crate::api::problem::{Problem, ProblemKind};
use crate::api::query::{Params, QueryReader, ReadQuery};
use crate::api::state::App;
use crate::domain::log::{Follow, LogPlace, LogStream};
use crate::domain::quantity;
use crate::ids::{AttemptNo, TaskId};
use crate::store::TaskRecord;

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct GetTaskLogsQuery {
    /// The form of the answer: the bytes as they are, a JSON object for each line, or server-sent events.
    /// Goes before `Accept`.
    #[param(value_type = Option<String>, pattern = "^(text|ndjson|sse)$", example = "ndjson")]
    format: Option<Format>,
    /// Go on until the task is over, through further attempts.
    #[param(value_type = Option<bool>, example = true)]
    follow: bool,
    /// Of this attempt alone, from 1. Default: the latest.
    #[param(value_type = Option<i32>, minimum = 1, example = 1)]
    attempt: Option<AttemptNo>,
    /// From this byte on, counted over both streams. Not with `after` or `tail`.
    #[param(value_type = Option<u64>, example = 0)]
    offset: Option<u64>,
    /// Behind this place, `<attempt>:<offset>`: the id of an event that was received.
    #[param(value_type = Option<String>, pattern = "^[1-9][0-9]{0,8}:[0-9]{1,18}$", example = "1:0")]
    after: Option<LogPlace>,
    /// The last lines of those that would be answered otherwise, so many.
    #[param(value_type = Option<u32>, example = 100)]
    tail: Option<usize>,
    /// Lines of this time and later, or of the last while: `2026-11-21T09:30:00Z`, `10m`.
    #[param(value_type = Option<String>, example = "10m")]
    since: Option<Since>,
    /// Lines of this stream: `stdout` or `stderr`.
    #[param(value_type = Option<String>, pattern = "^(stdout|stderr)$", example = "stderr")]
    stream: Option<LogStream>,
    /// Of this container. There is one today, `main`.
    #[param(value_type = Option<String>, pattern = "^main$", example = "main")]
    container: Option<String>,
    /// Lines in which this regular expression is found: <https://docs.rs/regex/1/regex/#syntax>, `(?i)` for
    /// any case. A line of more than 1 MiB is searched in parts.
    #[param(value_type = Option<String>, max_length = 1000, example = "(?i)error")]
    grep: Option<Regex>,
    /// Put its time before each line, of plain text. The other forms always have it.
    #[param(value_type = Option<bool>, example = true)]
    timestamps: bool,
}

#[derive(Debug, Clone, Copy)]
enum Since {
    Time(Timestamp),
    Ago(Duration),
}

impl ReadQuery for GetTaskLogsQuery {
    fn read(query: &mut QueryReader) -> Self {
        let it = Self {
            format: query.parsed("format", Format::parse),
            follow: query.flag("follow"),
            attempt: query.parsed("attempt", |text| {
                let number = text.parse().ok().filter(|it| *it >= 1).map(AttemptNo);
                number.ok_or_else(|| format!("{text:?} is not a whole number from 1"))
            }),
            // The store counts in signed numbers.
            offset: query.parsed("offset", |text| {
                let bytes = text.parse().ok().filter(|it| i64::try_from(*it).is_ok());
                bytes.ok_or_else(|| format!("{text:?} is not a number of bytes"))
            }),
            after: query.parsed("after", parse_place),
            tail: query.parsed("tail", |text| {
                let lines = text.parse::<u32>().ok().and_then(|it| usize::try_from(it).ok());
                lines.ok_or_else(|| format!("{text:?} is not a number of lines"))
            }),
            since: query.parsed("since", since),
            stream: query.parsed("stream", |text| {
                LogStream::parse(text).ok_or_else(|| format!("{text:?} is not stdout or stderr"))
            }),
            container: query.one("container"),
            grep: query.parsed("grep", pattern),
            timestamps: query.flag("timestamps"),
        };
        let begins = [
            ("offset", it.offset.is_some()),
            ("after", it.after.is_some()),
            ("tail", it.tail.is_some()),
        ];
        let begins: Vec<&str> =
            begins.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if let Some(other) = it.container.as_ref().filter(|it| *it != MAIN_CONTAINER) {
            query.fault(format!(
                "container: the task has no container {other:?}: it has {MAIN_CONTAINER:?}"
            ));
        }
        if let [one, other, ..] = begins[..] {
            query.fault(format!("{one} and {other} both say where to begin: give one of them"));
        }
        if let (Some(attempt), Some(after)) = (it.attempt, it.after)
            && attempt != after.attempt
        {
            let named = after.attempt;
            query.fault(format!(
                "after names attempt {named}, and attempt says {attempt}: leave out attempt"
            ));
        }
        it
    }
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = text.parse() {
        return Ok(Since::Time(time));
    }
    let ago = quantity::parse_duration(text).map(|it| Since::Ago(it.unsigned_abs()));
    ago.map_err(|_| {
        format!("{text:?} is not a time such as 2026-11-21T09:30:00Z, nor a while such as 10m")
    })
}

static ATTEMPT: HeaderName = HeaderName::from_static("supercargo-attempt");
static OFFSET: HeaderName = HeaderName::from_static("supercargo-log-offset");
/// Else nginx keeps a live log to itself.
static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Get the log of a task
///
/// What the container wrote to stdout and stderr: byte for byte, or line by line as JSON or as server-sent
/// events. A log that is still written ends where it is now, or goes on with `follow`.
///
/// The log is addressed by the bytes of both streams together. Parameters that choose lines leave others
/// out, and never change an offset. To resume plain text, ask again with `offset` = the offset before + the
/// bytes received, or with `Range`. To resume events, send the last id as `Last-Event-ID`, as browsers do by
/// themselves, or as `after`.
///
/// The stream of events ends with `event: end`, whose data has the `state` of the task. A stream without it
/// was cut.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{id}/logs",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The id of the task, or `key:<run_key>`", example = "0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11"),
        GetTaskLogsQuery,
        ("Range" = Option<String>, Header, description = "A part of the whole log as plain text, without parameters that choose", example = "bytes=-1000"),
        ("Last-Event-ID" = Option<String>, Header, description = "Of events: go on behind this one. Goes before `after`, `offset`, `tail` and `since`", example = "1:0"),
    ),
    extensions(("x-problems" = json!(["task_not_found", "attempt_not_found", "range_not_satisfiable"]))),
    responses(
        (status = 200, description = "The log",
         headers(
            ("Supercargo-Attempt" = i32, description = "The attempt that the log begins in"),
            ("Supercargo-Log-Offset" = Option<u64>, description = "Of the first byte of the answer, where it is the bytes as they are"),
            ("Accept-Ranges" = Option<String>, description = "`bytes`, of plain text"),
            ("Cache-Control" = String, description = "`no-store`"),
            ("X-Accel-Buffering" = String, description = "`no`: proxies must not keep it to themselves"),
         ),
         content(
            (String = "text/plain", example = "hello\n"),
            (LogLine<'static> = "application/x-ndjson"),
            (String = "text/event-stream", example = "id: 1:6\ndata: {\"stream\":\"stdout\",\"container\":\"main\",\"ts\":\"2026-11-21T09:30:00.123456789Z\",\"attempt\":1,\"offset\":0,\"line\":\"hello\"}\n\nevent: end\nid: 1:6\ndata: {\"id\":\"0199d2a4-8c1e-7c33-9a52-3f6f6a3a1c11\",\"state\":\"succeeded\",\"attempt\":1}\n\n"),
         )),
        (status = 206, description = "The part of the log that `Range` names",
         headers(
            ("Content-Range" = String, description = "Which bytes, of how many: `*` while the log may grow"),
            ("Supercargo-Attempt" = i32, description = "The attempt of the log"),
            ("Supercargo-Log-Offset" = u64, description = "Of the first byte of the answer"),
         ),
         body = String, content_type = "text/plain"),
    )
)]
pub(in crate::api) async fn get_task_logs(
    State(app): State<App>,
    _caller: Caller,
    TaskPath(task): TaskPath,
    Params(query): Params<GetTaskLogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = query.format.unwrap_or_else(|| Format::negotiate(&headers));
    if query.timestamps && format != Format::Text {
        let detail = format!(
            "timestamps goes with format=text: {} has the time of each line anyway",
            format.as_str()
        );
        return Err(invalid(detail));
    }
    let range = headers.get(header::RANGE).filter(|_| !headers.contains_key(header::IF_RANGE));
    if let Some(name) = query.against_range(format).filter(|_| range.is_some()) {
        let detail = format!("Range is of the whole log as plain text: leave out Range, or {name}");
        return Err(invalid(detail));
    }
    let record = app.store.find_task(task).await?.ok_or_else(|| no_such_task(task))?;
    let asked = Asked::new(&app, &record, query, format, &headers).await?;
    if let Some(range) = range {
        let length = app.logs.length(task, asked.from.attempt).await?;
        let text = range.to_str().unwrap_or_default();
        match range::part(text, length).map_err(invalid)? {
            Part::Whole => {}
            Part::Bytes(first, last) => return asked.part(app, &record, first, last, length).await,
            Part::Outside => return Err(outside(length)),
        }
    }
    asked.answer(app, task).await
}

fn invalid(detail: impl AsRef<str>) -> Problem {
    Problem::new(ProblemKind::InvalidParameter, detail)
}

fn outside(length: u64) -> Problem {
    let detail = format!("the log has {length} bytes now, and none of those that Range names");
    let problem = Problem::new(ProblemKind::RangeNotSatisfiable, detail);
    match HeaderValue::try_from(format!("bytes */{length}")) {
        Ok(value) => problem.header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

impl GetTaskLogsQuery {
    /// The parameter with which the answer is not simply the bytes of the log from its beginning.
    fn against_range(&self, format: Format) -> Option<&'static str> {
        let names = [
            ("format", self.format.is_some_and(|it| it != Format::Text)),
            ("Accept", format != Format::Text),
            ("follow", self.follow),
            ("offset", self.offset.is_some()),
            ("after", self.after.is_some()),
            ("tail", self.tail.is_some()),
            ("since", self.since.is_some()),
            ("stream", self.stream.is_some()),
            ("grep", self.grep.is_some()),
            ("timestamps", self.timestamps),
        ];
        names.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// What is to be answered, once everything that was said is put together.
struct Asked {
    from: LogPlace,
    follow: Follow,
    /// The log may not say anything for long.
    waits: bool,
    form: Form,
    /// The bytes of the answer follow each other in the log.
    plain: bool,
}

impl Asked {
    async fn new(
        app: &App,
        record: &TaskRecord,
        mut query: GetTaskLogsQuery,
        format: Format,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        if let Some(seen) = last_event(format, headers)? {
            // A browser sends it with the address that it began with.
            if let Some(attempt) = query.attempt.filter(|it| *it != seen.attempt) {
                let named = seen.attempt;
                return Err(invalid(format!(
                    "Last-Event-ID names attempt {named}, and attempt says {attempt}"
                )));
            }
            (query.offset, query.tail, query.since) = (None, None, None);
            query.after = Some(seen);
        }
        let latest = record.attempt_no;
        let attempt = query.after.map(|it| it.attempt).or(query.attempt).unwrap_or(latest);
        if attempt > latest {
            let detail = format!("there is no attempt {attempt}: the latest is {latest}");
            return Err(Problem::new(ProblemKind::AttemptNotFound, detail));
        }
        let task = record.task;
        let mut select = Select { stream: query.stream, since: None, grep: query.grep };
        let mut from = LogPlace {
            attempt,
            offset: query.after.map(|it| it.offset).or(query.offset).unwrap_or_default(),
        };
        if let Some(since) = query.since {
            let nanos = nanos(since, app.clock.now());
            from.offset = from.offset.max(app.logs.offset_since(task, attempt, nanos).await?);
            select.since = Some(nanos);
        }
        if let Some(lines) = query.tail {
            let end = LogPlace { attempt, offset: app.logs.length(task, attempt).await? };
            from.offset = tail(app, task, end, lines, &select).await?;
        }
        let follow = match (query.follow, query.attempt) {
            (false, _) => Follow::No,
            (true, Some(_)) => Follow::Attempt,
            (true, None) => Follow::Task,
        };
        let form = Form { format, timestamps: query.timestamps, select };
        let waits = query.follow && !record.state.is_terminal();
        let plain = form.is_plain();
        Ok(Self { from, follow, waits, form, plain })
    }

    async fn answer(self, app: App, task: TaskId) -> Result<Response, Problem> {
        let mut blocks = app.logs.blocks(task, self.from, self.follow);
        if !self.waits {
            // A failure of the first read can still be told by the status.
            let first = blocks.next().await.transpose()?;
            blocks = stream::iter(first.map(Ok)).chain(blocks).boxed();
        }
        let headers = self.headers();
        let output = Output::new(app, task, self.form, self.from, blocks);
        Ok((headers, Body::from_stream(output.stream())).into_response())
    }

    async fn part(
        self,
        app: App,
        record: &TaskRecord,
        first: u64,
        last: u64,
        length: u64,
    ) -> Result<Response, Problem> {
        let bytes = last - first + 1;
        let is_over = record.state.is_terminal() || self.from.attempt < record.attempt_no;
        let all = if is_over { length.to_string() } else { "*".to_owned() };
        let content_range = HeaderValue::try_from(format!("bytes {first}-{last}/{all}"))
            .map_err(Problem::internal)?;
        let asked = Self { from: LogPlace { offset: first, ..self.from }, ..self };
        let mut blocks = app.logs.blocks(record.task, asked.from, Follow::No);
        let begin = blocks.next().await.transpose()?;
        blocks = stream::iter(begin.map(Ok)).chain(blocks).boxed();
        let mut headers = asked.headers();
        headers.insert(header::CONTENT_RANGE, content_range);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        let output = Output::new(app, record.task, asked.form, asked.from, blocks).limited(bytes);
        Ok((StatusCode::PARTIAL_CONTENT, headers, Body::from_stream(output.stream()))
            .into_response())
    }

    fn headers(&self) -> HeaderMap {
        let mut headers: HeaderMap = [
            (header::CONTENT_TYPE, self.form.format.content_type()),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::VARY, HeaderValue::from_static("Accept")),
            (BUFFERING.clone(), HeaderValue::from_static("no")),
            (ATTEMPT.clone(), HeaderValue::from(self.from.attempt.0)),
        ]
        .into_iter()
        .collect();
        if self.plain {
            headers.insert(OFFSET.clone(), HeaderValue::from(self.from.offset));
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        headers
    }
}

/// What a browser says when it comes back.
fn last_event(format: Format, headers: &HeaderMap) -> Result<Option<LogPlace>, Problem> {
    let Some(value) =
        headers.get(&LAST_EVENT_ID).filter(|it| format == Format::Sse && !it.is_empty())
    else {
        return Ok(None);
    };
    let place = parse_place(&String::from_utf8_lossy(value.as_bytes()));
    place.map(Some).map_err(|it| invalid(format!("Last-Event-ID: {it}")))
}

fn nanos(since: Since, now: Timestamp) -> i64 {
    let time = match since {
        Since::Time(time) => time,
        Since::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
    };
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < now { i64::MIN } else { i64::MAX })
}
