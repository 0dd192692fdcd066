//! The log of a Byzantine order on a real disk: it is read back whole, or cut where a crash tore
//! it, or refused; and the marker beside the key knows when what was signed is gone.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use folkmoot::machine::bft::{OrderMark, OrderSnapshot, Record};
use folkmoot::model::{KeyPair, Signature, WallTime};
use folkmoot::proto::bft::message::SlotContent;
use folkmoot::proto::bft::{
    Bundle, BundleItem, BundleRef, Certificate, Committee, ContentDigest, EpochNo, Life,
    MembershipChange, OrderId, SlotHeader, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::{Body, ChainHash, HostPort, Member, MemberId, Origin, SeqNo};
use folkmoot::runtime::order::store::{self, OpenedOrderLog, SlotPage};
use proptest::prelude::*;

const ME: MemberId = MemberId(2);
const SALT: &str = "store";

fn keys(id: u32) -> KeyPair {
    KeyPair::from_secret([u8::try_from(id).unwrap(); 32])
}

fn committee() -> Arc<Committee> {
    let member = |id| {
        let at = HostPort { host: Ipv4Addr::LOCALHOST.into(), port: 7_000 };
        Member { id: MemberId(id), at, key: keys(id).public() }
    };
    Arc::new(Committee::of((1..=4).map(member)).unwrap())
}

fn group() -> OrderId {
    committee().order_id(SALT)
}

fn group_record() -> Record {
    Record::Group { committee: committee(), salt: SALT.to_owned(), me: ME }
}

/// Slots that follow each other.
struct Chain {
    epoch: EpochNo,
    parent: ContentDigest,
    place: SeqNo,
    number: u64,
    slots: Vec<Arc<SlotContent>>,
}

impl Chain {
    fn new() -> Self {
        let (epoch, parent) = (EpochNo(0), ContentDigest(group().0));
        Self { epoch, parent, place: SeqNo(0), number: 0, slots: Vec::new() }
    }

    fn header(&self, time: u64) -> SlotHeader {
        SlotHeader {
            epoch: self.epoch,
            slot: SlotNo(self.slots.len() as u64 + 1),
            parent: self.parent,
            time: WallTime(time),
            place: self.place,
            hash: ChainHash::default(),
            bundles: Vec::new(),
            change: None,
            committee: None,
            state: None,
        }
    }

    fn push(&mut self, slot: SlotContent) -> Arc<SlotContent> {
        let slot = Arc::new(slot);
        self.parent = slot.header.digest(&group());
        self.place.0 += slot.header.messages();
        self.slots.push(Arc::clone(&slot));
        slot
    }

    /// A slot with a bundle of so many messages, the first of which have places already.
    fn slot(&mut self, count: u64, skip: u64) -> Arc<SlotContent> {
        let first = self.number + 1 - skip;
        let item = |it| BundleItem { room: "r".into(), payload: format!("message {it}").into() };
        let items = (first..first + count).map(item).collect();
        self.number = first + count - 1;
        let origin = Origin { member: MemberId(3), client: 9 };
        let bundle = Bundle::sign(&group(), origin, first, items, &keys(3));
        let digest = bundle.statement().digest(&group());
        let mut header = self.header(self.number);
        header.bundles.push(BundleRef { digest, count, skip });
        self.push(SlotContent { header, bundles: vec![Arc::new(bundle)], change: None })
    }

    /// A slot that changes the committee.
    fn change(&mut self) -> Arc<SlotContent> {
        let life = Life { counter: 1, number: 5 };
        let change = MembershipChange::renew(&group(), MemberId(4), life, &keys(4));
        let mut header = self.header(0);
        header.change = Some(change.digest(&group()));
        let slot =
            self.push(SlotContent { header, bundles: Vec::new(), change: Some(Arc::new(change)) });
        self.epoch = self.epoch.next();
        slot
    }
}

fn certificate(phase: VotePhase, slot: &SlotContent) -> Certificate {
    let SlotHeader { epoch, slot: number, .. } = slot.header;
    let digest = slot.header.digest(&group());
    let subject = VoteSubject { epoch, view: ViewNo(0), slot: number, digest };
    Certificate { phase, subject, signatures: vec![(ME, Signature::from_bytes([1; 64]))] }
}

fn slot_record(slot: &Arc<SlotContent>) -> Record {
    Record::Slot(Arc::clone(slot))
}

fn prepared(slot: &SlotContent) -> Record {
    Record::Prepared(certificate(VotePhase::Prepare, slot))
}

fn committed(slot: &SlotContent) -> Record {
    Record::Final(certificate(VotePhase::Commit, slot))
}

fn view(view: u64) -> Record {
    Record::View { epoch: EpochNo(0), view: ViewNo(view) }
}

fn typed(number: u64) -> Record {
    let items = vec![BundleItem { room: "r".into(), payload: "typed".into() }];
    let origin = Origin { member: ME, client: 1 };
    Record::Typed(Arc::new(Bundle::sign(&group(), origin, number, items, &keys(2))))
}

/// The state behind a slot of an epoch without changes, where messages typed here up to a number
/// have places.
fn snapshot(chain: &Chain, slot: usize, typed: u64) -> OrderSnapshot {
    let last = &chain.slots[slot - 1];
    OrderSnapshot {
        slot: last.header.slot,
        digest: last.header.digest(&group()),
        place: SeqNo(last.header.place.0 + last.header.messages()),
        hash: ChainHash::default(),
        epoch: EpochNo(0),
        epoch_start: (SlotNo(0), ContentDigest(group().0)),
        committee: committee(),
        marks: vec![OrderMark { member: ME, client: 1, number: typed }],
        floors: Vec::new(),
        certificate: certificate(VotePhase::Commit, last),
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("peer_2.log")
}

fn open(dir: &Path) -> OpenedOrderLog {
    store::open(dir, ME, group()).unwrap()
}

fn append(opened: &mut OpenedOrderLog, records: &[Record]) {
    opened.log.write(records).unwrap();
    opened.log.conclude().unwrap();
}

/// Records of slots, each prepared and final.
fn decided(slots: &[Arc<SlotContent>]) -> Vec<Record> {
    slots.iter().flat_map(|it| [slot_record(it), prepared(it), committed(it)]).collect()
}

/// A log of a group with these slots, in two writes.
fn log_of(dir: &Path, slots: &[Arc<SlotContent>]) -> Vec<Record> {
    let mut opened = open(dir);
    append(&mut opened, &[group_record(), view(0)]);
    append(&mut opened, &decided(slots));
    [vec![group_record(), view(0)], decided(slots)].concat()
}

fn page(opened: &OpenedOrderLog, from: u64, slots_max: usize, bytes_max: usize) -> SlotPage {
    opened.log.reader().unwrap().page(SlotNo(from), slots_max, bytes_max).unwrap()
}

fn numbers(page: &SlotPage) -> Vec<u64> {
    page.slots.iter().map(|it| it.header.slot.0).collect()
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..20).for_each(|_| drop(chain.slot(3, 0)));
    let records = log_of(dir.path(), &chain.slots);
    let mut opened = open(dir.path());
    assert_eq!((&opened.memory.records, opened.memory.is_lost.as_deref()), (&records, None));
    let more = [typed(1), view(3), Record::Hole { life: Life::default() }];
    append(&mut opened, &more);
    drop(opened);
    assert_eq!(open(dir.path()).memory.records, [records, more.to_vec()].concat());
    // Another group or member must not take it.
    let other = committee().order_id("other");
    let error = store::open(dir.path(), ME, other).unwrap_err().to_string();
    assert!(error.contains(&group().to_string()), "{error}");
}

#[test]
fn a_snapshot_leaves_out_slots_and_certificates_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..9).for_each(|_| drop(chain.slot(3, 0)));
    log_of(dir.path(), &chain.slots[..6]);
    let rest = [
        vec![typed(1), typed(2), view(1), Record::Hole { life: Life::default() }],
        decided(&chain.slots[6..8]),
        vec![slot_record(&chain.slots[8]), prepared(&chain.slots[8])],
    ]
    .concat();
    let mut opened = open(dir.path());
    append(&mut opened, &rest);
    let snapshot = snapshot(&chain, 6, 1);
    opened.log.snapshots().unwrap().write(&snapshot).unwrap();
    drop(opened);
    let opened = open(dir.path());
    // The newest promise before what is read counts, should the log have lost its end.
    let expected = [vec![group_record(), view(0)], rest[1..].to_vec()].concat();
    assert_eq!(opened.memory.records, expected, "typed(1) has a place");
    assert_eq!(opened.memory.snapshot.as_deref(), Some(&snapshot));
    assert_eq!(numbers(&page(&opened, 1, 128, usize::MAX)), [1, 2, 3, 4, 5, 6, 7, 8]);
    drop(opened);
    // A snapshot that is damaged is of no use, and the log has it all.
    let path = dir.path().join("peer_2.snapshot");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[1..]).unwrap();
    let opened = open(dir.path());
    assert_eq!((opened.notes.len(), opened.memory.snapshot.is_none()), (1, true));
    assert_eq!(opened.memory.records.len(), 2 + 18 + rest.len());
    drop(opened);
    // A log that ends before its snapshot is an old copy.
    fs::write(&path, &whole).unwrap();
    fs::remove_file(log_path(dir.path())).unwrap();
    log_of(&dir.path().join("other"), &chain.slots[..5]);
    fs::copy(log_path(&dir.path().join("other")), log_path(dir.path())).unwrap();
    let error = store::open(dir.path(), ME, group()).unwrap_err().to_string();
    assert!(error.contains("slot 5") && error.contains("--restored"), "{error}");
}

