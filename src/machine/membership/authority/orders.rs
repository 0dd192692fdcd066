//! Orders of operators: evictions and bans, decided by the same quorum as everything else (M1, M2,
//! M3).
//!
//! An operator of one machine speaks for the seed of that machine and for no other. An order makes
//! this seed sign its yes; the other seeds are told, and wait for their own operators. When a
//! quorum has signed, the certificate is like any other. No dial-back and no witness is asked: an
//! eviction does not depend on whether the member lives.
//!
//! A ban holds for an endpoint *and* for the key that it had, so neither a new key at the old
//! address nor the old key at a new address is admitted. Once a ban is certified, every seed votes
//! to evict the members that it names, in any life: the quorum's will needs no second order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Authority, Event, Fx};
use crate::machine::LinkId;
use crate::machine::membership::registry::Merged;
use crate::machine::quorum::{Ballot, Tally};
use crate::machine::session::RejectReason;
use crate::model::entry::RegistryEntry;
use crate::model::statement::{
    Ban, MemberInstance, Proposal, ProposalKind, Removal, RemovalReason, Vote,
};
use crate::model::{Endpoint, Incarnation, Now, SeedId, Time};
use crate::proto::membership::SeedOrderVote;
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Time that an order waits for the operators of other seeds. Long enough to log in to another
/// machine; short enough that a forgotten order does not strike later.
pub const ORDER_TTL: Duration = Duration::from_secs(600);

/// Number of orders of this seed's operator that wait for others at once.
const ORDERS_MAX: usize = 256;

/// Number of orders of one other seed that wait at once with no further vote: a lying seed must not
/// keep the others' orders out.
const ORDERS_ALONE_MAX: usize = 64;

/// Number of endpoints that can be banned, those whose ban was lifted included.
pub const BANS_MAX: usize = 1_024;

/// Order of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorOrder {
    /// End this member's life; a member that lives may register again.
    Evict,
    /// Keep this endpoint and its key out.
    Ban,
    /// Admit the endpoint and its key again.
    Unban,
}

/// State of an order, for the operator who gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderState {
    /// True if the order is carried out.
    pub done: bool,
    /// Seeds that have voted for the order so far.
    pub seeds: Vec<SeedId>,
    /// Number of seeds needed.
    pub needed: usize,
}

/// An order that waits for more seeds.
#[derive(Debug)]
pub(super) struct OpenOrder {
    ballot: Ballot,
    votes: BTreeMap<SeedId, Vote>,
    since: Time,
}

impl Authority {
    /// Returns the proposal that `order` about `endpoint` means in the registry's present state
    /// (M1: the same at every seed whose registry is equal).
    ///
    /// # Errors
    /// The reason in words, when the order means nothing.
    pub fn meaning(&self, order: OperatorOrder, endpoint: Endpoint) -> Result<Proposal, String> {
        let held = self.registry.get(endpoint).map(|entry| entry.subject);
        let ban = self.registry.ban(endpoint);
        match order {
            OperatorOrder::Evict => {
                let alive = self.registry.alive_at(endpoint).map(|entry| entry.subject);
                let subject = alive.ok_or_else(|| format!("{endpoint} is no member"))?;
                Ok(Proposal { kind: ProposalKind::Evict, subject })
            }
            OperatorOrder::Ban => {
                if ban.is_some_and(Ban::is_in_force) {
                    return Err(format!("{endpoint} is banned already"));
                }
                let Some(held) = held else {
                    return Err(format!(
                        "nothing is known of {endpoint}; who was never a member \
                                        cannot be banned"
                    ));
                };
                if ban.is_none() && self.registry.bans().count() >= BANS_MAX {
                    return Err(format!(
                        "{BANS_MAX} endpoints have been banned, which is the limit"
                    ));
                }
                let number = Incarnation(next_number(ban)?);
                let subject = MemberInstance { incarnation: number, ..held };
                Ok(Proposal { kind: ProposalKind::Ban, subject: self.ban_to_join(subject) })
            }
            OperatorOrder::Unban => {
                let ban = ban.filter(|ban| ban.is_in_force());
                let ban = ban.ok_or_else(|| format!("{endpoint} is not banned"))?;
                let (number, key) = (Incarnation(next_number(Some(ban))?), ban.key);
                let subject = MemberInstance { endpoint, incarnation: number, key };
                Ok(Proposal { kind: ProposalKind::Ban, subject })
            }
        }
    }

