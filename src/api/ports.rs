//! What the API needs of others: to serve logs and files, and to say what a target would get.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncRead;

use crate::domain::log::{Follow, LogBlock, LogPlace};
use crate::domain::spec::{SpecHash, TaskSpec};
use crate::domain::target::Target;
use crate::ids::{AttemptNo, TaskId};
use crate::store;

/// Reads stored logs.
#[async_trait::async_trait]
pub trait LogSource: Send + Sync {
    /// The bytes of the text of the main container's log from byte `offset` on: of one attempt, or of the latest. With `follow` it
    /// ends when the task has, and goes on into the next attempt where none was named.
    fn stream(
        &self,
        task: TaskId,
        attempt: Option<AttemptNo>,
        offset: u64,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, store::Error>>;

    /// The frames of the log of a container from there on. A block belongs to one attempt, and follows the one
    /// before.
    fn blocks(
        &self,
        task: TaskId,
        container: &str,
        from: LogPlace,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>>;

    /// The frames of the logs of all containers by their time, as far as they are there. Each log begins at
    /// its offset, or at its beginning.
    fn merged(
        &self,
        task: TaskId,
        attempt: AttemptNo,
        offsets: BTreeMap<String, u64>,
        follow: Follow,
    ) -> BoxStream<'static, Result<LogBlock, store::Error>>;

    /// The containers of an attempt that have a log. One that still runs may get more.
    async fn containers(
        &self,
        task: TaskId,
        attempt: AttemptNo,
    ) -> Result<Vec<String>, store::Error>;

    /// The block of frames that ends right before a place, or before the end if the log is shorter.
    async fn block_before(
        &self,
        task: TaskId,
        container: &str,
        place: LogPlace,
    ) -> Result<Option<LogBlock>, store::Error>;

    /// How many bytes of the log of an attempt there are now.
    async fn length(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
    ) -> Result<u64, store::Error>;

    /// An offset before the first frame of this time (nanoseconds since the epoch) or later, and not by
    /// much; the length of the log where there is no such frame.
    async fn offset_since(
        &self,
        task: TaskId,
        container: &str,
        attempt: AttemptNo,
        since: i64,
    ) -> Result<u64, store::Error>;
}

/// Reads stored files.
#[async_trait::async_trait]
pub trait ObjectSource: Send + Sync {
    /// The size of an object, and its bytes. `NotFound`: it is not stored any more.
    async fn open(&self, object_key: &str) -> io::Result<(u64, Box<dyn AsyncRead + Send + Unpin>)>;
}

/// Tells what the target of a task would get. Asks no engine.
pub trait Renderer: Send + Sync {
    /// `hash` is that of the task, whatever is hidden in `spec`. None: this program can't tell for such a target.
    fn render(&self, target: &Target, spec: &TaskSpec, hash: &SpecHash) -> Option<Rendering>;
}

/// What a target would get.
#[derive(Debug, Clone, PartialEq)]
pub enum Rendering {
    /// The name of the container, and the body of the create call.
    Docker { name: String, create: serde_json::Value },
    /// The name of the pod, the pod, and its Secrets in the order in which they are made, without the contents of
    /// files.
    Kubernetes { name: String, pod: serde_json::Value, secrets: Vec<serde_json::Value> },
    /// What would be done.
    Simulated(serde_json::Value),
    /// It can't be made for this target, and why.
    Refused(String),
}
