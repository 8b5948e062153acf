//! `supercargo migrate`: brings the database to this version.

use super::client::Options;
use super::exit::Exit;
use super::out;
use super::service_args::ServiceArgs;
use crate::store::MigrateReport;
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: ServiceArgs,
}

pub(crate) async fn run(options: &Options, args: &Args) -> anyhow::Result<Exit> {
    let config = args.settings.load(options)?;
    telemetry::init(&config.telemetry);
    let MigrateReport { applied, version } = crate::app::migrate(&config).await?;
    out::text(match applied {
        0 => format!("the database is at version {version}, nothing to do"),
        1 => format!("applied 1 migration, the database is at version {version}"),
        _ => format!("applied {applied} migrations, the database is at version {version}"),
    })?;
    Ok(Exit::Ok)
}
