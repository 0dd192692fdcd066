//! Tests of the server at a real socket, with clients that behave and clients that do not.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;

use super::*;
use crate::runtime::thread;

const PATIENCE: Duration = Duration::from_secs(30);

/// Takes POST at `/echo` and answers everything else with its path.
struct Echo;

impl HttpHandler for Echo {
    fn refuse(&self, head: &Head) -> Option<Response> {
        let is_taken = head.method == "GET" || head.path == "/echo";
        (!is_taken).then(|| Response::text(405, "no").with("Allow", "GET"))
    }

    fn answer(&self, request: &HttpRequest) -> Response {
        let body = [request.head.path.as_bytes(), b"|", &request.body].concat();
        Response::new(200, "text/plain", body)
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
    call.stream.shutdown(Shutdown::Write).unwrap();
    call.rest()
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let text = answer(format!("{}{}{LAST}", get("/1"), get("/2")).as_bytes());
    let bodies: Vec<_> = text.split('/').filter_map(|it| it.split_once('|')).collect();
    assert_eq!(bodies.iter().map(|it| it.0).collect::<Vec<_>>(), ["1", "2", "last"], "{text}");
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(text.matches("Connection: keep-alive").count(), 2);
}

#[test]
fn a_body_is_read_where_it_is_taken_and_not_elsewhere() {
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let text = answer(format!("{}body{LAST}", post("/echo")).as_bytes());
    assert!(text.contains("/echo|body") && text.contains("/last|"), "{text}");
    let text = answer(format!("{}body{LAST}", post("/other")).as_bytes());
    assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("Allow: GET\r\n"), "{text}");
    assert!(!text.contains("/last"), "what follows an unread body is not read: {text}");
}

#[test]
fn a_client_that_asks_before_it_sends_is_told_to_go_on_or_not() {
    let ask = |path: &str| {
        let server = server(Access::Any);
        let call = call(&server);
        let headers = "Host: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
        call.send(format!("POST {path} HTTP/1.1\r\n{headers}\r\n").as_bytes());
        let mut line = String::new();
        BufReader::new(&call.stream).read_line(&mut line).unwrap();
        (call, line)
    };
    let (call, line) = ask("/echo");
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    call.send(format!("body{LAST}").as_bytes());
    assert!(call.rest().contains("/echo|body"));
    assert_eq!(ask("/other").1, "HTTP/1.1 405 Method Not Allowed\r\n");
}

#[test]
fn every_fault_is_answered_counted_and_ends_its_connection() {
    let server = server(Access::Any);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1 << 20));
    let long_target = format!("GET /{}", "x".repeat(1 << 20));
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let long = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n";
    let twice = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nHo".as_bytes(), 400),
        (b"GET \xff\xfe\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n", 400),
        (twice.as_bytes(), 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nshort", 400),
        (chunked.as_bytes(), 411),
        (long.as_bytes(), 413),
        (long_target.as_bytes(), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
        (endless.as_bytes(), 431),
        (b"GETS / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let before = server.counters.metrics().answers[&status.to_string()];
        let call = call(&server);
        call.send(bytes);
        let _ = call.stream.shutdown(Shutdown::Write);
        let text = call.rest();
        let shown = &bytes[..bytes.len().min(60)].escape_ascii().to_string();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {text}");
        assert!(text.contains("Connection: close"), "{shown}: {text}");
        let after = server.counters.metrics().answers[&status.to_string()];
        assert_eq!(after, before + 1, "{shown}");
    }
    let good = call(&server);
    good.send(LAST.as_bytes());
    assert!(good.rest().contains("/last|"), "all that hurt nobody else");
    assert!(server.guests().is_empty(), "and every place is free");
}

/// A server with these time-outs.
fn hasty(request: Duration, idle: Duration) -> Arc<HttpServer> {
    let mut server = HttpServer::new(Arc::new(Echo), Access::Any, Arc::default());
    server.pace = Pace { request, idle, write: request };
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
        if (&call.stream).write_all(&[byte]).is_err() || server.counters.answers[5].get() > 0 {
            break;
        }
        sent += 1;
    }
    assert!(sent < 2_000, "{sent} bytes were waited for");
    let _ = call.stream.shutdown(Shutdown::Write);
    assert!(call.rest().starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let server = hasty(Duration::from_millis(50), PATIENCE);
    let call = call(&server);
    call.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nshort");
    assert!(call.rest().starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = hasty(PATIENCE, Duration::from_millis(50));
    let call = call(&server);
    call.send(get("/1").as_bytes());
    let text = call.rest();
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    assert_eq!(server.counters.metrics().closed_idle, 1);
}

#[test]
fn one_connection_has_a_bound_of_requests() {
    let server = server(Access::Any);
    let call = call(&server);
    let mut answers = BufReader::new(&call.stream);
    for turn in 1..=REQUESTS_MAX {
        call.send(get("/1").as_bytes());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            answers.read_line(&mut line).unwrap();
            if line.starts_with("Connection:") {
                assert_eq!(line.contains("close"), turn == REQUESTS_MAX, "{turn}");
            }
        }
        let mut body = [0; 3];
        answers.read_exact(&mut body).unwrap();
    }
    drop(answers);
    assert_eq!(call.rest(), "");
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
    assert_eq!(server.counters.metrics().refused_busy, 1);
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
        let mut reader = RequestParser::default();
        reader.feed(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        server.bar(&reader.head().unwrap().unwrap(), from).map(|it| it.status)
    };
    for host in ["127.0.0.1", "127.0.0.1:6001", "localhost:6001", "LOCALHOST", "[::1]:6001"] {
        assert_eq!(asked(host, from), None, "{host}");
    }
    for host in ["evil.example", "evil.example:6001", "127.0.0.1.evil.example", "localhost.x"] {
        assert_eq!(asked(host, from), Some(403), "{host}");
    }
    assert_eq!(asked("localhost", "192.0.2.1:1".parse().unwrap()), Some(403));
    assert_eq!(asked("localhost", "[::ffff:127.0.0.1]:1".parse().unwrap()), None);
    assert_eq!(server.counters.metrics().refused_access, 5);
}
