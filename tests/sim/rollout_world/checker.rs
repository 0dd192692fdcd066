//! What must never be, and what must be in the end: the world's own books.

use std::collections::{BTreeMap, BTreeSet};

use folkmoot::machine::rollout::{
    Command, CommandId, CommandResult, DecisionAuthority, DisabledRules, Event, Phase, Record,
    RolloutMachine,
};
use folkmoot::model::Time;
use folkmoot::proto::rollout::{
    AbortCause, Choice, Committed, Digest, Message, NodeId, Roster, RoutingState, RoutingStatus,
    TxId, TxKind, TxVote,
};

use super::{World, ms};
use crate::services::rollout::Told;

#[derive(Default)]
pub(crate) struct Checker {
    violations: Vec<String>,
    commits: BTreeMap<TxId, u64>,
    /// By whom.
    aborts: BTreeMap<TxId, BTreeSet<NodeId>>,
    /// What was committed because its coordinator was gone, and who was.
    settled: BTreeMap<TxId, BTreeSet<NodeId>>,
    contents: BTreeMap<u64, Digest>,
    /// Who takes part after each version.
    rosters: BTreeMap<u64, Roster>,
    voters: BTreeMap<u64, BTreeSet<NodeId>>,
    /// Who ever wrote that it votes COMMIT.
    prepared: BTreeSet<(NodeId, TxId)>,
    resolved: BTreeSet<TxId>,
    restored: BTreeSet<usize>,
    /// What each name was begun with.
    begun: BTreeMap<TxId, Digest>,
    /// What anybody ever wrote that it was aborted; it may die before it tells.
    written_off: BTreeSet<TxId>,
    /// Who ever let a signed COMMIT leave.
    signed: BTreeSet<(NodeId, TxId)>,
    /// The last version that each node served, and whether its next is its first since a start.
    served: BTreeMap<usize, u64>,
    is_first: BTreeSet<usize>,
    waiting: BTreeMap<CommandId, (usize, Time)>,
    runs_since: BTreeMap<usize, (TxId, Time)>,
    pub(crate) lost_coordinators: BTreeSet<usize>,
    /// Whether what is long past is forgotten, so that who was away passes over it.
    pub(crate) may_leap: bool,
    /// Whether processes are never late, so that what takes too long is a fault.
    pub(crate) is_timed: bool,
    /// The log of each node, and how much of it is on disk for sure.
    disks: BTreeMap<usize, Disk>,
}

#[derive(Default)]
struct Disk {
    records: Vec<Record>,
    /// Where this life's records begin.
    base: usize,
    synced: usize,
}

impl Checker {
    pub(crate) fn new(roster: Roster) -> Self {
        Self { rosters: [(1, roster)].into(), ..Self::default() }
    }

    /// A node tells this, in order.
    pub(crate) fn heed(&mut self, at: usize, now: Time, told: &Told) {
        let id = name_of(at);
        match told {
            Told::Started { records, history } => {
                self.on_crash(at);
                // It may have died before it told of its last record.
                records.iter().for_each(|it| self.on_record(&id, it));
                self.on_history(&id, history);
                self.on_start(at, records.is_empty());
                let (base, records) = (records.len(), records.clone());
                self.disks.insert(at, Disk { records, base, synced: base });
            }
            Told::Record(record) => {
                self.on_record(&id, record);
                self.disks.entry(at).or_default().records.push(record.clone());
            }
            Told::Synced(records) => {
                let disk = self.disks.entry(at).or_default();
                disk.synced = disk.base + usize::try_from(*records).expect("a short log");
            }
            Told::Said { msg, .. } => {
                let disk = self.disks.remove(&at).unwrap_or_default();
                self.on_said(&id, msg, &disk.records[..disk.synced]);
                self.disks.insert(at, disk);
            }
            Told::Serves { state, is_braked } => self.on_serve(at, state, *is_braked),
            Told::Event(event) => self.on_event(&id, event),
            Told::Answer(ticket, answer) => self.on_answer(*ticket, answer),
            Told::Busy { running } => self.on_busy(at, running.as_ref(), now),
            Told::Wrong(what) => self.violation(what.clone()),
            Told::Decide { .. } => {}
        }
    }

