//! `peer share`, `peer fetch` and `peer shares` as a new user types them, with real processes.

#![allow(clippy::print_stdout, reason = "a test that shows nothing must say so")]

use crate::support;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use folkmoot::model::{Rng, Ticket};
use folkmoot::runtime::thread::spawn;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::Value;
use support::peer_exe;
use support::process::{Process, eventually, run, script};

fn content(size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    Rng::seed_from_u64(size as u64).fill_bytes(&mut content);
    content
}

/// A directory with `source/` in it.
fn scene() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("folkmoot-share-").tempdir().expect("a directory");
    fs::create_dir(dir.path().join("source")).expect("a folder");
    dir
}

/// Shares what is at `path`, and waits for the ticket, which is all that is printed.
#[track_caller]
fn share(dir: &Path, path: &str, more: &[&str]) -> (Process, String) {
    let args = [&["share", path, "--ticket", "ticket"], more].concat();
    let process = Process::start(&peer_exe(), &args, dir);
    process.wait_for("\n");
    let ticket = process.out().trim().to_owned();
    assert_eq!(process.out(), format!("{ticket}\n"), "one line");
    let file = fs::read_to_string(dir.join("ticket")).expect("the ticket is in a file as well");
    assert_eq!(file, process.out());
    (process, ticket)
}

#[track_caller]
fn ok(args: &[&str], dir: &Path) -> Vec<Value> {
    let (code, out, err) = run(&peer_exe(), args, dir);
    assert_eq!(code, Some(0), "{args:?}\n{out}\n{err}");
    lines(&out)
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect()
}

fn last(out: &[Value]) -> &Value {
    out.last().expect("a line")
}

#[test]
fn a_file_is_shared_with_a_ticket_and_fetched_by_several() {
    let dir = scene();
    let bytes = content(5_000_001);
    fs::write(dir.path().join("source/big file.iso"), &bytes).expect("a file");
    let (mut seeder, ticket) = share(dir.path(), "source/big file.iso", &["--piece", "64K"]);
    assert!(ticket.starts_with("folkmoot:share?name=big%20file.iso&size=5000001&piece=65536&"));
    let starts: Vec<_> = (0..3)
        .map(|it| {
            let to = format!("to-{it}");
            Process::start(&peer_exe(), &["fetch", &ticket, "--to", &to], dir.path())
        })
        .collect();
    for (it, mut leecher) in starts.into_iter().enumerate() {
        assert_eq!(leecher.wait_for_end(), Some(0), "{}", leecher.err());
        let out = lines(&leecher.out());
        assert_eq!((&out[0]["event"], &out[0]["have"]), (&"started".into(), &0.into()));
        let end = last(&out);
        assert_eq!(
            (&end["event"], &end["have"], &end["left_s"]),
            (&"complete".into(), &77.into(), &Value::Null)
        );
        let to = dir.path().join(format!("to-{it}"));
        assert!(fs::read(to.join("big file.iso")).expect("a file") == bytes, "the same bytes");
        assert_eq!(fs::read_dir(to).expect("a folder").count(), 1, "nothing is left beside it");
    }
    seeder.signal(Signal::INT);
    assert_eq!(seeder.wait_for_end(), Some(0), "Ctrl-C is the usual end: {}", seeder.err());
}

#[test]
fn a_folder_is_fetched_with_all_that_is_in_it() {
    let dir = scene();
    let root = dir.path().join("source/photos");
    fs::create_dir_all(root.join("2026/may")).expect("a folder");
    let files = [("a.jpg", 100_000), ("2026/b.jpg", 0), ("2026/may/c d.jpg", 70_001), ("z", 1)];
    for (path, size) in files {
        fs::write(root.join(path), content(size)).expect("a file");
    }
    std::os::unix::fs::symlink("a.jpg", root.join("link.jpg")).expect("a link");
    let (seeder, _) = share(dir.path(), "source/photos", &["--piece", "16K"]);
    assert!(seeder.err().contains("left out of photos") && seeder.err().contains("link.jpg"));
    ok(&["fetch", "ticket", "--to", "there"], dir.path());
    for (path, size) in files {
        let file = fs::read(dir.path().join("there/photos").join(path)).expect("a file");
        assert!(file == content(size), "{path}");
    }
    assert!(!dir.path().join("there/photos/link.jpg").exists());
    let entries = fs::read_dir(dir.path().join("there")).expect("a folder").count();
    assert_eq!(entries, 1, "nothing is left beside it");
}

