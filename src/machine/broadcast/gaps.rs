//! Repair by number: neighbors tell each other which numbers of each origin they have, and ask for
//! those that they lack.
//!
//! A number counts as missing only below one that came: its origin signed that one, so no neighbor
//! can make a node miss a message that was never made. A higher number that a neighbor claims to
//! have is asked for, and believed when it comes.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::config::{
    ASKED_SHARE, GAP_AFTER, GAP_MAX, HAVES_MAX, LACK_PAUSE, LACKS_MAX, LOOKED_MAX, TELL_SHARE,
    TICK, WATCH_EVERY,
};
use super::event::Reason;
use super::{Broadcast, Event, Fx, Numbers, Timer};
use crate::machine::LinkId;
use crate::model::statement::MemberInstance;
use crate::model::{Endpoint, Now, Time};
use crate::proto::broadcast::{
    ANNOUNCE_MAX, Announce, HAVE_MAX, Have, LACK_ROWS_MAX, Lack, Lacking, Reached,
};

/// A neighbor's claim to have numbers of one origin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claim {
    pub(super) done: u64,
    pub(super) top: u64,
    /// Number of questions for them in vain, the time of the last, and the first number asked for.
    asks: u32,
    asked: Time,
    from: u64,
}

impl Claim {
    /// Creates the claim of a neighbor that has made none yet.
    pub(super) const fn up_to(number: u64) -> Self {
        Self { done: number, top: number, asks: 0, asked: Time::ZERO, from: 0 }
    }
}

impl Broadcast {
    /// Takes note of a message that came, or that this node published.
    pub(super) fn arrived(
        &mut self,
        now: Now,
        (origin, number): (&MemberInstance, u64),
        bytes: u64,
        fx: &mut Fx,
    ) {
        let given_up = self.origins.arrived(now.mono, origin, number);
        self.miss(origin.endpoint, given_up);
        self.arrivals += 1;
        if self.arrivals.is_multiple_of(WATCH_EVERY) {
            self.watch_pace(now, fx);
        }
        self.untold += bytes;
        if self.untold >= self.config.held_bytes_max / TELL_SHARE {
            self.announce_numbers(now, true, fx);
        }
        self.forget_later(now, fx);
        self.begin_ticking(now, fx);
    }

    /// Tells the neighbors the numbers that are here.
    fn announce_numbers(&mut self, now: Now, at_once: bool, fx: &mut Fx) {
        self.untold = 0;
        let told = self.origins.untold(now.mono, at_once);
        for of in told.chunks(HAVE_MAX) {
            for link in self.links.keys() {
                fx.send(*link, Have { of: of.to_vec() });
            }
        }
    }

    fn begin_ticking(&mut self, now: Now, fx: &mut Fx) {
        if !self.armed.contains_key(&Timer::Tick) {
            self.ticked = now.mono;
            self.arm(Timer::Tick, Some(now.mono.after(TICK)), now, fx);
        }
    }

    /// Counts messages that are missed, until the next tick tells of them.
    fn miss(&mut self, origin: Endpoint, count: u64) {
        if count > 0 {
            let missed = self.missed.entry(origin).or_default();
            *missed = missed.saturating_add(count);
        }
    }

    /// Tells a new neighbor the numbers that are here, for the origins of all held messages.
    pub(super) fn introduce_numbers(&mut self, link: LinkId, fx: &mut Fx) {
        let of: Vec<_> = self.store.origins().filter_map(|it| self.origins.reached(it)).collect();
        for of in of.chunks(HAVE_MAX) {
            fx.send(link, Have { of: of.to_vec() });
        }
    }

    /// Tells all neighbors the numbers that this peer has made; each answers with those it has.
    pub fn ask_for_progress(&mut self, fx: &mut Fx) {
        let own = self.life.and_then(|life| self.origins.place(&life));
        let Some(own) = own.and_then(|place| self.origins.reached(place)) else { return };
        for link in self.links.keys() {
            fx.send(*link, Have { of: vec![own] });
        }
    }

    /// Takes a neighbor's claim to have numbers.
    pub fn on_have(&mut self, now: Now, from: LinkId, have: &Have, fx: &mut Fx) {
        if have.of.len() > HAVE_MAX {
            let reason = format!("{} origins; at most {HAVE_MAX} at once", have.of.len());
            return self.blame(from, reason, fx);
        }
        let Some(link) = self.links.get_mut(&from) else { return };
        for Reached { origin, done, top } in &have.of {
            let here = self.origins.numbers(origin).map(Numbers::top);
            let has_room = link.claims.len() < HAVES_MAX || link.claims.contains_key(origin);
            if origin.endpoint != self.me && here.is_some_and(|here| here <= *done && here >= *top)
            {
                // Both sides have all of its numbers.
                link.claims.remove(origin);
            } else if has_room {
                let claim = link.claims.entry(*origin).or_default();
                claim.asks = if *top > claim.top { 0 } else { claim.asks };
                (claim.done, claim.top) = (*done, *top);
            } else {
                self.metrics.drop_one(Reason::Crowded);
            }
            // An origin that is about to leave wants to know whether its messages are here.
            if origin.endpoint == link.endpoint
                && let Some(reached) =
                    self.origins.place(origin).and_then(|it| self.origins.reached(it))
            {
                fx.send(from, Have { of: vec![reached] });
            }
        }
        self.begin_ticking(now, fx);
    }

