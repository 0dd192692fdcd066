//! The data plane at real sockets: who answers, what is counted, and what clients and upstreams
//! that do not behave can do to it (T9, T11).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use folkmoot::machine::rollout::{ServedState, WindowVerdict};
use folkmoot::proto::rollout::{Plan, Sticky};
use folkmoot::runtime::dataplane::{DataPlane, DataPlaneLimits, model};
use proptest::prelude::*;

use super::planes::*;

#[test]
fn ten_thousand_requests_at_five_percent_give_five_hundred_canaries() {
    let plane = plane(500);
    let canaries: usize = (0..4)
        .map(|_| {
            let addr = plane.addr();
            spawn(move || {
                let mut client = Client::call(addr);
                let ask = |_: &usize| client.predict("", "{}").header("x-model") == "v2";
                (0..2_500).filter(ask).count()
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|it| it.join().unwrap())
        .sum();
    assert!((435..=565).contains(&canaries), "{canaries}");
    let health = plane.health();
    let samples = |model: &str| health.of(&model.parse().unwrap()).samples;
    assert_eq!((samples("v1"), samples("v2")), (10_000 - canaries as u64, canaries as u64));
}

#[test]
fn the_built_in_model_says_who_it_is_and_what_was_asked() {
    let plane = plane(10_000);
    let mut client = Client::call(plane.addr());
    let state = client.get("/routing/state").json();
    assert_eq!(state["weights"]["v2"], 1.0);
    assert_eq!(client.get("/routing").json(), state);
    for (body, input) in [(" {\"x\": [1]}\n", "{\"x\": [1]}"), ("3", "3"), ("", "{}"), ("{", "{}")]
    {
        let answer = client.predict("", body);
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert!(text.ends_with(&format!("\"input\":{input}}}")), "{text}");
        assert_eq!(answer.json()["model_selected"], "v2");
        assert_eq!(answer.json()["routing_state"], state);
        let names = ["model", "routing-version", "routing-txid", "routing-node", "routing-bucket"];
        let values = names.map(|name| answer.header(&format!("x-{name}")).to_owned());
        assert_eq!(values, ["v2", "1", "initial", "node-a", "random"]);
    }
    client.send(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\xff\xfe");
    assert_eq!(client.hear().json()["input"], serde_json::json!({}));
}

#[test]
fn keys_move_to_the_canary_as_its_share_rises_and_none_moves_back() {
    let plane = plane(0);
    let mut client = Client::call(plane.addr());
    let mut before = BTreeSet::new();
    for (version, share) in [(2, 500), (3, 2_000), (4, 5_000), (5, 10_000)] {
        let sticky = (version % 2 == 0).then(|| Sticky::Json("user".to_owned()));
        let by_field = sticky.is_some();
        plane.set(serving(version, share, sticky));
        let mut now = BTreeSet::new();
        for user in 0..300 {
            let (header, body) = match by_field {
                true => (String::new(), format!("{{\"user\":\"{user}\"}}")),
                false => (format!("X-Routing-Key: {user}\r\n"), String::new()),
            };
            let answer = client.predict(&header, &body);
            assert_eq!(answer.header("x-routing-version"), version.to_string());
            let bucket: u32 = answer.header("x-routing-bucket").parse().unwrap();
            assert_eq!(answer.header("x-model") == "v2", bucket < share);
            if bucket < share {
                now.insert(user);
            }
        }
        assert!(now.is_superset(&before), "{share}");
        before = now;
    }
    assert_eq!(before.len(), 300);
    plane.set(serving(6, 0, Some(Sticky::Header("X-User".to_owned()))));
    let bucket = |it: Answer| it.header("x-routing-bucket").to_owned();
    let named = bucket(client.predict("X-User: alice\r\n", ""));
    assert_eq!(bucket(client.predict("X-Routing-Key: alice\r\n", "")), named);
    assert_ne!(bucket(client.predict("X-User: bob\r\nX-Routing-Key: alice\r\n", "")), named);
    assert_eq!(bucket(client.predict("", "")), "random");
    for (wish, model) in [("always", "v2"), ("never", "v1")] {
        let answer = client.predict(&format!("X-Canary: {wish}\r\n"), "");
        assert_eq!((answer.header("x-model"), answer.header("x-routing-bucket")), (model, wish));
    }
    assert_eq!(client.predict("X-Canary: perhaps\r\n", "").status, 400);
}

#[test]
fn a_switch_of_weights_under_load_drops_no_request_and_mixes_no_two_states() {
    let upstream = saying(OK);
    let url = upstream.url();
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", url.clone()), ("v2", url)], 0);
    let is_over = Arc::new(AtomicBool::new(false));
    // The versions that are served for certain, and that may be.
    let (surely, perhaps) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let (addr, is_over) = (plane.addr(), is_over.clone());
            let (surely, perhaps) = (surely.clone(), perhaps.clone());
            spawn(move || {
                let (mut client, mut count) = (Client::call(addr), 0_u64);
                while !is_over.load(Ordering::SeqCst) {
                    let from = surely.load(Ordering::SeqCst);
                    let answer = client.predict("", "{}");
                    let to = perhaps.load(Ordering::SeqCst);
                    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
                    let version: u64 = answer.header("x-routing-version").parse().unwrap();
                    assert!((from..=to).contains(&version), "{version} is not in {from}..={to}");
                    // Odd versions have all requests go to v1, even ones to v2.
                    let wanted = if version % 2 == 1 { "v1" } else { "v2" };
                    assert_eq!(answer.header("x-model"), wanted, "{version}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut client = Client::call(plane.addr());
    for version in 2..=1_001_u64 {
        perhaps.store(version, Ordering::SeqCst);
        plane.set(serving(version, if version % 2 == 0 { 10_000 } else { 0 }, None));
        surely.store(version, Ordering::SeqCst);
        let answer = client.predict("", "{}");
        assert_eq!(answer.header("x-routing-version"), version.to_string(), "at once");
    }
    is_over.store(true, Ordering::SeqCst);
    let count: u64 = askers.into_iter().map(|it| it.join().expect("no request was dropped")).sum();
    assert!(count >= 1_000, "{count}");
    assert_eq!(plane.counters().requests.get(), count + 1_000);
    assert_eq!(plane.health().error_rate(), 0.0);
}

#[test]
fn a_request_in_flight_ends_where_it_began() {
    let (begun, wait_begun) = crossbeam_channel::bounded(1);
    let (release, gate) = crossbeam_channel::bounded::<()>(1);
    let slow = Server::start(Box::new(move |_, stream| {
        while request(stream).is_some() {
            let _ = begun.send(());
            let _ = gate.recv();
            say(stream, OK);
        }
    }));
    let quick = saying(OK);
    let plane =
        plane_with(DataPlaneLimits::default(), &[("v1", slow.url()), ("v2", quick.url())], 0);
    let mut first = Client::call(plane.addr());
    first.send(post("", "{}").as_bytes());
    wait_begun.recv_timeout(PATIENCE).unwrap();
    plane.set(serving(2, 10_000, None));
    let second = Client::call(plane.addr()).predict("", "{}");
    assert_eq!((second.header("x-model"), second.header("x-routing-version")), ("v2", "2"));
    release.send(()).unwrap();
    let answer = first.hear();
    assert_eq!((answer.header("x-model"), answer.header("x-routing-version")), ("v1", "1"));
}

#[test]
fn what_the_upstream_answers_is_passed_on_with_its_status_and_type() {
    let upstream = Server::start(Box::new(|_, stream| {
        while let Some(text) = request(stream) {
            assert!(text.starts_with("POST /ask?q=1 HTTP/1.1\r\n"), "{text}");
            assert!(text.contains("\r\nHost: a\r\n"), "{text}");
            assert!(text.contains("\r\nContent-Type: text/x\r\n"), "{text}");
            let body = text.split_once("\r\n\r\n").unwrap().1;
            let answer = "HTTP/1.1 418 Tea\r\nContent-Type: text/y\r\nX-Model: mine\r\n\
                          X-More: z\r\nTransfer-Encoding: chunked\r\n\r\n";
            // An interim answer, and a body in two pieces.
            say(stream, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            say(stream, &format!("{answer}2\r\nso\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        }
    }));
    let url = format!("{}/ask", upstream.url());
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", url)], 0);
    let mut client = Client::call(plane.addr());
    client.send(
        b"POST /predict?q=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Content-Type: text/x\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.hear_head().status, 100);
    client.send(b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n");
    let answer = client.hear();
    assert_eq!((answer.status, answer.body.as_slice()), (418, &b"soabcde"[..]));
    assert_eq!(answer.header("content-type"), "text/y");
    assert_eq!((answer.header("x-model"), answer.header("x-more")), ("v1", "z"));
    for number in 0..5 {
        let text = format!("{number}");
        let length = "POST /predict?q=1 HTTP/1.1\r\nHost: a\r\nContent-Type: text/x\r\n";
        client.send(format!("{length}Content-Length: 1\r\n\r\n{text}").as_bytes());
        assert_eq!(client.hear().body, format!("so{text}").as_bytes());
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1, "the connection is kept");
    let health = plane.health().of(&"v1".parse().unwrap());
    assert_eq!((health.samples, health.errors), (6, 0), "4xx is the client's");
}

#[test]
fn an_upstream_that_fails_is_a_502_or_a_504_and_an_error_of_its_version() {
    let closing = |text: &'static str| {
        Server::start(Box::new(move |_, stream| {
            request(stream);
            say(stream, text);
            let _ = stream.get_ref().shutdown(Shutdown::Write);
        }))
    };
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    // Never accepted, and still connected by the system: it hangs.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}", hangs.local_addr().unwrap());
    let half = closing("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf");
    let half_chunk = closing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha");
    let half_head = closing("HTTP/1.1 200 OK\r\nConte");
    let mute = closing("");
    let garbled = closing("220 smtp.example ESMTP\r\n\r\n");
    let twice = closing("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
    let stalls = Server::start(Box::new(|_, stream| {
        request(stream);
        say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf");
        request(stream);
    }));
    let fails = closing("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno");
    // No part of a name is that long, so nobody is asked for it.
    let nowhere = format!("http://{}.example:1", "x".repeat(64));
    for (url, status, code) in [
        (refused, 502, "upstream_unreachable"),
        (nowhere, 502, "upstream_unreachable"),
        (hanging, 504, "upstream_timeout"),
        (half_head.url(), 502, "upstream_broken"),
        (mute.url(), 502, "upstream_broken"),
        (garbled.url(), 502, "upstream_garbled"),
        (twice.url(), 502, "upstream_garbled"),
        (fails.url(), 503, ""),
    ] {
        let plane = plane_with(hasty(), &[("v1", url.clone())], 0);
        let mut client = Client::call(plane.addr());
        let answer = client.predict("", "{}");
        assert_eq!(answer.status, status, "{url} {code}: {answer:?}");
        assert_eq!(answer.header("x-model"), "v1");
        if !code.is_empty() {
            assert_eq!(answer.json()["error"], code);
            assert!(answer.json()["reason"].as_str().unwrap().contains("v1"));
        }
        let health = plane.health().of(&"v1".parse().unwrap());
        assert_eq!((health.samples, health.errors), (1, 1), "{code}");
        assert!([200, 503].contains(&client.get("/health").status), "the connection goes on");
    }
    // The head has gone on already when an answer breaks off: so does the client's.
    for url in [stalls.url(), half.url(), half_chunk.url()] {
        let plane = plane_with(hasty(), &[("v1", url)], 0);
        let mut client = Client::call(plane.addr());
        client.send(post("", "{}").as_bytes());
        assert_eq!(client.hear_head().status, 200);
        let mut rest = Vec::new();
        let _ = client.0.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it does not look whole");
        let health = plane.health().of(&"v1".parse().unwrap());
        assert_eq!((health.samples, health.errors), (1, 1));
    }
    let plane = plane_with(hasty(), &[("v2", "http://127.0.0.1:1".to_owned())], 0);
    let answer = Client::call(plane.addr()).predict("", "{}");
    assert_eq!((answer.status, &answer.json()["error"]), (502, &"no_upstream".into()));
}

#[test]
fn a_connection_that_the_upstream_ended_while_it_was_idle_costs_nobody_an_answer() {
    let (closed, wait_closed) = crossbeam_channel::bounded(8);
    let upstream = Server::start(Box::new(move |_, stream| {
        request(stream);
        say(stream, OK);
        // It had promised to go on.
        let _ = stream.get_ref().shutdown(Shutdown::Both);
        let _ = closed.send(());
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", upstream.url())], 0);
    let mut client = Client::call(plane.addr());
    for turn in 1..=5 {
        assert_eq!(client.predict("", "{}").status, 200, "{turn}");
        wait_closed.recv_timeout(PATIENCE).unwrap();
        assert_eq!(upstream.connections.load(Ordering::SeqCst), turn);
    }
    assert_eq!(plane.health().error_rate(), 0.0);
}

#[test]
fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let upstream = Server::start(Box::new(move |_, stream| {
        // Answers once, then takes a request and ends without a word.
        for text in [OK, ""] {
            if request(stream).is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                say(stream, text);
            }
        }
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", upstream.url())], 0);
    let mut client = Client::call(plane.addr());
    assert_eq!(client.predict("", "{}").status, 200);
    assert_eq!(client.predict("", "{}").status, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    assert_eq!(client.predict("", "{}").status, 200);
}

#[test]
fn every_kind_of_answer_is_taken_for_what_it_is() {
    let closing = |text: String| {
        Server::start(Box::new(move |_, stream| {
            request(stream);
            say(stream, &text);
            let _ = stream.get_ref().shutdown(Shutdown::Write);
        }))
    };
    let headers = "X: y\r\n".repeat(199);
    for (text, status, body) in [
        ("HTTP/1.1 200 OK\r\n\r\nto the end".to_owned(), 200, "to the end"),
        ("HTTP/1.0 200 OK\r\n\r\nto the end".to_owned(), 200, "to the end"),
        ("HTTP/1.1 204 No\r\n\r\n".to_owned(), 204, ""),
        ("HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n".to_owned(), 304, ""),
        ("HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n".to_owned(), 201, ""),
        (format!("{}{OK}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(5)), 200, "ok"),
        (format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 1\r\n\r\na"), 200, "a"),
        (format!("HTTP/1.1 200 OK\r\nX: y\r\n{headers}Content-Length: 1\r\n\r\na"), 502, ""),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(600_000)), 502, ""),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n".to_owned(), 502, ""),
        ("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n".to_owned(), 502, ""),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n".to_owned(), 502, ""),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n".to_owned(), 502, ""),
        ("HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na".to_owned(), 502, ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\na".to_owned(), 502, ""),
        (OK.replace("OK\r\n", "OK\r\nTransfer-Encoding: chunked\r\n"), 502, ""),
    ] {
        let upstream = closing(text.clone());
        let plane = plane_with(hasty(), &[("v1", upstream.url())], 0);
        let mut client = Client::call(plane.addr());
        let answer = client.predict("", "{}");
        let shown = &text[..text.len().min(80)];
        assert_eq!(answer.status, status, "{shown} {answer:?}");
        if status != 502 {
            assert_eq!(answer.body, body.as_bytes(), "{shown}");
        }
        if answer.headers.contains_key("content-length") {
            assert_eq!(client.get("/routing").status, 200, "the connection goes on: {shown}");
        }
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_given_to_nobody() {
    // The second one is behind the first, or comes later over the connection that is kept.
    for behind in [true, false] {
        let (sent, wait_sent) = crossbeam_channel::bounded(8);
        let upstream = Server::start(Box::new(move |_, stream| {
            while request(stream).is_some() {
                let evil = OK.replace("ok", "no");
                if behind {
                    say(stream, &format!("{OK}{evil}"));
                } else {
                    say(stream, OK);
                    say(stream, &evil);
                }
                let _ = sent.send(());
            }
        }));
        let plane = plane_with(DataPlaneLimits::default(), &[("v1", upstream.url())], 0);
        let mut client = Client::call(plane.addr());
        for turn in 1..=5 {
            assert_eq!(client.predict("", "{}").body, b"ok", "{turn}");
            wait_sent.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(upstream.connections.load(Ordering::SeqCst), 5);
    }
}

#[test]
fn an_upstream_sees_one_plain_request_whatever_the_client_made_of_it() {
    let (seen, wait_seen) = crossbeam_channel::bounded(8);
    let upstream = Server::start(Box::new(move |_, stream| {
        while let Some(text) = request(stream) {
            let _ = seen.send(text);
            say(stream, OK);
        }
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", upstream.url())], 0);
    let mut client = Client::call(plane.addr());
    let inner = "POST /admin HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n";
    let size = inner.len();
    for text in [
        format!("POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{inner}"),
        format!(
            "POST http://evil/predict HTTP/1.1\r\nHost: evil\r\nContent-Length: {size}\r\n\
                 Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\n\
                 Upgrade: h2c\r\nProxy-Authorization: x\r\nKeep-Alive: 5\r\n\r\n{inner}"
        ),
        format!(
            "POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {size:x};a=b\r\n{inner}\r\n0\r\nContent-Length: 9\r\nHost: c\r\n\r\n"
        ),
    ] {
        client.send(text.as_bytes());
        assert_eq!(client.hear().status, 200, "{text}");
        let seen = wait_seen.recv_timeout(PATIENCE).unwrap();
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!((head.lines().next(), body), (Some("POST /predict HTTP/1.1"), inner));
        let mut names: Vec<_> =
            head.lines().skip(1).map(|it| it.split(':').next().unwrap()).collect();
        names.retain(|it| !["Forwarded", "Via", "Te"].contains(it) && !it.starts_with("X-Forw"));
        names.sort_unstable();
        let framing = if head.contains("chunked") { "Transfer-Encoding" } else { "Content-Length" };
        let mut wanted = ["Host", framing];
        wanted.sort_unstable();
        assert_eq!(names, wanted, "{head}");
    }
    assert!(wait_seen.is_empty() && upstream.connections.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_upstream_that_does_not_read_is_given_up() {
    let (release, gate) = crossbeam_channel::bounded::<()>(0);
    let upstream = Server::start(Box::new(move |_, _| {
        let _ = gate.recv();
    }));
    let limits = DataPlaneLimits { first_byte: Duration::from_millis(200), ..hasty() };
    let plane = plane_with(limits, &[("v1", upstream.url())], 0);
    let mut client = Client::call(plane.addr());
    // The answer comes before all is sent, and nobody takes the rest.
    let _ = client.0.get_mut().write_all(post("", &"x".repeat(1 << 24)).as_bytes());
    let answer = client.hear();
    assert_eq!((answer.status, &answer.json()["error"]), (504, &"upstream_timeout".into()));
    drop(release);
}

#[test]
fn who_connects_and_asks_nothing_is_given_less_time_than_a_pause_has() {
    let plane = plane_with(DataPlaneLimits { idle: 2 * PATIENCE, ..hasty() }, &[], 0);
    let mut mute = Client::call(plane.addr());
    let mut asks = Client::call(plane.addr());
    assert_eq!(asks.predict("", "{}").status, 200);
    assert!(mute.is_over());
    assert_eq!(asks.predict("", "{}").status, 200, "this is only a pause");
    assert_eq!(plane.counters().clients.closed_idle.get(), 1);
}

fn model(name: &str, delay: Duration, failing: u32) -> model::Model {
    let listen = "127.0.0.1:0".parse().unwrap();
    model::Model::start(model::ModelOptions { listen, name: name.parse().unwrap(), delay, failing })
        .unwrap()
}

#[test]
fn the_small_model_answers_as_late_and_as_badly_as_it_is_told() {
    let delay = Duration::from_millis(20);
    let (good, bad) = (model("v1", Duration::ZERO, 0), model("v2", delay, 2_000));
    let urls = [&good, &bad].map(|it| format!("http://{}", it.addr()));
    let [url1, url2] = urls;
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", url1), ("v2", url2)], 0);
    let mut client = Client::call(plane.addr());
    let answer = client.predict("", "{\"x\":[1]}");
    assert_eq!(answer.json(), serde_json::json!({ "model": "v1", "input": { "x": [1] } }));
    let statuses: Vec<_> =
        (0..20).map(|_| client.predict("X-Canary: always\r\n", "no JSON").status).collect();
    assert_eq!(statuses.iter().filter(|it| **it == 500).count(), 4, "{statuses:?}");
    assert!(statuses.iter().all(|it| [200, 500].contains(it)));
    let health = plane.health();
    let (v1, v2) = (health.of(&"v1".parse().unwrap()), health.of(&"v2".parse().unwrap()));
    assert_eq!((v1.samples, v1.errors, v2.samples, v2.errors), (1, 0, 20, 4));
    assert!(u128::from(v2.p95_us) >= delay.as_micros(), "{v2:?}");
    assert_eq!((good.asked(), bad.asked()), (1, 20));
    // By itself: any path, no other method, bad requests, many on one connection.
    let mut own = Client::call(good.addr());
    own.send(b"POST /any/where HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{");
    assert_eq!(own.hear().json()["input"], serde_json::json!({}));
    let answer = own.get("/");
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    own.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(own.hear_head().status, 405);
    own.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n");
    assert_eq!(own.hear().status, 413);
}

#[test]
fn a_small_model_ends_at_once_although_it_is_slow() {
    let slow = model("v1", 10 * PATIENCE, 0);
    let mut client = Client::call(slow.addr());
    client.send(post("", "{}").as_bytes());
    while slow.asked() == 0 {
        std::thread::yield_now();
    }
    slow.stop();
    assert!(client.try_hear(true).is_err(), "it ends without an answer");
    assert!(TcpStream::connect(slow.addr()).is_err(), "the port is closed");
}

#[test]
fn a_version_that_is_to_get_requests_is_asked_once_before() {
    let fine = saying(OK);
    let missing = saying("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    let bad = saying("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstreams = [
        ("v1", fine.url()),
        ("v2", missing.url()),
        ("v3", bad.url()),
        ("v4", format!("http://{gone}")),
    ];
    let plane = plane_with(DataPlaneLimits::default(), &upstreams, 0);
    let probe = |model: &str| plane.probe(&model.parse().unwrap());
    assert_eq!((probe("v1"), probe("v2")), (Ok(()), Ok(())));
    assert_eq!(probe("v3"), Err("it answers with 503".to_owned()));
    assert!(probe("v4").unwrap_err().contains("refused"));
    assert_eq!(plane.health().of(&"v1".parse().unwrap()).samples, 0, "nobody's request");
}

#[test]
fn while_a_version_warms_up_its_errors_count_and_its_latencies_do_not() {
    let missing = saying("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    let plane =
        plane_with(DataPlaneLimits::default(), &[("v1", missing.url()), ("v2", missing.url())], 0);
    let warms = ServedState { salt: 8, warm_up: PATIENCE, ..(*serving(2, 5_000, None)).clone() };
    plane.set(Arc::new(warms));
    let mut client = Client::call(plane.addr());
    for wish in ["always", "never"] {
        assert_eq!(client.predict(&format!("X-Canary: {wish}\r\n"), "{}").status, 404);
    }
    let health = plane.health();
    let of = |model: &str| health.of(&model.parse().unwrap());
    let (stable, canary) = (of("v1"), of("v2"));
    assert_eq!((canary.samples, canary.refused, canary.cold, canary.p95_us), (1, 1, 1, 0));
    assert_eq!((stable.samples, stable.refused, stable.cold), (1, 1, 0));
}

#[test]
fn with_the_brake_on_everything_goes_to_the_stable_version_and_the_state_stays() {
    let plane = plane(10_000);
    let brake = Some("an abort was ordered".to_owned());
    plane.set(Arc::new(ServedState { brake, ..(*serving(2, 10_000, None)).clone() }));
    let mut client = Client::call(plane.addr());
    for _ in 0..20 {
        assert_eq!(client.predict("", "{}").header("x-model"), "v1");
    }
    assert_eq!(client.predict("X-Canary: always\r\n", "{}").header("x-model"), "v2");
    let state = client.get("/routing").json();
    assert_eq!(
        (&state["brake"], &state["weights"]["v2"]),
        (&"an abort was ordered".into(), &1.0.into())
    );
    assert_eq!(client.get("/health").json()["brake"], "an abort was ordered");
    plane.set(serving(3, 0, None));
    assert!(client.get("/routing").json().get("brake").is_none());
}

#[test]
fn gates_judge_what_the_models_really_did_in_this_rollout() {
    let good = saying(OK);
    let bad = saying("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let slow = Server::start(Box::new(|_, stream| {
        let pause = crossbeam_channel::tick(Duration::from_millis(30));
        while request(stream).is_some() {
            let _ = pause.recv();
            let _ = pause.recv();
            say(stream, OK);
        }
    }));
    let plan = |gates: &[&str]| Plan {
        from: "v1".parse().unwrap(),
        to: "v2".parse().unwrap(),
        steps: vec![500, 10_000],
        interval_ms: 0,
        gates: gates.iter().map(|gate| gate.parse().unwrap()).collect(),
        sticky: None,
        salt: 7,
        samples_min: 10,
        window_ms: 600_000,
        owner: "node-a".parse().unwrap(),
        warm_up_ms: 0,
        failures: 0,
        deadline_ms: 0,
        routes: Vec::new(),
        mirror: None,
        servers: Default::default(),
    };
    // On a busy machine a good server is slow too.
    let all = ["error=1%", "p95=20s"];
    for (canary, gates, verdict) in [
        (&good, &all[..], WindowVerdict::Good),
        (&bad, &all[1..], WindowVerdict::Good),
        (&bad, &all[..1], WindowVerdict::Bad),
        (&slow, &all[..1], WindowVerdict::Good),
        (&slow, &["p95=20ms"][..], WindowVerdict::Bad),
    ] {
        let upstreams = [("v1", good.url()), ("v2", canary.url())];
        let plane = plane_with(DataPlaneLimits::default(), &upstreams, 10_000);
        let mut client = Client::call(plane.addr());
        for _ in 0..9 {
            client.predict("", "{}");
            let verdict = plan(gates).judge(&plane.health(), 10_000).0;
            assert!(matches!(verdict, WindowVerdict::TooFew | WindowVerdict::Doubtful));
        }
        client.predict("", "{}");
        let health = plane.health();
        assert_eq!(plan(gates).judge(&health, 10_000).0, verdict, "{gates:?} {health:?}");
        // Another step of the same rollout goes on with the window, another rollout does not.
        plane.set(serving(2, 10_000, None));
        assert_eq!(plane.health().of(&"v2".parse().unwrap()).samples, 10);
        plane.set(Arc::new(ServedState { salt: 8, ..(*serving(3, 10_000, None)).clone() }));
        assert_eq!(plane.health().of(&"v2".parse().unwrap()).samples, 0);
    }
}

#[test]
fn paths_and_methods_have_their_statuses() {
    let plane = plane(500);
    let mut client = Client::call(plane.addr());
    for path in ["/", "/predict/", "/routing/states", "/healthz", "/PREDICT"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
    for path in ["/routing", "/routing/state", "/health", "/health/snapshot", "/metrics"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        client.send(format!("HEAD {path}?x HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.hear_head();
        assert_eq!(head.header("content-type"), answer.header("content-type"));
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let bytes = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            client.send(bytes.as_bytes());
            let answer = client.hear();
            assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
        }
    }
    let answer = client.get("/predict");
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    client.send(b"HEAD /predict HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.hear_head().status, 405);
    // What is not wanted is not read.
    client.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n");
    assert_eq!(client.hear().status, 404);
    assert!(client.is_over());
}

#[test]
fn before_the_first_state_a_node_says_that_it_has_none() {
    let plane = DataPlane::start(options(DataPlaneLimits::default(), &[])).unwrap();
    let mut client = Client::call(plane.addr());
    assert_eq!(client.predict("", "{}").status, 503);
    assert_eq!(client.get("/routing").status, 503);
    assert_eq!(client.get("/health").json()["status"], "starting");
    plane.set(serving(1, 0, None));
    assert_eq!(client.predict("", "{}").status, 200);
    let health = client.get("/health/snapshot").json();
    assert_eq!(
        (&health["status"], &health["last_committed_version"]),
        (&"serving".into(), &1.into())
    );
    assert_eq!(health["digest"].as_str().unwrap().len(), 64);
    assert_eq!(health["node_id"], "node-a");
    assert!(health["window_id"].as_str().unwrap().starts_with("window-"));
    assert_eq!(health["models"]["v1"]["samples"], 1);
}

#[test]
fn bad_requests_have_their_statuses_and_harm_nobody() {
    let plane = plane_with(DataPlaneLimits { body_bytes: 1_000, ..hasty() }, &[], 500);
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70_000));
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    let chunked = |rest: &str| {
        format!("POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{rest}")
    };
    for (text, status) in [
        (b"\x16\x03\x01\x02\x00\x01\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n".to_vec(), 400),
        (post("Content-Length: 4\r\n", "abc").into_bytes(), 400),
        (post("Transfer-Encoding: chunked\r\n", "").into_bytes(), 400),
        (chunked("zz\r\n").into_bytes(), 400),
        (chunked("1\r\nab\r\n").into_bytes(), 400),
        (chunked(&format!("3e9\r\n{}", "x".repeat(1_001))).into_bytes(), 413),
        (chunked("100\r\n").into_bytes(), 408),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n".to_vec(), 413),
        (post("", "").replace(": 0", ": 99999999999999999999999").into_bytes(), 400),
        (long_target.into_bytes(), 414),
        (post("Expect: wonders\r\n", "x").into_bytes(), 417),
        (long_head.into_bytes(), 431),
        (many.into_bytes(), 431),
        (post("Transfer-Encoding: gzip\r\n", "").replace("Content-Length: 0\r\n", "").into(), 501),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_vec(), 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), 505),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nshort".to_vec(), 408),
        (b"GET /health HT".to_vec(), 408),
    ] {
        let mut client = Client::call(plane.addr());
        let shown = text[..text.len().min(60)].escape_ascii().to_string();
        client.send(&text);
        let answer = client.hear();
        assert_eq!(answer.status, status, "{shown}");
        assert!(!answer.json()["reason"].as_str().unwrap().is_empty(), "{shown}");
        let _ = client.0.get_ref().shutdown(Shutdown::Write);
        assert!(client.is_over(), "{shown}");
    }
    let body = format!("[{}]", "1,".repeat(499) + "1");
    assert_eq!(body.len(), 1_001);
    assert_eq!(Client::call(plane.addr()).predict("", &body[1..]).status, 200, "the limit itself");
}

#[test]
fn requests_that_come_at_once_are_answered_in_order_and_cut_ones_as_well() {
    let plane = plane(0);
    let chunked = "POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\n\"b\r\n1\r\n\"\r\n0\r\nTrailer: x\r\n\r\n";
    let text = format!(
        "{}{chunked}\r\n{}GET /routing HTTP/1.1\r\nHost: a\r\n\r\n{}",
        post("", "\"a\""),
        "HEAD /routing HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /predict HTTP/1.0\r\nContent-Length: 3\r\n\r\n\"d\"",
    );
    for step in [1, 7, 64, text.len()] {
        let mut client = Client::call(plane.addr());
        for piece in text.as_bytes().chunks(step) {
            client.send(piece);
        }
        assert_eq!(client.hear().json()["input"], "a", "{step}");
        assert_eq!(client.hear().json()["input"], "b", "{step}");
        assert_eq!(client.hear_head().status, 200);
        assert_eq!(client.hear().json()["version"], 1, "{step}");
        assert_eq!(client.hear().json()["input"], "d");
        assert!(client.is_over());
    }
    let mut old = Client::call(plane.addr());
    for _ in 0..2 {
        old.send(b"GET /routing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(old.hear().header("connection"), "keep-alive");
    }
}

#[test]
fn slow_and_idle_clients_are_given_up_and_hold_nobody_up() {
    let limits = DataPlaneLimits { idle: Duration::from_millis(300), ..hasty() };
    let plane = plane_with(limits, &[], 0);
    let addr = plane.addr();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            spawn(move || {
                let mut client = Client::call(addr);
                let pause = crossbeam_channel::tick(Duration::from_millis(10));
                // Without a deadline for the whole this would go on until the head is too long.
                let mut sent = 0;
                for byte in format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8_000)).bytes() {
                    let _ = pause.recv();
                    client.0.get_ref().set_nonblocking(true).unwrap();
                    let is_answered = client.0.fill_buf().is_ok();
                    client.0.get_ref().set_nonblocking(false).unwrap();
                    if is_answered || client.0.get_mut().write_all(&[byte]).is_err() {
                        break;
                    }
                    sent += 1;
                }
                (sent, client.try_hear(true).map(|it| it.status))
            })
        })
        .collect();
    let mut good = Client::call(addr);
    for _ in 0..200 {
        assert_eq!(good.predict("", "{}").status, 200);
    }
    for it in slow {
        let (sent, status) = it.join().unwrap();
        assert!(sent < 4_000, "{sent} bytes were waited for");
        assert_eq!(status.unwrap(), 408);
    }
    assert!(good.is_over(), "idle for too long");
    assert!(plane.counters().clients.closed_idle.get() >= 1);
}

#[test]
fn a_body_that_trickles_is_given_up_long_before_one_that_comes_at_a_fair_pace() {
    let (body_grace, body_pace) = (Duration::from_millis(200), 16 * 1024);
    let limits = DataPlaneLimits { body_grace, body_pace, ..DataPlaneLimits::default() };
    let plane = plane_with(limits, &[], 0);
    let pause = crossbeam_channel::tick(Duration::from_millis(10));
    let chunked = "POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = post("", &"1".repeat(500_000));
    for (opening, part) in [(&whole[..whole.len() - 500_000], "1"), (chunked, "1\r\n1\r\n")] {
        let mut client = Client::call(plane.addr());
        client.0.get_mut().write_all(opening.as_bytes()).unwrap();
        let mut sent = 0;
        while client.0.get_mut().write_all(part.as_bytes()).is_ok() && sent < 1_000 {
            client.0.get_ref().set_nonblocking(true).unwrap();
            let is_answered = client.0.fill_buf().is_ok();
            client.0.get_ref().set_nonblocking(false).unwrap();
            if is_answered {
                break;
            }
            sent += 1;
            let _ = pause.recv();
        }
        assert!(sent < 500, "{sent} bytes were waited for");
        assert_eq!(client.try_hear(true).map(|it| it.status).unwrap(), 408);
    }
    let mut fair = Client::call(plane.addr());
    let (most, rest) = whole.split_at(whole.len() - 100_000);
    fair.0.get_mut().write_all(most.as_bytes()).unwrap();
    let _ = crossbeam_channel::after(Duration::from_secs(1)).recv();
    fair.0.get_mut().write_all(rest.as_bytes()).unwrap();
    assert_eq!(fair.hear().status, 200);
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let limits =
        DataPlaneLimits { write: Duration::from_millis(100), ..DataPlaneLimits::default() };
    let plane = plane_with(limits, &[], 0);
    let mut client = Client::call(plane.addr());
    let body = format!("\"{}\"", "x".repeat(900_000));
    let request = post("", &body);
    client.0.get_ref().set_write_timeout(Some(PATIENCE)).unwrap();
    // Answers fill what the system holds for a connection, then nothing more is read.
    let failed = (0..100).find(|_| client.0.get_mut().write_all(request.as_bytes()).is_err());
    assert!(failed.is_some(), "the connection was ended");
    assert_eq!(plane.counters().clients.write_failed.get(), 1);
}

#[test]
fn connections_are_limited_and_one_address_does_not_get_all() {
    let limits =
        DataPlaneLimits { connections: 8, connections_of_one: 3, ..DataPlaneLimits::default() };
    let plane = plane_with(limits, &[], 0);
    let mut held: Vec<_> = (0..3).map(|_| Client::call(plane.addr())).collect();
    for client in &mut held {
        assert_eq!(client.predict("", "{}").status, 200);
    }
    let answer = Client::call(plane.addr()).hear();
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(plane.counters().refused_busy.get(), 1);
    let gone = held.pop().unwrap();
    gone.0.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut gone = gone;
    assert!(gone.is_over());
    // The place is free a moment after the connection has ended.
    let is_served = |_: &i32| {
        let mut client = Client::call(plane.addr());
        let _ = client.0.get_mut().write_all(post("", "{}").as_bytes());
        client.try_hear(true).is_ok_and(|it| it.status == 200)
    };
    assert!((0..1_000).any(|turn| is_served(&turn)));
}

#[test]
fn an_end_leaves_no_thread_and_no_socket() {
    let upstream = saying(OK);
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", upstream.url())], 0);
    let addr = plane.addr();
    let mut idle = Client::call(addr);
    assert_eq!(idle.predict("", "{}").status, 200);
    let mut half = Client::call(addr);
    half.send(b"POST /predict HTTP/1.1\r\n");
    plane.stop();
    assert!(idle.is_over());
    let mut rest = Vec::new();
    let _ = half.0.read_to_end(&mut rest);
    assert!(TcpStream::connect(addr).is_err(), "the port is closed");
    plane.stop();
}

#[test]
fn metrics_are_of_each_model_and_all_are_in_the_document() {
    let upstream = saying(OK);
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", upstream.url())], 500);
    let mut client = Client::call(plane.addr());
    assert_eq!(client.predict("X-Canary: never\r\n", "{}").status, 200);
    assert_eq!(client.predict("X-Canary: always\r\n", "{}").status, 502);
    let text = String::from_utf8(client.get("/metrics").body).unwrap();
    for line in [
        "folkmoot_rollout_version 1",
        "folkmoot_rollout_weight{model=\"v2\"} 0.05",
        "folkmoot_predict_seconds_bucket{le=\"+Inf\",model=\"v1\"} 1",
        "folkmoot_predict_seconds_count{model=\"v2\"} 1",
        "folkmoot_predict_errors_total{model=\"v1\"} 0",
        "folkmoot_predict_errors_total{model=\"v2\"} 1",
        "folkmoot_upstream_dials_total{model=\"v1\"} 1",
        "folkmoot_data_plane_requests_total 3",
        "folkmoot_data_plane_open_connections 1",
        "folkmoot_predict_requests_total{model=\"v1\",class=\"2xx\"} 1",
        "folkmoot_upstream_in_flight{model=\"v1\"} 0",
        "folkmoot_upstream_up{model=\"v1\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once("## Data plane\n").expect("it has its section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| data plane | `"));
    let listed: BTreeSet<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told: BTreeSet<_> = types.map(|it| it.split(' ').next().unwrap()).collect();
    assert_eq!(told, listed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_has_an_answer_or_an_end(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                prop::sample::select(vec![
                    "POST /predict HTTP/1.1\r\n", "GET /routing HTTP/1.1\r\n", "Host: a\r\n",
                    "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "\r\n", "{}\r\n",
                    "3\r\nabc\r\n", "0\r\n\r\n", "X-Canary: always\r\n", "Expect: 100-continue\r\n",
                    "HEAD /health HTTP/1.0\r\n\r\n", "Connection: close\r\n",
                ]).prop_map(|it| it.as_bytes().to_vec()),
            ],
            0..12,
        )
    ) {
        let plane = plane(500);
        let stream = TcpStream::connect(plane.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for piece in &pieces {
            if (&stream).write_all(piece).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        // A reset is an end as well.
        let read = (&stream).read_to_end(&mut said);
        let is_late = read.is_err_and(|err| err.kind() == std::io::ErrorKind::WouldBlock);
        prop_assert!(!is_late, "neither an answer nor an end");
        prop_assert!(said.is_empty() || said.starts_with(b"HTTP/1."));
        let mut next = Client::call(plane.addr());
        prop_assert_eq!(next.predict("", "{}").status, 200);
    }
}