#[test]
fn content_of_no_bytes_and_of_one_is_fetched() {
    let dir = scene();
    for size in [0, 1] {
        let name = format!("source/of-{size}");
        fs::write(dir.path().join(&name), content(size)).expect("a file");
        let (_seeder, ticket) = share(dir.path(), &name, &[]);
        ok(&["fetch", &ticket], dir.path());
        let fetched = fs::read(dir.path().join(format!("of-{size}"))).expect("a file");
        assert_eq!(fetched, content(size));
    }
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let dir = scene();
    let bytes = content(24 << 20);
    fs::write(dir.path().join("source/big"), &bytes).expect("a file");
    let (_seeder, _) = share(dir.path(), "source/big", &["--piece", "64K", "--up", "8M"]);
    let args = ["fetch", "ticket", "--to", "there"];
    let leecher = Process::start(&peer_exe(), &args, dir.path());
    let have = |out: &str| lines(out).iter().filter_map(|it| it["have"].as_u64()).max();
    let is_under_way = eventually(|| {
        let out = leecher.out();
        let whole = out.rfind('\n').map_or("", |at| &out[..at]);
        have(whole) > Some(100)
    });
    assert!(is_under_way, "{}", leecher.out());
    let out = leecher.out();
    let before = have(out.rsplit_once('\n').expect("lines").0).expect("some");
    drop(leecher);
    let there = dir.path().join("there");
    assert!(!there.join("big").exists(), "nothing has the final name before it is whole");
    let out = ok(&args, dir.path());
    let kept = out[0]["have"].as_u64().expect("a number");
    let fetched = last(&out)["down_bytes"].as_u64().expect("a number") / 65_536;
    println!("{before} of 384 pieces when it was killed, {kept} were kept, {fetched} fetched then");
    assert!(kept >= before && kept + fetched <= 384 + 2, "{before} {kept} {fetched}");
    assert!(fs::read(there.join("big")).expect("a file") == bytes, "the same bytes");
}

#[test]
fn a_file_that_changed_under_the_seeder_is_never_believed() {
    let dir = scene();
    let bytes = content(1 << 20);
    let path = dir.path().join("source/big");
    fs::write(&path, &bytes).expect("a file");
    let (_seeder, _) = share(dir.path(), "source/big", &["--piece", "64K"]);
    // In place and of the same size: only its hashes, or its time, can tell.
    let mut file = fs::File::options().write(true).open(&path).expect("a file");
    file.write_all(&content(1 << 19)).expect("it can be changed");
    let args = ["fetch", "ticket", "--to", "there", "--give-up", "2s"];
    let (code, out, err) = run(&peer_exe(), &args, dir.path());
    assert_eq!(code, Some(1), "{out}\n{err}");
    assert!(!dir.path().join("there/big").exists(), "what is false gets no name");
}

/// Starts a relay between a leecher and an honest seeder, which seems a peer of its own: all passes
/// but pieces, of which only their length is true. Returns its address.
fn liar(honest: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    spawn("liar", move || {
        while let Ok((leecher, _)) = listener.accept() {
            // Whatever ends one connection, the next may come.
            let _ = lie(leecher, honest);
        }
    })
    .expect("a thread can be started");
    addr
}

fn lie(mut leecher: TcpStream, honest: SocketAddr) -> io::Result<()> {
    let mut seeder = TcpStream::connect(honest)?;
    // Other ids than the true ones, which the other end knows already.
    for (from, to, id) in [(&leecher, &seeder, 7_u32), (&seeder, &leecher, 13)] {
        let (mut from, mut to, mut hello) = (from, to, [0; 64]);
        from.read_exact(&mut hello)?;
        hello[28..32].copy_from_slice(&id.to_be_bytes());
        to.write_all(&hello)?;
    }
    let (mut asks, mut asked) = (leecher.try_clone()?, seeder.try_clone()?);
    spawn("liar:up", move || io::copy(&mut asks, &mut asked))?;
    spawn("liar:down", move || -> io::Result<()> {
        loop {
            let mut head = [0; 5];
            seeder.read_exact(&mut head)?;
            let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let mut rest = vec![0; len - 1];
            seeder.read_exact(&mut rest)?;
            if head[4] == 7 {
                rest[4..].fill(0);
            }
            leecher.write_all(&[&head[..], &rest].concat())?;
        }
    })?;
    Ok(())
}

