//! Costs of a quiet fleet: processor, memory, and the seeds' comparison of their registries.

use std::time::Duration;

use super::Bench;
use crate::cli::CliError;
use crate::cli::bench::figure::Target;
use crate::cli::bench::procfs;
use crate::cli::fleet::Fleet;
use crate::model::Endpoint;
use crate::proto::line::encode;
use crate::proto::membership::SeedDigest;
use crate::proto::message::Message;

/// Target for the memory of a seed with a thousand members, in MiB.
const SEED_MIB_WANTED: f64 = 50.0;

/// Target for the bytes that two seeds with equal registries exchange in one round.
const ROUND_BYTES_WANTED: f64 = 1_024.0;

impl Bench {
    pub(super) fn idle(&mut self, span: Duration) -> Result<(), CliError> {
        let pids = |nodes: &[Endpoint], fleet: &Fleet| -> Vec<u32> {
            nodes.iter().filter_map(|node| fleet.pid(*node)).collect()
        };
        let peers = pids(self.fleet.peers(), &self.fleet);
        let seeds = pids(self.fleet.seeds(), &self.fleet);
        let used = |pids: &[u32]| -> Vec<f64> {
            pids.iter().map(|pid| procfs::cpu_seconds(*pid).unwrap_or(0.0)).collect()
        };
        let (peers_before, seeds_before, began) = (used(&peers), used(&seeds), self.wall());
        self.watch(span)?;
        let seconds = (self.wall() - began) as f64 / 1_000.0;
        let percent = |before: Vec<f64>, after: Vec<f64>| -> Vec<f64> {
            before.iter().zip(after).map(|(b, a)| (a - b) / seconds * 100.0).collect()
        };
        let peers_percent = percent(peers_before, used(&peers));
        let mean = peers_percent.iter().sum::<f64>() / peers_percent.len().max(1) as f64;
        self.sheet.figure("idle_cpu_percent_of_a_core_mean_of_peers", &[mean])?;
        let seeds_percent = percent(seeds_before, used(&seeds));
        self.sheet.figure("idle_cpu_percent_of_a_core_seed", &seeds_percent)?;
        let memory: Vec<_> = peers.iter().filter_map(|pid| procfs::memory(*pid)).collect();
        let column =
            |pick: fn(&(f64, f64, f64)) -> f64| -> Vec<f64> { memory.iter().map(pick).collect() };
        self.sheet.figure("resident_mib_peer", &column(|it| it.0))?;
        self.sheet.figure("proportional_mib_peer", &column(|it| it.1))?;
        self.sheet.figure("threads_peer", &column(|it| it.2))?;
        let memory: Vec<_> = seeds.iter().filter_map(|pid| procfs::memory(*pid)).collect();
        let column =
            |pick: fn(&(f64, f64, f64)) -> f64| -> Vec<f64> { memory.iter().map(pick).collect() };
        let target = Target::AtMost(SEED_MIB_WANTED);
        self.sheet.judged("resident_mib_seed", &column(|it| it.0), target)?;
        self.sheet.figure("proportional_mib_seed", &column(|it| it.1))?;
        self.sheet.figure("threads_seed", &column(|it| it.2))
    }

    /// Measures the messages of two seeds with equal registries in one round, one line each way.
    pub(super) fn anti_entropy(&self) -> Result<(), CliError> {
        let digest = SeedDigest {
            entries: self.peers.into(),
            root: format!("{:016x}", u64::MAX),
            buckets: Vec::new(),
            answer: false,
        };
        let bytes = 2 * encode(&Message::from(digest)).len();
        let target = Target::AtMost(ROUND_BYTES_WANTED);
        self.sheet.judged("anti_entropy_bytes_a_round", &[bytes as f64], target)
    }
}
