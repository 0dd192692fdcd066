//! What the local process asks of a peer.

use super::{Command, Event, Fx, PeerNode};
use crate::model::Now;
use crate::protocol::direct::Letter;
use crate::protocol::message::Standing;

impl PeerNode {
    pub(super) fn on_command(&mut self, now: Now, command: Command, fx: &mut Fx) {
        match command {
            Command::Leave => self.on_leave_command(now, fx),
            Command::Publish { topic, data, receipt, token } => {
                let message = (topic, data, receipt);
                self.with_broadcast(now, fx, |it, part| it.publish(now, token, message, part));
            }
            Command::Send { token, to, topic, data, retry } => {
                self.on_send_command(now, Letter { token, to, topic, data, retry }, fx);
            }
            Command::CancelSend { token } => {
                self.with_direct(now, fx, |it, part| it.cancel(now, token, part));
            }
            Command::Answer { from, number, taken, reason } => {
                let about = (from, number);
                self.with_direct(now, fx, |it, part| it.answer(now, about, taken, &reason, part));
            }
            Command::Discover { token } => {
                self.with_discovery(now, fx, |it, part| it.discover(now, token, part));
            }
            Command::LookUp { token, id } => {
                self.with_discovery(now, fx, |it, part| it.look_up(now, token, id, part));
            }
            Command::AddPeer(peer) => self.on_add_command(now, peer, fx),
            Command::RemovePeer(peer) => self.on_remove_command(now, peer, fx),
        }
    }

    /// Says goodbye to seeds and neighbors, and ends.
    fn on_leave_command(&mut self, now: Now, fx: &mut Fx) {
        let mut leave = None;
        self.with_applicant(now, fx, |it, part| leave = it.leave(now, part));
        self.with_gossip(now, fx, |it, part| it.pause(part));
        self.with_direct(now, fx, |it, part| it.reset(part));
        self.broadcast.pause();
        if self.open.is_some() {
            self.overlay.stop();
        }
        let links: Vec<_> =
            self.session.open().map(|(link, _, standing)| (link, standing)).collect();
        for (link, standing) in links {
            if let (Some(leave), true) = (leave, standing >= Standing::Member) {
                fx.send(link, leave);
            }
            self.with_session(now, fx, |it, part| it.hangup(link, "leaving", part));
        }
        fx.emit(Event::Gone);
    }
}
