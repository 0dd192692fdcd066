//! The session: the handshake of a link, and the messages that each standing may send.
//!
//! HELLO, HELLO_ACK, HELLO_PROOF: each side signs the other's challenge, so a name and a key
//! cannot be claimed, replayed or relayed. On an encrypted connection each signs that connection,
//! too, so that no other holder of the cluster key can stand in the middle. The same handshake, cut
//! short after the ACK, is the *probe* by which liveness and dial-back ask "does this key answer
//! there, and in which life".
//!
//! Invariants:
//! - A message reaches the node only if its link's standing allows it ([`Message::needs`]).
//! - A link that has not completed its handshake in time is closed; of the unproven ones only
//!   `unproven_max` are kept, so silent connections lock no peer out.
//! - Nothing is sent on a link after it was hung up.

mod config;
mod event;
mod handshake;
mod link;
mod timers;

pub use config::Config;
pub use event::{CallError, Event, RejectReason};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use handshake::{fleet_objection, objection};
use link::{Call, Link, Stage};

use crate::machine::{DialError, DialId, Effects, LinkId};
use crate::model::{Binding, Endpoint, KeyPair, Nonce, PublicKey, Rng};
use crate::proto::hello::{
    Bye, CALLED, CALLER, Hello, HelloAck, HelloProof, Intent, NodeInfo, VERSION,
};
use crate::proto::message::{Message, SessionMessage, TrustLevel};
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Beginning of the complaint about a message or word that only newer versions know.
const UNKNOWN: &str = "unknown variant ";

/// Number of offenses (garbled lines, messages above the link's standing) that end a link.
const OFFENSES_MAX: u32 = 16;

/// Number of silent rounds after which a link is closed; in all but the first it is pinged.
const QUIET_ROUNDS_MAX: u32 = 4;

/// Time-out of a query: a witness's fresh probe at its most patient, and room to spare.
const ERRAND_MAX: Duration = Duration::from_secs(10);

/// Time that a node without a certificate may keep a link: longer than any admission takes.
const APPLICANT_MAX: Duration = Duration::from_secs(30);

/// Number of queries of one member that are served at once, and of all callers together.
const ERRANDS_MAX: usize = 8;
const ERRANDS_OF_ALL_MAX: usize = 512;

/// Deadlines of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A handshake, or a query, has taken long enough.
    Handshake(LinkId),
    /// The links are checked for silence.
    KeepAlive,
}

/// The handshakes and link standings of one node.
#[derive(Debug)]
pub struct Session {
    config: Config,
    keys: KeyPair,
    info: NodeInfo,
    rng: Rng,
    links: BTreeMap<LinkId, Link>,
    /// Links that count against `unproven_max`: a seed has thousands of others.
    unproven: BTreeSet<LinkId>,
    /// Links by which others send queries.
    errands: BTreeSet<LinkId>,
    calls: BTreeMap<DialId, Call>,
    /// Endpoints and purposes of the calls from the dialing to the end of the handshake.
    calling: BTreeSet<(Endpoint, Intent)>,
    tickets: u64,
}

type Fx = Effects<Session>;

impl Session {
    /// Creates a session for the holder of `keys`, which introduces itself with `info`.
    pub const fn new(config: Config, keys: KeyPair, info: NodeInfo, rng: Rng) -> Self {
        Self {
            config,
            keys,
            info,
            rng,
            links: BTreeMap::new(),
            unproven: BTreeSet::new(),
            errands: BTreeSet::new(),
            calls: BTreeMap::new(),
            calling: BTreeSet::new(),
            tickets: 0,
        }
    }

    /// This node's info, for changes that hold from now on.
    pub const fn info_mut(&mut self) -> &mut NodeInfo {
        &mut self.info
    }

    /// This node's info.
    pub const fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// Node info of the other end of an open link.
    pub fn peer(&self, link: LinkId) -> Option<&Arc<NodeInfo>> {
        let Stage::Open { info, .. } = &self.links.get(&link)?.stage else { return None };
        Some(info)
    }

