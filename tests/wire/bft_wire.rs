//! The lines of a group with Byzantine order to the byte: what is written, read and refused.
//!
//! `golden/bft.jsonl` holds a line or more for every message, with signatures that hold. It changes
//! only on purpose: `BLESS=1 cargo test --test wire bft_wire::` writes it anew, and the difference
//! is for review.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Once};

use folkmoot::model::{Nonce, Rng, SigningBytes};
use folkmoot::proto::bft::bundle::{BUNDLE_COST_MAX, BUNDLE_ITEMS_MAX};
use folkmoot::proto::bft::handshake::{
    OrderAck, OrderChallenge, OrderJoin, OrderProof, OrderRefusal, OrderRefused,
};
use folkmoot::proto::bft::line::{LINE_BYTES_MAX, OrderReader, decode, encode};
use folkmoot::proto::bft::message::*;
use folkmoot::proto::bft::view::{NewView, SignedClaim, Suspect, ViewChange};
use folkmoot::proto::bft::{
    Bundle, BundleItem, Certificate, Claim, ClaimKind, ContentDigest, EpochNo, Equivocation, Life,
    MembershipChange, PhaseVote, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::{MemberId, Origin};
use folkmoot::proto::line::LineError;
use proptest::prelude::*;
use rand::SeedableRng as _;
use serde_json::{Value, json};

use crate::bft_log::{Log, keys};

const ME: MemberId = MemberId(3);
const QUORUM: [u32; 3] = [1, 2, 3];

/// Messages of the handshake.
fn handshake(log: &Log) -> Vec<Message> {
    let mut rng = Rng::seed_from_u64(1);
    let proof = keys(3).sign(&SigningBytes::new("golden"));
    let refused =
        |code| Message::OrderRefused(OrderRefused { code, reason: "another group".into() });
    vec![
        Message::OrderJoin(OrderJoin {
            sender_id: ME,
            group: log.group(),
            key: keys(3).public(),
            nonce: Nonce::random(&mut rng),
            process: 77,
        }),
        Message::OrderChallenge(OrderChallenge {
            sender_id: ME,
            key: keys(3).public(),
            nonce: Nonce::random(&mut rng),
            proof,
        }),
        Message::OrderProof(OrderProof { proof }),
        Message::OrderAck(OrderAck { sender_id: ME, process: u64::MAX }),
        refused(OrderRefusal::Malformed),
        refused(OrderRefusal::OtherGroup),
        refused(OrderRefusal::NoMember),
        refused(OrderRefusal::Doubled),
        refused(OrderRefusal::Busy),
    ]
}

/// Messages of views.
fn views(log: &Log) -> Vec<Message> {
    let (group, header) = (log.group(), &log.slots[1].header);
    let (me, view) = ((ME, &keys(3)), (EpochNo(0), ViewNo(2)));
    let certificate = log.certificate(header, 1, &QUORUM);
    let start = Claim {
        phase: ClaimKind::Start,
        view: ViewNo(0),
        slot: SlotNo(0),
        digest: ContentDigest(group.0),
    };
    let mut prepared = certificate.subject;
    prepared.view = ViewNo(0);
    let prepared = log.votes(VotePhase::Prepare, prepared, &QUORUM);
    let change = |claim: Claim, certificate| {
        let signed = SignedClaim::sign(&group, view, claim, me);
        Arc::new(ViewChange { epoch: view.0, view: view.1, signed, certificate })
    };
    let changes = |claims: [Claim; 3]| {
        let sign = |(id, claim)| SignedClaim::sign(&group, view, claim, (MemberId(id), &keys(id)));
        (1..).zip(claims).map(sign).collect::<Vec<_>>()
    };
    let claims = [start, Claim::of(&prepared), Claim::of(&certificate)];
    let begun = Arc::new(NewView::sign(&group, view, changes(claims), Some(certificate), me));
    let fresh = Arc::new(NewView::sign(&group, view, changes([start; 3]), None, me));
    let commit =
        PhaseVote::sign(&group, VotePhase::Commit, log.certificate(header, 1, &[]).subject, me);
    vec![
        Message::Suspect(Suspect::sign(&group, view, "no \"final\" slot\n", me)),
        Message::ViewChange(change(start, None)),
        Message::ViewChange(change(Claim::of(&prepared), Some(prepared.clone()))),
        Message::NewView(Arc::clone(&fresh)),
        Message::NewView(Arc::clone(&begun)),
        Message::RecallReq(BftRecallReq { nonce: Nonce::random(&mut Rng::seed_from_u64(2)) }),
        Message::RecallResp(BftRecallResp {
            nonce: Nonce::random(&mut Rng::seed_from_u64(2)),
            commit: None,
            change: None,
        }),
        Message::RecallResp(BftRecallResp {
            nonce: Nonce::random(&mut Rng::seed_from_u64(2)),
            commit: Some(commit),
            change: Some(change(start, None)),
        }),
        Message::Evidence(Arc::new(Equivocation::Claim { commit, change: change(start, None) })),
        Message::Evidence(Arc::new(Equivocation::NewViews { first: fresh, second: begun })),
    ]
}

/// Messages about slots and votes.
fn slots(log: &Log) -> Vec<Message> {
    let (group, me) = (log.group(), (ME, &keys(3)));
    let headers: Vec<_> = log.slots.iter().map(|it| it.header.clone()).collect();
    let vote = |phase, digest| {
        let subject = VoteSubject { epoch: EpochNo(0), view: ViewNo(1), slot: SlotNo(2), digest };
        PhaseVote::sign(&group, phase, subject, me)
    };
    let digest = log.digest(&headers[1]);
    let (epoch, view, slot) = (EpochNo(0), ViewNo(1), SlotNo(2));
    let status = OrderStatus { epoch, view, active: true, slot, digest, silent: false };
    let whole = SlotResp {
        slots: log.slots[..3].to_vec(),
        headers: Vec::new(),
        certificate: log.certificate(&headers[2], 0, &QUORUM),
    };
    let part = SlotResp {
        slots: log.slots[..1].to_vec(),
        headers: headers[1..3].to_vec(),
        ..whole.clone()
    };
    let propose = |at: usize| {
        let signature = vote(VotePhase::Prepare, log.digest(&headers[at])).signature;
        let header = headers[at].clone();
        Message::PrePrepare(Arc::new(PrePrepare {
            sender_id: ME,
            view: ViewNo(1),
            header,
            signature,
        }))
    };
    let mut with_state = headers[1].clone();
    with_state.state = Some(ContentDigest([7; 32]));
    vec![
        propose(1),
        propose(2),
        Message::Prepare(vote(VotePhase::Prepare, digest)),
        Message::Commit(vote(VotePhase::Commit, digest)),
        Message::OrderStatus(status),
        Message::OrderStatus(OrderStatus { silent: true, ..status }),
        Message::SlotReq(SlotReq { from: SlotNo(1) }),
        Message::SlotResp(whole),
        Message::SlotResp(part),
        Message::ChainReq(ChainReq { digest, above: SlotNo(u64::MAX) }),
        Message::ChainResp(ChainResp { headers: vec![headers[0].clone(), with_state] }),
        Message::ChainResp(ChainResp { headers: Vec::new() }),
        Message::Evidence(Arc::new(Equivocation::Votes {
            phase: VotePhase::Prepare,
            first: vote(VotePhase::Prepare, digest),
            second: vote(VotePhase::Prepare, ContentDigest::default()),
        })),
    ]
}

/// Messages about bundles and changes.
fn contents(log: &Log, renew: &MembershipChange) -> Vec<Message> {
    let (group, before) = (log.group(), Log::new(4));
    let add = before.adding(5, &QUORUM);
    let remove = |approvals| MembershipChange::Remove { member: MemberId(4), approvals };
    let bare = remove(Vec::new());
    let removing = remove(before.approvals(&bare, &QUORUM));
    let approval = before.approvals(&bare, &[3])[0];
    let digests =
        vec![log.bundle((1, 7), 1, &["x"]).statement().digest(&group), bare.digest(&group)];
    vec![
        Message::Bundle(log.bundle((2, 1 << 63 | 9), 1, &["Zoë says \"hi\"\n\u{1}", ""])),
        Message::Change(Arc::new(renew.clone())),
        Message::Change(Arc::new(add)),
        Message::Change(Arc::new(removing)),
        Message::BundleReq(BundleReq { digests }),
        Message::Approve(Approve { epoch: EpochNo(0), change: bare, approval }),
    ]
}

/// All lines of the golden file.
fn cases() -> Vec<Message> {
    let mut log = Log::new(4);
    log.say(&[log.bundle((1, 7), 1, &["a1", "a2"])]);
    log.say(&[log.bundle((2, 9), 1, &["b1"]), log.bundle((1, 7), 2, &["a2", "a3"])]);
    let life = Life { counter: 1, number: 5 };
    let renew = MembershipChange::renew(&log.group(), MemberId(4), life, &keys(4));
    log.change(renew.clone(), &QUORUM);
    [handshake(&log), contents(&log, &renew), slots(&log), views(&log)].concat()
}

/// A number for each kind of message. A new kind does not compile until it is counted here, and
/// does not pass until it has a golden line.
const fn number(message: &Message) -> usize {
    match message {
        Message::OrderJoin(_) => 0,
        Message::OrderChallenge(_) => 1,
        Message::OrderProof(_) => 2,
        Message::OrderAck(_) => 3,
        Message::OrderRefused(_) => 4,
        Message::Bundle(_) => 5,
        Message::Change(_) => 6,
        Message::PrePrepare(_) => 7,
        Message::Prepare(_) => 8,
        Message::Commit(_) => 9,
        Message::Suspect(_) => 10,
        Message::ViewChange(_) => 11,
        Message::NewView(_) => 12,
        Message::OrderStatus(_) => 13,
        Message::SlotReq(_) => 14,
        Message::SlotResp(_) => 15,
        Message::ChainReq(_) => 16,
        Message::ChainResp(_) => 17,
        Message::BundleReq(_) => 18,
        Message::RecallReq(_) => 19,
        Message::RecallResp(_) => 20,
        Message::Approve(_) => 21,
        Message::Evidence(_) => 22,
    }
}

const KINDS: usize = 23;

fn golden() -> String {
    static BLESSED: Once = Once::new();
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "bft.jsonl"].iter().collect();
    BLESSED.call_once(|| {
        if std::env::var_os("BLESS").is_some() {
            let bytes: Vec<u8> = cases().iter().flat_map(encode).collect();
            fs::write(&path, bytes).unwrap();
        }
    });
    fs::read_to_string(path).unwrap()
}

