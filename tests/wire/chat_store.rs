//! The log of a member on a real disk: what survives a kill, and what is refused.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use folkmoot::machine::chat::event::AuthorMark;
use folkmoot::machine::chat::{Record, Snapshot};
use folkmoot::model::{KeyPair, PublicKey, WallTime};
use folkmoot::proto::chat::entry::{
    Body, ChainHash, ChatText, Entry, GroupId, MemberId, Membership, MsgId, Origin, SeqNo, Term,
};
use folkmoot::runtime::chat::store::{self, LogFile, LogStoreError, OpenedLog};

const ME: MemberId = MemberId(2);
const GROUP: GroupId = GroupId([7; 16]);

fn key(number: u8) -> PublicKey {
    KeyPair::from_secret([number; 32]).public()
}

fn group() -> Record {
    Record::Group { group: GROUP, me: ME, key: key(1) }
}

fn chat(number: u64) -> ChatText {
    let msg_id = MsgId { origin: Origin { member: ME, client: 0 }, number };
    ChatText { msg_id, room_id: "general".into(), payload: format!("message {number}").into() }
}

fn entry_of(seq: u64, term: u64) -> Arc<Entry> {
    let (seq_no, term, time) = (SeqNo(seq), Term(term), WallTime(seq));
    let body = if seq % 10 == 1 { Body::Opening } else { Body::Chat(chat(seq)) };
    Arc::new(Entry { seq_no, term, leader: MemberId(3), time, body })
}

fn entry(seq: u64, term: u64) -> Record {
    Record::Entry(entry_of(seq, term))
}

fn entries(seqs: impl IntoIterator<Item = u64>, term: u64) -> Vec<Record> {
    seqs.into_iter().map(|seq| entry(seq, term)).collect()
}

fn open(dir: &Path) -> OpenedLog {
    store::open(dir, ME, key(1)).unwrap()
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("peer_2.log")
}

/// A log with a group, a term and `count` entries.
fn log_of(dir: &Path, count: u64) -> Vec<Record> {
    let mut records = vec![group(), Record::Term { term: Term(1), voted_for: Some(MemberId(3)) }];
    records.extend(entries(1..=count, 1));
    open(dir).log.append(&records).unwrap();
    records.remove(0);
    records
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let records = log_of(&dir.path().join("made/on/the/way"), 30);
    let found = open(&dir.path().join("made/on/the/way")).found;
    assert_eq!((found.group, found.snapshot, found.records), (Some(GROUP), None, records));
}

#[test]
fn the_first_start_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    assert_eq!((opened.found, opened.notes.len()), (store::LogContent::default(), 0));
}

/// Offsets of the lines of a log, and its end.
fn starts(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

#[test]
fn a_last_line_torn_anywhere_is_cut_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let records = log_of(dir.path(), 5);
    let whole = fs::read(log_path(dir.path())).unwrap();
    // Its lines are a mark, seven records and another mark.
    let (start, end_max) = (starts(&whole)[7], starts(&whole)[8]);
    for end in start + 1..end_max {
        fs::write(log_path(dir.path()), &whole[..end]).unwrap();
        let opened = open(dir.path());
        assert_eq!(opened.found.records, records[..records.len() - 1]);
        assert!(opened.notes[0].contains("peer_2.log: line 8 was torn"), "{:?}", opened.notes);
        drop(opened);
        let mut opened = open(dir.path());
        assert_eq!(opened.notes.len(), 0);
        opened.log.append(&[entry(5, 1)]).unwrap();
        drop(opened);
        assert_eq!(open(dir.path()).found.records, records);
    }
}

#[test]
fn a_flipped_bit_is_refused_with_file_and_line_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 20);
    let whole = fs::read(log_path(dir.path())).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
    for at in (0..last).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(log_path(dir.path()), &bytes).unwrap();
        let error = store::open(dir.path(), ME, key(1)).unwrap_err().to_string();
        assert!(error.contains("peer_2.log is corrupt at line "), "{error}");
        assert!(error.contains("an older copy is no remedy"), "{error}");
        assert_eq!(fs::read(log_path(dir.path())).unwrap(), bytes, "it is left as it is");
    }
}