/// Everything that a log gives: its records but for views that are over, and what its reader finds.
fn all_of(opened: &OpenedOrderLog) -> (Vec<Record>, Vec<SlotPage>, Vec<Option<SlotNo>>) {
    let is_view = |it: &Record| matches!(it, Record::View { .. });
    let records = &opened.memory.records;
    let newest = records.iter().rposition(is_view);
    let counts =
        |(at, it): (usize, &Record)| (!is_view(it) || Some(at) == newest).then(|| it.clone());
    let reader = opened.log.reader().unwrap();
    let pages = (1..=reader.last().0).map(|slot| page(opened, slot, 2, usize::MAX)).collect();
    let slots = (0..40).map(|place| reader.slot_of(SeqNo(place))).collect();
    (records.iter().enumerate().filter_map(counts).collect(), pages, slots)
}

/// A log of these slots with snapshots at the second, fifth and eighth. Whenever it is opened, it
/// gives the same with and without its index.
fn covered_log(dir: &Path, chain: &Chain) -> OpenedOrderLog {
    let slots = &chain.slots;
    // Another content of slot 6, of a view that decided nothing, stands before slot 5 is final.
    let mut rival = Chain::new();
    slots[..5].iter().for_each(|it| drop(rival.push((**it).clone())));
    let rival = rival.slot(1, 0);
    let index = dir.join("peer_2.index");
    let mut opened = open(dir);
    append(&mut opened, &[group_record(), view(0), typed(1), typed(2)]);
    for (at, slot) in slots.iter().enumerate() {
        let number = at + 1;
        append(&mut opened, &[slot_record(slot), prepared(slot)]);
        match number {
            3 => append(&mut opened, &[view(1), typed(3), Record::Hole { life: Life::default() }]),
            4 => append(&mut opened, &[slot_record(&slots[4]), slot_record(&rival)]),
            _ => {}
        }
        if number % 3 != 0 {
            append(&mut opened, &[committed(slot)]);
        }
        if [2, 5, 8].contains(&number) {
            let snapshot = snapshot(chain, number, number as u64 / 3);
            opened.log.snapshots().unwrap().write(&snapshot).unwrap();
        }
        if [4, 5, 9, 12].contains(&number) {
            drop(opened);
            let with = open(dir);
            let (kept, seen) = (fs::read(&index).unwrap(), all_of(&with));
            drop(with);
            fs::remove_file(&index).unwrap();
            let without = open(dir);
            assert_eq!(seen, all_of(&without), "with {number} slots");
            drop(without);
            fs::write(&index, &kept).unwrap();
            opened = open(dir);
        }
    }
    opened
}

