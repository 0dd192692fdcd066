//! The driver's half of the contract: hand over an input, carry out every effect in order.
//!
//! An effect that leaves a node after a record was written waits in the node's gate until that
//! record is safe. A machine that breaks its half of the contract (it uses a link that it knows to
//! be over, or dials twice under one ticket) ends the run with a panic that names it.

use std::fmt::Display;
use std::mem;

use rand::RngExt as _;

use crate::machine::{
    CallFailure, Effect, HostAnswer, HostPinged, Input, LinkId, NodeCall, NodeOpening, PingHost,
};
use crate::model::Endpoint;

use super::agenda::Due;
use super::faults::Moment;
use super::host::{Boot, Outward, Process, TamperedMessage};
use super::network::{Delivery, LaneItem, Owner};
use super::reach::{HostId, LinkHolder, Presence};
use super::simulated::Simulated;
use super::tally::FaultEffect;
use super::trace;
use super::weather::{Branch, branch};
use super::world::World;

/// Time-out of the system `ping`.
const PING_WAITS: std::time::Duration = std::time::Duration::from_secs(1);

impl<M: Simulated> World<M> {
    /// Gives a node a command; returns whether there was a process to take it. A paused process
    /// takes it when it goes on.
    ///
    /// # Panics
    /// Like [`World::run_until`].
    pub fn command(&mut self, endpoint: Endpoint, command: M::Command) -> bool {
        let host = self.find(endpoint);
        let up = self.process(host).is_some();
        if up {
            self.hand(host, Input::Command(command));
        }
        up
    }

    pub(super) fn happen(&mut self, due: Due) {
        match due {
            Due::Boot(host) => self.start(host),
            Due::Wake(host) => self.wake(host),
            Due::Dial(number) => {
                let answer = self.network.dial_on(&mut self.agenda, number);
                self.deliver(answer);
            }
            Due::Arrival(lane) => {
                let arrival = self.network.arrive(&mut self.agenda, lane);
                self.deliver(arrival);
            }
            Due::LocalClose(link) => {
                let closed = self.network.close_locally(link);
                self.deliver(closed);
            }
            Due::GiveUp { lane, since } => {
                let closed = self.network.give_up(lane, since);
                self.deliver(closed);
            }
            Due::Synced { host, life } => self.on_synced(host, life),
            Due::Pinged { owner, host, answer } => {
                if let (LinkHolder::Host(asker), true) = (owner.who, self.network.is_alive(owner)) {
                    self.hand(asker, Input::Extra(HostPinged { host, answer }));
                }
            }
            Due::Gust(storm) => self.gust(storm),
            Due::Amends(storm, amends) => self.amend(storm, amends),
        }
    }

    /// Starts a process from the records of its disk; without effect if one runs.
    pub(super) fn start(&mut self, id: HostId) {
        let now = self.now();
        let host = &mut self.hosts[id.index()];
        if host.process.is_some() || host.buried {
            return;
        }
        host.boots += 1;
        let seed = branch(self.seed ^ u64::from(id.0), Branch::Boot, u64::from(host.boots));
        let boot = Boot {
            endpoint: host.endpoint,
            records: host.disk.safe(),
            boots: host.boots,
            wall: host.wall(self.options.epoch, now),
            seed,
        };
        let machine = (host.factory)(boot);
        host.process = Some(Process::new(machine, now));
        let presence = Presence::Listening(host.boots);
        let was = self.network.reach.presence(id);
        self.network.reach.set_presence(id, presence);
        if was == Presence::Vanished {
            self.network.unstick(&mut self.agenda);
        }
        self.hand(id, Input::Start);
    }

