//! The machine itself: its state, and the dispatch of each input.

use crate::proto::swarm::{Hash, Message, PeerId, Tongue};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bitfield::Bitfield;
use super::choker::Choker;
use super::config::{Config, RETRY_AFTER};
use super::event::{
    DialFailure, Effect, Event, ExtraEffect, ExtraInput, Fx, Input, Opening, Outcome, Place, Timer,
};
use super::neighbor::Neighbor;
use super::parts::Parts;
use super::picker::Picker;
use super::places::Places;
use super::roster::Roster;
use super::tree::Tree;
use crate::machine::{Kind, LinkId, Machine, Never};
use crate::model::{Now, Rng, Time};
use crate::proto::swarm::{PieceIndex, Pieces};

/// Shortest interval between choices: a swarm that only chooses does nothing else.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The list of files of a share that is a folder.
#[derive(Clone, Debug)]
pub enum Files {
    /// The share is no folder.
    None,
    /// The list has this SHA-256, and is fetched before anything else.
    Wanted(Hash),
    /// The list is here, and its digest was checked.
    Known(Vec<u8>),
}

/// Setup of a swarm.
#[derive(Debug)]
pub struct Setup {
    /// Limits and periods of the swarm.
    pub config: Config,
    /// Id of this peer.
    pub me: PeerId,
    /// Division of the content into pieces.
    pub pieces: Pieces,
    /// Pieces that are provably on disk (S2).
    pub have: Bitfield,
    /// Members of the swarm, if they are known beforehand; then it ends by itself.
    pub roster: Option<Roster>,
    /// The known part of the tree, if pieces can be checked.
    pub tree: Option<Tree>,
    /// List of files of the share.
    pub files: Files,
}

/// State of one peer in one swarm.
#[derive(Debug)]
pub struct Swarm {
    pub(super) config: Config,
    pub(super) me: PeerId,
    pub(super) pieces: Pieces,
    pub(super) have: Bitfield,
    pub(super) roster: Option<Roster>,
    pub(super) tree: Option<Tree>,
    pub(super) files: Files,
    /// Part of the wanted list that has come, and the link it comes by.
    pub(super) list: Option<(LinkId, Vec<u8>)>,
    pub(super) rng: Rng,
    pub(super) links: BTreeMap<LinkId, Neighbor>,
    pub(super) by_peer: BTreeMap<PeerId, LinkId>,
    pub(super) choker: Choker,
    pub(super) preferred_told: Vec<PeerId>,
    pub(super) picker: Picker,
    /// Links of the neighbors that each piece is asked of.
    pub(super) askers: BTreeMap<PieceIndex, BTreeSet<LinkId>>,
    /// Parts of pieces amid which a connection ended.
    pub(super) parts: Parts,
    /// Pieces on their way to the disk, and the neighbors that sent them.
    pub(super) storing: BTreeMap<PieceIndex, (LinkId, PeerId)>,
    pub(super) places: Places,
    pub(super) banned: BTreeSet<PeerId>,
    pub(super) now: Time,
    pub(super) progress_at: Time,
    pub(super) was_chosen: bool,
    pub(super) is_retrying: bool,
    pub(super) ended: Option<Outcome>,
    pub(super) down: u64,
    pub(super) up: u64,
}

impl Kind for Swarm {
    type Message = Message;
    type Call = Place;
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
        if let Some(outcome) = &self.ended {
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
    pub fn new(setup: Setup, rng: Rng) -> Self {
        let Setup { mut config, me, pieces, have, mut roster, tree, files } = setup;
        assert_eq!(have.len(), pieces.count(), "a bit for every piece");
        assert!(tree.as_ref().is_none_or(|it| it.count() == pieces.count()), "a leaf a piece");
        config.unchoke_every = config.unchoke_every.max(INTERVAL_MIN);
        config.optimistic_every = config.optimistic_every.max(INTERVAL_MIN);
        if let Some(roster) = &mut roster {
            roster.remove(me);
        }
        let mut wanted = Bitfield::none(pieces.count());
        let is_known = |index| tree.as_ref().is_none_or(|it| it.leaf(index).is_some());
        for index in (0..pieces.count()).map(PieceIndex).filter(|it| !have.has(*it)) {
            if is_known(index) {
                wanted.set(index);
            }
        }
        Self {
            choker: Choker::new(config.preferred),
            preferred_told: Vec::new(),
            picker: Picker::new(config.order, wanted),
            config,
            me,
            pieces,
            have,
            roster,
            tree,
            files,
            list: None,
            rng,
            links: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            askers: BTreeMap::new(),
            parts: Parts::default(),
            storing: BTreeMap::new(),
            places: Places::default(),
            banned: BTreeSet::new(),
            now: Time::ZERO,
            progress_at: Time::ZERO,
            was_chosen: false,
            is_retrying: false,
            ended: None,
            down: 0,
            up: 0,
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
            ExtraInput::DiskFailed(reason) => self.end(Outcome::DiskFailed(reason), fx),
        }
    }

    fn on_start(&mut self, fx: &mut Fx) {
        self.progress_at = self.now;
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
        if !self.is_retrying {
            self.is_retrying = true;
            fx.set_timer(Timer::Retry, RETRY_AFTER);
        }
    }

    fn on_retry(&mut self, fx: &mut Fx) {
        self.is_retrying = false;
        self.links.values_mut().for_each(|it| it.is_ignorant = false);
        self.ask_everybody(fx);
    }

    /// True if nothing is missing: neither pieces nor the list of files.
    pub(super) fn is_done(&self) -> bool {
        self.have.is_full() && !matches!(self.files, Files::Wanted(_))
    }

    pub(super) fn speaks_share(&self) -> bool {
        self.config.tongue == Tongue::Share
    }

    /// Notes progress that brings a member nearer to the end.
    pub(super) const fn progressed(&mut self) {
        self.progress_at = self.now;
    }

    /// Counts and reports a harmless fault of a neighbor.
    pub(super) fn odd(&mut self, link: LinkId, what: &'static str, fx: &mut Fx) {
        let Some(neighbor) = self.links.get_mut(&link) else { return };
        neighbor.oddities += 1;
        if neighbor.oddities_told.insert(what) {
            fx.emit(Event::Odd(neighbor.peer, what));
        }
        if neighbor.oddities > super::config::ODDITIES_MAX {
            self.hang_up(link, "it did too much that means nothing", fx);
        }
    }

    pub(super) fn send_all(&self, msg: &Message, fx: &mut Fx) {
        fx.extend(self.links.keys().map(|link| Effect::Send { link: *link, msg: msg.clone() }));
    }
}
