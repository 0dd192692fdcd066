//! Members with real threads, sockets and files: that they come together, who is turned away, what
//! survives, and what is left of them in the end.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use folkmoot::machine::chat::{Config, Event, Role};
use folkmoot::model::{Endpoint, KeyPair, Now, Rng, Time};
use folkmoot::proto::chat::entry::{
    Body, ChatText, Entry, HostPort, Member, MemberId, MsgId, Origin, SeqNo,
};
use folkmoot::proto::chat::message::{ChatReq, Message, NackCode};
use folkmoot::proto::sealed::{ClusterKey, ClusterKeys};
use folkmoot::runtime::chat::client::Client;
use folkmoot::runtime::chat::{
    ChatEngine, ChatNotification, ChatOptions, ChatStartError, EngineLimits, GroupBootstrap,
    LogComparison,
};
use folkmoot::runtime::clock::Clock;
use folkmoot::runtime::driver::options::EventSink;
use rand::SeedableRng as _;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Settings with which a member is started.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) id: u32,
    pub(super) key: u8,
    pub(super) seeds: Vec<Endpoint>,
    pub(super) bootstrap: GroupBootstrap,
    pub(super) cluster_key: Option<u8>,
    pub(super) limits: EngineLimits,
}

pub(super) fn setup(id: u32) -> Setup {
    let key = u8::try_from(id).unwrap();
    let (seeds, limits) = (Vec::new(), EngineLimits::default());
    Setup { id, key, seeds, bootstrap: GroupBootstrap::IfNew, cluster_key: None, limits }
}

pub(super) fn joining(id: u32, seed: &Running) -> Setup {
    Setup { seeds: vec![seed.at()], bootstrap: GroupBootstrap::Never, ..setup(id) }
}

pub(super) struct Running {
    pub(super) engine: ChatEngine,
    told: Receiver<ChatNotification>,
    delivered: Vec<Arc<Entry>>,
    others: Vec<ChatNotification>,
}

struct Ear(crossbeam_channel::Sender<ChatNotification>);

impl EventSink<ChatNotification> for Ear {
    fn take(&self, _: Now, told: ChatNotification) -> bool {
        self.0.try_send(told).is_ok()
    }
}

pub(super) fn keys(key: u8) -> KeyPair {
    KeyPair::from_secret([key; 32])
}

fn try_start(dir: &Path, setup: Setup) -> Result<Running, ChatStartError> {
    let (tell, told) = bounded(1 << 20);
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let key = |it: u8| Arc::new(ClusterKeys::new(ClusterKey::from_bytes([it; 32]), None));
    let engine = ChatEngine::start(ChatOptions {
        listen: Some(any),
        keys: keys(setup.key),
        me: Member {
            id: MemberId(setup.id),
            at: HostPort::from(Endpoint::from(any)),
            key: keys(setup.key).public(),
        },
        log_dir: dir.to_owned(),
        seeds: setup.seeds.into_iter().map(|at| (None, at)).collect(),
        config: Config { leader_timeout: Duration::from_millis(800), ..Config::default() },
        cluster_keys: setup.cluster_key.map(key),
        bootstrap: setup.bootstrap,
        marker: None,
        limits: setup.limits,
        key_filter: None,
        sink: Box::new(Ear(tell)),
    })?;
    Ok(Running { engine, told, delivered: Vec::new(), others: Vec::new() })
}

pub(super) fn start(dir: &Path, setup: Setup) -> Running {
    try_start(dir, setup).unwrap()
}

impl Running {
    fn at(&self) -> Endpoint {
        Endpoint::from(self.engine.addr().unwrap())
    }

    /// Waits for what is told until something is found in it.
    #[track_caller]
    fn until<T>(&mut self, what: &str, find: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(self) {
                return found;
            }
            match self.told.recv_timeout(PATIENCE) {
                Ok(ChatNotification::Delivered(entries)) => self.delivered.extend(entries),
                Ok(told) => self.others.push(told),
                Err(_) => panic!("{:?}: not {what}; {:?}", self.engine, self.others),
            }
        }
    }

    #[track_caller]
    fn await_text(&mut self, text: &str) {
        self.until(text, |it| it.texts().contains(&text.to_owned()).then_some(()));
    }

    #[track_caller]
    pub(super) fn await_role(&mut self, role: Role) {
        let is = |told: &ChatNotification| {
            matches!(told,
                ChatNotification::Event(Event::RoleChanged { role: it, leader: Some(_), .. })
                if *it == role)
        };
        self.until("that role", |it| it.others.iter().any(is).then_some(()));
    }

    #[track_caller]
    fn await_refused(&mut self) -> String {
        self.until("refused", |it| {
            it.others.iter().find_map(|told| match told {
                ChatNotification::Event(Event::Refused { reason }) => Some(reason.clone()),
                _ => None,
            })
        })
    }

    fn texts(&self) -> Vec<String> {
        let text = |entry: &Arc<Entry>| match &entry.body {
            Body::Chat(chat) => Some(chat.payload.to_string()),
            Body::Opening | Body::Membership(_) => None,
        };
        self.delivered.iter().filter_map(text).collect()
    }
}

