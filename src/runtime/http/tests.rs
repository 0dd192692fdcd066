//! Tests of the server at a real socket, with clients that behave and clients that do not.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use hyper::header::ALLOW;
use hyper::{Method, Request};

use super::*;
use crate::runtime::thread;

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers GET with its path.
struct Echo;

impl HttpHandler for Echo {
    fn wants_body(&self, head: &Parts) -> bool {
        head.uri.path() == "/body"
    }

    fn answer(&self, request: &HttpRequest) -> Response<Content> {
        let path = request.head.uri.path();
        let answer = if path == "/body" {
            own(200, "text/plain", request.body.clone())
        } else if request.head.method == Method::GET {
            own(200, "text/plain", format!("{path}|"))
        } else {
            let mut answer = text(405, "no");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            answer
        };
        answer.map(Content::from)
    }
}

/// A client's end, and the sign that the server's thread has ended.
struct Call {
    stream: TcpStream,
    ended: crossbeam_channel::Receiver<()>,
}

fn server(access: Access) -> Arc<HttpServer> {
    Arc::new(HttpServer::new(Arc::new(Echo), access, Arc::default()))
}

fn call(server: &Arc<HttpServer>) -> Call {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (accepted, from) = listener.accept().unwrap();
    let (tell, ended) = crossbeam_channel::bounded(1);
    let server = Arc::clone(server);
    thread::spawn("http", move || {
        server.serve(RawConnection::new(Arc::new(accepted), Vec::new(), from));
        let _ = tell.send(());
    })
    .unwrap();
    Call { stream, ended }
}

impl Call {
    fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    /// Reads everything up to the end of the connection.
    #[track_caller]
    fn rest(&self) -> String {
        let mut text = String::new();
        (&self.stream).read_to_string(&mut text).unwrap();
        self.ended.recv_timeout(PATIENCE).expect("the server lets go");
        text
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
}

const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Answer to a connection that sends `bytes` and no more.
#[track_caller]
fn answer(bytes: &[u8]) -> String {
    let server = server(Access::Any);
    let call = call(&server);
    call.send(bytes);
    call.rest()
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let text = answer(format!("{}{}{LAST}", get("/1"), get("/2")).as_bytes());
    let bodies: Vec<_> = text.split('/').filter_map(|it| it.split_once('|')).collect();
    assert_eq!(bodies.iter().map(|it| it.0).collect::<Vec<_>>(), ["1", "2", "last"], "{text}");
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3);
}

#[test]
fn a_body_is_not_read_and_what_follows_it_is_not_taken_for_a_request() {
    let body = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let len = 1 << 20;
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}");
    let text = answer(text.as_bytes());
    assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("Allow: GET\r\n"), "{text}");
    assert!(!text.contains("/inner"), "{text}");
}

#[test]
fn every_fault_is_answered_with_its_reason_and_ends_its_connection() {
    let server = server(Access::Any);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1 << 20));
    let twice = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n";
    for (bytes, status) in [
        (b"GET \xff\xfe\x00 HTTP/1.1\r\n\r\n".as_slice(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n", 400),
        (twice.as_bytes(), 400),
        (endless.as_bytes(), 431),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let before = server.shared.counters.clients.refused();
        let call = call(&server);
        let _ = (&call.stream).write_all(bytes);
        let _ = call.stream.shutdown(Shutdown::Write);
        let text = call.rest();
        let shown = &bytes[..bytes.len().min(60)].escape_ascii().to_string();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {text}");
        assert!(
            text.contains("Connection: close") && text.contains("\"reason\""),
            "{shown}: {text}"
        );
        assert_eq!(server.shared.counters.clients.refused(), before + 1, "{shown}");
    }
    let good = call(&server);
    good.send(LAST.as_bytes());
    assert!(good.rest().contains("/last|"), "all that hurt nobody else");
    assert_eq!(server.places.open(), 0, "and every place is free");
}

/// A server with these time-outs.
fn hasty(head: Duration, idle: Duration) -> Arc<HttpServer> {
    let mut server = HttpServer::new(Arc::new(Echo), Access::Any, Arc::default());
    server.timeouts = ClientTimeouts { head, idle, write: head, drain: idle, half_close: true };
    Arc::new(server)
}

#[test]
fn a_byte_now_and_then_buys_no_time() {
    let server = hasty(Duration::from_millis(150), PATIENCE);
    let call = call(&server);
    let pause = crossbeam_channel::tick(Duration::from_millis(5));
    // Without a deadline for the whole head this would go on until the head is too long.
    let mut sent = 0;
    for byte in format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8_000)).bytes() {
        let _ = pause.recv();
        let is_refused = server.shared.counters.clients.refused() > 0;
        if (&call.stream).write_all(&[byte]).is_err() || is_refused {
            break;
        }
        sent += 1;
    }
    assert!(sent < 2_000, "{sent} bytes were waited for");
    let _ = call.stream.shutdown(Shutdown::Write);
    assert!(call.rest().starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = hasty(PATIENCE, Duration::from_millis(50));
    let call = call(&server);
    call.send(get("/1").as_bytes());
    let text = call.rest();
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    assert_eq!(server.shared.counters.metrics().closed_idle, 1);
}

#[test]
fn one_address_gets_its_share_of_connections_and_no_more() {
    let server = server(Access::Any);
    let held: Vec<_> = (0..CONNECTIONS_OF_ONE_MAX).map(|_| call(&server)).collect();
    for it in &held {
        // Answered, so it is in its place.
        it.send(get("/1").as_bytes());
        it.stream.peek(&mut [0]).unwrap();
    }
    assert!(call(&server).rest().starts_with("HTTP/1.1 503 "));
    assert_eq!(server.shared.counters.metrics().refused_busy, 1);
    for it in held {
        it.stream.shutdown(Shutdown::Write).unwrap();
        it.rest();
    }
    let next = call(&server);
    next.send(LAST.as_bytes());
    assert!(next.rest().contains("/last|"));
}

#[test]
fn with_loopback_access_a_foreign_name_or_address_is_refused() {
    let server = server(Access::Loopback);
    let from: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let asked = |host: &str, from: SocketAddr| {
        let request = Request::get("/").header(HOST, host).body(()).unwrap();
        server.shared.bar(&request.into_parts().0, from).map(|it| it.status)
    };
    for host in ["127.0.0.1", "127.0.0.1:6001", "localhost:6001", "LOCALHOST", "[::1]:6001"] {
        assert_eq!(asked(host, from), None, "{host}");
    }
    for host in ["evil.example", "evil.example:6001", "127.0.0.1.evil.example", "localhost.x"] {
        assert_eq!(asked(host, from), Some(403), "{host}");
    }
    assert_eq!(asked("localhost", "192.0.2.1:1".parse().unwrap()), Some(403));
    assert_eq!(asked("localhost", "[::ffff:127.0.0.1]:1".parse().unwrap()), None);
    assert_eq!(server.shared.counters.metrics().refused_access, 5);
}
