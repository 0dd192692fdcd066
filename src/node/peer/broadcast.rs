//! Broadcast among the other services of a peer: its receivers, and the proof of an origin.

use std::sync::Arc;
use std::time::Duration;

use super::{Event, Fx, PeerNode};
use crate::machine::broadcast::{self, Broadcast, CertificateVerdict};
use crate::machine::session::RejectReason;
use crate::machine::{Effects, LinkId};
use crate::model::{Endpoint, Now, PublicKey};
use crate::proto::broadcast::Publish;
use crate::proto::message::BroadcastMessage;
use crate::proto::refusal::{ErrorCode, ErrorReply};

/// Longest time that is added to a message's age for one link: a round trip can be measured wrong.
const WIRE_MAX: Duration = Duration::from_secs(1);

impl PeerNode {
    pub(super) fn with_broadcast(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut Broadcast, &mut Effects<Broadcast>),
    ) {
        let mut inner = Effects::default();
        work(&mut self.broadcast, &mut inner);
        self.after_broadcast(now, inner, fx);
    }

    fn after_broadcast(&mut self, now: Now, inner: Effects<Broadcast>, fx: &mut Fx) {
        for event in fx.absorb(inner) {
            if let broadcast::Event::Malformed { from, reason } = event {
                let error = ErrorReply::new(ErrorCode::Invalid, reason);
                self.with_session(now, fx, |it, inner| {
                    it.refuse(from, RejectReason::Forged, error, inner);
                });
            } else {
                fx.emit(Event::Broadcast(event));
            }
        }
    }

    /// Starts the broadcast as a member: this peer may publish, and can prove its membership.
    pub(super) fn begin_broadcast(&mut self) {
        let incarnation = self.session.info().incarnation;
        let proof = self.applicant.admission().cloned().map(Arc::new);
        self.broadcast.begin(incarnation, proof);
    }

    /// Handles a message of the broadcast, which is for neighbors only. On a link that is just
    /// being exchanged it is no offense.
    pub(super) fn on_broadcast(
        &mut self,
        now: Now,
        link: LinkId,
        msg: BroadcastMessage,
        fx: &mut Fx,
    ) {
        if self.broadcast.neighbor(link).is_none() {
            return;
        }
        let (it, mut inner) = (&mut self.broadcast, Effects::default());
        match msg {
            BroadcastMessage::Publish(msg) => return self.on_publish(now, link, msg, fx),
            BroadcastMessage::Announce(announce) => {
                it.on_announce(now, link, &announce, &mut inner);
            }
            BroadcastMessage::Graft(graft) => it.on_graft(now, link, &graft, &mut inner),
            BroadcastMessage::Prune(_) => it.on_prune(link),
            BroadcastMessage::PartReq(request) => it.on_part_req(link, request, &mut inner),
            BroadcastMessage::Part(piece) => it.on_part(now, link, &piece, &mut inner),
            BroadcastMessage::Receipt(receipt) => it.on_receipt(now, link, receipt, &mut inner),
            BroadcastMessage::Have(have) => it.on_have(now, link, &have, &mut inner),
            BroadcastMessage::Lack(lack) => it.on_lack(now, link, &lack, &mut inner),
            BroadcastMessage::Slow(slow) => it.on_slow(now, link, slow, &mut inner),
        }
        self.after_broadcast(now, inner, fx);
        if self.is_leaving && self.broadcast.is_settled() {
            self.leave(now, fx);
        }
    }

    /// An origin is believed by the certificate of its membership, as a neighbor is (O6).
    fn on_publish(&mut self, now: Now, link: LinkId, mut msg: Publish, fx: &mut Fx) {
        // Ages leave out the time on the wire; half of a round trip is about what it was.
        let trip = self.broadcast.neighbor(link).and_then(|it| self.liveness.round_trip(it));
        let wire = trip.map_or(Duration::ZERO, |trip| (trip / 2).min(WIRE_MAX));
        let wire_ms = (wire.as_micros() + 500) / 1_000;
        msg.age_ms = msg.age_ms.saturating_add(u64::try_from(wire_ms).unwrap_or(u64::MAX));
        if self.is_contradicted(msg.origin, &msg.key) {
            // The neighbor that passes it on may know less.
            return self.broadcast.drop_forged();
        }
        let mut inner = Effects::default();
        let (book, mut unknown) = (self.applicant.book(), Vec::new());
        self.broadcast.on_publish(
            now,
            link,
            msg,
            |proof| match book.verify_admission(proof) {
                Ok(()) => CertificateVerdict::Holds,
                Err(error) if error.unknown > 0 => {
                    unknown = proof.votes.iter().map(|vote| vote.seed).collect();
                    CertificateVerdict::Unsure
                }
                Err(_) => CertificateVerdict::Fails,
            },
            &mut inner,
        );
        if !unknown.is_empty() {
            self.with_applicant(now, fx, |it, inner| it.want_keys(unknown, inner));
        }
        self.after_broadcast(now, inner, fx);
    }

    /// True if, in a fleet without seeds, another key is proved at an endpoint: there no
    /// certificate binds the key to the endpoint.
    fn is_contradicted(&self, origin: Endpoint, key: &PublicKey) -> bool {
        if self.open.is_none() {
            return false;
        }
        let own = self.session.info();
        let known = match origin == own.endpoint {
            true => Some(own.key),
            false => self.discovery.key_at(origin),
        };
        known.is_some_and(|known| known != *key)
    }
}
