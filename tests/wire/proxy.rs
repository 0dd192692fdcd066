//! The data plane as a proxy of any service: streams, upgrades, several servers, TLS, HTTP/2,
//! routes and copies, and a stop that loses nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use folkmoot::machine::rollout::ServedState;
use folkmoot::proto::rollout::{Mirror, Route, Sticky};
use folkmoot::runtime::dataplane::{
    AccessLogOptions, DataPlane, DataPlaneLimits, DataPlaneOptions, ProxyOptions, TlsFiles,
    read_files_again,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::planes::*;

fn ask(client: &mut Client, method: &str, path: &str, headers: &str) -> Answer {
    let text = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    client.send(text.as_bytes());
    if method == "HEAD" { client.hear_head() } else { client.hear() }
}

/// Tells what it was asked, as the body of its answer.
fn telling() -> Server {
    Server::start(Box::new(|_, stream| {
        while let Some(text) = request(stream) {
            let body = if text.starts_with("HEAD ") { "" } else { &text };
            say(
                stream,
                &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", text.len()),
            );
        }
    }))
}

fn plane_as(proxy: ProxyOptions, servers: &[(&str, String)]) -> DataPlane {
    let options = options(DataPlaneLimits::default(), servers);
    let plane = DataPlane::start(DataPlaneOptions { proxy, ..options }).unwrap();
    plane.set(serving(1, 0, None));
    plane
}

#[test]
fn every_method_and_path_reaches_the_server_as_it_came() {
    let server = telling();
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
    let mut client = Client::call(plane.addr());
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        let answer =
            ask(&mut client, method, "/v2/models/m/infer?a=1&b=%20", "X-A: 1\r\nX_B: 2\r\n");
        let seen = String::from_utf8(answer.body).unwrap();
        let line = format!("{method} /v2/models/m/infer?a=1&b=%20 HTTP/1.1\r\n");
        assert!(seen.starts_with(&line), "{seen}");
        for part in
            ["\r\nX-A: 1\r\n", "\r\nX-Forwarded-For: 127.0.0.1\r\n", "\r\nVia: 1.1 folkmoot\r\n"]
        {
            assert!(seen.contains(part), "{part} is not in {seen}");
        }
        assert!(!seen.to_lowercase().contains("x_b"), "{seen}");
    }
    let answer = ask(&mut client, "HEAD", "/big", "");
    assert!(answer.header("content-length").parse::<usize>().unwrap() > 0);
    assert_eq!(ask(&mut client, "GET", "/after", "").status, 200, "a HEAD has no body");
    assert_eq!(ask(&mut client, "GET", "/-/folkmoot/health", "").json()["status"], "serving");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn bodies_go_through_as_they_come_in_both_directions() {
    let (halves, half) = crossbeam_channel::bounded::<usize>(0);
    let (go_on, wait) = crossbeam_channel::bounded::<()>(0);
    let server = Server::start(Box::new(move |_, stream| {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let mut part = vec![0; 50_000];
        for _ in 0..2 {
            stream.read_exact(&mut part).unwrap();
            halves.send(part.len()).unwrap();
        }
        say(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        wait.recv().unwrap();
        say(stream, "4\r\nlast\r\n0\r\n\r\n");
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
    let mut client = Client::call(plane.addr());
    let text = post("", &"x".repeat(100_000));
    client.send(&text.as_bytes()[..text.len() - 50_000]);
    assert_eq!(half.recv_timeout(PATIENCE).unwrap(), 50_000, "the rest was not waited for");
    client.send(&text.as_bytes()[text.len() - 50_000..]);
    half.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.hear_head().status, 200);
    let mut first = [0; 10];
    client.0.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"5\r\nfirst\r\n", "the rest was not waited for");
    go_on.send(()).unwrap();
    let mut last = [0; 14];
    client.0.read_exact(&mut last).unwrap();
    assert_eq!(&last, b"4\r\nlast\r\n0\r\n\r\n");
}

/// The head of a request, and nothing of its body.
fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head
}

#[test]
fn an_answer_that_comes_before_the_request_was_read_is_passed_on() {
    const TOO_LARGE: &str =
        "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    // One server reads the rest, the other resets the connection.
    for reads_on in [true, false] {
        let server = Server::start(Box::new(move |_, stream| {
            head(stream);
            say(stream, TOO_LARGE);
            if reads_on {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }));
        let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
        let mut client = Client::call(plane.addr());
        let text = post("", &"x".repeat(6_000_000));
        let _ = client.0.get_mut().write_all(text.as_bytes());
        assert_eq!(client.hear().status, 413, "{reads_on}");
        assert_eq!(plane.health().error_rate(), 0.0);
    }
}

#[test]
fn a_body_is_asked_for_when_the_server_asks_for_it() {
    let server = Server::start(Box::new(|number, stream| {
        let text = head(stream);
        assert!(text.contains("\r\nExpect: 100-continue\r\n"), "{text}");
        if number == 0 {
            return say(
                stream,
                "HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        say(stream, "HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        say(stream, OK);
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
    let ask = "POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = Client::call(plane.addr());
    client.send(ask.as_bytes());
    assert_eq!(client.hear().status, 403, "nobody has wanted the body");
    let mut client = Client::call(plane.addr());
    client.send(ask.as_bytes());
    assert_eq!(client.hear_head().status, 100);
    client.send(b"body");
    assert_eq!(client.hear().status, 200);
}

#[test]
fn a_connection_that_leaves_http_carries_bytes_both_ways_until_a_stop() {
    let server = Server::start(Box::new(|_, stream| {
        let text = request(stream).unwrap().to_lowercase();
        assert!(text.contains("\r\nupgrade: echo\r\n"), "{text}");
        assert!(text.contains("\r\nconnection: upgrade\r\n"), "{text}");
        say(stream, "HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|len| len > 0) {
            say(stream, &line);
            line.clear();
        }
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
    let mut client = Client::call(plane.addr());
    client.send(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let answer = client.hear_head();
    assert_eq!((answer.status, answer.header("upgrade")), (101, "echo"));
    for turn in 0..100 {
        // These bytes mean nothing to the proxy, whatever they look like.
        let text = if turn == 50 {
            "HTTP/1.1 400 Bad Request\n".to_owned()
        } else {
            format!("line {turn}\n")
        };
        client.send(text.as_bytes());
        let mut line = String::new();
        client.0.read_line(&mut line).unwrap();
        assert_eq!(line, text);
    }
    plane.stop();
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest);
    assert!(rest.is_empty(), "it ends with the grace of the stop");
}

#[test]
fn of_several_servers_those_that_answer_are_asked() {
    let (one, two) = (telling(), telling());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let all = format!("http://{gone},{},{}", one.url(), two.url());
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", all)], 0);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let addr = plane.addr();
            spawn(move || {
                let mut client = Client::call(addr);
                assert!((0..50).all(|_| client.predict("", "{}").status == 200));
            })
        })
        .collect();
    clients.into_iter().for_each(|it| it.join().unwrap());
    for server in [&one, &two] {
        assert!(server.connections.load(Ordering::SeqCst) > 0, "both are asked");
    }
    assert_eq!(plane.health().error_rate(), 0.0);
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", format!("http://{gone}"))], 0);
    let mut client = Client::call(plane.addr());
    let answer = client.predict("", "{}");
    assert_eq!((answer.status, &answer.json()["error"]), (502, &"upstream_unreachable".into()));
    let answer = ask(&mut client, "GET", "/health", "");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &"no server".into()));
}

#[test]
fn a_version_that_hangs_takes_no_place_from_another() {
    let good = saying(OK);
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}", hangs.local_addr().unwrap());
    let limits = DataPlaneLimits { requests_of_version: 3, ..DataPlaneLimits::default() };
    let plane = plane_with(limits, &[("v1", good.url()), ("v2", hanging)], 0);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::call(plane.addr());
            client.send(post("X-Canary: always\r\n", "{}").as_bytes());
            (client, hangs.accept().unwrap())
        })
        .collect();
    let mut client = Client::call(plane.addr());
    let answer = client.predict("X-Canary: always\r\n", "{}");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(client.predict("X-Canary: never\r\n", "{}").status, 200);
    drop(waiting);
}

#[test]
fn a_version_gets_servers_and_loses_them_while_requests_run() {
    let (one, two) = (telling(), telling());
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", one.url())], 0);
    let mut client = Client::call(plane.addr());
    assert_eq!(client.predict("X-Canary: always\r\n", "{}").status, 502);
    let v2 = "v2".parse().unwrap();
    plane.serve(&v2, Some(&two.url().parse().unwrap())).unwrap();
    assert_eq!(client.predict("X-Canary: always\r\n", "{}").status, 200);
    plane.serve(&v2, None).unwrap();
    let answer = client.predict("X-Canary: always\r\n", "{}");
    assert_eq!((answer.status, &answer.json()["error"]), (502, &"no_upstream".into()));
    assert!(answer.json()["reason"].as_str().unwrap().contains("peer rollout serve v2="));
}

/// State in which the rollout has routes, copies or a sticky part.
fn state(f: impl FnOnce(&mut ServedState)) -> Arc<ServedState> {
    let mut state = ServedState::clone(&serving(2, 0, None));
    f(&mut state);
    Arc::new(state)
}

#[test]
fn routes_lead_insiders_to_the_canary_before_anybody_else() {
    let (one, two) = (telling(), telling());
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", one.url()), ("v2", two.url())], 0);
    let (v1, v2) = ("v1".parse().unwrap(), "v2".parse().unwrap());
    let route = |text: &str| Route::parse(text, &v1, &v2).unwrap();
    plane.set(state(|it| {
        it.routes = vec![
            route("header:X-Team=qa -> canary"),
            route("cookie:beta=1 -> canary"),
            route("path:/v2 -> canary"),
            route("source:203.0.113.0/24 -> canary"),
        ];
    }));
    let mut client = Client::call(plane.addr());
    for (path, headers, model) in [
        ("/", "", "v1"),
        ("/", "X-Team: qa\r\n", "v2"),
        ("/", "X-Team: dev\r\n", "v1"),
        ("/", "Cookie: a=b; beta=1\r\n", "v2"),
        ("/v2/models", "", "v2"),
        ("/v20", "", "v1"),
        ("/", "X-Forwarded-For: 203.0.113.9\r\n", "v2"),
        ("/", "X-Team: qa\r\nX-Canary: never\r\n", "v1"),
    ] {
        let answer = ask(&mut client, "GET", path, headers);
        assert_eq!(answer.header("x-model"), model, "{path} {headers}");
    }
}

#[test]
fn a_cookie_of_the_proxy_keeps_a_client_at_its_version() {
    let (one, two) = (telling(), telling());
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", one.url()), ("v2", two.url())], 0);
    plane.set(Arc::new(ServedState {
        sticky: Some(Sticky::Cookie { name: "route".to_owned(), own: true }),
        ..ServedState::clone(&serving(2, 5_000, None))
    }));
    let mut client = Client::call(plane.addr());
    let mut models = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let first = ask(&mut client, "GET", "/", "");
        let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
        models.insert(first.header("x-model").to_owned());
        for _ in 0..3 {
            let next = ask(&mut client, "GET", "/", &format!("Cookie: {cookie}\r\n"));
            assert_eq!(next.header("x-model"), first.header("x-model"));
            assert!(!next.headers.contains_key("set-cookie"));
        }
    }
    assert_eq!(models.len(), 2, "both versions have clients");
}

#[test]
fn copies_go_to_the_canary_and_its_answers_to_nobody() {
    let (seen, wait_seen) = crossbeam_channel::bounded(64);
    let canary = Server::start(Box::new(move |_, stream| {
        while let Some(text) = request(stream) {
            let _ = seen.send(text);
            say(stream, "HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad");
        }
    }));
    let stable = saying(OK);
    let servers = [("v1", stable.url()), ("v2", canary.url())];
    let plane = plane_with(DataPlaneLimits::default(), &servers, 0);
    plane.set(state(|it| it.mirror = Some(Mirror { share: 10_000, is_unsafe: false })));
    let mut client = Client::call(plane.addr());
    for _ in 0..5 {
        let answer = ask(&mut client, "GET", "/x?y=1", "");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
        let copy = wait_seen.recv_timeout(PATIENCE).unwrap();
        assert!(
            copy.starts_with("GET /x?y=1 HTTP/1.1\r\n") && copy.contains("X-Mirrored: 1"),
            "{copy}"
        );
    }
    assert_eq!(client.predict("", "{}").status, 200);
    let counted = |_: &u32| {
        let health = plane.health().of(&"v2".parse().unwrap());
        (health.samples, health.errors) == (5, 5)
    };
    assert!((0..10_000_000).any(|turn| counted(&turn)), "its answers are measured");
    assert!(wait_seen.is_empty(), "a POST is not copied");
}

#[test]
fn a_stop_answers_what_runs_and_says_that_connections_end() {
    let (begun, wait_begun) = crossbeam_channel::bounded(1);
    let (release, gate) = crossbeam_channel::bounded::<()>(1);
    let slow = Server::start(Box::new(move |_, stream| {
        while request(stream).is_some() {
            let _ = begun.send(());
            let _ = gate.recv();
            say(stream, OK);
        }
    }));
    let options = options(DataPlaneLimits::default(), &[("v1", slow.url())]);
    let limits = DataPlaneLimits { grace: PATIENCE, drain: PATIENCE, ..options.limits };
    let plane = Arc::new(DataPlane::start(DataPlaneOptions { limits, ..options }).unwrap());
    plane.set(serving(1, 0, None));
    let (mut running, mut half) = (Client::call(plane.addr()), Client::call(plane.addr()));
    let mut idle = Client::call(plane.addr());
    assert_eq!(ask(&mut idle, "GET", "/health", "").status, 200);
    running.send(post("", "{}").as_bytes());
    wait_begun.recv_timeout(PATIENCE).unwrap();
    half.send(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    let stopper = Arc::clone(&plane);
    let stopped = spawn(move || stopper.stop());
    while TcpStream::connect(plane.addr()).is_ok() {
        std::thread::yield_now();
    }
    let answer = ask(&mut idle, "GET", "/health", "");
    assert_eq!((answer.status, answer.header("connection")), (503, "close"));
    assert_eq!(answer.json()["status"], "stopping");
    release.send(()).unwrap();
    let answer = running.hear();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    // Only now: the two would wait at one gate, and either could pass first.
    half.send(b"{}");
    wait_begun.recv_timeout(PATIENCE).unwrap();
    release.send(()).unwrap();
    let answer = half.hear();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    stopped.join().unwrap();
}

fn tls_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls"))
}

/// Client of a server that the tests' authority vouches for; returns the protocol, the server's
/// certificate, and the status of `GET /`.
fn by_tls(addr: std::net::SocketAddr, protocol: &str) -> (Vec<u8>, Vec<u8>, u16) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_folder().join("authority.pem")).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let session = stream.get_ref().1;
        let alpn = session.alpn_protocol().unwrap_or_default().to_vec();
        let certificate = session.peer_certificates().unwrap()[0].as_ref().to_vec();
        let request = hyper::Request::get("https://localhost/").header("Host", "localhost");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let io = TokioIo::new(stream);
        let status = if protocol == "h2" {
            let begun = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = begun.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap().status()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap().status()
        };
        (alpn, certificate, status.as_u16())
    })
}

