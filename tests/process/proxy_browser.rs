//! The data plane as a browser sees it: a page whose script uses all that pages use.

use crate::support;

use std::io;

use crossbeam_channel::bounded;
use support::PATIENCE;
use support::process::Process;
use support::web::{Connection, Front, Request, Server, program};
use tungstenite::handshake::derive_accept_key;

const PAGE: &str = r#"<!doctype html><title>A page</title><script type="module">
const upload = async () => {
  const answer = await fetch("/upload", { method: "POST", body: "x".repeat(1 << 20) });
  return `upload=${await answer.text()}`;
};
const download = async () => {
  const reader = (await fetch("/download")).body.getReader();
  let bytes = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    bytes += part.value.length;
  }
  return `download=${bytes}`;
};
const events = () => new Promise((resolve) => {
  const source = new EventSource("/events");
  source.onmessage = ({ data }) => {
    if (data === "3") {
      source.close();
      resolve("events=3");
    }
  };
});
const socket = () => new Promise((resolve) => {
  const socket = new WebSocket(`ws://${location.host}/socket`);
  socket.onmessage = ({ data }) => resolve(`socket=${data}`);
});
const cookie = async () => {
  await fetch("/cookie");
  return `cookie=${document.cookie}`;
};
const all = [upload(), download(), events(), socket(), cookie()];
const told = (await Promise.all(all)).map(encodeURIComponent).join("&");
await fetch(`/told?${told}`);
</script>"#;

/// Answers the requests of the page; those for events and sockets end their connection.
fn answer(request: &Request, to: &mut Connection) -> io::Result<()> {
    let mut len = 0;
    to.body(&request.headers, |it| len += it.len())?;
    let path = request.target.split('?').next().unwrap_or_default();
    match path {
        "/" => to.answer("200 OK", "Content-Type: text/html\r\n", PAGE.as_bytes()),
        "/upload" => to.answer("200 OK", "", len.to_string().as_bytes()),
        "/download" => {
            to.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            (0..100).try_for_each(|_| to.write(format!("3e8\r\n{}\r\n", "y".repeat(1_000))))?;
            to.write("0\r\n\r\n")
        }
        "/events" => {
            to.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
            (1..=3).try_for_each(|it| to.write(format!("data: {it}\n\n")))?;
            // The stream goes on until the page ends it.
            to.take(1, |_| {})
        }
        "/socket" => {
            let key = request.headers.get("sec-websocket-key").map_or("", String::as_str);
            let accept = derive_accept_key(key.as_bytes());
            to.write(format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            ))?;
            // A text of five bytes in one frame (RFC 6455, 5.2).
            to.write(b"\x81\x05hello")?;
            to.take(1, |_| {})
        }
        "/cookie" => to.answer("200 OK", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", b""),
        _ => to.answer("404 Not Found", "", b""),
    }
}

#[test]
fn a_page_in_chromium_fetches_streams_listens_and_talks() {
    let Some(chromium) = program("chromium") else { return };
    let (tell, told) = bounded(1);
    let server = Server::start(move |request, to| {
        if let Some(told) = request.target.strip_prefix("/told?") {
            let _ = tell.send(told.to_owned());
        }
        answer(request, to)
    });
    let front = Front::of(server.addr);
    let profile = format!("--user-data-dir={}", front.dir().join("profile").display());
    let url = front.url("/");
    let args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
    let more = [&profile, "--no-first-run", "--remote-debugging-port=0", &url];
    let browser = Process::start(&chromium, &[&args[..], &more[..]].concat(), front.dir());
    let told = told.recv_timeout(PATIENCE);
    let told = told.unwrap_or_else(|_| panic!("{}\n{}", browser.out(), browser.err()));
    let wanted = "upload%3D1048576&download%3D100000&events%3D3&socket%3Dhello&cookie%3Da%3D1";
    let decoded = told.replace("%3B%20b%3D2", "");
    assert_eq!(decoded, wanted, "{told}");
}
