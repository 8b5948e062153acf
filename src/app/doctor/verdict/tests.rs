//! A healthy installation, what can be wrong with it one by one, and what is said then.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::app::doctor::Status;
use crate::app::doctor::facts::{
    Api, Cluster, ClusterFacts, DatabaseFacts, Engine, EngineFacts, Given, HereFacts, LeaseFacts,
    ObjectFacts, PrivateFacts, PrivateState, Readiness, Sandboxes, ServerFacts, ServiceFacts,
    TokenState,
};
use crate::domain::target::{MissingPermission, TargetCheck};
use crate::ids::{ObjectStoreId, WorkerId};
use crate::store::{
    HeldAttempts, ObjectStoreInUse, SchemaState, ServerState, TargetHealth, WorkerState,
};

const WORKER: &str = "01930000-0000-7000-8000-000000000001";
const OTHER: &str = "01930000-0000-7000-8000-000000000002";
const STORE: &str = "01930000-0000-7000-8000-00000000aaaa";
const PLENTY: Space = Space { free: 50 * GIB, total: 100 * GIB };
const TRUE_CLOCK: Skew = Skew { millis: 3, unsure: 4 };

fn id(text: &str) -> WorkerId {
    text.parse().unwrap()
}

fn worker(text: &str, silent_secs: Option<f64>, engine: &str) -> WorkerState {
    let health = TargetHealth {
        kind: "docker".to_owned(),
        ready: true,
        engine: Some(engine.to_owned()),
        version: None,
        why: None,
        since: None,
    };
    WorkerState {
        id: id(text),
        epoch: 1,
        hostname: "one".to_owned(),
        version: "0.1.0".to_owned(),
        silent_secs,
        targets: [("local".to_owned(), health)].into_iter().collect(),
    }
}

fn held(worker: &str, engine: &str, attempts: i64) -> HeldAttempts {
    HeldAttempts {
        worker: id(worker),
        target: "local".to_owned(),
        engine: engine.to_owned(),
        attempts,
    }
}

fn healthy() -> Facts {
    let server = ServerState {
        version: "15.14".to_owned(),
        fsync: "on".to_owned(),
        synchronous_commit: "on".to_owned(),
        full_page_writes: "on".to_owned(),
        connections: 12,
        max_connections: 100,
        standby: false,
    };
    let store: ObjectStoreId = STORE.parse().unwrap();
    Facts {
        service: ServiceFacts {
            process: Some(7),
            api: Api::Answers {
                url: "http://127.0.0.1:7070".to_owned(),
                readiness: Readiness::Ready,
                token: TokenState::Works,
            },
        },
        database: DatabaseFacts {
            place: "the private Postgres in /data/postgres".to_owned(),
            private: Some(PrivateFacts {
                folder: PathBuf::from("/data/postgres"),
                space: Some(PLENTY),
                state: PrivateState::Ready(8),
            }),
            server: Ok(ServerFacts {
                state: server,
                round_trip: Duration::from_micros(300),
                clock: TRUE_CLOCK,
            }),
            schema: Ok(SchemaState { newest: 3, ..SchemaState::default() }),
        },
        objects: ObjectFacts {
            folder: PathBuf::from("/data/objects"),
            probe: Some(Ok(Duration::from_millis(2))),
            space: Some(PLENTY),
            id: Ok(Some(store)),
            in_use: Ok(Some(ObjectStoreInUse {
                id: store,
                place: "/data/objects on one".to_owned(),
            })),
        },
        leases: Ok(LeaseFacts {
            lease: Duration::from_secs(20),
            workers: vec![worker(WORKER, Some(2.0), "E1")],
            held: vec![held(WORKER, "E1", 3)],
            here: Some(HereFacts { worker: id(WORKER), hostname: "one".to_owned(), taken: 0 }),
        }),
        engines: vec![EngineFacts {
            target: "local".to_owned(),
            host: Some(String::new()),
            engine: Ok(Engine {
                id: "E1".to_owned(),
                version: "20.10".to_owned(),
                storage_driver: "overlay2".to_owned(),
                keeps_logs: true,
                space: Some(PLENTY),
                clock: Some(TRUE_CLOCK),
            }),
            given: Ok(vec![Given { engine: "E1".to_owned(), attempts: 3, reached: true }]),
            sandboxes: Ok(Sandboxes { live: 3, ..Sandboxes::default() }),
        }],
        clusters: vec![ClusterFacts {
            target: "prod".to_owned(),
            cluster: Ok(Cluster {
                place: "https://k".to_owned(),
                version: "v1.20.2".to_owned(),
                id: "C1".to_owned(),
                rights: Ok(TargetCheck::default()),
            }),
            given: Ok(vec![Given { engine: "C1".to_owned(), attempts: 2, reached: true }]),
            pods: Ok(Sandboxes { live: 2, ..Sandboxes::default() }),
        }],
    }
}

