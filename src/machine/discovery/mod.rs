//! Discovery: finding peers by their ids, without a node that knows all.
//!
//! Each peer keeps a table of others, many of them near by the exclusive or of their ids and few
//! far away, and asks those it knows for closer ones, step by step: about log2 N of them in a
//! fleet of N (Maymounkov and Mazières, "Kademlia", 2002).
//!
//! Invariants:
//! - Only an endpoint at which a key was proved, in a handshake or by a certificate, is kept,
//!   passed on or returned. The statements of others are tried, never believed.
//! - Look-ups, questions, candidates and answers are bounded; every question has a deadline.
//! - An idle peer refreshes its table rarely, less often the longer it runs.

mod event;
mod lookup;
mod table;

pub use event::{Config, DiscoveredPeer, DiscoveryMetrics, Event, Timer};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt as _;

use self::lookup::Lookup;
use self::table::Table;
use crate::machine::histogram::{Histogram, SMALL_COUNTS};
use crate::machine::{Effects, LinkId, Never, NodeCall, NodeMessage, PingHost, Vocabulary};
use crate::model::{Endpoint, Now, PublicKey, Rng};
use crate::proto::discovery::{CONTACTS_MAX, Contact, FindNode, Found, NodeId};

/// Number of look-ups of random ids that a discovery makes beside that of the own id.
const RANDOM_LOOKUPS: usize = 3;

/// Age after which an entry without a sign of life is checked again; one at each refresh.
const STALE_AFTER: Duration = Duration::from_secs(900);

/// Purpose of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Refresh,
    Discover(u64),
    Resolve(u64),
}

#[derive(Clone, Copy, Debug)]
struct Question {
    lookup: u64,
    whom: Contact,
}

/// Table and look-ups of one peer.
#[derive(Debug)]
pub struct Discovery {
    config: Config,
    me: Contact,
    /// Endpoints at which no peer can be: this one's and the seeds'.
    barred: BTreeSet<Endpoint>,
    rng: Rng,
    table: Table,
    lookups: BTreeMap<u64, (Purpose, Lookup)>,
    waiting: VecDeque<(Purpose, NodeId)>,
    questions: BTreeMap<u64, Question>,
    checks: BTreeMap<Endpoint, PublicKey>,
    number: u64,
    pause: Duration,
    metrics: DiscoveryMetrics,
}

impl Vocabulary for Discovery {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Discovery>;

impl Discovery {
    /// Creates the peer `me`, which knows no others. No peer is ever looked for at
    /// the endpoints `barred`.
    pub fn new(
        config: Config,
        me: Contact,
        barred: impl IntoIterator<Item = Endpoint>,
        rng: Rng,
    ) -> Self {
        let metrics = DiscoveryMetrics {
            entries: 0,
            lookups_open: 0,
            lookups: 0,
            asked: 0,
            answered: 0,
            unanswered: 0,
            refused: 0,
            ignored: 0,
            false_contacts: 0,
            lookup_hops: Histogram::new(SMALL_COUNTS),
        };
        Self {
            config,
            me,
            barred: barred.into_iter().chain([me.endpoint]).collect(),
            rng,
            table: Table::new(me.id()),
            lookups: BTreeMap::new(),
            waiting: VecDeque::new(),
            questions: BTreeMap::new(),
            checks: BTreeMap::new(),
            number: 0,
            pause: config.refresh_min,
            metrics,
        }
    }

    /// This peer's own id.
    pub fn id(&self) -> NodeId {
        self.me.id()
    }

    /// All contacts known, each proved at its endpoint.
    pub fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.table.contacts()
    }

    /// The key that was proved at an endpoint, if its peer is in the table.
    pub fn key_at(&self, endpoint: Endpoint) -> Option<PublicKey> {
        self.table.contacts().find(|it| it.endpoint == endpoint).map(|it| it.key)
    }

    /// True if a question to the peer at this endpoint is open.
    pub fn awaits(&self, endpoint: Endpoint) -> bool {
        self.questions.values().any(|it| it.whom.endpoint == endpoint)
    }

    /// Returns the counters since the start, and the present sizes.
    pub fn metrics(&self) -> DiscoveryMetrics {
        let count = |it: usize| u64::try_from(it).unwrap_or(u64::MAX);
        DiscoveryMetrics {
            entries: count(self.table.len()),
            lookups_open: count(self.lookups.len() + self.waiting.len()),
            ..self.metrics.clone()
        }
    }

    /// Takes a key that was proved at an endpoint, by a handshake that this peer began or
    /// by a certificate.
    pub fn on_proved(&mut self, now: Now, contact: Contact, fx: &mut Fx) {
        self.checks.remove(&contact.endpoint);
        if !self.is_possible(&contact) {
            return;
        }
        let is_first = self.table.len() == 0;
        let is_new = !self.table.knows(&contact);
        self.table.insert(contact, now.mono);
        if is_first {
            self.refresh_later(fx);
        }
        if is_new && self.table.knows(&contact) {
            fx.emit(Event::Learnt(contact.into()));
        }
    }

