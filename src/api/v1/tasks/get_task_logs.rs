use std::collections::BTreeMap;
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

/// What stands for all containers.
const ALL_CONTAINERS: &str = "*";

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
    /// The last lines of those that would be answered otherwise, so many; of `container=*`, of each container.
    #[param(value_type = Option<u32>, example = 100)]
    tail: Option<usize>,
    /// Lines of this time and later, or of the last while: `2026-11-21T09:30:00Z`, `10m`.
    #[param(value_type = Option<String>, example = "10m")]
    since: Option<Since>,
    /// Lines of this stream: `stdout` or `stderr`.
    #[param(value_type = Option<String>, pattern = "^(stdout|stderr)$", example = "stderr")]
    stream: Option<LogStream>,
    /// Of this container: `main`, or one beside it, as the pods of Kubernetes have them. `*` is all of them,
    /// by time, each line with the name of its container; that can't be resumed.
    #[param(value_type = Option<String>, pattern = "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|[*])$", example = "main")]
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
            container: query.parsed("container", container),
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
        if it.wants_all()
            && let Some((name, _)) = begins_at(&it).into_iter().find(|(_, given)| *given)
        {
            query.fault(format!("container=* has no {name}: name one container, or leave it out"));
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

fn container(text: &str) -> Result<String, String> {
    if matches!(text, ALL_CONTAINERS | "all") {
        return Ok(ALL_CONTAINERS.to_owned());
    }
    let is_part = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(is_part) {
        return Err(format!("{text:?} is no name of a container, such as main, nor * for all"));
    }
    Ok(text.to_owned())
}

/// What says where the log of one container begins.
const fn begins_at(query: &GetTaskLogsQuery) -> [(&'static str, bool); 2] {
    [("offset", query.offset.is_some()), ("after", query.after.is_some())]
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
/// The log of a container is addressed by the bytes of both its streams together. Parameters that choose lines leave others
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
    extensions(("x-problems" = json!(["task_not_found", "attempt_not_found", "container_not_found", "range_not_satisfiable"]))),
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
        let length = app.logs.length(task, &asked.container, asked.from.attempt).await?;
        let text = range.to_str().unwrap_or_default();
        match range::part(text, length).map_err(invalid)? {
            Part::Whole => {}
            Part::Bytes(first, last) => return asked.part(app, &record, first, last, length).await,
            Part::Outside => return Err(outside(length)),
        }
    }
    asked.answer(app, task).await
}

fn no_such_container(container: &str, mut others: Vec<String>, is_over: bool) -> Problem {
    if !others.iter().any(|it| it == MAIN_CONTAINER) {
        others.insert(0, MAIN_CONTAINER.to_owned());
    }
    let so_far = if is_over { "" } else { " so far, and follow waits for more" };
    let detail =
        format!("the attempt has no log of a container {container:?}: it has {others:?}{so_far}");
    Problem::new(ProblemKind::ContainerNotFound, detail)
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
    fn wants_all(&self) -> bool {
        self.container.as_deref() == Some(ALL_CONTAINERS)
    }

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
            ("container=*", self.wants_all()),
        ];
        names.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// What is to be answered, once everything that was said is put together.
struct Asked {
    /// The one that is wanted, or the main one.
    container: String,
    /// Where the others begin, if all are wanted.
    offsets: BTreeMap<String, u64>,
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
            if query.wants_all() {
                return Err(invalid(
                    "Last-Event-ID is of one container: name it, or leave out the header",
                ));
            }
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
        let several = query.wants_all();
        let container = query.container.take().filter(|_| !several);
        let container = container.unwrap_or_else(|| MAIN_CONTAINER.to_owned());
        let is_over = record.state.is_terminal() || attempt < latest;
        let containers = if several || container != MAIN_CONTAINER {
            app.logs.containers(task, attempt).await?
        } else {
            Vec::new()
        };
        // One that has not written anything may still come.
        let may_come = query.follow && !is_over;
        if !several && container != MAIN_CONTAINER && !containers.contains(&container) && !may_come
        {
            return Err(no_such_container(&container, containers, is_over));
        }
        let mut select = Select { stream: query.stream, since: None, grep: query.grep };
        let mut from = LogPlace {
            attempt,
            offset: query.after.map(|it| it.offset).or(query.offset).unwrap_or_default(),
        };
        select.since = query.since.map(|it| nanos(it, app.clock.now()));
        let begin = |container: String| {
            let select = &select;
            async move {
                let mut offset = from.offset;
                if let Some(since) = select.since {
                    let since = app.logs.offset_since(task, &container, attempt, since).await?;
                    offset = offset.max(since);
                }
                if let Some(lines) = query.tail {
                    let offset_at_end = app.logs.length(task, &container, attempt).await?;
                    let end = LogPlace { attempt, offset: offset_at_end };
                    offset = tail(app, task, &container, end, lines, select).await?;
                }
                Ok::<_, Problem>((container, offset))
            }
        };
        let mut offsets = BTreeMap::new();
        if several {
            offsets = futures_util::future::try_join_all(containers.into_iter().map(begin))
                .await?
                .into_iter()
                .collect();
        } else {
            from.offset = begin(container.clone()).await?.1;
        }
        let follow = match (query.follow, query.attempt) {
            (false, _) => Follow::No,
            (true, Some(_)) => Follow::Attempt,
            (true, None) => Follow::Task,
        };
        let form = Form { format, timestamps: query.timestamps, select, several };
        let waits = query.follow && !record.state.is_terminal();
        let plain = form.is_plain();
        Ok(Self { container, offsets, from, follow, waits, form, plain })
    }

    async fn answer(mut self, app: App, task: TaskId) -> Result<Response, Problem> {
        let mut blocks = if self.form.several {
            let offsets = std::mem::take(&mut self.offsets);
            app.logs.merged(task, self.from.attempt, offsets, self.follow)
        } else {
            app.logs.blocks(task, &self.container, self.from, self.follow)
        };
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
        let mut blocks = app.logs.blocks(record.task, &asked.container, asked.from, Follow::No);
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
