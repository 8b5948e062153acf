//! Which tasks come to which step, and by which way.

use supercargo::failpoints::Point;

use super::mix::Kind;
use super::rounds::{Arm, Round};
use super::seed::Random;

/// Steps that need more than tasks on an engine have tests of their own in `apart.rs`.
pub(crate) const APART: [(Point, &str); 3] = [
    (Point::PullDone, "an image that is missing, and a registry that has it"),
    (Point::UnclaimCommitted, "somebody who removes a container before it is started"),
    (Point::WeekDropped, "history that is older than what is kept"),
];

/// Always swept.
pub(crate) const CORE: [Point; 8] = [
    Point::SubmitCommitted,
    Point::ClaimCommitted,
    Point::CreateInFlight,
    Point::StartInFlight,
    Point::StartAnswered,
    Point::RecordUncommitted,
    Point::RecordCommitted,
    Point::CleanupBegun,
];

/// The tasks that bring the service to a step, and how often it comes there at least.
fn needs(point: Point) -> (&'static [Kind], u32) {
    use Kind::{
        BigLog, ByHand, Cancelled, CancelledInQueue, Expires, Files, Kept, Killed, Outputs,
        SlowOutput, Small, Streams,
    };
    match point {
        // Anything else is one statement.
        Point::SubmitUncommitted => (&[Kind::Batch], 1),
        Point::CancelUncommitted | Point::CancelCommitted => (&[Cancelled, CancelledInQueue], 2),
        Point::RetryUncommitted | Point::RetryCommitted => (&[ByHand], 1),
        Point::ExpireUncommitted | Point::ExpireCommitted => (&[Expires], 1),
        Point::FilesPut => (&[Files, Files], 2),
        Point::RunningUncommitted | Point::RunningCommitted => (&[Cancelled, BigLog], 2),
        Point::ChunkBegun | Point::ChunkStored => (&[BigLog], 3),
        Point::SignalBegun | Point::SignalSent => (&[Cancelled, Killed], 2),
        Point::KillSent => (&[Killed], 1),
        Point::FinishingCommitted => (&[SlowOutput], 1),
        Point::ObjectWritten | Point::ObjectStored => (&[Outputs, Outputs], 2),
        Point::RecordUncommitted => (&[Outputs, Streams, Small], 3),
        Point::KeptRenamed => (&[Kept], 1),
        _ => (&[Small, Streams, Outputs], 3),
    }
}

const fn arm(point: Point, turn: u32, must: bool) -> Arm {
    Arm { point, turn, must }
}

/// The kills that come before the one at a step that only what was left behind comes to.
fn before(point: Point) -> Option<Arm> {
    match point {
        Point::WorkerRegistered | Point::TakeCommitted | Point::InspectAnswered => {
            Some(arm(Point::StartAnswered, 1, true))
        }
        Point::AdoptRenamed => Some(arm(Point::StartBegun, 1, true)),
        Point::SweepBegun | Point::SweepDone => Some(arm(Point::CleanupBegun, 1, true)),
        _ => None,
    }
}

/// A second kill, where the service picks up what the first one left.
const AGAIN: [Point; 8] = [
    Point::WorkerRegistered,
    Point::TakeCommitted,
    Point::InspectAnswered,
    Point::AdoptRenamed,
    Point::StartAnswered,
    Point::Collected,
    Point::RecordCommitted,
    Point::CleanupBegun,
];

/// A round that ends the process at a step, at one of the times that it comes there.
pub(crate) fn round(point: Point, turn: u32, kinds: usize, random: &mut Random) -> Round {
    let (needed, often) = needs(point);
    let before = before(point);
    let often = if before.is_some() { 1 } else { often };
    let mut all = needed.to_vec();
    while all.len() < kinds {
        all.push(*random.one_of(&Kind::QUICK));
    }
    let mut arms: Vec<Arm> = before.into_iter().collect();
    arms.push(arm(point, turn.min(often), true));
    if random.below(3) == 0 {
        let again = *random.one_of(&AGAIN);
        arms.push(arm(again, 1, again == Point::WorkerRegistered));
    }
    Round { arms, kinds: all, guards_out: "" }
}
