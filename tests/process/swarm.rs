//! `peer swarm` with real processes: the milestones, the files of the assignment word for word,
//! deaths in the middle, other people's programs beside it, and every line of every log.

#![allow(clippy::print_stdout, reason = "a test that shows nothing must say so")]

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use support::course::{Course, Entry};
use support::foreign::{Foreign, Quirks, Seat};
use support::hosts::{Net, obstacle};
use support::peer_exe;
use support::process::{Process, eventually, run};

// The milestones of the assignment's plan, by their names.

#[test]
fn milestone_1_local_startup_and_handshake() {
    let mut course = Course::new(2, &[1001], 100_000, 16_384);
    course.start_all();
    course.finish();
    let (one, two) = (course.log(1001), course.log(1002));
    let called: Vec<_> = one.iter().filter(|it| it.kind == "called").collect();
    assert_eq!(called.len(), 1, "{}", course.told(1001));
    assert_eq!(called[0].numbers, [1002]);
    assert_eq!((two[0].kind, &two[0].numbers[..]), ("dialed", &[1001][..]));
    assert!(one.iter().all(|it| it.kind != "dialed") && two.iter().all(|it| it.kind != "called"));
}

#[test]
fn milestone_2_bitfield_and_interest_flow() {
    let mut course = Course::new(2, &[1001], 100_000, 16_384);
    course.start_all();
    course.finish();
    let one: Vec<_> = course.log(1001).into_iter().map(|it| (it.kind, it.numbers)).collect();
    let interested = one.iter().position(|it| *it == ("interested", vec![1002]));
    let not_any_more = one.iter().position(|it| *it == ("not interested", vec![1002]));
    let not_any_more = not_any_more.expect("it has everything in the end");
    assert!(interested.expect("it learnt from a bitfield what is there") < not_any_more);
    assert!(!course.log(1002).iter().any(|it| it.kind == "interested"), "1001 lacks nothing");
}

#[test]
fn milestone_3_temporary_piece_transfer() {
    let mut course = Course::new(3, &[1001], 10 * 16_384 + 1, 16_384);
    // The two leechers are connected before there is anything to be had.
    course.start(1002);
    course.start(1003);
    course.wait_log(1003, "dialed", 1);
    course.wait_log(1002, "called", 1);
    course.start(1001);
    course.finish();
    for peer in [1002, 1003] {
        let log = course.log(peer);
        let at = |kind: &str| log.iter().position(|it| it.kind == kind);
        assert!(at("unchoked").expect("unchoked") < at("piece").expect("a piece"));
        let other = if peer == 1002 { 1003 } else { 1002 };
        let told: BTreeSet<_> =
            log.iter().filter(|it| it.kind == "have" && it.numbers[0] == other).collect_pieces();
        assert_eq!(told.len(), 11, "each piece of the other is told: {}", course.told(peer));
    }
    let seen: BTreeSet<_> = course.log(1001).iter().filter(|it| it.kind == "have").collect_pieces();
    assert_eq!(seen.len(), 11);
}

/// The pieces of `have` lines.
trait Pieces {
    fn collect_pieces(self) -> BTreeSet<u32>;
}

impl<'a, I: Iterator<Item = &'a support::course::Entry>> Pieces for I {
    fn collect_pieces(self) -> BTreeSet<u32> {
        self.map(|it| it.numbers[1]).collect()
    }
}

#[test]
fn milestone_4_full_local_swarm_on_one_machine() {
    let mut course = Course::new(5, &[1001], 2_167_705, 16_384);
    course.start_all();
    course.finish();
    course.check_unchoked();
    let between: usize = (1002..=1005)
        .map(|it| {
            course.log(it).iter().filter(|it| it.kind == "piece" && it.numbers[1] != 1001).count()
        })
        .sum();
    assert!(between > 0, "the leechers gave each other nothing");
    println!("{between} of {} pieces came from leechers", 4 * 133);
}

