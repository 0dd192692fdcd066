//! The state that follows from the slots of the chain, and the header that must stand behind it
//! (rules B3, B7, B14, B15, B19).
//!
//! Invariant: a pure function of the slots. Members that have the same slots have the same state,
//! so a header that one of them proposes is computed by all, and compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{BftRule, CLIENTS_MAX, Config, STATE_EVERY};
use super::event::{OrderMark, OrderSnapshot};
use crate::model::{SigningBytes, WallTime};
use crate::proto::bft::header::{SLOT_BUNDLES_MAX, SLOT_COST_MAX};
use crate::proto::bft::message::SlotContent;
use crate::proto::bft::{
    Bundle, BundleRef, Certificate, Committee, ContentDigest, EpochNo, MembershipChange, OrderId,
    SlotHeader, SlotNo,
};
use crate::proto::chat::entry::{Body, ChainHash, Entry, MemberId, Origin, SeqNo, Term};

/// Last numbers of the numberings of one author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AuthorMarks {
    /// Numberings up to this client number are forgotten, and take no more messages: a message of
    /// theirs could be placed twice. An author's client numbers grow with time.
    floor: u64,
    last: BTreeMap<u64, u64>,
}

/// Last number of each numbering that has a place (B15).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(BTreeMap<MemberId, Arc<AuthorMarks>>);

impl Marks {
    /// Last number of a numbering that has a place, 0 if none has; `None` if it is forgotten.
    pub(super) fn last(&self, origin: Origin) -> Option<u64> {
        let Some(author) = self.0.get(&origin.member) else { return Some(0) };
        match author.last.get(&origin.client) {
            Some(number) => Some(*number),
            None if origin.client <= author.floor => None,
            None => Some(0),
        }
    }

    /// Greatest client number that an author has used, as far as it is known.
    pub(super) fn newest_client(&self, member: MemberId) -> u64 {
        let author = self.0.get(&member);
        author.map_or(0, |it| it.last.keys().next_back().copied().unwrap_or_default().max(it.floor))
    }

    fn put(&mut self, origin: Origin, number: u64) {
        let author = Arc::make_mut(self.0.entry(origin.member).or_default());
        author.last.insert(origin.client, number);
        if author.last.len() > CLIENTS_MAX
            && let Some((oldest, _)) = author.last.pop_first()
        {
            author.floor = oldest;
        }
    }

    /// Number of messages of the bundle that have a place already; `None` if it cannot be placed:
    /// nothing in it is new, or what belongs before it is missing.
    pub(super) fn skip(&self, bundle: &Bundle) -> Option<u64> {
        let last = self.last(bundle.origin())?;
        let is_next = bundle.first <= last.saturating_add(1) && bundle.last() > last;
        is_next.then(|| last + 1 - bundle.first)
    }

    /// Notes that the messages of a bundle have places.
    pub(super) fn note(&mut self, bundle: &Bundle) {
        self.put(bundle.origin(), bundle.last());
    }

    fn restore(snapshot: &OrderSnapshot) -> Self {
        let mut marks = Self::default();
        for (member, floor) in &snapshot.floors {
            Arc::make_mut(marks.0.entry(*member).or_default()).floor = *floor;
        }
        for mark in &snapshot.marks {
            let author = Arc::make_mut(marks.0.entry(mark.member).or_default());
            author.last.insert(mark.client, mark.number);
        }
        marks
    }

    fn list(&self) -> Vec<OrderMark> {
        let of = |(member, author): (&MemberId, &Arc<AuthorMarks>)| {
            let member = *member;
            let mark = |(client, number): (&u64, &u64)| OrderMark {
                member,
                client: *client,
                number: *number,
            };
            author.last.iter().map(mark).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    fn floors(&self) -> Vec<(MemberId, u64)> {
        let floors = self.0.iter().map(|(member, author)| (*member, author.floor));
        floors.filter(|(_, floor)| *floor > 0).collect()
    }
}

/// Last slot of a chain, and the place of its last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    /// Number of the last slot.
    pub(super) slot: SlotNo,
    /// Digest of its header.
    pub(super) digest: ContentDigest,
    /// Number of the last message.
    pub(super) place: SeqNo,
    /// Running hash there.
    pub(super) hash: ChainHash,
}

/// The state behind one slot.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) tip: Tip,
    pub(super) epoch: EpochNo,
    /// Last slot before the epoch, and the digest of its header.
    pub(super) epoch_start: (SlotNo, ContentDigest),
    pub(super) committee: Arc<Committee>,
    pub(super) marks: Marks,
}

/// A slot whose content was compared with the state before it.
#[derive(Clone, Debug)]
pub(super) struct PlacedSlot {
    pub(super) content: Arc<SlotContent>,
    pub(super) digest: ContentDigest,
    /// State behind the slot.
    pub(super) after: Ledger,
    /// Messages of the slot with their places.
    pub(super) entries: Vec<Arc<Entry>>,
}

/// Content of a slot to be.
#[derive(Clone, Debug)]
pub(super) enum SlotBody {
    /// Bundles with their digests, at least one.
    Bundles(Vec<(ContentDigest, Arc<Bundle>)>),
    /// A change of the committee.
    Change(Arc<MembershipChange>),
}

impl Ledger {
    /// The state before the first slot.
    pub(super) fn founded(group: &OrderId, committee: Arc<Committee>) -> Self {
        let digest = ContentDigest(group.0);
        let tip = Tip { slot: SlotNo(0), digest, place: SeqNo(0), hash: ChainHash::default() };
        let epoch_start = (SlotNo(0), digest);
        Self { tip, epoch: EpochNo(0), epoch_start, committee, marks: Marks::default() }
    }

