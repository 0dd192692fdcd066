//! Proofs of single messages, which anybody can check without a connection to the group.
//!
//! The identity of the group is the only thing that a reader has to trust: the proof shows the
//! first committee, every change of it, and the header that gives the message its place, each with
//! a certificate of the committee before it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bundle::{BundleItem, BundleStatement};
use super::change::MembershipChange;
use super::committee::Committee;
use super::header::SlotHeader;
use super::merkle;
use super::message::SlotContent;
use super::number::{ContentDigest, EpochNo, OrderId, SlotNo};
use super::vote::{Certificate, VotePhase};
use crate::model::{Signature, WallTime};
use crate::proto::chat::entry::{MemberId, MsgId, Origin, SeqNo};

/// Greatest length of a proof's text, in bytes.
pub const PROOF_BYTES_MAX: usize = 16_777_216;

/// Name of the text form.
const FORMAT: &str = "folkmoot/bft/place-proof/1";

/// Reason why a proof is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The text is no proof, for this reason.
    Malformed(String),
    /// The proof is of this other group.
    OtherGroup(OrderId),
    /// The change with this index does not follow from the committee before it.
    Change(usize, &'static str),
    /// The message does not follow from the committee of its epoch.
    Message(&'static str),
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => write!(f, "this is no proof: {reason}"),
            Self::OtherGroup(group) => write!(f, "the proof is of another group, {group}"),
            Self::Change(index, reason) => {
                write!(f, "change {} of the membership is not proved: {reason}", index + 1)
            }
            Self::Message(reason) => write!(f, "the message is not proved: {reason}"),
        }
    }
}

impl Error for ProofError {}

/// One change of the committee, with the certificate that its slot is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeProof {
    /// Header of the slot that holds the change.
    pub header: SlotHeader,
    /// The change, with its signatures.
    pub change: Arc<MembershipChange>,
    /// Certificate of COMMITs of that slot.
    pub certificate: Certificate,
}

/// Proof that a message has its place for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceProof(ProofFields);

/// Parts of a proof, as its text has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProofFields {
    format: String,
    committee: Committee,
    salt: String,
    changes: Vec<ChangeProof>,
    header: SlotHeader,
    bundle: BundleStatement,
    signature: Signature,
    item: BundleItem,
    index: u64,
    path: Vec<ContentDigest>,
    /// Headers behind that of the message, up to the certificate's.
    later: Vec<SlotHeader>,
    certificate: Certificate,
}

/// Statement that a proof proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProvenMessage {
    /// Number of the message in the order.
    pub place: SeqNo,
    /// Identity of the message; its author has signed it.
    pub msg_id: MsgId,
    /// Label under which the message is shown.
    #[serde(rename = "room_id")]
    pub room: Arc<str>,
    /// Text of the message.
    pub payload: Arc<str>,
    /// Time of the slot by its first proposer's clock; for people, nobody vouches for it.
    pub time: WallTime,
    /// Epoch of the slot.
    pub epoch: EpochNo,
    /// Slot that gives the place.
    pub slot: SlotNo,
    /// Members whose signatures make it final, ascending; a quorum of the epoch's committee.
    pub signers: Vec<MemberId>,
}

impl ProvenMessage {
    /// Member that wrote the message.
    pub const fn author(&self) -> MemberId {
        self.msg_id.origin.member
    }
}

impl Certificate {
    /// True if the certificate makes the slot of this header final, whose digest is `digest`.
    #[must_use]
    pub fn makes_final(
        &self,
        group: &OrderId,
        committee: &Committee,
        (header, digest): (&SlotHeader, ContentDigest),
    ) -> bool {
        let it = &self.subject;
        self.phase == VotePhase::Commit
            && (it.epoch, it.slot, it.digest) == (header.epoch, header.slot, digest)
            && self.is_valid(group, committee)
    }
}

