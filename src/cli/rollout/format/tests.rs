//! Tests of the texts that people read, word by word.

use super::table::View;
use super::timeline::{Explained, History};
use super::*;
use crate::machine::rollout::{
    Aborted, CoordinatedTxStatus, InDoubtStatus, NodeStatus, RolloutProgress, RosterNodeStatus,
    StartOrder,
};
use crate::model::{KeyPair, WallTime};
use crate::proto::rollout::{
    Choice, Committed, Digest, GoneNodes, HealthSnapshot, Heartbeat, ModelHealth, NodeId,
    Participant, Resolution, Roster, TxProof, TxProposal, TxVote,
};
use crate::runtime::rollout::EngineStatus;

fn start() -> Command {
    Command::Start(StartOrder {
        from: "v1".parse().unwrap(),
        to: "v2".parse().unwrap(),
        steps: vec![1_250, 10_000],
        interval_ms: 1_000,
        gates: Vec::new(),
        sticky: None,
        samples_min: 1,
        window_ms: 1_000,
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes: Vec::new(),
        mirror: None,
        same_servers: false,
    })
}

fn txid() -> TxId {
    "start-node-a-1-1".parse().unwrap()
}

#[test]
fn shares_spans_and_rates_are_as_people_write_them() {
    for (share, text) in [(0, "0 %"), (5, "0.05 %"), (1_250, "12.5 %"), (10_000, "100 %")] {
        assert_eq!(percent(share), text);
    }
    for (micros, text) in [
        (0, "0 s"),
        (9, "<0.01 ms"),
        (350, "0.35 ms"),
        (12_345, "12 ms"),
        (3_249_999, "3.2 s"),
        (125_000_000, "2 min 5 s"),
        (7_260_000_000, "2 h 1 min"),
    ] {
        assert_eq!(span(Duration::from_micros(micros)), text);
    }
    for (errors, samples, text) in
        [(0, 0, "0 %"), (1, 80, "1.25 %"), (1, 1_000_000, "<0.01 %"), (3, 3, "100 %")]
    {
        assert_eq!(rate(errors, samples), text);
    }
    let weight = Weights::split(&"v1".parse().unwrap(), &"v2".parse().unwrap(), 500);
    assert_eq!(weights(&weight), "v1 95 % v2 5 %");
    assert_eq!(list(["a", "b", "c"]), "a, b and c");
    assert_eq!(cause(AbortCause::NoVote), "no_vote");
}

#[test]
fn an_order_that_was_done_is_one_sentence() {
    let answer = CommandResult::Committed { txid: txid(), version: 2 };
    assert_eq!(
        outcome(&start(), &answer).unwrap(),
        "started: v2 gets 12.5 % on all nodes (version 2, start-node-a-1-1)"
    );
}

#[test]
fn an_order_that_was_not_done_says_why_and_what_to_do() {
    let reason = "the steps are not ascending from above 0 %".to_owned();
    let answer = CommandResult::Refused { cause: AbortCause::Malformed, reason, running: None };
    assert_eq!(
        outcome(&start(), &answer).unwrap_err(),
        "refused, nothing was tried: the steps are not ascending from above 0 % (malformed); \
         steps are percents that ascend to 100: --steps 5,20,50,100"
    );
    let reason = "node-c did not\nvote".to_owned();
    let answer = CommandResult::Aborted { txid: txid(), cause: AbortCause::NoVote, reason };
    let text = outcome(&start(), &answer).unwrap_err();
    assert!(text.contains("node-c did not\\nvote (no_vote, start-node-a-1-1)"), "{text}");
    assert!(text.contains("every node has to vote"), "{text}");
    let reason = "the rollout start-node-a-1-1 is not over".to_owned();
    let running = Some(txid());
    let answer = CommandResult::Refused { cause: AbortCause::Busy, reason, running };
    let text = outcome(&start(), &answer).unwrap_err();
    assert!(text.contains("start-node-a-1-1 is in the way"), "{text}");
    assert!(text.ends_with("peer rollout abort"), "{text}");
}

