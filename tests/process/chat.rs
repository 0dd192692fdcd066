//! `peer chat` with real processes: the demo scenarios and test procedures of the chat's document,
//! each item of its troubleshooting list, and what becomes of messages when members die.

use crate::support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use support::process::{eventually, run};
use support::talker::Talker;
use support::{peer_exe, ports};

/// A group on this machine, in a directory of its own.
struct Group {
    dir: tempfile::TempDir,
    base: u16,
}

impl Group {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("there is room"), base: ports() }
    }

    fn port(&self, id: u32) -> u16 {
        self.base + u16::try_from(id).expect("a small number")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a member; all but the first join by the first.
    fn start(&self, id: u32) -> Talker {
        let seed = format!("1:127.0.0.1:{}", self.port(1));
        if id == 1 { self.start_with(id, &[]) } else { self.start_with(id, &["--seed", &seed]) }
    }

    fn start_with(&self, id: u32, flags: &[&str]) -> Talker {
        let at = ("127.0.0.1", self.port(id));
        Talker::start(Command::new(peer_exe()), id, at, flags, self.dir.path())
    }

    /// Three of them, led by the third.
    fn of_three(&self) -> [Talker; 3] {
        let peers = [1, 2, 3].map(|id| self.start(id));
        // Whoever follows a leader is not one of the group yet.
        for id in [2, 3] {
            let joined = format!("peer_{id} at 127.0.0.1:{} has joined the group", self.port(id));
            peers[0].wait_for(&joined);
        }
        peers[0].wait_for("peer_3 leads in term");
        peers[1].wait_for("peer_3 leads in term");
        peers
    }

    /// Attaches plain lines to a member that runs here.
    fn attach(&self, id: u32, flags: &[&str]) -> Talker {
        Talker::attach(Command::new(peer_exe()), id, flags, self.dir.path())
    }

    fn ask(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let all: Vec<_> = ["chat"].iter().chain(args).copied().collect();
        run(&peer_exe(), &all, self.dir.path())
    }
}

// The quick start and the four scenarios.

#[test]
fn the_quick_start_comes_out_as_written() {
    let group = Group::new();
    let [mut one, mut two, mut three] = group.of_three();
    one.type_line("Hello from peer 1!");
    two.wait_for("<peer_1>: Hello from peer 1!");
    two.type_line("Hi from peer 2!");
    let texts = ["<peer_1>: Hello from peer 1!", "<peer_2>: Hi from peer 2!"];
    for peer in [&one, &two, &three] {
        peer.wait_for_messages(&texts);
    }
    assert!(eventually(|| one.messages() == three.messages()), "the numbers are the same");
    for (peer, role) in [(&mut one, "FOLLOWER"), (&mut two, "FOLLOWER"), (&mut three, "LEADER")] {
        peer.type_line("/status");
        peer.wait_for("Pending: 0");
        for line in [
            format!("\nPeer ID: {}\nRole: {role}\nTerm: ", peer.id),
            format!("\nAddress: 127.0.0.1:{}\nLeader: peer_3\n", group.port(peer.id)),
            "\nKnown peers: 2 (".to_owned(),
            "\nMajority: yes (3 of 3 reachable)\n".to_owned(),
        ] {
            assert!(peer.out().contains(&line), "{line:?} is not in {}", peer.out());
        }
    }
    one.type_line("/nope");
    one.wait_for("Unknown command: /nope; /help lists them");
    for peer in [three, two, one] {
        let out = peer.quit();
        let is_line = |line: &str| !line.contains("> [seq=") && !line.contains("> *");
        assert!(out.lines().all(is_line), "a line follows a prompt: {out}");
    }
}

