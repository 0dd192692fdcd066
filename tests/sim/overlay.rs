//! The shape of the overlay at 220 peers, and gossip across it (O2, G2).

#![allow(clippy::print_stdout, reason = "the measured exponents are worth a line")]

use crate::common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::checkers::{overlay_fault, undelivered};
use common::{Fleet, Plan};
use folkmoot::machine::gossip;
use folkmoot::model::Time;
use folkmoot::node::PeerConfig;
use folkmoot::proto::membership::PeerListReq;
use folkmoot::proto::message::Message;
use folkmoot::sim::for_each_seed;

/// The exponent of a power-law tail by maximum likelihood, in the discrete approximation of
/// Clauset, Shalizi and Newman (SIAM Review 51, 661, equation 3.7), for degrees from `least` on.
fn exponent(degrees: &[usize], least: usize) -> f64 {
    let tail: Vec<_> = degrees.iter().copied().filter(|degree| *degree >= least).collect();
    let shift = least as f64 - 0.5;
    1.0 + tail.len() as f64 / tail.iter().map(|k| (*k as f64 / shift).ln()).sum::<f64>()
}

#[test]
fn the_degrees_of_220_peers_have_a_power_law_tail() {
    let exponents = for_each_seed(2, |seed| {
        let gossip = gossip::Config { messages_max: 2, ..gossip::Config::default() };
        let plan = Plan {
            peer_config: PeerConfig { gossip, ..PeerConfig::default() },
            peers: 220,
            pinned: true,
            stagger: Duration::from_millis(100),
            ..Plan::default()
        };
        let mut fleet = Fleet::started(seed, &plan);
        fleet.world.run_for(Duration::from_secs(30));
        fleet.settle(Duration::from_secs(30));
        let peers = fleet.peers.clone();
        fleet.run_until(Duration::from_secs(30), "the overlay is whole", |fleet| {
            overlay_fault(fleet, &peers).is_none()
        });
        let degrees: Vec<_> = peers
            .iter()
            .map(|peer| fleet.peer(*peer).expect("it is up").overlay().neighbors().len())
            .collect();
        let mean = degrees.iter().sum::<usize>() as f64 / degrees.len() as f64;
        let hub = degrees.iter().max().copied().unwrap_or_default();
        let found = exponent(&degrees, 4);
        let mut histogram: BTreeMap<usize, usize> = BTreeMap::new();
        for degree in &degrees {
            *histogram.entry(*degree).or_default() += 1;
        }
        assert!((2.0..=3.5).contains(&found), "exponent {found:.2}: {histogram:?}");
        assert!(hub as f64 >= 4.0 * mean, "a hub of {hub} at a mean of {mean:.1}: {histogram:?}");
        assert!(degrees.iter().all(|degree| *degree >= 2), "{histogram:?}");
        fleet.world.run_for(Duration::from_secs(15));
        assert_eq!(undelivered(&fleet, &peers, Time::ZERO), []);
        found
    });
    println!("exponents by maximum likelihood: {exponents:.2?}");
}

#[test]
fn of_a_large_fleet_peers_are_told_a_sample_and_others_all_of_it() {
    let gossip = gossip::Config { messages_max: 0, ..gossip::Config::default() };
    let plan = Plan {
        peer_config: PeerConfig { gossip, ..PeerConfig::default() },
        peers: 410,
        pinned: true,
        stagger: Duration::from_millis(20),
        ..Plan::default()
    };
    let mut fleet = Fleet::started(1, &plan);
    fleet.world.run_for(Duration::from_secs(9));
    fleet.settle(Duration::from_secs(30));
    let intruder = fleet.world.intruder_dial([10, 9, 9, 9].into(), fleet.seeds[0]);
    for question in [PeerListReq::SAMPLE, PeerListReq::SAMPLE, PeerListReq::default()] {
        fleet.world.intruder_send(intruder, question);
    }
    fleet.world.run_for(Duration::from_secs(1));
    let pages: Vec<_> = fleet
        .world
        .intruder_inbox(intruder)
        .iter()
        .map(|(_, answer)| {
            let Message::PeerListResp(page) = answer else { panic!("{answer:?}") };
            page.clone()
        })
        .collect();
    let endpoints = |page: usize| -> Vec<_> {
        pages[page].members.iter().map(|member| member.endpoint).collect()
    };
    assert_eq!([0, 1, 2].map(|page| endpoints(page).len()), [128, 128, 400]);
    assert_eq!([0, 1, 2].map(|page| pages[page].more), [false, false, true]);
    assert_ne!(endpoints(0), endpoints(1), "each draws its own");
    for page in [0, 1, 2] {
        assert!(endpoints(page).is_sorted_by(|a, b| a < b), "ascending, each once");
        assert!(endpoints(page).iter().all(|it| fleet.peers.contains(it)));
    }
    let peers = fleet.peers.clone();
    fleet.run_until(Duration::from_secs(30), "the overlay is whole", |fleet| {
        overlay_fault(fleet, &peers).is_none()
    });
}
