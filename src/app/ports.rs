//! What the API asks for, answered by the modules that have it.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;

use crate::api::{LogSource, ObjectSource};
use crate::ids::{AttemptNo, TaskId};
use crate::logs::reader::LogReader;
use crate::outputs::FolderStore;
use crate::store;

impl LogSource for LogReader {
    fn stream(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, store::Error>> {
        Self::stream(self, task, attempt, offset, follow)
    }
}

#[async_trait]
impl ObjectSource for FolderStore {
    async fn open(&self, object_key: &str) -> io::Result<(u64, Box<dyn AsyncRead + Send + Unpin>)> {
        let (size, file) = self.get(object_key).await?;
        Ok((size, Box::new(file)))
    }
}
