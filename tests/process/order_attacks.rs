//! Members of a Byzantine order that lie, and strangers at its ports: real processes against a
//! member that the test plays with its key.
//!
//! Patience is long where a leader lies, so that what it is replaced for is its lie. Nothing here
//! measures time.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a liar waits for one message, and for any other in vain"
)]

use crate::order::Group;
use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use folkmoot::model::{KeyPair, Nonce, Signature};
use folkmoot::proto::bft::handshake::{OrderJoin, OrderProof};
use folkmoot::proto::bft::line::{decode, encode};
use folkmoot::proto::bft::message::{
    Approve, BftRecallReq, BundleReq, ChainReq, Message, OrderStatus, PrePrepare, SlotContent,
    SlotReq, SlotResp,
};
use folkmoot::proto::bft::view::{NewView, SignedClaim, Suspect, ViewChange};
use folkmoot::proto::bft::{
    Approval, Bundle, BundleItem, Certificate, Claim, ClaimKind, ContentDigest, EpochNo,
    Equivocation, MembershipChange, OrderId, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
    roster,
};
use folkmoot::proto::chat::entry::{MemberId, Origin};
use folkmoot::runtime::files::{identity_of, os_rng};
use rustix::process::Signal;
use support::liar::{Liar, Tip, call, pause, sworn};
use support::peer_exe;
use support::process::{Process, eventually};

pub const SALT: &str = "ledger";

/// Flags of a member that gives its leader much time.
pub const PATIENT: [&str; 4] = ["--order", "ledger=roster.txt", "--patience", "16s"];

/// A group of so many members, of which the test plays some.
fn group_with(members: u32, liars: &[u32], flags: &[&str]) -> (Group, Vec<Liar>) {
    let mut group = Group::of(members);
    let text = fs::read_to_string(group.path("roster.txt")).unwrap();
    let (committee, _) = roster::parse(Path::new("roster.txt"), &text).unwrap();
    let play = |id: &u32| {
        let keys = keys_of(&group, *id);
        Liar::start(*id, keys, &committee, SALT)
    };
    let liars: Vec<_> = liars.iter().map(play).collect();
    let honest: Vec<_> =
        (1..=members).filter(|id| liars.iter().all(|it| it.me().0 != *id)).collect();
    for id in &honest {
        group.start_with(*id, flags);
    }
    group.wait("all are reached, and vote", |it| {
        honest.iter().all(|id| {
            let status = it.status(*id);
            status["reached"] == members && status["silent"].is_null()
        })
    });
    assert_eq!(
        group.group_id(),
        liars.first().map_or_else(|| group.group_id(), |it| it.group().to_string())
    );
    for liar in &liars {
        honest.iter().for_each(|id| drop(liar.reach(*id)));
    }
    (group, liars)
}

pub fn keys_of(group: &Group, id: u32) -> KeyPair {
    let port = group.port(id).parse().unwrap();
    identity_of(&group.path("data"), "peer", port).unwrap()
}

fn honest(group: &Group) -> Vec<u32> {
    group.running.keys().copied().collect()
}

/// Number of inputs that a member has dropped for a reason.
pub fn dropped(group: &Group, id: u32, why: &str) -> u64 {
    let out = group.told(&["status", "--port", &group.port(id), "--json"]);
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    status["order"]["dropped"][why].as_u64().unwrap_or_default()
}

/// Waits until all honest members have the same final messages, and checks their logs: there is one
/// order, and each place of it is proved. Returns the messages.
#[track_caller]
pub fn one_order(group: &Group) -> Vec<String> {
    let ids = honest(group);
    let state = |it: &Group, id: u32| {
        let status = it.status(id);
        (status["place"].clone(), status["digest"].clone())
    };
    group.wait("all have the same order", |it| {
        let first = state(it, ids[0]);
        first.0.as_u64().is_some() && ids.iter().all(|id| state(it, *id) == first)
    });
    let count = group.status(ids[0])["place"].as_u64().unwrap();
    let entries = group.entries(ids[0], count);
    for id in &ids[1..] {
        assert_eq!(group.entries(*id, count), entries, "peer_{id}");
    }
    let (code, out, err) = group.verify();
    assert_eq!(code, Some(0), "{out}{err}");
    entries
}

/// Waits until all honest members name these as liars, and nobody else.
#[track_caller]
pub fn all_name(group: &Group, liars: &[u32]) {
    group.wait("all have the evidence", |it| {
        honest(it).iter().all(|id| {
            let out = it.told(&["status", "--port", &it.port(*id), "--json"]);
            let status: serde_json::Value = serde_json::from_str(&out).unwrap();
            status["order"]["liars"] == serde_json::json!(liars)
        })
    });
    for id in honest(group) {
        let out = group.told(&["order", "evidence", "--port", &group.port(id)]);
        assert!(liars.iter().all(|it| out.contains(&format!("peer_{it} "))), "{out}");
    }
}

/// Has all honest members wish for the next view, and waits for it.
fn leave_view(group: &Group, view: u64) {
    for id in honest(group) {
        group.told(&["order", "suspect", "--port", &group.port(id)]);
    }
    group.wait("the view is left", |it| {
        honest(it).iter().all(|id| it.status(*id)["view"].as_u64() > Some(view))
    });
}

/// Begins to propose a text by a member; its place is printed once it is final.
pub fn begin_append(group: &Group, id: u32, text: &str) -> Process {
    let port = group.port(id);
    let args = ["order", "append", "--port", &port, "--wait", "50s", text];
    Process::start(&peer_exe(), &args, &group.path("."))
}

/// Resident memory of a member, in KiB.
fn memory_of(group: &Group, id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", group.running[&id].pid())).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn subject(view: u64, slot: u64, digest: ContentDigest) -> VoteSubject {
    VoteSubject { epoch: EpochNo(0), view: ViewNo(view), slot: SlotNo(slot), digest }
}

