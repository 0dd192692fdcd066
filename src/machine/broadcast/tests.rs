//! The broadcast of one peer, line by line.

mod gaps;
mod pace;

use super::*;
use crate::machine::Effect;
use crate::model::{Data, Rng, WallTime};
use crate::proto::broadcast::{
    Graft, PART_BYTES, Part, PartReq, Prune, Receipt, SEEN_BY_MAX, TTL_MAX,
};
use crate::proto::message::Message;
use rand::SeedableRng as _;

const FROM: LinkId = LinkId(1);
const OTHER: LinkId = LinkId(2);

fn endpoint(port: u16) -> Endpoint {
    Endpoint::new([127, 0, 0, 1].into(), port)
}

fn keys(port: u16) -> KeyPair {
    KeyPair::generate(&mut Rng::seed_from_u64(port.into()))
}

fn at(secs: u64) -> Now {
    Now { mono: Time::from_micros(secs * 1_000_000), wall: WallTime(secs * 1_000) }
}

fn linked(config: Config) -> Broadcast {
    let mut it = Broadcast::new(config, endpoint(1), keys(1));
    it.on_link_up(at(0), FROM, endpoint(2), &mut Effects::default());
    it.on_link_up(at(0), OTHER, endpoint(3), &mut Effects::default());
    it
}

fn open() -> Config {
    Config { requires_proof: false, ..Config::default() }
}

fn said_by(port: u16, number: u64, data: impl Into<Data>, receipt: bool) -> Publish {
    let keys = keys(port);
    let (endpoint, key) = (endpoint(port), keys.public());
    let life = MemberInstance { endpoint, incarnation: Incarnation(1), key };
    let said = ("news".to_owned(), data.into(), receipt);
    Publish { ttl: 5, ..Publish::sign(&life, (number, WallTime(0)), said, &keys) }
}

fn message(number: u64) -> Publish {
    said_by(9, number, "hello", false)
}

fn step(it: &mut Broadcast, now: Now, from: LinkId, msg: Publish) -> Vec<Effect<Broadcast>> {
    let mut fx = Effects::default();
    it.on_publish(now, from, msg, |_| CertificateVerdict::Fails, &mut fx);
    fx.drain().collect()
}

fn delivers(effects: &[Effect<Broadcast>]) -> bool {
    effects.iter().any(|it| matches!(it, Effect::Emit(Event::Delivered { .. })))
}

fn blames(effects: &[Effect<Broadcast>]) -> bool {
    effects.iter().any(|it| matches!(it, Effect::Emit(Event::Malformed { .. })))
}

#[test]
fn the_second_copy_prunes_its_link_and_is_not_delivered() {
    let mut it = linked(open());
    assert!(delivers(&step(&mut it, at(1), FROM, message(1))));
    let again = step(&mut it, at(1), OTHER, message(1));
    assert!(matches!(again[..], [Effect::Send { link: OTHER, .. }]), "{again:?}");
    assert_eq!((it.metrics().duplicates, it.metrics().eager_links), (1, 1));
}

#[test]
fn false_messages_are_refused_and_blamed_and_a_huge_hop_limit_is_cut() {
    let good = message(1);
    let seen_by = vec![endpoint(4); SEEN_BY_MAX + 1];
    let bad = [
        Publish { number: 0, ..good.clone() },
        Publish { topic: String::new(), ..good.clone() },
        Publish { topic: "other".to_owned(), ..good.clone() },
        Publish { data: Some(Data::from("HELLO")), ..good.clone() },
        Publish { size: 6, ..good.clone() },
        Publish { data: None, size: 2_000_000, ..good.clone() },
        Publish { seen_by, ..good.clone() },
    ];
    let mut it = linked(open());
    for msg in bad {
        let effects = step(&mut it, at(1), FROM, msg);
        assert!(blames(&effects) && !delivers(&effects), "{effects:?}");
    }
    let effects = step(&mut it, at(1), FROM, Publish { ttl: u32::MAX, ..good });
    assert!(delivers(&effects));
    let is_cut = |it: &Effect<Broadcast>| {
        matches!(it, Effect::Send { msg: Message::Publish(msg), .. }
            if msg.ttl == TTL_MAX - 1)
    };
    assert!(effects.iter().any(is_cut), "{effects:?}");
}

