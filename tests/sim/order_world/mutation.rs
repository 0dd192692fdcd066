//! Small changes of messages: one field of one type of message gets a neighbouring, an older or
//! another value, whenever a message of that type leaves a member (Winter et al.: Randomized
//! testing of Byzantine fault tolerant algorithms, OOPSLA 2023).
//!
//! The table of changes is made from the golden lines, which have every type of message, so that
//! none is forgotten. A liar signs what it has changed; on the way nobody can.

#![allow(clippy::wildcard_enum_match_arm, reason = "a change concerns a few kinds of many")]

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use folkmoot::model::{KeyPair, Rng};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::view::{NewView, SignedClaim, Suspect};
use folkmoot::proto::bft::{Approval, Bundle, MembershipChange, OrderId, PhaseVote, VotePhase};
use folkmoot::proto::chat::entry::MemberId;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

/// A line or more for every type of message.
pub(crate) const GOLDEN: &str = include_str!("../../golden/bft.jsonl");

/// Values of a field that are remembered.
const VALUES: usize = 24;

/// Types of messages. A new one does not compile until [`kind`] has it.
pub(crate) const KINDS: [&str; 23] = [
    "ORDER_JOIN",
    "ORDER_CHALLENGE",
    "ORDER_PROOF",
    "ORDER_ACK",
    "ORDER_REFUSED",
    "BUNDLE",
    "CHANGE",
    "PRE_PREPARE",
    "PREPARE",
    "COMMIT",
    "SUSPECT",
    "VIEW_CHANGE",
    "NEW_VIEW",
    "ORDER_STATUS",
    "SLOT_REQ",
    "SLOT_RESP",
    "CHAIN_REQ",
    "CHAIN_RESP",
    "BUNDLE_REQ",
    "RECALL_REQ",
    "RECALL_RESP",
    "APPROVE",
    "EVIDENCE",
];

/// Number of types of the handshake, which members do not say once they are linked.
pub(crate) const HANDSHAKE: usize = 5;

/// Type of a message, as lines name it.
pub(crate) const fn kind(msg: &Message) -> &'static str {
    KINDS[match msg {
        Message::OrderJoin(_) => 0,
        Message::OrderChallenge(_) => 1,
        Message::OrderProof(_) => 2,
        Message::OrderAck(_) => 3,
        Message::OrderRefused(_) => 4,
        Message::Bundle(_) => 5,
        Message::Change(_) => 6,
        Message::PrePrepare(_) => 7,
        Message::Prepare(_) => 8,
        Message::Commit(_) => 9,
        Message::Suspect(_) => 10,
        Message::ViewChange(_) => 11,
        Message::NewView(_) => 12,
        Message::OrderStatus(_) => 13,
        Message::SlotReq(_) => 14,
        Message::SlotResp(_) => 15,
        Message::ChainReq(_) => 16,
        Message::ChainResp(_) => 17,
        Message::BundleReq(_) => 18,
        Message::RecallReq(_) => 19,
        Message::RecallResp(_) => 20,
        Message::Approve(_) => 21,
        Message::Evidence(_) => 22,
    }]
}

/// One way to change a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// A number is one higher.
    Next,
    /// A number is one lower.
    Previous,
    /// A number is 0.
    Zero,
    /// The value that the field had in an earlier message.
    Older,
    /// The value of a field of this name in any message.
    Other,
    /// Another truth value, or another digit.
    Flipped,
    /// A list without its first item.
    First,
    /// A list without its last item.
    Last,
    /// A list with its first item twice.
    Twice,
    /// A list with its first items the other way round.
    Swapped,
    /// The field is missing.
    Absent,
}

/// One field of one type of message, and how it is changed. In the path `*` is any item of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mutation {
    pub(crate) kind: &'static str,
    pub(crate) path: Vec<String>,
    pub(crate) turn: Turn,
}

