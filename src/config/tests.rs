use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn sources(env: &[(&str, &str)]) -> Sources {
    let env = env.iter().copied().chain([("HOME", "/home/jo")]);
    Sources { env: Env::from_vars(env), ..Sources::default() }
}

fn with_file(text: &str, env: &[(&str, &str)]) -> (tempfile::NamedTempFile, Sources) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..sources(env) };
    (file, sources)
}

/// `key: detail`, in the order in which they were found.
fn faults(sources: &Sources) -> Vec<(String, String)> {
    let Faults(faults) = Config::load(sources).expect_err("the configuration is faulty");
    faults.into_iter().map(|it| (it.key, it.detail)).collect()
}

fn one_fault(sources: &Sources) -> Fault {
    let Faults(mut faults) = Config::load(sources).expect_err("the configuration is faulty");
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

#[test]
fn the_defaults_are_valid() {
    let config = Config::load(&sources(&[])).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/home/jo/.local/state/supercargo"));
    assert_eq!(config.roles, Role::ALL);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(config.http.body_limit, 8 << 20);
    assert_eq!(config.limits.output_file, 5 << 30);
    assert_eq!(config.retention.tasks, Duration::from_hours(30 * 24));
    assert!(config.worker.starts >= 2);
    assert!(config.database.url.is_none());
    assert_eq!(config.admin_token_path(), config.data_dir.join("admin.token"));
    assert_eq!(config.objects_folder(), config.data_dir.join("objects"));
    assert_eq!(config.notes(), Vec::<String>::new());
}

#[test]
fn the_object_store_is_where_somebody_says() {
    let named = sources(&[("SUPERCARGO__OBJECT_STORE__FOLDER", "/mnt/shared/objects")]);
    let config = Config::load(&named).unwrap();
    assert_eq!(config.objects_folder(), PathBuf::from("/mnt/shared/objects"));
}

#[test]
fn a_default_that_nothing_reads_is_a_fault() {
    let mut found = Vec::new();
    let mut merged = Merged::read(&sources(&[]), &mut found);
    let mut dead = merged.settings[3].clone();
    for key in ["http.dead", "dead", "section.dead"] {
        dead.key = key.to_owned();
        merged.settings.push(dead.clone());
    }
    let Faults(faults) =
        Config::from_merged(&merged, &sources(&[]), found).expect_err("three dead keys");
    let keys: Vec<_> = faults.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(keys, ["http.dead", "dead", "section"]);
}

#[test]
fn a_key_without_a_default_is_a_fault() {
    let mut found = Vec::new();
    let mut merged = Merged::read(&sources(&[]), &mut found);
    let keys: Vec<_> = merged.settings.iter().map(|it| it.key.clone()).collect();
    for key in keys {
        let all = merged.settings.clone();
        merged.settings.retain(|it| it.key != key);
        let Faults(faults) = Config::from_merged(&merged, &sources(&[]), Vec::new())
            .expect_err("a key of the reference is missing");
        let section = key.split_once('.').map_or(key.as_str(), |it| it.0);
        let missing = |it: &Fault| {
            (it.key == key || it.key == section) && it.detail.starts_with("has no default")
        };
        assert!(faults.iter().any(missing), "{key}: {faults:?}");
        merged.settings = all;
    }
}

#[test]
fn every_key_is_documented() {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    let keys = lines.iter().enumerate().filter(|(_, it)| it.contains(" = "));
    let mut count = 0;
    for (index, line) in keys.filter(|(_, it)| !it.starts_with('#')) {
        count += 1;
        assert!(index > 0 && lines[index - 1].starts_with("# "), "{line} has no comment");
    }
    let merged = Merged::read(&sources(&[]), &mut Vec::new());
    assert_eq!(count, merged.settings.len());
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
    let file = "default_target = \"simulated\"\n[http]\nlisten = \"127.0.0.1:1\"\n[worker]\npoll = \"2s\"\n\
                concurrency = 7\n[docker]\nhost = \"tcp://f:1\"\n";
    let env = [
        ("SUPERCARGO__HTTP__LISTEN", "127.0.0.1:2"),
        ("SUPERCARGO__WORKER__POLL", "3s"),
        ("DOCKER_HOST", "tcp://e:1"),
        ("DATABASE_URL", "postgres://plain/x"),
        ("SUPERCARGO__DATABASE__URL", "postgres://ours/x"),
    ];
    let (_file, mut sources) = with_file(file, &env);
    sources.flags = vec![
        Flag::new("http.listen", "--listen", "127.0.0.1:3"),
        Flag::new("roles", "--roles", vec!["worker", "api", "worker"]),
    ];
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.worker.poll, Duration::from_secs(3));
    assert_eq!(config.worker.concurrency, 7);
    assert_eq!(config.worker.lease, Duration::from_secs(18));
    assert_eq!(config.default_target, "simulated");
    assert_eq!(config.docker.host.as_deref(), Some("tcp://e:1"));
    assert_eq!(config.database.url.unwrap().expose(), "postgres://ours/x");
    assert_eq!(config.roles, [Role::Api, Role::Worker]);
}