#[test]
fn a_start_reads_only_what_its_snapshot_does_not_cover() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..12).for_each(|_| drop(chain.slot(3, 0)));
    let (slots, opened) = (&chain.slots, covered_log(dir.path(), &chain));
    let [index, snapshot_path] =
        ["index", "snapshot"].map(|it| dir.path().join("peer_2").with_extension(it));
    let seen = all_of(&opened);
    drop(opened);
    // What is covered is not read: damage in it is found by those who read it.
    let (log, whole) = (log_path(dir.path()), fs::read(log_path(dir.path())).unwrap());
    let text = String::from_utf8(whole.clone()).unwrap();
    let mut damaged = whole.clone();
    damaged[text.find("message 4").unwrap()] ^= 1;
    fs::write(&log, &damaged).unwrap();
    let opened = open(dir.path());
    assert_eq!(opened.memory.records, seen.0);
    assert!(opened.log.reader().unwrap().page(SlotNo(2), 1, usize::MAX).is_err());
    drop(opened);
    let mut late = whole.clone();
    late[text.rfind("message 36").unwrap()] ^= 1;
    fs::write(&log, &late).unwrap();
    let error = store::open(dir.path(), ME, group()).unwrap_err().to_string();
    let line = 1 + text[..text.rfind("message 36").unwrap()].matches('\n').count();
    assert!(error.contains(&format!("corrupt at line {line}:")), "{line}: {error}");
    // An index that is torn, ahead of its snapshot, or of another log is made again.
    fs::write(&log, &whole).unwrap();
    let (parts, newest) = (fs::read(&index).unwrap(), fs::read(&snapshot_path).unwrap());
    for len in [0, 40, parts.len() / 2, parts.len() - 1] {
        fs::write(&index, &parts[..len]).unwrap();
        let opened = open(dir.path());
        assert_eq!((all_of(&opened), opened.notes.len()), (seen.clone(), 0), "{len} bytes");
        let again = snapshot(&chain, 10, 3);
        opened.log.snapshots().unwrap().write(&again).unwrap();
        drop(opened);
        fs::write(&log, &damaged).unwrap();
        let opened = open(dir.path());
        assert_eq!(numbers(&page(&opened, 11, 1, usize::MAX)), [11], "it is not read");
        drop(opened);
        fs::write(&log, &whole).unwrap();
        fs::write(&snapshot_path, &newest).unwrap();
        assert_eq!(all_of(&open(dir.path())), seen, "the index is ahead");
    }
    let other = tempfile::tempdir().unwrap();
    log_of(other.path(), slots);
    fs::copy(log_path(other.path()), &log).unwrap();
    let opened = open(dir.path());
    assert_eq!(opened.notes.len(), 1, "{:?}", opened.notes);
    assert_eq!(numbers(&page(&opened, 11, 2, usize::MAX)), [11, 12]);
}

