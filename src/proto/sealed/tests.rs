//! Tests of both ends over a real pair of sockets, and with an attacker between them that changes
//! bytes.

use std::io::{self, BufRead as _, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::*;
use crate::proto::line::encode;
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::runtime::thread;

fn key(number: u8) -> ClusterKey {
    ClusterKey::from_bytes(std::array::from_fn(|at| number.wrapping_add(at as u8)))
}

fn keys(used: u8, also: Option<u8>) -> ClusterKeys {
    ClusterKeys::new(key(used), also.map(key))
}

/// A stream that remembers what was written to it.
struct Recorded(UnixStream, Vec<u8>);

impl Read for Recorded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Recorded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.0.write(buf)?;
        self.1.extend_from_slice(&buf[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Outcome = Result<Sealed, SealError>;

/// Lets the holder of `called` answer the holder of `caller`; also returns the bytes each has
/// written.
fn shake(caller: u8, called: ClusterKeys) -> ((Outcome, Vec<u8>), (Outcome, Vec<u8>)) {
    let (near, far) = UnixStream::pair().unwrap();
    let answering = thread::spawn("called", move || {
        let mut far = Recorded(far, Vec::new());
        let outcome = answer(&mut far, &called);
        (outcome, far.1)
    })
    .unwrap();
    let mut near = Recorded(near, Vec::new());
    let outcome = call(&mut near, &key(caller));
    drop(near.0);
    ((outcome, near.1), answering.join().unwrap())
}

fn pair() -> (Sealed, Sealed) {
    let ((near, _), (far, _)) = shake(1, keys(1, None));
    (near.unwrap(), far.unwrap())
}

/// All bytes that a reader of `bytes` gets, and the error that ended it.
fn read_all(opener: Opener, bytes: &[u8]) -> (Vec<u8>, Option<ErrorKind>) {
    let mut reader = SealedReader::new(bytes, opener);
    let mut got = Vec::new();
    let end = reader.read_to_end(&mut got).err().map(|err| err.kind());
    (got, end)
}

#[test]
fn the_handshake_has_the_documented_bytes() {
    let ((near, sent), (far, answered)) = shake(1, keys(1, None));
    assert_eq!(&sent[..17], b"FOLKMOOT NOISE 1\n");
    assert_eq!((&sent[17..19], &sent[67..69]), (&[0, 48][..], &[0, 16][..]));
    assert_eq!((sent.len(), answered.len(), &answered[..2]), (85, 50, &[0, 48][..]));
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.binding, far.binding);
    let ((other, again), _) = shake(1, keys(1, None));
    assert_ne!(sent[19..51], again[19..51], "each connection has keys of its own");
    assert_ne!(near.binding, other.unwrap().binding);
}

#[test]
fn lines_of_every_length_arrive_in_both_directions() {
    let (mut near, mut far) = pair();
    for len in [1, 15, 16, 17, 16_384, 16_385, 65_519, 65_520, 262_144] {
        let plain: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let there = near.sealer.seal(&plain);
        assert!(there.len() <= len + (len / 16_384 + 1) * 18, "{len}");
        let back = far.sealer.seal(&plain);
        assert_ne!(there, back);
        let mut frames = &there[..];
        let mut reader = SealedReader::new(&mut frames, far.opener);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, plain, "{len}");
        far.opener = reader.into_opener();
        let mut reader = SealedReader::new(&back[..], near.opener);
        got.clear();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, plain, "{len}");
        near.opener = reader.into_opener();
    }
    assert!(near.sealer.seal(&[]).is_empty());
}

#[test]
fn a_caller_is_let_in_by_each_accepted_key_and_by_no_other() {
    for (caller, called, other) in [
        (1, keys(1, None), Some(false)),
        (1, keys(1, Some(2)), Some(false)),
        (1, keys(2, Some(1)), Some(true)),
        (1, keys(2, None), None),
        (1, keys(2, Some(3)), None),
    ] {
        let ((near, _), (far, answered)) = shake(caller, called);
        match (far, other) {
            (Ok(far), Some(other)) => {
                assert_eq!(far.is_other_key, other);
                assert!(near.is_ok());
            }
            (Err(SealError::WrongKey), None) => {
                assert!(near.is_err() && answered.is_empty(), "a stranger learns nothing");
            }
            (far, other) => panic!("{far:?}, {other:?}"),
        }
    }
}

#[test]
fn a_refusal_in_plain_text_reaches_the_caller() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let refusal = ErrorReply::new(ErrorCode::ClusterKey, "not with this key");
    far.write_all(&encode(&refusal.clone().into())).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let error = call(&mut near, &key(1)).unwrap_err();
    assert!(matches!(&error, SealError::Refused(it) if *it == refusal), "{error}");
}

