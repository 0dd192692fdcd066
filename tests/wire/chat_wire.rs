//! The lines of a chat to the byte: what is written, what is read by either way, what is refused.
//!
//! `golden/chat.jsonl` holds a line or more for every message. It changes only on purpose:
//! `BLESS=1 cargo test --test wire chat_wire::` writes it anew, and the difference is for review.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "a table is as long as its rows")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Once};

use folkmoot::model::{KeyPair, Nonce, Rng, SigningBytes, WallTime};
use folkmoot::proto::chat::entry::{
    Body, ChainHash, ChatText, Entry, GroupId, HostPort, Member, MemberId, Membership, MsgId,
    Origin, Recovered, SeqNo, Term,
};
use folkmoot::proto::chat::message::*;
use folkmoot::proto::chat::{ChatReader, LINE_BYTES_MAX, decode, encode};
use folkmoot::proto::dialect::{Detection, Dialect, detect};
use folkmoot::proto::line::LineError;
use proptest::prelude::*;
use rand::SeedableRng as _;
use serde_json::{Value, json};

const TERM: Term = Term(7);
const ME: MemberId = MemberId(3);

fn keys(id: u32) -> KeyPair {
    KeyPair::from_secret([u8::try_from(id).unwrap(); 32])
}

fn member(id: u32) -> Member {
    let at =
        HostPort { host: "127.0.0.1".parse().unwrap(), port: 6000 + u16::try_from(id).unwrap() };
    Member { id: MemberId(id), at, key: keys(id).public() }
}

fn msg_id(client: u64, number: u64) -> MsgId {
    MsgId { origin: Origin { member: MemberId(2), client }, number }
}

fn chat(text: &str) -> ChatText {
    ChatText { msg_id: msg_id(0, 5), room_id: "general".into(), payload: text.into() }
}

fn entry(seq: u64, body: Body) -> Arc<Entry> {
    let (seq_no, time) = (SeqNo(seq), WallTime(1_734_567_890_123));
    Arc::new(Entry { seq_no, term: TERM, leader: ME, time, body })
}

fn seq_chat(entries: Vec<Arc<Entry>>) -> SeqChat {
    let (prev_seq, prev_term, commit) = (SeqNo(11), Term(6), SeqNo(10));
    SeqChat { sender_id: ME, term: TERM, prev_seq, prev_term, commit, entries }
}

