//! Steps of the demo, in their order. Each shows something and checks its outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::state::{Deliveries, FleetDemo, PATIENCE, same};
use crate::cli::fleet::LogEvent;
use crate::cli::{CliError, query};
use crate::model::{Endpoint, Time};
use crate::runtime::clock::Clock;
use crate::runtime::web::client;

/// Interval at which a question is repeated.
const LOOK: Duration = Duration::from_millis(50);

/// Longest wait for somebody who opens the page.
const PAGE_WAIT: Duration = Duration::from_secs(60);

/// Pause between the opening of the page and the first peers.
const PAGE_PAUSE: Duration = Duration::from_secs(2);

/// Runs all steps.
pub(super) fn run_steps(
    demo: &mut FleetDemo,
    is_open: bool,
    is_held: bool,
) -> Result<(), CliError> {
    let count = demo.fleet.peers().len();
    demo.say(&format!(
        "3 seeds and {count} peers as real processes on this machine; Ctrl-C ends them all."
    ))?;
    seeds_come_up(demo)?;
    if is_open {
        show_page(demo)?;
    }
    peers_join(demo)?;
    neighbors_form(demo)?;
    gossip_spreads(demo)?;
    let victim = demo.fleet.peers()[demo.fleet.peers().len() / 2];
    a_peer_dies(demo, victim)?;
    it_comes_back(demo, victim)?;
    everybody_heard_everything(demo)?;
    if is_held {
        hold(demo)?;
    }
    everybody_leaves(demo)
}

/// Prints the address of a seed's page, which shows all votes, and waits until it is open.
fn show_page(demo: &mut FleetDemo) -> Result<(), CliError> {
    let at = demo.fleet.seeds()[0];
    demo.step("The whole fleet, live, in a browser")?;
    demo.say(&format!("   http://{at}/"))?;
    demo.say("   goes on when the page is open, or in a minute")?;
    let (url, clock, mut own) = (format!("http://{at}"), Clock::start(), 0);
    while clock.now().mono.since(Time::ZERO) < PAGE_WAIT {
        let status = client::request(&url, "/status", None, PATIENCE);
        let status: Option<Value> =
            status.ok().and_then(|it| serde_json::from_slice(&it.body).ok());
        own += 1;
        if status.is_some_and(|it| it["http"]["requests"].as_u64() > Some(own)) {
            // People look at an empty fleet before it fills.
            return demo.watch(PAGE_PAUSE);
        }
        demo.watch(LOOK * 5)?;
    }
    Ok(())
}

/// Keeps the fleet running until Ctrl-C, which is the wanted end.
fn hold(demo: &mut FleetDemo) -> Result<(), CliError> {
    let seed = demo.fleet.seeds()[0];
    demo.step("The fleet goes on")?;
    demo.say(&format!("   page: http://{seed}/"))?;
    demo.say(&format!("   a terminal: peer members --at {seed}"))?;
    demo.say("   Ctrl-C goes on to the end")?;
    demo.hold()
}

fn start_failed(source: std::io::Error) -> CliError {
    CliError::System { action: "start a process", source }
}

fn count(lines: &[LogEvent], role: &str, event: &str) -> usize {
    lines.iter().filter(|line| line.is(role, event)).count()
}

fn seeds_come_up(demo: &mut FleetDemo) -> Result<(), CliError> {
    demo.step("Three seeds start; two of them are a quorum")?;
    for seed in demo.fleet.seeds().to_vec() {
        demo.fleet.start_seed(seed).map_err(start_failed)?;
    }
    let is_up = demo.wait(|lines| count(lines, "seed", "ready") >= 3)?;
    for line in demo.lines().to_vec().iter().filter(|line| line.is("seed", "started")) {
        demo.say(&format!("   {}", line.line()))?;
    }
    demo.check(
        "all seeds have compared their registries and vote",
        is_up.then_some(()).ok_or("not in time".to_owned()),
    )
}

