//! Repair by number.

use super::*;
use crate::proto::broadcast::{Have, LACK_ROWS_MAX, Lack, Lacking, NUMBER_MAX, Reached};

fn lacks(effects: &[Effect<Broadcast>]) -> Vec<(LinkId, Vec<(u64, u64)>)> {
    let lack = |it: &Effect<Broadcast>| {
        let Effect::Send { link, msg: Message::Lack(lack) } = it else { return None };
        Some((*link, lack.of[0].rows.clone()))
    };
    effects.iter().filter_map(lack).collect()
}

fn missed(effects: &[Effect<Broadcast>]) -> u64 {
    let count = |it: &Effect<Broadcast>| {
        let Effect::Emit(Event::Missed { origin, count }) = it else { return None };
        assert_eq!(*origin, endpoint(9));
        Some(*count)
    };
    effects.iter().filter_map(count).sum()
}

#[test]
fn missing_numbers_are_asked_for_everywhere_and_then_missed_once() {
    let mut it = linked(open());
    for number in [1, 2, 3, 7] {
        step(&mut it, at(1), FROM, message(number));
    }
    let effects = pass(&mut it, 2, 6);
    let rows = vec![(4, 6)];
    assert!(lacks(&effects).contains(&(FROM, rows.clone())), "{effects:?}");
    assert!(lacks(&effects).contains(&(OTHER, rows)), "{effects:?}");
    assert_eq!(missed(&effects), 0);
    step(&mut it, at(6), OTHER, message(5));
    assert_eq!(missed(&pass(&mut it, 7, 15)), 0, "others of the row come");
    assert_eq!(missed(&pass(&mut it, 15, 40)), 2);
    assert_eq!(it.metrics().messages_dropped["missed"], 2);
    assert!(!it.armed.contains_key(&Timer::Tick), "it is at rest");
}

/// A message of before this node's link came up, and one that was published just after it.
#[test]
fn messages_before_the_first_that_came_are_asked_for_and_never_missed() {
    let mut it = linked(open());
    let have = Have { of: vec![Reached { origin: life(9), done: 1, top: 1 }] };
    it.on_have(at(1), OTHER, &have, &mut Effects::default());
    step(&mut it, at(1), FROM, message(3));
    let effects = pass(&mut it, 2, 20);
    assert!(lacks(&effects).contains(&(OTHER, vec![(1, 2)])), "{effects:?}");
    assert_eq!(missed(&effects), 0, "they may be older than this node");
    assert!(!it.armed.contains_key(&Timer::Tick), "it is at rest");
    let other = step(&mut it, at(20), OTHER, message(1));
    assert!(delivers(&other));
}

#[test]
fn no_number_is_too_great_for_sums() {
    let mut it = linked(open());
    for number in [NUMBER_MAX + 1, u64::MAX] {
        assert!(blames(&step(&mut it, at(1), FROM, message(number))));
    }
    step(&mut it, at(1), FROM, message(1));
    step(&mut it, at(1), FROM, message(NUMBER_MAX));
    pass(&mut it, 2, 3);
    step(&mut it, at(3), FROM, message(NUMBER_MAX - 1));
    it.metrics.drop_many(Reason::Missed, u64::MAX - 1);
    assert_eq!(missed(&pass(&mut it, 4, 40)), NUMBER_MAX - 3);
    assert_eq!(it.metrics().messages_dropped["missed"], u64::MAX);
}

#[test]
fn a_question_for_numbers_costs_little_whatever_is_held() {
    let mut it = linked(open());
    step(&mut it, at(1), FROM, message(1));
    for number in 2..3_000 {
        step(&mut it, at(1), FROM, Publish { age_ms: 239_000, ..message(number) });
    }
    let mut looks = 100;
    let place = it.origins.place(&life(9)).unwrap();
    let rows = vec![(2, u64::MAX); 32];
    let hold = it.config.hold;
    let offers = it.store.offers((place, &rows), (at(3).mono, hold), &mut looks);
    assert_eq!((offers.len(), looks), (0, 0), "all are too old by now");
    let lack = Lack { of: vec![Lacking { origin: life(9), rows }; 64] };
    let mut fx = Effects::default();
    it.on_lack(at(3), OTHER, &lack, &mut fx);
    assert_eq!(fx.drain().count(), 0);
}

