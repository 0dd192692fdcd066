//! The state after a restart, from the log (rules B8–B11, B20).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chain::{Chain, Path, body_of};
use super::config::Config;
use super::disk::DiskState;
use super::event::{OrderSnapshot, Record};
use super::ledger::Ledger;
use super::recall::Recall;
use super::replica::BftIdentity;
use crate::proto::bft::message::SlotContent;
use crate::proto::bft::{
    Bundle, Certificate, Claim, ContentDigest, EpochNo, Equivocation, Life, OrderId, SlotNo,
    ViewNo, VotePhase,
};
use crate::proto::chat::entry::MemberId;

/// State that a member has on its disk when it starts.
#[derive(Debug, Default)]
pub struct OrderMemory {
    /// Newest snapshot, if there is one.
    pub snapshot: Option<Box<OrderSnapshot>>,
    /// Records in order; those that the snapshot covers may be left out, but not `Group`, `View`,
    /// `Typed`, `Hole`, `Life` and `Evidence`.
    pub records: Vec<Record>,
    /// Reason why statements of this member may be missing here, if there is one: its log is gone
    /// though its key has signed before, or its operator says that it is a copy (B20).
    pub is_lost: Option<String>,
}

/// State of a machine after a restart.
pub(super) struct Restored {
    pub(super) chain: Chain,
    pub(super) claim: Option<Certificate>,
    pub(super) disk: DiskState,
    pub(super) view: ViewNo,
    /// Own bundles without a place.
    pub(super) typed: Vec<(ContentDigest, Arc<Bundle>)>,
    pub(super) recall: Recall,
    pub(super) evidence: BTreeMap<MemberId, Arc<Equivocation>>,
    /// True if this member has never promised a view: it may vote in the first one.
    pub(super) is_new: bool,
}

/// Records as they are read.
#[derive(Default)]
struct Replay {
    has_group: bool,
    promised: Option<(EpochNo, ViewNo)>,
    contents: BTreeMap<ContentDigest, Arc<SlotContent>>,
    prepared: Vec<Certificate>,
    typed: Vec<(ContentDigest, Arc<Bundle>)>,
    lost: Option<Life>,
    life: Option<Life>,
    evidence: BTreeMap<MemberId, Arc<Equivocation>>,
    commits: Vec<Certificate>,
}

impl OrderMemory {
    /// Replays the log.
    pub(super) fn restore(self, config: &Config, me: &BftIdentity) -> Result<Restored, String> {
        let group = me.founders.order_id(&me.salt);
        let of_snapshot = self.snapshot.as_ref().map(|it| it.certificate.clone());
        let ledger = match &self.snapshot {
            Some(snapshot) => Ledger::restore(snapshot),
            None => Ledger::founded(&group, Arc::clone(&me.founders)),
        };
        let mut chain = Chain::new(ledger);
        let mut replay = Replay::default();
        for record in self.records {
            replay.take(record, (&group, me), &mut chain, config)?;
        }
        let settled = chain.settled();
        let (epoch, last) = (settled.epoch, settled.tip.slot);
        let promised = replay.promised.filter(|(it, _)| *it >= epoch);
        let own: Vec<_> =
            of_snapshot.iter().chain(&replay.prepared).chain(&replay.commits).collect();
        let is_provable = |it: &&&Certificate| {
            let subject = it.subject;
            subject.epoch == epoch
                && (subject.slot <= last
                    || matches!(chain.path(subject.slot, subject.digest), Path::Whole(_)))
        };
        let claims = own.iter().filter(is_provable);
        let claim = claims.max_by_key(|it| Claim::of(it).rank()).map(|it| (**it).clone());
        let claim = claim.filter(|_| epoch == replay.promised.map_or(epoch, |it| it.0));
        // Slots are prepared in any order.
        let subjects = replay.prepared.iter().map(|it| it.subject);
        let newest = subjects.max_by_key(|it| (it.epoch, it.view, it.slot));
        // A loss is over once the committee names the life that was drawn after it.
        let renewed = settled.committee.voter(me.id).map(|it| it.life.number);
        let life = replay.life.filter(|it| replay.lost.is_some() && renewed != Some(it.number));
        let known = (replay.promised, newest, last);
        let mut recall = Recall::restored(known, life, self.is_lost);
        for certificate in &replay.commits {
            recall.hear_certificate(certificate);
        }
        let marks = &settled.marks;
        replay.typed.retain(|(_, it)| marks.last(it.origin()).is_some_and(|last| it.last() > last));
        let on_disk: BTreeSet<(SlotNo, ContentDigest)> = replay
            .contents
            .iter()
            .map(|(digest, it)| (it.header.slot, *digest))
            .filter(|(slot, _)| *slot > last)
            .collect();
        let disk = match replay.has_group {
            true => DiskState::restored(replay.promised, on_disk),
            false => DiskState::default(),
        };
        Ok(Restored {
            claim,
            disk,
            view: promised.map_or(ViewNo(0), |(_, view)| view),
            typed: replay.typed,
            recall,
            evidence: replay.evidence,
            is_new: promised.is_none(),
            chain,
        })
    }
}

