//! Named steps at which a test ends or stops the process, and guards that a test takes out.
//!
//! Only a build with the feature `failpoints` can be told to fail. In any other one [`at`] is nothing and
//! [`holds`] is the constant true, so that neither leaves a trace in the program. What the environment of such
//! a build may say:
//!
//! - `SUPERCARGO_FAILPOINTS="start.answered=kill;record.committed=stop@3"`: the process gets SIGKILL, or
//!   SIGSTOP, when it comes to the step, for the third time.
//! - `SUPERCARGO_GUARDS_OUT="fence,lease_stop"`: the process does without these guards.
//!
//! The sweep in `tests/it/crash` ends the process at each step of [`Point::ALL`]; a step that is added here is
//! swept by itself. What the worker spawns goes through [`gated`], so that a test can have several workers in its own
//! process, and stop and end each of them at any await. Each [`Guard`] is taken out by a test that must then see a promise broken.

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
mod gate;

#[cfg(feature = "failpoints")]
pub use armed::{at, holds, in_flight, summary, without};
#[cfg(feature = "failpoints")]
pub use gate::{Gate, Gated, gated};

macro_rules! named {
    ($(#[$outer:meta])* $kind:ident { $($(#[$doc:meta])* $name:ident $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind {
            $($(#[$doc])* $name,)*
        }

        impl $kind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.as_str() == text)
            }
        }
    };
}

named! {
    /// A step at which the process may be ended. In the order of a task's life.
    Point {
        /// A submit was read and found valid; nothing is stored.
        SubmitRead "submit.read",
        /// Its statements are done, in a transaction that is not committed.
        SubmitUncommitted "submit.uncommitted",
        /// It is durable, and nobody was told.
        SubmitCommitted "submit.committed",
        /// The end or the stop of a task is written, not committed.
        CancelUncommitted "cancel.uncommitted",
        CancelCommitted "cancel.committed",
        /// A new attempt of an ended task is written, not committed.
        RetryUncommitted "retry.uncommitted",
        RetryCommitted "retry.committed",
        /// The end of a task that waited too long is written, not committed.
        ExpireUncommitted "expire.uncommitted",
        /// The scheduler has ended a task that waited too long.
        ExpireCommitted "expire.committed",
        /// A worker has its identity, and asked for nothing yet.
        WorkerRegistered "worker.registered",
        /// Tasks are claimed in the database, and nobody drives them.
        ClaimCommitted "claim.committed",
        /// Attempts are taken back or over, and nobody drives them.
        TakeCommitted "take.committed",
        /// A lease was renewed.
        LeaseRenewed "lease.renewed",
        /// A sandbox is about to be made.
        LaunchBegun "launch.begun",
        /// The engine was asked to make it, and may be doing so.
        CreateInFlight "create.in_flight",
        CreateAnswered "create.answered",
        /// An image was pulled.
        PullDone "pull.done",
        /// The task's files are in the sandbox.
        FilesPut "files.put",
        /// Looked at and found startable; the start is the next thing.
        StartBegun "start.begun",
        /// The engine was asked to start it, and may be doing so.
        StartInFlight "start.in_flight",
        StartAnswered "start.answered",
        /// A sandbox that another holder made was found and made one's own.
        AdoptRenamed "adopt.renamed",
        /// The engine said how the sandbox of a taken attempt is.
        InspectAnswered "inspect.answered",
        RunningUncommitted "running.uncommitted",
        RunningCommitted "running.committed",
        /// It goes back into the queue as the same attempt.
        UnclaimCommitted "unclaim.committed",
        /// A piece of log is about to be stored.
        ChunkBegun "chunk.begun",
        ChunkStored "chunk.stored",
        /// The stop signal is about to be sent.
        SignalBegun "signal.begun",
        SignalSent "signal.sent",
        KillSent "kill.sent",
        /// The exit of the sandbox is known.
        ExitSeen "exit.seen",
        FinishingCommitted "finishing.committed",
        /// The log was read to its end.
        LogDrained "log.drained",
        /// A file output is written under another name.
        ObjectWritten "object.written",
        /// It has its name in the object store.
        ObjectStored "object.stored",
        /// Log and outputs are there.
        Collected "collected",
        RecordUncommitted "record.uncommitted",
        RecordCommitted "record.committed",
        CleanupBegun "cleanup.begun",
        /// The engine was asked to remove a sandbox, and may be doing so.
        RemoveInFlight "remove.in_flight",
        /// A sandbox that is kept has its other name.
        KeptRenamed "kept.renamed",
        CleanupDone "cleanup.done",
        /// The sweeper is about to remove what is left over.
        SweepBegun "sweep.begun",
        SweepDone "sweep.done",
        /// The rows of a week are gone, its files are not.
        WeekDropped "week.dropped",
    }
}

named! {
    /// What keeps a promise. In the order of ARCHITECTURE.md's table, which says who notices if it is missing.
    Guard {
        /// A write of an attempt's holder names its fence.
        Fence "fence",
        /// Nothing is started but what an inspect in the same step found created.
        InspectBeforeStart "inspect_before_start",
        /// A sandbox that is put aside gets another name, so that a late start finds nothing.
        RenameKept "rename_kept",
        /// So does one that a new holder finds.
        RenameAdopted "rename_adopted",
        /// Only the engine that an attempt was given to can say that its sandbox is gone.
        SameEngine "same_engine",
        /// The end is written before the sandbox is removed.
        AccountBeforeRemove "account_before_remove",
        /// The sweeper removes what it does not know only if it did not know it the last time either.
        TwoPassSweep "two_pass_sweep",
        /// A key is stored in the transaction of its submit.
        KeyInSubmit "key_in_submit",
        /// A worker that could not renew its lease launches nothing.
        LeaseStop "lease_stop",
        /// It asks itself once more between create and start.
        LeaseBeforeStart "lease_before_start",
    }
}

/// The process has come to this step.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn at(_: Point) {}

/// The request that this step sends is on its way.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn in_flight(_: Point) -> std::future::Ready<()> {
    std::future::ready(())
}

/// Whether the guard is in its place.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn holds(_: Guard) -> bool {
    true
}

/// A future that is to be spawned, which a test may stop at any await.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn gated<F: Future>(future: F) -> F {
    future
}

/// What this process was told to do wrong.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn summary() -> Option<String> {
    None
}
