//! A peer's part of the membership: the peer asks to be admitted, and stays linked with the seeds.
//!
//! Invariants:
//! - Active only with a verified certificate for exactly this life (O1).
//! - A request goes out only when at least a quorum of seeds, chosen at random, is linked.
//! - A peer that learns of the end of its own life registers again under a new one (M8).

mod event;
mod lives;
mod renewal;
#[cfg(test)]
mod tests;

pub use event::{Config, Event, Record, Timer};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

use crate::machine::membership::seedbook::{Learned, SeedBook};
use crate::machine::{Effects, LinkId, NodeCall, NodeMessage, PingHost, Vocabulary};
use crate::model::statement::{Admission, Leave, MemberInstance, RegisterReq, Removal};
use crate::model::{Endpoint, Incarnation, KeyPair, Now, Rng, SeedId};
use crate::proto::hello::{NodeInfo, SeedKey};
use crate::proto::membership::{MemberLine, PeerListReq, PeerListResp, RegisterVote};
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Number of members above which a list is taken as hostile; twice what a seed admits.
const LIST_MAX: usize = 40_000;

#[derive(Debug)]
enum State {
    /// The peer calls seeds.
    Connecting,
    /// The request was sent; the seeds have not decided.
    Asking { yes: BTreeSet<SeedId>, no: BTreeMap<LinkId, ErrorReply> },
    /// The peer waits for the next attempt.
    Pausing,
    /// The peer is a member.
    Member(Box<Admission>),
    /// The peer is in a fleet without seeds, where admission needs no request.
    Alone,
    /// The peer has said goodbye.
    Gone,
}

/// The membership state of one peer.
#[derive(Debug)]
pub struct Applicant {
    config: Config,
    endpoint: Endpoint,
    keys: KeyPair,
    rng: Rng,
    book: SeedBook,
    incarnation: Incarnation,
    /// Incarnation that the next attempt must exceed.
    floor: Incarnation,
    /// Highest incarnation that was admitted.
    admitted: Incarnation,
    state: State,
    attempts: u32,
    /// True if this life ends in a while, because a yes to its removal is about.
    is_renewing: bool,
    links: BTreeMap<SeedId, LinkId>,
    calling: BTreeSet<SeedId>,
    /// Reasons why calls failed since the last pause.
    failed: BTreeMap<SeedId, String>,
    /// True if seeds will be called again. Calls that fail meanwhile do not put that off.
    is_reconnecting: bool,
    /// A certificate that cannot be judged before more keys are known.
    undecided: Option<Box<Admission>>,
    lists: BTreeMap<SeedId, Vec<MemberLine>>,
}

impl Vocabulary for Applicant {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Record;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Applicant>;

impl Applicant {
    /// Creates a peer that listens at `endpoint`, with the state that its journal remembers.
    pub fn new(
        config: Config,
        (endpoint, keys): (Endpoint, KeyPair),
        book: SeedBook,
        records: &[Record],
        rng: Rng,
    ) -> Self {
        let mut this = Self {
            config,
            endpoint,
            keys,
            rng,
            book,
            incarnation: Incarnation::default(),
            floor: Incarnation::default(),
            admitted: Incarnation::default(),
            state: State::Pausing,
            attempts: 0,
            is_renewing: false,
            links: BTreeMap::new(),
            calling: BTreeSet::new(),
            failed: BTreeMap::new(),
            is_reconnecting: false,
            undecided: None,
            lists: BTreeMap::new(),
        };
        for record in records {
            match record {
                Record::Incarnation { incarnation } => this.admitted = *incarnation,
                Record::SeedKey(known) => this.book.remember(*known),
                // The node itself remembers these.
                Record::Fleet { .. } | Record::Known { .. } => {}
            }
        }
        this.floor = this.admitted;
        this
    }

    /// The configured seeds and their keys.
    pub const fn book(&self) -> &SeedBook {
        &self.book
    }

    /// This peer's present life.
    pub fn subject(&self) -> MemberInstance {
        let Self { endpoint, incarnation, keys, .. } = self;
        MemberInstance { endpoint: *endpoint, incarnation: *incarnation, key: keys.public() }
    }

    /// The proof of membership, while this peer is a member.
    pub fn admission(&self) -> Option<&Admission> {
        match &self.state {
            State::Member(admission) => Some(admission),
            State::Connecting
            | State::Asking { .. }
            | State::Pausing
            | State::Alone
            | State::Gone => None,
        }
    }