    /// Announces the held messages among those that a neighbor lacks.
    pub fn on_lack(&mut self, now: Now, from: LinkId, lack: &Lack, fx: &mut Fx) {
        let is_long =
            lack.of.len() > HAVE_MAX || lack.of.iter().any(|it| it.rows.len() > LACK_ROWS_MAX);
        if is_long {
            let reason = format!(
                "at most {LACK_ROWS_MAX} rows of numbers of at most {HAVE_MAX} origins at once"
            );
            return self.blame(from, reason, fx);
        }
        let Some(link) = self.links.get_mut(&from) else { return };
        if !link.may_ask_numbers(now.mono) {
            return self.metrics.drop_one(Reason::Hasty);
        }
        let hold = self.config.hold;
        self.store.forget(now.mono, hold);
        let (mut ids, mut looks) = (Vec::new(), LOOKED_MAX);
        for Lacking { origin, rows } in &lack.of {
            let Some(place) = self.origins.place(origin) else { continue };
            ids.extend(self.store.offers((place, rows), (now.mono, hold), &mut looks));
        }
        ids.truncate(ANNOUNCE_MAX);
        if !ids.is_empty() {
            self.metrics.announcements += ids.len() as u64;
            fx.send(from, Announce { ids });
        }
    }

    /// Tells the neighbors the numbers that are here, asks for missing ones, and gives up those
    /// that no neighbor sends.
    pub(super) fn on_tick(&mut self, now: Now, fx: &mut Fx) {
        // After a standstill, messages that came meanwhile are still to be read.
        if now.mono.since(self.ticked) > TICK * 4 {
            self.connected = now.mono;
        }
        self.ticked = now.mono;
        self.announce_numbers(now, false, fx);
        let is_slow = self.watch_pace(now, fx);
        let asks = self.ask_for_claimed(now, fx);
        self.ask_for_missing(now, fx);
        let is_connected = !self.links.is_empty() && now.mono.since(self.connected) >= GAP_MAX;
        let limits = (now.mono.before(GAP_MAX), now.mono.before(self.config.hold));
        let pulled = self.pulls.values().map(|pull| pull.msg.subject());
        let coming: BTreeSet<_> = pulled.chain(self.wanted.origins()).collect();
        for (origin, count) in self.origins.give_up(is_connected.then_some(limits), &coming) {
            self.miss(origin, count);
        }
        for (origin, count) in std::mem::take(&mut self.missed) {
            self.metrics.drop_many(Reason::Missed, count);
            fx.emit(Event::Missed { origin, count });
        }
        if asks || is_slow || !self.origins.is_at_rest() {
            self.arm(Timer::Tick, Some(now.mono.after(TICK)), now, fx);
        }
    }

    /// Asks each neighbor for the numbers that it claims to have above all that came here. Returns
    /// whether there are any.
    fn ask_for_claimed(&mut self, now: Now, fx: &mut Fx) -> bool {
        let mut is_open = false;
        for (id, link) in &mut self.links {
            let mut of = Vec::new();
            for (origin, claim) in &mut link.claims {
                let top = self.origins.numbers(origin).map_or(0, Numbers::top);
                let is_own = origin.endpoint == self.me && origin.incarnation == self.made.0;
                if top >= claim.from {
                    claim.asks = 0; // The first number asked for has come.
                }
                if claim.top <= top || claim.asks >= LACKS_MAX || is_own {
                    continue;
                }
                is_open = true;
                let has_time = claim.asks == 0 || now.mono.since(claim.asked) >= LACK_PAUSE;
                if has_time && of.len() < HAVE_MAX {
                    (claim.asked, claim.asks, claim.from) = (now.mono, claim.asks + 1, top + 1);
                    of.push(Lacking { origin: *origin, rows: vec![(top + 1, claim.top)] });
                }
            }
            if !of.is_empty() {
                fx.send(*id, Lack { of });
            }
        }
        is_open
    }

    /// Asks one neighbor after the other for the numbers that are missing, of one batch of origins
    /// after the other: no origin keeps the gaps of others from being asked for.
    fn ask_for_missing(&mut self, now: Now, fx: &mut Fx) {
        let (mut link, from) = self.lacked;
        let lacking = self.origins.restless_after(from).filter_map(|(origin, numbers)| {
            let missing = numbers.missing(now.mono, GAP_AFTER);
            let rows: Vec<_> = missing.map(|it| it.into_inner()).take(LACK_ROWS_MAX).collect();
            (!rows.is_empty()).then_some(Lacking { origin: *origin, rows })
        });
        let of: Vec<_> = lacking.take(HAVE_MAX).collect();
        let asked = if of.is_empty() { 0 } else { 1 + self.links.len() / ASKED_SHARE };
        for _ in 0..asked {
            let after = self.links.range((Bound::Excluded(link), Bound::Unbounded)).next();
            let next = after.or_else(|| self.links.first_key_value());
            let Some((next, _)) = next else { break };
            link = *next;
            fx.send(link, Lack { of: of.clone() });
        }
        self.lacked = match of.last() {
            // There may be more: the same neighbors are asked for those.
            Some(last) if of.len() == HAVE_MAX => (self.lacked.0, Some(last.origin)),
            Some(_) | None => (link, None),
        };
    }
}
