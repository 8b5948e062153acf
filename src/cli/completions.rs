//! `supercargo completions`: what a shell completes.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::exit::Exit;
use super::{Cli, out};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For this shell
    #[arg(value_name = "bash|zsh|fish")]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "supercargo", &mut script);
    out::data(&script)?;
    Ok(Exit::Ok)
}