#[test]
fn a_hole_in_a_last_write_is_cut_wherever_it_is_and_refused_in_one_that_was_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let records = log_of(dir.path(), 30);
    // Each write is followed by a mark, which is the last line.
    let confirmed = |bytes: &[u8]| *starts(bytes).iter().rev().nth(1).unwrap();
    let first_end = confirmed(&fs::read(log_path(dir.path())).unwrap());
    open(dir.path()).log.append(&entries(31..=60, 1)).unwrap();
    let whole = fs::read(log_path(dir.path())).unwrap();
    let end = confirmed(&whole);
    for start in (0..end - 200).step_by(101) {
        let mut bytes = whole.clone();
        bytes[start..start + 200].fill(0);
        fs::write(log_path(dir.path()), &bytes).unwrap();
        let refused = store::open(dir.path(), ME, key(1)).unwrap_err();
        assert!(matches!(refused, LogStoreError::Corrupt { .. }), "{refused}");
        assert_eq!(fs::read(log_path(dir.path())).unwrap(), bytes, "it is left as it is");
        // The same before the second write was confirmed.
        fs::write(log_path(dir.path()), &bytes[..end]).unwrap();
        let opened = store::open(dir.path(), ME, key(1));
        if start < first_end {
            let refused = opened.map(|it| it.notes).unwrap_err();
            assert!(matches!(refused, LogStoreError::Corrupt { .. }), "{start}: {refused}");
            continue;
        }
        let mut opened = opened.unwrap();
        assert!(opened.notes[0].contains("was torn by a crash"), "{:?}", opened.notes);
        let found = &opened.found.records;
        assert!(found.starts_with(&records) && found.len() < records.len() + 30, "{start}");
        let next = found.len() as u64;
        opened.log.append(&[entry(next, 1)]).unwrap();
        drop(opened);
        assert_eq!(open(dir.path()).found.records.len() as u64, next + 1);
    }
}

#[test]
fn a_hole_in_what_was_only_typed_here_keeps_no_member_out_and_the_texts_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let records = log_of(dir.path(), 10);
    let mut opened = open(dir.path());
    for number in 11..=20 {
        opened.log.append(&[Record::Typed(chat(number))]).unwrap();
    }
    drop(opened);
    let whole = fs::read(log_path(dir.path())).unwrap();
    let at = starts(&whole);
    let mut bytes = whole.clone();
    bytes[at[17]..at[20] + 9].fill(0);
    fs::write(log_path(dir.path()), &bytes).unwrap();
    let opened = open(dir.path());
    let mut expected = records.clone();
    expected.extend([11, 12].map(|number| Record::Typed(chat(number))));
    assert_eq!(opened.found.records, expected);
    assert!(opened.notes.iter().any(|it| it.ends_with("send it again: message 20")));
    drop(opened);
    // Behind them stands what others rely on.
    fs::write(log_path(dir.path()), &whole).unwrap();
    open(dir.path()).log.append(&[entry(11, 1)]).unwrap();
    let mut bytes = fs::read(log_path(dir.path())).unwrap();
    bytes[at[17]..at[20] + 9].fill(0);
    fs::write(log_path(dir.path()), &bytes).unwrap();
    let refused = store::open(dir.path(), ME, key(1)).unwrap_err();
    assert!(matches!(refused, LogStoreError::Corrupt { .. }), "{refused}");
}

#[test]
fn somebody_elses_log_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    log_of(dir.path(), 3);
    let error = store::open(dir.path(), ME, key(9)).unwrap_err();
    assert!(matches!(error, LogStoreError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("is the log of peer_2"), "{error}");
    fs::copy(log_path(dir.path()), dir.path().join("peer_5.log")).unwrap();
    let error = store::open(dir.path(), MemberId(5), key(1)).unwrap_err().to_string();
    assert!(error.contains("is the log of peer_2") && error.contains("--log-dir"), "{error}");
}

