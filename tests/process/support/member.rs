//! A member that the test plays itself: true handshakes, a key and a port of its own, a real
//! certificate, and then whatever the test wants it to say.
//!
//! The member answers whoever dials it, as an honest node does, so that seeds admit it and
//! neighbors keep it; what it tells about others is up to the test.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use folkmoot::model::statement::{
    Admission, Confirmation, Finding, MemberInstance, NeighborList, RegisterReq,
};
use folkmoot::model::{
    Endpoint, Incarnation, KeyPair, Nonce, PublicKey, Rng, Signature, SigningBytes, WallTime,
};
use folkmoot::proto::hello::{Hello, HelloAck, HelloProof, Intent, NodeInfo, VERSION};
use folkmoot::proto::line::encode;
use folkmoot::proto::liveness::{DeadReport, Pong, fixed_text};
use folkmoot::proto::message::Message;
use folkmoot::runtime::clock::Clock;
use folkmoot::runtime::thread;
use rand::SeedableRng as _;

use super::PATIENCE;
use super::client::Client;

/// Messages that may wait for the test to look at them; beyond, they are lost.
const INBOX_MAX: usize = 65_536;

/// Names of the statements that the two ends of a handshake sign.
const CALLED: &str = "folkmoot/hello-ack/1";
const CALLER: &str = "folkmoot/hello-proof/1";

/// A fresh generator; nothing depends on its numbers but that they differ.
pub fn rng() -> Rng {
    Rng::try_from_rng(&mut rand::rngs::SysRng).expect("the system gives randomness")
}

/// The present moment, by the wall.
pub fn wall() -> WallTime {
    Clock::start().now().wall
}

/// Proof of `info`'s key to the holder of `challenger`.
pub fn proof(
    domain: &str,
    info: &NodeInfo,
    nonce: &Nonce,
    challenger: &PublicKey,
    keys: &KeyPair,
) -> Signature {
    let statement = SigningBytes::new(domain)
        .number(u64::from(VERSION))
        .number(info.seed.map_or(0, |seed| u64::from(seed.0)))
        .endpoint(info.endpoint)
        .incarnation(info.incarnation)
        .key(&info.key)
        .nonce(nonce)
        .key(challenger);
    keys.sign(&statement)
}

/// Outcome of a handshake.
pub enum Shaken {
    /// The link is open; has the node info of the other end.
    Open(Client, Box<NodeInfo>),
    /// The other end said no, in these words.
    Refused(String),
}

/// Calls `to` and shakes hands as `info`, with the proof made by `keys`.
#[track_caller]
pub fn shake(to: Endpoint, info: &NodeInfo, keys: &KeyPair, intent: Intent) -> Shaken {
    let mut client = Client::connect(to);
    let nonce = Nonce::random(&mut rng());
    client.send(Hello { version: VERSION, intent, nonce, info: info.clone() });
    match client.receive() {
        Some(Message::HelloAck(ack)) => {
            let proof = proof(CALLER, info, &ack.nonce, &ack.info.key, keys);
            client.send(HelloProof { proof });
            Shaken::Open(client, Box::new(ack.info))
        }
        Some(Message::Error(error)) => Shaken::Refused(error.reason),
        other => panic!("no handshake: {other:?}"),
    }
}

/// One open link of a member; pings on it are answered as long as it lives.
pub struct Link {
    /// Locked for each line, which the answers to pings must not tear.
    stream: Mutex<TcpStream>,
    inbox: Receiver<Message>,
    /// Node info of the other end.
    pub info: NodeInfo,
}

impl Link {
    fn open(mut client: Client, info: NodeInfo) -> Arc<Self> {
        let stream = client.stream().try_clone().expect("a socket can be shared");
        stream.set_read_timeout(None).expect("a socket takes options");
        let (tell, inbox) = bounded(INBOX_MAX);
        let this = Arc::new(Self { stream: Mutex::new(stream), inbox, info });
        let weak = Arc::downgrade(&this);
        thread::spawn("actor", move || {
            while let Some(msg) = client.receive() {
                match (msg, weak.upgrade()) {
                    (Message::Ping(ping), Some(link)) => link.send(Pong { nonce: ping.nonce }),
                    (msg, _) => _ = tell.try_send(msg),
                }
            }
        })
        .expect("a thread starts");
        this
    }

