//! Members of a Byzantine order with real threads, sockets and files: that they agree, what a
//! restart finds, who is turned away and why.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use folkmoot::machine::bft::{Config, Event};
use folkmoot::model::{KeyPair, Nonce, Now, Rng, SigningBytes};
use folkmoot::proto::bft::handshake::{OrderJoin, OrderProof, OrderRefusal};
use folkmoot::proto::bft::line::{OrderReader, encode};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::{Committee, EpochNo, OrderId, SlotNo};
use folkmoot::proto::chat::entry::{Body, Entry, HostPort, Member, MemberId, SeqNo};
use folkmoot::proto::sealed::{ClusterKey, ClusterKeys};
use folkmoot::runtime::driver::options::EventSink;
use folkmoot::runtime::order::{
    EngineLimits, OrderEngine, OrderNotification, OrderOptions, OrderStartError,
};
use rand::SeedableRng as _;

const PATIENCE: Duration = Duration::from_secs(60);
const SALT: &str = "engine";

fn keys(id: u32) -> KeyPair {
    KeyPair::from_secret([u8::try_from(id).unwrap(); 32])
}

/// Committee at free ports of this machine.
fn committee(size: u32) -> Arc<Committee> {
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ports: Vec<_> = (0..size).map(|_| any()).collect();
    let port = |it: &TcpListener| it.local_addr().unwrap().port();
    let members = (1..).zip(&ports).map(|(id, listener)| {
        let at = HostPort { host: Ipv4Addr::LOCALHOST.into(), port: port(listener) };
        Member { id: MemberId(id), at, key: keys(id).public() }
    });
    Arc::new(Committee::of(members).unwrap())
}

fn addr_of(committee: &Committee, id: u32) -> SocketAddr {
    let HostPort { host, port } = committee.voter(MemberId(id)).unwrap().member.at;
    SocketAddr::new(host, port)
}

struct Ear(crossbeam_channel::Sender<OrderNotification>);

impl EventSink<OrderNotification> for Ear {
    fn take(&self, _: Now, told: OrderNotification) -> bool {
        self.0.try_send(told).is_ok()
    }
}

struct Running {
    engine: OrderEngine,
    told: Receiver<OrderNotification>,
    delivered: Vec<Arc<Entry>>,
    others: Vec<OrderNotification>,
}

/// Settings of a member with a data directory `dir`.
#[derive(Clone)]
struct Setup<'a> {
    id: u32,
    dir: &'a Path,
    committee: Arc<Committee>,
    salt: &'a str,
    listen: Option<SocketAddr>,
    cluster_key: Option<u8>,
    is_restored: bool,
}

fn setup<'a>(dir: &'a Path, committee: &Arc<Committee>, id: u32) -> Setup<'a> {
    let listen = committee.voter(MemberId(id)).map(|_| addr_of(committee, id));
    let committee = Arc::clone(committee);
    Setup { id, dir, committee, salt: SALT, listen, cluster_key: None, is_restored: false }
}

fn try_start(setup: Setup<'_>) -> Result<Running, OrderStartError> {
    let (tell, told) = bounded(1 << 20);
    let key = |it: u8| Arc::new(ClusterKeys::new(ClusterKey::from_bytes([it; 32]), None));
    let engine = OrderEngine::start(OrderOptions {
        listen: setup.listen,
        keys: keys(setup.id),
        me: MemberId(setup.id),
        founders: setup.committee,
        salt: setup.salt.to_owned(),
        log_dir: setup.dir.join("log"),
        marker: Some(setup.dir.join(format!("signed-{}", setup.id))),
        is_restored: setup.is_restored,
        config: Config { snapshot_every: 16, ..Config::default() },
        cluster_keys: setup.cluster_key.map(key),
        limits: EngineLimits { write_timeout: Duration::from_secs(1), ..EngineLimits::default() },
        sink: Box::new(Ear(tell)),
    })?;
    Ok(Running { engine, told, delivered: Vec::new(), others: Vec::new() })
}

fn start(setup: Setup<'_>) -> Running {
    try_start(setup).unwrap()
}