#[test]
fn a_torn_end_is_cut_wherever_it_is_and_damage_elsewhere_is_refused_with_line_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..5).for_each(|_| drop(chain.slot(2, 0)));
    let records = log_of(dir.path(), &chain.slots[..4]);
    let confirmed = fs::read(log_path(dir.path())).unwrap();
    let mut opened = open(dir.path());
    opened.log.write(&decided(&chain.slots[4..])).unwrap();
    drop(opened);
    let whole = fs::read(log_path(dir.path())).unwrap();
    for end in (confirmed.len()..whole.len()).step_by(37) {
        fs::write(log_path(dir.path()), &whole[..end]).unwrap();
        let mut opened = open(dir.path());
        assert!(opened.memory.records.starts_with(&records), "cut at {end}");
        assert!(opened.memory.records.len() < records.len() + 3, "cut at {end}");
        let has = [opened.memory.records.clone(), vec![view(5)]].concat();
        append(&mut opened, &[view(5)]);
        drop(opened);
        assert_eq!(open(dir.path()).memory.records, has, "cut at {end}, and gone on");
    }
    for at in (0..confirmed.len() - 200).step_by(11) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(log_path(dir.path()), &bytes).unwrap();
        let error = store::open(dir.path(), ME, group()).unwrap_err().to_string();
        assert!(error.contains("peer_2.log is corrupt at line "), "{error}");
        assert!(error.contains("--restored"), "{error}");
        assert_eq!(fs::read(log_path(dir.path())).unwrap(), bytes, "it is left as it is");
    }
}

#[test]
fn pages_end_with_a_certificate_or_the_headers_up_to_one_and_within_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    (0..5).for_each(|_| drop(chain.slot(2, 0)));
    chain.change();
    (0..3).for_each(|_| drop(chain.slot(2, 0)));
    let slots = &chain.slots;
    let mut opened = open(dir.path());
    append(&mut opened, &[group_record()]);
    // Another content of slot 2 stands in the log, of a view that decided nothing.
    let mut rival = Chain::new();
    rival.push((*slots[0]).clone());
    let rival = rival.slot(1, 0);
    for (at, slot) in slots.iter().enumerate() {
        if at == 1 {
            append(&mut opened, &[slot_record(&rival), prepared(&rival)]);
        }
        append(&mut opened, &[slot_record(slot)]);
        if [2, 5, 7].contains(&at) {
            append(&mut opened, &[committed(slot)]);
        }
    }
    for _ in 0..2 {
        let certificate = |at: usize| Some(certificate(VotePhase::Commit, &slots[at]));
        let first = page(&opened, 1, 128, usize::MAX);
        assert_eq!(first.slots, slots[..6], "the epoch ends with the change");
        assert_eq!((first.headers.len(), first.certificate), (0, certificate(5)));
        let some = page(&opened, 1, 4, usize::MAX);
        assert_eq!((numbers(&some), some.certificate), (vec![1, 2, 3], certificate(2)));
        let short = page(&opened, 1, 128, 1);
        assert_eq!((numbers(&short), short.certificate), (vec![1], certificate(2)));
        let headers: Vec<_> = slots[1..3].iter().map(|it| it.header.clone()).collect();
        assert_eq!(short.headers, headers);
        let second = page(&opened, 7, 128, usize::MAX);
        assert_eq!((numbers(&second), second.certificate), (vec![7, 8], certificate(7)));
        assert_eq!(page(&opened, 9, 128, usize::MAX), SlotPage::default(), "it is not final");
        let reader = opened.log.reader().unwrap();
        assert_eq!((reader.last(), reader.changes_before(SlotNo(9))), (SlotNo(8), vec![SlotNo(6)]));
        drop(opened);
        opened = open(dir.path());
    }
}

