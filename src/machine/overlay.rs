//! The overlay: preferential attachment, one random edge, and repair of links (O2).
//!
//! A joiner links to members in proportion to how far their degree exceeds the least degree, and
//! to one more uniformly at random. The shift makes up for the random edge: with two of three
//! links preferential and weight k - 2, the degree tail has the exponent 1 + (6 - 2)/2 = 3 of
//! Barabási and Albert (Dorogovtsev, Mendes and Samukhin, Phys. Rev. Lett. 85, 4633).
//!
//! Invariants:
//! - At most one link per neighbor; of two, the one dialed by the lower endpoint stays.
//! - A neighbor is a member that has proved a certificate of membership; links are symmetric
//!   because both ends hold the same connection.
//! - Below the wanted number of neighbors, new ones are sought until there are enough or no member
//!   is left to ask.

use crate::machine::NodeMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;

use super::{Effects, LinkId, Never, NodeCall, PingHost, Vocabulary};
use crate::model::entry::MemberState;
use crate::model::{Endpoint, Incarnation, Now, Rng, Time};
use crate::proto::hello::NodeInfo;
use crate::proto::membership::MemberLine;

/// Least degree in the weight of preferential attachment.
const LEAST_DEGREE: u32 = 2;

/// Limits and periods of the overlay.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of links that a joiner makes, and below which a member repairs. One of them is
    /// random. Fewer make the overlay fragile, more make gossip and liveness dearer.
    pub links: usize,
    /// Greatest number of links, up to [`NodeInfo::NEIGHBORS_MAX`]; a hub refuses more.
    pub links_max: usize,
    /// Greatest number of members known, neighbors beside: those among which a peer may come to
    /// choose. More cost memory at every peer, fewer make the choice by degree coarser.
    pub known_max: usize,
    /// Time that a member is left alone after it could not be reached.
    pub cooldown: Duration,
    /// Time in which changes are collected before they are announced.
    pub announce_after: Duration,
    /// Interval between two looks for missing links.
    pub check_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            links: 3,
            links_max: NodeInfo::NEIGHBORS_MAX,
            known_max: 512,
            cooldown: Duration::from_secs(5),
            announce_after: Duration::from_millis(100),
            check_interval: Duration::from_secs(1),
        }
    }
}

/// Deadlines of the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Missing links are looked for.
    Check,
    /// The neighbors are announced to the neighbors and seeds.
    Announce,
}

/// Events of the overlay: news for the node, and requests to it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must call this member.
    Call {
        /// Address of the member.
        to: Endpoint,
    },
    /// The node must hang up this link.
    Hangup {
        /// Link to hang up.
        link: LinkId,
        /// Reason in words, for people.
        reason: &'static str,
    },
    /// A new neighbor was linked.
    Linked {
        /// Endpoint of the neighbor.
        neighbor: Endpoint,
        /// Link to the neighbor.
        link: LinkId,
        /// True if this node dialed.
        dialed: bool,
        /// Number of neighbors now.
        degree: usize,
    },
    /// A neighbor was lost.
    Unlinked {
        /// Endpoint of the neighbor.
        neighbor: Endpoint,
        /// Link that ended.
        link: LinkId,
        /// Number of neighbors now.
        degree: usize,
    },
    /// The neighbors have changed; the node must announce them, signed.
    Announce {
        /// Neighbors now, ascending.
        neighbors: Vec<Endpoint>,
    },
    /// Too few members are known to find neighbors among.
    WantMembers,
}

#[derive(Clone, Copy, Debug)]
struct KnownMember {
    incarnation: Incarnation,
    degree: u32,
}

/// The overlay of one peer.
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    me: Endpoint,
    rng: Rng,
    running: bool,
    members: BTreeMap<Endpoint, KnownMember>,
    /// Local view of the topology: each neighbor's own neighbors, as it last named them.
    topology: BTreeMap<Endpoint, BTreeSet<Endpoint>>,
    neighbors: BTreeMap<Endpoint, LinkId>,
    calling: BTreeSet<Endpoint>,
    failed: BTreeMap<Endpoint, Time>,
    has_random_edge: bool,
}

