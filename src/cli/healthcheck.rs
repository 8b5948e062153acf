//! `supercargo healthcheck`: for a container's health check, so that an image needs no curl.

use std::time::Duration;

use reqwest::Method;

use super::client::Client;
use super::exit::Exit;
use super::format::{self, Format, FormatArgs};

/// What a health check takes at most; engines give up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    format: FormatArgs,
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let request = client.request_root(Method::GET, &["readyz"], &[]).timeout(TIMEOUT);
    let response = client.accepted(request).await?;
    let body = client.body(response).await?;
    if args.format.output == Format::Json {
        let readiness = serde_json::from_slice(&body).map_err(|it| client.unexpected(&it))?;
        format::json(&readiness)?;
    }
    Ok(Exit::Ok)
}
