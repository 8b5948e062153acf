//! `supercargo logs`: prints the log of a task, byte for byte, each stream to its own.

use super::client::{Chunk, Client, Follower, Selection};
use super::exit::Exit;
use super::format::{Format, FormatArgs};
use super::out;
use super::report::{Report, ReportArgs};
use super::watch::LogTo;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the task, or key:<its run key>
    id: String,

    /// Go on until the task has ended, over restarts of the service too
    #[arg(short, long)]
    follow: bool,

    /// Attempt to begin with, from 1 [default: the latest]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    attempt: Option<i64>,

    /// Of this container, or '*' for all of them, each line with the name of its container [default: main]
    #[arg(long, value_name = "NAME|*")]
    container: Option<String>,

    /// Only what went to this stream
    #[arg(long, value_name = "stdout|stderr")]
    stream: Option<String>,

    /// Only the last lines
    #[arg(long, value_name = "NUMBER")]
    tail: Option<u64>,

    /// Only lines that are not older: a time, or how long ago, for example 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only lines that match this regular expression
    #[arg(long, value_name = "PATTERN")]
    grep: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
}

impl Args {
    fn selection(&self) -> Selection {
        let filters = [("stream", &self.stream), ("since", &self.since), ("grep", &self.grep)];
        let filters = filters.into_iter().filter_map(|(name, it)| Some((name, it.clone()?)));
        let container = self.container.clone();
        Selection { filters: filters.collect(), tail: self.tail, container }
    }
}

pub(crate) async fn run(client: &mut Client, args: Args) -> anyhow::Result<Exit> {
    let attempt = match args.attempt {
        // Followed, an attempt is read to its end before the next one begins.
        None if args.follow && !args.selection().is_of_several() => {
            Some(client.task(&args.id).await?.latest_attempt())
        }
        attempt => attempt,
    };
    let mut follower = Follower::new(&args.id, attempt).selecting(args.selection());
    let json = args.format.output == Format::Json;
    let mut sink = |it: Chunk<'_>| match it.json {
        Some(line) if json => out::text(String::from_utf8_lossy(line)),
        _ => LogTo::Streams.print(it.stream, it.bytes),
    };
    let mut report = Report::new(&ReportArgs::default());
    report.fold(&format!("log of task {}", args.id)).await;
    let printed = if args.follow {
        follower.follow(client, &mut sink).await.map(|_| ())
    } else {
        follower.print(client, &mut sink).await
    };
    report.unfold().await;
    printed?;
    Ok(Exit::Ok)
}
