//! What the API needs of others to serve logs and files.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;

use crate::ids::{AttemptNo, TaskId};
use crate::store;

/// Reads stored logs.
pub trait LogSource: Send + Sync {
    /// The bytes of a log's text from byte `offset` on: of one attempt, or of the latest. With `follow` it
    /// ends when the task has, and goes on into the next attempt where none was named.
    fn stream(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, store::Error>>;
}

/// Reads stored files.
#[async_trait::async_trait]
pub trait ObjectSource: Send + Sync {
    /// The size of an object, and its bytes. `NotFound`: it is not stored any more.
    async fn open(&self, object_key: &str) -> io::Result<(u64, Box<dyn AsyncRead + Send + Unpin>)>;
}
