//! What befalls a fleet: operators, deaths, partitions, strangers, and words said twice.

use std::collections::BTreeSet;

use folkmoot::machine::rollout::{Command, StartOrder};
use folkmoot::model::{PublicKey, WallTime};
use folkmoot::proto::rollout::{
    Choice, Committed, Decision, DecisionResp, Gate, Message, Mirror, NodeId, Participant,
    PrepareResp, RecallResp, Resolution, Roster, StateResp, Sticky, TxEnd, TxProof, TxProposal,
    TxVote,
};
use rand::RngExt as _;

use super::{World, model};
use crate::services::rollout::Command as Call;

/// Rosters that nobody agreed on; of one group at most all have its own.
pub(crate) fn odd_rosters(world: &mut World, all: &[Participant]) {
    let count = all.len();
    let subset = |world: &mut World, of: usize| -> Vec<usize> {
        let others = (0..count).filter(|it| *it != of);
        let mut chosen: Vec<_> = others.filter(|_| world.rng.random_bool(0.4)).collect();
        if chosen.is_empty() {
            chosen.push((of + 1) % count);
        }
        chosen.push(of);
        chosen.sort_unstable();
        chosen
    };
    loop {
        let sets: Vec<_> = (0..count).map(|at| subset(world, at)).collect();
        let is_agreed = |at: &usize| sets[*at].iter().all(|it| sets[*it] == sets[*at]);
        let agreed: Vec<_> = (0..count).filter(is_agreed).collect();
        let first = agreed.first().map(|at| sets[*at].clone());
        if agreed.iter().any(|at| Some(&sets[*at]) != first.as_ref()) {
            continue;
        }
        let named = |set: &[usize]| Roster::new(set.iter().map(|it| all[*it].clone()).collect());
        for (at, set) in sets.iter().enumerate() {
            world.nodes[at].roster = named(set).unwrap();
        }
        let group = named(&first.unwrap_or_else(|| sets[0].clone())).unwrap();
        world.checker = super::Checker::new(group);
        return;
    }
}

/// One thing.
pub(crate) fn something(world: &mut World) {
    let at = world.rng.random_range(0..world.nodes.len());
    if world.has_seeds && world.rng.random_bool(0.2) {
        return seeds_speak(world, at);
    }
    match world.rng.random_range(0..100) {
        0..40 => {
            order(world, at);
            if world.rng.random_bool(0.3) {
                let other = world.rng.random_range(0..world.nodes.len());
                order(world, other);
            }
        }
        40..50 => {
            if world.crash_ppm > 0 {
                let is_power_cut = world.rng.random_bool(0.5);
                world.crash(at, is_power_cut);
            }
        }
        50..58 => {
            for side in 0..world.sides.len() {
                world.sides[side] = world.rng.random_range(0..2);
            }
            world.part();
        }
        58..68 => {
            world.join();
        }
        68..76 => {
            let links = world.linked();
            if !links.is_empty() {
                let pair = links[world.rng.random_range(0..links.len())];
                world.close(pair);
            }
        }
        76..82 => {
            let errors = [None, Some(0), Some(0), Some(50)];
            let errors = errors[world.rng.random_range(0..4)];
            world.set_errors(at, errors);
        }
        82..84 => {
            if world.lost.is_empty() && world.crash_ppm > 0 && !world.has_odd_rosters {
                world.lose_disk(at);
            }
        }
        84..88 => world.back_up_or_restore(at),
        88..91 => call_gone(world, at),
        91..95 => say_again(world),
        _ => lie(world, at),
    }
}

fn order(world: &mut World, at: usize) {
    let command = match world.rng.random_range(0..15) {
        14 => servers(world),
        0..5 => start(world, at),
        5 => Command::Pause,
        6 => Command::Resume,
        7 => Command::Promote { full: world.rng.random_bool(0.3) },
        8 => Command::Abort,
        9 => Command::Rollback,
        10 => Command::Retry,
        _ => match other_roster(world, at) {
            Some(roster) => Command::Roster(roster),
            None => return,
        },
    };
    world.command(at, command);
}

/// A server of the third version on all nodes, or none of it.
fn servers(world: &mut World) -> Command {
    let server = world.rng.random_bool(0.6).then(|| "http://127.0.0.1:9003".to_owned());
    Command::Serve { changes: [(model("v3"), server)].into() }
}

