//! The whole story of an order with one liar, with real processes: it forges, leaves an author out,
//! signs two contents as a leader, and comes back from an old backup. The honest three stay one and
//! say who lied; a fifth machine catches up, and its log and proofs hold for anybody.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a liar waits for one message, and for any other in vain"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::{EpochNo, ViewNo, VotePhase, VoteSubject, roster};

use crate::order::Group;
use crate::order_attacks::{
    PATIENT, SALT, all_name, begin, begin_append, both_to_both, bring_to_lead, claims_for, copy,
    dropped, forgeries, keys_of, one_order,
};
use crate::support::liar::{Liar, Tip};
use crate::support::process::eventually;

/// The member that the test plays for a while.
const LIAR: u32 = 3;

/// The members that are honest all the time.
const HONEST: [u32; 3] = [1, 2, 4];

/// Has the liar lead, and begins its view as an honest leader would.
fn lead(group: &Group, liar: &Liar) -> (ViewNo, Tip) {
    let view = bring_to_lead(group, liar, LIAR);
    let (claims, certificate) = claims_for(liar, view);
    HONEST.iter().for_each(|to| liar.tell(*to, &begin(liar, view, &claims, certificate.clone())));
    group.wait("the view has begun", |it| HONEST.iter().all(|id| it.status(*id)["active"] == true));
    (view, Tip::of(&group.status(1)))
}

/// Leads, and proposes bundles of its own only, until the others leave the view for it.
fn leave_out(group: &Group, liar: &Liar, author: u32) {
    let (view, mut tip) = lead(group, liar);
    let id = liar.group();
    let censored = begin_append(group, author, "left out");
    liar.await_from(0, "the bundle", |_, it| match it {
        Message::Bundle(it) if it.author.0 == author => Some(()),
        _ => None,
    });
    for slot in 1.. {
        assert!(slot < 200, "it leaves an author out for ever");
        let mark = liar.mark();
        let bundle = liar.bundle(1, slot, &["mine"]);
        let header = tip.header(&id, std::slice::from_ref(&bundle));
        let digest = header.digest(&id);
        for to in HONEST {
            liar.tell(to, &Message::Bundle(Arc::clone(&bundle)));
            liar.tell(to, &liar.proposal(view, &header));
        }
        tip = tip.after(&id, &header, &[bundle]);
        let is_left = HONEST.iter().any(|by| {
            liar.await_from(mark, "a vote, or a wish", |who, it| match it {
                Message::Commit(it) => (who == *by && it.subject.slot == tip.slot).then_some(false),
                Message::Suspect(_) | Message::ViewChange(_) => Some(true),
                _ => None,
            })
        });
        if is_left {
            break;
        }
        let subject = VoteSubject { epoch: EpochNo(0), view, slot: tip.slot, digest };
        let vote = liar.vote(VotePhase::Commit, subject);
        HONEST.iter().for_each(|to| liar.tell(*to, &Message::Commit(vote)));
    }
    assert!(eventually(|| !censored.out().is_empty()), "{}", censored.err());
    let said = |id: &u32| group.out(*id).contains(&format!("passes over peer_{author}"));
    assert!(HONEST.iter().any(said), "{}", group.out(1));
}

#[test]
fn one_that_lies_in_every_way_divides_nobody_and_a_fifth_machine_verifies_it_all() {
    let mut group = Group::of(4);
    (1..=4).for_each(|id| group.start_with(id, &PATIENT));
    group.wait("all are reached", |it| (1..=4).all(|id| it.status(id)["reached"] == 4));
    let id = group.group_id();
    assert_eq!(group.append(LIAR, "honest"), 1);
    group.wait("all have it", |it| (1..=4).all(|id| it.status(id)["place"] == 1));
    group.kill(LIAR);
    let (log, backup) = (group.path("data/logs/order_3"), group.path("backup"));
    copy(&log, &backup);

    // It forges what others would have to sign.
    let text = fs::read_to_string(group.path("roster.txt")).unwrap();
    let (committee, _) = roster::parse(Path::new("roster.txt"), &text).unwrap();
    let liar = Liar::start(LIAR, keys_of(&group, LIAR), &committee, SALT);
    assert_eq!(liar.group().to_string(), id);
    for ((why, message), to) in forgeries(&liar).into_iter().zip(HONEST.into_iter().cycle()) {
        let known = dropped(&group, to, why);
        liar.tell_and_be_cut(to, &message);
        group.wait(why, |it| dropped(it, to, why) > known);
    }

    // It leads, and leaves an author out; then it leads again, and signs two contents of each slot.
    leave_out(&group, &liar, 1);
    let entries = one_order(&group);
    assert_eq!(entries.iter().filter(|it| it.ends_with("peer_1: left out")).count(), 1);
    let (view, tip) = lead(&group, &liar);
    both_to_both(&group, std::slice::from_ref(&liar), (view, &tip));
    all_name(&group, &[LIAR]);
    group.wait("it is replaced", |it| HONEST.iter().all(|id| it.status(*id)["leader"] != LIAR));
    for by in HONEST {
        group.append(by, &format!("by {by}"));
    }
    let told = one_order(&group);
    assert_eq!(told[..entries.len()], entries, "what was final stays");

    // It comes back from the backup, and may not vote before all have renewed it.
    drop(liar);
    fs::remove_dir_all(&log).unwrap();
    copy(&backup, &log);
    group.start_with(LIAR, &PATIENT);
    group.wait("it is found out", |it| {
        it.out(LIAR).contains("is silent until the group has renewed this member")
    });
    group.wait("it is renewed", |it| {
        let status = it.status(LIAR);
        status["epoch"] == 1 && status["silent"].is_null()
    });
    group.append(LIAR, "honest again");

    // A fifth machine catches up, is let in by three operators, and needs nobody to check it all.
    let fifth = group.keygen(5);
    fs::write(group.path("five.txt"), format!("{text}+ {fifth}")).unwrap();
    group.start_with(5, &["--order", "ledger=five.txt"]);
    for by in HONEST {
        group.told(&["order", "members", "add", fifth.trim(), "--port", &group.port(by)]);
    }
    group.wait("it is a member", |it| {
        it.running.keys().all(|id| it.status(*id)["members"].as_array().map(Vec::len) == Some(5))
    });
    let last = group.append(5, "by the fifth");
    let entries = one_order(&group);
    assert_eq!(entries[..told.len()], told, "what was final stays");
    let at_the_fifth = group.told(&["order", "evidence", "--port", &group.port(1)]);
    assert!(at_the_fifth.contains("peer_3 "), "{at_the_fifth}");
    let proof = group.told(&["order", "proof", &last.to_string(), "--port", &group.port(5)]);
    fs::write(group.path("proof"), proof).unwrap();
    group.running.clear();
    let own = "data/logs/order_5";
    let out = group.told(&["order", "verify", "--group", &id, own, "proof"]);
    assert!(out.contains(&format!("places 1 to {last}")), "{out}");
    assert!(out.contains("\"by the fifth\" by peer_5"), "{out}");
}