#[test]
fn messages_are_found_by_their_places_and_those_with_a_place_already_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    chain.slot(3, 0);
    chain.slot(4, 2);
    chain.change();
    chain.slot(2, 0);
    log_of(dir.path(), &chain.slots);
    let reader = open(dir.path()).log.reader().unwrap();
    let text = |body: &Body| match body {
        Body::Chat(chat) => format!("{} {}", chat.msg_id.number, chat.payload),
        Body::Opening | Body::Membership(_) => panic!("no order has these"),
    };
    let read = |from, count| {
        let entries = reader.entries(SeqNo(from), count, usize::MAX).unwrap();
        entries.iter().map(|it| (it.seq_no.0, text(&it.body))).collect::<Vec<_>>()
    };
    let all: Vec<_> = (1..=7).map(|it| (it, format!("{it} message {it}"))).collect();
    assert_eq!(read(1, u64::MAX), all);
    assert_eq!(read(4, 3), all[3..6]);
    assert_eq!(read(8, 1), []);
    let slots = [1, 3, 4, 5, 6, 7].map(|it| reader.slot_of(SeqNo(it)).unwrap().0);
    assert_eq!(slots, [1, 1, 2, 2, 4, 4]);
}

#[test]
fn the_marker_knows_a_log_that_is_gone_or_cut_until_the_loss_is_on_disk() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let marker = store::marker_of(&home.path().join("has-signed"), &group());
    let start = || {
        let mut opened = open(dir.path());
        opened.mark(&marker).unwrap();
        opened
    };
    let mut chain = Chain::new();
    (0..4).for_each(|_| drop(chain.slot(2, 0)));
    let mut opened = start();
    assert_eq!((opened.memory.is_lost.as_deref(), marker.exists()), (None, false));
    append(&mut opened, &[group_record()]);
    assert!(marker.exists(), "before anything is signed");
    append(&mut opened, &decided(&chain.slots[..2]));
    drop(opened);
    let copy = fs::read(log_path(dir.path())).unwrap();
    let mut opened = start();
    assert_eq!(opened.memory.is_lost, None);
    append(&mut opened, &decided(&chain.slots[2..]));
    drop(opened);
    // A copy, at each start anew, until the loss is noted in the log itself.
    fs::write(log_path(dir.path()), &copy).unwrap();
    for _ in 0..2 {
        let reason = start().memory.is_lost.unwrap();
        assert!(reason.contains("replaced by a copy"), "{reason}");
    }
    let mut opened = start();
    append(&mut opened, &[view(9)]);
    drop(opened);
    let mut opened = start();
    assert!(opened.memory.is_lost.is_some(), "a record of another kind changes nothing");
    append(&mut opened, &[Record::Hole { life: Life::default() }]);
    drop(opened);
    assert_eq!(start().memory.is_lost, None);
    // No log at all.
    fs::remove_file(log_path(dir.path())).unwrap();
    let mut opened = start();
    let reason = opened.memory.is_lost.clone().unwrap();
    assert!(reason.contains("its log is gone"), "{reason}");
    append(&mut opened, &[group_record(), Record::Hole { life: Life::default() }]);
    drop(opened);
    assert_eq!(start().memory.is_lost, None);
    // A group of other founders is another matter.
    let other = committee().order_id("other");
    assert_ne!(store::marker_of(&home.path().join("has-signed"), &other), marker);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However a log's bytes are damaged, nothing panics, and it is refused or gives back a
    /// beginning of what was written.
    #[test]
    fn a_damaged_log_is_refused_or_a_beginning_of_what_was_written(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = Chain::new();
        (0..3).for_each(|_| drop(chain.slot(2, 0)));
        let records = log_of(dir.path(), &chain.slots);
        let mut bytes = fs::read(log_path(dir.path())).unwrap();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => { bytes.remove(at); }
                _ => bytes.truncate(at + 1),
            }
        }
        fs::write(log_path(dir.path()), &bytes).unwrap();
        if let Ok(opened) = store::open(dir.path(), ME, group()) {
            prop_assert!(records.starts_with(&opened.memory.records));
        }
    }
}