impl Replay {
    fn take(
        &mut self,
        record: Record,
        (group, me): (&OrderId, &BftIdentity),
        chain: &mut Chain,
        config: &Config,
    ) -> Result<(), String> {
        match record {
            Record::Group { committee, salt, me: owner } => {
                let found = committee.order_id(&salt);
                if found != *group || owner != me.id {
                    return Err(format!(
                        "the log is of {owner} in group {found}, not of {} in {group}: start it \
                         with the roster and id that it was written with, or with another log \
                         folder",
                        me.id
                    ));
                }
                self.has_group = true;
            }
            Record::View { epoch, view } => self.promised = Some((epoch, view)),
            Record::Typed(bundle) => {
                self.typed.push((bundle.statement().digest(group), bundle));
            }
            Record::Slot(content) => {
                let digest = config.digest_of(group, &content.header);
                if content.header.slot > chain.settled().tip.slot {
                    chain.keep(digest, Arc::clone(&content));
                    self.contents.insert(digest, content);
                }
            }
            Record::Prepared(certificate) => self.prepared.push(certificate),
            Record::Final(certificate) => {
                self.settle(&certificate, chain, group, config)?;
                self.commits.push(certificate);
                // Only the newest are asked for again.
                let old = self.commits.len().saturating_sub(64);
                self.commits.drain(..old);
            }
            Record::Hole { life } => self.lost = Some(life),
            Record::Life { life } => self.life = Some(life),
            Record::Evidence(it) => _ = self.evidence.insert(it.member(), it),
        }
        let old = self.prepared.len().saturating_sub(256);
        self.prepared.drain(..old);
        Ok(())
    }

    /// Makes the slots up to a certificate's final again.
    fn settle(
        &mut self,
        certificate: &Certificate,
        chain: &mut Chain,
        group: &OrderId,
        config: &Config,
    ) -> Result<(), String> {
        let subject = certificate.subject;
        if subject.slot <= chain.settled().tip.slot || certificate.phase != VotePhase::Commit {
            return Ok(());
        }
        let wrong = || {
            format!(
                "the log's content of slot {} does not lead to its certificate; use the option \
                 --restored with an empty log folder",
                subject.slot.0
            )
        };
        let Path::Whole(headers) = chain.path(subject.slot, subject.digest) else {
            return Err(wrong());
        };
        for header in headers {
            let digest = config.digest_of(group, &header);
            let content = chain.content(&digest).cloned().ok_or_else(wrong)?;
            let placed = chain
                .settled()
                .check(group, &header, body_of(&content), config)
                .ok_or_else(wrong)?;
            chain.accept(placed);
            let own = (digest == subject.digest).then(|| certificate.clone());
            chain.settle(own, config.window_slots);
        }
        let last = chain.settled().tip.slot;
        self.contents.retain(|_, it| it.header.slot > last);
        if chain.window().back().is_some_and(|it| it.content.change.is_some()) {
            // Another epoch: what was promised and prepared before says nothing in it.
            self.prepared.clear();
            self.commits.clear();
        }
        Ok(())
    }
}
