//! The native dialect to the byte: what is written, what is read, what is refused.
//!
//! `golden/native.jsonl` holds a line or more for every message. It changes only on purpose:
//! `BLESS=1 cargo test --test wire golden::` writes it anew, and the difference is for review.

mod cases;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use folkmoot::machine::membership::registry::BUCKETS;
use folkmoot::model::entry::RegistryEntry;
use folkmoot::model::statement::{Confirmation, MemberInstance, Removal, RemovalReason, Vote};
use folkmoot::model::{Endpoint, SigningBytes};
use folkmoot::proto::broadcast::Publish;
use folkmoot::proto::dialect::{Detection, Dialect, detect};
use folkmoot::proto::hello::NodeInfo;
use folkmoot::proto::line::{LINE_BYTES_MAX, LineError, LineReader, encode};
use folkmoot::proto::membership::SeedOrderVote;
use folkmoot::proto::message::Message;
use serde_json::{Value, json};

/// Number of kinds of messages; see [`number`].
const KINDS: usize = 47;

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "native.jsonl"].iter().collect()
}

/// The golden file; written anew first where that is asked for.
fn golden() -> String {
    static BLESSED: Once = Once::new();
    BLESSED.call_once(|| {
        if std::env::var_os("BLESS").is_some() {
            let bytes: Vec<u8> = cases::all().iter().flat_map(|(_, msg)| encode(msg)).collect();
            fs::write(path(), bytes).expect("tests/golden/native.jsonl can be written");
        }
    });
    fs::read_to_string(path()).expect("tests/golden/native.jsonl can be read")
}

/// The lines of the golden file, without their newlines.
fn lines() -> Vec<String> {
    let text = golden();
    assert!(text.ends_with('\n'), "the last line is whole");
    text.lines().map(str::to_owned).collect()
}

fn read(bytes: &[u8]) -> Result<Option<Message>, LineError> {
    LineReader::new(bytes).read()
}

/// Reads `text` as one line.
fn decode(text: &str) -> Result<Message, LineError> {
    read(format!("{text}\n").as_bytes()).map(|found| found.expect("a line is no end"))
}

/// Reads `line`, which must be malformed, and returns the reason.
#[track_caller]
fn complaint(line: &[u8]) -> String {
    match read(&[line, b"\n"].concat()) {
        Err(LineError::Malformed { reason }) => reason,
        other => panic!("{:?} gave {other:?}", line.escape_ascii().to_string()),
    }
}

/// A number for each kind of message. A new kind does not compile until it is counted here, and
/// does not pass until it has a golden line.
const fn number(msg: &Message) -> usize {
    match msg {
        Message::Hello(_) => 0,
        Message::HelloAck(_) => 1,
        Message::HelloProof(_) => 2,
        Message::Bye(_) => 3,
        Message::Error(_) => 4,
        Message::RegisterReq(_) => 5,
        Message::RegisterVote(_) => 6,
        Message::RegisterCommit(_) => 7,
        Message::PeerListReq(_) => 8,
        Message::PeerListResp(_) => 9,
        Message::GossipMsg(_) => 10,
        Message::GossipDigest(_) => 11,
        Message::Ping(_) => 12,
        Message::Pong(_) => 13,
        Message::Neighbors(_) => 14,
        Message::SuspectReq(_) => 15,
        Message::SuspectAck(_) => 16,
        Message::DeadReport(_) => 17,
        Message::SeedDeadVote(_) => 18,
        Message::SeedDeadCommit(_) => 19,
        Message::Leave(_) => 20,
        Message::SeedDigest(_) => 21,
        Message::SeedSyncReq(_) => 22,
        Message::SeedSyncResp(_) => 23,
        Message::LinkHint(_) => 24,
        Message::ExplainReq(_) => 25,
        Message::ExplainResp(_) => 26,
        Message::TopologyReq(_) => 27,
        Message::TopologyResp(_) => 28,
        Message::SeedOrderVote(_) => 29,
        Message::SeedBanCommit(_) => 30,
        Message::Direct(_) => 31,
        Message::DirectAck(_) => 32,
        Message::DirectPartReq(_) => 33,
        Message::DirectPart(_) => 34,
        Message::FindNode(_) => 35,
        Message::Found(_) => 36,
        Message::Publish(_) => 37,
        Message::Announce(_) => 38,
        Message::Graft(_) => 39,
        Message::Prune(_) => 40,
        Message::PartReq(_) => 41,
        Message::Part(_) => 42,
        Message::Receipt(_) => 43,
        Message::Have(_) => 44,
        Message::Lack(_) => 45,
        Message::Slow(_) => 46,
    }
}