/// All lines of the golden file.
fn cases() -> Vec<Message> {
    let mut rng = Rng::seed_from_u64(1);
    let proof = keys(3).sign(&SigningBytes::new("golden"));
    let group = GroupId([0xab; 16]);
    let everybody: Vec<_> = (1..=3).map(member).collect();
    let plain = Membership {
        members: everybody.clone(),
        removed: vec![keys(9).public()],
        message_max: Some(16_384),
        recovered: None,
    };
    let recovered = Recovered {
        was: GroupId([0xcd; 16]),
        by: ME,
        at: WallTime(1_700_000_000_000),
        left_out: vec![MemberId(1), MemberId(2)],
    };
    let recovered = Arc::new(Membership { recovered: Some(recovered), ..plain.clone() });
    let membership = Arc::new(plain);
    let join = Join {
        sender_id: ME,
        term: TERM,
        group: Some(group),
        intent: JoinIntent::Member,
        membership: vec![member(3)],
        nonce: Nonce::random(&mut rng),
        life: Some(1 << 63 | 77),
    };
    let nonce = Nonce::random(&mut rng);
    let ok = |kind| ElectionOk {
        sender_id: ME,
        term: TERM,
        kind,
        last_term: Term(6),
        last_seq: SeqNo(11),
        commit: SeqNo(10),
    };
    let election = Election {
        sender_id: ME,
        term: TERM,
        last_term: Term(6),
        last_seq: SeqNo(11),
        trial: false,
        force: false,
    };
    let nack = |code, msg_id| Nack {
        sender_id: ME,
        term: TERM,
        code,
        leader_id: Some(MemberId(2)),
        msg_id,
        reason: "another leads".into(),
    };
    vec![
        Message::Join(Join { group: None, intent: JoinIntent::Client, life: None, ..join.clone() }),
        Message::Join(join),
        Message::JoinChallenge(JoinChallenge {
            sender_id: ME,
            key: keys(3).public(),
            nonce,
            proof,
        }),
        Message::JoinProof(JoinProof { proof }),
        Message::JoinAck(JoinAck {
            sender_id: ME,
            term: TERM,
            group,
            leader_id: Some(MemberId(2)),
            membership: everybody,
            life: Some(77),
        }),
        Message::Heartbeat(LeaderHeartbeat {
            sender_id: ME,
            term: TERM,
            commit: SeqNo(10),
            hash: ChainHash([5; 32]),
        }),
        Message::Election(election),
        Message::Election(Election { trial: true, force: true, ..election }),
        Message::ElectionOk(ok(Consent::Would)),
        Message::ElectionOk(ok(Consent::Promise)),
        Message::ElectionOk(ok(Consent::Takeover)),
        Message::Coordinator(Coordinator {
            sender_id: ME,
            term: TERM,
            commit: SeqNo(10),
            membership: vec![member(3)],
        }),
        Message::Chat(ChatReq { sender_id: MemberId(2), chat: chat("Zoë says \"hi\"\n\u{1}") }),
        Message::ChatAck(ChatAck { sender_id: ME, msg_id: msg_id(77, 1), seq_no: Some(SeqNo(12)) }),
        Message::ChatAck(ChatAck { sender_id: ME, msg_id: msg_id(77, 1), seq_no: None }),
        Message::SeqChat(seq_chat(vec![
            entry(12, Body::Opening),
            entry(13, Body::Chat(chat("hello"))),
            entry(14, Body::Membership(membership)),
        ])),
        Message::SeqChat(seq_chat(vec![entry(12, Body::Membership(recovered))])),
        Message::SeqChat(seq_chat(vec![entry(12, Body::Chat(chat("hello"))); 2])),
        Message::SeqAck(SeqAck { sender_id: ME, term: TERM, last_seq: SeqNo(14) }),
        Message::SeqNack(SeqNack { sender_id: ME, term: TERM, last_seq: SeqNo(11) }),
        Message::Nack(nack(NackCode::NotLeader, Some(msg_id(77, 1)))),
        Message::Nack(nack(NackCode::NoQuorum, None)),
        Message::CatchupReq(CatchupReq {
            sender_id: ME,
            term: TERM,
            last_seq: SeqNo(9),
            tail: true,
        }),
        Message::CatchupResp(seq_chat(vec![])),
        Message::TakeoverReq(TakeoverReq { sender_id: ME, term: TERM }),
        Message::TakeNow(TakeNow { sender_id: ME, term: TERM, last_seq: SeqNo(14) }),
        Message::RemoveReq(RemoveReq {
            certified: false,
            sender_id: ME,
            node_id: MemberId(2),
            key: keys(2).public(),
        }),
        Message::Alive(Alive { sender_id: ME }),
        Message::VerifyReq(VerifyReq { sender_id: ME, question: 4, at: vec![SeqNo(1), SeqNo(9)] }),
        Message::VerifyResp(VerifyResp {
            sender_id: ME,
            question: 4,
            commit: SeqNo(10),
            hashes: vec![(SeqNo(1), ChainHash([1; 32])), (SeqNo(9), ChainHash([9; 32]))],
        }),
    ]
}

