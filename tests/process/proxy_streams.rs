//! Streams through the data plane: `WebSocket`, server-sent events, slow readers, and volumes that
//! it may not keep in memory.

use crate::support;

use std::net::TcpStream;

use crossbeam_channel::bounded;
use sha2::{Digest as _, Sha256};
use support::PATIENCE;
use support::process::eventually;
use support::web::{BLOCK, Connection, Front, Request, Server, block, memory, sha_of_blocks};
use tungstenite::handshake::client::Response;
use tungstenite::{Message, WebSocket};

/// Growth of resident memory, in KiB, that no volume may cause.
const GROWTH_MAX: u64 = 64 * 1024;

/// Number of blocks of 200 MB.
const BLOCKS: u64 = 3_200;

/// A server of `WebSocket`s that says everything again.
fn echoing() -> Server {
    Server::of_connections("127.0.0.1:0", |stream| {
        // The port is called once more to close it.
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    })
}

#[track_caller]
fn upgrade(front: &Front) -> (WebSocket<TcpStream>, Response) {
    let stream = TcpStream::connect(front.addr).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
    stream.set_nodelay(true).expect("a socket takes options");
    let url = format!("ws://{}/socket?x=1", front.addr);
    tungstenite::client(url, stream).expect("it is upgraded")
}

#[test]
fn ten_thousand_messages_of_a_websocket_come_back() {
    let server = echoing();
    let front = Front::of(server.addr);
    let (mut socket, response) = upgrade(&front);
    assert_eq!(response.status(), 101);
    for number in 0..10_000 {
        let message = Message::text(format!("message {number}"));
        socket.send(message.clone()).expect("it is sent");
        assert_eq!(socket.read().expect("an echo"), message);
    }
    // Frames longer than any buffer on the way, and a close that both sides see.
    for len in [1, 125, 126, 65_535, 65_536, 3_000_000] {
        let message = Message::binary(vec![len as u8; len]);
        socket.send(message.clone()).expect("it is sent");
        assert!(socket.read().expect("an echo") == message, "{len} bytes");
    }
    socket.close(None).expect("it is sent");
    assert!(socket.read().expect("the other's close").is_close());
}

#[test]
fn websockets_that_idle_take_nothing_from_requests_and_go_on() {
    let server = echoing();
    let front = Front::of(server.addr);
    let mut sockets: Vec<_> = (0..100).map(|_| upgrade(&front).0).collect();
    // A request without an upgrade is none of this server's; the node itself must answer, though.
    for _ in 0..20 {
        assert!(Connection::call(front.addr).ask("GET", "/", b"").status >= 400);
    }
    for socket in &mut sockets {
        socket.send(Message::text("still here")).expect("it is sent");
        assert_eq!(socket.read().expect("an echo"), Message::text("still here"));
    }
}

#[test]
fn each_server_sent_event_arrives_before_the_next_is_sent() {
    let (seen, next) = bounded::<u32>(1);
    let server = Server::start(move |request, to| {
        to.body(&request.headers, |_| {})?;
        to.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        )?;
        for number in 0..200_u32 {
            let event = format!("id: {number}\ndata: event {number}\n\n");
            to.write(format!("{:x}\r\n{event}\r\n", event.len()))?;
            // The client has it, or there will be no other.
            let has_it = next.recv_timeout(PATIENCE).map_err(std::io::Error::other)?;
            assert_eq!(has_it, number);
        }
        to.write("0\r\n\r\n")
    });
    let front = Front::of(server.addr);
    let mut client = Connection::call(front.addr);
    client.send("GET", "/events", b"");
    let answer = client.head();
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let (mut text, mut number) = (String::new(), 0);
    let end = client.body(&answer.headers, |it| {
        text.push_str(std::str::from_utf8(it).expect("text"));
        let wanted = format!("id: {number}\ndata: event {number}\n\n");
        if text == wanted {
            text.clear();
            seen.send(number).expect("the server waits");
            number += 1;
        }
    });
    end.expect("it ends as it should");
    assert_eq!((number, &*text), (200, ""), "all, in order");
}

