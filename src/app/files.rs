//! The small files of a data directory.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::ids::WorkerId;

const WORKER_ID: &str = "worker.id";
const SERVICE: &str = "service.json";

/// The id of this data directory's worker, made at its first start. The lock on the directory guards it.
pub(super) fn worker_id(data_dir: &Path) -> io::Result<WorkerId> {
    let path = data_dir.join(WORKER_ID);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} does not hold an id: remove it if no service uses this directory",
                    path.display()
                ),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = WorkerId::generate();
            write_whole(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// The id of this data directory's worker, if it ever had one.
pub(super) fn known_worker_id(data_dir: &Path) -> Option<WorkerId> {
    fs::read_to_string(data_dir.join(WORKER_ID)).ok()?.trim().parse().ok()
}

/// Tells the command line where the service is.
pub(super) fn write_service(data_dir: &Path, address: SocketAddr) -> io::Result<()> {
    let service = serde_json::json!({"url": url(address), "pid": std::process::id()});
    write_whole(&data_dir.join(SERVICE), format!("{service}\n").as_bytes())
}

pub(super) fn remove_service(data_dir: &Path) {
    // A stale one does no harm: the command line says that nothing answers there.
    let _ = fs::remove_file(data_dir.join(SERVICE));
}

/// Where callers on this machine find an address.
pub(super) fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// A reader sees the old file or the new one, also after a power cut.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("part");
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let first = worker_id(folder.path()).unwrap();
        assert_eq!(worker_id(folder.path()).unwrap(), first);
        fs::write(folder.path().join(WORKER_ID), "x").unwrap();
        assert!(worker_id(folder.path()).unwrap_err().to_string().contains("worker.id"));
    }

    #[test]
    fn an_address_for_everybody_is_reached_on_this_machine() {
        assert_eq!(url("0.0.0.0:7070".parse().unwrap()), "http://127.0.0.1:7070");
        assert_eq!(url("[::]:1".parse().unwrap()), "http://[::1]:1");
    }
}
