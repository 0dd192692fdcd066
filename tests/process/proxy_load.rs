//! The data plane under load by other people's programs, and with many connections.

use crate::support;

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use support::process::{Process, children_of, eventually, is_running, run};
use support::web::{Connection, Front, Request, Server, curl, program};
use support::{peer_exe, words};

fn greeting(request: &Request, to: &mut Connection) -> std::io::Result<()> {
    to.body(&request.headers, |_| {})?;
    to.answer("200 OK", "", b"hello")
}

#[test]
fn sixty_four_connections_of_wrk_see_no_error() {
    let Some(wrk) = program("wrk") else { return };
    let server = Server::start(greeting);
    let front = Front::of(server.addr);
    let args = ["-t2", "-c64", "-d2s", "--timeout", "30s", &front.url("/any")];
    let (code, out, err) = run(&wrk, &args, front.dir());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(!out.contains("Non-2xx") && !out.contains("Socket errors"), "{out}");
    let count = out.lines().find(|it| it.contains(" requests in ")).expect("a count");
    let count = count.split_whitespace().next().and_then(|it| it.parse::<u64>().ok());
    assert!(count.is_some_and(|it| it > 0), "{out}");
}

#[test]
fn ten_connections_of_h2load_with_ten_streams_each_see_no_error() {
    let Some(h2load) = program("h2load") else { return };
    let server = Server::start(greeting);
    let front = Front::of(server.addr);
    let args = ["-n", "5000", "-c", "10", "-m", "10", &front.url("/any")];
    let (code, out, err) = run(&h2load, &args, front.dir());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    assert!(out.contains("5000 2xx, "), "{out}");
}

#[test]
fn a_thousand_idle_connections_are_held_while_others_are_served() {
    let server = Server::start(greeting);
    let front = Front::of(server.addr);
    let mut idle: Vec<_> = (0..1_000).map(|_| Connection::call(front.addr)).collect();
    for connection in idle.iter_mut().step_by(2) {
        assert_eq!(connection.ask("GET", "/first", b"").status, 200);
    }
    let mut other = Connection::call(front.addr);
    for _ in 0..200 {
        assert_eq!(other.ask("POST", "/other", b"body").body, b"hello");
    }
    if let Some(exe) = program("curl") {
        let (_, out, err) = curl(&exe, &front, &[&front.url("/")]);
        assert_eq!(out, "hello", "{err}");
    }
    for connection in &mut idle {
        assert_eq!(connection.ask("GET", "/at-last", b"").body, b"hello");
    }
}

// The bench.

/// The reverse proxies that the bench knows, and those of them that are not installed.
fn rivals() -> (Vec<&'static str>, Vec<&'static str>) {
    ["nginx", "haproxy"].into_iter().partition(|it| program(it).is_some())
}

#[test]
fn the_bench_measures_rivals_in_turns_or_says_how_to_install_them() {
    let dir = tempfile::tempdir().expect("there is room");
    let line = "bench rollout --data-plane --vs nginx,haproxy --clients 2,4 --seconds 1 --rounds 2";
    let args = words(line);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let (code, out, err) = run(&peer_exe(), &args, dir.path());
    if let [missing, ..] = rivals().1[..] {
        assert_eq!((code, &*out), (Some(1), ""), "{err}");
        assert!(err.contains(&format!("{missing} is not installed")), "{err}");
        assert!(err.contains(&format!("apt install {missing}")), "{err}");
        return;
    }
    assert_eq!(code, Some(0), "{out}\n{err}");
    let lines: Vec<Value> =
        out.lines().map(|it| serde_json::from_str(it).expect("a line is JSON")).collect();
    for clients in [2, 4] {
        for server in ["proxy", "nginx", "haproxy"] {
            for figure in ["per_s", "p50_us", "p99_us", "cpu_us", "resident_mib", "private_mib"] {
                let metric = format!("predict_{server}_{figure}");
                let is_it = |it: &&Value| it["metric"] == metric && it["clients"] == clients;
                let found: Vec<_> = lines.iter().filter(is_it).collect();
                let [line] = found[..] else { panic!("{metric}, {clients}: {out}") };
                assert_eq!((&line["n"], &line["upstream"]), (&2.into(), &"nginx".into()));
                assert!(line["p50"].as_f64().is_some_and(|it| it > 0.0), "{line}");
                let ratio = line["to_nginx"].as_f64();
                assert!(ratio.is_some_and(|it| it > 0.0), "{line}");
                assert!(server != "nginx" || ratio == Some(1.0), "{line}");
            }
        }
    }
}

#[test]
fn the_bench_sends_a_volume_there_and_back() {
    let dir = tempfile::tempdir().expect("there is room");
    let args = ["bench", "rollout", "--volume", "100M"];
    let (code, out, err) = run(&peer_exe(), &args, dir.path());
    assert_eq!(code, Some(0), "{out}\n{err}");
    let lines: Vec<Value> =
        out.lines().map(|it| serde_json::from_str(it).expect("a line is JSON")).collect();
    let metrics = ["volume_each_way_mib_per_s", "volume_cpu_s_per_gib", "volume_resident_mib"];
    assert_eq!(lines.len(), metrics.len(), "{out}");
    for (line, metric) in lines.iter().zip(metrics) {
        assert_eq!((&line["metric"], &line["volume_bytes"]), (&metric.into(), &104_857_600.into()));
        assert!(line["value"].as_f64().is_some_and(|it| it > 0.0), "{line}");
    }
    assert_eq!(lines[2]["met"], true, "{out}");
}

#[test]
fn a_bench_that_is_stopped_leaves_no_server_behind() {
    let dir = tempfile::tempdir().expect("there is room");
    let installed = rivals().0.join(",");
    let mut args = words("bench rollout --data-plane --clients 8 --seconds 600 --rounds 1");
    if !installed.is_empty() {
        args.extend(["--vs".to_owned(), installed]);
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut bench = Process::start(&peer_exe(), &args, dir.path());
    let pid = bench.pid();
    let is_under_way = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut names = tasks.filter_map(|it| fs::read_to_string(it.path().join("comm")).ok());
        names.any(|it| it.starts_with("load:"))
    };
    assert!(eventually(is_under_way), "{}\n{}", bench.out(), bench.err());
    let mut all = children_of(pid);
    assert!(all.len() >= 2, "a proxy and its upstream: {all:?}");
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        all.extend(children_of(parent));
        at += 1;
    }
    bench.signal(Signal::INT);
    assert_eq!(bench.wait_for_end(), Some(1), "{}", bench.err());
    assert!(bench.err().contains("stopped by SIGINT"), "{}", bench.err());
    let have_ended = || all.iter().all(|it| !is_running(*it));
    assert!(eventually(have_ended), "{all:?}");
}
