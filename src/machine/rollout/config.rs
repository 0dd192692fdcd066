//! Configuration of a node's rollout machine.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::rollout::{ModelId, NodeId, Roster, RoutingState};

/// The authority that decides a transaction whose votes are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionAuthority {
    /// The coordinator; while it is away, a participant that voted COMMIT waits (T4).
    Coordinator,
    /// The log of a majority: its first entry for the transaction decides (T10).
    Log,
    /// A log that liars cannot corrupt: its first entry for the transaction that holds decides, and
    /// nothing that another node shows (T10).
    Order,
}

impl DecisionAuthority {
    /// True if a log decides.
    pub(super) fn is_log(self) -> bool {
        self != Self::Coordinator
    }
}

/// Configuration of a rollout machine, beside its memory.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node.
    pub me: NodeId,
    /// The first roster, the same on every node; later ones are agreed.
    pub roster: Roster,
    /// State of version 1, the same on every node.
    pub initial: RoutingState,
    /// Models that this node's data plane can ask, each with a text that tells its server from
    /// others. `None`: the data plane answers for any model, by an echo.
    pub models: Option<BTreeMap<ModelId, String>>,
    /// Version up to which the changes of servers that all agreed on are in `models`.
    pub servers_at: u64,
    /// True for addresses of servers that this node's data plane can ask.
    pub can_ask: fn(&str) -> bool,
    /// Host and control port of nodes, as configured at this node's start; used in place of the
    /// roster's until a call there fails.
    pub places: BTreeMap<NodeId, (String, u16)>,
    /// The authority that decides transactions.
    pub decides: DecisionAuthority,
    /// Time-out of the votes: without all of them a transaction is aborted (T2: 2 s).
    pub votes_within: Duration,
    /// Interval between two heartbeats (T7: 2 s).
    pub heartbeat_every: Duration,
    /// Pause before a voter without a decision asks for it; longer than `votes_within`, because a
    /// question makes a participant that has not voted refuse.
    pub doubt_first: Duration,
    /// Maximum pause between two questions.
    pub doubt_max: Duration,
    /// Absence of a rollout's owner after which another node takes its steps.
    pub takeover_after: Duration,
    /// Time for which a node must be dead by the seeds' word and out of reach before it is removed,
    /// so that a restart costs nothing.
    pub dead_after: Duration,
    /// Minimum pause before a node tries an aborted transaction again; up to as much again is added
    /// by chance. Half of it is the interval of the checks for due steps and removals.
    pub retry_after: Duration,
    /// Maximum of that pause, which doubles each time that a vote was missing; also the interval
    /// between two calls to a node that was called gone.
    pub retry_max: Duration,
    /// Interval between two calls to a node that is out of reach.
    pub redial_every: Duration,
    /// Time after which a node that should have called, and has not, is called by the other end,
    /// too.
    pub call_after: Duration,
    /// Rules that are left out, so that simulations show the use of each.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub breaks: DisabledRules,
}

impl Config {
    /// Returns a configuration with the default times.
    #[must_use]
    pub const fn new(me: NodeId, roster: Roster, initial: RoutingState) -> Self {
        Self {
            me,
            roster,
            initial,
            models: None,
            servers_at: 0,
            can_ask: |_| true,
            places: BTreeMap::new(),
            decides: DecisionAuthority::Coordinator,
            votes_within: Duration::from_secs(2),
            heartbeat_every: Duration::from_secs(2),
            doubt_first: Duration::from_millis(2500),
            doubt_max: Duration::from_secs(5),
            takeover_after: Duration::from_secs(6),
            dead_after: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
            retry_max: Duration::from_secs(10),
            redial_every: Duration::from_secs(1),
            call_after: Duration::from_secs(3),
            #[cfg(feature = "fault-injection")]
            breaks: DisabledRules::NONE,
        }
    }

    /// Rules that are left out.
    #[cfg(feature = "fault-injection")]
    pub(super) const fn breaks(&self) -> DisabledRules {
        self.breaks
    }

    /// Rules that are left out: none without the feature `fault-injection`.
    #[cfg(not(feature = "fault-injection"))]
    pub(super) const fn breaks(&self) -> DisabledRules {
        DisabledRules::NONE
    }
}

/// Rules that a simulation leaves out; a real node leaves out none.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a rule by itself")]
pub struct DisabledRules {
    /// T3: a vote leaves before it is on disk.
    pub vote_unforced: bool,
    /// T3: a decision leaves before it is on disk.
    pub decision_unforced: bool,
    /// P6: a decision ends any prepared transaction.
    pub decision_unmatched: bool,
    /// P7: a start serves the last line of the log, whatever its status.
    pub serves_last_line: bool,
    /// T4: a participant that waits too long aborts.
    pub aborts_in_doubt: bool,
    /// T4: the node of the highest id aborts when no node in reach knows the decision.
    pub highest_aborts: bool,
    /// T3: votes are counted, not voters.
    pub counts_messages: bool,
    /// T7: rosters are not compared, and a new one is voted on by its own nodes only.
    pub roster_unagreed: bool,
    /// T1: the version of a proposal is not checked.
    pub version_unchecked: bool,
    /// A node without its disk votes and refuses as if it had said nothing before.
    pub forgets_freely: bool,
    /// P1: a node begins transactions before it has heard of the last ones of its former life.
    pub names_again: bool,
    /// P7: a node without a log serves version 1 before it has heard from the others.
    pub serves_unknown: bool,
    /// T8: a failing version is served until its rollback is committed.
    pub no_brake: bool,
    /// T8: a node votes for a version that has not answered it.
    pub unanswered: bool,
    /// T12: a transaction that all others are in doubt about is aborted when its coordinator is
    /// called gone.
    pub gone_forgets: bool,
    /// T12: a node in doubt about one transaction votes for a removal beside it.
    pub gone_unbound: bool,
    /// T12: a node that voted to settle a transaction still believes that it was aborted.
    pub gone_unfenced: bool,
    /// T12: any part of a roster goes on without the rest by the seeds' word.
    pub dead_any_share: bool,
}

impl DisabledRules {
    /// All rules are kept.
    pub const NONE: Self = Self {
        vote_unforced: false,
        decision_unforced: false,
        decision_unmatched: false,
        serves_last_line: false,
        aborts_in_doubt: false,
        highest_aborts: false,
        counts_messages: false,
        roster_unagreed: false,
        version_unchecked: false,
        forgets_freely: false,
        names_again: false,
        serves_unknown: false,
        no_brake: false,
        unanswered: false,
        gone_forgets: false,
        gone_unbound: false,
        gone_unfenced: false,
        dead_any_share: false,
    };
}