#[test]
fn every_message_is_written_as_the_golden_file_has_it() {
    let cases = cases::all();
    let golden = lines();
    for (at, (what, msg)) in cases.iter().enumerate() {
        let line = String::from_utf8(encode(msg)).unwrap();
        let expected = golden.get(at).map_or("nothing", String::as_str);
        assert_eq!(line.trim_end(), expected, "native.jsonl:{}: {what}", at + 1);
    }
    assert_eq!(cases.len(), golden.len(), "lines and cases");
}

#[test]
fn every_golden_line_is_read_as_its_message() {
    let text = golden();
    let mut reader = LineReader::new(text.as_bytes());
    for (what, msg) in cases::all() {
        assert_eq!(reader.read().unwrap(), Some(msg), "{what}");
    }
    assert_eq!(reader.read().unwrap(), None);
}

#[test]
fn no_message_is_left_out() {
    let shown: BTreeSet<_> = cases::all().iter().map(|(_, msg)| number(msg)).collect();
    let missing: Vec<_> = (0..KINDS).filter(|it| !shown.contains(it)).collect();
    assert_eq!((shown.len(), missing), (KINDS, vec![]), "kinds without a golden line, by number");
}

#[test]
fn every_line_is_one_flat_object_that_begins_with_its_type() {
    for (line, (_, msg)) in lines().iter().zip(cases::all()) {
        let opening = format!("{{\"type\":\"{}\"", msg.name());
        assert!(line.starts_with(&opening), "{line}");
        assert!(!line.contains(char::is_control), "{line}");
        assert!(line.len() < LINE_BYTES_MAX);
        assert_eq!(detect(line.as_bytes()), Detection::Is(Dialect::Native));
    }
}

/// Adds a field that no version knows to every object in `value`.
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
fn unknown_fields_and_another_order_of_fields_are_tolerated() {
    for (line, (what, msg)) in lines().iter().zip(cases::all()) {
        // Written from a sorted map, `type` is no more the first.
        let mut value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(decode(&value.to_string()).unwrap(), msg, "{what}, sorted");
        extend(&mut value);
        assert_eq!(decode(&value.to_string()).unwrap(), msg, "{what}, extended");
    }
}

/// The fields that may be absent, by message; all others are required.
fn is_optional(name: &str, field: &str) -> bool {
    match name {
        "HELLO" | "HELLO_ACK" => {
            ["seed", "neighbors", "certificate", "seed_keys", "seeds", "fleet"].contains(&field)
        }
        "REGISTER_VOTE" | "SEED_DEAD_VOTE" => field == "signature",
        "PEER_LIST_REQ" => ["after", "ended", "sample"].contains(&field),
        "TOPOLOGY_REQ" | "SEED_SYNC_REQ" => field == "after",
        "SEED_SYNC_RESP" => ["removals", "bans"].contains(&field),
        "SEED_DIGEST" => field == "buckets",
        "ERROR" => field == "above",
        "DIRECT" => field == "data",
        "DIRECT_ACK" => field == "reason",
        "PUBLISH" => ["data", "receipt", "proof"].contains(&field),
        _ => false,
    }
}

#[test]
fn a_missing_field_is_named_unless_it_is_optional() {
    for line in lines() {
        let whole: Value = serde_json::from_str(&line).unwrap();
        let name = whole["type"].as_str().unwrap();
        for field in whole.as_object().unwrap().keys() {
            let mut partial = whole.clone();
            partial.as_object_mut().unwrap().remove(field);
            match decode(&partial.to_string()) {
                Ok(_) => assert!(is_optional(name, field), "{name} was read without {field}"),
                Err(err) => {
                    let named = err.to_string().contains(&format!("missing field `{field}`"));
                    assert!(named && !is_optional(name, field), "{name} without {field}: {err}");
                }
            }
        }
    }
}

