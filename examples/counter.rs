//! A counter that all peers agree on: `cargo run --release --example counter [PEERS]`.
//!
//! Each peer adds to its own column and tells everybody its column's new value; a counter is the
//! sum of the largest values heard of each column (a grow-only counter, Shapiro et al. 2011). Since
//! every message reaches every peer, all come to the same sum, whatever the order.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::thread;
use std::time::Duration;

use folkmoot::Network;
use folkmoot::model::Endpoint;
use folkmoot::network::{Message, Queue};

/// How often each peer adds one.
const ROUNDS: u64 = 20;

/// How long the last message may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default, PartialEq)]
struct Counter(BTreeMap<Endpoint, u64>);

impl Counter {
    fn merge(&mut self, column: Endpoint, value: u64) {
        let held = self.0.entry(column).or_default();
        *held = value.max(*held);
    }

    fn sum(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Adds, and listens until the sum is what all additions make.
fn count(network: &Network, news: &Queue<Message>, total: u64) -> Result<Counter, Box<dyn Error>> {
    let mut counter = Counter::default();
    for value in 1..=ROUNDS {
        network.broadcast("counter", value.to_be_bytes().to_vec())?;
    }
    while counter.sum() < total {
        let message = news.recv_timeout(PATIENCE)?;
        let bytes: [u8; 8] = message.data[..].try_into()?;
        counter.merge(message.origin, u64::from_be_bytes(bytes));
    }
    Ok(counter)
}

fn main() -> Result<(), Box<dyn Error>> {
    let peers: usize = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let first = Network::builder().start()?;
    let begin = |_| Network::builder().bootstrap([first.endpoint()]).start();
    let mut networks = (1..peers).map(begin).collect::<Result<Vec<_>, _>>()?;
    networks.push(first);
    let news = networks.iter().map(|it| it.subscribe("counter")).collect::<Result<Vec<_>, _>>()?;
    for network in &networks {
        network.wait_for_peers(peers.saturating_sub(1).min(2), PATIENCE)?;
    }
    let total = ROUNDS * peers as u64;
    let counters: Vec<_> = thread::scope(|scope| {
        let pairs = networks.iter().zip(&news);
        let threads: Vec<_> = pairs
            .map(|(network, news)| {
                scope.spawn(|| count(network, news, total).map_err(|it| it.to_string()))
            })
            .collect();
        threads.into_iter().map(|it| it.join().expect("no counter panics")).collect()
    });
    let counters = counters.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (network, counter) in networks.iter().zip(&counters) {
        println!("{} counts {}", network.endpoint(), counter.sum());
    }
    assert!(counters.windows(2).all(|pair| pair[0] == pair[1]), "they do not agree");
    println!("all {peers} agree on {total}");
    Ok(())
}
