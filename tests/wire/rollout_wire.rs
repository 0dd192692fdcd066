//! Messages of nodes about rollouts, as lines and as frames: one schema, and a reason for whatever
//! is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufReader, Cursor, Read};

use folkmoot::model::{KeyPair, Rng, WallTime};
use folkmoot::proto::rollout::{
    AbortCause, Brake, Choice, Committed, Decision, DecisionAck, DecisionReq, DecisionResp, Digest,
    Encoding, EncodingError, GoneNodes, HealthSnapshot, Heartbeat, LENGTH_BYTES, MESSAGE_BYTES_MAX,
    Message, Mirror, ModelHealth, ModelId, NodeId, Participant, Plan, PrepareResp, RecallReq,
    RecallResp, RemovalAuthority, Resolution, RolloutReader, Roster, RoutingState, RoutingStatus,
    STATE_RESP_MAX, StateReq, StateResp, StatedMessage, Sticky, TxEnd, TxId, TxKind, TxMark,
    TxProof, TxProposal, TxVote, Weights, decode, encode,
};
use proptest::prelude::*;
use rand::SeedableRng as _;

const FORMS: [Encoding; 2] = [Encoding::Line, Encoding::Frame];

/// Draws whatever a message may hold.
struct Draw(Rng);

impl Draw {
    fn is(&mut self) -> bool {
        self.0.random_bool(0.5)
    }

    fn number(&mut self) -> u64 {
        let bits = self.0.random_range(0..64);
        self.0.random::<u64>() >> bits
    }

    fn text(&mut self) -> String {
        let all = ["a", "é", "\"", "\\", "\n", "\u{1}", "name", "x".repeat(40).as_str()]
            .map(str::to_owned);
        (0..self.0.random_range(0..6)).map(|_| all[self.0.random_range(0..8)].clone()).collect()
    }

    fn node(&mut self) -> NodeId {
        format!("node-{}", self.0.random_range(0..99)).parse().unwrap()
    }

    fn model(&mut self) -> ModelId {
        format!("v{}", self.0.random_range(0..9)).parse().unwrap()
    }

    fn txid(&mut self) -> TxId {
        let kind = TxKind::ALL[self.0.random_range(0..TxKind::ALL.len())];
        TxId { node: self.node(), epoch: self.number(), counter: self.number(), kind }
    }

    fn digest(&mut self) -> Digest {
        Digest(self.0.random())
    }

    fn roster(&mut self) -> Roster {
        let count: u16 = self.0.random_range(1..5);
        let nodes = (0..count).map(|port| Participant {
            node_id: format!("node-{port}").parse().unwrap(),
            host: "127.0.0.1".to_owned(),
            port,
            key: KeyPair::generate(&mut self.0).public(),
        });
        Roster::new(nodes.collect()).unwrap()
    }

    fn plan(&mut self) -> Plan {
        Plan {
            from: self.model(),
            to: self.model(),
            steps: (1..=self.0.random_range(1..20)).collect(),
            interval_ms: self.number(),
            gates: [
                "p95=200ms",
                "error=1.5%",
                "p95<=1.2x",
                "prom:a > 1<2@http://p",
                "http:http://h",
            ]
            .map(|it| it.parse().unwrap())
            .into(),
            sticky: match self.0.random_range(0..3) {
                0 => None,
                1 => Some(Sticky::Header("X-User".to_owned())),
                _ => Some(Sticky::Cookie { name: "sid".to_owned(), own: self.is() }),
            },
            salt: self.number(),
            samples_min: self.number(),
            window_ms: self.number(),
            owner: self.node(),
            warm_up_ms: self.number() / 8,
            failures: self.number() / 8,
            deadline_ms: self.number() / 8,
            routes: match self.is() {
                true => vec!["header:X-Team=qa \" -> canary".parse().unwrap()],
                false => Vec::new(),
            },
            mirror: self.is().then(|| Mirror { share: 500, is_unsafe: self.is() }),
            servers: (0..self.0.random_range(0..3)).map(|_| (self.model(), self.text())).collect(),
        }
    }

