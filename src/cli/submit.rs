//! `supercargo submit`: submits a task and prints its id.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use super::client::{Backoff, Client, Error, Task};
use super::exit::Exit;
use super::format::{self, Format};
use super::out;
use super::task_args::{Submission, TaskArgs};
use super::watch::{LogTo, Watch, WatchArgs};

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

/// Staying with a task that was submitted or tried again.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until the task has ended, and exit with its exit code
    #[arg(long)]
    wait: bool,

    /// Wait, and print the log meanwhile: its stdout to stdout, its stderr to stderr
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

impl WaitArgs {
    pub(crate) fn wanted(&self) -> bool {
        self.wait || self.follow || self.watch.wanted()
    }

    pub(crate) fn log(&self, format: Format) -> LogTo {
        if self.follow { LogTo::with(format) } else { LogTo::Nowhere }
    }
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let format = args.task.format();
    let submission = args.task.submission()?;
    if !args.wait.wanted() {
        let task = submit(client, &submission).await?;
        match format {
            Format::Json => format::json(&task.document)?,
            Format::Table => out::text(&task.id)?,
        }
        return Ok(Exit::Ok);
    }
    let watch = Watch {
        args: &args.wait.watch,
        log: args.wait.log(format),
        format,
        name: submission.name(),
        in_doubt: submission.in_doubt(),
    };
    watch.run(client, async |client| submit(client, &submission).await).await
}

/// Submits under an idempotency key, so that a request whose answer was lost can be sent again.
pub(crate) async fn submit(client: &mut Client, task: &Submission) -> Result<Task, Error> {
    let header = key_header(&task.key)?;
    let mut backoff = Backoff::new(PATIENCE);
    let mut first = true;
    loop {
        match send(client, task, &header).await {
            Ok(task) => return Ok(task),
            // Nothing was sent: most likely no service was started, which is to be said at once.
            Err(error @ Error::NotRunning { .. }) if first => return Err(error),
            Err(error) => backoff.after(error).await?,
        }
        first = false;
        client.find_again();
    }
}

async fn send(client: &Client, task: &Submission, key: &HeaderValue) -> Result<Task, Error> {
    let request = client
        .request(Method::POST, &["tasks"], &[])
        .header(CONTENT_TYPE, "application/json")
        .header("idempotency-key", key)
        .body(task.document.to_string())
        .timeout(TIMEOUT);
    let response = client.accepted(request).await?;
    let header = |name: &str| {
        response.headers().get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (replayed, duplicate) = (header("idempotent-replayed"), header("supercargo-duplicate"));
    let body = client.body(response).await?;
    let task = serde_json::from_slice(&body).map_err(|error| client.unexpected(&error))?;
    let task = client.read_task(task)?;
    if let Some(news) = news(&replayed, &duplicate) {
        out::note(format_args!("task {} {news}", task.id));
    }
    Ok(task)
}

/// What there is to say of a task that was there before.
fn news(replayed: &str, duplicate: &str) -> Option<String> {
    let news = match (replayed, duplicate) {
        ("true", _) => "was submitted before under this key",
        (_, "attached") => "has this run key already: following that one",
        (_, "retried") => "has this run key and did not succeed: trying it again",
        (_, "restarted") => "takes the place of the one that had this run key",
        (_, "") => return None,
        (_, other) => return Some(format!("had this run key ({other})")),
    };
    Some(news.to_owned())
}

fn key_header(key: &str) -> Result<HeaderValue, Error> {
    let is_good = (1..=255).contains(&key.len()) && key.bytes().all(|it| matches!(it, b' '..=b'~'));
    let header = HeaderValue::from_str(key).ok().filter(|_| is_good);
    header.ok_or_else(|| {
        Error::Usage("--idempotency-key has 1 to 255 characters of printable ASCII".to_owned())
    })
}
