//! Strangers in numbers at the port of a chat: that they keep no newcomer out.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::chat::Role;
use folkmoot::model::{Nonce, Rng, SigningBytes, Time};
use folkmoot::proto::chat::entry::{HostPort, Member, MemberId, Term};
use folkmoot::proto::chat::message::{Join, JoinChallenge, JoinIntent, JoinProof, Message};
use folkmoot::proto::chat::{ChatReader, encode};
use folkmoot::runtime::chat::EngineLimits;
use folkmoot::runtime::clock::Clock;
use folkmoot::runtime::descriptors;
use rand::SeedableRng as _;

use super::chat_engine::{PATIENCE, Setup, joining, keys, setup, start, stop_all};

/// A caller of a chat that is in the middle of its handshake.
struct Caller {
    stream: Arc<TcpStream>,
    input: ChatReader<BufReader<TcpStream>>,
    join: Join,
}

impl Caller {
    /// Calls from an address of this machine, and says the first word.
    fn call(from: Ipv4Addr, to: SocketAddr, id: u32) -> Self {
        let stream = connect(from, to);
        let key = keys(u8::try_from(id).unwrap()).public();
        let at = HostPort { host: Ipv4Addr::LOCALHOST.into(), port: 1 };
        let join = Join {
            sender_id: MemberId(id),
            term: Term(0),
            group: None,
            intent: JoinIntent::Member,
            membership: vec![Member { id: MemberId(id), at, key }],
            nonce: Nonce::random(&mut Rng::seed_from_u64(id.into())),
            life: Some(1),
        };
        (&stream).write_all(&encode(&Message::Join(join.clone()))).unwrap();
        let input = ChatReader::new(BufReader::new(stream.try_clone().unwrap()));
        Self { stream: Arc::new(stream), input, join }
    }

    /// Proves its key, and returns the answer; `None` if it is hung up on.
    fn prove(&mut self) -> Option<Message> {
        let Message::JoinChallenge(challenge) = self.input.read().ok()?? else { return None };
        let JoinChallenge { sender_id, key, nonce, .. } = challenge;
        let caller = &self.join.membership[0];
        let sworn = SigningBytes::new("folkmoot/chat/proof/1")
            .number(caller.id.0.into())
            .key(&caller.key)
            .text(&caller.at.host.to_string())
            .number(caller.at.port.into())
            .number(0)
            .bytes(&[])
            .nonce(&self.join.nonce)
            .number(sender_id.0.into())
            .key(&key)
            .nonce(&nonce)
            .bytes(&[]);
        let proof = keys(u8::try_from(caller.id.0).unwrap()).sign(&sworn);
        (&*self.stream).write_all(&encode(&Message::JoinProof(JoinProof { proof }))).ok()?;
        self.input.read().ok()?
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    // Both ends of all connections are here: more than the usual soft limit of open files.
    descriptors::raise();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn links_that_were_hung_up_take_nobodys_place() {
    let dir = tempfile::tempdir().unwrap();
    let limits = EngineLimits { links_max: 160, ..EngineLimits::default() };
    let mut one = start(dir.path(), Setup { limits, ..setup(1) });
    one.await_role(Role::Leader);
    let to = one.engine.addr().unwrap();
    // Each takes the place of the one before, which does not close its end.
    let mut callers = Vec::new();
    for number in 0..500 {
        let mut caller = Caller::call(Ipv4Addr::LOCALHOST, to, 9);
        let answer = caller.prove();
        assert!(matches!(answer, Some(Message::JoinAck(_))), "call {number}: {answer:?}");
        callers.push(caller);
    }
    assert_eq!(one.engine.counters().refused_full.get(), 0);
    one.engine.stop();
}

#[test]
fn half_handshakes_of_one_address_keep_no_newcomer_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = start(dir.path(), setup(1));
    one.await_role(Role::Leader);
    let to = one.engine.addr().unwrap();
    let mut newcomer = Caller::call(Ipv4Addr::LOCALHOST, to, 9);
    let silent: Vec<_> = (0..300).map(|_| connect(Ipv4Addr::new(127, 0, 0, 2), to)).collect();
    let clock = Clock::start();
    let refused = || one.engine.counters().refused_silent.get();
    while refused() < 230 && clock.now().mono < Time::ZERO.after(PATIENCE) {
        let _ = crossbeam_channel::after(Duration::from_millis(5)).recv();
    }
    let answer = newcomer.prove();
    assert!(matches!(answer, Some(Message::JoinAck(_))), "{answer:?} of {}", refused());
    drop(silent);
    one.engine.stop();
}

#[test]
fn a_newcomer_that_finds_no_room_calls_less_and_less_often_and_gets_in_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = start(dir.path(), setup(1));
    one.await_role(Role::Leader);
    let to = one.engine.addr().unwrap();
    // As many strangers as a member takes.
    let strangers: Vec<_> = (101..=164)
        .map(|id| {
            let mut caller = Caller::call(Ipv4Addr::LOCALHOST, to, id);
            assert!(matches!(caller.prove(), Some(Message::JoinAck(_))));
            caller
        })
        .collect();
    let mut newcomer = start(dir.path(), joining(2, &one));
    // Four seconds hold five pauses of each of the two that call, the seeker and the machine.
    let _ = crossbeam_channel::after(Duration::from_secs(4)).recv();
    let calls = one.engine.counters().links.get() - 64;
    assert!((1..=12).contains(&calls), "{calls} calls in four seconds");
    drop(strangers);
    newcomer.await_role(Role::Follower);
    stop_all([one, newcomer]);
}

#[test]
fn who_finds_no_room_is_told_so_in_words_it_knows() {
    let from = Ipv4Addr::LOCALHOST;
    for (cluster_key, word) in [(None, "\"code\":\"busy\""), (Some(5), "\"type\":\"ERROR\"")] {
        let dir = tempfile::tempdir().unwrap();
        let handshake_timeout = Duration::from_secs(3);
        let limits = EngineLimits {
            links_max: 2,
            silent_max: 1,
            handshake_timeout,
            ..EngineLimits::default()
        };
        let one = start(dir.path(), Setup { limits, cluster_key, ..setup(1) });
        let to = one.engine.addr().unwrap();
        // Of two silent ones one goes; a third finds no place, or takes the other's.
        let callers = [(); 3].map(|()| connect(from, to));
        let words = callers.map(|caller| {
            let mut words = String::new();
            let _ = (&caller).read_to_string(&mut words);
            words
        });
        let told = words.iter().filter(|it| it.contains(word) && it.contains("no room")).count();
        assert!(told >= 2, "{words:?}");
        one.engine.stop();
    }
}