#[test]
fn milestone_5_three_hosts_in_network_namespaces() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: network namespaces cannot be made here: {obstacle}");
        return;
    }
    let net = Net::with_hosts(3).expect("three hosts");
    let seat = |turn: u32| Seat { id: 1001 + turn, port: 6008, has_file: turn == 0 };
    // The same port everywhere: only several hosts can do that.
    let mut course =
        Course::with(("localhost", (0..3).map(seat).collect()), 24 * 32_768 + 17, 32_768);
    let lines = (0..3).map(|host| {
        let address = Net::address(host);
        format!("{} {address} 6008 {}\n", 1001 + host, u8::from(host == 0))
    });
    course.write("PeerInfo.cfg", &lines.collect::<String>());
    for (host, peer) in [(2, 1003), (0, 1001), (1, 1002)] {
        course.start_by(net.command(host, &peer_exe()), peer);
    }
    course.finish();
    course.check_unchoked();
}

// The files as they are handed out.

#[test]
fn the_three_line_peer_info_runs_verbatim() {
    if let Some(obstacle) = obstacle() {
        println!("skipped: network namespaces cannot be made here: {obstacle}");
        return;
    }
    let net = Net::with_hosts(1).expect("a host on which ports 6001 to 6003 are free");
    let seat =
        |turn: u16| Seat { id: 1001 + u32::from(turn), port: 6001 + turn, has_file: turn == 0 };
    let mut course = Course::with(("localhost", (0..3).map(seat).collect()), 300_001, 16_384);
    course.write(
        "PeerInfo.cfg",
        "1001 localhost 6001 1\n1002 localhost 6002 0\n1003 localhost 6003 0",
    );
    for peer in course.ids() {
        course.start_by(net.command(0, &peer_exe()), peer);
    }
    course.finish();
}

#[test]
fn all_six_lines_of_the_classic_example_run_with_its_numbers() {
    let mut course = Course::new(6, &[1001], 10_000_232, 32_768).choking((2, 5, 15));
    course.start_all();
    course.finish();
    course.check_unchoked();
}

#[test]
fn peers_may_start_in_any_order() {
    for order in [[1004, 1003, 1002, 1001], [1002, 1004, 1001, 1003]] {
        let mut course = Course::new(4, &[1001, 1003], 200_000, 16_384);
        for peer in order {
            course.start(peer);
            // It listens before the next one starts, who may find it alone.
            course.wait_out(peer, "listens");
        }
        course.finish();
    }
}

#[test]
fn thirty_peers_on_one_host_all_end_with_the_file() {
    let mut course = Course::new(30, &[1001], 40 * 8_192 + 5, 8_192).choking((3, 1, 1));
    course.start_all();
    course.finish();
    course.check_unchoked();
}

#[test]
fn a_killed_peer_goes_on_where_it_was() {
    let mut course = Course::new(3, &[1001], 8_000_000, 4_096).choking((2, 1, 2));
    course.start_all();
    course.wait_log(1002, "piece", 300);
    course.kill(1002);
    let before = course.log(1002);
    course.start(1002);
    course.wait_log(1003, "piece", 600);
    course.kill(1003);
    course.start(1003);
    for peer in course.ids() {
        assert_eq!(course.end_of(peer), Some(0), "{}", course.told(peer));
        course.check_file(peer);
    }
    // What was on disk and proven at the restart was not fetched again. Lines of the log that
    // were not yet written at the kill are lost, but not the pieces that they tell of.
    let pieces = |log: &[Entry]| -> Vec<u32> {
        log.iter().filter(|it| it.kind == "piece").map(|it| it.numbers[0]).collect()
    };
    let log = course.log(1002);
    assert!(log.len() > before.len(), "the log goes on");
    let later = pieces(&log[before.len()..]);
    let had = course.had_at_start(1002);
    assert_eq!(had + later.len(), 8_000_000_usize.div_ceil(4_096), "had and fetched");
    // Fetched twice is at most what the disk was not yet told to keep.
    let earlier: BTreeSet<_> = pieces(&before).into_iter().collect();
    let again = later.iter().filter(|it| earlier.contains(it)).count();
    println!("{had} pieces were there at the restart, {again} were fetched twice");
    assert!(again < 64, "{again} pieces were fetched twice");
}

#[test]
fn a_source_that_is_killed_comes_back_and_all_end() {
    let mut course = Course::new(3, &[1001], 4_000_000, 4_096);
    // Nobody ends before the last peer has the file, so there is somebody to come back to.
    course.start(1001);
    course.start(1003);
    course.wait_log(1003, "piece", 100);
    course.kill(1001);
    course.start(1001);
    course.start(1002);
    course.finish();
}