impl Running {
    /// Waits for what is told until something is found in it.
    #[track_caller]
    fn until<T>(&mut self, what: &str, find: impl Fn(&Self) -> Option<T>) -> T {
        let late = crossbeam_channel::after(PATIENCE);
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            let told = crossbeam_channel::select! {
                recv(self.told) -> told => told.map_err(|_| ()),
                recv(late) -> _ => Err(()),
            };
            match told {
                Ok(OrderNotification::Delivered(entries)) => self.delivered.extend(entries),
                Ok(told) => self.others.push(told),
                Err(()) => {
                    let status = self.engine.status();
                    let (seen, told) = (self.delivered.len(), &self.others);
                    panic!("{:?}: not {what} but {seen}; {told:?}; {status:?}", self.engine);
                }
            }
        }
    }

    #[track_caller]
    fn await_count(&mut self, count: usize) {
        self.until("all messages", |it| (it.delivered.len() >= count).then_some(()));
    }

    #[track_caller]
    fn await_note(&mut self, part: &str) -> String {
        self.until(part, |it| {
            it.others.iter().find_map(|told| match told {
                OrderNotification::Note(text) | OrderNotification::Failed(text)
                    if text.contains(part) =>
                {
                    Some(text.clone())
                }
                OrderNotification::Note(_)
                | OrderNotification::Failed(_)
                | OrderNotification::Event(_)
                | OrderNotification::Delivered(_) => None,
            })
        })
    }

    #[track_caller]
    fn await_event(&mut self, what: &str, is: impl Fn(&Event) -> bool) {
        self.until(what, |it| {
            let mut events = it.others.iter();
            events.any(|told| matches!(told, OrderNotification::Event(it) if is(it))).then_some(())
        });
    }

    fn texts(&self) -> Vec<String> {
        let text = |entry: &Arc<Entry>| match &entry.body {
            Body::Chat(chat) => chat.payload.to_string(),
            Body::Opening | Body::Membership(_) => panic!("no order has these"),
        };
        self.delivered.iter().map(text).collect()
    }
}

fn start_all(dir: &Path, committee: &Arc<Committee>) -> Vec<Running> {
    (1..=4).map(|id| start(setup(dir, committee, id))).collect()
}

fn stop_all(all: impl IntoIterator<Item = Running>) {
    all.into_iter().for_each(|it| it.engine.stop());
}

#[test]
fn four_members_agree_on_a_thousand_messages_and_the_log_has_them_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let committee = committee(4);
    let mut all = start_all(dir.path(), &committee);
    for number in 0..250 {
        for (speaker, it) in all.iter().enumerate() {
            assert!(it.engine.say("general", format!("{speaker}:{number}")));
        }
    }
    all.iter_mut().for_each(|it| it.await_count(1_000));
    let texts = all[0].texts();
    for it in &all {
        assert_eq!(it.texts(), texts);
        assert!(it.delivered.iter().map(|it| it.seq_no.0).eq(1..=1_000));
        assert_eq!(it.engine.history(SeqNo(1), u64::MAX).unwrap(), it.delivered);
    }
    for speaker in 0..4 {
        let own = texts.iter().filter(|it| it.starts_with(&format!("{speaker}:")));
        assert!(own.eq((0..250).map(|it| format!("{speaker}:{it}")).collect::<Vec<_>>().iter()));
    }
    let page = all[1].engine.slots(SlotNo(1), 128).unwrap();
    let certificate = page.certificate.unwrap();
    assert!(certificate.is_valid(&all[1].engine.group(), &committee), "{certificate:?}");
    assert!(all[1].engine.slot_of(SeqNo(1_000)).unwrap().is_some());
    let delivered = all[2].delivered.clone();
    stop_all(all);
    let mut again = start_all(dir.path(), &committee);
    for place in [1, 500, 1_000] {
        let proof = again[3].engine.proof((&committee, SALT), SeqNo(place)).unwrap();
        let proven = proof.verify(&again[3].engine.group()).unwrap();
        assert_eq!((proven.place, &*proven.payload), (SeqNo(place), &*texts[place as usize - 1]));
    }
    assert!(
        again[3].engine.proof((&committee, SALT), SeqNo(2_000)).unwrap_err().contains("place 2000")
    );
    again[0].engine.say("general", "after");
    for it in &mut again {
        let has_it = |it: &Running| it.texts().iter().any(|it| it == "after").then_some(());
        it.until("the text after the restart", has_it);
        let history = it.engine.history(SeqNo(1), 1_000).unwrap();
        assert!(history == delivered, "{} of {}", history.len(), delivered.len());
    }
    stop_all(again);
}

