//! Links like those of TCP: each direction keeps order and loses nothing until the link breaks.
//!
//! Invariants:
//! - A lane (one direction) has at most one entry in the agenda that matters: its head's arrival.
//! - An end that was told of its link is told of its closing exactly once, unless its process ended
//!   first. An end that was never told of its link is told nothing.
//! - On a cut path a lane is stuck and keeps its parcels, as retransmission would; neither end is
//!   told until the path heals or the sender gives up.
//! - A parcel that arrives at an end that is gone is answered by a reset, as a kernel does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use crate::machine::{DialError, DialId, LinkId};
use crate::model::{Endpoint, Rng, Time};

use super::agenda::{Agenda, Due};
use super::dial::Attempt;
use super::reach::{HostId, LinkHolder, Presence, Reach};
use super::tally::{FaultCounts, FaultEffect};
use super::weather::Weather;
use super::world::WorldOptions;

/// One life of a host or stranger; links die with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The host or stranger.
    pub(super) who: LinkHolder,
    /// Number of its life; always 0 for strangers.
    pub(super) life: u32,
}

/// One direction of a connection: the one from the end of this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId {
    pub(super) conn: u64,
    /// 0 at the end that dialed, 1 at the end that was called.
    side: u8,
}

impl LaneId {
    pub(super) const fn of(link: LinkId) -> Self {
        Self { conn: link.0 / 2, side: (link.0 % 2) as u8 }
    }

    pub(super) const fn new(conn: u64, side: u8) -> Self {
        Self { conn, side }
    }

    /// Number by which the end of this side knows the link.
    pub(super) const fn link(self) -> LinkId {
        LinkId(self.conn * 2 + self.side as u64)
    }

    pub(super) const fn reverse(self) -> Self {
        Self { conn: self.conn, side: 1 - self.side }
    }

    pub(super) const fn side(self) -> usize {
        self.side as usize
    }
}

/// Content of a lane.
#[derive(Debug)]
pub(super) enum LaneItem<T> {
    /// The last step of the handshake; first on the dialer's lane.
    Accept,
    /// A message; shared, because the same one often goes to many.
    Message(Arc<T>),
    /// A line that is no message.
    Garbage(String),
    /// The sender is done: the link ends when this arrives.
    Fin,
    /// The sender is gone: the link ends when this arrives.
    Reset,
}

/// Input that the network has for the owner of a link or attempt.
#[derive(Debug)]
pub(super) enum Delivery<T> {
    Accepted { link: LinkId, from: IpAddr },
    Dialed { ticket: DialId, link: LinkId },
    DialFailed { ticket: DialId, reason: DialError },
    Received { link: LinkId, msg: T },
    Garbled { link: LinkId, reason: String },
    Closed { link: LinkId, reason: &'static str },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// The listener's end before its owner is told.
    Pending,
    Open,
    /// Hung up or reset; its owner will be told of the closing, for this reason.
    Closing(&'static str),
    /// The owner of the end was told of the closing, or its process is no more.
    Gone,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) state: EndState,
}

#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) queue: VecDeque<(Time, LaneItem<T>)>,
    /// Latest arrival so far; no later parcel arrives earlier.
    pub(super) last: Time,
    pub(super) stuck: Option<Time>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), last: Time::ZERO, stuck: None }
    }
}

#[derive(Debug)]
pub(super) struct Conn<T> {
    pub(super) ends: [End; 2],
    pub(super) lanes: [Lane<T>; 2],
    pub(super) base: Duration,
}

/// The living connections, by number. Numbers are assigned in ascending order, so a connection is
/// found without a search: hundreds of thousands of messages a second need theirs.
#[derive(Debug)]
pub(super) struct Conns<T>(Vec<Option<Box<Conn<T>>>>);

impl<T> Conns<T> {
    fn place(number: u64) -> usize {
        usize::try_from(number).expect("a world makes fewer connections than it has memory")
    }

    pub(super) fn insert(&mut self, number: u64, conn: Conn<T>) {
        let place = Self::place(number);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(Box::new(conn));
    }