impl Vocabulary for Overlay {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<Overlay>;

impl Overlay {
    /// Creates the overlay of the peer at `me`, passive until [`Overlay::begin`].
    pub const fn new(config: Config, me: Endpoint, rng: Rng) -> Self {
        Self {
            config,
            me,
            rng,
            running: false,
            members: BTreeMap::new(),
            topology: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            calling: BTreeSet::new(),
            failed: BTreeMap::new(),
            has_random_edge: false,
        }
    }

    /// Allows links, because the peer is a member.
    pub fn begin(&mut self, fx: &mut Fx) {
        self.running = true;
        fx.set_timer(Timer::Check, self.config.check_interval);
    }

    /// Hangs up all links, because the peer is not a member any more.
    pub fn pause(&mut self, fx: &mut Fx) {
        self.running = false;
        self.calling.clear();
        fx.stop_timer(Timer::Check);
        fx.stop_timer(Timer::Announce);
        for link in self.neighbors.values() {
            fx.emit(Event::Hangup { link: *link, reason: "my membership ended" });
        }
    }

    /// The neighbors and their links, ascending.
    pub const fn neighbors(&self) -> &BTreeMap<Endpoint, LinkId> {
        &self.neighbors
    }

    /// The local view of the topology.
    pub const fn topology(&self) -> &BTreeMap<Endpoint, BTreeSet<Endpoint>> {
        &self.topology
    }

    /// Number of members known beside this one.
    pub fn known_members(&self) -> usize {
        self.members.len()
    }

    /// Members known beside this one, and neighbors, ascending by address.
    pub fn members(&self) -> BTreeSet<Endpoint> {
        self.members.keys().chain(self.neighbors().keys()).copied().collect()
    }

    /// The incarnation under which a member is known.
    pub fn incarnation_of(&self, endpoint: Endpoint) -> Option<Incarnation> {
        self.members.get(&endpoint).map(|known| known.incarnation)
    }

    /// Adds a seed's list; the union of several seeds' lists is kept (O1).
    pub fn on_members(&mut self, list: &[MemberLine], fx: &mut Fx) {
        for line in list {
            if line.endpoint == self.me || line.status != MemberState::Alive {
                continue;
            }
            let fresh = KnownMember { incarnation: line.incarnation, degree: line.degree };
            let known = self.members.entry(line.endpoint).or_insert(fresh);
            if line.incarnation >= known.incarnation {
                *known = fresh;
            }
        }
        self.forget_some();
        self.fill(fx);
    }

    /// Forgets members at random down to the bound: the rest is still a fair sample of all lists.
    fn forget_some(&mut self) {
        let excess = self.members.len().saturating_sub(self.config.known_max);
        if excess == 0 {
            return;
        }
        let is_free =
            |it: &&Endpoint| !self.neighbors.contains_key(it) && !self.calling.contains(it);
        let free = self.members.keys().filter(is_free).copied();
        for endpoint in free.sample(&mut self.rng, excess) {
            self.members.remove(&endpoint);
        }
    }

    /// Takes the new link of a certified member. Both ends judge alike which of two links to the
    /// same member stays.
    pub fn on_link_up(
        &mut self,
        link: LinkId,
        (neighbor, incarnation): (Endpoint, Incarnation),
        their_neighbors: &[Endpoint],
        dialed: bool,
        fx: &mut Fx,
    ) {
        self.calling.remove(&neighbor);
        self.failed.remove(&neighbor);
        let other = self.neighbors.get(&neighbor).copied();
        let reason = if !self.running {
            Some("not a member yet")
        } else if other.is_none() && self.neighbors.len() >= self.config.links_max {
            Some("no room for another neighbor")
        } else {
            None
        };
        if let Some(reason) = reason {
            return fx.emit(Event::Hangup { link, reason });
        }
        if let Some(other) = other {
            let keep_new = dialed == (self.me < neighbor);
            let needless = if keep_new { other } else { link };
            fx.emit(Event::Hangup { link: needless, reason: "already linked" });
            if !keep_new {
                return;
            }
        }
        let degree = u32::try_from(their_neighbors.len()).unwrap_or(u32::MAX);
        self.members.insert(neighbor, KnownMember { incarnation, degree });
        self.topology.insert(neighbor, their_neighbors.iter().copied().collect());
        self.neighbors.insert(neighbor, link);
        fx.emit(Event::Linked { neighbor, link, dialed, degree: self.neighbors.len() });
        self.changed(fx);
    }

