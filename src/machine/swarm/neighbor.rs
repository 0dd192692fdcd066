//! State of one neighbor, and of the requests and uploads under way with it.
//!
//! Invariants: a piece is asked of a neighbor once at a time; a withdrawn request is
//! remembered for a while, because the piece may come nevertheless; the uploads that wait for
//! a neighbor are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::bitfield::Bitfield;
use super::config::{ANSWER_AFTER_MAX, LAPSED_MAX, ODDITIES_MAX, UPLOADS_MAX};
use super::event::PeerAddrId;
use crate::model::Time;
use crate::proto::swarm::{PeerId, PieceIndex};

/// Outcome of a neighbor's timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The neighbor owes nothing.
    Nothing,
    /// The neighbor has this time left to answer.
    Wait(Duration),
    /// The neighbor was left alone for long enough, and may be asked again.
    AskAgain,
    /// The neighbor did not answer: it is left alone for this time, without these requests.
    Stalled(Duration, Vec<PieceIndex>),
}

/// State of one neighbor, with the requests and uploads under way.
#[derive(Debug)]
pub(super) struct Neighbor {
    peer: PeerId,
    place: Option<PeerAddrId>,
    /// Time at which the connection was made.
    since: Time,
    have: Bitfield,
    /// Number of pieces that the neighbor has and this peer lacks.
    useful: u32,
    /// Interest that the neighbor was told; `None` if it was told neither.
    told_interest: Option<bool>,
    /// True if the neighbor wants pieces.
    is_interested: bool,
    /// True if the neighbor has said that it wants pieces or not; some programs never do.
    says_interest: bool,
    /// True if the neighbor answers no requests.
    is_choking: bool,
    /// True if the neighbor has sent a good piece, or pieces cannot be checked.
    is_proven: bool,
    /// Pieces asked of the neighbor, and the times of the requests.
    asked: BTreeMap<PieceIndex, Time>,
    lapsed: VecDeque<PieceIndex>,
    /// Bytes that came since the last choice.
    credit: u64,
    down: u64,
    up: u64,
    /// Uploads that were ordered and are not done.
    uploads: VecDeque<PieceIndex>,
    /// Uploads that were withdrawn and whose end was not told yet.
    withdrawn: VecDeque<PieceIndex>,
    /// First piece of the run of hashes that the neighbor was asked for.
    asked_hashes: Option<PieceIndex>,
    /// True if the neighbor was asked for the list of files.
    asked_files: bool,
    /// True if the neighbor said that it does not know the hashes or files it was asked for.
    is_ignorant: bool,
    /// Time of the last request or answer.
    waiting_since: Time,
    /// True if the neighbor's timer runs.
    is_timed: bool,
    /// True if a piece of the neighbor took long enough that its parts were told of.
    is_slow: bool,
    /// Number of times in a row that the neighbor did not answer.
    stalls: u32,
    /// Time before which the neighbor is not asked, because it did not answer.
    snubbed_until: Option<Time>,
    oddities: u32,
    oddities_told: BTreeSet<&'static str>,
}

impl Neighbor {
    /// A neighbor as of now, of a content of `count` pieces.
    pub(super) fn new(
        peer: PeerId,
        place: Option<PeerAddrId>,
        count: u32,
        is_proven: bool,
        now: Time,
    ) -> Self {
        Self {
            peer,
            place,
            since: now,
            have: Bitfield::none(count),
            useful: 0,
            told_interest: None,
            is_interested: false,
            says_interest: false,
            is_choking: true,
            is_proven,
            asked: BTreeMap::new(),
            lapsed: VecDeque::new(),
            credit: 0,
            down: 0,
            up: 0,
            uploads: VecDeque::new(),
            withdrawn: VecDeque::new(),
            asked_hashes: None,
            asked_files: false,
            is_ignorant: false,
            waiting_since: Time::ZERO,
            is_timed: false,
            is_slow: false,
            stalls: 0,
            snubbed_until: None,
            oddities: 0,
            oddities_told: BTreeSet::new(),
        }
    }

    pub(super) const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Place that was called, if this end called.
    pub(super) const fn place(&self) -> Option<PeerAddrId> {
        self.place
    }

    /// Time at which the connection was made.
    pub(super) const fn since(&self) -> Time {
        self.since
    }

