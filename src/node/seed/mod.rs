//! A seed: handshakes, probes and the membership authority. No gossip (M11).

mod links;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};

use crate::machine::membership::authority::{self, Authority};
use crate::machine::membership::seedbook::SeedBook;
use crate::machine::probe::{self, Prober};
use crate::machine::session::{self, RejectReason, Session};
use crate::machine::{
    CallFailure, Effects, HostPinged, Input, LinkId, Machine, NodeCall, NodeMachine, NodeMessage,
    NodeOpening, PingHost, Vocabulary,
};
use crate::model::statement::{MemberInstance, Proposal};
use crate::model::{Endpoint, Incarnation, KeyPair, Now, Rng, SeedId, Time};
use crate::node::refusals::{Refusal, Refusals};
use crate::node::status::{LinkStatus, SeedStatus};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::liveness::Pong;
use crate::proto::message::{Message, SeedMessage, TrustLevel};
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Pause before another seed is called again after a failed or lost link.
const REDIAL: Duration = Duration::from_millis(500);

/// Time-out of a call to another seed.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// All settings of a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeedConfig {
    /// Limits of handshakes.
    pub session: session::Config,
    /// Limits of probes.
    pub probe: probe::Config,
    /// Limits of votes.
    pub authority: authority::Config,
}

/// Deadlines of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Deadline of a handshake.
    Session(session::Timer),
    /// Deadline of a probe.
    Probe(probe::Timer),
    /// Deadline of the authority.
    Authority(authority::Timer),
    /// Deadline to call another seed again.
    Redial(SeedId),
}

/// Events of a seed.
#[derive(Debug)]
pub enum Event {
    /// The seed listens.
    Started {
        /// Number of the seed.
        seed: SeedId,
        /// Public key of the seed.
        key: crate::model::PublicKey,
        /// Number of members known from disk.
        members: usize,
        /// Number of configured seeds.
        seeds: usize,
        /// Number of yes votes needed.
        needed: usize,
    },
    /// An event of the authority.
    Authority(authority::Event),
    /// A node connected and proved a key.
    Connected {
        /// Endpoint of the node.
        endpoint: Endpoint,
        /// Standing of the node.
        standing: TrustLevel,
    },
    /// Another seed refuses this one, usually because it knows another key for it.
    RejectedBySeed {
        /// Number of the other seed.
        seed: SeedId,
        /// Reason that the other seed gives.
        reason: String,
    },
    /// A seed's list of seeds differs from the one here.
    ListsDiffer(String),
    /// A node or its message was refused.
    Refused(Refusal),
}

/// Commands of a local program to a seed. A program that can reach the seed's socket speaks for
/// this seed, and for no other.
#[derive(Debug)]
pub enum Command {
    /// Orders something about an endpoint, for this seed's operator.
    Order {
        /// The order and its endpoint.
        proposal: Proposal,
    },
}

/// A whole seed.
#[derive(Debug)]
pub struct SeedNode {
    id: SeedId,
    session: Session,
    prober: Prober,
    authority: Authority,
    refusals: Refusals,
    /// Seeds with which this one disagrees about a key or a list, until both agree: that is
    /// reported once, and tried less often.
    estranged: BTreeSet<SeedId>,
    /// Seeds whose different list was reported already, until it is the same.
    drifted: BTreeSet<SeedId>,
    /// Seeds that will be called again. Events meanwhile do not put off that call.
    redialing: BTreeSet<SeedId>,
    /// Start of the span in which connections are counted, and the number that were logged in it.
    greetings: (Time, u32),
    rng: Rng,
}

impl Vocabulary for SeedNode {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = authority::Record;
    type Event = Event;
    type ExtraEffect = PingHost;
}

impl From<session::Timer> for Timer {
    fn from(timer: session::Timer) -> Self {
        Self::Session(timer)
    }
}

impl From<probe::Timer> for Timer {
    fn from(timer: probe::Timer) -> Self {
        Self::Probe(timer)
    }
}

impl From<authority::Timer> for Timer {
    fn from(timer: authority::Timer) -> Self {
        Self::Authority(timer)
    }
}

impl From<crate::machine::Never> for authority::Record {
    fn from(never: crate::machine::Never) -> Self {
        match never {}
    }
}

type Fx = Effects<SeedNode>;

impl SeedNode {
    /// Seed `id` of `book`, holder of `keys`, with the state that its journal holds.
    pub fn new(
        config: SeedConfig,
        (id, endpoint, keys): (SeedId, Endpoint, KeyPair),
        book: SeedBook,
        records: Vec<authority::Record>,
        mut rng: Rng,
    ) -> Self {
        let life = MemberInstance { endpoint, incarnation: Incarnation(0), key: keys.public() };
        let info = NodeInfo { seed: Some(id), seeds: book.digests(), ..NodeInfo::new(life) };
        let session = Session::new(config.session, keys.clone(), info, Rng::from_rng(&mut rng));
        let authority =
            Authority::new(config.authority, (id, keys), book, records, Rng::from_rng(&mut rng));
        let prober = Prober::new(config.probe);
        Self {
            id,
            session,
            prober,
            authority,
            refusals: Refusals::default(),
            estranged: BTreeSet::new(),
            drifted: BTreeSet::new(),
            redialing: BTreeSet::new(),
            greetings: (Time::ZERO, 0),
            rng,
        }
    }

