//! `supercargo healthcheck`: for a container's health check, so that an image needs no curl.

use std::time::Duration;

use reqwest::Method;

use super::client::Client;
use super::exit::Exit;
use super::out;

/// What a health check takes at most; engines give up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(client: &mut Client, _args: Args) -> anyhow::Result<Exit> {
    let request = client.request_root(Method::GET, &["readyz"], &[]).timeout(TIMEOUT);
    // Engines know 0 and 1: everything else is reserved.
    match client.accepted(request).await {
        Ok(_) => Ok(Exit::Ok),
        Err(error) => {
            out::note(format_args!("error: {error}"));
            Ok(Exit::Failed)
        }
    }
}
