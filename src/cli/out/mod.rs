//! The only place that prints: data to stdout, words for people to stderr.

mod status;
mod style;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use status::StatusLine;

pub(crate) use style::{Color, Style};

static MANNER: OnceLock<Manner> = OnceLock::new();
static STATUS: StatusLine = StatusLine::new();

/// How to speak. Every command takes these.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct OutArgs {
    /// Say nothing besides data and errors
    #[arg(short, long, global = true, help_heading = "Words")]
    quiet: bool,

    /// Colours and a line of progress: auto is for terminals, and where `NO_COLOR` is not set
    #[arg(long, global = true, help_heading = "Words", value_name = "auto|always|never")]
    #[arg(default_value = "auto", hide_default_value = true)]
    color: Color,
}

#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    quiet: bool,
    color: bool,
    progress: bool,
}

/// To be called once, before anything is printed.
pub(crate) fn init(args: OutArgs) {
    let terminal = io::stderr().is_terminal() && style::is_capable();
    let color = args.color.wanted(terminal);
    // Nobody else sets it; what was set first stays.
    MANNER.set(Manner { quiet: args.quiet, color, progress: terminal }).unwrap_or_default();
}

fn manner() -> Manner {
    MANNER.get().copied().unwrap_or_default()
}

/// Whether there is somebody to watch a line that changes.
pub(crate) fn has_progress() -> bool {
    manner().progress && !manner().quiet
}

/// Bytes for stdout, there at once: a log is watched while it grows.
pub(crate) fn data(bytes: &[u8]) -> io::Result<()> {
    STATUS.around(bytes, io::stdout().is_terminal(), || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    })
}

/// Text for stdout, with the end of its last line if that lacks one.
pub(crate) fn text(text: impl Display) -> io::Result<()> {
    let mut text = text.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    data(text.as_bytes())
}

/// Bytes for people, as they are: what a task wrote to its stderr, say.
pub(crate) fn aside(bytes: &[u8]) -> io::Result<()> {
    STATUS.around(bytes, true, || io::stderr().lock().write_all(bytes))
}

/// A line for people who did not ask for silence.
pub(crate) fn note(text: impl Display) {
    if !manner().quiet {
        hint(text);
    }
}

/// A line for people that nobody may miss.
pub(crate) fn hint(text: impl Display) {
    // Where stderr is closed nobody is left to be told.
    aside(format!("{text}\n").as_bytes()).unwrap_or_default();
}

/// What was wrong.
pub(crate) fn error(text: impl Display) {
    hint(format_args!("{} {text}", paint(Style::Bad, "error:")));
}

/// A line that is replaced by the next one, and gone when something else is said.
pub(crate) fn status(text: Option<&str>) {
    if has_progress() {
        STATUS.set(text);
    }
}

/// Text for stderr, coloured where that is wanted.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if manner().color { style.paint(text) } else { text.to_owned() }
}
