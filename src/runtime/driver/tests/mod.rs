//! Tests of the driver over real loopback sockets, with a toy machine that obeys orders.

use crate::proto::message::Message;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;

use super::*;
use crate::machine::{
    CallFailure, DialError, DialId, Effects, HostPinged, LinkId, Machine, NodeCall, NodeMachine,
    NodeMessage, NodeOpening, PingHost, Vocabulary,
};
use crate::model::Endpoint;
use crate::proto::dialect::Dialect;
use crate::proto::line::{LINE_BYTES_MAX, encode};
use crate::proto::refusal::{ErrorCode, ErrorReply};
use crate::runtime::listen::bind;
use crate::runtime::thread;

use super::options::{RawConnection, ServeConnection};

mod accept;
mod dials;
mod disk;
mod keyed;
mod links;

/// Longest wait of a test; only a broken driver takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Machine that reports all its inputs, echoes texts that begin with `echo`, and obeys orders.
struct Toy;

#[derive(Debug, PartialEq)]
enum Event {
    Started,
    Accepted(LinkId),
    Dialed(DialId, LinkId),
    DialFailed(DialId, DialError),
    Received(LinkId, String),
    Garbled(LinkId),
    Closed(LinkId, String),
    Fired(u32),
    HostPinged(HostAnswer),
    Said(u32),
}

type ToyReport = dyn FnOnce(&mut Effects<Toy>) + Send;

/// Order to carry out effects.
struct Do(Box<ToyReport>);

impl fmt::Debug for Do {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Do")
    }
}

impl Vocabulary for Toy {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = u32;
    type Record = (u32, String);
    type Event = Event;
    type ExtraEffect = PingHost;
}

impl Machine for Toy {
    type Opening = NodeOpening;
    type CallFailure = CallFailure;
    type Command = Do;
    type ExtraInput = HostPinged;

    fn handle(&mut self, _: Now, input: Input<Self>, fx: &mut Effects<Self>) {
        let event = match input {
            Input::Start => Event::Started,
            Input::Opened { link, opening: NodeOpening::Accepted { .. } } => Event::Accepted(link),
            Input::Opened { link, opening: NodeOpening::Dialed { ticket, .. } } => {
                Event::Dialed(ticket, link)
            }
            Input::DialFailed(CallFailure { ticket, reason }) => Event::DialFailed(ticket, reason),
            Input::Received { link, msg } => {
                let text = text_of(&msg);
                if text.starts_with("echo") {
                    fx.send(link, msg);
                }
                Event::Received(link, text)
            }
            Input::Garbled { link, .. } => Event::Garbled(link),
            Input::Closed { link, reason } => Event::Closed(link, reason),
            Input::Expired(timer) => Event::Fired(timer),
            Input::Synced { .. } => unreachable!("the driver holds back"),
            Input::Extra(HostPinged { answer, .. }) => Event::HostPinged(answer),
            Input::Command(Do(what)) => return what(fx),
        };
        fx.emit(event);
    }
}

impl NodeMachine for Toy {
    fn snapshot(&self) -> Vec<Self::Record> {
        vec![(0, "snapshot".into())]
    }

    /// The first link is a member's.
    fn is_trusted(&self, link: LinkId) -> bool {
        link == LinkId(1)
    }
}

/// The one message that every version of the protocol has.
fn message(text: &str) -> Message {
    Message::from(ErrorReply::new(ErrorCode::Busy, text))
}

fn text_of(msg: &Message) -> String {
    serde_json::to_value(msg).unwrap()["reason"].as_str().unwrap().to_owned()
}

struct Node {
    driver: Arc<Driver<Toy>>,
    events: Receiver<(Now, Event)>,
    addr: SocketAddr,
    journal: PathBuf,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(adjust: impl FnOnce(&mut DriverOptions<Event>)) -> Self {
        Self::start_on(|path| Journal::open(path).unwrap().0, adjust)
    }