#[test]
fn a_field_of_the_wrong_kind_is_refused_whichever_it_is() {
    for line in lines() {
        let whole: Value = serde_json::from_str(&line).unwrap();
        for field in whole.as_object().unwrap().keys() {
            for wrong in [json!({ "no": "such" }), json!(-1), json!([[7]]), json!("\u{1}")] {
                // Some texts are free.
                if wrong.is_string()
                    && whole[field].is_string()
                    && ["reason", "text", "ids", "root", "topic", "fleet"].contains(&field.as_str())
                {
                    continue;
                }
                let mut changed = whole.clone();
                changed[field] = wrong;
                complaint(changed.to_string().as_bytes());
            }
        }
    }
}

#[test]
fn a_line_cut_anywhere_is_truncated_or_malformed_and_never_read() {
    for line in lines() {
        for cut in 1..line.len() {
            let part = &line.as_bytes()[..cut];
            assert!(matches!(read(part), Err(LineError::Truncated)), "{line} cut at {cut}");
            complaint(part);
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_refused_even_if_it_is_a_message() {
    let mut line = encode(&cases::all()[0].1);
    let padding = LINE_BYTES_MAX - line.len();
    line.splice(0..0, vec![b' '; padding]);
    assert!(read(&line).unwrap().is_some(), "at the limit");
    line.insert(0, b' ');
    let err = read(&line).unwrap_err();
    assert!(matches!(err, LineError::TooLong) && !err.is_recoverable(), "{err}");
}

#[test]
fn a_malformed_line_is_refused_with_a_reason_that_names_what_is_wrong() {
    let nested = |depth| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!("{{\"type\":\"PING\",\"nonce\":1,\"x\":{open}{close}}}")
    };
    assert!(decode(&nested(100)).is_ok(), "what is ignored may be nested to some depth");
    let deep = nested(200);
    let bad_digit = format!("{{\"type\":\"HELLO_PROOF\",\"proof\":\"{}\"}}", "0g".repeat(64));
    let table: &[(&str, &str)] = &[
        ("{\"type\":\"NO_SUCH\"}", "unknown variant `NO_SUCH`, expected one of `HELLO`"),
        ("{\"type\":\"ping\",\"nonce\":1}", "unknown variant `ping`"),
        ("{\"type\":7}", "expected variant identifier"),
        ("{\"type\":null}", "expected variant identifier"),
        ("{\"nonce\":1}", "missing field `type`"),
        ("{}", "missing field `type`"),
        ("[]", "a message is a JSON object"),
        ("[\"PING\",5]", "a message is a JSON object"),
        ("7", "a message is a JSON object"),
        ("null", "a message is a JSON object"),
        ("\"PING\"", "a message is a JSON object"),
        ("PING", "a message is a JSON object"),
        ("{\"type\":\"PING\"}", "missing field `nonce`"),
        ("{\"type\":\"PING\",\"nonce\":\"1\"}", "string \"1\", expected u64"),
        ("{\"type\":\"PING\",\"nonce\":null}", "null, expected u64"),
        ("{\"type\":\"PING\",\"nonce\":-1}", "integer `-1`, expected u64"),
        ("{\"type\":\"PING\",\"nonce\":1.0}", "floating point `1.0`, expected u64"),
        ("{\"type\":\"PING\",\"nonce\":1e3}", "floating point `1000.0`, expected u64"),
        ("{\"type\":\"PING\",\"nonce\":18446744073709551616}", "expected u64"),
        ("{\"type\":\"PING\",\"nonce\":01}", "invalid number"),
        ("{\"type\":\"PING\",\"nonce\":NaN}", "expected value"),
        ("{\"type\":\"PING\",\"nonce\":1,\"nonce\":2}", "duplicate field `nonce`"),
        ("{\"type\":\"PING\",\"type\":\"PONG\",\"nonce\":1}", "duplicate field `type`"),
        ("{\"type\":\"PING\",\"nonce\":1", "EOF while parsing an object"),
        ("{\"type\":\"PING\",\"nonce\":1,}", "trailing comma"),
        ("{\"type\":\"PING\",\"nonce\":1}{}", "trailing characters"),
        ("{type:\"PING\"}", "key must be a string"),
        ("{\"type\":\"SEED_SYNC_REQ\",\"buckets\":[256]}", "integer `256`, expected u8"),
        ("{\"type\":\"LINK_HINT\",\"endpoint\":\"localhost:1\"}", "invalid socket address"),
        ("{\"type\":\"LINK_HINT\",\"endpoint\":\"127.0.0.1\"}", "invalid socket address"),
        ("{\"type\":\"LINK_HINT\",\"endpoint\":\"127.0.0.1:65536\"}", "invalid socket address"),
        ("{\"type\":\"ERROR\",\"code\":\"no\",\"reason\":\"\"}", "unknown variant `no`, expected"),
        ("{\"type\":\"HELLO_PROOF\",\"proof\":\"00\"}", "Invalid string length"),
        ("{\"type\":\"BYE\",\"reason\":\"\\ud800\"}", "hex escape"),
        ("{\"type\":\"BYE\",\"reason\":\"a\u{0}b\"}", "control character"),
        ("\u{0}{\"type\":\"BYE\",\"reason\":\"\"}", "a message is a JSON object"),
        ("\u{feff}{\"type\":\"BYE\",\"reason\":\"\"}", "a message is a JSON object"),
        (&bad_digit, "Invalid character 'g'"),
        (&deep, "recursion limit exceeded"),
    ];
    for (line, expected) in table {
        let reason = complaint(line.as_bytes());
        assert!(reason.contains(expected), "{line:?}: {reason}");
    }
    for bytes in [&b"{\"type\":\"BYE\",\"reason\":\"\xff\"}"[..], b"\xc3\x28", b"{\"\x80\":1}"] {
        complaint(bytes);
    }
}

#[test]
fn the_conversation_in_the_document_is_real() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs", "PROTOCOL.md"].iter().collect();
    let document = fs::read_to_string(path).expect("docs/PROTOCOL.md can be read");
    let golden = lines();
    let mut said = 0;
    for line in document.lines() {
        if let Some(question) = line.strip_prefix("→ ") {
            said += 1;
            match decode(question) {
                Ok(_) | Err(LineError::Malformed { .. }) => {}
                Err(err) => panic!("{question}: {err}"),
            }
        } else if let Some(answer) = line.strip_prefix("← ") {
            said += 1;
            assert!(golden.iter().any(|line| line == answer), "not a golden line: {answer}");
        }
    }
    assert!(said >= 6, "the conversation was not found");
}

// What is signed, built here once more from the words of `docs/PROTOCOL.md`, so that neither the
// document nor the code can drift alone.

fn about(domain: &str, subject: &MemberInstance) -> SigningBytes {
    SigningBytes::new(domain)
        .endpoint(subject.endpoint)
        .incarnation(subject.incarnation)
        .key(&subject.key)
}

#[track_caller]
fn check_votes(kind: &str, lives: &[MemberInstance], votes: &[Vote]) {
    for vote in votes {
        let mut all: Vec<_> = lives.iter().chain(&vote.others).collect();
        all.sort();
        let domain = format!("folkmoot/vote/{kind}/1");
        let mut statement = SigningBytes::new(&domain).number(all.len() as u64);
        for MemberInstance { endpoint, incarnation, key } in all {
            statement = statement.endpoint(*endpoint).incarnation(*incarnation).key(key);
        }
        let statement = statement.seed(vote.seed).wall(vote.at);
        let key = cases::seed_keys(vote.seed.0).public();
        assert!(key.verifies(&statement, &vote.signature), "{vote:?}");
    }
}

#[track_caller]
fn check_findings(findings: &[Confirmation]) {
    for found in findings {
        let statement = SigningBytes::new("folkmoot/confirmation/1")
            .endpoint(found.endpoint)
            .incarnation(found.incarnation)
            .key(&found.key)
            .number(found.finding as u64)
            .endpoint(found.witness)
            .wall(found.at);
        assert!(cases::key_at(found.witness).verifies(&statement, &found.signature), "{found:?}");
    }
}

#[track_caller]
fn check_removal(removal: &Removal) {
    let kind = match removal.because {
        RemovalReason::Death => "remove",
        RemovalReason::Eviction => "evict",
    };
    check_votes(kind, &removal.lives, &removal.votes);
    check_findings(&removal.confirmations);
}

#[track_caller]
fn check_order(order: SeedOrderVote) {
    let SeedOrderVote { endpoint, incarnation, key, seed, at, signature, .. } = order;
    let subject = MemberInstance { endpoint, incarnation, key };
    check_votes("evict", &[subject], &[Vote { seed, at, others: Vec::new(), signature }]);
}

/// Checks every proof in an entry.
#[track_caller]
fn check_entry(entry: &RegistryEntry) {
    if let Some(admission) = &entry.admission {
        check_votes("admit", &[entry.subject], &admission.votes);
    }
    if let Some(removal) = &entry.removal {
        check_removal(removal);
    }
    if let Some(leave) = &entry.leave {
        let statement = about("folkmoot/leave/1", &entry.subject).wall(leave.at);
        assert!(leave.key.verifies(&statement, &leave.signature), "{leave:?}");
    }
}

fn hello_statement(domain: &str, signer: &NodeInfo) -> SigningBytes {
    SigningBytes::new(domain)
        .number(1)
        .number(signer.seed.map_or(0, |seed| u64::from(seed.0)))
        .endpoint(signer.endpoint)
        .incarnation(signer.incarnation)
        .key(&signer.key)
}

fn check_published(it: &Publish) {
    assert!(cases::key_at(it.origin).verifies(&cases::statement(it), &it.signature), "{it:?}");
    if let Some(data) = &it.data {
        assert_eq!(data.sha256(), it.digest, "{it:?}");
    }
    it.proof.iter().for_each(|it| check_votes("admit", &[it.subject()], &it.votes));
}

#[test]
#[allow(clippy::too_many_lines, reason = "one arm for each message, that none is forgotten")]
fn every_signature_in_the_golden_file_holds_for_the_documented_statement() {
    let mut caller = None;
    let mut called = None;
    for line in lines() {
        match decode(&line).unwrap() {
            Message::Hello(hello) => caller = Some(hello),
            Message::HelloAck(ack) => {
                let hello = caller.as_ref().expect("an answer follows its question");
                let statement = hello_statement("folkmoot/hello-ack/1", &ack.info)
                    .nonce(&hello.nonce)
                    .key(&hello.info.key);
                assert!(ack.info.key.verifies(&statement, &ack.proof), "{line}");
                called = Some(ack);
            }
            Message::HelloProof(answer) => {
                let (hello, ack) = (caller.as_ref().unwrap(), called.as_ref().unwrap());
                let statement = hello_statement("folkmoot/hello-proof/1", &hello.info)
                    .nonce(&ack.nonce)
                    .key(&ack.info.key);
                assert!(hello.info.key.verifies(&statement, &answer.proof), "{line}");
            }
            Message::RegisterReq(it) => {
                let statement = about("folkmoot/register/1", &it.subject());
                assert!(it.key.verifies(&statement, &it.signature), "{line}");
            }
            Message::RegisterVote(it) => {
                let MemberInstance { endpoint, incarnation, key } = cases::subject(6001);
                assert_eq!((it.endpoint, it.incarnation, it.key), (endpoint, incarnation, key));
                let request = about("folkmoot/register/1", &cases::subject(6001));
                assert!(it.key.verifies(&request, &it.request), "{line}");
                check_votes("admit", &[cases::subject(6001)], it.vote().as_slice());
            }
            Message::RegisterCommit(it) => check_entry(&RegistryEntry::admitted(it)),
            Message::SeedDeadVote(it) => {
                check_votes("remove", &it.lives, it.vote().as_slice());
                check_findings(&it.confirmations);
            }
            Message::SeedDeadCommit(it) => check_removal(&it),
            Message::SeedOrderVote(it) => check_order(it),
            Message::SeedBanCommit(it) => check_votes("ban", &[it.subject()], &it.votes),
            Message::SuspectAck(it) => check_findings(&[it]),
            Message::DeadReport(it) => check_findings(&it.confirmations),
            Message::Leave(it) => check_entry(&RegistryEntry::left(it)),
            Message::Neighbors(it) => {
                let head = SigningBytes::new("folkmoot/neighbors/1")
                    .endpoint(it.endpoint)
                    .incarnation(it.incarnation)
                    .number(it.version);
                let statement = it.neighbors.iter().fold(head, |all, one| all.endpoint(*one));
                assert!(cases::key_at(it.endpoint).verifies(&statement, &it.signature), "{line}");
            }
            Message::Publish(it) => check_published(&it),
            Message::SeedSyncResp(it) => it.entries.iter().for_each(check_entry),
            Message::ExplainResp(it) => it.lives.iter().for_each(check_entry),
            // Nothing in these is signed.
            Message::Bye(_)
            | Message::Error(_)
            | Message::PeerListReq(_)
            | Message::PeerListResp(_)
            | Message::GossipMsg(_)
            | Message::GossipDigest(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::SuspectReq(_)
            | Message::FindNode(_)
            | Message::Found(_)
            | Message::Announce(_)
            | Message::Graft(_)
            | Message::Prune(_)
            | Message::PartReq(_)
            | Message::Part(_)
            | Message::Receipt(_)
            | Message::Have(_)
            | Message::Lack(_)
            | Message::Slow(_)
            | Message::SeedDigest(_)
            | Message::SeedSyncReq(_)
            | Message::LinkHint(_)
            | Message::ExplainReq(_)
            | Message::TopologyReq(_)
            | Message::Direct(_)
            | Message::DirectAck(_)
            | Message::DirectPartReq(_)
            | Message::DirectPart(_)
            | Message::TopologyResp(_) => {}
        }
    }
}

#[test]
fn a_statement_is_its_fields_each_after_its_length() {
    let field = |bytes: &[u8]| [&(bytes.len() as u64).to_be_bytes(), bytes].concat();
    let subject = cases::subject(6001);
    let by_hand = [
        field(b"folkmoot/register/1"),
        field(b"127.0.0.1:6001"),
        field(&1_734_567_880_000_u64.to_be_bytes()),
        field(subject.key.as_bytes()),
    ];
    assert_eq!(about("folkmoot/register/1", &subject).as_bytes(), by_hand.concat());
    let v6: Endpoint = "[2001:db8::7]:6001".parse().unwrap();
    let by_hand = [field(b"d"), field(b"[2001:db8::7]:6001")];
    assert_eq!(SigningBytes::new("d").endpoint(v6).as_bytes(), by_hand.concat());
}

#[test]
fn identities_in_digests_are_as_documented() {
    let mut gossip = None;
    let mut listed = String::new();
    let (mut buckets, mut root) = (Vec::new(), String::new());
    for line in lines() {
        let msg = decode(&line).unwrap();
        if let Message::GossipMsg(msg) = msg {
            gossip = Some(msg);
        } else if let Message::GossipDigest(digest) = msg {
            listed.push_str(&digest.ids);
        } else if let Message::SeedDigest(digest) = msg {
            (buckets, root) = (digest.buckets, digest.root);
        }
    }
    let id = hex::encode(cases::gossip_statement(&gossip.unwrap()).sha256());
    assert!(listed.starts_with(&id[..16]), "the first 16 digits of {id}");

    let place = SigningBytes::new("folkmoot/bucket/1").endpoint(cases::endpoint(6001)).sha256();
    let life = about("folkmoot/entry/1", &cases::subject(6001)).number(1).number(0).number(0);
    assert_eq!(buckets.len(), BUCKETS);
    assert_eq!(buckets[usize::from(place[0]) % 64], hex::encode(&life.sha256()[..8]));
    let whole = buckets.iter().map(|it| u64::from_str_radix(it, 16).unwrap());
    let whole = whole.fold(SigningBytes::new("folkmoot/registry/1"), SigningBytes::number);
    assert_eq!(root, hex::encode(&whole.sha256()[..8]));
}
