//! `supercargo serve`: runs the service.

use super::client::Options;
use super::exit::Exit;
use super::out;
use super::service_args::ServeArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: ServeArgs,
}

pub(crate) async fn run(options: &Options, args: &Args) -> anyhow::Result<Exit> {
    let config = args.settings.load(options)?;
    for note in config.notes() {
        out::note(format_args!("note: {note}"));
    }
    crate::app::serve(config).await?;
    Ok(Exit::Ok)
}