/// Reads one line by itself and from a stream, which must agree.
#[track_caller]
fn read(line: &[u8]) -> Result<Message, String> {
    let alone = decode(line.trim_ascii()).map_err(|error| error.to_string());
    let found = OrderReader::new(&[line, b"\n"].concat()[..]).read();
    let found = found.map(|it| it.expect("a line is no end")).map_err(|error| {
        assert!(matches!(error, LineError::Malformed { .. }), "{error}");
        error.to_string()
    });
    assert_eq!(found, alone, "{:?}", line.escape_ascii().to_string());
    found
}

#[test]
fn every_message_of_a_byzantine_order_is_written_and_read_as_the_golden_file_has_it() {
    let golden = golden();
    let lines: Vec<_> = golden.lines().collect();
    let cases = cases();
    for (at, message) in cases.iter().enumerate() {
        let line = String::from_utf8(encode(message)).unwrap();
        assert_eq!(line.trim_end(), lines.get(at).copied().unwrap_or("nothing"), "line {}", at + 1);
        assert_eq!(read(line.trim_end().as_bytes()).as_ref(), Ok(message));
        assert!(line.starts_with("{\"type\":\""), "{line}");
        assert!(!line.trim_end().contains(char::is_control), "{line}");
    }
    assert_eq!(lines.len(), cases.len());
    let shown: BTreeSet<_> = cases.iter().map(number).collect();
    assert_eq!(shown.len(), KINDS, "kinds with a golden line");
}

