//! A seed's part of the membership: the seed votes, and decides by the votes of a quorum.
//!
//! Invariants:
//! - One yes per (endpoint, incarnation, kind), on disk before it is sent (M2).
//! - The registry changes only by a verified certificate or the leaver's own signature (M3, M7).
//! - A yes to an admission rests on this seed's own dial-back (M5); a yes to a removal on this
//!   seed's own failed probe *and* the signed findings of the suspect's neighbors (M6), unless that
//!   life has ended here already and only the proof is forgotten.
//!
//! The module does not gossip (M11) and knows no sockets; [`admission`], [`removal`], [`sync`] and
//! [`audit`] hold the handlers of one concern each, [`queries`] the answers to questions.

mod admission;
mod audit;
mod config;
mod eligibility;
mod event;
mod orders;
mod pages;
mod queries;
mod removal;
mod sync;
mod twins;
mod verdict;
mod votes;
mod witnesses;

pub use config::Config;
pub use event::{Event, Record, Timer};
pub use orders::{BANS_MAX, ORDER_TTL, OperatorOrder, OrderState};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::votes::CastVote;
use super::registry::Registry;
use super::seedbook::{Learned, SeedBook};
use crate::machine::health::LocalHealth;
use crate::machine::probe::ProbeOutcome;
use crate::machine::session::RejectReason;
use crate::machine::{Effects, LinkId, NodeCall, NodeMessage, PingHost, Vocabulary};
use crate::model::entry::RegistryEntry;
use crate::model::statement::{
    Leave, MemberInstance, NeighborList, Proposal, ProposalKind, Removal,
};
use crate::model::{Endpoint, Incarnation, KeyPair, Now, Rng, SeedId, Time};
use crate::proto::hello::{NodeInfo, SeedKey};
use crate::proto::refusal::ErrorReply;

/// Time that a quorum must be out of reach before its loss is told (M10).
const QUORUM_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two portions of neighbor lists for a seed that has just come; a portion fits a
/// link's queue many times over.
const LISTS_PAUSE: Duration = Duration::from_millis(50);

/// Token bucket of one source address's requests.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Time,
}

/// The membership state of one seed.
#[derive(Debug)]
pub struct Authority {
    config: Config,
    me: SeedId,
    keys: KeyPair,
    rng: Rng,
    book: SeedBook,
    registry: Registry,
    /// This seed's yes votes, by endpoint, incarnation and kind, for each of which M2 allows one.
    cast_votes: BTreeMap<(Endpoint, Incarnation, ProposalKind), Arc<CastVote>>,
    admissions: BTreeMap<MemberInstance, admission::OpenAdmission>,
    removals: BTreeMap<MemberInstance, removal::OpenRemoval>,
    /// Orders of operators that wait for a quorum of seeds.
    orders: BTreeMap<Proposal, orders::OpenOrder>,
    /// Times of the findings that were used up, so that they cannot be replayed (M6).
    spent: BTreeMap<(MemberInstance, Endpoint), crate::model::WallTime>,
    lists: BTreeMap<Endpoint, NeighborList>,
    seed_links: BTreeMap<SeedId, LinkId>,
    member_links: BTreeMap<Endpoint, LinkId>,
    /// Members without a link here, and the time since they are or of their last audit.
    unlinked: BTreeMap<Endpoint, Time>,
    /// Members whose link broke a moment ago, and the time of the break.
    lost: BTreeMap<Endpoint, Time>,
    /// Members that are being probed because they have no link here.
    audits: BTreeSet<Endpoint>,
    compared: BTreeSet<SeedId>,
    /// Seeds that hold entries which only another list of seeds proves; each is told of once.
    foreign: BTreeSet<SeedId>,
    /// Buckets that are being fetched from other seeds, a page at a time.
    syncing: BTreeMap<SeedId, BTreeSet<u8>>,
    /// Seeds that have not got all neighbor lists yet, and the last one sent to each.
    lists_owed: BTreeMap<SeedId, Option<Endpoint>>,
    ready: bool,
    quorum_reached: Option<bool>,
    overlay_changed: bool,
    rates: BTreeMap<IpAddr, Bucket>,
    twins: twins::Twins,
    health: LocalHealth,
    audit_due: Time,
    /// Ended lives that are to be forgotten, and the time since they look old.
    old: BTreeMap<(Endpoint, Incarnation), Time>,
    /// Members that had no neighbor at the last look, and whether that was told.
    isolated: BTreeMap<Endpoint, bool>,
    isolated_due: Time,
}

