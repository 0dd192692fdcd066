//! Tests of a machine that holds back itself: its effects overtake the disk, and syncs are told.

use super::*;
use crate::machine::{
    CallFailure, Effect, Effects, HostPinged, Input, Machine, NodeCall, NodeOpening, PingHost,
    Vocabulary,
};
use crate::model::Now;
use crate::sim::Simulated;

/// Events of a clerk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Noted {
    Asked(u64),
    Synced(u64),
}

/// A machine that writes down the numbers it is given.
struct Clerk {
    /// True if its driver holds back what it reports.
    is_held: bool,
    numbers: Vec<u64>,
}

impl Vocabulary for Clerk {
    type Message = u64;
    type Call = NodeCall;
    type Timer = u64;
    type Record = u64;
    type Event = Noted;
    type ExtraEffect = PingHost;
}

impl Machine for Clerk {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = u64;
    type ExtraInput = HostPinged;

    fn handle(&mut self, _now: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        if let Input::Command(number) = input {
            self.numbers.push(number);
            fx.persist(number);
            fx.emit(Noted::Asked(number));
        } else if let Input::Synced { records } = input {
            fx.emit(Noted::Synced(records));
        }
    }
}

impl Simulated for Clerk {
    const HEARS_OF_SYNCS: bool = true;

    fn is_held(&self, _effect: &Effect<Self>) -> bool {
        self.is_held
    }

    fn name(_msg: &u64) -> &'static str {
        "number"
    }

    fn snapshot(&self) -> Option<Vec<u64>> {
        Some(self.numbers.clone())
    }
}

#[test]
fn what_is_not_held_back_overtakes_the_disk_and_syncs_are_told_by_their_records() {
    let notes = |is_held, snapshot_percent| {
        let mut options = WorldOptions::default();
        options.weather.fsync = DurationRange::millis(100, 100);
        options.weather.snapshot_percent = snapshot_percent;
        let mut world = World::new(1, options);
        let new = move |boot: crate::sim::Boot<'_, u64>| Clerk {
            is_held,
            numbers: boot.records.to_vec(),
        };
        world.add_host(at(1), Box::new(new));
        world.boot(at(1));
        for number in [7, 8] {
            world.command(at(1), number);
        }
        world.run_for(SECOND);
        assert_eq!(world.records(at(1)), &[7, 8]);
        let events = world.take_events().into_iter();
        events.map(|(at, _, told)| (at.as_micros() / 1_000, told)).collect::<Vec<_>>()
    };
    let (asked, synced) = (Noted::Asked, Noted::Synced);
    let syncs = [(100, synced(1)), (200, synced(2))];
    let own = [vec![(0, asked(7)), (0, asked(8))], syncs.to_vec()].concat();
    assert_eq!(notes(false, 0), own);
    let held = notes(true, 0);
    assert!(held.contains(&(100, asked(7))) && held.contains(&(200, asked(8))), "{held:?}");
    let counts = notes(false, 100).into_iter().filter(|(_, it)| matches!(it, Noted::Synced(_)));
    let counts: Vec<_> = counts.map(|(_, it)| it).collect();
    assert_eq!(counts.last(), Some(&synced(2)), "a snapshot is no record: {counts:?}");
}