#[test]
fn a_member_that_was_away_catches_up_and_delivers_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let committee = committee(4);
    let mut all = start_all(dir.path(), &committee);
    all[0].engine.say("general", "before");
    all.iter_mut().for_each(|it| it.await_count(1));
    all.remove(3).engine.stop();
    for number in 0..1_000 {
        assert!(all[number % 3].engine.say("general", format!("missed {number}")));
    }
    all.iter_mut().for_each(|it| it.await_count(1_001));
    let mut back = start(setup(dir.path(), &committee, 4));
    let last = |it: &Running| it.delivered.last().filter(|it| it.seq_no.0 >= 1_001).map(|_| ());
    back.until("what was missed", last);
    assert!(back.engine.say("general", "again"));
    all.push(back);
    for it in &mut all {
        it.until("the newest", |it| it.texts().iter().any(|it| it == "again").then_some(()));
        let places: Vec<_> = it.delivered.iter().map(|it| it.seq_no.0).collect();
        assert!(places.windows(2).all(|it| it[1] == it[0] + 1), "each once, in order");
    }
    assert_eq!(
        all[3].engine.history(SeqNo(1), u64::MAX).unwrap(),
        all[0].engine.history(SeqNo(1), u64::MAX).unwrap()
    );
    stop_all(all);
}

#[test]
fn a_member_without_its_log_is_silent_until_its_life_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let committee = committee(4);
    let mut all = start_all(dir.path(), &committee);
    all[1].engine.say("general", "before");
    all.iter_mut().for_each(|it| it.await_count(1));
    all.remove(3).engine.stop();
    for file in ["peer_4.log", "peer_4.snapshot"] {
        let _ = std::fs::remove_file(dir.path().join("log").join(file));
    }
    let mut back = start(setup(dir.path(), &committee, 4));
    back.await_event("a hole", |it| matches!(it, Event::Hole { .. }));
    back.await_event("a new epoch", |it| {
        let Event::EpochBegan { committee, .. } = it else { return false };
        committee.voter(MemberId(4)).unwrap().life.counter == 1
    });
    back.engine.say("general", "after");
    all.push(back);
    let has_it = |it: &Running| it.texts().iter().any(|it| it == "after").then_some(());
    all.iter_mut().for_each(|it| it.until("a text of the new life", has_it));
    let place = all[3].delivered.last().unwrap().seq_no;
    let proof = all[3].engine.proof((&committee, SALT), place).unwrap();
    let proven = proof.verify(&all[3].engine.group()).unwrap();
    assert_eq!((&*proven.payload, proven.epoch), ("after", EpochNo(1)));
    stop_all(all);
}

#[test]
fn a_member_of_another_group_is_refused_with_both_identities() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let committee = committee(4);
    let one = start(setup(dir.path(), &committee, 1));
    let mut two = start(Setup { salt: "other", ..setup(other.path(), &committee, 2) });
    let note = two.await_note("is of the group");
    for group in [one.engine.group(), two.engine.group()] {
        assert!(note.contains(&group.to_string()), "{note}");
    }
    assert_eq!(one.engine.status().unwrap().reached, 1);
    stop_all([one, two]);
}

#[test]
fn a_second_process_of_a_key_ends_with_the_place_of_the_first() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let committee = committee(4);
    let mut all = start_all(dir.path(), &committee);
    all[3].engine.say("general", "here");
    all.iter_mut().for_each(|it| it.await_count(1));
    let mut twin = start(Setup { listen: None, ..setup(other.path(), &committee, 4) });
    let reason = twin.until("the end", |it| {
        it.others.iter().find_map(|told| {
            let OrderNotification::Failed(reason) = told else { return None };
            Some(reason.clone())
        })
    });
    let place = format!("this member is running at {}", addr_of(&committee, 4));
    assert!(reason.contains(&place), "{reason}");
    assert!(twin.delivered.is_empty());
    all[3].engine.say("general", "still here");
    all.iter_mut().for_each(|it| it.await_count(2));
    stop_all(all);
    twin.engine.stop();
}

#[test]
fn whoever_is_no_member_follows_and_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let committee = committee(4);
    let mut all = start_all(dir.path(), &committee);
    let mut observer = start(setup(dir.path(), &committee, 9));
    all[2].engine.say("general", "seen by all");
    all.iter_mut().for_each(|it| it.await_count(1));
    observer.await_count(1);
    assert_eq!(observer.texts(), ["seen by all"]);
    assert!(all.iter().all(|it| it.engine.status().unwrap().members.len() == 4));
    stop_all(all);
    observer.engine.stop();
}

