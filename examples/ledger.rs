//! A ledger of four members, one of which lies: `cargo run --release --example ledger`.
//!
//! Each member owns an account with 100. The first three pay each other by one order of payments.
//! The fourth, Mallory, tries to spend its 100 twice: it tells two members that its first payment
//! goes to account 1, and the third one that it goes to account 2, each time with its signature.
//! All three honest members come to the same balances, and a proof shows anybody what was ordered.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use folkmoot::model::{Endpoint, KeyPair};
use folkmoot::proto::bft::message::Message;
use folkmoot::proto::bft::{Bundle, BundleItem, OrderId};
use folkmoot::proto::chat::entry::{MemberId, Origin};
use folkmoot::runtime::files::os_rng;
use folkmoot::runtime::order::client::OrderClient;
use folkmoot::{Network, Order, OrderEntry, OrderRoster, OrderedLog, Place};

/// Number of payments of each honest member.
const PAYMENTS: u32 = 20;

/// Id of the member that lies.
const MALLORY: u32 = 4;

/// Balances that follow from the order alone, so that all members have the same.
#[derive(Debug, PartialEq)]
struct Ledger(BTreeMap<u32, u32>);

impl Ledger {
    /// Carries out `pay AMOUNT TO` of an author that has so much.
    fn apply(&mut self, entry: &OrderEntry) {
        let words: Vec<_> = entry.text().unwrap_or_default().split(' ').collect();
        let ["pay", amount, to] = words[..] else { return };
        let (Ok(amount), Ok(to)) = (amount.parse::<u32>(), to.parse::<u32>()) else { return };
        let has = self.0.get(&entry.author).copied().unwrap_or_default();
        if let Some(left) = has.checked_sub(amount)
            && self.0.contains_key(&to)
        {
            self.0.insert(entry.author, left);
            *self.0.entry(to).or_default() += amount;
        }
    }

    /// The balances after all that `log` has ordered until each honest member has said `done`.
    fn read(log: &OrderedLog) -> Self {
        let mut ledger = Self((1..=MALLORY).map(|id| (id, 100)).collect());
        let mut done = 0;
        for entry in log.follow(Place(1)) {
            ledger.apply(&entry);
            done += u32::from(entry.text() == Some("done"));
            if done == MALLORY - 1 {
                break;
            }
        }
        ledger
    }
}

/// A payment as Mallory signs it, with one number for each.
fn payment(group: &OrderId, keys: &KeyPair, to: u32) -> Message {
    let origin = Origin { member: MemberId(MALLORY), client: 1 };
    let item = BundleItem { room: "text".into(), payload: format!("pay 100 {to}").into() };
    Message::Bundle(Bundle::sign(group, origin, 1, vec![item], keys).into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let networks =
        (1..MALLORY).map(|_| Network::builder().start()).collect::<Result<Vec<_>, _>>()?;
    let mallory = KeyPair::generate(&mut os_rng()?);
    let mut members: Vec<_> =
        (1..).zip(&networks).map(|(id, it)| (id, it.endpoint(), it.key())).collect();
    // Nobody answers there: Mallory only calls.
    let nowhere: Endpoint = "127.0.0.1:9".parse().map_err(|_| "no address")?;
    members.push((MALLORY, nowhere, mallory.public()));
    let roster = OrderRoster::of(members)?;
    let group = roster.group("ledger");
    println!("four members, of which one may lie; the group is {group}");
    let logs = networks
        .iter()
        .map(|it| it.order("ledger", Order::byzantine(&roster)))
        .collect::<Result<Vec<_>, _>>()?;

    // Mallory says one thing to two members, and another to the third.
    let mut calls = Vec::new();
    for (network, to) in networks.iter().zip([1, 1, 2]) {
        let (at, me) = (network.endpoint().socket_addr(), (MemberId(MALLORY), &mallory));
        let mut call =
            OrderClient::connect(at, group, me, &mut os_rng()?, Duration::from_secs(10))?;
        call.send(&payment(&group, &mallory, to))?;
        calls.push(call);
    }
    let spent = logs[0].follow(Place(1)).find(|it| it.author == MALLORY);
    let spent = spent.ok_or("the member has stopped")?;
    println!("Mallory has spent its 100 once: {:?}", spent.text().unwrap_or_default());

    for turn in 0..PAYMENTS {
        let pays = (0..).zip(&logs).map(|(at, log): (u32, _)| {
            let to = (at + 1 + turn % 2) % 3 + 1;
            log.propose(format!("pay {} {to}", turn % 7 + at))
        });
        for placed in pays.collect::<Vec<_>>() {
            placed.wait()?;
        }
    }
    for log in &logs {
        log.propose("done").wait()?;
    }
    let ledgers: Vec<_> = logs.iter().map(Ledger::read).collect();
    for (id, ledger) in (1..).zip(&ledgers) {
        let id: u32 = id;
        println!("member {id} has the balances {:?}", ledger.0);
    }
    assert!(ledgers.windows(2).all(|pair| pair[0] == pair[1]), "they do not agree");
    assert_eq!(ledgers[0].0.values().sum::<u32>(), 400, "nothing was made or lost");
    assert_eq!(ledgers[0].0[&MALLORY], 0, "Mallory's money is spent, and once");

    let proven = logs[1].proof(spent.place)?.verify(&group)?;
    println!("a proof shows to anybody: place {} is {:?}", proven.place.0, proven.payload);
    Ok(())
}