    fn proposal(&mut self, txid: &TxId, status: RoutingStatus) -> TxProposal {
        let (stable, canary) = (self.model(), self.model());
        let share = self.0.random_range(0..=10_000);
        TxProposal {
            txid: txid.clone(),
            state: RoutingState {
                version: self.number(),
                weights: Weights::split(&stable, &canary, share),
                stable_model_id: stable,
                canary_model_id: canary,
                status,
                txid: Some(txid.clone()),
                timestamp: WallTime(self.0.random_range(0..4_000_000_000_000)),
            },
            base: self.digest(),
            roster: self.digest(),
            new_roster: self.is().then(|| self.roster()),
            plan: self.is().then(|| self.plan()),
            note: self.text(),
            gone: self.gone(),
            serves: (0..self.0.random_range(0..3))
                .map(|_| (self.model(), self.is().then(|| self.text())))
                .collect(),
        }
    }

    fn gone(&mut self) -> Option<GoneNodes> {
        if self.0.random_range(0..4) > 0 {
            return None;
        }
        let nodes = (0..self.0.random_range(1..3)).map(|_| self.node()).collect();
        let settles = self.is().then(|| {
            let txid = self.txid();
            let proposal = self.proposal(&txid, RoutingStatus::Committed);
            Box::new(Committed { proposal, proof: self.proof(&txid) })
        });
        let by = if self.is() { RemovalAuthority::Seeds } else { RemovalAuthority::Operator };
        Some(GoneNodes { nodes, by, settles })
    }

    fn proof(&mut self, txid: &TxId) -> TxProof {
        let keys = KeyPair::generate(&mut self.0);
        let digest = self.digest();
        let vote = |draw: &mut Self| match draw.is() {
            true => TxVote::commit(&keys, &draw.node(), txid, &digest),
            false => TxVote::abort(&keys, &draw.node(), txid),
        };
        let votes = (0..self.0.random_range(0..4)).map(|_| vote(self)).collect();
        let at = WallTime(self.0.random_range(0..4_000_000_000_000));
        let resolution =
            self.is().then(|| Resolution::new(&keys, &self.node(), txid, Choice::Abort, at));
        TxProof { votes, resolution }
    }

    fn marks(&mut self) -> std::collections::BTreeMap<NodeId, TxMark> {
        let mark = |it: &mut Self| TxMark { epoch: it.number(), counter: it.number() };
        (0..self.0.random_range(0..5)).map(|_| (self.node(), mark(self))).collect()
    }

    fn heartbeat(&mut self, txid: TxId) -> Heartbeat {
        Heartbeat {
            node_id: self.node(),
            last_committed_version: self.number(),
            digest: self.digest(),
            roster: self.digest(),
            in_doubt: self.is().then(|| txid.clone()),
            serves: self.is().then(|| [(self.model(), self.text())].into()),
            brake: self.is().then(|| Brake {
                course: txid,
                version: self.number(),
                kind: TxKind::Rollback,
                reason: self.text(),
            }),
        }
    }

