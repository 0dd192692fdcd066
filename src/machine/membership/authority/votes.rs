//! Changes that this seed writes down: its votes (M2), and verified changes of the registry (M3),
//! of which it then tells all seeds and members concerned.

use std::sync::Arc;

use super::{Authority, Event, Fx, Record};
use crate::machine::LinkId;
use crate::machine::membership::registry::Merged;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{MemberInstance, ProposalKind, Removal, Vote};
use crate::model::{Endpoint, Now};
use crate::proto::message::Message;

/// A yes that this seed has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CastVote {
    /// Kind of the proposal.
    pub(super) kind: ProposalKind,
    /// Lives that the vote covers, ascending.
    pub(super) lives: Vec<MemberInstance>,
    /// The signed vote.
    pub(super) vote: Vote,
}

impl Authority {
    /// Merges a verified admission or goodbye, persists it, and tells all seeds
    /// and members concerned.
    pub(super) fn apply(
        &mut self,
        now: Now,
        entry: RegistryEntry,
        from: Option<LinkId>,
        fx: &mut Fx,
    ) -> Merged {
        let merged = self.registry.merge(entry.clone());
        if merged == Merged::Nothing {
            return merged;
        }
        let subject = entry.subject;
        fx.persist(Record::Entry { entry: Box::new(entry.clone()) });
        match merged {
            Merged::Nothing | Merged::Detail => {}
            Merged::Alive => {
                self.member_came(now, &subject, fx);
                if let Some(admission) = entry.admission {
                    fx.emit(Event::Admitted(Box::new(admission)));
                }
                if self.registry.is_banned(&subject) {
                    self.evict_banned(now, fx);
                }
            }
            Merged::Ended => {
                if let Some(leave) = entry.leave {
                    self.send_to_all(&leave.into(), from, fx);
                    fx.emit(Event::Left(leave));
                }
                self.member_went(&subject, fx);
            }
        }
        merged
    }

    /// Merges, persists and tells a verified removal. Returns whether it was anything new.
    pub(super) fn apply_removal(
        &mut self,
        removal: &Arc<Removal>,
        from: Option<LinkId>,
        fx: &mut Fx,
    ) -> bool {
        let (news, lives) = self.registry.merge_removal(removal);
        if news {
            fx.persist(Record::Removed { removal: Arc::clone(removal) });
        }
        if lives.is_empty() {
            return news;
        }
        // Sent while the members' own links still count as such: a removed member must learn of it,
        // to begin a new life (M8).
        self.send_to_all(&Removal::clone(removal).into(), from, fx);
        for subject in &lives {
            self.member_went(subject, fx);
        }
        fx.emit(Event::Removed { removal: Arc::clone(removal), lives });
        true
    }

    pub(super) fn member_came(&mut self, now: Now, subject: &MemberInstance, fx: &mut Fx) {
        // Open removals of an earlier life of this endpoint are settled.
        let settled: Vec<_> = self
            .removals
            .keys()
            .filter(|other| other.endpoint == subject.endpoint && *other != subject)
            .copied()
            .collect();
        for other in settled {
            self.close_removal(&other, fx);
        }
        self.lists.remove(&subject.endpoint);
        self.member_links.remove(&subject.endpoint);
        self.unlinked.insert(subject.endpoint, now.mono);
        self.seek_twin(subject, fx);
    }

    /// Makes `link` the one by which the member is told and asked from now on.
    pub(super) fn linked(&mut self, endpoint: Endpoint, link: LinkId) {
        self.member_links.insert(endpoint, link);
        self.unlinked.remove(&endpoint);
        self.lost.remove(&endpoint);
    }

    pub(super) fn member_went(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        self.close_removal(subject, fx);
        self.lists.remove(&subject.endpoint);
        self.unlinked.remove(&subject.endpoint);
        self.lost.remove(&subject.endpoint);
        self.twins.went(subject);
        self.spent.retain(|(other, _), _| other != subject);
        if let Some(link) = self.member_links.remove(&subject.endpoint) {
            fx.emit(Event::Standing { link, member: false });
        }
        self.overlay_changed = true;
    }

    /// Sends a proof to all linked seeds and members except the one that sent it.
    pub(super) fn send_to_all(&self, msg: &Message, from: Option<LinkId>, fx: &mut Fx) {
        for link in self.seed_links.values().chain(self.member_links.values()) {
            if Some(*link) != from {
                fx.send(*link, msg.clone());
            }
        }
    }

    pub(super) fn send_to_seeds(&self, msg: &Message, from: Option<LinkId>, fx: &mut Fx) {
        for link in self.seed_links.values() {
            if Some(*link) != from {
                fx.send(*link, msg.clone());
            }
        }
    }

    /// Signs this seed's yes to one admission, or to removals that are ripe together. None of the
    /// lives may have it already (M2).
    pub(super) fn vote(
        &mut self,
        now: Now,
        kind: ProposalKind,
        lives: Vec<MemberInstance>,
        fx: &mut Fx,
    ) -> Arc<CastVote> {
        debug_assert!(lives.iter().all(|life| self.vote_given(kind, life).is_none()), "M2");
        let vote = Vote::sign(kind, &lives, (self.me, &self.keys), now.wall);
        fx.persist(Record::Voted { kind, lives: lives.clone(), vote: vote.clone() });
        self.remember_vote(CastVote { kind, lives, vote })
    }

    /// This seed's yes to `kind` for `subject`'s endpoint and incarnation, if given; perhaps
    /// for another key.
    pub(super) fn vote_given(
        &self,
        kind: ProposalKind,
        subject: &MemberInstance,
    ) -> Option<&Arc<CastVote>> {
        self.cast_votes.get(&(subject.endpoint, subject.incarnation, kind))
    }

    pub(super) fn remember_vote(&mut self, cast_vote: CastVote) -> Arc<CastVote> {
        let cast_vote = Arc::new(cast_vote);
        for life in &cast_vote.lives {
            let what = (life.endpoint, life.incarnation, cast_vote.kind);
            self.cast_votes.insert(what, Arc::clone(&cast_vote));
        }
        cast_vote
    }
}
