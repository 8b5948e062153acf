//! `supercargo migrate`: brings the database to this version.

use super::client::Options;
use super::exit::Exit;
use super::out;
use super::service_args::ServiceArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: ServiceArgs,
}

pub(crate) async fn run(options: &Options, args: &Args) -> anyhow::Result<Exit> {
    let config = args.settings.load(options)?;
    let report = crate::app::migrate(&config).await?;
    out::text(report)?;
    Ok(Exit::Ok)
}