impl Vocabulary for Authority {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Authority>;

impl Authority {
    /// Creates seed `me`, with the state that its journal remembers.
    ///
    /// With nothing remembered, the seed does not vote before it has compared its registry with
    /// enough others to form a quorum: it may be one that lost its disk.
    pub fn new(
        config: Config,
        (me, keys): (SeedId, KeyPair),
        book: SeedBook,
        records: Vec<Record>,
        rng: Rng,
    ) -> Self {
        let mut this = Self {
            config,
            me,
            keys,
            rng,
            book,
            registry: Registry::default(),
            cast_votes: BTreeMap::new(),
            admissions: BTreeMap::new(),
            removals: BTreeMap::new(),
            orders: BTreeMap::new(),
            spent: BTreeMap::new(),
            lists: BTreeMap::new(),
            seed_links: BTreeMap::new(),
            member_links: BTreeMap::new(),
            unlinked: BTreeMap::new(),
            lost: BTreeMap::new(),
            audits: BTreeSet::new(),
            compared: BTreeSet::new(),
            foreign: BTreeSet::new(),
            syncing: BTreeMap::new(),
            lists_owed: BTreeMap::new(),
            ready: records.contains(&Record::Ready),
            quorum_reached: None,
            overlay_changed: false,
            rates: BTreeMap::new(),
            twins: twins::Twins::default(),
            health: LocalHealth::default(),
            audit_due: Time::ZERO,
            old: BTreeMap::new(),
            isolated: BTreeMap::new(),
            isolated_due: Time::ZERO,
        };
        for record in records {
            match record {
                Record::Voted { kind, lives, vote } => {
                    _ = this.remember_vote(CastVote { kind, lives, vote });
                }
                Record::Entry { entry } => _ = this.registry.merge(*entry),
                Record::Removed { removal } => _ = this.registry.merge_removal(&removal),
                Record::Ban { ban } => _ = this.registry.merge_ban(ban),
                Record::SeedKey(known) => this.book.remember(known),
                Record::Floor { endpoint, incarnation } => {
                    this.registry.raise_floor(endpoint, incarnation);
                }
                Record::Forgot { endpoint, incarnation, kind } => {
                    _ = this.cast_votes.remove(&(endpoint, incarnation, kind));
                }
                Record::Ready => {}
            }
        }
        let own = this.keys.public();
        this.book.learn(me, own);
        for entry in this.registry.alive() {
            _ = this.twins.came(&entry.subject);
        }
        this.unlinked =
            this.registry.alive().map(|entry| (entry.subject.endpoint, Time::ZERO)).collect();
        this
    }

    /// The configured seeds and their keys.
    pub const fn book(&self) -> &SeedBook {
        &self.book
    }

    /// The registry of members.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// True if this seed votes.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Number of seeds in reach, this one included.
    pub fn connected(&self) -> usize {
        self.seed_links.len() + 1
    }

    /// The seeds that are linked.
    pub fn linked_seeds(&self) -> impl Iterator<Item = SeedId> {
        self.seed_links.keys().copied()
    }

    /// Number of members that are linked here.
    pub fn linked_members(&self) -> usize {
        self.member_links.len()
    }

    /// Numbers of the admissions and the removals under way.
    pub fn open_cases(&self) -> (usize, usize) {
        (self.admissions.len(), self.removals.len())
    }

    /// Score of this seed's distrust of itself, 0 to 7 (O4).
    pub const fn health_score(&self) -> u32 {
        self.health.score()
    }