#[test]
fn nothing_that_was_forgotten_is_delivered_again_whatever_age_it_claims() {
    let mut it = linked(Config { seen_max: 3, ..open() });
    for number in 1..=5 {
        assert!(delivers(&step(&mut it, at(number), FROM, message(number))));
    }
    assert_eq!(it.metrics().seen_messages, 3);
    assert!(!delivers(&step(&mut it, at(9), OTHER, message(1))), "it is below the floor");
}

#[test]
fn what_is_older_than_the_horizon_is_not_taken_from_an_unknown_origin_either() {
    let mut it = linked(Config { seen_max: 3, ..open() });
    for number in 1..=5 {
        step(&mut it, at(number), FROM, message(number));
    }
    // The message made 2 s after the start was forgotten; any as old might have been, too.
    let old = Publish { age_ms: 7_000, ..said_by(8, 1, "hello", false) };
    assert!(!delivers(&step(&mut it, at(9), FROM, old.clone())));
    assert_eq!(it.metrics().messages_dropped["old"], 1);
    assert!(delivers(&step(&mut it, at(9), FROM, Publish { age_ms: 5_000, ..old })));
}

#[test]
fn ten_million_identities_keep_memory_flat() {
    const MAX: usize = 10_000;
    let (mut seen, mut origins) = (Seen::default(), Origins::default());
    let mut full = None;
    for number in 0..10_000_000_u64 {
        if number % 1_000 == 0 {
            let key = keys(9).public();
            let life =
                MemberInstance { endpoint: endpoint(9), incarnation: Incarnation(number), key };
            origins.insert(life, None);
        }
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        let now = Time::from_micros(number);
        let room = (MAX, &mut origins);
        seen.insert(MessageId::from_bytes(id), (number / 1_000, number), (now, now), room);
        if number == 100_000 {
            full = Some(seen.footprint());
        }
    }
    let (entries, bytes) = seen.footprint();
    assert_eq!((entries, Some((entries, bytes))), (2 * MAX, full), "as after the first 100,000");
    assert!(bytes <= 250 * MAX, "{bytes} bytes for {MAX} identities");
    assert_eq!(origins.len(), config::ORIGINS_MAX);
}

/// Everything that goes out on a link, in order.
fn sent(effects: Vec<Effect<Broadcast>>) -> Vec<(LinkId, Message)> {
    let sent = effects.into_iter().filter_map(|it| {
        if let Effect::Send { link, msg } = it { Some((link, msg)) } else { None }
    });
    sent.collect()
}

fn act(work: impl FnOnce(&mut Fx)) -> Vec<(LinkId, Message)> {
    let mut fx = Effects::default();
    work(&mut fx);
    sent(fx.drain().collect())
}

fn millis(n: u64) -> Now {
    Now { mono: Time::from_micros(n * 1_000), wall: WallTime(n) }
}

fn offered(id: MessageId, size: u64, hops: u32) -> Announce {
    Announce { ids: vec![Offer { id, size, hops }] }
}

fn graft(id: MessageId, push: bool) -> Message {
    Graft { ids: vec![id], push }.into()
}

#[test]
fn a_pruned_link_is_announced_to_and_a_grafted_one_pushed_to_again() {
    let mut it = linked(open());
    it.on_prune(OTHER);
    let pushed = sent(step(&mut it, at(1), FROM, message(1)));
    assert_eq!(pushed, [], "to nobody");
    let told = act(|fx| it.on_timer(at(2), Timer::Announce, fx));
    assert_eq!(told, [(OTHER, offered(message(1).id(), 5, 1).into())]);
    let asked = Graft { ids: vec![message(1).id()], push: true };
    let answer = act(|fx| it.on_graft(at(2), OTHER, &asked, fx));
    assert!(matches!(answer[..], [(OTHER, Message::Publish(_))]), "{answer:?}");
    let pushed = sent(step(&mut it, at(3), FROM, message(2)));
    assert!(matches!(pushed[..], [(OTHER, Message::Publish(_))]), "{pushed:?}");
}

#[test]
fn a_message_that_may_go_no_further_is_announced() {
    let mut it = linked(open());
    assert_eq!(sent(step(&mut it, at(1), FROM, Publish { ttl: 0, ..message(1) })), []);
    let told = act(|fx| it.on_timer(at(2), Timer::Announce, fx));
    assert_eq!(told, [(OTHER, offered(message(1).id(), 5, 1).into())]);
}

