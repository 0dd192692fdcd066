//! The chain as this member holds it: final slots, accepted ones, and contents of others (rules
//! B6, B11–B14, B19).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::ledger::{Ledger, PlacedSlot, SlotBody};
use super::pool::Pool;
use crate::proto::bft::message::SlotContent;
use crate::proto::bft::{Certificate, ContentDigest, SlotHeader, SlotNo};

/// A final slot that is still in memory.
#[derive(Clone, Debug)]
pub(super) struct FinalSlot {
    pub(super) content: Arc<SlotContent>,
    pub(super) digest: ContentDigest,
    /// Certificate of COMMITs, if the slot has one of its own.
    pub(super) certificate: Option<Certificate>,
}

/// The way from the last final slot to a header, as far as its content is here.
#[derive(Debug)]
pub(super) enum Path {
    /// Headers from the first behind the final one on.
    Whole(Vec<SlotHeader>),
    /// A header is missing: the one with this digest.
    NoHeader(ContentDigest),
    /// The way does not lead to the final slot.
    Elsewhere,
}

/// The chain as this member holds it.
#[derive(Debug)]
pub(super) struct Chain {
    settled: Ledger,
    /// Slots behind the final one that this member has accepted in the present view.
    accepted: VecDeque<PlacedSlot>,
    /// Headers behind the final slot that are not accepted, by their digests.
    headers: BTreeMap<ContentDigest, SlotHeader>,
    /// Contents behind the final slot that were accepted once, by digest.
    contents: BTreeMap<ContentDigest, Arc<SlotContent>>,
    window: VecDeque<FinalSlot>,
}

impl Chain {
    pub(super) const fn new(settled: Ledger) -> Self {
        Self {
            settled,
            accepted: VecDeque::new(),
            headers: BTreeMap::new(),
            contents: BTreeMap::new(),
            window: VecDeque::new(),
        }
    }

    /// State behind the last final slot.
    pub(super) const fn settled(&self) -> &Ledger {
        &self.settled
    }

    /// State behind the last accepted slot.
    pub(super) fn tip(&self) -> &Ledger {
        self.accepted.back().map_or(&self.settled, |it| &it.after)
    }

    /// Slots that are accepted and not final, in order.
    pub(super) const fn accepted(&self) -> &VecDeque<PlacedSlot> {
        &self.accepted
    }

    /// The accepted slot of this number, if it is not final.
    pub(super) fn accepted_at(&self, slot: SlotNo) -> Option<&PlacedSlot> {
        let first = self.settled.tip.slot.next();
        let index = slot.0.checked_sub(first.0)?;
        self.accepted.get(usize::try_from(index).ok()?)
    }

    /// True if the last accepted slot holds a change: nothing is accepted behind it (B19).
    pub(super) fn ends_epoch(&self) -> bool {
        self.accepted.back().is_some_and(|it| it.content.change.is_some())
    }

    /// Adds a slot that was checked against [`Self::tip`].
    pub(super) fn accept(&mut self, slot: PlacedSlot) {
        self.contents.insert(slot.digest, Arc::clone(&slot.content));
        self.accepted.push_back(slot);
    }

    /// Gives up all accepted slots. Their contents stay.
    pub(super) fn rewind(&mut self) {
        self.accepted.clear();
    }

    /// Keeps the content of a slot behind the final one.
    pub(super) fn keep(&mut self, digest: ContentDigest, content: Arc<SlotContent>) {
        self.contents.insert(digest, content);
    }

    /// Forgets contents that neither the accepted slots nor the way to `claimed` needs.
    pub(super) fn forget_others(&mut self, claimed: Option<ContentDigest>) {
        let mut kept: Vec<_> = self.accepted.iter().map(|it| it.digest).collect();
        let mut next = claimed;
        while let Some(content) = next.and_then(|it| self.contents.get(&it)) {
            kept.extend(next);
            next = Some(content.header.parent);
        }
        self.contents.retain(|digest, _| kept.contains(digest));
        self.headers.clear();
    }