    /// Nothing that a node coordinates lasts longer than the votes may take.
    fn on_busy(&mut self, at: usize, running: Option<&TxId>, now: Time) {
        if let Some((txid, since)) = self.runs_since.remove(&at)
            && self.is_timed
            && now.since(since) > ms(2100)
        {
            self.violation(format!("T2: {txid} ran for too long"));
        }
        if let Some(txid) = running {
            self.runs_since.insert(at, (txid.clone(), now));
        }
    }

    /// What has taken too long until now.
    pub(crate) fn look_at_the_clock(&mut self, now: Time) {
        if !self.is_timed {
            return;
        }
        let late = self.runs_since.values().find(|(_, since)| now.since(*since) > ms(2100));
        if let Some((txid, _)) = late.cloned() {
            self.violation(format!("T2: {txid} runs for too long"));
        }
        if self.waiting.values().any(|(_, since)| now.since(*since) > ms(6000)) {
            self.violation("T6: a command without an answer".to_owned());
        }
    }

    /// How many take part at first.
    pub(crate) fn roster_len(&self) -> usize {
        self.rosters[&1].len()
    }

    pub(crate) fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.violations.first().map_or(Ok(()), |it| Err(it.clone()))
    }

    pub(crate) fn outcome(&self, txid: &TxId) -> Option<bool> {
        if self.commits.contains_key(txid) {
            return Some(true);
        }
        self.aborts.contains_key(txid).then_some(false)
    }

    pub(crate) fn on_start(&mut self, at: usize, is_fresh: bool) {
        self.is_first.insert(at);
        if is_fresh {
            self.served.remove(&at);
        }
    }

    pub(crate) fn on_crash(&mut self, at: usize) {
        self.waiting.retain(|_, (node, _)| *node != at);
        self.runs_since.remove(&at);
    }

    pub(crate) fn on_lost_disk(&mut self, at: usize) {
        self.lost_coordinators.insert(at);
        self.served.remove(&at);
    }

    /// Notes that a node has forgotten what it served and signed; others know its names still.
    pub(crate) fn on_restored(&mut self, at: usize, id: &NodeId) {
        self.served.remove(&at);
        self.restored.insert(at);
        self.signed.retain(|(node, _)| node != id);
    }

    pub(crate) fn on_command(&mut self, at: usize, ticket: CommandId, now: Time) {
        self.waiting.insert(ticket, (at, now));
    }

    pub(crate) fn on_answer(&mut self, ticket: CommandId, answer: &CommandResult) {
        let Some((at, _)) = self.waiting.remove(&ticket) else {
            let what = format!("T6: {ticket:?} is answered twice or unasked: {answer:?}");
            return self.violation(what);
        };
        match answer {
            CommandResult::Committed { txid, .. } => self.committed(txid, None),
            CommandResult::Aborted { txid, .. } => self.was_aborted(&name_of(at), txid),
            CommandResult::Refused { cause, running, .. } => {
                let is_busy = matches!(cause, AbortCause::Busy | AbortCause::InDoubt);
                if is_busy && running.is_none() {
                    self.violation("T6: busy, and nobody says with what".to_owned());
                }
            }
        }
    }

    pub(crate) fn on_record(&mut self, id: &NodeId, record: &Record) {
        if let Record::Prepared(proposal) = record {
            self.prepared.insert((id.clone(), proposal.txid.clone()));
        } else if let Record::Aborted(aborted) = record {
            self.written_off.insert(aborted.txid.clone());
        } else if let Record::Committed(it) = record
            && let Some(gone) = &it.proposal.gone
            && let Some(settled) = &gone.settles
        {
            self.settled.insert(settled.proposal.txid.clone(), gone.nodes.clone());
        }
    }

    /// T3: what binds is on disk before it leaves, and nobody says yes and no of one transaction,
    /// unless it was aborted in between.
    pub(crate) fn on_said(&mut self, id: &NodeId, msg: &Message, disk: &[Record]) {
        let is_prepared = |txid: &TxId| {
            disk.iter().any(|it| matches!(it, Record::Prepared(it) if it.txid == *txid))
        };
        let is_committed = |txid: &TxId| {
            disk.iter().any(|it| matches!(it, Record::Committed(it) if it.proposal.txid == *txid))
        };
        let (txid, votes): (&TxId, Vec<&TxVote>) = match msg {
            Message::PrepareResp(it) => (&it.txid, it.signed.iter().collect()),
            Message::Decision(it) => (&it.txid, it.proof.votes.iter().collect()),
            Message::DecisionResp(it) => (&it.txid, it.proof.votes.iter().collect()),
            _ => return,
        };
        if matches!(msg, Message::Decision(it) if it.kind == Choice::Commit) && !is_committed(txid)
        {
            self.violation(format!(
                "T3: {id} tells that {txid} is committed before its disk has it"
            ));
        }
        for vote in votes.into_iter().filter(|it| it.node_id == *id) {
            let key = (id.clone(), txid.clone());
            match vote.vote {
                Choice::Commit => {
                    if !is_prepared(txid) && !is_committed(txid) {
                        self.violation(format!("T3: {id} votes on {txid} before its disk has it"));
                    }
                    self.signed.insert(key);
                }
                Choice::Abort => {
                    if self.signed.contains(&key) && !self.written_off.contains(txid) {
                        self.violation(format!("T3: {id} has said yes and no of {txid}"));
                    }
                }
            }
        }
    }

    pub(crate) fn on_event(&mut self, id: &NodeId, event: &Event) {
        if let Event::Committed(committed) = event {
            self.on_committed(id, committed);
        } else if let Event::Aborted(aborted) = event {
            self.was_aborted(id, &aborted.txid);
        } else if let Event::Began(proposal) = event {
            let digest = proposal.digest();
            if *self.begun.entry(proposal.txid.clone()).or_insert(digest) != digest {
                self.violation(format!("P1: {} is the name of two", proposal.txid));
            }
        } else if let Event::Diverged { node, version } = event {
            self.violation(format!("T1: {id} sees {node} serve another {version}"));
        }
    }

    /// A node begins with this on its disk: it may have died before it told of it.
    pub(crate) fn on_history(&mut self, id: &NodeId, history: &[Committed]) {
        for committed in history {
            if !self.rosters.contains_key(&committed.proposal.state.version) {
                self.on_committed(id, committed);
            }
        }
    }

    fn on_committed(&mut self, id: &NodeId, committed: &Committed) {
        let proposal = &committed.proposal;
        let version = proposal.state.version;
        let gone = proposal.gone.as_ref().map(|it| &it.nodes);
        let gone = gone.or_else(|| self.settled.get(&proposal.txid)).cloned().unwrap_or_default();
        if committed.proof.resolution.is_some() && gone.is_empty() {
            self.resolved.insert(proposal.txid.clone());
        }
        self.committed(&proposal.txid, Some(version));
        self.content(&proposal.state);
        let Some(before) = self.rosters.get(&(version - 1)).cloned() else {
            return self.violation(format!("{id}: version {version} before its base"));
        };
        let after = proposal.new_roster.clone().unwrap_or_else(|| before.clone());
        let voters: BTreeSet<_> =
            before.nodes().chain(after.nodes()).map(|it| it.node_id.clone()).collect();
        let voters = &voters - &gone;
        for voter in &voters {
            let has_voted = *voter == proposal.txid.node
                || self.prepared.contains(&(voter.clone(), proposal.txid.clone()));
            if !has_voted && !self.resolved.contains(&proposal.txid) {
                self.violation(format!("T2: {} without {voter}'s vote", proposal.txid));
            }
        }
        let earlier = self.voters.get(&(version - 1));
        if earlier.is_some_and(|it| it.is_disjoint(&voters)) {
            self.violation(format!("T7: nobody voted on {version} and the one before"));
        }
        self.rosters.insert(version, after);
        self.voters.insert(version, voters);
    }

    fn committed(&mut self, txid: &TxId, version: Option<u64>) {
        if self.is_aborted(txid) {
            self.violation(format!("T5: {txid} was aborted, and is committed"));
        }
        let version = version.unwrap_or_else(|| self.commits.get(txid).copied().unwrap_or(0));
        self.commits.insert(txid.clone(), version);
    }

    fn was_aborted(&mut self, id: &NodeId, txid: &TxId) {
        self.aborts.entry(txid.clone()).or_default().insert(id.clone());
        if self.commits.contains_key(txid) && self.is_aborted(txid) {
            self.violation(format!("T5: {txid} was committed, and is aborted by {id}"));
        }
    }

    /// Whether anybody aborted it whose word counts: not that of who was called gone meanwhile.
    fn is_aborted(&self, txid: &TxId) -> bool {
        let by = self.aborts.get(txid);
        by.is_some_and(|by| self.settled.get(txid).is_none_or(|gone| !by.is_subset(gone)))
    }

    fn content(&mut self, state: &RoutingState) {
        let digest = state.digest();
        let known = *self.contents.entry(state.version).or_insert(digest);
        if known != digest {
            self.violation(format!("T1: two contents of version {}", state.version));
        }
    }

    pub(crate) fn on_serve(&mut self, at: usize, state: &RoutingState, is_again: bool) {
        if state.status != RoutingStatus::Committed {
            self.violation(format!("T1: what is served is {:?}", state.status));
        }
        if let Some(txid) = &state.txid
            && self.is_aborted(txid)
        {
            self.violation(format!("T1: {txid} was aborted, and is served"));
        }
        if let Some(txid) = &state.txid {
            self.committed(txid, Some(state.version));
        }
        self.content(state);
        let last = self.served.insert(at, state.version);
        let is_first = self.is_first.remove(&at);
        let follows = match last {
            None => state.version == 1 || is_first,
            // Death may come between the disk and the data plane, but what was served is kept.
            Some(last) if is_first => state.version >= last,
            // The brake is put on within a version.
            Some(last) if state.version == last => is_again,
            Some(last) if self.may_leap => state.version > last,
            Some(last) => state.version == last + 1,
        };
        let newest = self.rosters.last_key_value();
        let is_retired = newest.is_some_and(|(newest, roster)| {
            state.version + 1 < *newest && roster.has(&name_of(at))
        });
        // A log from a backup is a log: only others can tell that it is old.
        if last.is_none() && is_retired && !self.restored.remove(&at) {
            self.violation(format!("P7: {at} has no log and serves {}", state.version));
        }
        if !follows {
            self.violation(format!("T6: {at} serves {last:?} and then {}", state.version));
        }
    }
}