#[test]
fn a_lying_seeder_is_named_and_costs_one_piece() {
    let dir = scene();
    let bytes = content(4 << 20);
    fs::write(dir.path().join("source/big"), &bytes).expect("a file");
    let (_seeder, ticket) = share(dir.path(), "source/big", &["--piece", "64K", "--up", "2M"]);
    let honest: Ticket = ticket.parse().expect("a ticket");
    let honest = SocketAddr::new(honest.at[0].ip(), honest.at[0].port());
    let liar = liar(honest).to_string();
    let out = ok(&["fetch", &ticket, "--at", &liar, "--to", "there"], dir.path());
    let told: Vec<_> = out.iter().filter_map(|it| it["message"].as_str()).collect();
    let named = told.iter().filter(|it| it.contains("peer 0000000d sent a false piece")).count();
    assert_eq!(named, 1, "{told:?}");
    assert!(fs::read(dir.path().join("there/big")).expect("a file") == bytes, "the same bytes");
    let fetched = last(&out)["down_bytes"].as_u64().expect("a number");
    assert!(fetched <= (4 << 20) + 2 * 65_536, "it cost more than a piece: {fetched}");
}

#[test]
fn a_file_that_is_too_large_for_a_limit_is_a_clear_stop_that_goes_on_later() {
    let dir = scene();
    let bytes = content(3 << 20);
    fs::write(dir.path().join("source/big"), &bytes).expect("a file");
    let (_seeder, _) = share(dir.path(), "source/big", &["--piece", "64K"]);
    // Not even the signal that comes with such a limit ends the process without a word.
    let shell = script(&dir.path().join("limited"), "ulimit -c 0\nulimit -f 2048\nexec \"$@\"");
    let exe = peer_exe();
    let exe = exe.to_str().expect("a plain path");
    let (code, out, err) = run(&shell, &[exe, "fetch", "ticket", "--to", "there"], dir.path());
    assert_eq!(code, Some(1), "{out}\n{err}");
    assert!(err.contains("larger than") && err.contains("ulimit -f"), "{err}");
    assert!(!dir.path().join("there/big").exists());
    ok(&["fetch", "ticket", "--to", "there"], dir.path());
    assert!(fs::read(dir.path().join("there/big")).expect("a file") == bytes, "the same bytes");
}

#[test]
fn tickets_that_lead_elsewhere_or_are_damaged_are_refused() {
    let dir = scene();
    let root = "0".repeat(64);
    let ticket = |name: &str| format!("folkmoot:share?name={name}&size=1&piece=16384&root={root}");
    for name in ["..", "a%2Fb", "%2Fetc", "", "a%00b"] {
        let (code, _, err) = run(&peer_exe(), &["fetch", &ticket(name)], dir.path());
        assert_eq!(code, Some(2), "{name}: {err}");
        assert!(err.contains("name") && err.contains("copy the whole ticket"), "{name}: {err}");
    }
    let (code, _, err) = run(&peer_exe(), &["fetch", "folkmoot:share?name=a"], dir.path());
    assert!(code == Some(2) && err.contains("size"), "{err}");
    let (code, _, err) = run(&peer_exe(), &["fetch", "no-such-file"], dir.path());
    assert!(code == Some(2) && err.contains("no-such-file"), "{err}");
    let (code, _, err) = run(&peer_exe(), &["fetch", &ticket("a")], dir.path());
    assert!(code == Some(2) && err.contains("--at"), "{err}");
    let entries = fs::read_dir(dir.path()).expect("a folder").count();
    assert_eq!(entries, 1, "nothing was written");
}

#[test]
fn a_ticket_that_nobody_answers_ends_with_a_reason() {
    let dir = scene();
    fs::write(dir.path().join("source/a"), "text").expect("a file");
    let (seeder, ticket) = share(dir.path(), "source/a", &[]);
    drop(seeder);
    let args = ["fetch", &ticket, "--to", "there", "--give-up", "1s"];
    let (code, out, err) = run(&peer_exe(), &args, dir.path());
    assert_eq!(code, Some(1), "{out}\n{err}");
    assert!(err.contains("nobody who has the rest came in time"), "{err}");
    assert!(lines(&out).iter().any(|it| it["event"] == "notice"), "{out}");
}

