//! What only containers can show.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use futures_util::StreamExt as _;
use serde_json::json;
use supercargo::domain::exit::ExitStatus;
use supercargo::domain::failure::Reason;
use supercargo::ids::InstallationId;
use supercargo::runner::docker::{DockerConfig, DockerRunner};
use supercargo::runner::{
    Disposal, EngineState, FileResult, JsonFile, KillMode, LaunchError, LogStream, Observation,
    Runner, RunnerError, naming,
};
use tokio_util::sync::CancellationToken;

use crate::support::engine::{OwnEngine, SOCKET, docker, local};
use crate::support::sandbox::{
    Attempt, Sink, Steps, bytes, endless, log, task, task_with, text, wanted,
};
use crate::support::subject::{Subject, docker_runner, ready, run};
use crate::support::within;

async fn output_of(subject: &Subject, attempt: &Attempt) -> String {
    let launched = attempt.launch(&*subject.runner).await;
    let code = attempt.exit_code(&*subject.runner, &launched.handle).await;
    let output = text(&log(&*subject.runner, &launched.handle, None, false).await);
    assert_eq!(code, Some(0), "{output}");
    output
}

#[tokio::test]
async fn any_user_may_write_the_output_file() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        for user in [json!("1000"), json!("1000:1000"), json!("nobody"), json!("root"), json!("0:1000")] {
            // Also as programs do that write beside it and rename.
            let script = "echo '{\"a\":1}' > $SUPERCARGO_OUTPUT.tmp && mv $SUPERCARGO_OUTPUT.tmp $SUPERCARGO_OUTPUT";
            let attempt = subject.attempt(task_with(script, &[], &json!({"user": user})));
            let launched = attempt.launch(&*subject.runner).await;
            assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0), "{user}");
            let collected = subject.runner.collect(&launched.handle, &wanted(&[]), &Sink::default()).await;
            assert_eq!(collected.unwrap().json, JsonFile::Bytes(b"{\"a\":1}\n".to_vec()), "{user}");
        }
    })
    .await;
}

#[tokio::test]
async fn files_arrive_with_mode_and_content_and_change_no_folder() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        for user in ["root", "1000"] {
            let more = json!({"user": user, "files": [
                {"path": "/in/deep/a.txt", "content": "hello"},
                {"path": "/tmp/run.sh", "content": "#!/bin/sh\necho ran\n", "mode": "0755"},
                {"path": "/supercargo/input", "content": "x"},
            ]});
            let script = "cat /in/deep/a.txt; echo; /tmp/run.sh; stat -c '%a %n' /in /in/deep /in/deep/a.txt /tmp \
                          /tmp/run.sh / /supercargo/input; echo > $SUPERCARGO_OUTPUT";
            let attempt = subject.attempt(task_with(script, &[], &more));
            assert_eq!(
                output_of(&subject, &attempt).await,
                "hello\nran\n755 /in\n755 /in/deep\n644 /in/deep/a.txt\n1777 /tmp\n755 /tmp/run.sh\n755 /\n\
                 644 /supercargo/input\n",
                "{user}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_gets_its_environment_limits_and_labels() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let more = json!({
            "env": {"B": "2 3", "A": ""}, "workdir": "/var", "labels": {"team": "a"}, "init": true,
            "resources": {"cpu": "250m", "memory": "64Mi", "pids": 50},
        });
        let script = "pwd; echo \"$A,$B,$SUPERCARGO_OUTPUT,$SUPERCARGO_ATTEMPT\"";
        let attempt = subject.attempt(task_with(script, &[], &more));
        let output = output_of(&subject, &attempt).await;
        assert_eq!(output, "/var\n,2 3,/supercargo/output.json,1\n");
        let engine = docker(SOCKET.as_ref()).unwrap();
        let name = naming::sandbox_name(&attempt.key);
        let it = engine.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
        let labels = it.config.unwrap().labels.unwrap();
        assert_eq!(labels["team"], "a");
        assert_eq!(labels[naming::LABEL_ATTEMPT], attempt.key.attempt.to_string());
        let host = it.host_config.unwrap();
        assert_eq!(
            (host.nano_cpus, host.memory, host.memory_swap, host.pids_limit, host.init),
            (Some(250_000_000), Some(64 << 20), Some(64 << 20), Some(50), Some(true))
        );
    })
    .await;
}

