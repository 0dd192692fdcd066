//! Signs of life (C13): on a connection between members each end sends a message in every round of
//! one heartbeat, and closes it if none comes for longer than a leader may be silent.
//!
//! A network can lose all packets and leave both ends their connection; the system then tries again
//! after pauses as long as the silence was. A new connection is made sooner.
//!
//! Rounds are counted, not time: a process that slept through some blames no member for it.

use super::event::Timer;
use super::replica::{Fx, Replica};
use crate::proto::chat::message::{Alive, Message};

impl Replica {
    pub(super) fn on_pulse(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::Pulse, self.config.heartbeat);
        for link in self.links.end_round(self.config.quiet_rounds()) {
            self.drop_it("a connection without a sign of life", fx);
            fx.hangup(link);
            self.on_unlinked(link, fx);
        }
        let linked: Vec<_> = self.links.members().map(|(_, link, _)| link).collect();
        let group = self.log.membership();
        self.links.forget_heard(|id| group.members.iter().any(|it| it.id == id));
        if !linked.is_empty() {
            fx.send_all(linked, Message::Alive(Alive { sender_id: self.process.id() }));
        }
    }
}
