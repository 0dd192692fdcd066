//! State that the lock of one swarm guards, and the effects that are carried out under it.
//!
//! Invariant: nothing here touches a socket or the disk, or waits for anything.

use crate::proto::swarm::{Hash, Message, PieceIndex};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::joined::Phase;
use super::link::Line;
use super::outgoing::Item;
use super::room::{Keep, View};
use super::store::Store;
use crate::machine::LinkId;
use crate::machine::swarm::{
    DialFailure, Effect, Event, ExtraEffect, ExtraInput, Fx, Input, Outcome, Place, Swarm, Timer,
};
use crate::machine::timer::TimerQueue;
use crate::model::{Now, Time};
use crate::proto::swarm::frame::encode;
use crate::runtime::driver::options::Sink;

/// State under the lock.
pub(super) struct State {
    pub(super) machine: Swarm,
    pub(super) timers: TimerQueue<Timer>,
    /// The deadline that the timer thread sleeps until.
    pub(super) armed: Option<Time>,
    pub(super) links: BTreeMap<LinkId, Arc<Line>>,
    pub(super) places: BTreeMap<Place, Vec<SocketAddr>>,
    pub(super) events: Box<dyn Sink<Event>>,
    pub(super) phase: Phase,
    pub(super) ended: Option<Outcome>,
    pub(super) is_open: bool,
    pub(super) effects: Fx,
}

/// Work to be done without the lock.
#[derive(Default)]
pub(super) struct Chores {
    pub(super) jobs: Vec<(PieceIndex, Vec<u8>, LinkId, Option<Hash>)>,
    pub(super) dials: Vec<(Place, Vec<SocketAddr>)>,
    pub(super) cuts: Vec<Arc<Line>>,
    pub(super) keeps: Vec<Keep>,
    pub(super) has_new_phase: bool,
}

impl State {
    /// Status of the swarm.
    pub(super) fn view(&self) -> View {
        View {
            phase: self.phase.clone(),
            ended: self.ended.clone(),
            status: self.machine.status(),
            peers: self.links.len(),
        }
    }

    /// Carries out one effect, as far as it touches neither sockets nor disk; the rest becomes
    /// chores, and an immediate answer to the machine an input.
    pub(super) fn carry_out(
        &mut self,
        now: Now,
        effect: Effect,
        inputs: &mut VecDeque<Input>,
        chores: &mut Chores,
        store: &Store,
    ) {
        match effect {
            Effect::Send { link, msg } => self.send(link, &msg, inputs, chores),
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.send(link, &msg, inputs, chores);
                }
            }
            Effect::Persist(never) => match never {},
            Effect::Extra(ExtraEffect::Upload(link, index, offset)) => {
                self.push(link, Item::Piece(index, offset), chores);
            }
            Effect::Extra(ExtraEffect::Drop(link, index)) => {
                if self.links.get(&link).is_some_and(|it| it.outgoing.drop_piece(index)) {
                    inputs.push_back(Input::Extra(ExtraInput::Uploaded { link, index, bytes: 0 }));
                }
            }
            Effect::Extra(ExtraEffect::Store { index, data, from, expected }) => {
                chores.jobs.push((index, data, from, expected));
            }
            Effect::Dial(place) => match self.places.get(&place) {
                Some(addrs) => chores.dials.push((place, addrs.clone())),
                None => {
                    let reason = "there is no such address".to_owned();
                    inputs.push_back(Input::DialFailed(DialFailure { place, reason }));
                }
            },
            Effect::Hangup { link } => {
                if let Some(line) = self.links.remove(&link) {
                    line.hang_up("closed by this peer");
                }
            }
            Effect::SetTimer { timer, after: span } => self.timers.set(timer, now.mono.after(span)),
            Effect::StopTimer(timer) => self.timers.stop(&timer),
            Effect::Emit(event) => self.emit(now, event, inputs, chores, store),
        }
    }

    fn send(
        &mut self,
        link: LinkId,
        msg: &Message,
        inputs: &mut VecDeque<Input>,
        chores: &mut Chores,
    ) {
        if *msg == Message::Choke
            && let Some(line) = self.links.get(&link)
        {
            let dropped = line.outgoing.drop_pieces();
            let told = |index| Input::Extra(ExtraInput::Uploaded { link, index, bytes: 0 });
            inputs.extend(dropped.into_iter().map(told));
        }
        self.push(link, Item::Message(encode(msg)), chores);
    }

    fn push(&mut self, link: LinkId, item: Item, chores: &mut Chores) {
        let Some(line) = self.links.get(&link) else { return };
        if line.outgoing.push(item).is_err() {
            line.hang_up("the other end does not read what it is sent");
            // Its reader ends, and reports that to the machine.
            chores.cuts.push(Arc::clone(line));
        }
    }

    fn emit(
        &mut self,
        now: Now,
        event: Event,
        inputs: &mut VecDeque<Input>,
        chores: &mut Chores,
        store: &Store,
    ) {
        match &event {
            Event::Complete => {
                if self.phase == Phase::Fetching {
                    self.phase = Phase::Finishing;
                    chores.keeps.push(Keep::Finish);
                    chores.has_new_phase = true;
                }
            }
            Event::FileList(text) => {
                if store.wants_list() {
                    match store.lay_out(text) {
                        Ok(()) => chores.keeps.push(Keep::List),
                        Err(err) => {
                            inputs.push_back(Input::Extra(ExtraInput::DiskFailed(err.to_string())));
                        }
                    }
                    chores.has_new_phase = true;
                }
            }
            Event::Ended(outcome) => {
                self.ended = Some(outcome.clone());
                if let Outcome::DiskFailed(reason) = outcome {
                    self.phase = Phase::Failed(reason.clone());
                }
                chores.has_new_phase = true;
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
