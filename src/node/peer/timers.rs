//! Routing of deadlines to a peer's services.

use super::{Fx, PeerNode, Timer};
use crate::model::Now;

impl PeerNode {
    pub(super) fn on_timer(&mut self, now: Now, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Session(timer) => {
                self.with_session(now, fx, |it, inner| it.on_timer(timer, inner));
            }
            Timer::Probe(timer) => self.with_prober(now, fx, |it, inner| it.on_timer(timer, inner)),
            Timer::Applicant(timer) => {
                self.with_applicant(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Overlay(timer) => {
                self.with_overlay(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Gossip(timer) => {
                self.with_gossip(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Liveness(timer) => {
                self.with_liveness(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Direct(timer) => {
                self.with_direct(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Contacts(timer) => {
                self.with_contacts(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Discovery(timer) => {
                self.with_discovery(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Broadcast(timer) => {
                self.with_broadcast(now, fx, |it, inner| it.on_timer(now, timer, inner));
            }
            Timer::Leave => self.leave(now, fx),
            Timer::Open(timer) => self.with_open(now, fx, |it, inner| it.on_timer(timer, inner)),
        }
    }
}
