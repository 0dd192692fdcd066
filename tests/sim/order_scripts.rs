//! Courses that the weather brings about too seldom, played by hand: without the rule one member
//! delivers what another does not, or signs what excludes its own word; with it none does.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks a few messages of many")]

use std::time::Duration;

use folkmoot::machine::bft::{BftRule, Command, Config, Event, Input, Record};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::{SlotNo, VoteSubject};

use crate::order_hand::{Hands, Letter};

const SECOND: Duration = Duration::from_secs(1);

fn hands(without: Option<BftRule>) -> Hands {
    let mut hands = Hands::new(Config { without, ..Config::default() }, 4);
    hands.pass(SECOND, |_| true);
    hands.type_at(1, "zeroth");
    hands.post(|_| true);
    assert_eq!(hands.texts(4), ["zeroth"]);
    hands
}

const fn is_commit(letter: &Letter) -> bool {
    matches!(letter.msg, Message::Commit(_))
}

/// The fourth lies: it forgets its COMMIT. The second counts its own, of which a power cut leaves
/// nothing, and the third, which has the slot, is cut off.
fn counts_what_is_not_on_disk(without: Option<BftRule>) -> bool {
    let mut hands = hands(without);
    for id in [1, 2, 4] {
        hands.hands.get_mut(&id).unwrap().is_slow = true;
    }
    hands.type_at(3, "first");
    hands.post(|_| true);
    // The liar's COMMIT needs no disk.
    let liar = Hands::signer(4);
    let commit = hands.commit_of(3).expect("the third has prepared it, and a quick disk");
    hands.say_to(4, 2, Message::Commit(hands.countersign(&commit, (liar.0, &liar.1))));
    hands.post(|_| true);
    let before = hands.texts(2);
    assert_eq!(hands.texts(3), ["zeroth"], "its quorum lacks what is on no disk");
    (1..=4).for_each(|id| hands.cut_power(id));
    for id in [1, 2, 4] {
        hands.hands.get_mut(&id).unwrap().is_slow = false;
        hands.start(id);
    }
    hands.type_at(1, "other");
    hands.pass(SECOND * 10, |_| true);
    let after = hands.texts(1);
    assert_eq!(after, ["zeroth", "other"], "three of four go on, whatever was said before");
    before == ["zeroth", "first"]
}

#[test]
fn b8_a_member_counts_its_own_commit_only_when_its_disk_has_it() {
    assert!(counts_what_is_not_on_disk(Some(BftRule::OwnCommit)), "final, and gone");
    assert!(!counts_what_is_not_on_disk(None));
}

/// The third is put back to a copy of its disk, and its operator does not say so. True if it votes
/// again where it has voted, as the others can show.
fn votes_with_an_old_disk(without: Option<BftRule>) -> bool {
    let mut hands = hands(without);
    let copy = hands.hands[&3].records.clone();
    hands.type_at(1, "first");
    // Its COMMIT is heard, but nothing is final: the others' are lost.
    hands.post(|it| !is_commit(it) || it.from == 3);
    assert_eq!(hands.texts(1), ["zeroth"], "one COMMIT makes nothing final");
    hands.stop(3);
    hands.hands.get_mut(&3).unwrap().records = copy;
    hands.start(3);
    hands.pass(SECOND * 3, |_| true);
    let is_silent = hands.hands[&3].events.iter().any(|it| matches!(it, Event::Hole { .. }));
    !is_silent
}

#[test]
fn b20_an_old_disk_is_noticed_by_what_others_heard() {
    assert!(votes_with_an_old_disk(Some(BftRule::Memory)), "it trusts its disk");
    assert!(!votes_with_an_old_disk(None));
}

/// The third loses its disk, and then its power before it has a new life. True if it forgets that
/// there was a loss: its marker says nothing, for its log is there again.
fn forgets_the_loss(without: Option<BftRule>) -> bool {
    let mut hands = hands(without);
    hands.type_at(1, "first");
    hands.post(|_| true);
    hands.stop(3);
    hands.hands.get_mut(&3).unwrap().records.clear();
    // Nobody is in reach, so that nothing tells it what it has signed.
    for other in [1, 2, 4] {
        hands.part(3, other);
    }
    hands.start_as(3, Some("the log is gone"));
    hands.cut_power(3);
    hands.start(3);
    !hands.hands[&3].records.iter().any(|it| matches!(it, Record::Hole { .. }))
}

#[test]
fn b20_the_loss_is_on_disk() {
    assert!(forgets_the_loss(Some(BftRule::Hole)), "the second start knows of no loss");
    assert!(!forgets_the_loss(None));
}

