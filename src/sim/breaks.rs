//! Ends of links: by a hang-up, a reset, a crash, a silence, or for want of room.
//!
//! Invariant: an end moves from open to closing to gone and never back; the function that moves it
//! from open sees to it that its owner, if it still lives, is told once.

use std::fmt::Debug;
use std::mem;
use std::time::Duration;

use rand::RngExt as _;

use crate::machine::LinkId;
use crate::model::Time;

use super::agenda::{Agenda, Due};
use super::network::{Delivery, EndState, LaneId, LaneItem, Network, Owner};
use super::reach::{HostId, LinkHolder};
use super::tally::FaultEffect;

/// Longest pause between two tries to get through on a silent path (Linux).
const BACK_OFF_MAX: Duration = Duration::from_secs(120);

impl<T: Clone + Debug> Network<T> {
    /// Ends a link after the parcels sent before; both ends are told.
    pub(super) fn hang_up(&mut self, agenda: &mut Agenda, link: LinkId) {
        let lane = LaneId::of(link);
        if self.begin_closing(agenda, lane, "hung up") {
            self.post(agenda, lane, LaneItem::Fin);
        }
    }

    /// Closes the end of this side, if it is open; its owner is told soon.
    pub(super) fn begin_closing(
        &mut self,
        agenda: &mut Agenda,
        lane: LaneId,
        reason: &'static str,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(lane.conn) else {
            return false;
        };
        let end = &mut conn.ends[lane.side()];
        if end.state != EndState::Open {
            return false;
        }
        end.state = EndState::Closing(reason);
        let base = conn.base;
        let told = agenda.now().after(self.travel(base));
        agenda.plan(told, Due::LocalClose(lane.link()));
        true
    }

    /// Tells the owner of an end that is closing, unless that is over already.
    pub(super) fn close_locally(&mut self, link: LinkId) -> Option<(Owner, Delivery<T>)> {
        let lane = LaneId::of(link);
        let end = &mut self.conns.get_mut(lane.conn)?.ends[lane.side()];
        let EndState::Closing(reason) = end.state else {
            return None;
        };
        end.state = EndState::Gone;
        let owner = end.owner;
        self.forget_if_over(lane.conn);
        Some((owner, Delivery::Closed { link, reason }))
    }

    /// Gives up a lane that is stuck since `since`, as its sender.
    pub(super) fn give_up(&mut self, lane: LaneId, since: Time) -> Option<(Owner, Delivery<T>)> {
        let conn = self.conns.get_mut(lane.conn)?;
        if conn.lanes[lane.side()].stuck != Some(since) {
            return None;
        }
        let end = &mut conn.ends[lane.side()];
        let was_open = end.state == EndState::Open;
        if was_open {
            end.state = EndState::Gone;
        }
        let owner = end.owner;
        self.tally.add(FaultEffect::LinkTimedOut, 1);
        self.clear(lane);
        self.forget_if_over(lane.conn);
        let closed = Delivery::Closed { link: lane.link(), reason: "no acknowledgment in time" };
        was_open.then_some((owner, closed))
    }

    /// Loses all parcels on a lane.
    pub(super) fn clear(&mut self, lane: LaneId) {
        let Some(conn) = self.conns.get_mut(lane.conn) else {
            return;
        };
        let queue = &mut conn.lanes[lane.side()];
        let lost = mem::take(&mut queue.queue);
        queue.stuck = None;
        self.stuck.remove(&lane);
        let messages = lost.iter().filter(|(_, what)| matches!(what, LaneItem::Message(_))).count();
        self.tally.add(FaultEffect::LostInFlight, messages);
        // The listener's end that waits for the lost handshake never learns that there was a link.
        let far = &mut conn.ends[1 - lane.side()];
        if far.state == EndState::Pending {
            far.state = EndState::Gone;
        }
    }

    /// Ends the links of a host's process. In a crash its kernel tells the other ends; if the host
    /// itself is gone (`silent`) no other end is told.
    pub(super) fn end_process(&mut self, agenda: &mut Agenda, host: HostId, silent: bool) {
        for number in self.of_host[host.index()].clone() {
            for lane in [LaneId::new(number, 0), LaneId::new(number, 1)] {
                self.end_of_owner(agenda, host, lane, silent);
            }
            self.forget_if_over(number);
        }
    }

    fn end_of_owner(&mut self, agenda: &mut Agenda, host: HostId, lane: LaneId, silent: bool) {
        let Some(conn) = self.conns.get_mut(lane.conn) else {
            return;
        };
        let end = &mut conn.ends[lane.side()];
        if end.owner.who != LinkHolder::Host(host) || end.state == EndState::Gone {
            return;
        }
        let state = mem::replace(&mut end.state, EndState::Gone);
        if silent {
            // Parcels under way to the host stay with their sender, which tries again.
            self.clear(lane);
            return;
        }
        self.clear(lane.reverse());
        if matches!(state, EndState::Closing(_)) {
            return;
        }
        // A kernel may still deliver the bytes that the dead process wrote, or not.
        if self.rng.random_bool(0.5) {
            self.post(agenda, lane, LaneItem::Fin);
        } else {
            self.clear(lane);
            self.post(agenda, lane, LaneItem::Reset);
        }
    }

    /// Breaks every link between two hosts; both are told. Returns how many broke.
    pub(super) fn reset(&mut self, agenda: &mut Agenda, a: HostId, b: HostId) -> usize {
        let mut broken = 0;
        for number in self.between(a, b) {
            let lanes = [LaneId::new(number, 0), LaneId::new(number, 1)];
            lanes.iter().for_each(|lane| self.clear(*lane));
            let told = lanes.map(|lane| self.begin_closing(agenda, lane, "connection reset"));
            broken += usize::from(told != [false, false]);
            self.forget_if_over(number);
        }
        broken
    }

    /// Moves the stuck lanes that can move, after some path opened.
    pub(super) fn unstick(&mut self, agenda: &mut Agenda) {
        for lane in self.stuck.iter().copied().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get(lane.conn) else { continue };
            let (from, to) = (&conn.ends[lane.side()].owner, &conn.ends[1 - lane.side()].owner);
            if !self.reach.carries(from.who, to.who) {
                continue;
            }
            let (base, since) = (conn.base, conn.lanes[lane.side()].stuck);
            let mut arrival = agenda.now().after(self.travel(base));
            if let Some(since) = since.filter(|_| self.backs_off) {
                let waited = agenda.now().since(since).min(BACK_OFF_MAX).as_micros() as u64;
                let pause = self.rng.random_range(0..=waited);
                arrival = arrival.after(Duration::from_micros(pause));
            }
            self.stuck.remove(&lane);
            let conn = self.conns.get_mut(lane.conn).expect("it was there a line ago");
            let queue = &mut conn.lanes[lane.side()];
            queue.stuck = None;
            queue.last = queue.last.max(arrival);
            for (at, _) in &mut queue.queue {
                *at = arrival.max(*at);
            }
            if let Some((next, _)) = queue.queue.front() {
                agenda.plan(*next, Due::Arrival(lane));
            }
        }
    }

    pub(super) fn forget_if_over(&mut self, number: u64) {
        let Some(conn) = self.conns.get(number) else {
            return;
        };
        if conn.ends.iter().any(|end| end.state != EndState::Gone) {
            return;
        }
        let ends = conn.ends.each_ref().map(|end| end.owner.who);
        for side in [0, 1] {
            self.clear(LaneId::new(number, side));
        }
        self.conns.remove(number);
        for who in ends {
            if let LinkHolder::Host(host) = who {
                self.of_host[host.index()].remove(&number);
            }
        }
    }
}
