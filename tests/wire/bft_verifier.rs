//! The verifier of a Byzantine order's log: it takes what the rules allow, and names the first slot
//! that anything is wrong with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use folkmoot::model::SigningBytes;
use folkmoot::proto::bft::bundle::BUNDLE_ITEMS_MAX;
use folkmoot::proto::bft::header::{SLOT_BUNDLES_MAX, SLOT_COST_MAX};
use folkmoot::proto::bft::message::SlotContent;
use folkmoot::proto::bft::{
    Bundle, BundleItem, Certificate, ContentDigest, Life, MembershipChange, OrderConflict,
    OrderFault, OrderVerifier, VotePhase,
};
use folkmoot::proto::chat::entry::{ChainHash, MemberId, Origin, SeqNo};

use crate::bft_log::{Log, SALT, keys};

const QUORUM: [u32; 3] = [1, 2, 4];

fn verifier(log: &Log) -> OrderVerifier {
    OrderVerifier::new(log.founders.clone(), SALT)
}

/// Takes all of a log, whose changes have certificates.
fn take_all(log: &Log, it: &mut OrderVerifier, certificates: &[Certificate]) {
    let mut entries = Vec::new();
    for slot in &log.slots {
        let certificate = certificates.iter().find(|it| it.subject.slot == slot.header.slot);
        entries.extend(it.take(slot, certificate).unwrap());
    }
    assert_eq!(entries, log.entries);
}

#[test]
fn a_log_with_repeats_changes_and_late_certificates_is_taken_and_gives_its_messages() {
    let mut log = Log::new(4);
    log.say(&[log.bundle((1, 7), 1, &["a1", "a2"]), log.bundle((1, 8), 1, &["x"])]);
    log.say(&[log.bundle((2, 9), 1, &["b1"]), log.bundle((1, 7), 2, &["a2", "a3"])]);
    let mut certificates = vec![log.certificate(&log.slots[1].header, 5, &QUORUM)];
    let renew = |log: &Log, counter| {
        let life = Life { counter, number: counter + 77 };
        MembershipChange::renew(&log.group(), MemberId(3), life, &keys(3))
    };
    let first = renew(&log, 1);
    certificates.push(log.change(first, &QUORUM).certificate);
    log.say(&[log.bundle((1, 7), 4, &["a4"]), log.bundle((1, 7), 5, &["a5"])]);
    let add = log.adding(5, &[1, 2, 3]);
    certificates.push(log.change(add, &QUORUM).certificate);
    log.say(&[log.bundle((5, 1), 1, &["new"])]);
    let mut it = verifier(&log);
    take_all(&log, &mut it, &certificates);
    assert_eq!((it.epoch(), it.committee(), it.group()), (log.epoch, &log.committee, log.group()));
    assert_eq!(it.place(), SeqNo(8));
    assert_eq!((it.last().0.0, it.certified().0), (6, 5));
    let last = &log.slots[5].header;
    assert_eq!(it.last().1, log.digest(last));
}

/// A log of two slots, and then a third that `lie` makes wrong.
fn fault(lie: impl FnOnce(&Log, &mut SlotContent)) -> OrderFault {
    let mut log = Log::new(4);
    log.say(&[log.bundle((1, 7), 1, &["a1", "a2"])]);
    log.say(&[log.bundle((2, 9), 1, &["b1"])]);
    let mut it = verifier(&log);
    take_all(&log, &mut it, &[]);
    let mut third = log.slot(&[log.bundle((1, 7), 2, &["a2", "a3"])]);
    it.clone().take(&third, None).unwrap();
    lie(&log, &mut third);
    let certificate = log.certificate(&third.header, 0, &QUORUM);
    let certificate = third.change.as_ref().map(|_| certificate);
    it.take(&third, certificate.as_ref()).unwrap_err()
}

fn renewal(log: &Log) -> MembershipChange {
    let life = Life { counter: 1, number: 5 };
    MembershipChange::renew(&log.group(), MemberId(3), life, &keys(3))
}

type Lie = fn(&Log, &mut SlotContent);