#[test]
fn an_own_message_is_pushed_though_every_link_was_pruned() {
    let mut it = linked(open());
    it.begin(Incarnation(1), None);
    it.on_prune(FROM);
    it.on_prune(OTHER);
    let said = ("news".to_owned(), Data::from("farewell"), false);
    let pushed = act(|fx| it.publish(at(1), 0, said, fx));
    assert!(matches!(pushed[..], [(FROM, Message::Publish(_)), (OTHER, _)]), "{pushed:?}");
}

#[test]
fn a_much_nearer_announcer_takes_the_place_of_the_link_that_pushes() {
    let mut it = linked(open());
    it.on_prune(OTHER);
    let far = |number| Publish { hops: 9, ..message(number) };
    step(&mut it, at(1), FROM, far(1));
    // Ten links were crossed; by way of the announcer nine would be.
    let nothing = act(|fx| it.on_announce(at(1), OTHER, &offered(far(1).id(), 5, 8), fx));
    assert_eq!(nothing, []);
    let swap = act(|fx| it.on_announce(at(1), OTHER, &offered(far(1).id(), 5, 7), fx));
    let wants_pushes = Graft { ids: vec![], push: true }.into();
    assert_eq!(swap, [(OTHER, wants_pushes), (FROM, Prune {}.into())]);
    assert_eq!((it.metrics().eager_links, it.metrics().preferred), (1, 1));
    // It claims the same again, and pushes nothing: not before a pause.
    it.on_prune(OTHER);
    step(&mut it, at(2), FROM, far(2));
    assert_eq!(act(|fx| it.on_announce(at(2), OTHER, &offered(far(2).id(), 5, 0), fx)), []);
}

#[test]
fn an_announced_message_is_waited_for_and_asked_for_at_one_announcer_after_the_other() {
    let mut it = linked(open());
    let id = message(1).id();
    it.on_announce(millis(0), FROM, &offered(id, 5, 1), &mut Effects::default());
    it.on_announce(millis(5), OTHER, &offered(id, 5, 1), &mut Effects::default());
    assert_eq!(act(|fx| it.on_timer(millis(99), Timer::Repair, fx)), [], "a push may come");
    let asked = act(|fx| it.on_timer(millis(100), Timer::Repair, fx));
    assert_eq!(asked, [(FROM, graft(id, true))]);
    assert_eq!(act(|fx| it.on_timer(millis(149), Timer::Repair, fx)), [], "so may the answer");
    let asked = act(|fx| it.on_timer(millis(150), Timer::Repair, fx));
    assert_eq!(asked, [(OTHER, graft(id, true))]);
    // The second answers at last; it is no duplicate's link, and nothing is waited for any more.
    assert!(delivers(&step(&mut it, millis(160), OTHER, message(1))));
    let metrics = it.metrics();
    assert_eq!((metrics.repaired, metrics.wanted_messages, metrics.prunes), (1, 0, 0));
}

#[test]
fn what_nobody_sends_is_given_up_after_five_rounds() {
    let mut it = linked(open());
    let id = message(1).id();
    it.on_announce(millis(0), FROM, &offered(id, 5, 1), &mut Effects::default());
    let times = (0..60_000).step_by(10);
    let asked = times.flat_map(|ms| act(|fx| it.on_timer(millis(ms), Timer::Repair, fx))).count();
    assert_eq!(asked, config::ROUNDS_MAX as usize);
    let metrics = it.metrics();
    assert_eq!((metrics.wanted_messages, metrics.messages_dropped["withheld"]), (0, 1));
}

#[test]
fn whoever_announces_and_never_sends_is_waited_for_less_and_less() {
    let mut it = linked(open());
    let mut most = (0, 0);
    for round in 0..2_000_u64 {
        let ids = (0..50).map(|at| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(round * 50 + at).to_le_bytes());
            Offer { id: MessageId::from_bytes(id), size: 5, hops: 0 }
        });
        let announce = Announce { ids: ids.collect() };
        it.on_announce(millis(round * 10), FROM, &announce, &mut Effects::default());
        let asked = act(|fx| it.on_timer(millis(round * 10), Timer::Repair, fx));
        most.0 = most.0.max(asked.len());
        if round >= 1_500 {
            most.1 = most.1.max(it.metrics().wanted_messages);
        }
    }
    assert!(most.0 == 1 && most.1 <= 256, "{most:?}");
    // Others are heard meanwhile.
    it.on_announce(at(21), OTHER, &offered(message(1).id(), 5, 1), &mut Effects::default());
    let asked = act(|fx| it.on_timer(at(22), Timer::Repair, fx));
    assert!(asked.contains(&(OTHER, graft(message(1).id(), asked.len() == 1))), "{asked:?}");
}

