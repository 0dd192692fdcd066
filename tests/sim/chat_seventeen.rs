//! The seventeen behaviors that the chat's founding document names, one test each: ordering,
//! election, failure, integration.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks a few messages of many")]

use crate::chat_hand;

use std::sync::Arc;
use std::time::Duration;

use chat_hand::{Hands, chat, entry, member, seq_chat};
use folkmoot::machine::chat::{Config, Record, Role};
use folkmoot::proto::chat::entry::{Body, Entry, MemberId, SeqNo, Term};
use folkmoot::proto::chat::message::{
    CatchupReq, Consent, Coordinator, Election, ElectionOk, LeaderHeartbeat, Message,
};

const MILLI: Duration = Duration::from_millis(1);

fn message(seq: u64, number: u64) -> Arc<Entry> {
    entry(seq, 2, 3, Body::Chat(chat(3, number)))
}

/// Member 1 of three, which follows 3 in term 2; the entry 2 is 3's opening, and final.
fn follower() -> Hands {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    hands.link(3, 1);
    hands.link(2, 1);
    let opening = entry(2, 2, 3, Body::Opening);
    say(&mut hands, Message::SeqChat(seq_chat(3, 2, (1, 1), 2, &[opening])));
    hands.letters.clear();
    hands
}

/// 3 says something to 1.
fn say(hands: &mut Hands, msg: Message) {
    hands.say_to(3, 1, msg);
}

fn election_oks(hands: &Hands, from: u32) -> Vec<ElectionOk> {
    hands.said(from, |msg| match msg {
        Message::ElectionOk(it) => Some(*it),
        _ => None,
    })
}

fn questions(hands: &Hands, from: u32) -> Vec<CatchupReq> {
    hands.said(from, |msg| match msg {
        Message::CatchupReq(it) => Some(*it),
        _ => None,
    })
}

fn elections(hands: &Hands, from: u32) -> Vec<Election> {
    hands.said(from, |msg| match msg {
        Message::Election(it) => Some(*it),
        _ => None,
    })
}

#[test]
fn ordering_in_order_delivery() {
    let mut hands = follower();
    for number in 1..=3 {
        let (seq, prev) = (number + 2, number + 1);
        let msg = seq_chat(3, 2, (prev, 2), seq, &[message(seq, number)]);
        say(&mut hands, Message::SeqChat(msg));
    }
    assert_eq!(hands.texts(1), ["text 1", "text 2", "text 3"]);
}

#[test]
fn ordering_out_of_order_buffering() {
    let mut hands = follower();
    say(&mut hands, Message::SeqChat(seq_chat(3, 2, (2, 2), 3, &[message(3, 1)])));
    say(&mut hands, Message::SeqChat(seq_chat(3, 2, (4, 2), 5, &[message(5, 3)])));
    assert_eq!(hands.texts(1), ["text 1"], "nothing is shown before what belongs before it");
    let asked = questions(&hands, 1);
    assert_eq!(asked.iter().map(|it| it.last_seq).collect::<Vec<_>>(), [SeqNo(3)]);
    let missing = [message(4, 2), message(5, 3)];
    say(&mut hands, Message::CatchupResp(seq_chat(3, 2, (3, 2), 5, &missing)));
    assert_eq!(hands.texts(1), ["text 1", "text 2", "text 3"]);
}

#[test]
fn ordering_duplicate_detection() {
    let mut hands = follower();
    for _ in 0..3 {
        say(&mut hands, Message::SeqChat(seq_chat(3, 2, (2, 2), 3, &[message(3, 1)])));
    }
    assert_eq!(hands.texts(1), ["text 1"]);
    let stored = hands.hands[&1].records.iter().filter(|it| matches!(it, Record::Entry(_)));
    assert_eq!(stored.count(), 3, "the membership, the opening, and the message once");
}

#[test]
fn ordering_sequence_assignment() {
    let mut hands = Hands::three();
    for number in 1..=3 {
        hands.type_at(3, &format!("text {number}"));
    }
    hands.post_all();
    let first = hands.hands[&3].delivered.iter().find(|it| matches!(it.body, Body::Chat(_)));
    let first = first.expect("it is delivered").seq_no.0;
    for id in 1..=3 {
        let chats = hands.hands[&id].delivered.iter().filter(|it| matches!(it.body, Body::Chat(_)));
        let seqs: Vec<_> = chats.map(|it| it.seq_no.0).collect();
        assert_eq!(seqs, [first, first + 1, first + 2], "at {id}");
    }
}

#[test]
fn election_no_higher_peers_wins_at_once() {
    let mut hands = Hands::new(Config::default(), 3);
    (2..=3).for_each(|id| hands.start(id));
    hands.link(2, 3);
    hands.pass(2_500 * MILLI, |_| true);
    let status = hands.status(3);
    assert_eq!((status.role, status.term), (Role::Leader, Term(2)));
    assert_eq!(status.promises, [MemberId(2), MemberId(3)]);
}