    pub(super) fn remove(&mut self, number: u64) {
        if let Some(conn) = self.0.get_mut(Self::place(number)) {
            *conn = None;
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&Conn<T>> {
        self.0.get(Self::place(number))?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Conn<T>> {
        self.0.get_mut(Self::place(number))?.as_deref_mut()
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut Conn<T>> {
        self.0.iter_mut().filter_map(Option::as_deref_mut)
    }
}

/// All links, and the attempts to make them.
#[derive(Debug)]
pub(super) struct Network<T> {
    /// Reachability of hosts. After a path opened, call [`Network::unstick`].
    pub(super) reach: Reach,
    pub(super) rng: Rng,
    pub(super) tally: FaultCounts,
    pub(super) dials: BTreeMap<u64, Attempt>,
    pub(super) next_dial: u64,
    pub(super) weather: Weather,
    pub(super) conns: Conns<T>,
    next_conn: u64,
    pub(super) of_host: Vec<BTreeSet<u64>>,
    pub(super) stuck: BTreeSet<LaneId>,
    patience: Duration,
    queue_max: usize,
    pub(super) backs_off: bool,
}

impl<T: Clone + Debug> Network<T> {
    /// An empty network.
    pub(super) fn new(rng: Rng, options: &WorldOptions) -> Self {
        Self {
            reach: Reach::default(),
            rng,
            tally: FaultCounts::default(),
            dials: BTreeMap::new(),
            next_dial: 0,
            weather: options.weather.clone(),
            conns: Conns(Vec::new()),
            next_conn: 0,
            of_host: Vec::new(),
            stuck: BTreeSet::new(),
            patience: options.patience,
            queue_max: options.queue_max,
            backs_off: options.backs_off,
        }
    }

    /// Adds a host to the map; `None` if the endpoint is taken.
    pub(super) fn add_host(&mut self, endpoint: Endpoint) -> Option<HostId> {
        let host = self.reach.add(endpoint)?;
        self.of_host.push(BTreeSet::new());
        Some(host)
    }

    /// Draws the time that one packet takes on a path of this base.
    pub(super) fn travel(&mut self, base: Duration) -> Duration {
        let jitter = self.weather.jitter.as_micros() as u64;
        let extra = if jitter == 0 { 0 } else { self.rng.random_range(0..=jitter) };
        base + Duration::from_micros(extra.max(1))
    }

    /// Draws the base latency of a new path.
    pub(super) fn draw_base(&mut self) -> Duration {
        self.weather.latency.draw(&mut self.rng)
    }

    /// Limits the base latency of the existing links to `base`.
    pub(super) fn quicken(&mut self, base: Duration) {
        for conn in self.conns.values_mut() {
            conn.base = conn.base.min(base);
        }
    }

    /// Makes the connection of a finished handshake; returns the dialer's link.
    ///
    /// The listener is told when the last step of the handshake reaches it. If its process died
    /// meanwhile, the dialer has a link all the same, and is soon told of its end.
    pub(super) fn connect(
        &mut self,
        agenda: &mut Agenda,
        dialer: Owner,
        listener: Owner,
        base: Duration,
    ) -> LinkId {
        let lane = LaneId::new(self.next_conn, 0);
        self.next_conn += 1;
        let lives = self.is_alive(listener);
        let state = if lives { EndState::Pending } else { EndState::Gone };
        let ends = [End { owner: dialer, state: EndState::Open }, End { owner: listener, state }];
        self.conns.insert(lane.conn, Conn { ends, lanes: Default::default(), base });
        for owner in [dialer, listener] {
            if let LinkHolder::Host(host) = owner.who {
                self.of_host[host.index()].insert(lane.conn);
            }
        }
        if lives {
            self.post(agenda, lane, LaneItem::Accept);
        } else {
            self.post(agenda, lane.reverse(), LaneItem::Reset);
        }
        lane.link()
    }

    /// True if this life of a host or stranger is not over.
    pub(super) fn is_alive(&self, owner: Owner) -> bool {
        match owner.who {
            LinkHolder::Host(host) => self.reach.presence(host) == Presence::Listening(owner.life),
            LinkHolder::Intruder(_) => true,
        }
    }

    /// True if a link of this number was ever made.
    pub(super) const fn was_made(&self, link: LinkId) -> bool {
        LaneId::of(link).conn < self.next_conn
    }

    /// Owner of the other end of `link`, while the network knows the link.
    pub(super) fn other_end(&self, link: LinkId) -> Option<LinkHolder> {
        let lane = LaneId::of(link).reverse();
        self.conns.get(lane.conn).map(|conn| conn.ends[lane.side()].owner.who)
    }

    /// The hosts that hold the other ends of a host's links.
    pub(super) fn linked_with(&self, host: HostId) -> BTreeSet<HostId> {
        let own = self.of_host[host.index()].iter().filter_map(|conn| self.conns.get(*conn));
        own.flat_map(|conn| &conn.ends)
            .filter_map(|end| match end.owner.who {
                LinkHolder::Host(other) if other != host => Some(other),
                LinkHolder::Host(_) | LinkHolder::Intruder(_) => None,
            })
            .collect()
    }

    /// Number of links between two hosts that are open at both ends.
    pub(super) fn open_between(&self, a: HostId, b: HostId) -> usize {
        let all_open = |conn: &&u64| {
            self.conns
                .get(**conn)
                .is_some_and(|conn| conn.ends.iter().all(|end| end.state == EndState::Open))
        };
        self.between(a, b).iter().filter(all_open).count()
    }

    pub(super) fn between(&self, a: HostId, b: HostId) -> Vec<u64> {
        let joins = |conn: &&u64| {
            let Some(Conn { ends: [dialer, listener], .. }) = self.conns.get(**conn) else {
                return false;
            };
            let pair = (dialer.owner.who, listener.owner.who);
            pair == (LinkHolder::Host(a), LinkHolder::Host(b))
                || pair == (LinkHolder::Host(b), LinkHolder::Host(a))
        };
        self.of_host[a.index()].iter().filter(joins).copied().collect()
    }

    /// Sends from the end that knows the link as `link`; on a broken link the parcel vanishes.
    pub(super) fn send(&mut self, agenda: &mut Agenda, link: LinkId, parcel: LaneItem<T>) {
        let lane = LaneId::of(link);
        let conn = self.conns.get(lane.conn);
        let conn = conn.filter(|conn| conn.ends[lane.side()].state == EndState::Open);
        let Some(conn) = conn else {
            self.tally.add(FaultEffect::SentInVain, 1);
            return;
        };
        if conn.lanes[lane.side()].queue.len() < self.queue_max {
            self.post(agenda, lane, parcel);
        } else {
            self.tally.add(FaultEffect::QueueFull, 1);
            self.clear(lane);
            self.post(agenda, lane, LaneItem::Reset);
            self.begin_closing(agenda, lane, "too much is queued");
        }
    }

    pub(super) fn post(&mut self, agenda: &mut Agenda, lane: LaneId, parcel: LaneItem<T>) {
        let Some(base) = self.conns.get(lane.conn).map(|conn| conn.base) else {
            return;
        };
        let repeats = self.draw_repeats(base);
        let arrival = agenda.now().after(self.travel(base) + repeats);
        let conn = self.conns.get_mut(lane.conn).expect("it was there a line ago");
        let queue = &mut conn.lanes[lane.side()];
        queue.last = queue.last.max(arrival);
        queue.queue.push_back((queue.last, parcel));
        if queue.queue.len() == 1 && queue.stuck.is_none() {
            agenda.plan(queue.last, Due::Arrival(lane));
        }
    }

    /// Delivers the head of a lane if it has arrived; returns its receiver and the input.
    pub(super) fn arrive(
        &mut self,
        agenda: &mut Agenda,
        lane: LaneId,
    ) -> Option<(Owner, Delivery<T>)> {
        let conn = self.conns.get_mut(lane.conn)?;
        let (from, to) = (conn.ends[lane.side()].owner.who, conn.ends[1 - lane.side()].owner.who);
        let queue = &mut conn.lanes[lane.side()];
        if queue.stuck.is_some() || queue.queue.front()?.0 > agenda.now() {
            return None;
        }
        if !self.reach.carries(from, to) {
            let since = agenda.now();
            queue.stuck = Some(since);
            self.stuck.insert(lane);
            self.tally.add(FaultEffect::Held, 1);
            agenda.plan(since.after(self.patience), Due::GiveUp { lane, since });
            return None;
        }
        let (_, parcel) = queue.queue.pop_front()?;
        if let Some((next, _)) = queue.queue.front() {
            agenda.plan(*next, Due::Arrival(lane));
        }
        let delivery = self.receive(agenda, lane, parcel);
        self.forget_if_over(lane.conn);
        delivery
    }

    /// Receives a parcel at the far end of its lane.
    fn receive(
        &mut self,
        agenda: &mut Agenda,
        lane: LaneId,
        parcel: LaneItem<T>,
    ) -> Option<(Owner, Delivery<T>)> {
        let back = lane.reverse();
        let link = back.link();
        let conn = self.conns.get_mut(lane.conn)?;
        let from = conn.ends[lane.side()].owner.who;
        let end = &mut conn.ends[back.side()];
        let (owner, state) = (end.owner, end.state);
        let delivery = match (parcel, state) {
            (LaneItem::Fin | LaneItem::Reset, EndState::Gone | EndState::Closing(_)) => {
                return None;
            }
            (LaneItem::Message(_), EndState::Gone) => {
                self.tally.add(FaultEffect::LostInFlight, 1);
                self.post(agenda, back, LaneItem::Reset);
                return None;
            }
            (LaneItem::Accept | LaneItem::Garbage(_), EndState::Gone) => {
                self.post(agenda, back, LaneItem::Reset);
                return None;
            }
            (LaneItem::Accept, EndState::Pending) => {
                end.state = EndState::Open;
                Delivery::Accepted { link, from: self.ip_of(from) }
            }
            (LaneItem::Message(msg), EndState::Open | EndState::Closing(_)) => {
                Delivery::Received { link, msg: Arc::unwrap_or_clone(msg) }
            }
            (LaneItem::Garbage(reason), EndState::Open | EndState::Closing(_)) => {
                Delivery::Garbled { link, reason }
            }
            (parcel @ (LaneItem::Fin | LaneItem::Reset), EndState::Open) => {
                end.state = EndState::Gone;
                self.clear(back);
                let reset = matches!(parcel, LaneItem::Reset);
                let reason = if reset { "connection reset" } else { "closed by the other end" };
                Delivery::Closed { link, reason }
            }
            (parcel @ LaneItem::Accept, EndState::Open | EndState::Closing(_))
            | (
                parcel @ (LaneItem::Message(_)
                | LaneItem::Garbage(_)
                | LaneItem::Fin
                | LaneItem::Reset),
                EndState::Pending,
            ) => unreachable!("{parcel:?} at an end that is {state:?}: the lane lost its order"),
        };
        Some((owner, delivery))
    }

    fn ip_of(&self, who: LinkHolder) -> IpAddr {
        match who {
            LinkHolder::Host(host) => self.reach.endpoint(host).ip(),
            LinkHolder::Intruder(number) => self.reach.stranger(number),
        }
    }
}