    /// The state that a snapshot describes.
    pub(super) fn restore(snapshot: &OrderSnapshot) -> Self {
        let OrderSnapshot { slot, digest, place, hash, epoch, epoch_start, .. } = *snapshot;
        let tip = Tip { slot, digest, place, hash };
        let (committee, marks) = (Arc::clone(&snapshot.committee), Marks::restore(snapshot));
        Self { tip, epoch, epoch_start, committee, marks }
    }

    /// A snapshot of the state, whose slot this certificate makes final.
    pub(super) fn snapshot(&self, certificate: Certificate) -> OrderSnapshot {
        let Tip { slot, digest, place, hash } = self.tip;
        OrderSnapshot {
            slot,
            digest,
            place,
            hash,
            epoch: self.epoch,
            epoch_start: self.epoch_start,
            committee: Arc::clone(&self.committee),
            marks: self.marks.list(),
            floors: self.marks.floors(),
            certificate,
        }
    }

    /// Digest of the state, as the headers of some slots name it.
    pub(super) fn state_digest(&self) -> ContentDigest {
        let bytes = SigningBytes::new("folkmoot/bft/state/1").bytes(&self.committee.digest().0);
        let floors = self.marks.floors();
        let bytes = floors.iter().fold(bytes.number(floors.len() as u64), |bytes, it| {
            bytes.number(it.0.0.into()).number(it.1)
        });
        let marks = self.marks.list();
        let bytes = marks.iter().fold(bytes.number(marks.len() as u64), |bytes, it| {
            bytes.number(it.member.0.into()).number(it.client).number(it.number)
        });
        ContentDigest(bytes.sha256())
    }

    /// The next slot with this content; `None` if the content cannot stand there.
    pub(super) fn next(
        &self,
        group: &OrderId,
        time: WallTime,
        body: SlotBody,
        config: &Config,
    ) -> Option<PlacedSlot> {
        let slot = self.tip.slot.next();
        let has_state = slot.0.is_multiple_of(STATE_EVERY);
        let mut header = SlotHeader {
            epoch: self.epoch,
            slot,
            parent: self.tip.digest,
            time,
            place: self.tip.place,
            hash: self.tip.hash,
            bundles: Vec::new(),
            change: None,
            committee: None,
            state: has_state.then(|| self.state_digest()),
        };
        let mut after = self.clone();
        let mut entries = Vec::new();
        let mut content = SlotContent { header: header.clone(), bundles: Vec::new(), change: None };
        match body {
            SlotBody::Bundles(bundles) => {
                if bundles.is_empty() || bundles.len() > SLOT_BUNDLES_MAX {
                    return None;
                }
                let cost: usize = bundles.iter().map(|(_, it)| it.cost()).sum();
                if cost > SLOT_COST_MAX {
                    return None;
                }
                for (digest, bundle) in bundles {
                    let skip = match after.marks.skip(&bundle) {
                        Some(skip) => skip,
                        None if !config.keeps(BftRule::Once) => 0,
                        None => return None,
                    };
                    header.bundles.push(BundleRef { digest, count: bundle.count(), skip });
                    after.marks.note(&bundle);
                    entries.extend(after.place(&bundle, skip, time));
                    content.bundles.push(bundle);
                }
            }
            SlotBody::Change(change) => {
                let committee = change.apply(group, (self.epoch, slot), &self.committee)?;
                header.change = Some(change.digest(group));
                header.committee = Some(committee.digest());
                after.committee = Arc::new(committee);
                content.change = Some(change);
            }
        }
        let digest = config.digest_of(group, &header);
        (after.tip.slot, after.tip.digest) = (slot, digest);
        if content.change.is_some() {
            after.epoch = self.epoch.next();
            after.epoch_start = (slot, digest);
        }
        content.header = header;
        Some(PlacedSlot { content: Arc::new(content), digest, after, entries })
    }

    /// The slot with this header and content, if just this header must stand there (B7).
    pub(super) fn check(
        &self,
        group: &OrderId,
        header: &SlotHeader,
        body: SlotBody,
        config: &Config,
    ) -> Option<PlacedSlot> {
        if !config.keeps(BftRule::Chain) && header.parent != self.tip.digest {
            let mut behind = self.clone();
            behind.tip.digest = header.parent;
            return behind.check(group, header, body, config);
        }
        let mut placed = self.next(group, header.time, body, config)?;
        if !config.keeps(BftRule::Content) {
            let content = Arc::make_mut(&mut placed.content);
            content.header = header.clone();
            placed.digest = config.digest_of(group, header);
            placed.after.tip.digest = placed.digest;
        }
        (placed.content.header == *header).then_some(placed)
    }

    /// Gives places to the messages of a bundle that have none.
    fn place(&mut self, bundle: &Bundle, skip: u64, time: WallTime) -> Vec<Arc<Entry>> {
        let from = usize::try_from(skip).unwrap_or(usize::MAX);
        let texts = (from..bundle.items.len()).filter_map(|index| bundle.message(index));
        let mut entries = Vec::with_capacity(bundle.items.len().saturating_sub(from));
        for text in texts {
            let seq_no = self.tip.place.next();
            let (term, leader) = (Term(self.epoch.0), bundle.author);
            let entry = Entry { seq_no, term, leader, time, body: Body::Chat(text) };
            (self.tip.place, self.tip.hash) = (seq_no, self.tip.hash.after(&entry));
            entries.push(Arc::new(entry));
        }
        entries
    }
}