#[test]
fn files_of_every_awkward_size_are_distributed() {
    for (size, piece) in [(0, 16), (1, 16), (16, 16), (17, 16), (7 * 16, 16), (8 * 16 + 15, 16)] {
        let mut course = Course::new(3, &[1001], size, piece);
        course.start_all();
        course.finish();
    }
}

#[test]
fn everybody_has_the_file_from_the_start_and_all_end() {
    let mut course = Course::new(3, &[1001, 1002, 1003], 100_000, 16_384);
    course.start_all();
    course.finish();
}

#[test]
fn a_peer_alone_with_the_file_ends_at_once() {
    let mut course = Course::new(1, &[1001], 100_000, 16_384);
    course.start_all();
    course.finish();
}

#[test]
fn a_peer_that_never_comes_is_reported_after_the_time_limit() {
    let course = Course::new(3, &[1001], 100_000, 16_384);
    let exe = peer_exe();
    let args = ["swarm", "1002", "--give-up", "2s"];
    let mut source = Process::start(&exe, &["swarm", "1001", "--give-up", "2s"], course.dir());
    let (code, _, err) = run(&exe, &args, course.dir());
    assert_eq!(code, Some(1));
    assert!(err.contains("peer 1003 was not seen"), "{err}");
    assert_eq!(source.wait_for_end(), Some(1));
    course.check_file(1002);
    let (code, _, err) = run(&exe, &["swarm", "1003", "--give-up", "1s"], course.dir());
    assert_eq!(code, Some(1));
    assert!(err.contains("not complete"), "{err}");
}

// Other people's programs.

/// Runs a swarm of ours with one foreign peer of these habits, as a leecher and as the source.
#[track_caller]
fn mixed(quirks: Quirks) {
    for source in [1001, 1002] {
        among_ours(&[1002], source, quirks);
    }
}

/// Runs a swarm of five in which these are foreign.
#[track_caller]
fn among_ours(foreign: &[u32], source: u32, quirks: Quirks) {
    let mut course = Course::new(5, &[source], 23 * 4_096 + 100, 4_096);
    let start = |it: &u32| Foreign::start(*it, &course.seats, &course.content, 4_096, quirks);
    let others: Vec<_> = foreign.iter().map(start).collect();
    for peer in course.ids().into_iter().filter(|it| !foreign.contains(it)) {
        course.start(peer);
    }
    course.finish();
    for peer in others {
        assert!(peer.finish() == course.content, "the foreign peer has other bytes");
    }
}

#[test]
fn plain_foreign_peers_are_understood() {
    for source in [1001, 1002] {
        among_ours(&[1002, 1004], source, Quirks::default());
    }
}

#[test]
fn ids_in_ascii_and_garbage_in_the_handshake_are_taken() {
    mixed(Quirks { ascii_id: true, dirty_handshake: true, ..Quirks::default() });
}

#[test]
fn a_foreign_peer_without_a_bitfield_is_understood() {
    mixed(Quirks { no_bitfield: true, ..Quirks::default() });
}

#[test]
fn a_late_bitfield_is_taken() {
    mixed(Quirks { late_bitfield: true, ..Quirks::default() });
}

#[test]
fn a_bitfield_of_the_wrong_length_with_spare_bits_loses_nothing() {
    mixed(Quirks { sloppy_bitfield: true, ..Quirks::default() });
}

#[test]
fn have_storms_are_borne() {
    mixed(Quirks { have_storm: true, ..Quirks::default() });
}

#[test]
fn who_never_says_that_it_is_not_interested_does_not_keep_us() {
    mixed(Quirks { never_not_interested: true, ..Quirks::default() });
}

#[test]
fn who_never_speaks_of_interest_gets_the_file_all_the_same() {
    mixed(Quirks { never_interested: true, ..Quirks::default() });
}

#[test]
fn a_padded_last_piece_is_cut() {
    mixed(Quirks { pads_last: true, ..Quirks::default() });
}

#[test]
fn an_unknown_message_and_one_byte_at_a_time_are_borne() {
    mixed(Quirks { extra_message: true, byte_by_byte: true, ..Quirks::default() });
}

#[test]
fn chokes_in_the_middle_cost_no_piece() {
    mixed(Quirks { restless: true, ..Quirks::default() });
}

