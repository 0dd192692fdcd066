//! Tests of nodes with cluster keys: callers that become links, callers that do not, and their
//! costs.

use super::*;
use crate::proto::line::LineReader;
use crate::proto::sealed::{self, ClusterKey, ClusterKeys, OPENING, PlainOrSealed, SealError};
use crate::proto::sealed::{Sealed, Sealer};

fn key(number: u8) -> ClusterKey {
    ClusterKey::from_bytes(std::array::from_fn(|at| number.wrapping_add(at as u8)))
}

fn keyed(used: u8, also: Option<u8>) -> Option<Arc<ClusterKeys>> {
    Some(Arc::new(ClusterKeys::new(key(used), also.map(key))))
}

fn node(used: u8, also: Option<u8>) -> Node {
    Node::start_with(|options| options.cluster_keys = keyed(used, also))
}

fn stream_to(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn shake(addr: SocketAddr, number: u8) -> Result<(TcpStream, Sealed), SealError> {
    let mut stream = stream_to(addr);
    let sealed = sealed::call(&mut stream, &key(number))?;
    Ok((stream, sealed))
}

/// A client that holds a key.
struct Holder {
    stream: TcpStream,
    sealer: Sealer,
    reader: LineReader<PlainOrSealed<TcpStream>>,
}

impl Holder {
    /// A client that has introduced itself, and the link it has become.
    fn link(node: &Node, number: u8) -> (Self, LinkId) {
        let (stream, Sealed { sealer, opener, .. }) = shake(node.addr, number).unwrap();
        let input = PlainOrSealed::new(stream.try_clone().unwrap(), 100, Some(opener));
        let mut this = Self { stream, sealer, reader: LineReader::new(input) };
        this.say("hello");
        let Event::Accepted(link) = node.next() else { panic!("the link is reported first") };
        assert_eq!(node.next(), Event::Received(link, "hello".into()));
        (this, link)
    }

    fn say(&mut self, text: &str) {
        self.send(&encode(&message(text)));
    }

    fn send(&mut self, plain: &[u8]) {
        let frames = self.sealer.seal(plain);
        self.stream.write_all(&frames).unwrap();
    }

    /// The text of the next message; `None` when the node has closed the connection.
    fn hear(&mut self) -> Option<String> {
        self.reader.read().ok().flatten().map(|msg| text_of(&msg))
    }
}

/// True if the node closes the connection without sending anything.
fn is_closed(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0; 100]) {
        Ok(len) => len == 0,
        Err(err) => err.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn holders_of_a_key_link_and_talk() {
    let (one, other) = (node(1, None), node(1, Some(2)));
    one.dial(1, other.addr);
    let Event::Dialed(DialId(1), near) = one.next() else { panic!("it answers") };
    let Event::Accepted(far) = other.next() else { panic!("it is called") };
    for n in 0..200 {
        let text = format!("{n} {}", "x".repeat(n * 100));
        let (there, back) = (text.clone(), text.clone());
        one.tell(move |fx| fx.send(near, message(&there)));
        assert_eq!(other.next(), Event::Received(far, text.clone()));
        other.tell(move |fx| fx.send(far, message(&back)));
        assert_eq!(one.next(), Event::Received(near, text));
    }
    assert_eq!(other.driver.counters().links_second_key.get(), 0);
    one.tell(move |fx| fx.hangup(near));
    assert_eq!(one.next(), Event::Closed(near, "closed by this node".into()));
    assert_eq!(other.next(), Event::Closed(far, "closed by the other end".into()));
    assert!(one.driver.counters().bytes_out.get() > one.driver.counters().lines_out.get() * 18);
}

#[test]
fn while_keys_change_both_are_accepted_and_the_second_is_counted() {
    let node = node(1, Some(2));
    let (mut first, _) = Holder::link(&node, 1);
    let (mut second, _) = Holder::link(&node, 2);
    for holder in [&mut first, &mut second] {
        holder.say("echo");
        assert_eq!(holder.hear().unwrap(), "echo");
    }
    assert_eq!(node.driver.counters().links_second_key.get(), 1);
    assert!(matches!(shake(node.addr, 3), Err(SealError::Refused(_))));
}

#[test]
fn whoever_has_not_the_same_key_is_told_so_once_and_leaves_no_trace() {
    let (with, without) = (node(1, None), Node::start());
    let mut plain = Client::connect(with.addr);
    // More than the node reads for an opening: the rest that it leaves unread must not cost the
    // answer.
    plain.say(&"a long HELLO ".repeat(1_000));
    let told = plain.hear().unwrap();
    assert!(told.contains("--cluster-key"), "{told}");
    assert_eq!(plain.hear(), None);
    for addr in [with.addr, without.addr] {
        let Err(SealError::Refused(error)) = shake(addr, 2) else { panic!("it is refused") };
        assert_eq!(error.code, ErrorCode::ClusterKey);
        assert!(error.reason.contains("--cluster-key"), "{}", error.reason);
    }
    for node in [&with, &without] {
        node.driver.stop(PATIENCE);
        assert_eq!(node.rest(), [], "the machine has not heard of them");
    }
    let counters = with.driver.counters();
    assert_eq!((counters.refused_keyless.get(), counters.refused_wrong_key.get()), (1, 1));
    assert_eq!(without.driver.counters().refused_key.get(), 1);
}

#[test]
fn a_call_to_somebody_without_the_same_key_fails_and_says_why() {
    let (with, without, other) = (node(1, None), Node::start(), node(2, None));
    with.dial(1, without.addr);
    assert_eq!(with.next(), Event::DialFailed(DialId(1), DialError::Barred));
    with.dial(2, other.addr);
    assert_eq!(with.next(), Event::DialFailed(DialId(2), DialError::Barred));
    assert_eq!(with.driver.counters().dials_barred.get(), 2);
    // In plain lines the caller has to send first to learn it.
    without.dial(3, with.addr);
    let Event::Dialed(_, link) = without.next() else { panic!("it listens") };
    without.tell(move |fx| fx.send(link, message("hello")));
    let Event::Received(_, told) = without.next() else { panic!("it is told") };
    assert!(told.contains("--cluster-key"), "{told}");
    assert!(matches!(without.next(), Event::Closed(..)));
    assert_eq!(without.driver.counters().dials_barred.get(), 1);
}

#[test]
fn a_call_that_is_not_answered_ends_in_time_and_tells_a_dying_process_from_a_silent_one() {
    let node = node(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Endpoint::from(listener.local_addr().unwrap());
    node.tell(move |fx| fx.dial(DialId(1), to, Duration::from_millis(50)));
    let (silent, _) = listener.accept().unwrap();
    assert_eq!(node.next(), Event::DialFailed(DialId(1), DialError::TimedOut));
    node.dial(2, to.socket_addr());
    drop(listener.accept().unwrap());
    assert_eq!(node.next(), Event::DialFailed(DialId(2), DialError::HungUp));
    node.dial(3, to.socket_addr());
    let (mut garbled, _) = listener.accept().unwrap();
    garbled.write_all(&[&[0, 48][..], &[7; 48]].concat()).unwrap();
    assert_eq!(node.next(), Event::DialFailed(DialId(3), DialError::Unreachable));
    drop(silent);
}

#[test]
fn stopping_ends_calls_whose_handshake_is_under_way() {
    let node = node(1, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    node.dial(1, listener.local_addr().unwrap());
    let (_silent, _) = listener.accept().unwrap();
    node.driver.stop(Duration::ZERO);
    assert_eq!(node.driver.threads.at_work(), 0);
}

#[test]
fn half_a_handshake_is_closed_in_time_and_the_machine_never_hears_of_it() {
    let limit = Duration::from_millis(200);
    let node = Node::start_with(|options| {
        options.cluster_keys = keyed(1, None);
        options.limits.handshake_timeout = limit;
    });
    let mut opened = stream_to(node.addr);
    opened.write_all(OPENING).unwrap();
    // A byte now and then gains no time.
    let mut drip = stream_to(node.addr);
    let bytes = [OPENING, &[0, 48], &[1; 47]].concat();
    let dripping = thread::spawn("drip", move || {
        for byte in bytes {
            if drip.write_all(&[byte]).is_err() {
                break;
            }
            let _ = crossbeam_channel::after(limit / 20).recv();
        }
        is_closed(drip)
    });
    // Everything but the last frame, which proves that the rest is no recording.
    let mut unproved = stream_to(node.addr);
    let mut recorder = Recorder { stream: &mut unproved, left: OPENING.len() + 50 };
    assert!(sealed::call(&mut recorder, &key(1)).is_ok());
    assert!(is_closed(opened) && is_closed(unproved));
    assert!(dripping.unwrap().join().unwrap());
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
    assert_eq!(node.driver.counters().refused_silent.get(), 3);
}

/// Passes so many bytes on and swallows the rest.
struct Recorder<'a> {
    stream: &'a mut TcpStream,
    left: usize,
}

impl Read for Recorder<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Recorder<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let passed = buf.len().min(self.left);
        self.stream.write_all(&buf[..passed])?;
        self.left -= passed;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn half_handshakes_hold_no_more_room_than_silence() {
    let node = Node::start_with(|options| {
        options.cluster_keys = keyed(1, None);
        options.limits.silent_max = 2;
    });
    let half = || {
        let mut stream = stream_to(node.addr);
        stream.write_all(OPENING).unwrap();
        stream
    };
    let (mut first, _second, _third) = (half(), half(), half());
    let mut told = String::new();
    // Unread input resets the connection, after what it was told.
    let _ = first.read_to_string(&mut told);
    assert!(told.contains("\"busy\""), "the oldest makes room, and is told: {told:?}");
    let (mut holder, _) = Holder::link(&node, 1);
    holder.say("echo");
    assert_eq!(holder.hear().unwrap(), "echo");
}

#[test]
fn a_frame_that_does_not_hold_ends_its_own_link_only() {
    let node = node(1, None);
    let (mut good, _) = Holder::link(&node, 1);
    type Spoil = fn(&mut Holder);
    let ways: [(Spoil, &str); 5] = [
        (|it| it.stream.write_all(&[0, 20, 1, 2, 3, 4]).unwrap(), "end of file"),
        (|it| it.stream.write_all(&[&[0, 20][..], &[9; 20]].concat()).unwrap(), "changed"),
        (|it| it.stream.write_all(&[0, 16]).unwrap(), "too short"),
        (|it| it.stream.write_all(&[b'{'; 70_000]).unwrap(), "changed"),
        (
            |it| {
                let frame = it.sealer.seal(&encode(&message("twice")));
                it.stream.write_all(&[&frame[..], &frame].concat()).unwrap();
            },
            "repeated",
        ),
    ];
    for (spoil, expected) in ways {
        let (mut bad, link) = Holder::link(&node, 1);
        spoil(&mut bad);
        let _ = bad.stream.shutdown(Shutdown::Write);
        let mut event = node.next();
        if expected == "repeated" {
            assert_eq!(event, Event::Received(link, "twice".into()), "once");
            event = node.next();
        }
        let Event::Closed(closed, reason) = event else { panic!("{event:?}") };
        assert!(closed == link && (reason.contains(expected) || expected == "end of file"));
        assert_eq!(bad.hear(), None);
    }
    good.say("echo");
    assert_eq!(good.hear().unwrap(), "echo");
    let counters = node.driver.counters();
    assert_eq!((counters.refused_frame.get(), counters.refused_truncated.get()), (4, 1));
}

#[test]
fn the_limit_of_a_line_holds_inside_frames() {
    let node = node(1, None);
    let (mut holder, link) = Holder::link(&node, 1);
    let sender = thread::spawn("long", {
        let mut stream = holder.stream.try_clone().unwrap();
        let frames = holder.sealer.seal(&vec![b'{'; 2_000_000]);
        move || _ = stream.write_all(&frames)
    });
    let told = holder.hear().unwrap();
    assert!(told.contains(&LINE_BYTES_MAX.to_string()), "{told}");
    assert_eq!(holder.hear(), None);
    assert!(matches!(node.next(), Event::Closed(closed, _) if closed == link));
    assert_eq!(node.driver.counters().refused_too_long.get(), 1);
    sender.unwrap().join().unwrap();
}

#[test]
fn nothing_readable_is_on_the_wire() {
    let (called, relay) = (node(1, None), TcpListener::bind("127.0.0.1:0").unwrap());
    let caller = node(1, None);
    caller.dial(1, relay.local_addr().unwrap());
    let (near, _) = relay.accept().unwrap();
    let far = TcpStream::connect(called.addr).unwrap();
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn("pump", move || {
            let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
            while let Ok(len @ 1..) = from.read(&mut chunk) {
                seen.extend_from_slice(&chunk[..len]);
                to.write_all(&chunk[..len]).unwrap();
            }
            let _ = to.shutdown(Shutdown::Write);
            seen
        })
        .unwrap()
    };
    let there = pump(near.try_clone().unwrap(), far.try_clone().unwrap());
    let back = pump(far, near);
    let Event::Dialed(_, link) = caller.next() else { panic!("the relay answers") };
    let Event::Accepted(far) = called.next() else { panic!("the relay calls") };
    caller.tell(move |fx| fx.send(link, message("a secret")));
    assert_eq!(called.next(), Event::Received(far, "a secret".into()));
    called.tell(move |fx| fx.send(far, message("another secret")));
    assert_eq!(caller.next(), Event::Received(link, "another secret".into()));
    caller.tell(move |fx| fx.hangup(link));
    assert!(matches!(caller.next(), Event::Closed(..)));
    for seen in [there, back] {
        let seen = seen.join().unwrap();
        assert!(seen.len() > 100);
        for word in [&b"\"type\""[..], b"secret", b"{\""] {
            assert!(!seen.windows(word.len()).any(|it| it == word));
        }
    }
}

#[test]
fn a_swarms_connection_is_not_heard_where_a_key_is_wanted() {
    struct Never;
    impl ServeConnection for Never {
        fn serve(&self, _: RawConnection) {
            unreachable!("it shows no key");
        }
    }
    let node = Node::start_with(|options| {
        options.cluster_keys = keyed(1, None);
        options.dialects.open(Dialect::Swarm, Arc::new(Never));
    });
    let mut stream = stream_to(node.addr);
    stream.write_all(b"P2PFILESHARINGPROJ\0\0\0\0\0\0\0\0\0\0\0\0\x03\xe9").unwrap();
    assert!(is_closed(stream));
    assert_eq!(node.driver.counters().refused_keyless.get(), 1);
}