fn peers_join(demo: &mut FleetDemo) -> Result<(), CliError> {
    demo.step("Peers ask to be let in; each needs two yes votes")?;
    let began = demo.wall();
    for peer in demo.fleet.peers().to_vec() {
        demo.fleet.start_peer(peer).map_err(start_failed)?;
        demo.members.push(peer);
        demo.watch(Duration::from_millis(60))?;
    }
    let wanted = demo.members.len();
    let is_in = demo.wait(|lines| count(lines, "peer", "admitted") >= wanted)?;
    let lines = demo.lines().to_vec();
    if let Some(first) = lines.iter().find(|line| line.is("peer", "admitted")) {
        let events = ["asked", "voted", "admitted", "peer_list", "peer_list_union"];
        for line in lines.iter().filter(|it| it.node == first.node) {
            if events.contains(&line.event.as_str()) {
                demo.say(&format!("   {}", line.line()))?;
            }
        }
        demo.say("   ... and so on for the others")?;
    }
    let last = lines.iter().filter(|line| line.is("peer", "admitted")).map(|it| it.ts_ms).max();
    let waits = waits(&lines, "asked", "admitted");
    demo.time("from asking to being a member", format!("median {} ms", median(&waits)));
    let all = last.unwrap_or(0).saturating_sub(began.0);
    demo.time("until all peers were members", format!("{all} ms"));
    demo.check("every peer became a member", is_in.then_some(()).ok_or("not in time".to_owned()))?;
    lists_agree(demo, "every seed lists exactly these peers")
}

