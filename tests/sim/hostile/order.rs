//! A member of a Byzantine order, among members and strangers that say anything, and with a log
//! that somebody has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::bft::{
    BftIdentity, BftReplica, Command, Config, Effect, ExtraEffect, ExtraInput, Fx, Input, Opening,
    OrderMemory, Record, Timer,
};
use folkmoot::machine::{LinkId, Machine as _};
use folkmoot::model::{KeyPair, Now, Rng, Time, WallTime};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::view::{SignedClaim, Suspect};
use folkmoot::proto::bft::{
    Bundle, BundleItem, Committee, EpochNo, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::{HostPort, Member, MemberId, Origin};
use rand::SeedableRng as _;
use serde_json::Value;

use super::source::Source;

/// A line or more for every message, all of the group of four in which this member is the second.
const GOLDEN: &str = include_str!("../../golden/bft.jsonl");

const SALT: &str = "ledger";
const ME: u32 = 2;

/// A process that is no member.
const STRANGER: u32 = 9;

/// Effects of one input at most.
const EFFECTS_MAX: usize = 2_048;

fn keys(id: u32) -> KeyPair {
    KeyPair::from_secret([id as u8; 32])
}

fn founders() -> Arc<Committee> {
    let member = |id: u32| {
        let at = HostPort { host: [127, 0, 0, 1].into(), port: 6_000 + id as u16 };
        Member { id: MemberId(id), at, key: keys(id).public() }
    };
    Arc::new(Committee::of((1..=4).map(member)).expect("four members"))
}

fn identity() -> BftIdentity {
    let founders = founders();
    BftIdentity { id: MemberId(ME), keys: keys(ME), founders, salt: SALT.to_owned() }
}

/// The machine from these records; `None` if it refuses them.
fn machine(records: Vec<Record>, lives: u64) -> Option<BftReplica> {
    let memory = OrderMemory { snapshot: None, records, is_lost: None };
    let config = Config { window: 2, window_slots: 3, snapshot_every: 4, ..Config::default() };
    BftReplica::new(config, identity(), Rng::seed_from_u64(lives), memory).ok()
}

struct Desk {
    machine: BftReplica,
    records: Vec<Record>,
    /// Records that this life has written.
    written: u64,
    lives: u64,
    now: Time,
    links: BTreeMap<LinkId, u32>,
    /// Lines that were said here, beside the golden ones.
    heard: Vec<Value>,
}

impl Desk {
    fn new(records: Vec<Record>, lives: u64) -> Option<Self> {
        let machine = machine(records.clone(), lives)?;
        let (links, heard) = (BTreeMap::new(), Vec::new());
        let now = Time::ZERO.after(Duration::from_secs(lives));
        let mut desk = Self { machine, records, written: 0, lives, now, links, heard };
        desk.step(Input::Start);
        Some(desk)
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![Input::Extra(ExtraInput::Idle), input];
        while let Some(input) = inputs.pop() {
            let mut fx = Fx::default();
            let now = Now { mono: self.now, wall: WallTime(0) };
            self.machine.handle(now, input, &mut fx);
            assert!(fx.len() < EFFECTS_MAX, "the cost of one input is bounded");
            for effect in fx {
                match effect {
                    Effect::Persist(record) => {
                        self.written += 1;
                        self.records.push(record);
                        inputs.insert(0, Input::Synced { records: self.written });
                        inputs.insert(0, Input::Extra(ExtraInput::Idle));
                    }
                    Effect::Hangup { link } if self.links.remove(&link).is_some() => {
                        inputs.insert(0, Input::closed(link, ""));
                    }
                    Effect::Send { msg, .. } | Effect::SendAll { msg, .. }
                        if self.heard.len() < 64 =>
                    {
                        self.heard.push(serde_json::to_value(&msg).expect("a message"));
                    }
                    Effect::Extra(ExtraEffect::Load { link, .. }) => {
                        let (slots, headers, certificate) = (Vec::new(), Vec::new(), None);
                        let loaded = ExtraInput::Loaded { link, slots, headers, certificate };
                        inputs.insert(0, Input::Extra(loaded));
                    }
                    _ => {}
                }
            }
        }
        self.machine.status();
    }
}

/// Changes one value somewhere in a line, or a list's length.
fn change(value: &mut Value, others: &[Value], src: &mut Source<'_>) {
    match value {
        Value::Object(fields) => {
            let names: Vec<_> = fields.keys().cloned().collect();
            let Some(name) = (!names.is_empty()).then(|| src.one(&names)) else { return };
            if src.chance(5) {
                fields.remove(&name);
            } else if let Some(field) = fields.get_mut(&name) {
                let twin = others.get(src.below(others.len().max(1)));
                match twin.and_then(|it| it.get(&name)) {
                    Some(twin) if src.chance(25) => *field = twin.clone(),
                    _ => change(field, others, src),
                }
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let at = src.below(items.len());
            match src.byte() % 6 {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                2 => items.swap(0, at),
                _ => change(&mut items[at], others, src),
            }
        }
        Value::Number(number) => {
            let old = number.as_u64().unwrap_or_default();
            let new = match src.byte() % 4 {
                0 => old.wrapping_add(1),
                1 => old.wrapping_sub(1),
                _ => src.number(),
            };
            *value = Value::from(new);
        }
        Value::String(text) if !text.is_empty() && text.is_ascii() => {
            let mut bytes = std::mem::take(text).into_bytes();
            let at = src.below(bytes.len());
            bytes[at] = b'0' + src.byte() % 10;
            *value = Value::from(String::from_utf8(bytes).expect("it is ASCII"));
        }
        Value::String(text) => *text = src.text(),
        Value::Bool(it) => *it = !*it,
        Value::Null => {}
    }
}

/// A line of the golden file, or one that was said here, with a few changes.
fn line(desk: &Desk, src: &mut Source<'_>) -> Option<Message> {
    let lines: Vec<Value> =
        GOLDEN.lines().map(|it| serde_json::from_str(it).expect("a golden line")).collect();
    let mut value = match desk.heard.len() {
        heard if heard > 0 && src.chance(30) => desk.heard[src.below(heard)].clone(),
        _ => lines[src.below(lines.len())].clone(),
    };
    for _ in 0..src.byte() % 3 {
        change(&mut value, &lines, src);
    }
    serde_json::from_value(value).ok()
}

/// Something that a member signs now, for a place near the present one.
fn signed(desk: &Desk, by: u32, src: &mut Source<'_>) -> Message {
    let status = desk.machine.status();
    let (group, keys) = (status.group, keys(by));
    let me = (MemberId(by), &keys);
    let epoch = if src.chance(90) { status.epoch } else { EpochNo(src.number()) };
    let near = |at: u64, src: &mut Source<'_>| match src.byte() % 8 {
        0 => src.number(),
        more => at.saturating_add(u64::from(more % 4)),
    };
    let (view, slot) = (ViewNo(near(status.view.0, src)), SlotNo(near(status.slot.0, src)));
    let subject = VoteSubject { epoch, view, slot, digest: status.digest };
    match src.byte() % 6 {
        0 => Message::Prepare(PhaseVote::sign(&group, VotePhase::Prepare, subject, me)),
        1 => Message::Commit(PhaseVote::sign(&group, VotePhase::Commit, subject, me)),
        2 => Message::Suspect(Suspect::sign(&group, (epoch, view), "fuzz", me)),
        3 => {
            let claim = folkmoot::proto::bft::Claim {
                phase: folkmoot::proto::bft::ClaimKind::Start,
                view: ViewNo(0),
                slot: SlotNo(0),
                digest: folkmoot::proto::bft::ContentDigest(group.0),
            };
            let signed = SignedClaim::sign(&group, (epoch, view), claim, me);
            let (certificate, change) = (None, (epoch, view));
            let (epoch, view) = change;
            let change =
                folkmoot::proto::bft::view::ViewChange { epoch, view, signed, certificate };
            Message::ViewChange(Arc::new(change))
        }
        _ => {
            let items = vec![BundleItem { room: "general".into(), payload: "text".into() }];
            let origin = Origin { member: me.0, client: 1 + u64::from(src.byte() % 3) };
            let first = near(1, src).max(1);
            Message::Bundle(Arc::new(Bundle::sign(&group, origin, first, items, &keys)))
        }
    }
}

/// A log as somebody has changed it: refused, or a member that goes on.
fn changed_log(desk: &Desk, src: &mut Source<'_>) {
    let mut records = desk.records.clone();
    for _ in 0..1 + src.byte() % 3 {
        if records.is_empty() {
            return;
        }
        let at = src.below(records.len());
        let mut value = serde_json::to_value(&records[at]).expect("a record");
        change(&mut value, &[], src);
        match serde_json::from_value(value) {
            Ok(record) => records[at] = record,
            Err(_) => drop(records.remove(at)),
        }
    }
    if let Some(mut desk) = Desk::new(records, desk.lives + 100) {
        let link = LinkId(1);
        let opening = Opening { key: keys(1).public(), is_ours: true };
        desk.step(Input::Opened { link, opening });
        desk.step(Input::Expired(Timer::Heartbeat));
    }
}

/// Whatever members and strangers say to it, a member answers and shows how it stands, and begins
/// again from what it has written.
pub fn order_member(bytes: &[u8]) {
    let mut src = Source::new(bytes);
    let src = &mut src;
    let mut desk = Desk::new(Vec::new(), 0).expect("an empty log is sound");
    let mut next = 0;
    while !src.is_empty() {
        desk.now = desk.now.after(Duration::from_millis(u64::from(src.byte()) * 8));
        let by = src.one(&[1, 3, 3, 4, STRANGER]);
        let linked = desk.links.iter().find(|it| *it.1 == by).map(|it| *it.0);
        match (src.byte() % 16, linked) {
            (0, Some(link)) => {
                desk.links.remove(&link);
                desk.step(Input::closed(link, ""));
            }
            (1, _) => {
                let say = Command::Say { room: "general".into(), text: "own".into() };
                desk.step(Input::Command(if src.chance(90) { say } else { Command::Suspect }));
            }
            (2 | 3, _) => {
                let timers = [
                    Timer::Heartbeat,
                    Timer::Patience,
                    Timer::LeaderBroken,
                    Timer::Reign,
                    Timer::Fetch,
                    Timer::Recall,
                    Timer::Redial(MemberId(1)),
                ];
                desk.step(Input::Expired(src.one(&timers)));
            }
            (4, _) => {
                let (records, lives) = (desk.records.clone(), desk.lives + 1);
                desk = Desk::new(records, lives).expect("it has written this itself");
            }
            (5, _) => changed_log(&desk, src),
            (_, None) => {
                next += 1;
                desk.links.insert(LinkId(next), by);
                let opening = Opening { key: keys(by).public(), is_ours: src.chance(50) };
                desk.step(Input::Opened { link: LinkId(next), opening });
            }
            (what, Some(link)) => {
                let msg = if what < 11 { line(&desk, src) } else { Some(signed(&desk, by, src)) };
                if let Some(msg) = msg {
                    desk.step(Input::Received { link, msg });
                }
            }
        }
    }
}
