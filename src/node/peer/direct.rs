//! Direct sends among the other services of a peer.

use super::{CALL_TIMEOUT, Event, Fx, PeerNode};
use crate::machine::direct::{self, Direct, FailKind, OutgoingMessage};
use crate::machine::session::RejectReason;
use crate::machine::{Effects, LinkId};
use crate::model::{Endpoint, Now};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::message::DirectMessage;
use crate::proto::refusal::{ErrorCode, ErrorReply};

impl PeerNode {
    pub(super) fn with_direct(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Direct, &mut Effects<Direct>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.direct, &mut inner);
        for event in fx.absorb(inner) {
            self.on_direct_event(now, event, fx);
        }
    }

    fn on_direct_event(&mut self, now: Now, event: direct::Event, fx: &mut Fx) {
        match event {
            direct::Event::Call { to } => self.call_directly(now, to, fx),
            direct::Event::Hangup { link, reason } => {
                self.with_session(now, fx, |it, inner| it.hangup(link, reason, inner));
            }
            direct::Event::Malformed { from, reason } => {
                let error = ErrorReply::new(ErrorCode::Invalid, reason);
                self.with_session(now, fx, |it, inner| {
                    it.refuse(from, RejectReason::Forged, error, inner);
                });
            }
            direct::Event::Busy { to, busy } => self.contacts.on_busy(now, to, busy),
            event @ (direct::Event::Arrived { .. }
            | direct::Event::Lapsed { .. }
            | direct::Event::Sent { .. }
            | direct::Event::Failed { .. }) => fx.emit(Event::Direct(event)),
        }
    }

    /// Calls a member for a link that is no link of neighbors.
    pub(super) fn call_directly(&mut self, now: Now, to: Endpoint, fx: &mut Fx) {
        if !self.is_member() {
            return self.on_direct_call_failed(now, to, "this peer is no member now", fx);
        }
        self.with_session(now, fx, |it, inner| it.call(to, Intent::Direct, CALL_TIMEOUT, inner));
    }

    pub(super) fn on_direct_call_failed(
        &mut self,
        now: Now,
        to: Endpoint,
        reason: &str,
        fx: &mut Fx,
    ) {
        self.with_contacts(now, fx, |it, inner| it.on_call_failed(to, inner));
        self.with_direct(now, fx, |it, inner| it.on_call_failed(to, reason, inner));
    }

    /// A member's link for direct messages came up.
    pub(super) fn on_direct_opened(
        &mut self,
        now: Now,
        link: LinkId,
        info: &NodeInfo,
        dialed: bool,
        fx: &mut Fx,
    ) {
        let who = (link, info.endpoint, info.incarnation);
        self.with_contacts(now, fx, |it, inner| it.on_link_up(now, link, info.endpoint, inner));
        self.with_direct(now, fx, |it, inner| it.on_link_up(now, who, Some(dialed), inner));
    }

    pub(super) fn on_direct_message(
        &mut self,
        now: Now,
        (link, info): (LinkId, &NodeInfo),
        msg: DirectMessage,
        fx: &mut Fx,
    ) {
        let sender = (info.endpoint, info.incarnation);
        let life = self.session.info().incarnation;
        self.with_direct(now, fx, |it, inner| match msg {
            DirectMessage::Direct(msg) => it.on_message(now, (link, sender), life, msg, inner),
            DirectMessage::DirectAck(ack) => it.on_ack(now, link, sender, &ack, inner),
            DirectMessage::DirectPartReq(wanted) => {
                it.on_part_req(now, link, sender.0, wanted, inner);
            }
            DirectMessage::DirectPart(data) => it.on_part(now, (link, sender), &data, inner),
        });
    }

    pub(super) fn on_send_command(&mut self, now: Now, letter: OutgoingMessage, fx: &mut Fx) {
        let bar = self.bar(now, letter.to);
        self.with_direct(now, fx, |it, inner| it.send(now, letter, bar, inner));
    }

    /// Reason of other services against a direct send to `to`, if there is one.
    fn bar(&self, now: Now, to: Endpoint) -> Option<(FailKind, String)> {
        if self.applicant.book().seed_at(to).is_some() {
            Some((FailKind::NotSent, format!("{to} is a seed; direct sends are for peers")))
        } else if !to.is_callable() {
            Some((FailKind::NotSent, format!("nobody can be called at {to}; name IP:PORT")))
        } else if self.contacts.is_removed(to) {
            Some((FailKind::NotSent, format!("{to} was removed by hand; add it again first")))
        } else if !self.is_member() {
            Some((FailKind::NotSent, "this peer is no member now".to_owned()))
        } else {
            let silent = self.contacts.unreachable_for(now, to)?.as_secs();
            let reason = format!("{to} has been unreachable for {silent} s; it is called again");
            Some((FailKind::Unreachable, reason))
        }
    }
}
