//! Memory of a member's own statements: whether its disk has all of them (rule B20).
//!
//! A member whose log was lost or restored may have signed what it does not know. It asks all
//! others at its start, and believes only its own signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt as _;

use super::config::BftRule;
use super::event::{Event, Record, Timer};
use super::replica::{BftReplica, Fx};
use crate::machine::LinkId;
use crate::model::Nonce;
use crate::proto::bft::message::{BftRecallReq, BftRecallResp, Message};
use crate::proto::bft::view::ViewChange;
use crate::proto::bft::{
    Certificate, EpochNo, Life, MembershipChange, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use crate::proto::chat::entry::MemberId;

/// Cost of an answer to a member that asks what it has signed.
const RECALL_COST: u32 = 4;

/// Place of a statement in time.
pub(super) type StatementTime = (EpochNo, ViewNo, SlotNo);

/// Certainty of a member about its own statements.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Certainty {
    /// All that it has signed is on its disk.
    Certain,
    /// Others are asked.
    Asking {
        nonce: Option<Nonce>,
        answered: BTreeSet<MemberId>,
        /// True once others have had the time to answer.
        is_late: bool,
    },
    /// Something is missing: it is silent until it votes in this life.
    Lost {
        life: Life,
        /// True if the life was drawn before the start: the log may be a copy, and another process
        /// may have voted in it.
        is_of_log: bool,
    },
}

impl Certainty {
    const fn asking(nonce: Option<Nonce>) -> Self {
        Self::Asking { nonce, answered: BTreeSet::new(), is_late: false }
    }
}

/// Newest statements of another member, for when it asks.
#[derive(Clone, Debug, Default)]
struct Heard {
    /// Newest COMMIT that came by its own link; its signature may be bad.
    commit: Option<PhaseVote>,
    /// Newest COMMIT with a verified signature.
    verified: Option<PhaseVote>,
    change: Option<Arc<ViewChange>>,
}

/// Memory of a member's own statements, and of others' for them.
#[derive(Debug)]
pub(super) struct Recall {
    certainty: Certainty,
    /// Newest statements that the log has.
    promised: Option<(EpochNo, ViewNo)>,
    committed: Option<VoteSubject>,
    /// Last slot that is final in the log: it needs no other record of what was committed up to it.
    settled: SlotNo,
    /// Reason why the log is not all, if it is known before anybody is asked.
    is_lost: Option<String>,
    heard: BTreeMap<MemberId, Heard>,
    /// Slot from which on this member can be renewed, as it was reported last.
    told: Option<SlotNo>,
}

impl Recall {
    /// The memory of a log: newest view promised, newest slot committed and last final slot, life
    /// in which the member is to vote again, and the reason if the log is known not to be all.
    pub(super) fn restored(
        (promised, committed, settled): (Option<(EpochNo, ViewNo)>, Option<VoteSubject>, SlotNo),
        life: Option<Life>,
        is_lost: Option<String>,
    ) -> Self {
        let asking = Certainty::asking(None);
        let certainty = life.map_or(asking, |life| Certainty::Lost { life, is_of_log: true });
        let heard = BTreeMap::new();
        Self { certainty, promised, committed, settled, is_lost, heard, told: None }
    }

    /// True if the member may vote.
    pub(super) const fn is_certain(&self) -> bool {
        matches!(self.certainty, Certainty::Certain)
    }

    /// Life in which the member is to vote again, if it has lost something.
    pub(super) const fn lost(&self) -> Option<Life> {
        match self.certainty {
            Certainty::Lost { life, .. } => Some(life),
            Certainty::Certain | Certainty::Asking { .. } => None,
        }
    }

    /// True if a COMMIT is newer than what is remembered of its member.
    pub(super) fn is_newest_commit(&self, vote: &PhaseVote) -> bool {
        let known = self.commit_of(vote.sender_id);
        known.is_none_or(|it| time_of(&it.subject) < time_of(&vote.subject))
    }

