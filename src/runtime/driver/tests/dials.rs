//! Calls to others.

use super::*;

#[test]
fn a_dialed_link_works_both_ways_and_ends_once_at_each_end() {
    let (here, there) = (Node::start(), Node::start());
    here.dial(7, there.addr);
    let Event::Dialed(DialId(7), link) = here.next() else { panic!("the dial succeeded") };
    here.tell(move |fx| fx.send(link, message("echo")));
    let Event::Accepted(other) = there.next() else { panic!("the link is reported first") };
    assert_eq!(there.next(), Event::Received(other, "echo".into()));
    assert_eq!(here.next(), Event::Received(link, "echo".into()));
    // Both ends echo it, so it comes and goes until one of them has had enough.
    here.tell(move |fx| fx.hangup(link));
    here.driver.stop(PATIENCE);
    there.driver.stop(PATIENCE);
    for node in [&here, &there] {
        let closed = node.rest().iter().filter(|e| matches!(e, Event::Closed(..))).count();
        assert!(closed <= 1);
        assert_eq!(node.driver.counters().links_closed.get(), 1);
    }
}

#[test]
fn a_refused_dial_is_answered_once() {
    let node = Node::start();
    let free = bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap().local_addr().unwrap();
    node.dial(1, free);
    assert_eq!(node.next(), Event::DialFailed(DialId(1), DialError::Refused));
    node.driver.stop(PATIENCE);
    assert_eq!(node.rest(), []);
}

/// A listener that takes no more calls: its queue is full, so the system drops new ones.
fn deaf() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut callers = Vec::new();
    while let Ok(caller) = TcpStream::connect_timeout(&addr, Duration::from_millis(50)) {
        callers.push(caller);
    }
    (socket, callers, addr)
}

#[test]
fn a_dial_without_an_answer_times_out() {
    let (_socket, _callers, addr) = deaf();
    let node = Node::start();
    let to = Endpoint::from(addr);
    node.tell(move |fx| fx.dial(DialId(1), to, Duration::from_millis(30)));
    assert_eq!(node.next(), Event::DialFailed(DialId(1), DialError::TimedOut));
}

#[test]
fn stopping_ends_a_dial_under_way() {
    let (_socket, _callers, addr) = deaf();
    let node = Node::start();
    node.dial(1, addr);
    let clock = Clock::start();
    node.driver.stop(PATIENCE);
    assert!(clock.now().mono.as_micros() < 10_000_000, "it did not wait for the time-out");
    assert_eq!(node.rest(), []);
}

#[test]
fn dials_beyond_the_limit_are_answered_busy() {
    let node = Node::start_with(|options| options.limits.dials_max = 0);
    node.dial(1, node.addr);
    assert_eq!(node.next(), Event::DialFailed(DialId(1), DialError::Busy));
    assert_eq!(node.driver.counters().dials_failed.get(), 1);
}
