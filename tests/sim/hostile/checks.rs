//! What must hold of bytes, whatever they are: lines, dialects, journals, configurations and
//! certificates.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use folkmoot::cli::config;
use folkmoot::machine::NodeMachine as _;
use folkmoot::machine::membership::authority::Record;
use folkmoot::model::SeedId;
use folkmoot::model::statement::{Admission, ProposalKind, Removal};
use folkmoot::node::{SeedConfig, SeedNode};
use folkmoot::proto::dialect::{Detection, Dialect, OPENING_BYTES_MAX, detect};
use folkmoot::proto::line::{LINE_BYTES_MAX, LineError, LineReader, encode};
use folkmoot::proto::message::Message;
use folkmoot::runtime::dataplane::Servers;
use folkmoot::runtime::journal::{Journal, JournalError, Lines};
use rand::SeedableRng as _;

use super::cast::{self, Actor, book};
use super::source::Source;

/// Reads all lines of `bytes`: each is a message that survives its own line, or an error that
/// names the problem; nothing is read after one that ends the link. Returns how many of each.
pub fn lines(bytes: &[u8]) -> (usize, usize) {
    let mut reader = LineReader::new(bytes);
    let (mut read, mut refused) = (0, 0);
    loop {
        match reader.read() {
            Ok(None) => return (read, refused),
            Ok(Some(msg)) => {
                read += 1;
                survives(&msg);
            }
            Err(error) => {
                refused += 1;
                names_the_problem(&error);
                if !error.is_recoverable() {
                    return (read, refused);
                }
            }
        }
        assert!(read + refused <= bytes.len(), "more lines than bytes");
    }
}

/// A message is one line that begins with its type and is read as the same message.
pub fn survives(msg: &Message) {
    let line = encode(msg);
    let opening = format!("{{\"type\":\"{}\"", msg.name());
    assert!(line.starts_with(opening.as_bytes()), "{opening} does not open the line");
    assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1), "not one line");
    match LineReader::new(&line[..]).read() {
        Ok(Some(again)) => assert_eq!(again, *msg, "another message was read than was written"),
        Err(LineError::TooLong) if line.len() > LINE_BYTES_MAX => {}
        other => panic!("{} was not read back: {other:?}", msg.name()),
    }
}

fn names_the_problem(error: &LineError) {
    let text = error.to_string();
    let is_named = match error {
        LineError::Io(_) => false,
        LineError::TooLong => text.contains("262144"),
        LineError::Truncated => text.contains("newline"),
        LineError::Malformed { reason } => !reason.is_empty() && reason.chars().count() <= 200,
    };
    assert!(is_named, "says nothing: {error}");
}

/// A verdict comes in time, and more bytes do not change it.
pub fn dialect(bytes: &[u8]) {
    let mut verdict = None;
    for len in 0..=bytes.len().min(2 * OPENING_BYTES_MAX) {
        match (detect(&bytes[..len]), verdict) {
            (Detection::NeedMore, None) => assert!(len < OPENING_BYTES_MAX, "no verdict in time"),
            (Detection::NeedMore, Some(is)) => panic!("{is:?} was taken back"),
            (Detection::Is(dialect), None) => verdict = Some(dialect),
            (Detection::Is(dialect), Some(is)) => assert_eq!(dialect, is, "another verdict"),
        }
    }
    if verdict == Some(Dialect::Native) {
        assert_eq!(bytes.trim_ascii_start().first(), Some(&b'{'));
    }
}

/// Addresses of servers are refused in words, or say the same when they are written down again.
pub fn servers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<Servers>() {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(servers) => {
            let again = servers.to_string();
            assert!(!again.contains(char::is_whitespace) && !again.contains('@'), "{again}");
            assert_eq!(again.parse::<Servers>().as_ref(), Ok(&servers), "{text}");
        }
    }
}

/// A configuration is refused in words, or is as long as it may be, distinct, and says the same
/// when it is written down again.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("config.txt");
    let seeds = match config::parse(path, &text) {
        Err(error) => {
            assert!(error.to_string().starts_with("config.txt"), "{error}");
            let lines = text.lines().count();
            assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
            return;
        }
        Ok(seeds) => seeds,
    };
    assert!((1..=64).contains(&seeds.len()));
    let places: BTreeSet<_> = seeds.iter().map(|seed| seed.endpoint).collect();
    assert_eq!(places.len(), seeds.len(), "two seeds at one place");
    let is_callable = |ip: std::net::IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    assert!(places.iter().all(|place| place.port() != 0 && is_callable(place.ip())));
    let line = |seed: &folkmoot::machine::membership::seedbook::SeedAddress| match seed.key {
        Some(key) => format!("{}:{key}\n", seed.endpoint),
        None => format!("{}\n", seed.endpoint),
    };
    let again: String = seeds.iter().map(line).collect();
    assert_eq!(config::parse(path, &again).expect("its own form is understood"), seeds);
}