fn start(world: &mut World, at: usize) -> Command {
    let stable = world.machine(at).map(|it| it.status(world.clock(at)).state);
    let from = stable.map_or_else(|| model("v1"), |it| it.stable_model_id);
    let names = ["v1", "v2", "v3"].map(model);
    let to = names[world.rng.random_range(0..3)].clone();
    let steps = [vec![500, 2000, 5000, 10_000], vec![5000, 10_000], vec![10_000], vec![0, 10_000]];
    let steps = steps[world.rng.random_range(0..4)].clone();
    let own = ["error=10%", "p95<=1.5x"];
    let outside = ["prom:errors<0.1@http://prometheus:9090", "http:http://host/ready"];
    let gates = match world.rng.random_range(0..10) {
        0..3 => Vec::new(),
        3..7 => own.to_vec(),
        7..9 => [own, outside].concat(),
        _ => outside.to_vec(),
    };
    let gates: Vec<Gate> = gates.iter().map(|it| it.parse().unwrap()).collect();
    let routes = ["header:X-Team=qa -> canary", "path:/v2 -> stable"];
    let routes = routes.iter().filter(|_| world.rng.random_bool(0.3));
    let routes = routes.map(|it| it.parse().unwrap()).collect();
    let is_unsafe = world.rng.random_bool(0.5);
    let mirror = world.rng.random_bool(0.3).then_some(Mirror { share: 500, is_unsafe });
    let sticky = world.rng.random_bool(0.3);
    let sticky = sticky.then(|| Sticky::Cookie { name: "sid".to_owned(), own: true });
    let same_servers = world.rng.random_bool(0.2);
    Command::Start(StartOrder {
        from,
        to,
        steps,
        interval_ms: world.rng.random_range(100..2500),
        gates,
        sticky,
        samples_min: 10,
        window_ms: 1000,
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes,
        mirror,
        same_servers,
    })
}

/// From the first version to the next, in these steps.
pub(crate) fn plain_start(steps: Vec<u32>) -> Command {
    Command::Start(StartOrder {
        from: model("v1"),
        to: model("v2"),
        steps,
        interval_ms: 1000,
        gates: Vec::new(),
        sticky: None,
        samples_min: 10,
        window_ms: 1000,
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes: Vec::new(),
        mirror: None,
        same_servers: false,
    })
}

/// The roster of that node, with one more or one less.
fn other_roster(world: &mut World, at: usize) -> Option<Roster> {
    if world.has_odd_rosters {
        return None;
    }
    let now = world.machine(at)?.status(world.clock(at)).roster;
    let mut nodes: Vec<_> = now.nodes().cloned().collect();
    let chosen = world.rng.random_range(0..world.nodes.len());
    let node = &world.nodes[chosen];
    if now.has(&node.id) {
        nodes.retain(|it| it.node_id != node.id);
    } else {
        nodes.push(Participant {
            node_id: node.id.clone(),
            host: "127.0.0.1".to_owned(),
            port: 60_001 + u16::try_from(chosen).unwrap(),
            key: node.keys.public(),
        });
    }
    (nodes.len() >= 2).then(|| Roster::new(nodes).unwrap())
}

/// An operator gives up whoever a node does not reach, but not the half of the fleet: he knows who
/// is left.
fn call_gone(world: &mut World, at: usize) {
    if world.has_odd_rosters {
        return;
    }
    let anchor = world.nodes[world.anchor].id.clone();
    let Some(machine) = world.machine(at) else { return };
    let roster = machine.roster();
    let is_away = |it: &&NodeId| **it != *machine.me() && !machine.reaches(it);
    let gone: BTreeSet<_> = roster.nodes().map(|it| &it.node_id).filter(is_away).cloned().collect();
    let is_left = roster.has(&anchor) && !gone.contains(&anchor);
    // Where the seeds have a say as well, he knows that they count.
    let is_enough = !world.has_seeds || roster.outlives(&gone);
    if is_left && is_enough && !gone.is_empty() && roster.len() >= gone.len() + 2 {
        world.command(at, Command::Gone { nodes: gone });
    }
}

/// The seeds call dead whom a node does not reach, and perhaps somebody whom it does; or nobody.
fn seeds_speak(world: &mut World, at: usize) {
    if world.rng.random_bool(0.3) {
        return world.certify(BTreeSet::new());
    }
    let is_away = |it: &usize| world.machine(*it).is_none() || world.sides[*it] != world.sides[at];
    let mut dead: BTreeSet<_> = (0..world.nodes.len()).filter(is_away).collect();
    if world.rng.random_bool(0.2) {
        dead.insert(world.rng.random_range(0..world.nodes.len()));
    }
    world.certify(dead);
}

