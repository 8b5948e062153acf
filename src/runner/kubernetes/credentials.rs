//! The credentials of a session, read when they are needed, and again when they are not taken any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::access::{self, Connection};
use super::errors::Fault;
use crate::domain::target::KubernetesBackend;

/// Those that are refused are read anew no more often.
const RENEW_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Credentials {
    connection: RwLock<Option<Connection>>,
    /// Counts the connections.
    generation: AtomicU64,
    reading: Mutex<Reading>,
    tasks: TaskTracker,
}

/// A plugin may take longer than who asks for it waits: it is not run again meanwhile.
#[derive(Debug, Default)]
struct Reading {
    task: Option<JoinHandle<Result<Connection, String>>>,
    /// When they were read the last time, and why they could not be.
    last: Option<(Instant, Result<(), String>)>,
}

impl Credentials {
    pub(super) fn connection(&self) -> Result<Connection, Fault> {
        let connection = self.connection.read().unwrap_or_else(PoisonError::into_inner).clone();
        connection.ok_or_else(|| Fault::NotSent("not connected yet".to_owned()))
    }

    /// Another one where the connection is another one.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads them anew. Gives the namespace that they lead to by themselves.
    pub(super) async fn renew(&self, backend: &KubernetesBackend) -> Result<String, Fault> {
        let mut reading = self.reading.lock().await;
        if let Some((at, read)) = &reading.last
            && at.elapsed() < RENEW_PERIOD
        {
            return read
                .clone()
                .map_err(Fault::NotSent)
                .and_then(|()| Ok(self.connection()?.namespace));
        }
        let begin = || {
            let backend = backend.clone();
            self.tasks.spawn(async move { access::connect(&backend).await })
        };
        let read = reading.task.get_or_insert_with(begin).await;
        let read = read.unwrap_or_else(|_| Err("the credentials could not be read".to_owned()));
        let result = read.as_ref().map(|_| ()).map_err(Clone::clone);
        // Before the first connection it is the reason for that there is none.
        if let Err(why) = &result
            && self.connection().is_ok()
            && reading.last.as_ref().is_none_or(|it| it.1 != result)
        {
            tracing::warn!(
                why,
                "the credentials can't be read again: those that are known are used"
            );
        }
        *reading = Reading { task: None, last: Some((Instant::now(), result)) };
        Ok(self.take(read.map_err(Fault::NotSent)?))
    }

    fn take(&self, connection: Connection) -> String {
        let Connection { namespace, place, unverified, .. } = connection.clone();
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        if self.generation.fetch_add(1, Ordering::AcqRel) == 0 && unverified {
            tracing::warn!(
                place,
                "tls_skip_verify: whoever answers there is taken for the API server, and gets the credentials"
            );
        }
        namespace
    }

    pub(super) async fn are_older_than(&self, age: Duration) -> bool {
        let reading = self.reading.lock().await;
        reading.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= age)
    }

    /// Whether the files that they were read from are others now.
    pub(super) async fn have_changed(&self, backend: &KubernetesBackend) -> bool {
        let Ok(connection) = self.connection() else { return true };
        access::stamp(backend).await != connection.stamp
    }
}