    fn deliver(&mut self, delivery: Option<(Owner, Delivery<M::Message>)>) {
        let Some((owner, delivery)) = delivery else {
            return;
        };
        let host = match owner.who {
            LinkHolder::Host(host) => host,
            LinkHolder::Intruder(number) => {
                self.strangers[number as usize].take(self.agenda.now(), delivery);
                self.speak_up(number);
                return;
            }
        };
        debug_assert!(self.network.is_alive(owner), "links and dials die with their process");
        let input = match delivery {
            // Links are not encrypted here, and have no binding that could be signed.
            Delivery::Accepted { link, from } => {
                Input::Opened { link, opening: NodeOpening::Accepted { from, binding: None } }
            }
            Delivery::Dialed { ticket, link } => {
                Input::Opened { link, opening: NodeOpening::Dialed { ticket, binding: None } }
            }
            Delivery::DialFailed { ticket, reason } => {
                Input::DialFailed(CallFailure { ticket, reason })
            }
            Delivery::Received { link, msg } => Input::Received { link, msg },
            Delivery::Garbled { link, reason } => Input::Garbled { link, reason },
            Delivery::Closed { link, reason } => Input::Closed { link, reason: reason.to_owned() },
        };
        self.hand(host, input);
    }

    fn hand(&mut self, host: HostId, input: Input<M>) {
        let now = self.now();
        let is_quick = self.hosts[host.index()].slow.is_zero();
        let Some(process) = self.process(host) else { return };
        if is_quick && process.is_idle(now) {
            // No input waits before it, so it need not be queued.
            self.handle(host, input);
        } else {
            process.inbox.push_back((now, input));
        }
        self.pump(host);
    }

    fn wake(&mut self, host: HostId) {
        let now = self.now();
        if let Some(process) = self.process(host) {
            process.wake = process.wake.filter(|wake| *wake > now);
            self.pump(host);
        }
    }

    /// Lets a process handle all that it can handle now, and plans the next look at it.
    pub(super) fn pump(&mut self, id: HostId) {
        let now = self.now();
        loop {
            let host = &mut self.hosts[id.index()];
            let handling = (host.slow, self.options.timers_first);
            let Some(process) = host.process.as_mut() else {
                return;
            };
            let Some((came, input)) = process.take_ready(now, handling) else {
                break;
            };
            self.tally.add(FaultEffect::HandledLate, usize::from(came < now));
            self.handle(id, input);
        }
        let Some(process) = self.process(id) else {
            return;
        };
        if let Some(at) = process.wake_at()
            && process.wake.is_none_or(|wake| at < wake)
        {
            process.wake = Some(at);
            self.agenda.plan(at, Due::Wake(id));
        }
    }

    fn handle(&mut self, id: HostId, input: Input<M>) {
        self.steps += 1;
        if self.steps > self.options.steps_max {
            self.fail(id, format_args!("the limit of {} steps is reached", self.steps - 1));
        }
        self.note(id, &input);
        self.trace(id, || trace::input(&input));
        let host = &mut self.hosts[id.index()];
        let now = host.clocks(self.options.epoch, self.agenda.now());
        let mut fx = mem::take(&mut self.fx);
        let process = host.process.as_mut().expect("only a running process is handed an input");
        process.machine.handle(now, input, &mut fx);
        for effect in fx.drain() {
            if self.hosts[id.index()].process.is_none() {
                break; // It crashed between two effects.
            }
            let dies = self.draw_death(&effect);
            if dies != Some(Moment::Before) {
                self.carry_out(id, effect);
            }
            if dies.is_some() {
                self.let_die(id);
            }
        }
        self.fx = fx;
        if self.hosts[id.index()].process.is_some() && self.step(id) {
            self.sync(id);
        }
    }

