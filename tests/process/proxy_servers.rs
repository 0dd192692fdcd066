//! The data plane in front of servers that others wrote, and of those that break off.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::Path;

use support::process::{Process, eventually, run};
use support::web::{BLOCK, Connection, Front, Request, Server, block, curl, program};

/// A port that is free now.
fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    socket.local_addr().expect("it has an address").port()
}

/// Runs a program that listens at `port`, and a node in front of it.
#[track_caller]
fn behind(exe: &Path, args: &[&str], dir: &Path, port: u16) -> (Process, Front) {
    let process = Process::start(exe, args, dir);
    let listens = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    assert!(eventually(listens), "{}\n{}", process.out(), process.err());
    (process, Front::of((Ipv4Addr::LOCALHOST, port).into()))
}

#[test]
fn files_of_pythons_server_are_served_listed_and_not_sent_again() {
    let (Some(python), Some(exe)) = (program("python3"), program("curl")) else { return };
    let dir = tempfile::tempdir().expect("there is room");
    fs::write(dir.path().join("a file.txt"), "hello\n").expect("there is room");
    fs::write(dir.path().join("large"), block(7).repeat(100)).expect("there is room");
    let port = free_port().to_string();
    let args = ["-m", "http.server", "--bind", "127.0.0.1", &port];
    let (_python, front) = behind(&python, &args, dir.path(), port.parse().expect("a port"));
    let get = |args: &[&str], path: &str| {
        let (code, out, err) = curl(&exe, &front, &[args, &[&front.url(path)]].concat());
        assert_eq!(code, Some(0), "{path}: {out}\n{err}");
        out
    };
    assert_eq!(get(&[], "/a%20file.txt"), "hello\n");
    let list = get(&[], "/");
    assert!(list.contains("<a href=\"a%20file.txt\">") && list.contains("large"), "{list}");
    let down = front.dir().join("down");
    get(&["-o", down.to_str().expect("a plain path")], "/large");
    assert!(fs::read(&down).expect("it was written") == block(7).repeat(100));
    let code = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    assert!(get(&code, "/none").starts_with("404 "));
    let head = get(&["-I"], "/a%20file.txt");
    let modified = head.lines().find(|it| it.to_ascii_lowercase().starts_with("last-modified:"));
    let since = modified
        .expect("it says when")
        .to_ascii_lowercase()
        .trim()
        .replace("last-modified", "If-Modified-Since");
    assert_eq!(get(&[&code[..], &["-H", &since]].concat(), "/a%20file.txt"), "304 0");
    assert_eq!(get(&[&code[..], &["-X", "DELETE"]].concat(), "/large")[..3], *"501");
}

/// nginx with this content of its `server` block, and a node in front of it.
fn nginx(server: &str) -> Option<(Process, Front, tempfile::TempDir)> {
    let exe = program("nginx")?;
    let dir = tempfile::tempdir().expect("there is room");
    let (port, at) = (free_port(), dir.path().display());
    let temp = |it: &str| format!("{it}_temp_path {at}/{it};");
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).join(" ");
    // One process alone: there is none that a killed one leaves behind.
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr; events {{}}
         http {{ access_log off; {temps} server {{ listen 127.0.0.1:{port}; {server} }} }}"
    );
    let file = dir.path().join("config");
    fs::write(&file, config).expect("there is room");
    let args = ["-c", file.to_str().expect("a plain path")];
    let (process, front) = behind(&exe, &args, dir.path(), port);
    Some((process, front, dir))
}

#[test]
fn connections_to_nginx_are_used_again_and_its_close_after_some_requests_loses_none() {
    let server = "keepalive_requests 20; location / { return 200 \"$connection\"; }";
    let Some((_nginx, front, _dir)) = nginx(server) else { return };
    let mut client = Connection::call(front.addr);
    let mut connections = BTreeSet::new();
    for number in 0..400 {
        let answer = client.ask("GET", &format!("/{number}"), b"");
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
        connections.insert(answer.body);
    }
    // nginx ends each after 20 requests.
    assert!((20..=40).contains(&connections.len()), "{} connections", connections.len());
}

#[test]
fn a_413_of_nginx_before_the_body_was_read_reaches_the_client() {
    let server = "client_max_body_size 1k; location / { proxy_pass http://127.0.0.1:9; }";
    let Some((_nginx, front, dir)) = nginx(server) else { return };
    let Some(exe) = program("curl") else { return };
    let up = dir.path().join("up");
    fs::write(&up, block(1).repeat(200)).expect("there is room");
    let (url, up) = (front.url("/"), up.to_str().expect("a plain path"));
    for expect in ["Expect:", "Expect: 100-continue"] {
        let args = ["-H", expect, "-T", up, "-i", &url];
        let (code, out, err) = curl(&exe, &front, &args);
        let first = out.lines().rfind(|it| it.starts_with("HTTP/"));
        assert!(first.is_some_and(|it| it.contains(" 413")), "{args:?} {code:?} {out}\n{err}");
    }
    // curl 7.88 does not take an answer over HTTP/2 before it has sent its body.
    let Some(nghttp) = program("nghttp") else { return };
    let (_, out, err) = run(&nghttp, &["-v", "-d", up, &url], front.dir());
    assert!(out.contains(":status: 413"), "{out}\n{err}");
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let breaking = |request: &Request, to: &mut Connection| {
        to.body(&request.headers, |_| {})?;
        match &*request.target {
            "/length" => to.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?,
            "/chunked" => to.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?,
            _ => return to.answer("200 OK", "", b"whole"),
        }
        if request.target == "/chunked" {
            to.write(format!("{BLOCK:x}\r\n"))?;
        }
        to.write(block(1))?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    };
    let server = Server::start(breaking);
    let front = Front::of(server.addr);
    let mut client = Connection::call(front.addr);
    for path in ["/length", "/chunked"] {
        let mut broken = Connection::call(front.addr);
        broken.send("GET", path, b"");
        // A proxy that keeps an answer until it is whole may say 502 instead.
        let answer = broken.head();
        let mut len = 0;
        let end = broken.body(&answer.headers, |it| len += it.len());
        let is_told = answer.status == 200 && end.is_err() && len <= BLOCK || answer.status == 502;
        assert!(is_told, "{path}: {answer:?}, {len} bytes, {end:?}");
        // Others are not hurt, neither on a connection of their own nor on one to the server.
        assert_eq!(client.ask("GET", "/", b"").body, b"whole");
    }
    let Some(exe) = program("curl") else { return };
    for path in ["/length", "/chunked"] {
        let args = ["--http2-prior-knowledge", "-o", "/dev/null", "--fail", &front.url(path)];
        let (code, _, err) = curl(&exe, &front, &args);
        assert!(code != Some(0), "{path}: {err}");
    }
}

#[test]
fn a_server_and_a_listener_may_have_ipv6_addresses() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return;
    }
    let server = Server::start_at("[::1]:0", |request, to| {
        let host = request.headers.get("host").cloned().unwrap_or_default();
        to.answer("200 OK", "", format!("{} {host}", request.target).as_bytes())
    });
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let front = Front::at(ip, server.addr);
        let answer = Connection::call(front.addr).ask("GET", "/six?a=b", b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = String::from_utf8_lossy(&answer.body);
        assert!(body.starts_with("/six?a=b "), "{ip}: {body}");
    }
}
