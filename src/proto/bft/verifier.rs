//! Check of a whole log, without the machine that wrote it.
//!
//! A second implementation of all that a header must say (B3, B6, B7, B14, B15, B19): it shares no
//! state with the members' own, so that a fault of one shows in the other.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use super::bundle::Bundle;
use super::committee::Committee;
use super::header::{SLOT_BUNDLES_MAX, SLOT_COST_MAX, SlotHeader};
use super::message::SlotContent;
use super::number::{ContentDigest, EpochNo, OrderId, SlotNo};
use super::vote::{Certificate, VotePhase};
use crate::model::SigningBytes;
use crate::proto::chat::entry::{Body, ChainHash, Entry, MemberId, SeqNo, Term};

/// Number of slots between two in whose header the state stands.
const STATE_SLOTS: u64 = 1_024;

/// Greatest number of numberings of one author of which the last message is remembered.
const NUMBERINGS_MAX: usize = 64;

/// First fault of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFault {
    /// Slot in which it is.
    pub slot: SlotNo,
    /// Description of the fault.
    pub reason: &'static str,
}

impl fmt::Display for OrderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}: {}", self.slot.0, self.reason)
    }
}

impl Error for OrderFault {}

/// Last numbers of one author.
#[derive(Clone, Debug, Default)]
struct AuthorNumbers {
    /// Numberings up to this client number are forgotten.
    forgotten: u64,
    /// Last number that has a place, by client number.
    last: BTreeMap<u64, u64>,
}

/// Verifier of a log from its first slot on.
#[derive(Clone, Debug)]
pub struct OrderVerifier {
    group: OrderId,
    epoch: EpochNo,
    committee: Committee,
    slot: SlotNo,
    digest: ContentDigest,
    place: SeqNo,
    hash: ChainHash,
    authors: BTreeMap<MemberId, AuthorNumbers>,
    certified: SlotNo,
}

/// Fails with this reason unless a condition holds.
fn ensure(holds: bool, reason: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(reason) }
}

impl OrderVerifier {
    /// A verifier of the log of the group that was founded with this committee and salt.
    #[must_use]
    pub fn new(committee: Committee, salt: &str) -> Self {
        let group = committee.order_id(salt);
        Self {
            group,
            epoch: EpochNo(0),
            committee,
            slot: SlotNo(0),
            digest: ContentDigest(group.0),
            place: SeqNo(0),
            hash: ChainHash::default(),
            authors: BTreeMap::new(),
            certified: SlotNo(0),
        }
    }

    /// Identity of the group.
    pub const fn group(&self) -> OrderId {
        self.group
    }

    /// Epoch of the next slot.
    pub const fn epoch(&self) -> EpochNo {
        self.epoch
    }

    /// Members of that epoch.
    pub const fn committee(&self) -> &Committee {
        &self.committee
    }

    /// Last slot that was taken, and the digest of its header.
    pub const fn last(&self) -> (SlotNo, ContentDigest) {
        (self.slot, self.digest)
    }

    /// Number of the last message.
    pub const fn place(&self) -> SeqNo {
        self.place
    }

    /// Last slot with a certificate; it and all slots before it are final.
    pub const fn certified(&self) -> SlotNo {
        self.certified
    }

    /// Takes the next slot, with a certificate of COMMITs if there is one, and returns its
    /// messages. A slot that changes the committee needs one.
    ///
    /// # Errors
    /// [`OrderFault`] names the slot and the reason. The verifier must not be used afterwards.
    pub fn take(
        &mut self,
        content: &SlotContent,
        certificate: Option<&Certificate>,
    ) -> Result<Vec<Entry>, OrderFault> {
        let slot = SlotNo(self.slot.0.saturating_add(1));
        self.next(slot, content, certificate).map_err(|reason| OrderFault { slot, reason })
    }

