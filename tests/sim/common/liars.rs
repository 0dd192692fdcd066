//! Nodes that lie: honest machines whose every outgoing message passes through somebody who holds
//! their true keys, remembers what he saw, and says whatever serves him.
//!
//! The liars of one fleet are one gang: they share keys and memory. Honest answers are made up
//! from as well, so the lies are well formed and up to date.

#![allow(clippy::wildcard_enum_match_arm, reason = "a liar picks a few messages of many")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use folkmoot::model::entry::RegistryEntry;
use folkmoot::model::statement::{
    Admission, Ban, Confirmation, Finding, Leave, MemberInstance, NeighborList, Proposal,
    ProposalKind, RegisterReq, Removal, RemovalReason, Vote,
};
use folkmoot::model::{Endpoint, Incarnation, Rng, SeedId, WallTime};
use folkmoot::proto::liveness::{DeadReport, SuspectReq, fixed_text};
use folkmoot::proto::membership::{
    LinkHint, PeerListResp, RegisterVote, SeedDeadVote, SeedDigest, SeedOrderVote, SeedSyncResp,
};
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::{ErrorCode, ErrorReply};
use folkmoot::sim::TamperedMessage;
use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::{Fleet, keys_of, peer_endpoint};

/// Messages that a gang remembers.
const MEMORY: usize = 400;

/// What a lying seed may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lie {
    /// Keeps votes, certificates, reports and requests to itself.
    Withhold,
    /// Says yes to one key here and to another there, and calls a yes of one kind another kind.
    Equivocate,
    /// Votes, testifies and reports against the living, with the findings of bribed witnesses.
    AccuseTheLiving,
    /// Says that the dead answer.
    ShieldTheDead,
    /// Sends certificates that are forged, cut short, doubled, or made from those of others.
    Forge,
    /// Says again what was said long ago, by whomever.
    Replay,
    /// Gives applicants and members lists that are old, empty, endless or full of strangers.
    StaleLists,
    /// Compares registries falsely, and answers with pages that prove nothing or never end.
    Sync,
    /// Advises members to link to nobody and to itself.
    Hint,
    /// Refuses whoever asks, for all reasons there are.
    Refuse,
}

impl Lie {
    pub(crate) const ALL: [Self; 10] = [
        Self::Withhold,
        Self::Equivocate,
        Self::AccuseTheLiving,
        Self::ShieldTheDead,
        Self::Forge,
        Self::Replay,
        Self::StaleLists,
        Self::Sync,
        Self::Hint,
        Self::Refuse,
    ];
}

#[derive(Default)]
struct Memory {
    /// The lives the gang has seen, the latest of each endpoint.
    lives: BTreeMap<Endpoint, MemberInstance>,
    said: Vec<Message>,
}

/// The liars of one fleet.
pub(crate) struct Gang {
    seeds: Vec<(SeedId, Endpoint)>,
    lies: BTreeSet<Lie>,
    /// Members whose true keys the gang holds.
    bribed: Vec<Endpoint>,
    epoch: WallTime,
    memory: Mutex<Memory>,
}

/// Turns these seeds of the fleet into a gang that tells these lies.
pub(crate) fn corrupt(fleet: &mut Fleet, seeds: &[SeedId], lies: &BTreeSet<Lie>) {
    let named = seeds.iter().map(|id| (*id, fleet.seeds[usize::from(id.0) - 1]));
    let gang = Arc::new(Gang {
        seeds: named.collect(),
        lies: lies.clone(),
        bribed: fleet.peers.clone(),
        epoch: fleet.epoch,
        memory: Mutex::default(),
    });
    for (id, endpoint) in gang.seeds.clone() {
        let gang = Arc::clone(&gang);
        fleet
            .world
            .set_tamper(endpoint, Box::new(move |rng, outgoing| gang.say(rng, id, outgoing)));
    }
}

/// Nobody: an endpoint that no host has, and a key that no member has.
pub(crate) fn ghost() -> MemberInstance {
    let endpoint = peer_endpoint(9_999);
    MemberInstance { endpoint, incarnation: Incarnation(7), key: keys_of(endpoint).public() }
}

fn is_seed(endpoint: Option<Endpoint>) -> bool {
    endpoint.is_some_and(|it| it.port() == 5001)
}

fn admission(subject: MemberInstance, votes: Vec<Vote>) -> Admission {
    let MemberInstance { endpoint, incarnation, key } = subject;
    Admission { endpoint, incarnation, key, votes }
}

