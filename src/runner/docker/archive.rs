//! Tar, in and out: the files that a task brings, and the one file that an output names.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::domain::spec::InputFile;
use crate::runner::files::Exact;
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
            return Ok(Some((size, Exact::new(tar, size))));
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
}
