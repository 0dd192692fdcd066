//! The machine itself: its state, and the dispatch of each input.

use std::time::Duration;

use super::bitfield::Bitfield;
use super::choker::Choker;
use super::config::{Config, RETRY_AFTER};
use super::content::{Content, FileListState};
use super::event::{
    DialFailure, Event, ExtraEffect, ExtraInput, Opening, PeerAddrId, SwarmOutcome, Timer,
};
use super::neighbors::Neighbors;
use super::parts::Parts;
use super::peer_addrs::PeerAddrs;
use super::picker::Picker;
use super::progress::Progress;
use super::requests::Requests;
use super::roster::SwarmRoster;
use super::tree::Tree;
use crate::machine::{self, LinkId, Machine, Never, Vocabulary};
use crate::model::{Now, Rng, Time};
use crate::proto::swarm::{Message, PeerId, PieceIndex, Pieces, ProtocolVariant};

/// Input to the machine.
pub type Input = machine::Input<Swarm>;

/// Action that the driver must carry out.
pub type Effect = machine::Effect<Swarm>;

/// The effects of one input.
pub type Fx = machine::Effects<Swarm>;

/// Shortest interval between choices: a swarm that only chooses does nothing else.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Setup of a swarm.
#[derive(Debug)]
pub struct SwarmSetup {
    /// Limits and periods of the swarm.
    pub config: Config,
    /// Id of this peer.
    pub me: PeerId,
    /// Division of the content into pieces.
    pub pieces: Pieces,
    /// Pieces that are provably on disk (S2).
    pub have: Bitfield,
    /// Members of the swarm, if they are known beforehand; then it ends by itself.
    pub roster: Option<SwarmRoster>,
    /// The known part of the tree, if pieces can be checked.
    pub tree: Option<Tree>,
    /// List of files of the share.
    pub files: FileListState,
}

/// State of one peer in one swarm. Each part owns its fields; a step that concerns several parts is
/// a method here, in the file of its subject.
#[derive(Debug)]
pub struct Swarm {
    pub(super) config: Config,
    pub(super) me: PeerId,
    pub(super) rng: Rng,
    pub(super) now: Time,
    pub(super) content: Content,
    pub(super) roster: Option<SwarmRoster>,
    pub(super) neighbors: Neighbors,
    pub(super) choker: Choker,
    pub(super) picker: Picker,
    pub(super) requests: Requests,
    /// Parts of pieces amid which a connection ended.
    pub(super) parts: Parts,
    pub(super) places: PeerAddrs,
    pub(super) progress: Progress,
}

impl Vocabulary for Swarm {
    type Message = Message;
    type Call = PeerAddrId;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = ExtraEffect;
}

impl Machine for Swarm {
    type Opening = Opening;
    type CallFailure = DialFailure;
    type Command = Never;
    type ExtraInput = ExtraInput;

    fn handle(&mut self, now: Now, input: Input, fx: &mut Fx) {
        self.now = now.mono;
        if let Some(outcome) = self.progress.ended() {
            if let Input::Opened { link, .. } = input {
                if self.has_withdrawn(outcome) {
                    fx.send(link, Message::Withdrawn);
                }
                fx.hangup(link);
            }
            return;
        }
        match input {
            Input::Start => self.on_start(fx),
            Input::Opened { link, opening: Opening { peer, place } } => {
                self.on_connected(link, peer, place, fx);
            }
            Input::DialFailed(DialFailure { place, reason }) => {
                self.on_dial_failed(place, reason, fx);
            }
            Input::Received { link, msg } => self.on_received(link, msg, fx),
            Input::Closed { link, .. } => self.remove(link, None, fx),
            Input::Expired(timer) => self.on_timer(timer, fx),
            // Bytes that are no message come as `Skipped`; and it writes no records.
            Input::Garbled { .. } | Input::Synced { .. } => {}
            Input::Command(never) => match never {},
            Input::Extra(extra) => self.on_extra(extra, fx),
        }
        self.end_if_over(fx);
    }
}

