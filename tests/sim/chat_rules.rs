//! What needs a scenario made by hand: an old entry on a majority is not final by that alone (R4),
//! and strangers can do nothing.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks a few messages of many")]

use crate::chat_hand;
use folkmoot::proto::chat::entry::{
    Body, ChainHash, ChatText, MemberId, MsgId, Origin, SeqNo, Term,
};

use std::time::Duration;

use chat_hand::{GROUP, Hands, Letter, chat, entry, member, seq_chat};
use folkmoot::machine::chat::{
    Command, Config, Effect, Event, Fx, Input, Opening, Record, Role, Rule,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::Now;
use folkmoot::proto::chat::message::{
    ChatReq, Coordinator, Election, JoinIntent, LeaderHeartbeat, Message, NackCode, SeqAck,
};

const MILLI: Duration = Duration::from_millis(1);

fn is_between(letter: &Letter, all: &[u32]) -> bool {
    all.contains(&letter.from) && all.contains(&letter.to)
}

/// Connects `id` with all others that run.
fn link_up(hands: &mut Hands, id: u32) {
    let others: Vec<_> = hands.hands.keys().copied().filter(|it| *it != id).collect();
    for other in others {
        if hands.hands[&other].group.is_some() && hands.link_of(id, other).is_none() {
            hands.link(id, other);
        }
    }
}

/// The Raft paper's figure 8 with five members: an entry of term 1 comes to be on a majority in
/// term 4, while another of term 2 waits on a member that may still lead. Returns what 1 delivered,
/// what 5 did in the end, and whether somebody saw that final entries differ.
fn figure_8(without: Option<Rule>) -> (Vec<String>, Vec<String>, bool) {
    let config = Config { batch_entries: 1, takeover: false, without, ..Config::default() };
    let mut hands = Hands::new(config, 5);
    // 5 leads in its own term with 4 and 3, and has an entry that nobody else has.
    for id in [3, 4, 5] {
        hands.start(id);
    }
    for id in [3, 4, 5] {
        link_up(&mut hands, id);
    }
    let is_old = |it: &Letter| !matches!(it.msg, Message::SeqChat(_));
    hands.pass(2_600 * MILLI, is_old);
    assert_eq!((hands.status(5).role, hands.status(5).term), (Role::Leader, Term(2)));
    hands.type_at(5, "of five");
    hands.post(is_old);
    (3..=5).for_each(|id| hands.stop(id));
    // 1 has an older term's entries, which 2 and 3 are to get from it.
    let old = [entry(2, 1, 1, Body::Chat(chat(1, 1)))];
    let records = &mut hands.hands.get_mut(&1).expect("a member").records;
    records.push(Record::Entry(std::sync::Arc::clone(&old[0])));
    records.push(Record::Term { term: Term(3), voted_for: None });
    for id in [1, 2, 3] {
        hands.start(id);
    }
    for id in [1, 2, 3] {
        link_up(&mut hands, id);
    }
    // 1 leads; its old entry reaches 2 and 3, its opening does not.
    let reaches = |it: &Letter| match &it.msg {
        Message::SeqChat(it) | Message::CatchupResp(it) => {
            it.entries.iter().all(|entry| entry.seq_no <= SeqNo(2))
        }
        Message::Election(_) if it.from != 1 => false,
        _ => is_between(it, &[1, 2, 3]),
    };
    hands.pass(8_000 * MILLI, reaches);
    assert_eq!(hands.status(1).role, Role::Leader, "{:?}", hands.status(1));
    let two = hands.status(2);
    assert_eq!(two.last, SeqNo(2), "the old entry is on a majority");
    let delivered = hands.texts(1);
    // 1 is gone; 5 leads with what it has, which is of a newer term.
    hands.stop(1);
    for id in [4, 5] {
        hands.start(id);
    }
    for id in [2, 3, 4, 5] {
        link_up(&mut hands, id);
    }
    hands.pass(8_000 * MILLI, |it| is_between(it, &[2, 3, 4, 5]));
    assert_eq!(hands.status(5).role, Role::Leader);
    let differs = |it: &Event| matches!(it, Event::Diverged { .. });
    let has_parted = hands.hands.values().any(|it| it.events.iter().any(differs));
    (delivered, hands.texts(5), has_parted)
}

#[test]
fn an_old_entry_on_a_majority_is_not_final_before_one_of_the_leaders_own_term() {
    let (before, after, has_parted) = figure_8(None);
    assert_eq!(before, [""; 0], "it could still be replaced");
    assert_eq!(after, ["of five"], "and is");
    assert!(!has_parted);
}

#[test]
fn without_the_rule_of_the_own_term_a_delivered_entry_is_contradicted() {
    let (before, _, has_parted) = figure_8(Some(Rule::OwnTerm));
    assert_eq!(before, ["text 1"]);
    assert!(has_parted, "the next leader has another at the same place");
}

/// Member 1 of three follows 3, and a stranger 9 is connected to it.
fn with_stranger() -> (Hands, LinkId) {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    hands.link(3, 1);
    let opening = entry(2, 2, 3, Body::Opening);
    hands.say_to(3, 1, Message::SeqChat(seq_chat(3, 2, (1, 1), 2, &[opening])));
    let link = LinkId(9_000);
    let (member, intent) = (member(9), JoinIntent::Member);
    hands.input(
        1,
        Input::Opened { link, opening: Opening { member, intent, is_ours: false, life: None } },
    );
    hands.letters.clear();
    (hands, link)
}

#[test]
fn strangers_raise_no_term_lead_nobody_and_get_nothing_numbered() {
    let (mut hands, link) = with_stranger();
    let before = (hands.status(1), hands.hands[&1].records.len());
    let (sender_id, term) = (MemberId(9), Term(99));
    let (last_term, last_seq) = (Term(98), SeqNo(500));
    let commit = SeqNo(2);
    let hash = ChainHash::default();
    let forged = entry(3, 99, 9, Body::Chat(chat(9, 1)));
    let all = [
        Message::Heartbeat(LeaderHeartbeat { sender_id, term, commit, hash }),
        Message::SeqChat(seq_chat(9, 99, (2, 2), 3, std::slice::from_ref(&forged))),
        Message::CatchupResp(seq_chat(9, 99, (2, 2), 3, &[forged])),
        Message::Coordinator(Coordinator { sender_id, term, commit, membership: vec![member(9)] }),
        Message::Election(Election {
            sender_id,
            term,
            last_term,
            last_seq,
            trial: false,
            force: true,
        }),
        Message::SeqAck(SeqAck { sender_id, term, last_seq }),
        Message::Chat(ChatReq { sender_id, chat: chat(9, 1) }),
    ];
    for msg in all {
        hands.input(1, Input::Received { link, msg });
    }
    let after = hands.status(1);
    assert_eq!((after.term, after.leader, after.commit), (Term(2), Some(MemberId(3)), SeqNo(2)));
    assert_eq!(hands.hands[&1].records.len(), before.1, "nothing is written");
    assert!(after.dropped.values().sum::<u64>() >= 6, "all are counted: {:?}", after.dropped);
}

#[test]
fn whoever_speaks_in_anothers_name_is_refused() {
    let (mut hands, link) = with_stranger();
    let before = hands.hands[&1].records.len();
    let msg = seq_chat(3, 3, (2, 2), 3, &[entry(3, 3, 3, Body::Chat(chat(3, 1)))]);
    hands.input(1, Input::Received { link, msg: Message::SeqChat(msg) });
    assert_eq!(hands.hands[&1].records.len(), before);
    let status = hands.status(1);
    assert_eq!(status.term, Term(2));
    assert_eq!(status.dropped.get("a message in another's name"), Some(&1));
}

#[test]
fn terms_and_numbers_at_the_limit_of_64_bits_change_nothing() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    hands.link(3, 1);
    hands.link(2, 1);
    let before = hands.hands[&1].records.len();
    for huge in [u64::MAX, u64::MAX - 1, 1 << 63] {
        let (sender_id, hash) = (MemberId(3), ChainHash::default());
        let beat = |term, commit| {
            Message::Heartbeat(LeaderHeartbeat {
                sender_id,
                term: Term(term),
                commit: SeqNo(commit),
                hash,
            })
        };
        hands.say_to(3, 1, beat(huge, 1));
        hands.say_to(3, 1, beat(2, huge));
        hands.say_to(3, 1, Message::SeqChat(seq_chat(3, 2, (huge, 2), 1, &[])));
        let last = entry(huge, 2, 3, Body::Opening);
        hands.say_to(3, 1, Message::SeqChat(seq_chat(3, 2, (huge - 1, 2), 1, &[last])));
        let ask = Election {
            sender_id,
            term: Term(huge),
            last_term: Term(1),
            last_seq: SeqNo(huge),
            trial: false,
            force: true,
        };
        hands.say_to(3, 1, Message::Election(ask));
    }
    assert_eq!(hands.hands[&1].records.len(), before);
    assert_eq!(hands.status(1).term, Term(1));
    assert_eq!(hands.status(1).dropped.get("a term or number beyond the limit"), Some(&15));
}

