//! Configuration of a swarm: the assignment's way and the way of shares.

use crate::proto::swarm::ProtocolVariant;
use std::time::Duration;

/// Order in which pieces are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceOrder {
    /// Any piece, with the same chance.
    Random,
    /// The pieces that the fewest neighbors have come first.
    RarestFirst,
}

/// Limits and periods of one swarm.
#[derive(Clone, Debug)]
pub struct Config {
    /// Set of messages that are spoken.
    pub variant: ProtocolVariant,
    /// Number of preferred neighbors (k); one more may be unchoked.
    pub preferred: usize,
    /// Interval between two choices of the preferred neighbors (p).
    pub unchoke_every: Duration,
    /// Interval between two choices of the optimistic neighbor (m).
    pub optimistic_every: Duration,
    /// True if a free place is given at once; else only until the first choice, so that a swarm
    /// that begins need not wait for it.
    pub seats_at_once: bool,
    /// Number of requests under way with one neighbor.
    pub pipeline: usize,
    /// Number of requests under way with a neighbor that has not sent a good piece yet, if pieces
    /// can be checked.
    pub pipeline_unproven: usize,
    /// Order in which pieces are asked for.
    pub order: PieceOrder,
    /// Time after which a piece is asked of a second neighbor, too, when nothing else is left to
    /// ask for. None: never.
    pub endgame_after: Option<Duration>,
    /// Time without an answer after which a neighbor loses its requests to others; twice as long
    /// after each such time in a row, up to [`ANSWER_AFTER_MAX`].
    pub answer_after: Duration,
    /// Time without any progress after which the swarm ends. None: never.
    pub give_up_after: Option<Duration>,
    /// Greatest number of neighbors.
    pub links_max: usize,
    /// First pause before a place is called again; doubled after each failure.
    pub redial_first: Duration,
    /// Longest pause between calls.
    pub redial_max: Duration,
}

/// Pause before requests that could not be made before are tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Longest wait for a neighbor that does not answer.
pub(super) const ANSWER_AFTER_MAX: Duration = Duration::from_secs(240);

/// Number of uploads that wait for one neighbor; requests beyond are not taken (S5).
pub const UPLOADS_MAX: usize = 32;

/// Number of withdrawn requests of one neighbor that are remembered, so that late
/// pieces are welcome.
pub(super) const LAPSED_MAX: usize = 64;

/// Duration below which a connection counts as a failure: a peer that hangs up at once is called
/// ever less often.
pub(super) const LINK_LASTS: Duration = Duration::from_secs(10);

/// Number of neighbors of which one piece is asked for at the same time.
pub(super) const COPIES_MAX: usize = 2;

/// Bytes a second that a neighbor must send to be waited for: a slower one loses its
/// requests to others.
pub(super) const SLOW_BYTES: u64 = 512;

/// Greatest sum of the bytes of unfinished pieces whose connections ended, for one swarm: those of
/// the largest piece.
pub(super) const PARTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Number of oddities of one neighbor that are tolerated; the next ends the connection.
pub(super) const ODDITIES_MAX: u32 = 1_000;

/// Number of places of one swarm that are remembered.
pub(super) const PLACES_MAX: usize = 4_096;

/// Number of banned peers that are remembered.
pub(super) const BANNED_MAX: usize = 4_096;

impl Config {
    /// Returns the assignment's way: `k` preferred neighbors every `p`, one optimistic every `m`;
    /// one request a neighbor, random pieces.
    pub const fn assignment(k: usize, p: Duration, m: Duration) -> Self {
        Self {
            variant: ProtocolVariant::Assignment,
            preferred: k,
            unchoke_every: p,
            optimistic_every: m,
            seats_at_once: false,
            pipeline: 1,
            pipeline_unproven: 1,
            order: PieceOrder::Random,
            endgame_after: None,
            answer_after: Duration::from_secs(20),
            give_up_after: Some(Duration::from_secs(120)),
            links_max: 1_024,
            redial_first: Duration::from_millis(250),
            redial_max: Duration::from_secs(2),
        }
    }

    /// Returns the way of shares.
    pub const fn share() -> Self {
        Self {
            variant: ProtocolVariant::Share,
            preferred: 7,
            unchoke_every: Duration::from_secs(10),
            optimistic_every: Duration::from_secs(30),
            seats_at_once: true,
            pipeline: 8,
            pipeline_unproven: 1,
            order: PieceOrder::RarestFirst,
            endgame_after: Some(Duration::from_millis(500)),
            answer_after: Duration::from_secs(15),
            give_up_after: None,
            links_max: 64,
            redial_first: Duration::from_millis(500),
            redial_max: Duration::from_secs(60),
        }
    }
}
