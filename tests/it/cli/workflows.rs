//! What the command line says of workflows by itself.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{Done, command, finish};

async fn run(args: &[&str], stdin: &str) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), args).stdin(Stdio::piped()).spawn().unwrap();
    // It may have refused its arguments before it reads.
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap_or_default();
    finish(child).await
}

fn example(name: &str) -> String {
    format!("{}/examples/workflows/{name}", env!("CARGO_MANIFEST_DIR"))
}

const FAULTY: &str = "\
name: etl
params:
  n: {type: integer, defualt: 2}
tasks:
  extract:
    image: busybox
    comand: [echo, hello]
  no: {image: busybox}
  load:
    needs: [extrat]
    env:
      ROWS: ${{ tasks.clean.outputs.rows }}
    timeouts: {run: 1 hour}
  clean:
    image: busybox
    needs:
      - load
    target: moon
";

#[tokio::test]
async fn every_fault_has_its_line_and_column() {
    let done = run(&["validate", "-f", "-"], FAULTY).await.exits_with(1);
    insta::assert_snapshot!(done.stdout);
    assert_eq!(done.stderr, "error: stdin is not valid: 7 faults\n");

    let done = run(&["validate", "-f", "-", "--output", "json"], FAULTY).await.exits_with(1);
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        (&told["valid"], told["faults"].as_array().unwrap().len()),
        (&Value::Bool(false), 7)
    );
    assert_eq!(
        (&told["faults"][0]["line"], &told["faults"][0]["pointer"]),
        (&Value::from(3), &Value::from("/params/n/defualt"))
    );
}

#[tokio::test]
async fn what_is_no_yaml_or_no_file_says_so() {
    let mut shown = Vec::new();
    for text in [
        "tasks:\n  a: {image: a}\n  a: {image: b}\n",
        "tasks: [a\n",
        "{\"tasks\": {\"a\": {}, \"a\": 1}}",
        "",
        "{\n \"tasks\": {\"a\": {\"imag\": \"a\"}}}",
        "a: &a [*a]\n",
    ] {
        shown.push(run(&["validate", "-f", "-"], text).await.exits_with(1).stdout);
    }
    insta::assert_snapshot!(shown.join(""));
    let done = run(&["validate", "-f", "/nowhere.yaml"], "").await.exits_with(2);
    assert!(done.stderr.starts_with("error: can't read /nowhere.yaml: "), "{}", done.stderr);
}

#[tokio::test]
async fn a_workflow_that_is_valid_is_silent_on_stdout() {
    let file = example("ci.yaml");
    let done = run(&["validate", "-f", &file], "").await.exits_with(0);
    assert_eq!(
        (done.stdout, done.stderr),
        (String::new(), format!("{file} is valid: 6 tasks in 3 layers\n"))
    );
    let file = example("etl.yaml");
    run(&["validate", "-f", &file, "-p", "parts=2"], "").await.exits_with(0);
    let done =
        run(&["validate", "-f", &file, "-p", "parts=20", "-p", "prats=1"], "").await.exits_with(1);
    insta::assert_snapshot!(done.stdout);
}

#[tokio::test]
async fn a_graph_is_drawn_as_text_and_for_graphviz() {
    let (text, dot) = (example("ci.yaml"), example("etl.yaml"));
    let text = run(&["graph", "-f", &text], "").await.exits_with(0).stdout;
    let dot = run(&["graph", "-f", &dot, "--dot"], "").await.exits_with(0).stdout;
    insta::assert_snapshot!(format!("{text}\n{dot}"));
    let done = run(&["graph", "-f", "-"], FAULTY).await.exits_with(1);
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("stdin:7:5: unknown field \"comand\""), "{}", done.stderr);
}

#[tokio::test]
async fn the_schema_is_the_one_that_is_served() {
    let done = run(&["schema"], "").await.exits_with(0);
    assert_eq!(done.stdout, supercargo::api::workflow_schema());
}
