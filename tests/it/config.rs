//! The configuration as somebody meets it who sets up the service.

use std::process::{Command, Output};

fn supercargo(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_supercargo"))
        .args(args)
        .env_clear()
        .env("HOME", "/home/jo")
        .envs(env.iter().copied())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn a_check_prints_what_is_in_force_and_where_it_comes_from() {
    let output = supercargo(
        &["config", "--check", "--data-dir", "/data", "--roles", "api,worker"],
        &[("DATABASE_URL", "postgres://u:hunter2@db/x")],
    );
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(printed.starts_with("data_dir = \"/data\" # flag --data-dir\n"), "{printed}");
    assert!(printed.contains("\nroles = [\"api\", \"worker\"] # flag --roles\n"), "{printed}");
    assert!(
        printed.contains(
            "\nurl = \"postgres://u:********@db/x\" # environment variable DATABASE_URL\n"
        )
    );
    assert!(printed.contains("\nlease = \"18s\"\n"), "{printed}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_check_names_every_fault_and_prints_no_configuration() {
    let output = supercargo(
        &["config", "--check", "--listen", "0.0.0.0:80", "--no-auth"],
        &[("SUPERCARGO__WORKER__LEASE", "1s"), ("SUPERCARGO__WROKER__POLL", "1s")],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let faults: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert_eq!(faults[0], "error: the configuration is not valid");
    assert!(faults[1].contains("did you mean SUPERCARGO__WORKER__POLL?"), "{faults:#?}");
    assert!(
        faults[2].starts_with("  worker.lease (environment variable SUPERCARGO__WORKER__LEASE): ")
    );
    assert!(faults[3].starts_with("  auth.enabled (flag --no-auth): "), "{faults:#?}");
}

#[test]
fn a_risky_but_valid_choice_is_a_note() {
    let output = supercargo(&["config", "--check", "--listen", "0.0.0.0:80"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).starts_with("note: http.listen 0.0.0.0:80 is reachable"));
}

#[test]
fn the_reference_is_a_valid_file() {
    let reference = supercargo(&["config"], &[]);
    assert_eq!(reference.status.code(), Some(0));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &reference.stdout).expect("written");
    let path = file.path().to_str().expect("text");
    let output = supercargo(&["config", "--check", "--config", path], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("listen = \"127.0.0.1:7070\" # "));
}

#[test]
fn the_service_does_not_start_with_a_faulty_configuration() {
    let output = supercargo(&["serve", "--listen", "nowhere", "--data-dir", "/nowhere"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("\n  http.listen (flag --listen): "), "{output:?}");
}