    /// Standing of the other end of a link.
    pub fn standing(&self, link: LinkId) -> TrustLevel {
        match self.links.get(&link).map(|link| &link.stage) {
            Some(Stage::Open { standing, .. }) => *standing,
            _ => TrustLevel::Stranger,
        }
    }

    /// True if the link exists and was not hung up.
    pub fn is_live(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// The IP address at the other end of a link.
    pub fn address(&self, link: LinkId) -> Option<IpAddr> {
        self.links.get(&link).map(|link| link.from)
    }

    /// The open links, with the node info and the standing of the other end.
    pub fn open(&self) -> impl Iterator<Item = (LinkId, &NodeInfo, TrustLevel)> {
        self.links.iter().filter_map(|(id, link)| match &link.stage {
            Stage::Open { info, standing, .. } => Some((*id, &**info, *standing)),
            Stage::Fresh | Stage::Challenged { .. } | Stage::Probed | Stage::Calling { .. } => None,
        })
    }

    /// Calls `to`; ends in exactly one of `Opened`, `Answered` or `Failed`. A call for the same
    /// purpose that is still under way serves for both.
    pub fn call(&mut self, to: Endpoint, intent: Intent, timeout: Duration, fx: &mut Fx) {
        self.call_within(to, intent, (timeout, timeout), fx);
    }

    /// Calls `to` with a time-out of its own for the connection, and one for the answer.
    pub fn call_within(
        &mut self,
        to: Endpoint,
        intent: Intent,
        (connect, timeout): (Duration, Duration),
        fx: &mut Fx,
    ) {
        if !self.calling.insert((to, intent)) {
            return;
        }
        self.tickets += 1;
        let ticket = DialId(self.tickets);
        self.calls.insert(ticket, Call { to, intent, timeout });
        fx.dial(ticket, to, connect);
    }

    /// Gives an opened link its standing, or changes it later. Below a member's standing, a link
    /// does not last.
    pub fn admit(&mut self, link: LinkId, as_standing: TrustLevel, fx: &mut Fx) {
        if let Some(Link { stage: Stage::Open { standing, .. }, .. }) = self.links.get_mut(&link) {
            *standing = as_standing;
            if as_standing >= TrustLevel::Member {
                self.unproven.remove(&link);
            } else {
                self.unproven.insert(link);
                fx.set_timer(Timer::Handshake(link), APPLICANT_MAX);
            }
        }
    }

    /// Replaces the neighbors in the node info of the other end.
    pub fn update_neighbors(&mut self, link: LinkId, neighbors: &[Endpoint]) {
        if let Some(Link { stage: Stage::Open { info, .. }, .. }) = self.links.get_mut(&link) {
            let info = Arc::make_mut(info);
            info.neighbors = neighbors.to_vec();
            info.degree = u32::try_from(neighbors.len()).unwrap_or(u32::MAX);
        }
    }

    /// Closes a link from this side, with a BYE if it is open. Its `Closed` event follows at once;
    /// nothing may be sent on the link afterwards.
    pub fn hangup(&mut self, link: LinkId, reason: &str, fx: &mut Fx) {
        let Some(entry) = self.links.get(&link) else { return };
        if matches!(entry.stage, Stage::Open { .. }) {
            fx.send(link, Bye { reason: reason.to_owned() });
        }
        fx.hangup(link);
        self.forget(link, reason, true, fx);
    }

    /// Refuses a message of the other end: tells it the error, and counts the offense.
    pub fn refuse(&mut self, link: LinkId, cause: RejectReason, error: ErrorReply, fx: &mut Fx) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.offenses += 1;
        let (from, offenses) = (entry.from, entry.offenses);
        fx.emit(Event::Refused { from, cause, detail: error.reason.clone() });
        fx.send(link, error);
        if offenses >= OFFENSES_MAX {
            self.hangup(link, "too many offenses", fx);
        }
    }