#[test]
fn leaders_that_say_nothing_or_stand_still_are_replaced() {
    // It takes part in every handshake, reads all, and never says a word.
    let (mut group, liars) = group_with(4, &[1], &["--order", "ledger=roster.txt"]);
    assert_eq!(group.append(2, "one"), 1);
    assert_ne!(group.status(2)["leader"], 1, "it was replaced");
    assert!(group.out(2).contains("wishes for view 1"), "{}", group.out(2));
    assert_eq!(one_order(&group), ["[1] peer_2: one"]);

    // The next one stands still, with its connections open.
    drop(liars);
    group.start(1);
    group.wait("member 1 takes part", |it| {
        it.status(1)["reached"] == 4 && it.status(1)["place"] == 1
    });
    let stopped = u32::try_from(group.status(2)["leader"].as_u64().unwrap()).unwrap();
    group.running[&stopped].signal(Signal::STOP);
    let other = honest(&group).into_iter().find(|id| *id != stopped).unwrap();
    assert_eq!(group.append(other, "two"), 2);
    group.running[&stopped].signal(Signal::CONT);
    assert_eq!(one_order(&group).len(), 2);
}

/// Has the first liar propose two contents behind `tip` to every honest member in its view, and
/// all liars vote for both.
pub fn both_to_both(group: &Group, liars: &[Liar], (view, tip): (ViewNo, &Tip)) {
    let id = liars[0].group();
    for (client, text) in [(11, "c"), (12, "d")] {
        let bundle = liars[0].bundle(client, 1, &[text]);
        let header = tip.header(&id, &[bundle]);
        let at = subject(view.0, header.slot.0, header.digest(&id));
        for to in honest(group) {
            liars[0].tell(to, &liars[0].proposal(view, &header));
            for liar in &liars[1..] {
                liar.tell(to, &Message::Prepare(liar.vote(VotePhase::Prepare, at)));
            }
        }
    }
}

#[test]
fn a_leader_that_signs_two_contents_is_named_by_all_and_replaced() {
    let (group, liars) = group_with(4, &[1], &PATIENT);
    let (liar, id) = (&liars[0], liars[0].group());
    let [a, b] = [(1, "a"), (2, "b")].map(|(client, text)| liar.bundle(client, 1, &[text]));
    let tip = Tip::first(&id);
    let headers = [&a, &b].map(|it| tip.header(&id, std::slice::from_ref(it)));
    for to in 2..=4 {
        liar.tell(to, &Message::Bundle(Arc::clone(&a)));
        liar.tell(to, &Message::Bundle(Arc::clone(&b)));
        liar.tell(to, &liar.proposal(ViewNo(0), &headers[usize::from(to > 2)]));
    }
    // Its own votes make a quorum of one half; it commits to both.
    for (to, header) in [(2, 0), (3, 1), (4, 1)] {
        let digest = headers[header].digest(&id);
        let vote = liar.vote(VotePhase::Commit, subject(0, 1, digest));
        let voted = |by: u32, msg: &Message| match msg {
            Message::Prepare(it) => (by == to && it.subject.digest == digest).then_some(()),
            _ => None,
        };
        liar.await_from(0, "a vote for what each was told", voted);
        liar.tell(to, &Message::Commit(vote));
    }
    group.wait("it is final, for the other half too", |it| {
        (2..=4).all(|id| it.status(id)["place"] == 1)
    });

    // Now both hear both, in the next slot.
    both_to_both(&group, &liars, (ViewNo(0), &tip.after(&id, &headers[1], &[b])));
    all_name(&group, &[1]);
    group.wait("it is replaced", |it| (2..=4).all(|id| it.status(id)["leader"] != 1));
    (2..=4).for_each(|id| assert!(group.append(id, &format!("by {id}")) > 0));
    let entries = one_order(&group);
    assert_eq!(entries[0], "[1] peer_1: b");
    let of = |text: &str| entries.iter().filter(|it| it.ends_with(text)).count();
    assert_eq!((of(": a"), of(": b"), of(": by 2"), of(": by 3"), of(": by 4")), (1, 1, 1, 1, 1));
}