#[test]
fn who_leaves_as_soon_as_it_is_complete_does_not_keep_the_others() {
    // The source is ours: what only a foreign peer has would leave with it. All have met before
    // there is anything to be had: who has left before is never known to be complete.
    let mut course = Course::new(4, &[1001], 23 * 4_096 + 100, 4_096);
    let quirks = Quirks { leaves_early: true, ..Quirks::default() };
    let foreign = |it| Foreign::start(it, &course.seats, &course.content, 4_096, quirks);
    let foreign = [foreign(1002), foreign(1004)];
    course.start(1003);
    course.wait_log(1003, "dialed", 1);
    course.wait_log(1003, "called", 1);
    course.start(1001);
    course.finish();
    for peer in foreign {
        assert!(peer.finish() == course.content, "the foreign peer has other bytes");
    }
}

#[test]
fn who_calls_those_behind_it_in_the_list_is_taken() {
    // 1001 calls everybody, and ours call it as well: one connection with each must stay.
    let mut course = Course::new(3, &[1001], 23 * 4_096 + 100, 4_096);
    let quirks = Quirks { reversed: true, ..Quirks::default() };
    let foreign = Foreign::start(1001, &course.seats, &course.content, 4_096, quirks);
    course.start(1002);
    course.start(1003);
    course.finish();
    assert!(foreign.finish() == course.content, "the foreign peer has other bytes");
}

// What is wrong is said, with file, line and remedy.

/// Starts peer 1002 of a course that was spoiled, and returns its exit code and complaint.
#[track_caller]
fn spoiled(spoil: impl FnOnce(&Course)) -> (Option<i32>, String) {
    let course = Course::new(3, &[1001, 1002], 1_000, 100);
    spoil(&course);
    let (code, _, err) = run(&peer_exe(), &["swarm", "1002", "--give-up", "1s"], course.dir());
    (code, err)
}

#[test]
fn files_that_are_wrong_are_named_with_line_and_remedy() {
    let remove = |name: &'static str| {
        move |course: &Course| fs::remove_file(course.dir().join(name)).expect("it was there")
    };
    let (code, err) = spoiled(remove("Common.cfg"));
    assert!(code == Some(2) && err.contains("Common.cfg") && err.contains("create it"), "{err}");
    let (code, err) = spoiled(remove("PeerInfo.cfg"));
    assert!(code == Some(2) && err.contains("PeerInfo.cfg") && err.contains("create it"), "{err}");
    let (code, err) = spoiled(|it| it.write("Common.cfg", "FileName a\nFileName b\n"));
    assert!(code == Some(2) && err.contains("Common.cfg, line 2:"), "{err}");
    let (code, err) = spoiled(|it| it.write("PeerInfo.cfg", "1001 localhost 6001 1\n1002 x\n"));
    assert!(code == Some(2) && err.contains("PeerInfo.cfg, line 2:"), "{err}");
    let (code, err) = spoiled(|it| it.write("PeerInfo.cfg", "1001 localhost 6001 1\n"));
    assert!(code == Some(2) && err.contains("does not list peer 1002"), "{err}");
    let (code, err) = spoiled(|it| {
        it.write("PeerInfo.cfg", "1001 no-such-host.invalid 6001 1\n1002 localhost 6002 0\n");
    });
    assert!(code == Some(2) && err.contains("PeerInfo.cfg, line 1:"), "{err}");
}

#[test]
fn a_file_that_is_not_as_announced_is_named() {
    for (len, said) in [(999, "999"), (1_001, "1001")] {
        let (code, err) = spoiled(|it| {
            fs::write(it.dir().join("peer_1002/TheFile.dat"), vec![0; len]).expect("a file");
        });
        let names = err.contains("TheFile.dat") && err.contains(said) && err.contains("1000");
        assert!(code == Some(1) && names, "{code:?} {err}");
    }
    let (code, err) = spoiled(|it| {
        fs::remove_file(it.dir().join("peer_1002/TheFile.dat")).expect("it was there");
    });
    assert!(code == Some(1) && err.contains("peer_1002/TheFile.dat"), "{code:?} {err}");
}

#[test]
fn a_folder_named_by_the_number_alone_is_taken() {
    let mut course = Course::new(2, &[1001], 1_000, 100);
    let at = |name: &str| course.dir().join(name);
    fs::rename(at("peer_1001"), at("1001")).expect("it was there");
    fs::create_dir(at("1002")).expect("a folder");
    course.start_all();
    course.finish();
    assert!(!course.dir().join("peer_1001").exists() && !course.dir().join("peer_1002").exists());
}