    fn message(&mut self, type_no: u32) -> Message {
        let txid = self.txid();
        match type_no {
            0 => {
                Message::PrepareReq(Box::new(self.proposal(&txid, RoutingStatus::Prepared).into()))
            }
            1 => Message::PrepareResp(PrepareResp {
                signed: self.proof(&txid).votes.pop(),
                txid,
                vote: if self.is() { Choice::Commit } else { Choice::Abort },
                reason: self.text(),
                cause: self.is().then_some(AbortCause::Busy),
            }),
            2 => {
                let (kind, status) = match self.is() {
                    true => (Choice::Commit, RoutingStatus::Committed),
                    false => (Choice::Abort, RoutingStatus::Aborted),
                };
                let has_content = kind == Choice::Commit || self.is();
                let proposal = has_content.then(|| self.proposal(&txid, status));
                let (proof, reason) = (self.proof(&txid), self.text());
                Message::Decision(Box::new(Decision { txid, kind, proposal, proof, reason }))
            }
            3 => Message::Heartbeat(self.heartbeat(txid)),
            4 => {
                let model = |it: &mut Self| {
                    let (samples, errors, p95_us) = (it.number(), it.number(), it.number());
                    (
                        it.model(),
                        ModelHealth {
                            samples: samples / 8,
                            errors: errors / 8,
                            refused: errors / 16,
                            cold: samples / 16,
                            p95_us,
                            p50_us: p95_us / 2,
                            p99_us: p95_us / 4,
                            unreached: errors / 32,
                            answered_5xx: errors / 64,
                        },
                    )
                };
                let (node_id, window_id) = (self.node(), self.text());
                let models = (0..self.0.random_range(0..4)).map(|_| model(self)).collect();
                let outside =
                    (0..self.0.random_range(0..3)).map(|_| (self.text(), self.is())).collect();
                Message::HealthSnapshot(HealthSnapshot { node_id, window_id, models, outside })
            }
            5 => Message::DecisionReq(DecisionReq { txid }),
            6 => Message::DecisionResp(Box::new(DecisionResp {
                outcome: [TxEnd::Commit, TxEnd::Abort, TxEnd::Uncertain, TxEnd::Refused]
                    [self.0.random_range(0..4)],
                proposal: self.is().then(|| self.proposal(&txid, RoutingStatus::Committed)),
                proof: self.proof(&txid),
                txid,
            })),
            7 => Message::DecisionAck(DecisionAck { txid }),
            8 => Message::StateReq(StateReq { from_version: self.number() }),
            9 => {
                let committed = |it: &mut Self| {
                    let txid = it.txid();
                    let proposal = it.proposal(&txid, RoutingStatus::Committed);
                    Committed { proposal, proof: it.proof(&txid) }
                };
                let count = self.0.random_range(0..STATE_RESP_MAX);
                let committed = (0..count).map(|_| committed(self)).collect();
                Message::StateResp(StateResp { committed })
            }
            10 => Message::RecallReq(RecallReq { question: self.number() }),
            _ => Message::RecallResp(RecallResp { question: self.number(), seen: self.marks() }),
        }
    }
}

const TYPES: [&str; 12] = [
    "PREPARE_REQ",
    "PREPARE_RESP",
    "DECISION",
    "HEARTBEAT",
    "HEALTH_SNAPSHOT",
    "DECISION_REQ",
    "DECISION_RESP",
    "DECISION_ACK",
    "STATE_REQ",
    "STATE_RESP",
    "RECALL_REQ",
    "RECALL_RESP",
];

fn said(type_no: u32, seed: u64) -> StatedMessage {
    let mut draw = Draw(Rng::seed_from_u64(seed));
    StatedMessage { sender: draw.node(), message: draw.message(type_no) }
}

/// The JSON text in what was encoded.
fn text(form: Encoding, bytes: &[u8]) -> &[u8] {
    match form {
        Encoding::Line => bytes.strip_suffix(b"\n").unwrap(),
        Encoding::Frame => &bytes[LENGTH_BYTES..],
    }
}