#[test]
fn receipts_are_summed_up_and_told_to_whom_the_message_came_from() {
    let mut it = linked(open());
    let said = said_by(9, 1, "who has it?", true);
    let id = said.id();
    step(&mut it, millis(0), FROM, said);
    let told = act(|fx| it.on_timer(millis(100), Timer::Receipts, fx));
    assert_eq!(told, [(FROM, Receipt { id, count: 1 }.into())]);
    let mut say = |ms, from, count| {
        act(|fx| it.on_receipt(millis(ms), from, Receipt { id, count }, fx));
        act(|fx| it.on_timer(millis(ms + 1_000), Timer::Receipts, fx))
    };
    assert_eq!(say(200, OTHER, 5), [(FROM, Receipt { id, count: 6 }.into())]);
    assert_eq!(say(2_000, OTHER, 4), [], "a count does not fall");
    assert_eq!(say(4_000, FROM, 7), [], "whom it came from counts by itself");
    let most = Receipt { id, count: config::RECEIPT_MAX }.into();
    assert_eq!(say(6_000, OTHER, config::RECEIPT_MAX), [(FROM, most)]);
    for count in [0, config::RECEIPT_MAX + 1] {
        let mut fx = Effects::default();
        it.on_receipt(at(9), OTHER, Receipt { id, count }, &mut fx);
        assert!(blames(&fx.drain().collect::<Vec<_>>()), "{count}");
    }
}

#[test]
fn parts_that_are_not_what_was_signed_are_blamed_and_pulled_elsewhere() {
    let mut it = linked(open());
    let data = Data::from(vec![7; PART_BYTES + 10]);
    let msg = said_by(9, 1, data.clone(), false);
    let id = msg.id();
    let request = |link| vec![(link, PartReq { id, at: 0, count: 2 }.into())];
    let head = Publish { data: None, ..msg };
    assert_eq!(sent(step(&mut it, at(1), FROM, head)), request(FROM));
    it.on_announce(at(1), OTHER, &offered(id, data.len() as u64, 1), &mut Effects::default());
    let part = |at: u32, byte, len| Part { id, at, data: Data::from(vec![byte; len]) };
    let give = |it: &mut Broadcast, from, part: &Part| {
        let mut fx = Effects::default();
        it.on_part(at(1), from, part, &mut fx);
        fx.drain().collect::<Vec<_>>()
    };
    give(&mut it, FROM, &part(0, 7, PART_BYTES));
    give(&mut it, OTHER, &part(1, 6, 10)); // It was not asked.
    let effects = give(&mut it, FROM, &part(1, 8, 10));
    assert!(blames(&effects) && !delivers(&effects), "{effects:?}");
    assert_eq!(sent(effects), request(OTHER));
    give(&mut it, OTHER, &part(0, 7, PART_BYTES));
    let effects = give(&mut it, OTHER, &part(1, 7, 10));
    assert!(delivers(&effects), "{effects:?}");
    assert_eq!(it.metrics().held_messages, 1);
    // It gives them in its turn.
    let given = act(|fx| it.on_part_req(FROM, PartReq { id, at: 1, count: 4 }, fx));
    assert_eq!(given, [(FROM, part(1, 7, 10).into())]);
}

#[test]
fn an_unproven_origin_is_asked_for_and_not_delivered() {
    let mut it = linked(Config::default());
    let effects = step(&mut it, at(1), FROM, message(1));
    assert!(!delivers(&effects) && !blames(&effects));
    let mut fx = Effects::default();
    it.on_timer(at(1), Timer::Repair, &mut fx);
    assert!(fx.drain().any(|it| matches!(it, Effect::Send { link: FROM, .. })));
    assert!(blames(&step(&mut it, at(2), FROM, message(1))), "an answer proves its origin");
}

fn life(port: u16) -> MemberInstance {
    let (endpoint, key) = (endpoint(port), keys(port).public());
    MemberInstance { endpoint, incarnation: Incarnation(1), key }
}

/// Fires the timers as a node does up to a time, each second.
fn pass(it: &mut Broadcast, from: u64, to: u64) -> Vec<Effect<Broadcast>> {
    let mut fx = Effects::default();
    for secs in from..to {
        for timer in it.armed.keys().copied().collect::<Vec<_>>() {
            it.on_timer(at(secs), timer, &mut fx);
        }
    }
    fx.drain().collect()
}
