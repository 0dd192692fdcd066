//! Texts typed at this member that have no place yet.
//!
//! A process numbers them by a client number of its own, so that no number is ever given twice,
//! even where the log was lost: a bundle may leave before it is on disk.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::KeyPair;
use crate::proto::bft::bundle::{BUNDLE_COST_MAX, BUNDLE_ITEMS_MAX};
use crate::proto::bft::{Bundle, BundleItem, ContentDigest, OrderId};
use crate::proto::chat::entry::{ChatText, MsgId, Origin};

use super::ledger::Marks;

/// Number of own bundles that may be on their way; further texts wait for the next one.
const ON_THE_WAY_MAX: usize = 16;

/// Texts typed at this member that have no place yet.
#[derive(Debug)]
pub(super) struct Outbox {
    origin: Origin,
    next: u64,
    texts: VecDeque<BundleItem>,
    /// Own bundles without a place, oldest first: those of earlier processes come first.
    bundles: VecDeque<(ContentDigest, Arc<Bundle>)>,
}

impl Outbox {
    pub(super) fn new(origin: Origin, old: Vec<(ContentDigest, Arc<Bundle>)>) -> Self {
        Self { origin, next: 1, texts: VecDeque::new(), bundles: old.into() }
    }

    /// Numbering of the texts typed here.
    pub(super) const fn origin(&self) -> Origin {
        self.origin
    }

    /// Number of texts without a place.
    pub(super) fn len(&self) -> usize {
        let sent: usize = self.bundles.iter().map(|(_, it)| it.items.len()).sum();
        self.texts.len() + sent
    }

    /// Own bundles without a place.
    pub(super) fn bundles(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.bundles.iter().map(|(_, bundle)| bundle)
    }

    /// Takes a text; returns it with its identity.
    pub(super) fn add(&mut self, room: Arc<str>, payload: Arc<str>) -> ChatText {
        let number = self.next + self.texts.len() as u64;
        let msg_id = MsgId { origin: self.origin, number };
        let text = ChatText { msg_id, room_id: Arc::clone(&room), payload: Arc::clone(&payload) };
        self.texts.push_back(BundleItem { room, payload });
        text
    }

    /// The next bundle of texts, signed, if there are any and it may be on its way.
    pub(super) fn bundle(
        &mut self,
        group: &OrderId,
        keys: &KeyPair,
    ) -> Option<(ContentDigest, Arc<Bundle>)> {
        // Texts of earlier processes come first, so that an author's order stays its own.
        let is_old = |it: &Bundle| it.origin() != self.origin;
        if self.texts.is_empty()
            || self.bundles.len() >= ON_THE_WAY_MAX
            || self.bundles.iter().any(|(_, it)| is_old(it))
        {
            return None;
        }
        let mut items: Vec<BundleItem> = Vec::new();
        let mut cost = 0;
        while let Some(item) = self.texts.front()
            && items.len() < BUNDLE_ITEMS_MAX
        {
            let more = item.cost();
            if !items.is_empty() && cost + more > BUNDLE_COST_MAX / 2 {
                break;
            }
            cost += more;
            items.extend(self.texts.pop_front());
        }
        let bundle = Arc::new(Bundle::sign(group, self.origin, self.next, items, keys));
        self.next += bundle.count();
        let digest = bundle.statement().digest(group);
        self.bundles.push_back((digest, Arc::clone(&bundle)));
        Some((digest, bundle))
    }

    /// Forgets bundles whose messages have places, or can have none any more.
    pub(super) fn prune(&mut self, marks: &Marks) {
        self.bundles.retain(|(_, bundle)| {
            marks.last(bundle.origin()).is_some_and(|last| bundle.last() > last)
        });
    }
}
