//! Proofs of single messages of a Byzantine order: they hold for ever, and no change of one does.
//!
//! `golden/bft_proofs.jsonl` holds proofs with their groups and what they prove. It changes only if
//! the text form gets a new version: `BLESS=1 cargo test --test wire bft_proof::` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use folkmoot::proto::bft::bundle::BundleStatement;
use folkmoot::proto::bft::proof::PROOF_BYTES_MAX;
use folkmoot::proto::bft::{
    ChangeProof, Life, MembershipChange, OrderId, PlaceProof, ProofError, ProvenMessage,
    SlotHeader, VotePhase,
};
use folkmoot::proto::chat::entry::{MemberId, SeqNo};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bft_log::{Log, SALT, keys};

const QUORUM: [u32; 3] = [1, 2, 4];

/// A log of four members; in its second slot two messages of one bundle have places already.
fn log() -> Log {
    let mut log = Log::new(4);
    log.say(&[log.bundle((1, 7), 1, &["a1", "a2"])]);
    log.say(&[
        log.bundle((2, 9), 1, &["b1"]),
        log.bundle((1, 7), 1, &["a1", "a2", "a3", "Zoë says \"a4\"\n", "a5"]),
        log.bundle((3, 1), 1, &["c1", "c2"]),
    ]);
    log
}

/// Proof of the message at `place` of the second slot, by a certificate of the last.
fn proof_of(log: &Log, place: u64) -> PlaceProof {
    let later: Vec<_> = log.slots[2..].iter().map(|it| it.header.clone()).collect();
    let last = &log.slots.last().unwrap().header;
    let certificate = log.certificate(last, 3, &QUORUM);
    let founders = (&log.founders, SALT);
    let content = (&*log.slots[1], later);
    PlaceProof::new(founders, Vec::new(), content, certificate, SeqNo(place)).unwrap()
}

/// A message of the second slot, with the certificate of that slot.
fn plain() -> (OrderId, PlaceProof) {
    let log = log();
    (log.group(), proof_of(&log, 5))
}

/// The same, with the certificate of a slot two later.
fn later() -> (OrderId, PlaceProof) {
    let mut log = log();
    log.say(&[log.bundle((2, 9), 2, &["b2"])]);
    log.say(&[log.bundle((2, 9), 3, &["b3"])]);
    (log.group(), proof_of(&log, 5))
}

/// A message of a member that came by the second of two changes.
fn changed() -> (OrderId, PlaceProof) {
    let mut log = log();
    let life = Life { counter: 1, number: 0x1234_5678_9abc_def0 };
    let renew = MembershipChange::renew(&log.group(), MemberId(3), life, &keys(3));
    let mut changes = vec![log.change(renew, &QUORUM)];
    log.say(&[log.bundle((2, 9), 2, &["b2"])]);
    let add = log.adding(5, &[1, 2, 3]);
    changes.push(log.change(add, &[2, 3, 4]));
    let content = log.say(&[log.bundle((5, 1), 1, &["new here"])]);
    let certificate = log.certificate(&content.header, 1, &[1, 2, 4, 5]);
    let place = SeqNo(log.entries.len() as u64);
    let founders = (&log.founders, SALT);
    let content = (&*content, Vec::new());
    let proof = PlaceProof::new(founders, changes, content, certificate, place);
    (log.group(), proof.unwrap())
}

fn cases() -> [(OrderId, PlaceProof); 3] {
    [plain(), later(), changed()]
}

#[test]
fn golden_proofs_hold_with_nothing_but_the_groups_identity() {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "bft_proofs.jsonl"].iter().collect();
    let line = |(group, proof): &(OrderId, PlaceProof)| {
        let proven = serde_json::to_string(&proof.verify(group).unwrap()).unwrap();
        let proof = proof.encode();
        format!("{{\"group\":\"{group}\",\"proves\":{proven},\"proof\":{proof}}}\n")
    };
    let lines: String = cases().iter().map(line).collect();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &lines).unwrap();
    }
    let golden = fs::read_to_string(path).unwrap();
    assert_eq!(golden.lines().count(), cases().len());
    for line in golden.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let group = OrderId::parse(line["group"].as_str().unwrap()).unwrap();
        let proof = PlaceProof::parse(&line["proof"].to_string()).unwrap();
        let proven = proof.verify(&group).unwrap();
        assert_eq!(serde_json::to_value(&proven).unwrap(), line["proves"]);
    }
    assert_eq!(golden, lines, "the text form changed without a new version");
}