    /// State of the registration, in one word.
    pub const fn state(&self) -> &'static str {
        match self.state {
            State::Connecting => "connecting",
            State::Asking { .. } => "asking",
            State::Pausing => "pausing",
            State::Member(_) | State::Alone => "member",
            State::Gone => "gone",
        }
    }

    /// The links to seeds.
    pub fn seed_links(&self) -> impl Iterator<Item = (SeedId, LinkId)> {
        self.links.iter().map(|(seed, link)| (*seed, *link))
    }

    /// The records that rebuild this state.
    pub fn snapshot(&self) -> Vec<Record> {
        let keys = self.book.known_keys().into_iter().map(Record::SeedKey);
        keys.chain([Record::Incarnation { incarnation: self.admitted }]).collect()
    }

    /// Begins the first attempt.
    pub fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.attempt(now, fx);
    }

    /// Begins a life in a fleet without seeds: admission needs no request, and the life lasts
    /// until the goodbye.
    pub fn begin_alone(&mut self, now: Now, fx: &mut Fx) {
        self.incarnation = self.floor.next(now.wall.0);
        self.state = State::Alone;
        self.keep_life(fx);
        fx.emit(Event::Attempt { incarnation: self.incarnation, number: 1 });
    }

    /// Takes a key that was proved at a seed's configured address. Returns whether it is
    /// the known one.
    pub fn on_seed_key(&mut self, shown: SeedKey, fx: &mut Fx) -> bool {
        match self.book.learn(shown.seed, shown.key) {
            Learned::New => {
                fx.persist(Record::SeedKey(shown));
                fx.emit(Event::SeedKeyLearnt(shown));
                true
            }
            Learned::Known => true,
            Learned::Contradicts { known } => {
                self.calling.remove(&shown.seed);
                let SeedKey { seed, key: shown, .. } = shown;
                self.failed.insert(seed, "its key changed".to_owned());
                fx.emit(Event::SeedKeyContradicted { seed, known, shown });
                false
            }
            Learned::NoSuchSeed => false,
        }
    }

    /// Takes the new link of a seed that has proved its key.
    pub fn on_seed_link(&mut self, seed: SeedId, link: LinkId, info: &NodeInfo, fx: &mut Fx) {
        self.calling.remove(&seed);
        self.links.insert(seed, link);
        for key in self.book.hint(seed, &info.seed_keys) {
            fx.persist(Record::SeedKey(key));
            fx.emit(Event::SeedKeyLearnt(key));
        }
        fx.emit(Event::SeedLink { seed, up: true, connected: self.links.len() });
        if let Some(undecided) = self.undecided.take() {
            self.on_commit(*undecided, fx);
        }
        match self.state {
            State::Connecting if self.links.len() >= self.book.quorum() => self.ask(fx),
            // This call may have been the last one under way, with too few seeds linked.
            State::Connecting => self.connect(fx),
            // The attempt fails early only when every linked seed has refused, so each is asked.
            State::Asking { .. } => fx.send(link, RegisterReq::sign(self.subject(), &self.keys)),
            State::Member(_) => fx.send(link, PeerListReq::SAMPLE),
            State::Pausing | State::Alone | State::Gone => {}
        }
    }

    /// Takes the failure of a call to a seed.
    pub fn on_call_failed(&mut self, to: Endpoint, reason: &str, fx: &mut Fx) {
        let Some(seed) = self.book.seed_at(to) else { return };
        self.calling.remove(&seed);
        self.failed.insert(seed, reason.to_owned());
        self.connect(fx);
    }

    /// Takes the end of a seed's link.
    pub fn on_link_down(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(seed) = self.seed_of(link) else { return };
        self.links.remove(&seed);
        self.lists.remove(&seed);
        fx.emit(Event::SeedLink { seed, up: false, connected: self.links.len() });
        match &self.state {
            State::Connecting => {
                self.failed.insert(seed, "it hung up".to_owned());
                self.connect(fx);
            }
            State::Asking { no, .. } => {
                let refusal = no.values().next_back().map(|it| it.reason.clone());
                self.fail_if_refused(refusal.as_deref().unwrap_or("all seeds hung up"), fx);
            }
            State::Member(_) => self.reconnect_later(self.config.reconnect, fx),
            State::Pausing | State::Alone | State::Gone => {}
        }
    }

    /// Takes a seed's answer, from that seed or relayed by another.
    pub fn on_vote(&mut self, vote: &RegisterVote, fx: &mut Fx) {
        let subject = self.subject();
        if (vote.endpoint, vote.incarnation) != (subject.endpoint, subject.incarnation) {
            return;
        }
        let needed = self.book.quorum();
        let State::Asking { yes, .. } = &mut self.state else { return };
        let is_news = !vote.yes || yes.insert(vote.seed);
        if is_news {
            let (seed, reason, count) = (vote.seed, vote.reason.clone(), yes.len());
            fx.emit(Event::Voted { seed, yes: vote.yes, reason, count, needed });
        }
    }

    /// Takes the proof of this peer's own admission. The proof holds also after a seed has refused
    /// the request: that seed was too early, or it lied.
    pub fn on_commit(&mut self, admission: Admission, fx: &mut Fx) {
        let is_out = matches!(self.state, State::Asking { .. } | State::Pausing);
        if admission.subject() != self.subject() || !is_out {
            return;
        }
        match self.book.verify_admission(&admission) {
            Ok(()) => {
                fx.stop_timer(Timer::Decision);
                fx.stop_timer(Timer::Retry);
                self.attempts = 0;
                self.failed.clear();
                self.state = State::Member(Box::new(admission.clone()));
                self.keep_life(fx);
                fx.emit(Event::Admitted(Box::new(admission)));
                self.refresh(fx);
            }
            Err(error) if error.unknown > 0 => {
                self.want_keys(admission.votes.iter().map(|vote| vote.seed), fx);
                self.undecided = Some(Box::new(admission));
            }
            Err(_) => {}
        }
    }

    /// Takes a seed's refusal. A request has failed when all linked seeds have refused it: a seed
    /// that has not has passed it on and may still admit this peer.
    pub fn on_error(&mut self, link: LinkId, error: &ErrorReply, fx: &mut Fx) {
        if self.seed_of(link).is_none() {
            return;
        }
        if matches!((&self.state, error.code), (State::Member(_), ErrorCode::NotAllowed)) {
            // To this seed the link is no member's. Shaking hands anew settles it: either the
            // certificate is believed, or the proof that it has ended comes back (M8).
            return fx.emit(Event::Hangup { link });
        }
        let State::Asking { no, .. } = &mut self.state else { return };
        match error.code {
            ErrorCode::EndpointTaken
            | ErrorCode::Rejected
            | ErrorCode::Busy
            | ErrorCode::Removed
            | ErrorCode::Banned
            | ErrorCode::Invalid
            | ErrorCode::NotAllowed => {
                no.insert(link, error.clone());
                // One seed alone refuses no peer: the others may still decide.
                self.fail_if_refused(&error.reason, fx);
            }
            ErrorCode::Malformed
            | ErrorCode::Handshake
            | ErrorCode::ClusterKey
            | ErrorCode::WrongRole => {}
        }
    }

    /// Takes a removal whose certificate is valid. If it ends this peer's own life, M8 applies.
    pub fn on_removal(&mut self, now: Now, removal: &Removal, fx: &mut Fx) {
        if !removal.ends(&self.subject()) || !matches!(self.state, State::Member(_)) {
            return;
        }
        fx.emit(Event::Evicted { removal: Box::new(removal.clone()), life: self.subject() });
        self.attempt(now, fx);
    }

    /// Takes a page of a member list.
    pub fn on_peer_list(&mut self, link: LinkId, page: PeerListResp, fx: &mut Fx) {
        let Some(seed) = self.seed_of(link) else { return };
        let list = self.lists.entry(seed).or_default();
        let after = page.members.last().map(|member| member.endpoint);
        list.extend(page.members);
        match after {
            Some(after) if page.more && list.len() < LIST_MAX => {
                fx.send(link, PeerListReq { after: Some(after), ..PeerListReq::SAMPLE });
            }
            _ => {
                let members = self.lists.remove(&seed).unwrap_or_default();
                fx.emit(Event::Members { seed, members });
            }
        }
    }

    /// Fetches the member lists of all linked seeds.
    pub fn refresh(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Refresh, self.jitter(self.config.refresh));
        for link in self.links.values() {
            fx.send(*link, PeerListReq::SAMPLE);
        }
    }

    /// Calls the seeds whose keys are needed to judge a certificate.
    pub fn want_keys(&mut self, seeds: impl IntoIterator<Item = SeedId>, fx: &mut Fx) {
        let is_wanted =
            |seed: &SeedId| self.book.key(*seed).is_none() && !self.links.contains_key(seed);
        let mut wanted: Vec<_> = seeds.into_iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            // The voters' lists may have another order.
            wanted = self.book.seeds().map(|(seed, _)| seed).filter(is_wanted).collect();
        }
        for seed in wanted {
            self.call(seed, fx);
        }
    }

    /// Says goodbye to the seeds (M7). The peer asks for nothing afterwards.
    pub fn leave(&mut self, now: Now, fx: &mut Fx) -> Option<Leave> {
        let was_member = matches!(self.state, State::Member(_) | State::Alone);
        for timer in [Timer::Decision, Timer::Retry, Timer::Reconnect, Timer::Refresh, Timer::Renew]
        {
            fx.stop_timer(timer);
        }
        self.state = State::Gone;
        was_member.then(|| Leave::sign(self.subject(), now.wall, &self.keys))
    }

    /// A deadline passed.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Decision => {
                let reason = match self.state {
                    State::Connecting => self.unreachable(),
                    State::Asking { .. }
                    | State::Pausing
                    | State::Member(_)
                    | State::Alone
                    | State::Gone => "the seeds did not decide in time".to_owned(),
                };
                self.fail(&reason, fx);
            }
            Timer::Retry | Timer::Renew => self.attempt(now, fx),
            Timer::Reconnect => {
                self.is_reconnecting = false;
                self.failed.clear();
                self.connect(fx);
            }
            Timer::Refresh => self.refresh(fx),
        }
    }

    /// Calls as many seeds as a quorum lacks, at random among those not tried yet.
    fn connect(&mut self, fx: &mut Fx) {
        if matches!(self.state, State::Pausing | State::Alone | State::Gone) {
            return;
        }
        let quorum = self.book.quorum();
        let missing = quorum.saturating_sub(self.links.len() + self.calling.len());
        let is_free = |seed: &SeedId| {
            !self.links.contains_key(seed)
                && !self.calling.contains(seed)
                && !self.failed.contains_key(seed)
        };
        let candidates = self.book.seeds().map(|(id, _)| id).filter(is_free);
        let chosen = candidates.sample(&mut self.rng, missing);
        let is_stuck = chosen.len() < missing && self.calling.is_empty();
        for seed in chosen {
            self.call(seed, fx);
        }
        // No seed is left to call: the attempt has failed; a member tries again later.
        if is_stuck && self.calling.is_empty() {
            match self.state {
                State::Connecting => {
                    let reason = self.unreachable();
                    self.fail(&reason, fx);
                }
                State::Member(_) => self.reconnect_later(self.config.reconnect * 2, fx),
                State::Asking { .. } | State::Pausing | State::Alone | State::Gone => {}
            }
        }
    }

    fn reconnect_later(&mut self, span: Duration, fx: &mut Fx) {
        if !std::mem::replace(&mut self.is_reconnecting, true) {
            let pause = self.jitter(span);
            fx.set_timer(Timer::Reconnect, pause);
        }
    }

    fn call(&mut self, seed: SeedId, fx: &mut Fx) {
        if let Some(to) = self.book.endpoint(seed)
            && self.calling.insert(seed)
        {
            fx.emit(Event::Call { to });
        }
    }

    fn unreachable(&self) -> String {
        let quorum = self.book.quorum();
        // Each reason once, with all seeds to which it applies.
        let mut whose: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (seed, why) in &self.failed {
            whose.entry(why).or_default().push(format!("seed {seed}"));
        }
        let reasons: Vec<_> =
            whose.iter().map(|(why, seeds)| format!("{}: {why}", seeds.join(", "))).collect();
        format!(
            "no quorum: {} of {quorum} needed seeds in reach ({})",
            self.links.len(),
            reasons.join("; "),
        )
    }

    fn ask(&mut self, fx: &mut Fx) {
        self.state = State::Asking { yes: BTreeSet::new(), no: BTreeMap::new() };
        let request = RegisterReq::sign(self.subject(), &self.keys);
        for link in self.links.values() {
            fx.send(*link, request);
        }
        let seeds = self.links.keys().copied().collect();
        fx.emit(Event::Asked { seeds, needed: self.book.quorum() });
        fx.set_timer(Timer::Decision, self.config.decision_timeout);
    }

    fn seed_of(&self, link: LinkId) -> Option<SeedId> {
        self.links.iter().find(|(_, it)| **it == link).map(|(seed, _)| *seed)
    }

    /// Returns a random value between three and five quarters of `span`, so that the peers of a
    /// fleet do not retry in step.
    fn jitter(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.random_range(0.75..1.25))
    }
}
