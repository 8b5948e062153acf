//! The API as a router over a real database, without a network in between.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use supercargo::api::{AppState, Lifecycle, LogSource, ObjectSource, Settings, router};
use supercargo::app::{CHECK_TEMPLATE, TargetRenderer};
use supercargo::auth::{Authenticator, Mode};
use supercargo::clock::SystemClock;
use supercargo::domain::log::{Follow, LogBlock, LogFrame, LogPlace, LogStream};
use supercargo::domain::spec::Limits;
use supercargo::domain::target::{Backend, DockerBackend, Target};
use supercargo::ids::{AttemptNo, TaskId};
use supercargo::logs::reader::LogReader;
use supercargo::store::{self, NewToken, Store};
use supercargo::targets::{Catalogue, Configured};
use supercargo::wake::Wake;
use tokio::io::AsyncRead;
use tower::ServiceExt as _;

use super::database::{TestDatabase, open, test_database};
use super::declared;

pub(crate) const TOKEN: &str = "sc_test_token_of_the_integration_tests";

pub(crate) struct TestApp {
    pub router: Router,
    pub store: Store,
    pub wake: Wake,
    pub lifecycle: Lifecycle,
    pub logs: Arc<FakeLogs>,
    pub objects: Arc<FakeObjects>,
    // The last to go: its connections must be closed.
    pub database: TestDatabase,
}

/// Ends the test where there is no database server.
#[macro_export]
macro_rules! test_app {
    () => {
        $crate::test_app!(|_, _| {})
    };
    ($change:expr) => {
        match $crate::support::api::TestApp::start($change).await {
            Some(app) => app,
            None => return,
        }
    };
}

impl TestApp {
    pub(crate) async fn start(change: impl FnOnce(&mut Settings, &mut Mode)) -> Option<Self> {
        let database = test_database().await?;
        let store = open(&database.url);
        let sha256 = Sha256::digest(TOKEN.as_bytes()).into();
        let prepared =
            store.prepare(Some(&NewToken { name: "tester".to_owned(), sha256 })).await.unwrap();
        let hint =
            "the admin token is in /data/admin.token on the machine of the service".to_owned();
        let (mut settings, mut mode) = (Settings::default(), Mode::On { hint });
        settings.roles = vec!["api".to_owned()];
        change(&mut settings, &mut mode);
        let (wake, lifecycle) = (Wake::default(), Lifecycle::default());
        lifecycle.schema_is_ready();
        let logs = Arc::new(FakeLogs::over(&store, &wake));
        let local = Configured {
            target: Target::plain(Backend::Docker(DockerBackend::default())),
            place: "[docker] of the default".to_owned(),
        };
        let catalogue = Catalogue::new(store.clone(), [("local".to_owned(), local)].into());
        catalogue.publish().await.unwrap();
        catalogue.refresh().await.unwrap();
        let objects = Arc::<FakeObjects>::default();
        let state = AppState {
            store: store.clone(),
            wake: wake.clone(),
            clock: Arc::new(SystemClock),
            settings: Arc::new(settings),
            limits: Limits { pod_template: CHECK_TEMPLATE, ..Limits::default() },
            catalogue,
            auth: Authenticator::new(store.clone(), mode),
            logs: Arc::clone(&logs) as Arc<dyn LogSource>,
            objects: Arc::clone(&objects) as Arc<dyn ObjectSource>,
            renderer: Arc::new(TargetRenderer {
                installation: prepared.installation,
                log_max_bytes: 1 << 30,
            }),
            metrics: Arc::new(|| "# the metrics\n".to_owned()),
            lifecycle: lifecycle.clone(),
        };
        Some(Self { router: router(state), store, wake, lifecycle, logs, objects, database })
    }

    /// As it is, without a token.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let reason = parts.extensions.get::<hyper::ext::ReasonPhrase>();
        let reason = reason.map(|it| String::from_utf8(it.as_bytes().to_vec()).unwrap());
        let body = axum::body::to_bytes(body, usize::MAX).await;
        let broken = body.is_err();
        let body = body.unwrap_or_default();
        declared::check(&method, &path, parts.status, &parts.headers, &body);
        Answer { status: parts.status, headers: parts.headers, reason, body, broken }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.call(Method::PUT, path, &headers, Body::from(body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.call(Method::POST, path, &all, Body::from(body.to_string())).await
    }

    pub(crate) async fn submit(&self, body: &Value) -> TaskId {
        let answer = self.post("/api/v1/tasks", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.id()
    }

    pub(crate) async fn submit_any(&self) -> TaskId {
        self.submit(&json!({"image": "busybox:latest", "name": "count"})).await
    }

    pub(crate) async fn count(&self) -> usize {
        self.get("/api/v1/tasks?limit=1000").await.items().len()
    }
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it is not the usual one.
    pub reason: Option<String>,
    pub body: Bytes,
    /// The body broke off.
    pub broken: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|it| panic!("{it}: {self:?}"))
    }

