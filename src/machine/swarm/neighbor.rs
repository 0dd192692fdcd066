//! State of one neighbor, and of the requests and uploads under way with it.
//!
//! Invariants: a piece is asked of a neighbor once at a time; a withdrawn request is
//! remembered for a while, because the piece may come nevertheless; the uploads that wait for
//! a neighbor are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::bitfield::Bitfield;
use super::config::{ANSWER_AFTER_MAX, LAPSED_MAX};
use super::event::Place;
use crate::model::Time;
use crate::proto::swarm::{PeerId, PieceIndex};

#[derive(Debug)]
pub(super) struct Neighbor {
    pub(super) peer: PeerId,
    pub(super) place: Option<Place>,
    /// Time at which the connection was made.
    pub(super) since: Time,
    pub(super) have: Bitfield,
    /// Number of pieces that the neighbor has and this peer lacks.
    pub(super) useful: u32,
    /// Interest that the neighbor was told; `None` if it was told neither.
    pub(super) told_interest: Option<bool>,
    /// True if the neighbor wants pieces.
    pub(super) is_interested: bool,
    /// True if the neighbor has said that it wants pieces or not; some programs never do.
    pub(super) says_interest: bool,
    /// True if the neighbor answers no requests.
    pub(super) is_choking: bool,
    /// True if the neighbor has sent a good piece, or pieces cannot be checked.
    pub(super) is_proven: bool,
    /// Pieces asked of the neighbor, and the times of the requests.
    pub(super) asked: BTreeMap<PieceIndex, Time>,
    lapsed: VecDeque<PieceIndex>,
    /// Bytes that came since the last choice.
    pub(super) credit: u64,
    pub(super) down: u64,
    pub(super) up: u64,
    /// Uploads that were ordered and are not done.
    pub(super) uploads: VecDeque<PieceIndex>,
    /// Uploads that were withdrawn and whose end was not told yet.
    pub(super) withdrawn: VecDeque<PieceIndex>,
    /// First piece of the run of hashes that the neighbor was asked for.
    pub(super) asked_hashes: Option<PieceIndex>,
    /// True if the neighbor was asked for the list of files.
    pub(super) asked_files: bool,
    /// True if the neighbor said that it does not know the hashes or files it was asked for.
    pub(super) is_ignorant: bool,
    /// Time of the last request or answer.
    pub(super) waiting_since: Time,
    /// True if the neighbor's timer runs.
    pub(super) is_timed: bool,
    /// True if a piece of the neighbor took long enough that its parts were told of.
    pub(super) is_slow: bool,
    /// Number of times in a row that the neighbor did not answer.
    pub(super) stalls: u32,
    /// Time before which the neighbor is not asked, because it did not answer.
    pub(super) snubbed_until: Option<Time>,
    pub(super) oddities: u32,
    pub(super) oddities_told: BTreeSet<&'static str>,
}

impl Neighbor {
    pub(super) fn new(peer: PeerId, place: Option<Place>, count: u32, is_proven: bool) -> Self {
        Self {
            peer,
            place,
            since: Time::ZERO,
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

    /// True if the neighbor owes an answer.
    pub(super) fn owes(&self) -> bool {
        !self.asked.is_empty() || self.asked_hashes.is_some() || self.asked_files
    }

    /// Time that the neighbor has to answer.
    pub(super) fn patience(&self, plain: Duration) -> Duration {
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

    /// True if a piece that comes was asked of the neighbor, now or before; forgets the request.
    pub(super) fn answers(&mut self, index: PieceIndex) -> bool {
        if self.asked.remove(&index).is_some() {
            return true;
        }
        let at = self.lapsed.iter().position(|it| *it == index);
        at.is_some_and(|at| self.lapsed.remove(at).is_some())
    }

    /// Notes an answer: the neighbor is asked again without delay.
    pub(super) fn answered(&mut self, now: Time) {
        self.waiting_since = now;
        self.stalls = 0;
        self.snubbed_until = None;
    }
}
