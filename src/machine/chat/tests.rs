//! Parts of the machine that are easier to test alone: the log in memory, the authors, the disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::SeedableRng as _;

use super::authors::Authors;
use super::config::{AUTHORS_MAX, Config, SEQ_MAX, TERM_MAX};
use super::event::{Command, ExtraInput, Snapshot, Timer};
use super::memory::ChatMemory;
use super::replica::{Effect, Fx, Input, Replica};
use super::sync_tracker::SyncTracker;
use super::window::{LogWindow, text_bytes};
use crate::machine::{LinkId, Machine as _};
use crate::model::{KeyPair, Now, Rng, Time, WallTime};
use crate::proto::chat::entry::{
    Body, ChainHash, ChatText, Entry, GroupId, HostPort, Member, MemberId, Membership, MsgId,
    Origin, SeqNo, Term,
};
use crate::proto::chat::message::{CatchupReq, Message, SeqChat};

pub(super) fn entry(seq: u64, term: u64, body: Body) -> Arc<Entry> {
    let (seq_no, term, leader) = (SeqNo(seq), Term(term), MemberId(1));
    Arc::new(Entry { seq_no, term, leader, time: WallTime(u64::MAX), body })
}

fn chat(author: u32, client: u64, number: u64, text: &str) -> Body {
    let origin = Origin { member: MemberId(author), client };
    let msg_id = MsgId { origin, number };
    Body::Chat(ChatText { msg_id, room_id: "general".into(), payload: text.into() })
}

pub(super) fn membership(ids: &[u32]) -> Body {
    let member = |id: &u32| Member {
        id: MemberId(*id),
        at: HostPort { host: [127, 0, 0, 1].into(), port: 6_000 },
        key: KeyPair::from_secret([u8::try_from(*id).expect("small"); 32]).public(),
    };
    let members = ids.iter().map(member).collect();
    Body::Membership(Arc::new(Membership { members, ..Membership::default() }))
}

/// A log of a membership and `count` messages of 1, of which `commit` entries are final.
fn log(count: u64, commit: u64) -> LogWindow {
    let mut log = LogWindow::restore(None);
    log.append(entry(1, 1, membership(&[1, 2, 3])));
    for number in 1..=count {
        log.append(entry(number + 1, 1, chat(1, 0, number, "x")));
    }
    log.commit_to(SeqNo(commit));
    log
}

#[test]
fn a_cut_takes_back_numbers_and_memberships() {
    let origin = Origin { member: MemberId(1), client: 0 };
    let mut log = log(5, 3);
    log.append(entry(7, 1, membership(&[1, 2])));
    assert_eq!((log.last_number(origin), log.membership().members.len()), (5, 2));
    assert!(log.is_changing());
    log.cut(SeqNo(5));
    assert_eq!((log.last().seq, log.last_number(origin)), (SeqNo(4), 3));
    assert_eq!(log.membership().members.len(), 3);
    assert!(!log.is_changing());
    log.cut(SeqNo(4));
    assert_eq!(log.last_number(origin), 2, "the last final one");
    assert_eq!((log.waiting(), log.waiting_bytes()), (0, 0));
}

#[test]
#[should_panic(expected = "what is final is not cut")]
fn nothing_final_is_cut() {
    log(5, 3).cut(SeqNo(3));
}

