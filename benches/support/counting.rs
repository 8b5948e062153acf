//! A way to the API server that counts the requests that go it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::BytesMut;
use kube::Config;
use kube::client::ConfigExt as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::http::find;

/// How many requests of each kind: `POST pods`, `GET pods/log`, `WATCH pods`.
pub(crate) type Counts = BTreeMap<String, usize>;

/// Clients come in without TLS, on this machine.
#[derive(Debug)]
pub(crate) struct Counter {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    _connections: JoinSet<()>,
}

/// The server behind.
#[derive(Clone)]
struct Server {
    address: (String, u16),
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Counter {
    /// In front of the cluster that a client would reach by this.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        let url = &config.cluster_url;
        let host = url.host().context("the cluster has no address")?.to_owned();
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = Server {
            address: (host.clone(), url.port_u16().unwrap_or(443)),
            tls: TlsConnector::from(Arc::new(tls)),
            name: ServerName::try_from(host)?,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let counts = Arc::<Mutex<Counts>>::default();
        let mut connections = JoinSet::new();
        connections.spawn(serve(listener, server, Arc::clone(&counts)));
        Ok(Self { address, counts, _connections: connections })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Since the last time.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(listener: TcpListener, server: Server, counts: Arc<Mutex<Counts>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, counts) = (server.clone(), Arc::clone(&counts));
        connections.spawn(async move {
            // Who is at either end sees to a connection that breaks off.
            pass(client, server, &counts).await.unwrap_or_default();
        });
    }
}

async fn pass(client: TcpStream, server: Server, counts: &Mutex<Counts>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    let stream = server.tls.connect(server.name, stream).await?;
    let (mut answers, mut requests) = tokio::io::split(stream);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    tokio::select! {
        passed = count(&mut from_client, &mut requests, counts) => passed,
        passed = tokio::io::copy(&mut answers, &mut to_client) => passed.map(|_| ()),
    }
}

async fn count(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counts: &Mutex<Counts>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break buffer.split_to(end + 4);
            }
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.lines();
        let kind = kind(lines.next().unwrap_or_default());
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
        // Who sends a body here says how long it is.
        let length = lines.find_map(|it| {
            let (name, value) = it.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let mut left = length.unwrap_or_default();
        to.write_all(&head).await?;
        while left > 0 {
            if buffer.is_empty() && from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            let piece = buffer.split_to(left.min(buffer.len()));
            left -= piece.len();
            to.write_all(&piece).await?;
        }
        to.flush().await?;
    }
}

/// `GET /api/v1/namespaces/n/pods/p/log?follow=true HTTP/1.1` → `GET pods/log`.
fn kind(line: &str) -> String {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    let inside = match parts.as_slice() {
        ["api", _, "namespaces", _, inside @ ..] if !inside.is_empty() => inside,
        ["api", _, inside @ ..] => inside,
        all => all,
    };
    let (resource, is_collection) = match inside {
        [resource] => ((*resource).to_owned(), true),
        [resource, _] => ((*resource).to_owned(), false),
        [resource, _, rest @ ..] => (format!("{resource}/{}", rest.join("/")), false),
        [] => (path.to_owned(), false),
    };
    let verb = match method {
        "GET" if query.contains("watch=true") => "WATCH",
        "GET" if is_collection && path.starts_with("/api/") => "LIST",
        method => method,
    };
    format!("{verb} {resource}")
}