#[test]
fn a_remedy_fits_what_is_in_the_way() {
    let of = |command: &Command, cause, reason: &str, txid: &str| {
        let running = Some(txid.parse().unwrap());
        let answer = CommandResult::Refused { cause, reason: reason.to_owned(), running };
        outcome(command, &answer).unwrap_err()
    };
    // An abort would be refused as well.
    let text = of(&start(), AbortCause::InDoubt, "it is running", "start-node-c-1-1");
    assert!(text.contains("start them; if one is gone for good: peer rollout remove"), "{text}");
    let text =
        of(&start(), AbortCause::Nothing, "v1 is served as stable, not v9", "start-node-c-1-1");
    assert!(text.contains("--from takes the version"), "{text}");
    let text =
        of(&start(), AbortCause::Malformed, "from one version to another", "start-node-c-1-1");
    assert!(text.contains("peer rollout start --help"), "{text}");
    let text = of(&Command::Pause, AbortCause::Gate, "the brake is on", "start-node-c-1-1");
    assert!(text.contains("peer rollout resume takes a brake off"), "{text}");
    let gone = Command::Gone { nodes: [node("node-c")].into() };
    let text = of(&gone, AbortCause::InDoubt, "it is running", "roster-node-c-1-1");
    assert!(text.contains("peer rollout resolve roster-node-c-1-1 --commit --i-know"), "{text}");
    let text = of(&gone, AbortCause::InDoubt, "it is running", "step-node-b-1-1");
    assert!(text.contains("start node-b again, or name it too"), "{text}");
}

