//! Liveness: watches the neighbors, doubts itself first, asks witnesses, and only then reports.
//!
//! A link that breaks without a goodbye, or three pings in a row without an answer, start a burst
//! of fresh probes. If those fail too, the suspect's own neighbors are asked; each answers from a
//! fresh probe of its own, signed. Only a majority makes a report, which carries the signatures to
//! the seeds; these probe for themselves (O3, O4, O5).
//!
//! Invariants:
//! - No single failed ping or probe accuses a member.
//! - A node that is late itself neither accuses nor testifies against others until it
//!   has caught up.
//! - The watch removes no member: that takes a certificate (O6).

mod event;
mod suspicion;
#[cfg(test)]
mod tests;

pub use event::{Config, Event, Timer};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::machine::health::{LocalHealth, RoundTrip};
use crate::machine::probe::ProbeOutcome;
use crate::machine::{
    Effects, HostAnswer, LinkId, Never, NodeCall, NodeMessage, PingHost, Vocabulary,
};
use crate::model::statement::{Confirmation, Finding, MemberInstance};
use crate::model::{Endpoint, Incarnation, KeyPair, Now, Time};
use crate::proto::liveness::{Ping, Pong, SuspectReq};

/// Number of suspects that others may have asked about at once, and of askers of each: both far
/// above the numbers that a hub's death causes, so that a flood of requests cannot fill the memory.
const REQUESTS_MAX: usize = 512;

/// Number of witnesses that are asked at first beyond those needed.
const SPARE_WITNESSES: usize = 2;

/// Number of times that a suspicion is probed without enough confirmations before it is dropped.
const ROUNDS_MAX: u32 = 5;

#[derive(Debug)]
struct Watch {
    subject: MemberInstance,
    link: LinkId,
    /// The neighbor's own neighbors, as it last named them: its witnesses.
    neighbors: BTreeSet<Endpoint>,
    heard: Time,
    pinged: Option<(u64, Time)>,
    misses: u32,
    round_trip: RoundTrip,
}

#[derive(Debug)]
struct Suspicion {
    subject: MemberInstance,
    neighbors: BTreeSet<Endpoint>,
    stage: Stage,
    confirmations: BTreeMap<Endpoint, Confirmation>,
    asked: BTreeSet<Endpoint>,
    unreachable: BTreeSet<Endpoint>,
    /// True if all witnesses have been asked, and have a last interval to answer.
    is_last_call: bool,
    /// True if others who ask have put off this node's own turn; once a round, or one that lies
    /// could keep it from asking.
    has_yielded: bool,
    rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The suspicion waits, because this node doubts itself.
    Held,
    /// This node's own probe is under way.
    Probing,
    /// This node's own probe failed; witnesses are asked, or will be at this node's turn.
    Asking,
    /// The seeds have been told.
    Reported,
}

/// The watch of one peer over its neighbors.
#[derive(Debug)]
pub struct Liveness {
    config: Config,
    me: Endpoint,
    keys: KeyPair,
    watched: BTreeMap<Endpoint, Watch>,
    suspects: BTreeMap<Endpoint, Suspicion>,
    /// Links of the askers about each life, until the probe is over.
    requests: BTreeMap<MemberInstance, BTreeSet<LinkId>>,
    health: LocalHealth,
    look_due: Time,
    nonce: u64,
    others: usize,
    hosts: BTreeMap<IpAddr, HostAnswer>,
    has_host_ping: bool,
}

impl Vocabulary for Liveness {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Liveness>;

impl Liveness {
    /// Creates the watch of the peer at `me`.
    pub fn new(config: Config, me: Endpoint, keys: KeyPair) -> Self {
        Self {
            config,
            me,
            keys,
            watched: BTreeMap::new(),
            suspects: BTreeMap::new(),
            requests: BTreeMap::new(),
            health: LocalHealth::default(),
            look_due: Time::ZERO,
            nonce: 0,
            others: 0,
            hosts: BTreeMap::new(),
            has_host_ping: true,
        }
    }

    /// Starts the timers.
    pub fn on_start(&mut self, now: Now, fx: &mut Fx) {
        self.look_due = now.mono.after(self.config.ping_interval);
        fx.set_timer(Timer::Look, self.config.ping_interval);
        fx.set_timer(Timer::Host, self.config.host_ping_interval);
    }