    /// Takes an incoming connection.
    pub fn on_accepted(
        &mut self,
        link: LinkId,
        from: IpAddr,
        binding: Option<Binding>,
        fx: &mut Fx,
    ) {
        self.make_room(fx);
        self.links.insert(link, Link::new(from, Stage::Fresh, binding));
        self.unproven.insert(link);
        fx.set_timer(Timer::Handshake(link), self.config.handshake_timeout);
    }

    /// Says HELLO on the connection of a call.
    pub fn on_dialed(
        &mut self,
        ticket: DialId,
        link: LinkId,
        binding: Option<Binding>,
        fx: &mut Fx,
    ) {
        let Some(Call { to, intent, timeout }) = self.calls.remove(&ticket) else {
            fx.hangup(link);
            return;
        };
        let nonce = Nonce::random(&mut self.rng);
        let stage = Stage::Calling { to, intent, nonce };
        self.links.insert(link, Link::new(to.ip(), stage, binding));
        let info = match intent {
            Intent::Link | Intent::Errand | Intent::Direct => self.info.clone(),
            // A probe needs a name and a key for the answer to be bound to, and nothing more.
            Intent::Probe => NodeInfo {
                neighbors: Vec::new(),
                certificate: None,
                seed_keys: Vec::new(),
                ..self.info.clone()
            },
        };
        fx.send(link, Hello { version: VERSION, intent, nonce, info });
        fx.set_timer(Timer::Handshake(link), timeout);
    }

    /// Ends a call that could not be connected.
    pub fn on_dial_failed(&mut self, ticket: DialId, reason: DialError, fx: &mut Fx) {
        if let Some(Call { to, intent, .. }) = self.calls.remove(&ticket) {
            self.calling.remove(&(to, intent));
            fx.emit(Event::Failed { to, intent, error: CallError::Dial(reason) });
        }
    }

    /// Takes a message: one of the handshake, or one for the node if the link's standing allows it.
    pub fn on_received(&mut self, link: LinkId, mut msg: Message, fx: &mut Fx) {
        msg.shorten_reason();
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.quiet_rounds = 0;
        match SessionMessage::try_from(msg) {
            Ok(SessionMessage::Hello(hello)) => self.on_hello(link, hello, fx),
            Ok(SessionMessage::HelloAck(ack)) => self.on_hello_ack(link, ack, fx),
            Ok(SessionMessage::HelloProof(proof)) => self.on_hello_proof(link, proof, fx),
            Ok(SessionMessage::Error(error)) => self.on_error(link, error, fx),
            Ok(SessionMessage::Bye(Bye { reason })) => entry.bye = Some(reason),
            Err(msg) => self.pass_on(link, msg, fx),
        }
    }

    /// Hands a message to the node if the link's standing allows it, and refuses it otherwise.
    fn pass_on(&mut self, link: LinkId, msg: Message, fx: &mut Fx) {
        let (name, needs) = (msg.name(), msg.needs());
        if needs <= self.standing(link) {
            return fx.emit(Event::Message { link, msg: Box::new(msg) });
        }
        let reason = match needs {
            TrustLevel::Stranger | TrustLevel::Applicant => {
                format!("{name} needs a handshake first: say HELLO")
            }
            TrustLevel::Member => format!("{name} is taken from certified members only"),
            TrustLevel::Seed => format!("{name} is taken from configured seeds only"),
        };
        let error = ErrorReply::new(ErrorCode::NotAllowed, reason);
        self.refuse(link, RejectReason::NotAllowed, error, fx);
    }

    /// Takes a line that is no message.
    pub fn on_garbled(&mut self, link: LinkId, reason: &str, fx: &mut Fx) {
        // A member of a newer version says words that this one does not know: it is told once, and
        // no more of them count.
        let is_newer = reason.starts_with(UNKNOWN) && self.standing(link) >= TrustLevel::Member;
        let was_told = self.links.get(&link).is_some_and(|it| it.offenses > 0);
        if self.is_live(link) && !(is_newer && was_told) {
            let error = ErrorReply::new(ErrorCode::Malformed, reason);
            self.refuse(link, RejectReason::Garbled, error, fx);
        }
    }

