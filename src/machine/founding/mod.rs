//! Founding of a Byzantine order by members of a fleet, without a roster's file.
//!
//! Each peer that looks for an order shows its key and the certificate of its admission, which a
//! Byzantine quorum of seeds has signed. When enough are known, they sign a roster of them, one
//! roster at a time. A roster that all its members have signed is entered: its members run the
//! group, and say so in the group's own log. The log decides ([`FoundingVerdict`]): the order is
//! founded once all have said that they are in, and given up if more members than may lie say first
//! that it takes too long.
//!
//! Invariants:
//! - A member is in a group only if it has signed its roster.
//! - An honest member is in one group: it says that it is in before it is, and only in a group that
//!   it has entered; it enters another only when that one is sure never to be founded: by its log,
//!   or because more members than may lie take no part in it for good.
//! - Whatever is said rests on a record ([`FoundingOutput::Store`]) that was made before.

mod verdict;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use verdict::{FoundingVerdict, IN, OUT};

use crate::model::statement::Admission;
use crate::model::{Endpoint, KeyPair, PublicKey, Time};
use crate::proto::bft::OrderId;
use crate::proto::bft::founding::{ATTEMPTS_AHEAD_MAX, FoundingNote, LEFT_MAX, SignedRoster};
use crate::proto::chat::entry::{Member, MemberId};

/// Interval of a member's notes.
pub const CALL: Duration = Duration::from_secs(1);

/// Time without a note after which a candidate counts as gone.
pub const HEARD_MAX: Duration = Duration::from_secs(5);

/// Time without news of candidates before a roster is made of them.
pub const SETTLE: Duration = Duration::from_secs(2);

/// Longest wait for the signatures of a roster.
pub const SIGN_MAX: Duration = Duration::from_secs(10);

/// Time in which a candidate that has not signed is taken only if there are no others.
pub const FAILED: Duration = Duration::from_secs(60);

/// Number of candidates that are remembered; each has a certificate of the seeds.
pub const CANDIDATES_MAX: usize = 256;

/// Shortest interval of notes that are taken from one candidate.
pub const NOTE_MIN: Duration = Duration::from_millis(200);

/// Progress of a member towards a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundingStage {
    /// The member has signed no roster that it still waits for.
    #[default]
    Gathers,
    /// The member has signed a roster, and waits for the other signatures.
    Signed(SignedRoster),
    /// All have signed; the group's log is to decide.
    Entered(SignedRoster),
    /// The group is founded.
    Founded(SignedRoster),
}

impl FoundingStage {
    /// Roster that the member has signed.
    #[must_use]
    pub const fn roster(&self) -> Option<&SignedRoster> {
        match self {
            Self::Gathers => None,
            Self::Signed(roster) | Self::Entered(roster) | Self::Founded(roster) => Some(roster),
        }
    }
}

/// Durable state of a member that founds an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingRecord {
    /// Progress of the member.
    pub stage: FoundingStage,
    /// Number of its next attempt.
    pub attempt: u64,
    /// Groups in which it takes no part for good, the latest last.
    pub left: Vec<OrderId>,
}

/// Order to the surroundings, to be carried out in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundingOutput {
    /// Write this record; nothing that follows may be done before it is on disk.
    Store(FoundingRecord),
    /// Say the note of this member to all.
    Say,
    /// Run this group, and say in its log that this member is in.
    Enter(SignedRoster),
    /// Stop the group of this roster, whose log is of no more use; answered by
    /// [`Founding::on_late`].
    Leave(SignedRoster),
}

/// Knowledge of another candidate.
#[derive(Debug)]
struct Heard {
    admission: Admission,
    /// Time of the last note.
    at: Time,
    attempt: u64,
    /// Group whose roster the candidate has signed, if this member is in it.
    roster: Option<OrderId>,
    /// True if the candidate has entered a group.
    is_bound: bool,
    left: Vec<OrderId>,
}

impl Heard {
    /// True if the candidate has signed no roster with this member.
    const fn is_idle(&self) -> bool {
        self.roster.is_none()
    }
}

/// Member of a fleet that is to be a founder of an order.
#[derive(Debug)]
pub struct Founding {
    order: String,
    size: usize,
    at: Endpoint,
    keys: KeyPair,
    record: FoundingRecord,
    candidates: BTreeMap<PublicKey, Heard>,
    /// Rosters with this member that others have signed, with the signatures that hold.
    drafts: BTreeMap<OrderId, SignedRoster>,
    /// Candidates that have not signed in time, until when that is remembered.
    failed: BTreeMap<PublicKey, Time>,
    /// Time of the last news about candidates.
    changed_at: Time,
    signed_at: Time,
    next_note: Time,
    /// Sender of a note with another size, and that size.
    odd: Option<(Endpoint, usize)>,
    todo: Todo,
}

