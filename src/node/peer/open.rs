//! Rules of a peer whose fleet has no seeds.
//!
//! There are no certificates there: a key that was proved is a member, its endpoint is a claim
//! until it was called, and its death is each neighbor's own finding.

use super::{CALL_TIMEOUT, Event, Fx, GONE_MAX, PeerNode};
use crate::machine::membership::applicant::Record;
use crate::machine::open::{self, OpenFleet};
use crate::machine::{Effects, LinkId};
use crate::model::entry::MemberState;
use crate::model::statement::{Leave, MemberInstance};
use crate::model::{Endpoint, Incarnation, Now, WallTime};
use crate::proto::discovery::Contact;
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::membership::MemberLine;

/// Neighbors that are remembered for a restart.
const KNOWN_MAX: usize = 16;

/// State of a fleet without seeds that a peer keeps for a restart.
#[derive(Debug, Default)]
pub(super) struct Memory {
    name: Option<String>,
    known: Vec<Endpoint>,
}

impl Memory {
    /// The records that rebuild it.
    pub(super) fn records(&self) -> Vec<Record> {
        let fleet = self.name.iter().map(|name| Record::Fleet { name: name.clone() });
        fleet.chain([Record::Known { members: self.known.clone() }]).collect()
    }
}

impl PeerNode {
    /// Sets the name of the peer's fleet. Without a name, a peer in a fleet without seeds goes on
    /// in that of its last run; else it founds one, if its operator named no peer to join by, or
    /// takes the name of the peers that it joins. It also calls its neighbors of the last run.
    #[must_use]
    pub fn in_fleet(mut self, name: Option<String>, records: &[Record]) -> Self {
        let Some(open) = self.open.take() else {
            self.session.info_mut().fleet = name;
            return self;
        };
        let mut memory = Memory::default();
        for record in records {
            match record {
                Record::Fleet { name } => memory.name = Some(name.clone()),
                Record::Known { members } => memory.known.clone_from(members),
                Record::Incarnation { .. } | Record::SeedKey(_) => {}
            }
        }
        let founded = || (open.bootstrap().next().is_none()).then(|| self.keys.public().short());
        let name = name.or_else(|| memory.name.clone()).or_else(founded);
        if memory.name != name {
            memory = Memory { name: name.clone(), known: Vec::new() };
        }
        self.open = Some(open.remembering(&memory.known));
        self.session.info_mut().fleet = name;
        self.memory = Some(memory);
        self
    }

    /// A peer without a fleet takes the name of the first that it has joined.
    pub(super) fn take_name(&mut self, info: &NodeInfo, fx: &mut Fx) {
        let own = &mut self.session.info_mut().fleet;
        let (Some(memory), None, Some(name)) = (&mut self.memory, &own, &info.fleet) else {
            return;
        };
        *own = Some(name.clone());
        memory.name = Some(name.clone());
        fx.persist(Record::Fleet { name: name.clone() });
        fx.emit(Event::Open(open::Event::Joined { fleet: name.clone() }));
    }

    /// Keeps some of the changed neighbors for a restart. The last ones are not forgotten when all
    /// are gone.
    pub(super) fn remember_neighbors(&mut self, neighbors: &[Endpoint], fx: &mut Fx) {
        let Some(memory) = self.memory.as_mut().filter(|_| !neighbors.is_empty()) else { return };
        let known = &neighbors[..neighbors.len().min(KNOWN_MAX)];
        if memory.known != known {
            memory.known = known.to_vec();
            fx.persist(Record::Known { members: memory.known.clone() });
        }
    }

    pub(super) fn with_open(
        &mut self,
        now: Now,
        fx: &mut Fx,
        work: impl FnOnce(&mut OpenFleet, &mut Effects<OpenFleet>),
    ) {
        let Some(open) = &mut self.open else { return };
        let mut inner = Effects::default();
        work(open, &mut inner);
        for event in fx.absorb(inner) {
            match event {
                open::Event::Call { to } if self.overlay.neighbors().contains_key(&to) => {
                    self.with_session(now, fx, |it, inner| {
                        it.call(to, Intent::Probe, CALL_TIMEOUT, inner);
                    });
                }
                open::Event::Call { to } => {
                    self.with_overlay(now, fx, |it, inner| it.on_hint(to, inner));
                }
                event @ (open::Event::OwnAddress { .. }
                | open::Event::Unreachable { .. }
                | open::Event::Met { .. }
                | open::Event::Joined { .. }
                | open::Event::Dropped { .. }) => fx.emit(Event::Open(event)),
            }
        }
    }

    /// Starts in a fleet without seeds: the peer is a member at once, and looks for others.
    pub(super) fn on_open_start(&mut self, now: Now, fx: &mut Fx) {
        self.with_applicant(now, fx, |it, inner| it.begin_alone(now, inner));
        for record in self.memory.iter().flat_map(Memory::records) {
            fx.persist(record);
        }
        self.begin_broadcast();
        self.with_overlay(now, fx, |it, inner| it.begin(inner));
        self.with_open(now, fx, |it, inner| it.on_start(inner));
    }

