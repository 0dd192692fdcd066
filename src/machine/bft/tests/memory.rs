//! Tests of a member that may have forgotten what it had signed (rule B20).

use super::*;

#[test]
fn a_member_that_has_lost_its_log_is_silent_until_its_life_is_renewed() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 40);
    group.kill(2);
    group.hosts.get_mut(&MemberId(2)).unwrap().records.clear();
    group.start(2, None);
    group.run(3_000);
    assert!(
        group.events(2).iter().any(|it| matches!(it, Event::Hole { .. })),
        "{:?}",
        group.events(2)
    );
    group.run(8_000);
    let status = group.status(2);
    assert_eq!(
        (status.epoch.0, status.silent),
        (1, None),
        "{:?} {:?}",
        group.status(1),
        group.sent
    );
    says(&mut group, 40);
    group.run(3_000);
    for id in 1..=4 {
        assert_eq!(group.status(id).hash, group.status(1).hash);
        assert_eq!(group.status(id).members[1].member.id, MemberId(2));
    }
    assert!(group.status(1).place.0 >= 80);
    // The loss is over: another restart does not begin it again.
    group.kill(2);
    group.start(2, None);
    group.run(3_000);
    assert!(!group.events(2).iter().any(|it| matches!(it, Event::Hole { .. })));
    group.kill(3);
    group.say(1, "needs the member that was renewed");
    group.run(10_000);
    assert_eq!(group.status(2).hash, group.status(1).hash);
    assert_eq!(group.status(1).pending, 0);
}

#[test]
fn members_that_restart_right_after_a_change_of_the_members_have_forgotten_nothing() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 40);
    let removal = MembershipChange::Remove { member: MemberId(4), approvals: Vec::new() };
    for id in 1..=3 {
        group.input(MemberId(id), Input::Command(Command::Approve(removal.clone())));
        group.run(50);
    }
    group.run(2_000);
    assert_eq!(group.status(1).epoch.0, 1);
    (1..=3).for_each(|id| group.kill(id));
    (1..=3).for_each(|id| group.start(id, None));
    group.run(4_000);
    group.say(1, "goes on");
    group.run(5_000);
    for id in 1..=3 {
        let is_hole = |it: &Event| matches!(it, Event::Hole { .. });
        assert!(!group.events(id).iter().any(is_hole), "{:?}", group.events(id));
        assert!(group.texts(id).contains(&"goes on".to_owned()), "{:?}", group.status(id));
    }
}

#[test]
fn what_was_accepted_before_a_member_was_certain_is_voted_for_then() {
    let patience = std::time::Duration::from_secs(16);
    let mut group = Group::new(4, Config { patience, ..Config::default() });
    group.run(2_100);
    group.kill(3);
    // It answers nobody, so that the third asks for two seconds, and is needed.
    group.silent = Some(MemberId(4));
    group.start(3, None);
    group.run(100);
    group.say(1, "early");
    group.run(1_000);
    assert_eq!((group.status(3).place.0, group.texts(1).len()), (0, 0));
    group.run(2_000);
    for id in 1..=3 {
        assert_eq!(group.texts(id), ["early"], "{:?}", group.status(id));
    }
    assert_eq!(group.status(1).view.0, 0);
}

#[test]
fn slots_that_were_prepared_in_another_order_are_no_loss() {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 8);
    group.run(1_000);
    group.kill(2);
    let records = &mut group.hosts.get_mut(&MemberId(2)).unwrap().records;
    let last_final = |it: &Record| matches!(it, Record::Final(_));
    while records.last().is_some_and(last_final) {
        records.pop();
    }
    let is_prepared = |it: &&usize| matches!(records[**it], Record::Prepared(_));
    let all: Vec<_> = (0..records.len()).collect();
    let prepared: Vec<_> = all.iter().filter(is_prepared).copied().collect();
    let [.., before, last] = prepared[..] else { panic!("two slots at least") };
    records.swap(before, last);
    let first_of_both =
        records.iter().rposition(last_final).filter(|it| *it > before).map(|it| records.remove(it));
    drop(first_of_both);
    let length = records.len();
    group.hosts.get_mut(&MemberId(2)).unwrap().synced = length;
    group.start(2, None);
    group.run(3_000);
    assert!(!group.events(2).iter().any(|it| matches!(it, Event::Hole { .. })));
}

