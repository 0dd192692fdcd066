//! Notes by which members of a fleet found an order, to the byte.
//!
//! `golden/founding.jsonl` changes only on purpose: `BLESS=1 cargo test --test wire founding::`
//! writes it anew, and the difference is for review.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use folkmoot::model::statement::{Admission, Vote};
use folkmoot::model::{Endpoint, Incarnation, SeedId, Signature, WallTime};
use folkmoot::proto::bft::{FoundingNote, OrderId, SignedRoster};
use folkmoot::proto::chat::entry::MemberId;

use crate::bft_log::keys;

fn at(number: u8) -> Endpoint {
    Endpoint::new([192, 0, 2, number].into(), 6_001)
}

fn notes() -> Vec<FoundingNote> {
    let signature = Signature::from_bytes([3; 64]);
    let vote = |seed| Vote { seed: SeedId(seed), at: WallTime(9), others: Vec::new(), signature };
    let admission = Admission {
        endpoint: at(1),
        incarnation: Incarnation(5),
        key: keys(1).public(),
        votes: (1..=3).map(vote).collect(),
    };
    let (order, size, roster) = ("ledger".to_owned(), 4, None);
    let plain = FoundingNote { order, size, admission, attempt: 0, roster, left: Vec::new() };
    let mut roster = SignedRoster::new((1..=4).map(|it| (at(it), keys(it.into()).public())), 2);
    let group = roster.group("ledger").unwrap();
    for id in [1, 3] {
        roster.sign(&group, (MemberId(id), &keys(id)));
    }
    let left = vec![OrderId([7; 32])];
    let full = FoundingNote { attempt: 2, roster: Some(roster), left, ..plain.clone() };
    vec![plain, full]
}

#[test]
fn notes_are_written_and_read_as_they_were() {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "founding.jsonl"].iter().collect();
    let text: String = notes().iter().map(|it| serde_json::to_string(it).unwrap() + "\n").collect();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert_eq!(golden, text);
    let read: Vec<FoundingNote> =
        golden.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(read, notes());
    // The signatures hold, also those that were read; a later version may say more.
    let group = notes()[1].roster.as_ref().unwrap().group("ledger").unwrap();
    let roster = read[1].roster.as_ref().unwrap();
    let holds = |(id, it)| roster.is_valid(&group, id, it);
    assert!(roster.signatures.iter().all(|(id, it)| holds((*id, it))));
    let more = golden.lines().next().unwrap().replacen('{', r#"{"new":1,"#, 1);
    assert_eq!(serde_json::from_str::<FoundingNote>(&more).unwrap(), notes()[0]);
}