#[test]
fn an_id_or_a_key_that_is_anothers_is_not_let_in() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    let group = hands.hands[&1].group.as_ref().expect("it runs");
    let (two, nine) = (member(2), member(9));
    assert_eq!(group.admits(&two, None), Ok(()));
    assert_eq!(group.admits(&nine, None), Ok(()));
    let mut thief = nine;
    thief.id = MemberId(2);
    let mut double = two;
    double.id = MemberId(9);
    for taken in [&thief, &double] {
        let why = "without a leader it may know an old group only";
        assert_eq!(group.admits(taken, None), Err(NackCode::Busy), "{why}");
    }
    assert_eq!(group.admits(&member(1), None), Err(NackCode::IdTaken));
    hands.start(2);
    hands.link(1, 2);
    hands.pass(4_000 * MILLI, |_| true);
    let group = hands.hands[&1].group.as_ref().expect("it runs");
    assert_eq!(group.admits(&thief, None), Err(NackCode::IdTaken));
    assert_eq!(group.admits(&double, None), Err(NackCode::IdTaken));
    let other = folkmoot::proto::chat::entry::GroupId([8; 16]);
    assert_eq!(group.admits(&member(2), Some(other)), Err(NackCode::OtherGroup));
}

#[test]
fn a_client_gets_its_repeats_acknowledged_and_its_gaps_refused() {
    let mut hands = Hands::new(Config::default(), 1);
    hands.start(1);
    hands.pass(10 * MILLI, |_| true);
    assert_eq!(hands.status(1).role, Role::Leader, "a group of one goes on by itself");
    let link = LinkId(9_000);
    let (member, intent) = (member(1), JoinIntent::Client);
    hands.input(
        1,
        Input::Opened { link, opening: Opening { member, intent, is_ours: false, life: None } },
    );
    let origin = Origin { member: MemberId(1), client: 77 };
    let say = |hands: &mut Hands, number| {
        let msg_id = MsgId { origin, number };
        let chat = ChatText { msg_id, room_id: "general".into(), payload: "x".into() };
        let msg = Message::Chat(ChatReq { sender_id: MemberId(1), chat });
        hands.input(1, Input::Received { link, msg });
    };
    for number in [1, 1, 2, 2, 1, 4, 3, 4] {
        say(&mut hands, number);
    }
    let chats = hands.texts(1);
    assert_eq!(chats.len(), 4, "each once");
}