/// Lies about the third slot, each with a part of the fault that they are.
const LIES: &[(&str, Lie)] = &[
    ("of another slot", |_, it| it.header.slot.0 = 4),
    ("of another slot", |_, it| it.header.slot.0 = 2),
    ("of another epoch", |_, it| it.header.epoch.0 = 1),
    ("another parent", |log, it| it.header.parent = log.slots[1].header.parent),
    ("another place", |_, it| it.header.place.0 += 1),
    ("another running hash", |_, it| it.header.hash = ChainHash::default()),
    ("another state", |_, it| it.header.state = Some(ContentDigest::default())),
    ("the change that the header names is missing", |log, it| {
        it.header.change = Some(renewal(log).digest(&log.group()));
    }),
    ("a committee without a change", |log, it| {
        it.header.committee = Some(log.committee.digest());
    }),
    ("too few or many bundles", |_, it| {
        (it.header.bundles, it.bundles) = (vec![], vec![]);
    }),
    ("names other bundles", |_, it| it.header.bundles.clear()),
    ("names other bundles", |_, it| it.header.bundles.push(it.header.bundles[0])),
    ("names other bundles", |_, it| it.header.bundles[0].digest = ContentDigest::default()),
    ("another count of messages", |_, it| it.header.bundles[0].count = 3),
    ("skips another count", |_, it| it.header.bundles[0].skip = 0),
    ("skips another count", |_, it| it.header.bundles[0].skip = 2),
    ("has nothing new", |_, it| {
        it.header.bundles.push(it.header.bundles[0]);
        it.bundles.push(Arc::clone(&it.bundles[0]));
    }),
    ("has nothing new", |log, it| *it = with(log, &log.bundle((1, 7), 1, &["a1", "a2"]))),
    ("a message before a bundle is missing", |log, it| {
        *it = with(log, &log.bundle((1, 7), 4, &["a4"]));
    }),
    ("a message before a bundle is missing", |log, it| {
        *it = with(log, &log.bundle((1, 6), 2, &["x2"]));
    }),
    ("an author is no member", |log, it| *it = with(log, &log.bundle((5, 1), 1, &["x"]))),
    ("not signed by its author", |log, it| *it = with(log, &forged(log))),
    ("not signed by its author", |log, it| *it = with(log, &log.bundle((1, 6), 1, &[]))),
    ("not signed by its author", |log, it| *it = with(log, &log.bundle((1, 6), 0, &["x"]))),
    ("not signed by its author", |log, it| {
        *it = with(log, &log.bundle((1, 6), u64::MAX, &["x"]));
    }),
    ("not signed by its author", |log, it| {
        *it = with(log, &log.bundle((1, 6), 1, &["x"; BUNDLE_ITEMS_MAX + 1]));
    }),
    ("its bundles are too long", |log, it| {
        *it = with(log, &log.bundle((1, 6), 1, &[&"x".repeat(SLOT_COST_MAX)]));
    }),
    ("too few or many bundles", |log, it| {
        let bundle = |client| log.bundle((1, client), 1, &["x"]);
        let bundles: Vec<_> = (100..=100 + SLOT_BUNDLES_MAX as u64).map(bundle).collect();
        *it = log.slot(&bundles);
    }),
    ("a change is not alone", |log, it| {
        let bundles = std::mem::take(&mut it.bundles);
        *it = SlotContent { bundles, ..log.changing(renewal(log)) };
    }),
    ("a change is not alone", |log, it| {
        let named = std::mem::take(&mut it.header.bundles);
        *it = log.changing(renewal(log));
        it.header.bundles = named;
    }),
    ("names no such change", |log, it| {
        *it = log.changing(renewal(log));
        it.header.change = None;
    }),
    ("names another committee", |log, it| {
        *it = log.changing(renewal(log));
        it.header.committee = Some(log.committee.digest());
    }),
    ("the change of the membership is not valid", |log, it| {
        let life = Life { counter: 2, number: 5 };
        let change = MembershipChange::renew(&log.group(), MemberId(3), life, &keys(3));
        *it = log.changing(renewal(log));
        it.header.change = Some(change.digest(&log.group()));
        it.change = Some(Arc::new(change));
    }),
];

#[test]
fn each_lie_of_a_header_is_found_with_its_slot() {
    for (expected, lie) in LIES {
        let fault = fault(lie);
        assert_eq!(fault.slot.0, 3, "{fault}");
        assert!(fault.reason.contains(expected), "{expected}: {fault}");
        assert!(fault.to_string().starts_with("slot 3: "), "{fault}");
    }
}

/// The next slot with just this bundle, as a leader would name it that believes in it.
fn with(log: &Log, bundle: &Arc<Bundle>) -> SlotContent {
    let mut slot = log.slot(&[]);
    slot.header.bundles.push(folkmoot::proto::bft::BundleRef {
        digest: bundle.statement().digest(&log.group()),
        count: bundle.count(),
        skip: 0,
    });
    slot.bundles.push(Arc::clone(bundle));
    slot
}

/// Words in the name of member 2 that member 1 signed.
fn forged(log: &Log) -> Arc<Bundle> {
    let item = BundleItem { room: "general".into(), payload: "I owe you".into() };
    let origin = Origin { member: MemberId(2), client: 9 };
    Arc::new(Bundle::sign(&log.group(), origin, 2, vec![item], &keys(1)))
}

#[test]
fn a_certificate_that_does_not_make_the_slot_final_is_a_fault() {
    let mut log = Log::new(4);
    log.say(&[log.bundle((1, 7), 1, &["a1"])]);
    let (first, empty) = (log.slots[0].clone(), verifier(&log));
    let certificate = log.certificate(&first.header, 0, &QUORUM);
    assert!(empty.clone().take(&first, Some(&certificate)).is_ok());
    let subject = certificate.subject;
    let mut other = subject;
    other.digest = ContentDigest::default();
    for wrong in [
        log.certificate(&first.header, 0, &[1, 2]),
        log.certificate(&first.header, 0, &[1, 2, 2]),
        log.certificate(&first.header, 0, &[1, 2, 5]),
        log.votes(VotePhase::Prepare, subject, &QUORUM),
        log.votes(VotePhase::Commit, other, &QUORUM),
    ] {
        let fault = empty.clone().take(&first, Some(&wrong)).unwrap_err();
        assert_eq!((fault.slot.0, fault.reason), (1, "the certificate is not valid"));
    }
    let change = log.changing(renewal(&log));
    let mut behind = verifier(&log);
    behind.take(&first, None).unwrap();
    let fault = behind.take(&change, None).unwrap_err();
    assert_eq!(fault.reason, "a change of the membership has no certificate");
}