/// A number for each kind of message. A new kind does not compile until it is counted here, and
/// does not pass until it has a golden line.
const fn number(message: &Message) -> usize {
    match message {
        Message::Join(_) => 0,
        Message::JoinChallenge(_) => 1,
        Message::JoinProof(_) => 2,
        Message::JoinAck(_) => 3,
        Message::Heartbeat(_) => 4,
        Message::Election(_) => 5,
        Message::ElectionOk(_) => 6,
        Message::Coordinator(_) => 7,
        Message::Chat(_) => 8,
        Message::ChatAck(_) => 9,
        Message::SeqChat(_) => 10,
        Message::SeqAck(_) => 11,
        Message::SeqNack(_) => 12,
        Message::Nack(_) => 13,
        Message::CatchupReq(_) => 14,
        Message::CatchupResp(_) => 15,
        Message::TakeoverReq(_) => 16,
        Message::TakeNow(_) => 17,
        Message::RemoveReq(_) => 18,
        Message::VerifyReq(_) => 19,
        Message::VerifyResp(_) => 20,
        Message::Alive(_) => 21,
    }
}

const KINDS: usize = 22;

fn golden() -> String {
    static BLESSED: Once = Once::new();
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "chat.jsonl"].iter().collect();
    BLESSED.call_once(|| {
        if std::env::var_os("BLESS").is_some() {
            let bytes: Vec<u8> = cases().iter().flat_map(encode).collect();
            fs::write(&path, bytes).unwrap();
        }
    });
    fs::read_to_string(path).unwrap()
}

/// Reads one line both ways, which must agree.
#[track_caller]
fn both(line: &[u8]) -> Result<Message, String> {
    let general = decode(line.trim_ascii()).map_err(|error| error.to_string());
    let read = ChatReader::new(&[line, b"\n"].concat()[..]).read();
    let read = read.map(|found| found.expect("a line is no end")).map_err(|error| {
        assert!(matches!(error, LineError::Malformed { .. }), "{error}");
        error.to_string()
    });
    assert_eq!(read, general, "{:?}", line.escape_ascii().to_string());
    read
}

#[test]
fn every_message_is_written_and_read_as_the_golden_file_has_it() {
    let golden = golden();
    let lines: Vec<_> = golden.lines().collect();
    let cases = cases();
    for (at, message) in cases.iter().enumerate() {
        let line = String::from_utf8(encode(message)).unwrap();
        assert_eq!(line.trim_end(), lines.get(at).copied().unwrap_or("nothing"), "line {}", at + 1);
        assert_eq!(both(line.trim_end().as_bytes()).as_ref(), Ok(message));
    }
    assert_eq!(lines.len(), cases.len());
    let shown: BTreeSet<_> = cases.iter().map(number).collect();
    assert_eq!(shown.len(), KINDS, "kinds with a golden line");
}