#[test]
fn a_member_removed_for_good_is_told_and_the_others_go_on() {
    let mut hands = Hands::new(Config::default(), 3);
    (1..=3).for_each(|id| hands.start(id));
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        hands.link(a, b);
    }
    hands.pass(3_000 * MILLI, |_| true);
    let command = folkmoot::machine::chat::Command::Remove(MemberId(1));
    hands.input(2, Input::Command(command));
    hands.pass(2_000 * MILLI, |_| true);
    assert!(hands.hands[&1].events.iter().any(|it| matches!(it, Event::Refused { .. })));
    let members: Vec<_> = hands.status(3).members.iter().map(|it| it.member.id.0).collect();
    assert_eq!(members, [2, 3]);
    let group = hands.hands[&3].group.as_ref().expect("it runs");
    assert_eq!(group.admits(&member(1), None), Err(NackCode::Removed));
    hands.type_at(2, "on we go");
    hands.pass(100 * MILLI, |_| true);
    assert_eq!(hands.texts(3), ["on we go"]);
}

#[test]
fn whom_the_seeds_have_certified_to_be_gone_is_removed_and_may_come_back() {
    let mut hands = Hands::new(Config::default(), 3);
    (1..=3).for_each(|id| hands.start(id));
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        hands.link(a, b);
    }
    hands.pass(3_000 * MILLI, |_| true);
    hands.stop(1);
    let ids =
        |hands: &Hands| hands.status(3).members.iter().map(|it| it.member.id.0).collect::<Vec<_>>();
    // Not the leader hears of it.
    let command = folkmoot::machine::chat::Command::Certified(member(1).key);
    hands.input(2, Input::Command(command));
    hands.pass(2_000 * MILLI, |_| true);
    assert_eq!(ids(&hands), [2, 3]);
    let group = hands.hands[&3].group.as_ref().expect("it runs");
    assert_eq!(group.admits(&member(1), None), Ok(()));
    hands.start(1);
    link_up(&mut hands, 1);
    hands.pass(3_000 * MILLI, |_| true);
    assert_eq!(ids(&hands), [1, 2, 3]);
}

