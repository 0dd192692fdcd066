//! A member of a Byzantine order that a test plays: it has a member's key, speaks the wire with
//! the real members, and says whatever the test wants.
//!
//! Handshake and chain are written here once more, from `docs/PROTOCOL.md`: what only agrees with
//! itself would not be found otherwise.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::after;
use folkmoot::model::{KeyPair, Nonce, PublicKey, SigningBytes, WallTime};
use folkmoot::proto::bft::handshake::{OrderAck, OrderChallenge, OrderJoin, OrderProof};
use folkmoot::proto::bft::line::{OrderReader, encode};
use folkmoot::proto::bft::message::{BftRecallResp, Message, PrePrepare};
use folkmoot::proto::bft::{
    Bundle, BundleItem, BundleRef, Committee, ContentDigest, EpochNo, OrderId, PhaseVote,
    SlotHeader, SlotNo, ViewNo, VotePhase, VoteSubject,
};
use folkmoot::proto::chat::entry::{
    Body, ChainHash, Entry, HostPort, MemberId, Origin, SeqNo, Term,
};
use folkmoot::runtime::files::os_rng;
use folkmoot::runtime::thread;
use serde_json::Value;

use super::process::eventually;

/// Lines that are kept at most: a flood is answered by many.
const HEARD_MAX: usize = 100_000;

/// Time in which a real member takes the next bytes, or has cut the connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

type Reader = OrderReader<BufReader<TcpStream>>;

/// State of a liar that its threads share.
struct Shared {
    me: MemberId,
    keys: KeyPair,
    group: OrderId,
    committee: Committee,
    links: Mutex<BTreeMap<u32, Arc<TcpStream>>>,
    heard: Mutex<Vec<(u32, Message)>>,
    /// Number of connections that have ended, by member.
    ends: Mutex<BTreeMap<u32, u32>>,
    is_over: AtomicBool,
}

/// A member that a test plays. Its connections end with it.
pub struct Liar {
    shared: Arc<Shared>,
    at: SocketAddr,
}

/// Waits a moment before the next attempt.
pub fn pause(millis: u64) {
    let _ = after(Duration::from_millis(millis)).recv();
}

/// Statement that both ends of a connection sign in the handshake.
pub fn sworn(
    domain: &str,
    join: &OrderJoin,
    called: (MemberId, &PublicKey, &Nonce),
) -> SigningBytes {
    SigningBytes::new(domain)
        .number(join.sender_id.0.into())
        .key(&join.key)
        .bytes(&join.group.0)
        .nonce(&join.nonce)
        .number(join.process)
        .number(called.0.0.into())
        .key(called.1)
        .nonce(called.2)
        .bytes(&[])
}

/// The words of a handshake as a stranger can say them: `None` if the other end refuses.
pub fn call(
    at: SocketAddr,
    (me, keys): (MemberId, &KeyPair),
    group: OrderId,
) -> io::Result<(TcpStream, Reader)> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut input = OrderReader::new(BufReader::new(stream.try_clone()?));
    let nonce = Nonce::random(&mut os_rng().expect("the system has randomness"));
    let process = u64::from(me.0);
    let join = OrderJoin { sender_id: me, group, key: keys.public(), nonce, process };
    stream.write_all(&encode(&Message::OrderJoin(join.clone())))?;
    let Some(Message::OrderChallenge(it)) = hear(&mut input)? else { return Err(refused()) };
    let called = (it.sender_id, &it.key, &it.nonce);
    assert!(it.key.verifies(&sworn("folkmoot/bft/challenge/1", &join, called), &it.proof));
    let proof = keys.sign(&sworn("folkmoot/bft/proof/1", &join, called));
    stream.write_all(&encode(&Message::OrderProof(OrderProof { proof })))?;
    match hear(&mut input)? {
        Some(Message::OrderAck(_)) => Ok((stream, input)),
        _ => Err(refused()),
    }
}

fn refused() -> io::Error {
    io::Error::other("the handshake is refused")
}

fn hear(input: &mut Reader) -> io::Result<Option<Message>> {
    input.read().map_err(|error| io::Error::other(error.to_string()))
}

impl Shared {
    /// Serves a connection that a member of a higher id has made.
    fn accept(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut input = OrderReader::new(BufReader::new(stream.try_clone()?));
        let Some(Message::OrderJoin(join)) = hear(&mut input)? else { return Err(refused()) };
        let nonce = Nonce::random(&mut os_rng().expect("the system has randomness"));
        let key = self.keys.public();
        let called = (self.me, &key, &nonce);
        let proof = self.keys.sign(&sworn("folkmoot/bft/challenge/1", &join, called));
        let challenge = OrderChallenge { sender_id: self.me, key, nonce, proof };
        stream.write_all(&encode(&Message::OrderChallenge(challenge)))?;
        let Some(Message::OrderProof(OrderProof { proof })) = hear(&mut input)? else {
            return Err(refused());
        };
        assert!(join.key.verifies(&sworn("folkmoot/bft/proof/1", &join, called), &proof));
        let ack = OrderAck { sender_id: self.me, process: u64::from(self.me.0) };
        stream.write_all(&encode(&Message::OrderAck(ack)))?;
        self.attend(join.sender_id.0, stream, &mut input);
        Ok(())
    }