    /// Records the link or ticket of an input before the machine gets it.
    fn note(&mut self, id: HostId, input: &Input<M>) {
        let Some(process) = self.hosts[id.index()].process.as_mut() else {
            return;
        };
        let in_order = match input {
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } => {
                process.links.insert(*link, false).is_none()
            }
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                process.dials.remove(ticket) && process.links.insert(*link, false).is_none()
            }
            Input::DialFailed(CallFailure { ticket, .. }) => process.dials.remove(ticket),
            Input::Received { link, .. } | Input::Garbled { link, .. } => {
                process.links.contains_key(link)
            }
            Input::Closed { link, .. } => process.links.remove(link).is_some(),
            Input::Start
            | Input::Synced { .. }
            | Input::Expired(_)
            | Input::Extra(HostPinged { .. })
            | Input::Command(_) => true,
        };
        // The simulator's own promise: no machine sees what the contract rules out.
        assert!(in_order, "SEED={}: {} comes out of order", self.seed, trace::input(input));
    }

    fn carry_out(&mut self, id: HostId, effect: Effect<M>) {
        self.trace(id, || trace::effect(&effect));
        let now = self.agenda.now();
        let host = &mut self.hosts[id.index()];
        let process = host.process.as_mut().expect("it has just handled an input");
        let is_held = process.machine.is_held(&effect);
        let outward = match effect {
            Effect::SetTimer { timer, after } => {
                return process.timers.set(timer, now.after(after));
            }
            Effect::StopTimer(timer) => return process.timers.stop(&timer),
            Effect::Persist(record) => return host.disk.append(record),
            Effect::Send { link, msg } => {
                if process.links.get(&link) != Some(&false) {
                    self.fail_on_link(id, link, format_args!("sends {msg:?}"));
                }
                Outward::Send { link, msg }
            }
            Effect::SendAll { links, msg } => {
                for link in links {
                    self.carry_out(id, Effect::Send { link, msg: msg.clone() });
                }
                return;
            }
            Effect::Hangup { link } => {
                match process.links.get_mut(&link) {
                    Some(hung_up) => *hung_up = true,
                    None if self.network.was_made(link) => return,
                    None => self.fail_on_link(id, link, format_args!("hangs up")),
                }
                Outward::Hangup { link }
            }
            Effect::Dial(NodeCall { ticket, to, timeout }) => {
                if !process.dials.insert(ticket) {
                    self.fail(id, format_args!("dials twice at a time under {ticket:?}"));
                }
                Outward::Dial { ticket, to, timeout }
            }
            Effect::Extra(PingHost { host }) => Outward::PingHost { host },
            Effect::Emit(event) => Outward::Emit(event),
        };
        if is_held {
            self.gate(id, outward);
        } else {
            self.let_out(id, outward);
        }
    }

    /// Lets an effect out, or makes it wait for the disk and for those that wait already.
    fn gate(&mut self, id: HostId, outward: Outward<M::Message, M::Event>) {
        #[cfg(test)]
        if self.leaky {
            return self.let_out(id, outward);
        }
        let host = &mut self.hosts[id.index()];
        let process = host.process.as_mut().expect("it has just handled an input");
        let written = host.disk.written();
        if process.gate.is_empty() && host.disk.synced() >= written {
            self.let_out(id, outward);
        } else {
            process.gate.push_back((written, outward));
        }
    }

    fn let_out(&mut self, id: HostId, outward: Outward<M::Message, M::Event>) {
        let is_step = !matches!(outward, Outward::Emit(_));
        self.release(id, outward);
        if is_step {
            self.step(id);
        }
    }

    fn release(&mut self, id: HostId, outward: Outward<M::Message, M::Event>) {
        let host = &mut self.hosts[id.index()];
        let owner = Owner { who: LinkHolder::Host(id), life: host.boots };
        match outward {
            Outward::Send { link, msg } => {
                let Some(mut tamper) = host.tamper.take() else {
                    let msg = self.pack(id, msg);
                    return self.network.send(&mut self.agenda, link, LaneItem::Message(msg));
                };
                let to = match self.network.other_end(link) {
                    Some(LinkHolder::Host(other)) => Some(self.network.reach.endpoint(other)),
                    Some(LinkHolder::Intruder(_)) | None => None,
                };
                let (at, from) = (self.agenda.now(), host.endpoint);
                let sent =
                    tamper(&mut host.rng, &TamperedMessage { at, from, to, link, msg: &msg });
                host.tamper = Some(tamper);
                let changed = !matches!(sent.as_slice(), [only] if *only == msg);
                self.tally.add(FaultEffect::Tampered, usize::from(changed));
                for msg in sent {
                    let msg = self.pack(id, msg);
                    self.network.send(&mut self.agenda, link, LaneItem::Message(msg));
                }
            }
            Outward::Hangup { link } => self.network.hang_up(&mut self.agenda, link),
            Outward::Dial { ticket, to, timeout } => {
                self.network.dial(&mut self.agenda, owner, ticket, to, timeout);
            }
            Outward::PingHost { host } => {
                let answered = self.network.reach.pings(owner.who, host)
                    && !self.network.loses()
                    && !self.network.loses();
                let base = self.network.draw_base();
                let round_trip = self.network.travel(base) + self.network.travel(base);
                let (answer, after) = if answered {
                    (HostAnswer::Answered, round_trip)
                } else {
                    (HostAnswer::Silent, PING_WAITS)
                };
                let at = self.agenda.now().after(after);
                self.agenda.plan(at, Due::Pinged { owner, host, answer });
            }
            Outward::Emit(event) => {
                self.events.push((self.agenda.now(), host.endpoint, event));
            }
        }
    }

    /// Starts a sync if one is needed and none is under way.
    fn sync(&mut self, id: HostId) {
        let host = &mut self.hosts[id.index()];
        if host.disk.start_sync() {
            let span = host.fsync.unwrap_or(self.weather.fsync);
            let at = self.agenda.now().after(span.draw(&mut host.rng));
            self.agenda.plan(at, Due::Synced { host: id, life: host.boots });
        }
    }

    fn on_synced(&mut self, id: HostId, life: u32) {
        let host = &mut self.hosts[id.index()];
        let Some(process) = host.process.as_ref().filter(|_| host.boots == life) else {
            return;
        };
        let percent = u32::from(self.weather.snapshot_percent.min(100));
        let compacts = host.disk.finish_sync() && host.rng.random_ratio(percent, 100);
        if let Some(snapshot) = compacts.then(|| process.machine.snapshot()).flatten() {
            host.disk.compact(snapshot);
            self.tally.add(FaultEffect::Snapshot, 1);
        }
        let records = host.disk.records();
        if self.step(id) {
            if M::HEARS_OF_SYNCS {
                self.hand(id, Input::Synced { records });
            }
            self.open_gate(id);
        }
    }

    /// Lets out the effects that need not wait any longer; a paused process does so when it goes
    /// on.
    pub(super) fn open_gate(&mut self, id: HostId) {
        loop {
            let host = &mut self.hosts[id.index()];
            let Some(process) = host.process.as_mut().filter(|process| !process.paused) else {
                return;
            };
            let synced = host.disk.synced();
            if process.gate.front().is_none_or(|(waits_for, _)| *waits_for > synced) {
                break;
            }
            let (_, outward) = process.gate.pop_front().expect("there is a first");
            self.let_out(id, outward);
        }
        self.sync(id);
    }

    fn fail_on_link(&self, id: HostId, link: LinkId, what: impl Display) -> ! {
        let links = self.hosts[id.index()].process.as_ref().map(|process| &process.links);
        let state = match links.and_then(|links| links.get(&link)) {
            Some(_) => "which it has hung up",
            None if self.network.was_made(link) => "of which it knows that it is closed",
            None => "which never was",
        };
        self.fail(id, format_args!("{what} on {link:?}, {state}"))
    }

    pub(super) fn fail(&self, id: HostId, what: impl Display) -> ! {
        let (seed, at) = (self.seed, self.agenda.now().as_micros());
        panic!("SEED={seed}: at {at} us {} {what}", self.hosts[id.index()].endpoint)
    }
}