    /// The pieces that the neighbor has.
    pub(super) const fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Notes that the neighbor has a piece, which this peer lacks if `is_missing`. Returns whether
    /// that is news.
    pub(super) fn appeared(&mut self, index: PieceIndex, is_missing: bool) -> bool {
        let is_new = self.have.set(index);
        self.useful += u32::from(is_new && is_missing);
        is_new
    }

    /// Notes that this peer has a piece now. Returns false if the neighbor lacks it.
    pub(super) fn on_gained(&mut self, index: PieceIndex) -> bool {
        let has_it = self.have.has(index);
        self.useful -= u32::from(has_it);
        has_it
    }

    /// Notes that this peer has lost a piece.
    pub(super) fn on_lost(&mut self, index: PieceIndex) {
        self.useful += u32::from(self.have.has(index));
    }

    /// True if the neighbor has pieces that this peer lacks.
    pub(super) const fn is_useful(&self) -> bool {
        self.useful > 0
    }

    /// The interest to tell the neighbor, if it is news; where `is_asked`, also that there is none.
    pub(super) fn interest_to_send(&mut self, is_asked: bool) -> Option<bool> {
        let wants = self.is_useful();
        let is_news = self.told_interest.map_or(wants || is_asked, |told| told != wants);
        if is_news {
            self.told_interest = Some(wants);
        }
        is_news.then_some(wants)
    }

    /// Notes that the neighbor wants pieces, or none.
    pub(super) const fn set_interest(&mut self, is_interested: bool) {
        self.is_interested = is_interested;
        self.says_interest = true;
    }

    /// True if the neighbor wants pieces.
    pub(super) const fn is_interested(&self) -> bool {
        self.is_interested
    }

    /// True if the neighbor never says whether it wants pieces, as some programs do, and has fewer
    /// than `own`.
    pub(super) fn is_mute(&self, own: u32) -> bool {
        !self.says_interest && self.have.count() < own
    }

    /// True if the neighbor answers no requests.
    pub(super) const fn is_choking(&self) -> bool {
        self.is_choking
    }

    /// Notes a choke, which withdraws all requests. Returns these, and whether it choked before.
    pub(super) fn on_choke(&mut self) -> (Vec<PieceIndex>, bool) {
        let was_choking = std::mem::replace(&mut self.is_choking, true);
        (self.withdraw_all(), was_choking)
    }

    /// Notes an unchoke. Returns whether it choked before.
    pub(super) const fn on_unchoke(&mut self) -> bool {
        std::mem::replace(&mut self.is_choking, false)
    }

    /// True if the neighbor has sent a good piece, or pieces cannot be checked.
    pub(super) const fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Notes that a piece of the neighbor was good.
    pub(super) const fn prove(&mut self) {
        self.is_proven = true;
    }

    /// True if the neighbor would answer requests.
    pub(super) const fn may_be_asked(&self) -> bool {
        !self.is_choking && self.is_useful() && self.snubbed_until.is_none()
    }

    /// Notes that a piece is asked of the neighbor.
    pub(super) fn ask(&mut self, index: PieceIndex, now: Time) {
        self.asked.insert(index, now);
    }

    /// Pieces asked of the neighbor, and the times of the requests.
    pub(super) const fn asked(&self) -> &BTreeMap<PieceIndex, Time> {
        &self.asked
    }

    /// True if the neighbor can be asked for hashes and lists.
    pub(super) const fn may_be_questioned(&self) -> bool {
        !self.is_ignorant && self.snubbed_until.is_none()
    }

    /// First piece of the run of hashes that the neighbor was asked for.
    pub(super) const fn asked_hashes(&self) -> Option<PieceIndex> {
        self.asked_hashes
    }

    pub(super) const fn ask_hashes(&mut self, first: PieceIndex) {
        self.asked_hashes = Some(first);
    }

    /// Takes an answer with hashes. Returns false if they were not asked for.
    pub(super) fn on_hashes(&mut self, first: PieceIndex, now: Time) -> bool {
        let is_asked = self.asked_hashes == Some(first);
        if is_asked {
            self.asked_hashes = None;
            self.answered(now);
        }
        is_asked
    }

    pub(super) const fn ask_files(&mut self) {
        self.asked_files = true;
    }

    /// Takes an answer with a part of the list of files. Returns false if it was not asked for.
    pub(super) fn on_files(&mut self, now: Time) -> bool {
        let is_asked = std::mem::replace(&mut self.asked_files, false);
        if is_asked {
            self.answered(now);
        }
        is_asked
    }