fn name_of(at: usize) -> NodeId {
    format!("node-{}", char::from(b'a' + at as u8)).parse().expect("a name")
}

impl World {
    /// T4, T5: after twenty quiet seconds only those still wait whose coordinator lost its disk,
    /// and with a log nobody does.
    pub(crate) fn check_doubts(&mut self) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(prepared) = self.machine(at).and_then(|it| it.prepared()) else {
                continue;
            };
            // A rollout that goes on has its transactions at this moment too.
            let status = self.machine(at).map(|it| it.status(self.clock(at)));
            if status.and_then(|it| it.in_doubt).is_some_and(|it| it.waited < ms(12_000)) {
                continue;
            }
            let by = self.nodes.iter().position(|it| it.id == prepared.txid.node).expect("known");
            let is_lost = self.checker.lost_coordinators.contains(&by);
            if !is_lost || self.decides != DecisionAuthority::Coordinator {
                return Err(format!("T5: {} is still in doubt about {}", node.id, prepared.txid));
            }
        }
        Ok(())
    }

    /// The operator knows what a lost disk held.
    pub(crate) fn resolve_by_hand(&mut self) {
        let stuck = (0..self.nodes.len()).find_map(|at| {
            let doubt = self.machine(at)?.status(self.clock(at)).in_doubt?;
            (doubt.waited >= ms(12_000)).then_some((at, doubt.txid))
        });
        if let Some((at, txid)) = stuck {
            let commit = self.checker.outcome(&txid) == Some(true);
            self.checker.resolved.insert(txid.clone());
            self.figures.resolved += 1;
            self.command(at, Command::Resolve { txid, commit });
        }
    }

    pub(crate) fn check_end(&mut self) -> Result<(), String> {
        self.checker.verdict()?;
        let ends = self.nodes.iter().enumerate().map(|(at, node)| {
            let machine = self.machine(at).expect("all are up");
            End { id: &node.id, machine, now: self.clock(at), errors: node.errors }
        });
        check_end(&ends.collect::<Vec<_>>(), self.checker.may_leap)
    }

    /// In the end something can be committed, and all serve it.
    pub(crate) fn probe(&mut self) -> Result<(), String> {
        for _ in 0..12 {
            let at = (0..self.nodes.len()).find(|at| {
                let machine = self.machine(*at).expect("all are up");
                machine.status(self.clock(*at)).roster.has(&self.nodes[*at].id)
            });
            let at = at.expect("somebody is in the roster");
            let machine = self.machine(at).expect("all are up");
            let roster = machine.status(self.clock(at)).roster;
            let Some(ticket) = self.command(at, Command::Roster(roster)) else { continue };
            self.run_for(ms(2600))?;
            match self.answers.get(&ticket) {
                Some(CommandResult::Committed { txid, .. }) => {
                    assert_eq!(txid.kind, TxKind::Roster);
                    return self.check_end();
                }
                Some(_) => {}
                None if self.decides != DecisionAuthority::Coordinator => {}
                None => return Err("T6: the last command is not answered".to_owned()),
            }
        }
        Err("T5: nothing can be committed any more".to_owned())
    }
}

