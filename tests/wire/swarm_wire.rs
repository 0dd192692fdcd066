//! The bytes of a swarm: what is written, what is read, what is refused.
//!
//! `golden/swarm.hex` holds every message. It changes only on purpose, by hand.

use std::collections::BTreeMap;
use std::io::{self, Read};

use folkmoot::proto::swarm::frame::{Decoder, Frame, FrameError, FrameLimits, encode, piece_head};
use folkmoot::proto::swarm::handshake::{Expect, Handshake, SwarmHandshakeError, expected_bytes};
use folkmoot::proto::swarm::{Message, PeerId, PieceIndex, Pieces, ProtocolVariant};
use proptest::prelude::*;

const GOLDEN: &str = include_str!("../golden/swarm.hex");

/// The bytes of each case in the golden file.
fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, digits) = line.split_once(' ').expect("name and bytes");
            let digits: String = digits.split_whitespace().collect();
            (name, hex::decode(digits).expect("hexadecimal digits"))
        })
        .collect()
}

/// Messages of the golden file by their names there.
fn messages() -> Vec<(&'static str, Message)> {
    let index = PieceIndex;
    vec![
        ("choke", Message::Choke),
        ("unchoke", Message::Unchoke),
        ("interested", Message::Interested),
        ("not_interested", Message::NotInterested),
        ("have_7", Message::Have(index(7))),
        ("bitfield_11", Message::Bitfield(vec![0b1000_0010, 0b0100_0000])),
        ("bitfield_empty", Message::Bitfield(vec![])),
        ("request_305", Message::Request(index(305))),
        ("piece_7_abc", Message::Piece { index: index(7), data: b"abc".to_vec() }),
        ("cancel_7", Message::Cancel(index(7))),
        ("hashes_req", Message::HashesReq { first: index(1_024), count: 1_024 }),
        (
            "hashes",
            Message::Hashes {
                first: index(2),
                leaves: vec![[0x11; 32], [0x22; 32]],
                uncles: vec![[0x33; 32]],
            },
        ),
        ("hashes_unknown", Message::Hashes { first: index(2), leaves: vec![], uncles: vec![] }),
        ("files_req", Message::FilesReq { offset: 65_536 }),
        ("files", Message::Files { offset: 65_536, bytes: b"xy".to_vec() }),
        ("files_end", Message::Files { offset: 65_538, bytes: vec![] }),
        ("withdrawn", Message::Withdrawn),
        ("request_rest", Message::RequestRest { index: index(7), offset: 2 }),
        ("rest_7_c", Message::Rest { index: index(7), offset: 2, data: b"c".to_vec() }),
    ]
}

fn limits(variant: ProtocolVariant) -> FrameLimits {
    let pieces = Pieces::new(10_000_232, 32_768).expect("the classic example");
    FrameLimits { variant, pieces }
}