/// An author's oldest numberings are forgotten, and take no message again.
#[test]
fn of_too_many_numberings_the_lowest_are_forgotten_for_good() {
    let mut log = Log::new(4);
    let mut it = verifier(&log);
    for client in 1..=66 {
        let slot = log.say(&[log.bundle((1, client), 1, &["x"])]);
        it.take(&slot, None).unwrap();
    }
    let other = with(&log, &log.bundle((2, 1), 1, &["another author's"]));
    assert!(it.clone().take(&other, None).is_ok());
    let third = log.slot(&[log.bundle((1, 3), 1, &["x", "y"])]);
    assert!(it.clone().take(&third, None).is_ok());
    for client in 1..=2 {
        let slot = with(&log, &log.bundle((1, client), 1, &["x"]));
        let fault = it.clone().take(&slot, None).unwrap_err();
        assert_eq!(fault.reason, "a bundle is of a forgotten numbering");
    }
}

/// The state is that before the slot: committee, forgotten numberings, last numbers.
#[test]
fn each_slot_divisible_by_1024_names_the_state_before_it() {
    let mut log = Log::new(4);
    let mut it = verifier(&log);
    for at in 1..1_024_u64 {
        let member = u32::try_from(at % 2 + 1).unwrap();
        let client = at / 10 + 1;
        let first = log.last.get(&(MemberId(member), client)).map_or(1, |last| last + 1);
        let content = log.say(&[log.bundle((member, client), first, &["x"])]);
        it.take(&content, None).unwrap();
    }
    let mut content = log.slot(&[log.bundle((3, 1), 1, &["x"])]);
    let fault = it.clone().take(&content, None).unwrap_err();
    assert_eq!((fault.slot.0, fault.reason), (1_024, "the header names another state"));
    let bytes = SigningBytes::new("folkmoot/bft/state/1").bytes(&log.committee.digest().0);
    // Each of the two authors has 103 numberings, of which the last 64 are remembered.
    let bytes = bytes.number(2).number(1).number(39).number(2).number(39).number(2 * 64);
    let kept = log.last.iter().filter(|it| it.0.1 > 39);
    let bytes = kept.fold(bytes, |bytes, ((member, client), number)| {
        bytes.number(member.0.into()).number(*client).number(*number)
    });
    content.header.state = Some(ContentDigest(bytes.sha256()));
    assert!(it.take(&content, None).is_ok());
}

#[test]
fn certificates_that_exclude_each_other_name_the_members_that_signed_both() {
    let mut log = Log::new(7);
    log.say(&[log.bundle((1, 7), 1, &["a1"])]);
    let mine = &log.slots[0].header;
    let mut other = mine.clone();
    other.time.0 += 1;
    let committee = &log.founders;
    let between = |one: &Certificate, other: &Certificate| {
        OrderConflict::between(&log.group(), committee, (one, other))
    };
    let one = log.certificate(mine, 2, &[1, 2, 3, 4, 5]);
    let two = log.certificate(&other, 2, &[3, 4, 5, 6, 7]);
    let names = [3, 4, 5].map(MemberId).to_vec();
    assert_eq!(names.len(), committee.liars_borne() + 1);
    let conflict = OrderConflict { signed_both: names.clone(), is_one_view: true };
    assert_eq!(between(&one, &two), Some(conflict));
    let late = log.certificate(&other, 3, &[3, 4, 5, 6, 7]);
    let conflict = OrderConflict { signed_both: names, is_one_view: false };
    assert_eq!(between(&late, &one), Some(conflict));
    assert_eq!(between(&one, &log.certificate(mine, 3, &[3, 4, 5, 6, 7])), None, "one header");
    assert_eq!(between(&one, &log.certificate(&other, 2, &[3, 4, 5, 6])), None, "no quorum");
    let prepared = log.votes(VotePhase::Prepare, two.subject, &[3, 4, 5, 6, 7]);
    assert_eq!(between(&one, &prepared), None, "one is not final");
    assert_eq!(between(&prepared, &prepared), None);
    let mut next = other.clone();
    next.slot = next.slot.next();
    assert_eq!(between(&one, &log.certificate(&next, 2, &[3, 4, 5, 6, 7])), None, "two slots");
    other.epoch = other.epoch.next();
    assert_eq!(between(&one, &log.certificate(&other, 2, &[3, 4, 5, 6, 7])), None, "two epochs");
}
