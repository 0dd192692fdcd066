//! The data plane between hostile clients and hostile servers.

use std::sync::Arc;
use std::time::Duration;

use folkmoot::machine::rollout::ServedState;
use folkmoot::proto::rollout::Mirror;
use folkmoot::runtime::dataplane::{DataPlane, DataPlaneLimits};

use super::planes::*;

/// A server that answers every request with the same bytes, and a channel of what it was asked.
fn telling(
    answer: impl Fn(usize) -> Vec<String> + Send + Sync + 'static,
) -> (Server, crossbeam_channel::Receiver<String>) {
    let (tell, told) = crossbeam_channel::bounded(64);
    let server = Server::start(Box::new(move |_, stream| {
        let mut number = 0;
        while let Some(text) = request(stream) {
            let _ = tell.send(text);
            for part in answer(number) {
                say(stream, &part);
                // Each part by itself.
                let _ = crossbeam_channel::after(Duration::from_millis(20)).recv();
            }
            number += 1;
        }
    }));
    (server, told)
}

fn plane_of(server: &Server) -> DataPlane {
    plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0)
}

#[test]
fn a_body_that_looks_like_a_refusal_goes_through() {
    const BODY: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
    let (server, _told) = telling(move |_| vec![head.clone(), BODY.to_owned()]);
    let plane = plane_of(&server);
    let mut client = Client::call(plane.addr());
    for _ in 0..3 {
        assert_eq!(client.get("/").body, BODY.as_bytes());
    }
    // What is none is still refused with a reason.
    client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    let answer = client.hear();
    assert_eq!((answer.status, &answer.json()["error"]), (400, &"malformed".into()));
    assert!(client.is_over());
}

#[test]
fn a_host_that_is_none_is_told_to_no_server() {
    let (server, told) = telling(|_| vec![OK.to_owned()]);
    let plane = plane_of(&server);
    for (target, host) in [
        ("/", "a\";for=6.6.6.6;x=\"b"),
        ("/", "a\\"),
        ("/", "a;proto=https"),
        ("http://user:secret@a/", "a"),
    ] {
        let mut client = Client::call(plane.addr());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.hear().status, 400, "{target} {host}");
    }
    assert!(told.is_empty());
    for host in ["a.example:80", "[::1]:5", "a_b", ""] {
        let mut client = Client::call(plane.addr());
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.hear().status, 200, "{host}");
    }
}

#[test]
fn a_body_that_the_server_refuses_is_not_asked_for() {
    let refusal = "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno";
    let server = Server::start(Box::new(move |_, stream| {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if std::io::BufRead::read_line(stream, &mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        say(stream, refusal);
    }));
    let plane = plane_of(&server);
    for _ in 0..30 {
        let mut client = Client::call(plane.addr());
        let expect =
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        client.send(expect.as_bytes());
        assert_eq!(client.hear().status, 417);
    }
}

#[test]
fn no_server_learns_of_an_upgrade_to_http2_nor_of_marks_that_are_the_nodes_own() {
    let (server, told) = telling(|_| vec![OK.to_owned()]);
    let plane = plane_of(&server);
    for upgrade in ["h2c", "foo, h2c", "websocket,H2C", "a\r\nUpgrade: h2c"] {
        let mut client = Client::call(plane.addr());
        let text = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABk\r\nX-Mirrored: 1\r\nX-Model: v9\r\n\r\n"
        );
        client.send(text.as_bytes());
        assert_eq!(client.hear().status, 200);
        let seen = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
        for word in ["upgrade", "http2-settings", "x-mirrored", "x-model"] {
            assert!(!seen.contains(word), "{upgrade}: {word} in {seen}");
        }
    }
}

#[test]
fn an_answer_with_two_lengths_has_that_of_its_chunks_and_an_unknown_coding_is_none() {
    let answers = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\n\
         hello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    let (server, _told) = telling(move |number| vec![answers[number % 2].to_owned()]);
    let plane = plane_of(&server);
    let mut client = Client::call(plane.addr());
    let answer = client.get("/");
    assert_eq!((answer.status, &*answer.body), (200, &b"hello"[..]), "{answer:?}");
    assert!(!answer.headers.contains_key("content-length"));
    let answer = client.get("/");
    assert_eq!((answer.status, &answer.json()["error"]), (502, &"upstream_garbled".into()));
    let health = plane.health().of(&"v1".parse().unwrap());
    assert_eq!((health.samples, health.errors), (2, 1), "gates see it");
}

#[test]
fn trailers_say_nothing_that_only_a_head_may_say() {
    let (tell, told) = crossbeam_channel::bounded(64);
    let server = Server::start(Box::new(move |_, stream| {
        let mut seen = String::new();
        while !seen.ends_with("0\r\n") {
            std::io::BufRead::read_line(stream, &mut seen).unwrap();
        }
        while !seen.ends_with("\r\n\r\n") {
            std::io::BufRead::read_line(stream, &mut seen).unwrap();
        }
        let _ = tell.send(seen);
        say(stream, OK);
    }));
    let plane = plane_of(&server);
    let mut client = Client::call(plane.addr());
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Trailer: X-Sum, X-Forwarded-For, X_Y, Cookie\r\n\r\n1\r\na\r\n0\r\n\
          X-Sum: 42\r\nX-Forwarded-For: 6.6.6.6\r\nX_Y: 1\r\nCookie: c\r\n\r\n",
    );
    assert_eq!(client.hear().status, 200);
    let seen = told.recv_timeout(PATIENCE).unwrap();
    let (_, trailers) = seen.split_once("\r\n0\r\n").unwrap();
    assert_eq!(trailers.to_lowercase(), "x-sum: 42\r\n\r\n");
}

#[test]
fn requests_that_leave_http_are_not_copied() {
    let (stable, asked) = telling(|_| vec![OK.to_owned()]);
    let (canary, copied) = telling(|_| vec![OK.to_owned()]);
    let servers = [("v1", stable.url()), ("v2", canary.url())];
    let plane = plane_with(DataPlaneLimits::default(), &servers, 0);
    let serving = ServedState::clone(&serving(1, 0, None));
    let mirror = Some(Mirror { share: 10_000, is_unsafe: false });
    plane.set(Arc::new(ServedState { mirror, ..serving }));
    let mut client = Client::call(plane.addr());
    client.send(
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.hear().status, 200);
    assert_eq!(client.get("/copied").status, 200);
    assert_eq!(asked.iter().take(2).count(), 2);
    let copy = copied.recv_timeout(PATIENCE).unwrap();
    assert!(copy.starts_with("GET /copied "), "{copy}");
}

#[test]
fn requests_right_after_the_start_wait_for_the_state() {
    let (server, _told) = telling(|_| vec![OK.to_owned()]);
    let servers = [("v1", server.url())];
    let plane = DataPlane::start(options(DataPlaneLimits::default(), &servers)).unwrap();
    let mut client = Client::call(plane.addr());
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // It must have been asked before the state comes.
    while plane.counters().requests.get() == 0 {
        std::thread::yield_now();
    }
    plane.set(serving(1, 0, None));
    assert_eq!(client.hear().status, 200);
}