    /// Remembers a COMMIT of another member, which came by its own link, and whether its signature
    /// is verified. One that is not replaces none that is: a liar must not make others forget.
    pub(super) fn hear_commit(&mut self, vote: PhaseVote, is_verified: bool) {
        let heard = self.heard.entry(vote.sender_id).or_default();
        let is_newer = |it: &Option<PhaseVote>| {
            it.is_none_or(|it| time_of(&it.subject) < time_of(&vote.subject))
        };
        if is_newer(&heard.commit) {
            heard.commit = Some(vote);
        }
        if is_verified && is_newer(&heard.verified) {
            heard.verified = Some(vote);
        }
    }

    /// Remembers a claim of another member.
    pub(super) fn hear_change(&mut self, change: &Arc<ViewChange>) {
        let heard = self.heard.entry(change.signed.sender_id).or_default();
        let is_newer = |it: &Arc<ViewChange>| (it.epoch, it.view) < (change.epoch, change.view);
        if heard.change.as_ref().is_none_or(is_newer) {
            heard.change = Some(Arc::clone(change));
        }
    }

    /// Remembers the COMMITs in a certificate that is verified.
    pub(super) fn hear_certificate(&mut self, certificate: &Certificate) {
        let subject = certificate.subject;
        for (sender_id, signature) in &certificate.signatures {
            let vote = PhaseVote { sender_id: *sender_id, subject, signature: *signature };
            self.hear_commit(vote, true);
        }
    }

    /// Newest COMMIT of another member that was heard; its signature may be bad.
    fn commit_of(&self, member: MemberId) -> Option<PhaseVote> {
        self.heard.get(&member)?.commit
    }

    /// Newest COMMITs of another member: the one that was heard, which may have a bad signature,
    /// and the one that is verified.
    pub(super) fn commits_of(&self, member: MemberId) -> Vec<PhaseVote> {
        let heard = self.heard.get(&member);
        heard.map(|it| it.commit.into_iter().chain(it.verified).collect()).unwrap_or_default()
    }
}

/// Place of a vote in time.
const fn time_of(subject: &VoteSubject) -> StatementTime {
    (subject.epoch, subject.view, subject.slot)
}

impl BftReplica {
    /// Begins to ask what this member has signed.
    pub(super) fn begin_recall(&mut self, fx: &mut Fx) {
        // A copy of a log that was silent may be older than its renewal: it needs another life.
        if let Some(reason) = self.recall.is_lost.take() {
            return self.lose(&reason, fx);
        }
        if let Some(life) = self.recall.lost() {
            let reason = format!("it votes again in its life {:016x}", life.number);
            fx.emit(Event::Hole { reason });
        }
        if self.recall.lost().is_none() && !self.config.keeps(BftRule::Memory) {
            self.recall.certainty = Certainty::Certain;
        }
        if matches!(self.recall.certainty, Certainty::Asking { .. }) {
            self.ask_all(fx);
        }
    }

    /// Asks all members in reach, and later those that come within reach.
    fn ask_all(&mut self, fx: &mut Fx) {
        self.recall.certainty = Certainty::asking(Some(Nonce::random(&mut self.rng)));
        fx.set_timer(Timer::Recall, self.config.recall);
        self.repeat_recall(fx);
        self.check_recall(fx);
    }

    /// Asks a member that has come within reach.
    pub(super) fn ask_recall(&self, link: LinkId, fx: &mut Fx) {
        if let Certainty::Asking { nonce: Some(nonce), .. } = &self.recall.certainty {
            fx.send(link, Message::RecallReq(BftRecallReq { nonce: *nonce }));
        }
    }

    /// Asks again who has not answered: a newcomer is answered only once the other knows that it is
    /// a member.
    pub(super) fn repeat_recall(&self, fx: &mut Fx) {
        let Certainty::Asking { nonce: Some(nonce), answered, .. } = &self.recall.certainty else {
            return;
        };
        for (_, link) in self.links.members().filter(|(member, _)| !answered.contains(member)) {
            fx.send(link, Message::RecallReq(BftRecallReq { nonce: *nonce }));
        }
    }