#[test]
fn a_port_that_is_taken_and_a_folder_that_cannot_be_written_are_named() {
    let (code, err) = spoiled(|it| {
        let port = it.seats[1].port;
        // For as long as this test's process lives.
        Box::leak(Box::new(TcpListener::bind(("127.0.0.1", port)).expect("it is free")));
    });
    assert!(code == Some(1) && err.contains("cannot listen on"), "{code:?} {err}");
    let course = Course::new(3, &[1001], 1_000, 100);
    course.write("peer_1002", "a file where a folder should be");
    let (code, _, err) = run(&peer_exe(), &["swarm", "1002"], course.dir());
    assert!(code == Some(1) && err.contains("peer_1002"), "{code:?} {err}");
    let course = Course::new(3, &[1001], 1_000, 100);
    fs::create_dir(course.dir().join("log_peer_1001.log")).expect("a folder");
    let (code, _, err) = run(&peer_exe(), &["swarm", "1001"], course.dir());
    assert!(code == Some(1) && err.contains("log_peer_1001.log"), "{code:?} {err}");
}

#[test]
fn two_files_of_one_name_are_no_trap() {
    // A link in the place of the file would be written through.
    let course = Course::new(2, &[1001], 1_000, 100);
    let outside = tempfile::tempdir().expect("a directory");
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").expect("a file");
    fs::create_dir(course.dir().join("peer_1002")).expect("a folder");
    std::os::unix::fs::symlink(&victim, course.dir().join("peer_1002/TheFile.dat"))
        .expect("a link");
    let (code, _, err) = run(&peer_exe(), &["swarm", "1002"], course.dir());
    assert!(code == Some(1) && err.contains("TheFile.dat"), "{code:?} {err}");
    assert_eq!(fs::read_to_string(&victim).expect("a file"), "untouched");
}

// Watching it.

#[test]
fn a_running_swarm_tells_its_status() {
    let mut course = Course::new(3, &[1001], 100_000, 16_384);
    let runtime = tempfile::tempdir().expect("a directory");
    for peer in [1001, 1002] {
        let mut command = Command::new(peer_exe());
        command.env("XDG_RUNTIME_DIR", runtime.path());
        course.start_by(command, peer);
    }
    let status = || {
        let output = Command::new(peer_exe())
            .args(["swarm", "status", "--json"])
            .env("XDG_RUNTIME_DIR", runtime.path())
            .output()
            .expect("it can be run");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        text.lines().map(line).collect::<Vec<_>>()
    };
    // 1003 is missing, so they wait, and can be asked.
    course.wait_log(1002, "complete", 1);
    let mut last = Vec::new();
    let is_told = eventually(|| {
        last = status();
        last.len() == 2 && last.iter().all(|it| it["have"] == 7 && it["peers"] == 1)
    });
    assert!(is_told, "{last:?}");
    let ids: BTreeSet<_> = last.iter().filter_map(|it| it["id"].as_u64()).collect();
    assert_eq!(ids, BTreeSet::from([1001, 1002]), "{last:?}");
    course.start(1003);
    course.finish();
    assert_eq!(status(), Vec::<Value>::new());
}

#[test]
fn ctrl_c_ends_a_peer_with_a_reason() {
    let course = Course::new(2, &[1001], 100_000, 16_384);
    let mut alone = Process::start(&peer_exe(), &["swarm", "1001"], course.dir());
    alone.wait_for("listens");
    alone.signal(rustix::process::Signal::INT);
    assert_eq!(alone.wait_for_end(), Some(1), "{}", alone.err());
    assert!(alone.err().contains("SIGINT"), "{}", alone.err());
}

#[test]
fn the_console_speaks_json_on_request() {
    let course = Course::new(1, &[1001], 1_000, 100);
    let args = ["swarm", "1001", "--log-format", "json"];
    let (code, out, err) = run(&peer_exe(), &args, course.dir());
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<Value> = out.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect();
    let last = lines.last().expect("a line");
    assert_eq!((&last["event"], &last["role"]), (&"swarm_ended".into(), &"swarm".into()), "{last}");
    assert_eq!(last["node"], "1001", "{last}");
}