#[test]
fn clients_come_by_tls_and_a_new_certificate_needs_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        for (from, to) in [(format!("{name}.pem"), "cert"), (format!("{name}.key"), "key")] {
            std::fs::copy(tls_folder().join(from), dir.path().join(to)).unwrap();
        }
    };
    copy("one");
    let files = TlsFiles { certificates: dir.path().join("cert"), key: dir.path().join("key") };
    let server = telling();
    let proxy = ProxyOptions { tls: Some(files), ..ProxyOptions::default() };
    let plane = plane_as(proxy, &[("v1", server.url())]);
    let (alpn, first, status) = by_tls(plane.addr(), "h2");
    assert_eq!((alpn.as_slice(), status), (&b"h2"[..], 200));
    let (alpn, same, status) = by_tls(plane.addr(), "http/1.1");
    assert_eq!((alpn.as_slice(), status), (&b"http/1.1"[..], 200));
    assert_eq!(first, same);
    std::fs::copy(tls_folder().join("two.key"), dir.path().join("key")).unwrap();
    let reason = read_files_again().unwrap_err();
    assert!(reason.contains("not the key of the certificate"), "{reason}");
    assert_eq!(by_tls(plane.addr(), "h2").1, first, "the old one stays");
    copy("two");
    read_files_again().unwrap();
    let (_, second, status) = by_tls(plane.addr(), "h2");
    assert!(status == 200 && second != first);
    let mut plain = Client::call(plane.addr());
    let _ = plain.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut rest = Vec::new();
    let _ = plain.0.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"), "nothing is said without TLS");
}