    /// Takes the end of a link.
    pub fn on_closed(&mut self, link: LinkId, reason: &str, fx: &mut Fx) {
        if let Some(entry) = self.links.get(&link) {
            let bye = entry.bye.clone();
            self.forget(link, bye.as_deref().unwrap_or(reason), bye.is_some(), fx);
        }
    }

    /// Starts the keep-alive.
    pub fn on_start(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::KeepAlive, self.config.keep_alive);
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Handshake(link) => self.on_handshake_timer(link, fx),
            Timer::KeepAlive => self.on_keep_alive(fx),
        }
    }

    fn on_hello(&mut self, link: LinkId, hello: Hello, fx: &mut Fx) {
        let Some(Link { stage: Stage::Fresh, binding, .. }) = self.links.get(&link) else {
            return self.reject(link, "HELLO must be a caller's first message, once", fx);
        };
        if hello.version != VERSION {
            let reason = format!("version {} is not spoken here, {VERSION} is", hello.version);
            return self.reject(link, &reason, fx);
        }
        if let Some(reason) = objection(&hello.info, &self.info) {
            return self.reject(link, &reason, fx);
        }
        let answer = self.info.proof_bytes(CALLED, &hello.nonce, &hello.info.key, *binding);
        let proof = self.keys.sign(&answer);
        let nonce = Nonce::random(&mut self.rng);
        let (stage, info) = match hello.intent {
            intent @ (Intent::Link | Intent::Errand | Intent::Direct) => {
                let info = Arc::new(hello.info);
                (Stage::Challenged { info, nonce, intent }, self.info.clone())
            }
            Intent::Probe => {
                (Stage::Probed, NodeInfo { neighbors: Vec::new(), ..self.info.clone() })
            }
        };
        if let Some(entry) = self.links.get_mut(&link) {
            entry.stage = stage;
        }
        fx.send(link, HelloAck { version: VERSION, nonce, proof, info });
    }

    fn on_hello_ack(&mut self, link: LinkId, ack: HelloAck, fx: &mut Fx) {
        let Some(Link { stage: Stage::Calling { to, intent, nonce }, binding, .. }) =
            self.links.get(&link)
        else {
            return self.reject(link, "HELLO_ACK answers a HELLO, which was not sent", fx);
        };
        let (to, intent, nonce, binding) = (*to, *intent, *nonce, *binding);
        let statement = ack.info.proof_bytes(CALLED, &nonce, &self.info.key, binding);
        let proved = ack.version == VERSION
            && ack.info.excess().is_none()
            && ack.info.key.verifies(&statement, &ack.proof);
        let foreign = fleet_objection(&ack.info, &self.info);
        match intent {
            _ if !proved => {
                self.end_call(link, (to, intent), fx);
                fx.emit(Event::Failed { to, intent, error: CallError::BadProof });
            }
            Intent::Probe => {
                self.end_call(link, (to, intent), fx);
                fx.emit(Event::Answered { to, info: Arc::new(ack.info) });
            }
            Intent::Link | Intent::Errand | Intent::Direct if ack.info.endpoint != to => {
                let reason = format!("{} answers there", ack.info.endpoint);
                self.fail_call(link, (to, intent), CallError::Rejected(reason), fx);
            }
            Intent::Link | Intent::Errand | Intent::Direct if foreign.is_some() => {
                let error = CallError::Rejected(foreign.unwrap_or_default());
                self.fail_call(link, (to, intent), error, fx);
            }
            Intent::Link | Intent::Errand | Intent::Direct => {
                self.calling.remove(&(to, intent));
                let answer = self.info.proof_bytes(CALLER, &ack.nonce, &ack.info.key, binding);
                fx.send(link, HelloProof { proof: self.keys.sign(&answer) });
                self.open_link(link, Arc::new(ack.info), (true, intent), fx);
            }
        }
    }

    fn on_hello_proof(&mut self, link: LinkId, HelloProof { proof }: HelloProof, fx: &mut Fx) {
        let Some(Link { stage: Stage::Challenged { info, nonce, intent }, binding, .. }) =
            self.links.get(&link)
        else {
            return self.reject(link, "HELLO_PROOF answers a HELLO_ACK, which was not sent", fx);
        };
        let statement = info.proof_bytes(CALLER, nonce, &self.info.key, *binding);
        if !info.key.verifies(&statement, &proof) {
            return self.reject(link, "the proof does not match the key in HELLO", fx);
        }
        let (info, intent) = (info.clone(), *intent);
        if intent == Intent::Errand {
            if self.errands_of(&info.key) >= ERRANDS_MAX {
                let reason = format!("more than {ERRANDS_MAX} errands at once");
                return self.reject(link, &reason, fx);
            }
            self.errands.insert(link);
            self.make_room_for_errand(fx);
        }
        self.open_link(link, info, (false, intent), fx);
    }

    /// By the key, which is proved: an endpoint may be claimed by anybody.
    fn errands_of(&self, caller: &PublicKey) -> usize {
        let peers = self.errands.iter().filter_map(|link| self.peer(*link));
        peers.filter(|info| info.key == *caller).count()
    }

    fn open_link(
        &mut self,
        link: LinkId,
        info: Arc<NodeInfo>,
        (dialed, intent): (bool, Intent),
        fx: &mut Fx,
    ) {
        if let Some(entry) = self.links.get_mut(&link) {
            let standing = TrustLevel::Stranger;
            entry.stage = Stage::Open { info: Arc::clone(&info), standing, intent };
            self.unproven.insert(link);
        }
        match intent {
            Intent::Link | Intent::Probe | Intent::Direct => {
                fx.stop_timer(Timer::Handshake(link));
            }
            Intent::Errand => fx.set_timer(Timer::Handshake(link), ERRAND_MAX),
        }
        fx.emit(Event::Opened { link, info, dialed, intent });
    }

    /// An ERROR during a call is its failure; later it is told to the node.
    fn on_error(&mut self, link: LinkId, error: ErrorReply, fx: &mut Fx) {
        let Some(Link { stage: Stage::Calling { to, intent, .. }, .. }) = self.links.get(&link)
        else {
            return fx.emit(Event::Error { link, error });
        };
        let call = (*to, *intent);
        self.fail_call(link, call, CallError::told(error), fx);
    }

    fn fail_call(&mut self, link: LinkId, call: (Endpoint, Intent), error: CallError, fx: &mut Fx) {
        self.end_call(link, call, fx);
        let (to, intent) = call;
        fx.emit(Event::Failed { to, intent, error });
    }

    /// Ends a call, and its link with it.
    fn end_call(&mut self, link: LinkId, call: (Endpoint, Intent), fx: &mut Fx) {
        self.calling.remove(&call);
        self.links.remove(&link);
        fx.stop_timer(Timer::Handshake(link));
        fx.hangup(link);
    }

    fn reject(&mut self, link: LinkId, reason: &str, fx: &mut Fx) {
        let error = ErrorReply::new(ErrorCode::Handshake, reason);
        self.refuse(link, RejectReason::BadHandshake, error, fx);
        self.hangup(link, reason, fx);
    }

    fn forget(&mut self, link: LinkId, reason: &str, is_agreed: bool, fx: &mut Fx) {
        let Some(entry) = self.links.remove(&link) else { return };
        self.unproven.remove(&link);
        self.errands.remove(&link);
        fx.stop_timer(Timer::Handshake(link));
        match entry.stage {
            Stage::Fresh | Stage::Challenged { .. } | Stage::Probed => {}
            Stage::Calling { to, intent, .. } => {
                self.calling.remove(&(to, intent));
                // Hung up by this side after the time-out.
                let error = if is_agreed { CallError::Silent } else { CallError::Closed };
                fx.emit(Event::Failed { to, intent, error });
            }
            Stage::Open { info, .. } => {
                fx.emit(Event::Closed { link, info, is_agreed, reason: reason.to_owned() });
            }
        }
    }
}
