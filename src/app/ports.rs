//! What the API asks for, answered by the modules that have it.

use std::collections::BTreeMap;
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
        container: &str,
        from: LogPlace,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>> {
        Self::blocks(self, task, container, from, follow)
    }

    fn merged(
        &self,
        task: TaskId,
        attempt: AttemptNo,
        offsets: BTreeMap<String, u64>,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>> {
        Self::merged(self, task, attempt, offsets, follow)
    }

    async fn containers(
        &self,
        task: TaskId,
        attempt: AttemptNo,
    ) -> Result<Vec<String>, store::Error> {
        Self::containers(self, task, attempt).await
    }

    async fn block_before(
        &self,
        task: TaskId,
        container: &str,
        place: LogPlace,
    ) -> Result<Option<LogBlock>, store::Error> {
        Self::block_before(self, task, container, place).await
    }

    async fn length(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
    ) -> Result<u64, store::Error> {
        Self::length(self, task, container, attempt).await
    }

    async fn offset_since(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
        since: i64,
    ) -> Result<u64, store::Error> {
        Self::offset_since(self, task, container, attempt, since).await
    }
}

#[async_trait]
impl ObjectSource for FolderStore {
    async fn open(&self, object_key: &str) -> io::Result<(u64, Box<dyn AsyncRead + Send + Unpin>)> {
        let (size, file) = self.get(object_key).await?;
        Ok((size, Box::new(file)))
    }
}