#[test]
fn a_proof_says_place_author_number_text_and_signers() {
    let (group, proof) = plain();
    let it = proof.verify(&group).unwrap();
    assert_eq!((it.place.0, it.epoch.0, it.slot.0), (5, 0, 2));
    assert_eq!(
        (it.author(), it.msg_id.to_string().as_str()),
        (MemberId(1), "1-0000000000000007-4")
    );
    assert_eq!((&*it.room, &*it.payload), ("general", "Zoë says \"a4\"\n"));
    assert_eq!(it.signers, QUORUM.map(MemberId));
    let (group, proof) = changed();
    let it = proof.verify(&group).unwrap();
    assert_eq!((it.place.0, it.epoch.0, it.slot.0, it.author()), (10, 2, 6, MemberId(5)));
}

/// Every place of a slot, whatever has been left out before it, and no place of another slot.
#[test]
fn each_message_of_a_slot_is_proved_at_its_own_place_only() {
    let log = log();
    for entry in &log.entries[2..] {
        let proof = proof_of(&log, entry.seq_no.0);
        let again = PlaceProof::parse(&format!(" {}\n", proof.encode())).unwrap();
        assert_eq!(again, proof);
        let it = again.verify(&log.group()).unwrap();
        let folkmoot::proto::chat::entry::Body::Chat(text) = &entry.body else { unreachable!() };
        assert_eq!((it.place, it.msg_id, &it.payload), (entry.seq_no, text.msg_id, &text.payload));
    }
    let certificate = log.certificate(&log.slots[1].header, 0, &QUORUM);
    for place in [0, 1, 2, 9, u64::MAX] {
        let content = (&*log.slots[1], Vec::new());
        let founders = (&log.founders, SALT);
        let proof =
            PlaceProof::new(founders, Vec::new(), content, certificate.clone(), SeqNo(place));
        assert_eq!(proof, None, "{place}");
    }
}

#[test]
fn a_proof_of_another_group_names_that_group() {
    let (group, proof) = plain();
    let other = log().founders.order_id("another");
    assert_eq!(proof.verify(&other), Err(ProofError::OtherGroup(group)));
    assert_eq!(proof.group(), group);
    assert!(ProofError::OtherGroup(group).to_string().contains(&group.to_string()));
}