#[test]
fn a_healthy_installation_is_ok_everywhere() {
    let checks = judge(&healthy());
    assert!(checks.iter().all(|it| it.status == Status::Ok && it.fix.is_none()), "{checks:#?}");
    let names: Vec<_> = checks.iter().map(|it| it.check.as_str()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len(), "each name stands once: {names:?}");
}

/// What is changed in a healthy installation → (check, status, a part of what is found, a part of the fix).
type Case = (fn(&mut Facts), &'static str, Status, &'static str, &'static str);

fn server(facts: &mut Facts) -> &mut ServerFacts {
    facts.database.server.as_mut().unwrap()
}

fn leases(facts: &mut Facts) -> &mut LeaseFacts {
    facts.leases.as_mut().unwrap()
}

fn engine(facts: &mut Facts) -> &mut Engine {
    facts.engines[0].engine.as_mut().unwrap()
}

fn containers(facts: &mut Facts) -> &mut Sandboxes {
    facts.engines[0].sandboxes.as_mut().unwrap()
}

fn cluster(facts: &mut Facts) -> &mut Cluster {
    facts.clusters[0].cluster.as_mut().unwrap()
}

fn rights(facts: &mut Facts) -> &mut TargetCheck {
    cluster(facts).rights.as_mut().unwrap()
}

fn pods(facts: &mut Facts) -> &mut Sandboxes {
    facts.clusters[0].pods.as_mut().unwrap()
}

fn lacks(verb: &str, resource: &str) -> MissingPermission {
    MissingPermission {
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        namespace: "etl".to_owned(),
        needed_for: "logs".to_owned(),
    }
}

fn silent() -> Api {
    Api::Silent { url: "http://u".to_owned(), why: "refused".to_owned() }
}

fn answer(readiness: Readiness, token: TokenState) -> Api {
    Api::Answers { url: "http://u".to_owned(), readiness, token }
}

const SERVICE: &[Case] = &[
    (
        |it| it.service = ServiceFacts { process: None, api: Api::NoAddress },
        "service",
        Status::Fail,
        "does not run",
        "supercargo serve",
    ),
    (
        |it| it.service = ServiceFacts { process: None, api: silent() },
        "service",
        Status::Fail,
        "does not run",
        "supercargo serve",
    ),
    (|it| it.service.api = silent(), "service", Status::Fail, "process 7", "kill 7"),
    (|it| it.service.api = Api::NoAddress, "service", Status::Warn, "not up yet", "wait"),
    (
        |it| {
            it.service.api =
                answer(Readiness::NotReady("no database".to_owned()), TokenState::NoApi);
        },
        "service",
        Status::Fail,
        "no database",
        "\"database\"",
    ),
    (
        |it| it.service.api = answer(Readiness::Ready, TokenState::Refused("revoked".to_owned())),
        "service",
        Status::Fail,
        "revoked",
        "--token",
    ),
    (
        |it| {
            it.service.api =
                answer(Readiness::Degraded(vec!["local".to_owned()]), TokenState::Works);
        },
        "service",
        Status::Warn,
        "no worker reaches local",
        "tasks wait",
    ),
];

const DATABASE: &[Case] = &[
    (
        |it| {
            it.database.server = Err(Unknown::Skipped("it does not run"));
            it.database.private.as_mut().unwrap().state = PrivateState::Stopped;
        },
        "database",
        Status::Fail,
        "does not run",
        "supercargo serve",
    ),
    (
        |it| {
            it.database.private = None;
            it.database.server = Err(Unknown::Failed("password authentication failed".to_owned()));
        },
        "database",
        Status::Fail,
        "password authentication failed",
        "DATABASE_URL",
    ),
    (|it| server(it).state.standby = true, "database", Status::Fail, "standby", "primary"),
    (
        |it| server(it).round_trip = Duration::from_millis(150),
        "database",
        Status::Warn,
        "takes 0.1 s",
        "nearer",
    ),
    (
        |it| server(it).state.fsync = "off".to_owned(),
        "database durability",
        Status::Fail,
        "fsync = off",
        "set fsync = on",
    ),
    (
        |it| server(it).state.synchronous_commit = "off".to_owned(),
        "database durability",
        Status::Fail,
        "synchronous_commit = off",
        "reset synchronous_commit",
    ),
    (
        |it| server(it).state.full_page_writes = "off".to_owned(),
        "database durability",
        Status::Warn,
        "full_page_writes = off",
        "full_page_writes = on",
    ),
    (
        |it| server(it).state.connections = 96,
        "database connections",
        Status::Warn,
        "96 of 100",
        "database.max_connections",
    ),
    (
        |it| it.database.private.as_mut().unwrap().space = Some(Space { free: MIB, total: GIB }),
        "database disk",
        Status::Fail,
        "1 MiB of 1.0 GiB",
        "make room",
    ),
    (
        |it| it.database.schema.as_mut().unwrap().pending = 2,
        "schema",
        Status::Warn,
        "2 migrations are missing",
        "supercargo migrate",
    ),
    (
        |it| it.database.schema.as_mut().unwrap().unknown = Some(99),
        "schema",
        Status::Fail,
        "newer",
        "newer",
    ),
    (
        |it| it.database.schema.as_mut().unwrap().different = Some(2),
        "schema",
        Status::Fail,
        "migration 2",
        "another database",
    ),
    (
        |it| server(it).clock = Skew { millis: -1_500, unsure: 10 },
        "clock",
        Status::Warn,
        "1.5 s behind",
        "NTP",
    ),
    (
        |it| server(it).clock = Skew { millis: 6_000, unsure: 10 },
        "clock",
        Status::Fail,
        "6.0 s ahead",
        "NTP",
    ),
];

const OBJECTS: &[Case] = &[
    (
        |it| it.objects.probe = Some(Err("Permission denied".to_owned())),
        "object store",
        Status::Fail,
        "Permission denied",
        "the user that runs the service",
    ),
    (|it| it.objects.probe = None, "object store", Status::Fail, "no folder", "mount it"),
    (
        |it| it.objects.space = Some(Space { free: GIB / 2, total: GIB }),
        "object store disk",
        Status::Warn,
        "512 MiB",
        "make room",
    ),
    (
        |it| it.objects.id = Ok(None),
        "object store identity",
        Status::Fail,
        "it has no id",
        "echo 01930000-0000-7000-8000-00000000aaaa > /data/objects/store.id",
    ),
    (
        |it| it.objects.id = Ok(Some(WORKER.parse().unwrap())),
        "object store identity",
        Status::Fail,
        "/data/objects on one",
        "object_store.folder",
    ),
    (
        |it| it.objects.id = Err("not an id".to_owned()),
        "object store identity",
        Status::Fail,
        "not an id",
        "run this as",
    ),
];

const LEASES: &[Case] = &[
    (
        |it| leases(it).workers[0].silent_secs = Some(100.0),
        "workers",
        Status::Fail,
        "none has a valid lease",
        "supercargo serve",
    ),
    (
        |it| leases(it).workers[0].silent_secs = Some(100.0),
        "attempts",
        Status::Fail,
        "3 live attempts of worker 01930000-0000-7000-8000-000000000001 on one, silent for 100 s",
        "same data directory",
    ),
    (
        |it| leases(it).workers[0].silent_secs = None,
        "attempts",
        Status::Fail,
        "which was stopped",
        "start the service on that machine",
    ),
    (
        |it| {
            leases(it).workers =
                vec![worker(OTHER, Some(1.0), "E1"), worker(WORKER, Some(30.0), "E1")];
        },
        "attempts",
        Status::Warn,
        "other workers reach their engine",
        "within seconds",
    ),
    (
        |it| {
            leases(it).workers =
                vec![worker(OTHER, Some(1.0), "E2"), worker(WORKER, Some(30.0), "E1")];
        },
        "attempts",
        Status::Fail,
        "no other worker reaches their engine",
        "docker.host",
    ),
    (
        |it| leases(it).held.push(held(OTHER, "E9", 1)),
        "attempts",
        Status::Fail,
        "which is not known",
        "start the service",
    ),
    (
        |it| leases(it).here.as_mut().unwrap().taken = 1,
        "worker identity",
        Status::Fail,
        "two share it",
        "remove worker.id",
    ),
    (
        |it| leases(it).here.as_mut().unwrap().hostname = "two".to_owned(),
        "worker identity",
        Status::Fail,
        "runs on one, and this machine is two",
        "stop the other process",
    ),
];

const ENGINES: &[Case] = &[
    (
        |it| it.engines[0].engine = Err("no such file".to_owned()),
        "engine local",
        Status::Fail,
        "the local socket does not answer: no such file",
        "systemctl start docker",
    ),
    (
        |it| engine(it).id = "E2".to_owned(),
        "engine local identity",
        Status::Ok,
        "0 live attempts here; 3 live attempts on engines of other workers",
        "",
    ),
    (
        |it| {
            engine(it).id = "E2".to_owned();
            it.engines[0].given.as_mut().unwrap()[0].reached = false;
        },
        "engine local identity",
        Status::Fail,
        "3 live attempts on engine E1",
        "bring that engine back",
    ),
    (
        |it| engine(it).keeps_logs = false,
        "engine local logs",
        Status::Fail,
        "log driver \"local\"",
        "18.09",
    ),
    (
        |it| engine(it).clock = Some(Skew { millis: 2_000, unsure: 100 }),
        "engine local clock",
        Status::Warn,
        "2.0 s ahead",
        "NTP",
    ),
    (
        |it| engine(it).space = Some(Space { free: 0, total: GIB }),
        "engine local disk",
        Status::Fail,
        "0 MiB",
        "docker image prune",
    ),
    (
        |it| containers(it).unknown = vec!["sc-a".to_owned(), "sc-b".to_owned()],
        "containers local unknown",
        Status::Warn,
        "2 are not known to the database: sc-a, sc-b",
        "docker rm --force --volumes sc-a",
    ),
    (
        |it| {
            it.engines[0].host = Some("tcp://h:2375".to_owned());
            containers(it).left_over = (0..7).map(|n| format!("sc-{n}")).collect();
        },
        "containers local left over",
        Status::Warn,
        "sc-4 and 2 more",
        "docker --host tcp://h:2375 rm --force --volumes sc-0",
    ),
    (
        |it| containers(it).missing = vec![WORKER.parse().unwrap()],
        "containers local missing",
        Status::Warn,
        WORKER,
        "supercargo events",
    ),
    (
        |it| containers(it).kept = 2,
        "containers local kept",
        Status::Ok,
        "2 were put aside",
        "--filter name=-kept$ | xargs docker rm --volumes",
    ),
    (
        |it| containers(it).others = 4,
        "containers local",
        Status::Ok,
        "4 of other installations",
        "",
    ),
];

const CLUSTERS: &[Case] = &[
    (
        |it| it.clusters[0].cluster = Err("https://k: refused".to_owned()),
        "cluster prod",
        Status::Fail,
        "can't be used: https://k: refused",
        "supercargo targets get prod",
    ),
    (
        |it| {
            cluster(it).id = "C2".to_owned();
            it.clusters[0].given.as_mut().unwrap()[0].reached = false;
        },
        "cluster prod identity",
        Status::Fail,
        "2 live attempts on cluster C1",
        "bring that cluster back",
    ),
    (
        |it| rights(it).missing = vec![lacks("list", "events"), lacks("get", "pods/log")],
        "cluster prod permissions",
        Status::Fail,
        "list events in etl (logs), get pods/log in etl (logs)",
        "rbac.yaml",
    ),
    (
        |it| rights(it).missing = vec![lacks("list", "events")],
        "cluster prod permissions",
        Status::Warn,
        "may not: list events",
        "supercargo targets check prod",
    ),
    (
        |it| rights(it).warnings = vec!["a".to_owned(), "b".to_owned()],
        "cluster prod notes",
        Status::Warn,
        "a; b",
        "rbac.yaml",
    ),
    (
        |it| pods(it).unknown = vec!["etl/sc-a".to_owned()],
        "pods prod unknown",
        Status::Warn,
        "1 is not known to the database: etl/sc-a",
        "kubectl --namespace etl delete pod sc-a",
    ),
    (
        |it| pods(it).missing = vec![WORKER.parse().unwrap()],
        "pods prod missing",
        Status::Warn,
        "the cluster does not have the pods of live tasks",
        "supercargo events",
    ),
    (
        |it| pods(it).kept = 2,
        "pods prod kept",
        Status::Ok,
        "2 were put aside",
        "kubectl delete pods --all-namespaces",
    ),
];

#[test]
fn every_fault_is_found_and_comes_with_what_to_do() {
    for (change, name, status, found, fix) in
        [SERVICE, DATABASE, OBJECTS, LEASES, ENGINES, CLUSTERS].into_iter().flatten()
    {
        let mut facts = healthy();
        change(&mut facts);
        let checks = judge(&facts);
        let check = checks.iter().find(|it| it.check == *name);
        let check = check.unwrap_or_else(|| panic!("there is no check {name}: {checks:#?}"));
        assert_eq!(check.status, *status, "{check:#?}");
        assert!(check.found.contains(found), "{found:?}: {check:#?}");
        assert!(check.fix.as_deref().unwrap_or_default().contains(fix), "{fix:?}: {check:#?}");
        for check in &checks {
            assert!(check.status == Status::Ok || check.fix.is_some(), "{check:#?}");
            assert!(!check.found.contains('\n'), "{check:#?}");
        }
    }
}

#[test]
fn what_can_not_be_found_out_is_no_clean_bill_and_no_failure_of_its_own() {
    let mut facts = healthy();
    let skipped = || Unknown::Skipped("the database can't be asked");
    facts.database.server = Err(Unknown::Failed("refused".to_owned()));
    facts.database.schema = Err(skipped());
    facts.objects.in_use = Err(skipped());
    facts.leases = Err(skipped());
    facts.engines[0].given = Err(skipped());
    facts.engines[0].sandboxes = Err(skipped());
    let of = |status| {
        let checks = judge(&facts).into_iter().filter(|it| it.status == status);
        checks.map(|it| it.check).collect::<Vec<_>>()
    };
    assert_eq!(of(Status::Fail), ["database"]);
    assert_eq!(
        of(Status::Warn),
        [
            "schema",
            "clock",
            "object store identity",
            "workers",
            "attempts",
            "engine local identity",
            "containers local"
        ]
    );
}

#[test]
fn a_clock_is_judged_by_what_is_beyond_doubt() {
    for (millis, unsure, status) in [
        (0, 0, Status::Ok),
        (1_000, 0, Status::Ok),
        (1_001, 0, Status::Warn),
        (-1_001, 0, Status::Warn),
        (1_500, 600, Status::Ok),
        (5_000, 0, Status::Warn),
        (5_001, 0, Status::Fail),
        (-5_001, 0, Status::Fail),
        (6_000, 2_000, Status::Warn),
        (86_400_000, 1, Status::Fail),
    ] {
        let check = skew("clock", "the database", Skew { millis, unsure });
        assert_eq!(check.status, status, "{millis} {unsure}: {check:#?}");
    }
}

#[test]
fn a_large_disk_is_not_full_by_its_percentage() {
    for (free, total, status) in [
        (100 * MIB, 100 * GIB, Status::Fail),
        (128 * MIB, 100 * GIB, Status::Warn),
        (2 * GIB, 10 * GIB, Status::Ok),
        (2 * GIB, 100 * GIB, Status::Warn),
        (20 * GIB, 10_000 * GIB, Status::Ok),
    ] {
        assert_eq!(space("disk", "", Space { free, total }, "").status, status, "{free} {total}");
    }
}