impl Swarm {
    /// Creates a swarm that has not begun: the first input is [`Input::Start`].
    ///
    /// # Panics
    /// Panics if `have` or the tree is not over as many pieces as there are.
    pub fn new(setup: SwarmSetup, rng: Rng) -> Self {
        let SwarmSetup { mut config, me, pieces, have, mut roster, tree, files } = setup;
        let content = Content::new(pieces, have, tree, files);
        config.unchoke_every = config.unchoke_every.max(INTERVAL_MIN);
        config.optimistic_every = config.optimistic_every.max(INTERVAL_MIN);
        if let Some(roster) = &mut roster {
            roster.remove(me);
        }
        let count = content.pieces().count();
        let mut wanted = Bitfield::none(count);
        for index in (0..count).map(PieceIndex).filter(|it| !content.has(*it)) {
            if content.may_ask(index) {
                wanted.set(index);
            }
        }
        Self {
            choker: Choker::new(config.preferred),
            picker: Picker::new(config.order, wanted),
            config,
            me,
            rng,
            now: Time::ZERO,
            content,
            roster,
            neighbors: Neighbors::default(),
            requests: Requests::default(),
            parts: Parts::default(),
            places: PeerAddrs::default(),
            progress: Progress::default(),
        }
    }

    fn on_extra(&mut self, input: ExtraInput, fx: &mut Fx) {
        match input {
            ExtraInput::Known(place) => self.on_known(place, fx),
            ExtraInput::Skipped { link, what } => self.odd(link, what, fx),
            ExtraInput::Stored { index, from, outcome } => {
                self.on_stored(index, from, outcome, fx);
            }
            ExtraInput::Coming { link } => self.on_coming(link),
            ExtraInput::Part { link, index, offset, data } => {
                self.on_part(link, index, offset, data);
            }
            ExtraInput::ReadAgain { read, lost, files } => {
                self.on_read_again(read, &lost, files, fx);
            }
            ExtraInput::Uploaded { link, index, bytes } => self.on_uploaded(link, index, bytes),
            ExtraInput::DiskFailed(reason) => self.end(SwarmOutcome::DiskFailed(reason), fx),
        }
    }

    fn on_start(&mut self, fx: &mut Fx) {
        self.progressed();
        fx.set_timer(Timer::Unchoke, self.config.unchoke_every);
        fx.set_timer(Timer::Optimistic, self.config.optimistic_every);
        if let Some(span) = self.config.give_up_after {
            fx.set_timer(Timer::GiveUp, span);
        }
    }

    fn on_timer(&mut self, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Unchoke => self.on_unchoke(fx),
            Timer::Optimistic => self.on_optimistic(fx),
            Timer::Redial(place) => self.on_redial(place, fx),
            Timer::Answer(link) => self.on_answer_late(link, fx),
            Timer::Retry => self.on_retry(fx),
            Timer::GiveUp => self.on_give_up(fx),
        }
    }

    /// Sets the timer after which all possible requests are tried again.
    pub(super) fn retry_later(&mut self, fx: &mut Fx) {
        if self.progress.begin_retry() {
            fx.set_timer(Timer::Retry, RETRY_AFTER);
        }
    }

    fn on_retry(&mut self, fx: &mut Fx) {
        self.progress.end_retry();
        self.neighbors.iter_mut().for_each(|it| it.set_ignorant(false));
        self.ask_everybody(fx);
    }

    /// True if nothing is missing: neither pieces nor the list of files.
    pub(super) fn is_done(&self) -> bool {
        self.content.is_done()
    }

    pub(super) fn speaks_share(&self) -> bool {
        self.config.variant == ProtocolVariant::Share
    }

    /// Notes progress that brings a member nearer to the end.
    pub(super) const fn progressed(&mut self) {
        self.progress.note(self.now);
    }

    /// Counts and reports a harmless fault of a neighbor.
    pub(super) fn odd(&mut self, link: LinkId, what: &'static str, fx: &mut Fx) {
        let Some(neighbor) = self.neighbors.get_mut(link) else { return };
        let (is_new, are_too_many) = neighbor.odd(what);
        if is_new {
            fx.emit(Event::Odd(neighbor.peer(), what));
        }
        if are_too_many {
            self.hang_up(link, "it did too much that means nothing", fx);
        }
    }

    pub(super) fn send_all(&self, msg: &Message, fx: &mut Fx) {
        let links = self.neighbors.iter().map(|(link, _)| link);
        fx.extend(links.map(|link| Effect::Send { link, msg: msg.clone() }));
    }
}