/// Whatever one number, text, list or field of `value` may become, with the place in it.
fn mutations(value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    match value {
        Value::Null | Value::Bool(_) => found.push((String::new(), json!(1))),
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            let others = [number.wrapping_add(1), number.wrapping_sub(1), 0, u64::MAX];
            let others = others.into_iter().filter(|it| *it != number);
            found.extend(others.map(|it| (format!("={it}"), json!(it))));
            found.push(("=text".to_owned(), json!(number.to_string())));
        }
        Value::String(text) => {
            let is_hex = text.len() >= 32 && text.bytes().all(|it| it.is_ascii_hexdigit());
            if is_hex {
                for at in 0..text.len() {
                    let mut digits = text.clone().into_bytes();
                    let digit = (digits[at] as char).to_digit(16).unwrap() ^ 1;
                    digits[at] = u8::try_from(char::from_digit(digit, 16).unwrap()).unwrap();
                    let digits = String::from_utf8(digits).unwrap();
                    found.push((format!("[{at}]={digit:x}"), json!(digits)));
                }
                if text.to_uppercase() != *text {
                    found.push(("=upper".to_owned(), json!(text.to_uppercase())));
                }
            }
            let others = [String::new(), format!("{text}x"), text.chars().skip(1).collect()];
            let others = others.into_iter().filter(|it| it != text);
            found.extend(others.map(|it| (format!("={it:?}"), json!(it))));
            found.push(("=number".to_owned(), json!(1)));
        }
        Value::Array(items) => {
            let mut push = |what: String, items: Vec<Value>| found.push((what, json!(items)));
            for at in 0..items.len() {
                let mut fewer = items.clone();
                let item = fewer.remove(at);
                push(format!("[{at}] dropped"), fewer);
                let mut more = items.clone();
                more.insert(at, item);
                push(format!("[{at}] doubled"), more);
                if at > 0 && items[at] != items[at - 1] {
                    let mut swapped = items.clone();
                    swapped.swap(at - 1, at);
                    push(format!("[{at}] swapped"), swapped);
                }
            }
            for (at, item) in items.iter().enumerate() {
                for (what, item) in mutations(item) {
                    let mut items = items.clone();
                    items[at] = item;
                    found.push((format!("[{at}]{what}"), json!(items)));
                }
            }
        }
        Value::Object(fields) => {
            let mut more = fields.clone();
            more.insert("more".to_owned(), json!(1));
            found.push((".more".to_owned(), Value::Object(more)));
            for (name, field) in fields {
                let mut fewer = fields.clone();
                fewer.remove(name);
                found.push((format!(".{name} dropped"), Value::Object(fewer)));
                for (what, field) in mutations(field) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), field);
                    found.push((format!(".{name}{what}"), Value::Object(fields)));
                }
            }
        }
    }
    found
}

fn verdict(text: &str, group: &OrderId) -> Result<ProvenMessage, ProofError> {
    PlaceProof::parse(text)?.verify(group)
}

/// Everything is signed but the order of approvals, which says nothing.
#[test]
fn a_proof_with_any_one_thing_changed_is_refused() {
    for (group, proof) in cases() {
        let value: Value = serde_json::from_str(&proof.encode()).unwrap();
        verdict(&value.to_string(), &group).unwrap();
        let mutations = mutations(&value);
        assert!(mutations.len() > 1_500, "{}", mutations.len());
        for (what, mutated) in mutations {
            let verdict = verdict(&mutated.to_string(), &group);
            if what.contains(".approvals[") && what.ends_with(" swapped") {
                assert_eq!(verdict, proof.verify(&group), "{what}");
            } else {
                assert!(verdict.is_err(), "{what}: {verdict:?}");
            }
        }
    }
}

/// Lies that need more than one change: parts that hold by themselves, put together anew.
#[test]
fn true_parts_of_a_log_that_do_not_belong_together_prove_nothing() {
    let mut log = log();
    let third = log.say(&[log.bundle((2, 9), 2, &["b2"])]).header.clone();
    let second = log.slots[1].clone();
    let founders = (&log.founders, SALT);
    let make = |later: Vec<_>, certificate| {
        let proof = PlaceProof::new(founders, vec![], (&second, later), certificate, SeqNo(5));
        proof.unwrap().verify(&log.group())
    };
    let commits = |header| log.certificate(header, 0, &QUORUM);
    make(vec![], commits(&second.header)).unwrap();
    make(vec![third.clone()], commits(&third)).unwrap();
    let no_quorum = Err(ProofError::Message("no quorum has made its slot final"));
    assert_eq!(make(vec![], commits(&third)), no_quorum);
    assert_eq!(make(vec![third.clone()], commits(&second.header)), no_quorum);
    assert_eq!(make(vec![], log.certificate(&second.header, 0, &[1, 2])), no_quorum);
    assert_eq!(make(vec![], log.certificate(&second.header, 0, &[1, 2, 5])), no_quorum);
    let subject = commits(&second.header).subject;
    assert_eq!(make(vec![], log.votes(VotePhase::Prepare, subject, &QUORUM)), no_quorum);
    let mut fork = third.clone();
    fork.parent = log.digest(&log.slots[0].header);
    let no_chain = Err(ProofError::Message("the headers behind its slot are no chain"));
    assert_eq!(make(vec![fork.clone()], commits(&fork)), no_chain);
    let mut epoch = third.clone();
    epoch.epoch = epoch.epoch.next();
    assert_eq!(make(vec![epoch.clone()], commits(&epoch)), no_chain);
    let mut gap = third.clone();
    gap.slot = gap.slot.next();
    assert_eq!(make(vec![gap.clone()], commits(&gap)), no_chain);
}

