//! Tests of links: lines that are none, ends that do not read, hang-ups.

use super::*;

#[test]
fn a_line_that_is_too_long_is_answered_and_costs_only_its_own_link() {
    let node = Node::start();
    let (mut good, _) = node.client();
    let (mut bad, link) = node.client();
    bad.write(b"{");
    bad.write(&vec![b'x'; 10_000_000]);
    let answer = bad.hear().unwrap();
    assert!(answer.contains(&LINE_BYTES_MAX.to_string()), "{answer}");
    assert_eq!(bad.hear(), None);
    let Event::Closed(closed, reason) = node.next() else { panic!("the link has ended") };
    assert_eq!(closed, link);
    assert!(reason.contains("longer than the limit"), "{reason}");
    good.say("echo");
    assert_eq!(good.hear().unwrap(), "echo");
    assert_eq!(node.driver.counters().refused_too_long.get(), 1);
}

#[test]
fn a_line_cut_short_is_answered_with_an_error() {
    let node = Node::start();
    let (mut client, link) = node.client();
    client.write(b"{\"type\":");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert!(client.hear().unwrap().contains("newline"));
    assert_eq!(client.hear(), None);
    assert!(matches!(node.next(), Event::Closed(closed, _) if closed == link));
    assert_eq!(node.rest(), []);
}

#[test]
fn a_garbled_line_is_reported_and_the_link_goes_on() {
    let node = Node::start();
    let (mut client, link) = node.client();
    client.write(b"{\"type\":\"NONSENSE\"}\nnot json\n");
    client.say("echo");
    assert_eq!(node.next(), Event::Garbled(link));
    assert_eq!(node.next(), Event::Garbled(link));
    assert_eq!(client.hear().unwrap(), "echo");
}

#[test]
fn a_client_that_has_finished_speaking_still_hears_the_answer() {
    let node = Node::start();
    let mut client = Client::connect(node.addr);
    client.say("echo");
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.hear().unwrap(), "echo");
    assert_eq!(client.hear(), None);
}

#[test]
fn a_hangup_drains_first_and_is_reported_once() {
    let node = Node::start();
    let (mut client, link) = node.client();
    node.tell(move |fx| {
        for n in 0..500 {
            fx.send(link, message(&format!("{n}")));
        }
        fx.hangup(link);
        fx.hangup(link);
        fx.send(link, message("too late"));
    });
    for n in 0..500 {
        assert_eq!(client.hear().unwrap(), n.to_string());
    }
    client.say("not listened to any more");
    assert_eq!(client.hear(), None);
    drop(client);
    assert_eq!(node.next(), Event::Closed(link, "closed by this node".into()));
    node.tell(move |fx| fx.send(link, message("to a link that is gone")));
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
    assert_eq!(node.driver.counters().links_closed.get(), 1);
}

#[test]
fn a_link_whose_other_end_does_not_read_is_closed() {
    let node = Node::start();
    let (_client, link) = node.client();
    node.fill(link, 100 << 20, 200_000);
    let Event::Closed(closed, reason) = node.next() else { panic!("the link has ended") };
    assert!(closed == link && reason.contains("does not read"), "{reason}");
    assert_eq!(node.driver.counters().refused_slow.get(), 1);
}

#[test]
fn what_strangers_do_not_read_is_bounded_for_all_of_them_together() {
    const LIMIT: usize = 1 << 20;
    let node = Node::start_with(|options| options.limits.unread_bytes_max = LIMIT);
    let clients: Vec<_> = (0..4).map(|_| node.client()).collect();
    let links: Vec<_> = clients.iter().map(|(_, link)| *link).collect();
    let member = links[0];
    node.fill(member, 2 * LIMIT, 10_000);
    assert_eq!(node.rest(), [], "what waits for a member does not count");
    // Writers that have not run yet may empty a queue later: which stranger has most is not known.
    for stranger in links[1..].iter().cycle() {
        node.fill(*stranger, LIMIT / 4, 10_000);
        if node.driver.counters().refused_slow.get() > 0 {
            break;
        }
    }
    let Event::Closed(closed, reason) = node.next() else { panic!("a link has ended") };
    assert_ne!(closed, member);
    let bytes = reason.split(' ').find_map(|it| it.parse::<usize>().ok());
    assert!(bytes.is_some_and(|it| it >= LIMIT / 3), "the largest of three: {reason}");
    node.driver.stop(Duration::ZERO);
    let ended = node.rest();
    assert!(ended.iter().all(|it| matches!(it, Event::Closed(..))), "{ended:?}");
    assert_eq!(node.driver.counters().refused_slow.get(), 1);
    assert_eq!(node.driver.unread.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_link_that_was_hung_up_and_does_not_read_makes_room_for_the_next() {
    let node = Node::start_with(|options| {
        // Longer than this test waits.
        options.limits.write_timeout = 20 * PATIENCE;
        options.limits.draining_max = 1;
    });
    let (_one, first) = node.client();
    let (_two, second) = node.client();
    for link in [first, second] {
        node.fill(link, 1_000_000, 50_000);
        node.tell(move |fx| fx.hangup(link));
    }
    assert_eq!(node.next(), Event::Closed(first, "closed by this node".into()));
    assert_eq!(node.rest(), []);
}

#[test]
fn a_message_longer_than_a_line_is_not_sent() {
    let node = Node::start();
    let (mut client, link) = node.client();
    node.tell(move |fx| {
        fx.send(link, message(&"x".repeat(LINE_BYTES_MAX)));
        fx.send(link, message("short"));
    });
    assert_eq!(client.hear().unwrap(), "short");
    assert_eq!(node.driver.counters().oversized.get(), 1);
}
