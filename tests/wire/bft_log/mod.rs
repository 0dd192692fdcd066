//! A group's log by hand: committees, slots and certificates of real keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use folkmoot::model::{KeyPair, WallTime};
use folkmoot::proto::bft::message::SlotContent;
use folkmoot::proto::bft::{
    Approval, Bundle, BundleItem, BundleRef, Certificate, ChangeProof, Committee, ContentDigest,
    EpochNo, MembershipChange, OrderId, PhaseVote, SlotHeader, SlotNo, ViewNo, VotePhase,
    VoteSubject,
};
use folkmoot::proto::chat::entry::{
    Body, ChainHash, Entry, HostPort, Member, MemberId, Origin, SeqNo, Term,
};

pub const SALT: &str = "ledger";

pub fn keys(id: u32) -> KeyPair {
    KeyPair::from_secret([u8::try_from(id).unwrap(); 32])
}

pub fn member(id: u32) -> Member {
    let host = "127.0.0.1".parse().unwrap();
    let at = HostPort { host, port: 6000 + u16::try_from(id).unwrap() };
    Member { id: MemberId(id), at, key: keys(id).public() }
}

/// A log that grows slot by slot, and what follows from it.
pub struct Log {
    pub founders: Committee,
    pub committee: Committee,
    pub epoch: EpochNo,
    pub slots: Vec<Arc<SlotContent>>,
    pub entries: Vec<Entry>,
    pub last: BTreeMap<(MemberId, u64), u64>,
    hash: ChainHash,
}

impl Log {
    pub fn new(members: u32) -> Self {
        let founders = Committee::of((1..=members).map(member)).unwrap();
        Self {
            committee: founders.clone(),
            founders,
            epoch: EpochNo(0),
            slots: Vec::new(),
            entries: Vec::new(),
            last: BTreeMap::new(),
            hash: ChainHash::default(),
        }
    }

    pub fn group(&self) -> OrderId {
        self.founders.order_id(SALT)
    }

    pub fn digest(&self, header: &SlotHeader) -> ContentDigest {
        header.digest(&self.group())
    }

    /// The next header, without content.
    pub fn header(&self) -> SlotHeader {
        let slot = SlotNo(self.slots.len() as u64 + 1);
        let last = self.slots.last().map(|it| self.digest(&it.header));
        SlotHeader {
            epoch: self.epoch,
            slot,
            parent: last.unwrap_or(ContentDigest(self.group().0)),
            time: WallTime(1_734_567_890_000 + slot.0),
            place: SeqNo(self.entries.len() as u64),
            hash: self.hash,
            bundles: Vec::new(),
            change: None,
            committee: None,
            state: None,
        }
    }

    /// Messages of a member, from this number of one of its numberings on.
    pub fn bundle(&self, (id, client): (u32, u64), first: u64, texts: &[&str]) -> Arc<Bundle> {
        let item = |it: &&str| BundleItem { room: "general".into(), payload: (*it).into() };
        let items = texts.iter().map(item).collect();
        let origin = Origin { member: MemberId(id), client };
        Arc::new(Bundle::sign(&self.group(), origin, first, items, &keys(id)))
    }

    /// The next slot with these bundles; not appended.
    pub fn slot(&self, bundles: &[Arc<Bundle>]) -> SlotContent {
        let (mut header, mut last) = (self.header(), self.last.clone());
        for it in bundles {
            let last = last.entry((it.author, it.client)).or_default();
            header.bundles.push(BundleRef {
                digest: it.statement().digest(&self.group()),
                count: it.count(),
                skip: *last + 1 - it.first,
            });
            *last = it.last();
        }
        SlotContent { header, bundles: bundles.to_vec(), change: None }
    }

    /// The next slot with this change; not appended.
    pub fn changing(&self, change: MembershipChange) -> SlotContent {
        let mut header = self.header();
        let after = change.apply(&self.group(), (self.epoch, header.slot), &self.committee);
        header.change = Some(change.digest(&self.group()));
        header.committee = Some(after.unwrap().digest());
        SlotContent { header, bundles: Vec::new(), change: Some(Arc::new(change)) }
    }

    /// Appends a slot, whatever it says.
    pub fn push(&mut self, content: SlotContent) -> Arc<SlotContent> {
        let header = &content.header;
        for (named, bundle) in header.bundles.iter().zip(&content.bundles) {
            let from = usize::try_from(named.skip).unwrap();
            for text in (from..bundle.items.len()).filter_map(|index| bundle.message(index)) {
                let entry = Entry {
                    seq_no: SeqNo(self.entries.len() as u64 + 1),
                    term: Term(self.epoch.0),
                    leader: bundle.author,
                    time: header.time,
                    body: Body::Chat(text),
                };
                self.hash = self.hash.after(&entry);
                self.entries.push(entry);
            }
            self.last.insert((bundle.author, bundle.client), bundle.last());
        }
        if let Some(change) = &content.change {
            let at = (self.epoch, header.slot);
            self.committee = change.apply(&self.group(), at, &self.committee).unwrap();
            self.epoch = self.epoch.next();
        }
        self.slots.push(Arc::new(content));
        Arc::clone(self.slots.last().unwrap())
    }

    /// Appends a slot with these bundles.
    pub fn say(&mut self, bundles: &[Arc<Bundle>]) -> Arc<SlotContent> {
        let slot = self.slot(bundles);
        self.push(slot)
    }

    /// Appends a slot with this change, and proves it.
    pub fn change(&mut self, change: MembershipChange, signers: &[u32]) -> ChangeProof {
        let content = self.changing(change);
        let certificate = self.certificate(&content.header, 0, signers);
        let change = Arc::clone(content.change.as_ref().unwrap());
        self.push(content);
        ChangeProof { header: self.slots.last().unwrap().header.clone(), change, certificate }
    }

    /// Certificate of these members' COMMITs of a header.
    pub fn certificate(&self, header: &SlotHeader, view: u64, signers: &[u32]) -> Certificate {
        let digest = self.digest(header);
        let SlotHeader { epoch, slot, .. } = *header;
        let subject = VoteSubject { epoch, view: ViewNo(view), slot, digest };
        self.votes(VotePhase::Commit, subject, signers)
    }

    pub fn votes(&self, phase: VotePhase, subject: VoteSubject, signers: &[u32]) -> Certificate {
        let vote = |id: &u32| {
            let signer = (MemberId(*id), &keys(*id));
            (signer.0, PhaseVote::sign(&self.group(), phase, subject, signer).signature)
        };
        Certificate { phase, subject, signatures: signers.iter().map(vote).collect() }
    }

    /// Approvals of a change by these members in the present epoch.
    pub fn approvals(&self, change: &MembershipChange, signers: &[u32]) -> Vec<Approval> {
        let digest = change.digest(&self.group());
        let approve = |id: &u32| {
            Approval::sign(&self.group(), self.epoch, &digest, (MemberId(*id), &keys(*id)))
        };
        signers.iter().map(approve).collect()
    }

    /// The addition of a member, approved by these.
    pub fn adding(&self, id: u32, signers: &[u32]) -> MembershipChange {
        let bare = MembershipChange::Add { member: member(id), approvals: Vec::new() };
        let approvals = self.approvals(&bare, signers);
        MembershipChange::Add { member: member(id), approvals }
    }
}