    /// Makes the first accepted slot final; returns it.
    pub(super) fn settle(
        &mut self,
        certificate: Option<Certificate>,
        window: usize,
    ) -> Option<PlacedSlot> {
        let slot = self.accepted.pop_front()?;
        let (content, digest) = (Arc::clone(&slot.content), slot.digest);
        self.window.push_back(FinalSlot { content, digest, certificate });
        while self.window.len() > window.max(1) {
            self.window.pop_front();
        }
        self.settled = slot.after.clone();
        let last = self.settled.tip.slot;
        self.contents.retain(|_, it| it.header.slot > last);
        self.headers.retain(|_, it| it.slot > last);
        Some(slot)
    }

    /// Number of contents, and of headers, behind the final slot.
    #[cfg(feature = "fault-injection")]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.contents.len(), self.headers.len())
    }

    /// Final slots in memory, in order.
    pub(super) const fn window(&self) -> &VecDeque<FinalSlot> {
        &self.window
    }

    /// Adds a header by its digest, which a certificate or a header behind it names.
    pub(super) fn add_header(&mut self, digest: ContentDigest, header: SlotHeader) {
        if header.slot > self.settled.tip.slot {
            self.headers.insert(digest, header);
        }
    }

    /// The header of this digest behind the final slot.
    pub(super) fn header(&self, digest: &ContentDigest) -> Option<&SlotHeader> {
        let accepted = self.contents.get(digest).map(|it| &it.header);
        accepted.or_else(|| self.headers.get(digest))
    }

    /// The content of this digest behind the final slot.
    pub(super) fn content(&self, digest: &ContentDigest) -> Option<&Arc<SlotContent>> {
        self.contents.get(digest)
    }

    /// Contents behind the final slot and of the last final ones, newest first.
    pub(super) fn recent(&self, finals: usize) -> impl Iterator<Item = &Arc<SlotContent>> {
        let window = self.window.iter().rev().take(finals).map(|it| &it.content);
        self.contents.values().chain(window)
    }

    /// The way from the last final slot to the header of this digest in `slot`.
    pub(super) fn path(&self, slot: SlotNo, digest: ContentDigest) -> Path {
        let last = self.settled.tip;
        let (mut at, mut wanted) = (slot, digest);
        let mut headers = Vec::new();
        while at > last.slot {
            let Some(header) = self.header(&wanted) else { return Path::NoHeader(wanted) };
            if header.slot != at {
                return Path::Elsewhere;
            }
            headers.push(header.clone());
            (at, wanted) = (SlotNo(at.0 - 1), header.parent);
        }
        headers.reverse();
        if at == last.slot && wanted == last.digest {
            Path::Whole(headers)
        } else {
            Path::Elsewhere
        }
    }

    /// Content that a header names: what was accepted once, or is in the pool; otherwise the
    /// digests that are missing.
    pub(super) fn body(
        &self,
        digest: &ContentDigest,
        header: &SlotHeader,
        pool: &Pool,
    ) -> Result<SlotBody, Vec<ContentDigest>> {
        if let Some(content) = self.contents.get(digest) {
            return Ok(body_of(content));
        }
        if let Some(change) = &header.change {
            let known = pool.change(change).map(|it| SlotBody::Change(Arc::clone(it)));
            return known.ok_or_else(|| vec![*change]);
        }
        let (mut bundles, mut missing) = (Vec::with_capacity(header.bundles.len()), Vec::new());
        for it in &header.bundles {
            match pool.bundle(&it.digest).or_else(|| self.placed_bundle(&it.digest)) {
                Some(bundle) => bundles.push((it.digest, Arc::clone(bundle))),
                None => missing.push(it.digest),
            }
        }
        if missing.is_empty() { Ok(SlotBody::Bundles(bundles)) } else { Err(missing) }
    }

    /// A bundle of a slot that was accepted once and is not final.
    fn placed_bundle(&self, digest: &ContentDigest) -> Option<&Arc<crate::proto::bft::Bundle>> {
        self.contents.values().find_map(|content| {
            let at = content.header.bundles.iter().position(|it| it.digest == *digest)?;
            content.bundles.get(at)
        })
    }
}

/// Content of a slot whose bundles are those that its header names.
pub(super) fn body_of(content: &SlotContent) -> SlotBody {
    match &content.change {
        Some(change) => SlotBody::Change(Arc::clone(change)),
        None => {
            let digests = content.header.bundles.iter().map(|it| it.digest);
            SlotBody::Bundles(digests.zip(content.bundles.iter().cloned()).collect())
        }
    }
}