#[test]
fn the_file_may_be_named_by_the_environment_and_the_flag_wins() {
    let (named, flag) = with_file("default_target = \"local\"", &[]);
    let (other, mut env) = with_file("default_target = \"simulated\"", &[]);
    env.env = Env::from_vars([
        ("SUPERCARGO_CONFIG", other.path().to_str().unwrap()),
        ("HOME", "/home/jo"),
    ]);
    env.file = None;
    assert_eq!(Config::load(&env).unwrap().default_target, "simulated");
    env.file.clone_from(&flag.file);
    assert_eq!(Config::load(&env).unwrap().default_target, "local");
    drop(named);
}

#[test]
fn every_fault_is_reported_at_once_with_its_place() {
    let file = "[http]\nlisten = \"nowhere\"\nbody_limit = 5\n\n[worker]\nconcurrency = 0\nlease = \"10s\"\n";
    let (file, mut sources) = with_file(
        file,
        &[
            ("SUPERCARGO__WORKER__HEARTBEAT", "4s"),
            ("SUPERCARGO__AUTH__ENABLED", "maybe"),
            ("SUPERCARGO__HTTP__ALLOWED_HOSTS", "a.example, b:80"),
            ("DATABASE_URL", "mysql://root:hunter2@db/x"),
        ],
    );
    sources.flags = vec![Flag::new("roles", "--roles", vec!["wroker"])];
    let faults = Config::load(&sources).expect_err("seven faults");
    let text = faults.to_string().replace(file.path().to_str().unwrap(), "FILE");
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        r#"auth.enabled (environment variable SUPERCARGO__AUTH__ENABLED): "maybe" is neither "true" nor "false""#,
        r#"roles (flag --roles): "wroker" is not one of api, scheduler, worker: did you mean "worker"?"#,
        r#"http.listen (FILE:2): "nowhere" is not an address with a port: write "127.0.0.1:7070""#,
        r#"http.allowed_hosts (environment variable SUPERCARGO__HTTP__ALLOWED_HOSTS): "b:80" is not a host name: write "runs.example.com", without scheme and port"#,
        r#"http.body_limit (FILE:3): "body_limit" must be a string, not a number"#,
        r#"database.url (environment variable DATABASE_URL): not the address of a Postgres: write "postgres://user:password@host:5432/name", or leave it empty for a private one"#,
        r"worker.concurrency (FILE:6): 0 is not a whole number from 1 to 100000",
        r"worker.lease (FILE:7): a lease of 10s is less than three heartbeats of 4s: one late heartbeat would lose it; raise worker.lease or lower worker.heartbeat",
    ];
    assert_eq!(lines, expected);
    assert!(!format!("{faults:?}").contains("hunter2"));
}

#[test]
fn unknown_keys_are_faults_with_a_suggestion() {
    let file = "listen = \"127.0.0.1:1\"\n[http]\nlisten.x = 1\n[htp]\n[worker]\nconcurency = 1\n[nothing.like.it]\na = 1\n";
    let (_file, sources) = with_file(
        file,
        &[("SUPERCARGO__HTTP__LISTN", "x"), ("SUPERCARGO__HTTP", "x"), ("SUPERCARGO__", "")],
    );
    let details: Vec<String> =
        faults(&sources).into_iter().map(|(key, it)| format!("{key}: {it}")).collect();
    let lists = "there is no such setting: `supercargo config` lists them";
    assert_eq!(
        details,
        [
            "listen: there is no such key: did you mean \"http.listen\"?".to_owned(),
            "http.listen.x: there is no such key: did you mean \"http.listen\"?".to_owned(),
            format!("htp: {lists}"),
            "worker.concurency: there is no such key: did you mean \"worker.concurrency\"?"
                .to_owned(),
            format!("nothing.like.it.a: {lists}"),
            format!(": {lists}"),
            "http: http is a section: set its keys, for example http.listen".to_owned(),
            "http.listn: there is no such setting: did you mean SUPERCARGO__HTTP__LISTEN?"
                .to_owned(),
        ]
    );
}

