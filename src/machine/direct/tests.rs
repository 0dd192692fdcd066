//! Both halves of direct sends against each other and against a clock that only the test moves.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for what it looks for")]

use std::time::Duration;

use rand::SeedableRng as _;

use super::*;
use crate::machine::Effect;
use crate::machine::timer::TimerQueue;
use crate::model::{Data, MessageId, Time, WallTime};
use crate::proto::direct::{
    DeliveryVerdict, DirectAck, DirectMsg, DirectPart, PART_BYTES, PARTS_MAX,
};
use crate::proto::message::Message;

const LINK: LinkId = LinkId(7);
const LIFE: Incarnation = Incarnation(1);
const OWN: Incarnation = Incarnation(9);

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), port)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn message(token: u64, size: usize) -> OutgoingMessage {
    let data = Data::from((0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    let retry = RetryConfig { jitter: 0.0, ..RetryConfig::default() };
    OutgoingMessage { token, to: endpoint(2), topic: "t".to_owned(), data, retry }
}

/// One node's direct sends, with its timers and its clock.
struct Bench {
    direct: Direct,
    timers: TimerQueue<Timer>,
    now: Time,
    told: Vec<Event>,
    said: Vec<(LinkId, Message)>,
    calls: Vec<Time>,
}

impl Bench {
    fn new(port: u16, config: Config) -> Self {
        let direct = Direct::new(config, endpoint(port), Rng::seed_from_u64(1));
        let (timers, now) = (TimerQueue::default(), Time::ZERO);
        let (told, said, calls) = (Vec::new(), Vec::new(), Vec::new());
        Self { direct, timers, now, told, said, calls }
    }

    fn run(&mut self, work: impl FnOnce(&mut Direct, Now, &mut Effects<Direct>)) {
        let mut fx = Effects::default();
        let now = Now { mono: self.now, wall: WallTime(0) };
        work(&mut self.direct, now, &mut fx);
        for effect in fx.drain() {
            match effect {
                Effect::Send { link, msg } => self.said.push((link, msg)),
                Effect::SetTimer { timer, after } => self.timers.set(timer, self.now.after(after)),
                Effect::StopTimer(timer) => self.timers.stop(&timer),
                Effect::Emit(Event::Call { .. }) => self.calls.push(self.now),
                Effect::Emit(event) => self.told.push(event),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets all deadlines pass up to `until`, with `each` after every one.
    fn pass(&mut self, until: Duration, mut each: impl FnMut(&mut Self)) {
        let until = Time::ZERO.after(until);
        while let Some(at) = self.timers.next().filter(|at| *at <= until) {
            self.now = at;
            let timer = self.timers.pop_due(at).expect("one is due");
            self.run(|it, now, fx| it.on_timer(now, timer, fx));
            each(self);
        }
        self.now = until;
    }

    fn send(&mut self, message: OutgoingMessage) {
        self.run(|it, now, fx| it.send(now, message, None, fx));
    }

    fn link_up(&mut self, link: LinkId, life: Incarnation) {
        self.run(|it, now, fx| it.on_link_up(now, (link, endpoint(2), life), Some(true), fx));
    }

    fn link_down(&mut self, link: LinkId) {
        self.run(|it, now, fx| it.on_link_down(now, link, fx));
    }

    fn ack(&mut self, life: Incarnation, number: u64, verdict: DeliveryVerdict) {
        let ack = DirectAck { number, verdict, reason: "so it is".to_owned() };
        self.run(|it, now, fx| it.on_ack(now, LINK, (endpoint(2), life), &ack, fx));
    }

    /// A message from member 2 comes by the link.
    fn hear(&mut self, msg: &DirectMsg) {
        let (sender, msg) = ((LINK, (endpoint(2), LIFE)), msg.clone());
        self.run(|it, now, fx| it.on_message(now, sender, OWN, msg, fx));
    }

    fn answer(&mut self, number: u64, taken: bool) {
        self.run(|it, now, fx| it.answer(now, (endpoint(2), number), taken, "no", fx));
    }

    /// The messages sent since the last call.
    fn sent(&mut self) -> Vec<DirectMsg> {
        let said = std::mem::take(&mut self.said).into_iter();
        said.filter_map(|(_, msg)| if let Message::Direct(it) = msg { Some(it) } else { None })
            .collect()
    }

    fn acks(&mut self) -> Vec<(u64, DeliveryVerdict)> {
        let said = std::mem::take(&mut self.said).into_iter();
        said.filter_map(|(_, msg)| {
            if let Message::DirectAck(it) = msg { Some((it.number, it.verdict)) } else { None }
        })
        .collect()
    }

    /// The ends of the messages so far.
    fn ends(&self) -> Vec<(u64, Option<FailKind>)> {
        let end = |event: &Event| match event {
            Event::Sent { token, .. } => Some((*token, None)),
            Event::Failed { token, kind, .. } => Some((*token, Some(*kind))),
            _ => None,
        };
        self.told.iter().filter_map(end).collect()
    }

    fn arrived(&self) -> Vec<u64> {
        let number = |event: &Event| match event {
            Event::Arrived { number, .. } => Some(*number),
            _ => None,
        };
        self.told.iter().filter_map(number).collect()
    }
}

fn incoming(number: u64, data: &str) -> DirectMsg {
    let data = Data::from(data);
    let digest = MessageId::from_bytes(data.sha256());
    let (life, topic, size) = (OWN, "t".to_owned(), data.len() as u64);
    DirectMsg { number, life, topic, size, digest, data: Some(data) }
}

fn receiver(config: Config) -> Bench {
    let mut bench = Bench::new(1, config);
    bench.link_up(LINK, LIFE);
    bench
}

fn refuse_calls(bench: &mut Bench, seen: &mut usize) {
    if bench.calls.len() > *seen {
        *seen = bench.calls.len();
        bench.run(|it, _, fx| it.on_call_failed(endpoint(2), "connection refused", fx));
    }
}

#[test]
fn a_closed_port_is_called_six_times_at_doubling_pauses() {
    let mut bench = Bench::new(1, Config::default());
    bench.send(message(5, 3));
    let mut seen = 0;
    refuse_calls(&mut bench, &mut seen);
    bench.pass(secs(100), |bench| refuse_calls(bench, &mut seen));
    let calls: Vec<_> = bench.calls.iter().map(|at| at.as_micros() / 1_000_000).collect();
    assert_eq!(calls, [0, 1, 3, 7, 15, 31]);
    assert_eq!(bench.ends(), [(5, Some(FailKind::Unreachable))]);
    let busy: Vec<_> = bench.told.iter().filter(|it| matches!(it, Event::Busy { .. })).collect();
    let to = endpoint(2);
    assert_eq!(busy, [&Event::Busy { to, busy: true }, &Event::Busy { to, busy: false }]);
    assert_eq!(bench.direct.metrics().open_bytes, 0);
}

#[test]
fn pauses_vary_by_the_jitter_and_end_at_the_cap() {
    let mut bench = Bench::new(1, Config::default());
    let retry = RetryConfig { retries: 9, jitter: 0.1, ..RetryConfig::default() };
    bench.send(OutgoingMessage { retry, ..message(5, 3) });
    let mut seen = 0;
    refuse_calls(&mut bench, &mut seen);
    bench.pass(secs(1_000), |bench| refuse_calls(bench, &mut seen));
    let pauses: Vec<_> =
        bench.calls.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect();
    let plain = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0];
    assert_eq!(pauses.len(), plain.len());
    for (pause, plain) in pauses.iter().zip(plain) {
        assert!((pause / plain - 1.0).abs() <= 0.1 && *pause <= 60.0, "{pauses:?}");
    }
    assert!(pauses.iter().zip(plain).any(|(pause, plain)| (pause / plain - 1.0).abs() > 0.01));
}

#[test]
fn a_message_called_back_is_lost_for_certain_only_before_it_has_left() {
    let cancel = |bench: &mut Bench, token| {
        bench.run(|it, now, fx| it.cancel(now, token, fx));
    };
    // While it waits for a link; in a pause; in its flight; in a pause after it.
    let mut bench = Bench::new(1, Config::default());
    bench.send(message(1, 3));
    cancel(&mut bench, 1);
    bench.send(message(2, 3));
    bench.run(|it, _, fx| it.on_call_failed(endpoint(2), "no", fx));
    cancel(&mut bench, 2);
    bench.link_up(LINK, LIFE);
    bench.send(message(3, 3));
    cancel(&mut bench, 3);
    bench.send(message(4, 3));
    bench.link_down(LINK);
    cancel(&mut bench, 4);
    cancel(&mut bench, 4);
    // Large ones have left with their last part.
    bench.link_up(LINK, LIFE);
    bench.send(message(5, 3 * PART_BYTES));
    cancel(&mut bench, 5);
    let certain = Some(FailKind::Cancelled);
    let uncertain = Some(FailKind::Unknown);
    let ends = [(1, certain), (2, certain), (3, uncertain), (4, uncertain), (5, certain)];
    assert_eq!(bench.ends(), ends);
    // An answer that comes later counts no more.
    bench.ack(LIFE, 1, DeliveryVerdict::Taken);
    assert_eq!(bench.ends().len(), 5);
}

#[test]
fn a_message_that_may_have_arrived_is_never_sent_to_another_life() {
    let mut bench = Bench::new(1, Config::default());
    bench.link_up(LINK, LIFE);
    bench.send(message(1, 3));
    bench.send(message(2, 2 * PART_BYTES));
    let number = bench.sent()[0].number;
    bench.link_down(LINK);
    bench.link_up(LinkId(8), Incarnation(2));
    bench.pass(secs(2), |_| {});
    // The large one had not left: the new life gets it.
    assert_eq!(bench.ends(), [(1, Some(FailKind::Unknown))]);
    let sent = bench.sent();
    assert_eq!(sent.iter().map(|it| it.life).collect::<Vec<_>>(), [Incarnation(2)]);
    assert_ne!(sent[0].number, number);
}

#[test]
fn the_same_life_gets_it_again_under_the_same_number() {
    let mut bench = Bench::new(1, Config::default());
    bench.link_up(LINK, LIFE);
    bench.send(message(1, 3));
    let first = bench.sent();
    bench.link_down(LINK);
    bench.link_up(LinkId(8), LIFE);
    bench.pass(secs(2), |_| {});
    assert_eq!(bench.sent(), first);
    bench.ack(LIFE, first[0].number, DeliveryVerdict::Taken);
    assert_eq!(bench.ends(), [(1, None)]);
}

#[test]
fn nothing_is_repeated_longer_than_it_is_remembered() {
    let config = Config::default();
    let mut bench = Bench::new(1, config);
    bench.link_up(LINK, LIFE);
    let retry = RetryConfig { retries: 100, jitter: 0.0, ..RetryConfig::default() };
    bench.send(OutgoingMessage { retry, ..message(1, 3) });
    bench.pass(secs(2_000), |_| {});
    assert_eq!(bench.ends(), [(1, Some(FailKind::Unknown))]);
    let attempts = bench.direct.metrics().retries;
    assert!((4..12).contains(&attempts), "{attempts}");
    assert!(config.repeat_max + secs(60) <= config.remember, "remembered well beyond");
}

#[test]
fn a_busy_receiver_is_asked_again_and_a_refusal_is_final() {
    let mut bench = Bench::new(1, Config::default());
    bench.link_up(LINK, LIFE);
    bench.send(message(1, 3));
    let first = bench.sent()[0].number;
    bench.ack(LIFE, first, DeliveryVerdict::Busy);
    assert_eq!(bench.ends(), []);
    bench.pass(secs(1), |_| {});
    let second = bench.sent()[0].number;
    bench.ack(LIFE, second, DeliveryVerdict::Refused);
    assert_eq!(bench.ends(), [(1, Some(FailKind::Refused))]);
    // Called back after a busy answer alone: the receiver has not seen it.
    bench.send(message(2, 3));
    let third = bench.sent()[0].number;
    bench.ack(LIFE, third, DeliveryVerdict::Busy);
    bench.run(|it, now, fx| it.cancel(now, 2, fx));
    assert_eq!(bench.ends()[1], (2, Some(FailKind::Cancelled)));
}

#[test]
fn what_cannot_be_sent_fails_at_once_and_definitely() {
    let config = Config { sends_max: 3, sends_bytes_max: 2_000_000, ..Config::default() };
    let mut bench = Bench::new(1, config);
    bench.send(OutgoingMessage { to: endpoint(1), ..message(1, 3) });
    bench.send(OutgoingMessage { topic: String::new(), ..message(2, 3) });
    bench.send(OutgoingMessage { topic: "x".repeat(129), ..message(3, 3) });
    bench.send(OutgoingMessage { topic: "a\nb".to_owned(), ..message(4, 3) });
    bench.send(message(5, 1_048_577));
    let retry = RetryConfig { factor: f64::NAN, ..RetryConfig::default() };
    bench.send(OutgoingMessage { retry, ..message(6, 3) });
    let bar = Some((FailKind::Unreachable, "cut off".to_owned()));
    bench.run(|it, now, fx| it.send(now, message(7, 3), bar, fx));
    let kinds: Vec<_> = bench.ends().into_iter().filter_map(|(_, kind)| kind).collect();
    let not_sent = FailKind::NotSent;
    let large = FailKind::TooLarge;
    let expected = [not_sent, not_sent, not_sent, not_sent, large, not_sent, FailKind::Unreachable];
    assert_eq!(kinds, expected);
    assert_eq!(bench.direct.metrics().open, 0);
    for token in 10..12 {
        bench.send(message(token, 1_000_000));
    }
    bench.send(message(12, 1_000_000));
    bench.send(message(13, 0));
    bench.send(message(14, 0));
    assert_eq!(bench.ends()[7..], [(12, Some(not_sent)), (14, Some(not_sent))]);
    assert!(FailKind::ALL.iter().filter(|kind| !kind.is_definite()).count() == 1);
}

#[test]
fn a_duplicate_is_shown_to_nobody_and_its_verdict_repeated() {
    let mut bench = receiver(Config::default());
    bench.hear(&incoming(1, "one"));
    bench.hear(&incoming(1, "one"));
    assert_eq!(bench.arrived().len(), 1);
    assert_eq!(bench.acks(), []);
    let question = bench.arrived()[0];
    bench.answer(question, true);
    bench.answer(question, false);
    bench.hear(&incoming(1, "one"));
    assert_eq!(bench.acks(), [(1, DeliveryVerdict::Taken), (1, DeliveryVerdict::Taken)]);
    bench.hear(&incoming(2, "two"));
    let question = bench.arrived()[1];
    bench.answer(question, false);
    bench.hear(&incoming(2, "two"));
    assert_eq!(bench.acks(), [(2, DeliveryVerdict::Refused), (2, DeliveryVerdict::Refused)]);
    assert_eq!(bench.arrived().len(), 2);
    assert_eq!(bench.direct.metrics().duplicates, 3);
}

#[test]
fn an_application_that_says_nothing_leaves_everybody_in_doubt() {
    let mut bench = receiver(Config::default());
    bench.hear(&incoming(1, "one"));
    let question = bench.arrived()[0];
    bench.pass(secs(6), |_| {});
    assert_eq!(bench.acks(), [(1, DeliveryVerdict::Unknown)]);
    assert!(bench.told.contains(&Event::Lapsed { from: endpoint(2), number: question }));
    bench.answer(question, true);
    bench.hear(&incoming(1, "one"));
    assert_eq!(bench.acks(), [(1, DeliveryVerdict::Unknown)]);
}

#[test]
fn verdicts_are_bounded_and_what_is_beyond_them_is_never_new() {
    let config = Config { verdicts_max: 10, ..Config::default() };
    let mut bench = receiver(config);
    for number in 1..=50 {
        bench.hear(&incoming(number, "x"));
        let question = *bench.arrived().last().expect("it arrived");
        bench.answer(question, true);
    }
    assert_eq!(bench.direct.metrics().remembered, 10);
    bench.acks();
    for number in 1..=50 {
        bench.hear(&incoming(number, "x"));
    }
    assert_eq!(bench.arrived().len(), 50, "nothing was shown twice");
    let unknown = bench.acks().iter().filter(|(_, it)| *it == DeliveryVerdict::Unknown).count();
    assert_eq!(unknown, 40);
    // After its time everything is forgotten, and the memory free.
    bench.pass(secs(700), |_| {});
    assert_eq!(bench.direct.metrics().remembered, 0);
    assert!(bench.direct.received.is_empty());
}

#[test]
fn open_questions_are_bounded_in_all_and_of_one_sender() {
    let config = Config { questions_each_max: 3, ..Config::default() };
    let mut bench = receiver(config);
    for number in 1..=4 {
        bench.hear(&incoming(number, "x"));
    }
    assert_eq!(bench.acks(), [(4, DeliveryVerdict::Busy)]);
    let question = bench.arrived()[0];
    bench.answer(question, true);
    bench.hear(&incoming(4, "x"));
    assert_eq!(bench.arrived().len(), 4);
}

#[test]
fn what_no_honest_node_sends_is_refused_and_blamed() {
    let good = incoming(1, "one");
    let bad = [
        DirectMsg { topic: String::new(), ..good.clone() },
        DirectMsg { size: 4, ..good.clone() },
        DirectMsg { size: u64::MAX, ..good.clone() },
        DirectMsg { data: None, ..good.clone() },
        DirectMsg { digest: MessageId::from_bytes([0; 32]), ..good.clone() },
    ];
    for msg in bad {
        let mut bench = receiver(Config::default());
        bench.hear(&msg);
        assert_eq!(bench.acks(), [(1, DeliveryVerdict::Refused)], "{msg:?}");
        assert!(matches!(bench.told[..], [Event::Malformed { .. }]), "{:?}", bench.told);
    }
    for msg in [
        DirectMsg { size: 1_048_577, data: None, ..good.clone() },
        DirectMsg { life: Incarnation(8), ..good },
    ] {
        let mut bench = receiver(Config::default());
        bench.hear(&msg);
        assert_eq!(bench.acks(), [(1, DeliveryVerdict::Refused)]);
        assert_eq!(bench.told, [], "no offense");
    }
}

/// A large message from one to the other, with `lossy` applied after each part.
fn transfer(size: usize, mut between: impl FnMut(&mut Bench, &mut Bench, u32)) -> (Bench, Bench) {
    let mut one = Bench::new(1, Config::default());
    let mut two = Bench::new(2, Config::default());
    one.link_up(LINK, OWN);
    two.run(|it, now, fx| it.on_link_up(now, (LINK, endpoint(1), LIFE), Some(false), fx));
    one.send(message(1, size));
    let (mut steps, mut parts) = (0, 0);
    while !(one.said.is_empty() && two.said.is_empty()) {
        steps += 1;
        assert!(steps < 1_000, "it never ends");
        for (link, msg) in std::mem::take(&mut one.said) {
            match msg {
                Message::Direct(msg) => two.run(|it, now, fx| {
                    it.on_message(now, (link, (endpoint(1), LIFE)), OWN, msg, fx);
                }),
                Message::DirectPart(part) => {
                    parts += 1;
                    two.run(|it, now, fx| {
                        it.on_part(now, (link, (endpoint(1), LIFE)), &part, fx);
                    });
                }
                other => panic!("{other:?}"),
            }
        }
        for (link, msg) in std::mem::take(&mut two.said) {
            match msg {
                Message::DirectPartReq(wanted) => one.run(|it, now, fx| {
                    it.on_part_req(now, link, endpoint(2), wanted, fx);
                }),
                Message::DirectAck(ack) => one.run(|it, now, fx| {
                    it.on_ack(now, link, (endpoint(2), OWN), &ack, fx);
                }),
                other => panic!("{other:?}"),
            }
        }
        between(&mut one, &mut two, parts);
        if let Some(Event::Arrived { from, number, .. }) =
            two.told.iter().find(|it| matches!(it, Event::Arrived { .. }))
        {
            let about = (*from, *number);
            two.run(|it, now, fx| it.answer(now, about, true, "", fx));
        }
    }
    (one, two)
}

#[test]
fn a_mebibyte_is_pulled_in_parts_and_arrives_as_it_was() {
    for size in [PART_BYTES + 1, 4 * PART_BYTES, 1_048_576] {
        let mut most = 0;
        let (one, two) = transfer(size, |one, _, _| most = most.max(one.said.len()));
        assert_eq!(one.ends(), [(1, None)]);
        let Some(Event::Arrived { data, .. }) = two.told.first() else { panic!("{:?}", two.told) };
        assert_eq!(*data, message(1, size).data);
        assert!(most <= PARTS_MAX as usize, "{most} parts waited on the link");
    }
}

#[test]
fn an_attempt_goes_on_where_the_one_before_ended() {
    let mut is_cut = false;
    let (one, two) = transfer(16 * PART_BYTES, |one, two, parts| {
        if parts >= 8 && !std::mem::replace(&mut is_cut, true) {
            one.said.clear();
            two.said.clear();
            one.link_down(LINK);
            two.link_down(LINK);
            let again = LinkId(8);
            one.link_up(again, OWN);
            two.run(|it, now, fx| it.on_link_up(now, (again, endpoint(1), LIFE), Some(false), fx));
            one.pass(secs(2), |_| {});
            two.now = one.now;
        }
    });
    assert_eq!(one.ends(), [(1, None)]);
    assert_eq!(two.arrived().len(), 1);
    assert!(one.direct.metrics().bytes_sent <= 20 * PART_BYTES as u64, "not all of it again");
}

#[test]
fn parts_out_of_place_end_the_transfer_and_blame_the_sender() {
    let mut bench = receiver(Config::default());
    let (size, topic) = (3 * PART_BYTES as u64, "t".to_owned());
    let digest = MessageId::from_bytes([1; 32]);
    bench.hear(&DirectMsg { number: 1, life: OWN, topic, size, digest, data: None });
    let part = DirectPart { number: 1, at: 1, data: Data::from(vec![0; PART_BYTES]) };
    bench.run(|it, now, fx| it.on_part(now, (LINK, (endpoint(2), LIFE)), &part, fx));
    assert!(matches!(bench.told[..], [Event::Malformed { .. }]));
    assert!(!bench.direct.received.is_asking(endpoint(2)));
}

#[test]
fn links_are_given_up_when_idle_and_bounded_in_number() {
    let config = Config { links_max: 3, ..Config::default() };
    let mut bench = Bench::new(1, config);
    for port in 2..6 {
        let who = (LinkId(u64::from(port)), endpoint(port), LIFE);
        bench.now = bench.now.after(secs(1));
        bench.run(|it, now, fx| it.on_link_up(now, who, Some(true), fx));
    }
    let hung_up = |bench: &Bench| -> Vec<u64> {
        let link = |event: &Event| match event {
            Event::Hangup { link, .. } => Some(link.0),
            _ => None,
        };
        bench.told.iter().filter_map(link).collect()
    };
    assert_eq!(hung_up(&bench), [2], "the one idle for the longest time");
    bench.link_down(LinkId(2));
    bench.direct.keep(endpoint(4), true);
    bench.pass(secs(60), |bench| {
        for link in hung_up(bench) {
            bench.link_down(LinkId(link));
        }
    });
    assert_eq!(hung_up(&bench), [2, 3, 5], "one is kept by hand");
}

#[test]
fn a_message_whose_call_finds_no_room_for_a_link_ends() {
    let config = Config { links_max: 1, ..Config::default() };
    let mut bench = Bench::new(1, config);
    let kept = (LinkId(3), endpoint(3), LIFE);
    bench.run(|it, now, fx| it.on_link_up(now, kept, Some(true), fx));
    bench.direct.keep(endpoint(3), true);
    bench.send(message(1, 100));
    let mut calls = 0;
    let mut connect = move |bench: &mut Bench| {
        if bench.calls.len() > calls {
            calls = bench.calls.len();
            bench.link_up(LINK, LIFE);
        }
    };
    connect(&mut bench);
    bench.pass(secs(600), connect);
    assert_eq!(bench.ends(), [(1, Some(FailKind::Unreachable))]);
    assert_eq!(bench.calls.len() as u32, 1 + message(1, 100).retry.retries, "it is tried again");
}

#[test]
fn a_call_that_fails_beside_a_link_fails_no_message_that_waits_for_room_on_it() {
    let mut bench = Bench::new(1, Config { window: 1, ..Config::default() });
    let once = RetryConfig { retries: 0, ..message(0, 1).retry };
    for token in [1, 2] {
        bench.send(OutgoingMessage { retry: once, ..message(token, 100) });
    }
    // The other end has called as well, and its link came first.
    let who = (LINK, endpoint(2), LIFE);
    bench.run(|it, now, fx| it.on_link_up(now, who, Some(false), fx));
    bench.run(|it, _, fx| it.on_call_failed(endpoint(2), "it hung up", fx));
    assert_eq!(bench.ends(), []);
    for number in [1, 2] {
        bench.ack(LIFE, number, DeliveryVerdict::Taken);
    }
    assert_eq!(bench.ends(), [(1, None), (2, None)]);
}
