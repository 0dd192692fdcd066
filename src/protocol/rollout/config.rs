//! The limits and habits of a node's rollout machine.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ids::{ModelId, NodeId};
use super::roster::Roster;
use super::state::RoutingState;

/// Who has the last word on a transaction whose votes are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decides {
    /// Its coordinator; while that is away, whoever voted COMMIT waits (T4).
    Coordinator,
    /// The log of a majority: its first entry for the transaction (T10).
    Log,
}

/// What a node's machine begins with, beside its memory.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The first roster, the same on every node; later ones are agreed.
    pub roster: Roster,
    /// Version 1, the same on every node.
    pub initial: RoutingState,
    /// The models that this node's data plane can ask, each with what tells its server from
    /// others; none: any, by an echo.
    pub models: Option<BTreeMap<ModelId, String>>,
    /// Where nodes are called, as this node was told at its start.
    pub places: BTreeMap<NodeId, (String, u16)>,
    /// Who has the last word.
    pub decides: Decides,
    /// Without all votes for so long a transaction is aborted (T2: 2 s).
    pub votes_within: Duration,
    /// Between two heartbeats (T7: 2 s).
    pub heartbeat_every: Duration,
    /// After so long without a decision a voter asks for it; longer than `votes_within`, because
    /// a question makes whoever has not voted refuse.
    pub doubt_first: Duration,
    /// The longest pause between two questions.
    pub doubt_max: Duration,
    /// A rollout's owner is away for so long before another takes its steps.
    pub takeover_after: Duration,
    /// Dead by the seeds' word and out of reach for so long a node is taken out: a restart costs
    /// nothing.
    pub dead_after: Duration,
    /// The pause before a step that came to nothing is tried again; with as much again by chance.
    pub retry_after: Duration,
    /// The longest such pause: it doubles each time that somebody's vote was missing.
    pub retry_max: Duration,
    /// Between two calls to a node that is out of reach.
    pub redial_every: Duration,
    /// A node that should have called and has not for so long is called by the other end, too.
    pub call_after: Duration,
    /// Rules that are left out, to show in simulations what each is good for.
    #[doc(hidden)]
    pub breaks: Breaks,
}

impl Config {
    /// The usual habits.
    #[must_use]
    pub const fn new(me: NodeId, roster: Roster, initial: RoutingState) -> Self {
        Self {
            me,
            roster,
            initial,
            models: None,
            places: BTreeMap::new(),
            decides: Decides::Coordinator,
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
            breaks: Breaks::NONE,
        }
    }
}

/// Rules that a simulation leaves out; a real node leaves out none.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a rule by itself")]
pub struct Breaks {
    /// T3: a vote leaves before it is on disk.
    pub vote_unforced: bool,
    /// T3: a decision leaves before it is on disk.
    pub decision_unforced: bool,
    /// P6: a decision ends whatever is prepared.
    pub decision_unmatched: bool,
    /// P7: a start serves the last line of the log, whatever its status.
    pub serves_last_line: bool,
    /// T4: who waits too long aborts.
    pub aborts_in_doubt: bool,
    /// T4: the highest id aborts when nobody who is reached knows.
    pub highest_aborts: bool,
    /// T3: votes are counted, not voters.
    pub counts_messages: bool,
    /// T7: rosters are not compared, and a new one is voted on by its own nodes only.
    pub roster_unagreed: bool,
    /// T1: a proposal's version is not looked at.
    pub version_unchecked: bool,
    /// A node without its disk votes and refuses as if it had said nothing before.
    pub forgets_freely: bool,
    /// P1: a node begins transactions before it has heard how far it had come.
    pub names_again: bool,
    /// P7: a node without a log serves version 1 before it has heard from the others.
    pub serves_unknown: bool,
    /// T8: what fails is served until its rollback is committed.
    pub no_brake: bool,
    /// T8: a node votes for a version that has not answered it.
    pub unanswered: bool,
    /// T12: what all others are in doubt about is aborted when its coordinator is called gone.
    pub gone_forgets: bool,
    /// T12: a node in doubt about one transaction votes for a removal beside it.
    pub gone_unbound: bool,
    /// T12: who voted to settle a transaction still believes that it was aborted.
    pub gone_unfenced: bool,
    /// T12: any part of a roster goes on without the rest by the seeds' word.
    pub dead_any_share: bool,
}

impl Breaks {
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
