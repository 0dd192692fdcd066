//! Reachability: positions of hosts, their presence, and the paths that are cut.
//!
//! Invariant: this is the only place that decides whether a packet gets through. A path has a
//! direction; a vanished host neither receives nor sends; strangers are cut from no host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::Endpoint;

/// A host's position in the world's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) u32);

impl HostId {
    /// The position as an index.
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A host or stranger that can hold an end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkHolder {
    /// A host of the world.
    Host(HostId),
    /// A scripted stranger, by number.
    Intruder(u32),
}

/// Presence of a host on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The host answers; no process listens.
    Down,
    /// The host is gone without a word.
    Vanished,
    /// The process of this life listens. A paused process still does: its kernel answers.
    Listening(u32),
}

#[derive(Debug)]
struct HostReach {
    endpoint: Endpoint,
    presence: Presence,
    island: Option<u32>,
    /// True if no packet gets to the host.
    deaf: bool,
    /// True if no packet gets away from the host.
    mute: bool,
}

/// Map of all hosts and paths.
#[derive(Debug, Default)]
pub(super) struct Reach {
    places: Vec<HostReach>,
    by_endpoint: BTreeMap<Endpoint, HostId>,
    by_ip: BTreeMap<IpAddr, Vec<HostId>>,
    cuts: BTreeSet<(HostId, HostId)>,
    strangers: Vec<IpAddr>,
}

impl Reach {
    /// Adds a host to the map, down; `None` if the endpoint is taken.
    pub(super) fn add(&mut self, endpoint: Endpoint) -> Option<HostId> {
        if self.by_endpoint.contains_key(&endpoint) {
            return None;
        }
        let host = HostId(u32::try_from(self.places.len()).expect("fewer than 2^32 hosts"));
        let presence = Presence::Down;
        self.places.push(HostReach { endpoint, presence, island: None, deaf: false, mute: false });
        self.by_endpoint.insert(endpoint, host);
        self.by_ip.entry(endpoint.ip()).or_default().push(host);
        Some(host)
    }

    /// The host that belongs to `endpoint`.
    pub(super) fn find(&self, endpoint: Endpoint) -> Option<HostId> {
        self.by_endpoint.get(&endpoint).copied()
    }

    /// Gives a host another address; returns whether that was free.
    pub(super) fn relocate(&mut self, host: HostId, to: Endpoint) -> bool {
        if self.by_endpoint.contains_key(&to) {
            return false;
        }
        let from = std::mem::replace(&mut self.places[host.index()].endpoint, to);
        self.by_endpoint.remove(&from);
        self.by_endpoint.insert(to, host);
        self.by_ip.entry(from.ip()).or_default().retain(|it| *it != host);
        self.by_ip.entry(to.ip()).or_default().push(host);
        true
    }

    /// Lets a stranger in from `ip`; returns its number.
    pub(super) fn admit_stranger(&mut self, ip: IpAddr) -> u32 {
        self.strangers.push(ip);
        u32::try_from(self.strangers.len() - 1).expect("fewer than 2^32 strangers")
    }

    /// Address of a stranger.
    pub(super) fn stranger(&self, number: u32) -> IpAddr {
        self.strangers[number as usize]
    }

    /// Listen address of a host.
    pub(super) fn endpoint(&self, host: HostId) -> Endpoint {
        self.places[host.index()].endpoint
    }

    /// Every endpoint, in order.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.by_endpoint.keys().copied()
    }

    /// Presence of `host` on the network.
    pub(super) fn presence(&self, host: HostId) -> Presence {
        self.places[host.index()].presence
    }

    /// Changes the presence of `host` on the network.
    pub(super) fn set_presence(&mut self, host: HostId, presence: Presence) {
        self.places[host.index()].presence = presence;
    }

    /// Host whose kernel answers a call to `to`: the one that belongs there, else another of the
    /// same address.
    pub(super) fn answering(&self, to: Endpoint) -> Option<HostId> {
        self.find(to).or_else(|| {
            let hosts = self.by_ip.get(&to.ip())?;
            hosts.iter().copied().find(|host| self.presence(*host) != Presence::Vanished)
        })
    }

    /// True if a packet from `from` gets to `to` now.
    pub(super) fn carries(&self, from: LinkHolder, to: LinkHolder) -> bool {
        match (from, to) {
            (LinkHolder::Host(from), LinkHolder::Host(to)) => self.carries_between(from, to),
            (LinkHolder::Host(host), LinkHolder::Intruder(_))
            | (LinkHolder::Intruder(_), LinkHolder::Host(host)) => {
                self.presence(host) != Presence::Vanished
            }
            (LinkHolder::Intruder(_), LinkHolder::Intruder(_)) => true,
        }
    }

    fn carries_between(&self, from: HostId, to: HostId) -> bool {
        let (a, b) = (&self.places[from.index()], &self.places[to.index()]);
        let apart = matches!((a.island, b.island), (Some(a), Some(b)) if a != b);
        a.presence != Presence::Vanished
            && b.presence != Presence::Vanished
            && !apart
            && !a.mute
            && !b.deaf
            && (self.cuts.is_empty() || !self.cuts.contains(&(from, to)))
    }

    /// True if some host at `ip` hears `from` and is heard by it.
    pub(super) fn pings(&self, from: LinkHolder, ip: IpAddr) -> bool {
        self.by_ip.get(&ip).is_some_and(|hosts| {
            hosts
                .iter()
                .map(|host| LinkHolder::Host(*host))
                .any(|host| self.carries(from, host) && self.carries(host, from))
        })
    }

    /// Cuts the path in one direction; returns whether it was open.
    pub(super) fn cut(&mut self, from: HostId, to: HostId) -> bool {
        self.cuts.insert((from, to))
    }

    /// Opens the path in one direction again.
    pub(super) fn mend(&mut self, from: HostId, to: HostId) {
        self.cuts.remove(&(from, to));
    }

    /// Cuts all packets to a host, or opens their path again; returns whether that is a change.
    pub(super) fn deafen(&mut self, host: HostId, deaf: bool) -> bool {
        std::mem::replace(&mut self.places[host.index()].deaf, deaf) != deaf
    }

    /// Cuts all packets of a host, or opens their path again; returns whether that is a change.
    pub(super) fn mute(&mut self, host: HostId, mute: bool) -> bool {
        std::mem::replace(&mut self.places[host.index()].mute, mute) != mute
    }

    /// Puts a host on an island: it reaches hosts of the same island and hosts of none.
    pub(super) fn maroon(&mut self, host: HostId, island: Option<u32>) {
        self.places[host.index()].island = island;
    }

    /// Joins all islands.
    pub(super) fn reunite(&mut self) {
        for place in &mut self.places {
            place.island = None;
        }
    }

    /// Joins all islands and opens every path.
    pub(super) fn heal(&mut self) {
        self.reunite();
        self.cuts.clear();
        for place in &mut self.places {
            (place.deaf, place.mute) = (false, false);
        }
    }
}