    /// The ban of the same endpoint under the same number that this seed has voted for, or that
    /// others want; else `own`. A member that changes its key between two operators' orders must
    /// not make them vote for two bans.
    fn ban_to_join(&self, own: MemberInstance) -> MemberInstance {
        if let Some(cast_vote) = self.vote_given(ProposalKind::Ban, &own) {
            return cast_vote.lives.first().copied().unwrap_or(own);
        }
        // Only with a key that was seen there, and that bars no member elsewhere.
        let was_there = |it: &MemberInstance| {
            self.registry.past(it.endpoint).iter().any(|entry| entry.subject.key == it.key)
        };
        let is_elsewhere = |it: &MemberInstance| {
            let mut alive = self.registry.alive().map(|entry| entry.subject);
            alive.any(|other| other.key == it.key && other.endpoint != it.endpoint)
        };
        let is_same = |it: &&Proposal| {
            let MemberInstance { endpoint, incarnation, .. } = it.subject;
            it.kind == ProposalKind::Ban
                && (endpoint, incarnation) == (own.endpoint, own.incarnation)
        };
        let mut wanted = self.orders.keys().filter(is_same).map(|it| it.subject);
        wanted.find(|it| it.key == own.key || (was_there(it) && !is_elsewhere(it))).unwrap_or(own)
    }

    /// Takes an order of this seed's operator.
    ///
    /// The order names the proposal and not the endpoint: an order that comes late must not strike
    /// a life that began meanwhile.
    pub fn on_order(&mut self, now: Now, proposal: Proposal, fx: &mut Fx) {
        let orders = [OperatorOrder::Evict, OperatorOrder::Ban, OperatorOrder::Unban];
        let endpoint = proposal.subject.endpoint;
        let has_meaning = |order| self.meaning(order, endpoint) == Ok(proposal);
        if self.ready && orders.into_iter().any(has_meaning) {
            self.want(now, proposal, "this seed's operator wants it", fx);
        }
    }

    /// State of the order that means this proposal.
    ///
    /// # Errors
    /// The reason in words, when the order can no longer be carried out.
    pub fn order_state(&self, proposal: &Proposal) -> Result<OrderState, String> {
        let subject = &proposal.subject;
        let (endpoint, needed) = (subject.endpoint, self.book.quorum());
        let decided = |done, votes: &[Vote]| {
            let seeds = votes.iter().map(|vote| vote.seed).collect();
            Ok(OrderState { done, seeds, needed })
        };
        if self.is_moot(proposal) {
            let eviction = |entry: &RegistryEntry| {
                let removal = entry.removal.clone().filter(|_| entry.subject == *subject);
                removal.filter(|removal| removal.because == RemovalReason::Eviction)
            };
            let mut lives = self.registry.past(endpoint).iter().chain(self.registry.get(endpoint));
            return match (proposal.kind, lives.find_map(eviction)) {
                // A ban is done when no living member is left that it names.
                (ProposalKind::Ban, _) => {
                    let votes = self.registry.ban(endpoint).map_or(&[][..], |ban| &ban.votes);
                    let is_named = |it: &RegistryEntry| self.registry.is_banned(&it.subject);
                    decided(!self.registry.alive().any(is_named), votes)
                }
                (ProposalKind::Evict, Some(removal)) => decided(true, &removal.votes),
                (ProposalKind::Evict | ProposalKind::Admit | ProposalKind::Remove, _) => {
                    Err(format!("{endpoint} has gone by itself, or was removed as dead"))
                }
            };
        }
        if !self.ready {
            return Err("this seed is catching up with the others first".to_owned());
        }
        let seeds =
            self.orders.get(proposal).map(|open_case| open_case.votes.keys().copied().collect());
        Ok(OrderState { done: false, seeds: seeds.unwrap_or_default(), needed })
    }

    /// Takes the order of another seed's operator. It must come from that seed itself.
    pub fn on_seed_order_vote(&mut self, now: Now, link: LinkId, said: SeedOrderVote, fx: &mut Fx) {
        let Some(voter) = self.seed_of(link) else {
            return self.refuse(link, RejectReason::Forged, "a vote that comes from no seed", fx);
        };
        let (proposal, subject) = (said.proposal(), said.subject());
        let is_order = matches!(said.kind, ProposalKind::Evict | ProposalKind::Ban);
        let key = self.book.key(voter);
        if !is_order || !key.is_some_and(|key| said.vote().is_valid(said.kind, &[subject], &key)) {
            return self.refuse(
                link,
                RejectReason::Forged,
                "the vote's signature does not hold",
                fx,
            );
        }
        if self.is_moot(&proposal) {
            return self.send_outcome(link, &proposal, fx);
        }
        self.count_order_vote(now, proposal, (voter, said.vote()), fx);
        if said.kind == ProposalKind::Evict && self.registry.is_banned(&subject) {
            self.want(now, proposal, "it is banned", fx);
        }
    }

