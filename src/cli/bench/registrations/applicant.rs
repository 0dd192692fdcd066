//! An applicant without a process: the real handshake, and nothing else of a peer.

use crate::proto::message::Message;
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng as _;

use crate::machine::session::{Config, Event, Session};
use crate::machine::{Effect, Effects, LinkId, NodeCall};
use crate::model::statement::{MemberInstance, RegisterReq};
use crate::model::{Endpoint, Incarnation, KeyPair, Rng, Time};
use crate::proto::hello::{Intent, NodeInfo};
use crate::proto::line::{LineReader, encode};
use crate::runtime::clock::Clock;
use crate::runtime::thread;

/// Longest wait for any step.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Each session here serves a single connection.
const LINK: LinkId = LinkId(1);

/// Times at which an applicant asked and was admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) asked: Time,
    pub(super) admitted: Time,
}

impl Admitted {
    /// Milliseconds between the two times.
    pub(super) fn wait_ms(&self) -> f64 {
        self.admitted.since(self.asked).as_secs_f64() * 1_000.0
    }
}

/// Keys and life of an applicant.
#[derive(Clone)]
struct Identity {
    keys: KeyPair,
    life: MemberInstance,
}

impl Identity {
    fn session(&self, salt: u64) -> Session {
        let MemberInstance { endpoint, incarnation, key } = self.life;
        let info = NodeInfo::new(MemberInstance { endpoint, incarnation, key });
        let rng = Rng::seed_from_u64(u64::from(endpoint.port()) << 32 | salt);
        Session::new(Config::default(), self.keys.clone(), info, rng)
    }
}

/// Applicants that live on one port, each at an address of its own: all of 127.0.0.0/8 is this
/// machine.
type ApplicantsByPort = Arc<Mutex<BTreeMap<IpAddr, Identity>>>;

/// Applicants that register one after the other and then stay.
pub(super) struct ApplicantPool {
    port: u16,
    clock: Clock,
    residents: ApplicantsByPort,
    /// Links with seeds, kept so that the members count as alive.
    links: Vec<TcpStream>,
}

impl ApplicantPool {
    /// Takes a port and answers on it for all applicants that will live there, until the process
    /// ends.
    pub(super) fn settle(clock: Clock) -> Result<Self, String> {
        let failed = |error| format!("cannot listen for applicants: {error}");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let residents = ApplicantsByPort::default();
        let answering = Arc::clone(&residents);
        thread::spawn(format!("household:{port}"), move || answer_all(&listener, &answering))
            .map_err(failed)?;
        Ok(Self { port, clock, residents, links: Vec::new() })
    }

    /// Registers applicant `number` with these seeds.
    pub(super) fn register(&mut self, number: u32, at: &[Endpoint]) -> Result<Admitted, String> {
        let identity = self.identity(number);
        let mut calls = Vec::new();
        for seed in at {
            calls.push(SeedConnection::open(*seed, &identity)?);
        }
        let asked = self.clock.now().mono;
        let request = RegisterReq::sign(identity.life, &identity.keys);
        for call in &mut calls {
            call.send(&request.into())?;
        }
        // The first seed to report the admission is enough.
        let first = calls.first_mut().ok_or("there is no seed to ask")?;
        first.await_admission(&identity.life)?;
        let admitted = self.clock.now().mono;
        self.links.extend(calls.into_iter().map(|call| call.stream));
        Ok(Admitted { asked, admitted })
    }

    fn identity(&self, number: u32) -> Identity {
        let [_, _, high, low] = number.saturating_add(1).to_be_bytes();
        let address = IpAddr::from([127, 1, high, low]);
        let seed = u64::from(self.port) << 32 | u64::from(number);
        let keys = KeyPair::generate(&mut Rng::seed_from_u64(seed));
        let endpoint = Endpoint::new(address, self.port);
        let incarnation = Incarnation(self.clock.now().wall.0);
        let life = MemberInstance { endpoint, incarnation, key: keys.public() };
        let identity = Identity { keys, life };
        let mut residents = self.residents.lock().expect("nothing under this lock can panic");
        residents.insert(address, identity.clone());
        identity
    }
}

