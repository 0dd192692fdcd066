//! Configuration, timers and events of the watch.

use std::net::IpAddr;
use std::time::Duration;

use crate::machine::{HostAnswer, LinkId};
use crate::model::Endpoint;
use crate::model::statement::{Finding, MemberInstance};
use crate::proto::liveness::{DeadReport, SuspectReq};

/// Periods and limits of the watch.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Interval between two looks at each neighbor, which is pinged if it was silent since
    /// the last look.
    pub ping_interval: Duration,
    /// Number of unanswered pings in a row that make a suspect (O3).
    pub misses_max: u32,
    /// Time-out of a fresh probe, before stretching.
    pub probe_timeout: Duration,
    /// Step by which neighbors of one suspect take their turns in asking, so that the death of a
    /// hub does not make each of its neighbors ask all the others.
    pub turn: Duration,
    /// Wait for witnesses before more of them are asked.
    pub ask_interval: Duration,
    /// Interval between two questions to the system `ping` about a neighbor's host.
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
    /// All neighbors are looked at.
    Look,
    /// The system `ping` is asked about a host.
    Host,
    /// This node's turn to ask about a suspect, or to ask again, has come.
    Ask(Endpoint),
}

/// Events of the watch: news for the node, and requests to it.
#[derive(Debug)]
pub enum Event {
    /// The node must probe this endpoint afresh; the answer comes by
    /// [`super::Liveness::on_probed`].
    Probe {
        /// Endpoint to probe.
        endpoint: Endpoint,
        /// Time-out of the probe.
        timeout: Duration,
    },
    /// The node must put this request to a member, by any link.
    Ask {
        /// Endpoint of the witness.
        witness: Endpoint,
        /// Request to put.
        request: SuspectReq,
    },
    /// The node must send this report to every linked seed.
    Report(DeadReport),
    /// A neighbor is suspected.
    Suspected {
        /// Life that is suspected.
        subject: MemberInstance,
        /// Reason of the suspicion, in words.
        reason: String,
        /// Last answer of the system `ping` about its host.
        host: Option<HostAnswer>,
    },
    /// A witness confirmed a death; the witness may be this node.
    Confirmed {
        /// Life that is suspected.
        subject: MemberInstance,
        /// Endpoint of the witness.
        witness: Endpoint,
        /// Finding of the witness.
        finding: Finding,
        /// Number of confirmations so far.
        count: usize,
        /// Number of confirmations needed.
        needed: usize,
    },
    /// A suspicion was dropped.
    Cleared {
        /// Life that was suspected.
        subject: MemberInstance,
        /// Reason for dropping it, in words.
        reason: String,
    },
    /// This node was late, and doubts itself for a while (O4).
    Doubtful {
        /// Delay of this node's own timer.
        late_by: Duration,
    },
    /// This machine has no usable system `ping`; the port probes go on without it.
    NoHostPing,
    /// The system `ping` of a host changed its answer.
    Host {
        /// Address of the host.
        host: IpAddr,
        /// True if the host answers now.
        answers: bool,
    },
    /// A finding whose signature or author is wrong came by this link.
    Forged {
        /// Link by which the finding came.
        link: LinkId,
    },
}