/// The third has begun its second life, and loses its disk again. True if it takes the old renewal,
/// which it meets while it catches up, for its new one, and votes again.
fn takes_the_old_life_for_the_new(without: Option<BftRule>) -> bool {
    let mut hands = hands(without);
    hands.type_at(1, "first");
    hands.post(|_| true);
    for _ in 0..2 {
        hands.stop(3);
        hands.hands.get_mut(&3).unwrap().records.clear();
        hands.start_as(3, Some("the log is gone"));
        hands.pass(SECOND * 8, |_| true);
    }
    hands.status(3).silent.is_none()
}

#[test]
fn b20_a_new_life_is_not_the_one_before() {
    assert!(takes_the_old_life_for_the_new(Some(BftRule::FreshLife)));
    // The second renewal is due 256 slots after the first.
    assert!(!takes_the_old_life_for_the_new(None));
}

/// The fourth lies: it alone keeps the content of a slot that a quorum has prepared, shows the
/// certificate in each change of the view, and withholds the content. True if the others go on.
fn goes_on_without_the_content(without: Option<BftRule>) -> bool {
    let mut hands = hands(without);
    for id in 1..=3 {
        hands.hands.get_mut(&id).unwrap().is_slow = true;
    }
    hands.type_at(1, "first");
    hands.post(|_| true);
    assert!(hands.commit_of(4).is_some_and(|it| it.slot.0 == 2), "a quorum has prepared it");
    for id in 1..=3 {
        hands.cut_power(id);
        hands.hands.get_mut(&id).unwrap().is_slow = false;
    }
    hands.quick = Some(4);
    (1..=3).for_each(|id| hands.start(id));
    hands.type_at(2, "second");
    let is_content = |it: &Letter| {
        matches!(it.msg, Message::Bundle(_) | Message::ChainResp(_) | Message::SlotResp(_))
    };
    hands.pass(SECOND * 40, |it| it.from != 4 || !is_content(it));
    hands.texts(3).contains(&"second".to_owned())
}

#[test]
fn b12_a_leader_counts_a_claim_only_with_its_content() {
    assert!(!goes_on_without_the_content(Some(BftRule::BaseContent)), "the group stands still");
    assert!(goes_on_without_the_content(None));
}

/// The third has lost its disk and begins a new life, in a slot that is not final yet. True if the
/// leader proposes something behind it.
fn proposes_behind_a_change(without: Option<BftRule>) -> bool {
    let mut hands = hands(without);
    hands.stop(3);
    hands.hands.get_mut(&3).unwrap().records.clear();
    hands.start_as(3, Some("the log is gone"));
    hands.pass(SECOND, |it| !matches!(it.msg, Message::PrePrepare(_)));
    hands.type_at(1, "behind");
    let proposals = hands.letters.iter().filter_map(|it| match &it.msg {
        Message::PrePrepare(it) => Some(it.header.clone()),
        _ => None,
    });
    let proposals: Vec<_> = proposals.collect();
    assert_eq!(hands.status(1).epoch.0, 0, "nobody has heard of the change");
    assert!(hands.hands[&1].machine.is_some());
    proposals.iter().any(|it| it.epoch.0 > 0)
}

#[test]
fn b19_nothing_is_proposed_behind_a_change_that_is_not_final() {
    assert!(proposes_behind_a_change(Some(BftRule::Epoch)), "a slot of an epoch to come");
    assert!(!proposes_behind_a_change(None));
}

/// The fourth lies: it votes for whatever may come in every view. Nobody else has anything to say.
#[test]
fn b27_votes_of_views_that_are_over_are_forgotten_though_nothing_becomes_final() {
    let mut hands = hands(None);
    let liar = Hands::signer(4);
    for _ in 0..20 {
        let status = hands.status(1);
        for ahead in 1..=16 {
            let (epoch, view, digest) = (status.epoch, status.view, status.digest);
            let slot = SlotNo(status.slot.0 + ahead);
            let subject = VoteSubject { epoch, view, slot, digest };
            let vote = hands.countersign(&subject, (liar.0, &liar.1));
            hands.say_to(4, 1, Message::Commit(vote));
        }
        for id in 1..=3 {
            hands.input(id, Input::Command(Command::Suspect));
        }
        hands.pass(SECOND, |_| true);
    }
    assert!(hands.status(1).view.0 >= 20, "each wish of all is a new view");
    let sizes = hands.hands[&1].machine.as_ref().expect("it runs").sizes();
    assert!(sizes.vote_views <= 7, "{sizes:?}");
}