    /// True if a node info is a member's, in a fleet without seeds.
    pub(super) fn check_open_member(
        &mut self,
        now: Now,
        info: &NodeInfo,
        dialed: bool,
        fx: &mut Fx,
    ) -> Result<(), (String, bool)> {
        if info.certificate.is_some() {
            let reason = "a fleet without seeds and a member of one with seeds do not link";
            return Err((reason.to_owned(), true));
        }
        if self.applicant.state() == "gone" {
            return Err(("this peer has said goodbye".to_owned(), false));
        }
        if !info.endpoint.is_callable() {
            return Err((format!("{} cannot be called", info.endpoint), true));
        }
        // Others of its fleet are met first: the former holder of this address is still looked for.
        let is_nameless = self.memory.is_some() && self.session.info().fleet.is_none();
        let is_joining = self
            .open
            .as_ref()
            .is_some_and(|it| is_nameless && it.is_joining() && !it.is_named(info.endpoint));
        if is_joining && info.fleet.is_some() && !dialed {
            return Err(("this peer has not joined its fleet yet".to_owned(), false));
        }
        let known = self.overlay.neighbors().get(&info.endpoint);
        let is_other = known
            .and_then(|link| self.session.peer(*link))
            .is_some_and(|known| known.key != info.key);
        if is_other && !dialed {
            // A peer that is called at an address is believed before one that only claims it;
            // either of the two may have lied, and a call there shows which.
            self.with_session(now, fx, |it, inner| {
                it.call(info.endpoint, Intent::Probe, CALL_TIMEOUT, inner);
            });
            return Err((format!("another key is known at {}", info.endpoint), true));
        }
        Ok(())
    }

    /// Handles endpoints that another peer named: worth a try, and no more.
    pub(super) fn on_candidates(&mut self, now: Now, named: &[Endpoint], fx: &mut Fx) {
        if self.open.is_none() {
            return;
        }
        let line = |endpoint: &Endpoint| MemberLine {
            endpoint: *endpoint,
            incarnation: Incarnation::default(),
            status: MemberState::Alive,
            since: WallTime(0),
            degree: 0,
        };
        let lines: Vec<_> = named.iter().filter(|it| it.is_callable()).map(line).collect();
        self.with_overlay(now, fx, |it, inner| it.on_members(&lines, inner));
    }

    /// This peer's own fresh probes of a neighbor have failed: to this peer it is gone.
    pub(super) fn drop_neighbor(&mut self, now: Now, life: MemberInstance, fx: &mut Fx) {
        fx.emit(Event::Open(open::Event::Dropped { life }));
        self.forget(now, life.endpoint, life.incarnation, fx);
        self.on_unlinked(now, life.endpoint, fx);
    }

    pub(super) fn on_unlinked(&mut self, now: Now, neighbor: Endpoint, fx: &mut Fx) {
        let has_enough = self.overlay.has_enough();
        self.with_open(now, fx, |it, inner| it.on_unlinked(neighbor, has_enough, inner));
    }

    /// Handles the failure of a call to a named endpoint; with no seeds to ask, it is forgotten.
    pub(super) fn on_open_call_failed(
        &mut self,
        now: Now,
        to: Endpoint,
        reason: &str,
        fx: &mut Fx,
    ) {
        if self.open.is_some() {
            self.overlay.forget(to);
            let has_enough = self.overlay.has_enough();
            self.with_open(now, fx, |it, inner| {
                it.on_call_failed(to, reason, has_enough, inner);
            });
        }
    }

    /// Handles a goodbye. It ends the life of the key that signed it, by whichever link it comes,
    /// and no other: an endpoint alone is only a claim.
    pub(super) fn on_open_leave(&mut self, now: Now, leave: Leave, fx: &mut Fx) {
        let contact = Contact { endpoint: leave.endpoint, key: leave.key };
        let link = self.overlay.neighbors().get(&leave.endpoint);
        let is_news = match link.and_then(|it| self.session.peer(*it)) {
            Some(neighbor) => neighbor.subject() == leave.subject(),
            None => self.discovery.contacts().any(|it| it == contact),
        };
        if !is_news {
            return;
        }
        let told = self.gone.get(&leave.endpoint);
        if told.is_none_or(|ended| *ended < leave.incarnation) {
            if self.gone.len() >= GONE_MAX {
                self.gone.pop_first();
            }
            self.gone.insert(leave.endpoint, leave.incarnation);
            fx.emit(Event::MemberLeft(leave));
        }
        self.forget(now, leave.endpoint, leave.incarnation, fx);
    }

    /// Repeats the goodbye on a link that opens only after it, since both ends called each other:
    /// the other end has not heard it, and would take the hanging up for a death.
    pub(super) fn say_goodbye_again(&self, now: Now, link: LinkId, fx: &mut Fx) {
        if self.open.is_some() && self.applicant.state() == "gone" {
            fx.send(link, Leave::sign(self.applicant.subject(), now.wall, &self.keys));
        }
    }
}