/// All mutations of messages that look like the golden lines.
pub(crate) fn all() -> Vec<Mutation> {
    let mut found = BTreeSet::new();
    for line in GOLDEN.lines() {
        let value: Value = serde_json::from_str(line).expect("a golden line");
        let kind = KINDS.iter().find(|it| value["type"] == **it).expect("a known type");
        let mut path = Vec::new();
        list(&value, &mut path, &mut |path, turn| {
            found.insert(Mutation { kind, path: path.to_vec(), turn });
        });
    }
    // A field that must be there leaves no message when it is missing.
    let is_message = |it: &Mutation| {
        it.turn != Turn::Absent
            || GOLDEN.lines().any(|line| {
                let mut value: Value = serde_json::from_str(line).expect("a golden line");
                value["type"] == it.kind
                    && remove(&mut value, &it.path)
                    && serde_json::from_value::<Message>(value).is_ok()
            })
    };
    found.into_iter().filter(is_message).collect()
}

/// Removes the field at a path, in the first item of each list; false if there is none.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return false };
    match value {
        Value::Object(fields) if rest.is_empty() => fields.remove(name).is_some(),
        Value::Object(fields) => fields.get_mut(name).is_some_and(|it| remove(it, rest)),
        Value::Array(items) => items.first_mut().is_some_and(|it| remove(it, rest)),
        _ => false,
    }
}

