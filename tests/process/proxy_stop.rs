//! Restarts of a data plane behind a socket that is handed from process to process.

use crate::support;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use folkmoot::runtime::thread;
use rustix::process::{Pid, Signal, kill_process};
use support::web::{Connection, Request, Server};
use support::{peer_exe, ports};

/// Number of clients that ask one request after the other.
const CLIENTS: usize = 64;

/// Number of restarts meanwhile.
const RESTARTS: u64 = 10;

fn greeting(request: &Request, to: &mut Connection) -> std::io::Result<()> {
    to.body(&request.headers, |_| {})?;
    to.answer("200 OK", "", b"hello")
}

/// Starts a node whose data plane listens at `listener`, as systemd's socket activation does it.
fn start(listener: &TcpListener, server: &Server, dir: &std::path::Path) -> Child {
    let socket = OwnedFd::from(listener.try_clone().expect("a descriptor"));
    let port = ports().to_string();
    let http = listener.local_addr().expect("an address").to_string();
    let (one, two) = (format!("v1=http://{}", server.addr), format!("v2=http://{}", server.addr));
    let hand = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    Command::new("sh")
        .args(["-c", hand])
        .arg(peer_exe())
        .args(["--port", &port, "--id", "node-a", "--http", &http, "--serve", &one])
        .args(["--serve", &two, "--data", "data", "--log-dir", "logs"])
        .current_dir(dir)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

#[test]
fn sixty_four_clients_lose_no_request_in_ten_restarts() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(greeting);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (is_over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut node = start(&listener, &server, dir.path());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            let ask = move || {
                let mut connection = Connection::call(addr);
                while !is_over.load(Ordering::SeqCst) {
                    let answer = connection.ask("POST", "/predict", b"{}");
                    // A node that has just started may not have its state yet.
                    assert!([200, 503].contains(&answer.status), "{}", answer.status);
                    answered.fetch_add(u64::from(answer.status == 200), Ordering::SeqCst);
                    if answer.headers.get("connection").is_some_and(|it| it == "close") {
                        connection = Connection::call(addr);
                    }
                    let _ = crossbeam_channel::after(Duration::from_millis(5)).recv();
                }
            };
            thread::spawn("client", ask).expect("a thread")
        })
        .collect();
    for restart in 1..=RESTARTS {
        let before = answered.load(Ordering::SeqCst);
        assert!(support::process::eventually(|| answered.load(Ordering::SeqCst) > before + 200));
        let pid = Pid::from_child(&node);
        kill_process(pid, Signal::TERM).expect("it runs");
        let status = node.wait().expect("it ends");
        assert!(status.success(), "restart {restart}: {status}");
        node = start(&listener, &server, dir.path());
    }
    let before = answered.load(Ordering::SeqCst);
    assert!(support::process::eventually(|| answered.load(Ordering::SeqCst) > before + 200));
    is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no request was lost");
    }
    kill_process(Pid::from_child(&node), Signal::TERM).expect("it runs");
    node.wait().expect("it ends");
}