#[test]
fn a_request_body_reaches_the_server_while_it_is_sent_and_both_talk_at_once() {
    let server = Server::start(|request, to| {
        assert_eq!(request.headers["transfer-encoding"], "chunked");
        to.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        // Each piece is answered before the next one is sent.
        let mut answering = Vec::new();
        for _ in 0..20 {
            to.chunk(|piece| answering = piece.to_vec())?;
            to.write(format!("{:x}\r\n", answering.len()))?;
            to.write(&answering)?;
            to.write("\r\n")?;
        }
        to.body(&request.headers, |_| {})?;
        to.write("0\r\n\r\n")
    });
    let front = Front::of(server.addr);
    let mut client = Connection::call(front.addr);
    let head = "POST /both HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write(head).expect("it reads");
    for number in 0..20 {
        client.write(format!("4\r\n{number:04}\r\n")).expect("it reads");
        if number == 0 {
            assert_eq!(client.head().status, 200);
        }
        let mut heard = Vec::new();
        while heard.len() < 4 {
            client.chunk(|piece| heard.extend_from_slice(piece)).expect("an answer");
        }
        assert_eq!(heard, format!("{number:04}").as_bytes());
    }
    client.write("0\r\n\r\n").expect("it reads");
    let headers = [("transfer-encoding".to_owned(), "chunked".to_owned())].into();
    client.body(&headers, |it| panic!("nothing more: {it:?}")).expect("it ends");
}

/// Gives as many blocks as the target says; takes everything and tells its SHA-256.
fn volumes(request: &Request, to: &mut Connection) -> std::io::Result<()> {
    let mut hash = Sha256::new();
    to.body(&request.headers, |it| hash.update(it))?;
    let Ok(count) = request.target[1..].parse::<u64>() else {
        return to.answer("200 OK", "", hex::encode(hash.finalize()).as_bytes());
    };
    let len = count * BLOCK as u64;
    to.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"))?;
    (0..count).try_for_each(|number| to.write(block(number)))
}

#[test]
fn a_slow_reader_of_a_large_answer_holds_up_nobody_and_gets_all_of_it() {
    let server = Server::start(volumes);
    let front = Front::of(server.addr);
    let mut slow = Connection::call(front.addr);
    slow.send("GET", "/1000", b"");
    let answer = slow.head();
    let mut hash = Sha256::new();
    let mut other = Connection::call(front.addr);
    for _ in 0..100 {
        slow.take(1_000, |it| hash.update(it)).expect("a piece");
        assert_eq!(other.ask("PUT", "/other", b"body").status, 200);
    }
    let len: u64 = answer.headers["content-length"].parse().expect("a number");
    slow.take(len - 100_000, |it| hash.update(it)).expect("the rest");
    assert_eq!(hex::encode(hash.finalize()), sha_of_blocks(1_000));
}

#[test]
fn two_hundred_megabytes_in_each_direction_do_not_stay_in_memory() {
    let server = Server::start(volumes);
    let front = Front::of(server.addr);
    let mut client = Connection::call(front.addr);
    assert_eq!(client.ask("PUT", "/small", b"body").status, 200);
    let before = memory(&front.process, "VmRSS:");
    let len = BLOCKS * BLOCK as u64;
    let head = format!("PUT /large HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
    client.write(head).expect("it reads");
    (0..BLOCKS).for_each(|number| client.write(block(number)).expect("it reads"));
    let answer = client.head();
    let mut told = Vec::new();
    client.body(&answer.headers, |it| told.extend_from_slice(it)).expect("a body");
    assert_eq!(String::from_utf8_lossy(&told), sha_of_blocks(BLOCKS));
    client.send("GET", &format!("/{BLOCKS}"), b"");
    let answer = client.head();
    let mut hash = Sha256::new();
    client.body(&answer.headers, |it| hash.update(it)).expect("a body");
    assert_eq!(hex::encode(hash.finalize()), sha_of_blocks(BLOCKS));
    // A reader that does not read: the node may not take the rest from the server meanwhile.
    client.send("GET", &format!("/{BLOCKS}"), b"");
    let mut other = Connection::call(front.addr);
    client.head();
    for _ in 0..50 {
        assert_eq!(other.ask("PUT", "/other", b"body").status, 200);
    }
    let peak = memory(&front.process, "VmHWM:");
    assert!(peak < before + GROWTH_MAX, "{peak} KiB after {before}");
}

#[test]
fn a_client_that_goes_away_ends_the_request_to_the_server() {
    let (tell, told) = bounded::<()>(1);
    let server = Server::start(move |request, to| {
        to.body(&request.headers, |_| {})?;
        to.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let ended = eventually(|| to.write("1\r\nx\r\n").is_err());
        assert!(ended, "nobody reads this any more");
        tell.send(()).map_err(std::io::Error::other)?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let front = Front::of(server.addr);
    let mut client = Connection::call(front.addr);
    client.send("GET", "/endless", b"");
    assert_eq!(client.head().status, 200);
    drop(client);
    told.recv_timeout(PATIENCE).expect("the server sees that its connection is closed");
}