fn extend(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(extend);
            fields.insert("from_the_future".to_owned(), json!({ "a": [1, null] }));
        }
        Value::Array(items) => items.iter_mut().for_each(extend),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn unknown_fields_of_a_byzantine_orders_messages_are_tolerated_in_any_order() {
    for (line, message) in golden().lines().zip(cases()) {
        let mut value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(read(value.to_string().as_bytes()).as_ref(), Ok(&message), "sorted");
        extend(&mut value);
        assert_eq!(read(value.to_string().as_bytes()), Ok(message), "extended");
    }
}

/// Fields that may be absent; all others must be there.
const OPTIONAL: [&str; 10] = [
    "silent",
    "life",
    "renewed",
    "bundles",
    "change",
    "committee",
    "state",
    "headers",
    "certificate",
    "commit",
];

/// Messages in which a field is always there that may be absent in others.
fn is_optional(kind: &str, path: &str, field: &str) -> bool {
    let is_needed = match field {
        "certificate" => kind == "SLOT_RESP",
        "headers" => kind == "CHAIN_RESP",
        "change" => kind == "APPROVE" || kind == "EVIDENCE",
        "commit" => kind == "EVIDENCE",
        _ => false,
    };
    OPTIONAL.contains(&field) && !(is_needed && path.is_empty())
}