    fn start_on(
        open: impl FnOnce(&std::path::Path) -> Journal<(u32, String)>,
        adjust: impl FnOnce(&mut DriverOptions<Event>),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.log");
        let listener = bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, events) = bounded(10_000);
        let mut options = DriverOptions::new(sender);
        adjust(&mut options);
        let driver = Driver::start(Toy, listener, open(&journal), options).unwrap();
        let node = Self { driver, events, addr, journal, _dir: dir };
        assert_eq!(node.next(), Event::Started, "it comes first");
        node
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event was due").1
    }

    /// All events reported so far that have not been fetched.
    fn rest(&self) -> Vec<Event> {
        self.events.try_iter().map(|(_, event)| event).collect()
    }

    fn tell(&self, what: impl FnOnce(&mut Effects<Toy>) + Send + 'static) {
        self.driver.submit(Input::Command(Do(Box::new(what))));
    }

    /// Sends messages of `length` bytes until so many more bytes wait than before, or a link is
    /// closed because its other end does not read. The system takes the first ones.
    fn fill(&self, link: LinkId, bytes: usize, length: usize) {
        let (waiting, slow) = (
            || self.driver.counters().bytes_waiting.get(),
            || self.driver.counters().refused_slow.get(),
        );
        let (before, closed) = (waiting(), slow());
        while waiting() < before + bytes as u64 && slow() == closed {
            let (done, turn) = bounded(1);
            self.tell(move |fx| {
                fx.send(link, message(&"x".repeat(length)));
                done.send(()).unwrap();
            });
            // One at a time: a thread that queues faster than the driver sends would see old
            // counters, and fill by far too much.
            turn.recv_timeout(PATIENCE).unwrap();
        }
    }

    /// A client that has introduced itself, and the link it has become.
    fn client(&self) -> (Client, LinkId) {
        let mut client = Client::connect(self.addr);
        client.say("hello");
        let Event::Accepted(link) = self.next() else { panic!("the link is reported first") };
        assert_eq!(self.next(), Event::Received(link, "hello".into()));
        (client, link)
    }

    fn records(&self) -> Vec<(u32, String)> {
        Journal::open(&self.journal).unwrap().1
    }

    fn dial(&self, ticket: u64, to: SocketAddr) {
        let to = Endpoint::from(to);
        self.tell(move |fx| fx.dial(DialId(ticket), to, PATIENCE));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.driver.stop(Duration::ZERO);
            assert_eq!(self.driver.threads.at_work(), 0, "all threads have ended");
        }
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn say(&mut self, text: &str) {
        self.write(&encode(&message(text)));
    }

    /// The text of the next message; `None` when the node has closed the connection.
    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(text_of(&serde_json::from_str(&line).unwrap())),
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset => None,
            Err(err) => panic!("{err}"),
        }
    }
}

#[test]
fn a_message_for_several_links_leaves_by_each() {
    let node = Node::start();
    let (mut first, one) = node.client();
    let (mut second, two) = node.client();
    node.tell(move |fx| fx.send_all(vec![one, two], message("to both")));
    for client in [&mut first, &mut second] {
        assert_eq!(client.hear().as_deref(), Some("to both"));
    }
    node.driver.stop(PATIENCE);
}

#[test]
fn lines_are_answered_in_order_however_they_are_split_and_joined() {
    let node = Node::start();
    let (mut client, link) = node.client();
    let joined: Vec<u8> = (0..50).flat_map(|n| encode(&message(&format!("echo {n}")))).collect();
    client.write(&joined);
    for n in 0..50 {
        assert_eq!(client.hear().unwrap(), format!("echo {n}"));
        assert_eq!(node.next(), Event::Received(link, format!("echo {n}")));
    }
    for byte in encode(&message("echo split")) {
        client.write(&[byte]);
    }
    assert_eq!(client.hear().unwrap(), "echo split");
    drop(client);
    node.next();
    assert_eq!(node.next(), Event::Closed(link, "closed by the other end".into()));
    assert_eq!(node.driver.counters().lines_out.get(), 51);
    assert_eq!(node.driver.counters().lines_in.get(), 52);
}