#[test]
fn a_variable_with_one_underscore_too_few_does_not_pass_silently() {
    let fault = one_fault(&sources(&[("SUPERCARGO_HTTP__LISTEN", "127.0.0.1:1")]));
    assert_eq!(
        fault.to_string(),
        "environment variable SUPERCARGO_HTTP__LISTEN: has no effect: write SUPERCARGO__HTTP__LISTEN"
    );
    for (name, meant) in [
        ("SUPERCARGO_HTTP_LISTEN", "SUPERCARGO__HTTP__LISTEN"),
        ("SUPERCARGO_DATA_DIR", "SUPERCARGO__DATA_DIR"),
        ("SUPERCARGO_LIMITS__QUEUED_TASKS", "SUPERCARGO__LIMITS__QUEUED_TASKS"),
    ] {
        let fault = one_fault(&sources(&[(name, "x")])).to_string();
        assert_eq!(fault, format!("environment variable {name}: has no effect: write {meant}"));
    }
    // These are the command line's own.
    let own = [("SUPERCARGO_URL", "http://x"), ("SUPERCARGO_TOKEN", "t")];
    assert!(Config::load(&sources(&own)).is_ok());
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line_and_not_quoted() {
    let (_file, sources) = with_file("[database]\nurl = \"postgres://u:hunter2@db/x\n", &[]);
    let text = Config::load(&sources).expect_err("the quote is not closed").to_string();
    assert!(text.contains(":2: not TOML: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_a_fault_of_the_one_who_named_it() {
    let fault = one_fault(&sources(&[("SUPERCARGO_CONFIG", "/nowhere/supercargo.toml")]));
    assert_eq!(fault.origin, Origin::Env("SUPERCARGO_CONFIG".to_owned()));
    assert!(fault.detail.starts_with("can't read /nowhere/supercargo.toml: "), "{}", fault.detail);
}

#[test]
fn without_authentication_only_loopback_is_taken() {
    let off = Flag::new("auth.enabled", "--no-auth", false);
    let mut given = sources(&[("SUPERCARGO__HTTP__LISTEN", "[::1]:80")]);
    given.flags = vec![off.clone()];
    let config = Config::load(&given).unwrap();
    assert!(config.notes()[0].starts_with("auth.enabled is false"));

    let mut given = sources(&[("SUPERCARGO__HTTP__LISTEN", "0.0.0.0:80")]);
    given.flags = vec![off];
    let fault = one_fault(&given);
    assert_eq!((fault.key.as_str(), fault.origin), ("auth.enabled", Origin::Flag("--no-auth")));

    let config = Config::load(&sources(&[("SUPERCARGO__HTTP__LISTEN", "0.0.0.0:80")])).unwrap();
    assert!(config.notes()[0].contains("plain HTTP"));
}

#[test]
fn what_is_printed_reads_back_and_holds_no_secret() {
    let env = [
        ("DATABASE_URL", "postgres://u:hunter2@db/x?password=hunter3"),
        ("SUPERCARGO__LOGS__FLUSH", "10ms"),
        ("SUPERCARGO__HTTP__ALLOWED_HOSTS", "a.example,b.example"),
    ];
    let config = Config::load(&sources(&env)).unwrap();
    let printed = config.print();
    assert!(printed.contains("\nurl = \"postgres://u:********@db/x?password=********\" # environment variable DATABASE_URL\n"));
    assert!(
        printed.contains("\nflush = \"10ms\" # environment variable SUPERCARGO__LOGS__FLUSH\n")
    );
    assert!(printed.starts_with("data_dir = \"/home/jo/.local/state/supercargo\"\n"));
    for text in [&printed, &format!("{config:?}"), &format!("{:?}", sources(&env))] {
        assert!(!text.contains("hunter"), "{text}");
    }

    let (_file, again) = with_file(&printed, &[]);
    let again = Config::load(&again).unwrap();
    assert_eq!(again.http.allowed_hosts, ["a.example", "b.example"]);
    assert_eq!(again.logs.flush, Duration::from_millis(10));
}

#[test]
fn the_data_directory_follows_the_user() {
    let env = |vars: &[(&'static str, &'static str)]| Env::from_vars(vars.iter().copied());
    let home = env(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")]);
    assert_eq!(default_data_dir(&home, true), Some("/var/lib/supercargo".into()));
    assert_eq!(default_data_dir(&home, false), Some("/x/supercargo".into()));
    let relative = env(&[("HOME", "/h"), ("XDG_STATE_HOME", "x")]);
    assert_eq!(default_data_dir(&relative, false), Some("/h/.local/state/supercargo".into()));

    let fault = one_fault(&Sources::default());
    assert_eq!(fault.key, "data_dir");
    let flags = vec![Flag::new("data_dir", "--data-dir", "here")];
    let given = Sources { flags, ..Sources::default() };
    let config = Config::load(&given).unwrap();
    assert_eq!(config.data_dir, std::env::current_dir().unwrap().join("here"));
}

#[test]
fn single_values() {
    let bad: [(&str, &[&str]); 10] = [
        ("HTTP__LISTEN", &["", ":80", "localhost", "example.com:80", "1.2.3.4:99999"]),
        (
            "HTTP__ALLOWED_ORIGINS",
            &["*", "null", "https://a/b", "a.example", "ftp://a", "https://a:x"],
        ),
        ("HTTP__BODY_LIMIT", &["0", "1", "2Gi", "8 Mi", "-1Mi"]),
        ("HTTP__REQUEST_TIMEOUT", &["50s", "0s", "2h", "60"]),
        ("DOCKER__HOST", &["ssh://u@h", "docker.sock", "npipe:////./pipe/x", "https://h:2376"]),
        ("DEFAULT_TARGET", &["", "Local", "-a", "a=b"]),
        ("WORKER__CONCURRENCY", &["", "1.5", "-1", "many", "99999999999999999999"]),
        ("LIMITS__ENV_VALUE", &["129Ki", "1Gi"]),
        ("TELEMETRY__LOG", &["supercargo=loud", "a=b=c"]),
        ("TELEMETRY__FORMAT", &["xml", ""]),
    ];
    for (name, values) in bad {
        for value in values {
            let name = format!("SUPERCARGO__{name}");
            let fault = one_fault(&sources(&[(&name, value)]));
            assert_eq!(fault.origin, Origin::Env(name), "{value}");
        }
    }
    let good: [(&str, &[&str]); 6] = [
        ("HTTP__LISTEN", &["localhost:0", "[::]:80", "0.0.0.0:80"]),
        ("HTTP__ALLOWED_ORIGINS", &["", "https://A.example", "http://[::1]:80, http://localhost"]),
        ("DOCKER__HOST", &["", "/run/d.sock", "unix:///run/d.sock", "tcp://h:2375"]),
        ("AUTH__ENABLED", &["true", "1", "false", "0"]),
        ("TELEMETRY__LOG", &["debug", "info,supercargo=trace"]),
        ("DATABASE__URL", &["", "postgres:///x?host=/run", "postgresql://u:p@h/x"]),
    ];
    for (name, values) in good {
        for value in values {
            let loaded = Config::load(&sources(&[(&format!("SUPERCARGO__{name}"), value)]));
            assert!(loaded.is_ok(), "{name}={value}: {loaded:?}");
        }
    }
}

#[test]
fn toml_of_another_type_is_a_fault_and_never_a_guess() {
    for (value, detail) in [
        (json!("64"), "\"concurrency\" must be a whole number, not a string"),
        (json!(1.5), "1.5 is not a whole number from 1 to 100000"),
        (json!([1]), "\"concurrency\" must be a whole number, not a list"),
        (Value::Bool(true), "\"concurrency\" must be a whole number, not a boolean"),
    ] {
        let toml = toml::Value::try_from(&value).unwrap();
        let (_file, sources) = with_file(&format!("[worker]\nconcurrency = {toml}\n"), &[]);
        assert_eq!(one_fault(&sources).detail, detail);
    }
    let (_file, sources) = with_file("[http]\nallowed_hosts = [1]\n", &[]);
    assert!(one_fault(&sources).detail.contains("is not text"));
}

#[test]
fn targets_come_from_the_file_and_from_the_environment() {
    let file = "default_target = \"prod-eu\"\n[targets.prod-eu]\nkind = \"kubernetes\"\nserver = \"https://h\"\n\
                token = \"s3cret\"\nconcurrency = 50\n[targets.prod-eu.labels]\ngpu = \"yes\"\n\
                \"a.b/c\" = 1\n[targets.sim]\nkind = \"simulated\"\n";
    let env = [
        ("SUPERCARGO__TARGETS__PROD_EU__NAMESPACE", "etl"),
        ("SUPERCARGO__TARGETS__PROD_EU__CONCURRENCY", "7"),
        ("SUPERCARGO__TARGETS__SIM__ENABLED", "false"),
        ("SUPERCARGO__TARGETS__HERE__KIND", "kubernetes"),
        ("SUPERCARGO__TARGETS__HERE__KUBECONFIG__PATH", "/k"),
        ("DOCKER_HOST", "tcp://e:1"),
    ];
    let (path, sources) = with_file(file, &env);
    let config = Config::load(&sources).unwrap();
    let names: Vec<_> = config.targets.keys().map(String::as_str).collect();
    let local: &[&str] = if cfg!(feature = "docker") { &["local"] } else { &[] };
    assert_eq!(names, [&["here"], local, &["prod-eu", "sim"]].concat());
    let prod = &config.targets["prod-eu"];
    let place = format!("[targets.prod-eu] of {}:2", path.path().display());
    assert_eq!((prod.target.concurrency, &prod.place), (Some(7), &place));
    let labels: Vec<_> = prod.target.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["a.b/c=1", "gpu=yes"]);
    assert!(!config.targets["sim"].target.enabled);
    let printed = config.print();
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(
        printed.contains(
            "namespace = \"etl\" # environment variable SUPERCARGO__TARGETS__PROD_EU__NAMESPACE\n"
        ),
        "{printed}"
    );
    let sim = "\n[targets.sim]\nenabled = false # environment variable SUPERCARGO__TARGETS__SIM__ENABLED\n";
    assert!(printed.contains(sim), "{printed}");
    toml::from_str::<toml::Table>(&printed).unwrap();
}

#[test]
fn a_faulty_target_is_named_with_its_place() {
    let file = "[targets.a]\nkind = \"docker\"\nhots = \"x\"\n[targets.B]\nkind = \"docker\"\n\
                [targets.simulated]\nkind = \"simulated\"\n";
    let env = [
        ("SUPERCARGO__TARGETS__A__HOST", "ssh://u@h"),
        ("SUPERCARGO__TARGETS__A__ENABLED", "perhaps"),
        ("SUPERCARGO__TARGETS__C", "x"),
    ];
    let (_path, sources) = with_file(file, &env);
    let Faults(found) = Config::load(&sources).expect_err("the targets are faulty");
    let found: Vec<_> =
        found.iter().map(|it| (it.key.as_str(), matches!(it.origin, Origin::Env(_)))).collect();
    assert_eq!(
        found,
        [
            ("targets.a.enabled", true),
            ("targets.c", true),
            ("targets.B", false),
            ("targets.a.host", true),
            ("targets.a.hots", false),
            ("targets.simulated", false),
        ]
    );
}

#[test]
fn the_target_of_docker_follows_its_settings_unless_it_is_defined() {
    use crate::domain::target::{Backend, DockerBackend};
    let of = |env: &[(&str, &str)], file: &str| {
        let (_path, sources) = with_file(file, env);
        Config::load(&sources).unwrap().targets.get("local").map(|it| it.target.backend.clone())
    };
    let docker = |host: Option<&str>| {
        let host = host.map(str::to_owned);
        cfg!(feature = "docker").then(|| Backend::Docker(DockerBackend { host }))
    };
    assert_eq!(of(&[], ""), docker(None));
    assert_eq!(of(&[("DOCKER_HOST", "tcp://h:1")], ""), docker(Some("tcp://h:1")));
    assert_eq!(of(&[("SUPERCARGO__DOCKER__ENABLED", "false")], ""), None);
    let defined = "[targets.local]\nkind = \"simulated\"\n";
    assert_eq!(of(&[("DOCKER_HOST", "tcp://h:1")], defined), Some(Backend::Simulated));
}