    /// Sets the number of other members, as far as is known.
    pub const fn set_others(&mut self, others: usize) {
        self.others = others;
    }

    /// Score of this node's distrust of itself, 0 to 7.
    pub const fn health_score(&self) -> u32 {
        self.health.score()
    }

    /// The measured round trip to a neighbor.
    pub fn round_trip(&self, neighbor: Endpoint) -> Option<Duration> {
        self.watched.get(&neighbor)?.round_trip.mean()
    }

    /// The lives that are suspected now.
    pub fn suspects(&self) -> impl Iterator<Item = &MemberInstance> {
        self.suspects.values().map(|suspicion| &suspicion.subject)
    }

    /// Takes a neighbor's new link, which settles any suspicion of it.
    pub fn on_link_up(
        &mut self,
        now: Now,
        link: LinkId,
        subject: MemberInstance,
        neighbors: &[Endpoint],
        fx: &mut Fx,
    ) {
        self.clear(subject.endpoint, "it is linked again", fx);
        let watch = Watch {
            subject,
            link,
            neighbors: neighbors.iter().copied().collect(),
            heard: now.mono,
            pinged: None,
            misses: 0,
            round_trip: RoundTrip::default(),
        };
        self.watched.insert(subject.endpoint, watch);
    }

    /// Takes the end of any link: requests that came by it cannot be answered.
    pub fn on_asker_gone(&mut self, link: LinkId) {
        for askers in self.requests.values_mut() {
            askers.remove(&link);
        }
    }

    /// Takes the end of a neighbor's link. Unless that was agreed, the neighbor is suspected.
    pub fn on_link_down(&mut self, link: LinkId, neighbor: Endpoint, is_agreed: bool, fx: &mut Fx) {
        if self.watched.get(&neighbor).is_none_or(|watch| watch.link != link) {
            return;
        }
        let Some(watch) = self.watched.remove(&neighbor) else { return };
        if !is_agreed {
            self.suspect(watch.subject, watch.neighbors, "its link broke without a goodbye", fx);
        }
    }

    /// Takes a message of a neighbor as a sign of life.
    pub fn on_heard(&mut self, now: Now, neighbor: Endpoint) {
        if let Some(watch) = self.watched.get_mut(&neighbor) {
            watch.heard = now.mono;
            watch.misses = 0;
        }
    }

    /// Takes the neighbors that a neighbor names.
    pub fn on_neighbors(&mut self, neighbor: Endpoint, theirs: &[Endpoint]) {
        if let Some(watch) = self.watched.get_mut(&neighbor) {
            watch.neighbors = theirs.iter().copied().collect();
        }
    }

    /// Takes the answer to a ping.
    pub fn on_pong(&mut self, now: Now, neighbor: Endpoint, pong: Pong) {
        if let Some(watch) = self.watched.get_mut(&neighbor)
            && let Some((nonce, sent)) = watch.pinged
            && nonce == pong.nonce
        {
            watch.pinged = None;
            watch.round_trip.measured(now.mono.since(sent));
        }
    }

    /// Ends the watch and the suspicion of a life that ended by certificate or goodbye (O6).
    pub fn on_gone(&mut self, endpoint: Endpoint, incarnation: Incarnation, fx: &mut Fx) {
        let is_over = |subject: &MemberInstance| subject.incarnation <= incarnation;
        if self.suspects.get(&endpoint).is_some_and(|it| is_over(&it.subject)) {
            self.suspects.remove(&endpoint);
            fx.stop_timer(Timer::Ask(endpoint));
        }
        if self.watched.get(&endpoint).is_some_and(|it| is_over(&it.subject)) {
            self.watched.remove(&endpoint);
        }
        // A dead member is no witness.
        for watch in self.watched.values_mut() {
            watch.neighbors.remove(&endpoint);
        }
        for suspicion in self.suspects.values_mut() {
            suspicion.neighbors.remove(&endpoint);
        }
    }

    /// Forgets everything, because this peer begins a new life.
    pub fn reset(&mut self, fx: &mut Fx) {
        self.watched.clear();
        self.requests.clear();
        for endpoint in std::mem::take(&mut self.suspects).into_keys() {
            fx.stop_timer(Timer::Ask(endpoint));
        }
    }