#[test]
fn a_leader_that_was_certified_by_mistake_leads_no_more_until_it_is_a_member_again() {
    let mut hands = Hands::new(Config::default(), 3);
    (1..=3).for_each(|id| hands.start(id));
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        hands.link(a, b);
    }
    hands.pass(3_000 * MILLI, |_| true);
    assert_eq!(hands.status(3).role, Role::Leader);
    let command = folkmoot::machine::chat::Command::Certified(member(3).key);
    hands.input(3, Input::Command(command));
    hands.pass(6_000 * MILLI, |_| true);
    let members: Vec<_> = hands.status(2).members.iter().map(|it| it.member.id.0).collect();
    assert_eq!(members, [1, 2, 3], "it is back");
    hands.type_at(1, "on we go");
    hands.pass(100 * MILLI, |_| true);
    assert_eq!(
        (hands.texts(2), hands.texts(3)),
        (vec!["on we go".to_owned()], vec!["on we go".to_owned()])
    );
    let led = hands.hands[&2]
        .events
        .iter()
        .any(|it| matches!(it, Event::RoleChanged { leader: Some(MemberId(2)), .. }));
    assert!(led, "somebody else led meanwhile");
}

#[test]
fn who_waits_to_be_taken_in_hears_of_another_leader_from_whomever_it_knows() {
    let mut hands = Hands::new(Config::default(), 2);
    (1..=2).for_each(|id| hands.start(id));
    hands.link(1, 2);
    // A joiner that knows the first only.
    let (link, joiner) = (LinkId(900), member(7));
    let group = hands.hands.get_mut(&1).and_then(|it| it.group.as_mut()).expect("it runs");
    let mut fx = Fx::default();
    let input = Input::Opened {
        link,
        opening: Opening { member: joiner, intent: JoinIntent::Member, is_ours: false, life: None },
    };
    group.handle(hands_now(), input, &mut fx);
    drop(fx.drain());
    let coordinator = Coordinator {
        sender_id: MemberId(2),
        term: Term(9),
        commit: SeqNo(1),
        membership: vec![member(2)],
    };
    let from = hands.link_of(1, 2).expect("they are linked");
    let group = hands.hands.get_mut(&1).and_then(|it| it.group.as_mut()).expect("it runs");
    let msg = Message::Coordinator(coordinator);
    group.handle(hands_now(), Input::Received { link: from, msg }, &mut fx);
    let told = fx.iter().any(|effect| match effect {
        Effect::SendAll { links, msg: Message::JoinAck(ack) } => {
            links.contains(&link) && ack.leader_id == Some(MemberId(2))
        }
        _ => false,
    });
    assert!(told, "{fx:?}");
}

fn hands_now() -> Now {
    Now::default()
}

#[test]
fn strangers_take_no_members_place_however_many_come() {
    let mut hands = Hands::new(Config::default(), 2);
    (1..=2).for_each(|id| hands.start(id));
    hands.link(1, 2);
    hands.pass(3_000 * MILLI, |_| true);
    let refused = (0..200).filter(|turn| {
        let link = LinkId(900 + turn);
        let member = member(u32::try_from(100 + turn).expect("a small number"));
        let group = hands.hands.get_mut(&2).and_then(|it| it.group.as_mut()).expect("it runs");
        let mut fx = Fx::default();
        let input = Input::Opened {
            link,
            opening: Opening { member, intent: JoinIntent::Member, is_ours: false, life: None },
        };
        group.handle(hands_now(), input, &mut fx);
        fx.contains(&Effect::Hangup { link })
    });
    assert_eq!(refused.count(), 200 - 64);
}

