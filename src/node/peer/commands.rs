//! Commands of the local process to a peer.

use std::time::Duration;

use super::{Command, Event, Fx, PeerNode, Timer};
use crate::machine::direct::OutgoingMessage;
use crate::model::Now;
use crate::proto::membership::ExplainReq;
use crate::proto::message::TrustLevel;

/// Longest wait of a peer that leaves until its last messages are with a neighbor.
const LEAVE_MAX: Duration = Duration::from_secs(3);

impl PeerNode {
    pub(super) fn on_command(&mut self, now: Now, command: Command, fx: &mut Fx) {
        match command {
            Command::Leave => self.on_leave_command(now, fx),
            Command::Publish { topic, data, receipt, token } => {
                let message = (topic, data, receipt);
                self.with_broadcast(now, fx, |it, inner| it.publish(now, token, message, inner));
            }
            Command::Send { token, to, topic, data, retry } => {
                self.on_send_command(now, OutgoingMessage { token, to, topic, data, retry }, fx);
            }
            Command::CancelSend { token } => {
                self.with_direct(now, fx, |it, inner| it.cancel(now, token, inner));
            }
            Command::Answer { from, number, taken, reason } => {
                let about = (from, number);
                self.with_direct(now, fx, |it, inner| it.answer(now, about, taken, &reason, inner));
            }
            Command::Discover { token } => {
                self.with_discovery(now, fx, |it, inner| it.discover(now, token, inner));
            }
            Command::LookUp { token, id } => {
                self.with_discovery(now, fx, |it, inner| it.look_up(now, token, id, inner));
            }
            Command::AskSeeds(endpoint) => {
                for (_, link) in self.applicant.seed_links() {
                    fx.send(link, ExplainReq { endpoint });
                }
            }
            Command::AddPeer(peer) => self.on_add_command(now, peer, fx),
            Command::RemovePeer(peer) => self.on_remove_command(now, peer, fx),
        }
    }

    /// Leaves as soon as the own published messages are with a neighbor, and after [`LEAVE_MAX`].
    fn on_leave_command(&mut self, now: Now, fx: &mut Fx) {
        if self.broadcast.is_settled() {
            return self.leave(now, fx);
        }
        self.is_leaving = true;
        self.with_broadcast(now, fx, |it, inner| it.ask_for_progress(inner));
        fx.set_timer(Timer::Leave, LEAVE_MAX);
    }

    /// Says goodbye to seeds and neighbors, and ends.
    pub(super) fn leave(&mut self, now: Now, fx: &mut Fx) {
        self.is_leaving = false;
        fx.stop_timer(Timer::Leave);
        let mut leave = None;
        self.with_applicant(now, fx, |it, inner| leave = it.leave(now, inner));
        self.with_gossip(now, fx, |it, inner| it.pause(inner));
        self.with_direct(now, fx, |it, inner| it.reset(inner));
        self.with_broadcast(now, fx, |it, inner| it.pause(inner));
        if self.open.is_some() {
            self.overlay.stop();
        }
        let links: Vec<_> =
            self.session.open().map(|(link, _, standing)| (link, standing)).collect();
        for (link, standing) in links {
            if let (Some(leave), true) = (leave, standing >= TrustLevel::Member) {
                fx.send(link, leave);
            }
            self.with_session(now, fx, |it, inner| it.hangup(link, "leaving", inner));
        }
        fx.emit(Event::Gone);
    }
}