/// Time of each peer between the last `first` and the `then` that follows it.
fn waits(lines: &[LogEvent], first: &str, then: &str) -> Vec<u64> {
    let mut began = BTreeMap::new();
    let mut waits = Vec::new();
    for line in lines.iter().filter(|line| line.role == "peer") {
        if line.event == first {
            began.insert(line.node, line.ts_ms);
        } else if line.event == then
            && let Some(began) = began.remove(&line.node)
        {
            waits.push(line.ts_ms.saturating_sub(began));
        }
    }
    waits
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Asks every seed for its list, as any program could. The last of them may learn a moment later.
fn lists_agree(demo: &mut FleetDemo, what: &str) -> Result<(), CliError> {
    let clock = Clock::start();
    let mut result = compare_lists(demo);
    while result.is_err() && clock.now().mono.since(Time::ZERO) < PATIENCE {
        demo.watch(LOOK)?;
        result = compare_lists(demo);
    }
    demo.check(what, result)
}

/// Checks that every seed lists exactly the peers that should be members now.
fn compare_lists(demo: &FleetDemo) -> Result<(), String> {
    let mut wanted = demo.members.clone();
    wanted.sort_unstable();
    for seed in demo.fleet.seeds() {
        let listed = query::fetch_members(*seed, PATIENCE).map_err(|error| error.to_string())?;
        let list: Vec<_> = listed.iter().map(|line| line.endpoint).collect();
        same(&list, &wanted).map_err(|reason| format!("{seed}: {reason}"))?;
    }
    Ok(())
}

/// The neighbors that each peer has announced last.
fn neighborhoods(lines: &[LogEvent]) -> BTreeMap<Endpoint, Vec<Endpoint>> {
    let mut all = BTreeMap::new();
    for line in lines.iter().filter(|line| line.role == "peer") {
        if line.event == "started" {
            all.remove(&line.node);
        } else if line.event == "neighbors" {
            let list = line.fields.get("neighbors").and_then(|it| it.as_array());
            let parse = |it: &serde_json::Value| it.as_str()?.parse().ok();
            let list = list.map(|list| list.iter().filter_map(parse).collect()).unwrap_or_default();
            all.insert(line.node, list);
        }
    }
    all
}

/// Fault of the overlay, if there is one: links must be mutual, and every member must have two or
/// more.
fn overlay_fault(lines: &[LogEvent], members: &[Endpoint]) -> Option<String> {
    let all = neighborhoods(lines);
    for member in members {
        let Some(neighbors) = all.get(member) else { return Some(format!("{member} has none")) };
        if neighbors.len() < 2 {
            return Some(format!("{member} has {}", neighbors.len()));
        }
        for neighbor in neighbors {
            if !all.get(neighbor).is_some_and(|theirs| theirs.contains(member)) {
                return Some(format!("{member} lists {neighbor}, but not the other way round"));
            }
        }
    }
    None
}

fn neighbors_form(demo: &mut FleetDemo) -> Result<(), CliError> {
    demo.step("Members link to neighbors; those with many get more")?;
    let members = demo.members.clone();
    demo.wait(|lines| overlay_fault(lines, &members).is_none())?;
    let lines = demo.lines().to_vec();
    for (peer, neighbors) in neighborhoods(&lines) {
        let ports: Vec<_> = neighbors.iter().map(|it| it.port().to_string()).collect();
        let bar = "#".repeat(neighbors.len());
        demo.say(&format!("   {peer}  {bar:<8} {}", ports.join(" ")))?;
    }
    let fault = overlay_fault(&lines, &members);
    demo.check("links are mutual, and everybody has two or more", fault.map_or(Ok(()), Err))
}

fn gossip_spreads(demo: &mut FleetDemo) -> Result<(), CliError> {
    demo.step("Each peer gossips; every message reaches everybody once")?;
    let members = demo.members.clone();
    let wanted = members.len() * 2;
    demo.wait(|lines| {
        let deliveries = Deliveries::of(lines);
        deliveries.messages.len() >= wanted && deliveries.fault(&members).is_none()
    })?;
    let lines = demo.lines().to_vec();
    if let Some(made) = lines.iter().find(|line| line.event == "gossip_made") {
        demo.say(&format!("   one message, {:?}:", made.text("text").unwrap_or_default()))?;
        let same = |line: &&LogEvent| {
            line.text("text") == made.text("text")
                && line.endpoint("origin") == made.endpoint("origin")
                && matches!(line.event.as_str(), "gossip_made" | "gossip_heard")
        };
        for line in lines.iter().filter(same) {
            demo.say(&format!("   {}", line.line()))?;
        }
    }
    let deliveries = Deliveries::of(&lines);
    let spans: Vec<_> = deliveries
        .messages
        .values()
        .filter(|it| it.last_ms > 0)
        .map(|it| it.last_ms.saturating_sub(it.made_ms.unwrap_or(it.last_ms)))
        .collect();
    let slowest = spans.iter().max().copied().unwrap_or(0);
    let text = format!("median {} ms, slowest {slowest} ms", median(&spans));
    demo.time("a gossip message to the last peer", text);
    let fault = deliveries.fault(&members);
    demo.check("every message so far reached everybody exactly once", fault.map_or(Ok(()), Err))
}

fn a_peer_dies(demo: &mut FleetDemo, victim: Endpoint) -> Result<(), CliError> {
    demo.step(&format!("kill -9 of {victim}: its neighbors must agree, then the seeds"))?;
    let neighbors = neighborhoods(demo.lines()).remove(&victim).unwrap_or_default();
    let before = demo.lines().len();
    demo.fleet.kill(victim).map_err(start_failed)?;
    let killed = demo.wall();
    demo.members.retain(|member| *member != victim);
    let is_about = move |line: &&LogEvent| line.endpoint("endpoint") == Some(victim);
    let is_removed = demo.wait(|lines| {
        let removed = |role| {
            let about = lines[before..].iter().filter(is_about);
            about.filter(|line| line.is(role, "removed")).count()
        };
        removed("seed") >= 3 && removed("peer") >= neighbors.len()
    })?;
    let lines = demo.lines()[before..].to_vec();
    let story = ["suspected", "confirmed", "dead_node", "proposed", "voted", "removed"];
    let mut first: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut last_removed = 0;
    let mut shown = 0;
    for line in lines.iter().filter(is_about) {
        let Some(event) = story.iter().find(|it| **it == line.event) else { continue };
        let after = line.ts_ms.saturating_sub(killed.0);
        first.entry((if line.role == "seed" { "seed" } else { "peer" }, *event)).or_insert(after);
        if line.event == "removed" && line.role == "seed" {
            last_removed = last_removed.max(after);
        }
        let is_repeated = line.role == "peer" && line.event == "removed";
        if !is_repeated && shown < 40 {
            shown += 1;
            demo.say(&format!("   +{after:>4} ms  {} {}: {}", line.role, line.node, line.message))?;
        }
    }
    for (what, key) in [
        ("kill -9 to the first suspicion", ("peer", "suspected")),
        ("kill -9 to the first report", ("peer", "dead_node")),
    ] {
        let value = first.get(&key).map_or("never".to_owned(), |ms| format!("{ms} ms"));
        demo.time(what, value);
    }
    demo.time("kill -9 to removal at every seed", format!("{last_removed} ms"));
    let reports = lines.iter().filter(|line| line.is("peer", "dead_node")).count();
    let result = if is_removed { Ok(()) } else { Err("not in time".to_owned()) };
    demo.check("its neighbors agreed, the seeds agreed, and everybody dropped it", result)?;
    let has_report = (reports > 0).then_some(()).ok_or("no report".to_owned());
    demo.check("a report with a majority of its neighbors went to the seeds", has_report)?;
    lists_agree(demo, "every seed lists the survivors and nobody else")
}

fn it_comes_back(demo: &mut FleetDemo, victim: Endpoint) -> Result<(), CliError> {
    demo.step(&format!("{victim} starts again, as a fresh member"))?;
    let before = demo.lines().len();
    let life = |lines: &[LogEvent]| {
        let mut own = lines.iter().filter(|it| it.node == victim && it.is("peer", "admitted"));
        own.next_back().and_then(|line| line.number("incarnation"))
    };
    let old = life(demo.lines());
    demo.fleet.start_peer(victim).map_err(start_failed)?;
    demo.members.push(victim);
    let members = demo.members.clone();
    demo.wait(|lines| {
        life(&lines[before..]).is_some() && overlay_fault(lines, &members).is_none()
    })?;
    let new = life(&demo.lines()[before..]);
    let text = |life: Option<u64>| life.map_or("none".to_owned(), |it| it.to_string());
    demo.say(&format!("   incarnation {} is over, {} begins", text(old), text(new)))?;
    let waits = waits(&demo.lines()[before..], "started", "admitted");
    demo.time("restart to being a member again", format!("{} ms", median(&waits)));
    let result = if new > old { Ok(()) } else { Err(format!("{old:?} then {new:?}")) };
    demo.check("it is a member again, under a higher incarnation", result)?;
    lists_agree(demo, "every seed lists it again")
}

fn everybody_heard_everything(demo: &mut FleetDemo) -> Result<(), CliError> {
    demo.step("All gossip is over; also the late one must have heard all of it")?;
    let members = demo.members.clone();
    let lives = members.len() + 1;
    let is_all = demo.wait(|lines| {
        let deliveries = Deliveries::of(lines);
        let made = deliveries.messages.keys().filter(|(_, _, number)| *number == 5).count();
        made + 1 >= lives && deliveries.fault(&members).is_none()
    })?;
    let deliveries = Deliveries::of(demo.lines());
    let count = deliveries.messages.len();
    let fault = deliveries.fault(&members).or_else(|| (!is_all).then(|| "not in time".to_owned()));
    let what = format!("{count} messages, each heard exactly once by each of {}", members.len());
    demo.check(&what, fault.map_or(Ok(()), Err))
}

fn everybody_leaves(demo: &mut FleetDemo) -> Result<(), CliError> {
    demo.step("Everybody says goodbye (SIGTERM): no suspicion, no vote")?;
    let suspicions = count(demo.lines(), "peer", "suspected");
    let mut result = Ok(());
    for peer in std::mem::take(&mut demo.members) {
        let code = demo.fleet.stop(peer, PATIENCE).map_err(|error| error.to_string());
        result = result.and_then(|()| match code? {
            Some(0) => Ok(()),
            other => Err(format!("{peer} ended with {other:?}")),
        });
    }
    demo.check("every peer ended with exit code 0", result)?;
    lists_agree(demo, "every seed's list is empty")?;
    let new = count(demo.lines(), "peer", "suspected") - suspicions;
    let result = if new == 0 { Ok(()) } else { Err(format!("{new} suspicions")) };
    demo.check("nobody was suspected", result)?;
    for seed in demo.fleet.seeds().to_vec() {
        let code = demo.fleet.stop(seed, PATIENCE).map_err(start_failed)?;
        if code != Some(0) {
            demo.check("the seeds end with exit code 0", Err(format!("{seed}: {code:?}")))?;
        }
    }
    demo.watch(Duration::from_millis(20))
}