    /// Takes a request to probe a suspect and to testify.
    ///
    /// A node that is asked about itself answers for itself at once, late or not (O4): `own` is
    /// this node's present life.
    pub fn on_suspect_req(
        &mut self,
        now: Now,
        (link, own): (LinkId, &MemberInstance),
        request: SuspectReq,
        fx: &mut Fx,
    ) {
        let subject = request.subject();
        if subject == *own {
            let me = (self.me, &self.keys);
            return fx.send(link, Confirmation::sign(own, Finding::Alive, me, now.wall));
        }
        let contradicts = self.watched.get(&subject.endpoint).is_some_and(|watch| {
            let MemberInstance { incarnation, key, .. } = watch.subject;
            incarnation == subject.incarnation && key != subject.key
        });
        if subject.endpoint == self.me || contradicts || self.health.is_doubtful() {
            return; // A late node's word is worth nothing (O4); others will be asked.
        }
        if self.requests.len() >= REQUESTS_MAX && !self.requests.contains_key(&subject) {
            return;
        }
        let askers = self.requests.entry(subject).or_default();
        if askers.len() < REQUESTS_MAX {
            askers.insert(link);
        }
        // Another node asks about it already: this node's own turn can wait.
        if let Some(suspicion) = self.suspects.get_mut(&subject.endpoint)
            && suspicion.stage == Stage::Asking
            && !std::mem::replace(&mut suspicion.has_yielded, true)
        {
            fx.set_timer(Timer::Ask(subject.endpoint), self.config.ask_interval);
        }
        fx.emit(Event::Probe { endpoint: subject.endpoint, timeout: self.probe_timeout() });
    }

    /// Takes the outcome of a probe, for askers and for this node's own suspicion.
    pub fn on_probed(&mut self, now: Now, endpoint: Endpoint, outcome: &ProbeOutcome, fx: &mut Fx) {
        self.answer_askers(now, endpoint, outcome, fx);
        let Some(suspicion) = self.suspects.get_mut(&endpoint) else { return };
        if suspicion.stage != Stage::Probing {
            return;
        }
        let Some(finding) = outcome.finding(&suspicion.subject) else {
            suspicion.stage = Stage::Held;
            return;
        };
        if !finding.is_dead() {
            return self.clear(endpoint, "it answered a fresh probe", fx);
        }
        if self.health.is_doubtful() {
            suspicion.stage = Stage::Held;
            return;
        }
        let me = (self.me, &self.keys);
        let own = Confirmation::sign(&suspicion.subject, finding, me, now.wall);
        suspicion.stage = Stage::Asking;
        suspicion.confirmations.insert(self.me, own);
        // Neighbors take turns by endpoint, ten steps at most, so that not all ask at once.
        let turn = suspicion.neighbors.iter().filter(|it| **it < self.me).count().min(10);
        let wait = self.config.turn * u32::try_from(turn).unwrap_or(0);
        self.confirmed(endpoint, &own, fx);
        if self.suspects.get(&endpoint).is_some_and(|it| it.stage == Stage::Asking) {
            fx.set_timer(Timer::Ask(endpoint), wait);
        }
        self.consider(now, endpoint, fx);
    }

    /// Takes a witness's finding by `link`, whose other end proved `from`.
    pub fn on_suspect_ack(
        &mut self,
        now: Now,
        (link, from): (LinkId, &MemberInstance),
        found: Confirmation,
        fx: &mut Fx,
    ) {
        if found.witness != from.endpoint || !found.is_valid(&from.key) {
            return fx.emit(Event::Forged { link });
        }
        if found.witness == found.endpoint {
            let is_watched = self.watched.get(&from.endpoint).is_some_and(|it| it.link == link);
            if is_watched && found.subject() == *from && !found.finding.is_dead() {
                self.clear(from.endpoint, "it answered for itself", fx);
            }
            return;
        }
        let Some(suspicion) = self.suspects.get_mut(&found.endpoint) else { return };
        suspicion.unreachable.remove(&found.witness);
        let is_asked = suspicion.asked.contains(&found.witness);
        if suspicion.subject != found.subject() || !is_asked {
            return;
        }
        if !found.finding.is_dead() {
            // One witness that reaches it decides nothing, but this node should look again.
            if suspicion.stage == Stage::Asking {
                suspicion.stage = Stage::Held;
            }
            return;
        }
        if suspicion.confirmations.insert(found.witness, found).is_none() {
            self.confirmed(found.endpoint, &found, fx);
        }
        self.consider(now, found.endpoint, fx);
    }

