//! Tests of accepted connections: silent ones, too many, other dialects.

use super::*;

#[test]
fn a_silent_connection_is_closed_and_the_machine_never_hears_of_it() {
    let node = Node::start_with(|options| {
        options.limits.handshake_timeout = Duration::from_millis(30);
    });
    let mut silent = Client::connect(node.addr);
    let mut blank = Client::connect(node.addr);
    blank.write(b" \n");
    assert_eq!((silent.hear(), blank.hear()), (None, None));
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
    assert_eq!(node.driver.counters().refused_silent.get(), 2);
}

#[test]
fn the_oldest_of_too_many_silent_connections_makes_room() {
    let node = Node::start_with(|options| options.limits.silent_max = 2);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(node.addr)).collect();
    assert!(clients[0].hear().unwrap().contains("no room"));
    assert_eq!(clients[0].hear(), None);
    for client in &mut clients[1..] {
        client.say("echo");
        assert_eq!(client.hear().unwrap(), "echo");
    }
    assert_eq!(node.driver.counters().refused_crowded.get(), 1);
}

#[test]
fn above_the_limit_connections_are_told_so_and_closed_at_once() {
    let node = Node::start_with(|options| options.limits.links_max = 1);
    let (mut first, _) = node.client();
    let mut second = Client::connect(node.addr);
    assert!(second.hear().unwrap().contains("no room"));
    assert_eq!(second.hear(), None);
    node.dial(1, node.addr);
    assert_eq!(node.next(), Event::DialFailed(DialId(1), DialError::Busy));
    first.say("echo");
    assert_eq!(first.hear().unwrap(), "echo");
    assert_eq!(node.driver.counters().refused_full.get(), 1);
}

#[test]
fn callers_leave_places_for_own_calls() {
    let (node, other) = (Node::start_with(|options| options.limits.links_max = 16), Node::start());
    let _clients: Vec<_> = (0..15).map(|_| node.client()).collect();
    let mut late = Client::connect(node.addr);
    assert!(late.hear().unwrap().contains("no room"));
    node.dial(1, other.addr);
    assert!(matches!(node.next(), Event::Dialed(DialId(1), _)));
}

#[test]
fn other_dialects_are_closed_and_counted() {
    let node = Node::start();
    let openings: [&[u8]; 4] =
        [b"\0\0\0\x02{}", b"P2PFILESHARINGPROJ", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01garbage"];
    for opening in openings {
        let mut client = Client::connect(node.addr);
        client.write(opening);
        assert_eq!(client.hear(), None);
    }
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
    assert_eq!(node.driver.counters().refused_dialect.get(), 4);
}

#[test]
fn a_dialect_with_a_server_gets_its_connections_from_the_first_byte() {
    struct Mirror;
    impl ServeConnection for Mirror {
        fn serve(&self, mut connection: RawConnection) {
            let mut bytes = [0; 9];
            connection.read_exact(&mut bytes).unwrap();
            connection.stream().write_all(&bytes).unwrap();
        }
    }
    let node = Node::start_with(|options| {
        options.dialects.open(Dialect::Http, Arc::new(Mirror));
    });
    let mut client = Client::connect(node.addr);
    for part in [&b"GE"[..], b"T /a", b"bc and more"] {
        client.write(part);
    }
    let mut answer = [0; 9];
    client.0.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"GET /abc ");
}

#[test]
fn a_guest_is_shut_down_under_its_servers_hands_when_the_node_stops() {
    struct Patient(Sender<()>);
    impl ServeConnection for Patient {
        fn serve(&self, mut connection: RawConnection) {
            self.0.send(()).unwrap();
            let _ = connection.read_to_end(&mut Vec::new());
        }
    }
    let (serving, served) = bounded(1);
    let node = Node::start_with(|options| {
        options.dialects.open(Dialect::Http, Arc::new(Patient(serving)));
    });
    let mut client = Client::connect(node.addr);
    client.write(b"GET /");
    served.recv_timeout(PATIENCE).unwrap();
    node.driver.stop(Duration::ZERO);
    assert_eq!(node.driver.threads.at_work(), 0);
}