#[test]
fn a_leap_of_terms_is_not_believed() {
    let mut hands = Hands::new(Config::default(), 2);
    (1..=2).for_each(|id| hands.start(id));
    hands.link(1, 2);
    hands.pass(3_000 * MILLI, |_| true);
    let term = hands.status(2).term;
    let from = hands.link_of(2, 1).expect("they are linked");
    let election = Election {
        sender_id: MemberId(1),
        term: Term(term.0 + (1 << 33)),
        last_term: term,
        last_seq: SeqNo(99),
        trial: false,
        force: true,
    };
    hands.input(2, Input::Received { link: from, msg: Message::Election(election) });
    assert_eq!(hands.status(2).term, term);
}

#[test]
fn a_text_whose_identity_is_another_texts_goes_on_under_a_fresh_one() {
    let mut hands = Hands::three();
    // What member 1 types is held up; meanwhile the leader numbers another text of that identity,
    // as if a second process of member 1 had the same random numbers.
    hands.type_at(1, "mine");
    let mine = hands.said(1, |msg| match msg {
        Message::Chat(ask) => Some(ask.chat.clone()),
        _ => None,
    });
    let [mine] = &mine[..] else { panic!("{mine:?}") };
    hands.letters.clear();
    let other = ChatText { payload: "of another".into(), ..mine.clone() };
    let ask = ChatReq { sender_id: MemberId(1), chat: other };
    hands.say_to(1, 3, Message::Chat(ask));
    hands.pass(3_000 * MILLI, |_| true);
    for id in 1..=3 {
        assert_eq!(hands.texts(id), ["of another", "mine"], "at {id}");
    }
    let renamed = |it: &Event| matches!(it, Event::Renamed { from, .. } if *from == mine.msg_id);
    assert!(hands.hands[&1].events.iter().any(renamed));
    assert!(hands.status(1).pending.is_empty());
}

#[test]
fn a_text_that_the_group_cannot_take_is_given_back_and_the_next_one_goes_on() {
    let mut hands = Hands::three();
    // The leader of a group without an agreed limit, whose own is smaller.
    hands.stop(3);
    hands.config.message_max = 10;
    hands.start(3);
    link_up(&mut hands, 3);
    hands.pass(8_000 * MILLI, |_| true);
    assert_eq!(hands.status(3).role, Role::Leader);
    for text in ["first", "a text of more than ten bytes", "second", "third"] {
        hands.type_at(1, text);
    }
    hands.pass(6_000 * MILLI, |_| true);
    assert_eq!(hands.texts(2), ["first", "second", "third"]);
    let back = hands.hands[&1].events.iter().find_map(|it| match it {
        Event::GivenBack { chat, reason } => Some((chat.payload.to_string(), reason.clone())),
        _ => None,
    });
    let (text, reason) = back.expect("it is given back");
    assert_eq!(text, "a text of more than ten bytes");
    assert!(reason.contains("at most 10 bytes"), "{reason}");
    // So it is after a restart, too.
    hands.stop(1);
    hands.start(1);
    link_up(&mut hands, 1);
    hands.pass(4_000 * MILLI, |_| true);
    assert!(hands.status(1).pending.is_empty(), "{:?}", hands.status(1).pending);
    assert_eq!(hands.texts(2), ["first", "second", "third"]);
}