    /// Takes the certificate of a ban, or of its lifting.
    pub fn on_seed_ban_commit(&mut self, now: Now, link: LinkId, ban: Ban, fx: &mut Fx) {
        if let Err(error) = self.book.verify_ban(&ban) {
            return self.refuse(link, error.cause(), format!("no certificate: {error}"), fx);
        }
        self.apply_ban(now, ban, Some(link), fx);
    }

    /// Evicts the living members that are banned; called when a member comes or is banned.
    pub(super) fn evict_banned(&mut self, now: Now, fx: &mut Fx) {
        let banned = self.registry.alive().map(|entry| entry.subject);
        let banned: Vec<_> = banned.filter(|subject| self.registry.is_banned(subject)).collect();
        for subject in banned {
            let proposal = Proposal { kind: ProposalKind::Evict, subject };
            self.want(now, proposal, "it is banned", fx);
        }
    }

    /// Forgets the orders that have waited too long for other seeds' votes.
    pub(super) fn forget_old_orders(&mut self, now: Now, fx: &mut Fx) {
        let is_old = |open_case: &OpenOrder| now.mono.since(open_case.since) >= ORDER_TTL;
        let old = self.orders.iter().filter(|(_, open_case)| is_old(open_case));
        for proposal in old.map(|(proposal, _)| *proposal).collect::<Vec<_>>() {
            let Some(open_case) = self.orders.remove(&proposal) else { continue };
            let (count, needed) = (open_case.ballot.yes(), open_case.ballot.needed());
            let reason = format!("{count} of {needed} needed operators wanted it in time");
            fx.emit(Event::Aborted { proposal, reason });
        }
    }

    /// Repeats this seed's orders to a seed whose link came up.
    pub(super) fn repeat_orders(&self, link: LinkId, fx: &mut Fx) {
        for (proposal, open_case) in &self.orders {
            if let Some(vote) = open_case.votes.get(&self.me) {
                fx.send(link, order_vote(proposal, vote));
            }
        }
    }

    /// Gives this seed's yes to a proposal, unless its vote went to another key.
    fn want(&mut self, now: Now, proposal: Proposal, because: &str, fx: &mut Fx) {
        let Proposal { kind, subject } = proposal;
        let cast_vote = match self.vote_given(kind, &subject).cloned() {
            Some(cast_vote) if cast_vote.lives.contains(&subject) => cast_vote,
            Some(_) => return, // To another key of this life: never twice (M2).
            None => self.vote(now, kind, vec![subject], fx),
        };
        if self.is_moot(&proposal) || !self.open_order(now, (proposal, self.me), because, fx) {
            return;
        }
        let said = order_vote(&proposal, &cast_vote.vote);
        self.send_to_seeds(&said.into(), None, fx);
        self.count_order_vote(now, proposal, (self.me, cast_vote.vote.clone()), fx);
    }

    /// True if a proposal has been decided, or overtaken by another decision.
    fn is_moot(&self, proposal: &Proposal) -> bool {
        let subject = &proposal.subject;
        match proposal.kind {
            ProposalKind::Ban => {
                let ban = self.registry.ban(subject.endpoint);
                ban.is_some_and(|ban| ban.number >= subject.incarnation.0)
            }
            ProposalKind::Evict | ProposalKind::Admit | ProposalKind::Remove => {
                !self.registry.is_alive(subject)
            }
        }
    }

    /// Sends the certificate to a seed that still votes for a decided proposal.
    fn send_outcome(&self, link: LinkId, proposal: &Proposal, fx: &mut Fx) {
        let endpoint = proposal.subject.endpoint;
        if proposal.kind == ProposalKind::Ban {
            if let Some(ban) = self.registry.ban(endpoint) {
                fx.send(link, ban.clone());
            }
        } else if let Some(entry) = self.registry.get(endpoint)
            && let Some(removal) = &entry.removal
        {
            fx.send(link, Removal::clone(removal));
        }
    }