    pub(crate) fn items(&self) -> Vec<Value> {
        self.json()["items"].as_array().unwrap_or_else(|| panic!("no items: {self:?}")).clone()
    }

    pub(crate) fn id(&self) -> TaskId {
        self.json()["id"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// `status code: detail` of a problem, after its form was checked.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16(), "{self:?}");
        let code = body["code"].as_str().unwrap();
        assert_eq!(body["type"], format!("https://supercargo.dev/problems/{code}"));
        assert!(body["instance"].as_str().unwrap().starts_with("urn:request:"));
        let detail = body["detail"].as_str().unwrap();
        assert!(!detail.contains('\n'), "{detail}");
        format!("{} {code}: {detail}", self.status.as_u16())
    }

    /// The body with ids and times named, for snapshots.
    pub(crate) fn stable(&self) -> String {
        let mut body = self.json();
        stabilise(&mut body);
        let reason = self.reason.as_ref().map(|it| format!(" {it}")).unwrap_or_default();
        format!(
            "{}{reason}\n{}",
            self.status.as_u16(),
            serde_json::to_string_pretty(&body).unwrap()
        )
    }
}

fn stabilise(value: &mut Value) {
    match value {
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => "[time]".clone_into(text),
        Value::String(text) => {
            let is_id = |it: &str| uuid::Uuid::try_parse(it).is_ok();
            let find =
                |text: &str| (0..text.len()).find(|at| text.get(*at..at + 36).is_some_and(is_id));
            while let Some(at) = find(text) {
                text.replace_range(at..at + 36, "[id]");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(stabilise),
        Value::Object(fields) => fields.values_mut().for_each(stabilise),
        _ => {}
    }
}

/// Logs by task and attempt; where there are none, those of the database.
pub(crate) struct FakeLogs {
    pub texts: Mutex<HashMap<(TaskId, i32), &'static [u8]>>,
    reader: LogReader,
}

impl FakeLogs {
    fn over(store: &Store, wake: &Wake) -> Self {
        let reader = LogReader::new(Arc::new(store.clone()), wake.clone());
        Self { texts: Mutex::default(), reader }
    }

    fn text(&self, task: TaskId, attempt: AttemptNo) -> Option<&'static [u8]> {
        self.texts.lock().unwrap().get(&(task, attempt.0)).copied()
    }
}

#[async_trait::async_trait]
impl LogSource for FakeLogs {
    fn stream(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, store::Error>> {
        let Some(text) = self.text(task, attempt.unwrap_or(AttemptNo::FIRST)) else {
            return self.reader.stream(task, attempt, offset, follow);
        };
        let rest = text.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let log = stream::iter([Ok(Bytes::from_static(rest))]);
        if follow { log.chain(stream::pending()).boxed() } else { log.boxed() }
    }

    fn blocks(
        &self,
        task: TaskId,
        container: &str,
        from: LogPlace,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>> {
        let Some(text) = self.text(task, from.attempt) else {
            return self.reader.blocks(task, container, from, follow);
        };
        let rest = text.get(usize::try_from(from.offset).unwrap()..).unwrap_or_default();
        let frame = LogFrame { at: 0, stream: LogStream::Stdout, bytes: Bytes::from_static(rest) };
        let log = stream::iter([Ok(LogBlock {
            container: container.into(),
            place: from,
            frames: vec![frame],
        })]);
        if follow == Follow::No { log.boxed() } else { log.chain(stream::pending()).boxed() }
    }

    fn merged(
        &self,
        task: TaskId,
        attempt: AttemptNo,
        offsets: BTreeMap<String, u64>,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>> {
        self.reader.merged(task, attempt, offsets, follow)
    }

    async fn containers(
        &self,
        task: TaskId,
        attempt: AttemptNo,
    ) -> Result<Vec<String>, store::Error> {
        self.reader.containers(task, attempt).await
    }

    async fn block_before(
        &self,
        task: TaskId,
        container: &str,
        place: LogPlace,
    ) -> Result<Option<LogBlock>, store::Error> {
        self.reader.block_before(task, container, place).await
    }

    async fn length(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
    ) -> Result<u64, store::Error> {
        self.reader.length(task, container, attempt).await
    }

    async fn offset_since(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
        since: i64,
    ) -> Result<u64, store::Error> {
        self.reader.offset_since(task, container, attempt, since).await
    }
}

/// Whoever asks for this object panics.
pub(crate) const PANICS: &str = "panics";

#[derive(Default)]
pub(crate) struct FakeObjects {
    pub objects: Mutex<HashMap<String, &'static [u8]>>,
}

#[async_trait::async_trait]
impl ObjectSource for FakeObjects {
    async fn open(&self, object_key: &str) -> io::Result<(u64, Box<dyn AsyncRead + Send + Unpin>)> {
        assert_ne!(object_key, PANICS, "asked for the object that panics");
        let bytes = self.objects.lock().unwrap().get(object_key).copied();
        let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
        Ok((bytes.len() as u64, Box::new(bytes)))
    }
}