/// Everything that one can forge without the keys of others; each cuts the connection.
pub fn forgeries(liar: &Liar) -> Vec<(&'static str, Message)> {
    let group = liar.group();
    let tip = Tip::first(&group);
    let it = subject(0, 2, ContentDigest([7; 32]));
    let named = MemberId(2);
    let in_name = (named, liar.keys());
    let bad = Signature::from_bytes([9; 64]);
    let claim = Claim {
        phase: ClaimKind::Start,
        view: ViewNo(0),
        slot: SlotNo(0),
        digest: ContentDigest(group.0),
    };
    let view = (EpochNo(0), ViewNo(1));
    let change = |signed| {
        let (epoch, view) = view;
        Message::ViewChange(Arc::new(ViewChange { epoch, view, signed, certificate: None }))
    };
    let vote = PhaseVote::sign(&group, VotePhase::Prepare, it, in_name);
    let items = vec![BundleItem { room: "text".into(), payload: "forged".into() }];
    let origin = Origin { member: named, client: 1 };
    let bundle = Arc::new(Bundle::sign(&group, origin, 1, items, liar.keys()));
    let header = tip.header(&group, &[]);
    let proposal = PrePrepare { sender_id: named, view: ViewNo(1), header, signature: bad };
    let first = SignedClaim::sign(&group, view, claim, in_name);
    let new_view = NewView::sign(&group, view, vec![first], None, in_name);
    let other = subject(0, 2, ContentDigest([8; 32]));
    let second = PhaseVote::sign(&group, VotePhase::Prepare, other, in_name);
    let lie = Equivocation::Votes { phase: VotePhase::Prepare, first: vote, second };
    let leave = MembershipChange::Remove { member: MemberId(3), approvals: Vec::new() };
    let digest = leave.digest(&group);
    let approval = Approval::sign(&group, EpochNo(0), &digest, in_name);
    let approve = Approve { epoch: EpochNo(0), change: leave, approval };
    let own =
        Approve { approval: Approval { member: liar.me(), signature: bad }, ..approve.clone() };
    let suspect = Suspect::sign(&group, view, "forged", in_name);
    let unsigned = Suspect { sender_id: liar.me(), signature: bad, ..suspect.clone() };
    // A certificate of one signer who signs for three.
    let at = subject(0, 2, ContentDigest([7; 32]));
    let signature = liar.vote(VotePhase::Prepare, at).signature;
    let signatures = (1..=3).map(|id| (MemberId(id), signature)).collect();
    let forged = Certificate { phase: VotePhase::Prepare, subject: at, signatures };
    let signed = SignedClaim::sign(&group, view, Claim::of(&forged), liar.signer());
    let claims = ViewChange { epoch: view.0, view: view.1, signed, certificate: Some(forged) };
    vec![
        ("it votes in another's name", Message::Prepare(vote)),
        ("it votes in another's name", Message::Commit(vote)),
        (
            "a vote with a bad signature",
            Message::Prepare(PhaseVote { sender_id: liar.me(), subject: it, signature: bad }),
        ),
        (
            "a vote with a bad signature",
            Message::Commit(PhaseVote { sender_id: liar.me(), subject: it, signature: bad }),
        ),
        ("a bundle with a bad signature", Message::Bundle(bundle)),
        ("it proposes in another's name", Message::PrePrepare(Arc::new(proposal))),
        ("it claims in another's name", change(first)),
        (
            "a claim with a bad signature",
            change(SignedClaim { sender_id: liar.me(), signature: bad, ..first }),
        ),
        ("a claim that its certificate does not prove", Message::ViewChange(Arc::new(claims))),
        ("it begins a view in another's name", Message::NewView(Arc::new(new_view))),
        ("it wishes in another's name", Message::Suspect(suspect)),
        ("a wish with a bad signature", Message::Suspect(unsigned)),
        ("it consents in another's name", Message::Approve(approve)),
        ("a consent with a bad signature", Message::Approve(own)),
        ("evidence that proves nothing", Message::Evidence(Arc::new(lie))),
    ]
}

#[test]
fn what_is_said_in_honest_names_is_refused_and_counted_and_its_connection_cut() {
    let (group, liars) = group_with(4, &[4], &PATIENT);
    let liar = &liars[0];
    assert_eq!(group.append(3, "one"), 1);
    let state = |id: u32| {
        let it = group.status(id);
        ["slot", "digest", "view", "epoch", "evidence"].map(|key| it[key].clone())
    };
    group.wait("all have it", |it| (1..=3).all(|id| it.status(id)["place"] == 1));
    let before: Vec<_> = (1..=3).map(state).collect();
    for (turn, (why, message)) in (0..).zip(forgeries(liar)) {
        let to = turn % 3 + 1;
        let known = dropped(&group, to, why);
        liar.tell_and_be_cut(to, &message);
        group.wait(why, |it| dropped(it, to, why) > known);
    }
    // A proposal in its own name, of one who does not lead, is only counted.
    let header = Tip::first(&liar.group()).header(&liar.group(), &[]);
    liar.tell(1, &liar.proposal(ViewNo(0), &header));
    group.wait("it is counted", |it| dropped(it, 1, "a proposal by no leader") > 0);
    assert_eq!((1..=3).map(state).collect::<Vec<_>>(), before);
    assert_eq!(group.append(1, "two"), 2);
    assert_eq!(one_order(&group), ["[1] peer_3: one", "[2] peer_1: two"]);
}

#[test]
fn lines_that_were_heard_and_are_said_again_do_nothing() {
    let (group, liars) = group_with(4, &[4], &PATIENT);
    let liar = &liars[0];
    for (turn, id) in (1..).zip([1, 2, 3]) {
        assert_eq!(group.append(id, &format!("text {turn}")), turn);
    }
    let state = |id: u32| {
        let it = group.status(id);
        ["slot", "digest", "view", "epoch", "evidence"].map(|key| it[key].clone())
    };
    group.wait("all have them", |it| (1..=3).all(|id| it.status(id)["place"] == 3));
    let before: Vec<_> = (1..=3).map(state).collect();
    let heard: Vec<_> = liar.heard().into_iter().map(|(_, message)| message).collect();
    let is_own = |it: &&Message| {
        matches!(
            it,
            Message::Prepare(_) | Message::Commit(_) | Message::PrePrepare(_) | Message::Suspect(_)
        )
    };
    // The votes of others cut the connection; the rest is only heard again.
    let (votes, rest): (Vec<_>, Vec<_>) = heard.iter().partition(is_own);
    assert!(votes.len() > 6 && rest.iter().any(|it| matches!(it, Message::Bundle(_))));
    for (turn, vote) in (0..).zip(votes.iter().take(9)) {
        liar.tell_and_be_cut(turn % 3 + 1, vote);
    }
    let mut lines: Vec<_> = rest.iter().map(|it| encode(it)).collect();
    lines.dedup();
    lines.truncate(50);
    let mark = liar.mark();
    let mut said = 0;
    for _ in 0..4_000 / lines.len().max(1) {
        for to in 1..=3 {
            liar.tell_bytes(to, &lines.concat());
            said += lines.len();
        }
    }
    // Each member has taken all of it once it has answered what was asked behind it.
    for to in 1..=3 {
        let digest = liar.await_from(mark, "a status", |by, it| match it {
            Message::OrderStatus(it) => (by == to).then_some(it.digest),
            _ => None,
        });
        let again = liar.mark();
        pause(1_000);
        liar.tell(to, &Message::ChainReq(ChainReq { digest, above: SlotNo(0) }));
        liar.await_from(again, "an answer", |by, it| match it {
            Message::ChainResp(_) => (by == to).then_some(()),
            _ => None,
        });
    }
    let answers = liar.mark() - mark;
    assert!(answers * 4 < said, "{answers} lines came back for {said}");
    assert_eq!((1..=3).map(state).collect::<Vec<_>>(), before);
    assert_eq!(group.append(2, "text 4"), 4);
    assert_eq!(one_order(&group).len(), 4);
}