#[test]
fn an_answer_that_is_none_is_an_error_and_costs_no_memory() {
    for bytes in [
        &b""[..],
        b"{",
        b"{\"type\":\"BYE\",\"reason\":\"\"}\n",
        b"\0\x30",
        b"\xff\xff",
        b"HTTP/1.1 400\r\n\r\n",
        &[b"{".as_slice(), &[b'x'; 100_000]].concat(),
        &[&[0, 48][..], &[7; 48]].concat(),
    ] {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        let writer = thread::spawn("called", move || {
            let _ = far.write_all(&bytes);
            let _ = far.shutdown(Shutdown::Write);
            let _ = io::copy(&mut far, &mut io::sink());
        });
        assert!(call(&mut near, &key(1)).is_err());
        drop(near);
        writer.unwrap().join().unwrap();
    }
}

/// Result of answering a caller that sends `bytes` and no more.
fn answered(bytes: &[u8]) -> Outcome {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    near.write_all(bytes).unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    answer(&mut far, &keys(1, None))
}

#[test]
fn a_recorded_handshake_gets_no_further_than_its_first_message() {
    let ((near, sent), (far, _)) = shake(1, keys(1, None));
    let mut recorded = sent;
    recorded.extend(near.unwrap().sealer.seal(b"{\"type\":\"BYE\",\"reason\":\"\"}\n"));
    assert!(far.is_ok());
    assert!(matches!(answered(&recorded), Err(SealError::Garbled)));
    for len in 0..recorded.len().min(85) {
        assert!(matches!(answered(&recorded[..len]), Err(SealError::Io(_))), "{len}");
    }
}

#[test]
fn garbage_after_the_opening_is_refused() {
    let cases: [&[u8]; 5] =
        [b"\0\0", b"\0\x2f", b"\xff\xff", b"{\"type\":\"HELLO\"}\n", b"\0\x31garbage"];
    for case in cases {
        let outcome = answered(&[OPENING, case].concat());
        assert!(matches!(outcome, Err(SealError::Garbled)), "{outcome:?}");
    }
    let noise = [OPENING, &[0, 48], &[9; 48]].concat();
    assert!(matches!(answered(&noise), Err(SealError::WrongKey)));
    let other_version = b"FOLKMOOT NOISE 2\n".to_vec();
    assert!(matches!(answered(&other_version), Err(SealError::Garbled)));
}

#[test]
fn a_frame_that_was_touched_ends_the_stream_before_it() {
    let frames = |near: &mut Sealed| {
        [&b"first\n"[..], b"second\n", b"third\n"].map(|line| near.sealer.seal(line))
    };
    let (mut near, far) = pair();
    let [one, two, three] = frames(&mut near);
    let whole = [&one[..], &two, &three].concat();
    assert_eq!(read_all(far.opener, &whole), (b"first\nsecond\nthird\n".to_vec(), None));

    let first = (b"first\n".to_vec(), Some(ErrorKind::InvalidData));
    for at in 2..two.len() {
        let (mut near, far) = pair();
        let [one, mut two, three] = frames(&mut near);
        two[at] ^= 1;
        assert_eq!(read_all(far.opener, &[&one[..], &two, &three].concat()), first, "{at}");
    }
    type Arrange = fn([Vec<u8>; 3]) -> Vec<u8>;
    let arrange: [Arrange; 3] = [
        |[one, two, _]| [&one[..], &one, &two].concat(),
        |[one, _, three]| [&one[..], &three].concat(),
        |[one, two, three]| [&one[..], &three, &two].concat(),
    ];
    for arrange in arrange {
        let (mut near, far) = pair();
        assert_eq!(read_all(far.opener, &arrange(frames(&mut near))), first);
    }
    let (mut near, _) = pair();
    let reflected = near.sealer.seal(b"first\n");
    assert_eq!(read_all(near.opener, &reflected), (Vec::new(), Some(ErrorKind::InvalidData)));
}

#[test]
fn a_stream_that_ends_within_a_frame_is_truncated() {
    let (mut near, _) = pair();
    let len = near.sealer.seal(b"a line\n").len();
    for cut in 0..len {
        let (mut near, far) = pair();
        let frame = near.sealer.seal(b"a line\n");
        let end = (cut > 0).then_some(ErrorKind::UnexpectedEof);
        assert_eq!(read_all(far.opener, &frame[..cut]), (Vec::new(), end), "{cut}");
    }
}

#[test]
fn a_frame_that_can_hold_nothing_is_refused_at_its_length() {
    for len in 0..=16 {
        let (_, far) = pair();
        let (got, end) = read_all(far.opener, &[&[0, len][..], &[0; 16]].concat());
        assert_eq!((got.len(), end), (0, Some(ErrorKind::InvalidData)), "{len}");
    }
}

#[test]
fn a_long_frame_of_another_writer_is_read_and_its_memory_given_back() {
    let (mut near, far) = pair();
    let mut frames = Vec::new();
    near.sealer.seal_frame(&vec![b'x'; FRAME_BYTES_MAX - 16], &mut frames);
    near.sealer.seal_frame(b"short\n", &mut frames);
    let mut reader = SealedReader::new(&frames[..], far.opener);
    assert_eq!(reader.fill_buf().unwrap().len(), FRAME_BYTES_MAX - 16);
    reader.consume(FRAME_BYTES_MAX - 16);
    assert_eq!(reader.fill_buf().unwrap(), b"short\n");
    assert!(reader.buffered() <= 2 * 4_096, "{}", reader.buffered());
}
