//! Peers that hand on a file: `cargo run --release --example share [PEERS [MIB]]`.
//!
//! The first peer, whose uplink is slow, offers a file and publishes its ticket; all others fetch
//! it at once, from it and from each other, and compare what came with the original.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;
use std::time::Duration;

use folkmoot::Network;
use folkmoot::network::{Message, Queue, Share};

/// Bytes a second that the first peer sends, at most.
const UPLINK: u64 = 4 << 20;

/// How long the ticket may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let peers: usize = args.next().map_or(Ok(4), |text| text.parse())?;
    let mib: usize = args.next().map_or(Ok(16), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let original = dir.path().join("original.bin");
    let content: Vec<u8> = (0..mib << 20)
        .map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0])
        .collect();
    fs::write(&original, &content)?;

    let first = Network::builder().share_rates(Some(UPLINK), None).start()?;
    let begin = |_| Network::builder().bootstrap([first.endpoint()]).start();
    let others = (1..peers).map(begin).collect::<Result<Vec<_>, _>>()?;
    let news = others.iter().map(|it| it.subscribe("tickets")).collect::<Result<Vec<_>, _>>()?;
    for network in &others {
        network.wait_for_peers(1, PATIENCE)?;
    }

    let offered = first.share(&original).wait()?;
    first.broadcast("tickets", offered.ticket().to_string().as_str())?;

    let begin = |(network, news): (&Network, &Queue<Message>)| -> Result<Share, Box<dyn Error>> {
        let message = news.recv_timeout(PATIENCE)?;
        let ticket = std::str::from_utf8(&message.data)?;
        let to = dir.path().join(network.endpoint().port().to_string());
        Ok(network.fetch(ticket, to).wait()?)
    };
    let fetched = others.iter().zip(&news).map(begin).collect::<Result<Vec<_>, _>>()?;
    for (network, share) in others.iter().zip(&fetched) {
        share.complete().wait()?;
        assert!(fs::read(share.path())? == content, "what came is not what was offered");
        let progress = share.progress();
        println!(
            "{} has {} pieces, verified; it passed on {} KiB",
            network.endpoint(),
            progress.have,
            progress.up >> 10
        );
    }
    println!("the first sent {} KiB to {} others", offered.progress().up >> 10, others.len());
    for it in first.shares() {
        println!("{} ({} bytes) is at {} peers", it.ticket.name, it.ticket.size, it.peers);
    }
    Ok(())
}
