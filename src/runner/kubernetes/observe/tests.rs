use serde_json::{Value, json};

use super::*;

const CREATED: &str = "2026-11-21T05:00:00Z";
const SCHEDULED: &str = "2026-11-21T05:00:01Z";
const STARTED: &str = "2026-11-21T05:00:05Z";
const FINISHED: &str = "2026-11-21T05:00:30Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A pod that is scheduled, with its status changed as `change` says.
fn pod(change: impl FnOnce(&mut Value)) -> Seen {
    let mut pod = json!({
        "metadata": {
            "name": "sc-1", "namespace": "n", "uid": "u", "creationTimestamp": CREATED,
            "annotations": {"supercargo.dev/gate": "00000000"},
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": "first"}],
            "containers": [{"name": "main"}, {"name": "proxy"}],
        },
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": SCHEDULED},
            ],
            "initContainerStatuses": [status("first", ended(0, "Completed"))],
            "containerStatuses": [],
        },
    });
    change(&mut pod);
    Seen::read(serde_json::from_value(pod).unwrap()).unwrap()
}

fn status(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn ended(code: i32, reason: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": STARTED, "finishedAt": FINISHED}})
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

/// The main container is in this state, and no init container has run before.
fn only_main(state: Value, phase: &str) -> impl FnOnce(&mut Value) {
    move |pod| {
        pod["spec"]["initContainers"] = json!([]);
        pod["status"]["initContainerStatuses"] = json!([]);
        pod["status"]["containerStatuses"] = json!([status("main", state)]);
        pod["status"]["phase"] = json!(phase);
    }
}

fn standing_at(seen: &Seen, happenings: &[Happening], now: &str) -> Standing {
    let timeouts = Timeouts::default();
    let timeouts = Some(&timeouts);
    standing(seen, Context { timeouts, happenings, stopped_by_us: false, now: at(now) })
}

fn now(seen: &Seen) -> Standing {
    standing_at(seen, &[], "2026-11-21T05:00:40Z")
}

fn exit(standing: Standing) -> ExitStatus {
    match standing {
        Standing::Ended(report) => report.status,
        other => panic!("{other:?}"),
    }
}

fn reason(standing: Standing) -> Reason {
    match standing {
        Standing::Refused(failure) => failure.reason,
        Standing::Ended(ExitReport { status: ExitStatus::Disrupted { reason, .. }, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn happening(reason: &str, message: &str, time: &str) -> Happening {
    Happening {
        at: at(time),
        reason: reason.to_owned(),
        message: message.to_owned(),
        container: None,
    }
}

#[test]
fn the_main_container_decides() {
    for (code, why, oom_killed) in
        [(0, "Completed", false), (3, "Error", false), (137, "OOMKilled", true)]
    {
        let seen = pod(|it| {
            it["status"]["phase"] = json!("Running");
            // A side container that goes on changes nothing.
            it["status"]["containerStatuses"] = json!([
                status("main", ended(code, why)),
                status("proxy", json!({"running": {"startedAt": STARTED}})),
            ]);
        });
        assert_eq!(exit(now(&seen)), ExitStatus::Code { code, oom_killed });
        assert!(!seen.is_over());
    }
}

#[test]
fn what_could_not_be_started_has_the_code_that_says_why() {
    for (message, expected) in [
        ("exec: \"/no/such\": stat /no/such: no such file or directory: unknown", 127),
        ("exec: \"nosuch\": executable file not found in $PATH: unknown", 127),
        ("exec: \"/etc\": permission denied: unknown", 126),
        ("cgroups are on fire", 128),
    ] {
        let state = json!({"terminated": {
            "exitCode": 128, "reason": "StartError", "message": message,
            "startedAt": "1970-01-01T00:00:00Z", "finishedAt": FINISHED,
        }});
        let seen = pod(only_main(state, "Failed"));
        assert!(!seen.has_run());
        let status = exit(now(&seen));
        assert!(
            matches!(status, ExitStatus::StartFailed { code, .. } if code == expected),
            "{status:?}"
        );
    }
}

#[test]
fn whoever_puts_a_pod_out_is_named() {
    let with = |change: &dyn Fn(&mut Value)| {
        pod(|it| {
            only_main(ended(143, "Error"), "Failed")(it);
            change(it);
        })
    };
    let condition =
        |why: &str| json!({"type": "DisruptionTarget", "status": "True", "reason": why});
    for (why, expected) in [
        ("PreemptionByScheduler", Reason::Preempted),
        ("EvictionByEvictionAPI", Reason::Evicted),
        ("TerminationByKubelet", Reason::Evicted),
        ("DeletionByTaintManager", Reason::NodeLost),
        ("DeletionByPodGC", Reason::NodeLost),
    ] {
        let seen = with(&|it| it["status"]["conditions"] = json!([condition(why)]));
        assert_eq!(reason(now(&seen)), expected, "{why}");
    }
    for (why, expected) in [
        ("Evicted", Reason::Evicted),
        ("Preempting", Reason::Preempted),
        ("NodeLost", Reason::NodeLost),
        ("Terminated", Reason::NodeLost),
        ("DeadlineExceeded", Reason::Timeout),
    ] {
        let seen = with(&|it| it["status"]["reason"] = json!(why));
        assert_eq!(reason(now(&seen)), expected, "{why}");
        assert!(matches!(exit(now(&seen)), ExitStatus::Disrupted { code: Some(143), .. }));
    }
}

#[test]
fn a_deletion_is_to_blame_only_for_what_ended_behind_it() {
    let deleted = |asked: &str, code: i32| {
        pod(|it| {
            only_main(ended(code, "Error"), "Running")(it);
            let due = at(asked).checked_add(SignedDuration::from_secs(30)).unwrap();
            it["metadata"]["deletionTimestamp"] = json!(due.to_string());
            it["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        })
    };
    let before = deleted("2026-11-21T05:00:31Z", 0);
    assert_eq!(exit(now(&before)), ExitStatus::Code { code: 0, oom_killed: false });
    // Within its second nobody can say: then it is no success.
    for asked in [FINISHED, "2026-11-21T05:00:29Z"] {
        assert_eq!(reason(now(&deleted(asked, 0))), Reason::DeletedExternally);
    }
    let preempted = happening("Preempted", "by ns/other", FINISHED);
    let standing = standing_at(&deleted(FINISHED, 143), &[preempted], FINISHED);
    assert_eq!(reason(standing), Reason::Preempted);
    // Our own doing is an exit like any other.
    let seen = deleted(FINISHED, 143);
    let context =
        Context { timeouts: None, happenings: &[], stopped_by_us: true, now: at(FINISHED) };
    assert_eq!(
        exit(standing_of(&seen, context)),
        ExitStatus::Code { code: 143, oom_killed: false }
    );
}

fn standing_of(seen: &Seen, context: Context<'_>) -> Standing {
    standing(seen, context)
}

#[test]
fn an_init_container_that_fails_is_named() {
    let seen = pod(|it| {
        it["status"]["phase"] = json!("Failed");
        it["status"]["initContainerStatuses"] = json!([status("first", ended(2, "Error"))]);
    });
    let ExitStatus::Disrupted { reason, message, code } = exit(now(&seen)) else { panic!() };
    assert_eq!((reason, code), (Reason::InitFailed, None));
    assert_eq!(message, "the init container \"first\" exited with code 2");
}

#[test]
fn the_table_of_reasons_for_which_it_will_never_start() {
    let gate = "secret \"sc-1-00000000\" not found";
    for (why, message, expected) in [
        ("InvalidImageName", "bad", Some(Reason::InvalidImage)),
        ("ErrImageNeverPull", "absent", Some(Reason::ImageNotFound)),
        ("ErrImagePull", "x: not found", Some(Reason::ImageNotFound)),
        ("ErrImagePull", "pull access denied", Some(Reason::RegistryAuth)),
        ("ErrImagePull", "received unexpected status code 503", None),
        ("ErrImagePull", "something new", None),
        ("ImagePullBackOff", "Back-off pulling image", None),
        ("CreateContainerConfigError", gate, None),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting", None),
        ("CreateContainerConfigError", "secret \"x\" not found", Some(Reason::CreateConfigError)),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            Some(Reason::CreateConfigError),
        ),
        ("CreateContainerError", "no command specified", Some(Reason::CreateConfigError)),
        ("CreateContainerError", "context deadline exceeded", Some(Reason::StartError)),
        (
            "RunContainerError",
            "exec: \"x\": executable file not found",
            Some(Reason::CommandNotFound),
        ),
        ("ContainerCreating", "", None),
    ] {
        let seen = pod(only_main(waiting(why, message), "Pending"));
        let standing = now(&seen);
        match expected {
            Some(expected) => assert_eq!(reason(standing), expected, "{why}: {message}"),
            None => assert!(matches!(standing, Standing::Waiting { .. }), "{why}: {standing:?}"),
        }
    }
}

#[test]
fn a_node_that_missed_the_secret_is_told_apart() {
    for (why, message, expected) in [
        ("CreateContainerConfigError", "secret \"sc-1-00000000\" not found", true),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting", true),
        ("CreateContainerConfigError", "secret \"x\" not found", false),
        ("ContainerCreating", "", false),
        ("ErrImagePull", "timed out", false),
    ] {
        let seen = pod(only_main(waiting(why, message), "Pending"));
        assert_eq!(missed_its_gate(&seen), expected, "{why}: {message}");
    }
}

#[test]
fn backing_off_from_a_pull_says_what_failed() {
    let seen = pod(only_main(waiting("ImagePullBackOff", "Back-off pulling image"), "Pending"));
    let failed =
        happening("Failed", "Failed to pull image \"x\": code = NotFound: not found", SCHEDULED);
    let Standing::Refused(failure) = standing_at(&seen, &[failed], STARTED) else { panic!() };
    assert_eq!(failure.reason, Reason::ImageNotFound);
    assert!(failure.message.contains("Failed to pull image"), "{}", failure.message);
}

#[test]
fn each_phase_of_the_start_has_its_own_time() {
    let unscheduled = pod(|it| {
        only_main(waiting("", ""), "Pending")(it);
        it["spec"]["nodeName"] = Value::Null;
        it["status"]["conditions"] = json!([
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"},
        ]);
    });
    let limit = Timeouts::default();
    let due = later(at(CREATED), limit.schedule);
    assert_eq!(now(&unscheduled), Standing::Waiting { until: due });
    assert_eq!(reason(standing_at(&unscheduled, &[], &due.to_string())), Reason::Unschedulable);

    let creating = pod(only_main(waiting("ContainerCreating", ""), "Pending"));
    let told = [happening("Scheduled", "", SCHEDULED)];
    let due = later(at(SCHEDULED), limit.start);
    assert_eq!(standing_at(&creating, &told, STARTED), Standing::Waiting { until: due });
    assert_eq!(reason(standing_at(&creating, &told, &due.to_string())), Reason::StartError);

    // A pull has a time of its own, and the start begins anew behind it.
    let pulling = [happening("Scheduled", "", SCHEDULED), happening("Pulling", "", STARTED)];
    let due = later(at(STARTED), limit.pull);
    assert_eq!(standing_at(&creating, &pulling, FINISHED), Standing::Waiting { until: due });
    assert_eq!(reason(standing_at(&creating, &pulling, &due.to_string())), Reason::Timeout);
    // What failed is told by the state of the container also where no event came.
    let failed = pod(only_main(waiting("ErrImagePull", "connection refused"), "Pending"));
    let due = later(at(STARTED), limit.pull).to_string();
    assert_eq!(reason(standing_at(&failed, &pulling, &due)), Reason::RegistryTransient);
    let mut pulled = pulling.to_vec();
    pulled.push(happening("Pulled", "", FINISHED));
    let due = later(at(FINISHED), limit.start);
    assert_eq!(standing_at(&creating, &pulled, FINISHED), Standing::Waiting { until: due });
}

#[test]
fn an_init_container_may_take_its_time() {
    let seen = pod(|it| {
        it["status"]["initContainerStatuses"] =
            json!([status("first", json!({"running": {"startedAt": STARTED}}))]);
        it["status"]["containerStatuses"] = json!([status("main", waiting("PodInitializing", ""))]);
    });
    let standing = standing_at(&seen, &[], "2026-11-21T09:00:00Z");
    assert_eq!(standing, Standing::Running { started_at: at(STARTED), until: None });
}

#[test]
fn a_node_that_ends_a_pod_has_not_ended_it_yet() {
    let seen = pod(only_main(json!({"running": {"startedAt": STARTED}}), "Failed"));
    assert!(seen.is_dying() && !seen.is_over());
    assert!(matches!(now(&seen), Standing::Running { .. }));
    // It confirms the removal when it has, and says no more.
    let confirmed = pod(|it| {
        only_main(json!({"running": {"startedAt": STARTED}}), "Failed")(it);
        it["metadata"]["deletionTimestamp"] = json!(FINISHED);
        it["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    });
    assert!(confirmed.is_over());
    let Standing::Ended(report) = now(&confirmed) else { panic!() };
    assert!(report.fleeting);
    assert_eq!(reason(Standing::Ended(report)), Reason::Timeout);
}

#[test]
fn a_container_that_its_node_has_lost_has_run() {
    let lost = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}});
    let context =
        Context { timeouts: None, happenings: &[], stopped_by_us: false, now: at(FINISHED) };
    let told = |change: &dyn Fn(&mut Value)| {
        let seen = pod(|it| {
            only_main(lost.clone(), "Failed")(it);
            change(it);
        });
        assert!(seen.has_run() && seen.is_over());
        match standing(&seen, context) {
            Standing::Ended(ExitReport {
                status: ExitStatus::Disrupted { reason, .. }, ..
            }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(&|_| {}), Reason::NodeLost);
    // Nodes tell of those that they have ended for somebody as of ones that wait again.
    let again = |it: &mut Value| {
        let main = &mut it["status"]["containerStatuses"][0];
        main["lastState"] = main["state"].take();
        main["state"] = waiting("ContainerCreating", "");
        it["metadata"]["deletionTimestamp"] = json!(FINISHED);
        it["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    };
    assert_eq!(told(&again), Reason::DeletedExternally);
}
