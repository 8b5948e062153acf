//! Tar, in and out: the files that a task brings, and the one file that an output names.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::domain::spec::InputFile;
use crate::runner::naming;

const BLOCK: usize = 512;
/// Of the metadata before an entry: a path and a few numbers.
const MAX_METADATA: u64 = 1 << 20;

/// What goes into a container before it starts, unpacked at its root. Folders that are missing are made
/// by the engine (0755); those that exist are not named here, so that they keep their modes.
pub(super) fn inputs(
    files: &[InputFile],
    open_output_dir: bool,
    now: Timestamp,
) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mtime = u64::try_from(now.as_second()).unwrap_or_default();
    if open_output_dir {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        header.set_mtime(mtime);
        header.set_size(0);
        builder.append_data(&mut header, relative(naming::OUTPUT_DIR), io::empty())?;
    }
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_mtime(mtime);
        header.set_size(file.content.len() as u64);
        builder.append_data(&mut header, relative(&file.path), &file.content[..])?;
    }
    builder.into_inner()
}

fn relative(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

/// The content of the first regular file of a tar stream, with its size. Links, folders and what else
/// comes first are passed over.
pub(super) async fn first_file<R: AsyncRead + Unpin>(
    mut tar: R,
) -> io::Result<Option<(u64, Exact<R>)>> {
    // Larger than the header has room for: told before it.
    let mut told_size = None;
    loop {
        let mut block = [0; BLOCK];
        tar.read_exact(&mut block).await?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block);
        let size = told_size.take().map_or_else(|| header.size(), Ok)?;
        let kind = header.entry_type();
        if kind.is_file() {
            return Ok(Some((size, Exact { inner: tar, left: size })));
        }
        if kind.is_pax_local_extensions() {
            let mut content = vec![0; metadata_size(size)?];
            tar.read_exact(&mut content).await?;
            told_size = pax_size(&content)?;
            skip(&mut tar, padding(size)).await?;
        } else {
            // A folder or link says a size and has no content.
            let content = if kind.is_gnu_longname() || kind.is_gnu_longlink() { size } else { 0 };
            skip(&mut tar, content + padding(content)).await?;
        }
    }
}

fn metadata_size(size: u64) -> io::Result<usize> {
    match usize::try_from(size) {
        Ok(bytes) if size <= MAX_METADATA => Ok(bytes),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a tar header is too large")),
    }
}

fn pax_size(content: &[u8]) -> io::Result<Option<u64>> {
    for field in tar::PaxExtensions::new(content) {
        let field = field?;
        if field.key() == Ok("size") {
            return Ok(field.value().ok().and_then(|it| it.parse().ok()));
        }
    }
    Ok(None)
}

const fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

async fn skip<R: AsyncRead + Unpin>(reader: &mut R, bytes: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut reader.take(bytes), &mut tokio::io::sink()).await?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Exactly so many bytes: a stream that ends before is an error, not a short file.
#[derive(Debug)]
pub(super) struct Exact<R> {
    inner: R,
    left: u64,
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
pub(super) struct Limited<R> {
    inner: R,
    limit: u64,
    read: u64,
}

impl<R> Limited<R> {
    pub(super) const fn new(inner: R, limit: u64) -> Self {
        Self { inner, limit, read: 0 }
    }

    /// How much was there, at least, if it was too much.
    pub(super) const fn exceeded(&self) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn file(path: &str, content: &[u8], mode: u32) -> InputFile {
        InputFile { path: path.to_owned(), content: content.to_vec(), mode }
    }

    async fn read(tar: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some((size, mut body)) = first_file(tar).await? else { return Ok(None) };
        let mut content = Vec::new();
        body.read_to_end(&mut content).await?;
        assert_eq!(size, content.len() as u64);
        Ok(Some(content))
    }

    #[test]
    fn inputs_name_files_and_no_folder_but_ours() {
        let long = format!("/{}/x", "d".repeat(150));
        let files = [file("/in/a.txt", b"hello", 0o640), file(&long, b"", 0o755)];
        let now = Timestamp::from_second(7).unwrap();
        for open in [false, true] {
            let bytes = inputs(&files, open, now).unwrap();
            let mut archive = tar::Archive::new(&bytes[..]);
            let entries: Vec<(String, u32, String)> = archive
                .entries()
                .unwrap()
                .map(|entry| {
                    let mut entry = entry.unwrap();
                    let mut content = String::new();
                    entry.read_to_string(&mut content).unwrap();
                    let path = entry.path().unwrap().display().to_string();
                    (path, entry.header().mode().unwrap(), content)
                })
                .collect();
            let mut expected = vec![
                ("in/a.txt".to_owned(), 0o640, "hello".to_owned()),
                (long.trim_start_matches('/').to_owned(), 0o755, String::new()),
            ];
            if open {
                expected.insert(0, ("supercargo".to_owned(), 0o777, String::new()));
            }
            assert_eq!(entries, expected);
        }
    }

    #[tokio::test]
    async fn the_first_file_is_found_behind_metadata() {
        let content = vec![7; 1_000];
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", "x".as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, "d", io::empty()).unwrap();
        builder
            .append_pax_extensions([("mtime", "1.5".as_bytes()), ("size", "1000".as_bytes())])
            .unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, "d/f", &content[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        assert_eq!(read(&tar).await.unwrap(), Some(content));
        let cut = read(&tar[..tar.len() - 1_600]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&[0; 1_024]).await.unwrap(), None);
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