#[test]
fn what_has_the_name_already_is_not_touched() {
    let dir = scene();
    fs::write(dir.path().join("source/a"), "text").expect("a file");
    let (_seeder, _) = share(dir.path(), "source/a", &[]);
    fs::write(dir.path().join("a"), "mine").expect("a file");
    let (code, _, err) = run(&peer_exe(), &["fetch", "ticket"], dir.path());
    assert!(code == Some(1) && err.contains("exists already"), "{err}");
    assert_eq!(fs::read_to_string(dir.path().join("a")).expect("a file"), "mine");
}

#[test]
fn a_rate_holds_and_the_course_is_drawn() {
    let dir = scene();
    fs::write(dir.path().join("source/big"), content(4 << 20)).expect("a file");
    let (_seeder, _) = share(dir.path(), "source/big", &["--piece", "64K"]);
    let args = ["fetch", "ticket", "--to", "there", "--down", "2M", "--timeline", "course.html"];
    let out = ok(&args, dir.path());
    let seconds = last(&out)["seconds"].as_f64().expect("a number");
    // A second's worth may come at once.
    assert!(seconds > 0.9, "4 MiB at 2 MiB/s took {seconds} s");
    let page = fs::read_to_string(dir.path().join("course.html")).expect("a page");
    assert!(page.contains("64 of 64 pieces (4.00 MiB)"), "{page}");
}

#[test]
fn what_is_shared_here_is_listed() {
    let dir = scene();
    let runtime = dir.path().join("runtime");
    fs::create_dir(&runtime).expect("a folder");
    fs::write(dir.path().join("source/a"), "text").expect("a file");
    let shell = script(&dir.path().join("apart"), "XDG_RUNTIME_DIR=\"$PWD/runtime\" exec \"$@\"");
    let exe = peer_exe();
    let exe = exe.to_str().expect("a plain path");
    let mut seeder = Process::start(&shell, &[exe, "share", "source/a"], dir.path());
    seeder.wait_for("\n");
    let shares = || {
        let (code, out, err) = run(&shell, &[exe, "shares", "--json"], dir.path());
        assert_eq!(code, Some(0), "{err}");
        lines(&out)
    };
    let is_listed = eventually(|| shares().len() == 1);
    let listed = shares();
    assert!(is_listed && listed[0]["ticket"] == seeder.out().trim(), "{listed:?}");
    assert_eq!((&listed[0]["kind"], &listed[0]["pid"]), (&"share".into(), &seeder.pid().into()));
    let (_, table, _) = run(&shell, &[exe, "shares"], dir.path());
    assert!(table.contains("NAME") && table.contains("1/1"), "{table}");
    seeder.signal(Signal::TERM);
    assert_eq!(seeder.wait_for_end(), Some(0));
    assert_eq!(shares(), Vec::<Value>::new());
}

#[test]
fn a_fetch_that_stays_serves_others() {
    let dir = scene();
    let bytes = content(1 << 20);
    fs::write(dir.path().join("source/big"), &bytes).expect("a file");
    let (seeder, ticket) = share(dir.path(), "source/big", &[]);
    let args = ["fetch", &ticket, "--to", "one", "--stay", "--port", "0"];
    let second = Process::start(&peer_exe(), &args, dir.path());
    second.wait_for("\"complete\"");
    let at = lines(&second.out())[0]["listen"].as_str().expect("an address").to_owned();
    drop(seeder);
    ok(&["fetch", &ticket, "--at", &at, "--to", "two"], dir.path());
    assert!(fs::read(dir.path().join("two/big")).expect("a file") == bytes, "the same bytes");
}