    /// Takes the end of a link, by either side.
    pub fn on_link_down(&mut self, now: Now, link: LinkId, neighbor: Endpoint, fx: &mut Fx) {
        if self.neighbors.get(&neighbor) != Some(&link) {
            return;
        }
        self.neighbors.remove(&neighbor);
        self.topology.remove(&neighbor);
        self.failed.insert(neighbor, now.mono);
        fx.emit(Event::Unlinked { neighbor, link, degree: self.neighbors.len() });
        self.changed(fx);
        self.fill(fx);
    }

    /// Takes the failure of a call.
    pub fn on_call_failed(&mut self, now: Now, to: Endpoint, fx: &mut Fx) {
        if self.calling.remove(&to) {
            self.failed.insert(to, now.mono);
            self.fill(fx);
        }
    }

    /// Stops the search for links and refuses new ones; the existing ones stay until they
    /// are hung up.
    pub const fn stop(&mut self) {
        self.running = false;
    }

    /// True if as many links are up as are wanted.
    pub fn has_enough(&self) -> bool {
        self.neighbors.len() >= self.config.links
    }

    /// Forgets a member that is no neighbor, until a list or peer names it again.
    pub fn forget(&mut self, endpoint: Endpoint) {
        if !self.neighbors.contains_key(&endpoint) {
            self.members.remove(&endpoint);
        }
    }

    /// Takes the neighbors that a neighbor names.
    pub fn on_neighbors(&mut self, neighbor: Endpoint, theirs: &[Endpoint]) {
        if let Some(known) = self.members.get_mut(&neighbor) {
            known.degree = u32::try_from(theirs.len()).unwrap_or(u32::MAX);
        }
        if self.neighbors.contains_key(&neighbor) {
            self.topology.insert(neighbor, theirs.iter().copied().collect());
        }
    }

    /// Takes the end of a member's life, by certificate or goodbye (O6). A later life
    /// is left alone.
    pub fn on_gone(&mut self, endpoint: Endpoint, incarnation: Incarnation, fx: &mut Fx) {
        if self.members.get(&endpoint).is_none_or(|known| known.incarnation > incarnation) {
            return;
        }
        self.members.remove(&endpoint);
        self.failed.remove(&endpoint);
        if let Some(link) = self.neighbors.get(&endpoint) {
            fx.emit(Event::Hangup { link: *link, reason: "its membership ended" });
        }
    }

    /// Takes a seed's advice to link to a member of another part of the overlay.
    pub fn on_hint(&mut self, endpoint: Endpoint, fx: &mut Fx) {
        let is_useful = self.running
            && endpoint != self.me
            && !self.neighbors.contains_key(&endpoint)
            && self.neighbors.len() < self.config.links_max;
        if is_useful && self.calling.insert(endpoint) {
            fx.emit(Event::Call { to: endpoint });
        }
    }

    /// Handles a timer that has fired.
    pub fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Check => {
                fx.set_timer(Timer::Check, self.config.check_interval);
                self.failed.retain(|_, at| now.mono.since(*at) < self.config.cooldown);
                self.fill(fx);
                if self.running && self.neighbors.len() + self.calling.len() < self.config.links {
                    fx.emit(Event::WantMembers);
                }
            }
            Timer::Announce => {
                fx.emit(Event::Announce { neighbors: self.neighbors.keys().copied().collect() });
            }
        }
    }

    /// Calls members until enough links are up or on their way.
    fn fill(&mut self, fx: &mut Fx) {
        if !self.running {
            return;
        }
        while self.neighbors.len() + self.calling.len() < self.config.links {
            // The first link and one in three after it are uniform, so that the share stays.
            let at_random = !self.has_random_edge || self.rng.random_ratio(1, 3);
            let chosen = if at_random { self.uniform() } else { self.preferential() };
            let Some(to) = chosen else { return };
            self.has_random_edge = true;
            self.calling.insert(to);
            fx.emit(Event::Call { to });
        }
    }

    fn candidates(&self) -> impl Iterator<Item = (Endpoint, u32)> {
        self.members
            .iter()
            .filter(|(endpoint, _)| {
                !self.neighbors.contains_key(endpoint)
                    && !self.calling.contains(endpoint)
                    && !self.failed.contains_key(endpoint)
            })
            .map(|(endpoint, known)| (*endpoint, known.degree))
    }

    fn uniform(&mut self) -> Option<Endpoint> {
        let candidates: Vec<_> = self.candidates().map(|(endpoint, _)| endpoint).collect();
        candidates.into_iter().choose(&mut self.rng)
    }

    fn preferential(&mut self) -> Option<Endpoint> {
        let total: u64 = self.candidates().map(|(_, degree)| weight(degree)).sum();
        if total == 0 {
            return None;
        }
        let mut point = self.rng.random_range(0..total);
        for (endpoint, degree) in self.candidates() {
            match point.checked_sub(weight(degree)) {
                None => return Some(endpoint),
                Some(rest) => point = rest,
            }
        }
        None
    }

    fn changed(&self, fx: &mut Fx) {
        fx.set_timer(Timer::Announce, self.config.announce_after);
    }
}

