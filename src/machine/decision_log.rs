//! The log of decisions: how transactions ended, by the entries of a group of the nodes (T10).
//!
//! Invariants:
//! - The first entry for a transaction is its end, no matter which node wrote it. All nodes read
//!   the same entries in the same order, so they agree.
//! - Where authors may lie, a COMMIT whose proof does not hold is no end. All nodes that voted on
//!   one content know the same voters, so they judge alike; the node's machine does.
//! - Each entry counts once, in the order of the log: a caller that [lacks](DecisionLog::lacks)
//!   earlier ones reads those first.
//! - The log is asked once for each outcome of a transaction: the group keeps what it was asked
//!   until it is final.
//! - Of an entry only its decision and its place are kept; proofs are read from the log again.

use crate::proto::chat::entry::{Body, Entry, MemberId, SeqNo};
use crate::proto::rollout::{Committed, Participant, Roster, TxId};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::chat::ChatStatus;
use crate::model::{PublicKey, SigningBytes};

/// Room of the group whose messages are decisions.
pub const ROOM: &str = "decisions";

/// Decision on a transaction, as an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionEntry {
    /// Name of the transaction.
    pub txid: TxId,
    /// True to commit it, false to abort it.
    pub commit: bool,
    /// Proof that it may be committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Box<Committed>>,
}

impl DecisionEntry {
    /// The decision in an entry, if it is one: other messages of the group decide nothing.
    pub fn of(entry: &Entry) -> Option<Self> {
        let Body::Chat(chat) = &entry.body else { return None };
        serde_json::from_str(&chat.payload).ok()
    }

    /// True if this is an ABORT, or a COMMIT with a proof of that very transaction.
    fn may_hold(&self) -> bool {
        !self.commit || self.proof.as_ref().is_some_and(|it| it.proposal.txid == self.txid)
    }
}

/// Authors of the entries of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogAuthors {
    /// All authors say what their nodes want.
    #[default]
    Honest,
    /// Authors may write anything.
    MayLie,
}

/// Number of entries of one author that are looked at for the end of one transaction: the first of
/// an honest author holds, and a liar must not make all others judge without end.
const ENDS_MAX: usize = 4;

/// Answer to a node that wants a decision.
#[derive(Debug, PartialEq, Eq)]
pub enum DecisionAnswer {
    /// The transaction has ended by the first of the entries with these numbers that holds, which
    /// need not be what was wanted.
    Decided(Vec<SeqNo>),
    /// The log is to be asked for the decision.
    Ask,
    /// The log was asked for it already.
    Asked,
}

/// A transaction about which the log has entries.
#[derive(Debug, Default)]
struct Decided {
    /// Numbers and authors of the entries up to the one that is certainly the end, in the order of
    /// the log.
    entries: Vec<(SeqNo, MemberId)>,
    /// True if no further entry can be the end.
    is_over: bool,
    /// True if this node was answered.
    is_answered: bool,
}

/// Decisions of the log, as far as it was read, and those asked of it that are not final yet.
#[derive(Debug, Default)]
pub struct DecisionLog {
    authors: LogAuthors,
    decided: BTreeMap<TxId, Decided>,
    asked: BTreeMap<TxId, bool>,
    last: SeqNo,
}

impl DecisionLog {
    /// Nothing of a log of these authors.
    pub fn of(authors: LogAuthors) -> Self {
        Self { authors, ..Self::default() }
    }

    /// Number of the first entry that was not read yet.
    pub const fn next(&self) -> SeqNo {
        SeqNo(self.last.0 + 1)
    }

    /// True if entries before this one were not read yet.
    pub fn lacks(&self, entry: &Entry) -> bool {
        entry.seq_no > self.next()
    }

    /// Reads an entry of the log. Returns its decision, if it may be the end of its transaction; an
    /// entry that was read before decides nothing again.
    pub fn on_entry(&mut self, entry: &Entry) -> Option<DecisionEntry> {
        if entry.seq_no <= self.last {
            return None;
        }
        self.last = entry.seq_no;
        let decision = DecisionEntry::of(entry)?;
        if self.authors == LogAuthors::MayLie && !decision.may_hold() {
            return None;
        }
        self.asked.remove(&decision.txid);
        let known = self.decided.entry(decision.txid.clone()).or_default();
        if known.is_over {
            return None;
        }
        let is_of_author = |it: &&(SeqNo, MemberId)| it.1 == entry.leader;
        if decision.commit && known.entries.iter().filter(is_of_author).count() >= ENDS_MAX {
            return None;
        }
        known.entries.push((entry.seq_no, entry.leader));
        known.is_over = self.authors == LogAuthors::Honest || !decision.commit;
        Some(decision)
    }

    /// Takes a decision that this node wants.
    pub fn on_wanted(&mut self, wanted: &DecisionEntry) -> DecisionAnswer {
        if let Some(known) = self.decided.get_mut(&wanted.txid)
            // A node that asks again has found none that holds.
            && (known.is_over || !known.is_answered)
        {
            known.is_answered = true;
            return DecisionAnswer::Decided(known.entries.iter().map(|it| it.0).collect());
        }
        match self.asked.insert(wanted.txid.clone(), wanted.commit) {
            Some(before) if before == wanted.commit => DecisionAnswer::Asked,
            Some(_) | None => DecisionAnswer::Ask,
        }
    }
}

/// The node that founds the group: the first of the first roster. The others join it.
pub fn founder(first: &Roster) -> Option<&Participant> {
    first.nodes().next()
}

