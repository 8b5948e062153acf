#![expect(clippy::wildcard_enum_match_arm, reason = "what is not named reads as it is")]

use proptest::prelude::*;

use super::*;
use crate::domain::exit::ExitStatus;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn exit(code: i32) -> ExitReport {
    ExitReport {
        status: ExitStatus::Code { code, oom_killed: false },
        started_at: Some(at(1)),
        finished_at: Some(at(2)),
        unwatched: false,
        fleeting: false,
    }
}

fn timeouts() -> Timeouts {
    Timeouts { run: Some(SignedDuration::from_secs(60)), ..Timeouts::default() }
}

fn every_event() -> Vec<Event> {
    vec![
        Event::Claimed(at(0)),
        Event::StopRequested(StopReason::Cancel),
        Event::Observed(Sandbox::Unknown),
        Event::Observed(Sandbox::Absent),
        Event::Observed(Sandbox::Created),
        Event::Observed(Sandbox::Running),
        Event::Observed(Sandbox::Exited(exit(0))),
        Event::Started(at(1)),
        Event::Refused(Failure::new(Reason::ImageNotFound, "no such image")),
        Event::AnswerLost,
        Event::NoAnswer(at(5)),
        Event::Signalled { reason: StopReason::Cancel, at: at(5) },
        Event::Forced,
        Event::Collected(None),
        Event::Recorded,
    ]
}

fn in_phase(phase: Phase) -> Attempt {
    let mut it = Attempt::queued(timeouts(), false);
    let steps: &[Event] = match phase {
        Phase::Queued => &[],
        Phase::Starting => &[Event::Claimed(at(0))],
        Phase::Running => &[Event::Claimed(at(0)), Event::Started(at(1))],
        Phase::Finishing => &[
            Event::Claimed(at(0)),
            Event::Started(at(1)),
            Event::Observed(Sandbox::Exited(exit(0))),
        ],
        Phase::Ended => &[
            Event::Claimed(at(0)),
            Event::Started(at(1)),
            Event::Observed(Sandbox::Exited(exit(0))),
            Event::Collected(None),
            Event::Recorded,
        ],
    };
    for step in steps {
        it.apply(step.clone()).unwrap();
    }
    it
}

fn word(action: &Action) -> String {
    match action {
        Action::Record(Ending::Known(outcome)) => format!("Record {}", outcome.state),
        Action::Record(Ending::Exited { .. }) => "Record exit".to_owned(),
        Action::Collect { .. } => "Collect".to_owned(),
        Action::Watch { until } => format!("Watch{}", if until.is_some() { " until" } else { "" }),
        other => format!("{other:?}"),
    }
}