#[tokio::test]
async fn a_plain_task_costs_few_calls() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let attempt = subject.attempt(task("true", &[]));
        let before = subject.requests();
        let launched = attempt.launch(&*subject.runner).await;
        attempt.exit_code(&*subject.runner, &launched.handle).await;
        log(&*subject.runner, &launched.handle, None, false).await;
        subject.runner.collect(&launched.handle, &wanted(&[]), &Sink::default()).await.unwrap();
        subject.runner.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
        let mut calls: Vec<_> = subject.requests().split_off(before.len());
        // The session asks the engine every few seconds.
        calls.retain(|it| !it.contains("/info") && !it.contains("/containers/json"));
        let mut calls: Vec<_> = calls
            .iter()
            .map(|it| {
                let mut words = it.split(' ');
                let method = words.next().unwrap_or_default();
                let path = words.next().unwrap_or_default().split('?').next().unwrap_or_default();
                format!("{method} {}", path.rsplit('/').next().unwrap_or_default())
            })
            .collect();
        // `wait` looks once at first and once after the death, or finds it dead at once.
        calls.dedup();
        let name = naming::sandbox_name(&attempt.key);
        assert_eq!(
            calls,
            [
                "POST create",
                "GET json",
                "POST start",
                "GET json",
                "GET logs",
                "HEAD archive",
                // A 404: is the container there at all?
                "GET json",
                &format!("DELETE {name}"),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn no_container_or_volume_stays_behind() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let engine = docker(SOCKET.as_ref()).unwrap();
        for keep_first in [false, true] {
            let attempt = subject.attempt(task("true", &[]));
            let launched = attempt.launch(&*subject.runner).await;
            attempt.exit_code(&*subject.runner, &launched.handle).await;
            let name = naming::sandbox_name(&attempt.key);
            let it =
                engine.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
            let volume = it.mounts.unwrap()[0].name.clone().unwrap();
            engine.inspect_volume(&volume).await.unwrap();
            if keep_first {
                subject.runner.cleanup(&attempt.key, Disposal::Keep).await.unwrap();
                engine.inspect_volume(&volume).await.unwrap();
            }
            subject.runner.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
            engine.inspect_volume(&volume).await.unwrap_err();
            engine
                .inspect_container(&it.id.unwrap(), None::<InspectContainerOptions>)
                .await
                .unwrap_err();
        }
    })
    .await;
}