/// Each object with one field left out, and each value with one of another type in its place.
fn mutations(kind: &str, value: &Value, path: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    // As the name of a kind its number among the kinds is taken, too; it cannot say anything else.
    let is_tag = path.ends_with(".type") || path.ends_with(".kind");
    let other = if is_tag {
        json!(["1"])
    } else if value.is_number() {
        json!("1")
    } else {
        json!(1)
    };
    found.push((format!("{path} has another type"), other));
    if value.is_number() {
        for other in [json!(-1), json!(1.5), json!(null), json!([1])] {
            found.push((format!("{path} is {other}"), other));
        }
    }
    if let Value::String(text) = value
        && text.len() >= 32
        && text.bytes().all(|it| it.is_ascii_hexdigit())
    {
        for other in [&text[1..], &text[2..], &format!("{text}00"), &text.replacen('0', "g", 1)] {
            if other != text {
                found.push((format!("{path} is {other}"), json!(other)));
            }
        }
    }
    if let Value::Array(items) = value {
        for (at, item) in items.iter().enumerate() {
            for (what, item) in mutations(kind, item, &format!("{path}[{at}]")) {
                let mut items = items.clone();
                items[at] = item;
                found.push((what, json!(items)));
            }
        }
    }
    if let Value::Object(fields) = value {
        for (name, field) in fields {
            if !is_optional(kind, path, name) {
                let mut fewer = fields.clone();
                fewer.remove(name);
                found.push((format!("{path}.{name} is absent"), Value::Object(fewer)));
            }
            for (what, field) in mutations(kind, field, &format!("{path}.{name}")) {
                let mut fields = fields.clone();
                fields.insert(name.clone(), field);
                found.push((what, Value::Object(fields)));
            }
        }
    }
    found
}

#[test]
fn a_message_of_a_byzantine_order_with_a_field_absent_or_of_another_type_is_refused() {
    let mut count = 0;
    for line in golden().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let kind = value["type"].as_str().unwrap();
        for (what, mutated) in mutations(kind, &value, "") {
            let read = read(mutated.to_string().as_bytes());
            assert!(read.is_err(), "{kind}: {what}: {read:?}");
            count += 1;
        }
    }
    assert!(count > 1_000, "{count}");
}

#[test]
fn a_line_of_a_byzantine_order_that_is_no_message_is_refused_with_a_reason() {
    let digest = "00".repeat(32);
    let request = |rest: &str| format!("{{\"type\":\"CHAIN_REQ\",\"digest\":\"{digest}\"{rest}}}");
    let deep = request(&format!(",\"x\":{}1{}", "[".repeat(200), "]".repeat(200)));
    let committee = "{\"type\":\"CHANGE\",\"kind\":\"promote\"}".to_owned();
    for (line, expected) in [
        ("{}".to_owned(), "missing field `type`"),
        ("[]".to_owned(), "a message is a JSON object"),
        ("{\"type\":\"JOIN\"}".to_owned(), "unknown variant `JOIN`"),
        (committee, "unknown variant `promote`"),
        (deep, "recursion limit exceeded"),
        (request(""), "missing field `above`"),
        (request(",\"above\":1,\"above\":1"), "duplicate field `above`"),
        (request(",\"above\":1,\"type\":\"CHAIN_REQ\""), "duplicate field `type`"),
        (request(",\"above\":-1"), "expected u64"),
        (request(",\"above\":18446744073709551616"), "expected u64"),
        (request(",\"above\":1}{"), "trailing characters"),
    ] {
        let reason = read(line.as_bytes()).unwrap_err();
        assert!(reason.contains(expected), "{line}: {reason}");
    }
    // Fields of a flattened part are read by another way, which must refuse repeats as well.
    let vote = golden().lines().find(|it| it.contains("\"PREPARE\"")).unwrap().to_owned();
    let vote = vote.replacen("\"slot\":2", "\"slot\":3,\"slot\":2", 1);
    let reason = read(vote.as_bytes()).unwrap_err();
    assert!(reason.contains("duplicate field `slot`"), "{reason}");
}