/// Certificates in JSON: what the seeds' book believes is exactly what a quorum has signed.
pub fn certificate(json: &[u8]) {
    let book = book(true);
    if let Ok(proof) = serde_json::from_slice::<Admission>(json) {
        let is_believed = book.verify_admission(&proof).is_ok();
        let is_proved = cast::proves(ProposalKind::Admit, &[proof.subject()], &proof.votes);
        assert!(!is_believed || is_proved, "an admission without a quorum is believed");
        assert!(is_believed || !is_proved || proof.votes.len() > 3, "a proof is not believed");
    }
    if let Ok(proof) = serde_json::from_slice::<Removal>(json) {
        let is_believed = book.verify_removal(&proof).is_ok();
        let is_proved = cast::proves(proof.because.kind(), &proof.lives, &proof.votes);
        assert!(!is_believed || is_proved, "a removal without a quorum is believed");
        assert!(is_believed || !is_proved || proof.votes.len() > 3, "a proof is not believed");
    }
}

/// A journal of these bytes is read back whole, but for a torn last line, or refused with the
/// line's number and left untouched; and what a seed remembers by it, it remembers again.
pub fn journal(dir: &Path, bytes: &[u8]) {
    let path = dir.join("journal.log");
    fs::write(&path, bytes).expect("a scratch file can be written");
    match Journal::<Record>::open(&path) {
        Err(JournalError::Corrupt { line, reason, .. }) => {
            assert!(line >= 1 && !reason.is_empty());
            assert_eq!(fs::read(&path).expect("it is there"), bytes, "it was changed");
        }
        Err(error) => panic!("a file of any bytes can be read: {error}"),
        Ok((journal, records, torn)) => {
            drop(journal);
            let kept = fs::read(&path).expect("it is there");
            assert!(bytes.starts_with(&kept), "something was changed but the torn end");
            assert_eq!(torn.is_some(), kept.len() < bytes.len());
            let (_, again, torn) = Journal::<Record>::open(&path).expect("it was read before");
            assert_eq!((again, torn), (records.clone(), None));
            remembers(records);
        }
    }
}

fn remembers(records: Vec<Record>) {
    let seed = |records| {
        let me = Actor::Seed(1);
        let who = (SeedId(1), me.endpoint(), me.keys().clone());
        let rng = folkmoot::model::Rng::seed_from_u64(1);
        SeedNode::new(SeedConfig::default(), who, book(false), records, rng)
    };
    let snapshot = seed(records).snapshot();
    assert_eq!(seed(snapshot.clone()).snapshot(), snapshot, "a rewrite forgets something");
}

/// A journal in which lines whose checksum is missing are given a true one, so that what stands
/// in them is looked at.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(json) if json.first() == Some(&b'{') => {
                let checksum = format!("{:08x} ", crc32fast::hash(json));
                sealed.extend_from_slice(checksum.as_bytes());
            }
            Some(_) | None => {}
        }
        sealed.write_all(line).expect("memory");
    }
    sealed
}

/// A line of a message, damaged: cut, flipped, doubled, with something put in between.
pub fn damaged(msg: &Message, src: &mut Source<'_>) -> Vec<u8> {
    let mut line = encode(msg);
    for _ in 0..=src.below(3) {
        let at = src.below(line.len().max(1));
        match src.byte() % 7 {
            0 => line.truncate(at),
            1 => line.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
            2 => line.extend_from_within(at..),
            3 => _ = line.splice(at..at, src.array::<4>()),
            4 => _ = line.splice(at..at, *b"\",\"type\":"),
            5 => line.iter_mut().skip(at).take(1).for_each(|byte| *byte = b'9'),
            _ => _ = line.splice(at..at, b"[".repeat(200)),
        }
    }
    line.push(b'\n');
    line
}

/// The journal's form of some records.
pub fn journal_of(dir: &Path, records: &[Record]) -> Vec<u8> {
    let path = dir.join("journal-of.log");
    let _ = fs::remove_file(&path);
    let (mut journal, ..) = Journal::<Record>::open(&path).expect("a new one");
    let mut lines = Lines::default();
    records.iter().for_each(|record| lines.push(record));
    journal.append_lines(&mut lines);
    journal.sync().expect("the disk takes it");
    fs::read(&path).expect("it is there")
}
