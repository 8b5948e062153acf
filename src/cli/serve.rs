//! `supercargo serve`: runs the service.

use super::client::Options;
use super::exit::Exit;
use super::service_args::ServeArgs;
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: ServeArgs,
}

pub(crate) async fn run(options: &Options, args: &Args) -> anyhow::Result<Exit> {
    let config = args.settings.load(options)?;
    telemetry::init(&config.telemetry);
    crate::app::serve(config).await?;
    Ok(Exit::Ok)
}