/// Three members that know each other, the third of which leads.
fn three(dir: &Path) -> [Running; 3] {
    let mut one = start(dir, setup(1));
    one.await_role(Role::Leader);
    let mut two = start(dir, joining(2, &one));
    two.await_role(Role::Leader);
    let mut three = start(dir, joining(3, &one));
    three.await_role(Role::Leader);
    [one, two, three]
}

pub(super) fn stop_all(all: impl IntoIterator<Item = Running>) {
    all.into_iter().for_each(|it| it.engine.stop());
}

#[test]
fn all_see_one_order_whoever_speaks_and_the_log_has_it_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = three(dir.path());
    for number in 0..50 {
        for (speaker, it) in all.iter().enumerate() {
            assert!(it.engine.say("general", format!("{speaker}:{number}")));
        }
    }
    for it in &mut all {
        it.until("all", |it| (it.texts().len() == 150).then_some(()));
    }
    let texts = all[0].texts();
    assert!(all.iter().all(|it| it.texts() == texts));
    for speaker in 0..3 {
        let own = texts.iter().filter(|it| it.starts_with(&format!("{speaker}:")));
        assert!(own.eq((0..50).map(|it| format!("{speaker}:{it}")).collect::<Vec<_>>().iter()));
    }
    let commit = all[0].engine.status().unwrap().commit;
    let history = all[0].engine.history(SeqNo(1), u64::MAX).unwrap();
    assert_eq!(history.len() as u64, commit.0);
    let some = all[0].engine.history(SeqNo(commit.0 - 1), 1).unwrap();
    assert_eq!(some[0].seq_no, SeqNo(commit.0 - 1));
    let report = all[2].engine.verify().unwrap();
    assert_eq!(report.members.len(), 2, "{report:?}");
    assert!(report.is_whole() && report.commit >= commit);
    let are_equal = report.members.iter().all(|(_, it)| matches!(it, LogComparison::Equal { .. }));
    assert!(are_equal, "{report:?}");
    stop_all(all);
    // What is final a lone member may have to learn again; two are a majority.
    let mut two = start(dir.path(), Setup { bootstrap: GroupBootstrap::Never, ..setup(2) });
    let three = start(dir.path(), joining(3, &two));
    let has_all = |it: &Running| it.engine.status().filter(|it| it.commit > commit);
    two.until("what was final", has_all);
    let again = two.engine.history(SeqNo(1), commit.0).unwrap();
    assert!(again == history, "{} entries of {}", again.len(), history.len());
    stop_all([two, three]);
}

#[test]
fn a_member_that_was_away_gets_what_it_missed_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut two, three] = three(dir.path());
    let seed = one.at();
    one.engine.say("general", "before");
    two.await_text("before");
    three.engine.stop();
    for number in 0..3_000 {
        assert!(two.engine.say("general", format!("missed {number}")));
        if number % 500 == 499 {
            two.await_text(&format!("missed {number}"));
        }
    }
    one.await_text("missed 2999");
    let mut back = start(
        dir.path(),
        Setup { seeds: vec![seed], bootstrap: GroupBootstrap::Never, ..setup(3) },
    );
    back.await_text("missed 2999");
    back.engine.say("general", "after");
    one.await_text("after");
    two.await_text("after");
    assert_eq!(one.texts(), two.texts());
    assert_eq!(one.texts().len(), 3_002);
    let seqs: Vec<_> = back.delivered.iter().map(|it| it.seq_no.0).collect();
    assert!(seqs.windows(2).all(|it| it[1] == it[0] + 1), "each once, in order");
    stop_all([one, two, back]);
}