/// Consequences of the input that is being handled.
#[derive(Debug, Default)]
struct Todo {
    is_stored: bool,
    is_said: bool,
    run: Option<FoundingOutput>,
}

impl Founding {
    /// Member at `at` with `keys` that is to found `order` with `size` members, and goes on from
    /// `record`.
    #[must_use]
    pub fn new(
        (order, size): (String, usize),
        (at, keys): (Endpoint, KeyPair),
        record: FoundingRecord,
        now: Time,
    ) -> Self {
        Self {
            order,
            size,
            at,
            keys,
            record,
            candidates: BTreeMap::new(),
            drafts: BTreeMap::new(),
            failed: BTreeMap::new(),
            changed_at: now,
            signed_at: now,
            next_note: now,
            odd: None,
            todo: Todo::default(),
        }
    }

    /// Progress of this member.
    #[must_use]
    pub const fn stage(&self) -> &FoundingStage {
        &self.record.stage
    }

    /// Note of this member, which has been admitted so.
    #[must_use]
    pub fn note(&self, admission: Admission) -> FoundingNote {
        let left = &self.record.left;
        FoundingNote {
            order: self.order.clone(),
            size: self.size,
            admission,
            attempt: self.record.attempt,
            roster: self.record.stage.roster().cloned(),
            left: left[left.len().saturating_sub(LEFT_MAX)..].to_vec(),
        }
    }

    /// Takes the note of a member of the fleet, whose address and key are proved. `holds` tells
    /// whether the seeds of this member's list have signed an admission; it is asked only about
    /// those that are new.
    pub fn on_note(
        &mut self,
        now: Time,
        (from, key): (Endpoint, PublicKey),
        note: FoundingNote,
        holds: impl FnOnce(&Admission) -> bool,
    ) -> Vec<FoundingOutput> {
        let subject = note.admission.subject();
        let is_own = key == self.keys.public() || from == self.at;
        if note.order != self.order || is_own || (subject.endpoint, subject.key) != (from, key) {
            return Vec::new();
        }
        let known = self.candidates.get(&key);
        let is_known = known.is_some_and(|it| it.admission == note.admission);
        if known.is_some_and(|it| now.since(it.at) < NOTE_MIN)
            || (known.is_none() && self.candidates.len() >= CANDIDATES_MAX)
            || (!is_known && !holds(&note.admission))
        {
            return Vec::new();
        }
        if note.size != self.size {
            self.odd = Some((from, note.size));
            return Vec::new();
        }
        if !is_known && !self.is_latest(&note.admission) {
            return Vec::new();
        }
        self.candidates.retain(|other, it| *other == key || it.admission.endpoint != from);
        let is_bound = note.roster.as_ref().is_some_and(|it| it.signatures.len() >= self.size);
        let roster = note.roster.and_then(|it| self.on_roster(&key, it));
        let mut left = note.left;
        left.truncate(LEFT_MAX);
        let (admission, attempt) = (note.admission, note.attempt);
        let heard = Heard { admission, at: now, attempt, roster, is_bound, left };
        if self.candidates.insert(key, heard).is_none_or(|it| it.is_bound != is_bound) {
            self.changed_at = now;
        }
        self.forget(now);
        self.advance(now);
        let answers = matches!(self.record.stage, FoundingStage::Founded(_));
        if answers && !is_bound && now >= self.next_note {
            self.next_note = now.after(CALL);
            self.todo.is_said = true;
        }
        self.outputs()
    }

    /// Consequences of an input: the record first.
    fn outputs(&mut self) -> Vec<FoundingOutput> {
        let Todo { is_stored, is_said, run } = std::mem::take(&mut self.todo);
        let record = is_stored.then(|| FoundingOutput::Store(self.record.clone()));
        record.into_iter().chain(run).chain(is_said.then_some(FoundingOutput::Say)).collect()
    }

    /// Marks the record as news, for the disk and for the others.
    const fn tell(&mut self) {
        (self.todo.is_stored, self.todo.is_said) = (true, true);
    }

    /// True if no later life of this endpoint or key is known.
    fn is_latest(&self, admission: &Admission) -> bool {
        self.candidates.values().all(|it| {
            let other = &it.admission;
            (other.endpoint != admission.endpoint && other.key != admission.key)
                || other.incarnation < admission.incarnation
        })
    }

