//! A peer: handshakes, probes, membership, overlay, gossip and liveness, and the routing of their
//! events to each other.

mod broadcast;
mod commands;
mod contacts;
mod direct;
mod discovery;
mod events;
mod messages;
mod open;
mod timers;
mod twins;
mod vocabulary;

pub use vocabulary::{Command, Event, Timer};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;

use crate::machine::broadcast::Broadcast;
use crate::machine::contacts::Contacts;
use crate::machine::direct::Direct;
use crate::machine::discovery::Discovery;
use crate::machine::gossip::{self, Gossip};
use crate::machine::liveness::{self, Liveness};
use crate::machine::membership::applicant::{self, Applicant};
use crate::machine::membership::seedbook::SeedBook;
use crate::machine::open::OpenFleet;
use crate::machine::overlay::{self, Overlay};
use crate::machine::probe::{self, Prober};
use crate::machine::quorum::QuorumRule;
use crate::machine::session::{self, RejectReason, Session};
use crate::machine::{
    CallFailure, Effects, HostPinged, Input, LinkId, Machine, NodeCall, NodeMachine, NodeMessage,
    NodeOpening, PingHost, Vocabulary, broadcast as casting, contacts as contacts_service,
    direct as direct_service, discovery as finding, open as open_fleet,
};
use crate::model::statement::{MemberInstance, Removal, SeedCertificate};
use crate::model::{Endpoint, Incarnation, KeyPair, Now, PublicKey, Rng, SeedId};
use crate::node::refusals::Refusals;
use crate::node::status::{NetworkStatus, PeerStatus};
use crate::proto::discovery::{Contact, FindNode};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::liveness::SuspectReq;
use crate::proto::message::TrustLevel;
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Time-out of a call to a member or seed.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Time-out of a call to a witness: no longer than its answer is of use.
const ERRAND_TIMEOUT: Duration = Duration::from_millis(1_200);

/// Largest number of neighbors that a member may name.
const NAMED_MAX: usize = 256;

/// Ended lives that are remembered, so that old proofs are not passed on again.
const GONE_MAX: usize = 10_000;

/// Keys whose certified end is remembered.
const ENDED_MAX: usize = 1_000;

/// All settings of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerConfig {
    /// Limits of handshakes.
    pub session: session::Config,
    /// Limits of probes.
    pub probe: probe::Config,
    /// Periods of the membership.
    pub applicant: applicant::Config,
    /// Limits of the overlay.
    pub overlay: overlay::Config,
    /// Limits of gossip.
    pub gossip: gossip::Config,
    /// Periods of liveness.
    pub liveness: liveness::Config,
    /// Limits and periods of direct sends.
    pub direct: direct_service::Config,
    /// Limits that make a peer unreachable.
    pub contacts: contacts_service::Config,
    /// Limits of discovery.
    pub discovery: finding::Config,
    /// Periods of a peer without seeds.
    pub open: open_fleet::Config,
    /// Limits of the broadcast.
    pub broadcast: casting::Config,
}

/// Members that show one key.
#[derive(Debug, Default)]
struct Twins {
    /// Places that are being probed, with another where the same key was shown, and whether it is
    /// proved to be there.
    asked: BTreeMap<Endpoint, (Endpoint, bool)>,
    reported: BTreeSet<[Endpoint; 2]>,
}

