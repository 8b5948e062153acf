//! The object store of this process, which is that of every process of the installation, or no start.
//!
//! The scheduler counts as much as the others: retention removes files.

use std::path::Path;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::ids::ObjectStoreId;
use crate::outputs::FolderStore;
use crate::store::{ObjectStoreInUse, Store};

pub(super) async fn open(config: &Config, store: &Store) -> anyhow::Result<FolderStore> {
    let folder = config.objects_folder();
    let objects = match config.object_store.folder {
        Some(_) => FolderStore::open_named(folder.clone()),
        None => FolderStore::open(folder.clone()),
    };
    let objects =
        objects.with_context(|| format!("open the object store at {}", folder.display()))?;
    // The database first: whoever wrote it had written the file before.
    let (in_use, found) = if let Some(in_use) = store.object_store().await? {
        (in_use, objects.id().context("read the id of the object store")?)
    } else {
        let id = objects.ensure_id().context("give the object store its id")?;
        (store.adopt_object_store(id, &place(&folder)).await?, Some(id))
    };
    if found != Some(in_use.id) {
        bail!("{}", refusal(&folder, found, &in_use));
    }
    Ok(objects)
}

fn place(folder: &Path) -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{} on {node}", folder.display())
}

fn refusal(folder: &Path, found: Option<ObjectStoreId>, in_use: &ObjectStoreInUse) -> String {
    let found = found.map_or_else(|| "without an id".to_owned(), |it| format!("with the id {it}"));
    let ObjectStoreInUse { id, place } = in_use;
    let folder = folder.display();
    format!(
        "the object store at {folder} ({found}) is not the one of this installation, which is {place} (with \
         the id {id}): files that another process stores could not be read here. Let object_store.folder name \
         the same folder for every process, on a file system that their machines share, and see that it is \
         mounted. If its files were moved here, or are lost for good, take this folder into use: \
         echo {id} > {folder}/{}",
        FolderStore::ID_FILE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_both_folders_and_the_fix() {
        let id = ObjectStoreId::generate();
        let in_use = ObjectStoreInUse { id, place: "/a on one".to_owned() };
        for found in [None, Some(ObjectStoreId::generate())] {
            let text = refusal(Path::new("/b"), found, &in_use);
            for part in
                ["/b (", "/a on one", "object_store.folder", &format!("echo {id} > /b/store.id")]
            {
                assert!(text.contains(part), "{part:?}: {text}");
            }
        }
    }
}