#[test]
fn with_a_cluster_key_members_agree_and_others_are_turned_away() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let committee = committee(4);
    let with = |id, key| Setup { cluster_key: key, ..setup(dir.path(), &committee, id) };
    let mut all: Vec<_> = (1..=3).map(|id| start(with(id, Some(1)))).collect();
    all[0].engine.say("general", "under seal");
    all.iter_mut().for_each(|it| it.await_count(1));
    let keyless = Setup { cluster_key: None, ..setup(other.path(), &committee, 4) };
    let mut keyless = start(keyless);
    let note = keyless.await_note("--cluster-key");
    assert!(note.contains("cannot be joined"), "{note}");
    stop_all(all);
    keyless.engine.stop();
}

/// Line of a connection, as a program that knows no key of the group.
fn lines(stream: &TcpStream) -> OrderReader<BufReader<TcpStream>> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    OrderReader::new(BufReader::new(stream.try_clone().unwrap()))
}

fn join(group: OrderId, id: u32, key: u32) -> OrderJoin {
    let nonce = Nonce::random(&mut Rng::seed_from_u64(3));
    let key = keys(key).public();
    OrderJoin { sender_id: MemberId(id), group, key, nonce, process: 77 }
}

#[test]
fn a_caller_proves_its_key_for_this_connection_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let committee = committee(4);
    let one = start(setup(dir.path(), &committee, 1));
    let group = one.engine.group();
    // A caller says which key it signs with, and what it signs beside the words of both.
    let call = |join: &OrderJoin, signer: u32, domain: &str| {
        let mut stream = TcpStream::connect(one.engine.addr().unwrap()).unwrap();
        let mut heard = lines(&stream);
        stream.write_all(&encode(&Message::OrderJoin(join.clone()))).unwrap();
        let answer = heard.read().unwrap().unwrap();
        let Message::OrderChallenge(challenge) = answer else { return answer };
        let sworn = |domain: &str| {
            SigningBytes::new(domain)
                .number(join.sender_id.0.into())
                .key(&join.key)
                .bytes(&join.group.0)
                .nonce(&join.nonce)
                .number(join.process)
                .number(challenge.sender_id.0.into())
                .key(&challenge.key)
                .nonce(&challenge.nonce)
                .bytes(&[])
        };
        assert!(challenge.key.verifies(&sworn("folkmoot/bft/challenge/1"), &challenge.proof));
        let proof = keys(signer).sign(&sworn(domain));
        stream.write_all(&encode(&Message::OrderProof(OrderProof { proof }))).unwrap();
        heard.read().unwrap().unwrap()
    };
    let refusal = |answer: Message| {
        let Message::OrderRefused(refused) = answer else { panic!("{answer:?}") };
        refused.code
    };
    const PROOF: &str = "folkmoot/bft/proof/1";
    let other = OrderId([5; 32]);
    assert_eq!(refusal(call(&join(other, 2, 2), 2, PROOF)), OrderRefusal::OtherGroup);
    assert_eq!(refusal(call(&join(group, 2, 2), 3, PROOF)), OrderRefusal::NoMember);
    let turned = "folkmoot/bft/challenge/1";
    assert_eq!(refusal(call(&join(group, 2, 2), 2, turned)), OrderRefusal::NoMember);
    assert_eq!(refusal(call(&join(group, 2, 3), 3, PROOF)), OrderRefusal::NoMember);
    assert_eq!(refusal(call(&join(group, 2, 9), 9, PROOF)), OrderRefusal::NoMember);
    assert_eq!(refusal(call(&join(group, 1, 1), 1, PROOF)), OrderRefusal::Doubled);
    let ack = call(&join(group, 2, 2), 2, PROOF);
    assert!(matches!(ack, Message::OrderAck(_)), "{ack:?}");
    one.engine.stop();
}

#[test]
fn nonsense_is_counted_and_ends_its_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let committee = committee(4);
    let one = start(setup(dir.path(), &committee, 1));
    for opening in ["GET / HTTP/1.1\r\n\r\n", "{\"type\":\"JOIN\"}\n", "\u{1}", "{}\n"] {
        let mut stream = TcpStream::connect(one.engine.addr().unwrap()).unwrap();
        stream.write_all(opening.as_bytes()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(one.engine.counters().refused_dialect.get(), 4);
    let mut stream = TcpStream::connect(one.engine.addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"type\":\"ORDER_JOIN\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert!(line.contains("ORDER_REFUSED") && line.contains("malformed"), "{line}");
    assert!(one.engine.status().is_some());
    one.engine.stop();
}
