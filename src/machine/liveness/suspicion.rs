//! Stages of a suspicion: own probes, witnesses in turn, a majority, the report (O3, O5).

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Fx, Liveness, ROUNDS_MAX, SPARE_WITNESSES, Stage, Suspicion, Timer};
use crate::machine::probe::ProbeOutcome;
use crate::machine::quorum::witnesses_needed;
use crate::model::statement::{Confirmation, MemberInstance};
use crate::model::{Endpoint, Now};
use crate::proto::liveness::{DeadReport, SuspectReq, fixed_text};

impl Liveness {
    pub(super) fn suspect(
        &mut self,
        subject: MemberInstance,
        neighbors: BTreeSet<Endpoint>,
        reason: &str,
        fx: &mut Fx,
    ) {
        if self.suspects.contains_key(&subject.endpoint) {
            return;
        }
        let suspicion = Suspicion {
            subject,
            neighbors,
            stage: Stage::Held,
            confirmations: BTreeMap::new(),
            asked: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            is_last_call: false,
            has_yielded: false,
            rounds: 0,
        };
        self.suspects.insert(subject.endpoint, suspicion);
        let host = self.hosts.get(&subject.endpoint.ip()).copied();
        fx.emit(Event::Suspected { subject, reason: reason.to_owned(), host });
        if self.has_host_ping {
            fx.ping_host(subject.endpoint.ip());
        }
        self.probe(subject.endpoint, fx);
    }

    /// Probes the suspects that were held back, once this node trusts itself again.
    pub(super) fn take_up_held(&mut self, fx: &mut Fx) {
        let held: Vec<_> = self
            .suspects
            .iter()
            .filter(|(_, suspicion)| suspicion.stage == Stage::Held)
            .map(|(endpoint, _)| *endpoint)
            .collect();
        for endpoint in held {
            self.probe(endpoint, fx);
        }
    }

    /// Starts a round of own probes, unless this node doubts itself or has tried long enough.
    pub(super) fn probe(&mut self, endpoint: Endpoint, fx: &mut Fx) {
        let timeout = self.probe_timeout();
        let Some(suspicion) = self.suspects.get_mut(&endpoint) else { return };
        if self.health.is_doubtful() {
            return;
        }
        suspicion.rounds += 1;
        if suspicion.rounds > ROUNDS_MAX {
            return self.clear(endpoint, "nobody confirmed it", fx);
        }
        suspicion.stage = Stage::Probing;
        suspicion.confirmations.clear();
        suspicion.asked.clear();
        suspicion.is_last_call = false;
        suspicion.has_yielded = false;
        // The suspect is told first, where a link to it is left: it may be slow to take a new one.
        if let Some(watch) = self.watched.get(&endpoint) {
            let MemberInstance { endpoint, incarnation, key } = suspicion.subject;
            fx.send(watch.link, SuspectReq { endpoint, incarnation, key });
        }
        fx.emit(Event::Probe { endpoint, timeout });
    }

    pub(super) fn on_ask_timer(&mut self, endpoint: Endpoint, fx: &mut Fx) {
        let Some(suspicion) = self.suspects.get_mut(&endpoint) else { return };
        match suspicion.stage {
            Stage::Held | Stage::Probing => {}
            // The seeds have not decided: begin again, with fresh evidence.
            Stage::Reported => self.probe(endpoint, fx),
            Stage::Asking if suspicion.is_last_call => self.probe(endpoint, fx),
            Stage::Asking => self.ask(endpoint, true, fx),
        }
    }

    /// Asks as many witnesses as are missing, and two more; the rest when those do not answer. With
    /// `is_due`, the witnesses asked before have had an interval.
    pub(super) fn ask(&mut self, endpoint: Endpoint, is_due: bool, fx: &mut Fx) {
        let Some(suspicion) = self.suspects.get(&endpoint) else { return };
        if suspicion.stage != Stage::Asking {
            return;
        }
        let (count, needed) = self.count(suspicion);
        let is_free =
            |it: &&Endpoint| **it != self.me && **it != endpoint && !suspicion.asked.contains(it);
        let named = suspicion.neighbors.iter().filter(is_free);
        // Where the suspect named too few, this node's own neighbors can look as well.
        let electorate = self.electorate(suspicion).len();
        let others = self.watched.keys().filter(|_| electorate < 2).filter(is_free);
        let missing = needed.saturating_sub(count) + SPARE_WITNESSES;
        let chosen: Vec<_> = named.chain(others).copied().take(missing).collect();
        let MemberInstance { endpoint, incarnation, key } = suspicion.subject;
        let request = SuspectReq { endpoint, incarnation, key };
        fx.set_timer(Timer::Ask(endpoint), self.config.ask_interval);
        if let Some(suspicion) = self.suspects.get_mut(&endpoint) {
            // A witness asked an interval ago may be as slow as this node was to find
            // the suspect gone.
            suspicion.is_last_call = chosen.is_empty() && is_due && !suspicion.asked.is_empty();
            if chosen.is_empty() && !suspicion.is_last_call {
                suspicion.stage = Stage::Held;
            }
            suspicion.asked.extend(&chosen);
        }
        for witness in chosen {
            fx.emit(Event::Ask { witness, request });
        }
    }

