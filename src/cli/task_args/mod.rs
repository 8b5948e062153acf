//! A task as the command line writes it: from a file, from flags, or from a file that flags change.

mod key;
mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::client::Error;
use super::format::Format;
use crate::domain::target::Placement;
use read::{inherited, input_file, read_document};

/// What to run.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TaskArgs {
    /// File with the task, "-" for stdin; the other options then change it
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
    run_timeout: Option<String>,

    /// Try again this often after failures of the task itself
    #[arg(long, value_name = "NUMBER")]
    retries: Option<u8>,

    /// Target to run it on, or labels that any of them is to have [default: the service's default target]
    #[arg(long, value_name = "NAME|KEY=VALUE,...")]
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

    /// Names the work: the same key is not done twice at a time
    #[arg(long, value_name = "KEY")]
    run_key: Option<String>,

    /// What to do where the run key is known
    #[arg(long, value_name = "attach_if_active|attach|reject|restart")]
    on_duplicate: Option<String>,

    /// Names the request: the same key is always the same task; "auto" makes one of the CI job and the task
    /// [default: a new one]
    #[arg(long, value_name = "KEY|auto")]
    idempotency_key: Option<String>,

    /// Image, where no option names one, and the command [default: the image's own]
    #[arg(
        value_name = "IMAGE] [--] [COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
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

    /// What to send.
    pub(crate) fn submission(&self) -> Result<Submission, Error> {
        let document = self.document()?;
        let key = match self.idempotency_key.as_deref() {
            Some("auto") => key::of_ci(&document)?,
            Some(key) => key.to_owned(),
            None => format!("cli-{}", uuid::Uuid::now_v7()),
        };
        Ok(Submission { document, key })
    }

    /// The document to submit.
    fn document(&self) -> Result<Value, Error> {
        let mut task = match &self.task {
            None => Map::new(),
            Some(path) => read_document(path)?,
        };
        let (image, command) = self.words()?;
        for (key, value) in [
            ("image", &image),
            ("name", &self.name),
            ("run_key", &self.run_key),
            ("on_duplicate", &self.on_duplicate),
        ] {
            if let Some(value) = value {
                task.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(target) = &self.target {
            task.insert("target".to_owned(), json!(Placement::of_text(target)));
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
        if let Some(retries) = self.retries {
            object(&mut task, "retries")?.insert("max".to_owned(), json!(retries));
        }
        if let Some(timeout) = &self.run_timeout {
            object(&mut task, "timeouts")?.insert("run".to_owned(), json!(timeout));
        }
        for text in &self.file {
            list(&mut task, "files")?.push(input_file(text)?);
        }
        if !command.is_empty() {
            task.insert("command".to_owned(), json!(command));
        }
        Ok(Value::Object(task))
    }

    /// The image and the command: the first word is the image, unless that is named elsewhere.
    fn words(&self) -> Result<(Option<String>, &[String]), Error> {
        if self.task.is_some() || self.image.is_some() {
            return Ok((self.image.clone(), behind_dashes(&self.words)));
        }
        match self.words.split_first() {
            None => Err(usage(
                "nothing to run: name an image, as in `supercargo run busybox:latest echo hi`, or a file \
                 with the task with -f",
            )),
            Some((file, [])) if is_document(file) => Err(usage(format!(
                "{file} is no image: a file with a task is named with -f {file}"
            ))),
            Some((image, command)) => Ok((Some(image.clone()), behind_dashes(command))),
        }
    }
}

/// `busybox -- echo hi` is `busybox echo hi`.
fn behind_dashes(words: &[String]) -> &[String] {
    match words.split_first() {
        Some((dashes, rest)) if dashes == "--" => rest,
        _ => words,
    }
}

fn is_document(name: &str) -> bool {
    let ending = std::path::Path::new(name).extension().and_then(|it| it.to_str());
    ending.is_some_and(|it| matches!(it, "json" | "yaml" | "yml"))
}

/// A task that is ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) document: Value,
    pub(crate) key: String,
}

impl Submission {
    /// As the task will be called, as far as that is known here.
    pub(crate) fn name(&self) -> String {
        let text = |key: &str| self.document[key].as_str();
        text("name").or(text("image")).unwrap_or("task").to_owned()
    }

    /// What to say where the answer to the submit was not waited for.
    pub(crate) fn in_doubt(&self) -> String {
        format!(
            "interrupted before the service answered: whether the task was accepted is not known; the same \
             command with `--idempotency-key {}` comes to the same task",
            self.key
        )
    }
}

fn usage(text: impl Into<String>) -> Error {
    Error::Usage(text.into())
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