#[test]
fn modes_times_and_empty_folders_arrive_and_what_cannot_travel_is_said() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = scene();
    let root = dir.path().join("source/rel");
    fs::create_dir_all(root.join("empty/deep")).expect("a folder");
    let files = [("tool", 0o755), ("key", 0o600), ("aux.c", 0o644), ("12:00 \\ a\nb.", 0o644)];
    for (name, mode) in files {
        fs::write(root.join(name), name).expect("a file");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(981_173_106);
    let tool = fs::File::options().write(true).open(root.join("tool")).expect("a file");
    tool.set_modified(old).expect("a time");
    let bad = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9");
    fs::write(root.join(bad), "x").expect("a file");
    let (seeder, _) = share(dir.path(), "source/rel", &[]);
    assert!(seeder.err().contains("UTF-8") && seeder.err().contains("this machine only"));
    ok(&["fetch", "ticket", "--to", "there"], dir.path());
    let there = dir.path().join("there/rel");
    assert!(there.join("empty/deep").is_dir());
    for (name, mode) in files {
        let meta = fs::metadata(there.join(name)).expect("it is there");
        assert_eq!(meta.mode() & 0o711, mode & 0o711, "{name:?}");
    }
    assert_eq!(fs::metadata(there.join("key")).expect("a file").mode() & 0o077, 0);
    assert_eq!(fs::metadata(there.join("tool")).expect("a file").mtime(), 981_173_106);
    // What was fetched is the same share when it is shared again.
    let (again, ticket) = share(dir.path(), "there/rel", &[]);
    let first = seeder.out().trim().parse::<Ticket>().expect("a ticket").share_id();
    assert_eq!(ticket.parse::<Ticket>().expect("a ticket").share_id(), first);
    drop(again);
}

#[test]
fn what_is_there_already_is_a_success_and_can_be_served() {
    let dir = scene();
    let bytes = content(700_000);
    fs::write(dir.path().join("source/big"), &bytes).expect("a file");
    let (seeder, ticket) = share(dir.path(), "source/big", &[]);
    ok(&["fetch", &ticket, "--to", "one"], dir.path());
    drop(seeder);
    let out = ok(&["fetch", &ticket, "--to", "one"], dir.path());
    assert_eq!((&last(&out)["event"], &last(&out)["down_bytes"]), (&"complete".into(), &0.into()));
    let args = ["fetch", &ticket, "--to", "one", "--stay"];
    let second = Process::start(&peer_exe(), &args, dir.path());
    second.wait_for("\"complete\"");
    let at = lines(&second.out())[0]["listen"].as_str().expect("an address").to_owned();
    ok(&["fetch", &ticket, "--at", &at, "--to", "two"], dir.path());
    assert!(fs::read(dir.path().join("two/big")).expect("a file") == bytes, "the same bytes");
}

#[test]
fn a_seeder_whose_file_was_touched_goes_on_and_one_whose_file_was_changed_says_so() {
    use std::os::unix::fs::FileExt as _;
    let dir = scene();
    let path = dir.path().join("source/big");
    fs::write(&path, content(700_000)).expect("a file");
    let (mut seeder, ticket) = share(dir.path(), "source/big", &[]);
    let file = fs::File::options().write(true).open(&path).expect("a file");
    let time = file.metadata().and_then(|it| it.modified()).expect("a time");
    file.set_modified(std::time::UNIX_EPOCH).expect("a time");
    ok(&["fetch", &ticket, "--to", "one"], dir.path());
    file.write_all_at(b"other", 600_000).expect("it can be written");
    file.set_modified(time).expect("a time");
    let args = ["fetch", &ticket, "--to", "two", "--give-up", "2s"];
    let (code, out, err) = run(&peer_exe(), &args, dir.path());
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("does not offer this any more") && !out.contains("false"), "{out}");
    assert!(err.contains("a new ticket is needed") && !err.contains("fetch it again"), "{err}");
    assert_ne!(seeder.wait_for_end(), Some(0));
    assert!(seeder.err().contains("was changed since"), "{}", seeder.err());
    let (_seeder, fresh) = share(dir.path(), "source/big", &["--rehash"]);
    assert_ne!(fresh, ticket);
    ok(&["fetch", &fresh, "--to", "three"], dir.path());
}

#[test]
fn a_pipe_is_no_file_with_a_ticket() {
    let dir = scene();
    let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status();
    assert!(made.is_ok_and(|it| it.success()));
    let (code, _, err) = run(&peer_exe(), &["fetch", "pipe"], dir.path());
    assert!(code != Some(0) && err.contains("it is a pipe"), "{err}");
}