#[test]
fn a_leader_that_is_slow_is_borne_and_one_that_leaves_an_author_out_is_replaced() {
    let (group, liars) = group_with(4, &[1], &PATIENT);
    let (liar, id) = (&liars[0], liars[0].group());
    let mut tip = Tip::first(&id);
    let mut lead = |bundles: &[Arc<Bundle>]| {
        let mark = liar.mark();
        let header = tip.header(&id, bundles);
        for to in 2..=4 {
            bundles.iter().for_each(|it| liar.tell(to, &Message::Bundle(Arc::clone(it))));
            liar.tell(to, &liar.proposal(ViewNo(0), &header));
        }
        tip = tip.after(&id, &header, bundles);
        let mut is_over = false;
        for by in 2..=4 {
            is_over |= liar.await_from(mark, "a vote, or a wish", |who, it| match it {
                Message::Commit(it) => (who == by && it.subject.slot == tip.slot).then_some(false),
                Message::Suspect(_) | Message::ViewChange(_) => Some(true),
                _ => None,
            });
        }
        is_over
    };
    let bundle_of = |author: u32| {
        liar.await_from(0, "a bundle", |_, it| match it {
            Message::Bundle(it) => (it.author.0 == author).then(|| Arc::clone(it)),
            _ => None,
        })
    };

    // It takes its time with each slot.
    let slow = begin_append(&group, 2, "slow");
    let bundle = bundle_of(2);
    pause(700);
    assert!(!lead(&[bundle]));
    slow.wait_for("1\n");
    assert_eq!(group.status(2)["view"], 0, "it was borne");

    // It leaves out member 3, while others have much to say: itself.
    let censored = begin_append(&group, 3, "censored");
    bundle_of(3);
    let mark = liar.mark();
    let mut slots = 0;
    while !lead(&[liar.bundle(1, slots + 1, &["mine"])]) {
        slots += 1;
        assert!(slots < 200, "it leaves an author out for ever");
    }
    let showed = |by: u32, it: &Message| match it {
        Message::Bundle(it) => (by != 3 && it.author.0 == 3).then_some(()),
        _ => None,
    };
    liar.await_from(mark, "the bundle that it passed over, from others", showed);
    assert!(eventually(|| !censored.out().is_empty()), "{}", censored.err());
    let said = (2..=4).any(|id| group.out(id).contains("its leader passes over peer_3"));
    assert!(said, "{}", group.out(2));
    assert_ne!(group.status(3)["leader"], 1);
    let entries = one_order(&group);
    assert_eq!(entries.iter().filter(|it| it.ends_with("peer_3: censored")).count(), 1);
}

/// Requests and statements that cost an answer, a signature check or memory.
fn flood(liar: &Liar, turn: u64, placed: ContentDigest) -> Vec<u8> {
    let group = liar.group();
    let far = (EpochNo(0), ViewNo(100 + turn));
    let status = OrderStatus {
        epoch: EpochNo(turn),
        view: ViewNo(turn),
        active: turn.is_multiple_of(2),
        slot: SlotNo(u64::MAX),
        digest: placed,
        silent: false,
    };
    let nonce = Nonce::random(&mut os_rng().unwrap());
    let text = "x".repeat(8_000);
    let vote = liar.vote(VotePhase::Prepare, subject(turn, 5, placed));
    let near = liar.vote(VotePhase::Commit, subject(0, 3, ContentDigest([turn as u8; 32])));
    let claim = Claim {
        phase: ClaimKind::Start,
        view: ViewNo(0),
        slot: SlotNo(0),
        digest: ContentDigest(group.0),
    };
    let signed = SignedClaim::sign(&group, (far.0, ViewNo(2)), claim, liar.signer());
    let change = ViewChange { epoch: far.0, view: ViewNo(2), signed, certificate: None };
    let messages = [
        Message::OrderStatus(status),
        Message::SlotReq(SlotReq { from: SlotNo(1) }),
        Message::BundleReq(BundleReq { digests: vec![placed; 256] }),
        Message::RecallReq(BftRecallReq { nonce }),
        Message::ChainReq(ChainReq { digest: placed, above: SlotNo(0) }),
        Message::Suspect(Suspect::sign(&group, far, &"\u{1b}[2J\n".repeat(99), liar.signer())),
        Message::Prepare(vote),
        Message::Commit(near),
        Message::ViewChange(Arc::new(change)),
        Message::Bundle(liar.bundle(turn + 1, 7, &[&text, &text])),
    ];
    let mut lines: Vec<u8> = messages.iter().flat_map(encode).collect();
    if turn.is_multiple_of(64) {
        lines.extend(format!("{{\"type\":\"{}\"}}\n", "y".repeat(250_000)).into_bytes());
    }
    lines
}