/// Weight of a member in preferential attachment: in quarters, so that one of the least degree can
/// still be chosen.
fn weight(degree: u32) -> u64 {
    1 + 4 * u64::from(degree.saturating_sub(LEAST_DEGREE))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::model::WallTime;

    fn line(number: u16) -> MemberLine {
        MemberLine {
            endpoint: Endpoint::new([127, 0, 0, 1].into(), number),
            incarnation: Incarnation(1),
            status: MemberState::Alive,
            since: WallTime(0),
            degree: 3,
        }
    }

    #[test]
    fn a_peer_knows_a_bounded_number_of_members_and_all_its_neighbors() {
        let config = Config { known_max: 50, ..Config::default() };
        let me = Endpoint::new([127, 0, 0, 1].into(), 1);
        let mut overlay = Overlay::new(config, me, Rng::seed_from_u64(1));
        let mut fx = Effects::default();
        overlay.begin(&mut fx);
        let neighbors: Vec<_> = (2..22).map(|number| line(number).endpoint).collect();
        for (link, neighbor) in (0..).zip(&neighbors) {
            overlay.on_link_up(LinkId(link), (*neighbor, Incarnation(1)), &[], true, &mut fx);
        }
        let all: Vec<_> = (2..2_000).map(line).collect();
        for page in all.chunks(100) {
            overlay.on_members(page, &mut fx);
            assert!(overlay.known_members() <= 50, "{}", overlay.known_members());
        }
        let is_known = |it: &&Endpoint| overlay.incarnation_of(**it).is_some();
        assert_eq!(neighbors.iter().filter(is_known).count(), 20);
        assert_eq!(overlay.known_members(), 50, "what room there is is used");
    }

    /// Links two members that have called each other, at an end with so many links already.
    /// Returns the call whose link stays.
    fn crossed(me: u16, other: u16, linked: u64, order: [bool; 2]) -> Option<bool> {
        let config = Config { links_max: 3, ..Config::default() };
        let mut overlay = Overlay::new(config, line(me).endpoint, Rng::seed_from_u64(1));
        let mut fx = Effects::default();
        overlay.begin(&mut fx);
        for (link, number) in (0..linked).zip(100..) {
            let who = (line(number).endpoint, Incarnation(1));
            overlay.on_link_up(LinkId(link), who, &[], true, &mut fx);
        }
        let who = (line(other).endpoint, Incarnation(1));
        for dialed in order {
            overlay.on_link_up(LinkId(10 + u64::from(dialed)), who, &[], dialed, &mut fx);
        }
        overlay.neighbors().get(&who.0).map(|link| *link == LinkId(11))
    }

    #[test]
    fn of_two_crossed_calls_the_same_stays_at_both_ends_also_at_the_last_place() {
        for linked in 0..=2 {
            for order in [[true, false], [false, true]] {
                let stays = (crossed(1, 2, linked, order), crossed(2, 1, linked, order));
                assert_eq!(stays, (Some(true), Some(false)), "{linked} links before, {order:?}");
            }
        }
        assert_eq!(crossed(1, 2, 3, [true, false]), None, "a full peer takes no more");
    }
}