#[test]
fn every_line_is_one_object_that_begins_with_its_type_and_a_join_opens_the_dialect() {
    for (line, message) in golden().lines().zip(cases()) {
        assert!(line.starts_with("{\"type\":\""), "{line}");
        assert!(!line.contains(char::is_control), "{line}");
        let is_join = matches!(message, Message::Join(_));
        let expected = if is_join { Dialect::Chat } else { Dialect::Native };
        assert_eq!(detect(line.as_bytes()), Detection::Is(expected), "{line}");
    }
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
fn unknown_fields_and_another_order_of_fields_are_tolerated() {
    for (line, message) in golden().lines().zip(cases()) {
        let mut value: Value = serde_json::from_str(line).unwrap();
        assert_eq!(both(value.to_string().as_bytes()).as_ref(), Ok(&message), "sorted");
        extend(&mut value);
        assert_eq!(both(value.to_string().as_bytes()), Ok(message), "extended");
    }
}

#[test]
fn what_is_no_message_is_refused_by_both_ways_with_a_reason() {
    let deep = format!("{{\"type\":\"CHAT\",\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let chat = r#"{"type":"CHAT","sender_id":2,"msg_id":"2-0000000000000000-5","room_id":"r","#;
    let ack = r#"{"type":"SEQ_ACK","sender_id":3,"term":7,"#;
    let entry = |fields: &str| {
        format!(
            "{{\"type\":\"SEQ_CHAT\",\"sender_id\":3,\"term\":7,\"prev_seq\":1,\"prev_term\":1,\
             \"commit\":1,\"entries\":[{{\"seq_no\":2,\"term\":7,\"leader_id\":3,\"time\":1\
             {fields}}}]}}"
        )
    };
    let table = [
        ("{}".to_owned(), "missing field `type`"),
        ("[]".to_owned(), "a message is a JSON object"),
        ("{\"type\":\"NO\"}".to_owned(), "unknown variant `NO`"),
        (deep, "recursion limit exceeded"),
        (format!("{chat}\"payload\":7}}"), "expected a string"),
        (format!("{chat}\"payload\":\"\\ud800\"}}"), "hex escape"),
        (format!("{chat}\"payload\":\"a\",\"payload\":\"b\"}}"), "duplicate field"),
        (format!("{chat}\"type\":\"CHAT\",\"payload\":\"b\"}}"), "duplicate field `type`"),
        (format!("{chat}\"room_id\":\"r\",\"payload\":\"b\"}}"), "duplicate field"),
        (format!("{chat}\"payload\":\"b\"}}{{}}"), "trailing characters"),
        (format!("{ack}\"last_seq\":-1}}"), "expected u64"),
        (format!("{ack}\"last_seq\":18446744073709551616}}"), "expected u64"),
        (format!("{ack}\"last_seq\":1.0}}"), "expected u64"),
        (entry(",\"payload\":\"x\""), "no mixture"),
        (
            entry(r#","sender_id":1,"msg_id":"2-0000000000000000-5","room_id":"","payload":"""#),
            "not the author",
        ),
        (entry(",\"msg_id\":\"2-0-5\",\"room_id\":\"r\",\"payload\":\"x\""), "hexadecimal"),
        (
            entry(",\"msg_id\":\"2-000000000000000A-5\",\"room_id\":\"r\",\"payload\":\"x\""),
            "hexadecimal",
        ),
    ];
    for (line, expected) in table {
        let reason = both(line.as_bytes()).unwrap_err();
        assert!(reason.contains(expected), "{line}: {reason}");
    }
    for limit in [u64::MAX, u64::MAX - 1] {
        assert!(both(format!("{ack}\"last_seq\":{limit}}}").as_bytes()).is_ok());
    }
    for bytes in [&b"{\"type\":\"CHAT\",\"x\":\"\xff\"}"[..], b"\xc3\x28", b"{\"\x80\":1}"] {
        both(bytes).unwrap_err();
    }
}

#[test]
fn a_line_that_is_too_long_is_refused_even_if_it_is_a_message() {
    let fits =
        LINE_BYTES_MAX - encode(&Message::Chat(ChatReq { sender_id: ME, chat: chat("") })).len();
    let message = |len| Message::Chat(ChatReq { sender_id: ME, chat: chat(&"x".repeat(len)) });
    assert_eq!(ChatReader::new(&encode(&message(fits))[..]).read().unwrap(), Some(message(fits)));
    let error = ChatReader::new(&encode(&message(fits + 1))[..]).read().unwrap_err();
    assert!(matches!(error, LineError::TooLong), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However a line is damaged, the short way takes nothing that the general way refuses, and
    /// what it takes is the same.
    #[test]
    fn both_ways_take_the_same_of_any_damaged_line(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..4),
        piece in "(\"(type|term|msg_id|payload|seq_no)\":(null|1|\"a\"|\\[\\]),)?",
    ) {
        let cases = cases();
        let mut line = encode(&cases[which.index(cases.len())]);
        line.pop();
        for (at, byte, how) in damage {
            let at = at.index(line.len());
            match how {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                2 => { line.remove(at); }
                _ => { line.splice(at..at, piece.bytes()); }
            }
            if line.is_empty() {
                line.push(b'{');
            }
        }
        line.retain(|byte| *byte != b'\n');
        if !line.trim_ascii().is_empty() {
            let _ = both(&line);
        }
    }
}
