use super::*;
use clap::Parser;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    task: TaskArgs,
}

fn parse(args: &[&str]) -> TaskArgs {
    Command::try_parse_from(["submit"].iter().chain(args)).unwrap().task
}

fn fault(args: &[&str]) -> String {
    let error = parse(args).document().unwrap_err();
    assert!(matches!(error, Error::Usage(_)));
    error.to_string()
}

#[test]
fn every_flag_lands_in_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("a:b.txt");
    std::fs::write(&text, "words\n").unwrap();
    let file = format!("{}:/in/a.txt", text.display());
    let args = parse(&[
        "--image",
        "busybox:latest",
        "--name",
        "count",
        "--env",
        "A=1=2",
        "--env",
        "EMPTY=",
        "--file",
        &file,
        "--output",
        "report=/out/r.csv",
        "--output",
        "json",
        "--run-timeout",
        "10m",
        "--target",
        "local",
        "--label",
        "team=a",
        "--label",
        "x=",
        "--memory",
        "256Mi",
        "--cpu",
        "500m",
        "--",
        "sh",
        "-c",
        "echo --env",
    ]);
    assert_eq!(
        args.document().unwrap(),
        json!({
            "image": "busybox:latest", "name": "count", "target": "local",
            "env": {"A": "1=2", "EMPTY": ""},
            "files": [{"path": "/in/a.txt", "content": "words\n"}],
            "outputs": {"report": {"path": "/out/r.csv"}},
            "timeouts": {"run": "10m"},
            "labels": {"team": "a", "x": ""},
            "resources": {"memory": "256Mi", "cpu": "500m"},
            "command": ["sh", "-c", "echo --env"],
        })
    );
    assert_eq!(args.format(), Format::Json);
}

#[test]
fn a_document_made_of_flags_is_a_task() {
    let args = parse(&[
        "--image",
        "busybox",
        "--env",
        "A=1",
        "--output",
        "r=/r",
        "--run-timeout",
        "5s",
        "--memory",
        "1Gi",
        "--cpu",
        "2",
        "--label",
        "a=b",
        "--file",
        "Cargo.toml:/in/c",
        "--",
        "true",
    ]);
    let limits = crate::domain::spec::Limits::default();
    crate::domain::spec::parse(&args.document().unwrap(), &limits).unwrap();
}

#[test]
fn flags_change_what_a_file_says_and_keep_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("task.json");
    std::fs::write(
        &path,
        r#"{"image": "a", "env": {"A": 1, "B": 2}, "priority": 5, "unknown": null}"#,
    )
    .unwrap();
    let args = parse(&["-f", path.to_str().unwrap(), "--env", "A=9", "--image", "b"]);
    assert_eq!(
        args.document().unwrap(),
        json!({"image": "b", "env": {"A": "9", "B": 2}, "priority": 5, "unknown": null})
    );
    assert_eq!(args.format(), Format::Table);

    std::fs::write(&path, r#"{"image": "a", "env": 5}"#).unwrap();
    assert!(fault(&["-f", path.to_str().unwrap(), "--env", "A=9"]).contains("\"env\""));
    std::fs::write(&path, "[]").unwrap();
    assert!(fault(&["-f", path.to_str().unwrap()]).contains("is not a task"));
    std::fs::write(&path, "{").unwrap();
    assert!(fault(&["-f", path.to_str().unwrap()]).contains("is not JSON"));
}

#[test]
fn bytes_and_programs_survive() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tool");
    std::fs::write(&path, [0xff, 0, b'x']).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = format!("{}:/bin/tool", path.display());
    let document = parse(&["--image", "a", "--file", &file]).document().unwrap();
    assert_eq!(
        document["files"],
        json!([{"path": "/bin/tool", "content_base64": "/wB4", "mode": "0755"}])
    );
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_sent() {
    assert!(fault(&[]).contains("nothing to run: name an image"));
    assert!(fault(&["task.yaml"]).contains("-f task.yaml"));
    assert!(fault(&["--image", "a", "--label", "x"]).contains("KEY=VALUE"));
    assert!(fault(&["--image", "a", "--file", "x"]).contains("HERE:/THERE"));
    assert!(fault(&["--image", "a", "--file", ":/x"]).contains("HERE:/THERE"));
    assert!(fault(&["--image", "a", "--file", "/nowhere/x:/x"]).contains("/nowhere/x"));
    assert!(fault(&["--image", "a", "--env", "SUPERCARGO_TEST_UNSET"]).contains("has no value"));
    assert!(fault(&["-f", "/nowhere/task.json"]).contains("/nowhere/task.json"));
    for output in ["r=out", "=/out", "yaml"] {
        assert!(Command::try_parse_from(["x", "--output", output]).is_err(), "{output}");
    }
}

#[test]
fn an_image_may_stand_before_its_command() {
    let task = |args: &[&str]| parse(args).document().unwrap();
    let expected = json!({"image": "busybox:latest", "command": ["echo", "-n", "--env", "hi"]});
    for args in [
        &["busybox:latest", "echo", "-n", "--env", "hi"][..],
        &["busybox:latest", "--", "echo", "-n", "--env", "hi"],
        &["--image", "busybox:latest", "--", "echo", "-n", "--env", "hi"],
        &["--image", "busybox:latest", "echo", "-n", "--env", "hi"],
    ] {
        assert_eq!(task(args), expected, "{args:?}");
    }
    let expected = json!({"image": "a", "env": {"A": "1"}, "command": ["--", "x"]});
    assert_eq!(task(&["--env", "A=1", "a", "--", "--", "x"]), expected);
    assert_eq!(task(&["a"]), json!({"image": "a"}));
}

#[test]
fn work_and_retries_are_named_in_the_document() {
    let args = ["--run-key", "etl.1", "--on-duplicate", "attach", "--retries", "2", "--image", "a"];
    let submission = parse(&args).submission().unwrap();
    assert_eq!(
        submission.document,
        json!({"image": "a", "run_key": "etl.1", "on_duplicate": "attach", "retries": {"max": 2}})
    );
    assert!(submission.key.starts_with("cli-"));
    assert_eq!(parse(&["a", "--idempotency-key", "k"]).words, ["a", "--idempotency-key", "k"]);
    assert_eq!(parse(&["--idempotency-key", "k", "a"]).submission().unwrap().key, "k");
}
