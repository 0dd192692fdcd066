//! What the watch waits for and tells, and its periods with their reasons.

use std::net::IpAddr;
use std::time::Duration;

use super::{DeadReport, SuspectReq};
use crate::model::Endpoint;
use crate::protocol::membership::certificate::{Finding, Subject};
use crate::protocol::{HostAnswer, LinkId};

/// Periods and limits of the watch.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often each neighbor is looked at; it is pinged if it was silent since the last look.
    pub ping_interval: Duration,
    /// Unanswered pings in a row that make a suspect (O3).
    pub misses_max: u32,
    /// How long a fresh probe waits, before stretching.
    pub probe_timeout: Duration,
    /// The step by which neighbors of one suspect take their turns in asking, so that the death
    /// of a hub does not make each of its neighbors ask all the others.
    pub turn: Duration,
    /// How long to wait for witnesses before asking more of them.
    pub ask_interval: Duration,
    /// How often the system `ping` is asked about a neighbor's host.
    pub host_ping_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_millis(500),
            misses_max: 3,
            probe_timeout: Duration::from_millis(600),
            turn: Duration::from_millis(60),
            ask_interval: Duration::from_millis(900),
            host_ping_interval: Duration::from_secs(13),
        }
    }
}

/// Deadlines of the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look at all neighbors.
    Look,
    /// Ask the system `ping` about a host.
    Host,
    /// This node's turn to ask about a suspect, or to ask again.
    Ask(Endpoint),
}

/// What the watch tells its node, or asks it to do.
#[derive(Debug)]
pub enum Event {
    /// Probe this endpoint afresh; the answer comes by [`super::Liveness::on_probed`].
    Probe {
        /// Whom.
        endpoint: Endpoint,
        /// For how long.
        timeout: Duration,
    },
    /// Put this request to this member, by whatever link.
    Ask {
        /// Whom.
        witness: Endpoint,
        /// What.
        request: SuspectReq,
    },
    /// Send this to every linked seed.
    Report(DeadReport),
    /// A neighbor is suspected.
    Suspected {
        /// Who.
        subject: Subject,
        /// Why.
        reason: String,
        /// What the system `ping` says of its host.
        host: Option<HostAnswer>,
    },
    /// A witness confirmed, this node included.
    Confirmed {
        /// Whose death.
        subject: Subject,
        /// Who confirms.
        witness: Endpoint,
        /// What it found.
        finding: Finding,
        /// Confirmations so far.
        count: usize,
        /// Confirmations needed.
        needed: usize,
    },
    /// A suspicion came to nothing.
    Cleared {
        /// Who was suspected.
        subject: Subject,
        /// Why no more.
        reason: String,
    },
    /// This node was late, and doubts itself for a while (O4).
    Doubtful {
        /// How late it was.
        late_by: Duration,
    },
    /// This machine has no usable system `ping`; the port probes go on without it.
    NoHostPing,
    /// The system `ping` of a host changed its answer.
    Host {
        /// Which host.
        host: IpAddr,
        /// Whether it answers now.
        answers: bool,
    },
    /// A finding whose signature or author is wrong came by this link.
    Forged {
        /// Which link.
        link: LinkId,
    },
}