/// A node at the end of a run.
pub(crate) struct End<'a> {
    pub(crate) id: &'a NodeId,
    pub(crate) machine: &'a RolloutMachine,
    /// Its own clock.
    pub(crate) now: Time,
    pub(crate) errors: Option<u64>,
}

/// What must be when all is calm: all are at the newest state, and nobody waits.
pub(crate) fn check_end(nodes: &[End<'_>], may_leap: bool) -> Result<(), String> {
    let all = nodes.iter().map(|it| it.machine.status(it.now));
    let newest = all.max_by_key(|it| it.state.version).expect("there are some");
    if newest.progress.as_ref().is_some_and(|it| it.phase == Phase::Running)
        && nodes.iter().any(|it| it.errors == Some(50) && newest.roster.has(it.id))
        && newest.progress.as_ref().is_some_and(|it| {
            // Without a gate a preview waits for ever.
            it.plan.to.as_str() == "v2" && !it.plan.gates.is_empty()
        })
    {
        return Err("T8: a gate fails, and nothing is rolled back".to_owned());
    }
    // Who takes part no more, or not yet, knows it, and follows all the same.
    for node in nodes {
        let status = node.machine.status(node.now);
        if let Some(doubt) = status.in_doubt.as_ref().filter(|it| it.waited >= ms(12_000)) {
            return Err(format!("T5: {} is still in doubt about {}", node.id, doubt.txid));
        }
        // Who takes part no more may have heard what a lost disk has forgotten.
        let is_member = newest.roster.has(node.id);
        if let Some(brake) = status.brake.as_ref().filter(|_| is_member) {
            return Err(format!("T8: {} still has its brake on: {}", node.id, brake.reason));
        }
        if newest.gone.contains_key(node.id) && status.removed.is_none() {
            return Err(format!("T12: {} was called gone and does not know it", node.id));
        }
        if !status.recalling.is_empty() {
            return Err(format!("{} still waits for {:?}", node.id, status.recalling));
        }
        let history = node.machine.history();
        let versions = history.iter().map(|it| it.proposal.state.version);
        let first = match may_leap {
            true => history.first().map_or(2, |it| it.proposal.state.version),
            false => 2,
        };
        if !versions.eq(first..=status.state.version) {
            return Err(format!("T6: {} has a gap in its history", node.id));
        }
        if status.digest == newest.digest && status.progress != newest.progress {
            return Err(format!("T5: {} is at another step", node.id));
        }
        let lags = status.digest != newest.digest;
        let by_a_step = status.state.version + 1 >= newest.state.version;
        if lags && !by_a_step {
            return Err(format!("T7: {} is at {}", node.id, status.state.version));
        }
    }
    Ok(())
}

/// All rules are kept.
pub(crate) const WHOLE: DisabledRules = DisabledRules::NONE;