    /// The records that rebuild this state.
    pub fn snapshot(&self) -> Vec<Record> {
        let keys = self.book.known_keys().into_iter().map(Record::SeedKey);
        let mut votes: Vec<&CastVote> =
            self.cast_votes.values().map(|cast_vote| &**cast_vote).collect();
        votes.sort_by_key(|cast_vote| (cast_vote.kind, &cast_vote.lives));
        votes.dedup();
        let votes = votes.into_iter().cloned().map(|cast_vote| {
            let CastVote { kind, lives, vote } = cast_vote;
            Record::Voted { kind, lives, vote }
        });
        let entries = self.registry.entries().flat_map(|entry| {
            let past = self.registry.past(entry.subject.endpoint).iter();
            past.chain([entry]).map(|entry| Record::Entry { entry: Box::new(entry.clone()) })
        });
        let bans = self.registry.bans().map(|ban| Record::Ban { ban: ban.clone() });
        let floors = self.registry.floors();
        let floors = floors.map(|(endpoint, incarnation)| Record::Floor { endpoint, incarnation });
        let ready = self.ready.then_some(Record::Ready);
        keys.chain(votes).chain(floors).chain(entries).chain(bans).chain(ready).collect()
    }

    /// Starts the timers; a seed that is its own quorum becomes ready at once.
    pub fn on_start(&mut self, now: Now, fx: &mut Fx) {
        if self.book.quorum() == 1 && !self.ready {
            self.become_ready(fx);
        }
        self.audit_due = now.mono.after(self.config.audit_interval);
        fx.set_timer(Timer::Audit, self.config.audit_interval);
        fx.set_timer(Timer::Digest, self.config.digest_interval);
        self.check_quorum(fx);
    }

    /// Takes the new link of a node that has proved its key. Returns whether it is a member.
    pub fn on_member_link(&mut self, now: Now, link: LinkId, info: &NodeInfo, fx: &mut Fx) -> bool {
        if let Some(admission) = &info.certificate {
            // A member may bring the proof of an admission that this seed has missed.
            if admission.subject() == info.subject() {
                self.take_admission(now, admission, fx);
            }
        }
        let subject = info.subject();
        self.suspect_came(&subject);
        let is_member = self.registry.is_alive(&subject);
        if is_member {
            self.linked(subject.endpoint, link);
            if !self.removals.contains_key(&subject) {
                let cast_vote = self.vote_given(ProposalKind::Remove, &subject);
                Self::warn(link, &subject, cast_vote, fx);
            }
        } else if let Some(held) = self.registry.get(subject.endpoint)
            && held.subject == subject
        {
            // The member was removed while it lives: with the proof it can begin a new life (M8).
            if let Some(removal) = &held.removal {
                fx.send(link, Removal::clone(removal));
            }
        }
        is_member
    }

    /// Takes the new link of another seed, whose key is proved and known.
    pub fn on_seed_link(
        &mut self,
        now: Now,
        (seed, link): (SeedId, LinkId),
        info: &NodeInfo,
        fx: &mut Fx,
    ) {
        self.seed_links.insert(seed, link);
        for key in self.book.hint(seed, &info.seed_keys) {
            fx.persist(Record::SeedKey(key));
            fx.emit(Event::SeedKeyLearnt(key));
        }
        fx.emit(Event::SeedLink { seed, up: true, connected: self.connected() });
        self.check_quorum(fx);
        self.send_digest(link, fx);
        self.lists_owed.insert(seed, None);
        fx.set_timer(Timer::Lists, LISTS_PAUSE);
        self.repeat_open_cases(now, link, fx);
    }

    /// Takes the end of a link; `is_agreed` is true if one of its ends intended it.
    pub fn on_link_down(
        &mut self,
        now: Now,
        link: LinkId,
        (info, is_agreed): (&NodeInfo, bool),
        fx: &mut Fx,
    ) {
        if let Some(seed) = self.seed_of(link) {
            self.seed_links.remove(&seed);
            self.syncing.remove(&seed);
            self.lists_owed.remove(&seed);
            fx.emit(Event::SeedLink { seed, up: false, connected: self.connected() });
            self.check_quorum(fx);
        }
        if self.member_links.get(&info.endpoint) == Some(&link) {
            self.member_links.remove(&info.endpoint);
            self.lost_member(now, info.endpoint, is_agreed, fx);
        }
        for open_case in self.admissions.values_mut() {
            open_case.applicants.remove(&link);
        }
    }