#[tokio::test]
async fn logs_keep_every_byte() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let script = r"printf '\377\376\000a\r\n\n  x\n'; head -c 1000000 /dev/zero | tr '\0' x; echo; head -c 16384 /dev/zero | tr '\0' y; echo; printf end";
        let attempt = subject.attempt(task(script, &[]));
        let launched = attempt.launch(&*subject.runner).await;
        let followed = log(&*subject.runner, &launched.handle, None, true).await;
        attempt.exit_code(&*subject.runner, &launched.handle).await;
        let mut expected = b"\xff\xfe\0a\r\n\n  x\n".to_vec();
        expected.extend(std::iter::repeat_n(b'x', 1_000_000));
        expected.push(b'\n');
        expected.extend(std::iter::repeat_n(b'y', 16_384));
        expected.extend_from_slice(b"\nend");
        let read = log(&*subject.runner, &launched.handle, None, false).await;
        assert!(bytes(&read) == expected, "{} bytes", bytes(&read).len());
        // The engine may leave the last line out of a followed log if it has no end.
        assert!(read.starts_with(&followed), "{} bytes followed", bytes(&followed).len());
        assert!(read.len() - followed.len() <= 2, "{} frames followed", followed.len());
        assert!(read.iter().all(|it| it.stream == LogStream::Stdout));
        // All parts of a long line carry one time: from there on, all of them are read again.
        let part = read[read.len() / 2].at;
        let again = log(&*subject.runner, &launched.handle, Some(part), false).await;
        assert!(again == read.iter().filter(|it| it.at >= part).cloned().collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_quiet_log_is_followed_for_longer_than_a_call_may_take() {
    let Some(socket) = local().await else { return };
    let call_timeout = Duration::from_secs(4);
    let installation = InstallationId::generate();
    let runner = DockerRunner::new(DockerConfig {
        host: Some(format!("unix://{}", socket.display())),
        call_timeout,
        ..DockerConfig::new(installation)
    })
    .unwrap();
    let engine = ready(&runner).await;
    let attempt =
        Attempt::new(installation, engine, task("sleep 5; echo line 1; sleep 5; echo line 2", &[]));
    let launched = attempt.launch(&runner).await;
    let (frames, code) = tokio::join!(
        log(&runner, &launched.handle, None, true),
        attempt.exit_code(&runner, &launched.handle)
    );
    runner.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
    assert_eq!((text(&frames).as_str(), code), ("line 1\nline 2\n", Some(0)));
}

#[tokio::test]
async fn folders_links_and_what_is_no_file_are_told_apart() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let script = "mkdir -p /out/d/e; printf 1 > /out/d/a; printf 22 > /out/d/e/b; ln -s d/a /out/link; \
                      ln -s ../out/d /out/dlink; ln -s /none /out/dangling; ln -s loop /out/loop; mkfifo /out/pipe; \
                      ln -s /out/d/e/b $SUPERCARGO_OUTPUT";
        let attempt = subject.attempt(task(script, &[]));
        let launched = attempt.launch(&*subject.runner).await;
        assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
        let paths = [
            ("folder", "/out/d/"),
            ("link", "/out/link"),
            ("dlink", "/out/dlink"),
            ("dangling", "/out/dangling"),
            ("loop", "/out/loop"),
            ("pipe", "/out/pipe"),
            ("device", "/dev/null"),
        ];
        let sink = Sink::default();
        let request = wanted(&paths);
        let collect = subject.runner.collect(&launched.handle, &request, &sink);
        let collected = within("collect", collect).await.unwrap();
        assert_eq!(collected.json, JsonFile::Bytes(b"22".to_vec()));
        let stored = sink.0.lock().unwrap();
        assert_eq!(stored["link"], b"1");
        for name in ["folder", "dlink"] {
            let FileResult::Stored(it) = &collected.files[name] else { panic!("{collected:?}") };
            assert_eq!(it.media_type, "application/x-tar");
            let mut archive = tar::Archive::new(&stored[name][..]);
            let entries: Vec<String> = archive
                .entries()
                .unwrap()
                .map(|it| it.unwrap().path().unwrap().display().to_string())
                .collect();
            assert_eq!(entries, ["d/", "d/a", "d/e/", "d/e/b"], "{name}");
        }
        assert_eq!(collected.files["dangling"], FileResult::Missing);
        for name in ["loop", "pipe"] {
            let result = &collected.files[name];
            assert!(matches!(result, FileResult::Unsuitable(_)), "{name}: {result:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_over_the_limit_is_too_large_and_a_large_file_is_whole() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let script =
            "mkdir /out; head -c 20000000 /dev/urandom > /out/f; sha256sum /out/f | cut -c1-64";
        let attempt = subject.attempt(task(script, &[]));
        let sum = output_of(&subject, &attempt).await;
        let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
        let Observation::Exited { handle, .. } = observed else { panic!("{observed:?}") };
        let sink = Sink::default();
        let mut request = wanted(&[("d", "/out"), ("f", "/out/f")]);
        let collected = subject.runner.collect(&handle, &request, &sink).await.unwrap();
        assert!(matches!(collected.files["d"], FileResult::TooLarge { size } if size > 1 << 20));
        assert_eq!(collected.files["f"], FileResult::TooLarge { size: 20_000_000 });
        request.file_limit = 20_000_000;
        request.files.remove("d");
        subject.runner.collect(&handle, &request, &sink).await.unwrap();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&sink.0.lock().unwrap()["f"]);
        let digest: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest.concat(), sum.trim());
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_not_there_has_its_reason() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let cases = [
            ("no/such:1", "never", Reason::ImageNotFound),
            ("UPPER/case", "never", Reason::InvalidImage),
            ("UPPER/case", "always", Reason::InvalidImage),
            // No registry listens there.
            ("localhost:1/no/such:1", "if_not_present", Reason::RegistryTransient),
            ("localhost:1/no/such:1", "always", Reason::RegistryTransient),
        ];
        for (image, policy, reason) in cases {
            let more = json!({"image": image, "pull_policy": policy});
            let attempt = subject.attempt(task_with("true", &[], &more));
            let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
            let LaunchError::Refused(failure) = error else { panic!("{image}: {error:?}") };
            assert_eq!(failure.reason, reason, "{image} {policy}: {}", failure.message);
        }
        assert_eq!(subject.runner.list_owned().await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_user_that_is_not_in_the_image_is_refused() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let attempt = subject.attempt(task_with("true", &[], &json!({"user": "nosuch"})));
        let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
        let LaunchError::Refused(failure) = error else { panic!("{error:?}") };
        assert_eq!(failure.reason, Reason::StartError);
        assert!(failure.message.contains("nosuch"), "{}", failure.message);
    })
    .await;
}

