//! Servers of versions that change while nodes run.

use super::*;
use crate::machine::rollout::server_digest;

const URL: &str = "http://127.0.0.1:9003";

fn model(name: &str) -> ModelId {
    name.parse().unwrap()
}

fn change(name: &str, url: Option<&str>) -> ServerChanges {
    [(model(name), url.map(str::to_owned))].into()
}

/// A node with these servers, each with a digest by its name.
fn seat(table: &TestFleet, at: usize, servers: &[&str], past: Vec<Record>) -> TestNode {
    let models = servers.iter().map(|it| (model(it), (*it).to_owned())).collect();
    table.seat_of(Config { models: Some(models), ..table.config(at) }, at, past)
}

fn seats(table: &TestFleet) -> Vec<TestNode> {
    (0..3).map(|at| seat(table, at, &["v1", "v2"], whole())).collect()
}

fn told(fx: &[Effect]) -> Vec<(TxId, ServerChanges)> {
    let told = fx.iter().filter_map(|it| {
        let Effect::Extra(ExtraEffect::ChangeServers { txid, changes }) = it else {
            return None;
        };
        Some((txid.clone(), changes.clone()))
    });
    told.collect()
}

fn serves(seat: &TestNode) -> Vec<String> {
    let serves = seat.machine.heartbeat().serves.unwrap();
    serves.into_iter().map(|(model, digest)| format!("{model} {digest}")).collect()
}

/// Lets a node's server of the new version answer.
fn answers(seat: &mut TestNode, name: &str) -> Vec<Effect> {
    seat.tell(Input::Extra(ExtraInput::Probed { model: model(name), failure: None }))
}

fn start_to(name: &str, change: impl FnOnce(&mut StartOrder)) -> Command {
    let Command::Start(mut order) = start(&[5000, 10_000]) else { unreachable!() };
    order.to = model(name);
    order.gates.clear();
    change(&mut order);
    Command::Start(order)
}

#[test]
fn a_server_that_all_agree_on_is_each_node_s_from_the_commit_on() {
    let table = table(3);
    let mut seats = seats(&table);
    let changes = change("v3", Some(URL));
    let mut past = Vec::new();
    let fx = seats[0].ask(Command::Serve { changes: changes.clone() });
    let proposed = proposal(&fx);
    assert_eq!((proposed.txid.kind, &proposed.serves), (TxKind::Serve, &changes));
    let fx = agree(&mut seats, 0, &fx);
    assert_eq!(told(&fx), [(proposed.txid.clone(), changes.clone())]);
    let txid = proposed.txid;
    for seat in &mut seats {
        let whole = format!("v3 {}", server_digest(URL));
        assert_eq!(serves(seat), ["v1 v1", "v2 v2", &whole]);
        assert_eq!(seat.machine.present.state().canary_share(), 0, "nothing else changes");
        past = [self::whole(), seat.records.clone()].concat();
    }
    // So the next start is voted for, by all.
    let fx = seats[0].ask(start_to("v3", |_| {}));
    let proposed = proposal(&fx);
    answers(&mut seats[0], "v3");
    for at in [1, 2] {
        seats[at].hear(0, prepare(&proposed));
        assert_eq!(vote(&answers(&mut seats[at], "v3")).vote, Choice::Commit);
    }
    // A node that died before it carried it out does it at its next start, once.
    let mut memory = RolloutMemory::default();
    past.into_iter().for_each(|it| memory.replay(it));
    let other: TxId = "serve-node-a-1-1".parse().unwrap();
    for (servers_at, times) in [(None, 1), (Some(other), 1), (Some(txid), 0)] {
        let models = Some([(model("v1"), "v1".to_owned())].into());
        let config = Config { models, servers_at: servers_at.clone(), ..table.config(2) };
        let keys = table.keys[2].clone();
        let mut machine = RolloutMachine::new(config, keys, rng(), memory.clone());
        let mut fx = Fx::default();
        machine.handle(Now::default(), Input::Start, &mut fx);
        let mut found: Vec<_> = fx.drain().collect();
        machine.handle(Now::default(), Input::Synced { records: 1 }, &mut fx);
        found.extend(fx.drain());
        assert_eq!(told(&found).len(), times, "{servers_at:?}");
        assert_eq!(machine.heartbeat().serves.unwrap().contains_key(&model("v3")), times == 1);
    }
}

