//! How a swarm behaves: the assignment's way and the way of shares.

use std::time::Duration;

/// In which order pieces are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any, with the same chance.
    Random,
    /// Those that the fewest neighbors have before others.
    RarestFirst,
}

/// Which words are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// The eight messages of the assignment.
    Assignment,
    /// These, and those of shares.
    Share,
}

/// The limits and habits of one swarm.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which words are spoken.
    pub tongue: Tongue,
    /// Preferred neighbors (k); one more may be unchoked.
    pub preferred: usize,
    /// Between two choices of the preferred (p).
    pub unchoke_every: Duration,
    /// Between two choices of the optimistic one (m).
    pub optimistic_every: Duration,
    /// Whether a free place is given at once; else only until the first choice, so that a swarm
    /// that begins need not wait for it.
    pub seats_at_once: bool,
    /// Requests under way with one neighbor.
    pub pipeline: usize,
    /// Requests under way with one that has not sent a good piece yet, if pieces can be checked.
    pub pipeline_unproven: usize,
    /// In which order pieces are asked for.
    pub order: Order,
    /// After how long a piece that was asked for is asked of a second neighbor too, when nothing
    /// else is left to ask for. None: never.
    pub endgame_after: Option<Duration>,
    /// Without an answer for so long, a neighbor loses what was asked of it to others; twice as
    /// long after each such time in a row, up to [`ANSWER_AFTER_MAX`].
    pub answer_after: Duration,
    /// Without any progress for so long, the swarm ends. None: never.
    pub give_up_after: Option<Duration>,
    /// Neighbors at most.
    pub links_max: usize,
    /// The first pause before somebody is called again; doubled after each failure.
    pub redial_first: Duration,
    /// The longest.
    pub redial_max: Duration,
}

/// Between two looks at what could not be asked for before.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest patience with a neighbor that does not answer.
pub(super) const ANSWER_AFTER_MAX: Duration = Duration::from_secs(240);

/// Uploads that wait for one neighbor; requests beyond are not taken (S5).
pub const UPLOADS_MAX: usize = 32;

/// Withdrawn requests of one neighbor that are remembered, so that what still comes is welcome.
pub(super) const LAPSED_MAX: usize = 64;

/// A connection that ends before is a failure: whoever hangs up at once is called ever less often.
pub(super) const LINK_LASTS: Duration = Duration::from_secs(10);

/// Neighbors of whom one piece is asked for at the same time.
pub(super) const COPIES_MAX: usize = 2;

/// Bytes a second of a neighbor that is still waited for: whoever is slower than that loses what
/// was asked of it to others.
pub(super) const SLOW_BYTES: u64 = 512;

/// Bytes of pieces amid which connections ended, for one swarm: those of the largest piece.
pub(super) const PARTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Oddities of one neighbor that are borne, counting each; the next ends the connection.
pub(super) const ODDITIES_MAX: u32 = 1_000;

/// Addresses of one swarm that are remembered.
pub(super) const PLACES_MAX: usize = 4_096;

/// Liars that are remembered.
pub(super) const BANNED_MAX: usize = 4_096;

impl Config {
    /// The assignment's way: `k` preferred neighbors every `p`, one optimistic every `m`; one
    /// request a neighbor, random pieces.
    pub const fn assignment(k: usize, p: Duration, m: Duration) -> Self {
        Self {
            tongue: Tongue::Assignment,
            preferred: k,
            unchoke_every: p,
            optimistic_every: m,
            seats_at_once: false,
            pipeline: 1,
            pipeline_unproven: 1,
            order: Order::Random,
            endgame_after: None,
            answer_after: Duration::from_secs(20),
            give_up_after: Some(Duration::from_secs(120)),
            links_max: 1_024,
            redial_first: Duration::from_millis(250),
            redial_max: Duration::from_secs(2),
        }
    }

    /// The way of shares.
    pub const fn share() -> Self {
        Self {
            tongue: Tongue::Share,
            preferred: 7,
            unchoke_every: Duration::from_secs(10),
            optimistic_every: Duration::from_secs(30),
            seats_at_once: true,
            pipeline: 8,
            pipeline_unproven: 1,
            order: Order::RarestFirst,
            endgame_after: Some(Duration::from_millis(500)),
            answer_after: Duration::from_secs(15),
            give_up_after: None,
            links_max: 64,
            redial_first: Duration::from_millis(500),
            redial_max: Duration::from_secs(60),
        }
    }
}