#[test]
fn a_member_that_floods_holds_up_nobody_and_fills_no_memory() {
    let (group, liars) = group_with(4, &[4], &["--order", "ledger=roster.txt"]);
    let liar = &liars[0];
    // Something large, which is then asked for again and again.
    assert_eq!(group.append(2, &"large ".repeat(2_000)), 1);
    let placed = liar.await_from(0, "the bundle", |_, it| match it {
        Message::Bundle(it) => Some(it.statement().digest(&liar.group())),
        _ => None,
    });
    group.wait("all have it", |it| (1..=3).all(|id| it.status(id)["place"] == 1));
    let before: Vec<_> = (1..=3).map(|id| memory_of(&group, id)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let mut turn = 0;
            while !is_over.load(Ordering::Relaxed) {
                let lines = flood(liar, turn, placed);
                (1..=2).for_each(|to| _ = liar.tell_bytes(to, &lines));
                turn += 1;
            }
            turn
        });
        for turn in 0..4 {
            for id in 1..=3 {
                assert!(group.append(id, &format!("{turn} of {id}")) > 0);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let turns = flooding.join().unwrap();
        assert!(turns > 10, "it has flooded {turns} times only");
    });
    for (id, before) in (1..=3).zip(before) {
        let now = memory_of(&group, id);
        assert!(now < before + 150_000, "member {id} had {before} KiB, and has {now}");
    }
    let beyond = "a request beyond the sender's share";
    assert!((1..=2).all(|id| dropped(&group, id, beyond) > 0), "its link is not slowed");
    let entries = one_order(&group);
    let of_honest = entries.iter().filter(|it| it.contains(" of ")).count();
    assert_eq!(of_honest, 12, "{entries:?}");
    // What it says can neither cut a line nor a screen in two, nor fill one.
    for id in 1..=2 {
        let out = group.out(id);
        assert!(!out.contains('\u{1b}'));
        let wishes = out.lines().filter(|it| it.contains("peer_4 wishes")).count();
        assert!(wishes < 5_000, "{wishes} lines are about its wishes");
    }
}

/// Has the honest members wish until `leader` leads; returns the view.
pub fn bring_to_lead(group: &Group, liar: &Liar, leader: u32) -> ViewNo {
    loop {
        let views: BTreeSet<_> =
            honest(group).iter().filter_map(|id| group.status(*id)["view"].as_u64()).collect();
        let leads = |view: &u64| liar.committee().leader(EpochNo(0), ViewNo(*view)).0 == leader;
        match views.first() {
            Some(view) if views.len() == 1 && leads(view) => return ViewNo(*view),
            Some(view) if views.len() == 1 => leave_view(group, *view),
            _ => pause(50),
        }
    }
}

/// The claims of members 1, 2 and 4 for a view, and the certificate of the highest.
pub fn claims_for(liar: &Liar, view: ViewNo) -> ([SignedClaim; 3], Option<Certificate>) {
    let claims = [1, 2, 4].map(|of: u32| {
        liar.await_from(0, "a claim", |by, it| match it {
            Message::ViewChange(it) => (by == of && it.view == view).then(|| Arc::clone(it)),
            _ => None,
        })
    });
    let best = claims.iter().max_by_key(|it| (it.signed.claim.view, it.signed.claim.slot));
    (claims.each_ref().map(|it| it.signed), best.and_then(|it| it.certificate.clone()))
}

/// A claim of the liar that hides everything.
fn lowest_claim(liar: &Liar, view: ViewNo) -> SignedClaim {
    let digest = ContentDigest(liar.group().0);
    let claim = Claim { phase: ClaimKind::Start, view: ViewNo(0), slot: SlotNo(0), digest };
    SignedClaim::sign(&liar.group(), (EpochNo(0), view), claim, liar.signer())
}

/// The beginning of a view from these claims.
pub fn begin(
    liar: &Liar,
    view: ViewNo,
    changes: &[SignedClaim],
    certificate: Option<Certificate>,
) -> Message {
    let at = (EpochNo(0), view);
    let changes = changes.to_vec();
    let it = NewView::sign(&liar.group(), at, changes, certificate, liar.signer());
    Message::NewView(Arc::new(it))
}

/// Brings the liar to lead, which begins its view in all ways that are none.
fn begin_wrongly(group: &Group, liar: &Liar) {
    let view = bring_to_lead(group, liar, 3);
    let (signed, certificate) = claims_for(liar, view);
    let own = lowest_claim(liar, view);
    let forged = SignedClaim { sender_id: MemberId(4), ..own };
    let wrong = [
        // Without a quorum; with one member as a quorum; with a claim in another's name.
        (1, begin(liar, view, &[signed[0], own], certificate.clone())),
        (2, begin(liar, view, &[own, own, own], None)),
        (4, begin(liar, view, &[signed[0], own, forged], certificate)),
        // From below what is final, although a claim says more.
        (1, begin(liar, view, &[signed[0], signed[1], own], None)),
    ];
    // At once: it is replaced as soon as its connections break.
    for (to, message) in &wrong {
        liar.tell(*to, message);
    }
    let refused = "the beginning of a view without its quorum's claims";
    group.wait("they are counted", |it| [1, 2, 4].iter().all(|id| dropped(it, *id, refused) > 0));
    for id in [1, 2, 4] {
        let began = format!("view {} of epoch 0 has begun", view.0);
        assert!(!group.out(id).contains(&began), "{}", group.out(id));
    }
    group.wait("it is replaced", |it| [1, 2, 4].iter().all(|id| it.status(*id)["leader"] != 3));
}