    /// Notes that the neighbor does not know the hashes or files that it was asked for.
    pub(super) const fn set_ignorant(&mut self, is_ignorant: bool) {
        self.is_ignorant = is_ignorant;
    }

    /// Notes a request that was just made. Returns the time until the timer to set, if none runs.
    pub(super) fn await_answer(&mut self, now: Time, plain: Duration) -> Option<Duration> {
        if self.asked.len() <= 1 {
            self.waiting_since = now;
        }
        let is_new = !std::mem::replace(&mut self.is_timed, true);
        is_new.then(|| self.patience(plain))
    }

    /// True if the neighbor's timer runs.
    pub(super) const fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// Decides what follows when the neighbor's timer runs out (S4).
    pub(super) fn on_late(&mut self, now: Time, plain: Duration) -> Late {
        self.is_timed = false;
        let patience = self.patience(plain);
        let owed_until = self.owes().then(|| self.waiting_since.after(patience));
        let Some(until) = self.snubbed_until.or(owed_until) else { return Late::Nothing };
        let left = until.since(now);
        if !left.is_zero() {
            self.is_timed = true;
            return Late::Wait(left);
        }
        if self.snubbed_until.take().is_some() {
            return Late::AskAgain;
        }
        self.stalls += 1;
        self.snubbed_until = Some(now.after(patience));
        self.is_timed = true;
        self.asked_hashes = None;
        self.asked_files = false;
        Late::Stalled(patience, self.withdraw_all())
    }

    /// Notes that bytes of a requested piece come: the neighbor is slow at worst.
    pub(super) const fn on_coming(&mut self, now: Time) {
        self.waiting_since = now;
        self.is_slow = true;
    }

    /// True if a piece of the neighbor took long enough that its parts were told of.
    pub(super) const fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Notes a piece of so many new bytes that answers a request.
    pub(super) fn on_piece(&mut self, bytes: u64, now: Time) {
        self.answered(now);
        self.credit += bytes;
        self.down += bytes;
    }

    /// Bytes that came since the last choice.
    pub(super) const fn credit(&self) -> u64 {
        self.credit
    }

    /// Begins to count anew, after a choice.
    pub(super) const fn reset_credit(&mut self) {
        self.credit = 0;
    }

    /// Bytes of pieces that came from the neighbor.
    pub(super) const fn down(&self) -> u64 {
        self.down
    }

    /// Bytes of pieces that went to the neighbor.
    pub(super) const fn up(&self) -> u64 {
        self.up
    }