#[test]
fn no_origin_keeps_the_gaps_of_others_from_being_asked_for() {
    let mut it = linked(open());
    for port in 100..250 {
        step(&mut it, at(1), FROM, said_by(port, 1, "x", false));
        step(&mut it, at(1), FROM, said_by(port, 3, "x", false));
    }
    let effects = pass(&mut it, 2, 8);
    let mut asked = BTreeSet::new();
    for effect in &effects {
        if let Effect::Send { link, msg: Message::Lack(lack) } = effect {
            asked.extend(lack.of.iter().map(|it| (*link, it.origin.endpoint)));
        }
    }
    assert_eq!(asked.len(), 2 * 150, "each neighbor is asked for each");
}

#[test]
fn rows_without_room_are_told_of_once_a_tick() {
    let mut it = linked(open());
    step(&mut it, at(1), FROM, message(1));
    let mut told = 0;
    for number in 1..=config::GAPS_MAX as u64 + 500 {
        let effects = step(&mut it, at(1), FROM, message(1 + number * 2));
        told += usize::from(missed(&effects) > 0);
    }
    assert_eq!(told, 0);
    assert_eq!(missed(&pass(&mut it, 2, 3)), 500);
}

#[test]
fn claims_of_a_life_end_with_it() {
    let mut it = linked(open());
    let have = Have { of: vec![Reached { origin: life(9), done: 7, top: 7 }] };
    it.on_have(at(1), OTHER, &have, &mut Effects::default());
    it.on_gone(at(2), endpoint(9), Incarnation(1));
    assert!(it.links[&OTHER].claims.is_empty());
    assert_eq!(lacks(&pass(&mut it, 3, 5)), []);
}

#[test]
fn a_number_that_nobody_signed_is_asked_for_a_few_times_and_never_missed() {
    let mut it = linked(open());
    step(&mut it, at(1), FROM, message(3));
    let have = Have { of: vec![Reached { origin: life(9), done: 9, top: u64::MAX }] };
    it.on_have(at(1), OTHER, &have, &mut Effects::default());
    let effects = pass(&mut it, 2, 60);
    let asks: Vec<_> = lacks(&effects).into_iter().filter(|(_, rows)| rows[0].0 == 4).collect();
    assert_eq!(asks, vec![(OTHER, vec![(4, u64::MAX)]); config::LACKS_MAX as usize]);
    assert_eq!(missed(&effects), 0);
}

#[test]
fn who_lacks_numbers_is_told_what_is_held_of_them() {
    let mut it = linked(open());
    for number in [3, 4, 6] {
        step(&mut it, at(1), FROM, message(number));
    }
    let mut fx = Effects::default();
    let lack = |rows: Vec<_>| Lack { of: vec![Lacking { origin: life(9), rows }] };
    it.on_lack(at(2), OTHER, &lack(vec![(1, 3), (5, u64::MAX), (9, 2)]), &mut fx);
    let ids = [message(3).id(), message(6).id()];
    let effects: Vec<_> = fx.drain().collect();
    let [Effect::Send { link: OTHER, msg: Message::Announce(told) }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(told.ids.iter().map(|it| it.id).collect::<Vec<_>>(), ids);
    it.on_lack(at(2), OTHER, &lack(vec![(1, 1); LACK_ROWS_MAX + 1]), &mut fx);
    assert!(blames(&fx.drain().collect::<Vec<_>>()));
    // A neighbor that asks without a pause is not answered.
    for _ in 0..10 {
        it.on_lack(at(2), OTHER, &lack(vec![(1, 9)]), &mut fx);
    }
    assert!(fx.drain().count() <= 1);
    assert!(it.metrics().messages_dropped["hasty"] >= 8);
}
