//! A peer: handshakes, probes, membership, overlay, gossip and liveness, and what the events of
//! one mean to the others.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng as _;

use super::refusals::{Refusal, Refusals};
use super::status::PeerStatus;
use crate::model::{Endpoint, Incarnation, KeyPair, Now, Rng};
use crate::protocol::gossip::{self, Gossip};
use crate::protocol::liveness::{self, Liveness, SuspectReq};
use crate::protocol::membership::applicant::{self, Applicant};
use crate::protocol::membership::certificate::{Leave, NeighborList, Removal};
use crate::protocol::membership::seedbook::SeedBook;
use crate::protocol::message::{ErrorCode, ErrorReply, Message, Standing};
use crate::protocol::overlay::{self, Overlay};
use crate::protocol::probe::{self, Prober};
use crate::protocol::session::{self, Card, Cause, Intent, SeedKey, Session};
use crate::protocol::{Effects, Input, Kind, LinkId, Machine};

/// How long a call to a member or seed may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call to a witness may take: no longer than its answer is of use.
const ERRAND_TIMEOUT: Duration = Duration::from_millis(1_200);

/// Neighbors that a member may name.
const NAMED_MAX: usize = 256;

/// Ended lives that are remembered, so that old proofs are not passed on again.
const GONE_MAX: usize = 10_000;

/// Everything that can be set at a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerConfig {
    /// Handshake limits.
    pub session: session::Config,
    /// Probe limits.
    pub probe: probe::Config,
    /// Membership periods.
    pub applicant: applicant::Config,
    /// Overlay limits.
    pub overlay: overlay::Config,
    /// Gossip limits.
    pub gossip: gossip::Config,
    /// Liveness periods.
    pub liveness: liveness::Config,
}

/// Deadlines of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A handshake's.
    Session(session::Timer),
    /// A probe's.
    Probe(probe::Timer),
    /// The membership's.
    Applicant(applicant::Timer),
    /// The overlay's.
    Overlay(overlay::Timer),
    /// Gossip's.
    Gossip(gossip::Timer),
    /// Liveness's.
    Liveness(liveness::Timer),
}

macro_rules! timer_from {
    ($($variant:ident($service:ident)),* $(,)?) => {
        $(impl From<$service::Timer> for Timer {
            fn from(timer: $service::Timer) -> Self {
                Self::$variant(timer)
            }
        })*
    };
}

timer_from! {
    Session(session), Probe(probe), Applicant(applicant), Overlay(overlay), Gossip(gossip),
    Liveness(liveness),
}

impl From<crate::protocol::Never> for applicant::Record {
    fn from(never: crate::protocol::Never) -> Self {
        match never {}
    }
}

/// What a peer reports.
#[derive(Debug)]
pub enum Event {
    /// It listens.
    Started {
        /// Its key.
        key: crate::model::PublicKey,
        /// Seeds configured.
        seeds: usize,
        /// Yes votes needed.
        needed: usize,
    },
    /// The membership's reports.
    Applicant(applicant::Event),
    /// A neighbor was won or lost, or the neighborhood is about to be announced.
    Overlay(overlay::Event),
    /// Gossip was made or heard.
    Gossip {
        /// What happened.
        event: gossip::Event,
        /// The neighbor it came from, if it came.
        from: Option<Endpoint>,
    },
    /// Liveness's reports.
    Liveness(liveness::Event),
    /// A member's removal became known, and is certified.
    MemberRemoved(Box<Removal>),
    /// A member's goodbye became known.
    MemberLeft(Leave),
    /// This peer has said goodbye; its process may end.
    Gone,
    /// Something was refused.
    Refused(Refusal),
}

/// What a local program may ask of a peer.
#[derive(Debug)]
pub enum Command {
    /// Say goodbye and end.
    Leave,
}

