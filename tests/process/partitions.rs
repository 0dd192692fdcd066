//! Several hosts and real cuts: the binaries as they are shipped, each host a network namespace
//! of its own, cables pulled, switches split and packets lost for real.
//!
//! Each test says what it saw and when; how fast anything is, is not asserted. Where namespaces
//! are not permitted (they take Linux, root, `ip` and util-linux), each says so and passes.

#![allow(clippy::print_stdout, reason = "each scenario says what it has seen")]

use crate::support;

use std::collections::BTreeSet;
use std::process::Child;

use folkmoot::cli::fleet::LogEvent;
use folkmoot::model::Endpoint;
use support::land::{Land, Life, alive, life, quorum};
use support::process::{eventually, is_running, processes_with};
use support::{about, of};

/// The defaults, but for gossip that does not end.
const ARGS: &str = "--gossip-interval 2s --gossip-max 1000";

/// Seconds from `from` until a line was logged.
fn after(line: &LogEvent, from: u64) -> String {
    let millis = line.ts_ms.saturating_sub(from);
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// Waits until a seed says that it has no quorum.
#[track_caller]
fn warning(land: &mut Land, mark: usize, seed: Endpoint) -> LogEvent {
    let line =
        land.wait_line(mark, "a seed without a quorum says so", |it| quorum(it, seed, false));
    assert!(line.level.eq_ignore_ascii_case("warn"), "{}", line.line());
    line
}

/// Asserts that each of these seeds has said exactly once that it is frozen, has decided nothing
/// since `mark`, and lists the members that it knew before.
#[track_caller]
fn check_frozen(land: &mut Land, mark: usize, seeds: &[Endpoint], known: &BTreeSet<Life>) {
    for seed in seeds {
        let list = land.list(*seed).expect("it runs");
        assert_eq!(alive(&list), *known, "{seed} is frozen");
        let lines = land.lines(mark);
        let warnings = lines.iter().filter(|it| quorum(it, *seed, false)).count();
        assert_eq!(warnings, 1, "{seed} says it once");
        let decided = ["admitted", "removed", "synced", "left"];
        let decided = |it: &&LogEvent| it.node == *seed && decided.contains(&it.event.as_str());
        assert_eq!(lines.iter().find(decided).map(LogEvent::line), None, "{seed} is frozen");
    }
}

/// Waits until `peer` says that it is a member in a later life than `before`.
#[track_caller]
fn rebirth(land: &mut Land, mark: usize, peer: Endpoint, before: u64) -> LogEvent {
    land.wait_line(mark, "it is a member in a new life", |it| {
        of(it, peer, "admitted") && it.number("incarnation") > Some(before)
    })
}

/// The first line since `mark` by which one of these links ended. Two neighbors that call each
/// other at once settle on one link and end the other, so links that are younger may end.
fn first_lost(
    land: &mut Land,
    mark: usize,
    links: &BTreeSet<(Endpoint, Endpoint)>,
) -> Option<String> {
    let lines = land.lines(mark);
    let mut ends = lines.iter().filter(|it| it.event == "unlinked");
    let is_one = |it: &&LogEvent| {
        it.endpoint("neighbor").is_some_and(|neighbor| links.contains(&(it.node, neighbor)))
    };
    ends.find(is_one).map(LogEvent::line)
}

/// Whom seeds have removed since `mark`.
fn removals(land: &mut Land, mark: usize) -> BTreeSet<Endpoint> {
    let lines = land.lines(mark);
    lines.iter().filter(|it| it.is("seed", "removed")).map(|it| life(it).0).collect()
}

#[test]
fn a_seed_that_is_cut_off_freezes_and_catches_up() {
    let hosts = [(true, 3), (true, 2), (true, 3)];
    let Some(mut land) = Land::up(&hosts, ARGS, &[(0, 2), (2, 2)]) else { return };
    let (seeds, minority) = (land.seeds(), land.seed(2));
    let majority = [seeds[0], seeds[1]];
    let (newcomer, applicant) = (land.peer(0, 2), land.peer(2, 2));
    let (killed, killed_beyond, survivor) = (land.peer(0, 1), land.peer(2, 1), land.peer(2, 0));
    let known = alive(&land.list(minority).expect("it runs"));
    let before = land.life(minority, survivor);

    let (mark, cut) = (land.mark(), land.now_ms());
    land.net.split(&[&[0, 1], &[2]]);
    assert!(!land.reaches(minority, seeds[0]) && !land.reaches(seeds[0], minority), "a cut");
    assert!(land.reaches(seeds[1], seeds[0]), "the others are together");

    // On either side one asks to be let in, and one dies.
    land.kill(killed);
    for node in [newcomer, applicant] {
        land.start(node);
    }
    let admitted = land.wait_line(mark, "the majority admits", |it| of(it, newcomer, "admitted"));
    let removed = land.wait_line(mark, "the majority removes", |it| {
        majority.contains(&it.node) && about(it, killed, "removed")
    });
    let warned = warning(&mut land, mark, minority);
    land.poll("the two beyond find each other", |land| {
        let neighbors = land.neighbors(survivor)?;
        if neighbors.contains(&killed_beyond) { Ok(()) } else { Err(format!("{neighbors:?}")) }
    });
    let later = land.mark();
    land.kill(killed_beyond);
    land.wait_line(later, "the death beyond is noticed there", |it| {
        of(it, survivor, "suspected") && about(it, killed_beyond, "suspected")
    });
    let refused = land.wait_line(later, "the applicant hears why it is not let in", |it| {
        of(it, applicant, "not_admitted") && it.message.contains("no quorum")
    });
    land.wait("the survivor gives up", |lines| {
        let over =
            |it: &LogEvent| of(it, survivor, "cleared") && about(it, killed_beyond, "cleared");
        lines[later..].iter().any(over)
    });
    check_frozen(&mut land, mark, &[minority], &known);
    let gone = removals(&mut land, mark);
    println!(
        "one of three seeds cut off: it said so after {}; 2 seeds admitted one after {} and \
         removed the dead one after {}, {} endpoints in all; beyond, an applicant was told {:?} \
         and a death there was noticed, both without effect",
        after(&warned, cut),
        after(&admitted, cut),
        after(&removed, cut),
        gone.len(),
        refused.text("reason").unwrap_or_default(),
    );

    let (healing, healed) = (land.mark(), land.now_ms());
    land.net.join();
    let back = land.wait_line(healing, "it has a quorum again", |it| quorum(it, minority, true));
    let synced = land.wait_line(healing, "it catches up", |it| of(it, minority, "synced"));
    let members = land.running_peers();
    land.await_whole(&members);
    let now = land.life(minority, survivor);
    let gone = removals(&mut land, mark);
    assert_eq!(now > before, gone.contains(&survivor), "a new life for who was removed");
    println!(
        "healed: a quorum after {}, caught up after {}, whole after {} ms",
        after(&back, healed),
        after(&synced, healed),
        land.now_ms() - healed,
    );
}

#[test]
fn halves_of_a_fleet_that_were_cut_apart_come_together_again() {
    let hosts = [(true, 2), (true, 2), (true, 2), (false, 2)];
    let Some(mut land) = Land::up(&hosts, ARGS, &[]) else { return };
    let (seeds, minority) = (land.seeds(), land.seed(2));
    let known = alive(&land.list(minority).expect("it runs"));
    let beyond: Vec<_> = land.peers()[4..].to_vec();
    let majority: Vec<_> = land.peers()[..4].to_vec();
    let mut links = BTreeSet::new();
    for peer in &beyond {
        let ends = land.neighbors(*peer).expect("it runs");
        links.extend(ends.into_iter().filter(|it| beyond.contains(it)).map(|it| (*peer, it)));
    }

    let (mark, cut) = (land.mark(), land.now_ms());
    land.net.split(&[&[0, 1], &[2, 3]]);
    assert!(!land.reaches(beyond[3], seeds[0]) && !land.reaches(seeds[1], minority), "a cut");
    assert!(land.reaches(beyond[3], minority), "the minority is together");
    let warned = warning(&mut land, mark, minority);
    // By the rules the others may be removed there: they are silent. They live on here.
    let gone = land.wait_line(mark, "the majority removes a silent one", |it| {
        it.node == seeds[0] && it.event == "removed"
    });
    let later = land.mark();
    land.await_gossip(later, &beyond);
    land.await_gossip(later, &majority);
    let talked = land.now_ms();
    land.await_members(&seeds[..2], &majority);
    check_frozen(&mut land, mark, &[minority], &known);
    let lines = land.lines(mark);
    let told = lines.iter().find(|it| it.event == "evicted");
    assert_eq!(told.map(LogEvent::line), None, "nobody can know that it was removed");
    let lost = first_lost(&mut land, mark, &links);
    assert_eq!(lost, None, "they keep the links among themselves");
    let removed = removals(&mut land, mark);
    assert!(removed.iter().all(|it| beyond.contains(it)), "{removed:?}");
    println!(
        "half cut off: the minority's seed said so after {}; the majority removed {} of 4, the \
         first after {}; each half gossiped on among itself (seen after {} ms), and of \
         {} links in the minority none was lost",
        after(&warned, cut),
        removed.len(),
        after(&gone, cut),
        talked - cut,
        links.len() / 2,
    );

    let (healing, healed) = (land.mark(), land.now_ms());
    land.net.join();
    let all = land.peers();
    land.await_whole(&all);
    let lines = land.lines(healing);
    let evicted: BTreeSet<_> =
        lines.iter().filter(|it| it.event == "evicted").map(|it| it.node).collect();
    assert_eq!(evicted, removed, "exactly those who were removed begin a new life");
    println!(
        "healed: whole after {} ms; {} came back by themselves",
        land.now_ms() - healed,
        evicted.len()
    );
}

#[test]
fn seeds_that_are_cut_from_each_other_decide_nothing() {
    let hosts = [(true, 0), (true, 0), (true, 0), (false, 3), (false, 4)];
    let Some(mut land) = Land::up(&hosts, ARGS, &[(4, 3)]) else { return };
    let seeds = land.seeds();
    let (victim, applicant) = (land.peer(3, 0), land.peer(4, 3));
    let known = alive(&land.list(seeds[0]).expect("it runs"));
    let mut links = BTreeSet::new();
    for peer in land.running_peers() {
        let ends = land.neighbors(peer).expect("it runs");
        links.extend(ends.into_iter().filter(|it| *it != victim).map(|it| (peer, it)));
    }

    let (mark, cut) = (land.mark(), land.now_ms());
    for host in 0..3 {
        let others: Vec<_> = (0..3).filter(|it| *it != host).collect();
        land.net.lose(host, &others);
    }
    assert!(!land.reaches(seeds[0], seeds[1]) && !land.reaches(seeds[2], seeds[1]), "a cut");
    for seed in &seeds {
        assert!(land.reaches(victim, *seed), "peers reach every seed");
    }
    let warned: Vec<_> = seeds.iter().map(|it| warning(&mut land, mark, *it)).collect();
    let later = land.mark();
    land.kill(victim);
    land.start(applicant);
    let reported = land.wait_line(later, "the death is reported", |it| it.is("seed", "reported"));
    land.wait("the applicant is refused twice", |lines| {
        lines[later..].iter().filter(|it| of(it, applicant, "not_admitted")).count() >= 2
    });
    let rest: Vec<_> = land.running_peers().into_iter().filter(|it| *it != applicant).collect();
    let now = land.mark();
    land.await_gossip(now, &rest);
    check_frozen(&mut land, mark, &seeds, &known);
    let lost = first_lost(&mut land, mark, &links);
    assert_eq!(lost, None, "the links that stood at the cut stand");
    println!(
        "three seeds cut from each other: they said so after {:?}; a death was reported after {} \
         and an applicant refused twice, nothing was decided, and nobody lost a link",
        warned.iter().map(|it| after(it, cut)).collect::<Vec<_>>(),
        after(&reported, cut),
    );

    let (healing, healed) = (land.mark(), land.now_ms());
    for host in 0..3 {
        let others: Vec<_> = (0..3).filter(|it| *it != host).collect();
        land.net.deliver(host, &others);
    }
    let admitted = land.wait_line(healing, "the applicant", |it| of(it, applicant, "admitted"));
    let removed =
        land.wait_line(healing, "the dead", |it| it.is("seed", "removed") && life(it).0 == victim);
    let members = land.running_peers();
    land.await_whole(&members);
    assert_eq!(removals(&mut land, 0), BTreeSet::from([victim]));
    println!(
        "healed: the applicant is in after {}, the dead out after {}, whole after {} ms",
        after(&admitted, healed),
        after(&removed, healed),
        land.now_ms() - healed,
    );
}

#[test]
fn a_host_that_vanishes_without_a_word_is_removed_and_comes_back() {
    let hosts = [(true, 2), (true, 2), (true, 1), (false, 1)];
    let Some(mut land) = Land::up(&hosts, ARGS, &[]) else { return };
    let (seeds, victim, all) = (land.seeds(), land.peer(3, 0), land.peers());
    let rest: Vec<_> = all.iter().copied().filter(|it| *it != victim).collect();
    for way in ["its link is down", "its interface is gone"] {
        let before = land.life(seeds[0], victim);
        let (mark, cut) = (land.mark(), land.now_ms());
        match way {
            "its link is down" => land.net.link_down(3),
            _ => land.net.remove_cable(3),
        }
        let suspected =
            land.wait_line(mark, "somebody suspects it", |it| about(it, victim, "suspected"));
        let removed = land.wait_line(mark, "it is removed", |it| {
            it.is("seed", "removed") && life(it) == (victim, before)
        });
        land.await_members(&seeds, &rest);
        assert_eq!(removals(&mut land, mark), BTreeSet::from([victim]), "nobody else");
        let (healing, healed) = (land.mark(), land.now_ms());
        match way {
            "its link is down" => land.net.link_up(3),
            _ => land.net.new_cable(3),
        }
        let evicted = land.wait_line(healing, "it hears of it", |it| of(it, victim, "evicted"));
        let back = rebirth(&mut land, healing, victim, before);
        land.await_whole(&all);
        assert_eq!(removals(&mut land, 0), BTreeSet::from([victim]), "nobody else");
        println!(
            "a host vanishes ({way}): suspected after {}, removed after {}; back, it heard so \
             after {} and was a member again after {}",
            after(&suspected, cut),
            after(&removed, cut),
            after(&evicted, healed),
            after(&back, healed),
        );
    }
}

#[test]
fn peers_that_cannot_reach_one_for_40_s_say_so_and_make_up_for_it() {
    let Some(mut land) = Land::up(&[(true, 0), (false, 1), (false, 1), (false, 1)], ARGS, &[])
    else {
        return;
    };
    let [near, far, third] = [1, 2, 3].map(|it| land.peer(it, 0));
    let reader = land.begin(far, "subscribe news --count 2");
    let text = |child: Child| {
        let output = child.wait_with_output().expect("it ends");
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(both).expect("it is text"))
    };
    let send = |land: &Land, from| text(land.begin(from, &format!("send {far} hello")));
    assert_eq!(send(&land, near).0, Some(0));

    let (mark, cut) = (land.mark(), land.now_ms());
    for host in [1, 3] {
        land.net.lose(host, &[2]);
        land.net.lose(2, &[host]);
    }
    let (code, _) = text(land.begin(near, "publish news missed --wait 1s"));
    assert_eq!(code, Some(0));
    for (at, whom) in [(near, far), (third, far), (far, near), (far, third)] {
        let line = land.wait_line(mark, "it is unreachable", |it| {
            of(it, at, "unreachable") && it.endpoint("peer") == Some(whom)
        });
        println!("{whom} was unreachable to {at} {} after the cut", after(&line, cut));
    }
    let begun = land.now_ms();
    let (code, said) = send(&land, near);
    println!("a send took {} ms: {}", land.now_ms() - begun, said.trim());
    assert!(code == Some(1) && said.contains("unreachable"), "{said}");
    land.poll("40 s", |land| match land.now_ms() - cut {
        40_000.. => Ok(()),
        other => Err(format!("{other} ms")),
    });

    let (healing, healed) = (land.mark(), land.now_ms());
    for host in [1, 3] {
        land.net.deliver(host, &[2]);
        land.net.deliver(2, &[host]);
    }
    let line = land.wait_line(healing, "it is back", |it| {
        of(it, near, "reachable") && it.endpoint("peer") == Some(far)
    });
    println!("it was back {} after the healing", after(&line, healed));
    land.poll("a send goes through", |land| match send(land, near) {
        (Some(0), _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (code, _) = text(land.begin(near, "publish news again --wait 1s"));
    assert_eq!(code, Some(0));
    let (code, heard) = text(reader);
    let has = |what: &str| heard.contains(&format!("{near}: {what}\n"));
    assert!(code == Some(0) && has("missed") && has("again"), "in any order: {heard}");
}

/// Two of these who are neighbors.
fn neighbors_among(land: &Land, peers: &[Endpoint]) -> (Endpoint, Endpoint) {
    let pair = |it: &Endpoint| {
        let near = land.neighbors(*it).expect("it runs");
        near.into_iter().find(|other| peers.contains(other)).map(|other| (*it, other))
    };
    peers.iter().find_map(pair).expect("of four, two are neighbors")
}

#[test]
fn one_way_loss_ends_in_one_opinion_and_costs_nobody_else() {
    let one = (false, 1);
    let hosts = [(true, 0), (true, 0), (true, 0), one, one, one, one, one, one, one];
    let Some(mut land) = Land::up(&hosts, ARGS, &[]) else { return };
    let (seeds, all) = (land.seeds(), land.peers());
    let (deaf, mute, lone) = (land.peer(3, 0), land.peer(4, 0), land.peer(6, 0));
    let rest: Vec<_> = all.iter().copied().filter(|it| ![deaf, mute].contains(it)).collect();
    let before = alive(&land.list(seeds[0]).expect("it runs"));

    // What anybody sends to the first is lost, and what the second sends to anybody. The third
    // loses what it sends to one of its neighbors, the fourth what it sends to any peer.
    let linked: Vec<_> = rest.iter().copied().filter(|it| *it != lone).collect();
    let (partial, shunned) = neighbors_among(&land, &linked);
    let hearers = [0, 1, 2, 5, 6, 7, 8, 9];
    let losses: [(usize, &[usize]); 3] =
        [(4, &hearers), (Land::host_of(partial), &[Land::host_of(shunned)]), (6, &[5, 7, 8, 9])];
    let (mark, cut) = (land.mark(), land.now_ms());
    for host in hearers {
        land.net.lose(host, &[3]);
    }
    for (from, to) in losses {
        land.net.lose(from, to);
    }
    assert!(!land.reaches(deaf, seeds[0]) && !land.reaches(mute, seeds[0]), "a cut");
    assert!(land.reaches(partial, seeds[0]) && land.reaches(shunned, seeds[0]), "no cut");
    let is_pair = |it: &LogEvent, event| {
        of(it, partial, event) && about(it, shunned, event)
            || of(it, shunned, event) && about(it, partial, event)
    };
    let doubted =
        land.wait_line(mark, "one who is not heard is suspected", |it| is_pair(it, "suspected"));
    let cleared = land.wait_line(mark, "others hear it", |it| is_pair(it, "cleared"));
    let gone = [deaf, mute].map(|it| {
        land.wait_line(mark, "who is reached one way only goes", |line| {
            line.is("seed", "removed") && about(line, it, "removed")
        })
    });
    let kept = land.wait_line(mark, "seeds reach whom no peer reaches", |it| {
        it.is("seed", "rejected") && about(it, lone, "rejected")
    });
    land.await_members(&seeds, &rest);
    let later = land.mark();
    land.await_gossip(later, &linked);
    land.await_overlay(&seeds, &linked);
    land.await_members(&seeds, &rest);
    assert_eq!(removals(&mut land, 0), BTreeSet::from([deaf, mute]), "nobody else");
    println!(
        "one-way loss: the deaf one went after {}, the mute one after {}; of two neighbors of \
         whom one does not hear the other, one suspected the other after {} and no more after {} \
         ({}); whom no peer hears, but the seeds, was accused and kept after {}; nobody else went",
        after(&gone[0], cut),
        after(&gone[1], cut),
        after(&doubted, cut),
        after(&cleared, cut),
        cleared.text("reason").unwrap_or_default(),
        after(&kept, cut),
    );

    let (healing, healed) = (land.mark(), land.now_ms());
    for host in hearers {
        land.net.deliver(host, &[3]);
    }
    for (from, to) in losses {
        land.net.deliver(from, to);
    }
    for (peer, life) in before.iter().filter(|(it, _)| [deaf, mute].contains(it)) {
        let back = rebirth(&mut land, healing, *peer, *life);
        println!("healed: {peer} is a member again after {}", after(&back, healed));
    }
    land.await_whole(&all);
    assert_eq!(removals(&mut land, 0), BTreeSet::from([deaf, mute]), "nobody else");
    println!("healed: whole after {} ms", land.now_ms() - healed);
}

#[test]
fn a_rebooted_host_and_seeds_restarted_in_turn_cost_nothing() {
    let hosts = [(true, 2), (true, 2), (true, 2)];
    let Some(mut land) = Land::up(&hosts, ARGS, &[]) else { return };
    let (seeds, all) = (land.seeds(), land.peers());
    let before = alive(&land.list(seeds[0]).expect("it runs"));

    // No word leaves a host whose power fails.
    let (mark, cut) = (land.mark(), land.now_ms());
    land.net.link_down(2);
    let rebooted = land.running_on(2);
    for node in &rebooted {
        land.kill(*node);
    }
    land.net.link_up(2);
    for node in &rebooted {
        land.start(*node);
    }
    let mut told = Vec::new();
    for (peer, life) in before.iter().filter(|(peer, _)| rebooted.contains(peer)) {
        told.push(after(&rebirth(&mut land, mark, *peer, *life), cut));
    }
    land.await_whole(&all);
    // The lives that ended with the power may be found dead before the next ones register, above
    // all on a machine that starts processes slowly. No other life is removed.
    let lines = land.lines(mark);
    let removed: BTreeSet<_> =
        lines.iter().filter(|it| it.is("seed", "removed")).map(life).collect();
    let is_over = |it: &&Life| before.contains(it) && rebooted.contains(&it.0);
    assert_eq!(removed.iter().find(|it| !is_over(it)), None, "a life that goes on was removed");
    println!("a reboot: its 2 peers are members again after {told:?}; removed: {removed:?}");

    let known = alive(&land.list(seeds[0]).expect("it runs"));
    let (mark, began) = (land.mark(), land.now_ms());
    for seed in &seeds {
        let restart = land.mark();
        land.kill(*seed);
        land.start(*seed);
        land.wait_line(restart, "it has a quorum", |it| quorum(it, *seed, true));
    }
    land.await_whole(&all);
    for seed in &seeds {
        assert_eq!(alive(&land.list(*seed).expect("it runs")), known, "{seed} lost nothing");
    }
    let lines = land.lines(mark);
    let lost = ["removed", "evicted", "admitted", "unlinked"];
    let lost = lines.iter().find(|it| lost.contains(&it.event.as_str()));
    assert_eq!(lost.map(LogEvent::line), None, "nobody noticed but by the links to the seeds");
    println!("all seeds restarted in turn: whole after {} ms, nobody lost", land.now_ms() - began);
}

#[test]
fn no_host_outlives_its_test() {
    let Some(mut land) = Land::lay_out(&[(true, 1), (false, 1)], ARGS) else { return };
    for node in [land.seeds(), land.peers()].concat() {
        land.start(node);
    }
    let holders = land.net.holders();
    assert_eq!(holders.len(), 3, "two hosts and the switch");
    assert!(holders.iter().all(|it| is_running(*it)));
    // A process has its own command line a moment after its start only.
    let dir = land.dir().to_str().expect("a plain path").to_owned();
    assert!(eventually(|| processes_with(&dir).len() == 3));
    drop(land);
    assert!(!holders.iter().any(|it| is_running(*it)));
    assert_eq!(processes_with(&dir), [] as [u32; 0]);
}