/// A connection to a seed.
struct SeedConnection {
    stream: TcpStream,
    reader: LineReader<BufReader<TcpStream>>,
}

impl SeedConnection {
    /// Connects and shakes hands.
    fn open(to: Endpoint, identity: &Identity) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot call seed {to}: {error}");
        let stream = TcpStream::connect_timeout(&to.socket_addr(), PATIENCE).map_err(failed)?;
        let _ = stream.set_nodelay(true);
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let reader = LineReader::new(BufReader::new(stream.try_clone().map_err(failed)?));
        let mut call = Self { stream, reader };
        let (mut session, mut fx) = (identity.session(u64::from(to.port())), Effects::default());
        session.call(to, Intent::Link, PATIENCE, &mut fx);
        let ticket = fx.drain().find_map(|effect| {
            if let Effect::Dial(NodeCall { ticket, .. }) = effect { Some(ticket) } else { None }
        });
        session.on_dialed(ticket.ok_or("a session does not dial")?, LINK, None, &mut fx);
        loop {
            for event in carry_out(&mut call.stream, &mut fx)? {
                if let Event::Opened { .. } = event {
                    return Ok(call);
                } else if let Event::Failed { error, .. } = event {
                    return Err(error.text());
                }
            }
            let msg = call.next()?;
            session.on_received(LINK, msg, &mut fx);
        }
    }

    fn send(&mut self, msg: &Message) -> Result<(), String> {
        self.stream.write_all(&encode(msg)).map_err(|error| format!("cannot ask: {error}"))
    }

    fn next(&mut self) -> Result<Message, String> {
        let read = self.reader.read().map_err(|error| format!("no answer of a seed: {error}"))?;
        read.ok_or_else(|| "a seed hung up".to_owned())
    }

    fn await_admission(&mut self, life: &MemberInstance) -> Result<(), String> {
        loop {
            let msg = self.next()?;
            if let Message::Error(error) = msg {
                return Err(format!("not let in: {}", error.reason));
            } else if let Message::RegisterCommit(admission) = msg
                && admission.subject() == *life
            {
                return Ok(());
            }
        }
    }
}

/// Sends the messages of a session, and returns its events. Its deadlines are the sockets'.
fn carry_out(stream: &mut TcpStream, fx: &mut Effects<Session>) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    for effect in fx.drain() {
        if let Effect::Send { msg, .. } = effect {
            let sent = stream.write_all(&encode(&msg));
            sent.map_err(|error| format!("cannot shake hands: {error}"))?;
        } else if let Effect::Emit(event) = effect {
            events.push(event);
        }
    }
    Ok(events)
}

/// Answers the probes of seeds, one after the other, as the applicant of the called address.
fn answer_all(listener: &TcpListener, residents: &ApplicantsByPort) {
    for (salt, stream) in listener.incoming().enumerate() {
        let Ok(stream) = stream else { continue };
        let Ok(here) = stream.local_addr() else { continue };
        let identity = {
            let residents = residents.lock().expect("nothing under this lock can panic");
            residents.get(&here.ip()).cloned()
        };
        if let Some(identity) = identity {
            // A seed that hangs up has its answer, or will ask again.
            let _ = answer(stream, identity.session(salt as u64));
        }
    }
}

fn answer(mut stream: TcpStream, mut session: Session) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let from = stream.peer_addr().map_err(failed)?.ip();
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut reader = LineReader::new(BufReader::new(stream.try_clone().map_err(failed)?));
    let mut fx = Effects::default();
    session.on_accepted(LINK, from, None, &mut fx);
    if let Ok(Some(msg)) = reader.read() {
        session.on_received(LINK, msg, &mut fx);
        carry_out(&mut stream, &mut fx)?;
    }
    Ok(())
}
