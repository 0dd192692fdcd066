//! Whole logs checked offline: each by itself, and two against each other. Whoever signed both
//! sides of a contradiction is named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use folkmoot::machine::bft::Record;
use folkmoot::proto::bft::{Certificate, SlotNo};
use folkmoot::proto::chat::entry::{MemberId, SeqNo};
use folkmoot::runtime::order::audit::{AuditError, AuditedLog};
use folkmoot::runtime::order::store;

use crate::bft_log::{Log, SALT, keys};
use folkmoot::proto::bft::{Life, MembershipChange};

const HONEST: [u32; 3] = [1, 2, 3];

/// Writes a member's log with these certificates, each behind the slots up to its own.
fn write(dir: &Path, me: u32, log: &Log, certificates: &[Certificate]) -> PathBuf {
    let dir = dir.join(format!("order_{me}"));
    let mut opened = store::open(&dir, MemberId(me), log.group()).unwrap();
    let committee = Arc::new(log.founders.clone());
    let mut records = vec![Record::Group { committee, salt: SALT.to_owned(), me: MemberId(me) }];
    let mut certificates = certificates.iter().peekable();
    for slot in &log.slots {
        records.push(Record::Slot(Arc::clone(slot)));
        let own = certificates.next_if(|it| it.subject.slot == slot.header.slot);
        records.extend(own.cloned().map(Record::Final));
    }
    opened.log.write(&records).unwrap();
    opened.log.conclude().unwrap();
    dir
}

/// A log of two slots with one certificate, a change with its own, and a slot more.
fn whole() -> (Log, Vec<Certificate>) {
    let mut log = Log::new(4);
    log.say(&[log.bundle((1, 7), 1, &["pay 5", "pay 6"])]);
    let second = log.say(&[log.bundle((2, 9), 1, &["pay 7"])]);
    let mut certificates = vec![log.certificate(&second.header, 0, &HONEST)];
    let life = Life { counter: 1, number: 77 };
    let renewal = MembershipChange::renew(&log.group(), MemberId(3), life, &keys(3));
    certificates.push(log.change(renewal, &HONEST).certificate);
    let last = log.say(&[log.bundle((1, 7), 3, &["pay 8"])]);
    certificates.push(log.certificate(&last.header, 0, &[1, 2, 4]));
    (log, certificates)
}

fn damage(read: Result<AuditedLog, AuditError>) -> String {
    let Err(AuditError::Log(error)) = read else { panic!("{read:?}") };
    error.to_string()
}

#[test]
fn a_whole_log_is_read_with_its_places_and_one_without_a_certificate_is_not_final() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, certificates) = whole();
    let audited = AuditedLog::read(&write(dir.path(), 1, &log, &certificates)).unwrap();
    assert_eq!((audited.me, audited.group()), (MemberId(1), log.group()));
    assert_eq!((audited.slot(), audited.place()), (SlotNo(4), SeqNo(4)));
    // What nobody has certified may change yet.
    log.say(&[log.bundle((4, 1), 1, &["perhaps"])]);
    let longer = AuditedLog::read(&write(dir.path(), 2, &log, &certificates)).unwrap();
    assert_eq!((longer.slot(), longer.place()), (SlotNo(4), SeqNo(4)));
    assert_eq!(longer.conflict_with(&audited), None);
    let nothing = dir.path().join("absent");
    assert!(matches!(AuditedLog::read(&nothing), Err(AuditError::NoLog(..))));
    assert!(matches!(AuditedLog::read(dir.path()), Err(AuditError::NoLog(..))));
}

#[test]
fn a_log_that_does_not_hold_is_refused_with_its_line_and_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (log, certificates) = whole();
    let mut few = certificates.clone();
    few[0].signatures.pop();
    let told = damage(AuditedLog::read(&write(dir.path(), 1, &log, &few)));
    assert!(told.contains("slot 2: the certificate is not valid"), "{told}");
    let mut other = certificates.clone();
    other[2].subject.digest = other[0].subject.digest;
    let told = damage(AuditedLog::read(&write(dir.path(), 2, &log, &other)));
    assert!(told.contains("at line ") && told.contains("slot 4"), "{told}");
    // A message that its author has not signed.
    let (mut log, certificates) = whole();
    let mut forged = (*log.slots[1]).clone();
    let mut bundle = (*forged.bundles[0]).clone();
    bundle.signature = log.slots[0].bundles[0].signature;
    forged.bundles = vec![Arc::new(bundle)];
    log.slots[1] = Arc::new(forged);
    let told = damage(AuditedLog::read(&write(dir.path(), 3, &log, &certificates)));
    assert!(told.contains("slot 2: a bundle is not signed by its author"), "{told}");
}

#[test]
fn logs_that_contradict_each_other_name_the_members_that_signed_both() {
    let dir = tempfile::tempdir().unwrap();
    let history = |text: &str, signers: &[u32]| {
        let mut log = Log::new(4);
        let first = log.say(&[log.bundle((1, 7), 1, &["pay 5"])]);
        let certificates = vec![log.certificate(&first.header, 0, &HONEST)];
        let second = log.say(&[log.bundle((4, 1), 1, &[text])]);
        let own = log.certificate(&second.header, 0, signers);
        (log, [certificates, vec![own]].concat())
    };
    let (one, its) = history("pay 100 to 1", &[1, 2, 4]);
    let one = AuditedLog::read(&write(dir.path(), 1, &one, &its)).unwrap();
    let (two, its) = history("pay 100 to 2", &[2, 3, 4]);
    let two = AuditedLog::read(&write(dir.path(), 3, &two, &its)).unwrap();
    let found = one.conflict_with(&two).unwrap();
    assert_eq!(found.slot, SlotNo(2));
    let (slot, conflict) = found.conflict.unwrap();
    assert_eq!((slot, conflict.is_one_view), (SlotNo(2), true));
    assert_eq!(conflict.signed_both, [MemberId(2), MemberId(4)], "more than one: it bears one");
}