#[test]
fn a_server_by_tls_is_asked_if_its_authority_is_trusted() {
    let server = telling();
    let files =
        TlsFiles { certificates: tls_folder().join("one.pem"), key: tls_folder().join("one.key") };
    let front = plane_as(
        ProxyOptions { tls: Some(files), ..ProxyOptions::default() },
        &[("v1", server.url())],
    );
    let url = format!("https://localhost:{}", front.addr().port());
    let trusting = ProxyOptions {
        authorities: vec![tls_folder().join("authority.pem")],
        ..ProxyOptions::default()
    };
    let plane = plane_as(trusting, &[("v1", url.clone())]);
    let answer = Client::call(plane.addr()).predict("", "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = String::from_utf8(answer.body).unwrap();
    assert!(seen.contains("X-Forwarded-Proto: http\r\n"), "{seen}");
    assert!(seen.contains("Via: 1.1 folkmoot, 1.1 folkmoot"), "{seen}");
    let plane = plane_as(ProxyOptions::default(), &[("v1", url)]);
    let answer = Client::call(plane.addr()).predict("", "{}");
    assert_eq!(answer.status, 502);
    assert!(answer.json()["reason"].as_str().unwrap().contains("TLS"), "{answer:?}");
}

#[test]
fn http2_without_tls_has_many_requests_on_one_connection() {
    let server = telling();
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(plane.addr()).await.unwrap();
        let begun =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = begun.unwrap();
        tokio::spawn(connection);
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..100 {
            let mut sender = sender.clone();
            asked.spawn(async move {
                let url = format!("http://models.example/{number}");
                let request = hyper::Request::post(url)
                    .header("cookie", "a=1")
                    .header("cookie", "b=2")
                    .body(Full::new(Bytes::from(vec![b'x'; number * 1_000])));
                let answer = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(answer.status(), 200);
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let text = String::from_utf8(body.to_vec()).unwrap();
                assert!(text.starts_with(&format!("POST /{number} HTTP/1.1\r\n")), "{text}");
                assert!(text.contains("\r\nHost: models.example\r\n"), "{text}");
                assert!(text.contains("\r\nCookie: a=1; b=2\r\n"), "{text}");
                assert!(text.ends_with(&"x".repeat(number * 1_000)), "{number}");
            });
        }
        while let Some(it) = asked.join_next().await {
            it.unwrap();
        }
    });
    assert_eq!(plane.counters().connections.get(), 1);
}