#[test]
fn scenario_2_a_dead_leader_is_replaced_and_rejoins_with_all_messages() {
    let group = Group::new();
    let [mut one, two, mut three] = group.of_three();
    one.type_line("Before failure");
    three.wait_for("<peer_1>: Before failure");
    three.type_line("/quit");
    assert_eq!(three.wait_for_end(), Some(0));
    one.wait_for("peer_2 leads in term");
    one.type_line("After failure");
    two.wait_for("<peer_1>: After failure");
    let three = group.start(3);
    three.wait_for("<peer_1>: After failure");
    three.wait_for("peer_3 (this one) leads in term");
    one.type_line("Together");
    let texts = ["Before failure", "After failure", "Together"];
    let texts = texts.map(|it| format!("<peer_1>: {it}"));
    for peer in [&one, &two] {
        peer.wait_for_messages(&texts.each_ref().map(String::as_str));
    }
    three.wait_for("<peer_1>: Together");
    for peer in [three, two, one] {
        peer.quit();
    }
    let (code, out, err) = group.ask(&["verify", "--log-dir", "data/logs"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("equal: 3 logs"), "{out}");
}

#[test]
fn scenario_3_what_all_type_at_once_has_one_order() {
    let group = Group::new();
    let mut peers = group.of_three();
    for number in 1..=50 {
        for peer in &mut peers {
            peer.type_line(&format!("{number}"));
        }
    }
    for peer in &peers {
        assert!(eventually(|| peer.messages().len() >= 150), "{}", peer.out());
    }
    assert_eq!(peers[0].messages(), peers[1].messages());
    assert_eq!(peers[0].messages(), peers[2].messages());
    for id in 1..=3 {
        let head = format!("<peer_{id}>: ");
        let own = peers[0].messages();
        let own = own.iter().filter_map(|it| it.1.strip_prefix(&head));
        let order: Vec<_> = own.map(|it| it.parse::<u32>().unwrap()).collect();
        assert_eq!(order, (1..=50).collect::<Vec<_>>(), "in the order in which it typed them");
    }
}

#[test]
fn scenario_4_a_member_that_was_away_gets_what_it_missed() {
    let group = Group::new();
    let [mut one, mut two, three] = group.of_three();
    for text in ["msg1", "msg2"] {
        two.type_line(text);
        one.wait_for(&format!("<peer_2>: {text}"));
    }
    one.signal(Signal::INT);
    assert_eq!(one.wait_for_end(), Some(0), "{}", one.err());
    for text in ["msg3", "msg4"] {
        two.type_line(text);
        three.wait_for(&format!("<peer_2>: {text}"));
    }
    let mut one = group.start(1);
    one.wait_for_messages(&["<peer_2>: msg3", "<peer_2>: msg4"]);
    one.type_line("/history");
    let wanted = ["msg1", "msg2", "msg3", "msg4"];
    assert!(eventually(|| one.messages().len() == 6), "{}", one.out());
    let tail: Vec<_> = one.messages().split_off(2).into_iter().map(|it| it.1).collect();
    assert_eq!(tail, wanted.map(|it| format!("<peer_2>: {it}")));
}

#[test]
fn the_demo_passes_all_its_checks() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&peer_exe(), &["demo", "chat", "--keep", "kept"], dir.path());
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("the logs on disk are equal") && !out.contains("FAIL"), "{out}");
    assert!(dir.path().join("kept/logs/peer_1.log").exists());
}

#[test]
fn the_bench_finds_nothing_lost_although_the_leader_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["bench", "chat", "--messages", "300", "--clients", "4", "--kill-leader"];
    let (code, out, err) = run(&peer_exe(), &args, dir.path());
    assert_eq!(code, Some(0), "{out}{err}");
    let lines: Vec<Value> = out.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert!(lines.len() > 3, "{out}");
    let logs = lines.iter().find(|it| it["metric"] == "logs").expect("it says what is in them");
    assert_eq!((&logs["lost"], &logs["doubled"]), (&0.into(), &0.into()), "{out}");
    assert_eq!(logs["equal"], true, "{out}");
}

// Death, and what is typed meanwhile.

#[test]
fn a_leader_killed_under_load_costs_no_message_and_doubles_none() {
    let group = Group::new();
    let [mut one, mut two, mut three] = group.of_three();
    for number in 1..=400 {
        one.type_line(&format!("a{number}"));
        two.type_line(&format!("b{number}"));
        if number == 100 {
            three.type_line("last words");
            one.wait_for("<peer_3>: last words");
            three.signal(Signal::KILL);
        }
    }
    for peer in [&one, &two] {
        assert!(eventually(|| peer.messages().len() >= 801), "{}", peer.messages().len());
    }
    assert_eq!(one.messages(), two.messages());
    let texts: BTreeSet<_> = one.messages().into_iter().map(|it| it.1).collect();
    assert_eq!((texts.len(), one.messages().len()), (801, 801));
}

#[test]
fn what_is_typed_without_a_majority_is_kept_across_a_restart_and_sent_later() {
    let group = Group::new();
    let [mut one, two, three] = group.of_three();
    three.kill();
    one.wait_for("peer_2 leads in term");
    two.kill();
    one.wait_for("no majority is reached");
    one.type_line("alone");
    one.wait_for("* kept, and sent when a majority is reached");
    one.type_line("/quit");
    assert_eq!(one.wait_for_end(), Some(3), "{}", one.err());
    assert!(one.err().contains("1 message is not final; kept"), "{}", one.err());
    assert!(one.messages().is_empty(), "nothing is shown before a majority has it");
    let (one, two) = (group.start(1), group.start(2));
    one.wait_for_messages(&["<peer_1>: alone"]);
    two.wait_for_messages(&["<peer_1>: alone"]);
}