/// A whole peer.
#[derive(Debug)]
pub struct PeerNode {
    keys: KeyPair,
    session: Session,
    prober: Prober,
    applicant: Applicant,
    /// Only in a fleet without seeds.
    open: Option<OpenFleet>,
    /// State of the fleet without seeds that is kept for a restart, if it is to be kept.
    memory: Option<open::Memory>,
    overlay: Overlay,
    discovery: Discovery,
    gossip: Gossip,
    liveness: Liveness,
    direct: Direct,
    contacts: Contacts,
    broadcast: Broadcast,
    /// Seeds whose different list was reported already.
    drifted: BTreeSet<SeedId>,
    /// True once this peer is asked to leave and its last messages are with no neighbor yet.
    is_leaving: bool,
    /// Questions that wait for a link to the witness.
    pending_queries: BTreeMap<Endpoint, Vec<SuspectReq>>,
    /// Questions of discovery that wait for a link.
    questions: BTreeMap<Endpoint, Vec<FindNode>>,
    /// Links that were called for questions, while some of them are open.
    question_links: BTreeMap<Endpoint, LinkId>,
    /// Links that serve questions of both kinds, and so do not end with the first answer.
    shared_errands: BTreeSet<LinkId>,
    /// Lives known to have ended.
    gone: BTreeMap<Endpoint, Incarnation>,
    /// Keys whose end is certified, with their last life.
    ended: BTreeMap<PublicKey, (MemberInstance, Arc<Removal>)>,
    list_version: u64,
    twins: Twins,
    refusals: Refusals,
}

impl Vocabulary for PeerNode {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = applicant::Record;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<PeerNode>;

impl PeerNode {
    /// The peer at `endpoint`, holder of `keys`, with the state that its journal holds.
    pub fn new(
        config: PeerConfig,
        (endpoint, keys): (Endpoint, KeyPair),
        book: SeedBook,
        records: &[applicant::Record],
        mut rng: Rng,
    ) -> Self {
        let life =
            MemberInstance { endpoint, incarnation: Incarnation::default(), key: keys.public() };
        let info = NodeInfo { seeds: book.digests(), ..NodeInfo::new(life) };
        let mut new_rng = || Rng::from_rng(&mut rng);
        let session = Session::new(config.session, keys.clone(), info, new_rng());
        let me = (endpoint, keys.clone());
        let seeds: Vec<_> = book.seeds().map(|(_, seed)| seed).collect();
        let own = Contact { endpoint, key: keys.public() };
        let finding =
            if seeds.is_empty() { config.discovery } else { config.discovery.with_seeds() };
        let applicant = Applicant::new(config.applicant, me, book, records, new_rng());
        let overlay = Overlay::new(config.overlay, endpoint, new_rng());
        Self {
            session,
            prober: Prober::new(config.probe),
            applicant,
            open: None,
            memory: None,
            overlay,
            discovery: Discovery::new(finding, own, seeds, new_rng()),
            gossip: Gossip::new(config.gossip, endpoint),
            liveness: Liveness::new(config.liveness, endpoint, keys.clone()),
            direct: Direct::new(config.direct, endpoint, new_rng()),
            contacts: Contacts::new(config.contacts),
            broadcast: Broadcast::new(config.broadcast, endpoint, keys.clone()),
            drifted: BTreeSet::new(),
            is_leaving: false,
            keys,
            pending_queries: BTreeMap::new(),
            questions: BTreeMap::new(),
            question_links: BTreeMap::new(),
            shared_errands: BTreeSet::new(),
            gone: BTreeMap::new(),
            ended: BTreeMap::new(),
            list_version: 0,
            twins: Twins::default(),
            refusals: Refusals::default(),
        }
    }

    /// A peer of a fleet without seeds, with the endpoints that its operator named to call first.
    pub fn without_seeds(
        config: PeerConfig,
        me: (Endpoint, KeyPair),
        bootstrap: &[Endpoint],
        records: &[applicant::Record],
        mut rng: Rng,
    ) -> Self {
        let open = OpenFleet::new(config.open, me.0, bootstrap, Rng::from_rng(&mut rng));
        let nobody = SeedBook::new(QuorumRule::Majority, &[]);
        let mut it = Self { open: Some(open), ..Self::new(config, me, nobody, records, rng) };
        // A proved key is a member there, and has no more to prove.
        it.broadcast.set_requires_proof(false);
        it
    }

    /// The membership state, to look at.
    pub const fn applicant(&self) -> &Applicant {
        &self.applicant
    }

