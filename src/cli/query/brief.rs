//! `peer status` without `--all`: a dozen rows that say what matters most. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::cli::output::age;
use crate::cli::report::counted;
use crate::cli::size::Size;
use crate::cli::text::escape;
use crate::model::WallTime;

/// Largest number of neighbors that are named; the rest are counted.
const NAMED_MAX: usize = 4;

/// Labels and texts of the rows, which no foreign text can break.
pub(super) fn brief(
    status: &Value,
    since: impl Fn(WallTime) -> String,
) -> Vec<(&'static str, String)> {
    let mut rows = vec![("health", health(status)), ("node", node(status))];
    if status["role"] == "peer" {
        rows.push(("member", membership(status, since)));
    }
    rows.push(("seeds", seeds(status)));
    if let Some(text) = neighbors(status) {
        rows.push(("neighbors", text));
    }
    rows.push(("members", members(status)));
    let lists = [("suspects", names(&status["suspects"])), ("turned away", away(status))];
    rows.extend(lists.into_iter().filter(|(_, text)| !text.is_empty()));
    let services = [
        ("gossip", gossip(status)),
        ("messages", messages(&status["network"]["broadcast"])),
        ("shares", shares(&status["shares"])),
        ("chat", chat(&status["chat"])),
        ("order", order(&status["order"])),
        ("rollout", rollout(&status["rollout"])),
    ];
    rows.extend(services.into_iter().filter_map(|(label, text)| Some((label, text?))));
    rows.push(("memory", memory(&status["process"])));
    let up = Duration::from_millis(number(&status["uptime_ms"]));
    let (version, pid) = (text(&status["version"]), number(&status["pid"]));
    rows.push(("up", format!("{}, process {pid}, version {version}", age(up))));
    for (_, text) in &mut rows {
        *text = escape(text);
    }
    rows
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// Strings and numbers of a list, or keys of an object, in a row.
pub(in crate::cli) fn names(value: &Value) -> String {
    let name = |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
    let names: Vec<_> = match value {
        Value::Array(items) => items.iter().map(name).collect(),
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    names.join(", ")
}

/// A remark on members that are out of reach, if there are any.
fn without(value: &Value) -> String {
    match names(value) {
        none if none.is_empty() => none,
        some => format!(", without {some}"),
    }
}

fn health(status: &Value) -> String {
    match status["trouble"].as_str() {
        Some(trouble) => format!("TROUBLE: {trouble}"),
        None => match number(&status["health"]) {
            0 => "good".to_owned(),
            score => format!("good, but slow: it distrusts its own findings, {score} of 7"),
        },
    }
}

fn node(status: &Value) -> String {
    let endpoint = text(&status["endpoint"]);
    match (status["role"].as_str(), status["seed"].as_u64()) {
        (_, Some(id)) => {
            let votes = if status["ready"] == true { "votes" } else { "does not vote yet" };
            format!("seed {id} at {endpoint}, {votes}")
        }
        (role, None) => format!("{} at {endpoint}", role.unwrap_or("node")),
    }
}

fn membership(status: &Value, since: impl Fn(WallTime) -> String) -> String {
    match (status["state"].as_str(), status["member_since"].as_u64()) {
        (Some("member") | None, Some(at)) => since(WallTime(at)),
        (Some("member"), None) => "yes".to_owned(),
        (state, _) => format!("not yet: {}", state.unwrap_or("unknown")),
    }
}

fn seeds(status: &Value) -> String {
    let (all, needed) = (number(&status["seeds_configured"]), number(&status["quorum"]));
    let decide = if needed == 1 { "1 vote decides" } else { &format!("{needed} votes decide") };
    if let Some(linked) = status["seeds_connected"].as_u64() {
        let frozen = if linked < needed { ": membership is frozen" } else { "" };
        return format!("{linked} of {all} in reach, {decide}{frozen}");
    }
    if all == 0 {
        return "none, the fleet is open".to_owned();
    }
    let linked = status["seeds"].as_array().map_or(0, Vec::len);
    let which = names(&status["seeds"]);
    let which = if which.is_empty() { which } else { format!(" ({which})") };
    format!("{linked} of {all} linked{which}, {decide}")
}

fn neighbors(status: &Value) -> Option<String> {
    let all = status["neighbors"].as_object()?;
    let name = |(at, micros): (&String, &Value)| match micros.as_u64() {
        Some(micros) => format!("{at} ({})", round_trip(micros)),
        None => at.clone(),
    };
    let mut named: Vec<_> = all.iter().take(NAMED_MAX).map(name).collect();
    if all.len() > NAMED_MAX {
        named.push(format!("and {} more", all.len() - NAMED_MAX));
    }
    Some(if named.is_empty() { "none".to_owned() } else { named.join(", ") })
}

/// A round trip in milliseconds: `0.3 ms`, `12 ms`.
pub(in crate::cli) fn round_trip(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    }
}

fn members(status: &Value) -> String {
    match status["members"].as_u64() {
        Some(all) => format!("{all}, of which {} linked here", number(&status["members_linked"])),
        None => format!("{} others known", number(&status["members_known"])),
    }
}

fn away(status: &Value) -> String {
    status.as_object().map(turned_away).unwrap_or_default().join(", ")
}

/// Connections that the driver refused, by cause: the machine never learned of them, so they are
/// not among its own refusals.
pub(super) fn turned_away(status: &Map<String, Value>) -> Vec<String> {
    const CAUSES: [(&str, &str); 11] = [
        ("refused_keyless", "no cluster key"),
        ("refused_wrong_key", "another cluster key"),
        ("refused_key", "a cluster key, and none here"),
        ("refused_frame", "broken encryption"),
        ("refused_silent", "silent"),
        ("refused_crowded", "crowded"),
        ("refused_full", "no room"),
        ("refused_dialect", "another protocol"),
        ("refused_too_long", "line too long"),
        ("refused_truncated", "half a line"),
        ("refused_slow", "does not read"),
    ];
    let count = |name| status.get("counters")?.get(name)?.as_u64().filter(|count| *count > 0);
    let told = CAUSES.iter().filter_map(|(name, words)| Some((words, count(*name)?)));
    told.map(|(words, count)| format!("{words}: {count}")).collect()
}

fn gossip(status: &Value) -> Option<String> {
    let (made, held) = (status["gossip_made"].as_u64()?, number(&status["gossip_held"]));
    let twice = number(&status["gossip_duplicates"]);
    Some(format!("{made} made, {held} held, {twice} came twice"))
}

fn messages(broadcast: &Value) -> Option<String> {
    let published = broadcast["messages_published"].as_u64()?;
    let delivered = number(&broadcast["messages_delivered"]);
    let dropped = broadcast["messages_dropped"].as_object();
    let dropped: u64 = dropped.map_or(0, |it| it.values().map(number).sum());
    Some(format!("{published} published, {delivered} delivered, {dropped} dropped"))
}

fn shares(shares: &Value) -> Option<String> {
    let own = shares["own"].as_u64()?;
    let (taken, known) = (number(&shares["taken"]), number(&shares["known"]));
    Some(format!("{own} of its own, {taken} taken, {known} known"))
}

fn chat(chat: &Value) -> Option<String> {
    let me = chat["id"].as_u64()?;
    let leader = chat["leader"].as_u64();
    let who = match leader {
        Some(leader) if leader == me => "leads".to_owned(),
        Some(leader) => format!("follows peer_{leader}"),
        None => "has no leader".to_owned(),
    };
    Some(format!(
        "peer_{me} {who}, term {}; final {} of {}; {}{}",
        number(&chat["term"]),
        number(&chat["final"]),
        number(&chat["last"]),
        counted(usize::try_from(number(&chat["members"])).unwrap_or(usize::MAX), "member"),
        without(&chat["away"]),
    ))
}

fn order(order: &Value) -> Option<String> {
    let (me, leader) = (order["id"].as_u64()?, number(&order["leader"]));
    let who = if me == leader { "leads" } else { &format!("follows peer_{leader}") };
    Some(format!(
        "{}: peer_{me} {who}, view {}; final place {}; {} of {} reached, {} decide{}",
        text(&order["name"]),
        number(&order["view"]),
        number(&order["places"]),
        number(&order["reached"]),
        number(&order["members"]),
        number(&order["quorum"]),
        match number(&order["evidence"]) {
            0 => String::new(),
            lies => format!("; {} proved", counted(usize::try_from(lies).unwrap_or(0), "lie")),
        },
    ))
}

fn rollout(rollout: &Value) -> Option<String> {
    let node = rollout["node_id"].as_str()?;
    let Some(version) = rollout["version"].as_u64() else {
        return Some(format!("{node} waits for {}", names(&rollout["waits_for"])));
    };
    let shares = rollout["weights"].as_object().into_iter().flatten();
    let shares = shares.filter_map(|(name, share)| Some((name, share.as_f64()?)));
    let shares: Vec<_> = shares
        .filter(|(_, share)| *share > 0.0)
        .map(|(name, share)| format!("{name} {} %", (share * 1_000.0).round() / 10.0))
        .collect();
    let doubt = rollout["in_doubt"].as_str();
    Some(format!(
        "{node} at state {version}: {}; {}{}{}",
        shares.join(", "),
        counted(usize::try_from(number(&rollout["nodes"])).unwrap_or(usize::MAX), "node"),
        without(&rollout["away"]),
        doubt.map_or_else(String::new, |it| format!("; in doubt about {it}")),
    ))
}

fn memory(process: &Value) -> String {
    let (threads, files) = (number(&process["threads"]), number(&process["open_fds"]));
    let resident = Size(number(&process["resident_bytes"]));
    format!("{resident}, {threads} threads, {files} open files")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::{lasting, rows_text};

    fn shown(status: &Value) -> String {
        let since = |at| lasting(at, WallTime(181_000), false);
        rows_text(&brief(status, since), Some(80))
    }

    #[test]
    fn a_peer_with_all_services_is_told_in_a_screen() {
        let status = json!({
            "role": "peer", "endpoint": "127.0.0.1:6001", "state": "member", "healthy": true,
            "member_since": 1_000, "seeds": [1, 3], "seeds_configured": 3, "quorum": 2,
            "neighbors": { "127.0.0.1:6002": 250, "127.0.0.1:6003": null, "127.0.0.1:6004": 12_300,
                "127.0.0.1:6005": 1, "127.0.0.1:6006": 1, "127.0.0.1:6007": 1 },
            "members_known": 8, "suspects": [], "gossip_made": 4, "gossip_held": 20,
            "gossip_duplicates": 9, "uptime_ms": 190_000, "version": "0.1.0", "pid": 7, "health": 0,
            "network": { "broadcast": { "messages_published": 1, "messages_delivered": 12,
                "messages_dropped": { "old": 2, "forged": 1 } } },
            "shares": { "own": 1, "taken": 0, "known": 2 },
            "chat": { "id": 1, "leader": 3, "term": 4, "final": 17, "last": 18, "members": 3,
                "away": [2] },
            "order": { "name": "o", "id": 2, "leader": 2, "view": 0, "places": 9, "reached": 4,
                "members": 4, "quorum": 3, "evidence": 1 },
            "rollout": { "node_id": "node-a", "version": 3, "nodes": 3, "away": [],
                "weights": { "v1": 0.875, "v2": 0.125, "v3": 0.0 } },
            "process": { "resident_bytes": 60_497_920, "threads": 44, "open_fds": 41 },
        });
        let expected = "\
health     good
node       peer at 127.0.0.1:6001
member     for 3 min
seeds      2 of 3 linked (1, 3), 2 votes decide
neighbors  127.0.0.1:6002 (0.2 ms), 127.0.0.1:6003, 127.0.0.1:6004 (12 ms),
           127.0.0.1:6005 (0.0 ms), and 2 more
members    8 others known
gossip     4 made, 20 held, 9 came twice
messages   1 published, 12 delivered, 3 dropped
shares     1 of its own, 0 taken, 2 known
chat       peer_1 follows peer_3, term 4; final 17 of 18; 3 members, without 2
order      o: peer_2 leads, view 0; final place 9; 4 of 4 reached, 3 decide; 1
           lie proved
rollout    node-a at state 3: v1 87.5 %, v2 12.5 %; 3 nodes
memory     57.7 MiB, 44 threads, 41 open files
up         3 min, process 7, version 0.1.0
";
        assert_eq!(shown(&status), expected);
    }

    #[test]
    fn trouble_is_told_first_and_foreign_texts_stay_on_their_line() {
        let peer = shown(&json!({
            "role": "peer", "trouble": "no seed\u{1b}[2J\nx", "state": "asking", "suspects": ["e"],
            "seeds": [], "seeds_configured": 3, "quorum": 1, "neighbors": {},
            "counters": { "refused_keyless": 4 }, "rollout": { "node_id": "n", "waits_for": ["m"] },
        }));
        for line in [
            "health       TROUBLE: no seed\\u{1b}[2J\\nx",
            "member       not yet: asking",
            "seeds        0 of 3 linked, 1 vote decides",
            "neighbors    none",
            "suspects     e",
            "turned away  no cluster key: 4",
            "rollout      n waits for m",
        ] {
            assert!(peer.lines().any(|it| it == line), "{line:?} in\n{peer}");
        }
        let seed = shown(&json!({
            "role": "seed", "seed": 2, "endpoint": "127.0.0.1:5002", "ready": false, "quorum": 2,
            "seeds_connected": 1, "seeds_configured": 3, "members": 5, "members_linked": 2,
        }));
        for line in [
            "node     seed 2 at 127.0.0.1:5002, does not vote yet",
            "seeds    1 of 3 in reach, 2 votes decide: membership is frozen",
            "members  5, of which 2 linked here",
        ] {
            assert!(seed.lines().any(|it| it == line), "{line:?} in\n{seed}");
        }
    }
}
