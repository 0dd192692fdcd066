//! What is known of one neighbor, and what is under way with it.
//!
//! Invariants: a piece is asked of it once at a time; what was withdrawn is remembered for a while,
//! because it may come nevertheless; the uploads it waits for are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::bitfield::Bitfield;
use super::config::{ANSWER_AFTER_MAX, LAPSED_MAX};
use super::event::Place;
use super::messages::PeerId;
use super::pieces::PieceIndex;
use crate::model::Time;

#[derive(Debug)]
pub(super) struct Neighbor {
    pub(super) peer: PeerId,
    pub(super) place: Option<Place>,
    /// When the connection came up.
    pub(super) since: Time,
    pub(super) have: Bitfield,
    /// Pieces that it has and we lack.
    pub(super) useful: u32,
    /// Whether it was told that we want something; nothing, if it was told neither.
    pub(super) told_interest: Option<bool>,
    /// It wants something.
    pub(super) is_interested: bool,
    /// It has said whether it wants something; some programs never do.
    pub(super) says_interest: bool,
    /// It answers no requests.
    pub(super) is_choking: bool,
    /// It sent a piece that was good, or nothing can be checked.
    pub(super) is_proven: bool,
    /// Pieces asked of it, and when.
    pub(super) asked: BTreeMap<PieceIndex, Time>,
    lapsed: VecDeque<PieceIndex>,
    /// Bytes that came since the last choice.
    pub(super) credit: u64,
    pub(super) down: u64,
    pub(super) up: u64,
    /// Uploads ordered and not done.
    pub(super) uploads: VecDeque<PieceIndex>,
    /// Those of them that were withdrawn and whose end was not told yet.
    pub(super) withdrawn: VecDeque<PieceIndex>,
    /// The run of hashes asked of it.
    pub(super) asked_hashes: Option<PieceIndex>,
    /// The list of files was asked of it.
    pub(super) asked_files: bool,
    /// It said that it does not know yet what it was asked about hashes or files.
    pub(super) is_ignorant: bool,
    /// When it was asked or answered last.
    pub(super) waiting_since: Time,
    /// Its timer runs.
    pub(super) is_timed: bool,
    /// A piece of it took long enough that its parts were told of.
    pub(super) is_slow: bool,
    /// Times in a row that it did not answer.
    pub(super) stalls: u32,
    /// It did not answer, and is not asked before then.
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

    /// Whether an answer is owed.
    pub(super) fn owes(&self) -> bool {
        !self.asked.is_empty() || self.asked_hashes.is_some() || self.asked_files
    }

    /// How long it may take to answer.
    pub(super) fn patience(&self, plain: Duration) -> Duration {
        plain.saturating_mul(1 << self.stalls.min(8)).min(ANSWER_AFTER_MAX.max(plain))
    }

    /// Forgets a request that was asked of it; it may be answered nevertheless.
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

    /// Whether a piece that comes was asked of it, now or before; it is not any more.
    pub(super) fn answers(&mut self, index: PieceIndex) -> bool {
        if self.asked.remove(&index).is_some() {
            return true;
        }
        let at = self.lapsed.iter().position(|it| *it == index);
        at.is_some_and(|at| self.lapsed.remove(at).is_some())
    }

    /// It answered: it is trusted to go on.
    pub(super) fn answered(&mut self, now: Time) {
        self.waiting_since = now;
        self.stalls = 0;
        self.snubbed_until = None;
    }
}