    /// True if a case is open for the proposal that the seed `by` wants; opens one
    /// within its limit.
    fn open_order(
        &mut self,
        now: Now,
        (proposal, by): (Proposal, SeedId),
        because: &str,
        fx: &mut Fx,
    ) -> bool {
        if self.orders.contains_key(&proposal) {
            return true;
        }
        let most = if by == self.me { ORDERS_MAX } else { ORDERS_ALONE_MAX };
        let is_alone = |open_case: &&OpenOrder| {
            open_case.votes.len() == 1 && open_case.votes.contains_key(&by)
        };
        if self.orders.values().filter(is_alone).count() >= most {
            return false;
        }
        let ballot = Ballot::new(self.book.seeds().map(|(id, _)| id), self.book.rule());
        let (needed, because) = (ballot.needed(), because.to_owned());
        fx.emit(Event::Proposed { proposal, needed, because });
        self.orders.insert(proposal, OpenOrder { ballot, votes: BTreeMap::new(), since: now.mono });
        true
    }

    fn count_order_vote(
        &mut self,
        now: Now,
        proposal: Proposal,
        (seed, vote): (SeedId, Vote),
        fx: &mut Fx,
    ) {
        let because = format!("seed {seed}'s operator wants it");
        if !self.open_order(now, (proposal, seed), &because, fx) {
            return;
        }
        let Some(open_case) = self.orders.get_mut(&proposal) else { return };
        if open_case.votes.insert(seed, vote).is_some() {
            return;
        }
        let tally = open_case.ballot.cast(seed, true);
        let (count, needed) = (open_case.ballot.yes(), open_case.ballot.needed());
        fx.emit(Event::Voted { proposal, seed, yes: true, reason: because, count, needed });
        if tally == Tally::Won {
            self.commit_order(now, proposal, fx);
        }
    }

    fn commit_order(&mut self, now: Now, proposal: Proposal, fx: &mut Fx) {
        let Some(open_case) = self.orders.remove(&proposal) else { return };
        let votes = open_case.votes.into_values().collect();
        let MemberInstance { endpoint, incarnation, key } = proposal.subject;
        if proposal.kind == ProposalKind::Ban {
            self.apply_ban(now, Ban { endpoint, key, number: incarnation.0, votes }, None, fx);
        } else {
            let (because, lives) = (RemovalReason::Eviction, vec![proposal.subject]);
            let removal = Removal { because, lives, votes, confirmations: Vec::new() };
            self.apply_removal(&removal.into(), None, fx);
        }
    }

    /// Merges a verified ban, persists it, tells the other seeds, and evicts the members it names.
    pub(super) fn apply_ban(
        &mut self,
        now: Now,
        ban: Ban,
        from: Option<LinkId>,
        fx: &mut Fx,
    ) -> bool {
        if self.registry.merge_ban(ban.clone()) == Merged::Nothing {
            return false;
        }
        fx.persist(super::Record::Ban { ban: ban.clone() });
        self.orders.retain(|it, _| {
            it.kind != ProposalKind::Ban
                || it.subject.endpoint != ban.endpoint
                || it.subject.incarnation.0 > ban.number
        });
        self.send_to_seeds(&ban.clone().into(), from, fx);
        fx.emit(Event::Banned(Box::new(ban)));
        self.evict_banned(now, fx);
        true
    }

    /// Objection to an applicant that is banned.
    pub(super) fn ban_objection(
        &self,
        subject: &MemberInstance,
    ) -> Option<(RejectReason, ErrorReply)> {
        self.registry.is_banned(subject).then(|| {
            let reason = format!(
                "{} is banned, or its key is, by the operators of a quorum of seeds; \
                 they can lift it with peer unban",
                subject.endpoint
            );
            (RejectReason::NotAllowed, ErrorReply::new(ErrorCode::Banned, reason))
        })
    }
}

const fn order_vote(proposal: &Proposal, vote: &Vote) -> SeedOrderVote {
    let Proposal { kind, subject: MemberInstance { endpoint, incarnation, key } } = *proposal;
    let Vote { seed, at, signature, .. } = vote;
    SeedOrderVote { kind, endpoint, incarnation, key, seed: *seed, at: *at, signature: *signature }
}

fn next_number(ban: Option<&Ban>) -> Result<u64, String> {
    let next = ban.map_or(0, |ban| ban.number).checked_add(1);
    next.ok_or_else(|| "its bans have run out of numbers".to_owned())
}
