//! A registry with one image, that can be slow, refuse and fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How it answers to a request for the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Kind,
    /// The answer comes when it is released.
    Slow,
    /// With this status, and the code of the registry protocol.
    Refuses(u16, &'static str),
    /// The manifest comes, its blobs do not.
    BreaksOff,
}

pub(crate) struct Registry {
    address: SocketAddr,
    state: Arc<Shelf>,
    _server: JoinSet<()>,
}

struct Shelf {
    mood: Mood,
    gate: Semaphore,
    manifests: AtomicUsize,
    manifest: String,
    config: String,
    layer: Vec<u8>,
}

impl Registry {
    pub(crate) async fn start(mood: Mood) -> Self {
        let layer = layer();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/none"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": digest(config.as_bytes()),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": layer.len(), "digest": digest(&layer),
            }],
        });
        let state = Arc::new(Shelf {
            mood,
            gate: Semaphore::new(0),
            manifests: AtomicUsize::default(),
            manifest: manifest.to_string(),
            config,
            layer,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, _server: server }
    }

    /// The name of its image.
    pub(crate) fn image(&self) -> String {
        format!("{}/a/b:1", self.address)
    }

    /// How often its manifest was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.state.manifests.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        self.state.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

/// One file: an image of nothing that could run.
fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    // Each registry has an image of its own.
    header.set_mtime(jiff::Timestamp::now().as_microsecond().unsigned_abs() % (1 << 32));
    builder.append_data(&mut header, "hello", &b"hi"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

async fn answer(State(shelf): State<Arc<Shelf>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if path == "/v2/" {
        return respond(StatusCode::OK, "application/json", "{}");
    }
    if path.contains("/manifests/") {
        shelf.manifests.fetch_add(1, Ordering::SeqCst);
        match shelf.mood {
            Mood::Kind | Mood::BreaksOff => {}
            Mood::Slow => drop(shelf.gate.acquire().await.unwrap()),
            Mood::Refuses(status, code) => {
                let body = json!({"errors": [{"code": code, "message": "refused by a test"}]});
                let status = StatusCode::from_u16(status).unwrap();
                return respond(status, "application/json", body.to_string());
            }
        }
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let mut response = respond(StatusCode::OK, kind, shelf.manifest.clone());
        let digest = digest(shelf.manifest.as_bytes()).parse().unwrap();
        response.headers_mut().insert("docker-content-digest", digest);
        return response;
    }
    match shelf.mood {
        Mood::BreaksOff if !path.ends_with(&digest(shelf.config.as_bytes())) => {
            respond(StatusCode::NOT_FOUND, "application/json", "{}")
        }
        _ if path.ends_with(&digest(shelf.config.as_bytes())) => {
            respond(StatusCode::OK, "application/octet-stream", shelf.config.clone())
        }
        _ if path.ends_with(&digest(&shelf.layer)) => {
            respond(StatusCode::OK, "application/octet-stream", shelf.layer.clone())
        }
        _ => respond(StatusCode::NOT_FOUND, "application/json", "{}"),
    }
}

fn respond(status: StatusCode, kind: &str, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header(header::CONTENT_TYPE, kind).body(body.into()).unwrap()
}