    /// Calls a member of a lower id whenever there is no connection with it.
    fn keep_calling(self: &Arc<Self>, id: u32, at: SocketAddr) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Ok((stream, mut input)) = call(at, (self.me, &self.keys), self.group) {
                self.attend(id, stream, &mut input);
            }
            pause(50);
        }
    }

    /// Hears a member until the connection ends.
    fn attend(&self, id: u32, stream: TcpStream, input: &mut Reader) {
        let stream = Arc::new(stream);
        self.links.lock().unwrap().insert(id, Arc::clone(&stream));
        while let Ok(Some(message)) = hear(input) {
            if let Message::RecallReq(request) = &message {
                // What an honest member asks at its start; without it all of them begin late.
                let nonce = request.nonce;
                let answer = BftRecallResp { nonce, commit: None, change: None };
                let _ = (&*stream).write_all(&encode(&Message::RecallResp(answer)));
            }
            let mut heard = self.heard.lock().unwrap();
            if heard.len() < HEARD_MAX {
                heard.push((id, message));
            }
        }
        let mut links = self.links.lock().unwrap();
        if links.get(&id).is_some_and(|it| Arc::ptr_eq(it, &stream)) {
            links.remove(&id);
        }
        drop(links);
        *self.ends.lock().unwrap().entry(id).or_default() += 1;
    }
}