#[test]
fn views_and_slots_that_are_made_up_are_refused_and_got_from_others() {
    let (mut group, liars) = group_with(4, &[3], &PATIENT);
    let (liar, id) = (&liars[0], liars[0].group());
    assert_eq!((group.append(1, "one"), group.append(2, "two")), (1, 2));
    group.wait("all have them", |it| [1, 2, 4].iter().all(|id| it.status(*id)["place"] == 2));
    // The liar leads a view, and has the claims of all.
    let view = bring_to_lead(&group, liar, 3);
    let (signed, certificate) = claims_for(liar, view);
    let own = lowest_claim(liar, view);
    // The lowest legal quorum hides nothing: one of two honest claims is there.
    let legal = begin(liar, view, &[signed[0], signed[1], own], certificate);
    [1, 2, 4].iter().for_each(|to| liar.tell(*to, &legal));
    group.wait("the view has begun", |it| {
        [1, 2, 4].iter().all(|id| it.status(*id)["active"] == true)
    });
    // It proposes what nobody has ever seen.
    let unknown = liar.bundle(9, 1, &["never told"]);
    let header = Tip::of(&group.status(1)).header(&id, &[unknown]);
    [1, 2, 4].iter().for_each(|to| liar.tell(*to, &liar.proposal(view, &header)));
    // A second beginning of one view: far too long, nobody could pass it on; short, it is evidence.
    let padded: Vec<_> = std::iter::repeat_n(own, 700).collect();
    liar.tell_and_be_cut(4, &begin(liar, view, &padded, None));
    liar.tell(1, &begin(liar, view, &[own], None));
    all_name(&group, &[3]);
    group.wait("it is replaced", |it| [1, 2, 4].iter().all(|id| it.status(*id)["leader"] != 3));
    assert_eq!(group.append(1, "three"), 3);

    // It leads again, and begins its view as it must not.
    begin_wrongly(&group, liar);
    group.wait("all have the same", |it| [1, 2, 4].iter().all(|id| it.status(*id)["place"] == 3));

    // A member comes back, and asks the liar for what it lacks.
    bring_to_lead(&group, liar, 1);
    answer_with_forged_slots(&mut group, liar);
    let entries = one_order(&group);
    let texts = ["[1] peer_1: one", "[2] peer_2: two", "[3] peer_1: three", "[4] peer_2: four"];
    assert_eq!(entries[..4], texts);
}

/// Has member 4 miss a slot, and answers with made-up ones when it asks for it.
fn answer_with_forged_slots(group: &mut Group, liar: &Liar) {
    let id = liar.group();
    group.kill(4);
    let place = begin_append(group, 2, "four");
    let proposal = liar.await_from(liar.mark(), "a proposal", |_, it| match it {
        Message::PrePrepare(it) => (it.header.slot.0 > 3).then(|| Arc::clone(it)),
        _ => None,
    });
    let subject = proposal.vote(proposal.header.digest(&id)).subject;
    for to in [1, 2] {
        // Its votes are needed now: two honest ones are no quorum.
        liar.tell(to, &Message::Prepare(liar.vote(VotePhase::Prepare, subject)));
        liar.tell(to, &Message::Commit(liar.vote(VotePhase::Commit, subject)));
    }
    place.wait_for("4\n");
    let mark = liar.mark();
    group.start_with(4, &PATIENT);
    liar.await_from(mark, "a request of member 4", |by, _| (by == 4).then_some(()));
    let (slot, digest) = (SlotNo(1_000), ContentDigest([1; 32]));
    let (epoch, view) = (EpochNo(0), ViewNo(3));
    let far = OrderStatus { epoch, view, active: true, slot, digest, silent: false };
    liar.tell(4, &Message::OrderStatus(far));
    let from = liar.await_from(mark, "a request for slots", |by, it| match it {
        Message::SlotReq(it) => (by == 4).then_some(it.from),
        _ => None,
    });
    let bundle = liar.bundle(20, 1, &["forged"]);
    let mut header = Tip::first(&id).header(&id, std::slice::from_ref(&bundle));
    header.slot = from;
    let at = VoteSubject { slot: from, digest: header.digest(&id), ..subject };
    let signature = liar.vote(VotePhase::Commit, at).signature;
    let signatures = (1..=3).map(|id| (MemberId(id), signature)).collect();
    let certificate = Certificate { phase: VotePhase::Commit, subject: at, signatures };
    let slots = vec![Arc::new(SlotContent { header, bundles: vec![bundle], change: None })];
    let answer = Message::SlotResp(SlotResp { slots, headers: Vec::new(), certificate });
    liar.tell(4, &answer);
    liar.tell(4, &answer);
    group.wait("both are refused", |it| {
        dropped(it, 4, "slots that their certificate does not prove") > 0
            && dropped(it, 4, "slots that were not asked for") > 0
    });
}

