//! What the API asks for, answered by the modules that have it.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;

use crate::api::{LogSource, ObjectSource};
use crate::domain::log::{Follow, LogBlock, LogPlace};
use crate::ids::{AttemptNo, TaskId};
use crate::logs::reader::LogReader;
use crate::outputs::FolderStore;
use crate::store;

#[async_trait]
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

    fn blocks(
        &self,
        task: TaskId,
        from: LogPlace,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>> {
        Self::blocks(self, task, from, follow)
    }

    async fn block_before(
        &self,
        task: TaskId,
        place: LogPlace,
    ) -> Result<Option<LogBlock>, store::Error> {
        Self::block_before(self, task, place).await
    }

    async fn length(&self, task: TaskId, attempt: AttemptNo) -> Result<u64, store::Error> {
        Self::length(self, task, attempt).await
    }

    async fn offset_since(
        &self,
        task: TaskId,
        attempt: AttemptNo,
        since: i64,
    ) -> Result<u64, store::Error> {
        Self::offset_since(self, task, attempt, since).await
    }
}

#[async_trait]
impl ObjectSource for FolderStore {
    async fn open(&self, object_key: &str) -> io::Result<(u64, Box<dyn AsyncRead + Send + Unpin>)> {
        let (size, file) = self.get(object_key).await?;
        Ok((size, Box::new(file)))
    }
}