    /// Takes a key that was proved at a seed's configured address, or shown by a caller. Returns
    /// whether it is that seed's known key.
    pub fn on_seed_key(&mut self, shown: SeedKey, at_address: bool, fx: &mut Fx) -> bool {
        if !at_address {
            let known = self.book.key(shown.seed);
            if let Some(known) = known.filter(|known| *known != shown.key) {
                let SeedKey { seed, key: shown, .. } = shown;
                fx.emit(Event::SeedKeyContradicted { seed, known, shown });
            }
            return known == Some(shown.key);
        }
        match self.book.learn(shown.seed, shown.key) {
            Learned::New => {
                fx.persist(Record::SeedKey(shown));
                fx.emit(Event::SeedKeyLearnt(shown));
                self.compare_again(fx);
                true
            }
            Learned::Known => true,
            Learned::Contradicts { known } => {
                let SeedKey { seed, key: shown, .. } = shown;
                fx.emit(Event::SeedKeyContradicted { seed, known, shown });
                false
            }
            Learned::NoSuchSeed => false,
        }
    }

    /// Takes the outcome of a probe that was asked for.
    pub fn on_probed(&mut self, now: Now, endpoint: Endpoint, outcome: &ProbeOutcome, fx: &mut Fx) {
        self.probed_applicant(now, endpoint, outcome, fx);
        self.probed_suspect(now, endpoint, outcome, fx);
        self.probed_witness(now, endpoint, outcome, fx);
        self.probed_orphan(now, endpoint, outcome, fx);
        self.probed_twin(endpoint, outcome, fx);
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Admission(subject) => self.admission_expired(&subject, fx),
            Timer::Removal(subject) => self.removal_tick(now, &subject, fx),
            Timer::Settle => self.settle(now, fx),
            Timer::Digest => self.on_digest_timer(now, fx),
            Timer::Audit => self.on_audit_timer(now, fx),
            Timer::Orphan(endpoint) => self.on_orphan_timer(endpoint, fx),
            Timer::Quorum => self.on_quorum_timer(fx),
            Timer::Lists => self.on_lists_timer(fx),
        }
    }

    /// Takes a goodbye, from its author or relayed: its signature proves it (M7).
    pub fn on_leave(&mut self, now: Now, link: LinkId, leave: Leave, fx: &mut Fx) {
        let subject = leave.subject();
        let known = self.registry.get(subject.endpoint).map(|entry| entry.subject);
        if known != Some(subject) {
            return self.refuse(link, RejectReason::Stale, "this member is not known here", fx);
        }
        if !leave.is_valid() {
            return self.refuse(
                link,
                RejectReason::Forged,
                "the goodbye's signature does not hold",
                fx,
            );
        }
        // The time decides when the goodbye is forgotten, which must be neither at once nor never.
        if leave.at.distance(now.wall) > self.config.evidence_skew {
            return self.refuse(link, RejectReason::Stale, "a goodbye of another time", fx);
        }
        self.apply(now, RegistryEntry::left(leave), Some(link), fx);
    }

    /// Tells when a quorum is in reach again; tells that it is lost only when the loss lasts,
    /// because links are exchanged when two seeds call each other at once.
    fn check_quorum(&mut self, fx: &mut Fx) {
        let (connected, needed) = (self.connected(), self.book.quorum());
        if connected < needed {
            if self.quorum_reached != Some(false) {
                fx.set_timer(Timer::Quorum, QUORUM_PATIENCE);
            }
            return;
        }
        fx.stop_timer(Timer::Quorum);
        if self.quorum_reached != Some(true) {
            self.quorum_reached = Some(true);
            fx.emit(Event::Quorum { reached: true, connected, needed });
        }
    }

    fn on_quorum_timer(&mut self, fx: &mut Fx) {
        let (connected, needed) = (self.connected(), self.book.quorum());
        if connected < needed {
            self.quorum_reached = Some(false);
            fx.emit(Event::Quorum { reached: false, connected, needed });
        }
    }

    #[allow(clippy::unused_self, reason = "reads as what it does at each call")]
    fn refuse(&self, link: LinkId, cause: RejectReason, reason: impl Into<String>, fx: &mut Fx) {
        use crate::proto::refusal::ErrorCode;
        let error = ErrorReply::new(ErrorCode::Invalid, reason);
        fx.emit(Event::Refuse { link, cause, error });
    }

    /// The seed at the other end of a link, by its proved node info.
    pub fn seed_of(&self, link: LinkId) -> Option<SeedId> {
        self.seed_links.iter().find(|(_, other)| **other == link).map(|(id, _)| *id)
    }
}