#[test]
fn whoever_may_not_join_is_told_why() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = start(dir.path(), setup(1));
    one.await_role(Role::Leader);
    let mut two = start(dir.path(), joining(2, &one));
    two.await_role(Role::Leader);
    let mut taken = start(other.path(), Setup { key: 9, ..joining(2, &one) });
    let reason = taken.await_refused();
    assert!(reason.contains("in use by another key") && reason.contains("--id"), "{reason}");
    taken.engine.stop();
    let mut founder = start(other.path(), setup(5));
    founder.await_role(Role::Leader);
    founder.engine.stop();
    let mut foreign = start(other.path(), joining(5, &one));
    // It has a group of its own, and passes by the other one at the address of its seed.
    let note = |told: &ChatNotification| {
        matches!(told, ChatNotification::Note(text)
        if text.contains("another group"))
    };
    foreign.until("a note", |it| it.others.iter().find(|told| note(told)).map(|_| ()));
    foreign.await_role(Role::Leader);
    stop_all([foreign, two, one]);
}

#[test]
fn a_place_where_nobody_is_is_named_once_and_tried_until_somebody_is() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let waits =
        Setup { seeds: vec![Endpoint::from(port)], bootstrap: GroupBootstrap::Never, ..setup(2) };
    let mut two = start(dir.path(), waits);
    let notes = |it: &Running| {
        let note = |told: &ChatNotification| {
            matches!(told, ChatNotification::Note(text)
            if text.contains("no member at"))
        };
        it.others.iter().filter(|told| note(told)).count()
    };
    two.until("a note", |it| (notes(it) > 0).then_some(()));
    let mut one = start(dir.path(), setup(1));
    one.await_role(Role::Leader);
    two.engine.add_place(one.at());
    two.await_role(Role::Leader);
    assert_eq!(notes(&two), 1);
    stop_all([one, two]);
}

#[test]
fn with_a_cluster_key_only_its_holders_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let with = |setup: Setup, key| Setup { cluster_key: Some(key), ..setup };
    let mut one = start(dir.path(), with(setup(1), 1));
    one.await_role(Role::Leader);
    let mut two = start(dir.path(), with(joining(2, &one), 1));
    two.await_role(Role::Leader);
    two.engine.say("general", "under seal");
    one.await_text("under seal");
    let note = |it: &Running| {
        it.others.iter().find_map(|told| match told {
            ChatNotification::Note(text) => Some(text.clone()),
            _ => None,
        })
    };
    let mut keyless = start(dir.path(), joining(3, &one));
    let text = keyless.until("a note", note);
    assert!(text.contains("--cluster-key"), "{text}");
    let mut other = start(dir.path(), with(joining(4, &one), 2));
    other.until("a note", note);
    assert!(one.engine.counters().refused_key.get() >= 2);
    assert_eq!(one.engine.status().unwrap().members.len(), 2);
    stop_all([keyless, other, two, one]);
}

#[test]
fn a_client_hears_of_each_message_once_it_is_final_and_a_repeat_is_no_second_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = three(dir.path());
    let mut rng = Rng::seed_from_u64(1);
    for (id, it) in (1_u32..).zip(&all) {
        let addr = it.engine.addr().unwrap();
        let key = keys(u8::try_from(id).unwrap());
        let mut client = Client::connect(addr, MemberId(id), &key, &mut rng, PATIENCE).unwrap();
        let message = |number| {
            let origin = Origin { member: MemberId(id), client: 77 };
            let msg_id = MsgId { origin, number };
            let payload = format!("{msg_id}").into();
            let chat = ChatText { msg_id, room_id: "general".into(), payload };
            Message::Chat(ChatReq { sender_id: MemberId(id), chat })
        };
        for number in [1, 2, 2, 3] {
            client.send(&message(number)).unwrap();
            let Message::ChatAck(ack) = client.hear().unwrap() else { panic!("no answer") };
            assert_eq!(ack.msg_id.number, number);
        }
        let mut nameless = message(4);
        if let Message::Chat(request) = &mut nameless {
            request.chat.msg_id.origin.member = MemberId(id % 3 + 1);
        }
        client.send(&nameless).unwrap();
        let Message::Nack(nack) = client.hear().unwrap() else { panic!("no refusal") };
        assert_eq!(nack.code, NackCode::NotAllowed);
        let stranger = Client::connect(addr, MemberId(id), &keys(9), &mut rng, PATIENCE);
        assert!(stranger.is_err(), "with another key");
    }
    for it in &mut all {
        it.until("all", |it| (it.texts().len() == 9).then_some(()));
    }
    stop_all(all);
}