#[test]
fn every_cause_has_a_remedy() {
    for cause in [
        AbortCause::Malformed,
        AbortCause::Busy,
        AbortCause::Version,
        AbortCause::Roster,
        AbortCause::Gate,
        AbortCause::Model,
        AbortCause::Recalling,
        AbortCause::Late,
        AbortCause::NoVote,
        AbortCause::Nothing,
        AbortCause::Resolved,
        AbortCause::Reached,
        AbortCause::InDoubt,
        AbortCause::NoWord,
    ] {
        assert!(!remedy(&Command::Pause, cause, "", None).is_empty(), "{cause:?}");
    }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn roster() -> Roster {
    let nodes = ["node-a", "node-b", "node-c", "node-d"].into_iter().zip(1_u16..);
    let participant = |(name, at): (&str, u16)| Participant {
        node_id: node(name),
        host: "127.0.0.1".to_owned(),
        port: 60_000 + at,
        key: keys(at).public(),
    };
    Roster::new(nodes.map(participant).collect()).unwrap()
}

fn keys(at: u16) -> KeyPair {
    KeyPair::from_secret([u8::try_from(at).unwrap(); 32])
}

fn plan() -> Plan {
    let Command::Start(order) = start() else { unreachable!() };
    let plan = order.into_plan(node("node-a"), 7);
    let gates = vec!["p95=200ms".parse().unwrap(), "error=1%".parse().unwrap()];
    Plan { steps: vec![500, 2_000, 10_000], gates, samples_min: 20, window_ms: 60_000, ..plan }
}

fn state(version: u64, share: u32) -> RoutingState {
    let (stable, canary) = ("v1".parse().unwrap(), "v2".parse().unwrap());
    let weights = Weights::split(&stable, &canary, share);
    let txid = Some(format!("step-node-a-1-{version}").parse().unwrap());
    let timestamp = WallTime(1_772_010_000_000 + version);
    RoutingState { version, weights, txid, timestamp, ..RoutingState::initial(stable, canary) }
}

fn committed(version: u64, share: u32, proof: TxProof) -> Committed {
    let state = state(version, share);
    let txid = state.txid.clone().unwrap();
    let base = Digest([1; 32]);
    let (new_roster, plan, note, gone) = (None, None, String::new(), None);
    let serves = Default::default();
    let roster = roster().digest();
    let proposal = TxProposal { txid, state, base, roster, new_roster, plan, note, gone, serves };
    Committed { proposal, proof }
}

fn health(name: &str, samples: u64, errors: u64, p95_us: u64) -> HealthSnapshot {
    let canary = ModelHealth { samples, errors, p95_us, ..ModelHealth::default() };
    let stable = ModelHealth { samples: 400, p95_us: 1_200, ..ModelHealth::default() };
    let models = [("v1".parse().unwrap(), stable), ("v2".parse().unwrap(), canary)].into();
    HealthSnapshot {
        node_id: node(name),
        window_id: "window-1".to_owned(),
        models,
        outside: Default::default(),
    }
}

fn heartbeat(name: &str, state: &RoutingState) -> Heartbeat {
    Heartbeat {
        node_id: node(name),
        last_committed_version: state.version,
        digest: state.digest(),
        roster: roster().digest(),
        in_doubt: None,
        serves: None,
        brake: None,
    }
}

fn peer(
    name: &str,
    heartbeat: Option<Heartbeat>,
    health: Option<HealthSnapshot>,
) -> RosterNodeStatus {
    let is_linked = heartbeat.is_some();
    let away = (!is_linked).then(|| Duration::from_millis(12_340));
    RosterNodeStatus { node_id: node(name), is_linked, away, heartbeat, health }
}

fn status() -> NodeStatus {
    let (now, old) = (state(3, 2_000), state(2, 500));
    let progress = RolloutProgress { id: txid(), plan: plan(), step: 1, phase: Phase::Running };
    NodeStatus {
        node_id: node("node-a"),
        digest: now.digest(),
        roster: roster(),
        progress: Some(progress),
        running: Some(CoordinatedTxStatus {
            txid: "step-node-a-1-4".parse().unwrap(),
            waits_for: vec![node("node-b"), node("node-d")],
        }),
        in_doubt: None,
        recalling: Default::default(),
        next_step: Some(Duration::from_millis(12_300)),
        brake: None,
        held: Some("too few requests\nto judge by".to_owned()),
        health: Some(health("node-a", 100, 2, 240_000)),
        removed: None,
        gone: Default::default(),
        gone_by_seeds: Default::default(),
        dead_stay: None,
        peers: vec![
            peer("node-b", Some(heartbeat("node-b", &now)), Some(health("node-b", 50, 0, 9_000))),
            peer("node-c", Some(heartbeat("node-c", &old)), Some(health("node-c", 7, 0, 350))),
            peer("node-d", None, None),
        ],
        state: now,
    }
}

/// Long after all that is told of here.
const LATER_MS: u64 = 1_772_010_090_000;

fn view(status: NodeStatus) -> View {
    let pending_members = [(node("node-e"), "127.0.0.1:60005".to_owned())].into();
    let standing = EngineStatus::Running {
        status: Box::new(status),
        pending_members,
        refusals: Default::default(),
        claims: Default::default(),
    };
    let url = Some("http://127.0.0.1:50051".to_owned());
    let (outside, serves) = Default::default();
    View { standing, http: None, url, wall_ms: LATER_MS, outside, serves }
}

/// The words of a line, by columns.
fn columns(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect()
}

#[test]
fn a_fleet_is_a_table_and_what_is_under_way() {
    let known = [committed(2, 500, TxProof::default())];
    let view = view(status());
    assert!(view.needs_history());
    let text = view.text(&known, false);
    let lines: Vec<_> = text.lines().collect();
    let same = status().digest.to_string()[..8].to_owned();
    let old = state(2, 500).digest().to_string()[..8].to_owned();
    assert_eq!(
        columns(lines[1]),
        [
            "node-a (asked)",
            "3",
            &same,
            "v1 80 % v2 20 %",
            "COMMITTED",
            "v1 1.20 ms, v2 240 ms",
            "v1 0 %, v2 2 %",
            "v1 400, v2 100"
        ]
    );
    assert_eq!(columns(lines[2])[..5], ["node-b", "3", &same, "v1 80 % v2 20 %", "COMMITTED"]);
    assert_eq!(columns(lines[3])[..5], ["node-c", "2", &old, "v1 95 % v2 5 %", "behind by 1"]);
    assert_eq!(columns(lines[4]), ["node-d", "-", "-", "-", "away for 12.3 s", "-", "-", "-"]);
    assert_eq!(
        lines[5..].join("\n"),
        "rollout start-node-a-1-1: v1 -> v2, running, step 2 of 3: v2 gets 20 %; next step in \
         12.3 s\n  \
         steps: 5 % [20 %] 100 %, every 1.0 s, taken by node-a; each request by itself\n  \
         gates: p95<=200ms and error<=1%, of at least 20 requests to v2 within 1 min 0 s\n  \
         now: node-a BAD, p95<=200ms does not hold; node-b good; node-c too few requests (7); \
         node-d says nothing yet\n  \
         held: too few requests\\nto judge by\n\
         transaction step-node-a-1-4 is under way: waits for the vote of node-b and node-d\n\
         node-e (127.0.0.1:60005) asks to be let in; let it: peer rollout admit node-e\n\
         data plane: http://127.0.0.1:50051"
    );
}

#[test]
fn who_is_in_doubt_says_so_and_what_to_do() {
    let doubt = InDoubtStatus {
        txid: "step-node-c-1-4".parse().unwrap(),
        waited: Duration::from_millis(3_200),
        waits_for: vec![node("node-c")],
    };
    let status = NodeStatus { in_doubt: Some(doubt), running: None, ..status() };
    let text = view(status).text(&[], false);
    assert!(text.contains("in doubt about step-node-c-1-4 for 3.2 s, waits for node-c"), "{text}");
    assert!(text.contains("peer rollout resolve step-node-c-1-4 --commit or --abort"), "{text}");
    assert!(text.contains("gone for good, here: peer rollout remove NAME --gone"), "{text}");
    assert!(text.contains("it serves version 3 until node-c can be asked"), "{text}");
}

#[test]
fn what_the_seeds_word_did_is_told_apart_from_an_operator_s() {
    let gone = roster().get(&node("node-b")).unwrap().clone();
    let by_seeds = NodeStatus {
        gone: [(node("node-b"), false), (node("node-d"), false)].into(),
        gone_by_seeds: vec![gone],
        dead_stay: Some(DeadParticipants {
            nodes: [node("node-c")].into(),
            cause: AbortCause::Roster,
            reason: "too few remain".to_owned(),
            running: None,
        }),
        ..status()
    };
    let text = view(by_seeds).text(&[], false);
    assert!(text.contains("node-b was called gone by the seeds' word; it is let in"), "{text}");
    assert!(text.contains("node-d was called gone; when it is back"), "{text}");
    assert!(text.contains("node-c: dead by the seeds' word, still taking part: too few"), "{text}");
    assert!(text.contains("peer rollout remove node-c --gone --i-know"), "{text}");
    // What it settled is not an operator's either.
    let txid: TxId = "step-node-a-1-3".parse().unwrap();
    let word = Resolution::new(&keys(2), &node("node-b"), &txid, Choice::Commit, WallTime(1));
    let settled = committed(3, 2_000, TxProof { votes: Vec::new(), resolution: Some(word) });
    let mut removal = committed(4, 2_000, TxProof::default());
    let settles = Some(Box::new(settled.clone()));
    removal.proposal.gone =
        Some(GoneNodes { nodes: [node("node-a")].into(), by: RemovalAuthority::Seeds, settles });
    let history = History { committed: vec![settled, removal], aborted: vec![] };
    let text = history.text(9);
    assert!(text.contains("!! COMMIT BY THE SEEDS' WORD at node-b"), "{text}");
    assert!(text.contains("!! node-a CALLED GONE BY THE SEEDS' WORD at node-a"), "{text}");
    assert!(!text.contains("OPERATOR"), "{text}");
}

#[test]
fn who_has_not_spoken_since_a_commit_is_not_called_behind() {
    let mut view = view(status());
    assert!(view.text(&[], false).contains("behind by 1"));
    view.wall_ms = status().state.timestamp.0 + 1_500;
    let text = view.text(&[], false);
    assert!(text.contains("not heard since version 3"), "{text}");
    assert!(!text.contains("behind"), "{text}");
}

#[test]
fn routes_copies_and_gates_of_others_are_shown() {
    let mut status = status();
    let plan = &mut status.progress.as_mut().unwrap().plan;
    plan.routes = vec!["header:X-Team=qa -> canary".parse().unwrap()];
    plan.mirror = Some(Mirror { share: 500, is_unsafe: false });
    plan.sticky = Some(Sticky::Cookie { name: "sid".to_owned(), own: true });
    let gate = "prom:up>0@http://p:9090";
    plan.gates = vec![gate.parse().unwrap()];
    status.health.as_mut().unwrap().outside.insert(gate.to_owned(), true);
    let mut view = view(status);
    view.outside.insert(gate.to_owned(), "its answer has no data".to_owned());
    let text = view.text(&[], false);
    for line in [
        "sticky by the cookie sid that the data plane sets\n",
        "  gates: prom:up>0@http://p:9090\n",
        "  routes: header:X-Team=qa -> canary\n",
        "  mirror: 5 % of the requests to v1 go to v2 too (GET, HEAD and OPTIONS)\n",
        "  now: node-a good; ",
        "no answer to prom:up>0@http://p:9090",
        "  prom:up>0@http://p:9090: node-a has no answer, its answer has no data\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_preview_says_how_it_goes_on() {
    let Command::Start(order) = start() else { unreachable!() };
    let order = Command::Start(StartOrder { steps: vec![0, 10_000], ..order });
    let answer = CommandResult::Committed { txid: txid(), version: 2 };
    let text = outcome(&order, &answer).unwrap();
    assert!(text.contains("v2 is a preview") && text.contains("promote"), "{text}");
}

#[test]
fn one_version_with_two_contents_is_shouted() {
    let mut status = status();
    let other = state(3, 2_001);
    status.peers[0] = peer("node-b", Some(heartbeat("node-b", &other)), None);
    let text = view(status).text(&[], false);
    assert!(text.contains("DIFFERENT CONTENT under the same version"), "{text}");
}

#[test]
fn who_has_not_begun_says_for_whom_it_waits() {
    let waits_for = vec!["node-b".to_owned(), "node-c".to_owned()];
    let standing = EngineStatus::Forming { node_id: node("node-a"), waits_for };
    let (outside, serves) = Default::default();
    let text = View { standing, http: None, url: None, wall_ms: LATER_MS, outside, serves }
        .text(&[], false);
    assert!(text.starts_with("node-a has not begun yet: it waits for node-b and node-c\n"));
}

#[test]
fn an_answer_of_a_node_is_read_as_it_was_written() {
    let view = view(status());
    let text = serde_json::to_string(&view.standing).unwrap();
    let again: EngineStatus = serde_json::from_str(&text).unwrap();
    assert_eq!(again, view.standing);
    // As it comes by the control socket, inside another value.
    let value = serde_json::json!({ "standing": view.standing, "http": null, "wall_ms": 1 });
    let again: View = serde_json::from_value(value).unwrap();
    assert_eq!(again.standing, view.standing);
}

fn aborted(version: Option<u64>, proof: TxProof) -> Aborted {
    let reason = "node-c did not vote in time".to_owned();
    Aborted {
        txid: "step-node-a-1-9".parse().unwrap(),
        version,
        cause: AbortCause::NoVote,
        reason,
        proof,
    }
}

#[test]
fn history_is_in_order_and_marks_an_operator_s_word() {
    let resolution = Resolution::new(
        &keys(3),
        &node("node-c"),
        &"step-node-a-1-4".parse().unwrap(),
        Choice::Commit,
        WallTime(1_772_010_060_000),
    );
    let resolved = TxProof { votes: Vec::new(), resolution: Some(resolution) };
    let history = History {
        committed: vec![
            committed(2, 500, TxProof::default()),
            committed(3, 2_000, TxProof::default()),
            committed(4, 10_000, resolved),
        ],
        aborted: vec![aborted(Some(3), TxProof::default())],
    };
    let text = history.text(9);
    assert_eq!(
        text,
        "2026-02-25T09:00:00.002Z  version 2  step-node-a-1-2\n    \
         step: v2 gets 5 %  (v1 100 % -> v1 95 % v2 5 %)\n\
         aborted                   step-node-a-1-9, would have been version 3\n    \
         node-c did not vote in time (no_vote)\n\
         2026-02-25T09:00:00.003Z  version 3  step-node-a-1-3\n    \
         step: v2 gets 20 %  (v1 95 % v2 5 % -> v1 80 % v2 20 %)\n\
         2026-02-25T09:00:00.004Z  version 4  step-node-a-1-4\n    \
         step: v2 gets 100 %  (v1 80 % v2 20 % -> v2 100 %)\n    \
         !! COMMIT BY AN OPERATOR at node-c, 2026-02-25T09:01:00.000Z, not by the votes of all\n"
    );
    let last = history.text(1);
    assert!(last.contains("(v1 80 % v2 20 % -> v2 100 %)"), "{last}");
    assert!(!last.contains("version 3  "), "{last}");
    assert!(History::default().text(5).starts_with("nothing was decided yet"));
}

fn explained(committed: Option<&Committed>, aborted: Option<&Aborted>) -> Explained {
    let story = serde_json::json!([{ "wall_ms": 1_772_010_000_000_u64,
        "message": "step-node-a-1-3: node-b voted COMMIT" }]);
    let value = serde_json::json!({ "txid": "step-node-a-1-3", "committed": committed,
        "aborted": aborted, "story": story });
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_commit_is_explained_from_content_to_proof() {
    let mut whole = committed(3, 2_000, TxProof::default());
    let digest = whole.proposal.digest();
    let names = ["node-a", "node-b"].into_iter().zip(1..);
    let vote = |(it, at): (&str, u16)| TxVote::commit(&keys(at), &node(it), &txid(), &digest);
    whole.proof = TxProof::of(names.map(vote).collect());
    let history =
        History { committed: vec![committed(2, 500, TxProof::default())], aborted: vec![] };
    let text = explained(Some(&whole), None).text(&history);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "step-node-a-1-3: COMMITTED as version 3");
    assert_eq!(lines[1], "  content   v1 95 % v2 5 % -> v1 80 % v2 20 %");
    assert!(lines[6].starts_with("  vote      node-a COMMIT, signature "), "{text}");
    assert!(lines[8].starts_with("  shown by  the COMMIT of everybody"), "{text}");
    assert!(text.ends_with("    2026-02-25T09:00:00.000Z  node-b voted COMMIT\n"), "{text}");
}

#[test]
fn an_abort_is_explained_and_what_is_not_known_is_not_made_up() {
    let vote = TxVote::abort(&keys(3), &node("node-c"), &txid());
    let text =
        explained(None, Some(&aborted(Some(3), TxProof::of(vec![vote])))).text(&History::default());
    assert!(text.starts_with("step-node-a-1-9: ABORTED, no node ever served it\n"), "{text}");
    assert!(text.contains("  because   node-c did not vote in time (no_vote)\n"), "{text}");
    assert!(text.contains("one signed ABORT, which is enough"), "{text}");
    let text = explained(None, None).text(&History::default());
    assert!(text.starts_with("step-node-a-1-3: NOT DECIDED here yet"), "{text}");
    let empty = serde_json::json!({ "txid": "step-node-a-1-3", "committed": null,
        "aborted": null, "story": [] });
    assert!(!serde_json::from_value::<Explained>(empty).unwrap().is_known());
}

#[test]
fn who_came_under_the_name_of_one_that_was_called_gone_is_shown_with_its_key() {
    let key = |number| crate::model::KeyPair::from_secret([number; 32]).public();
    let digits = |number| key(number).to_string()[..16].to_owned();
    let text = |came: &[(u8, bool)]| {
        let mut gone = status();
        gone.gone = [(node("node-z"), true)].into();
        let mut view = view(gone);
        let EngineStatus::Running { claims, .. } = &mut view.standing else { unreachable!() };
        let claim = |(at, (number, was_gone)): (usize, &(u8, bool))| {
            let (key, is_linked, was_gone) = (key(*number), at == 0, *was_gone);
            crate::runtime::rollout::UnknownKey { key, is_linked, was_gone }
        };
        claims.insert(node("node-z"), came.iter().enumerate().map(claim).collect());
        view.text(&[], false)
    };
    let shown = text(&[(1, true)]);
    let admit = format!("with the key it had; let it in: peer rollout admit node-z@{}", digits(1));
    assert!(shown.contains(&admit) && !shown.contains("another key"), "{shown}");
    let shown = text(&[(2, false), (3, false)]);
    assert!(shown.contains("ANOTHER KEY is here by that name"), "{shown}");
    assert!(shown.contains(&format!("rollout admit node-z@{}", digits(2))), "{shown}");
    let other =
        format!("was turned away; if that one is meant: peer rollout admit node-z@{}", digits(3));
    assert!(shown.contains(&other), "{shown}");
}

#[test]
fn an_admission_names_a_node_and_perhaps_a_key() {
    let read = |text: &str| text.parse::<crate::cli::rollout::args::Admittee>().ok();
    let is = |text, node: &str, key: &str| {
        read(text).is_some_and(|it| it.node.as_str() == node && it.key == key)
    };
    assert!(is("node-c", "node-c", "") && is("node-c@AB12", "node-c", "ab12"));
    for wrong in ["", "@ab", "node-c@", "node-c@xy", "node-c@ab@cd"] {
        assert!(read(wrong).is_none(), "{wrong}");
    }
}
