//! The whole module against a real Postgres. Each test has a data directory of its own; its guard
//! ends what still runs there, also when the test panics.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::binaries::Binaries;
use super::pid_file::{self, PidFile, is_postmaster};
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

struct TestDir {
    temp: TempDir,
    data_dir: PathBuf,
}

impl TestDir {
    /// `None`, with the reason on stderr, where no Postgres is installed.
    fn new(below: &str) -> Option<Self> {
        if let Err(error) = Binaries::find(None) {
            eprintln!("skipped: {error}");
            return None;
        }
        // The database user must be able to pass through.
        let temp =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir().unwrap();
        let data_dir = temp.path().canonicalize().unwrap().join(below);
        Some(Self { temp, data_dir })
    }

    fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    async fn start(&self) -> Embedded {
        Embedded::start(&self.data_dir).await.unwrap()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let cluster = self.cluster();
        let began = Instant::now();
        while let Some(file) = PidFile::read(&cluster)
            && is_postmaster(file.pid, &cluster)
        {
            kill_process(file.pid, Signal::QUIT).ok();
            assert!(began.elapsed() < DEADLINE, "postmaster {:?} does not end", file.pid);
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if let Ok(account) = Account::choose(&cluster)
            && let Ok(dir) = socket_dir::choose(&self.data_dir, &account)
        {
            drop(fs::remove_dir_all(dir));
        }
    }
}

fn pid(embedded: &Embedded) -> Pid {
    Pid::from_raw(i32::try_from(embedded.pid()).unwrap()).unwrap()
}

async fn query(cluster: &Cluster, sql: &str) -> Result<String, Error> {
    let script = format!("\\connect {DATABASE}\n{sql};\n");
    Ok(database::run(cluster, &script).await?.trim().to_owned())
}

async fn until<F: Future<Output = bool>>(what: &str, mut predicate: impl FnMut() -> F) {
    let began = Instant::now();
    let mut interval = tokio::time::interval(Duration::from_millis(5));
    while !predicate().await {
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        interval.tick().await;
    }
}

#[tokio::test]
async fn first_start_makes_a_durable_private_database() {
    let Some(dir) = TestDir::new("data") else { return };
    let embedded = dir.start().await;

    let settings = query(
        &embedded.cluster,
        "select current_database(), current_user, current_setting('fsync'), current_setting('synchronous_commit'), \
         current_setting('listen_addresses'), current_setting('server_encoding'), \
         (select datcollate from pg_database where datname = current_database()), \
         current_setting('wal_compression') <> 'off'",
    );
    assert_eq!(settings.await.unwrap(), "supercargo|supercargo|on|on||UTF8|C|t");

    let socket_dir = fs::metadata(embedded.endpoint().socket_dir()).unwrap();
    assert_eq!(socket_dir.mode() & 0o7777, 0o700);
    assert_eq!(socket_dir.uid(), fs::metadata(dir.cluster()).unwrap().uid());
    assert_ne!(socket_dir.uid(), 0);
    let left: Vec<_> =
        fs::read_dir(&dir.data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "postgres" || name == "postgres.log"), "{left:?}");
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn restart_keeps_data_and_takes_new_settings() {
    let Some(dir) = TestDir::new("data") else { return };
    let embedded = dir.start().await;
    query(&embedded.cluster, "create table kept (n int); insert into kept values (7)")
        .await
        .unwrap();
    let first = pid(&embedded);
    embedded.stop().await.unwrap();
    assert!(!is_postmaster(first, &dir.cluster()));
    fs::write(dir.cluster().join("supercargo.conf"), "work_mem = '1MB'\n").unwrap();

    let embedded = dir.start().await;
    assert!(!embedded.is_adopted());
    let answer = query(&embedded.cluster, "select n, current_setting('jit') from kept").await;
    assert_eq!(answer.unwrap(), "7|off");
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn postmaster_that_outlives_its_service_is_adopted_and_can_be_stopped() {
    let Some(dir) = TestDir::new("data") else { return };
    let first = dir.start().await;
    let (url, process) = (first.connection_url(), pid(&first));
    // What a kill -9 leaves: nobody stops it.
    drop(first);

    let second = dir.start().await;
    assert!(second.is_adopted());
    assert_eq!((second.connection_url(), pid(&second)), (url, process));
    query(&second.cluster, "select 1").await.unwrap();
    second.stop().await.unwrap();
    assert!(!is_postmaster(process, &dir.cluster()));
}

#[tokio::test]
async fn start_waits_for_the_busy_backends_of_a_killed_postmaster() {
    let Some(dir) = TestDir::new("data") else { return };
    let embedded = dir.start().await;
    query(&embedded.cluster, "create table kept (n int); insert into kept values (7)")
        .await
        .unwrap();
    // A backend that computes does not notice that its postmaster is gone, and holds the shared memory.
    let cluster = embedded.cluster.clone();
    let busy = spawn(async move {
        query(
            &cluster,
            "do $$ declare began timestamptz := clock_timestamp(); \
             begin while clock_timestamp() < began + interval '1 s' loop end loop; end $$",
        )
        .await
    });
    until("the busy backend runs", || async {
        let sql =
            "select count(*) from pg_stat_activity where state = 'active' and query like 'do %'";
        query(&embedded.cluster, sql).await.unwrap() == "1"
    })
    .await;
    kill_process(pid(&embedded), Signal::KILL).unwrap();
    drop(embedded);

    let embedded = dir.start().await;
    assert!(!embedded.is_adopted());
    assert_eq!(query(&embedded.cluster, "select n from kept").await.unwrap(), "7");
    // Its postmaster is gone, so however it ended, it has ended.
    drop(busy.await.unwrap());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn watched_postmaster_is_started_again_at_the_same_address() {
    // Our own child ends in another way than one that was adopted.
    for adopted in [false, true] {
        let Some(dir) = TestDir::new("data") else { return };
        let mut embedded = dir.start().await;
        if adopted {
            drop(embedded);
            embedded = dir.start().await;
        }
        assert_eq!(embedded.is_adopted(), adopted);
        let (cluster, first) = (embedded.cluster.clone(), pid(&embedded));
        let watch = embedded.watch(&CancellationToken::new());

        kill_process(first, Signal::KILL).unwrap();
        until("another postmaster answers", || async {
            PidFile::read(&cluster.dir).is_some_and(|file| file.pid != first)
                && query(&cluster, "select 1").await.is_ok()
        })
        .await;

        assert_eq!(watch.endpoint().socket_dir(), cluster.socket_dir);
        watch.stop().await.unwrap();
        assert!(PidFile::read(&cluster.dir).is_none());
    }
}

#[tokio::test]
async fn cancelled_watch_leaves_postgres_running() {
    let Some(dir) = TestDir::new("data") else { return };
    let embedded = dir.start().await;
    let process = pid(&embedded);
    let token = CancellationToken::new();
    let watch = embedded.watch(&token);
    token.cancel();
    let embedded = watch.release().await;
    assert!(is_postmaster(process, &dir.cluster()));
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn pid_file_whose_pid_now_belongs_to_another_program_is_no_obstacle() {
    let Some(dir) = TestDir::new("data") else { return };
    let embedded = dir.start().await;
    let account = embedded.cluster.account.clone();
    let socket_dir = embedded.endpoint().socket_dir().to_owned();
    embedded.stop().await.unwrap();
    // Of the database user, since Postgres pays no attention to the others.
    let mut other =
        account.command(Path::new("/bin/sleep"), Path::new("/")).arg("60").spawn().unwrap();
    let text = format!(
        "{}\n{}\n1\n5432\n{}\n\n1 1\nready\n",
        other.id(),
        dir.cluster().display(),
        socket_dir.display()
    );
    fs::write(dir.cluster().join(pid_file::FILE_NAME), text).unwrap();

    let started = Embedded::start(&dir.data_dir).await;
    other.kill().unwrap();
    other.wait().unwrap();
    let embedded = started.unwrap();
    assert!(!embedded.is_adopted());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn unfinished_cluster_is_removed_and_made_anew() {
    let Some(dir) = TestDir::new("data") else { return };
    let data_dir = lock::create_data_dir(&dir.data_dir).unwrap();
    let unfinished = data_dir.join("postgres.new-0123456789abcdef");
    fs::create_dir_all(unfinished.join("base")).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();

    let embedded = dir.start().await;
    assert!(!unfinished.exists());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn data_dir_with_a_long_path_and_odd_characters_works() {
    let Some(dir) =
        TestDir::new(&format!("{}/it's \"odd\", really", "a-long-folder-name/".repeat(8)))
    else {
        return;
    };
    assert!(dir.data_dir.as_os_str().len() > 150);
    let embedded = dir.start().await;
    query(&embedded.cluster, "select 1").await.unwrap();
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn failed_start_shows_what_postgres_says() {
    let Some(dir) = TestDir::new("data") else { return };
    dir.start().await.stop().await.unwrap();
    let conf = dir.cluster().join("postgresql.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}\nno_such_setting = 1\n")).unwrap();

    let error = Embedded::start(&dir.data_dir).await.unwrap_err().to_string();
    assert!(error.contains("did not start"), "{error}");
    assert!(error.contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn folder_closed_to_the_database_user_is_named_before_anything_is_made() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root runs postgres as another user");
        return;
    }
    let Some(dir) = TestDir::new("closed/data") else { return };
    let closed = dir.temp.path().canonicalize().unwrap().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();

    let error = Embedded::start(&dir.data_dir).await.unwrap_err();
    assert!(matches!(&error, Error::Untraversable { dir, .. } if *dir == closed), "{error}");
    assert_eq!(fs::read_dir(&dir.data_dir).unwrap().count(), 0);
}

#[tokio::test]
async fn lock_is_not_inherited_by_postgres() {
    let Some(dir) = TestDir::new("data") else { return };
    let lock = DataDirLock::acquire(&dir.data_dir).unwrap();
    let embedded = dir.start().await;
    drop(lock);
    DataDirLock::acquire(&dir.data_dir).unwrap();
    embedded.stop().await.unwrap();
}

#[test]
fn connection_url_survives_odd_characters_in_the_path() {
    let endpoint = Endpoint { socket_dir: PathBuf::from(OsStr::new("/tmp/a b&c%")) };
    assert_eq!(
        endpoint.connection_url(),
        "postgres:///supercargo?host=/tmp/a%20b%26c%25&port=5432&user=supercargo&sslmode=disable"
    );
}

#[expect(clippy::disallowed_methods, reason = "the test awaits it")]
fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}