    /// Orders an upload, if it is none of those that wait, and there is room (S5).
    pub(super) fn order_upload(&mut self, index: PieceIndex) -> Result<(), &'static str> {
        if self.uploads.contains(&index) {
            Err("it wants a piece twice")
        } else if self.uploads.len() + self.withdrawn.len() >= UPLOADS_MAX {
            Err("it wants too many pieces at a time")
        } else {
            self.uploads.push_back(index);
            Ok(())
        }
    }

    /// Withdraws an upload. Returns false if it does not wait.
    pub(super) fn withdraw_upload(&mut self, index: PieceIndex) -> bool {
        let at = self.uploads.iter().position(|it| *it == index);
        let found = at.and_then(|at| self.uploads.remove(at));
        self.withdrawn.extend(found);
        found.is_some()
    }

    /// Withdraws all uploads.
    pub(super) fn withdraw_uploads(&mut self) {
        self.withdrawn.append(&mut self.uploads);
    }

    /// Notes the end of an upload, of which so many bytes left.
    pub(super) fn on_uploaded(&mut self, index: PieceIndex, bytes: u64) {
        let waiting = match self.withdrawn.contains(&index) {
            // A withdrawn upload was ordered before one that is not.
            true => &mut self.withdrawn,
            false => &mut self.uploads,
        };
        if let Some(at) = waiting.iter().position(|it| *it == index) {
            waiting.remove(at);
        }
        self.up += bytes;
    }

    /// Counts a harmless fault. Returns whether it is of a new kind, and whether there are too
    /// many.
    pub(super) fn odd(&mut self, what: &'static str) -> (bool, bool) {
        self.oddities += 1;
        (self.oddities_told.insert(what), self.oddities > ODDITIES_MAX)
    }

    /// True if the neighbor owes an answer.
    fn owes(&self) -> bool {
        !self.asked.is_empty() || self.asked_hashes.is_some() || self.asked_files
    }

    /// Time that the neighbor has to answer.
    fn patience(&self, plain: Duration) -> Duration {
        plain.saturating_mul(1 << self.stalls.min(8)).min(ANSWER_AFTER_MAX.max(plain))
    }

    /// Withdraws a request to the neighbor; it may be answered nevertheless. Returns whether
    /// there was one.
    pub(super) fn withdraw(&mut self, index: PieceIndex) -> bool {
        let was = self.asked.remove(&index).is_some();
        if was {
            if self.lapsed.len() >= LAPSED_MAX {
                self.lapsed.pop_front();
            }
            self.lapsed.push_back(index);
        }
        was
    }

    fn withdraw_all(&mut self) -> Vec<PieceIndex> {
        let asked: Vec<_> = self.asked.keys().copied().collect();
        for index in &asked {
            self.withdraw(*index);
        }
        asked
    }

    /// True if a piece that comes was asked of the neighbor, now or before; forgets the request.
    pub(super) fn answers(&mut self, index: PieceIndex) -> bool {
        if self.asked.remove(&index).is_some() {
            return true;
        }
        let at = self.lapsed.iter().position(|it| *it == index);
        at.is_some_and(|at| self.lapsed.remove(at).is_some())
    }

    /// Notes an answer: the neighbor is asked again without delay.
    fn answered(&mut self, now: Time) {
        self.waiting_since = now;
        self.stalls = 0;
        self.snubbed_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Duration = Duration::from_secs(10);

    fn neighbor() -> Neighbor {
        let mut it = Neighbor::new(PeerId(1), None, 8, true, Time::ZERO);
        it.on_unchoke();
        it
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_neighbor_that_stalls_is_left_alone_for_as_long_and_then_asked_again() {
        let mut it = neighbor();
        it.appeared(PieceIndex(0), true);
        it.ask(PieceIndex(0), at(0));
        assert_eq!(it.await_answer(at(0), PLAIN), Some(PLAIN));
        assert_eq!(it.await_answer(at(0), PLAIN), None, "its timer runs");
        assert_eq!(it.on_late(at(4), PLAIN), Late::Wait(Duration::from_secs(6)));
        assert_eq!(it.on_late(at(10), PLAIN), Late::Stalled(PLAIN, vec![PieceIndex(0)]));
        assert!(!it.may_be_asked());
        assert_eq!(it.on_late(at(20), PLAIN), Late::AskAgain);
        assert!(it.may_be_asked());
        assert_eq!(it.on_late(at(30), PLAIN), Late::Nothing, "it owes nothing");
        assert!(it.answers(PieceIndex(0)), "it may come nevertheless");
        assert!(!it.answers(PieceIndex(0)), "once");
    }

    #[test]
    fn uploads_are_bounded_and_each_waits_once() {
        let mut it = neighbor();
        let room = u32::try_from(UPLOADS_MAX).expect("a small number");
        assert!((0..room).all(|index| it.order_upload(PieceIndex(index)).is_ok()));
        assert_eq!(it.order_upload(PieceIndex(0)), Err("it wants a piece twice"));
        assert!(it.order_upload(PieceIndex(room)).is_err());
        assert!(it.withdraw_upload(PieceIndex(0)) && !it.withdraw_upload(PieceIndex(0)));
        assert!(it.order_upload(PieceIndex(room)).is_err(), "its end was not told yet");
        it.on_uploaded(PieceIndex(0), 5);
        assert!(it.order_upload(PieceIndex(room)).is_ok());
        assert_eq!(it.up(), 5);
    }

    #[test]
    fn interest_is_told_when_it_changes() {
        let mut it = neighbor();
        assert_eq!([it.interest_to_send(false), it.interest_to_send(true)], [None, Some(false)]);
        assert!(it.appeared(PieceIndex(3), true) && !it.appeared(PieceIndex(3), true));
        assert_eq!([it.interest_to_send(false), it.interest_to_send(false)], [Some(true), None]);
        assert!(it.on_gained(PieceIndex(3)) && !it.on_gained(PieceIndex(4)));
        assert_eq!(it.interest_to_send(false), Some(false));
        it.on_lost(PieceIndex(3));
        assert_eq!(it.interest_to_send(false), Some(true));
    }
}
