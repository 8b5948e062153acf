//! `supercargo logs`: prints the log of a task, byte for byte.

use futures_util::StreamExt as _;
use reqwest::Method;

use super::client::{Client, Error, Follower};
use super::exit::Exit;
use super::out;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task
    id: String,

    /// Go on until the task has ended, over restarts of the service too
    #[arg(short, long)]
    follow: bool,

    /// Attempt to begin with, from 1 [default: the latest]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    attempt: Option<i64>,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let Args { id, follow, attempt } = args;
    if follow {
        let attempt = match attempt {
            Some(attempt) => attempt,
            None => client.task(&id).await?.latest_attempt(),
        };
        Follower::new(id, attempt).follow(client, &mut |_, bytes: &[u8]| out::data(bytes)).await?;
    } else {
        print(client, &id, attempt).await?;
    }
    Ok(Exit::Ok)
}

async fn print(client: &Client, id: &str, attempt: Option<i64>) -> Result<(), Error> {
    let attempt = attempt.map(|it| it.to_string());
    let query: Vec<_> = attempt.iter().map(|it| ("attempt", it.as_str())).collect();
    let request = client.request(Method::GET, &["tasks", id, "logs"], &query);
    let mut chunks = client.accepted(request).await?.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        out::data(&chunk.map_err(|error| client.lost(&error))?)?;
    }
    Ok(())
}
