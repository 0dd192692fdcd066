//! Measurement of proofs: certificates checked and signatures made, on one thread.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;
use rand::SeedableRng as _;
use serde_json::json;

use super::figure::{Sheet, Target};
use crate::cli::CliError;
use crate::cli::span::Span;
use crate::machine::membership::seedbook::{SeedAddress, SeedBook};
use crate::machine::quorum::QuorumRule;
use crate::model::statement::{
    Admission, MemberInstance, ProposalKind, Removal, RemovalReason, Vote,
};
use crate::model::{Endpoint, Incarnation, KeyPair, Rng, SeedId, WallTime};
use crate::runtime::clock::Clock;

/// Number of certificates that one thread should check in a second.
const CERTIFICATES_WANTED: f64 = 10_000.0;

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct CryptoArgs {
    /// Time to measure each figure
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub span: Span,
}

/// Seeds with their keys, and the public list of them.
struct Seeds {
    keys: Vec<(SeedId, KeyPair)>,
    book: SeedBook,
}

impl Seeds {
    fn new(count: u16, rng: &mut Rng) -> Self {
        let keys: Vec<_> = (1..=count).map(|id| (SeedId(id), KeyPair::generate(rng))).collect();
        let address = |(id, keys): &(SeedId, KeyPair)| SeedAddress {
            id: *id,
            endpoint: place(5_000 + id.0),
            key: Some(keys.public()),
        };
        let addresses: Vec<_> = keys.iter().map(address).collect();
        let book = SeedBook::new(QuorumRule::Byzantine, &addresses);
        Self { keys, book }
    }

    /// The yes votes of a quorum, and no more.
    fn votes(&self, kind: ProposalKind, lives: &[MemberInstance]) -> Vec<Vote> {
        let quorum = self.keys.iter().take(self.book.quorum());
        quorum.map(|(id, keys)| Vote::sign(kind, lives, (*id, keys), WallTime(1))).collect()
    }

    fn admission(&self, life: MemberInstance) -> Admission {
        let votes = self.votes(ProposalKind::Admit, &[life]);
        let MemberInstance { endpoint, incarnation, key } = life;
        Admission { endpoint, incarnation, key, votes }
    }

    fn removal(&self, lives: Vec<MemberInstance>) -> Removal {
        let votes = self.votes(ProposalKind::Remove, &lives);
        Removal { because: RemovalReason::Death, lives, votes, confirmations: Vec::new() }
    }
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &CryptoArgs) -> Result<(), CliError> {
    let mut rng = Rng::seed_from_u64(1);
    let sheet =
        Sheet::new(json!({ "bench": "crypto", "cores": super::figure::cores(), "threads": 1,
        "version": env!("CARGO_PKG_VERSION") }));
    let lives: Vec<_> = (0..10).map(|number| life(number, &mut rng)).collect();
    for count in [3, 7] {
        let seeds = Seeds::new(count, &mut rng);
        let of = format!("{}_of_{count}", seeds.book.quorum());
        let admission = seeds.admission(lives[0]);
        let removal = seeds.removal(lives.clone());
        if seeds.book.verify_admission(&admission).is_err()
            || seeds.book.verify_removal(&removal).is_err()
        {
            return Err(CliError::Failed("a certificate of this bench does not hold".to_owned()));
        }
        let rate = per_second(args.span.0, || {
            let _ = black_box(seeds.book.verify_admission(black_box(&admission)));
        });
        let target = Target::AtLeast(CERTIFICATES_WANTED);
        sheet.judged(&format!("certificates_a_second_{of}"), &[rate], target)?;
        let rate = per_second(args.span.0, || {
            let _ = black_box(seeds.book.verify_removal(black_box(&removal)));
        });
        sheet.judged(&format!("certificates_of_10_lives_a_second_{of}"), &[rate], target)?;
    }
    let keys = KeyPair::generate(&mut rng);
    let rate = per_second(args.span.0, || {
        let vote = Vote::sign(ProposalKind::Admit, &lives[..1], (SeedId(1), &keys), WallTime(1));
        black_box(vote);
    });
    sheet.figure("signatures_a_second", &[rate])
}

fn place(port: u16) -> Endpoint {
    Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn life(number: u16, rng: &mut Rng) -> MemberInstance {
    let key = KeyPair::generate(rng).public();
    MemberInstance { endpoint: place(6_001 + number), incarnation: Incarnation(1), key }
}

/// Rate of `work` in a second, as long as `span` lasts. A tenth of the time warms up.
fn per_second(span: Duration, mut work: impl FnMut()) -> f64 {
    let clock = Clock::start();
    let mut repeat = |span: Duration| {
        let start = clock.now().mono;
        let mut done = 0_u32;
        loop {
            // The clock is cheap beside a signature, but it is not to be measured.
            for _ in 0..16 {
                work();
            }
            done = done.saturating_add(16);
            let passed = clock.now().mono.since(start);
            if passed >= span {
                return f64::from(done) / passed.as_secs_f64().max(f64::MIN_POSITIVE);
            }
        }
    };
    repeat(span / 10);
    repeat(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_holds_and_a_vote_less_does_not() {
        let mut rng = Rng::seed_from_u64(1);
        for (count, quorum) in [(3, 2), (7, 5)] {
            let seeds = Seeds::new(count, &mut rng);
            let mut lives: Vec<_> = (0..10).map(|number| life(number, &mut rng)).collect();
            lives.sort_unstable();
            let mut admission = seeds.admission(lives[0]);
            let mut removal = seeds.removal(lives);
            assert_eq!((admission.votes.len(), removal.votes.len()), (quorum, quorum));
            assert!(seeds.book.verify_admission(&admission).is_ok());
            assert!(seeds.book.verify_removal(&removal).is_ok());
            admission.votes.pop();
            removal.votes.pop();
            assert!(seeds.book.verify_admission(&admission).is_err());
            assert!(seeds.book.verify_removal(&removal).is_err());
        }
    }

    #[test]
    fn a_rate_is_work_over_time() {
        let clock = Clock::start();
        let mut count = 0_u32;
        let span = Duration::from_millis(20);
        let rate = per_second(span, || count += 1);
        let took = clock.now().mono.as_micros() as f64 / 1_000_000.0;
        assert!(count >= 32 && took >= 0.022);
        assert!(rate <= f64::from(count) / span.as_secs_f64(), "{rate} of {count}");
        assert!(rate > 0.0);
    }
}