/// A member that left has no say behind the change, and one that came none before it.
#[test]
fn the_committee_of_another_epoch_proves_nothing() {
    let mut log = log();
    let bare = MembershipChange::Remove { member: MemberId(4), approvals: vec![] };
    let approvals = log.approvals(&bare, &[1, 2, 3]);
    let remove = MembershipChange::Remove { member: MemberId(4), approvals };
    let change = log.change(remove, &QUORUM);
    let content = log.say(&[log.bundle((4, 1), 1, &["still here?"])]);
    let verify = |changes: Vec<_>, signers: &[u32]| {
        let certificate = log.certificate(&content.header, 0, signers);
        let (founders, content) = ((&log.founders, SALT), (&*content, vec![]));
        let proof = PlaceProof::new(founders, changes, content, certificate, SeqNo(9));
        proof.unwrap().verify(&log.group())
    };
    let message = |reason| Err(ProofError::Message(reason));
    assert_eq!(
        verify(vec![change.clone()], &[1, 2, 4]),
        message("no quorum has made its slot final")
    );
    assert_eq!(verify(vec![change.clone()], &[1, 2, 3]), message("its author is no member"));
    let unknown = message("its slot is of an epoch whose committee is not shown");
    assert_eq!(verify(vec![], &[1, 2, 3]), unknown);
    let again = ProofError::Change(1, "its slot is not behind the change before it");
    assert_eq!(verify(vec![change.clone(), change.clone()], &[1, 2, 3]), Err(again));
    let mut by_others = change;
    by_others.certificate = log.certificate(&by_others.header, 0, &[1, 2]);
    let unproved = ProofError::Change(0, "no quorum has made its slot final");
    assert_eq!(verify(vec![by_others], &[1, 2, 3]), Err(unproved));
}

/// Lies about a change that even a quorum of liars cannot tell: each part is certified anew.
#[test]
fn a_change_that_its_slot_does_not_hold_is_refused() {
    let mut log = log();
    let renew = |log: &Log, number| {
        let life = Life { counter: 1, number };
        MembershipChange::renew(&log.group(), MemberId(3), life, &keys(3))
    };
    let (mine, other) = (renew(&log, 5), renew(&log, 6));
    let change = log.change(mine, &QUORUM);
    let content = log.say(&[log.bundle((2, 9), 2, &["b2"])]);
    let certificate = log.certificate(&content.header, 0, &QUORUM);
    let verify = |lie: &dyn Fn(&mut ChangeProof)| {
        let mut change = change.clone();
        lie(&mut change);
        change.certificate = log.certificate(&change.header, 0, &QUORUM);
        let (founders, content) = ((&log.founders, SALT), (&*content, vec![]));
        let certificate = certificate.clone();
        let proof = PlaceProof::new(founders, vec![change], content, certificate, SeqNo(9));
        proof.unwrap().verify(&log.group())
    };
    verify(&|_| {}).unwrap();
    let wrong = |reason| Err(ProofError::Change(0, reason));
    let named = log.slots[0].header.bundles.clone();
    let holds_not = wrong("its slot does not hold it");
    assert_eq!(verify(&|it| it.change = Arc::new(other.clone())), holds_not);
    assert_eq!(verify(&|it| it.header.change = None), holds_not);
    assert_eq!(verify(&|it| it.header.bundles.clone_from(&named)), holds_not);
    assert_eq!(verify(&|it| it.header.epoch.0 = 1), wrong("its slot is of another epoch"));
    let committee = Some(log.founders.digest());
    let another = wrong("it leads to another committee than its slot says");
    assert_eq!(verify(&|it| it.header.committee = committee), another);
    let unsigned = wrong("the members before it have not signed it");
    let forged = |it: &mut ChangeProof| {
        let life = Life { counter: 1, number: 7 };
        let change = MembershipChange::renew(&log.group(), MemberId(3), life, &keys(2));
        it.header.change = Some(change.digest(&log.group()));
        it.change = Arc::new(change);
    };
    assert_eq!(verify(&forged), unsigned);
}