fn reason(form: Encoding, json: &str) -> String {
    let err = decode(form, json.as_bytes()).unwrap_err();
    assert!(err.is_recoverable());
    err.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// And both forms have the same fields.
    #[test]
    fn every_message_survives_both_forms(type_no in 0_u32..12, seed in any::<u64>()) {
        let said = said(type_no, seed);
        let [line, frame] = FORMS.map(|form| {
            let bytes = encode(form, &said);
            assert_eq!(Encoding::of_opening(bytes[0]), form);
            let mut reader = RolloutReader::new(form, &bytes[..]);
            assert_eq!(reader.read().unwrap().as_ref(), Some(&said));
            assert_eq!(reader.message_bytes(), bytes.len());
            assert!(reader.read().unwrap().is_none());
            serde_json::from_slice::<serde_json::Value>(text(form, &bytes)).unwrap()
        });
        let mut fields = frame["payload"].as_object().unwrap().clone();
        fields.insert("type".to_owned(), frame["msg_type"].clone());
        fields.insert("sender_id".to_owned(), frame["sender"].clone());
        prop_assert_eq!(line.as_object().unwrap(), &fields);
        prop_assert_eq!(&line["type"], TYPES[type_no as usize]);
    }

    /// A field that is gone is named, or need not be there; whatever else is damaged is a message
    /// or has a reason.
    #[test]
    fn a_damaged_message_is_a_message_or_has_a_reason(
        type_no in 0_u32..12,
        seed in any::<u64>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..6),
    ) {
        for form in FORMS {
            let bytes = encode(form, &said(type_no, seed));
            let mut json = text(form, &bytes).to_vec();
            for (at, byte, how) in &damage {
                let at = at.index(json.len());
                match how {
                    0 => json[at] = *byte,
                    1 => json.insert(at, *byte),
                    _ => json.truncate(at.max(1)),
                }
            }
            match decode(form, &json) {
                Ok(again) => {
                    let bytes = encode(form, &again);
                    prop_assert_eq!(decode(form, text(form, &bytes)).unwrap(), again);
                }
                Err(EncodingError::Malformed { reason }) => prop_assert!(!reason.is_empty()),
                Err(err) => prop_assert!(false, "{err}"),
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_and_the_reader_comes_to_an_end(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for form in FORMS {
            let mut reader = RolloutReader::new(form, &bytes[..]);
            loop {
                match reader.read() {
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                    Err(err) => {
                        prop_assert!(!err.to_string().is_empty());
                        if !err.is_recoverable() {
                            break;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_field_that_is_missing_is_named() {
    let mut required = 0;
    for (type_no, seed) in (0..12).flat_map(|it| (0..8).map(move |seed| (it, seed))) {
        let said = said(type_no, seed);
        let line = encode(Encoding::Line, &said);
        let whole: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text(Encoding::Line, &line)).unwrap();
        for name in whole.keys() {
            let mut less = whole.clone();
            less.remove(name);
            let json = serde_json::to_string(&less).unwrap();
            if let Err(err) = decode(Encoding::Line, json.as_bytes()) {
                assert!(err.to_string().contains(&format!("`{name}`")), "{name}: {err}");
                required += 1;
            }
        }
    }
    assert!(required > 12 * 8 * 2, "{required}");
    for (field, frame) in [
        ("msg_type", r#"{"sender":"node-a","payload":{}}"#),
        ("sender", r#"{"msg_type":"STATE_REQ","payload":{"from_version":1}}"#),
        ("payload", r#"{"msg_type":"STATE_REQ","sender":"node-a"}"#),
        ("from_version", r#"{"msg_type":"STATE_REQ","sender":"node-a","payload":{}}"#),
    ] {
        let reason = reason(Encoding::Frame, frame);
        assert!(reason.contains(&format!("missing field `{field}`")), "{reason}");
    }
}

#[test]
fn what_is_no_message_is_refused_with_its_reason() {
    let line = |fields: &str| format!(r#"{{"type":"STATE_REQ","sender_id":"node-a"{fields}}}"#);
    for (json, why) in [
        ("", "JSON object"),
        ("[1]", "JSON object"),
        ("garbage", "JSON object"),
        ("{", "EOF"),
        (r#"{"type":"GRANT","sender_id":"node-a"}"#, "unknown variant `GRANT`"),
        (&line(r#","from_version":-1"#), "-1"),
        (&line(r#","from_version":1,"from_version":2"#), "duplicate field `from_version`"),
        (&line(r#","from_version":1} {"#), "trailing"),
        (r#"{"type":"STATE_REQ","sender_id":"a b","from_version":1}"#, "letters, digits"),
        (r#"{"type":"DECISION_REQ","sender_id":"a","txid":"start-1"}"#, "KIND-NODE-EPOCH-COUNTER"),
    ] {
        let reason = reason(Encoding::Line, json);
        assert!(reason.contains(why), "{json}: {reason}");
    }
    let frame = |msg_type: &str, payload: &str| {
        format!(r#"{{"msg_type":"{msg_type}","sender":"node-a","payload":{payload}}}"#)
    };
    for (json, why) in [
        (frame("GRANT", "{}"), "unknown variant `GRANT`"),
        (frame("STATE_REQ", "7"), "payload that is an object"),
        (frame("STATE_REQ", r#"{"from_version":1,"from_version":2}"#), "duplicate field"),
    ] {
        let reason = reason(Encoding::Frame, &json);
        assert!(reason.contains(why), "{json}: {reason}");
    }
    // The order of fields is nobody's business.
    let turned = r#"{"payload":{"from_version":7},"x":[],"sender":"a","msg_type":"STATE_REQ"}"#;
    let message = Message::StateReq(StateReq { from_version: 7 });
    assert_eq!(decode(Encoding::Frame, turned.as_bytes()).unwrap().message, message);
}

/// As the seed document has it: the state stands in the payload, its status set.
#[test]
fn a_decision_carries_its_state_once_and_one_that_differs_is_refused() {
    let mut draw = Draw(Rng::seed_from_u64(3));
    let (txid, sender) = (draw.txid(), draw.node());
    let proposal = Some(draw.proposal(&txid, RoutingStatus::Committed));
    let (proof, reason_text) = (draw.proof(&txid), String::new());
    let decision =
        Decision { txid: txid.clone(), kind: Choice::Commit, proposal, proof, reason: reason_text };
    let message = Message::Decision(Box::new(decision.clone()));
    let bytes = encode(Encoding::Frame, &StatedMessage { sender, message });
    let json: serde_json::Value = serde_json::from_slice(text(Encoding::Frame, &bytes)).unwrap();
    let payload = &json["payload"];
    assert_eq!(payload["state"], serde_json::to_value(decision.proposal.unwrap().state).unwrap());
    assert_eq!(payload["state"]["status"], "COMMITTED");
    assert!(payload.get("proposal").is_none());
    let other = TxId { counter: txid.counter ^ 1, ..txid }.to_string();
    for (at, value, why) in [
        ("/payload/state/txid", serde_json::json!(other), "another `txid`"),
        ("/payload/txid", serde_json::json!(other), "another `txid`"),
        ("/payload/state/status", serde_json::json!("PREPARED"), "not its `kind`"),
        ("/payload/kind", serde_json::json!("ABORT"), "not its `kind`"),
        ("/payload/state/weights", serde_json::json!({"evil": 1.0, "x": 7.0}), "between 0 and 1"),
        ("/payload/state/version", serde_json::json!(-1), "-1"),
    ] {
        let mut wrong = json.clone();
        *wrong.pointer_mut(at).unwrap() = value;
        let found = reason(Encoding::Frame, &wrong.to_string());
        assert!(found.contains(why), "{at}: {found}");
    }
}

/// Hands out one byte a call, as a network may.
struct Dripping(Cursor<Vec<u8>>);

impl Read for Dripping {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = buf.len().min(1);
        self.0.read(&mut buf[..len])
    }
}

#[test]
fn messages_survive_any_splitting_and_joining_and_a_stream_that_ends_within_one_is_truncated() {
    let sent: Vec<_> = (0..12).map(|type_no| said(type_no, 5)).collect();
    for form in FORMS {
        let bytes: Vec<u8> = sent.iter().flat_map(|it| encode(form, it)).collect();
        let input = BufReader::with_capacity(3, Dripping(Cursor::new(bytes)));
        let mut reader = RolloutReader::new(form, input);
        for said in &sent {
            assert_eq!(reader.read().unwrap().as_ref(), Some(said));
        }
        assert!(reader.read().unwrap().is_none());
        let bytes = encode(form, &sent[3]);
        for len in 1..bytes.len() {
            let err = RolloutReader::new(form, &bytes[..len]).read().unwrap_err();
            assert!(
                matches!(err, EncodingError::Truncated) && !err.is_recoverable(),
                "{len}: {err}"
            );
        }
    }
}

#[test]
fn lengths_of_zero_and_of_two_gigabytes_are_refused_and_the_limit_is_exact() {
    let good = encode(Encoding::Frame, &said(8, 1));
    let bytes = [&[0; LENGTH_BYTES][..], &good].concat();
    let mut reader = RolloutReader::new(Encoding::Frame, &bytes[..]);
    let err = reader.read().unwrap_err();
    assert!(matches!(err, EncodingError::Empty) && err.to_string().contains("length 0"), "{err}");
    assert_eq!(reader.read().unwrap(), Some(said(8, 1)), "the next one is intact");
    for length in [u32::MAX, 1 << 31, MESSAGE_BYTES_MAX as u32 + 1] {
        let bytes = [&length.to_be_bytes()[..], &good].concat();
        let err = RolloutReader::new(Encoding::Frame, &bytes[..]).read().unwrap_err();
        assert!(matches!(err, EncodingError::TooLong), "{err}");
        assert!(err.to_string().contains("1048576"), "{err}");
    }
    for (form, extra) in FORMS.iter().flat_map(|form| [(*form, 0), (*form, 1)]) {
        let empty = DecisionReq { txid: said_txid() };
        let resp = |reason: String| StatedMessage {
            sender: "node-a".parse().unwrap(),
            message: Message::PrepareResp(PrepareResp {
                txid: empty.txid.clone(),
                vote: Choice::Abort,
                reason,
                cause: None,
                signed: None,
            }),
        };
        let head = if form == Encoding::Frame { LENGTH_BYTES } else { 0 };
        let bare = encode(form, &resp(String::new())).len() - head;
        let said = resp("x".repeat(MESSAGE_BYTES_MAX - bare + extra));
        let bytes = encode(form, &said);
        let read = RolloutReader::new(form, &bytes[..]).read();
        match extra {
            0 => assert_eq!(read.unwrap(), Some(said)),
            _ => assert!(matches!(read.unwrap_err(), EncodingError::TooLong)),
        }
    }
}

fn said_txid() -> TxId {
    "step-node-a-1-1".parse().unwrap()
}

/// The largest that the machine sends is below the limit.
#[test]
fn a_full_answer_with_the_largest_rosters_fits() {
    let mut draw = Draw(Rng::seed_from_u64(1));
    let name = |prefix: char, at: usize| format!("{prefix}{at:0>63}").parse::<NodeId>().unwrap();
    let txid =
        TxId { node: name('a', 0), epoch: u64::MAX, counter: u64::MAX, kind: TxKind::Promote };
    let nodes = (0..64).map(|at| Participant {
        node_id: name('b', at),
        host: format!("{at:0>255}"),
        port: u16::MAX,
        key: KeyPair::generate(&mut draw.0).public(),
    });
    let roster = Roster::new(nodes.collect()).unwrap();
    let keys = KeyPair::generate(&mut draw.0);
    let digest = draw.digest();
    let votes = (0..128).map(|at| TxVote::commit(&keys, &name('c', at), &txid, &digest)).collect();
    let mut proposal = draw.proposal(&txid, RoutingStatus::Committed);
    proposal.new_roster = Some(roster);
    proposal.note = "x".repeat(folkmoot::proto::rollout::NOTE_BYTES_MAX);
    // Quotes, which JSON makes longer, as far as a plan may have texts.
    let quotes = |rest: usize| {
        let text = format!("header:a={} -> canary", "\"".repeat(rest));
        text.parse::<folkmoot::proto::rollout::Route>().unwrap()
    };
    let mut routes = vec![quotes(236); 15];
    routes.push(quotes(120));
    let plan = Plan { steps: (9_901..=10_000).collect(), routes, ..draw.plan() };
    let plan =
        Plan { sticky: None, from: "v1".parse().unwrap(), to: "v2".parse().unwrap(), ..plan };
    let servers = ["v1", "v2"].map(|it| (it.parse().unwrap(), "0".repeat(64))).into();
    let plan = Plan { interval_ms: 1, window_ms: 1, mirror: None, servers, ..plan };
    assert_eq!(plan.check(), Ok(()), "it may be said");
    let settled = TxProposal { plan: Some(plan.clone()), new_roster: None, ..proposal.clone() };
    proposal.plan = Some(plan);
    let word = Resolution::new(&keys, &name('b', 0), &txid, Choice::Commit, WallTime(1));
    let proof = TxProof { votes: Vec::new(), resolution: Some(word) };
    let settles = Some(Box::new(Committed { proposal: settled, proof }));
    let nodes = (0..63).map(|at| name('b', at)).collect();
    proposal.gone = Some(GoneNodes { nodes, by: RemovalAuthority::Seeds, settles });
    let committed = vec![Committed { proposal, proof: TxProof::of(votes) }; STATE_RESP_MAX];
    let message = Message::StateResp(StateResp { committed });
    for form in FORMS {
        let len =
            encode(form, &StatedMessage { sender: name('d', 0), message: message.clone() }).len();
        assert!(len < MESSAGE_BYTES_MAX, "{len}");
    }
}