    /// The overlay, to look at.
    pub const fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The lives whose end a quorum of seeds certifies, as far as this peer has heard of it, one a
    /// key; but none of a key of which it has seen a certificate for a later life.
    pub fn ended(&self) -> impl Iterator<Item = &MemberInstance> {
        self.ended.values().map(|(life, _)| life)
    }

    /// Changes of the membership that a quorum of seeds certifies, of which this peer holds the
    /// certificates now: its own admission, those of members that it is linked with, and removals.
    pub fn certificates(&self) -> impl Iterator<Item = SeedCertificate> {
        let linked = self.session.open().filter(|(_, _, it)| *it == TrustLevel::Member);
        let linked = linked.filter_map(|(_, info, _)| info.certificate.as_ref());
        let admissions = self.applicant.admission().into_iter().chain(linked).cloned();
        let removals = self.ended.values().map(|(_, removal)| Arc::clone(removal));
        let removals = removals.map(SeedCertificate::Removal);
        admissions.map(SeedCertificate::Admission).chain(removals)
    }

    /// The seeds as this peer knows them.
    pub const fn book(&self) -> &SeedBook {
        self.applicant.book()
    }

    /// Status of this peer for its operator.
    pub fn status(&self) -> PeerStatus {
        let (gossip_made, gossip_held, gossip_duplicates) = self.gossip.counts();
        let info = self.session.info();
        let round_trip = |it: &Endpoint| {
            let trip = self.liveness.round_trip(*it)?;
            u64::try_from(trip.as_micros()).ok()
        };
        let neighbors = self.overlay.neighbors().keys();
        let own = (info.endpoint.to_string(), neighbors.clone().copied().collect());
        let theirs = self.overlay.topology().iter();
        PeerStatus {
            endpoint: info.endpoint,
            key: info.key,
            incarnation: info.incarnation,
            state: match &self.open {
                Some(open) if open.is_joining() && self.is_member() => "joining",
                _ => self.applicant.state(),
            },
            member_since: self.applicant.admission().map(|admission| admission.at()),
            seeds: self.applicant.seed_links().map(|(seed, _)| seed).collect(),
            seeds_configured: self.applicant.book().len(),
            quorum: self.applicant.book().quorum(),
            members_known: self.overlay.known_members(),
            neighbors: neighbors.map(|it| (it.to_string(), round_trip(it))).collect(),
            topology: theirs
                .map(|(it, list)| (it.to_string(), list.iter().copied().collect()))
                .chain([own])
                .collect(),
            suspects: self.liveness.suspects().map(|subject| subject.endpoint).collect(),
            gossip_made,
            gossip_held,
            gossip_duplicates,
            health: self.liveness.health_score(),
            refused: self.refusals.counts(),
            network: NetworkStatus {
                discovery: self.discovery.metrics(),
                direct: self.direct.metrics(),
                contacts: self.contacts.metrics(),
                broadcast: self.broadcast.metrics(),
            },
        }
    }

    /// This peer's key.
    pub const fn key(&self) -> PublicKey {
        self.session.info().key
    }

    /// True if the other nodes of its fleet count this peer as a member: by its certificate, or in
    /// a fleet without seeds until it says goodbye.
    fn is_member(&self) -> bool {
        match self.open {
            Some(_) => self.applicant.state() != "gone",
            None => self.applicant.admission().is_some(),
        }
    }

    fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.with_session(now, fx, |it, inner| it.on_start(inner));
        let book = self.applicant.book();
        let (seeds, needed) = (book.len(), book.quorum());
        fx.emit(Event::Started { key: self.keys.public(), seeds, needed });
        self.with_liveness(now, fx, |it, inner| it.on_start(now, inner));
        self.with_contacts(now, fx, |it, inner| it.on_start(now, inner));
        if self.open.is_some() {
            return self.on_open_start(now, fx);
        }
        self.with_applicant(now, fx, |it, inner| it.on_start(now, inner));
    }

    // Each of the following lets one service work, and handles its events.