/// What was said once is heard again, late and out of order.
fn say_again(world: &mut World) {
    for _ in 0..5 {
        if world.said.is_empty() {
            return;
        }
        let chosen = world.rng.random_range(0..world.said.len());
        let (from, to, msg) = world.said[chosen].clone();
        if from != to {
            let node = world.nodes[from].id.clone();
            world.hand(to, Call::Overheard { node, says: vec![msg] });
        }
    }
}

/// What a stranger can say: everything but a member's signature.
fn lies(world: &mut World, proposal: &TxProposal) -> Vec<Message> {
    let (keys, txid) = (&world.mallory, &proposal.txid);
    let names: Vec<NodeId> = world.nodes.iter().map(|it| it.id.clone()).collect();
    let votes = |choice: Choice| -> Vec<TxVote> {
        let vote = |name: &NodeId| match choice {
            Choice::Commit => TxVote::commit(keys, name, txid, &proposal.digest()),
            Choice::Abort => TxVote::abort(keys, name, txid),
        };
        names.iter().map(vote).collect()
    };
    let kind = if world.is_even() { Choice::Commit } else { Choice::Abort };
    let word = Resolution::new(keys, &names[0], txid, kind, WallTime(1));
    let proofs = [TxProof::of(votes(kind)), TxProof { votes: Vec::new(), resolution: Some(word) }];
    let mut lies = Vec::new();
    for proof in proofs {
        let (txid, content) = (txid.clone(), Some(proposal.clone()));
        let committed = vec![Committed { proposal: proposal.clone(), proof: proof.clone() }];
        lies.push(Message::StateResp(StateResp { committed }));
        let outcome = if kind == Choice::Commit { TxEnd::Commit } else { TxEnd::Refused };
        let resp = DecisionResp {
            txid: txid.clone(),
            outcome,
            proposal: content.clone(),
            proof: proof.clone(),
        };
        lies.push(Message::DecisionResp(Box::new(resp)));
        let reason = String::new();
        let decision = Decision { txid, kind, proposal: content, proof, reason };
        lies.push(Message::Decision(Box::new(decision)));
    }
    lies.push(Message::PrepareReq(Box::new(proposal.clone().into())));
    lies.extend(votes(Choice::Commit).into_iter().map(|vote| {
        let (txid, reason) = (txid.clone(), String::new());
        let (choice, signed) = (Choice::Commit, Some(vote));
        Message::PrepareResp(PrepareResp { txid, vote: choice, reason, cause: None, signed })
    }));
    let seen = names.into_iter().map(|it| (it, Default::default())).collect();
    lies.push(Message::RecallResp(RecallResp { question: 0, seen }));
    lies
}

/// A stranger calls, under its own name or another's, or gets at a member's link.
fn lie(world: &mut World, at: usize) {
    let real = world.said.iter().rev().find_map(|(_, _, msg)| {
        let Message::PrepareReq(it) = msg else { return None };
        Some(TxProposal::from((**it).clone()))
    });
    let Some(mut proposal) = real else { return };
    if world.rng.random_bool(0.3) {
        proposal.txid.counter += 1;
        proposal.state.txid = Some(proposal.txid.clone());
    }
    let lies = lies(world, &proposal);
    world.figures.forged += lies.len();
    let links = world.linked();
    let members: Vec<_> = links.iter().filter(|(a, b)| *a == at || *b == at).collect();
    if world.rng.random_bool(0.3) && !members.is_empty() {
        let (a, b) = *members[world.rng.random_range(0..members.len())];
        let node = world.nodes[if a == at { b } else { a }].id.clone();
        // The link of a member, but never its signature. A vote or a wish of its own that a member
        // sends is believed of it, so these are left out.
        let is_left_out =
            |msg: &Message| matches!(msg, Message::PrepareReq(_) | Message::RecallResp(_));
        let says = lies.into_iter().filter(|it| !is_left_out(it)).collect();
        return world.hand(at, Call::Overheard { node, says });
    }
    let name = if world.rng.random_bool(0.5) { "mallory" } else { "node-a" };
    let key: PublicKey = world.mallory.public();
    let node: NodeId = name.parse().unwrap();
    if node == world.nodes[at].id {
        return;
    }
    world.hand(at, Call::Stranger { node, key, says: lies });
}

impl World {
    fn is_even(&self) -> bool {
        self.now().as_micros().is_multiple_of(2)
    }
}
