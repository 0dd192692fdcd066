//! The data plane as curl sees it: any method and path, large bodies, HTTP/2, and the parts of
//! HTTP/1.1 that clients of everyday use.

use crate::support;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use support::process::run;
use support::web::{
    BLOCK, Connection, Front, Request, Server, block, curl, program, sha_of_blocks,
};

/// Number of blocks of 50 MB.
const BLOCKS: u64 = 800;

/// curl, and a node in front of a server.
struct Desk {
    curl: PathBuf,
    front: Front,
    _server: Server,
}

impl Desk {
    fn with(server: impl FnOnce() -> Server) -> Option<Self> {
        let curl = program("curl")?;
        let server = server();
        Some(Self { curl, front: Front::of(server.addr), _server: server })
    }

    /// What curl prints; it must succeed.
    #[track_caller]
    fn curl(&self, args: &[&str], path: &str) -> String {
        let url = self.front.url(path);
        let (code, out, err) = curl(&self.curl, &self.front, &[args, &[&url]].concat());
        assert_eq!(code, Some(0), "{args:?} {url}\n{out}\n{err}\n{}", self.front.process.err());
        out
    }
}

/// Tells what it was asked: the line of the request, its `X-Own` header, and the body.
fn telling(request: &Request, to: &mut Connection) -> std::io::Result<()> {
    let mut body = Vec::new();
    to.body(&request.headers, |it| body.extend_from_slice(it))?;
    let own = request.headers.get("x-own").map_or("none", String::as_str);
    let mut told = format!("{} {} {own} ", request.method, request.target).into_bytes();
    told.extend_from_slice(&body);
    let headers = "X-Told: yes\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
    if request.method != "HEAD" {
        return to.answer("207 Multi-Status", headers, &told);
    }
    let len = told.len();
    to.write(format!("HTTP/1.1 207 Multi-Status\r\n{headers}Content-Length: {len}\r\n\r\n"))
}

/// Takes what is uploaded and tells its SHA-256; gives 50 MB to who asks for them.
fn large(request: &Request, to: &mut Connection) -> std::io::Result<()> {
    if request.headers.contains_key("expect") {
        to.write("HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut hash = Sha256::new();
    to.body(&request.headers, |it| hash.update(it))?;
    if request.method != "GET" {
        return to.answer("200 OK", "", hex::encode(hash.finalize()).as_bytes());
    }
    if request.target == "/chunked" {
        to.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for number in 0..BLOCKS {
            to.write(format!("{BLOCK:x}\r\n"))?;
            to.write(block(number))?;
            to.write("\r\n")?;
        }
        return to.write("0\r\n\r\n");
    }
    let len = BLOCKS * BLOCK as u64;
    to.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"))?;
    (0..BLOCKS).try_for_each(|number| to.write(block(number)))
}

/// A file of 50 MB in the desk's folder.
fn file(desk: &Desk) -> String {
    let path = desk.front.dir().join("up");
    let mut file = fs::File::create(&path).expect("a file can be made");
    (0..BLOCKS).for_each(|number| file.write_all(&block(number)).expect("there is room"));
    path.to_str().expect("a plain path").to_owned()
}

/// SHA-256 of a file.
fn sha_of(path: &str) -> String {
    hex::encode(Sha256::digest(fs::read(path).expect("it was written")))
}

#[test]
fn every_method_path_and_query_reaches_the_server_and_its_answer_comes_back() {
    let Some(desk) = Desk::with(|| Server::start(telling)) else { return };
    let path = "/a/b%20c/../d//e;f?x=1&y=%2F&x=2";
    for (version, first) in
        [("--http1.1", "http/1.1 207"), ("--http2-prior-knowledge", "http/2 207")]
    {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
            let args = [
                version,
                "--path-as-is",
                "-i",
                "-X",
                method,
                "-H",
                "X-Own: mine",
                "-d",
                "some body",
            ];
            let out = desk.curl(&args, path);
            let (head, body) = out.split_once("\r\n\r\n").expect("a head");
            assert_eq!(body, format!("{method} {path} mine some body"), "{version}");
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with(first), "{head}");
            for header in ["x-told: yes", "set-cookie: a=1", "set-cookie: b=2", "x-model: v1"] {
                assert_eq!(head.matches(&format!("\n{header}")).count(), 1, "{version}: {head}");
            }
        }
        let head = desk.curl(&[version, "-I"], "/").to_ascii_lowercase();
        assert!(head.contains(" 207") && head.contains("\ncontent-length: 12\r"), "{head}");
        assert!(!head.contains("head / "), "no body: {head}");
        assert_eq!(desk.curl(&[version], "/none"), "GET /none none ", "without a body");
    }
    assert_eq!(desk.curl(&["--http1.0"], "/old?x=1"), "GET /old?x=1 none ");
}

#[test]
fn fifty_megabytes_go_up_and_down_unchanged() {
    let Some(desk) = Desk::with(|| Server::start(large)) else { return };
    let (up, wanted) = (file(&desk), sha_of_blocks(BLOCKS));
    let down = desk.front.dir().join("down");
    let down = down.to_str().expect("a plain path");
    // With its length, as a PUT, and in chunks.
    assert_eq!(desk.curl(&["-T", &up], "/put"), wanted);
    assert_eq!(desk.curl(&["--data-binary", &format!("@{up}")], "/post"), wanted);
    assert_eq!(desk.curl(&["-H", "Transfer-Encoding: chunked", "-T", &up], "/chunks"), wanted);
    assert_eq!(desk.curl(&["--http2-prior-knowledge", "-T", &up], "/put"), wanted);
    if let Some(nghttp) = program("nghttp") {
        let url = desk.front.url("/post");
        let (code, out, err) = run(&nghttp, &["-d", &up, &url], desk.front.dir());
        assert_eq!((code, &*out), (Some(0), &*wanted), "{err}");
    }
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/length", "/chunked"] {
            desk.curl(&[version, "-o", down], path);
            assert_eq!(sha_of(down), wanted, "{version} {path}");
        }
    }
}

#[test]
fn who_waits_for_100_continue_gets_it_and_who_is_refused_before_the_body_learns_it() {
    let refusing = |request: &Request, to: &mut Connection| {
        if request.target != "/refused" {
            return large(request, to);
        }
        to.answer("413 Payload Too Large", "Connection: close\r\n", b"too much")?;
        // Closed with bytes unread, the connection would be reset and the answer might be lost.
        to.body(&request.headers, |_| {})?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    };
    let Some(desk) = Desk::with(|| Server::start(refusing)) else { return };
    let up = file(&desk);
    // It would wait for longer than the test has.
    let args = ["-H", "Expect: 100-continue", "--expect100-timeout", "600", "-T", &up];
    assert_eq!(desk.curl(&args, "/put"), sha_of_blocks(BLOCKS));
    let refused = desk.curl(&[&args[..], &["-w", " %{http_code}"]].concat(), "/refused");
    assert_eq!(refused, "too much 413");
}

#[test]
fn trailers_of_an_answer_come_to_who_asks_for_them() {
    let trailing = |request: &Request, to: &mut Connection| {
        to.body(&request.headers, |_| {})?;
        to.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")?;
        to.write("4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n")
    };
    let Some(desk) = Desk::with(|| Server::start(trailing)) else { return };
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let out = desk.curl(&[version, "-D", "-", "-H", "TE: trailers"], "/");
        let out = out.to_ascii_lowercase();
        assert!(out.contains("body") && out.contains("x-sum: 42"), "{version}: {out}");
    }
    // Others get the body all the same.
    assert_eq!(desk.curl(&[], "/"), "body");
}
