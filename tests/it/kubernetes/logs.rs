//! Logs of real pods: what a kubelet makes of them, and back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use supercargo::domain::spec::TaskSpec;
use supercargo::ids::TaskId;
use supercargo::logs::pump::{Limits, LogEnd, Pump};
use supercargo::logs::{MAIN_CONTAINER, reader::LogReader};
use supercargo::runner::Handle;
use supercargo::store::{ClaimedTask, LogSeal};
use tokio_util::sync::CancellationToken;

use crate::support::api::TestApp;
use crate::support::sandbox::{log, task, task_with, text};
use crate::support::subject::{Subject, run};
use crate::support::worker::TestWorker;
use crate::support::{until, within};
use crate::test_app;

/// A node may have much to do.
const PATIENCE: Duration = Duration::from_mins(4);

fn bytes(frames: &[supercargo::runner::LogFrame]) -> Vec<u8> {
    frames.iter().flat_map(|it| it.bytes.to_vec()).collect()
}

#[tokio::test]
async fn every_byte_comes_as_it_was_written() {
    run(Subject::kubernetes(), |subject: Arc<Subject>| async move {
        // Lines longer than an entry, ends without a line end, times of its own, bytes of any kind.
        let script = r"
            head -c 40000 /dev/zero | tr '\0' x; echo
            head -c 16384 /dev/zero | tr '\0' y; echo
            head -c 16385 /dev/zero | tr '\0' z; echo
            echo 2026-11-21T04:54:10.262517843Z mine
            echo then 2026-11-21T04:54:10.262517843Z mine
            printf '\377\000\r\033[1m\n\n'
            printf 'no line end'";
        let mut expected = Vec::new();
        for (byte, count) in [(b'x', 40_000), (b'y', 16_384), (b'z', 16_385)] {
            expected.extend(vec![byte; count]);
            expected.push(b'\n');
        }
        expected.extend(b"2026-11-21T04:54:10.262517843Z mine\n");
        expected.extend(b"then 2026-11-21T04:54:10.262517843Z mine\n");
        expected.extend(b"\xff\x00\r\x1b[1m\n\nno line end");
        let attempt = subject.attempt(task(script, &[]));
        let launched = attempt.launch(&*subject.runner).await;
        assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
        let whole = log(&*subject.runner, &launched.handle, None, false).await;
        let got = bytes(&whole);
        assert!(got == expected, "{:?}", String::from_utf8_lossy(&got).replace("xxxxxxxxxx", "X"));
        for from in [0, 1, 3, whole.len() - 1] {
            let rest = log(&*subject.runner, &launched.handle, Some(whole[from].at), false).await;
            assert_eq!(rest, whole[from..]);
        }
    })
    .await;
}

/// Stores the logs of a sandbox as a worker does.
struct Storing<'a> {
    subject: &'a Subject,
    app: &'a TestApp,
    claimed: ClaimedTask,
    exited: CancellationToken,
}

impl<'a> Storing<'a> {
    async fn start(subject: &'a Subject, app: &'a TestApp) -> Self {
        let worker = TestWorker::start(&app.store).await;
        let claimed = worker.claim_one(app.submit_any().await).await;
        Self { subject, app, claimed, exited: CancellationToken::new() }
    }

    fn pump(
        &self,
        container: &str,
        handle: &Handle,
    ) -> impl Future<Output = Option<LogEnd>> + use<> {
        let pump = Pump {
            store: Arc::new(self.app.store.clone()),
            wake: self.app.wake.clone(),
            runner: Arc::clone(&self.subject.runner),
            handle: handle.clone(),
            container: container.into(),
            task: self.claimed.task,
            attempt_no: self.claimed.attempt_no,
            fence: self.claimed.fence,
            limits: Limits {
                log_bytes: 1 << 30,
                chunk_bytes: 256 << 10,
                linger: Duration::from_millis(50),
            },
            taken_over: false,
        };
        pump.run(self.exited.clone(), CancellationToken::new())
    }

    /// What is stored, with the last chunk.
    async fn stored(&self, container: &str, end: LogEnd) -> (String, LogSeal) {
        if let Some(chunk) = end.chunk {
            let it = &self.claimed;
            self.app.store.append_chunk(it.task, it.fence, it.attempt_no, &chunk).await.unwrap();
        }
        (stored(self.app, self.claimed.task, container).await, end.seal)
    }
}

async fn stored(app: &TestApp, task: TaskId, container: &str) -> String {
    app.get(&format!("/api/v1/tasks/{task}/logs?container={container}")).await.text()
}

