//! HTTP/1.1 over one connection that is kept, by hand: what makes the load must not take the cores.

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const READ_AT_ONCE: usize = 64 << 10;
const CREATED: u16 = 201;

/// A whole request, ready to be sent as often as is wanted.
pub(crate) fn request(
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    let length = body.map(|it| it.len().to_string());
    let of_body = length
        .as_deref()
        .into_iter()
        .flat_map(|length| [("Content-Type", "application/json"), ("Content-Length", length)]);
    for (name, value) in headers.iter().copied().chain(of_body) {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    text.into_bytes()
}

/// The beginning of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
}

/// What is left of a body.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    Bytes(usize),
    /// The line with the length of the next chunk.
    ChunkHead,
    Chunk(usize),
    ChunkEnd,
    Trailer,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Http<S> {
    stream: S,
    buffer: BytesMut,
    left: Left,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(READ_AT_ONCE), left: Left::Nothing }
    }

    /// Sends a request and reads the head of the answer. The body before must have been read.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<Head> {
        self.stream.write_all(request).await.context("send a request")?;
        loop {
            while let Some(line) = find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.split_to(line + 4);
                let (head, left) = parse(&head)?;
                if head.status >= 200 {
                    self.left = left;
                    return Ok(head);
                }
            }
            self.fill().await?;
        }
    }

    /// The next piece of the body, as it comes.
    pub(crate) async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            self.left = match self.left {
                Left::Nothing => return Ok(None),
                Left::Bytes(0) => Left::Nothing,
                Left::Chunk(0) => Left::ChunkEnd,
                Left::Bytes(left) => {
                    let piece = self.up_to(left).await?;
                    self.left = Left::Bytes(left - piece.len());
                    return Ok(Some(piece));
                }
                Left::Chunk(left) => {
                    let piece = self.up_to(left).await?;
                    self.left = Left::Chunk(left - piece.len());
                    return Ok(Some(piece));
                }
                Left::ChunkHead => {
                    let line = self.line().await?;
                    let digits = line.split(|it| *it == b';').next().unwrap_or_default();
                    let digits = std::str::from_utf8(digits)?.trim();
                    match usize::from_str_radix(digits, 16).context("the length of a chunk")? {
                        0 => Left::Trailer,
                        length => Left::Chunk(length),
                    }
                }
                Left::ChunkEnd => {
                    self.line().await?;
                    Left::ChunkHead
                }
                Left::Trailer => {
                    if self.line().await?.is_empty() {
                        Left::Nothing
                    } else {
                        Left::Trailer
                    }
                }
            };
        }
    }

    /// The rest of the body.
    pub(crate) async fn body(&mut self) -> anyhow::Result<Bytes> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let mut whole = BytesMut::from(first);
        while let Some(piece) = self.piece().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> anyhow::Result<(Head, Bytes)> {
        let head = self.send(request).await?;
        let body = self.body().await?;
        Ok((head, body))
    }

    /// Sends a request that must be answered with one of these statuses.
    pub(crate) async fn expect(
        &mut self,
        request: &[u8],
        statuses: &[u16],
    ) -> anyhow::Result<(Head, Bytes)> {
        let (head, body) = self.call(request).await?;
        if !statuses.contains(&head.status) {
            let request = String::from_utf8_lossy(request);
            let request = request.lines().next().unwrap_or_default();
            bail!("{request} was answered {}: {}", head.status, String::from_utf8_lossy(&body));
        }
        Ok((head, body))
    }

    /// Sends a request that makes something.
    pub(crate) async fn create(&mut self, request: &[u8]) -> anyhow::Result<Bytes> {
        Ok(self.expect(request, &[CREATED]).await?.1)
    }

    async fn up_to(&mut self, most: usize) -> anyhow::Result<Bytes> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let length = most.min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn line(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line = self.buffer.split_to(end + 2);
                line.truncate(end);
                return Ok(line.freeze());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(READ_AT_ONCE);
        if self.stream.read_buf(&mut self.buffer).await.context("read an answer")? == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        Ok(())
    }
}

pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|it| it == wanted)
}

fn parse(head: &[u8]) -> anyhow::Result<(Head, Left)> {
    let text = std::str::from_utf8(head).context("the head of an answer is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|it| it.split(' ').nth(1));
    let status: u16 = status.and_then(|it| it.parse().ok()).context("an answer has no status")?;
    let (mut left, mut location) = (Left::Nothing, None);
    for (name, value) in lines.filter_map(|it| it.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            left = Left::Bytes(value.parse().context("the length of an answer")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            left = Left::ChunkHead;
        } else if name.eq_ignore_ascii_case("location") {
            location = Some(value.to_owned());
        }
    }
    if matches!(status, 204 | 304) {
        left = Left::Nothing;
    }
    Ok((Head { status, location }, left))
}
