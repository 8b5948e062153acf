//! Who a folder of objects is: an id in a file, so that another folder is never taken for it, be it at the same
//! path on another machine, or what is below a file system that is not mounted.
//!
//! The file is there whole or not at all, and processes that make it together agree on one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::ids::ObjectStoreId;

pub(super) const FILE: &str = "store.id";

/// None: this folder has not been taken into use.
pub(super) fn read(folder: &Path) -> io::Result<Option<ObjectStoreId>> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            let text = format!("{} does not hold the id of an object store", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of the folder, made now if it has none.
pub(super) fn ensure(folder: &Path) -> io::Result<ObjectStoreId> {
    if let Some(id) = read(folder)? {
        return Ok(id);
    }
    let candidate = ObjectStoreId::generate();
    let unfinished = folder.join(format!(".{candidate}.part"));
    let made = write(&unfinished, candidate).and_then(|()| publish(&unfinished, folder));
    if made.is_err() {
        // Best effort: the name can't clash with anything.
        drop(fs::remove_file(&unfinished));
    }
    made?;
    // Another process may have been first: the file tells.
    read(folder)?.ok_or_else(|| io::Error::other(format!("{FILE} is gone again")))
}

fn write(path: &Path, id: ObjectStoreId) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    writeln!(file, "{id}")?;
    file.sync_all()
}

/// Gives the file its name, unless there is one of that name.
fn publish(unfinished: &Path, folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    match renameat_with(CWD, unfinished, CWD, &path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => fs::remove_file(unfinished)?,
        // A file system without it, as those over a network: a hard link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match fs::hard_link(unfinished, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => fs::remove_file(unfinished)?,
            }
        }
        Err(error) => return Err(error.into()),
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let made = ensure(folder.path()).unwrap();
        assert_eq!(ensure(folder.path()).unwrap(), made);
        assert_eq!(read(folder.path()).unwrap(), Some(made));
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
    }

    #[test]
    fn processes_that_start_together_agree_on_one_id() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<ObjectStoreId> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| ensure(folder.path()).unwrap())).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|it| *it == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_file_that_holds_no_id_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "?\n").unwrap();
        let error = ensure(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&folder.path().join(FILE).display().to_string()), "{error}");
    }
}