    /// Sets the name of the seed's fleet.
    #[must_use]
    pub fn in_fleet(mut self, name: Option<String>) -> Self {
        self.session.info_mut().fleet = name;
        self
    }

    /// The membership state, to look at.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Status of this seed for its operator.
    pub fn status(&self) -> SeedStatus {
        let book = self.authority.book();
        let (admissions, removals) = self.authority.open_cases();
        SeedStatus {
            seed: self.id,
            endpoint: self.session.info().endpoint,
            key: self.session.info().key,
            ready: self.authority.is_ready(),
            seeds_connected: self.authority.connected(),
            seeds_configured: book.len(),
            quorum: book.quorum(),
            members: self.authority.registry().alive_count(),
            members_linked: self.authority.linked_members(),
            admissions_open: admissions,
            removals_open: removals,
            health: self.authority.health_score(),
            refused: self.refusals.counts(),
            links: self.session.open().map(LinkStatus::from).collect(),
        }
    }

    fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.with_session(now, fx, |it, inner| it.on_start(inner));
        self.refresh_info();
        let book = self.authority.book();
        fx.emit(Event::Started {
            seed: self.id,
            key: self.session.info().key,
            members: self.authority.registry().alive_count(),
            seeds: book.len(),
            needed: book.quorum(),
        });
        let others: Vec<_> = book.seeds().filter(|(id, _)| *id != self.id).collect();
        self.with_authority(now, fx, |authority, inner| authority.on_start(now, inner));
        for (id, _) in others {
            self.call_seed(now, id, fx);
        }
    }

    fn refresh_info(&mut self) {
        self.session.info_mut().seed_keys = self.authority.book().known_keys();
    }

    fn call_seed(&mut self, now: Now, seed: SeedId, fx: &mut Fx) {
        if self.authority.linked_seeds().any(|linked| linked == seed) {
            return;
        }
        if let Some(to) = self.authority.book().endpoint(seed) {
            self.with_session(now, fx, |session, inner| {
                session.call(to, Intent::Link, CALL_TIMEOUT, inner);
            });
        }
    }

    fn redial_later(&mut self, seed: SeedId, fx: &mut Fx) {
        if !self.redialing.insert(seed) {
            return;
        }
        let pause = if self.estranged.contains(&seed) { REDIAL * 10 } else { REDIAL };
        fx.set_timer(Timer::Redial(seed), pause.mul_f64(self.rng.random_range(0.75..1.25)));
    }

    /// Lets the session work, and handles its events.
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
                probe::Event::Done { to, outcome } => self.with_authority(now, fx, |it, inner| {
                    it.on_probed(now, to, &outcome, inner);
                }),
            }
        }
    }

    fn with_authority(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Authority, &mut Effects<Authority>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.authority, &mut inner);
        for event in fx.absorb(inner) {
            self.on_authority_event(now, event, fx);
        }
    }

    /// Number of the seed with this node info in the list here.
    fn seat_of(&self, info: &NodeInfo) -> Option<SeedId> {
        info.seed.and(self.authority.book().seed_at(info.endpoint))
    }

    /// Takes another seed's refusal. A seed that refuses this one's handshake usually knows another
    /// key for it.
    fn on_error(&mut self, link: LinkId, error: ErrorReply, fx: &mut Fx) {
        if let Some(seed) = self.authority.seed_of(link)
            && error.code == ErrorCode::Handshake
            && self.estranged.insert(seed)
        {
            fx.emit(Event::RejectedBySeed { seed, reason: error.reason });
        }
    }

    fn on_message(&mut self, now: Now, link: LinkId, msg: Message, fx: &mut Fx) {
        let info = self.session.peer(link).cloned();
        if let Some(seed) = self.authority.seed_of(link)
            && msg.needs() == TrustLevel::Seed
        {
            // A seed that sends what is for seeds agrees with this one.
            self.estranged.remove(&seed);
        }
        let Some(address) = self.session.address(link) else { return };
        let msg = match SeedMessage::try_from(msg) {
            Ok(msg) => msg,
            Err(msg) => {
                let reason = format!("a seed takes no part in {}", msg.name());
                let error = ErrorReply::new(ErrorCode::WrongRole, reason);
                return self.with_session(now, fx, |it, inner| {
                    it.refuse(link, RejectReason::WrongRole, error, inner);
                });
            }
        };
        self.with_authority(now, fx, |it, inner| match (msg, info) {
            (SeedMessage::PeerListReq(request), _) => it.on_peer_list_req(link, &request, inner),
            (SeedMessage::TopologyReq(request), _) => it.on_topology_req(link, &request, inner),
            (SeedMessage::ExplainReq(request), _) => it.on_explain_req(link, request, inner),
            (SeedMessage::Ping(ping), _) => inner.send(link, Pong { nonce: ping.nonce }),
            (SeedMessage::RegisterReq(request), Some(info)) => {
                it.on_register_req(now, (link, &info, address), request, inner);
            }
            (SeedMessage::DeadReport(report), Some(info)) => {
                it.on_dead_report(now, (link, &info), report, inner);
            }
            (SeedMessage::Neighbors(list), Some(info)) => it.on_neighbors(link, &info, list, inner),
            (SeedMessage::RegisterVote(vote), _) => it.on_register_vote(now, link, vote, inner),
            (SeedMessage::RegisterCommit(proof), _) => {
                it.on_register_commit(now, link, &proof, inner);
            }
            (SeedMessage::SuspectReq(request), _) => it.on_suspect_req(now, link, request, inner),
            (SeedMessage::SuspectAck(found), _) => it.on_suspect_ack(now, link, found, inner),
            (SeedMessage::SeedDeadVote(vote), _) => it.on_seed_dead_vote(now, link, &vote, inner),
            (SeedMessage::SeedDeadCommit(proof), _) => {
                it.on_seed_dead_commit(now, link, proof, inner);
            }
            (SeedMessage::SeedOrderVote(vote), _) => it.on_seed_order_vote(now, link, vote, inner),
            (SeedMessage::SeedBanCommit(ban), _) => it.on_seed_ban_commit(now, link, ban, inner),
            (SeedMessage::Leave(leave), _) => it.on_leave(now, link, leave, inner),
            (SeedMessage::SeedDigest(digest), _) => it.on_seed_digest(link, &digest, inner),
            (SeedMessage::SeedSyncReq(request), _) => it.on_seed_sync_req(link, &request, inner),
            (SeedMessage::SeedSyncResp(resp), _) => it.on_seed_sync_resp(now, link, resp, inner),
            // That it came is all that it says.
            (SeedMessage::Pong(_), _) => {}
            // Only of a proved key does the session pass these on, and that shows a node info.
            (
                SeedMessage::RegisterReq(_)
                | SeedMessage::DeadReport(_)
                | SeedMessage::Neighbors(_),
                None,
            ) => {}
        });
    }

    fn on_authority_event(&mut self, now: Now, event: authority::Event, fx: &mut Fx) {
        match event {
            authority::Event::Probe { endpoint, timeout } => {
                self.with_prober(now, fx, |prober, inner| prober.probe(endpoint, timeout, inner));
            }
            authority::Event::Standing { link, member } => {
                let standing = if member { TrustLevel::Member } else { TrustLevel::Applicant };
                self.with_session(now, fx, |it, inner| it.admit(link, standing, inner));
                if member {
                    self.keep_one_link(now, link, fx);
                }
            }
            authority::Event::Refuse { link, cause, error } => {
                self.with_session(now, fx, |it, inner| it.refuse(link, cause, error, inner));
            }
            event @ (authority::Event::Proposed { .. }
            | authority::Event::Voted { .. }
            | authority::Event::Aborted { .. }
            | authority::Event::Admitted(_)
            | authority::Event::Removed { .. }
            | authority::Event::Banned(_)
            | authority::Event::Left(_)
            | authority::Event::Reported { .. }
            | authority::Event::SeedKeyLearnt(_)
            | authority::Event::SeedKeyContradicted { .. }
            | authority::Event::Foreign { .. }
            | authority::Event::SharedKey { .. }
            | authority::Event::Isolated { .. }
            | authority::Event::SeedLink { .. }
            | authority::Event::Quorum { .. }
            | authority::Event::Ready { .. }
            | authority::Event::Synced { .. }) => fx.emit(Event::Authority(event)),
        }
    }
}

impl Machine for SeedNode {
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
            Input::Expired(Timer::Session(timer)) => {
                self.with_session(now, fx, |it, inner| it.on_timer(timer, inner));
            }
            Input::Expired(Timer::Probe(timer)) => {
                self.with_prober(now, fx, |it, inner| it.on_timer(timer, inner));
            }
            Input::Expired(Timer::Authority(timer)) => {
                self.with_authority(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Input::Expired(Timer::Redial(seed)) => {
                self.redialing.remove(&seed);
                self.call_seed(now, seed, fx);
            }
            // This driver holds back, so it reports no records; and a seed pings no host.
            Input::Synced { .. } | Input::Extra(HostPinged { .. }) => {}
            Input::Command(Command::Order { proposal }) => {
                self.with_authority(now, fx, |it, inner| it.on_order(now, proposal, inner));
            }
        }
    }
}

impl NodeMachine for SeedNode {
    fn snapshot(&self) -> Vec<authority::Record> {
        self.authority.snapshot()
    }

    fn is_trusted(&self, link: LinkId) -> bool {
        self.session.standing(link) >= TrustLevel::Member
    }
}

/// The counts by cause, for status.
pub(in crate::node) type Counts = BTreeMap<&'static str, u64>;
