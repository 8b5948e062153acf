//! The object store as a folder. A file is there whole and on the disk, or not at all.
//!
//! Keys begin with the week of their task, as the partitions of the tables do, so that retention removes
//! both together.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::marker;
use crate::domain::outcome::StoredFile;
use crate::domain::spec::hex;
use crate::failpoints::{self, Point};
use crate::ids::{AttemptNo, ObjectStoreId, TaskId};
use crate::runner::{OutputSink, SinkError};

/// A folder of objects.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// The file in it that says which object store it is.
    pub const ID_FILE: &str = marker::FILE;

    /// The one in a data directory.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        // The data directory lets the database's user pass, and with it everybody.
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self { root })
    }

    /// One that somebody named. Where it is there already, who may enter it is for them to say.
    pub fn open_named(root: PathBuf) -> io::Result<Self> {
        if root.is_dir() { Ok(Self { root }) } else { Self::open(root) }
    }

    /// Which object store a folder is, which is left as it is. None: none, yet.
    pub fn id_of(folder: &Path) -> io::Result<Option<ObjectStoreId>> {
        marker::read(folder)
    }

    /// Which object store it is. None: it has not been taken into use.
    pub fn id(&self) -> io::Result<Option<ObjectStoreId>> {
        marker::read(&self.root)
    }

    /// Which object store it is, from now on if it was none.
    pub fn ensure_id(&self) -> io::Result<ObjectStoreId> {
        marker::ensure(&self.root)
    }

    /// Takes the file outputs of one attempt.
    pub fn sink(&self, task: TaskId, attempt_no: AttemptNo) -> AttemptSink {
        AttemptSink {
            store: self.clone(),
            prefix: format!("{}/{task}/{attempt_no}", week_of(task)),
        }
    }

    /// The size and the bytes of an object.
    pub async fn get(&self, key: &str) -> io::Result<(u64, File)> {
        let file = File::open(self.path(key)?).await?;
        Ok((file.metadata().await?.len(), file))
    }

    /// The weeks (`2026w47`) of tasks that have objects here.
    pub async fn weeks(&self) -> io::Result<Vec<String>> {
        let mut entries = fs::read_dir(&self.root).await?;
        let mut weeks = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            if !entry.file_type().await?.is_dir() {
                continue;
            }
            weeks.extend(entry.file_name().into_string());
        }
        Ok(weeks)
    }

    /// Removes every object of the tasks of one week (`2026w47`).
    pub async fn remove_week(&self, week: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.path(week)?).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, key: &str) -> io::Result<PathBuf> {
        let relative = Path::new(key);
        if relative.components().all(|it| matches!(it, Component::Normal(_))) && !key.is_empty() {
            Ok(self.root.join(relative))
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{key:?} is not an object key"),
            ))
        }
    }

    async fn put(
        &self,
        key: &str,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> io::Result<(u64, String)> {
        let path = self.path(key)?;
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&folder).await?;
        let unfinished = folder.join(format!(".{}.part", uuid::Uuid::now_v7()));
        let written = write_synced(&unfinished, body).await;
        let written = match written {
            Ok(it) => it,
            Err(error) => {
                // Best effort: the name can't clash with anything.
                let _ = fs::remove_file(&unfinished).await;
                return Err(error);
            }
        };
        failpoints::at(Point::ObjectWritten);
        fs::rename(&unfinished, &path).await?;
        for folder in folder.ancestors().take_while(|it| it.starts_with(&self.root)) {
            File::open(folder).await?.sync_all().await?;
        }
        failpoints::at(Point::ObjectStored);
        Ok(written)
    }
}

async fn write_synced(
    path: &Path,
    body: &mut (dyn AsyncRead + Send + Unpin),
) -> io::Result<(u64, String)> {
    let mut file = File::create_new(path).await?;
    let mut digest = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = body.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        digest.update(bytes);
        file.write_all(bytes).await?;
        size += read as u64;
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok((size, hex(digest.finalize().iter())))
}

/// The ISO week of a task's id, as in the names of the partitions.
fn week_of(task: TaskId) -> String {
    let millis = i64::try_from(task.uuid().as_u128() >> 80).unwrap_or_default();
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    let week = at.to_zoned(jiff::tz::TimeZone::UTC).date().iso_week_date();
    format!("{:04}w{:02}", week.year(), week.week())
}

/// See [`FolderStore::sink`].
#[derive(Debug)]
pub struct AttemptSink {
    store: FolderStore,
    prefix: String,
}

#[async_trait]
impl OutputSink for AttemptSink {
    async fn store(
        &self,
        name: &str,
        path: &str,
        media_type: &str,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<StoredFile, SinkError> {
        // Names of outputs may be "." or "..": a suffix keeps them from meaning folders.
        let object_key = format!("{}/{name}.out", self.prefix);
        let (size, sha256) =
            self.store.put(&object_key, body).await.map_err(|it| SinkError(it.to_string()))?;
        Ok(StoredFile {
            object_key,
            media_type: media_type.to_owned(),
            size,
            sha256,
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_stored_comes_back_and_storing_again_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path().join("objects")).unwrap();
        store.ensure_id().unwrap();
        let sink = store.sink(TaskId::generate(), AttemptNo::FIRST);
        let first = sink.store("..", "/out/a", "text/plain", &mut &b"first"[..]).await.unwrap();
        let second = sink.store("..", "/out/a", "text/plain", &mut &b"hello"[..]).await.unwrap();
        assert_eq!(first.object_key, second.object_key);
        assert_eq!(
            second.sha256,
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        let (size, mut file) = store.get(&second.object_key).await.unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).await.unwrap();
        assert_eq!((size, text.as_str()), (5, "hello"));
        let week = second.object_key.split('/').next().unwrap();
        assert_eq!(store.weeks().await.unwrap(), [week]);
        store.remove_week(week).await.unwrap();
        assert!(store.get(&second.object_key).await.is_err());
    }

    #[tokio::test]
    async fn a_key_never_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path().join("objects")).unwrap();
        for key in ["../x", "/etc/passwd", "a/../../x", "", "."] {
            assert!(store.get(key).await.is_err(), "{key:?}");
        }
    }

    #[test]
    fn the_week_is_that_of_the_partitions() {
        let task: TaskId = "019aa000-0000-7000-8000-000000000000".parse().unwrap();
        assert_eq!(week_of(task), "2025w47");
    }
}