#[test]
fn many_links_at_once_are_kept_apart() {
    let node = Node::start();
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let mut client = Client::connect(node.addr);
            thread::spawn(format!("client:{number}"), move || {
                for round in 0..200 {
                    let text = format!("echo {number} {round}");
                    client.say(&text);
                    assert_eq!(client.hear().unwrap(), text);
                }
            })
            .unwrap()
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn deadlines_come_in_order_and_stopped_ones_not_at_all() {
    let node = Node::start();
    let millis = Duration::from_millis;
    node.tell(move |fx| {
        fx.set_timer(9u32, Duration::from_secs(3600));
        fx.set_timer(1u32, millis(30));
        fx.set_timer(2u32, millis(5));
        fx.set_timer(3u32, millis(1));
        fx.set_timer(3u32, millis(60));
        fx.stop_timer(2u32);
    });
    assert_eq!(node.next(), Event::Fired(1));
    assert_eq!(node.next(), Event::Fired(3));
    // The timer thread now waits for an hour, and must be woken for a nearer deadline.
    node.tell(move |fx| fx.set_timer(4u32, millis(5)));
    assert_eq!(node.next(), Event::Fired(4));
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
}

#[test]
fn unfetched_events_are_dropped_and_counted_and_stop_nobody() {
    let node = Node::start();
    node.tell(|fx| (0..10_500).for_each(|n| fx.emit(Event::Said(n))));
    assert_eq!(node.driver.counters().events_dropped.get(), 500);
    assert_eq!(node.rest().len(), 10_000);
    let (mut client, _) = node.client();
    client.say("echo");
    assert_eq!(client.hear().unwrap(), "echo");
}

#[test]
fn stopping_drains_syncs_and_frees_the_port() {
    let node = Node::start();
    let (mut client, link) = node.client();
    let _silent = Client::connect(node.addr);
    node.tell(move |fx| {
        fx.persist((1, "last".to_owned()));
        (0..100).for_each(|n| fx.send(link, message(&n.to_string())));
    });
    let reading = thread::spawn("client", move || {
        for n in 0..100 {
            assert_eq!(client.hear().unwrap(), n.to_string());
        }
        assert_eq!(client.hear(), None);
    })
    .unwrap();
    node.driver.stop(PATIENCE);
    reading.join().unwrap();
    assert_eq!(node.driver.threads.at_work(), 0);
    assert_eq!(node.records(), [(1, "last".to_owned())]);
    bind(node.addr.ip(), node.addr.port()).unwrap();
    node.driver.stop(PATIENCE);
    node.tell(|fx| fx.emit(Event::Said(1)));
    assert_eq!(node.rest(), []);
}

#[test]
fn stopping_does_not_wait_for_an_end_that_does_not_read() {
    let node = Node::start();
    let (_client, link) = node.client();
    node.fill(link, 1_000_000, 200_000);
    node.driver.stop(Duration::from_millis(20));
    assert_eq!(node.driver.threads.at_work(), 0);
}

#[test]
fn every_ping_is_answered_also_beyond_the_limit() {
    let node = Node::start();
    node.tell(|fx| (0..2 * PINGS_MAX).for_each(|_| fx.ping_host(Ipv4Addr::LOCALHOST.into())));
    for _ in 0..2 * PINGS_MAX {
        assert!(matches!(node.next(), Event::HostPinged(_)));
    }
}

#[test]
fn the_machine_can_be_looked_at_between_inputs() {
    let node = Node::start();
    let (records, now) = node.driver.inspect(|toy, now| (toy.snapshot().len(), now));
    assert_eq!(records, 1);
    assert!(now.mono <= node.driver.inspect(|_, now| now).mono);
}