#[tokio::test]
async fn a_log_is_whole_that_its_node_put_aside_more_than_once() {
    const LINES: usize = 270_000;
    let app = test_app!();
    run(Subject::kubernetes(), |subject: Arc<Subject>| async move {
        // More than 30 MiB in the node's files of at most 10, at a rate that it can put aside.
        let script = format!(
            r#"awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) {{
                printf "%08d of a log that is longer than what a node keeps in one file of a container\n", i
                if (i % 1500 == 0) system("sleep 0.2") }} }}'"#
        );
        let attempt = subject.attempt(task(&script, &[]));
        let storing = Storing::start(&subject, &app).await;
        let launched = attempt.launch(&*subject.runner).await;
        let pump = storing.pump(MAIN_CONTAINER, &launched.handle);
        let ended = async {
            let exit = subject.runner.wait(&attempt.key, &launched.handle);
            let exit = tokio::time::timeout(PATIENCE, exit).await.expect("it ends");
            assert_eq!(exit.unwrap().status.code(), Some(0));
            storing.exited.cancel();
        };
        let both = async { tokio::join!(pump, ended).0 };
        let end = tokio::time::timeout(2 * PATIENCE, both).await.expect("its log ends").unwrap();
        let (text, seal) = storing.stored(MAIN_CONTAINER, end).await;
        let numbers = text.lines().map(|it| it[..8].parse::<usize>().unwrap());
        let wrong = (1..=LINES).zip(numbers.clone()).find(|(expected, it)| expected != it);
        assert_eq!((wrong, numbers.count()), (None, LINES));
        assert_eq!(seal, LogSeal { bytes: text.len() as u64, ..LogSeal::default() });
    })
    .await;
}

/// An init container, a main one that begins behind it, and one that runs on.
fn several() -> TaskSpec {
    let container = |name: &str, script: &str| json!({"name": name, "image": "busybox:latest", "imagePullPolicy": "Never", "command": ["sh", "-c", script]});
    let template = json!({"spec": {
        "initContainers": [container("setup", "echo made; sleep 2; echo ready")],
        "containers": [container("proxy", "echo proxy; while :; do sleep 1; done")],
    }});
    task_with("echo main; sleep 2", &[], &json!({"kubernetes": {"pod_template": template}}))
}

#[tokio::test]
async fn the_logs_of_all_containers_are_stored_and_what_runs_on_holds_nothing_up() {
    let app = test_app!();
    run(Subject::kubernetes(), |subject: Arc<Subject>| async move {
        let attempt = subject.attempt(several());
        let storing = Storing::start(&subject, &app).await;
        let launched = attempt.launch(&*subject.runner).await;
        let sides = subject.runner.side_logs(&launched.handle);
        let mut names: Vec<&str> = sides.iter().map(|it| it.0.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["proxy", "setup"]);
        let mut pumps = vec![tokio::spawn(storing.pump(MAIN_CONTAINER, &launched.handle))];
        pumps.extend(sides.iter().map(|(name, handle)| tokio::spawn(storing.pump(name, handle))));
        // Before the main container has begun, that of another one is there.
        until("the log of the init container", PATIENCE, async || {
            let text = stored(&app, storing.claimed.task, "setup").await;
            text.starts_with("made\n").then_some(())
        })
        .await;
        let exit = subject.runner.wait(&attempt.key, &launched.handle);
        let exit = tokio::time::timeout(PATIENCE, exit).await.expect("it ends");
        assert_eq!(exit.unwrap().status.code(), Some(0));
        storing.exited.cancel();
        let ends = within("the ends of all logs", join_all(pumps)).await;
        let names = [MAIN_CONTAINER].into_iter().chain(sides.iter().map(|it| it.0.as_str()));
        for (name, end) in names.zip(ends) {
            let (text, seal) = storing.stored(name, end.unwrap().unwrap()).await;
            let expected = match name {
                "main" => "main\n",
                "setup" => "made\nready\n",
                _ => "proxy\n",
            };
            assert_eq!(text, expected, "{name}");
            let whole = LogSeal { bytes: text.len() as u64, ..LogSeal::default() };
            assert_eq!(seal, whole, "{name}");
        }
        // Each can be read again, by who takes the attempt over.
        let reader = LogReader::new(Arc::new(app.store.clone()), app.wake.clone());
        let no = storing.claimed.attempt_no;
        let containers = reader.containers(storing.claimed.task, no).await.unwrap();
        assert_eq!(containers, ["main", "proxy", "setup"]);
        for (name, handle) in &sides {
            assert!(!text(&log(&*subject.runner, handle, None, false).await).is_empty(), "{name}");
        }
    })
    .await;
}