#[test]
fn a_line_of_the_access_log_says_who_asked_what_and_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let server = saying(OK);
    let access_log = Some(AccessLogOptions { file: file.clone(), share: 10_000 });
    let proxy = ProxyOptions { access_log, ..ProxyOptions::default() };
    let plane = plane_as(proxy, &[("v1", server.url())]);
    let mut client = Client::call(plane.addr());
    assert_eq!(ask(&mut client, "GET", "/a?b", "X-Forwarded-For: 203.0.113.9\r\n").status, 200);
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    assert!((0..1_000_000).any(|_| lines(&file).lines().count() == 1));
    std::fs::rename(&file, &moved).unwrap();
    read_files_again().unwrap();
    assert_eq!(ask(&mut client, "GET", "/after", "").status, 200);
    plane.stop();
    let line: serde_json::Value = serde_json::from_str(lines(&moved).trim()).unwrap();
    assert_eq!(
        (&line["client"], &line["method"], &line["target"], &line["status"], &line["model"]),
        (&"203.0.113.9".into(), &"GET".into(), &"/a?b".into(), &200.into(), &"v1".into())
    );
    assert_eq!(line["bytes"], 2);
    assert!(lines(&file).contains("/after"), "a new file has the later lines");
}

#[test]
fn a_slow_reader_holds_up_nobody_and_a_long_answer_is_not_held() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = Server::start(Box::new(move |_, stream| {
        while let Some(text) = request(stream) {
            if text.starts_with("GET /long ") {
                say(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                let part = vec![b'x'; 100_000];
                while stream.get_mut().write_all(&part).is_ok() {
                    count.fetch_add(part.len(), Ordering::SeqCst);
                }
                return;
            }
            say(stream, OK);
        }
    }));
    let plane = plane_with(DataPlaneLimits::default(), &[("v1", server.url())], 0);
    let mut slow = Client::call(plane.addr());
    slow.send(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(slow.hear_head().status, 200);
    let mut others = Client::call(plane.addr());
    let mut before = usize::MAX;
    // Until the server is held up: what is on the way then is in the system's buffers.
    while before != sent.load(Ordering::SeqCst) || before == 0 {
        before = sent.load(Ordering::SeqCst);
        for _ in 0..50 {
            assert_eq!(others.predict("", "{}").status, 200);
        }
        let _ = crossbeam_channel::after(Duration::from_millis(50)).recv();
    }
    assert!(before < 100_000_000, "{before} bytes were taken from the server");
}
