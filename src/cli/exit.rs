//! What the process says with its exit code.

use std::io;
use std::process::ExitCode;

use super::client;
use crate::config::Faults;

/// A command that follows a task to its end exits with the task's own exit code; these are the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    /// Also a task that failed without an exit code of its own.
    Failed,
    /// What was asked for makes no sense, or the service says so.
    Usage,
    Cancelled,
    /// The task goes on.
    TimedOut,
    /// The service, or the way to it.
    Service,
    /// As a shell reports an interrupt; the task goes on.
    Interrupted,
    /// As a shell reports a reader that went away.
    BrokenPipe,
    /// The exit code of a task; never 0.
    Task(u8),
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::TimedOut => 4,
            Self::Service => 5,
            Self::Interrupted => 130,
            Self::BrokenPipe => 141,
            Self::Task(code) => code,
        }
    }

    /// The exit code that an error stands for.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(error) = cause.downcast_ref::<client::Error>() {
                return error.exit();
            }
            if cause.is::<Faults>() {
                return Self::Usage;
            }
            if cause.downcast_ref::<io::Error>().is_some_and(is_broken_pipe) {
                return Self::BrokenPipe;
            }
        }
        Self::Failed
    }
}

pub(crate) fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