#[test]
fn a_copy_of_a_silent_members_log_does_not_bring_its_vote_back() {
    for reason in [Some("it is a restored one".to_owned()), None] {
        start_from_a_copy_of_a_silent_members_log(reason);
    }
}

/// Starts a member from a copy of its log that was made while it was silent, and known to be one
/// for a reason or not; it has voted in its new life since.
fn start_from_a_copy_of_a_silent_members_log(reason: Option<String>) {
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 40);
    group.kill(2);
    group.hosts.get_mut(&MemberId(2)).unwrap().records.clear();
    group.start(2, None);
    group.run(50);
    let copy = group.hosts[&MemberId(2)].records.clone();
    assert!(copy.iter().any(|it| matches!(it, Record::Life { .. })), "{copy:?}");
    group.run(11_000);
    assert_eq!(group.status(2).silent, None, "it is renewed");
    let life = |group: &Group| {
        let replica = group.hosts[&MemberId(2)].replica.as_ref().unwrap();
        replica.committee().voter(MemberId(2)).unwrap().life
    };
    let second = life(&group);
    assert_eq!(second.counter, 1);
    says(&mut group, 40);
    group.kill(2);
    group.hosts.get_mut(&MemberId(2)).unwrap().records = copy;
    group.start(2, reason);
    for _ in 0..800 {
        group.run(10);
        let votes = group.status(2).silent.is_none();
        assert!(!votes || life(&group).counter == 2, "it has forgotten its votes in {second:?}");
    }
    assert_eq!(group.status(2).silent, None, "it votes in a third life");
    assert_ne!(life(&group).number, second.number);
}

#[test]
fn a_silent_member_counts_as_one_that_is_away_and_the_others_know_it() {
    let halts = |group: &Group, id| {
        let halted = Event::Halted { reached: 2, needed: 3, silent: vec![MemberId(2)] };
        group.events(id).iter().filter(|it| **it == halted).count()
    };
    let mut group = Group::new(4, Config::default());
    group.run(2_100);
    says(&mut group, 4);
    for _ in 0..2 {
        group.kill(2);
        group.hosts.get_mut(&MemberId(2)).unwrap().records.clear();
        group.start(2, None);
        group.run(11_000);
    }
    assert!(group.status(2).silent.is_some(), "it was renewed a moment ago");
    for id in 1..=4 {
        let status = group.status(id);
        let silent: Vec<_> = status.members.iter().map(|it| it.silent).collect();
        assert_eq!((status.reached, silent), (3, vec![false, true, false, false]), "peer_{id}");
        assert_eq!(halts(&group, id), 0, "peer_{id}");
    }
    group.kill(3);
    group.say(1, "waits");
    group.run(2_000);
    assert_eq!((group.status(1).reached, group.status(1).pending), (2, 1));
    assert_eq!([1, 2, 4].map(|id| halts(&group, id)), [1, 1, 1]);
    group.start(3, None);
    group.run(20_000);
    assert_eq!((group.status(1).reached, group.status(1).pending), (3, 0));
    assert_eq!(group.status(2).reached, 3);
    assert!(group.events(2).contains(&Event::Resumed));
    // It says what the renewal waits for, and a few entries bring it about.
    let wait = "can be again in slot ";
    let waits = |it: &&Event| matches!(it, Event::Hole { reason } if reason.contains(wait));
    assert_eq!(group.events(2).iter().filter(waits).count(), 1, "{:?}", group.events(2));
    assert!(group.status(2).silent.is_some_and(|it| it.contains(wait)));
    for turn in 0..16 {
        group.say(1, &format!("entry {turn}"));
        group.run(500);
    }
    group.run(3_000);
    assert_eq!((group.status(2).silent, group.status(1).reached), (None, 4));
}