#[tokio::test]
async fn a_name_taken_by_somebody_else_is_not_touched() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let attempt = subject.attempt(task("true", &[]));
        let name = naming::sandbox_name(&attempt.key);
        let engine = docker(SOCKET.as_ref()).unwrap();
        let options =
            bollard::query_parameters::CreateContainerOptionsBuilder::new().name(&name).build();
        let body = bollard::models::ContainerCreateBody {
            image: Some("busybox:latest".to_owned()),
            cmd: Some(vec!["true".to_owned()]),
            ..Default::default()
        };
        engine.create_container(Some(options), body).await.unwrap();
        let error = attempt.try_launch(&*subject.runner).await.unwrap_err();
        assert!(
            matches!(&error, LaunchError::Refused(it) if it.reason == Reason::CreateConfigError),
            "{error:?}"
        );
        let observed = subject.runner.inspect(&attempt.key, &attempt.engine).await;
        assert!(matches!(observed, Err(RunnerError::Foreign(_))), "{observed:?}");
        let killed = subject.runner.kill(&attempt.key, KillMode::Force).await;
        assert!(matches!(killed, Err(RunnerError::Foreign(_))), "{killed:?}");
        engine.remove_container(&name, None).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_container_that_the_engine_made_in_part_when_it_died_is_made_anew() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let attempt = subject.attempt(task("echo '{}' > $SUPERCARGO_OUTPUT", &[]));
        // As it comes back: with its name and its labels, and without a volume.
        let engine = docker(SOCKET.as_ref()).unwrap();
        let options = bollard::query_parameters::CreateContainerOptionsBuilder::new()
            .name(&naming::sandbox_name(&attempt.key))
            .build();
        let body = bollard::models::ContainerCreateBody {
            image: Some("busybox:latest".to_owned()),
            cmd: Some(vec!["false".to_owned()]),
            labels: Some(naming::labels(&attempt.request()).into_iter().collect()),
            ..Default::default()
        };
        let in_part = engine.create_container(Some(options), body).await.unwrap().id;
        assert_eq!(output_of(&subject, &attempt).await, "");
        let gone = engine.inspect_container(&in_part, None::<InspectContainerOptions>).await;
        gone.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn a_graceful_kill_is_the_image_s_own_signal() {
    // The signal is the image's: one is committed for it.
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let engine = docker(SOCKET.as_ref()).unwrap();
        let base = subject.attempt(task("true", &[]));
        let launched = base.launch(&*subject.runner).await;
        base.exit_code(&*subject.runner, &launched.handle).await;
        let tag = format!("sc-test-{}", base.key.attempt);
        let name = naming::sandbox_name(&base.key);
        let options = bollard::query_parameters::CommitContainerOptionsBuilder::new()
            .container(&name)
            .repo(&tag)
            .build();
        let config = bollard::models::ContainerConfig {
            stop_signal: Some("SIGUSR1".to_owned()),
            ..Default::default()
        };
        engine.commit_container(options, config).await.unwrap();
        let script = "trap 'exit 9' USR1; echo line 1; while :; do sleep 0.1; done";
        let attempt = subject.attempt(task_with(script, &[], &json!({"image": tag})));
        let launched = attempt.launch(&*subject.runner).await;
        let mut frames = subject.runner.logs(&launched.handle, None, true);
        within("the trap is set", frames.next()).await.unwrap().unwrap();
        subject.runner.kill(&attempt.key, KillMode::Graceful).await.unwrap();
        assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(9));
        for key in [attempt.key, base.key] {
            subject.runner.cleanup(&key, Disposal::Remove).await.unwrap();
        }
        engine
            .remove_image(&tag, None::<bollard::query_parameters::RemoveImageOptions>, None)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_dropped_launch_leaves_what_the_next_one_goes_on_with() {
    run(Subject::docker(), |subject: Arc<Subject>| async move {
        let attempt = subject.attempt(task("echo line 1", &[]));
        let mut held = subject.hold_next_start();
        {
            let steps = Steps::default();
            let cancel = CancellationToken::new();
            let request = attempt.request();
            let launch = subject.runner.launch(&request, &steps, &cancel);
            tokio::select! {
                result = launch => panic!("{result:?}"),
                () = held.arrived() => {}
            }
        }
        // Its start is still on the way, and arrives.
        held.release();
        let launched = attempt.launch(&*subject.runner).await;
        assert_eq!(attempt.exit_code(&*subject.runner, &launched.handle).await, Some(0));
        assert_eq!(text(&log(&*subject.runner, &launched.handle, None, false).await), "line 1\n");
    })
    .await;
}

