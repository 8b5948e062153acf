//! What tests stand on.

pub(crate) mod engine;
pub(crate) mod proxy;
pub(crate) mod sandbox;
pub(crate) mod subject;

use std::future::Future;
use std::time::Duration;

/// Longer than anything takes on a busy machine: passing it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The result, or a failure if it takes longer than anything should.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(it) => it,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// Asks until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let poll = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, poll).await;
}