    fn with_session(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Session, &mut Effects<Session>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.session, &mut inner);
        for event in fx.absorb(inner) {
            self.on_session_event(now, event, fx);
        }
    }

    fn with_prober(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Prober, &mut Effects<Prober>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.prober, &mut inner);
        for event in fx.absorb(inner) {
            match event {
                probe::Event::Call { to, connect, timeout } => {
                    self.with_session(now, fx, |session, inner| {
                        session.call_within(to, Intent::Probe, (connect, timeout), inner);
                    });
                }
                probe::Event::Done { to, outcome } => self.with_liveness(now, fx, |it, inner| {
                    it.on_probed(now, to, &outcome, inner);
                }),
            }
        }
    }

    fn with_applicant(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Applicant, &mut Effects<Applicant>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.applicant, &mut inner);
        for event in fx.absorb(inner) {
            self.on_applicant_event(now, event, fx);
        }
    }

    fn with_overlay(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Overlay, &mut Effects<Overlay>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.overlay, &mut inner);
        for event in fx.absorb(inner) {
            self.on_overlay_event(now, event, fx);
        }
        self.liveness.set_others(self.overlay.known_members());
    }

    fn with_gossip(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Gossip, &mut Effects<Gossip>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.gossip, &mut inner);
        for event in fx.absorb(inner) {
            match event {
                gossip::Event::Malformed { from, reason } => {
                    let error = ErrorReply::new(ErrorCode::Invalid, reason);
                    self.with_session(now, fx, |it, inner| {
                        it.refuse(from, RejectReason::Forged, error, inner);
                    });
                }
                event @ gossip::Event::Made { .. } => fx.emit(Event::Gossip { event, from: None }),
                event @ gossip::Event::Heard { from: link, .. } => {
                    let from = self.session.peer(link).map(|info| info.endpoint);
                    fx.emit(Event::Gossip { event, from });
                }
            }
        }
    }

    fn with_liveness(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Liveness, &mut Effects<Liveness>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.liveness, &mut inner);
        for event in fx.absorb(inner) {
            self.on_liveness_event(now, event, fx);
        }
    }
}

impl Machine for PeerNode {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Command;
    type ExtraInput = HostPinged;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Fx) {
        match input {
            Input::Start => self.on_start(now, fx),
            Input::Opened { link, opening: NodeOpening::Accepted { from, binding } } => {
                self.with_session(now, fx, |it, inner| it.on_accepted(link, from, binding, inner));
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, binding } } => {
                self.with_session(now, fx, |it, inner| it.on_dialed(ticket, link, binding, inner));
            }
            Input::DialFailed(CallFailure { ticket, reason }) => {
                self.with_session(now, fx, |it, inner| it.on_dial_failed(ticket, reason, inner));
            }
            Input::Received { link, msg } => {
                self.with_session(now, fx, |it, inner| it.on_received(link, msg, inner));
            }
            Input::Garbled { link, reason } => {
                self.with_session(now, fx, |it, inner| it.on_garbled(link, &reason, inner));
            }
            Input::Closed { link, reason } => {
                self.with_session(now, fx, |it, inner| it.on_closed(link, &reason, inner));
            }
            Input::Expired(timer) => self.on_timer(now, timer, fx),
            // This driver holds back, so it reports no records.
            Input::Synced { .. } => {}
            Input::Extra(HostPinged { host, answer }) => {
                self.with_liveness(now, fx, |it, inner| it.on_host_pinged(host, answer, inner));
            }
            Input::Command(command) => self.on_command(now, command, fx),
        }
    }
}

impl NodeMachine for PeerNode {
    fn snapshot(&self) -> Vec<applicant::Record> {
        let fleet = self.memory.iter().flat_map(open::Memory::records);
        self.applicant.snapshot().into_iter().chain(fleet).collect()
    }

    fn is_trusted(&self, link: LinkId) -> bool {
        self.session.standing(link) >= TrustLevel::Member
    }
}