#[test]
fn a_line_of_a_byzantine_order_that_is_too_long_is_refused() {
    let suspect = |len| {
        let reason = "x".repeat(len);
        let view = (EpochNo(0), ViewNo(1));
        Message::Suspect(Suspect::sign(&Log::new(4).group(), view, &reason, (ME, &keys(3))))
    };
    let fits = LINE_BYTES_MAX - encode(&suspect(0)).len();
    let read = |len| OrderReader::new(&encode(&suspect(len))[..]).read();
    assert_eq!(read(fits).unwrap(), Some(suspect(fits)));
    let error = read(fits + 1).unwrap_err();
    assert!(matches!(error, LineError::TooLong), "{error}");
}

/// True if slots chain up to their certificate, and each content is the one that its header names.
fn are_proved(log: &Log, it: &SlotResp) -> bool {
    let group = log.group();
    let headers = it.slots.iter().map(|it| &it.header).chain(&it.headers);
    let last = headers.clone().last().map(|it| it.digest(&group));
    let mut pairs = headers.clone().zip(headers.skip(1));
    let is_true = |message: Message| verdict(&message) == Some(true);
    let names = |it: &Arc<SlotContent>| {
        let named = it.header.bundles.iter().map(|it| it.digest);
        let bundles: Vec<_> = it.bundles.iter().map(|it| it.statement().digest(&group)).collect();
        named.eq(bundles)
            && it.change.as_ref().map(|it| it.digest(&group)) == it.header.change
            && it.bundles.iter().all(|it| is_true(Message::Bundle(Arc::clone(it))))
            && it.change.iter().all(|it| is_true(Message::Change(Arc::clone(it))))
    };
    last == Some(it.certificate.subject.digest)
        && pairs.all(|(one, next)| next.parent == one.digest(&group))
        && it.slots.iter().all(names)
        && it.certificate.is_valid(&group, &log.committee)
}

/// True if the signatures in a message prove all that it says, and nothing else is said in it;
/// `None` for messages that prove nothing by themselves.
fn verdict(message: &Message) -> Option<bool> {
    let log = Log::new(4);
    let (group, committee) = (log.group(), &log.committee);
    let key = |id: MemberId| committee.key(id).copied();
    let is_signed = |phase, vote: &PhaseVote| {
        key(vote.sender_id).is_some_and(|key| vote.is_valid(&group, phase, &key))
    };
    let is_claimed = |view: (EpochNo, ViewNo), it: &SignedClaim| {
        key(it.sender_id).is_some_and(|key| it.is_valid(&group, view, &key))
    };
    let is_proved = |claim: Claim, certificate: Option<&Certificate>| match certificate {
        Some(it) => Claim::of(it) == claim && it.is_valid(&group, committee),
        None => claim.phase == ClaimKind::Start,
    };
    Some(match message {
        Message::Bundle(it) => {
            let statement = it.statement();
            key(it.author).is_some_and(|key| it.is_valid(&group, &statement, &key))
        }
        Message::Change(it) => it.apply(&group, (EpochNo(0), SlotNo(3)), committee).is_some(),
        Message::PrePrepare(it) => {
            is_signed(VotePhase::Prepare, &it.vote(it.header.digest(&group)))
        }
        Message::Prepare(it) => is_signed(VotePhase::Prepare, it),
        Message::Commit(it) => is_signed(VotePhase::Commit, it),
        Message::Suspect(it) => key(it.sender_id).is_some_and(|key| it.is_valid(&group, &key)),
        Message::ViewChange(it) => {
            is_claimed((it.epoch, it.view), &it.signed)
                && is_proved(it.signed.claim, it.certificate.as_ref())
        }
        Message::NewView(it) => {
            key(it.sender_id).is_some_and(|key| it.is_signed(&group, &key))
                && it.changes.iter().all(|change| is_claimed((it.epoch, it.view), change))
                && it.base().is_some_and(|base| is_proved(base, it.certificate.as_ref()))
        }
        Message::SlotResp(it) => are_proved(&log, it),
        Message::Approve(it) => {
            let digest = it.change.digest(&group);
            let approval = it.approval;
            let key = key(approval.member);
            key.is_some_and(|key| approval.is_valid(&group, it.epoch, &digest, &key))
        }
        Message::Evidence(it) => key(it.member()).is_some_and(|key| it.is_valid(&group, &key)),
        Message::OrderJoin(_)
        | Message::OrderChallenge(_)
        | Message::OrderProof(_)
        | Message::OrderAck(_)
        | Message::OrderRefused(_)
        | Message::OrderStatus(_)
        | Message::SlotReq(_)
        | Message::ChainReq(_)
        | Message::ChainResp(_)
        | Message::BundleReq(_)
        | Message::RecallReq(_)
        | Message::RecallResp(_) => return None,
    })
}