fn line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn strangers_and_nonsense_are_refused_and_counted_and_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = start(dir.path(), setup(1));
    one.await_role(Role::Leader);
    let call = || {
        let stream = TcpStream::connect(one.engine.addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    // Other dialects are closed without a word.
    for opening in ["GET / HTTP/1.1\r\n\r\n", "{\"type\":\"HEARTBEAT\"}\n", "\u{1}", "{}\n"] {
        let mut stream = call();
        stream.write_all(opening.as_bytes()).unwrap();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // What opens well and goes on badly is told why.
    let key = keys(9).public();
    let whose = format!("{{\"node_id\":9,\"host\":\"127.0.0.1\",\"port\":1,\"key\":\"{key}\"}}");
    let join = |id: u32, membership: &str| {
        let nonce = "00".repeat(16);
        format!(
            "{{\"type\":\"JOIN\",\"sender_id\":{id},\"term\":18446744073709551615,\
             \"intent\":\"member\",\"membership\":[{membership}],\"nonce\":\"{nonce}\"}}\n"
        )
    };
    let cases = [
        ("{\"type\":\"JOIN\"}\n".to_owned(), "malformed"),
        (join(9, ""), "handshake"),
        (join(8, &whose), "handshake"),
        (join(9, &format!("{whose},{whose}")), "handshake"),
    ];
    for (text, code) in cases {
        let mut stream = call();
        stream.write_all(text.as_bytes()).unwrap();
        let answer = line(&stream);
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{text}: {answer}");
    }
    // Without the proof nobody gets further, whatever is said instead.
    for instead in [
        format!("{{\"type\":\"JOIN_PROOF\",\"proof\":\"{}\"}}\n", "00".repeat(64)),
        "{\"type\":\"COORDINATOR\",\"sender_id\":9,\"term\":99,\"commit\":0,\"membership\":[]}\n"
            .to_owned(),
    ] {
        let mut stream = call();
        stream.write_all(join(9, &whose).as_bytes()).unwrap();
        assert!(line(&stream).contains("JOIN_CHALLENGE"));
        stream.write_all(instead.as_bytes()).unwrap();
        let answer = line(&stream);
        assert!(answer.contains("\"code\":\"handshake\""), "{answer}");
    }
    // They are counted by their own threads, soon after the other end has seen the end.
    let clock = Clock::start();
    let counters = one.engine.counters();
    let found = || (counters.refused_dialect.get(), counters.refused_handshake.get());
    while found() != (4, 6) && clock.now().mono < Time::ZERO.after(PATIENCE) {
        std::thread::yield_now();
    }
    assert_eq!(found(), (4, 6));
    let status = one.engine.status().unwrap();
    assert_eq!((status.role, status.members.len()), (Role::Leader, 1));
    one.engine.say("general", "unharmed");
    one.await_text("unharmed");
    one.engine.stop();
}

#[test]
fn what_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let one = start(dir.path(), setup(1));
    let error = try_start(dir.path(), setup(1)).err().unwrap().to_string();
    assert!(error.contains("another process with this id"), "{error}");
    one.engine.stop();
    let error = try_start(dir.path(), Setup { key: 9, ..setup(1) }).err().unwrap().to_string();
    assert!(error.contains("is the log of peer_1"), "{error}");
}

#[test]
fn a_leader_that_leaves_hands_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, two, three] = three(dir.path());
    three.engine.leave();
    three.engine.stop();
    one.engine.say("general", "goes on");
    one.await_text("goes on");
    assert_eq!(one.engine.status().unwrap().leader, Some(MemberId(2)));
    stop_all([one, two]);
}

/// Not a test of its own: what the next one looks at.
#[test]
fn the_child_that_starts_and_stops() {
    let Ok(dir) = std::env::var("CHAT_ENGINE_CHILD") else { return };
    let count = |what: &str| std::fs::read_dir(what).unwrap().count();
    let before = (count("/proc/self/task"), count("/proc/self/fd"));
    let mut all = three(Path::new(&dir));
    let silent = TcpStream::connect(all[0].engine.addr().unwrap()).unwrap();
    all[0].engine.say("general", "hello");
    all[2].await_text("hello");
    let addrs: Vec<_> = all.iter().map(|it| it.engine.addr().unwrap()).collect();
    stop_all(all);
    drop(silent);
    for addr in addrs {
        TcpListener::bind(addr).unwrap();
    }
    // The kernel lists a thread for a moment after it was joined.
    let now = || (count("/proc/self/task"), count("/proc/self/fd"));
    let clock = Clock::start();
    while now() != before && clock.mono() < Time::from_micros(10_000_000) {
        let _ = crossbeam_channel::after(Duration::from_millis(5)).recv();
    }
    let after = now();
    println!("before {before:?} after {after:?} same {}", before == after);
}

#[test]
fn nothing_is_left_of_a_member_that_was_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "chat_engine::the_child_that_starts_and_stops", "--nocapture"])
        .env("CHAT_ENGINE_CHILD", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(child.stdout).unwrap();
    assert!(text.contains("same true"), "{text}");
}