#[test]
fn changes_of_servers_outlive_the_history() {
    let table = table(1);
    let mut seat = table.seat_keeping(1, 0, whole());
    let servers = [("v1", "http://a:1"), ("v2", "http://a:2"), ("v3", URL)];
    let changes: ServerChanges =
        servers.map(|(name, url)| (model(name), Some(url.to_owned()))).into();
    let is_done = |fx: &[Effect]| matches!(answer(fx), Some(CommandResult::Committed { .. }));
    assert!(is_done(&seat.ask(Command::Serve { changes: changes.clone() })));
    for _ in 0..9 {
        let roster = seat.machine.roster().clone();
        assert!(is_done(&seat.ask(Command::Roster(roster))));
    }
    assert!(seat.machine.history().len() < 5);
    assert_eq!(seat.machine.memory.after(0).next().unwrap().proposal.serves, changes);
    // The first transaction of the history is no change of the servers, so the state is its own.
    let again = table.seat_keeping(1, 0, [whole(), seat.machine.snapshot()].concat());
    assert_eq!(again.machine.present.version(), 11);
    assert_eq!(again.machine.heartbeat().serves.unwrap().len(), 3);
}

#[test]
fn a_version_that_is_served_keeps_its_server() {
    let table = table(3);
    let digest = |name: &str, url: Option<&str>| -> ServerDigests {
        [(model(name), url.map(server_digest))].into()
    };
    let mut seats = seats(&table);
    let may = |seat: &TestNode, name: &str| {
        seat.machine.may_change_servers(&digest(name, None)).err().unwrap_or_default()
    };
    assert!(may(&seats[0], "v1").contains("v1 is served now, as the stable version"));
    assert_eq!(may(&seats[0], "v2"), "", "it is the next one by name alone");
    assert!(may(&seats[0], "v3").contains("no server of v3"));
    // A vote binds, and so does a proposal.
    let fx = seats[0].ask(start_to("v2", |order| order.steps = vec![0, 10_000]));
    let proposed = proposal(&fx);
    assert!(may(&seats[0], "v2").contains("v2 is served now"), "{}", may(&seats[0], "v2"));
    answers(&mut seats[0], "v2");
    for at in [1, 2] {
        seats[at].hear(0, prepare(&proposed));
        let yes = vote(&answers(&mut seats[at], "v2"));
        assert!(!may(&seats[at], "v2").is_empty());
        seats[0].hear(at, Message::PrepareResp(yes));
    }
    assert_eq!(seats[0].machine.present.version(), 2);
    assert!(may(&seats[0], "v2").contains("a rollout that is not over"), "a preview too");
    // All nodes together cannot take it away either.
    let fx = seats[0].ask(Command::Serve { changes: change("v2", None) });
    let Some(CommandResult::Refused { cause: AbortCause::Model, reason, .. }) = answer(&fx) else {
        panic!("{fx:?}")
    };
    assert!(reason.contains("v2 is served now"), "{reason}");
    // Another server of it is no loss.
    let other = digest("v2", Some("http://b:2"));
    assert_eq!(seats[0].machine.may_change_servers(&other), Ok(()));
    seats[0].tell(Input::Extra(ExtraInput::Servers(other)));
    assert!(serves(&seats[0])[1].ends_with(&server_digest("http://b:2")));
}

#[test]
fn a_node_that_echoes_gets_servers_of_all_that_is_served_or_of_none() {
    let table = table(3);
    let seat = table.seat(0, whole());
    let some = |names: &[&str]| -> ServerDigests {
        names.iter().map(|it| (model(it), Some("0a".to_owned()))).collect()
    };
    let refusal = seat.machine.may_change_servers(&some(&["v3"])).unwrap_err();
    assert!(refusal.contains("built-in model") && refusal.contains("server of v1"), "{refusal}");
    assert_eq!(seat.machine.may_change_servers(&some(&["v1", "v3"])), Ok(()));
}

#[test]
fn the_stable_version_keeps_its_server_while_all_requests_go_to_the_new_one() {
    let table = table(3);
    let none = |name: &str| -> ServerDigests { [(model(name), None)].into() };
    let mut seats: Vec<_> = (0..3).map(|at| table.seat(at, whole())).collect();
    commit(&mut seats, 0, start_to("v2", |order| order.steps = vec![10_000]));
    // With the built-in model: a server of the new version alone would end the way back.
    let fx = seats[0].ask(Command::Serve { changes: change("v2", Some(URL)) });
    let Some(CommandResult::Refused { reason, .. }) = answer(&fx) else { panic!("{fx:?}") };
    assert!(reason.contains("server of v1"), "{reason}");
    commit(&mut seats, 0, Command::Rollback);
    let mut seats = self::seats(&table);
    let fx = seats[0].ask(start_to("v2", |order| order.steps = vec![10_000]));
    let proposed = proposal(&fx);
    answers(&mut seats[0], "v2");
    for at in [1, 2] {
        seats[at].hear(0, prepare(&proposed));
        let yes = vote(&answers(&mut seats[at], "v2"));
        seats[0].hear(at, Message::PrepareResp(yes));
    }
    assert_eq!(seats[0].machine.present.state().canary_share(), 10_000);
    let refusal = seats[0].machine.may_change_servers(&none("v1")).unwrap_err();
    assert!(refusal.contains("as the stable version"), "{refusal}");
}