impl SlotHeader {
    /// True if this header is of the slot before `next`, whose digest is `digest`, in one epoch.
    #[must_use]
    pub fn is_before(&self, digest: ContentDigest, next: &Self) -> bool {
        self.epoch == next.epoch
            && self.slot.0.checked_add(1) == Some(next.slot.0)
            && digest == next.parent
    }
}

impl ChangeProof {
    /// Committee after the change, if it is proved in this epoch.
    fn committee_after(
        &self,
        group: &OrderId,
        (epoch, before): (EpochNo, &Committee),
    ) -> Result<Committee, &'static str> {
        let Self { header, change, certificate } = self;
        if header.epoch != epoch {
            return Err("its slot is of another epoch");
        }
        if header.change != Some(change.digest(group)) || !header.bundles.is_empty() {
            return Err("its slot does not hold it");
        }
        if !certificate.makes_final(group, before, (header, header.digest(group))) {
            return Err("no quorum has made its slot final");
        }
        let after = change.apply(group, (epoch, header.slot), before);
        let after = after.ok_or("the members before it have not signed it")?;
        if header.committee != Some(after.digest()) {
            return Err("it leads to another committee than its slot says");
        }
        Ok(after)
    }
}

impl PlaceProof {
    /// Proof of the message at `place`, from parts of a log: the group's first committee with its
    /// salt, all changes before the message's epoch, the message's slot with the headers behind it
    /// in the same epoch, and a certificate of COMMITs of the last of these. `None` if the slot
    /// gives no message that place.
    #[must_use]
    pub fn new(
        (committee, salt): (&Committee, &str),
        changes: Vec<ChangeProof>,
        (content, later): (&SlotContent, Vec<SlotHeader>),
        certificate: Certificate,
        place: SeqNo,
    ) -> Option<Self> {
        let SlotContent { header, bundles, .. } = content;
        let mut left = place.0.checked_sub(header.place.0)?.checked_sub(1)?;
        let (mut named, mut at) = (header.bundles.iter().zip(bundles), None);
        while at.is_none() {
            let (named, bundle) = named.next()?;
            let new = named.count.checked_sub(named.skip)?;
            if left < new {
                at = Some((bundle, named.skip + left));
            } else {
                left -= new;
            }
        }
        let (bundle, index) = at?;
        let position = usize::try_from(index).ok()?;
        Some(Self(ProofFields {
            format: FORMAT.to_owned(),
            committee: committee.clone(),
            salt: salt.to_owned(),
            changes,
            header: header.clone(),
            bundle: bundle.statement(),
            signature: bundle.signature,
            item: bundle.items.get(position)?.clone(),
            index,
            path: merkle::path(&bundle.leaves(), position)?,
            later,
            certificate,
        }))
    }