#[test]
fn a_member_whose_log_ends_before_what_it_acknowledged_is_told_and_takes_no_part() {
    let mut hands = Hands::three();
    let monday = hands.hands[&2].records.clone();
    hands.type_at(1, "tuesday");
    hands.pass(1_000 * MILLI, |_| true);
    hands.stop(2);
    hands.hands.get_mut(&2).expect("a member").records = monday;
    hands.start(2);
    link_up(&mut hands, 2);
    hands.pass(2_000 * MILLI, |_| true);
    let told = hands.hands[&2].events.iter().find_map(|it| match it {
        Event::Refused { reason } => Some(reason.clone()),
        _ => None,
    });
    let told = told.expect("it is told");
    assert!(told.contains("must not vote again") && told.contains("remove 2"), "{told}");
    assert_eq!(hands.hands[&2].records.last(), Some(&Record::Rewound));
    // It does not help anybody to a majority.
    hands.stop(1);
    let before = hands.texts(3).len();
    hands.type_at(3, "alone");
    hands.pass(6_000 * MILLI, |_| true);
    assert_eq!(hands.texts(3).len(), before, "two of three are needed, and there is one");
}

#[test]
fn what_is_typed_is_told_to_be_kept_only_when_the_disk_has_it() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    let group = hands.hands.get_mut(&1).and_then(|it| it.group.as_mut()).expect("it runs");
    let (mut fx, room, text) = (Fx::default(), "general".into(), "x".into());
    let say = Input::Command(Command::Say { room, text });
    group.handle(hands_now(), say, &mut fx);
    let is_told = |fx: &[Effect]| fx.iter().any(|it| matches!(it, Effect::Emit(Event::Pending(_))));
    let records = fx.iter().filter(|it| matches!(it, Effect::Persist(_))).count() as u64;
    assert!(records == 1 && !is_told(&fx), "{fx:?}");
    group.handle(hands_now(), Input::Synced { records: 1 }, &mut fx);
    assert!(is_told(&fx), "{fx:?}");
}

#[test]
fn only_a_member_of_the_group_can_refuse_a_member() {
    let mut hands = Hands::new(Config::default(), 3);
    hands.start(1);
    let group = hands.hands[&1].group.as_ref().expect("it runs");
    assert!(group.believes_refusal(&member(2).key));
    assert!(!group.believes_refusal(&member(9).key), "of a stranger at an old address");
}

/// Three members of which 3 has led and a text of 1 is final.
fn of_three() -> Hands {
    let mut hands = Hands::new(Config::default(), 3);
    (1..=3).for_each(|id| hands.start(id));
    (1..=3).for_each(|id| link_up(&mut hands, id));
    hands.pass(4_000 * MILLI, |_| true);
    assert_eq!(hands.status(3).role, Role::Leader);
    hands.type_at(1, "before");
    hands.pass(1_000 * MILLI, |_| true);
    assert_eq!(hands.texts(1), ["before"]);
    hands
}

#[test]
fn a_member_whose_majority_is_gone_goes_on_alone_as_another_group() {
    let mut hands = of_three();
    hands.input(1, Input::Command(Command::Recover));
    let status = hands.status(1);
    assert_eq!((status.group, status.recovered), (Some(GROUP), None), "a majority is in reach");

    hands.stop(2);
    hands.stop(3);
    hands.pass(4_000 * MILLI, |_| true);
    hands.type_at(1, "alone");
    hands.input(1, Input::Command(Command::Recover));
    let status = hands.status(1);
    let recovered = status.recovered.clone().expect("it is");
    assert_eq!((recovered.was, recovered.by), (GROUP, MemberId(1)));
    assert_eq!(recovered.left_out, [MemberId(2), MemberId(3)]);
    assert_eq!((status.role, status.members.len()), (Role::Leader, 1));
    assert_ne!(status.group, Some(GROUP));
    assert_eq!(hands.texts(1), ["before", "alone"]);

    // It is what it became after a restart, and the others are strangers to it.
    hands.stop(1);
    hands.start(1);
    hands.pass(1_000 * MILLI, |_| true);
    let again = hands.status(1);
    assert_eq!((again.group, again.role), (status.group, Role::Leader));
    assert_eq!(again.recovered, status.recovered);
    let machine = |id: u32| hands.hands[&id].group.as_ref().expect("it runs");
    assert_eq!(machine(1).admits(&member(2), Some(GROUP)), Err(NackCode::Removed));
    assert_eq!(machine(1).admits(&member(4), Some(GROUP)), Err(NackCode::OtherGroup));
    assert_eq!(machine(1).admits(&member(4), None), Ok(()));

    // Two of three are the old group's majority, which goes on without it.
    (2..=3).for_each(|id| hands.start(id));
    hands.link(2, 3);
    hands.pass(4_000 * MILLI, |_| true);
    assert_eq!((hands.status(3).role, hands.status(3).group), (Role::Leader, Some(GROUP)));
    let old = hands.hands[&3].group.as_ref().expect("it runs");
    assert_eq!(old.admits(&member(1), status.group), Err(NackCode::OtherGroup));
}