    /// Takes the roster that the holder of `key` shows; returns its group, if the holder has signed
    /// it and this member is in it.
    fn on_roster(&mut self, key: &PublicKey, shown: SignedRoster) -> Option<OrderId> {
        let (sender, _) = (shown.id_of(key)?, shown.id_of(&self.keys.public())?);
        if shown.members.len() != self.size {
            return None;
        }
        let group = shown.group(&self.order)?;
        let SignedRoster { members, attempt, signatures } = shown;
        let empty = SignedRoster { members, attempt, signatures: BTreeMap::new() };
        let known = self.drafts.get(&group).unwrap_or(&empty);
        let mut fresh: BTreeMap<_, _> = signatures
            .into_iter()
            .filter(|(id, it)| {
                !known.signatures.contains_key(id) && known.is_valid(&group, *id, it)
            })
            .collect();
        if !known.signatures.contains_key(&sender) && !fresh.contains_key(&sender) {
            return None;
        }
        self.drafts.entry(group).or_insert(empty).signatures.append(&mut fresh);
        Some(group)
    }

    /// Forgets candidates that are gone, and rosters that nobody shows any more.
    fn forget(&mut self, now: Time) {
        let count = self.candidates.len();
        self.candidates.retain(|_, it| now.since(it.at) < HEARD_MAX);
        if self.candidates.len() != count {
            self.changed_at = now;
        }
        let is_shown = |group| self.candidates.values().any(|it| it.roster == Some(group));
        self.drafts.retain(|group, _| is_shown(*group));
    }

    /// Goes on, if it is time; to be called often while this member is one of the fleet.
    pub fn on_time(&mut self, now: Time) -> Vec<FoundingOutput> {
        self.forget(now);
        self.failed.retain(|_, until| now < *until);
        match &self.record.stage {
            FoundingStage::Signed(own) => {
                let me = self.keys.public();
                let is_missing = |key: &PublicKey| *key != me && !self.candidates.contains_key(key);
                let is_over = now.since(self.signed_at) >= SIGN_MAX
                    || own.members.iter().any(|it| is_missing(&it.key));
                // What more have signed comes about sooner.
                let better = self.shown().filter(|it| it.signatures.len() > own.signatures.len());
                if let Some(roster) = better.cloned() {
                    self.sign(now, roster);
                } else if is_over {
                    let is_late = |it: &&Member| {
                        let heard = self.candidates.get(&it.key);
                        !own.signatures.contains_key(&it.id) && heard.is_some_and(Heard::is_idle)
                    };
                    let late = own.members.iter().filter(is_late);
                    self.failed.extend(late.map(|it| (it.key, now.after(FAILED))));
                    self.record.stage = FoundingStage::Gathers;
                    self.changed_at = now;
                    self.todo.is_stored = true;
                }
            }
            FoundingStage::Gathers => {
                if let Some(roster) = self.choice(now) {
                    self.sign(now, roster);
                }
            }
            FoundingStage::Entered(_) | FoundingStage::Founded(_) => {}
        }
        self.advance(now);
        let is_founded = matches!(self.record.stage, FoundingStage::Founded(_));
        if !is_founded && now >= self.next_note {
            self.next_note = now.after(CALL);
            self.todo.is_said = true;
        }
        self.outputs()
    }

    /// Takes the decision of the log of the group that was entered.
    pub fn on_decided(&mut self, now: Time, is_founded: bool) -> Vec<FoundingOutput> {
        let FoundingStage::Entered(roster) = &self.record.stage else { return Vec::new() };
        if is_founded {
            self.record.stage = FoundingStage::Founded(roster.clone());
            self.tell();
        } else {
            self.leave(now);
        }
        self.outputs()
    }

    /// Takes the founders of a group that was left which had not said that they are in.
    pub fn on_late(
        &mut self,
        now: Time,
        roster: &SignedRoster,
        late: impl Iterator<Item = MemberId>,
    ) {
        let late: Vec<_> = late.collect();
        let late = roster.members.iter().filter(|it| late.contains(&it.id));
        self.failed.extend(late.map(|it| (it.key, now.after(FAILED))));
    }

    /// Takes no part for good in the group that was entered: it is never founded.
    fn leave(&mut self, now: Time) {
        let stage = std::mem::take(&mut self.record.stage);
        let Some(roster) = stage.roster() else { return };
        self.changed_at = now;
        self.record.attempt = self.record.attempt.max(roster.attempt.saturating_add(1));
        self.record.left.extend(roster.group(&self.order));
        self.todo.run = Some(FoundingOutput::Leave(roster.clone()));
        self.tell();
    }

    fn sign(&mut self, now: Time, mut roster: SignedRoster) {
        let Some(group) = roster.group(&self.order) else { return };
        let Some(me) = roster.id_of(&self.keys.public()) else { return };
        roster.sign(&group, (me, &self.keys));
        self.record.stage = FoundingStage::Signed(roster);
        (self.signed_at, self.next_note) = (now, now.after(CALL));
        self.tell();
    }