#[test]
fn a_member_whose_log_is_gone_does_not_vote_again() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("has-a-log");
    let mut opened = open(dir.path());
    opened.mark(&marker, ME).unwrap();
    assert!(!marker.exists(), "it is one of no group yet");
    opened.log.append(&[group(), entry(1, 1)]).unwrap();
    assert!(marker.exists());
    drop(opened);
    open(dir.path()).mark(&marker, ME).unwrap();
    for loss in ["truncated", "removed"] {
        match loss {
            "truncated" => fs::write(log_path(dir.path()), "").unwrap(),
            _ => fs::remove_file(log_path(dir.path())).unwrap(),
        }
        let error = open(dir.path()).mark(&marker, ME).unwrap_err();
        assert!(matches!(error, LogStoreError::Forgotten { .. }), "{loss}: {error}");
        assert!(error.to_string().contains("peer chat remove 2"), "{error}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let term = |term| Record::Term { term: Term(term), voted_for: None };
    let table: [(Vec<Record>, &str); 5] = [
        (vec![group(), entry(2, 1)], "entry 2 follows entry 0"),
        (vec![group(), entry(1, 1), entry(3, 1)], "entry 3 follows entry 1"),
        (vec![group(), entry(1, 1), entry(1, 1)], "entry 1 follows entry 1"),
        (vec![term(1), entry(1, 1)], "it names no group"),
        (vec![group(), entry(1, 1), group()], "names a group"),
    ];
    for (records, expected) in table {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).log.append(&records).unwrap();
        let error = store::open(dir.path(), ME, key(1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let line = b"{\"record\":\"of another program\"}";
    let line = format!("{:08x} {}\n", crc32fast::hash(line), line.escape_ascii());
    fs::write(log_path(dir.path()), line.replace('\\', "")).unwrap();
    let error = store::open(dir.path(), ME, key(1)).unwrap_err().to_string();
    assert!(error.contains("at line 1 a record that this version does not know"), "{error}");
}

#[test]
fn two_processes_never_share_a_log_and_a_bad_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path());
    let error = store::open(dir.path(), ME, key(1)).unwrap_err().to_string();
    assert!(error.contains("another process with this id"), "{error}");
    store::open(dir.path(), MemberId(3), key(3)).unwrap();
    drop(held);
    open(dir.path());
    fs::write(dir.path().join("file"), "").unwrap();
    let error = store::open(&dir.path().join("file/logs"), ME, key(1)).unwrap_err().to_string();
    assert!(error.contains("cannot create") && error.contains("file/logs"), "{error}");
}

#[test]
fn any_range_is_found_in_a_long_log_whatever_was_cut_off_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let mut records = vec![group()];
    records.extend(entries(1..=2_000, 1));
    records.push(Record::Cut { from: SeqNo(1_500) });
    records.extend(entries(1_500..=1_800, 2));
    records.push(Record::Cut { from: SeqNo(1_700) });
    records.push(Record::Cut { from: SeqNo(1_600) });
    records.extend(entries(1_600..=3_000, 3));
    let term = |seq: u64| Term(1 + u64::from(seq >= 1_500) + u64::from(seq >= 1_600));
    for part in records.chunks(97) {
        opened.log.append(part).unwrap();
    }
    let check = |reader: &store::LogReader| {
        assert_eq!(reader.last(), SeqNo(3_000));
        for from in [1, 2, 256, 257, 1_499, 1_500, 1_501, 1_599, 1_600, 1_700, 2_999, 3_000] {
            let page = reader.page(SeqNo(from), 40, usize::MAX).unwrap();
            let seqs: Vec<_> = page.entries.iter().map(|it| it.seq_no.0).collect();
            assert_eq!(seqs, (from..3_001.min(from + 40)).collect::<Vec<_>>());
            assert!(
                page.entries.iter().all(|it| **it == *entry_of(it.seq_no.0, term(it.seq_no.0).0))
            );
            let before = if from == 1 { Term(0) } else { term(from - 1) };
            assert_eq!(page.prev_term, before, "before {from}");
        }
        assert_eq!(reader.page(SeqNo(3_001), 40, usize::MAX).unwrap().entries.len(), 0);
        let small = reader.page(SeqNo(9), 40, 1).unwrap();
        assert_eq!(small.entries.len(), 1, "one if there is one");
        let some = reader.page(SeqNo(9), 40, 1_000).unwrap().entries.len();
        assert!((2..10).contains(&some), "{some}");
    };
    check(&opened.log.reader().unwrap());
    let mut reader = opened.log.reader().unwrap();
    drop(opened);
    check(&open(dir.path()).log.reader().unwrap());
    check(&LogFile::open(&log_path(dir.path())).unwrap().reader);
    let (mut chain, mut expected) = (ChainHash::default(), Vec::new());
    for seq in 1..=3_000 {
        chain = chain.after(&entry_of(seq, term(seq).0));
        expected.push((SeqNo(seq), chain));
    }
    // Again with what was learned the first time, and from before that.
    for at in [vec![1, 1_600, 3_000], vec![1_024, 1_025], vec![2_048], vec![7], vec![3_000, 4_000]]
    {
        let found = reader.hashes(&at.iter().map(|it| SeqNo(*it)).collect::<Vec<_>>()).unwrap();
        let known = at.iter().filter(|it| **it <= 3_000);
        assert_eq!(found, known.map(|it| expected[*it as usize - 1]).collect::<Vec<_>>());
    }
}