/// Gives at most so many bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(self.1).min(space.len());
        space[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Reads all of `bytes`, so many at a time; the error that ended it, if one did.
fn read_all(
    bytes: &[u8],
    step: usize,
    variant: ProtocolVariant,
) -> (Vec<Frame>, Option<io::Error>) {
    let (mut source, mut frames) = (Trickle(bytes, step), Vec::new());
    let mut decoder = Decoder::new(limits(variant));
    loop {
        match decoder.read_from(&mut source, |_| ()) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// Reads `bytes`, which must fail, and says why.
fn fails(bytes: &[u8], variant: ProtocolVariant) -> FrameError {
    let (_, error) = read_all(bytes, 1, variant);
    let inner = error.expect("this cannot be read").into_inner().expect("an error of the frames");
    *inner.downcast::<FrameError>().expect("an error of the frames")
}

#[test]
fn every_message_has_the_golden_bytes_and_is_read_from_them() {
    let mut golden = golden();
    golden.retain(|name, _| !name.starts_with("handshake"));
    for (name, msg) in messages() {
        let bytes = golden.remove(name).unwrap_or_else(|| panic!("{name} is in the file"));
        assert_eq!(hex::encode(encode(&msg)), hex::encode(&bytes), "{name}");
        for step in [1, 3, 7, bytes.len()] {
            let (frames, error) = read_all(&bytes, step, ProtocolVariant::Share);
            assert!(error.is_none(), "{name}: {error:?}");
            assert_eq!(frames, [Frame::Message(msg.clone())], "{name}");
        }
    }
    assert!(golden.is_empty(), "cases without a message: {:?}", golden.keys());
}

#[test]
fn the_head_of_a_piece_is_what_precedes_its_content() {
    let data = vec![9; 5_992];
    let whole = encode(&Message::Piece { index: PieceIndex(305), data: data.clone() });
    assert_eq!([&piece_head(PieceIndex(305), 0, 5_992)[..], &data].concat(), whole);
    let rest = encode(&Message::Rest { index: PieceIndex(305), offset: 8, data: data.clone() });
    assert_eq!([&piece_head(PieceIndex(305), 8, 5_992)[..], &data].concat(), rest);
}

#[test]
fn a_connection_that_ends_amid_a_piece_leaves_the_part_that_came() {
    let (index, data) = (PieceIndex(7), b"abcdef".to_vec());
    let piece = encode(&Message::Piece { index, data: data.clone() });
    let rest = encode(&Message::Rest { index, offset: 2, data });
    for (whole, offset) in [(piece, 0), (rest, 2)] {
        for came in 0..whole.len() {
            let mut decoder = Decoder::new(limits(ProtocolVariant::Share));
            let end = decoder.read_from(&mut &whole[..came], |_| ());
            assert_eq!(end.is_err(), came > 0);
            let content = 6_usize.saturating_sub(whole.len() - came);
            let part = (content > 0).then(|| (index, offset, b"abcdef"[..content].to_vec()));
            assert_eq!(decoder.into_part(), part);
        }
    }
}

#[test]
fn messages_follow_each_other_byte_by_byte() {
    let all: Vec<Message> = messages().into_iter().map(|(_, msg)| msg).collect();
    let bytes: Vec<u8> = all.iter().flat_map(encode).collect();
    for step in [1, 2, 5, 1_000] {
        let (frames, error) = read_all(&bytes, step, ProtocolVariant::Share);
        assert!(error.is_none());
        let expected: Vec<_> = all.iter().cloned().map(Frame::Message).collect();
        assert_eq!(frames, expected);
    }
    let (frames, error) = read_all(&bytes[..bytes.len() - 1], 1, ProtocolVariant::Share);
    assert_eq!(frames.len(), all.len() - 1);
    assert_eq!(error.map(|it| it.kind()), Some(io::ErrorKind::UnexpectedEof));
}

#[test]
fn what_cannot_be_is_refused_before_memory_is_spent_on_it() {
    let huge = [0xff, 0xff, 0xff, 0xff];
    for variant in [ProtocolVariant::Assignment, ProtocolVariant::Share] {
        assert_eq!(fails(&[0, 0, 0, 0], variant), FrameError::Empty);
        for kind in 0..=7 {
            let bytes = u32::MAX - 1;
            assert_eq!(
                fails(&[&huge[..], &[kind]].concat(), variant),
                FrameError::Length { kind, bytes }
            );
        }
        for (kind, bytes) in [
            (0, 1),
            (1, 4),
            (2, 1),
            (3, 1),
            (4, 0),
            (4, 3),
            (4, 5),
            (5, 39 + 1_025),
            (6, 8),
            (6, 12),
            (7, 0),
            (7, 3),
            (7, 4 + 32_769),
        ] {
            let head = [&(bytes + 1_u32).to_be_bytes()[..], &[kind]].concat();
            assert_eq!(fails(&head, variant), FrameError::Length { kind, bytes }, "{kind} {bytes}");
        }
    }
    for (kind, bytes) in
        [(8, 0), (16, 4), (17, 7), (17, 8 + 1_057 * 32), (18, 5), (19, 3), (19, 5 + 65_536)]
    {
        let head = [&(bytes + 1_u32).to_be_bytes()[..], &[kind]].concat();
        assert_eq!(fails(&head, ProtocolVariant::Share), FrameError::Length { kind, bytes });
    }
    let too_few = [&41_u32.to_be_bytes()[..], &[17], &[0; 7], &[2], &[0; 32]].concat();
    assert_eq!(fails(&too_few, ProtocolVariant::Share), FrameError::Length { kind: 17, bytes: 40 });
    let torn = [&42_u32.to_be_bytes()[..], &[17], &[0; 7], &[1], &[0; 33]].concat();
    assert_eq!(fails(&torn, ProtocolVariant::Share), FrameError::Length { kind: 17, bytes: 41 });
    assert_eq!(fails(&[0, 0, 0, 1, 99], ProtocolVariant::Share), FrameError::Kind(99));
    assert_eq!(fails(&[0, 2, 0, 0, 99], ProtocolVariant::Assignment), {
        FrameError::Length { kind: 99, bytes: 131_071 }
    });
}

#[test]
fn messages_of_unknown_types_are_skipped_in_the_assignment() {
    let have = encode(&Message::Have(PieceIndex(3)));
    let foreign = [&10_001_u32.to_be_bytes()[..], &[8], &[7; 10_000]].concat();
    let bare = [0, 0, 0, 1, 255].to_vec();
    let bytes = [foreign, have.clone(), bare, have].concat();
    for step in [1, 4_096, 100_000] {
        let (frames, error) = read_all(&bytes, step, ProtocolVariant::Assignment);
        assert!(error.is_none());
        let have = Frame::Message(Message::Have(PieceIndex(3)));
        let skipped = |kind, bytes| Frame::Skipped { kind, bytes };
        assert_eq!(frames, [skipped(8, 10_000), have.clone(), skipped(255, 0), have]);
    }
}

#[test]
fn handshakes_have_the_golden_bytes() {
    let golden = golden();
    let plain = Handshake { peer: PeerId(1_001), share: None };
    assert_eq!(plain.encode(), golden["handshake_1001"]);
    let share = Handshake { peer: PeerId(0xdead_beef), share: Some([0x5a; 32]) };
    assert_eq!(share.encode(), golden["handshake_share"]);
    for (bytes, expect, handshake) in
        [(plain.encode(), Expect::Assignment, plain), (share.encode(), Expect::Share, share)]
    {
        assert_eq!(bytes.len(), expected_bytes(expect));
        for end in 0..bytes.len() {
            assert_eq!(Handshake::decode(&bytes[..end], expect), Ok(None), "{end}");
        }
        assert_eq!(Handshake::decode(&bytes, expect), Ok(Some(handshake)));
    }
}

#[test]
fn a_wrong_handshake_is_refused_at_its_first_wrong_byte() {
    let plain = Handshake { peer: PeerId(1), share: None }.encode();
    for at in 0..18 {
        let mut bytes = plain.clone();
        bytes[at] ^= 0x20;
        for expect in [Expect::Assignment, Expect::Share] {
            assert_eq!(Handshake::decode(&bytes[..at], expect), Ok(None));
            assert_eq!(Handshake::decode(&bytes[..=at], expect), Err(SwarmHandshakeError::Header));
        }
    }
    let refused = Handshake::decode(&plain[..19], Expect::Share);
    assert_eq!(refused, Err(SwarmHandshakeError::NoShare));
}

#[test]
fn the_spare_bytes_may_be_anything_and_the_id_may_be_digits() {
    let mut bytes = Handshake { peer: PeerId(1_001), share: None }.encode();
    bytes[18..28].copy_from_slice(b"reserved!!");
    let known = |id| [1_001, 42].map(PeerId).contains(&id);
    let who = |bytes: &[u8]| {
        let found = Handshake::decode(bytes, Expect::Assignment).expect("a handshake");
        found.expect("a whole one").peer_among(known)
    };
    assert_eq!(who(&bytes), PeerId(1_001));
    for (digits, id) in [(b"1001", 1_001), (b"42\0\0", 42), (b"  42", 42), (b"0042", 42)] {
        bytes[28..].copy_from_slice(digits);
        assert_eq!(who(&bytes), PeerId(id));
    }
    bytes[28..].copy_from_slice(b"1002");
    assert_eq!(who(&bytes), PeerId(u32::from_be_bytes(*b"1002")), "unknown either way");
    bytes[28..].copy_from_slice(b"+042");
    assert_eq!(who(&bytes), PeerId(u32::from_be_bytes(*b"+042")));
}

fn any_message() -> impl Strategy<Value = Message> {
    let index = || any::<u32>().prop_map(PieceIndex);
    let hash = || prop::collection::vec(any::<[u8; 32]>(), 0..5);
    prop_oneof![
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        index().prop_map(Message::Have),
        prop::collection::vec(any::<u8>(), 0..1_000).prop_map(Message::Bitfield),
        index().prop_map(Message::Request),
        (index(), prop::collection::vec(any::<u8>(), 0..2_000))
            .prop_map(|(index, data)| Message::Piece { index, data }),
        index().prop_map(Message::Cancel),
        (index(), any::<u32>()).prop_map(|(first, count)| Message::HashesReq { first, count }),
        (index(), hash(), hash()).prop_map(|(first, leaves, uncles)| Message::Hashes {
            first,
            leaves,
            uncles
        }),
        Just(Message::Withdrawn),
        (index(), any::<u32>()).prop_map(|(index, offset)| Message::RequestRest { index, offset }),
        (index(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..2_000))
            .prop_map(|(index, offset, data)| Message::Rest { index, offset, data }),
        any::<u32>().prop_map(|offset| Message::FilesReq { offset }),
        (any::<u32>(), prop::collection::vec(any::<u8>(), 0..2_000))
            .prop_map(|(offset, bytes)| Message::Files { offset, bytes }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_is_read(
        messages in prop::collection::vec(any_message(), 0..10),
        step in 1..3_000_usize,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(encode).collect();
        let (frames, error) = read_all(&bytes, step, ProtocolVariant::Share);
        prop_assert!(error.is_none(), "{error:?}");
        let expected: Vec<_> = messages.into_iter().map(Frame::Message).collect();
        prop_assert_eq!(frames, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_mean_the_same_in_any_portions(
        bytes in prop::collection::vec(prop_oneof![0..20_u8, any::<u8>()], 0..600),
        step in 1..100_usize,
        is_share in any::<bool>(),
    ) {
        let variant = if is_share { ProtocolVariant::Share } else { ProtocolVariant::Assignment };
        let (frames, error) = read_all(&bytes, step, variant);
        let (whole, same) = read_all(&bytes, bytes.len().max(1), variant);
        prop_assert_eq!(frames, whole);
        prop_assert_eq!(error.map(|it| it.to_string()), same.map(|it| it.to_string()));
    }

    #[test]
    fn arbitrary_handshakes_never_panic(
        tail in prop::collection::vec(any::<u8>(), 0..60),
        cut in 0..19_usize,
    ) {
        let bytes = [&b"P2PFILESHARINGPROJ"[..cut.min(18)], &tail].concat();
        for expect in [Expect::Assignment, Expect::Share] {
            if let Ok(Some(found)) = Handshake::decode(&bytes, expect) {
                prop_assert!(bytes.len() >= expected_bytes(expect));
                let _ = found.peer_among(|id| id.0 % 2 == 0);
            }
        }
    }
}