#[test]
fn two_of_seven_that_lie_together_divide_nobody() {
    let (group, liars) = group_with(7, &[1, 2], &PATIENT);
    let id = liars[0].group();
    let [a, b] = [(1, "a"), (2, "b")].map(|(client, text)| liars[0].bundle(client, 1, &[text]));
    let tip = Tip::first(&id);
    let headers = [&a, &b].map(|it| tip.header(&id, std::slice::from_ref(it)));
    let half = |to: u32| usize::from(to > 5);
    // Three members hear one content and two the other; both liars vote for all of it.
    for to in 3..=7 {
        liars[0].tell(to, &Message::Bundle(Arc::clone(&a)));
        liars[0].tell(to, &Message::Bundle(Arc::clone(&b)));
        liars[0].tell(to, &liars[0].proposal(ViewNo(0), &headers[half(to)]));
        let at = subject(0, 1, headers[half(to)].digest(&id));
        liars[1].tell(to, &Message::Prepare(liars[1].vote(VotePhase::Prepare, at)));
        for liar in &liars {
            liar.tell(to, &Message::Commit(liar.vote(VotePhase::Commit, at)));
        }
    }
    group.wait("it is final, for the other half too", |it| {
        (3..=7).all(|id| it.status(id)["place"] == 1)
    });
    // Both contents to both: each of the two is named.
    both_to_both(&group, &liars, (ViewNo(0), &tip.after(&id, &headers[0], &[a])));
    all_name(&group, &[1, 2]);
    group.wait("the second one leads", |it| {
        (3..=7).all(|id| it.status(id)["view"].as_u64() >= Some(1))
    });
    // Which begins its view from what two liars claim, forges, and says two things of one number.
    let start = Claim {
        phase: ClaimKind::Start,
        view: ViewNo(0),
        slot: SlotNo(0),
        digest: ContentDigest(id.0),
    };
    let view = (EpochNo(0), ViewNo(1));
    let claims: Vec<_> =
        liars.iter().map(|it| SignedClaim::sign(&id, view, start, it.signer())).collect();
    let begins = NewView::sign(&id, view, claims, None, liars[1].signer());
    for to in 3..=7 {
        liars[1].tell(to, &Message::NewView(Arc::new(begins.clone())));
    }
    let refused = "the beginning of a view without its quorum's claims";
    group.wait("it is refused", |it| (3..=7).any(|id| dropped(it, id, refused) > 0));
    for to in 3..=7 {
        let text = if half(to) == 0 { "x" } else { "y" };
        liars[1].tell(to, &Message::Bundle(liars[1].bundle(5, 1, &[text])));
    }
    let at = subject(1, 2, headers[0].digest(&id));
    let forged = PhaseVote { sender_id: MemberId(1), ..liars[1].vote(VotePhase::Commit, at) };
    liars[1].tell_and_be_cut(3, &Message::Commit(forged));
    if group.status(3)["view"] == 1 {
        leave_view(&group, 1);
    }
    (3..=7).for_each(|id| assert!(group.append(id, &format!("by {id}")) > 0));
    let entries = one_order(&group);
    assert_eq!(entries[0], "[1] peer_1: a");
    let of = |text: &str| entries.iter().filter(|it| it.ends_with(text)).count();
    assert!((3..=7).all(|id| of(&format!(": by {id}")) == 1), "{entries:?}");
    assert_eq!(of(": x") + of(": y"), 1, "{entries:?}");
}

#[test]
fn an_author_that_says_two_things_or_tells_some_only_has_one_place_each_everywhere() {
    let (group, liars) = group_with(4, &[4], &["--order", "ledger=roster.txt"]);
    let liar = &liars[0];
    let tell = |to: &[u32], bundle: Arc<Bundle>| {
        to.iter().for_each(|to| liar.tell(*to, &Message::Bundle(Arc::clone(&bundle))));
    };
    // One number, two contents; a content for one member only, which does not lead; a gap.
    tell(&[1, 2], liar.bundle(1, 1, &["x"]));
    tell(&[3], liar.bundle(1, 1, &["y"]));
    tell(&[2], liar.bundle(2, 1, &["told to one"]));
    tell(&[1, 2, 3], liar.bundle(3, 5, &["behind a gap"]));
    tell(&[1, 2, 3], liar.bundle(4, 1, &["\u{1b}[2J\n[99] peer_1: forged"]));
    (1..=3).for_each(|id| assert!(group.append(id, &format!("by {id}")) > 0));
    let placed = |it: &Group| it.status(1)["place"].as_u64();
    group.wait("all that can have a place has one", |it| placed(it) == Some(6));
    let entries = one_order(&group);
    let of =
        |entries: &[String], text: &str| entries.iter().filter(|it| it.ends_with(text)).count();
    assert_eq!(of(&entries, ": x") + of(&entries, ": y"), 1, "{entries:?}");
    assert_eq!(of(&entries, ": told to one"), 1, "{entries:?}");
    assert_eq!(of(&entries, ": behind a gap"), 0, "{entries:?}");
    assert!(entries.iter().all(|it| !it.contains('\u{1b}') && !it.starts_with("[99]")));
    // What belongs before it closes the gap.
    tell(&[1, 2, 3], liar.bundle(3, 1, &["1", "2", "3", "4"]));
    group.wait("the gap is closed", |it| placed(it) == Some(11));
    assert_eq!(one_order(&group)[10], "[11] peer_4: behind a gap");
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_log_from_a_backup_is_found_out_and_a_second_process_of_one_key_is_refused() {
    let mut group = Group::of_four();
    assert_eq!(group.append(1, "one"), 1);
    group.wait("it has it", |it| it.status(3)["place"] == 1);
    group.kill(3);
    let (log, backup) = (group.path("data/logs/order_3"), group.path("backup"));
    copy(&log, &backup);
    group.start(3);
    group.wait("it is back", |it| it.status(3)["reached"] == 4);
    leave_view(&group, 0);
    group.wait("it votes", |it| it.status(3)["silent"].is_null());
    // Its votes are needed, so that it has signed what the backup does not know.
    group.kill(4);
    assert_eq!((group.append(1, "two"), group.append(3, "three")), (2, 3));
    group.kill(3);
    group.start(4);
    group.wait("member 4 is back", |it| it.status(4)["place"] == 3);
    fs::remove_dir_all(&log).unwrap();
    copy(&backup, &log);
    group.start(3);
    group.wait("it is found out", |it| {
        it.out(3).contains("is silent until the group has renewed this member")
    });
    group
        .wait("it is renewed", |it| it.status(3)["epoch"] == 1 && it.status(3)["silent"].is_null());
    assert_eq!(group.append(3, "four"), 4);
    all_name(&group, &[]);
    one_order(&group);

    // The same key in a second process.
    let (port, other) = (group.port(3), group.port(20));
    let twin = group.path("twin");
    copy(&group.path(&format!("data/peer-{port}")), &twin.join(format!("data/peer-{other}")));
    copy(&log, &twin.join("data/logs/order_3"));
    let roster = group.path("roster.txt");
    let args = ["--port", &other, "--gossip-max", "0", "--config", "none.txt", "--order"];
    let order = format!("ledger={}", roster.display());
    let args = [&args[..], &[&order]].concat();
    let mut twin = Process::start(&peer_exe(), &args, &twin);
    assert_eq!(twin.wait_for_end(), Some(1), "{}", twin.out());
    let said = twin.out() + &twin.err();
    assert!(said.contains("another process uses the key of this member"), "{said}");
    assert_eq!(group.append(3, "five"), 5);
    all_name(&group, &[]);
    assert_eq!(one_order(&group).len(), 5);
}

/// Address of a member.
fn address(group: &Group, id: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], group.port(id).parse().unwrap()))
}

