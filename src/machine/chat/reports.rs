//! Facts that a member has told its surroundings, so that each is told once.

use std::collections::BTreeMap;

use super::event::Role;
use crate::proto::chat::entry::{MemberId, Term};

/// Role, term and leader.
pub(super) type Place = (Role, Term, Option<MemberId>);

/// All that was told last, and the counts of dropped inputs.
#[derive(Debug)]
pub(super) struct Reports {
    drops: BTreeMap<&'static str, u64>,
    /// True if a majority is in reach, as last told.
    quorum: Option<bool>,
    place: Place,
}

impl Reports {
    pub(super) const fn new(place: Place) -> Self {
        Self { drops: BTreeMap::new(), quorum: None, place }
    }

    /// Counts a dropped input. Returns true if it is to be told: the first, second, fourth… one.
    pub(super) fn drop_it(&mut self, why: &'static str) -> bool {
        let count = self.drops.entry(why).or_default();
        *count += 1;
        count.is_power_of_two()
    }

    pub(super) const fn drops(&self) -> &BTreeMap<&'static str, u64> {
        &self.drops
    }

    /// Notes whether a majority is in reach. Returns true if that is news.
    pub(super) fn set_quorum(&mut self, is_reached: bool) -> bool {
        self.quorum.replace(is_reached) != Some(is_reached)
    }

    pub(super) const fn quorum(&self) -> Option<bool> {
        self.quorum
    }

    /// Notes role, term and leader. Returns true if they are news.
    pub(super) fn set_place(&mut self, place: Place) -> bool {
        std::mem::replace(&mut self.place, place) != place
    }
}
