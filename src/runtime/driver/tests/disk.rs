//! Records: what waits for them, their order, a full outbox, a failing disk, the rewritten journal.

use super::*;

#[test]
fn what_follows_a_record_leaves_after_it_is_on_disk() {
    let node = Node::start();
    node.tell(|fx| {
        fx.emit(Event::Said(0));
        for n in 1..=100 {
            fx.persist((n, "promise".to_owned()));
            fx.emit(Event::Said(n));
        }
    });
    for n in 0..=100 {
        assert_eq!(node.next(), Event::Said(n));
        assert!(n == 0 || node.records().len() == 100);
    }
    let counters = node.driver.counters();
    assert_eq!((counters.journal_records.get(), counters.journal_syncs.get()), (100, 1));
}

#[test]
fn records_and_messages_of_many_threads_keep_their_order() {
    let node = Node::start();
    let (mut client, link) = node.client();
    for n in 0..300u32 {
        node.tell(move |fx| {
            if n % 3 == 0 {
                fx.persist((n, String::new()));
            }
            fx.send(link, message(&n.to_string()));
        });
    }
    for n in 0..300 {
        assert_eq!(client.hear().unwrap(), n.to_string());
    }
    let records: Vec<u32> = node.records().into_iter().map(|(n, _)| n).collect();
    assert_eq!(records, (0..300).step_by(3).collect::<Vec<_>>());
    assert!(node.driver.counters().journal_syncs.get() <= 100);
}

#[test]
fn a_link_pauses_while_the_outbox_is_full_and_goes_on_afterwards() {
    let node = Node::start();
    let (mut client, _) = node.client();
    for _ in 0..5 {
        node.tell(|fx| {
            fx.persist((1, "promise".to_owned()));
            (0..20_000).for_each(|n| fx.emit(Event::Said(n)));
        });
        client.say("echo");
        assert_eq!(client.hear().unwrap(), "echo");
    }
}

#[test]
fn a_node_whose_disk_fails_stops_and_says_nothing_that_rests_on_it() {
    let node = Node::start_on(Journal::open_broken, |_| {});
    let (mut client, link) = node.client();
    node.tell(move |fx| {
        fx.persist((1, "promise".to_owned()));
        fx.send(link, message("I promised"));
        fx.emit(Event::Said(1));
    });
    let err = node.driver.failed().recv_timeout(PATIENCE).unwrap();
    assert!(err.to_string().contains("journal.log"), "{err}");
    assert_eq!(client.hear(), None);
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
    assert!(TcpStream::connect(node.addr).is_err());
}

#[test]
fn a_grown_journal_is_rewritten_from_the_snapshot() {
    let node = Node::start();
    for n in 0..6 {
        node.tell(move |fx| {
            fx.persist((n, "x".repeat(1024 * 1024)));
            fx.emit(Event::Said(n));
        });
        assert_eq!(node.next(), Event::Said(n));
    }
    node.driver.stop(PATIENCE);
    assert_eq!(node.driver.counters().journal_rewrites.get(), 1);
    let records = node.records();
    assert_eq!(records[0], (0, "snapshot".into()));
    assert!(records.len() <= 3 && records[1..].iter().all(|(n, _)| *n >= 4));
}