    /// Tells a member what it has signed.
    pub(super) fn on_recall_req(
        &mut self,
        (link, member): (LinkId, MemberId),
        request: BftRecallReq,
        fx: &mut Fx,
    ) {
        if !self.links.pay(link, RECALL_COST) {
            return self.dropped("a request beyond the sender's share", fx);
        }
        let Heard { commit, verified, change } =
            self.recall.heard.get(&member).cloned().unwrap_or_default();
        let key = self.committee().key(member);
        let is_true = |it: &PhaseVote| {
            key.is_some_and(|key| it.is_valid(&self.group, VotePhase::Commit, key))
        };
        let commit = commit.filter(|it| verified == Some(*it) || is_true(it)).or(verified);
        let nonce = request.nonce;
        fx.send(link, Message::RecallResp(BftRecallResp { nonce, commit, change }));
    }

    /// Takes an answer; only this member's own signatures count.
    pub(super) fn on_recall_resp(&mut self, member: MemberId, answer: BftRecallResp, fx: &mut Fx) {
        let Certainty::Asking { nonce, answered, .. } = &mut self.recall.certainty else { return };
        if *nonce != Some(answer.nonce) {
            return;
        }
        let me = self.me.id;
        let key = self.me.keys.public();
        let commit = answer
            .commit
            .filter(|it| it.sender_id == me && it.is_valid(&self.group, VotePhase::Commit, &key));
        let change = answer.change.filter(|it| {
            let ViewChange { epoch, view, signed, .. } = &**it;
            signed.sender_id == me && signed.is_valid(&self.group, (*epoch, *view), &key)
        });
        let (promised, settled) = (self.recall.promised, self.recall.settled);
        let is_forgotten = commit.is_some_and(|it| {
            let view = (it.subject.epoch, it.subject.view);
            let committed = self.recall.committed.filter(|known| (known.epoch, known.view) == view);
            promised.is_none_or(|known| view > known)
                || promised == Some(view)
                    && it.subject.slot > settled
                    && committed.is_none_or(|known| it.subject.slot > known.slot)
        });
        let is_forgotten = is_forgotten
            || change.is_some_and(|it| promised.is_none_or(|known| (it.epoch, it.view) > known));
        if is_forgotten {
            let reason = format!("{member} has a newer statement of this member than its log");
            return self.lose(&reason, fx);
        }
        answered.insert(member);
        self.check_recall(fx);
    }

    pub(super) fn on_recall_timer(&mut self, fx: &mut Fx) {
        if let Certainty::Asking { is_late, .. } = &mut self.recall.certainty {
            *is_late = true;
            self.check_recall(fx);
        }
    }

    /// Ends the asking once enough members have answered.
    fn check_recall(&mut self, fx: &mut Fx) {
        let committee = self.committee();
        let others = committee.len() - usize::from(self.is_member());
        let enough = others.saturating_sub(committee.liars_borne());
        let Certainty::Asking { answered, is_late, .. } = &self.recall.certainty else { return };
        let answers = answered.iter().filter(|it| committee.key(**it).is_some()).count();
        if answers >= others || *is_late && answers >= enough {
            self.recall.certainty = Certainty::Certain;
            fx.stop_timer(Timer::Recall);
            self.on_certain(fx);
        }
    }

    /// Does what had to wait until this member may vote.
    fn on_certain(&mut self, fx: &mut Fx) {
        if self.views.is_active() {
            self.accept_proposals(fx);
            self.vote_for_accepted(fx);
        } else {
            self.claim_view(fx);
        }
    }

    /// Notes on disk that statements are missing, and falls silent.
    fn lose(&mut self, reason: &str, fx: &mut Fx) {
        let voter = self.committee().voter(self.me.id);
        let lost = voter.map(|it| it.life).unwrap_or_default();
        let number = match self.config.keeps(BftRule::FreshLife) {
            true => self.rng.random(),
            false => 1,
        };
        let life = Life { counter: lost.counter + 1, number };
        if self.config.keeps(BftRule::Hole) {
            self.disk.write(Record::Hole { life: lost }, fx);
            self.disk.write(Record::Life { life }, fx);
        }
        self.recall.certainty = Certainty::Lost { life, is_of_log: false };
        fx.stop_timer(Timer::Recall);
        fx.emit(Event::Hole { reason: reason.to_owned() });
        self.tell_progress(fx);
        self.report_reach(fx);
    }

