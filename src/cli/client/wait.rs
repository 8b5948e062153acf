//! Waits for the end of a task, over restarts of the service.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};

use super::backoff::Backoff;
use super::{Client, Error, Task};

/// The longest that the service holds one request.
const ONE_WAIT: Duration = Duration::from_secs(50);
/// What the answer may take beyond that.
const SLACK: Duration = Duration::from_secs(15);
/// How long the service may be away before a follower gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// None: the deadline passed first.
pub(crate) async fn wait_until_terminal(
    client: &mut Client,
    id: &str,
    deadline: Option<Instant>,
) -> Result<Option<Task>, Error> {
    let mut backoff = Backoff::new(PATIENCE);
    loop {
        let asked = Instant::now();
        let left =
            deadline.map_or(ONE_WAIT, |it| it.saturating_duration_since(asked).min(ONE_WAIT));
        match ask(client, id, left).await {
            Ok(Some(task)) => {
                backoff.reset();
                return Ok(Some(task));
            }
            Ok(None) => {
                backoff.reset();
                if deadline.is_some_and(|it| it <= Instant::now()) {
                    return Ok(None);
                }
                // A service that stops answers its waits early: no reason to besiege it.
                if asked.elapsed() < left / 2 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Err(error) => {
                if deadline.is_some_and(|it| it <= Instant::now()) {
                    return Ok(None);
                }
                backoff.after(error).await?;
                client.find_again();
            }
        }
    }
}

/// None: the task has not ended yet.
async fn ask(client: &Client, id: &str, wait: Duration) -> Result<Option<Task>, Error> {
    // Whole seconds, rounded up: the header form of the same thing takes nothing else.
    let seconds = format!("{}s", wait.as_millis().div_ceil(1_000).max(1));
    let request = client.request(Method::GET, &["tasks", id], &[("wait", &seconds)]);
    let response = client.send(request.timeout(wait + SLACK)).await?;
    match response.status() {
        // The whole task is the body of a failed dependency, too.
        StatusCode::OK | StatusCode::FAILED_DEPENDENCY => {
            let body = client.body(response).await?;
            let document = serde_json::from_slice(&body).map_err(|it| client.unexpected(&it))?;
            client.read_task(document).map(|it| Some(it).filter(|it| it.state.is_terminal()))
        }
        StatusCode::SEE_OTHER => Ok(None),
        _ => Err(client.refusal(response).await),
    }
}
