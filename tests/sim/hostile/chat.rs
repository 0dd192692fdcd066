//! A member of a group that chats, among members and strangers that say anything.

use folkmoot::proto::chat::entry::{
    Body, ChainHash, ChatText, Entry, GroupId, HostPort, Member, MemberId, Membership, MsgId,
    Origin, SeqNo, Term,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::chat::{
    ChatMemory, Command, Config, Effect, ExtraInput, Fx, Input, Opening, Record, Replica, Timer,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::chat::message::{
    CatchupReq, ChatAck, ChatReq, Consent, Coordinator, Election, ElectionOk, JoinAck, JoinIntent,
    LeaderHeartbeat, Message, Nack, NackCode, SeqAck, SeqChat, SeqNack, TakeNow, TakeoverReq,
    VerifyReq, VerifyResp,
};
use rand::SeedableRng as _;

use super::source::Source;

/// The member itself, of three; 4 and 5 are strangers.
const ME: u32 = 2;

/// So many effects of one input at most.
const EFFECTS_MAX: usize = 1_024;

const GROUP: GroupId = GroupId([7; 16]);

fn member(id: u32) -> Member {
    let key = KeyPair::from_secret([id as u8; 32]).public();
    Member {
        id: MemberId(id),
        at: HostPort { host: [127, 0, 0, 1].into(), port: 6_000 + id as u16 },
        key,
    }
}

struct Desk {
    group: Replica,
    records: Vec<Record>,
    written: u64,
    now: Time,
    links: BTreeMap<LinkId, u32>,
}

impl Desk {
    fn new(records: Vec<Record>) -> Self {
        let memory =
            ChatMemory { bootstrap: false, group: None, snapshot: None, records: records.clone() };
        let group = Replica::new(Config::default(), member(ME), Rng::seed_from_u64(1), memory);
        let links = BTreeMap::new();
        let mut desk = Self { group, records, written: 0, now: Time::ZERO, links };
        desk.step(Input::Start);
        desk
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![Input::Extra(ExtraInput::Idle), input];
        while let Some(input) = inputs.pop() {
            let mut fx = Fx::default();
            let now = Now { mono: self.now, wall: WallTime(0) };
            self.group.handle(now, input, &mut fx);
            assert!(fx.len() < EFFECTS_MAX, "the cost of one input is bounded");
            for effect in fx {
                match effect {
                    Effect::Persist(record) => {
                        self.written += 1;
                        self.records.push(record);
                        inputs.insert(0, Input::Synced { records: self.written });
                        inputs.insert(0, Input::Extra(ExtraInput::Idle));
                    }
                    Effect::Hangup { link } => drop(self.links.remove(&link)),
                    _ => {}
                }
            }
        }
        self.group.status();
    }
}

/// A number, mostly one that fits.
fn number(fits: u64, src: &mut Source<'_>) -> u64 {
    if src.chance(60) { fits } else { src.number() }
}

fn chat(by: u32, src: &mut Source<'_>) -> ChatText {
    let origin = Origin { member: MemberId(by), client: u64::from(src.byte() % 3) };
    let msg_id = MsgId { origin, number: number(1, src).max(1) };
    ChatText { msg_id, room_id: "general".into(), payload: "text".into() }
}

/// Entries after a place: a piece of a log, or something like it.
fn entries(after: u64, term: u64, src: &mut Source<'_>) -> Vec<Arc<Entry>> {
    let count = src.below(4) as u64;
    let one = |at: u64| {
        let body = match src.byte() % 4 {
            0 => Body::Opening,
            _ => Body::Chat(chat(1 + u32::from(src.byte() % 3), src)),
        };
        let seq_no = SeqNo(number(after.wrapping_add(1 + at), src));
        let term = Term(number(term, src));
        Arc::new(Entry { seq_no, term, leader: MemberId(3), time: WallTime(src.number()), body })
    };
    (0..count).map(one).collect()
}

/// What somebody says.
fn said(desk: &Desk, by: u32, src: &mut Source<'_>) -> Message {
    let status = desk.group.status();
    let sender_id = if src.chance(90) { MemberId(by) } else { MemberId(1) };
    let term = Term(number(status.term.0.max(2), src));
    let last_term = Term(number(1, src));
    let last_seq = SeqNo(number(status.last.0, src));
    let commit = SeqNo(number(status.commit.0, src));
    match src.byte() % 17 {
        0 => Message::Heartbeat(LeaderHeartbeat {
            sender_id,
            term,
            commit,
            hash: ChainHash::default(),
        }),
        1 => {
            let (trial, force) = (src.chance(50), src.chance(50));
            Message::Election(Election { sender_id, term, last_term, last_seq, trial, force })
        }
        2 => {
            let kind = src.one(&[Consent::Would, Consent::Promise, Consent::Takeover]);
            Message::ElectionOk(ElectionOk { sender_id, term, kind, last_term, last_seq, commit })
        }
        3 => {
            let membership = vec![member(by)];
            Message::Coordinator(Coordinator { sender_id, term, commit, membership })
        }
        4 | 5 => Message::Chat(ChatReq { sender_id, chat: chat(by, src) }),
        6 => {
            let (msg_id, seq_no) = (chat(ME, src).msg_id, src.chance(50).then_some(last_seq));
            Message::ChatAck(ChatAck { sender_id, msg_id, seq_no })
        }
        7..=10 => {
            let entries = entries(last_seq.0, term.0, src);
            let (prev_seq, prev_term) = (last_seq, last_term);
            let piece = SeqChat { sender_id, term, prev_seq, prev_term, commit, entries };
            if src.chance(60) { Message::SeqChat(piece) } else { Message::CatchupResp(piece) }
        }
        11 => Message::SeqAck(SeqAck { sender_id, term, last_seq }),
        12 => Message::SeqNack(SeqNack { sender_id, term, last_seq }),
        13 => {
            let code = src.one(&[NackCode::Stale, NackCode::NotLeader, NackCode::Gap]);
            let (leader_id, msg_id) = (Some(MemberId(by)), Some(chat(ME, src).msg_id));
            let reason = String::new();
            Message::Nack(Nack { sender_id, term, code, leader_id, msg_id, reason })
        }
        14 => {
            let tail = src.chance(50);
            Message::CatchupReq(CatchupReq { sender_id, term, last_seq, tail })
        }
        15 => match src.byte() % 3 {
            0 => Message::TakeoverReq(TakeoverReq { sender_id, term }),
            1 => Message::TakeNow(TakeNow { sender_id, term, last_seq }),
            _ => Message::JoinAck(JoinAck {
                sender_id,
                term,
                group: GROUP,
                leader_id: Some(MemberId(by)),
                membership: vec![member(1), member(ME), member(3)],
                life: Some(src.number()),
            }),
        },
        _ if src.chance(50) => {
            let at = vec![commit, SeqNo(src.number())];
            Message::VerifyReq(VerifyReq { sender_id, question: src.number(), at })
        }
        _ => {
            let hashes = vec![(SeqNo(src.number()), ChainHash::default())];
            Message::VerifyResp(VerifyResp { sender_id, question: src.number(), commit, hashes })
        }
    }
}

/// A log of three members that has begun.
fn begun(src: &mut Source<'_>) -> Vec<Record> {
    let members = (1..=3).map(member).collect();
    let membership = Membership { members, ..Membership::default() };
    let Member { id, key, .. } = member(ME);
    let body = Body::Membership(Arc::new(membership));
    let (seq_no, term, leader, time) = (SeqNo(1), Term(1), MemberId(1), WallTime(0));
    vec![
        Record::Group { group: GROUP, me: id, key },
        Record::Term { term: Term(number(1, src).max(1)), voted_for: None },
        Record::Entry(Arc::new(Entry { seq_no, term, leader, time, body })),
        Record::Commit { seq_no: SeqNo(1) },
    ]
}

/// Whatever members and strangers say to it, a member answers and shows how it stands.
pub fn chat_group(bytes: &[u8]) {
    let mut src = Source::new(bytes);
    let src = &mut src;
    let mut desk = Desk::new(begun(src));
    let mut next = 0;
    while !src.is_empty() {
        desk.now = desk.now.after(Duration::from_millis(u64::from(src.byte()) * 20));
        let by = src.one(&[1, 3, 3, 4, 5]);
        let linked = desk.links.iter().find(|it| *it.1 == by).map(|it| *it.0);
        match (src.byte() % 12, linked) {
            (0, Some(link)) => {
                desk.links.remove(&link);
                desk.step(Input::closed(link, ""));
            }
            (1, Some(_)) => {
                let command = Command::Say { room: "general".into(), text: "text".into() };
                desk.step(Input::Command(command));
            }
            (2 | 3, Some(_)) => {
                let timers = [Timer::Election, Timer::Heartbeat, Timer::Quorum, Timer::Pulse];
                desk.step(Input::Expired(src.one(&timers)));
            }
            (_, None) => {
                next += 1;
                let (link, member, intent) = (LinkId(next), member(by), JoinIntent::Member);
                desk.links.insert(link, by);
                let life = Some(u64::from(by));
                desk.step(Input::Opened {
                    link,
                    opening: Opening { member, intent, is_ours: false, life },
                });
            }
            (_, Some(link)) => {
                let msg = said(&desk, by, src);
                desk.step(Input::Received { link, msg });
            }
        }
    }
}
