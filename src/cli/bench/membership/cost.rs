//! Costs of a quiet fleet: processor, memory, and the seeds' comparison of their registries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::Bench;
use crate::cli::CliError;
use crate::cli::bench::figure::Target;
use crate::cli::bench::procfs::{self, Memory};
use crate::cli::fleet::Fleet;
use crate::model::Endpoint;
use crate::proto::line::encode;
use crate::proto::membership::SeedDigest;
use crate::proto::message::Message;

/// Target for the memory of a seed with a thousand members, in MiB.
const SEED_MIB_WANTED: f64 = 50.0;

/// Bounds for a quiet peer among others, on average: memory of its own in MiB, and wake-ups of all
/// its threads in a second. What a service costs that is not used is noticed here.
const PEER_PRIVATE_MIB_WANTED: f64 = 2.5;
const PEER_WAKEUPS_WANTED: f64 = 30.0;

/// Target for the bytes that two seeds with equal registries exchange in one round.
const ROUND_BYTES_WANTED: f64 = 1_024.0;

/// Choice of one figure.
type Pick = fn(&Memory) -> f64;

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
        let waits = |pids: &[u32]| -> Vec<_> { pids.iter().map(|it| procfs::waits(*it)).collect() };
        let (peers_waits, seeds_waits) = (waits(&peers), waits(&seeds));
        let (peers_before, seeds_before, began) = (used(&peers), used(&seeds), self.wall());
        self.watch(span)?;
        let seconds = (self.wall() - began) as f64 / 1_000.0;
        let percent = |before: Vec<f64>, after: Vec<f64>| -> Vec<f64> {
            before.iter().zip(after).map(|(b, a)| (a - b) / seconds * 100.0).collect()
        };
        let peers_percent = percent(peers_before, used(&peers));
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len().max(1) as f64;
        self.sheet.figure("idle_cpu_percent_of_a_core_mean_of_peers", &[mean(&peers_percent)])?;
        let seeds_percent = percent(seeds_before, used(&seeds));
        self.sheet.figure("idle_cpu_percent_of_a_core_seed", &seeds_percent)?;
        let woken = |pids: &[u32], before: &[BTreeMap<OsString, f64>]| -> Vec<f64> {
            let since = |(pid, before): (&u32, &BTreeMap<OsString, f64>)| {
                let news = procfs::waits(*pid).into_iter();
                news.map(|(id, count)| count - before.get(&id).unwrap_or(&0.0)).sum::<f64>()
            };
            pids.iter().zip(before).map(since).map(|count| count / seconds).collect()
        };
        let (peers_woken, seeds_woken) = (woken(&peers, &peers_waits), woken(&seeds, &seeds_waits));
        let peer = self.memory("peer", &peers)?;
        let resident: Vec<_> = peer.iter().map(|it| it.resident).collect();
        self.sheet.figure("resident_mib_peer", &resident)?;
        let wakeups = [mean(&peers_woken)];
        let target = Target::AtMost(PEER_WAKEUPS_WANTED);
        self.sheet.judged("wakeups_a_second_mean_of_peers", &wakeups, target)?;
        let private: Vec<_> = peer.iter().map(|it| it.private).collect();
        let target = Target::AtMost(PEER_PRIVATE_MIB_WANTED);
        self.sheet.judged("private_mib_mean_of_peers", &[mean(&private)], target)?;
        let seed = self.memory("seed", &seeds)?;
        self.sheet.figure("wakeups_a_second_seed", &seeds_woken)?;
        let resident: Vec<_> = seed.iter().map(|it| it.resident).collect();
        self.sheet.judged("resident_mib_seed", &resident, Target::AtMost(SEED_MIB_WANTED))
    }

    /// Prints memory and threads of the processes of one role.
    fn memory(&self, role: &str, pids: &[u32]) -> Result<Vec<Memory>, CliError> {
        let memory: Vec<_> = pids.iter().filter_map(|pid| procfs::memory(*pid)).collect();
        let figures: [(&str, Pick); 3] = [
            ("proportional_mib", |it| it.proportional),
            ("private_mib", |it| it.private),
            ("threads", |it| it.threads),
        ];
        for (name, pick) in figures {
            let column: Vec<_> = memory.iter().map(pick).collect();
            self.sheet.figure(&format!("{name}_{role}"), &column)?;
        }
        Ok(memory)
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
