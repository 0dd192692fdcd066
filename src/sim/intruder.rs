//! Strangers: raw links that a test scripts by hand, to send anything to any host.
//!
//! Invariant: an intruder is bound by TCP and by nothing else. It has an address, no endpoint,
//! and no machine; paths between it and the hosts are never cut.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::{DialError, DialId, LinkId};
use crate::model::{Endpoint, Time};

use super::network::{Delivery, LaneItem, Owner};
use super::reach::LinkHolder;
use super::simulated::Simulated;
use super::world::World;

/// Time-out of a stranger's attempt to connect.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One stranger with one link; made by [`World::intruder_dial`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Intruder(u32);

/// State of a stranger's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntruderState {
    /// The stranger is connecting.
    Dialing,
    /// The attempt to connect failed.
    Failed(DialError),
    /// The link is open.
    Open,
    /// The link is over.
    Closed,
}

#[derive(Debug)]
pub(super) struct Stranger<T> {
    state: IntruderState,
    link: Option<LinkId>,
    inbox: Vec<(Time, T)>,
    /// Parcels to send once the link is open.
    outbox: VecDeque<LaneItem<T>>,
}

impl<T> Stranger<T> {
    pub(super) fn take(&mut self, now: Time, delivery: Delivery<T>) {
        match delivery {
            Delivery::Dialed { link, .. } => {
                self.link = Some(link);
                self.state = IntruderState::Open;
            }
            Delivery::DialFailed { reason, .. } => self.state = IntruderState::Failed(reason),
            Delivery::Received { msg, .. } => self.inbox.push((now, msg)),
            Delivery::Closed { .. } => self.state = IntruderState::Closed,
            Delivery::Accepted { .. } | Delivery::Garbled { .. } => {
                unreachable!("nobody calls a stranger, and hosts send no garbage")
            }
        }
    }
}

impl<M: Simulated> World<M> {
    /// Lets a stranger at `from` call a host; the attempt ends some round trip later.
    pub fn intruder_dial(&mut self, from: IpAddr, to: Endpoint) -> Intruder {
        let number = self.network.reach.admit_stranger(from);
        self.strangers.push(Stranger {
            state: IntruderState::Dialing,
            link: None,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
        });
        let owner = Owner { who: LinkHolder::Intruder(number), life: 0 };
        self.network.dial(&mut self.agenda, owner, DialId(0), to, TIMEOUT);
        Intruder(number)
    }

    /// Sends a message; before the link is open it is kept, after its end it is lost.
    pub fn intruder_send(&mut self, intruder: Intruder, msg: impl Into<M::Message>) {
        self.say(intruder, LaneItem::Message(Arc::new(msg.into())));
    }

    /// Sends a line that is no message; the host is told `reason`.
    pub fn intruder_garble(&mut self, intruder: Intruder, reason: &str) {
        self.say(intruder, LaneItem::Garbage(reason.to_owned()));
    }

    /// Ends the link after the parcels sent before.
    pub fn intruder_hangup(&mut self, intruder: Intruder) {
        self.say(intruder, LaneItem::Fin);
    }

    /// State of the stranger's link.
    pub fn intruder_state(&self, intruder: Intruder) -> IntruderState {
        self.strangers[intruder.0 as usize].state
    }

    /// All messages that the stranger has received, with the world's time.
    pub fn intruder_inbox(&self, intruder: Intruder) -> &[(Time, M::Message)] {
        &self.strangers[intruder.0 as usize].inbox
    }

    fn say(&mut self, intruder: Intruder, parcel: LaneItem<M::Message>) {
        self.strangers[intruder.0 as usize].outbox.push_back(parcel);
        self.speak_up(intruder.0);
    }

    /// Sends the parcels in the outbox of a stranger, if its link is open.
    pub(super) fn speak_up(&mut self, number: u32) {
        let stranger = &mut self.strangers[number as usize];
        let Some(link) = stranger.link.filter(|_| stranger.state == IntruderState::Open) else {
            return;
        };
        for parcel in stranger.outbox.drain(..) {
            if matches!(parcel, LaneItem::Fin) {
                self.network.hang_up(&mut self.agenda, link);
            } else {
                self.network.send(&mut self.agenda, link, parcel);
            }
        }
    }
}
