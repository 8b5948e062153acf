//! What the tests share.

pub(crate) mod api;
#[cfg(feature = "kubernetes")]
pub(crate) mod cluster;
pub(crate) mod containers;
pub(crate) mod database;
pub(crate) mod declared;
pub(crate) mod engine;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod registry;
pub(crate) mod sandbox;
pub(crate) mod service;
pub(crate) mod starts;
pub(crate) mod subject;
#[cfg(feature = "kubernetes")]
pub(crate) mod tunnel;
pub(crate) mod worker;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Asks until there is an answer. Fails after `deadline`, saying what was waited for.
pub(crate) async fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(it) = ask().await {
                return it;
            }
        }
    };
    tokio::time::timeout(deadline, asking)
        .await
        .unwrap_or_else(|_| panic!("waited {deadline:?} until {what}"))
}

/// For a `drop`, which can't await: whether the predicate holds before the deadline.
pub(crate) fn holds_within(deadline: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = std::time::Instant::now() + deadline;
    while !holds() {
        if std::time::Instant::now() > until {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    true
}

/// Lets other users pass through a folder.
pub(crate) fn open_to_others(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Ends the Postgres of a data directory whose service was killed.
pub(crate) fn end_private_postgres(data_dir: &Path) {
    let Ok(text) = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")) else {
        return;
    };
    let pid = text.lines().next().and_then(|it| it.trim().parse().ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
    }
}

/// The process that runs the private Postgres of a data directory, if it does.
pub(crate) fn postmaster(data_dir: &Path) -> Option<rustix::process::Pid> {
    let text = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    let pid = rustix::process::Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    rustix::process::test_kill_process(pid).ok().map(|()| pid)
}

/// Says why a test is skipped. Where everything has to be there, that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// Longer than anything takes on a busy machine: passing it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The result, or a failure if it takes longer than anything should.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// Asks until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    until(what, PATIENCE, async || holds().await.then_some(())).await;
}