#[tokio::test]
async fn an_engine_over_tcp_is_reached() {
    let Some(socket) = local().await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let mut connections = tokio::task::JoinSet::new();
    let relay = async {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut engine = tokio::net::UnixStream::connect(&socket).await.unwrap();
            connections.spawn(async move {
                tokio::io::copy_bidirectional(&mut client, &mut engine).await
            });
        }
    };
    let test = async {
        let installation = InstallationId::generate();
        let runner = docker_runner(&host, installation);
        let engine = ready(&runner).await;
        let attempt = Attempt::new(installation, engine, task("echo line 1; exit 3", &[]));
        let launched = attempt.launch(&runner).await;
        assert_eq!(attempt.exit_code(&runner, &launched.handle).await, Some(3));
        assert_eq!(text(&log(&runner, &launched.handle, None, true).await), "line 1\n");
        runner.cleanup(&attempt.key, Disposal::Remove).await.unwrap();
    };
    tokio::select! {
        () = relay => {}
        () = test => {}
    }
}

#[tokio::test]
async fn a_runner_is_made_before_its_engine_is_there() {
    let installation = InstallationId::generate();
    let folder = tempfile::tempdir().unwrap();
    let runner =
        docker_runner(&format!("unix://{}/none.sock", folder.path().display()), installation);
    assert_eq!(*runner.engine().borrow(), EngineState::Connecting);
    let mut engine = runner.engine();
    within("down", engine.wait_for(|it| matches!(it, EngineState::Down { .. }))).await.unwrap();
}

async fn stopped_under_a_container(crash: bool) {
    let Some(mut own) = OwnEngine::start().await else { return };
    let installation = InstallationId::generate();
    let runner = docker_runner(&format!("unix://{}", own.socket().display()), installation);
    let engine = ready(&runner).await;
    let attempt = Attempt::new(installation, engine.clone(), endless());
    let launched = attempt.launch(&runner).await;
    let killed = Attempt::new(installation, engine.clone(), endless());
    let killed_handle = killed.launch(&runner).await.handle;
    runner.kill(&killed.key, KillMode::Force).await.unwrap();
    assert_eq!(killed.exit_code(&runner, &killed_handle).await, Some(137));

    let waiting = within("wait", runner.wait(&attempt.key, &launched.handle));
    let meanwhile = async {
        if crash {
            own.crash().await;
        } else {
            own.stop().await;
        }
        let mut state = runner.engine();
        within("down", state.wait_for(|it| matches!(it, EngineState::Down { .. }))).await.unwrap();
        let observed = runner.inspect(&attempt.key, &attempt.engine).await;
        assert!(matches!(observed, Err(RunnerError::Unavailable(_))), "{observed:?}");
        own.run().await;
        ready(&runner).await
    };
    let (report, again) = tokio::join!(waiting, meanwhile);
    assert_eq!(again, engine, "an engine keeps its id");
    let report = report.unwrap();
    assert!(matches!(report.status, ExitStatus::EngineStopped { .. }), "{report:?}");
    let observed = runner.inspect(&attempt.key, &attempt.engine).await.unwrap();
    assert_eq!(observed, Observation::Exited { handle: launched.handle, report });
    // What had ended before, ended as it did.
    let before = within("wait", runner.wait(&killed.key, &killed_handle)).await.unwrap();
    assert_eq!(before.status, ExitStatus::Code { code: 137, oom_killed: false });
    for key in [attempt.key, killed.key] {
        runner.cleanup(&key, Disposal::Remove).await.unwrap();
    }
}

#[tokio::test]
async fn an_engine_that_crashed_under_a_container_is_told() {
    stopped_under_a_container(true).await;
}

#[tokio::test]
async fn an_engine_that_was_stopped_under_a_container_is_told() {
    stopped_under_a_container(false).await;
}