#[test]
fn a_node_that_lacks_a_server_can_be_given_others() {
    let table = table(3);
    let poor = seat(&table, 0, &["v2"], whole());
    let more = [(model("v3"), Some("0a".to_owned()))].into();
    assert_eq!(poor.machine.may_change_servers(&more), Ok(()), "it lacks v1 with or without it");
}

#[test]
fn what_a_node_does_not_serve_is_refused_with_the_remedy_until_it_does() {
    let table = table(3);
    let mut seats = seats(&table);
    let one = |name: &str| -> ServerDigests { [(model(name), Some("0a".to_owned()))].into() };
    seats[0].tell(Input::Extra(ExtraInput::Servers(one("v3"))));
    let fx = seats[0].ask(start_to("v3", |_| {}));
    let proposed = proposal(&fx);
    let no = vote(&seats[1].hear(0, prepare(&proposed)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::Model)));
    let remedy = "this node serves no model v3: peer rollout serve v3=URL --id node-b";
    assert_eq!(no.reason, remedy);
    // With a server it votes, and says at once that it has one.
    let fx = seats[2].tell(Input::Extra(ExtraInput::Servers(one("v3"))));
    let beat = sent(&fx).into_iter().find_map(|it| {
        let Message::Heartbeat(it) = it else { return None };
        it.serves.clone()
    });
    assert!(beat.expect("it is told").contains_key(&model("v3")));
    seats[2].hear(0, prepare(&proposed));
    assert_eq!(vote(&answers(&mut seats[2], "v3")).vote, Choice::Commit);
    // A name that gets no requests needs no server: who takes part can change without it.
    let mut poor: Vec<_> = (0..3).map(|at| seat(&table, at, &["v1"], whole())).collect();
    let roster = table.roster.clone();
    commit(&mut poor, 0, Command::Roster(roster));
}

#[test]
fn servers_that_change_are_compared_again() {
    let table = table(3);
    let mut seats = seats(&table);
    let beat = Message::Heartbeat(seats[1].machine.heartbeat());
    let differs =
        |fx: &[Effect]| fx.iter().any(|it| matches!(it, Effect::Emit(Event::OtherServers { .. })));
    assert!(!differs(&seats[0].hear(1, beat.clone())));
    let other = [(model("v2"), Some("other".to_owned()))].into();
    assert!(differs(&seats[0].tell(Input::Extra(ExtraInput::Servers(other)))));
    assert!(!differs(&seats[0].hear(1, beat)), "once");
}

#[test]
fn a_rollout_that_insists_on_the_same_servers_is_refused_by_one_with_others() {
    let table = table(3);
    for (is_same, insists) in [(true, true), (false, false), (false, true)] {
        let mut seats = seats(&table);
        if !is_same {
            let other = [(model("v2"), Some("other".to_owned()))].into();
            seats[1].tell(Input::Extra(ExtraInput::Servers(other)));
        }
        let fx = seats[0].ask(start_to("v2", |order| order.same_servers = insists));
        let proposed = proposal(&fx);
        assert_eq!(proposed.plan.as_ref().unwrap().servers.len(), if insists { 2 } else { 0 });
        let fx = seats[1].hear(0, prepare(&proposed));
        if is_same || !insists {
            assert_eq!(vote(&answers(&mut seats[1], "v2")).vote, Choice::Commit);
        } else {
            let no = vote(&fx);
            assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::Model)));
            assert!(no.reason.contains("v2 has another server here"), "{}", no.reason);
        }
    }
}

#[test]
fn an_address_that_a_node_cannot_ask_is_refused() {
    let table = table(3);
    let mut seats = seats(&table);
    let models = Some([(model("v1"), "v1".to_owned())].into());
    let config = Config { models, can_ask: |it| !it.starts_with("https"), ..table.config(1) };
    seats[1] = table.seat_of(config, 1, whole());
    let changes = change("v3", Some("https://a:1"));
    let proposed = proposal(&seats[0].ask(Command::Serve { changes }));
    let no = vote(&seats[1].hear(0, prepare(&proposed)));
    assert_eq!((no.vote, no.cause), (Choice::Abort, Some(AbortCause::Model)));
    assert!(no.reason.contains("cannot ask https://a:1"), "{}", no.reason);
}