    /// Orders the new life, if this member has lost something.
    pub(super) fn renew(&mut self, fx: &mut Fx) {
        let Some(life) = self.recall.lost() else { return };
        let Some(voter) = self.committee().voter(self.me.id) else { return };
        let life = Life { counter: voter.life.counter + 1, ..life };
        let change = MembershipChange::renew(&self.group, self.me.id, life, &self.me.keys);
        self.send_all(Message::Change(Arc::new(change)), fx);
        self.mind_leader(fx);
        self.report_pause(fx);
    }

    /// The slot from which on this member can be renewed, if that is not the next one.
    fn renewable_later(&self) -> Option<SlotNo> {
        self.recall.lost()?;
        let from = self.committee().renewable_from(self.committee().voter(self.me.id)?);
        (from > self.chain.settled().tip.slot.next()).then_some(from)
    }

    /// Reason why this member cannot be renewed yet, for people.
    pub(super) fn pause_of_renewal(&self) -> Option<String> {
        let from = self.renewable_later()?.0;
        let now = self.chain.settled().tip.slot.0;
        let missing = from.saturating_sub(now + 1);
        let entries = if missing == 1 { "1 more slot" } else { &format!("{missing} more slots") };
        Some(format!(
            "it was renewed a short while ago, and can be again in slot {from}; the order is at \
             slot {now}: {entries} are needed, and each peer order append that becomes final \
             is one"
        ))
    }

    /// Reports once that the renewal has to wait, when nobody in reach knows of later slots.
    fn report_pause(&mut self, fx: &mut Fx) {
        let now = self.chain.settled().tip.slot;
        let slots: Vec<_> = self.links.slots().collect();
        let from = self.renewable_later();
        // Liars say what they like.
        let ahead = slots.iter().filter(|it| **it > now).count();
        let is_behind = slots.is_empty() || ahead > self.committee().liars_borne();
        if is_behind || from == self.recall.told {
            return;
        }
        self.recall.told = from;
        if let Some(reason) = self.pause_of_renewal() {
            fx.emit(Event::Hole { reason });
        }
    }

    /// Votes again once the committee names the new life.
    pub(super) fn check_life(&mut self, fx: &mut Fx) {
        let Certainty::Lost { life, is_of_log } = self.recall.certainty else { return };
        let voter = self.committee().voter(self.me.id);
        if !voter.is_some_and(|it| it.life.number == life.number && it.life.counter > 0) {
            return;
        }
        if is_of_log && self.config.keeps(BftRule::Memory) {
            // What was signed in earlier epochs binds nobody any more.
            self.recall.promised = self.recall.promised.max(Some((self.epoch(), ViewNo(0))));
            self.ask_all(fx);
        } else {
            self.recall.certainty = Certainty::Certain;
            self.on_certain(fx);
        }
        self.tell_progress(fx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Signature;
    use crate::proto::bft::{ContentDigest, SlotNo};

    #[test]
    fn a_commit_that_is_not_verified_makes_nobody_forget_one_that_is() {
        let mut recall = Recall::restored((None, None, SlotNo(0)), None, None);
        let vote = |slot| PhaseVote {
            sender_id: MemberId(2),
            subject: VoteSubject {
                epoch: EpochNo(0),
                view: ViewNo(1),
                slot: SlotNo(slot),
                digest: ContentDigest([1; 32]),
            },
            signature: Signature::from_bytes([slot as u8; 64]),
        };
        recall.hear_commit(vote(5), true);
        recall.hear_commit(vote(9), false);
        recall.hear_commit(vote(7), false);
        assert_eq!(recall.commits_of(MemberId(2)), [vote(9), vote(5)]);
        recall.hear_commit(vote(8), true);
        assert_eq!(
            recall.commits_of(MemberId(2)),
            [vote(9), vote(8)],
            "a true one that is newer counts"
        );
    }
}