#[test]
fn two_that_recover_by_themselves_are_two_groups() {
    let mut hands = of_three();
    hands.stop(3);
    for (id, other) in [(1, 2), (2, 1)] {
        let link = hands.link_of(id, other).expect("they were linked");
        hands.input(id, Input::closed(link, ""));
    }
    for id in [1, 2] {
        hands.input(id, Input::Command(Command::Recover));
    }
    let (one, two) = (hands.status(1), hands.status(2));
    assert_eq!((one.role, two.role), (Role::Leader, Role::Leader));
    assert!(one.group != two.group && one.group != Some(GROUP) && two.group != Some(GROUP));
    let machine = |id: u32| hands.hands[&id].group.as_ref().expect("it runs");
    assert_eq!(machine(1).admits(&member(2), two.group), Err(NackCode::Removed));
    assert_eq!(machine(2).admits(&member(1), one.group), Err(NackCode::Removed));
}

#[test]
fn a_recovery_hangs_up_on_everybody_and_heeds_nothing_that_was_on_its_way() {
    let mut hands = of_three();
    hands.stop(3);
    hands.pass(5_000 * MILLI, |it| it.from != 2);
    let before = hands.status(1);
    assert!(hands.link_of(1, 2).is_some());
    hands.input(1, Input::Command(Command::Recover));
    let now = hands.status(1);
    assert_ne!(now.group, before.group, "2 was silent for too long to be in reach");
    let ask = Election {
        sender_id: MemberId(2),
        term: Term(now.term.0 + 5),
        last_term: Term(1),
        last_seq: SeqNo(99),
        trial: false,
        force: true,
    };
    hands.letters.clear();
    hands.say_to(2, 1, Message::Election(ask));
    assert!(hands.letters.is_empty(), "nothing is promised");
    assert_eq!((hands.status(1).role, hands.status(1).term), (Role::Leader, now.term));
}

#[test]
fn a_connection_without_a_sign_of_life_is_given_up_and_called_again() {
    let mut hands = of_three();
    let lost = |hands: &Hands| {
        let of = |it: &&Event| matches!(it, Event::Lost(MemberId(2)));
        hands.hands[&1].events.iter().filter(of).count()
    };
    hands.pass(20_000 * MILLI, |_| true);
    assert_eq!(lost(&hands), 0, "members that do not lead are heard too");
    hands.hands.get_mut(&1).expect("a member").dialed.clear();
    hands.pass(4_500 * MILLI, |it| (it.from, it.to) != (2, 1));
    assert_eq!(lost(&hands), 1);
    let seen = hands.status(1).members[1].clone();
    assert!(!seen.linked && seen.heard_ms.is_some_and(|ms| ms >= 3_000), "{seen:?}");
    assert!(hands.hands[&1].dialed.iter().any(|it| it.id == MemberId(2)));
    // Whoever slept finds nobody guilty of it.
    let mut hands = of_three();
    hands.now = hands.now.after(60_000 * MILLI);
    hands.pass(2_000 * MILLI, |_| true);
    assert_eq!(lost(&hands), 0);
}

#[test]
fn a_text_for_which_there_is_no_room_is_refused() {
    let config = Config { waiting_entries: 2, ..Config::default() };
    let mut hands = Hands::new(config, 3);
    hands.start(1);
    for text in ["one", "two", "three"] {
        hands.type_at(1, text);
    }
    let kept = |it: &&Event| matches!(it, Event::Pending(_));
    assert_eq!(hands.hands[&1].events.iter().filter(kept).count(), 2);
    let refused = hands.hands[&1].events.iter().find_map(|it| match it {
        Event::Rejected { text, reason, .. } => Some((text.to_string(), reason.clone())),
        _ => None,
    });
    let (text, reason) = refused.expect("it is refused");
    assert!(text == "three" && reason.contains("2 messages wait"), "{text}: {reason}");
    assert_eq!(hands.status(1).pending.len(), 2);
}