#[test]
fn memory_keeps_what_is_not_final_and_a_bounded_part_before_it() {
    let config = Config { window_entries: 2, ..Config::default() };
    let mut log = log(9, 6);
    let before = log.chain_at(SeqNo(5));
    log.trim(&config);
    assert_eq!(log.base().seq, SeqNo(4));
    assert_eq!(log.chain_at(SeqNo(5)), before);
    assert_eq!(log.slice(SeqNo(4), &config), None, "the disk has it");
    let kept = log.slice(SeqNo(5), &config).expect("in memory");
    assert_eq!(kept.iter().map(|it| it.seq_no.0).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
    assert_eq!(log.slice(SeqNo(11), &config), Some(vec![]));
}

#[test]
fn a_batch_has_at_least_one_entry_and_never_more_text_than_a_line_holds() {
    let config = Config { batch_bytes: 1, ..Config::default() };
    assert_eq!(log(5, 1).slice(SeqNo(2), &config).map(|it| it.len()), Some(1));
    for text in ["", "plain", "\u{1}\u{2}\"\\\n\t", "höher", "\u{7f}\u{80}"] {
        let it = entry(u64::MAX, u64::MAX, chat(u32::MAX, u64::MAX, u64::MAX, text));
        let line = serde_json::to_string(&it).expect("an entry is JSON");
        assert!(line.len() <= text_bytes(&it), "{} > {}: {line}", line.len(), text_bytes(&it));
    }
    let it = entry(u64::MAX, u64::MAX, membership(&[1, 2, 3]));
    let line = serde_json::to_string(&it).expect("an entry is JSON");
    assert!(line.len() <= text_bytes(&it));
}

#[test]
fn authors_are_forgotten_by_the_age_of_their_last_message_but_never_members() {
    let Body::Membership(group) = membership(&[1]) else { panic!("a membership") };
    let mut authors = Authors::default();
    let own = Origin { member: MemberId(1), client: 0 };
    authors.on_final(MsgId { origin: own, number: 1 }, SeqNo(1), &group);
    for client in 1..=AUTHORS_MAX as u64 + 5 {
        let origin = Origin { member: MemberId(1), client };
        authors.on_final(MsgId { origin, number: 1 }, SeqNo(client + 1), &group);
    }
    assert_eq!(authors.marks().len(), AUTHORS_MAX);
    assert_eq!(authors.last(own), Some((1, SeqNo(1))));
    let left: BTreeSet<_> = authors.marks().iter().map(|it| it.client).collect();
    assert_eq!(left.range(1..).next(), Some(&7), "the oldest six are forgotten");
    let again = Authors::restore(&authors.marks());
    assert_eq!(again.marks(), authors.marks());
}

#[test]
fn nothing_is_said_before_the_disk_has_it() {
    let mut disk = SyncTracker::restore(&LogWindow::restore(None), SeqNo(0));
    for seq in 1..=3 {
        disk.issue();
        disk.on_entry(SeqNo(seq));
    }
    let ask = |seq| {
        let (sender_id, term, last_seq) = (MemberId(1), Term(1), SeqNo(seq));
        Message::CatchupReq(CatchupReq { sender_id, term, last_seq, tail: false })
    };
    disk.hold(2, LinkId(1), ask(2));
    disk.hold(3, LinkId(1), ask(3));
    disk.on_synced(1);
    assert_eq!(disk.pop(), None);
    assert_eq!(disk.stored(), SeqNo(1));
    disk.on_synced(2);
    assert_eq!([disk.pop(), disk.pop()], [Some((LinkId(1), ask(2))), None]);
    disk.issue();
    disk.on_cut(SeqNo(2));
    assert_eq!(disk.stored(), SeqNo(1), "what was cut is not stored");
    disk.on_synced(4);
    assert_eq!(disk.pop(), Some((LinkId(1), ask(3))));
    assert_eq!(disk.stored(), SeqNo(1));
}

#[test]
fn the_term_of_entries_is_within_the_limit_as_well() {
    let bounds = |entries: Vec<Arc<Entry>>| {
        let piece = SeqChat {
            sender_id: MemberId(3),
            term: Term(2),
            prev_seq: SeqNo(1),
            prev_term: Term(1),
            commit: SeqNo(1),
            entries,
        };
        [Message::SeqChat(piece.clone()), Message::CatchupResp(piece)].map(|it| it.bounds())
    };
    assert_eq!(bounds(Vec::new()), [(2, 1); 2]);
    let entries = vec![entry(2, 1, Body::Opening), entry(3, u64::MAX, Body::Opening)];
    assert_eq!(bounds(entries), [(u64::MAX, 3); 2], "nobody may have such a log");
}

#[test]
fn a_log_that_ends_at_the_last_number_there_is_is_read_and_breaks_nothing() {
    let Body::Membership(membership) = membership(&[1]) else { unreachable!() };
    let me = membership.members[0].clone();
    for (seq, term) in [(SEQ_MAX, TERM_MAX), (u64::MAX - 1, 7), (u64::MAX, u64::MAX)] {
        let snapshot = Snapshot {
            group: GroupId([7; 16]),
            seq_no: SeqNo(seq),
            term: Term(term),
            chain: ChainHash::default(),
            membership: Arc::clone(&membership),
            authors: Vec::new(),
        };
        let memory = ChatMemory { snapshot: Some(snapshot), ..ChatMemory::default() };
        let mut group = Replica::new(Config::default(), me.clone(), Rng::seed_from_u64(1), memory);
        let mut now = Now { mono: Time::ZERO, wall: WallTime(0) };
        let say = Command::Say { room: "general".into(), text: "x".into() };
        let timers = [Timer::Election, Timer::Heartbeat, Timer::Quorum];
        let inputs = [Input::Start]
            .into_iter()
            .chain(timers.map(Input::Expired))
            .chain([Input::Command(say)])
            .chain(timers.map(Input::Expired));
        let mut written = 0;
        for input in inputs {
            now.mono = now.mono.after(std::time::Duration::from_secs(10));
            for input in [input, Input::Extra(ExtraInput::Idle)] {
                let mut fx = Fx::default();
                group.handle(now, input, &mut fx);
                written += fx.iter().filter(|it| matches!(it, Effect::Persist(_))).count() as u64;
                group.handle(now, Input::Synced { records: written }, &mut fx);
            }
        }
        assert!(group.status().last >= SeqNo(seq));
    }
}