    /// Takes a caller's proved key and claimed endpoint. The claim is checked, if it
    /// is of interest.
    pub fn on_claimed(&mut self, contact: Contact, fx: &mut Fx) {
        let is_of_interest = self.is_possible(&contact)
            && !self.table.knows(&contact)
            && self.table.has_room(&contact.id());
        // Of several claims to one endpoint the first is checked: another must not spoil that.
        if is_of_interest
            && self.checks.len() < self.config.checks_max
            && !self.checks.contains_key(&contact.endpoint)
        {
            self.checks.insert(contact.endpoint, contact.key);
            fx.emit(Event::Check { endpoint: contact.endpoint });
        }
    }

    /// Takes the result of checking an endpoint: the key that was proved there, if any was.
    pub fn on_checked(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        shown: Option<PublicKey>,
        fx: &mut Fx,
    ) {
        let Some(claimed) = self.checks.remove(&endpoint) else { return };
        match shown {
            Some(key) if key == claimed => {
                self.on_proved(now, Contact { endpoint, key }, fx);
            }
            Some(_) | None => self.table.failed(endpoint),
        }
    }

    /// Forgets the endpoint of a member whose life ended: it is not passed on any more.
    pub fn on_gone(&mut self, endpoint: Endpoint) {
        self.table.remove(endpoint);
    }

    /// Answers a question with the closest contacts known.
    pub fn on_find_node(&mut self, from: (LinkId, PublicKey), question: FindNode, fx: &mut Fx) {
        let (link, asker) = from;
        let closest = self.table.closest(&question.target, CONTACTS_MAX + 1);
        let others = closest.into_iter().filter(|it| it.key != asker).take(CONTACTS_MAX);
        self.metrics.answered += 1;
        fx.send(link, Found { number: question.number, contacts: others.collect() });
    }

    /// Takes an answer, by a link whose other end proved `from.key`; that it listens at
    /// `from.endpoint` is proved if this peer called it there.
    pub fn on_found(&mut self, now: Now, link: LinkId, from: Contact, found: Found, fx: &mut Fx) {
        let Some(question) = self.questions.get(&found.number).copied() else {
            if found.number > self.number || found.number == 0 {
                self.refuse(link, "an answer to no question", fx);
            }
            return; // Too late, and no offense.
        };
        if question.whom.endpoint != from.endpoint {
            return self.refuse(link, "an answer to somebody else's question", fx);
        }
        if found.contacts.len() > CONTACTS_MAX {
            let reason = format!("at most {CONTACTS_MAX} contacts answer a question");
            self.refuse(link, &reason, fx);
            return self.end_question(now, found.number, None, fx);
        }
        if question.whom.key != from.key {
            self.metrics.false_contacts += 1;
            return self.end_question(now, found.number, None, fx);
        }
        let told = found.contacts.len();
        let contacts: Vec<_> =
            found.contacts.into_iter().filter(|it| self.is_possible(it)).collect();
        self.metrics.ignored += u64::try_from(told - contacts.len()).unwrap_or(0);
        self.end_question(now, found.number, Some(contacts), fx);
        // A peer that was given up for lost has come back.
        self.on_claimed(from, fx);
    }