/// The message without the words for people, which nobody signs.
fn signed_part(mut message: Message) -> Message {
    if let Message::Suspect(it) = &mut message {
        it.reason.clear();
    }
    message
}

#[test]
fn what_golden_messages_say_is_proved_by_their_signatures_but_for_one_proposal() {
    let cases = cases();
    let verdicts: Vec<_> = cases.iter().map(|it| (it, verdict(it))).collect();
    assert!(verdicts.iter().filter(|it| it.1 == Some(true)).count() >= 18, "{verdicts:?}");
    // The second proposal carries a vote for the slot before its own.
    let (broken, _) = verdicts.iter().find(|it| it.1 == Some(false)).expect("one does not hold");
    assert!(matches!(broken, Message::PrePrepare(it) if it.header.slot == SlotNo(3)), "{broken:?}");
    assert_eq!(verdicts.iter().filter(|it| it.1 == Some(false)).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However a line is damaged, nothing panics, what is taken is written and read the same, and
    /// its signatures prove nothing else than before.
    #[test]
    fn a_damaged_line_of_a_byzantine_order_is_refused_or_a_message(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..4),
        piece in "(\"(type|kind|slot|digest|phase|life)\":(null|1|\"a\"|\\[\\]),)?",
    ) {
        let golden = golden();
        let lines: Vec<_> = golden.lines().collect();
        let mut line = lines[which.index(lines.len())].as_bytes().to_vec();
        for (at, byte, how) in damage {
            let at = at.index(line.len());
            match how {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                2 => { line.remove(at); }
                _ => { line.splice(at..at, piece.bytes()); }
            }
        }
        line.retain(|byte| *byte != b'\n');
        if !line.trim_ascii().is_empty()
            && let Ok(message) = read(&line)
        {
            prop_assert_eq!(read(encode(&message).trim_ascii()), Ok(message.clone()));
            let before = read(lines[which.index(lines.len())].as_bytes()).unwrap();
            if signed_part(message.clone()) != signed_part(before) {
                prop_assert_ne!(verdict(&message), Some(true), "{:?}", message);
            }
        }
    }

    /// A bundle's cost is no less than its length, so that what fits by its cost fits a line.
    #[test]
    fn a_bundles_line_is_no_longer_than_its_cost(
        texts in prop::collection::vec((".{0,8}", "\\PC{0,8}|[\\x00-\\x7f]{0,8}"), 1..8),
        numbers in any::<(u32, u64, u64)>(),
    ) {
        let item = |(room, text): (String, String)| {
            BundleItem { room: room.into(), payload: text.into() }
        };
        let items = texts.into_iter().map(item).collect();
        let origin = Origin { member: MemberId(numbers.0), client: numbers.1 };
        let bundle = Bundle::sign(&Log::new(1).group(), origin, numbers.2, items, &keys(1));
        let cost = bundle.cost();
        prop_assert!(encode(&Message::Bundle(Arc::new(bundle))).len() <= cost);
    }
}

#[test]
fn the_greatest_bundle_of_empty_texts_fits_a_line() {
    let items = vec![BundleItem { room: "".into(), payload: "".into() }; BUNDLE_ITEMS_MAX];
    let origin = Origin { member: MemberId(u32::MAX), client: u64::MAX };
    let bundle = Bundle::sign(&Log::new(1).group(), origin, u64::MAX, items, &keys(1));
    assert!(bundle.cost() <= BUNDLE_COST_MAX);
    assert!(encode(&Message::Bundle(Arc::new(bundle))).len() <= LINE_BYTES_MAX);
}