#[test]
fn a_text_that_is_no_proof_is_refused_with_the_reason() {
    let (_, proof) = plain();
    let text = proof.encode();
    assert!(
        !text.contains('\n') && text.starts_with("{\"format\":\"folkmoot/bft/place-proof/1\",")
    );
    let doubled = text.replacen("\"salt\":\"ledger\"", "\"salt\":\"x\",\"salt\":\"ledger\"", 1);
    let version = text.replacen("place-proof/1", "place-proof/2", 1);
    let spaces = text.clone() + &" ".repeat(PROOF_BYTES_MAX);
    for (text, expected) in [
        ("", "EOF"),
        ("[]", "no `format`"),
        ("{\"format\":1}", "no `format`"),
        (&version, "folkmoot/bft/place-proof/2"),
        (&doubled, "duplicate field `salt`"),
        (&spaces, "longer than 16777216 bytes"),
        (&text[..text.len() - 1], "EOF"),
    ] {
        let error = PlaceProof::parse(text).unwrap_err();
        let ProofError::Malformed(reason) = &error else { panic!("{error}") };
        assert!(reason.contains(expected), "{reason}");
        assert!(error.to_string().contains("no proof"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However a text is damaged, it is refused or is the same proof: nothing panics.
    #[test]
    fn a_damaged_proof_is_refused_or_the_same(
        which in 0_usize..3,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..4),
        piece in "(\"(index|count|first|place|slot)\":(null|18446744073709551615|\"a\"),)?",
    ) {
        let (group, proof) = &cases()[which];
        let mut bytes = proof.encode().into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => { bytes.remove(at); }
                _ => { bytes.splice(at..at, piece.bytes()); }
            }
        }
        if let Ok(proven) = verdict(&String::from_utf8_lossy(&bytes), group) {
            prop_assert_eq!(proven, proof.verify(group).unwrap());
        }
    }

    /// Numbers never overflow, even those of a header that a quorum of liars has signed.
    #[test]
    fn a_header_with_any_numbers_gives_a_place_that_exists_or_none(
        numbers in prop::collection::vec((0_usize..8, 0_u64..5, any::<bool>()), 0..4),
    ) {
        let log = log();
        let mut value: Value = serde_json::from_str(&proof_of(&log, 5).encode()).unwrap();
        let names = ["/index", "/bundle/count", "/bundle/first", "/header/place",
            "/header/bundles/0/count", "/header/bundles/0/skip", "/header/bundles/1/count",
            "/header/bundles/1/skip"];
        for (at, number, is_great) in numbers {
            let number = if is_great { u64::MAX - number } else { number };
            *value.pointer_mut(names[at]).unwrap() = json!(number);
        }
        let bundle: BundleStatement = serde_json::from_value(value["bundle"].clone()).unwrap();
        let signature = keys(1).sign(&bundle.signing_bytes(&log.group()));
        value["signature"] = serde_json::to_value(signature).unwrap();
        value["header"]["bundles"][1]["digest"] =
            serde_json::to_value(bundle.digest(&log.group())).unwrap();
        let header: SlotHeader = serde_json::from_value(value["header"].clone()).unwrap();
        value["certificate"] =
            serde_json::to_value(log.certificate(&header, 0, &QUORUM)).unwrap();
        if let Ok(proven) = verdict(&value.to_string(), &log.group()) {
            let number = |name| u128::from(value.pointer(name).unwrap().as_u64().unwrap());
            let place = number(names[3]) + number(names[4]) - number(names[5]) + number(names[0])
                - number(names[7]) + 1;
            prop_assert_eq!(u128::from(proven.place.0), place);
            prop_assert_eq!(
                u128::from(proven.msg_id.number),
                number(names[2]) + number(names[0])
            );
        }
    }
}
