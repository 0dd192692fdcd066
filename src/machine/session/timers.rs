//! Ends of links by the session: keep-alive rounds, links whose time is over, too many unproven.

use super::{
    ERRANDS_OF_ALL_MAX, ErrorCode, ErrorReply, Event, Fx, LinkId, QUIET_ROUNDS_MAX, RejectReason,
    Session, Stage, Timer, TrustLevel,
};
use crate::machine::crowd::first_to_go;
use crate::proto::hello::Intent;
use crate::proto::liveness::Ping;

impl Session {
    /// Pings the links that were quiet for a whole round, and closes those that stay quiet. Rounds
    /// are counted, not time: a node that slept through some blames no link for it.
    pub(super) fn on_keep_alive(&mut self, fx: &mut Fx) {
        fx.set_timer(Timer::KeepAlive, self.config.keep_alive);
        let mut silent = Vec::new();
        for (link, entry) in &mut self.links {
            if matches!(entry.stage, Stage::Open { .. }) {
                entry.quiet_rounds += 1;
                // Halved each round: only offenses in quick succession end a link.
                entry.offenses /= 2;
                if entry.quiet_rounds > QUIET_ROUNDS_MAX {
                    silent.push(*link);
                } else if entry.quiet_rounds > 1 {
                    fx.send(*link, Ping { nonce: 0 });
                }
            }
        }
        for link in silent {
            fx.hangup(link);
            self.forget(link, "silent for too long", false, fx);
        }
    }

    /// Closes one of too many unproven connections, before another comes.
    pub(super) fn make_room(&mut self, fx: &mut Fx) {
        if self.unproven.len() < self.config.unproven_max {
            return;
        }
        let crowd = self.unproven.iter().filter_map(|it| Some((*it, self.address(*it)?)));
        let Some(first) = first_to_go(crowd) else { return };
        let Some(from) = self.address(first) else { return };
        let detail = format!("limit {}; the oldest was closed", self.config.unproven_max);
        fx.emit(Event::Refused { from, cause: RejectReason::TooManyUnproven, detail });
        // A link that is open gets a BYE with the reason.
        if self.peer(first).is_none() {
            let reason = "too many connections without a handshake; try again in a moment";
            fx.send(first, ErrorReply::new(ErrorCode::Busy, reason));
        }
        self.hangup(first, "too many unproven connections", fx);
    }

    /// Closes the link of a query if there are too many, of which the newest is already counted.
    pub(super) fn make_room_for_errand(&mut self, fx: &mut Fx) {
        let crowd = self.errands.iter().filter_map(|it| Some((*it, self.address(*it)?)));
        if self.errands.len() > ERRANDS_OF_ALL_MAX
            && let Some(first) = first_to_go(crowd)
        {
            self.hangup(first, "too many errands at once; try again in a moment", fx);
        }
    }

    /// Closes a link whose handshake, query or application has taken too long.
    pub(super) fn on_handshake_timer(&mut self, link: LinkId, fx: &mut Fx) {
        let Some(entry) = self.links.get(&link) else { return };
        match entry.stage {
            Stage::Open { standing, intent, .. } => {
                if standing < TrustLevel::Member || intent == Intent::Errand {
                    self.hangup(link, "the time for this link is over", fx);
                }
            }
            Stage::Probed => self.hangup(link, "probe answered", fx),
            Stage::Calling { .. } => self.hangup(link, "no answer in time", fx),
            Stage::Fresh | Stage::Challenged { .. } => {
                let from = entry.from;
                let limit = self.config.handshake_timeout.as_secs_f32();
                let detail = format!("no handshake within {limit} s");
                let error = ErrorReply::new(ErrorCode::Handshake, detail.clone());
                fx.emit(Event::Refused { from, cause: RejectReason::HandshakeTimeout, detail });
                fx.send(link, error);
                self.hangup(link, "no handshake in time", fx);
            }
        }
    }
}
