//! The client commands against a stand-in for the service, which says exactly what a test wants said.
//! What they do against the real one is tested elsewhere.

mod ci;
mod commands;
mod fake;
mod follow;
mod keys;
mod streams;
mod terminal;
mod workflows;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use fake::Fake;

/// Beyond any doubt that something hangs.
const DEADLINE: Duration = Duration::from_mins(1);

fn command(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_supercargo"));
    command.args(args).env_clear().env("SUPERCARGO__DATA_DIR", data_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Finds the stand-in as it finds the service, by the file in the data directory.
async fn supercargo(fake: &Fake, args: &[&str]) -> Done {
    finish(command(fake.data_dir(), args).spawn().expect("the program starts")).await
}

async fn finish(child: Child) -> Done {
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output());
    Done::new(output.await.expect("it ends").expect("it ran"))
}

/// Ctrl-C is one, and what a CI system sends is the other.
fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = child.id().and_then(|it| i32::try_from(it).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw).expect("it runs");
    rustix::process::kill_process(pid, signal).expect("it is told");
}

#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    #[track_caller]
    fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}