    fn next(
        &mut self,
        slot: SlotNo,
        content: &SlotContent,
        certificate: Option<&Certificate>,
    ) -> Result<Vec<Entry>, &'static str> {
        let header = &content.header;
        ensure(header.slot == slot, "the header is of another slot")?;
        ensure(header.epoch == self.epoch, "the header is of another epoch")?;
        ensure(header.parent == self.digest, "the header names another parent")?;
        ensure(header.place == self.place, "the header begins at another place")?;
        ensure(header.hash == self.hash, "the header has another running hash")?;
        let state = slot.0.is_multiple_of(STATE_SLOTS).then(|| self.state());
        ensure(header.state == state, "the header names another state")?;
        let digest = header.digest(&self.group);
        if let Some(certificate) = certificate {
            let is_final = certificate.makes_final(&self.group, &self.committee, (header, digest));
            ensure(is_final, "the certificate is not valid")?;
            self.certified = slot;
        }
        (self.slot, self.digest) = (slot, digest);
        if content.change.is_some() {
            ensure(certificate.is_some(), "a change of the membership has no certificate")?;
            self.change(content)?;
            return Ok(Vec::new());
        }
        ensure(header.change.is_none(), "the change that the header names is missing")?;
        ensure(header.committee.is_none(), "the header names a committee without a change")?;
        self.bundles(content)
    }

    /// Begins the epoch behind a change.
    fn change(&mut self, content: &SlotContent) -> Result<(), &'static str> {
        let SlotContent { header, bundles, change } = content;
        let change = change.as_ref().ok_or("there is no change")?;
        ensure(bundles.is_empty() && header.bundles.is_empty(), "a change is not alone")?;
        ensure(
            header.change == Some(change.digest(&self.group)),
            "the header names no such change",
        )?;
        let after = change.apply(&self.group, (self.epoch, header.slot), &self.committee);
        let after = after.ok_or("the change of the membership is not valid")?;
        ensure(header.committee == Some(after.digest()), "the header names another committee")?;
        (self.committee, self.epoch) = (after, EpochNo(self.epoch.0.saturating_add(1)));
        Ok(())
    }

    /// Gives the messages of a slot their places.
    fn bundles(&mut self, content: &SlotContent) -> Result<Vec<Entry>, &'static str> {
        let SlotContent { header, bundles, .. } = content;
        ensure((1..=SLOT_BUNDLES_MAX).contains(&bundles.len()), "it has too few or many bundles")?;
        ensure(header.bundles.len() == bundles.len(), "the header names other bundles")?;
        let cost: usize = bundles.iter().map(|it| it.cost()).sum();
        ensure(cost <= SLOT_COST_MAX, "its bundles are too long")?;
        let mut entries = Vec::new();
        for (named, bundle) in header.bundles.iter().zip(bundles) {
            let statement = bundle.statement();
            ensure(
                named.digest == statement.digest(&self.group),
                "the header names other bundles",
            )?;
            ensure(named.count == statement.count, "the header has another count of messages")?;
            let key = self.committee.key(bundle.author).ok_or("an author is no member")?;
            let is_signed = bundle.is_valid(&self.group, &statement, key);
            ensure(is_signed, "a bundle is not signed by its author")?;
            let skip = self.count(bundle)?;
            ensure(named.skip == skip, "the header skips another count of messages")?;
            self.append(header, bundle, skip, &mut entries)?;
        }
        Ok(entries)
    }

    /// Number of messages of a bundle that have a place, which now all have.
    fn count(&mut self, bundle: &Bundle) -> Result<u64, &'static str> {
        let author = self.authors.entry(bundle.author).or_default();
        let last = match author.last.get(&bundle.client) {
            Some(last) => *last,
            None => {
                ensure(bundle.client > author.forgotten, "a bundle is of a forgotten numbering")?;
                0
            }
        };
        let end = bundle.first.saturating_add(bundle.count()) - 1;
        ensure(bundle.first <= last.saturating_add(1), "a message before a bundle is missing")?;
        ensure(end > last, "a bundle has nothing new")?;
        author.last.insert(bundle.client, end);
        if author.last.len() > NUMBERINGS_MAX
            && let Some((oldest, _)) = author.last.pop_first()
        {
            author.forgotten = oldest;
        }
        Ok(last + 1 - bundle.first)
    }

    /// Gives the messages of a bundle places, but for the first `skip`.
    fn append(
        &mut self,
        header: &SlotHeader,
        bundle: &Bundle,
        skip: u64,
        entries: &mut Vec<Entry>,
    ) -> Result<(), &'static str> {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        for index in skip..bundle.items.len() {
            let text = bundle.message(index).ok_or("a bundle lacks a message")?;
            let place = self.place.0.checked_add(1).ok_or("there is no further place")?;
            let (term, leader) = (Term(self.epoch.0), bundle.author);
            let body = Body::Chat(text);
            let entry = Entry { seq_no: SeqNo(place), term, leader, time: header.time, body };
            (self.place, self.hash) = (entry.seq_no, self.hash.after(&entry));
            entries.push(entry);
        }
        Ok(())
    }

    /// Digest of the state before the next slot.
    fn state(&self) -> ContentDigest {
        let bytes = SigningBytes::new("folkmoot/bft/state/1").bytes(&self.committee.digest().0);
        let forgetful: Vec<_> = self.authors.iter().filter(|it| it.1.forgotten > 0).collect();
        let mut bytes = bytes.number(forgetful.len() as u64);
        for (member, author) in forgetful {
            bytes = bytes.number(member.0.into()).number(author.forgotten);
        }
        let count: usize = self.authors.values().map(|it| it.last.len()).sum();
        bytes = bytes.number(count as u64);
        for (member, author) in &self.authors {
            for (client, number) in &author.last {
                bytes = bytes.number(member.0.into()).number(*client).number(*number);
            }
        }
        ContentDigest(bytes.sha256())
    }
}

/// Two final certificates that exclude each other: more members lied than the group bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderConflict {
    /// Members that signed both, ascending; at least f+1.
    pub signed_both: Vec<MemberId>,
    /// True if the certificates are of one view, in which a member votes once: then each of these
    /// members lied. Else at least f+1 members lied about what they had signed before, and one of
    /// these may have believed them.
    pub is_one_view: bool,
}

impl OrderConflict {
    /// The conflict of two certificates of COMMITs; `None` if they do not exclude each other, or
    /// one is not valid for the committee of their epoch.
    #[must_use]
    pub fn between(
        group: &OrderId,
        committee: &Committee,
        (one, other): (&Certificate, &Certificate),
    ) -> Option<Self> {
        let place = |it: &Certificate| (it.phase, it.subject.epoch, it.subject.slot);
        let excludes = one.phase == VotePhase::Commit
            && place(one) == place(other)
            && one.subject.digest != other.subject.digest
            && one.is_valid(group, committee)
            && other.is_valid(group, committee);
        let has = |id: &MemberId| other.signatures.iter().any(|it| it.0 == *id);
        let signed_both = one.signatures.iter().map(|it| it.0).filter(has).collect();
        let is_one_view = one.subject.view == other.subject.view;
        excludes.then_some(Self { signed_both, is_one_view })
    }
}