impl Liar {
    /// Plays the member `id` of the committee, which was founded with this salt.
    pub fn start(id: u32, keys: KeyPair, committee: &Committee, salt: &str) -> Self {
        let me = MemberId(id);
        let shared = Arc::new(Shared {
            me,
            keys,
            group: committee.order_id(salt),
            committee: committee.clone(),
            links: Mutex::default(),
            heard: Mutex::default(),
            ends: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let address = |it: &HostPort| SocketAddr::new(it.host, it.port);
        let at = address(&committee.voter(me).expect("it is a member").member.at);
        let listener = TcpListener::bind(at).expect("the port is free");
        let own = Arc::clone(&shared);
        let listen = move || {
            while let Ok((stream, _)) = listener.accept() {
                if own.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let served = Arc::clone(&own);
                let _ = thread::spawn("liar-link", move || served.accept(stream));
            }
        };
        thread::spawn("liar-port", listen).expect("there is room");
        for voter in committee.voters().iter().filter(|it| it.member.id < me) {
            let (own, to) = (Arc::clone(&shared), address(&voter.member.at));
            let id = voter.member.id.0;
            let calls = move || own.keep_calling(id, to);
            thread::spawn("liar-call", calls).expect("there is room");
        }
        Self { shared, at }
    }

    pub fn me(&self) -> MemberId {
        self.shared.me
    }

    pub fn keys(&self) -> &KeyPair {
        &self.shared.keys
    }

    pub fn group(&self) -> OrderId {
        self.shared.group
    }

    pub fn committee(&self) -> &Committee {
        &self.shared.committee
    }

    pub fn signer(&self) -> (MemberId, &KeyPair) {
        (self.me(), self.keys())
    }

    fn link(&self, to: u32) -> Option<Arc<TcpStream>> {
        self.shared.links.lock().unwrap().get(&to).cloned()
    }

    /// Waits for the connection with a member.
    #[track_caller]
    pub fn reach(&self, to: u32) -> Arc<TcpStream> {
        let mut link = None;
        let is_there = eventually(|| {
            link = self.link(to);
            link.is_some()
        });
        assert!(is_there, "member {to} is not linked with the liar");
        link.expect("it is there")
    }

    /// Sends a message to a member, which may cut the connection meanwhile.
    #[track_caller]
    pub fn tell(&self, to: u32, message: &Message) {
        self.tell_bytes(to, &encode(message));
    }

    /// Sends bytes to a member; false if it has cut the connection.
    #[track_caller]
    pub fn tell_bytes(&self, to: u32, bytes: &[u8]) -> bool {
        (&*self.reach(to)).write_all(bytes).is_ok()
    }

    /// Sends what makes the member cut the connection.
    #[track_caller]
    pub fn tell_and_be_cut(&self, to: u32, message: &Message) {
        self.reach(to);
        let before = self.ends(to);
        self.tell(to, message);
        let is_cut = eventually(|| self.ends(to) > before);
        assert!(is_cut, "member {to} does not cut the connection after {message:?}");
    }

    /// Number of connections with a member that have ended.
    pub fn ends(&self, of: u32) -> u32 {
        self.shared.ends.lock().unwrap().get(&of).copied().unwrap_or_default()
    }

    /// All that members have said to the liar, in the order in which it came.
    pub fn heard(&self) -> Vec<(u32, Message)> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// Waits for a message of any member, of those from number `from` on.
    #[track_caller]
    pub fn await_from<T>(
        &self,
        from: usize,
        what: &str,
        wanted: impl Fn(u32, &Message) -> Option<T>,
    ) -> T {
        let mut found = None;
        let is_there = eventually(|| {
            let heard = self.shared.heard.lock().unwrap();
            found = heard.iter().skip(from).find_map(|(by, message)| wanted(*by, message));
            found.is_some()
        });
        assert!(is_there, "the liar has not heard {what}");
        found.expect("it is there")
    }

    /// Number of messages heard so far.
    pub fn mark(&self) -> usize {
        self.shared.heard.lock().unwrap().len()
    }

    /// Signs messages of this member.
    pub fn bundle(&self, client: u64, first: u64, texts: &[&str]) -> Arc<Bundle> {
        let origin = Origin { member: self.me(), client };
        let items =
            texts.iter().map(|it| BundleItem { room: "text".into(), payload: (*it).into() });
        Arc::new(Bundle::sign(&self.group(), origin, first, items.collect(), self.keys()))
    }

    /// Signs a vote of this member.
    pub fn vote(&self, phase: VotePhase, subject: VoteSubject) -> PhaseVote {
        PhaseVote::sign(&self.group(), phase, subject, self.signer())
    }

    /// Signs a proposal of this member.
    pub fn proposal(&self, view: ViewNo, header: &SlotHeader) -> Message {
        let digest = header.digest(&self.group());
        let SlotHeader { epoch, slot, .. } = *header;
        let subject = VoteSubject { epoch, view, slot, digest };
        let signature = self.vote(VotePhase::Prepare, subject).signature;
        let proposal = PrePrepare { sender_id: self.me(), view, header: header.clone(), signature };
        Message::PrePrepare(Arc::new(proposal))
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for link in self.shared.links.lock().unwrap().values() {
            let _ = link.shutdown(std::net::Shutdown::Both);
        }
        let _ = TcpStream::connect(self.at);
    }
}

/// The end of a chain on which a liar that leads builds, as an honest leader would.
#[derive(Clone, Debug)]
pub struct Tip {
    pub slot: SlotNo,
    pub digest: ContentDigest,
    place: SeqNo,
    hash: ChainHash,
}

impl Tip {
    /// The end of the chain of a group that has placed nothing yet.
    pub fn first(group: &OrderId) -> Self {
        let digest = ContentDigest(group.0);
        Self { slot: SlotNo(0), digest, place: SeqNo(0), hash: ChainHash::default() }
    }

    /// The end of the chain of a member with this status.
    pub fn of(status: &Value) -> Self {
        let slot = serde_json::from_value(status["slot"].clone()).expect("a slot");
        let digest = serde_json::from_value(status["digest"].clone()).expect("a digest");
        let place = serde_json::from_value(status["place"].clone()).expect("a place");
        let hash = serde_json::from_value(status["hash"].clone()).expect("a hash");
        Self { slot, digest, place, hash }
    }

    /// The next header, which holds these bundles.
    pub fn header(&self, group: &OrderId, bundles: &[Arc<Bundle>]) -> SlotHeader {
        let named = |it: &Arc<Bundle>| {
            let digest = it.statement().digest(group);
            BundleRef { digest, count: it.count(), skip: 0 }
        };
        SlotHeader {
            epoch: EpochNo(0),
            slot: self.slot.next(),
            parent: self.digest,
            time: WallTime(1),
            place: self.place,
            hash: self.hash,
            bundles: bundles.iter().map(named).collect(),
            change: None,
            committee: None,
            state: None,
        }
    }

    /// The end of the chain behind that header.
    pub fn after(&self, group: &OrderId, header: &SlotHeader, bundles: &[Arc<Bundle>]) -> Self {
        let (mut place, mut hash) = (self.place, self.hash);
        let texts = bundles.iter().flat_map(|it| {
            (0..it.items.len()).filter_map(|index| Some((it.author, it.message(index)?)))
        });
        for (leader, text) in texts {
            place = place.next();
            let body = Body::Chat(text);
            hash = hash.after(&Entry {
                seq_no: place,
                term: Term(0),
                leader,
                time: header.time,
                body,
            });
        }
        Self { slot: header.slot, digest: header.digest(group), place, hash }
    }
}