    /// The proof as text: one line of JSON, without a newline.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(&self.0).expect("a proof is plain data with text keys")
    }

    /// Reads a proof from its text, blanks at both ends left out. It proves nothing before
    /// [`Self::verify`].
    ///
    /// # Errors
    /// [`ProofError::Malformed`] if the text is longer than [`PROOF_BYTES_MAX`], of another version
    /// or no proof, or has a field that is not known or a number or digest in another form than
    /// [`Self::encode`] writes.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let malformed = |reason: &dyn fmt::Display| ProofError::Malformed(reason.to_string());
        if text.len() > PROOF_BYTES_MAX {
            return Err(malformed(&format!("it is longer than {PROOF_BYTES_MAX} bytes")));
        }
        let given: Value = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        match given["format"].as_str() {
            Some(FORMAT) => {}
            Some(other) => return Err(malformed(&format!("its format is {other:?}"))),
            None => return Err(malformed(&"it has no `format`")),
        }
        // From the text and not from `given`, in which a field that stands twice is there once.
        let fields: ProofFields = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        let known = serde_json::to_value(&fields).map_err(|error| malformed(&error))?;
        if known != given {
            return Err(malformed(&"it has a field too many, or one in another form"));
        }
        Ok(Self(fields))
    }

    /// Identity of the group that the proof is of; nothing of it is checked.
    #[must_use]
    pub fn group(&self) -> OrderId {
        self.0.committee.order_id(&self.0.salt)
    }

    /// Checks the whole proof, with nothing but the identity of the group.
    ///
    /// # Errors
    /// [`ProofError`] says which part does not follow from those before it.
    pub fn verify(&self, group: &OrderId) -> Result<ProvenMessage, ProofError> {
        if self.group() != *group {
            return Err(ProofError::OtherGroup(self.group()));
        }
        let (mut epoch, mut slot) = (EpochNo(0), SlotNo(0));
        let mut committee = self.0.committee.clone();
        for (index, it) in self.0.changes.iter().enumerate() {
            let wrong = |reason| ProofError::Change(index, reason);
            if it.header.slot <= slot {
                return Err(wrong("its slot is not behind the change before it"));
            }
            committee = it.committee_after(group, (epoch, &committee)).map_err(wrong)?;
            (epoch, slot) = (epoch.next(), it.header.slot);
        }
        self.message(group, (epoch, slot), &committee).map_err(ProofError::Message)
    }

    /// The message that the committee of its epoch has ordered, which begins behind `start`.
    fn message(
        &self,
        group: &OrderId,
        (epoch, start): (EpochNo, SlotNo),
        committee: &Committee,
    ) -> Result<ProvenMessage, &'static str> {
        let ProofFields { header, bundle, item, .. } = &self.0;
        if header.epoch != epoch || header.slot <= start {
            return Err("its slot is of an epoch whose committee is not shown");
        }
        let (mut last, mut digest) = (header, header.digest(group));
        for next in &self.0.later {
            if !last.is_before(digest, next) {
                return Err("the headers behind its slot are no chain");
            }
            (last, digest) = (next, next.digest(group));
        }
        if !self.0.certificate.makes_final(group, committee, (last, digest)) {
            return Err("no quorum has made its slot final");
        }
        let place = self.place(bundle.digest(group)).ok_or("its slot gives it no place")?;
        let key = committee.key(bundle.author).ok_or("its author is no member")?;
        if !key.verifies(&bundle.signing_bytes(group), &self.0.signature) {
            return Err("its author has not signed it");
        }
        if self.root() != Some(bundle.root) {
            return Err("it is not in the bundle that its author signed");
        }
        let origin = Origin { member: bundle.author, client: bundle.client };
        let number = bundle.first.checked_add(self.0.index).ok_or("its number is too high")?;
        Ok(ProvenMessage {
            place,
            msg_id: MsgId { origin, number },
            room: Arc::clone(&item.room),
            payload: Arc::clone(&item.payload),
            time: header.time,
            epoch,
            slot: header.slot,
            signers: self.0.certificate.signatures.iter().map(|it| it.0).collect(),
        })
    }

    /// Place that the header gives the message; `None` if it names another bundle, or leaves the
    /// message out because it had a place before.
    fn place(&self, digest: ContentDigest) -> Option<SeqNo> {
        let ProofFields { header, index, .. } = &self.0;
        let at = header.bundles.iter().position(|it| it.digest == digest)?;
        let mut before = header.place.0;
        for it in &header.bundles[..at] {
            before = before.checked_add(it.count.checked_sub(it.skip)?)?;
        }
        let named = header.bundles[at];
        let place = before.checked_add(index.checked_sub(named.skip)?)?.checked_add(1)?;
        Some(SeqNo(place))
    }

    /// Root of the bundle's tree to which the message leads.
    fn root(&self) -> Option<ContentDigest> {
        let ProofFields { bundle, item, index, path, .. } = &self.0;
        let (index, count) = (usize::try_from(*index).ok()?, usize::try_from(bundle.count).ok()?);
        merkle::root_by(item.leaf(), (index, count), path)
    }
}
