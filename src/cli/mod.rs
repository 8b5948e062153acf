//! The command line: the service's own commands, and a client of its API.
//!
//! Data goes to stdout and words for people to stderr, both through [`out`]; exit codes are those of
//! [`exit`]. The client commands know the service by its API alone, so that they work against any.

mod cancel;
mod client;
mod completions;
mod config;
mod doctor;
mod events;
mod exit;
mod format;
mod get;
mod graph;
mod healthcheck;
mod interrupts;
mod list;
mod logs;
mod migrate;
mod openapi;
mod out;
mod outputs;
mod report;
mod result;
mod retry;
mod run;
mod schema;
mod serve;
mod service_args;
mod submit;
mod targets;
mod task_args;
mod token;
mod validate;
mod wait;
mod watch;
mod workflow_file;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::Faults;
use exit::Exit;

/// Runs containers for pipelines: submit over HTTP, keep the logs, exit codes and outputs
#[derive(Debug, Parser)]
#[command(name = "supercargo", version)]
#[command(after_help = "\
Exit codes: that of the task where a command waits for it; else 0 ok, 1 failed, 2 usage,
3 cancelled, 4 timed out waiting (the task goes on), 5 the service or the network,
130 interrupted (the task goes on).")]
struct Cli {
    #[command(flatten)]
    options: client::Options,

    #[command(flatten)]
    out: out::OutArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submit a task, follow its log and exit with its exit code
    Run(run::Args),
    /// Submit a task and print its id
    Submit(submit::Args),
    /// Show one task
    Get(get::Args),
    /// List tasks, the newest first
    List(list::Args),
    /// Print the log of a task
    Logs(logs::Args),
    /// Print the result of a task: its outputs as JSON, and nothing else
    Result(result::Args),
    /// List the outputs of a task
    Outputs(outputs::ListArgs),
    /// Fetch one output of a task
    Output(outputs::FetchArgs),
    /// Show what happened to a task
    Events(events::Args),
    /// Wait until tasks have ended
    Wait(wait::Args),
    /// Cancel a task
    Cancel(cancel::Args),
    /// Try a task again that failed, was cancelled or skipped
    Retry(retry::Args),
    /// Say what is wrong with a workflow, without asking any service
    Validate(validate::Args),
    /// Draw the graph of a workflow, as text or for Graphviz
    Graph(graph::Args),
    /// Print the JSON Schema of the workflow document, for editors
    Schema(schema::Args),
    /// List, put, check and delete targets: where tasks run
    Targets(targets::Args),
    /// Make, list and revoke tokens
    Token(token::Args),
    /// Run the service
    Serve(serve::Args),
    /// Bring the database to this version
    Migrate(migrate::Args),
    /// Print the reference of all settings, or check those in force
    Config(config::Args),
    /// Say whether the installation is healthy, and what to do where it is not
    Doctor(doctor::Args),
    #[command(about = "Write or check the OpenAPI document")]
    Openapi(openapi::Args),
    /// Exit with 0 if the service is ready
    Healthcheck(healthcheck::Args),
    /// Print a script that completes commands in a shell
    Completions(completions::Args),
}

pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Also `--help` and `--version`, which go to stdout and succeed.
            return match error.print() {
                Ok(()) => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
                Err(_) => Exit::BrokenPipe.into(),
            };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = Exit::of_error(&error);
            if exit != Exit::BrokenPipe {
                report(&error);
            }
            exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { options, out, command } = cli;
    out::init(out);
    match command {
        Command::Run(args) => with_client(&options, async |it| run::run(it, args).await),
        Command::Submit(args) => with_client(&options, async |it| submit::run(it, args).await),
        Command::Get(args) => with_client(&options, async |it| get::run(it, args).await),
        Command::List(args) => with_client(&options, async |it| list::run(it, args).await),
        Command::Logs(args) => with_client(&options, async |it| logs::run(it, args).await),
        Command::Result(args) => with_client(&options, async |it| result::run(it, args).await),
        Command::Outputs(args) => with_client(&options, async |it| outputs::list(it, args).await),
        Command::Output(args) => with_client(&options, async |it| outputs::fetch(it, args).await),
        Command::Events(args) => with_client(&options, async |it| events::run(it, args).await),
        Command::Wait(args) => with_client(&options, async |it| wait::run(it, args).await),
        Command::Cancel(args) => with_client(&options, async |it| cancel::run(it, args).await),
        Command::Retry(args) => with_client(&options, async |it| retry::run(it, args).await),
        Command::Targets(args) => with_client(&options, async |it| targets::run(it, args).await),
        Command::Token(args) => with_client(&options, async |it| token::run(it, args).await),
        Command::Healthcheck(args) => {
            with_client(&options, async |it| healthcheck::run(it, args).await)
        }
        Command::Serve(args) => block_on(Builder::new_multi_thread(), serve::run(&options, &args)),
        Command::Migrate(args) => {
            block_on(Builder::new_multi_thread(), migrate::run(&options, &args))
        }
        Command::Doctor(args) => {
            block_on(Builder::new_multi_thread(), doctor::run(&options, &args))
        }
        Command::Validate(args) => validate::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Config(args) => config::run(&options, &args),
        Command::Openapi(args) => openapi::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Client commands are over in milliseconds: they get one thread.
fn with_client(
    options: &client::Options,
    command: impl AsyncFnOnce(&mut client::Client) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    block_on(Builder::new_current_thread(), async {
        let mut client = client::Client::new(options)?;
        command(&mut client).await
    })
}

/// How long threads that nobody waits for may hold up the end.
const LAST_THREADS: Duration = Duration::from_secs(2);

fn block_on(
    mut runtime: Builder,
    command: impl Future<Output = anyhow::Result<Exit>>,
) -> anyhow::Result<Exit> {
    // One TLS provider for everything; an error says that there is one already.
    let _provider = rustls::crypto::ring::default_provider().install_default().err();
    let runtime: Runtime = runtime.enable_all().build().context("start the runtime")?;
    let result = runtime.block_on(command);
    // What was worth waiting for is done. A thread that waits for a plugin or for a file system that hangs is left.
    runtime.shutdown_timeout(LAST_THREADS);
    result
}

fn report(error: &anyhow::Error) {
    match error.downcast_ref::<Faults>() {
        Some(Faults(faults)) => {
            out::error("the configuration is not valid");
            for fault in faults {
                out::hint(format_args!("  {fault}"));
            }
        }
        None => out::error(format_args!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_client_stand_before_or_after_the_command() {
        for args in [
            ["supercargo", "--url", "http://h", "--token", "t", "get", "1"],
            ["supercargo", "get", "1", "--url", "http://h", "--token", "t"],
        ] {
            let cli = Cli::try_parse_from(args).unwrap();
            assert_eq!(cli.options.url.as_deref(), Some("http://h"));
            assert_eq!(cli.options.token.unwrap().expose(), "t");
        }
    }
}