    /// Takes that a witness cannot be reached: it cannot testify.
    pub fn on_witness_unreachable(&mut self, now: Now, witness: Endpoint, fx: &mut Fx) {
        let mut concerned = Vec::new();
        for (endpoint, suspicion) in &mut self.suspects {
            if suspicion.asked.contains(&witness)
                && !suspicion.confirmations.contains_key(&witness)
                && suspicion.unreachable.insert(witness)
            {
                concerned.push(*endpoint);
            }
        }
        for endpoint in concerned {
            self.consider(now, endpoint, fx);
            self.ask(endpoint, false, fx);
        }
    }

    /// Takes the answer of the system `ping`.
    pub fn on_host_pinged(&mut self, host: IpAddr, answer: HostAnswer, fx: &mut Fx) {
        if answer == HostAnswer::NoPing {
            if std::mem::take(&mut self.has_host_ping) {
                fx.emit(Event::NoHostPing);
            }
            return;
        }
        if self.hosts.insert(host, answer).is_some_and(|before| before != answer) {
            fx.emit(Event::Host { host, answers: answer == HostAnswer::Answered });
        }
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Look => self.on_look(now, fx),
            Timer::Host => self.on_host_timer(fx),
            Timer::Ask(endpoint) => self.on_ask_timer(endpoint, fx),
        }
    }

    fn on_look(&mut self, now: Now, fx: &mut Fx) {
        let late_by = now.mono.since(self.look_due);
        self.look_due = now.mono.after(self.config.ping_interval);
        fx.set_timer(Timer::Look, self.config.ping_interval);
        if self.health.timer_fired(late_by) {
            fx.emit(Event::Doubtful { late_by });
            // The node read no message meanwhile: all waits begin anew.
            for watch in self.watched.values_mut() {
                watch.heard = now.mono;
                watch.pinged = None;
                watch.misses = 0;
            }
            return;
        }
        let newly_silent = self.ping_the_silent(now, fx);
        if self.watched.len() >= 3 && newly_silent * 2 > self.watched.len() {
            self.health.many_failed_at_once();
        } else {
            self.health.quiet_round();
        }
        self.suspect_the_silent(fx);
        self.take_up_held(fx);
    }

    /// Pings the neighbors that were silent since the last look. Returns the number that have just
    /// missed their last but one chance.
    fn ping_the_silent(&mut self, now: Now, fx: &mut Fx) -> usize {
        let interval = self.config.ping_interval;
        let mut newly_silent = 0;
        for watch in self.watched.values_mut() {
            if now.mono.since(watch.heard) < interval {
                watch.pinged = None;
                continue;
            }
            if let Some((_, sent)) = watch.pinged {
                let patience =
                    self.health.stretch(watch.round_trip.timeout(interval, interval * 8));
                // A look may come a little before the interval is full.
                if now.mono.since(sent) + interval / 10 >= patience {
                    watch.misses += 1;
                    newly_silent += usize::from(watch.misses + 1 == self.config.misses_max);
                }
            }
            self.nonce += 1;
            let sent = watch.pinged.map_or(now.mono, |(_, sent)| sent);
            watch.pinged = Some((self.nonce, sent));
            fx.send(watch.link, Ping { nonce: self.nonce });
        }
        newly_silent
    }

    fn suspect_the_silent(&mut self, fx: &mut Fx) {
        let silent: Vec<_> = self
            .watched
            .values()
            .filter(|watch| {
                watch.misses >= self.config.misses_max
                    && !self.suspects.contains_key(&watch.subject.endpoint)
            })
            .map(|watch| (watch.subject, watch.neighbors.clone()))
            .collect();
        for (subject, neighbors) in silent {
            let reason = format!("{} pings in a row without an answer", self.config.misses_max);
            self.suspect(subject, neighbors, &reason, fx);
        }
    }

    fn probe_timeout(&self) -> Duration {
        self.health.stretch(self.config.probe_timeout)
    }
}