/// A whole peer.
#[derive(Debug)]
pub struct PeerNode {
    keys: KeyPair,
    session: Session,
    prober: Prober,
    applicant: Applicant,
    overlay: Overlay,
    gossip: Gossip,
    liveness: Liveness,
    /// Questions that wait for a link to the witness.
    errands: BTreeMap<Endpoint, Vec<SuspectReq>>,
    /// Lives known to have ended.
    gone: BTreeMap<Endpoint, Incarnation>,
    list_version: u64,
    refusals: Refusals,
}

impl Kind for PeerNode {
    type Timer = Timer;
    type Record = applicant::Record;
    type Event = Event;
}

type Fx = Effects<PeerNode>;

impl PeerNode {
    /// The peer at `endpoint`, holder of `keys`, with what its journal remembers.
    pub fn new(
        config: PeerConfig,
        (endpoint, keys): (Endpoint, KeyPair),
        book: SeedBook,
        records: &[applicant::Record],
        mut rng: Rng,
    ) -> Self {
        let card = Card {
            seed: None,
            endpoint,
            incarnation: Incarnation::default(),
            key: keys.public(),
            degree: 0,
            neighbors: Vec::new(),
            certificate: None,
            seed_keys: Vec::new(),
        };
        let mut part = || Rng::from_rng(&mut rng);
        let session = Session::new(config.session, keys.clone(), card, part());
        let me = (endpoint, keys.clone());
        let applicant = Applicant::new(config.applicant, me, book, records, part());
        let overlay = Overlay::new(config.overlay, endpoint, part());
        Self {
            session,
            prober: Prober::new(config.probe),
            applicant,
            overlay,
            gossip: Gossip::new(config.gossip, endpoint),
            liveness: Liveness::new(config.liveness, endpoint, keys.clone()),
            keys,
            errands: BTreeMap::new(),
            gone: BTreeMap::new(),
            list_version: 0,
            refusals: Refusals::default(),
        }
    }

    /// The membership state, to look at.
    pub const fn applicant(&self) -> &Applicant {
        &self.applicant
    }

    /// The overlay, to look at.
    pub const fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// What an operator wants to know of this peer.
    pub fn status(&self) -> PeerStatus {
        let (gossip_made, gossip_held, gossip_duplicates) = self.gossip.counts();
        let card = self.session.card();
        let round_trip = |it: &Endpoint| {
            let trip = self.liveness.round_trip(*it)?;
            u64::try_from(trip.as_micros()).ok()
        };
        let neighbors = self.overlay.neighbors().keys();
        let own = (card.endpoint.to_string(), neighbors.clone().copied().collect());
        let theirs = self.overlay.topology().iter();
        PeerStatus {
            endpoint: card.endpoint,
            key: card.key,
            incarnation: card.incarnation,
            state: self.applicant.state(),
            member_since: self.applicant.admission().map(|admission| admission.at()),
            seeds: self.applicant.seed_links().map(|(seed, _)| seed).collect(),
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
        }
    }

    fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.with_session(now, fx, |it, part| it.on_start(part));
        let book = self.applicant.book();
        let (seeds, needed) = (book.len(), book.quorum());
        fx.emit(Event::Started { key: self.keys.public(), seeds, needed });
        self.with_liveness(now, fx, |it, part| it.on_start(now, part));
        self.with_applicant(now, fx, |it, part| it.on_start(now, part));
    }

    /// Says goodbye to seeds and neighbors, and ends.
    fn on_leave_command(&mut self, now: Now, fx: &mut Fx) {
        let mut leave = None;
        self.with_applicant(now, fx, |it, part| leave = it.leave(now, part));
        self.with_gossip(now, fx, |it, part| it.pause(part));
        let links: Vec<_> =
            self.session.open().map(|(link, _, standing)| (link, standing)).collect();
        for (link, standing) in links {
            if let (Some(leave), true) = (leave, standing >= Standing::Member) {
                fx.send(link, leave);
            }
            self.with_session(now, fx, |it, part| it.hangup(link, "leaving", part));
        }
        fx.emit(Event::Gone);
    }

    // Each of the following lets one service work, and carries on with what it reports.

    fn with_session(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Session, &mut Effects<Session>),
    ) {
        let mut part = Effects::default();
        work(&mut self.session, &mut part);
        for event in fx.absorb(part) {
            self.on_session_event(now, event, fx);
        }
    }

    fn with_prober(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Prober, &mut Effects<Prober>),
    ) {
        let mut part = Effects::default();
        work(&mut self.prober, &mut part);
        for event in fx.absorb(part) {
            match event {
                probe::Event::Call { to, timeout } => {
                    self.with_session(now, fx, |session, part| {
                        session.call(to, Intent::Probe, timeout, part);
                    });
                }
                probe::Event::Done { to, outcome } => self.with_liveness(now, fx, |it, part| {
                    it.on_probed(now, to, &outcome, part);
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
        let mut part = Effects::default();
        work(&mut self.applicant, &mut part);
        for event in fx.absorb(part) {
            self.on_applicant_event(now, event, fx);
        }
    }

    fn with_overlay(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Overlay, &mut Effects<Overlay>),
    ) {
        let mut part = Effects::default();
        work(&mut self.overlay, &mut part);
        for event in fx.absorb(part) {
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
        let mut part = Effects::default();
        work(&mut self.gossip, &mut part);
        for event in fx.absorb(part) {
            match event {
                gossip::Event::Malformed { from, reason } => {
                    let error = ErrorReply::new(ErrorCode::Invalid, reason);
                    self.with_session(now, fx, |it, part| {
                        it.refuse(from, Cause::Forged, error, part);
                    });
                }
                event @ gossip::Event::Made { .. } => fx.emit(Event::Gossip { event, from: None }),
                event @ gossip::Event::Heard { from: link, .. } => {
                    let from = self.session.peer(link).map(|card| card.endpoint);
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
        let mut part = Effects::default();
        work(&mut self.liveness, &mut part);
        for event in fx.absorb(part) {
            self.on_liveness_event(now, event, fx);
        }
    }

    fn on_session_event(&mut self, now: Now, event: session::Event, fx: &mut Fx) {
        match event {
            session::Event::Opened { link, card, dialed, intent } => match card.seed {
                Some(_) => self.on_seed_opened(now, link, &card, dialed, fx),
                None => self.on_peer_opened(now, link, &card, (dialed, intent), fx),
            },
            session::Event::Answered { to, card } => {
                self.with_prober(now, fx, |it, part| it.on_answered(to, card, part));
            }
            session::Event::Failed { to, intent, error } => match intent {
                Intent::Probe => {
                    self.with_prober(now, fx, |it, part| it.on_failed(to, &error, part));
                }
                Intent::Errand => {
                    self.errands.remove(&to);
                    self.with_liveness(now, fx, |it, part| {
                        it.on_witness_unreachable(now, to, part);
                    });
                }
                Intent::Link if self.applicant.book().seed_at(to).is_some() => {
                    let reason = error.text();
                    self.with_applicant(now, fx, |it, part| it.on_call_failed(to, &reason, part));
                }
                Intent::Link => {
                    self.with_overlay(now, fx, |it, part| it.on_call_failed(now, to, part));
                }
            },
            session::Event::Message { link, msg } => self.on_message(now, link, *msg, fx),
            session::Event::Refused { from, cause, detail } => {
                if let Some(refusal) = self.refusals.count(cause, from, detail) {
                    fx.emit(Event::Refused(refusal));
                }
            }
            session::Event::Closed { link, card, is_agreed, reason: _ } => {
                self.on_closed(now, link, &card, is_agreed, fx);
            }
        }
    }

    fn on_closed(&mut self, now: Now, link: LinkId, card: &Card, is_agreed: bool, fx: &mut Fx) {
        self.liveness.on_asker_gone(link);
        if card.seed.is_some() {
            self.with_applicant(now, fx, |it, part| it.on_link_down(link, part));
            return;
        }
        let neighbor = card.endpoint;
        self.gossip.on_link_down(link);
        self.with_liveness(now, fx, |it, part| it.on_link_down(link, neighbor, is_agreed, part));
        self.with_overlay(now, fx, |it, part| it.on_link_down(now, link, neighbor, part));
    }

    /// A seed is believed by its key, and only where this peer called it.
    fn on_seed_opened(&mut self, now: Now, link: LinkId, card: &Card, dialed: bool, fx: &mut Fx) {
        let Some(seed) = card.seed else { return };
        let is_configured = self.applicant.book().endpoint(seed) == Some(card.endpoint);
        let mut is_trusted = false;
        if dialed && is_configured {
            let shown = SeedKey { seed, key: card.key };
            self.with_applicant(now, fx, |it, part| is_trusted = it.on_seed_key(shown, part));
        }
        if !is_trusted {
            self.with_session(now, fx, |it, part| it.hangup(link, "seed key not trusted", part));
            let to = card.endpoint;
            self.with_applicant(now, fx, |it, part| {
                it.on_call_failed(to, "its key is not the one known for it", part);
            });
            return;
        }
        self.with_session(now, fx, |it, part| it.admit(link, Standing::Seed, part));
        self.with_applicant(now, fx, |it, part| it.on_seed_link(seed, link, card, part));
        if self.applicant.admission().is_some() {
            fx.send(link, self.own_list());
        }
    }

    /// A member is believed by its certificate alone (O6).
    fn on_peer_opened(
        &mut self,
        now: Now,
        link: LinkId,
        card: &Card,
        (dialed, intent): (bool, Intent),
        fx: &mut Fx,
    ) {
        if self.applicant.book().seed_at(card.endpoint).is_some() {
            self.with_session(now, fx, |it, part| it.hangup(link, "a seed's address", part));
            let (to, reason) = (card.endpoint, "somebody who is no seed answers there");
            self.with_applicant(now, fx, |it, part| it.on_call_failed(to, reason, part));
            return;
        }
        if let Err(reason) = self.check_member(now, card, fx) {
            let error = ErrorReply::new(ErrorCode::NotAllowed, reason.clone());
            self.with_session(now, fx, |it, part| {
                it.refuse(link, Cause::NotAllowed, error, part);
                it.hangup(link, &reason, part);
            });
            if dialed {
                let to = card.endpoint;
                self.with_overlay(now, fx, |it, part| it.on_call_failed(now, to, part));
            }
            return;
        }
        self.with_session(now, fx, |it, part| it.admit(link, Standing::Member, part));
        match intent {
            Intent::Link => {
                let who = (card.endpoint, card.incarnation);
                self.with_overlay(now, fx, |it, part| {
                    it.on_link_up(link, who, &card.neighbors, dialed, part);
                });
            }
            Intent::Errand | Intent::Probe => {
                for request in self.errands.remove(&card.endpoint).unwrap_or_default() {
                    fx.send(link, request);
                }
            }
        }
    }

    fn check_member(&mut self, now: Now, card: &Card, fx: &mut Fx) -> Result<(), String> {
        let subject = card.subject();
        let Some(certificate) = &card.certificate else {
            return Err("links are for members: register with the seeds first".to_owned());
        };
        if certificate.subject() != subject {
            return Err("the certificate is about somebody else".to_owned());
        }
        if self.gone.get(&subject.endpoint).is_some_and(|ended| *ended >= subject.incarnation) {
            return Err("this membership has ended: register again".to_owned());
        }
        let verdict = self.applicant.book().verify(&certificate.proposal(), &certificate.votes);
        verdict.map_err(|error| {
            if error.unknown > 0 {
                let voters: Vec<_> = certificate.votes.iter().map(|vote| vote.seed).collect();
                self.with_applicant(now, fx, |it, part| it.want_keys(voters, part));
            }
            format!("the certificate does not hold here: {error}")
        })
    }

    fn on_message(&mut self, now: Now, link: LinkId, msg: Message, fx: &mut Fx) {
        let card = self.session.peer(link).cloned();
        let standing = self.session.standing(link);
        if let Some(card) = &card {
            self.liveness.on_heard(now, card.endpoint);
        }
        match (msg, card) {
            (Message::RegisterVote(vote), _) => {
                self.with_applicant(now, fx, |it, part| it.on_vote(&vote, part));
            }
            (Message::RegisterCommit(proof), _) => {
                self.with_applicant(now, fx, |it, part| it.on_commit(proof, part));
            }
            (Message::PeerListResp(page), _) => {
                self.with_applicant(now, fx, |it, part| it.on_peer_list(link, page, part));
            }
            (Message::Error(error), _) => {
                self.with_applicant(now, fx, |it, part| it.on_error(link, &error, part));
            }
            (Message::GossipMsg(_) | Message::GossipDigest(_), Some(card))
                if self.overlay.neighbors().get(&card.endpoint) != Some(&link) =>
            {
                // Gossip is for neighbors; a link that is just being exchanged is no offense.
            }
            (Message::GossipMsg(msg), _) => {
                self.with_gossip(now, fx, |it, part| it.on_message(now, link, msg, part));
            }
            (Message::GossipDigest(digest), _) => {
                self.with_gossip(now, fx, |it, part| it.on_digest(now, link, &digest, part));
            }
            (Message::Ping(ping), _) => fx.send(link, liveness::Pong { nonce: ping.nonce }),
            (Message::Pong(pong), Some(card)) => self.liveness.on_pong(now, card.endpoint, pong),
            (Message::Neighbors(list), Some(card)) => {
                self.on_neighbors(now, link, &card, &list, fx);
            }
            (Message::SuspectReq(request), _) => {
                self.with_liveness(now, fx, |it, part| it.on_suspect_req(link, request, part));
            }
            (Message::SuspectAck(found), Some(card)) => {
                let from = card.subject();
                self.with_liveness(now, fx, |it, part| {
                    it.on_suspect_ack(now, (link, &from), found, part);
                });
                self.end_errand(now, link, &card, fx);
            }
            (Message::SeedDeadCommit(proof), _) => self.on_removal(now, link, &proof, fx),
            (Message::Leave(leave), Some(card)) => {
                self.on_leave(now, (link, &card, standing), leave, fx);
            }
            (Message::LinkHint(hint), _) => {
                self.with_overlay(now, fx, |it, part| it.on_hint(hint.endpoint, part));
            }
            (msg, _) => self.refuse_role(now, link, &msg, fx),
        }
    }

    fn refuse_role(&mut self, now: Now, link: LinkId, msg: &Message, fx: &mut Fx) {
        let reason = format!("a peer takes no part in {}; ask a seed", msg.name());
        let error = ErrorReply::new(ErrorCode::WrongRole, reason);
        self.with_session(now, fx, |it, part| it.refuse(link, Cause::WrongRole, error, part));
    }

    fn on_neighbors(
        &mut self,
        now: Now,
        link: LinkId,
        card: &Card,
        list: &NeighborList,
        fx: &mut Fx,
    ) {
        let is_bounded = list.neighbors.len() <= NAMED_MAX;
        if list.endpoint != card.endpoint || !is_bounded || !list.is_valid(&card.key) {
            let error = ErrorReply::new(ErrorCode::Invalid, "a list that its author did not sign");
            self.with_session(now, fx, |it, part| it.refuse(link, Cause::Forged, error, part));
            return;
        }
        self.session.update_neighbors(link, &list.neighbors);
        self.overlay.on_neighbors(card.endpoint, &list.neighbors);
        self.liveness.on_neighbors(card.endpoint, &list.neighbors);
    }

    /// An answered errand needs its link no more, unless it is a neighbor's.
    fn end_errand(&mut self, now: Now, link: LinkId, card: &Card, fx: &mut Fx) {
        let is_neighbor = self.overlay.neighbors().get(&card.endpoint) == Some(&link);
        if !is_neighbor && card.seed.is_none() {
            self.with_session(now, fx, |it, part| it.hangup(link, "thank you", part));
        }
    }

    fn on_removal(&mut self, now: Now, link: LinkId, proof: &Removal, fx: &mut Fx) {
        let ended = self.gone.get(&proof.endpoint);
        if ended.is_some_and(|ended| *ended >= proof.incarnation) {
            return;
        }
        if let Err(error) = self.applicant.book().verify(&proof.proposal(), &proof.votes) {
            let reason = format!("no certificate: {error}");
            let error = ErrorReply::new(ErrorCode::Invalid, reason);
            self.with_session(now, fx, |it, part| it.refuse(link, Cause::Forged, error, part));
            return;
        }
        self.remember_gone(proof.endpoint, proof.incarnation);
        for (_, neighbor) in self.overlay.neighbors().iter().filter(|(_, it)| **it != link) {
            fx.send(*neighbor, proof.clone());
        }
        let mut is_mine = false;
        self.with_applicant(now, fx, |it, part| is_mine = it.on_removal(now, proof, part));
        if !is_mine {
            fx.emit(Event::MemberRemoved(Box::new(proof.clone())));
            self.forget(now, proof.endpoint, proof.incarnation, fx);
        }
    }

    /// A goodbye proves itself; that its key is the member's, only a link with the member shows.
    /// Of others a seed's word is enough to stop calling them, and for nothing else.
    fn on_leave(
        &mut self,
        now: Now,
        (link, card, standing): (LinkId, &Card, Standing),
        leave: Leave,
        fx: &mut Fx,
    ) {
        let is_own = card.subject() == leave.subject();
        let known = self.session.open().find(|(_, it, _)| it.endpoint == leave.endpoint);
        let is_proved = is_own || known.is_some_and(|(_, it, _)| it.subject() == leave.subject());
        let is_hint = standing == Standing::Seed && known.is_none();
        if !leave.is_valid() || !(is_proved || is_hint) {
            let error = ErrorReply::new(ErrorCode::Invalid, "a goodbye that does not hold");
            self.with_session(now, fx, |it, part| it.refuse(link, Cause::Forged, error, part));
            return;
        }
        let Leave { endpoint, incarnation, .. } = leave;
        if !is_proved {
            if self.overlay.incarnation_of(endpoint) == Some(incarnation) {
                fx.emit(Event::MemberLeft(leave));
                self.with_overlay(now, fx, |it, part| it.on_gone(endpoint, incarnation, part));
            }
            return;
        }
        if self.gone.get(&endpoint).is_some_and(|ended| *ended >= incarnation) {
            return;
        }
        self.remember_gone(endpoint, incarnation);
        fx.emit(Event::MemberLeft(leave));
        self.forget(now, endpoint, incarnation, fx);
    }

    fn remember_gone(&mut self, endpoint: Endpoint, incarnation: Incarnation) {
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_first();
        }
        self.gone.insert(endpoint, incarnation);
    }

    fn forget(&mut self, now: Now, endpoint: Endpoint, incarnation: Incarnation, fx: &mut Fx) {
        self.with_liveness(now, fx, |it, part| it.on_gone(endpoint, incarnation, part));
        self.with_overlay(now, fx, |it, part| it.on_gone(endpoint, incarnation, part));
    }

    fn on_applicant_event(&mut self, now: Now, event: applicant::Event, fx: &mut Fx) {
        match event {
            applicant::Event::Call { to } => self.with_session(now, fx, |it, part| {
                it.call(to, Intent::Link, CALL_TIMEOUT, part);
            }),
            applicant::Event::Hangup { link } => {
                self.with_session(now, fx, |it, part| it.hangup(link, "a new life begins", part));
            }
            applicant::Event::Attempt { incarnation, number } => {
                fx.emit(Event::Applicant(applicant::Event::Attempt { incarnation, number }));
                self.begin_life(now, incarnation, fx);
            }
            applicant::Event::Admitted(admission) => {
                self.session.card_mut().certificate = Some((*admission).clone());
                fx.emit(Event::Applicant(applicant::Event::Admitted(admission)));
                self.with_overlay(now, fx, |it, part| it.begin(part));
            }
            applicant::Event::Members { seed, members } => {
                self.with_overlay(now, fx, |it, part| it.on_members(&members, part));
                fx.emit(Event::Applicant(applicant::Event::Members { seed, members }));
            }
            event @ (applicant::Event::Asked { .. }
            | applicant::Event::Voted { .. }
            | applicant::Event::Refused { .. }
            | applicant::Event::Evicted(_)
            | applicant::Event::SeedKeyLearnt(_)
            | applicant::Event::SeedKeyContradicted { .. }
            | applicant::Event::SeedLink { .. }) => fx.emit(Event::Applicant(event)),
        }
    }

    /// From here on everything this peer says is said by another life.
    fn begin_life(&mut self, now: Now, incarnation: Incarnation, fx: &mut Fx) {
        self.with_gossip(now, fx, |it, part| it.pause(part));
        self.with_overlay(now, fx, |it, part| it.pause(part));
        self.with_liveness(now, fx, |it, part| it.reset(part));
        self.list_version = 0;
        let card = self.session.card_mut();
        card.incarnation = incarnation;
        card.certificate = None;
        card.neighbors = Vec::new();
        card.degree = 0;
        let links: Vec<_> = self.session.open().map(|(link, _, _)| link).collect();
        for link in links {
            self.with_session(now, fx, |it, part| it.hangup(link, "a new life begins", part));
        }
    }

    fn on_overlay_event(&mut self, now: Now, event: overlay::Event, fx: &mut Fx) {
        match event {
            overlay::Event::Call { to } => self.with_session(now, fx, |it, part| {
                it.call(to, Intent::Link, CALL_TIMEOUT, part);
            }),
            overlay::Event::Hangup { link, reason } => {
                self.with_session(now, fx, |it, part| it.hangup(link, reason, part));
            }
            overlay::Event::WantMembers => {
                self.with_applicant(now, fx, |it, part| it.refresh(part));
            }
            overlay::Event::Linked { neighbor, link, dialed, degree } => {
                fx.emit(Event::Overlay(overlay::Event::Linked { neighbor, link, dialed, degree }));
                let incarnation = self.session.card().incarnation;
                self.with_gossip(now, fx, |it, part| {
                    it.on_link_up(now, link, part);
                    it.begin(incarnation, part);
                });
                if let Some(card) = self.session.peer(link).cloned() {
                    self.with_liveness(now, fx, |it, part| {
                        it.on_link_up(now, link, card.subject(), &card.neighbors, part);
                    });
                }
            }
            overlay::Event::Announce { neighbors } => {
                let card = self.session.card_mut();
                card.degree = u32::try_from(neighbors.len()).unwrap_or(u32::MAX);
                card.neighbors.clone_from(&neighbors);
                self.list_version += 1;
                let list = self.own_list();
                let seeds = self.applicant.seed_links().map(|(_, link)| link);
                for link in self.overlay.neighbors().values().copied().chain(seeds) {
                    fx.send(link, list.clone());
                }
                fx.emit(Event::Overlay(overlay::Event::Announce { neighbors }));
            }
            event @ overlay::Event::Unlinked { .. } => fx.emit(Event::Overlay(event)),
        }
    }

    fn own_list(&self) -> NeighborList {
        let neighbors = self.session.card().neighbors.clone();
        NeighborList::sign(&self.applicant.subject(), self.list_version, neighbors, &self.keys)
    }

    fn on_liveness_event(&mut self, now: Now, event: liveness::Event, fx: &mut Fx) {
        match event {
            liveness::Event::Probe { endpoint, timeout } => {
                self.with_prober(now, fx, |it, part| it.probe(endpoint, timeout, part));
            }
            liveness::Event::Ask { witness, request } => self.ask(now, witness, request, fx),
            liveness::Event::Report(report) => {
                for (_, link) in self.applicant.seed_links() {
                    fx.send(link, report.clone());
                }
                fx.emit(Event::Liveness(liveness::Event::Report(report)));
            }
            liveness::Event::Forged { link } => {
                let error = ErrorReply::new(ErrorCode::Invalid, "a finding that does not hold");
                self.with_session(now, fx, |it, part| it.refuse(link, Cause::Forged, error, part));
            }
            event @ (liveness::Event::Suspected { .. }
            | liveness::Event::Confirmed { .. }
            | liveness::Event::Cleared { .. }
            | liveness::Event::Doubtful { .. }
            | liveness::Event::NoHostPing
            | liveness::Event::Host { .. }) => fx.emit(Event::Liveness(event)),
        }
    }

    /// Puts a question to a witness, over its link if there is one.
    fn ask(&mut self, now: Now, witness: Endpoint, request: SuspectReq, fx: &mut Fx) {
        if let Some(link) = self.overlay.neighbors().get(&witness) {
            fx.send(*link, request);
            return;
        }
        self.errands.entry(witness).or_default().push(request);
        self.with_session(now, fx, |it, part| {
            it.call(witness, Intent::Errand, ERRAND_TIMEOUT, part);
        });
    }
}

impl Machine for PeerNode {
    type Command = Command;

    fn handle(&mut self, now: Now, input: Input<Self>, fx: &mut Fx) {
        match input {
            Input::Start => self.on_start(now, fx),
            Input::Accepted { link, from } => {
                self.with_session(now, fx, |it, part| it.on_accepted(link, from, part));
            }
            Input::Dialed { ticket, link } => {
                self.with_session(now, fx, |it, part| it.on_dialed(ticket, link, part));
            }
            Input::DialFailed { ticket, reason } => {
                self.with_session(now, fx, |it, part| it.on_dial_failed(ticket, reason, part));
            }
            Input::Received { link, msg } => {
                self.with_session(now, fx, |it, part| it.on_received(link, msg, part));
            }
            Input::Garbled { link, reason } => {
                self.with_session(now, fx, |it, part| it.on_garbled(link, &reason, part));
            }
            Input::Closed { link, reason } => {
                self.with_session(now, fx, |it, part| it.on_closed(link, &reason, part));
            }
            Input::Expired(timer) => self.on_timer(now, timer, fx),
            Input::HostPinged { host, answer } => {
                self.with_liveness(now, fx, |it, part| it.on_host_pinged(host, answer, part));
            }
            Input::Command(Command::Leave) => self.on_leave_command(now, fx),
        }
    }

    fn snapshot(&self) -> Vec<applicant::Record> {
        self.applicant.snapshot()
    }
}

impl PeerNode {
    fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Session(timer) => {
                self.with_session(now, fx, |it, part| it.on_timer(timer, part));
            }
            Timer::Probe(timer) => self.with_prober(now, fx, |it, part| it.on_timer(timer, part)),
            Timer::Applicant(timer) => {
                self.with_applicant(now, fx, |it, part| it.on_timer(now, timer, part));
            }
            Timer::Overlay(timer) => {
                self.with_overlay(now, fx, |it, part| it.on_timer(now, timer, part));
            }
            Timer::Gossip(timer) => {
                self.with_gossip(now, fx, |it, part| it.on_timer(now, timer, part));
            }
            Timer::Liveness(timer) => {
                self.with_liveness(now, fx, |it, part| it.on_timer(now, timer, part));
            }
        }
    }
}
