//! Lost packets as TCP shows them to its users: no data is gone, but it comes late.
//!
//! Each message is one packet, lost with the weather's chance each time it is sent. A lost one is
//! repeated after the retransmission time-out, which doubles; later packets wait behind it. A call
//! or its answer that is lost is repeated after a second (`dial`); a lost `ping` of the system is
//! not repeated at all.
//!
//! This is a little worse than real: no fast retransmission, no tail loss probe, and a time-out
//! that is not below 200 ms, as Linux has it. A lost acknowledgment costs nothing here.

use std::fmt::Debug;
use std::time::Duration;

use rand::RngExt as _;

use super::network::Network;

/// Least retransmission time-out (Linux; RFC 6298 would have a second).
const TIMEOUT_MIN: Duration = Duration::from_millis(200);

/// Greatest retransmission time-out (Linux).
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// Repetitions before the packet is let through: as many as Linux makes before it gives the
/// connection up, which takes a quarter of an hour.
const REPEATS_MAX: u32 = 15;

impl<T: Clone + Debug> Network<T> {
    /// True if one packet gets lost. Without loss in the weather nothing is drawn.
    pub(super) fn loses(&mut self) -> bool {
        let ppm = self.weather.loss_ppm.min(1_000_000);
        ppm > 0 && self.rng.random_ratio(ppm, 1_000_000)
    }

    /// Draws the time for which a packet on a path of this base is repeated before one gets
    /// through.
    pub(super) fn draw_repeats(&mut self, base: Duration) -> Duration {
        let mut timeout = (base * 4).clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        let mut waited = Duration::ZERO;
        for _ in 0..REPEATS_MAX {
            if !self.loses() {
                break;
            }
            waited += timeout;
            timeout = (timeout * 2).min(TIMEOUT_MAX);
        }
        waited
    }
}