fn list(value: &Value, path: &mut Vec<String>, found: &mut dyn FnMut(&[String], Turn)) {
    use Turn::{Absent, First, Flipped, Last, Next, Older, Other, Previous, Swapped, Twice, Zero};
    let turns: &[Turn] = match value {
        Value::Null | Value::Object(_) => &[],
        Value::Bool(_) => &[Flipped],
        Value::Number(_) => &[Next, Previous, Zero, Older, Other],
        Value::String(_) => &[Older, Other, Flipped],
        Value::Array(_) => &[First, Last, Twice, Swapped],
    };
    turns.iter().for_each(|turn| found(path, *turn));
    match value {
        Value::Object(fields) => {
            let is_message = path.is_empty();
            for (name, field) in fields.iter().filter(|it| !is_message || it.0 != "type") {
                path.push(name.clone());
                found(path, Absent);
                list(field, path, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            path.push("*".to_owned());
            items.iter().for_each(|it| list(it, path, found));
            path.pop();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What changes small things in the messages that leave a member, in all its lives.
#[derive(Debug)]
pub(crate) struct Mutator {
    mutation: Arc<Mutation>,
    group: OrderId,
    /// Id and keys of the liar; `None` on the way.
    signer: Option<(MemberId, KeyPair)>,
    /// Share of the messages that are changed.
    rate: f64,
    is_on: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    older: VecDeque<Value>,
    others: VecDeque<Value>,
    rng: Rng,
}

/// Mutations in a run.
#[derive(Clone, Debug)]
pub(crate) struct Mutating {
    pub(crate) mutation: Arc<Mutation>,
    /// True if liars sign what they change; false if it is changed on the way.
    pub(crate) is_signed: bool,
    /// True while messages are changed on the way.
    pub(crate) is_on: Arc<AtomicBool>,
    /// Number of messages that were changed.
    pub(crate) count: Arc<AtomicU64>,
}

impl Mutating {
    pub(crate) fn new(mutation: Mutation, is_signed: bool) -> Self {
        let is_on = Arc::new(AtomicBool::new(true));
        Self { mutation: Arc::new(mutation), is_signed, is_on, count: Arc::default() }
    }

    /// What changes the messages of one member.
    pub(crate) fn mutator(&self, group: OrderId, me: (MemberId, KeyPair), seed: u64) -> Mutator {
        let mut rng = Rng::seed_from_u64(seed);
        let mut others = VecDeque::new();
        if let Some(name) = self.mutation.path.iter().rfind(|it| *it != "*") {
            for line in GOLDEN.lines() {
                let value = serde_json::from_str(line).expect("a golden line");
                values_of(&value, name, &mut others);
            }
        }
        Mutator {
            mutation: Arc::clone(&self.mutation),
            group,
            signer: self.is_signed.then_some(me),
            rate: if self.is_signed { rng.random_range(0.2..1.0) } else { 0.2 },
            is_on: Arc::clone(&self.is_on),
            count: Arc::clone(&self.count),
            older: VecDeque::new(),
            others,
            rng,
        }
    }
}

fn keep(values: &mut VecDeque<Value>, value: &Value) {
    if !values.contains(value) {
        values.push_back(value.clone());
        if values.len() > VALUES {
            values.pop_front();
        }
    }
}

/// Collects the values at a path.
fn values_at(value: &Value, path: &[String], values: &mut VecDeque<Value>) {
    let Some((name, rest)) = path.split_first() else { return keep(values, value) };
    match value {
        Value::Object(fields) => {
            if let Some(field) = fields.get(name) {
                values_at(field, rest, values);
            }
        }
        Value::Array(items) if name == "*" => {
            items.iter().for_each(|it| values_at(it, rest, values));
        }
        _ => {}
    }
}

/// Collects the values of all fields of a name.
fn values_of(value: &Value, name: &str, values: &mut VecDeque<Value>) {
    match value {
        Value::Object(fields) => {
            for (it, field) in fields {
                if it == name {
                    keep(values, field);
                }
                values_of(field, name, values);
            }
        }
        Value::Array(items) => items.iter().for_each(|it| values_of(it, name, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Mutator {
    /// What leaves instead of a message.
    pub(crate) fn said(&mut self, msg: Message) -> Vec<Message> {
        let is_handshake = KINDS[..HANDSHAKE].contains(&self.mutation.kind);
        let is_meant = kind(&msg) == self.mutation.kind;
        if !is_meant && !self.rng.random_bool(0.2) {
            return vec![msg];
        }
        let value = serde_json::to_value(&msg).expect("messages have a JSON form");
        if is_meant {
            values_at(&value, &self.mutation.path, &mut self.older);
        }
        if let Some(name) = self.mutation.path.iter().rfind(|it| *it != "*") {
            values_of(&value, name, &mut self.others);
        }
        let is_now = is_meant && self.rng.random_bool(self.rate) || is_handshake;
        if !is_now || self.signer.is_none() && !self.is_on.load(Ordering::Relaxed) {
            return vec![msg];
        }
        let meant = if is_handshake { self.golden() } else { value };
        let Some(changed) = self.changed(meant).filter(|it| *it != msg) else { return vec![msg] };
        self.count.fetch_add(1, Ordering::Relaxed);
        match self.rng.random_range(0..3) {
            0 if !is_handshake => vec![changed],
            1 => vec![changed, msg],
            _ => vec![msg, changed],
        }
    }

    /// A golden line of the type.
    fn golden(&mut self) -> Value {
        let values = GOLDEN.lines().map(|it| serde_json::from_str(it).expect("a golden line"));
        let mut meant: Vec<Value> =
            values.filter(|it: &Value| it["type"] == self.mutation.kind).collect();
        meant.swap_remove(self.rng.random_range(0..meant.len()))
    }

    /// A message with the change; `None` if it has no such field, or is no message then.
    fn changed(&mut self, mut value: Value) -> Option<Message> {
        let mutation = Arc::clone(&self.mutation);
        if !self.turn(&mut value, &mutation.path) {
            return None;
        }
        let mut msg = serde_json::from_value(value).ok()?;
        if mutation.path.last().is_none_or(|it| it != "signature") {
            self.sign(&mut msg);
        }
        Some(msg)
    }

    /// Changes the value at a path; false if there is nothing to change.
    fn turn(&mut self, value: &mut Value, path: &[String]) -> bool {
        let Some((name, rest)) = path.split_first() else { return self.turn_value(value) };
        match value {
            Value::Object(fields) if rest.is_empty() && self.mutation.turn == Turn::Absent => {
                fields.remove(name).is_some()
            }
            Value::Object(fields) => fields.get_mut(name).is_some_and(|it| self.turn(it, rest)),
            Value::Array(items) if !items.is_empty() => {
                let at = self.rng.random_range(0..items.len());
                self.turn(&mut items[at], rest)
            }
            _ => false,
        }
    }

    fn turn_value(&mut self, value: &mut Value) -> bool {
        let number = value.as_u64().unwrap_or_default();
        let new = match self.mutation.turn {
            Turn::Next => number.checked_add(1).map(Value::from),
            Turn::Previous => number.checked_sub(1).map(Value::from),
            Turn::Zero => Some(Value::from(0)),
            Turn::Older => self.one_of(true, value),
            Turn::Other => self.one_of(false, value),
            Turn::Flipped => self.flipped(value),
            turn => {
                let Value::Array(items) = value else { return false };
                return turn_list(turn, items);
            }
        };
        let is_new = new.as_ref().is_some_and(|it| it != value);
        *value = new.unwrap_or_default();
        is_new
    }

    fn one_of(&mut self, is_older: bool, value: &Value) -> Option<Value> {
        let values = if is_older { &self.older } else { &self.others };
        let others: Vec<_> = values.iter().filter(|it| *it != value).collect();
        let at = (!others.is_empty()).then(|| self.rng.random_range(0..others.len()))?;
        Some(others[at].clone())
    }

    fn flipped(&mut self, value: &Value) -> Option<Value> {
        match value {
            Value::Bool(it) => Some(Value::from(!it)),
            Value::String(text) if text.bytes().all(|it| it.is_ascii_hexdigit()) => {
                let mut digits = text.clone().into_bytes();
                let at = (!digits.is_empty()).then(|| self.rng.random_range(0..digits.len()))?;
                digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
                Some(Value::from(String::from_utf8(digits).expect("digits")))
            }
            Value::String(text) => Some(Value::from(format!("{text}x"))),
            _ => None,
        }
    }

    /// The liar signs what it says now; what others have signed stays.
    fn sign(&self, msg: &mut Message) {
        let Some((id, keys)) = &self.signer else { return };
        let (group, me) = (&self.group, (*id, keys));
        let vote = |phase, it: &PhaseVote| PhaseVote {
            signature: PhaseVote::sign(group, phase, it.subject, me).signature,
            ..*it
        };
        match msg {
            Message::PrePrepare(it) => {
                let it = Arc::make_mut(it);
                let proposed = it.vote(it.header.digest(group));
                it.signature = vote(VotePhase::Prepare, &proposed).signature;
            }
            Message::Prepare(it) => *it = vote(VotePhase::Prepare, it),
            Message::Commit(it) => *it = vote(VotePhase::Commit, it),
            Message::Suspect(it) => {
                it.signature = Suspect::sign(group, (it.epoch, it.view), "", me).signature;
            }
            Message::ViewChange(it) => {
                let it = Arc::make_mut(it);
                let view = (it.epoch, it.view);
                it.signed.signature = SignedClaim::sign(group, view, it.signed.claim, me).signature;
            }
            Message::NewView(it) => {
                let it = Arc::make_mut(it);
                let view = (it.epoch, it.view);
                for own in it.changes.iter_mut().filter(|it| it.sender_id == *id) {
                    own.signature = SignedClaim::sign(group, view, own.claim, me).signature;
                }
                let (changes, certificate) = (it.changes.clone(), it.certificate.clone());
                it.signature = NewView::sign(group, view, changes, certificate, me).signature;
            }
            Message::Bundle(it) if it.author == *id && !it.items.is_empty() => {
                let (origin, items) = (it.origin(), it.items.clone());
                let signed = Bundle::sign(group, origin, it.first, items, keys);
                Arc::make_mut(it).signature = signed.signature;
            }
            Message::Change(it) => {
                if let MembershipChange::Renew { member, life, .. } = &**it {
                    *it = Arc::new(MembershipChange::renew(group, *member, *life, keys));
                }
            }
            Message::Approve(it) => {
                let digest = it.change.digest(group);
                it.approval.signature = Approval::sign(group, it.epoch, &digest, me).signature;
            }
            // The rest is not signed, or by others.
            _ => {}
        }
    }
}

fn turn_list(turn: Turn, items: &mut Vec<Value>) -> bool {
    match turn {
        Turn::First if !items.is_empty() => {
            items.remove(0);
        }
        Turn::Last => return items.pop().is_some(),
        Turn::Twice if !items.is_empty() => items.insert(0, items[0].clone()),
        Turn::Swapped if items.len() > 1 => items.swap(0, 1),
        _ => return false,
    }
    true
}
