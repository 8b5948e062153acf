//! A task as the command line writes it: from a JSON file, from flags, or from a file that flags
//! change.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::client::Error;
use super::format::Format;

/// What to run.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TaskArgs {
    /// JSON file with the task, "-" for stdin; the other options then change it
    #[arg(short = 'f', long = "task", value_name = "FILE")]
    task: Option<PathBuf>,

    /// Image to run
    #[arg(long)]
    image: Option<String>,

    /// Name of the task [default: from the image]
    #[arg(long)]
    name: Option<String>,

    /// Environment variable; without a value the one it has here
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Put a file of this machine into the container
    #[arg(long, value_name = "HERE:/THERE")]
    file: Vec<String>,

    /// File or folder to hand back as an output; or how to print
    #[arg(long, value_name = "NAME=/PATH|json|table")]
    output: Vec<OutputArg>,

    /// How long the task may run, for example 10m
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,

    /// Where to run it [default: the service's default target]
    #[arg(long)]
    target: Option<String>,

    /// Label, to find the task again
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Most memory, for example 256Mi
    #[arg(long)]
    memory: Option<String>,

    /// Most CPU, for example 500m or 2
    #[arg(long)]
    cpu: Option<String>,

    /// The same key is always the same task [default: a new one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,

    /// Command and its arguments [default: the image's own]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `--output` says two things, told apart by the `=`: what to hand back, and how to print.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OutputArg {
    File { name: String, path: String },
    Print(Format),
}

impl FromStr for OutputArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && path.starts_with('/') => {
                Ok(Self::File { name: name.to_owned(), path: path.to_owned() })
            }
            Some(_) => Err("write NAME=/PATH with an absolute path in the container".to_owned()),
            None => Format::from_str(text).map(Self::Print),
        }
    }
}

impl TaskArgs {
    pub(crate) fn format(&self) -> Format {
        let print = |it: &OutputArg| match it {
            OutputArg::Print(format) => Some(*format),
            OutputArg::File { .. } => None,
        };
        self.output.iter().rev().find_map(print).unwrap_or_default()
    }

    /// The document to submit.
    pub(crate) fn document(&self) -> Result<Value, Error> {
        let mut task = match &self.task {
            None => Map::new(),
            Some(path) => read_document(path)?,
        };
        if self.task.is_none() && self.image.is_none() {
            return Err(usage("nothing to run: name an --image, or a file with the task with -f"));
        }
        for (key, value) in [("image", &self.image), ("name", &self.name), ("target", &self.target)]
        {
            if let Some(value) = value {
                task.insert(key.to_owned(), json!(value));
            }
        }
        for text in &self.env {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (text.as_str(), inherited(text)?),
            };
            object(&mut task, "env")?.insert(name.to_owned(), json!(value));
        }
        for text in &self.label {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| usage(format!("--label {text}: write KEY=VALUE")))?;
            object(&mut task, "labels")?.insert(name.to_owned(), json!(value));
        }
        for it in &self.output {
            if let OutputArg::File { name, path } = it {
                object(&mut task, "outputs")?.insert(name.clone(), json!({"path": path}));
            }
        }
        for (key, value) in [("memory", &self.memory), ("cpu", &self.cpu)] {
            if let Some(value) = value {
                object(&mut task, "resources")?.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(timeout) = &self.timeout {
            object(&mut task, "timeouts")?.insert("run".to_owned(), json!(timeout));
        }
        for text in &self.file {
            list(&mut task, "files")?.push(input_file(text)?);
        }
        if !self.command.is_empty() {
            task.insert("command".to_owned(), json!(self.command));
        }
        Ok(Value::Object(task))
    }
}

fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
}

fn read_document(path: &Path) -> Result<Map<String, Value>, Error> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        ("stdin".into(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (path.to_string_lossy(), std::fs::read_to_string(path))
    };
    let text = text.map_err(|error| usage(format!("can't read {name}: {error}")))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(task)) => Ok(task),
        Ok(_) => Err(usage(format!("{name} is not a task: write an object, {{\"image\": …}}"))),
        Err(error) => Err(usage(format!("{name} is not JSON: {error}"))),
    }
}

fn inherited(name: &str) -> Result<String, Error> {
    std::env::var_os(name)
        .and_then(|it| it.into_string().ok())
        .ok_or_else(|| usage(format!("--env {name}: it has no value here: write {name}=VALUE")))
}

/// `./a.txt:/in/a.txt`. The path in the container is absolute, so that the colon before its slash
/// is the border, whatever the name here holds.
fn input_file(text: &str) -> Result<Value, Error> {
    let (here, there) =
        text.rsplit_once(":/").filter(|(here, _)| !here.is_empty()).ok_or_else(|| {
            usage(format!("--file {text}: write HERE:/THERE, as in ./a.txt:/in/a.txt"))
        })?;
    let bytes = std::fs::read(here)
        .map_err(|error| usage(format!("--file: can't read {here}: {error}")))?;
    let mut file = json!({"path": format!("/{there}")});
    match String::from_utf8(bytes) {
        Ok(text) => file["content"] = json!(text),
        Err(error) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
            file["content_base64"] = json!(encoded);
        }
    }
    if is_executable(here) {
        file["mode"] = json!("0755");
    }
    Ok(file)
}

fn is_executable(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o100 != 0)
}

fn object<'a>(
    task: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>, Error> {
    match task.entry(key).or_insert_with(|| json!({})) {
        Value::Object(map) => Ok(map),
        _ => {
            Err(usage(format!("{key:?} of the task is not an object: the options can't add to it")))
        }
    }
}

fn list<'a>(task: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, Error> {
    match task.entry(key).or_insert_with(|| json!([])) {
        Value::Array(items) => Ok(items),
        _ => Err(usage(format!("{key:?} of the task is not a list: the options can't add to it"))),
    }
}

#[cfg(test)]
mod tests {
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
            "--timeout",
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
            "--timeout",
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
        assert!(fault(&[]).contains("--image"));
        assert!(fault(&["--", "true"]).contains("--image"));
        assert!(fault(&["--image", "a", "--label", "x"]).contains("KEY=VALUE"));
        assert!(fault(&["--image", "a", "--file", "x"]).contains("HERE:/THERE"));
        assert!(fault(&["--image", "a", "--file", ":/x"]).contains("HERE:/THERE"));
        assert!(fault(&["--image", "a", "--file", "/nowhere/x:/x"]).contains("/nowhere/x"));
        assert!(
            fault(&["--image", "a", "--env", "SUPERCARGO_TEST_UNSET"]).contains("has no value")
        );
        assert!(fault(&["-f", "/nowhere/task.json"]).contains("/nowhere/task.json"));
        for output in ["r=out", "=/out", "yaml"] {
            assert!(Command::try_parse_from(["x", "--output", output]).is_err(), "{output}");
        }
    }
}