/// True if the group can decide for all nodes of a roster: all are members, and one leads.
pub fn is_complete(roster: &Roster, group: &ChatStatus) -> bool {
    let is_member = |key| group.members.iter().any(|it| it.member.key == key);
    group.leader.is_some() && roster.nodes().all(|it| is_member(it.key))
}

/// Number of a key as a member of the group.
pub fn member_id(key: &PublicKey) -> MemberId {
    let digest = SigningBytes::new("folkmoot/rollout/member/1").key(key).sha256();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    MemberId(number.max(1))
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom as _;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::model::{Rng, WallTime};
    use crate::proto::chat::entry::{ChatText, MsgId, Origin, Term};

    fn entry(number: u64, text: &str) -> Entry {
        let origin = Origin { member: MemberId(1), client: 1 };
        let msg_id = MsgId { origin, number };
        let body = Body::Chat(ChatText { msg_id, room_id: ROOM.into(), payload: text.into() });
        let (seq_no, leader) = (SeqNo(number), MemberId(1));
        Entry { seq_no, term: Term(1), leader, time: WallTime(0), body }
    }

    fn decision(number: u64, commit: bool) -> DecisionEntry {
        DecisionEntry {
            txid: format!("step-node-a-1-{number}").parse().unwrap(),
            commit,
            proof: None,
        }
    }

    fn decides(number: u64, decision: &DecisionEntry) -> Entry {
        entry(number, &serde_json::to_string(decision).unwrap())
    }

    #[test]
    fn the_first_entry_for_a_transaction_is_its_end() {
        let mut log = DecisionLog::default();
        let said = |commit| decision(2, commit);
        assert_eq!(log.on_wanted(&said(true)), DecisionAnswer::Ask);
        assert_eq!(
            log.on_wanted(&said(true)),
            DecisionAnswer::Asked,
            "it is kept until it is final"
        );
        assert_eq!(
            log.on_wanted(&said(false)),
            DecisionAnswer::Ask,
            "the other outcome is asked for too"
        );
        assert_eq!(log.on_entry(&entry(1, "hello")), None);
        assert_eq!(log.on_entry(&decides(2, &said(false))), Some(said(false)));
        assert_eq!(log.on_entry(&decides(3, &said(true))), None, "it is decided");
        assert_eq!(log.on_wanted(&said(true)), DecisionAnswer::Decided(vec![SeqNo(2)]));
    }

    #[test]
    fn an_entry_that_is_read_twice_counts_once_and_one_too_early_is_noticed() {
        let mut log = DecisionLog::default();
        let (first, third) = (decides(1, &decision(1, true)), decides(3, &decision(3, true)));
        assert!(!log.lacks(&first) && log.lacks(&third));
        assert!(log.on_entry(&first).is_some());
        assert!(log.on_entry(&first).is_none() && log.next() == SeqNo(2));
        assert!(log.lacks(&third));
        assert!(log.on_entry(&entry(2, "{}")).is_none() && !log.lacks(&third));
        assert!(log.on_entry(&first).is_none() && log.next() == SeqNo(3));
    }

    /// Nodes that want opposite ends of the same transactions, a group that orders what they say,
    /// and notices that come late, twice or not at all.
    #[test]
    fn nodes_that_read_the_log_at_any_pace_agree_on_every_end() {
        for seed in 0..200 {
            let mut rng = Rng::seed_from_u64(seed);
            let mut logs: [DecisionLog; 4] = std::array::from_fn(|_| DecisionLog::default());
            let mut told: [BTreeMap<TxId, bool>; 4] = std::array::from_fn(|_| BTreeMap::new());
            let mut waiting: Vec<DecisionEntry> = Vec::new();
            let mut entries: Vec<Entry> = Vec::new();
            for _ in 0..300 {
                let node = rng.random_range(0..logs.len());
                match rng.random_range(0..3) {
                    0 => {
                        let wanted = decision(rng.random_range(0..20), rng.random_bool(0.5));
                        match logs[node].on_wanted(&wanted) {
                            DecisionAnswer::Ask => waiting.push(wanted),
                            DecisionAnswer::Asked => {}
                            DecisionAnswer::Decided(it) => {
                                let [SeqNo(place)] = it[..] else { panic!("one end") };
                                let it = DecisionEntry::of(&entries[place as usize - 1]).unwrap();
                                let before = told[node].get(&it.txid);
                                assert!(before.is_none_or(|commit| *commit == it.commit));
                            }
                        }
                    }
                    1 => {
                        waiting.shuffle(&mut rng);
                        let next = entries.len() as u64 + 1;
                        entries.extend(waiting.pop().map(|it| decides(next, &it)));
                    }
                    _ if entries.is_empty() => {}
                    _ => {
                        let notice = rng.random_range(0..entries.len());
                        let from = logs[node].next().0 as usize - 1;
                        let missed = if logs[node].lacks(&entries[notice]) { from } else { notice };
                        for entry in &entries[missed..=notice] {
                            if let Some(it) = logs[node].on_entry(entry) {
                                let before = told[node].insert(it.txid.clone(), it.commit);
                                assert_eq!(before, None, "seed {seed}: told once");
                            }
                        }
                    }
                }
            }
            for (log, told) in logs.iter_mut().zip(&mut told) {
                for entry in &entries {
                    told.extend(log.on_entry(entry).map(|it| (it.txid, it.commit)));
                }
            }
            assert!(told[0].len() > 5 && told.iter().all(|it| *it == told[0]), "seed {seed}");
            for entry in entries.iter().rev() {
                let last = DecisionEntry::of(entry).unwrap();
                let first =
                    entries.iter().filter_map(DecisionEntry::of).find(|it| it.txid == last.txid);
                assert_eq!(told[0][&last.txid], first.unwrap().commit, "seed {seed}");
            }
        }
    }
}