    /// Takes the consequences of what others have signed and left.
    fn advance(&mut self, now: Time) {
        let group = self.record.stage.roster().and_then(|it| it.group(&self.order));
        if let FoundingStage::Signed(own) = &mut self.record.stage
            && let Some(draft) = group.and_then(|it| self.drafts.get(&it))
        {
            own.signatures.extend(draft.signatures.clone());
        }
        let left = &self.record.left;
        let is_new = |group: &OrderId| !left.contains(group);
        let complete = self
            .drafts
            .iter()
            .filter(|(group, it)| it.signatures.len() == self.size && is_new(group));
        match &self.record.stage {
            FoundingStage::Signed(own) if own.signatures.len() == self.size => {
                self.enter(own.clone());
            }
            // Signed here before, and dropped: it is as good as another.
            FoundingStage::Gathers | FoundingStage::Signed(_) => {
                let found = complete.map(|(_, it)| it.clone()).next();
                found.into_iter().for_each(|it| self.enter(it));
            }
            FoundingStage::Entered(_) | FoundingStage::Founded(_) => {
                let others = complete.map(|(it, _)| *it).filter(|it| Some(*it) != group);
                let others: Vec<_> = others.collect();
                if !others.is_empty() {
                    self.record.left.extend(others);
                    self.tell();
                }
                let is_entered = matches!(self.record.stage, FoundingStage::Entered(_));
                if group.is_some_and(|it| is_entered && self.is_dead(&it)) {
                    self.leave(now);
                }
            }
        }
    }

    /// True if more members than may lie take no part in the group that was entered.
    fn is_dead(&self, group: &OrderId) -> bool {
        let Some(roster) = self.record.stage.roster() else { return false };
        let has_left =
            |key: &PublicKey| self.candidates.get(key).is_some_and(|it| it.left.contains(group));
        let gone = roster.members.iter().filter(|it| has_left(&it.key)).count();
        gone > liars(self.size)
    }

    fn enter(&mut self, roster: SignedRoster) {
        self.record.stage = FoundingStage::Entered(roster.clone());
        self.todo.run = Some(FoundingOutput::Enter(roster));
        self.tell();
    }

    /// Candidates that have entered no group.
    fn free(&self) -> impl Iterator<Item = (Endpoint, PublicKey)> {
        let free = self.candidates.iter().filter(|(_, it)| !it.is_bound);
        free.map(|(key, it)| (it.admission.endpoint, *key))
    }

    /// Roster of candidates, with this member, that more of them have signed than may lie.
    fn shown(&self) -> Option<&SignedRoster> {
        let me = self.keys.public();
        let free: BTreeMap<_, _> = self.free().map(|(at, key)| (key, at)).collect();
        let is_free = |it: &Member| {
            it.key == me || free.get(&it.key) == Some(&Endpoint::new(it.at.host, it.at.port))
        };
        let shown = self.drafts.iter().find(|(group, it)| {
            let has_signed = |it: &&Member| {
                self.candidates.get(&it.key).is_some_and(|it| it.roster == Some(**group))
            };
            !self.record.left.contains(group)
                && it.members.iter().filter(has_signed).count() > liars(self.size)
                && it.members.iter().all(is_free)
        });
        shown.map(|(_, roster)| roster)
    }

    /// Roster that this member is to sign now: one that more have signed than may lie, else that of
    /// the first candidates by their addresses, once no more come.
    fn choice(&self, now: Time) -> Option<SignedRoster> {
        if let Some(roster) = self.shown() {
            return Some(roster.clone());
        }
        let me = self.keys.public();
        if self.free().count() + 1 < self.size || now.since(self.changed_at) < SETTLE {
            return None;
        }
        let mut ranked: Vec<_> = self.free().chain([(self.at, me)]).collect();
        ranked.sort_by_key(|(at, key)| (self.failed.contains_key(key), *at, *key));
        ranked.truncate(self.size);
        let most = self.record.attempt.saturating_add(ATTEMPTS_AHEAD_MAX);
        let attempts = ranked.iter().filter_map(|(_, key)| Some(self.candidates.get(key)?.attempt));
        let attempt = attempts.filter(|it| *it <= most).max().unwrap_or_default();
        let roster = SignedRoster::new(ranked, attempt.max(self.record.attempt));
        let group = roster.group(&self.order)?;
        (roster.id_of(&me).is_some() && !self.record.left.contains(&group)).then_some(roster)
    }
}

/// Number of liars that so many founders bear.
const fn liars(size: usize) -> usize {
    size.saturating_sub(1) / 3
}