#[test]
fn a_log_that_goes_on_as_another_group_is_read_back_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = log_of(dir.path(), 12);
    let mut opened = open(dir.path());
    opened.log.snapshots().write(&snapshot(1, 1)).unwrap();
    let again = |group| Record::Group { group, me: ME, key: key(1) };
    let recovered = [again(GroupId([8; 16])), entry(13, 2)];
    opened.log.append(&recovered).unwrap();
    drop(opened);
    let found = open(dir.path()).found;
    assert_eq!((found.group, found.snapshot), (Some(GroupId([8; 16])), Some(snapshot(1, 1))));
    records.remove(1);
    records.push(entry(13, 2));
    assert_eq!(found.records, records);
    let file = LogFile::open(&log_path(dir.path())).unwrap();
    assert_eq!((file.group, file.last), (Some(GroupId([8; 16])), SeqNo(13)));
    // A group is never gone back to.
    open(dir.path()).log.append(&[again(GROUP)]).unwrap();
    let error = store::open(dir.path(), ME, key(1)).unwrap_err().to_string();
    assert!(error.contains("it names a group"), "{error}");
}

fn snapshot(seq: u64, typed: u64) -> Snapshot {
    Snapshot {
        group: GROUP,
        seq_no: SeqNo(seq),
        term: Term(1),
        chain: ChainHash([3; 32]),
        membership: Arc::new(Membership::default()),
        authors: vec![AuthorMark { member: ME, client: 0, number: typed, seq_no: SeqNo(seq) }],
    }
}

#[test]
fn what_was_cut_off_before_a_snapshot_does_not_come_back_and_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let mut records = vec![group()];
    records.extend(entries(1..=100, 1));
    records.push(Record::Cut { from: SeqNo(90) });
    records.extend(entries(90..=97, 2));
    opened.log.append(&records).unwrap();
    opened.log.snapshots().write(&snapshot(95, 1)).unwrap();
    drop(opened);
    let found = open(dir.path()).found;
    assert_eq!(found.snapshot, Some(snapshot(95, 1)));
    let mut log = Vec::new();
    for record in found.records {
        match record {
            Record::Entry(entry) => log.push((entry.seq_no.0, entry.term.0)),
            Record::Cut { from } => log.retain(|(seq, _)| *seq < from.0),
            Record::Group { .. }
            | Record::Term { .. }
            | Record::Typed(_)
            | Record::Renamed { .. }
            | Record::GivenBack { .. }
            | Record::Rewound
            | Record::Commit { .. } => {}
        }
    }
    assert_eq!(log, [(96, 2), (97, 2)]);
}

#[test]
fn after_a_snapshot_only_what_it_does_not_have_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let term = |term| Record::Term { term: Term(term), voted_for: None };
    let commit = |seq| Record::Commit { seq_no: SeqNo(seq) };
    let mut opened = open(dir.path());
    let mut records = vec![group(), term(1), Record::Typed(chat(1)), Record::Typed(chat(2))];
    records.extend(entries(1..=100, 1));
    records.extend([commit(90), term(2), Record::Typed(chat(3)), commit(95)]);
    records.extend(entries(101..=105, 2));
    opened.log.append(&records).unwrap();
    opened.log.snapshots().write(&snapshot(95, 1)).unwrap();
    drop(opened);
    let found = open(dir.path()).found;
    assert_eq!(found.snapshot, Some(snapshot(95, 1)));
    let mut expected = vec![Record::Typed(chat(2))];
    expected.extend(entries(96..=100, 1));
    expected.extend([term(2), Record::Typed(chat(3))]);
    expected.extend(entries(101..=105, 2));
    assert_eq!(found.records, expected);
    // A snapshot that is of no use costs time and nothing else.
    let path = dir.path().join("peer_2.snapshot");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let opened = open(dir.path());
    assert!(opened.notes[0].contains("peer_2.snapshot is of no use"), "{:?}", opened.notes);
    assert_eq!(opened.found.records.len(), 105 + 5);
    drop(opened);
    // A log that is shorter than its snapshot has forgotten what is final.
    store::open(dir.path(), ME, key(1)).unwrap().log.snapshots().write(&snapshot(106, 1)).unwrap();
    let error = store::open(dir.path(), ME, key(1)).unwrap_err().to_string();
    assert!(error.contains("ends with entry 105, before its snapshot"), "{error}");
}