#[test]
fn the_end_of_input_waits_until_what_was_typed_is_final() {
    let group = Group::new();
    let one = group.start_with(1, &["--stay"]);
    one.wait_for("(this one) leads");
    let mut two = group.start(2);
    two.type_line("from a script");
    two.close_input();
    assert_eq!(two.wait_for_end(), Some(0), "{}", two.err());
    assert!(two.out().contains("<peer_2>: from a script"), "{}", two.out());
    one.wait_for("<peer_2>: from a script");
}

#[test]
fn with_stay_the_end_of_input_is_no_end_and_sigterm_is() {
    let group = Group::new();
    let mut one = group.start_with(1, &["--stay"]);
    one.close_input();
    let is_up = eventually(|| group.ask(&["status"]).0 == Some(0));
    assert!(is_up, "{}", one.err());
    let (code, out, _) = group.ask(&["send", "hello"]);
    assert_eq!((code, out.starts_with("final: seq ")), (Some(0), true), "{out}");
    one.wait_for("<peer_1>: hello");
    one.signal(Signal::TERM);
    assert_eq!(one.wait_for_end(), Some(0), "{}", one.err());
}

// Questions to a running one.

#[test]
fn programs_ask_a_running_member_and_get_json() {
    let group = Group::new();
    let peers = group.of_three();
    let json = |args: &[&str]| -> Value {
        let (code, out, err) = group.ask(args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    };
    let sent = json(&["send", "by a program", "--id", "2", "--room", "cats", "--json"]);
    let seq = sent["seq_no"].as_u64().unwrap();
    peers[0].wait_for(&format!("[seq={seq}] <peer_2> #cats: by a program"));
    let status = json(&["status", "--id", "1", "--json"]);
    assert_eq!((&status["role"], &status["leader"]), (&"FOLLOWER".into(), &3.into()));
    let history = json(&["history", "5", "--id", "3", "--json"]);
    assert_eq!(history[0]["payload"], "by a program");
    assert_eq!(history[0]["seq_no"], seq);
    let verdict = json(&["verify", "--id", "1", "--json"]);
    assert_eq!((&verdict["equal"], &verdict["compared"]), (&true.into(), &3.into()));
    let (code, _, err) = group.ask(&["status"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("name one of 1, 2, 3 with --id"), "{err}");
    let (code, _, err) = group.ask(&["status", "--id", "9"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("peer_9 does not run"), "{err}");
    let (code, _, err) = group.ask(&["send", "--id", "1", &"x".repeat(16_385)]);
    assert_eq!(code, Some(4));
    assert!(err.contains("at most 16384 bytes"), "{err}");
}

#[test]
fn a_removed_member_learns_it_and_never_comes_back_with_its_key() {
    let group = Group::new();
    let [mut one, mut two, _three] = group.of_three();
    one.type_line("/remove 9");
    one.wait_for("peer_9 is no member");
    one.type_line("/remove 2");
    one.wait_for("to remove it, type: yes peer_2");
    one.type_line("and so on");
    one.wait_for("peer_2 is not removed");
    one.wait_for("<peer_1>: and so on");
    one.type_line("/remove 2");
    one.type_line("yes peer_2");
    one.wait_for("peer_2 was removed from the group");
    assert_eq!(two.wait_for_end(), Some(1), "{}", two.out());
    assert!(two.err().contains("removed"), "{}", two.err());
    let mut again = group.start(2);
    assert_eq!(again.wait_for_end(), Some(1));
    assert!(again.err().contains("removed from this group for good"), "{}", again.err());
}

// Screens attached to a running one.

#[test]
fn attached_screens_say_and_show_the_same_and_end_alone() {
    let group = Group::new();
    let [mut one, mut two, three] = group.of_three();
    two.type_line("before");
    one.wait_for("<peer_2>: before");
    let mut screens = [group.attach(1, &["--id", "1"]), group.attach(1, &["--id", "1"])];
    for screen in &screens {
        screen.wait_for("* the group is peer_1, peer_2, peer_3\n* peer_3 leads in term ");
    }
    for number in 1..=20 {
        for (name, screen) in ["a", "b"].iter().zip(&mut screens) {
            screen.type_line(&format!("{name}{number}"));
        }
        one.type_line(&format!("c{number}"));
        two.type_line(&format!("d{number}"));
    }
    for peer in [&one, &three] {
        peer.wait_for_count(81);
    }
    let after = one.messages().split_off(1);
    for screen in &screens {
        assert!(eventually(|| screen.messages() == after), "{}", screen.out());
    }
    let own = after.iter().filter_map(|it| it.1.strip_prefix("<peer_1>: a"));
    assert!(own.eq((1..=20).map(|it| it.to_string())), "in the order in which it typed them");

    let [screen, other] = screens;
    let out = screen.quit();
    assert!(!out.contains("before"), "it begins with what comes: {out}");
    one.type_line("and on");
    other.wait_for("<peer_1>: and on");
    other.signal(Signal::TERM);
    let mut other = other;
    assert_eq!(other.wait_for_end(), Some(0), "{}", other.err());
    one.type_line("and on and on");
    three.wait_for("<peer_1>: and on and on");
}

#[test]
fn an_attached_screen_gives_the_answers_of_the_own_one() {
    let group = Group::new();
    let mut one = group.start(1);
    one.wait_for("(this one) leads");
    one.type_line("hello");
    one.wait_for("<peer_1>: hello");
    // The only one that runs needs no name.
    let mut screen = group.attach(1, &[]);
    let long = "x".repeat(16_385);
    let lines = [
        "/status",
        "/history",
        "/history 0",
        "/help",
        "/room cats",
        "/remove 9",
        "/remove 1",
        "no",
        "/nope",
        &long,
    ];
    for line in lines {
        let asked = [&mut one, &mut screen].map(|it| {
            let begin = it.out().len();
            it.type_line(line);
            let is_answered = eventually(|| it.out()[begin..].ends_with("\npeer_1> "));
            assert!(is_answered, "{line}: {}", it.out());
            it.out()[begin..].trim_start().to_owned()
        });
        let [own, attached] = asked;
        // The end of this screen is no end of the chat.
        let quits = "/quit          end only this screen; the chat goes on where it runs";
        assert_eq!(attached.contains(quits), line == "/help", "{attached}");
        let quit = "/quit          hand over and end; what is pending is kept and sent at the next \
                    start";
        assert_eq!(own, attached.replace(quits, quit), "{line}");
    }
    for (line, expected) in [("/rooms", "#cats: 0 messages"), ("//cats", "#cats: /cats")] {
        screen.type_line(line);
        screen.wait_for(expected);
    }
    screen.type_line("/quit");
    assert_eq!(screen.wait_for_end(), Some(4), "a text was refused: {}", screen.err());
}

#[test]
fn the_end_of_the_chat_is_the_end_of_its_screens() {
    let group = Group::new();
    let one = group.start(1);
    one.wait_for("(this one) leads");
    let mut screen = group.attach(1, &[]);
    one.kill();
    assert_eq!(screen.wait_for_end(), Some(1), "{}", screen.out());
    assert!(screen.err().contains("error: peer_1 has stopped; what was typed"), "{}", screen.err());

    let one = group.start(1);
    one.wait_for("(this one) leads");
    let mut screen = group.attach(1, &[]);
    one.quit();
    assert_eq!(screen.wait_for_end(), Some(1), "{}", screen.out());
    assert!(screen.err().contains("error: peer_1 has stopped; what was typed"), "{}", screen.err());

    let (code, _, err) = group.ask(&[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("peer chat --id 1 --port 6001"), "{err}");
    assert!(err.contains("peer --port 6001 --chat 1"), "{err}");
}

#[test]
fn where_several_run_a_screen_is_attached_to_the_one_that_is_named() {
    let group = Group::new();
    let (one, two) = (group.start(1), group.start(2));
    one.wait_for("peer_2 leads in term");
    two.wait_for("(this one) leads in term");
    let (code, _, err) = group.ask(&["--plain"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("name one of 1, 2 with --id"), "{err}");
    let mut screen = group.attach(2, &["--id", "2"]);
    screen.type_line("by the second");
    one.wait_for("<peer_2>: by the second");
    let (code, _, err) = group.ask(&["--id", "3"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("peer_3 does not run") && err.contains("--id 3 --port P"), "{err}");
}

#[test]
fn the_end_of_input_of_an_attached_screen_waits_until_what_was_typed_is_final() {
    let group = Group::new();
    let (one, two) = (group.start(1), group.start(2));
    one.wait_for("has joined the group");
    let mut script = group.attach(1, &["--id", "1"]);
    for number in 1..=1_500 {
        script.type_line(&number.to_string());
    }
    script.close_input();
    assert_eq!(script.wait_for_end(), Some(0), "{}", script.err());
    assert_eq!(script.messages().len(), 1_500, "it has shown what it waited for");

    two.kill();
    one.wait_for("no majority");
    let mut script = group.attach(1, &["--id", "1"]);
    script.wait_for("* no majority is reached");
    script.type_line("alone");
    script.wait_for("* kept, and sent when a majority is reached");
    script.close_input();
    assert_eq!(script.wait_for_end(), Some(3), "{}", script.err());
    assert!(script.err().contains("1 message is not final; kept"), "{}", script.err());
    let two = group.start(2);
    two.wait_for("<peer_1>: alone");
}

#[test]
fn a_follower_that_does_not_read_harms_nobody_and_a_screen_that_stood_still_shows_all() {
    let group = Group::new();
    let mut one = group.start(1);
    one.wait_for("(this one) leads");
    let screen = group.attach(1, &[]);
    let stalled = group.attach(1, &[]);
    stalled.signal(Signal::STOP);
    let mut follower = UnixStream::connect(group.path("data/chat-1/control.sock")).unwrap();
    follower.write_all(b"{\"ask\":\"follow\"}\n").unwrap();
    let mut follower = BufReader::new(follower);
    let mut line = String::new();
    follower.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"me\":") && line.contains("\"ready\":"), "{line}");
    // More than sockets and queues hold.
    let text = "y".repeat(300);
    for number in 1..=4_000 {
        one.type_line(&format!("{number} {text}"));
    }
    for peer in [&one, &screen] {
        peer.wait_for_count(4_000);
    }
    assert_eq!(one.messages(), screen.messages());
    stalled.signal(Signal::CONT);
    assert!(eventually(|| stalled.messages() == one.messages()), "{}", stalled.messages().len());
    // It holds up no end either.
    one.quit();
    let heard = follower.lines().map_while(Result::ok).filter(|it| it.contains("\"delivered\""));
    assert!(heard.count() < 4_000, "it had to miss some");
}

// Each item of the troubleshooting list, and bad input.

/// The answer of a member that cannot start: its exit code and what it says.
#[track_caller]
fn refusal(mut peer: Talker) -> (Option<i32>, String) {
    let code = peer.wait_for_end();
    (code, peer.err())
}

#[test]
fn missing_flags_are_named() {
    let group = Group::new();
    for (args, missing) in [
        (vec!["--port", "6001"], "--id <N>"),
        (vec!["--id", "1", "--seed", "1:127.0.0.1:6001"], "--port <P>"),
        (vec!["--log-dir", "elsewhere"], "--port <P>"),
        (vec!["--id", "0", "--port", "6001"], "--id <N>"),
        (vec!["--id", "1", "--port", "6001", "--message-max", "1M"], "--message-max is at most"),
        (vec!["--id", "1", "--port", "6001", "--seed", "1:127.0.0.1"], "ID:HOST:PORT"),
    ] {
        let (code, _, err) = group.ask(&args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(missing), "{args:?}: {err}");
    }
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    let group = Group::new();
    let _held = std::net::TcpListener::bind(("127.0.0.1", group.port(1))).unwrap();
    let (code, err) = refusal(group.start(1));
    assert_eq!(code, Some(1));
    assert!(err.contains(&group.port(1).to_string()) && err.contains("another port"), "{err}");
}

#[test]
fn an_id_that_runs_already_is_refused_here_and_by_the_group() {
    let group = Group::new();
    let _peers = group.of_three();
    let (code, err) = refusal(group.start_with(2, &["--log-dir", "elsewhere"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("peer_2 runs already on this machine"), "{err}");
    let seed = format!("127.0.0.1:{}", group.port(1));
    let other = Group::new();
    let (code, err) = refusal(other.start_with(2, &["--seed", &seed]));
    assert_eq!(code, Some(1));
    assert!(err.contains("in use by another key") && err.contains("another --id"), "{err}");
}

#[test]
fn a_log_directory_that_is_none_is_named() {
    let group = Group::new();
    fs::write(group.path("file"), "").unwrap();
    let (code, err) = refusal(group.start_with(1, &["--log-dir", "file/logs"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("file/logs"), "{err}");
}

#[test]
fn an_unreachable_seed_is_said_and_tried_again_and_no_group_is_founded() {
    let group = Group::new();
    let seed = |id: u32| format!("{id}:127.0.0.1:{}", group.port(id));
    let two = group.start_with(2, &["--seed", &seed(9), "--seed", &seed(1)]);
    two.wait_for(&format!("no member at 127.0.0.1:{}", group.port(9)));
    two.wait_for(&format!("no member at 127.0.0.1:{}", group.port(1)));
    let (_, out, _) = group.ask(&["status"]);
    assert!(out.contains("Role: JOINING") && out.contains("Leader: Unknown"), "{out}");
    // The first stays dead; the second is found as soon as it is there.
    let _one = group.start(1);
    two.wait_for("peer_2 (this one) leads in term");
}

/// A group of one that has said so much, stopped.
fn group_with_a_log(texts: &[&str]) -> Group {
    let group = Group::new();
    let mut one = group.start(1);
    for text in texts {
        one.type_line(text);
        one.wait_for(&format!("<peer_1>: {text}"));
    }
    one.quit();
    group
}

#[test]
fn a_torn_tail_is_noted_and_cut() {
    let group = group_with_a_log(&["one", "two"]);
    let path = group.path("data/logs/peer_1.log");
    let mut log = File::options().append(true).open(&path).unwrap();
    log.write_all(b"0123abcd {\"record\":\"ty").unwrap();
    let mut one = group.start(1);
    one.wait_for("was torn by a crash");
    one.type_line("/history");
    one.wait_for("<peer_1>: two");
    one.quit();
}

#[test]
fn a_flipped_bit_is_refused_with_its_line_and_a_remedy() {
    let group = group_with_a_log(&["one", "two"]);
    let path = group.path("data/logs/peer_1.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (code, err) = refusal(group.start(1));
    assert_eq!(code, Some(1));
    assert!(err.contains("peer_1.log is corrupt at line 2") && err.contains("remove 1"), "{err}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it was");
}

#[test]
fn a_log_of_another_group_or_member_is_refused_with_a_remedy() {
    let (one, other) = (group_with_a_log(&["one"]), group_with_a_log(&["two"]));
    // Another key's log under this id.
    copy(&other.path("data/logs/peer_1.log"), &one.path("data/logs/peer_1.log"));
    let _ = fs::remove_file(one.path("data/logs/peer_1.snapshot"));
    let (code, err) = refusal(one.start(1));
    assert_eq!(code, Some(1));
    assert!(err.contains("is the log of") && err.contains("--log-dir"), "{err}");
    // A member of one group that is sent to another.
    let host = Group::new();
    let founder = host.start_with(2, &[]);
    founder.wait_for("(this one) leads");
    let seed = format!("127.0.0.1:{}", host.port(2));
    // Its own group goes on; only the way to the other is closed.
    let member = other.start_with(1, &["--seed", &seed]);
    member.wait_for("belongs to another group than peer_2; give it another --log-dir");
}

#[test]
fn a_group_whose_majority_is_gone_is_recovered_and_its_lost_machine_is_told() {
    let group = Group::new();
    let (mut one, mut two) = (group.start(1), group.start(2));
    one.wait_for("has joined the group");
    one.wait_for("peer_2 leads in term");
    one.type_line("before");
    two.wait_for("<peer_1>: before");
    let recover = |words: &[&str]| group.ask(&[&["recover", "--id", "1"], words].concat());
    let (code, _, err) = recover(&[]);
    assert!(code == Some(2) && err.contains("add --i-know"), "{code:?} {err}");
    let (code, _, err) = recover(&["--i-know"]);
    assert!(code == Some(1) && err.contains("a majority is in reach"), "{code:?} {err}");
    one.signal(Signal::STOP);
    two.wait_for("no majority");
    two.type_line("only at the lost machine");
    assert!(eventually(|| group.ask(&["status", "--id", "2"]).1.contains("Pending: 1")));
    two.kill();
    one.signal(Signal::CONT);
    one.wait_for("no majority");
    one.type_line("typed alone");
    let (code, out, err) = recover(&["--i-know"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("peer_1 goes on alone as a new group"), "{out}");
    assert!(out.contains("removed for good: peer_2"), "{out}");
    one.wait_for_messages(&["<peer_1>: before", "<peer_1>: typed alone"]);
    let status = group.ask(&["status", "--id", "1"]).1;
    assert!(status.contains("Recovered: by peer_1, as a new group, without peer_2"), "{status}");

    let (code, err) = refusal(group.start(2));
    assert_eq!(code, Some(1));
    assert!(err.contains("peer_1 has recovered the group without peer_2"), "{err}");
    assert!(err.contains("typed here and not final: \"only at the lost machine\""), "{err}");

    // It joins anew, by another id, key and log; and the recovered group outlives a restart.
    one.quit();
    let one = group.start(1);
    let seed = format!("1:127.0.0.1:{}", group.port(1));
    let flags = ["--seed", &seed, "--data", "fresh", "--log-dir", "fresh/logs"];
    let mut anew = group.start_with(3, &flags);
    one.wait_for("the group is peer_1, peer_3");
    anew.type_line("anew");
    one.wait_for("<peer_3>: anew");
}

#[test]
fn a_member_that_does_not_run_is_recovered_on_its_log() {
    let group = Group::new();
    let (mut one, two) = (group.start(1), group.start(2));
    one.wait_for("has joined the group");
    one.type_line("before");
    two.wait_for("<peer_1>: before");
    two.kill();
    one.wait_for("no majority");
    one.kill();
    let words = ["recover", "--i-know", "--id", "1"];
    let (code, out, err) = group.ask(&words);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, _, err) = group.ask(&words);
    assert!(code == Some(1) && err.contains("a majority is in reach"), "{code:?} {err}");
    let mut one = group.start(1);
    one.type_line("after");
    one.wait_for("<peer_1>: after");
    one.type_line("/history");
    one.wait_for("<peer_1>: before");
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("there is room");
}

#[test]
fn control_characters_reach_no_terminal_and_too_long_texts_are_refused() {
    let group = Group::new();
    let mut one = group.start(1);
    one.type_line("a\x1b[2Jb\u{7}\u{202e}c 漢字 é");
    one.wait_for("<peer_1>: a\\u{1b}[2Jb\\u{7}\\u{202e}c 漢字 é");
    assert!(!one.out().contains('\x1b'));
    one.type_line(&"x".repeat(16_385));
    one.wait_for("not sent: it has 16385 bytes, and a message at most 16384");
    one.type_line(&"y".repeat(16_384));
    one.wait_for(&"y".repeat(16_384));
    one.type_line("/quit");
    assert_eq!(one.wait_for_end(), Some(4), "a text was refused: {}", one.err());
}

// Promises that are kept, and processes that are not what they seem.

#[test]
fn a_refused_text_has_its_own_exit_code_and_a_kept_one_another() {
    let group = Group::new();
    let one = group.start(1);
    one.wait_for("peer_1 (this one) leads in term");
    let two = group.start(2);
    one.wait_for("has joined the group");
    two.kill();
    one.wait_for("no majority is reached");
    let send = |text: &str| group.ask(&["send", text, "--wait", "10ms", "--id", "1"]);
    let (code, out, err) = send("kept until the other one is back");
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(out.contains("kept on disk, and not final yet"), "{out}");
    let (code, out, err) = send(&"x".repeat(16_385));
    assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
    assert!(err.contains("not sent: a text has at most 16384 bytes in this group"), "{err}");
    let two = group.start(2);
    two.wait_for("<peer_1>: kept until the other one is back");
    assert_eq!(two.messages().len(), 1);
}

#[test]
fn a_terminal_that_stands_still_holds_up_no_answer() {
    let group = Group::new();
    let mut one = Command::new(peer_exe())
        .args(["chat", "--plain", "--stay", "--id", "1", "--host", "127.0.0.1", "--port"])
        .arg(group.port(1).to_string())
        .current_dir(group.dir.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it can be run");
    let is_up = || group.ask(&["status", "--id", "1"]).0 == Some(0);
    assert!(eventually(is_up), "it does not answer");
    // More than a pipe holds; nobody reads it.
    for number in 0..12 {
        let text = format!("{number} {}", "y".repeat(12_000));
        let (code, out, err) = group.ask(&["send", &text, "--wait", "30s", "--id", "1"]);
        assert!(code == Some(0) && out.starts_with("final: seq "), "{out}{err}");
    }
    one.kill().expect("it is ours");
    one.wait().expect("it is ours");
}

#[test]
fn what_is_said_by_a_new_machine_under_a_removed_id_is_shown() {
    let group = Group::new();
    let [mut one, two, three] = group.of_three();
    for text in ["first", "second", "third"] {
        let (code, _, err) = group.ask(&["send", text, "--wait", "30s", "--id", "2"]);
        assert_eq!(code, Some(0), "{err}");
    }
    assert_eq!(group.ask(&["remove", "2", "--id", "1"]).0, Some(0));
    one.wait_for("peer_2 was removed from the group");
    two.kill();
    let seed = format!("1:127.0.0.1:{}", group.port(1));
    let mut new = group.start_with(2, &["--seed", &seed, "--data", "new", "--log-dir", "new/logs"]);
    new.wait_for("peer_2 at 127.0.0.1");
    for text in ["fourth", "fifth"] {
        new.type_line(text);
        three.wait_for(&format!("<peer_2>: {text}"));
    }
    one.type_line("/status");
    one.wait_for("Known peers: 2");
}

#[test]
fn a_copied_folder_makes_no_second_member_and_both_processes_are_told() {
    let group = Group::new();
    let [one, mut two, three] = group.of_three();
    let copied =
        ["chat-2", "logs"].map(|it| (group.path("data").join(it), group.path("copy").join(it)));
    for (from, to) in copied {
        fs::create_dir_all(&to).expect("there is room");
        for file in fs::read_dir(from).expect("it is there") {
            let file = file.expect("it can be read");
            let name = file.file_name();
            let is_file = file.file_type().is_ok_and(|it| it.is_file());
            if is_file && !name.to_string_lossy().contains("lock") {
                fs::copy(file.path(), to.join(&name)).expect("there is room");
            }
        }
    }
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    for dir in ["copy", "copy/chat-2"] {
        fs::set_permissions(group.path(dir), mode.clone()).expect("it is ours");
    }
    let at = ("127.0.0.1", group.base + 50);
    let flags = ["--data", "copy", "--log-dir", "copy/logs", "--stay"];
    let mut copy = Talker::start(Command::new(peer_exe()), 2, at, &flags, group.dir.path());
    assert_eq!(copy.wait_for_end(), Some(1), "{}", copy.out());
    assert!(copy.err().contains("another process is peer_2 already"), "{}", copy.err());
    two.wait_for("another process came with the key of peer_2");
    // The group goes on with the one that it knew.
    two.type_line("still here");
    for peer in [&one, &three] {
        peer.wait_for_messages(&["<peer_2>: still here"]);
    }
}

#[test]
fn a_log_that_was_put_back_to_an_older_copy_is_refused_with_a_remedy_that_works() {
    let group = Group::new();
    let [mut one, two, three] = group.of_three();
    one.type_line("monday");
    two.wait_for("<peer_1>: monday");
    let log = group.path("data/logs/peer_2.log");
    fs::copy(&log, group.path("monday.log")).expect("there is room");
    one.type_line("tuesday");
    two.wait_for("<peer_1>: tuesday");
    two.kill();
    fs::copy(group.path("monday.log"), &log).expect("there is room");
    let mut two = group.start(2);
    assert_eq!(two.wait_for_end(), Some(1), "{}", two.out());
    let told = two.err();
    assert!(told.contains("was cut, or replaced by a copy"), "{told}");
    assert!(told.contains("an older copy is no remedy") && told.contains("peer chat remove 2"));
    // As told: another member removes it, and it starts anew.
    assert_eq!(group.ask(&["remove", "2", "--id", "1"]).0, Some(0));
    one.wait_for("peer_2 was removed from the group");
    let seed = format!("1:127.0.0.1:{}", group.port(1));
    let new = group.start_with(2, &["--seed", &seed, "--data", "new", "--log-dir", "new/logs"]);
    new.wait_for_messages(&["<peer_1>: monday", "<peer_1>: tuesday"]);
    drop(three);
}

#[test]
fn another_group_at_the_address_of_a_seed_is_passed_by() {
    let group = Group::new();
    let [one, two, three] = group.of_three();
    for peer in [one, two, three] {
        peer.kill();
    }
    // Another group lives at the first one's address now.
    let at = ("127.0.0.1", group.port(1));
    let flags = ["--data", "other", "--log-dir", "other/logs"];
    let other = Talker::start(Command::new(peer_exe()), 7, at, &flags, group.dir.path());
    other.wait_for("peer_7 (this one) leads in term");
    let seed = format!("127.0.0.1:{}", group.port(1));
    let mut two = group.start_with(2, &["--seed", &seed]);
    two.wait_for("another group");
    let three = group.start(3);
    two.wait_for("peer_3 leads in term");
    two.type_line("together again");
    three.wait_for("<peer_2>: together again");
    assert!(other.messages().is_empty(), "{}", other.out());
}

#[test]
fn programs_that_send_at_once_wait_for_their_turn() {
    let group = Group::new();
    let _peers = group.of_three();
    let send = |number: u32| {
        let text = format!("burst {number}");
        let (code, _, _) = group.ask(&["send", &text, "--wait", "60s", "--id", "1"]);
        (text, code)
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..40)
            .map(|number| {
                scope.spawn({
                    let send = &send;
                    move || send(number)
                })
            })
            .collect();
        all.into_iter().map(|it| it.join().expect("it answers")).collect()
    });
    let (code, out, err) = group.ask(&["history", "1000", "--json", "--id", "1"]);
    assert_eq!(code, Some(0), "{err}");
    let history: Value = serde_json::from_str(&out).expect("it is JSON");
    for (text, code) in answers {
        let said = history.as_array().expect("a list").iter().filter(|it| it["payload"] == *text);
        assert_eq!((code, said.count()), (Some(0), 1), "{text}");
    }
}

#[test]
fn a_group_whose_addresses_all_change_at_once_is_together_again() {
    let group = Group::new();
    let [mut one, two, three] = group.of_three();
    one.type_line("before");
    for peer in [&two, &three] {
        peer.wait_for("<peer_1>: before");
    }
    for peer in [one, two, three] {
        peer.kill();
    }
    let moved = |id: u32, seed: u32| {
        let port = |id: u32| group.port(id) + 20;
        let (seed, at) = (format!("127.0.0.1:{}", port(seed)), ("127.0.0.1", port(id)));
        let command = Command::new(peer_exe());
        Talker::start(command, id, at, &["--seed", &seed], group.dir.path())
    };
    let (mut one, two, three) = (moved(1, 2), moved(2, 1), moved(3, 1));
    one.wait_for("peer_3 leads in term");
    one.type_line("after");
    for peer in [&one, &two, &three] {
        peer.wait_for("<peer_1>: after");
    }
}