/// Connects and says these words of a handshake.
fn says(to: SocketAddr, words: &[Message]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    for word in words {
        let _ = stream.write_all(&encode(word));
    }
    stream
}

/// The next line of a connection.
fn answer_of(mut stream: &TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn join(group: OrderId, sender: u32, keys: &KeyPair) -> OrderJoin {
    let (key, nonce) = (keys.public(), Nonce::random(&mut os_rng().unwrap()));
    OrderJoin { sender_id: MemberId(sender), group, key, nonce, process: 1 }
}

/// Tries to get in by another group, by another's id, and by proofs that others have made.
fn offer_proofs_of_others(group: &Group, id: OrderId, stranger: &KeyPair) {
    let at = |id| address(group, id);
    let (ones, twos) = (keys_of(group, 1), keys_of(group, 2));
    let other = OrderId([1; 32]);
    assert!(call(at(1), (MemberId(9), stranger), other).is_err());
    assert!(call(at(1), (MemberId(2), stranger), id).is_err());
    let claimed = OrderJoin { key: twos.public(), ..join(id, 2, stranger) };
    let victim = says(at(1), &[Message::OrderJoin(claimed.clone())]);
    let Ok(Message::OrderChallenge(first)) = decode(answer_of(&victim).as_bytes()) else {
        panic!("no challenge")
    };
    // Member 2 signs that very challenge, as one that is called: it is worth nothing here.
    let asked = OrderJoin { key: ones.public(), nonce: first.nonce, ..join(id, 1, stranger) };
    let oracle = says(at(2), &[Message::OrderJoin(asked)]);
    let Ok(Message::OrderChallenge(second)) = decode(answer_of(&oracle).as_bytes()) else {
        panic!("no challenge")
    };
    let proof = Message::OrderProof(OrderProof { proof: second.proof });
    (&victim).write_all(&encode(&proof)).unwrap();
    assert!(answer_of(&victim).contains("the proof is not the key's"));
    // A true proof of member 2's key, for another challenge.
    let called = (MemberId(1), &ones.public(), &first.nonce);
    let proof = twos.sign(&sworn("folkmoot/bft/proof/1", &claimed, called));
    let again = says(at(1), &[Message::OrderJoin(claimed)]);
    answer_of(&again);
    (&again).write_all(&encode(&Message::OrderProof(OrderProof { proof }))).unwrap();
    assert!(answer_of(&again).contains("the proof is not the key's"));
}

#[test]
fn strangers_get_in_nowhere_and_keep_no_member_out() {
    let mut group = Group::of_four();
    assert_eq!(group.append(1, "one"), 1);
    let id = OrderId::parse(&group.group_id()).unwrap();
    let at = |id| address(&group, id);
    let stranger = KeyPair::generate(&mut os_rng().unwrap());
    offer_proofs_of_others(&group, id, &stranger);

    // Words of any length, and none at all.
    let mut long = TcpStream::connect(at(1)).unwrap();
    let huge = format!("{{\"type\":\"ORDER_JOIN\",\"group\":\"{}\"}}\n", "0".repeat(1 << 20));
    let _ = long.write_all(huge.as_bytes());
    let half: Vec<_> = (0..150)
        .map(|turn| {
            let word = Message::OrderJoin(join(id, 9, &stranger));
            let words = if turn % 2 == 0 { vec![word] } else { Vec::new() };
            says(at(1), &words)
        })
        .collect();

    // Those who only follow may; they are few, and what they ask for without reading is bounded.
    let before = memory_of(&group, 1);
    let mut observers = Vec::new();
    let keys: Vec<_> = (0..20).map(|_| KeyPair::generate(&mut os_rng().unwrap())).collect();
    for (turn, keys) in (100..).zip(&keys) {
        if let Ok((stream, _)) = call(at(1), (MemberId(turn), keys), id) {
            observers.push(stream);
        }
    }
    assert!((1..=16).contains(&observers.len()), "{} follow", observers.len());
    let asks = encode(&Message::SlotReq(SlotReq { from: SlotNo(1) })).repeat(200);
    let vote = PhaseVote::sign(
        &id,
        VotePhase::Prepare,
        subject(0, 2, ContentDigest([1; 32])),
        (MemberId(2), &stranger),
    );
    for mut stream in &observers {
        stream.set_nonblocking(true).unwrap();
        for _ in 0..50 {
            let _ = stream.write(&asks);
        }
        let _ = stream.write(b"\n");
        let _ = stream.write(&encode(&Message::Prepare(vote)));
    }

    // A member still gets in, and all go on.
    group.kill(2);
    group.start(2);
    group.wait("member 2 is back", |it| it.status(2)["reached"] == 4);
    assert_eq!((group.append(2, "two"), group.append(1, "three")), (2, 3));
    let now = memory_of(&group, 1);
    assert!(now < before + 150_000, "it had {before} KiB, and has {now}");
    drop((half, observers));
    all_name(&group, &[]);
    assert_eq!(one_order(&group).len(), 3);
    let ids: BTreeSet<_> = honest(&group).into_iter().collect();
    assert_eq!(ids.len(), 4);
}
