//! One look-up: the peers to ask on the way to an id, and the end of the search.
//!
//! Invariants:
//! - Only the closest peers that did not fail are asked, three at a time, each once; the look-up is
//!   over when the sixteen closest have answered (`WIDTH_MAX` where the holder of an id is wanted),
//!   or the holder has, or after `ASKED_MAX` questions.
//! - The number of contacts told is bounded: the farthest are dropped first.
//! - A peer `LIES_MAX` of whose contacts were not there is not listened to any more in this
//!   look-up: contacts that it named and that were not asked yet are dropped.

use std::collections::BTreeMap;

use crate::proto::discovery::{CONTACTS_MAX, Contact, Distance, NodeId};

/// Number of questions under way at a time (alpha in the paper).
const PARALLELISM: usize = 3;

/// Greatest number of questions of one look-up. An honest fleet of a million needs about thirty.
const ASKED_MAX: usize = 96;

/// Greatest number of candidates remembered.
const CANDIDATES_MAX: usize = 256;

/// Number of the closest peers that are asked for the holder of an id before it is taken as not
/// there: liars that name each other can be closer than every honest peer, but not all of these.
const WIDTH_MAX: usize = 3 * CONTACTS_MAX;

/// Number of one peer's candidates that fail before the rest of them is dropped. Honest peers
/// name dead ones, too, as long as they have not noticed.
const LIES_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Told,
    Asked,
    Answered,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    contact: Contact,
    /// Number of peers on the path of questions to the candidate.
    hops: u32,
    teller: Option<Distance>,
    stage: Stage,
}

/// A look-up under way.
#[derive(Debug)]
pub(super) struct Lookup {
    target: NodeId,
    /// True if the holder of the id is wanted, and not only its surroundings.
    wants_one: bool,
    candidates: BTreeMap<Distance, Candidate>,
    lies: BTreeMap<Distance, usize>,
    asked: usize,
}

impl Lookup {
    pub(super) fn new(target: NodeId, wants_one: bool, known: Vec<Contact>) -> Self {
        let (candidates, lies) = (BTreeMap::new(), BTreeMap::new());
        let mut this = Self { target, wants_one, candidates, lies, asked: 0 };
        this.add(known, 0, None);
        this
    }

    pub(super) const fn target(&self) -> NodeId {
        self.target
    }

    fn add(&mut self, contacts: Vec<Contact>, hops: u32, teller: Option<Distance>) {
        for contact in contacts {
            let distance = contact.id().distance(&self.target);
            let stage = Stage::Told;
            let fresh = Candidate { contact, hops, teller, stage };
            self.candidates.entry(distance).or_insert(fresh);
        }
        while self.candidates.len() > CANDIDATES_MAX {
            self.candidates.pop_last();
        }
    }

    /// Returns the peers to ask now, and counts them as asked. Empty while enough questions are
    /// under way, and when no candidate is left.
    pub(super) fn next(&mut self) -> Vec<Contact> {
        let under_way = self.candidates.values().filter(|it| it.stage == Stage::Asked).count();
        let room = PARALLELISM.saturating_sub(under_way).min(ASKED_MAX.saturating_sub(self.asked));
        if self.found().is_some() {
            return Vec::new();
        }
        let width = if self.wants_one { WIDTH_MAX } else { CONTACTS_MAX };
        let standing = self.candidates.values_mut().filter(|it| it.stage != Stage::Failed);
        let chosen: Vec<_> = standing
            .take(width)
            .filter(|it| it.stage == Stage::Told)
            .take(room)
            .map(|it| {
                it.stage = Stage::Asked;
                it.contact
            })
            .collect();
        self.asked += chosen.len();
        chosen
    }

    /// True if no question is under way any more; to be called after [`Lookup::next`].
    pub(super) fn is_over(&self) -> bool {
        self.found().is_some() || !self.candidates.values().any(|it| it.stage == Stage::Asked)
    }

    /// Takes an answer of a peer whose key was proved.
    pub(super) fn on_answer(&mut self, from: &Contact, contacts: Vec<Contact>) {
        let distance = from.id().distance(&self.target);
        let Some(teller) = self.candidates.get_mut(&distance) else { return };
        teller.stage = Stage::Answered;
        let hops = teller.hops + 1;
        self.add(contacts, hops, Some(distance));
    }

    /// Takes a question without an answer, or with one under another key.
    pub(super) fn on_failed(&mut self, whom: &Contact) {
        let distance = whom.id().distance(&self.target);
        let Some(candidate) = self.candidates.get_mut(&distance) else { return };
        if candidate.contact != *whom || candidate.stage == Stage::Failed {
            return;
        }
        candidate.stage = Stage::Failed;
        let Some(teller) = candidate.teller else { return };
        let lies = self.lies.entry(teller).or_default();
        *lies += 1;
        if *lies >= LIES_MAX {
            self.candidates.retain(|_, it| it.stage != Stage::Told || it.teller != Some(teller));
        }
    }

    /// The holder of the id, once it has answered for itself, and the hops to it.
    pub(super) fn found(&self) -> Option<(Contact, u32)> {
        let (distance, nearest) = self.candidates.first_key_value()?;
        let is_it = distance.common_bits() == 256 && nearest.stage == Stage::Answered;
        (self.wants_one && is_it).then_some((nearest.contact, nearest.hops))
    }

    /// The hops to the closest peer that answered.
    pub(super) fn hops(&self) -> Option<u32> {
        let answered = self.candidates.values().find(|it| it.stage == Stage::Answered);
        answered.map(|it| it.hops)
    }
}
