//! State that the lock of one swarm guards, and the effects that are carried out under it.
//!
//! Invariant: nothing here touches a socket or the disk, or waits for anything.

use crate::proto::swarm::{Hash, Message, PieceIndex};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::handle::ContentPhase;
use super::link::SharedLink;
use super::outgoing::OutgoingItem;
use super::store::Store;
use super::task::{DiskTask, SwarmView};
use crate::machine::LinkId;
use crate::machine::swarm::{
    DialFailure, Effect, Event, ExtraEffect, ExtraInput, Fx, Input, PeerAddrId, Swarm,
    SwarmOutcome, Timer,
};
use crate::machine::timer::TimerQueue;
use crate::model::{Now, Time};
use crate::proto::swarm::frame::encode;
use crate::runtime::driver::options::EventSink;

/// State under the lock.
pub(super) struct State {
    pub(super) machine: Swarm,
    pub(super) timers: TimerQueue<Timer>,
    /// The deadline that the timer thread sleeps until.
    pub(super) armed: Option<Time>,
    pub(super) links: BTreeMap<LinkId, Arc<SharedLink>>,
    pub(super) places: BTreeMap<PeerAddrId, Vec<SocketAddr>>,
    pub(super) events: Box<dyn EventSink<Event>>,
    pub(super) phase: ContentPhase,
    pub(super) ended: Option<SwarmOutcome>,
    pub(super) is_open: bool,
    pub(super) effects: Fx,
}

/// Work to be done without the lock.
#[derive(Default)]
pub(super) struct DeferredWork {
    pub(super) jobs: Vec<(PieceIndex, Vec<u8>, LinkId, Option<Hash>)>,
    pub(super) dials: Vec<(PeerAddrId, Vec<SocketAddr>)>,
    pub(super) cuts: Vec<Arc<SharedLink>>,
    pub(super) keeps: Vec<DiskTask>,
    pub(super) has_new_phase: bool,
}

impl State {
    /// Status of the swarm.
    pub(super) fn view(&self) -> SwarmView {
        SwarmView {
            phase: self.phase.clone(),
            ended: self.ended.clone(),
            status: self.machine.status(),
            peers: self.links.len(),
        }
    }

    /// Carries out one effect, as far as it touches neither sockets nor disk; the rest is
    /// deferred, and an immediate answer to the machine an input.
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        effect: Effect,
        inputs: &mut VecDeque<Input>,
        deferred: &mut DeferredWork,
        store: &Store,
    ) {
        match effect {
            Effect::Send { link, msg } => self.send(link, &msg, inputs, deferred),
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.send(link, &msg, inputs, deferred);
                }
            }
            Effect::Persist(never) => match never {},
            Effect::Extra(ExtraEffect::Upload(link, index, offset)) => {
                self.push(link, OutgoingItem::Piece(index, offset), deferred);
            }
            Effect::Extra(ExtraEffect::Drop(link, index)) => {
                if self.links.get(&link).is_some_and(|it| it.outgoing.drop_piece(index)) {
                    inputs.push_back(Input::Extra(ExtraInput::Uploaded { link, index, bytes: 0 }));
                }
            }
            Effect::Extra(ExtraEffect::Store { index, data, from, expected }) => {
                deferred.jobs.push((index, data, from, expected));
            }
            Effect::Dial(place) => match self.places.get(&place) {
                Some(addrs) => deferred.dials.push((place, addrs.clone())),
                None => {
                    let reason = "there is no such address".to_owned();
                    inputs.push_back(Input::DialFailed(DialFailure { place, reason }));
                }
            },
            Effect::Hangup { link } => {
                if let Some(shared_link) = self.links.remove(&link) {
                    shared_link.hang_up("closed by this peer");
                }
            }
            Effect::SetTimer { timer, after: span } => self.timers.set(timer, now.mono.after(span)),
            Effect::StopTimer(timer) => self.timers.stop(&timer),
            Effect::Emit(event) => self.emit(now, event, inputs, deferred, store),
        }
    }

    fn send(
        &mut self,
        link: LinkId,
        msg: &Message,
        inputs: &mut VecDeque<Input>,
        deferred: &mut DeferredWork,
    ) {
        if *msg == Message::Choke
            && let Some(shared_link) = self.links.get(&link)
        {
            let dropped = shared_link.outgoing.drop_pieces();
            let told = |index| Input::Extra(ExtraInput::Uploaded { link, index, bytes: 0 });
            inputs.extend(dropped.into_iter().map(told));
        }
        self.push(link, OutgoingItem::Message(encode(msg)), deferred);
    }

    fn push(&mut self, link: LinkId, item: OutgoingItem, deferred: &mut DeferredWork) {
        let Some(shared_link) = self.links.get(&link) else { return };
        if shared_link.outgoing.push(item).is_err() {
            shared_link.hang_up("the other end does not read what it is sent");
            // Its reader ends, and reports that to the machine.
            deferred.cuts.push(Arc::clone(shared_link));
        }
    }

    fn emit(
        &mut self,
        now: Now,
        event: Event,
        inputs: &mut VecDeque<Input>,
        deferred: &mut DeferredWork,
        store: &Store,
    ) {
        match &event {
            Event::Complete => {
                if self.phase == ContentPhase::Fetching {
                    self.phase = ContentPhase::Finishing;
                    deferred.keeps.push(DiskTask::Finish);
                    deferred.has_new_phase = true;
                }
            }
            Event::FileList(text) => {
                if store.wants_list() {
                    match store.lay_out(text) {
                        Ok(()) => deferred.keeps.push(DiskTask::List),
                        Err(err) => {
                            inputs.push_back(Input::Extra(ExtraInput::DiskFailed(err.to_string())));
                        }
                    }
                    deferred.has_new_phase = true;
                }
            }
            Event::Ended(outcome) => {
                self.ended = Some(outcome.clone());
                if let SwarmOutcome::DiskFailed(reason) = outcome {
                    self.phase = ContentPhase::Failed(reason.clone());
                }
                deferred.has_new_phase = true;
            }
            Event::Connected(_)
            | Event::ConnectedFrom(_)
            | Event::Preferred(_)
            | Event::Optimistic(_)
            | Event::UnchokedBy(_)
            | Event::ChokedBy(_)
            | Event::Have(..)
            | Event::Interested(_)
            | Event::NotInterested(_)
            | Event::Downloaded { .. }
            | Event::ReadAgain { .. }
            | Event::Withdrawn(_)
            | Event::Refused(..)
            | Event::Odd(..)
            | Event::Disconnected(..)
            | Event::Unreachable { .. }
            | Event::FalsePiece(..) => {}
        }
        if !self.events.take(now, event) {
            log::debug!("an event of a swarm found no room");
        }
    }
}