/// The whole table: a change of behaviour is a change of this snapshot.
#[test]
fn every_event_in_every_phase() {
    let mut table = String::new();
    for phase in Phase::ALL {
        for event in every_event() {
            let mut attempt = in_phase(phase);
            let what = match &event {
                Event::Observed(Sandbox::Exited(_)) => "observed Exited".to_owned(),
                Event::Observed(sandbox) => format!("observed {sandbox:?}"),
                other => other.name().to_owned(),
            };
            let then = match attempt.apply(event) {
                Ok(()) => {
                    format!("{} → {}", attempt.phase.as_str(), word(&attempt.next_action(at(10))))
                }
                Err(_) => "illegal".to_owned(),
            };
            table.push_str(&format!("{:<9} {what:<17} {then}\n", phase.as_str()));
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_start_to_end_asks_for_each_step_once() {
    let mut it = Attempt::queued(Timeouts::default(), false);
    assert_eq!(it.next_action(at(0)), Action::Claim);
    it.apply(Event::Claimed(at(0))).unwrap();
    assert_eq!(it.next_action(at(0)), Action::Launch);
    it.apply(Event::Started(at(1))).unwrap();
    assert_eq!(it.next_action(at(1)), Action::Watch { until: None });
    it.apply(Event::Observed(Sandbox::Exited(exit(3)))).unwrap();
    assert_eq!(it.next_action(at(2)), Action::Collect { exit: exit(3) });
    it.apply(Event::Collected(None)).unwrap();
    assert_eq!(
        it.next_action(at(2)),
        Action::Record(Ending::Exited { exit: exit(3), stopped: None, output_fault: None })
    );
    it.apply(Event::Recorded).unwrap();
    assert_eq!(it.next_action(at(2)), Action::Cleanup);
}

#[test]
fn whoever_takes_over_looks_first() {
    for phase in [Phase::Starting, Phase::Running, Phase::Finishing] {
        let it = Attempt::taken_over(phase, None, None, timeouts(), false);
        assert_eq!(it.next_action(at(0)), Action::Inspect, "{phase:?}");
    }
}

#[test]
fn what_never_started_is_launched_again_by_the_next_holder() {
    let mut it = Attempt::taken_over(Phase::Starting, None, None, timeouts(), false);
    it.apply(Event::Observed(Sandbox::Absent)).unwrap();
    assert_eq!(it.next_action(at(0)), Action::Launch);
}

#[test]
fn at_most_once_is_not_launched_by_a_second_holder() {
    let mut it = Attempt::taken_over(Phase::Starting, None, None, timeouts(), true);
    it.apply(Event::Observed(Sandbox::Created)).unwrap();
    assert_eq!(it.next_action(at(0)), Action::Discard);
    it.apply(Event::Observed(Sandbox::Absent)).unwrap();
    assert_eq!(word(&it.next_action(at(0))), "Record failed");
    assert!(it.may_have_started(), "no other attempt may follow");
}

#[test]
fn at_most_once_is_not_launched_again_after_a_lost_answer() {
    let failed = ExitStatus::StartFailed { code: 128, message: "exists".to_owned() };
    let failed = ExitReport {
        status: failed,
        started_at: None,
        finished_at: None,
        unwatched: false,
        fleeting: false,
    };
    for sandbox in [Sandbox::Absent, Sandbox::Created, Sandbox::Exited(failed)] {
        let mut it = in_phase(Phase::Starting);
        it.at_most_once = true;
        it.launch_may_have_happened();
        it.apply(Event::AnswerLost).unwrap();
        it.apply(Event::Observed(sandbox.clone())).unwrap();
        assert_ne!(it.next_action(at(0)), Action::Launch, "{sandbox:?}");
        assert!(it.may_have_started(), "{sandbox:?}");
    }
}

#[test]
fn a_vanished_sandbox_is_never_a_success() {
    let mut it = Attempt::taken_over(Phase::Running, None, Some(at(1)), timeouts(), false);
    it.apply(Event::Observed(Sandbox::Absent)).unwrap();
    let Action::Record(Ending::Known(outcome)) = it.next_action(at(2)) else { panic!() };
    assert_eq!(outcome.failure.unwrap().reason, Reason::DeletedExternally);
}

#[test]
fn a_stop_signals_then_waits_then_kills() {
    let mut it = in_phase(Phase::Running);
    it.apply(Event::StopRequested(StopReason::Cancel)).unwrap();
    assert_eq!(it.next_action(at(5)), Action::Signal(StopReason::Cancel));
    it.apply(Event::Signalled { reason: StopReason::Cancel, at: at(5) }).unwrap();
    assert_eq!(it.next_action(at(6)), Action::Watch { until: Some(at(15)) });
    assert_eq!(it.next_action(at(15)), Action::Force);
    it.apply(Event::Forced).unwrap();
    assert_eq!(it.next_action(at(16)), Action::Watch { until: None });
}

#[test]
fn a_cancel_before_launch_never_starts_a_sandbox() {
    let mut it = in_phase(Phase::Starting);
    it.apply(Event::StopRequested(StopReason::Cancel)).unwrap();
    assert_eq!(word(&it.next_action(at(0))), "Record cancelled");
    it.apply(Event::Observed(Sandbox::Created)).unwrap();
    assert_eq!(it.next_action(at(0)), Action::Discard);
}

#[test]
fn the_run_timeout_stops_it_even_where_nobody_answers() {
    let it = in_phase(Phase::Running);
    assert_eq!(it.next_action(at(60)), Action::Watch { until: Some(at(61)) });
    assert_eq!(it.next_action(at(61)), Action::Signal(StopReason::RunTimeout));
    let mut unknown = it;
    unknown.apply(Event::AnswerLost).unwrap();
    assert_eq!(unknown.next_action(at(100)), Action::Inspect, "a lost answer alone ends nothing");
    unknown.apply(Event::NoAnswer(at(100))).unwrap();
    assert_eq!(unknown.next_action(at(399)), Action::Inspect);
    assert_eq!(word(&unknown.next_action(at(400))), "Record failed");
    unknown.apply(Event::Observed(Sandbox::Exited(exit(0)))).unwrap();
    assert_eq!(unknown.next_action(at(400)), Action::Collect { exit: exit(0) });
}

#[test]
fn who_comes_back_late_looks_before_it_calls_a_timeout() {
    for phase in [Phase::Starting, Phase::Running, Phase::Finishing] {
        let it = Attempt::taken_over(phase, None, Some(at(1)), timeouts(), false);
        assert_eq!(it.next_action(at(10_000)), Action::Inspect, "{phase:?}");
    }
}

#[test]
fn an_end_by_a_signal_that_was_wanted_is_ours_even_where_nobody_knows_who_sent_it() {
    let ended = |code, stop| {
        let mut it = Attempt::taken_over(Phase::Running, stop, Some(at(1)), timeouts(), false);
        it.apply(Event::Observed(Sandbox::Exited(exit(code)))).unwrap();
        it.apply(Event::Collected(None)).unwrap();
        let Action::Record(Ending::Exited { stopped, .. }) = it.next_action(at(3)) else {
            panic!()
        };
        stopped
    };
    assert_eq!(ended(143, Some(StopReason::Cancel)), Some(StopReason::Cancel));
    assert_eq!(ended(0, Some(StopReason::Cancel)), None);
    assert_eq!(ended(143, None), None);
}

#[test]
fn the_exit_that_came_before_the_signal_counts() {
    let mut it = in_phase(Phase::Finishing);
    it.apply(Event::StopRequested(StopReason::Cancel)).unwrap();
    it.apply(Event::Signalled { reason: StopReason::Cancel, at: at(5) }).unwrap();
    it.apply(Event::Collected(None)).unwrap();
    let Action::Record(Ending::Exited { stopped, .. }) = it.next_action(at(6)) else { panic!() };
    assert_eq!(stopped, None);
}

fn any_event() -> impl Strategy<Value = Event> {
    proptest::sample::select(every_event())
}

proptest! {
    #[test]
    fn ended_is_final_and_every_state_has_an_action(
        events in proptest::collection::vec(any_event(), 0..40),
        late in 0_i64..200,
        at_most_once: bool,
    ) {
        let mut it = Attempt::queued(timeouts(), at_most_once);
        for event in events {
            let before = it.clone();
            if it.apply(event).is_err() {
                prop_assert_eq!(&it, &before, "an illegal event changes nothing");
            }
            prop_assert!(before.phase != Phase::Ended || it == before, "ended is final");
            // Total: it does not panic, and only the queued one waits to be claimed.
            let action = it.next_action(at(late));
            prop_assert_eq!(action == Action::Claim, it.phase == Phase::Queued);
        }
    }

    /// However often the engine loses an answer, a stop leads to an end once the engine answers again.
    #[test]
    fn a_stop_always_leads_to_an_end(
        phase in proptest::sample::select(vec![Phase::Starting, Phase::Running, Phase::Finishing]),
        lost in 0_usize..5,
        obeys: bool,
    ) {
        let mut it = Attempt::taken_over(phase, None, None, timeouts(), false);
        it.apply(Event::StopRequested(StopReason::Cancel)).unwrap();
        let mut now = 10;
        let mut engine = match phase {
            Phase::Starting => Sandbox::Created,
            Phase::Queued | Phase::Running | Phase::Finishing | Phase::Ended => Sandbox::Running,
        };
        let mut to_lose = lost;
        for _ in 0..50 {
            now += 1;
            match it.next_action(at(now)) {
                Action::Inspect if to_lose > 0 => {
                    to_lose -= 1;
                    it.apply(Event::AnswerLost).unwrap();
                }
                Action::Inspect => it.apply(Event::Observed(engine.clone())).unwrap(),
                Action::Discard => {
                    engine = Sandbox::Absent;
                    it.apply(Event::Observed(Sandbox::Absent)).unwrap();
                }
                Action::Signal(reason) => {
                    it.apply(Event::Signalled { reason, at: at(now) }).unwrap();
                    if obeys { engine = Sandbox::Exited(exit(143)); }
                }
                Action::Force => {
                    it.apply(Event::Forced).unwrap();
                    engine = Sandbox::Exited(exit(137));
                }
                Action::Watch { until } => {
                    if let Some(until) = until { now = now.max(until.as_second() - 1_800_000_000); }
                    it.apply(Event::Observed(engine.clone())).unwrap();
                }
                Action::Collect { .. } => it.apply(Event::Collected(None)).unwrap(),
                Action::Record(_) => it.apply(Event::Recorded).unwrap(),
                Action::Cleanup => return Ok(()),
                Action::Claim | Action::Launch => prop_assert!(false, "a stopped attempt was launched"),
            }
        }
        prop_assert!(false, "no end: {it:?}");
    }
}
