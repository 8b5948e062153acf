//! What every kind of backend does with the files that a sandbox hands back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Of a folder.
pub(crate) const TAR: &str = "application/x-tar";

/// Exactly so many bytes: a stream that ends before is an error, not a short file.
#[derive(Debug)]
pub(crate) struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R> Exact<R> {
    pub(crate) const fn new(inner: R, bytes: u64) -> Self {
        Self { inner, left: bytes }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Exact<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.remaining());
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buf.advance(read);
        self.left -= read as u64;
        Poll::Ready(Ok(()))
    }
}

/// At most so many bytes: more is an error, and [`Limited::exceeded`] then says so.
#[derive(Debug)]
pub(crate) struct Limited<R> {
    inner: R,
    limit: u64,
    read: u64,
}

impl<R> Limited<R> {
    pub(crate) const fn new(inner: R, limit: u64) -> Self {
        Self { inner, limit, read: 0 }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// How much was there, at least, if it was too much.
    pub(crate) const fn exceeded(&self) -> Option<u64> {
        if self.read > self.limit { Some(self.read) } else { None }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Limited<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.read += (buf.filled().len() - before) as u64;
        if self.exceeded().is_some() {
            // A reader that fails has read nothing.
            buf.set_filled(before);
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        Poll::Ready(Ok(()))
    }
}

/// By extension: what a browser or a data tool wants to know, and no more.
pub(crate) fn media_type(path: &str) -> &'static str {
    let extension = path.rsplit('/').next().and_then(|it| it.rsplit_once('.')).map(|(_, it)| it);
    match extension.unwrap_or_default().to_ascii_lowercase().as_str() {
        "json" => "application/json",
        "ndjson" | "jsonl" => "application/x-ndjson",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "html" | "htm" => "text/html",
        "xml" => "application/xml",
        "yaml" | "yml" => "application/yaml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "parquet" => "application/vnd.apache.parquet",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "zip" => "application/zip",
        "tar" => TAR,
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn a_media_type_comes_from_the_extension() {
        for (path, expected) in [
            ("/out/report.csv", "text/csv"),
            ("/out/A.JSON", "application/json"),
            ("/out.d/plain", "application/octet-stream"),
            ("/out/x.tar.gz", "application/gzip"),
            ("/out/.json", "application/json"),
        ] {
            assert_eq!(media_type(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_limit_ends_the_stream_with_an_error() {
        let mut within = Limited::new(&[1; 100][..], 100);
        within.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(within.exceeded(), None);
        let mut beyond = Limited::new(&[1; 101][..], 100);
        beyond.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(beyond.exceeded(), Some(101));
    }
}
