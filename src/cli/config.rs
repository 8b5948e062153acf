//! `supercargo config`: the reference of all settings, and a check of those in force.

use super::client::Options;
use super::exit::Exit;
use super::out;
use super::service_args::ServeArgs;
use crate::config::REFERENCE;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check the settings in force, and print them with where each one comes from
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    settings: ServeArgs,
}

pub(crate) fn run(options: &Options, args: &Args) -> anyhow::Result<Exit> {
    if !args.check {
        out::text(REFERENCE)?;
        return Ok(Exit::Ok);
    }
    let config = args.settings.load(options)?;
    out::text(config.print())?;
    for note in config.notes() {
        out::note(format_args!("note: {note}"));
    }
    Ok(Exit::Ok)
}