#[test]
fn election_waits_when_a_higher_peer_answers_ok() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    hands.link(3, 1);
    hands.link(2, 1);
    hands.pass(2_600 * MILLI, |letter| letter.from != 1);
    hands.pass(100 * MILLI, |letter| letter.from != 1);
    assert_eq!(hands.status(1).role, Role::Candidate);
    let ok = ElectionOk {
        sender_id: MemberId(3),
        term: Term(2),
        kind: Consent::Takeover,
        last_term: Term(1),
        last_seq: SeqNo(1),
        commit: SeqNo(1),
    };
    say(&mut hands, Message::ElectionOk(ok));
    assert_eq!(hands.status(1).role, Role::Follower);
    hands.letters.clear();
    hands.pass(400 * MILLI, |_| true);
    assert_eq!(hands.status(1).role, Role::Follower, "it is quiet for a while");
    assert_eq!(hands.status(1).term, Term(1), "and has written no term");
}

#[test]
fn election_answers_election_from_lower_with_ok() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(2);
    hands.link(1, 2);
    let ask = Election {
        sender_id: MemberId(1),
        term: Term(2),
        last_term: Term(1),
        last_seq: SeqNo(1),
        trial: true,
        force: false,
    };
    hands.say_to(1, 2, Message::Election(ask));
    let answers: Vec<_> = election_oks(&hands, 2).iter().map(|it| it.kind).collect();
    assert_eq!(answers, [Consent::Takeover]);
    hands.letters.clear();
    hands.pass(MILLI, |letter| letter.from != 2);
    assert_eq!(hands.status(2).role, Role::Candidate, "and stands itself");
}

#[test]
fn election_coordinator_sets_leader_term_and_adds_its_address() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    assert!(hands.hands[&1].dialed.contains(&member(3)), "it is called at its address");
    hands.link(3, 1);
    say(&mut hands, coordinator(5));
    let status = hands.status(1);
    assert_eq!((status.leader, status.term), (Some(MemberId(3)), Term(5)));
    let there = status.members.iter().find(|it| it.member.id == MemberId(3));
    assert_eq!(there.map(|it| (it.member.at, it.linked)), Some((member(3).at, true)));
}

fn coordinator(term: u64) -> Message {
    let (sender_id, term, commit) = (MemberId(3), Term(term), SeqNo(1));
    Message::Coordinator(Coordinator { sender_id, term, commit, membership: vec![member(3)] })
}

#[test]
fn election_cancelled_by_coordinator() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    hands.link(3, 1);
    hands.link(2, 1);
    hands.pass(2_700 * MILLI, |letter| letter.from != 1);
    assert_eq!(hands.status(1).role, Role::Candidate);
    say(&mut hands, coordinator(2));
    hands.letters.clear();
    let status = hands.status(1);
    assert_eq!((status.role, status.leader), (Role::Follower, Some(MemberId(3))));
    hands.pass(1_000 * MILLI, |_| true);
    assert!(elections(&hands, 1).is_empty());
}

fn heartbeat(hands: &Hands) -> Message {
    let commit = SeqNo(1);
    let log = hands.hands[&1].records.iter().filter_map(|it| match it {
        Record::Entry(entry) if entry.seq_no <= commit => Some(entry),
        _ => None,
    });
    let hash =
        log.fold(folkmoot::proto::chat::entry::ChainHash::default(), |it, entry| it.after(entry));
    Message::Heartbeat(LeaderHeartbeat { sender_id: MemberId(3), term: Term(2), commit, hash })
}

/// Member 1, quick to give up a leader: 50 ms between heartbeats, 200 ms patience.
fn impatient() -> Hands {
    let config = Config {
        heartbeat: 50 * MILLI,
        leader_timeout: 200 * MILLI,
        rank_silent: 10 * MILLI,
        ..Config::default()
    };
    let mut hands = Hands::new(config, 3);
    hands.start(1);
    hands.link(3, 1);
    hands.link(2, 1);
    let beat = heartbeat(&hands);
    say(&mut hands, beat);
    hands
}

#[test]
fn failure_heartbeat_recorded() {
    let hands = impatient();
    let status = hands.status(1);
    assert_eq!((status.leader, status.term), (Some(MemberId(3)), Term(2)));
    assert_eq!(status.quorum, Some(true));
    let answers = hands.said(1, |msg| match msg {
        Message::SeqAck(it) => Some(it.last_seq),
        _ => None,
    });
    assert_eq!(answers, [SeqNo(1)], "the leader knows that it is heard");
}

