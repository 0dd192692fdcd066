//! One key at two places, as a peer notices it: a copied data directory, or a cloned machine.
//!
//! Nobody is said to have a key that is only claimed to be there: each place has a certificate for
//! it, or has answered with it.

use super::{CALL_TIMEOUT, Event, Fx, PeerNode};
use crate::model::{Endpoint, Now};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::message::TrustLevel;

/// Pairs of places that are remembered; with more, some are reported again.
const PAIRS_MAX: usize = 256;

impl PeerNode {
    /// Calls the other member that shows the same key as the one whose link opened, if there is
    /// one: a machine that has only moved does not answer at its old place.
    pub(super) fn seek_twin(&mut self, now: Now, info: &NodeInfo, fx: &mut Fx) {
        let own = self.session.info();
        if info.key == own.key {
            let places = [own.endpoint, info.endpoint];
            return self.report_twins(info, places, fx);
        }
        let other = self.session.open().find(|(_, other, standing)| {
            *standing == TrustLevel::Member
                && other.key == info.key
                && other.endpoint != info.endpoint
        });
        if let Some(other) = other.map(|(_, other, _)| other.endpoint) {
            self.twins.asked.entry(other).or_insert((info.endpoint, info.certificate.is_some()));
            self.with_session(now, fx, |it, inner| {
                it.call(other, Intent::Probe, CALL_TIMEOUT, inner);
            });
        }
    }

    /// A probe of `to` is over, with this answer if there was one.
    pub(super) fn probed_twin(
        &mut self,
        now: Now,
        to: Endpoint,
        answer: Option<&NodeInfo>,
        fx: &mut Fx,
    ) {
        let Some((later, is_proved)) = self.twins.asked.remove(&to) else { return };
        let Some(info) = answer else { return };
        let is_there = |(_, it, _): (_, &NodeInfo, _)| it.endpoint == later && it.key == info.key;
        if info.endpoint != to || !self.session.open().any(is_there) {
            return;
        }
        if is_proved {
            return self.report_twins(info, [to, later], fx);
        }
        self.twins.asked.entry(later).or_insert((to, true));
        self.with_session(now, fx, |it, inner| it.call(later, Intent::Probe, CALL_TIMEOUT, inner));
    }

    fn report_twins(&mut self, info: &NodeInfo, mut places: [Endpoint; 2], fx: &mut Fx) {
        places.sort_unstable();
        if self.twins.reported.len() >= PAIRS_MAX {
            self.twins.reported.clear();
        }
        if self.twins.reported.insert(places) {
            fx.emit(Event::SharedKey { key: info.key, places });
        }
    }
}
