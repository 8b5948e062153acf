//! `supercargo submit`: submits a task and prints its id.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::client::{Backoff, Client, Error, Task, wait_until_terminal};
use super::exit::Exit;
use super::format::{self, Format};
use super::out;
use super::task_args::TaskArgs;

/// How long a submit is repeated that may or may not have arrived.
const PATIENCE: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    task: TaskArgs,

    #[command(flatten)]
    wait: WaitArgs,
}

/// Waiting for the end of a task.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until the task has ended, and exit with its exit code
    #[arg(long)]
    pub(crate) wait: bool,

    /// Stop waiting after this long, with exit code 4; the task goes on
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) wait_timeout: Option<Duration>,
}

impl WaitArgs {
    pub(crate) fn wanted(&self) -> bool {
        self.wait || self.wait_timeout.is_some()
    }

    pub(crate) async fn until_terminal(
        &self,
        client: &mut Client,
        id: &str,
    ) -> Result<Task, Error> {
        let deadline = self.wait_timeout.map(|it| Instant::now() + it);
        wait_until_terminal(client, id, deadline).await?.ok_or_else(|| still_running(id))
    }
}

pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    crate::domain::quantity::parse_duration(text).map(jiff::SignedDuration::unsigned_abs)
}

pub(crate) fn still_running(id: &str) -> Error {
    Error::TimedOut(format!(
        "task {id} has not ended yet and goes on: `supercargo run --attach {id}` comes back to it"
    ))
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let format = args.task.format();
    let mut task = submit(client, &args.task).await?;
    if args.wait.wanted() {
        out::note(format_args!("task {} {}", task.id, task.state.0));
        task = args.wait.until_terminal(client, &task.id).await?;
        out::note(task.summary());
    }
    match format {
        Format::Json => format::json(&task.document)?,
        Format::Table => out::text(&task.id)?,
    }
    Ok(if args.wait.wanted() { task.exit() } else { Exit::Ok })
}

/// Submits under an idempotency key, so that a request whose answer was lost can be sent again.
pub(crate) async fn submit(client: &mut Client, args: &TaskArgs) -> Result<Task, Error> {
    let document = args.document()?;
    let key =
        args.idempotency_key.clone().unwrap_or_else(|| format!("cli-{}", uuid::Uuid::now_v7()));
    let header = key_header(&key)?;
    let mut backoff = Backoff::new(PATIENCE);
    let mut first = true;
    loop {
        match send(client, &document, &header).await {
            Ok(task) => return Ok(task),
            // Nothing was sent: most likely no service was started, which is to be said at once.
            Err(error @ Error::NotRunning { .. }) if first => return Err(error),
            Err(error) => backoff.after(error).await?,
        }
        first = false;
        client.find_again();
    }
}

async fn send(client: &Client, document: &Value, key: &HeaderValue) -> Result<Task, Error> {
    let request = client
        .request(Method::POST, &["tasks"], &[])
        .header(CONTENT_TYPE, "application/json")
        .header("idempotency-key", key)
        .body(document.to_string())
        .timeout(TIMEOUT);
    let response = client.accepted(request).await?;
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|it| it == "true");
    let body = client.body(response).await?;
    let task = serde_json::from_slice(&body).map_err(|error| client.unexpected(&error))?;
    let task = client.read_task(task)?;
    if replayed {
        out::note(format_args!("task {} was submitted before under this key", task.id));
    }
    Ok(task)
}

fn key_header(key: &str) -> Result<HeaderValue, Error> {
    let is_good = (1..=255).contains(&key.len()) && key.bytes().all(|it| matches!(it, b' '..=b'~'));
    let header = HeaderValue::from_str(key).ok().filter(|_| is_good);
    header.ok_or_else(|| {
        Error::Usage("--idempotency-key has 1 to 255 characters of printable ASCII".to_owned())
    })
}