fn removal(subject: MemberInstance, votes: Vec<Vote>) -> Removal {
    Removal {
        because: RemovalReason::Death,
        lives: vec![subject],
        votes,
        confirmations: Vec::new(),
    }
}

/// The wall clock of the world.
pub(crate) fn wall(epoch: WallTime, outgoing: &TamperedMessage<'_>) -> WallTime {
    WallTime(epoch.0 + outgoing.at.as_micros() / 1_000)
}

/// `witness`'s finding about `subject`, signed with its true key.
pub(crate) fn finding(
    subject: &MemberInstance,
    witness: Endpoint,
    found: Finding,
    at: WallTime,
) -> Confirmation {
    Confirmation::sign(subject, found, (witness, &keys_of(witness)), at)
}

/// `reporter`'s report of `subject`'s death with these findings.
pub(crate) fn report(
    subject: &MemberInstance,
    reporter: Endpoint,
    at: WallTime,
    confirmations: Vec<Confirmation>,
) -> DeadReport {
    let MemberInstance { endpoint, incarnation, .. } = *subject;
    let text = fixed_text(endpoint, at, reporter);
    DeadReport { text, endpoint, incarnation, reporter, at, confirmations }
}

impl Gang {
    fn tells(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    /// What leaves the lying seed `me` in place of an honest message.
    fn say(&self, rng: &mut Rng, me: SeedId, outgoing: &TamperedMessage<'_>) -> Vec<Message> {
        self.remember(rng, outgoing.msg);
        let mut said = self.bend(rng, me, outgoing);
        // Only on links that are open for sure: behind a ping, its answer or a digest.
        let is_open = matches!(
            outgoing.msg,
            Message::Ping(_) | Message::Pong(_) | Message::SeedDigest(_) | Message::Neighbors(_)
        );
        if is_open && rng.random_bool(0.7) {
            said.extend(self.invent(rng, me, outgoing));
        }
        said
    }

    fn remember(&self, rng: &mut Rng, msg: &Message) {
        let mut memory = self.memory.lock().expect("nothing panics under this lock");
        let life = match msg {
            Message::RegisterReq(it) => Some(it.subject()),
            Message::RegisterCommit(it) => Some(it.subject()),
            Message::RegisterVote(it) => {
                let RegisterVote { endpoint, incarnation, key, .. } = *it;
                Some(MemberInstance { endpoint, incarnation, key })
            }
            Message::SeedDeadVote(_)
            | Message::SeedDeadCommit(_)
            | Message::SuspectAck(_)
            | Message::DeadReport(_)
            | Message::Neighbors(_)
            | Message::Leave(_)
            | Message::Direct(_)
            | Message::DirectAck(_)
            | Message::DirectPartReq(_)
            | Message::DirectPart(_)
            | Message::SeedDigest(_)
            | Message::SeedSyncResp(_)
            | Message::PeerListResp(_) => None,
            _ => return,
        };
        if let Some(life) = life {
            let known = memory.lives.entry(life.endpoint).or_insert(life);
            if known.incarnation < life.incarnation {
                *known = life;
            }
        }
        if memory.said.len() < MEMORY {
            memory.said.push(msg.clone());
        } else {
            let place = rng.random_range(0..MEMORY);
            memory.said[place] = msg.clone();
        }
    }

    /// An honest message, bent.
    fn bend(&self, rng: &mut Rng, me: SeedId, outgoing: &TamperedMessage<'_>) -> Vec<Message> {
        let to_seed = is_seed(outgoing.to);
        let is_first_half = outgoing
            .to
            .is_some_and(|to| to.to_string().bytes().map(u32::from).sum::<u32>() % 2 == 0);
        match outgoing.msg {
            Message::RegisterVote(_)
            | Message::RegisterCommit(_)
            | Message::SeedDeadVote(_)
            | Message::SeedDeadCommit(_)
            | Message::RegisterReq(_)
            | Message::SuspectReq(_)
            | Message::SuspectAck(_)
            | Message::DeadReport(_)
            | Message::Leave(_)
            | Message::Direct(_)
            | Message::DirectAck(_)
            | Message::DirectPartReq(_)
            | Message::DirectPart(_)
                if self.tells(Lie::Withhold) && rng.random_bool(0.8) =>
            {
                vec![]
            }
            // It shakes hands like anybody, so that applicants count on it.
            Message::RegisterVote(_) | Message::RegisterCommit(_)
                if self.tells(Lie::Refuse) && !to_seed =>
            {
                vec![any_refusal(rng)]
            }
            Message::RegisterVote(vote) if self.tells(Lie::Equivocate) && to_seed => {
                self.equivocate(me, vote, is_first_half)
            }
            Message::SeedDeadVote(vote) if self.tells(Lie::Equivocate) => {
                let mut said = self.dead_vote(me, &subject_of(vote), true, (vote.at, vec![]));
                if is_first_half {
                    // The signature of a yes to something else.
                    let kind = ProposalKind::Admit;
                    let other = Proposal { kind, subject: subject_of(vote) };
                    said.signature = Some(self.sign(&other, me, vote.at).signature);
                }
                vec![said.into()]
            }
            Message::SeedDeadVote(vote) if self.tells(Lie::ShieldTheDead) => {
                vec![self.dead_vote(me, &subject_of(vote), false, (vote.at, vec![])).into()]
            }
            Message::PeerListResp(page) if self.tells(Lie::StaleLists) => {
                vec![self.stale_list(rng, me, page)]
            }
            Message::SeedDigest(digest) if self.tells(Lie::Sync) => lying_digest(rng, digest),
            Message::SeedSyncResp(page) if self.tells(Lie::Sync) => vec![lying_page(rng, page)],
            honest => vec![honest.clone()],
        }
    }

    /// A lie of the gang's own, for whoever is at the other end.
    fn invent(&self, rng: &mut Rng, me: SeedId, outgoing: &TamperedMessage<'_>) -> Vec<Message> {
        let (to_seed, at) = (is_seed(outgoing.to), wall(self.epoch, outgoing));
        let Some(lie) = self.lies.iter().choose(rng) else { return vec![] };
        let (victim, memory) = {
            let memory = self.memory.lock().expect("nothing panics under this lock");
            let victim = memory.lives.values().choose(rng).copied();
            (victim, memory.said.choose(rng).cloned())
        };
        let Some(victim) = victim else { return vec![] };
        match lie {
            Lie::AccuseTheLiving | Lie::Forge if to_seed && rng.random_bool(0.2) => {
                vec![self.order(rng, me, &victim, at)]
            }
            Lie::AccuseTheLiving if to_seed => self.accuse(rng, me, &victim, at),
            Lie::Forge => self.forge(rng, &victim, at),
            Lie::Equivocate if to_seed => {
                let request = RegisterReq::sign(victim, &keys_of(victim.endpoint)).signature;
                self.equivocate(me, &self.register_vote(me, victim, request, at), false)
            }
            Lie::Replay => memory.into_iter().collect(),
            Lie::Hint if !to_seed => {
                let own = self.seeds.first().map_or(ghost().endpoint, |(_, endpoint)| *endpoint);
                let targets = [ghost().endpoint, own, victim.endpoint];
                let endpoint = *targets.choose(rng).expect("there are three");
                vec![LinkHint { endpoint }.into()]
            }
            Lie::Refuse if !to_seed => vec![any_refusal(rng)],
            _ => vec![],
        }
    }

    /// Everything the gang can bring up against somebody who lives: its own yes, witnesses with
    /// true keys, a report, and the request to look for oneself.
    fn accuse(
        &self,
        rng: &mut Rng,
        me: SeedId,
        victim: &MemberInstance,
        at: WallTime,
    ) -> Vec<Message> {
        let bribed = self.bribed.iter().filter(|it| **it != victim.endpoint);
        let found: Vec<_> =
            bribed.map(|it| finding(victim, *it, Finding::Silent, at)).take(12).collect();
        let MemberInstance { endpoint, incarnation, key } = *victim;
        match rng.random_range(0..4) {
            0 => vec![self.dead_vote(me, victim, true, (at, found)).into()],
            1 => match found.first().map(|it| it.witness) {
                Some(reporter) => vec![report(victim, reporter, at, found).into()],
                None => vec![],
            },
            2 => vec![SuspectReq { endpoint, incarnation, key }.into()],
            _ => found.into_iter().take(3).map(Message::from).collect(),
        }
    }

    /// Its own operator wants somebody out, or so it says.
    fn order(&self, rng: &mut Rng, me: SeedId, victim: &MemberInstance, at: WallTime) -> Message {
        let number = Incarnation(rng.random_range(0..4));
        let (kind, subject) = match rng.random_range(0..2) {
            0 => (ProposalKind::Evict, *victim),
            _ => (ProposalKind::Ban, MemberInstance { incarnation: number, ..*victim }),
        };
        let Vote { seed, at, signature, .. } = self.sign(&Proposal { kind, subject }, me, at);
        let MemberInstance { endpoint, incarnation, key } = subject;
        SeedOrderVote { kind, endpoint, incarnation, key, seed, at, signature }.into()
    }

    /// A yes for one key here and for another there, in the same life; and a yes to a removal
    /// in place of a yes to an admission.
    fn equivocate(&self, me: SeedId, vote: &RegisterVote, is_honest: bool) -> Vec<Message> {
        let subject = MemberInstance {
            endpoint: vote.endpoint,
            incarnation: vote.incarnation,
            key: vote.key,
        };
        if is_honest {
            return vec![self.register_vote(me, subject, vote.request, vote.at).into()];
        }
        let other = MemberInstance { key: ghost().key, ..subject };
        let request = RegisterReq::sign(other, &keys_of(ghost().endpoint)).signature;
        vec![
            self.register_vote(me, other, request, vote.at).into(),
            self.dead_vote(me, &subject, true, (vote.at, vec![])).into(),
        ]
    }

    /// Certificates that a quorum of honest seeds has not made.
    fn forge(&self, rng: &mut Rng, victim: &MemberInstance, at: WallTime) -> Vec<Message> {
        let (kind, subject) = match rng.random_range(0..6) {
            0 => (ProposalKind::Admit, ghost()),
            1 => (
                ProposalKind::Admit,
                MemberInstance { incarnation: victim.incarnation.next(0), ..*victim },
            ),
            2 => (ProposalKind::Evict, *victim),
            3 => (ProposalKind::Ban, MemberInstance { incarnation: Incarnation(1), ..*victim }),
            _ => (ProposalKind::Remove, *victim),
        };
        let own = self.seeds.iter();
        let own =
            own.map(|(id, endpoint)| Vote::sign(kind, &[subject], (*id, &keys_of(*endpoint)), at));
        let mut votes: Vec<_> = own.collect();
        match rng.random_range(0..4) {
            // Alone; doubled; in the honest seeds' names; with votes that they gave to others.
            0 => {}
            1 => votes = votes.iter().cycle().take(8).cloned().collect(),
            2 => {
                let lent = votes[0].clone();
                votes.extend((1..=9).map(|id| Vote { seed: SeedId(id), ..lent.clone() }));
            }
            _ => votes.extend(self.votes_seen()),
        }
        let in_page = rng.random_bool(0.5);
        let proof: Message = match kind {
            ProposalKind::Admit => {
                let proof = admission(subject, votes);
                let entries = vec![RegistryEntry::admitted(proof.clone())];
                let page = SeedSyncResp { entries, ..SeedSyncResp::default() };
                if in_page { page.into() } else { proof.into() }
            }
            ProposalKind::Ban => {
                let MemberInstance { endpoint, key, .. } = subject;
                let ban = Ban { endpoint, key, number: subject.incarnation.0, votes };
                let page = SeedSyncResp { bans: vec![ban.clone()], ..SeedSyncResp::default() };
                if in_page { page.into() } else { ban.into() }
            }
            ProposalKind::Remove | ProposalKind::Evict => {
                let mut proof = removal(subject, votes);
                if kind == ProposalKind::Evict {
                    proof.because = RemovalReason::Eviction;
                }
                let removals = vec![Arc::new(proof.clone())];
                let page = SeedSyncResp { removals, ..SeedSyncResp::default() };
                if in_page { page.into() } else { proof.into() }
            }
        };
        let leave = Leave::sign(
            MemberInstance { key: ghost().key, ..*victim },
            at,
            &keys_of(ghost().endpoint),
        );
        let list = NeighborList::sign(
            victim,
            u64::MAX,
            vec![ghost().endpoint],
            &keys_of(ghost().endpoint),
        );
        vec![proof, leave.into(), list.into()]
    }

    /// True votes of honest seeds, for whatever they were given.
    fn votes_seen(&self) -> Vec<Vote> {
        let memory = self.memory.lock().expect("nothing panics under this lock");
        let votes = memory.said.iter().rev().flat_map(|msg| match msg {
            Message::RegisterCommit(it) => it.votes.clone(),
            Message::SeedDeadCommit(it) => it.votes.clone(),
            _ => vec![],
        });
        votes.take(12).collect()
    }

    fn dead_vote(
        &self,
        me: SeedId,
        subject: &MemberInstance,
        yes: bool,
        (at, confirmations): (WallTime, Vec<Confirmation>),
    ) -> SeedDeadVote {
        let proposal = Proposal { kind: ProposalKind::Remove, subject: *subject };
        let signature = yes.then(|| self.sign(&proposal, me, at).signature);
        SeedDeadVote {
            lives: vec![*subject],
            seed: me,
            yes,
            at,
            signature,
            reason: "a lie".to_owned(),
            confirmations,
        }
    }

    fn register_vote(
        &self,
        me: SeedId,
        subject: MemberInstance,
        request: folkmoot::model::Signature,
        at: WallTime,
    ) -> RegisterVote {
        let proposal = Proposal { kind: ProposalKind::Admit, subject };
        RegisterVote {
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            key: subject.key,
            request,
            seed: me,
            yes: true,
            at,
            signature: Some(self.sign(&proposal, me, at).signature),
            reason: "a lie".to_owned(),
        }
    }

    fn sign(&self, proposal: &Proposal, me: SeedId, at: WallTime) -> Vote {
        let own = self.seeds.iter().find(|(id, _)| *id == me);
        let (_, endpoint) = own.expect("it is of the gang");
        Vote::sign(proposal.kind, &[proposal.subject], (me, &keys_of(*endpoint)), at)
    }

    fn stale_list(&self, rng: &mut Rng, me: SeedId, honest: &PeerListResp) -> Message {
        let memory = self.memory.lock().expect("nothing panics under this lock");
        let old = memory.said.iter().find(|msg| matches!(msg, Message::PeerListResp(_)));
        let mut page = honest.clone();
        match rng.random_range(0..4) {
            0 => return old.cloned().unwrap_or_else(|| page.into()),
            1 => page = PeerListResp { seed: me, members: vec![], more: false },
            2 => page.more = true,
            _ => {
                for number in 0..20 {
                    let Some(mut line) = honest.members.first().cloned() else { break };
                    (line.endpoint, line.degree) = (peer_endpoint(9_000 + number), 1_000);
                    page.members.push(line);
                }
            }
        }
        page.into()
    }
}

fn subject_of(vote: &SeedDeadVote) -> MemberInstance {
    *vote.lives.first().expect("a vote is about somebody")
}

fn any_refusal(rng: &mut Rng) -> Message {
    let codes = [
        ErrorCode::EndpointTaken,
        ErrorCode::Rejected,
        ErrorCode::Busy,
        ErrorCode::Removed,
        ErrorCode::Invalid,
        ErrorCode::NotAllowed,
        ErrorCode::Handshake,
        ErrorCode::WrongRole,
    ];
    ErrorReply::new(*codes.choose(rng).expect("there are some"), "a lie").into()
}

fn lying_digest(rng: &mut Rng, honest: &SeedDigest) -> Vec<Message> {
    let mut digest = honest.clone();
    match rng.random_range(0..4) {
        0 => digest.buckets = digest.buckets.iter().map(|_| "0".repeat(16)).collect(),
        1 => digest.buckets.truncate(3),
        2 => digest.buckets.iter_mut().for_each(|it| *it = format!("{:016x}", rng.random::<u64>())),
        _ => return vec![],
    }
    vec![digest.into()]
}

fn lying_page(rng: &mut Rng, honest: &SeedSyncResp) -> Message {
    let mut page = honest.clone();
    match rng.random_range(0..4) {
        0 => page.entries.clear(),
        1 => page.more = true,
        2 => {
            for entry in &mut page.entries {
                entry.admission.iter_mut().for_each(|it| it.votes.truncate(1));
            }
            for removal in &mut page.removals {
                Arc::make_mut(removal).votes.truncate(1);
            }
        }
        _ => {
            for entry in &page.entries {
                // An end that nobody decided, made of the votes to its beginning.
                let votes = entry.admission.iter().flat_map(|it| it.votes.clone()).collect();
                page.removals.push(Arc::new(removal(entry.subject, votes)));
            }
        }
    }
    page.into()
}

/// The lying seed `me`'s yes to the ghost's key at an endpoint: valid in every part.
pub(crate) fn welcome(me: u16, subject: &MemberInstance, at: WallTime) -> RegisterVote {
    let voter = (SeedId(me), &keys_of(super::seed_endpoint(me)));
    let vote = Vote::sign(ProposalKind::Admit, &[*subject], voter, at);
    RegisterVote {
        endpoint: subject.endpoint,
        incarnation: subject.incarnation,
        key: subject.key,
        request: RegisterReq::sign(*subject, &keys_of(ghost().endpoint)).signature,
        seed: vote.seed,
        yes: true,
        at,
        signature: Some(vote.signature),
        reason: "a lie".to_owned(),
    }
}