/// Not a test of its own: what the next ones kill, or starve.
#[test]
fn the_child_that_writes() {
    let Ok(dir) = std::env::var("CHAT_STORE_CHILD") else { return };
    let mut opened = open(Path::new(&dir));
    let mut next = opened.log.reader().unwrap().last().0 + 1;
    if next == 1 {
        opened.log.append(&[group()]).unwrap();
    }
    loop {
        let batch = entries(next..next + 1 + next % 7, 1);
        if let Err(error) = opened.log.append(&batch) {
            println!("failed: {error}");
            break;
        }
        next += batch.len() as u64;
        println!("kept {}", next - 1);
    }
    drop(opened);
    let _ = fs::remove_file(Path::new(&dir).join("filler"));
    println!("found {}", open(Path::new(&dir)).log.reader().unwrap().last().0);
}

fn child(mut command: Command, dir: &Path) -> std::process::Child {
    let args = ["--exact", "chat_store::the_child_that_writes", "--nocapture"];
    command.args(args).env("CHAT_STORE_CHILD", dir).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_kill_at_any_moment_costs_nothing_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for round in 0..8_u32 {
        let mut child = child(Command::new(std::env::current_exe().unwrap()), dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 5 + round * 3 {
            let line = lines.next().unwrap().unwrap();
            if let Some(last) = line.strip_prefix("kept ") {
                kept = last.parse().unwrap();
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let rest =
            lines.map_while(Result::ok).filter_map(|it| it.strip_prefix("kept ")?.parse().ok());
        kept = rest.last().unwrap_or(kept);
        let opened = open(dir.path());
        assert!(opened.log.reader().unwrap().last() >= SeqNo(kept), "{kept} was kept");
        assert_eq!(opened.found.records.len() as u64, opened.log.reader().unwrap().last().0);
    }
}

#[test]
fn a_full_disk_is_an_error_and_costs_nothing_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=128k none \"$0\" || { echo SKIPPED; exit 0; }\n\
                  head -c 40960 /dev/zero > \"$0/filler\"; shift 0; exec \"$@\"";
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(dir.path()).arg(std::env::current_exe().unwrap());
    if Command::new("unshare").arg("--version").output().is_err() {
        eprintln!("skipped: there is no unshare");
        return;
    }
    let output = child(command, dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if text.contains("SKIPPED") || !text.contains("kept ") {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let last = |word: &str| {
        let words = text.lines().filter_map(|line| line.split_once(word));
        words.reduce(|_, it| it).map(|(_, rest)| rest.trim().to_owned()).unwrap()
    };
    let failed = last("failed: ");
    assert!(failed.contains("cannot write") && failed.contains("make room there"), "{failed}");
    let (kept, found): (u64, u64) =
        (last("kept ").parse().unwrap(), last("found ").parse().unwrap());
    assert!(found >= kept && kept > 50, "{found} of {kept}");
    std::io::stderr().flush().unwrap();
}

#[test]
fn a_log_that_ends_before_what_was_acknowledged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("has-a-log");
    let mut opened = open(dir.path());
    opened.mark(&marker, ME).unwrap();
    opened.log.append(&[group(), entry(1, 1)]).unwrap();
    let monday = fs::read(log_path(dir.path())).unwrap();
    opened.log.append(&[entry(2, 1), entry(3, 1)]).unwrap();
    let tuesday = fs::read(log_path(dir.path())).unwrap();
    // What was only typed is nobody else's business.
    opened.log.append(&[Record::Typed(chat(1))]).unwrap();
    drop(opened);
    for (bytes, is_whole) in [(&monday, false), (&tuesday, true), (&monday, false)] {
        fs::write(log_path(dir.path()), bytes).unwrap();
        let outcome = open(dir.path()).mark(&marker, ME);
        match outcome {
            Ok(()) => assert!(is_whole),
            Err(error) => {
                assert!(!is_whole && matches!(error, LogStoreError::Rewound { .. }), "{error}");
                let told = error.to_string();
                assert!(
                    told.contains("peer chat remove 2") && told.contains("no remedy"),
                    "{told}"
                );
            }
        }
    }
}