    /// Fails the questions for this endpoint, because it cannot be reached, or its peer
    /// is no member.
    pub fn on_unreachable(&mut self, now: Now, endpoint: Endpoint, fx: &mut Fx) {
        let numbers: Vec<_> = self
            .questions
            .iter()
            .filter(|(_, question)| question.whom.endpoint == endpoint)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            self.end_question(now, number, None, fx);
        }
    }

    /// Looks for as many others as a few look-ups find; answered by [`Event::Discovered`] with
    /// the same token.
    pub fn discover(&mut self, now: Now, token: u64, fx: &mut Fx) {
        let own = self.me.id();
        let random = (0..RANDOM_LOOKUPS).map(|_| NodeId(self.rng.random()));
        let targets: Vec<_> = [own].into_iter().chain(random).collect();
        if self.waiting.len() + targets.len() > self.config.waiting_max {
            return self.report_discovered(token, fx);
        }
        self.waiting.extend(targets.into_iter().map(|it| (Purpose::Discover(token), it)));
        self.start_waiting(now, fx);
    }

    /// Looks for the holder of one id; answered by [`Event::Resolved`] with the same token.
    pub fn look_up(&mut self, now: Now, token: u64, id: NodeId, fx: &mut Fx) {
        if self.waiting.len() >= self.config.waiting_max {
            return fx.emit(Event::Resolved { token, id, peer: None, hops: 0 });
        }
        self.waiting.push_back((Purpose::Resolve(token), id));
        self.start_waiting(now, fx);
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Answer(number) => {
                self.metrics.unanswered += 1;
                self.end_question(now, number, None, fx);
            }
            Timer::Lookup(number) => {
                self.end_lookup(number, fx);
                self.start_waiting(now, fx);
            }
            Timer::Refresh => self.on_refresh(now, fx),
        }
    }

    fn refresh_later(&mut self, fx: &mut Fx) {
        // Not all at once in a fleet that was started at once.
        let pause = self.pause.mul_f64(self.rng.random_range(0.75..1.25));
        fx.set_timer(Timer::Refresh, pause);
    }

    fn on_refresh(&mut self, now: Now, fx: &mut Fx) {
        self.pause = (self.pause * 4).min(self.config.refresh_max);
        self.refresh_later(fx);
        if let Some((contact, seen)) = self.table.stalest()
            && now.mono.since(seen) > STALE_AFTER
            && self.checks.len() < self.config.checks_max
        {
            self.checks.insert(contact.endpoint, contact.key);
            fx.emit(Event::Check { endpoint: contact.endpoint });
        }
        let is_settled = self.pause >= self.config.refresh_max;
        let own = self.me.id();
        // A settled table is refreshed around a random id half of the time.
        let target = if is_settled && self.rng.random() { NodeId(self.rng.random()) } else { own };
        self.waiting.push_back((Purpose::Refresh, target));
        self.start_waiting(now, fx);
    }

    fn start_waiting(&mut self, now: Now, fx: &mut Fx) {
        while self.lookups.len() < self.config.lookups_max
            && let Some((purpose, target)) = self.waiting.pop_front()
        {
            self.number += 1;
            let known = self.table.closest(&target, CONTACTS_MAX);
            let wants_one = matches!(purpose, Purpose::Resolve(_));
            self.lookups.insert(self.number, (purpose, Lookup::new(target, wants_one, known)));
            self.metrics.lookups += 1;
            fx.set_timer(Timer::Lookup(self.number), self.config.lookup_timeout);
            self.go_on(now, self.number, fx);
        }
    }

    /// Puts the next questions of a look-up, or ends the look-up.
    fn go_on(&mut self, now: Now, lookup: u64, fx: &mut Fx) {
        let Some((_, state)) = self.lookups.get_mut(&lookup) else { return };
        let target = state.target();
        for whom in state.next() {
            self.number += 1;
            self.metrics.asked += 1;
            self.questions.insert(self.number, Question { lookup, whom });
            fx.set_timer(Timer::Answer(self.number), self.config.answer_timeout);
            let question = FindNode { number: self.number, target };
            fx.emit(Event::Ask { to: whom.endpoint, question });
        }
        if self.lookups.get(&lookup).is_some_and(|(_, state)| state.is_over()) {
            self.end_lookup(lookup, fx);
            self.start_waiting(now, fx);
        }
    }

    /// Ends a question that was answered with these contacts, or not at all.
    fn end_question(&mut self, now: Now, number: u64, contacts: Option<Vec<Contact>>, fx: &mut Fx) {
        let Some(Question { lookup, whom }) = self.questions.remove(&number) else { return };
        fx.stop_timer(Timer::Answer(number));
        if contacts.is_none() {
            self.table.failed(whom.endpoint);
        }
        let Some((_, state)) = self.lookups.get_mut(&lookup) else { return };
        match contacts {
            Some(contacts) => state.on_answer(&whom, contacts),
            None => state.on_failed(&whom),
        }
        self.go_on(now, lookup, fx);
    }

    fn end_lookup(&mut self, number: u64, fx: &mut Fx) {
        let Some((purpose, state)) = self.lookups.remove(&number) else { return };
        fx.stop_timer(Timer::Lookup(number));
        let under_way = self.questions.iter().filter(|(_, it)| it.lookup == number);
        for number in under_way.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.questions.remove(&number);
            fx.stop_timer(Timer::Answer(number));
        }
        let found = state.found();
        let hops = found.map(|(_, hops)| hops).or_else(|| state.hops());
        if let Some(hops) = hops {
            self.metrics.lookup_hops.observe(hops.into());
        }
        match purpose {
            Purpose::Refresh => {}
            Purpose::Resolve(token) => {
                let (id, peer) = (state.target(), found.map(|(contact, _)| contact.into()));
                let hops = hops.unwrap_or(0);
                fx.emit(Event::Resolved { token, id, peer, hops });
            }
            Purpose::Discover(token) => {
                let is_of = |it: &Purpose| *it == Purpose::Discover(token);
                let is_last = !self.lookups.values().any(|(it, _)| is_of(it))
                    && !self.waiting.iter().any(|(it, _)| is_of(it));
                if is_last {
                    self.report_discovered(token, fx);
                }
            }
        }
    }

    fn report_discovered(&self, token: u64, fx: &mut Fx) {
        let mut peers: Vec<_> = self.table.contacts().map(DiscoveredPeer::from).collect();
        peers.sort_unstable();
        fx.emit(Event::Discovered { token, peers });
    }

    fn is_possible(&self, contact: &Contact) -> bool {
        contact.endpoint.is_callable()
            && contact.key != self.me.key
            && !self.barred.contains(&contact.endpoint)
    }

    fn refuse(&mut self, from: LinkId, reason: &str, fx: &mut Fx) {
        self.metrics.refused += 1;
        fx.emit(Event::Malformed { from, reason: reason.to_owned() });
    }
}
