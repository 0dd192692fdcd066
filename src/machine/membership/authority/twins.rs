//! Twins: one key at two endpoints, by a copied data directory or a cloned machine.
//!
//! Each copy is a member like any other, for its statements are bound to its endpoint, too. But a
//! user who knows nodes by their keys finds only one of them, and an attacker who reads one disk
//! can speak for both. So it is told, once an earlier endpoint still answers with the key that was
//! admitted elsewhere: a machine that has only moved does not.

use std::collections::BTreeMap;

use super::{Authority, Event, Fx};
use crate::machine::probe::ProbeOutcome;
use crate::model::statement::MemberInstance;
use crate::model::{Endpoint, PublicKey};

/// Number of times that one key is told of: the copies of an image may be many, and come and go.
const TOLD_MAX: u32 = 8;

/// Number of keys for which the times told are remembered.
const KEYS_MAX: usize = 4_096;

/// Endpoints of the members' keys.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Endpoint that was admitted last under each member's key.
    last: BTreeMap<PublicKey, Endpoint>,
    /// Earlier endpoints that are being probed, with the key and the later endpoint.
    asked: BTreeMap<Endpoint, (PublicKey, Endpoint)>,
    told: BTreeMap<PublicKey, u32>,
}

impl Twins {
    /// Takes a life that began. Returns the endpoint that had its key before.
    pub(super) fn came(&mut self, subject: &MemberInstance) -> Option<Endpoint> {
        let earlier = self.last.insert(subject.key, subject.endpoint);
        earlier.filter(|earlier| *earlier != subject.endpoint)
    }

    /// Takes a life that ended.
    pub(super) fn went(&mut self, subject: &MemberInstance) {
        if self.last.get(&subject.key) == Some(&subject.endpoint) {
            self.last.remove(&subject.key);
        }
        self.asked.remove(&subject.endpoint);
    }

    fn may_tell(&mut self, key: PublicKey) -> bool {
        if self.told.len() >= KEYS_MAX {
            self.told.clear();
        }
        let told = self.told.entry(key).or_default();
        *told += 1;
        *told <= TOLD_MAX
    }
}

impl Authority {
    /// Probes the endpoint that had the key of a new life before.
    pub(super) fn seek_twin(&mut self, subject: &MemberInstance, fx: &mut Fx) {
        let Some(earlier) = self.twins.came(subject) else { return };
        if self.is_home(earlier, &subject.key) {
            self.twins.asked.insert(earlier, (subject.key, subject.endpoint));
            let timeout = self.health.stretch(self.config.probe_timeout * 2);
            fx.emit(Event::Probe { endpoint: earlier, timeout });
        }
    }

    /// Takes the outcome of probing an earlier endpoint of a key.
    pub(super) fn probed_twin(&mut self, endpoint: Endpoint, outcome: &ProbeOutcome, fx: &mut Fx) {
        let Some((key, later)) = self.twins.asked.remove(&endpoint) else { return };
        let ProbeOutcome::Answered(info) = outcome else { return };
        if info.key == key && self.is_home(later, &key) && self.twins.may_tell(key) {
            fx.emit(Event::SharedKey { key, places: [endpoint, later] });
        }
    }

    fn is_home(&self, endpoint: Endpoint, key: &PublicKey) -> bool {
        self.registry.alive_at(endpoint).is_some_and(|entry| entry.subject.key == *key)
    }
}