#[test]
fn failure_timeout_detected() {
    let mut hands = impatient();
    hands.pass(190 * MILLI, |letter| letter.from != 1);
    assert_eq!(hands.status(1).role, Role::Follower);
    hands.pass(40 * MILLI, |letter| letter.from != 1);
    assert_eq!(hands.status(1).role, Role::Candidate, "200 ms, and 10 for each above");
}

#[test]
fn failure_no_timeout_while_heartbeats_arrive() {
    let mut hands = impatient();
    for _ in 0..20 {
        hands.pass(50 * MILLI, |letter| letter.from != 1);
        let beat = heartbeat(&hands);
        say(&mut hands, beat);
        let status = hands.status(1);
        assert_eq!((status.role, status.leader), (Role::Follower, Some(MemberId(3))));
    }
}

#[test]
fn failure_role_change_keeps_term() {
    let mut hands = Hands::three();
    let term = hands.status(3).term;
    hands.pass(6_000 * MILLI, |letter| letter.from != 3 && letter.to != 3);
    let old = hands.status(3);
    assert_ne!(old.role, Role::Leader, "it hears no majority");
    assert_eq!(old.leader, None);
    assert_eq!(old.term, term, "a leader that steps down keeps its term");
    assert_eq!(hands.status(2).role, Role::Leader);
    assert!(hands.status(2).term > term);
}

#[test]
fn integration_five_messages_in_order() {
    let mut hands = Hands::three();
    let texts: Vec<_> = (1..=5).map(|it| format!("message {it}")).collect();
    for text in &texts {
        hands.type_at(1, text);
        hands.post_all();
    }
    for id in 1..=3 {
        assert_eq!(hands.texts(id), texts, "at {id}");
    }
}

#[test]
fn integration_recovery_of_last_seq_from_file() {
    let mut hands = Hands::three();
    (1..=5).for_each(|it| hands.type_at(1, &format!("message {it}")));
    hands.post_all();
    let before = hands.status(1);
    assert_eq!(before.commit, before.last);
    hands.stop(1);
    hands.start(1);
    let after = hands.status(1);
    assert_eq!((after.last, after.term), (before.last, before.term));
    hands.link(1, 3);
    hands.link(1, 2);
    hands.type_at(1, "once more");
    hands.post_all();
    assert_eq!(hands.texts(3).last().map(String::as_str), Some("once more"));
    assert_eq!(hands.status(3).commit.0, before.last.0 + 1, "numbering goes on");
}

#[test]
fn integration_catchup_returns_exactly_the_messages_after_n() {
    let mut hands = Hands::three();
    (1..=3).for_each(|it| hands.type_at(2, &format!("message {it}")));
    hands.post_all();
    hands.stop(1);
    (4..=9).for_each(|it| hands.type_at(2, &format!("message {it}")));
    hands.post_all();
    let (last_seq, commit) = (hands.status(3).last, hands.status(3).commit);
    hands.start(1);
    hands.link(1, 3);
    let n = hands.status(1).last;
    let ask =
        CatchupReq { sender_id: MemberId(1), term: hands.status(3).term, last_seq: n, tail: false };
    hands.letters.clear();
    hands.say_to(1, 3, Message::CatchupReq(ask));
    let answers = hands.said(3, |msg| match msg {
        Message::CatchupResp(it) => Some(it.clone()),
        _ => None,
    });
    let [answer] = &answers[..] else { panic!("one answer, not {}", answers.len()) };
    assert_eq!((answer.prev_seq, answer.commit), (n, commit));
    let seqs: Vec<_> = answer.entries.iter().map(|it| it.seq_no.0).collect();
    assert_eq!(seqs, (n.0 + 1..=last_seq.0).collect::<Vec<_>>());
    hands.pass(4_000 * MILLI, |_| true);
    let missed: Vec<_> = (4..=9).map(|it| format!("message {it}")).collect();
    assert!(hands.texts(1).ends_with(&missed), "{:?}", hands.texts(1));
}

#[test]
fn integration_concurrent_messages_delivered_in_order() {
    let mut hands = follower();
    for number in [1, 5, 3, 2, 4] {
        let (seq, prev) = (number + 2, number + 1);
        let msg = seq_chat(3, 2, (prev, 2), 7, &[message(seq, number)]);
        say(&mut hands, Message::SeqChat(msg));
        // The leader answers whatever is asked for.
        for ask in questions(&hands, 1) {
            let rest: Vec<_> = (ask.last_seq.0 + 1..=7).map(|it| message(it, it - 2)).collect();
            let msg = seq_chat(3, 2, (ask.last_seq.0, 2), 7, &rest);
            say(&mut hands, Message::CatchupResp(msg));
        }
        hands.letters.clear();
    }
    let texts: Vec<_> = (1..=5).map(|it| format!("text {it}")).collect();
    assert_eq!(hands.texts(1), texts);
}