    pub(super) fn electorate(&self, suspicion: &Suspicion) -> BTreeSet<Endpoint> {
        let can_testify = |it: &&Endpoint| {
            !suspicion.unreachable.contains(it) && **it != suspicion.subject.endpoint
        };
        suspicion.neighbors.iter().filter(can_testify).copied().collect()
    }

    /// Returns the number of findings that count, and the number needed (O5).
    pub(super) fn count(&self, suspicion: &Suspicion) -> (usize, usize) {
        let electorate = self.electorate(suspicion);
        let others = self.others.saturating_sub(1 + suspicion.unreachable.len()) + 1;
        let needed = witnesses_needed(electorate.len(), others);
        let counts = |it: &&Endpoint| electorate.len() < 2 || electorate.contains(it);
        (suspicion.confirmations.keys().filter(counts).count(), needed.max(1))
    }

    pub(super) fn confirmed(&self, endpoint: Endpoint, found: &Confirmation, fx: &mut Fx) {
        let Some(suspicion) = self.suspects.get(&endpoint) else { return };
        let (count, needed) = self.count(suspicion);
        let (subject, Confirmation { witness, finding, .. }) = (suspicion.subject, *found);
        fx.emit(Event::Confirmed { subject, witness, finding, count, needed });
    }

    /// Reports when enough witnesses have confirmed, this node among them.
    pub(super) fn consider(&mut self, now: Now, endpoint: Endpoint, fx: &mut Fx) {
        let Some(suspicion) = self.suspects.get(&endpoint) else { return };
        let (count, needed) = self.count(suspicion);
        if suspicion.stage != Stage::Asking || count < needed {
            return;
        }
        let MemberInstance { endpoint, incarnation, .. } = suspicion.subject;
        let report = DeadReport {
            text: fixed_text(endpoint, now.wall, self.me),
            endpoint,
            incarnation,
            reporter: self.me,
            at: now.wall,
            confirmations: suspicion.confirmations.values().copied().collect(),
        };
        if let Some(suspicion) = self.suspects.get_mut(&endpoint) {
            suspicion.stage = Stage::Reported;
        }
        fx.set_timer(Timer::Ask(endpoint), self.config.ask_interval * 3);
        fx.emit(Event::Report(report));
    }

    pub(super) fn answer_askers(
        &mut self,
        now: Now,
        endpoint: Endpoint,
        outcome: &ProbeOutcome,
        fx: &mut Fx,
    ) {
        let subjects: Vec<_> =
            self.requests.keys().filter(|it| it.endpoint == endpoint).copied().collect();
        for subject in subjects {
            let askers = self.requests.remove(&subject).unwrap_or_default();
            let Some(finding) = outcome.finding(&subject) else { continue };
            if finding.is_dead() && self.health.is_doubtful() {
                continue;
            }
            let found = Confirmation::sign(&subject, finding, (self.me, &self.keys), now.wall);
            for asker in askers {
                fx.send(asker, found);
            }
        }
    }

    pub(super) fn clear(&mut self, endpoint: Endpoint, reason: &str, fx: &mut Fx) {
        if let Some(suspicion) = self.suspects.remove(&endpoint) {
            fx.stop_timer(Timer::Ask(endpoint));
            let (subject, reason) = (suspicion.subject, reason.to_owned());
            fx.emit(Event::Cleared { subject, reason });
        }
        if let Some(watch) = self.watched.get_mut(&endpoint) {
            watch.misses = 0;
            watch.pinged = None;
        }
    }

    pub(super) fn on_host_timer(&mut self, fx: &mut Fx) {
        if !self.has_host_ping {
            return;
        }
        fx.set_timer(Timer::Host, self.config.host_ping_interval);
        let hosts: BTreeSet<_> = self.watched.keys().map(Endpoint::ip).collect();
        // One host a round, each in its turn: a fleet on one machine must not ping it to death.
        self.hosts.retain(|host, _| hosts.contains(host));
        self.nonce += 1;
        let turn = usize::try_from(self.nonce).unwrap_or(0) % hosts.len().max(1);
        if let Some(host) = hosts.iter().nth(turn) {
            fx.ping_host(*host);
        }
    }
}
