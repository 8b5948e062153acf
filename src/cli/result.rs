//! `supercargo result`: prints the result of a task as it is, for the next program.

use std::time::Duration;

use reqwest::Method;

use super::client::Client;
use super::exit::Exit;
use super::out;

const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task
    id: String,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let request = client.request(Method::GET, &["tasks", &args.id, "result"], &[]);
    let response = client.accepted(request.timeout(TIMEOUT)).await?;
    let body = client.body(response).await?;
    out::text(String::from_utf8_lossy(&body))?;
    Ok(Exit::Ok)
}