    pub fn send(&self, msg: impl Into<Message>) {
        let mut stream = self.stream.lock().expect("no test thread panics here");
        // A closed connection shows in what comes back.
        let _ = stream.write_all(&encode(&msg.into()));
    }

    /// Sends a line, which may be no message.
    pub fn say(&self, line: &str) {
        let mut stream = self.stream.lock().expect("no test thread panics here");
        let _ = stream.write_all(format!("{line}\n").as_bytes());
    }

    /// The next message that `wanted` takes something from; others are thrown away.
    #[track_caller]
    pub fn await_msg<T>(&self, what: &str, mut wanted: impl FnMut(Message) -> Option<T>) -> T {
        loop {
            match self.inbox.recv_timeout(PATIENCE) {
                Ok(msg) => {
                    if let Some(found) = wanted(msg) {
                        return found;
                    }
                }
                Err(error) => panic!("no {what}: {error}"),
            }
        }
    }

    /// The reason of the next refusal. `None` if the link ends.
    #[track_caller]
    fn refusal(&self) -> Option<String> {
        self.await_msg("refusal", |msg| match msg {
            Message::Error(error) => Some(Some(error.reason)),
            Message::Bye(_) => Some(None),
            _ => None,
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Ok(stream) = self.stream.get_mut() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

struct Shared {
    keys: KeyPair,
    info: Mutex<NodeInfo>,
    called: Sender<Arc<Link>>,
    is_over: AtomicBool,
}

/// A member of the test's own making.
pub struct Member {
    shared: Arc<Shared>,
    /// Links with the seeds, in the order of [`Member::link_seeds`].
    pub seeds: Vec<Arc<Link>>,
    /// Links that others opened.
    callers: Receiver<Arc<Link>>,
    listener: Option<JoinHandle<()>>,
}

impl Member {
    /// Somebody with a new key who listens on a port of its own and is no member yet.
    pub fn new() -> Self {
        let anywhere = Endpoint::new([127, 0, 0, 1].into(), 0);
        Self::at(anywhere, KeyPair::generate(&mut rng()), Incarnation(wall().0))
    }

    /// A member at this endpoint, with this key and incarnation.
    pub fn at(place: Endpoint, keys: KeyPair, incarnation: Incarnation) -> Self {
        let listener = TcpListener::bind(place.socket_addr()).expect("the port is free");
        let endpoint = Endpoint::from(listener.local_addr().expect("it is bound"));
        let info = NodeInfo::new(MemberInstance { endpoint, incarnation, key: keys.public() });
        let (called, callers) = bounded(1_024);
        let shared = Arc::new(Shared {
            keys,
            info: Mutex::new(info),
            called,
            is_over: AtomicBool::new(false),
        });
        let answering = Arc::clone(&shared);
        let listener = thread::spawn("actor-port", move || listen(&listener, &answering));
        let listener = Some(listener.expect("a thread starts"));
        Self { shared, seeds: Vec::new(), callers, listener }
    }

    /// A certified member, linked with all `seeds`.
    #[track_caller]
    pub fn admitted(seeds: &[Endpoint]) -> Self {
        let mut member = Self::new();
        member.link_seeds(seeds);
        member.register();
        member
    }

    pub fn info(&self) -> NodeInfo {
        self.shared.info.lock().expect("no test thread panics here").clone()
    }

    pub fn subject(&self) -> MemberInstance {
        self.info().subject()
    }

    pub fn endpoint(&self) -> Endpoint {
        self.info().endpoint
    }

    pub fn keys(&self) -> &KeyPair {
        &self.shared.keys
    }

    /// Shakes hands with all seeds.
    #[track_caller]
    pub fn link_seeds(&mut self, seeds: &[Endpoint]) {
        self.seeds = seeds.iter().map(|seed| self.call(*seed)).collect();
    }

    /// Opens a link.
    #[track_caller]
    pub fn call(&self, to: Endpoint) -> Arc<Link> {
        match shake(to, &self.info(), self.keys(), Intent::Link) {
            Shaken::Open(client, info) => Link::open(client, *info),
            Shaken::Refused(reason) => panic!("{to} refused: {reason}"),
        }
    }

    /// The reason why `msg` is refused at the other end of `link`. That end may have called, too,
    /// and have hung up the second link; then the message is said on the first.
    #[track_caller]
    pub fn refused(&self, link: &mut Arc<Link>, msg: impl Into<Message>) -> String {
        let msg = msg.into();
        loop {
            link.send(msg.clone());
            if let Some(reason) = link.refusal() {
                return reason;
            }
            let other = link.info.endpoint;
            let mut callers = std::iter::from_fn(|| self.callers.recv_timeout(PATIENCE).ok());
            *link = callers.find(|it| it.info.endpoint == other).expect("one link stays");
        }
    }

    /// Asks all seeds to be let in and waits for the certificate.
    #[track_caller]
    pub fn register(&mut self) {
        let subject = self.subject();
        for link in &self.seeds {
            link.send(RegisterReq::sign(subject, self.keys()));
        }
        let certificates: Vec<Admission> =
            self.seeds.iter().map(|link| await_certificate(link)).collect();
        let certificate = certificates.first().cloned();
        assert!(certificate.as_ref().is_some_and(|it| it.subject() == subject));
        self.shared.info.lock().expect("no test thread panics here").certificate = certificate;
    }

    /// States its neighbors to the seeds, and from now on to whoever shakes hands with it.
    pub fn announce(&self, version: u64, neighbors: &[Endpoint]) {
        let list = NeighborList::sign(&self.subject(), version, neighbors.to_vec(), self.keys());
        for link in &self.seeds {
            link.send(list.clone());
        }
        let mut info = self.shared.info.lock().expect("no test thread panics here");
        info.neighbors = neighbors.to_vec();
        info.degree = u32::try_from(neighbors.len()).expect("few");
    }

    /// Finding about `subject`, true or not, signed by this member.
    pub fn finding(&self, subject: MemberInstance, finding: Finding) -> Confirmation {
        Confirmation::sign(&subject, finding, (self.endpoint(), self.keys()), wall())
    }

    /// A report of its own about `subject`, with these findings.
    pub fn report(&self, subject: MemberInstance, confirmations: Vec<Confirmation>) -> DeadReport {
        let (at, reporter) = (wall(), self.endpoint());
        DeadReport {
            text: fixed_text(subject.endpoint, at, reporter),
            endpoint: subject.endpoint,
            incarnation: subject.incarnation,
            reporter,
            at,
            confirmations,
        }
    }

    /// Says this to every seed.
    pub fn tell_seeds(&self, msg: impl Into<Message>) {
        let msg = msg.into();
        for link in &self.seeds {
            link.send(msg.clone());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(self.endpoint().socket_addr()));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

#[track_caller]
fn await_certificate(link: &Link) -> Admission {
    link.await_msg("certificate", |msg| match msg {
        Message::RegisterCommit(admission) => Some(admission),
        Message::Error(error) => panic!("not let in: {}", error.reason),
        _ => None,
    })
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            let shared = Arc::clone(shared);
            let _ = thread::spawn("actor-call", move || answer(Client::over(stream), &shared));
        }
    }
}

/// The called side of a handshake.
fn answer(mut client: Client, shared: &Shared) {
    let Some(Message::Hello(hello)) = client.receive() else { return };
    let info = shared.info.lock().expect("no test thread panics here").clone();
    let proof = proof(CALLED, &info, &hello.nonce, &hello.info.key, &shared.keys);
    let nonce = Nonce::random(&mut rng());
    client.send(HelloAck { version: VERSION, nonce, proof, info });
    if hello.intent == Intent::Probe {
        // The caller hangs up when it has seen enough.
        let _ = client.line();
        return;
    }
    if let Some(Message::HelloProof(_)) = client.receive() {
        let _ = shared.called.try_send(Link::open(client, hello.info));
    }
}
