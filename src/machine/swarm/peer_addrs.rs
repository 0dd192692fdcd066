//! Peer addresses: those to call, and the pauses between calls.
//!
//! Invariants: an address is called once at a time; pauses double from the first to the longest,
//! each a little shorter by chance so that two peers do not call each other in step. An address
//! that turned out to be this peer itself or a banned peer is never called again.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::config::{Config, PLACES_MAX};
use super::event::PeerAddrId;
use crate::model::Rng;
use crate::proto::swarm::PeerId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddrState {
    Calling,
    Waiting,
    Linked,
    Never,
}

#[derive(Clone, Copy, Debug)]
struct AddrEntry {
    spot: AddrState,
    failures: u32,
    /// True if the last call failed.
    was_missed: bool,
    peer: Option<PeerId>,
}

/// Cause of having no connection with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DisconnectCause {
    /// The call failed.
    Missed,
    /// The connection was refused or soon over.
    Short,
    /// The connection has ended.
    Over,
}

/// The addresses of one swarm.
#[derive(Debug, Default)]
pub(super) struct PeerAddrs(BTreeMap<PeerAddrId, AddrEntry>);

impl PeerAddrs {
    /// Takes note of an address. Returns whether it is new.
    pub(super) fn learn(&mut self, place: PeerAddrId) -> bool {
        let is_new = !self.0.contains_key(&place) && self.0.len() < PLACES_MAX;
        if is_new {
            self.0.insert(
                place,
                AddrEntry { spot: AddrState::Waiting, failures: 0, was_missed: false, peer: None },
            );
        }
        is_new
    }

    /// Number of addresses that are being called.
    pub(super) fn calling(&self) -> usize {
        self.0.values().filter(|it| it.spot == AddrState::Calling).count()
    }

    /// True if an address waits to be called.
    pub(super) fn is_waiting(&self, place: PeerAddrId) -> bool {
        self.0.get(&place).is_some_and(|it| it.spot == AddrState::Waiting)
    }

    /// The addresses that wait to be called.
    pub(super) fn waiting(&self) -> impl Iterator<Item = PeerAddrId> + '_ {
        self.0.iter().filter(|(_, it)| it.spot == AddrState::Waiting).map(|(place, _)| *place)
    }

    pub(super) fn call(&mut self, place: PeerAddrId) {
        self.put(place, AddrState::Calling);
    }

    pub(super) fn linked(&mut self, place: PeerAddrId, peer: PeerId) {
        if let Some(entry) = self.0.get_mut(&place).filter(|it| it.spot != AddrState::Never) {
            (entry.spot, entry.was_missed, entry.peer) = (AddrState::Linked, false, Some(peer));
        }
    }

    /// Notes that this peer answers at an address, but over another connection.
    pub(super) fn known_as(&mut self, place: PeerAddrId, peer: PeerId) {
        if let Some(entry) = self.0.get_mut(&place) {
            entry.peer = Some(peer);
        }
    }

    /// Peer that answered at an address.
    pub(super) fn peer_at(&self, place: PeerAddrId) -> Option<PeerId> {
        self.0.get(&place)?.peer
    }

    /// Marks an address as one that is never called again.
    pub(super) fn never(&mut self, place: PeerAddrId) {
        self.put(place, AddrState::Never);
    }

    fn put(&mut self, place: PeerAddrId, spot: AddrState) {
        if let Some(entry) = self.0.get_mut(&place).filter(|it| it.spot != AddrState::Never) {
            entry.spot = spot;
        }
    }

    /// Returns the pause before the next call of an address without connection. None: never again.
    pub(super) fn pause(
        &mut self,
        place: PeerAddrId,
        cause: DisconnectCause,
        config: &Config,
        rng: &mut Rng,
    ) -> Option<Duration> {
        let entry = self.0.get_mut(&place).filter(|it| it.spot != AddrState::Never)?;
        entry.spot = AddrState::Waiting;
        entry.was_missed |= cause == DisconnectCause::Missed;
        if cause == DisconnectCause::Over {
            entry.failures = 0;
        }
        let doubled = 2_u32.saturating_pow(entry.failures.min(20));
        let pause = config.redial_first.saturating_mul(doubled).min(config.redial_max);
        entry.failures = entry.failures.saturating_add((cause != DisconnectCause::Over).into());
        Some(pause.mul_f64(rng.random_range(0.75..=1.0)))
    }

    /// True if a peer that went can be taken as ended: it cannot be called, or was called and
    /// was not there.
    pub(super) fn is_gone(&self, peer: PeerId) -> bool {
        let mut its = self.0.values().filter(|it| it.peer == Some(peer));
        its.all(|it| it.spot == AddrState::Never || it.was_missed)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let config = Config::share();
        let (mut places, mut rng) = (PeerAddrs::default(), Rng::seed_from_u64(3));
        assert!(places.learn(PeerAddrId(1)));
        assert!(!places.learn(PeerAddrId(1)));
        let mut plain = config.redial_first;
        for _ in 0..12 {
            let pause =
                places.pause(PeerAddrId(1), DisconnectCause::Missed, &config, &mut rng).unwrap();
            assert!(pause <= plain && pause >= plain.mul_f64(0.74), "{pause:?} of {plain:?}");
            plain = (plain * 2).min(config.redial_max);
        }
        places.linked(PeerAddrId(1), PeerId(5));
        let pause = places.pause(PeerAddrId(1), DisconnectCause::Over, &config, &mut rng).unwrap();
        assert!(pause <= config.redial_first);
        assert!(!places.is_gone(PeerId(5)), "it was not called since");
        places.pause(PeerAddrId(1), DisconnectCause::Missed, &config, &mut rng);
        assert!(places.is_gone(PeerId(5)));
        places.never(PeerAddrId(1));
        assert_eq!(places.pause(PeerAddrId(1), DisconnectCause::Missed, &config, &mut rng), None);
    }

    #[test]
    fn places_are_bounded() {
        let mut places = PeerAddrs::default();
        let count = (0..10_000).filter(|it| places.learn(PeerAddrId(*it))).count();
        assert_eq!(count, PLACES_MAX);
    }
}
