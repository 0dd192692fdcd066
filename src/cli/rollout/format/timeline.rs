//! Texts of the history, and of one transaction from its content to its proof. Pure.

use crate::proto::rollout::{
    Choice, Committed, RemovalAuthority, Resolution, RoutingState, TxProof, TxProposal, Weights,
};
use serde::Deserialize;

use super::{by_word, cause, deed, detours, gates, list, servers, span, steps, sticky, weights};
use crate::cli::text::escape;
use crate::machine::rollout::Aborted;
use crate::model::WallTime;
use crate::proto::rollout::TxId;

/// Answer of a node to a question for its history.
#[derive(Clone, Debug, Default, Deserialize)]
pub(in crate::cli) struct History {
    /// Committed transactions, one for each version, oldest first.
    pub(in crate::cli) committed: Vec<Committed>,
    /// Aborted transactions, oldest first.
    pub(in crate::cli) aborted: Vec<Aborted>,
}

/// Answer of a node to a question for one transaction.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::cli) struct Explained {
    txid: TxId,
    committed: Option<Committed>,
    aborted: Option<Aborted>,
    /// Lines about it that this process of the node has logged.
    story: Vec<VoteCounts>,
}

#[derive(Clone, Debug, Deserialize)]
struct VoteCounts {
    wall_ms: u64,
    message: String,
}

/// Returns the shares before a version, if they are known.
fn before(committed: &[Committed], state: &RoutingState) -> Option<String> {
    let last = |it: &&Committed| it.proposal.state.version + 1 == state.version;
    if let Some(last) = committed.iter().find(last) {
        return Some(weights(&last.proposal.state.weights));
    }
    // Version 1 is the same wherever a history begins: everything to the stable one.
    let stable = &state.stable_model_id;
    (state.version == 2).then(|| weights(&Weights::split(stable, stable, 0)))
}

/// Returns the authority whose word ended a transaction: a removal may have settled it.
fn word_on(history: &[Committed], txid: &TxId) -> RemovalAuthority {
    let settles =
        |it: &&Committed| it.proposal.settles().is_some_and(|it| it.proposal.txid == *txid);
    let by = history.iter().find(settles).and_then(|it| it.proposal.gone.as_ref());
    by.map_or(RemovalAuthority::Operator, |it| it.by)
}

/// Returns a resolution, marked so that it is not mistaken for a decision of all.
fn marked(resolution: &Resolution, by: RemovalAuthority) -> String {
    let Resolution { node_id, kind, timestamp, .. } = resolution;
    let kind = if *kind == Choice::Commit { "COMMIT" } else { "ABORT" };
    let by = by_word(by).to_uppercase();
    format!("!! {kind} BY {by} at {node_id}, {timestamp}, not by the votes of all")
}

/// Returns a change of the roster without everybody's vote, marked in the same way.
fn taken_out(proposal: &TxProposal) -> Option<String> {
    let gone = proposal.gone.as_ref()?;
    let (names, by) = (list(&gone.nodes), &proposal.txid.node);
    let word = by_word(gone.by).to_uppercase();
    let mut text = format!("!! {names} CALLED GONE BY {word} at {by}, and not asked");
    if let Some(settled) = proposal.settles() {
        text += &format!("; {} committed with it", settled.proposal.txid);
    }
    Some(text)
}

impl History {
    /// Returns the last `count` of each kind in the order in which versions were tried: an aborted
    /// one stands before the version that was committed in its place.
    pub(in crate::cli) fn text(&self, count: usize) -> String {
        let skipped = self.committed.len().saturating_sub(count);
        let mut aborted = self.aborted.iter().skip(self.aborted.len().saturating_sub(count));
        let mut aborted = aborted.by_ref().peekable();
        let mut text = String::new();
        for committed in &self.committed[skipped..] {
            let version = committed.proposal.state.version;
            while let Some(it) = aborted.next_if(|it| it.version.is_some_and(|it| it <= version)) {
                text += &self::aborted(it);
            }
            text += &self.line(committed);
        }
        for it in aborted {
            text += &self::aborted(it);
        }
        if text.is_empty() {
            text = "nothing was decided yet: version 1 is served, everything to the stable \
                    version\n"
                .to_owned();
        }
        text
    }

    fn line(&self, committed: &Committed) -> String {
        let TxProposal { txid, state, note, .. } = &committed.proposal;
        let from = before(&self.committed, state).map_or(String::new(), |it| format!("{it} -> "));
        let mut text = format!(
            "{}  version {}  {txid}\n    {}  ({from}{})\n",
            state.timestamp,
            state.version,
            deed(txid.kind, state),
            weights(&state.weights)
        );
        if !note.is_empty() {
            text += &format!("    because {}\n", escape(note));
        }
        if let Some(resolution) = &committed.proof.resolution {
            let by = word_on(&self.committed, &committed.proposal.txid);
            text += &format!("    {}\n", marked(resolution, by));
        }
        if let Some(taken_out) = taken_out(&committed.proposal) {
            text += &format!("    {taken_out}\n");
        }
        text
    }
}

fn aborted(aborted: &Aborted) -> String {
    let Aborted { txid, version, cause: why, reason, proof } = aborted;
    let wanted = version.map_or(String::new(), |it| format!(", would have been version {it}"));
    let mut text = format!(
        "aborted                   {txid}{wanted}\n    {} ({})\n",
        escape(reason),
        cause(*why)
    );
    if let Some(resolution) = &proof.resolution {
        text += &format!("    {}\n", marked(resolution, RemovalAuthority::Operator));
    }
    text
}

impl Explained {
    /// True if the node knows anything of the transaction.
    pub(in crate::cli) fn is_known(&self) -> bool {
        self.committed.is_some() || self.aborted.is_some() || !self.story.is_empty()
    }

    /// Returns the whole history of the transaction.
    pub(in crate::cli) fn text(&self, history: &History) -> String {
        let txid = &self.txid;
        let mut text = match (&self.committed, &self.aborted) {
            (Some(committed), _) => explain_commit(committed, history),
            (None, Some(aborted)) => explain_abort(aborted),
            (None, None) => format!(
                "{txid}: NOT DECIDED here yet; peer rollout status shows whom it waits for\n"
            ),
        };
        let (kind, mark) = (txid.kind.as_str(), txid.mark());
        text += &format!(
            "  name      a {kind} coordinated by {}, number {} of its life {}\n",
            txid.node, mark.counter, mark.epoch
        );
        if self.story.is_empty() {
            text += "  seen      before this process of the node began; its log has it all\n";
            return text;
        }
        text += "  seen here, by this process of the node:\n";
        for told in &self.story {
            let message = told.message.strip_prefix(&format!("{txid}: ")).unwrap_or(&told.message);
            text += &format!("    {}  {}\n", WallTime(told.wall_ms), escape(message));
        }
        text
    }
}

fn explain_commit(committed: &Committed, history: &History) -> String {
    let TxProposal { txid, state, base, new_roster, plan, note, gone, .. } = &committed.proposal;
    let mut text = format!("{txid}: COMMITTED as version {}\n", state.version);
    let before = before(&history.committed, state).unwrap_or_else(|| "the version before".into());
    text += &format!("  content   {before} -> {}\n", weights(&state.weights));
    text += &format!("            {}\n", deed(txid.kind, state));
    if !note.is_empty() {
        text += &format!("  because   {}\n", escape(note));
    }
    text += &format!("  proposed  {} by the clock of {}\n", state.timestamp, txid.node);
    text += &format!("  digest    {}\n  follows   {base}\n", state.digest());
    if let Some(roster) = new_roster {
        text += &format!("  nodes     {}\n", list(roster.nodes().map(|it| &it.node_id)));
    }
    if let Some(taken_out) = taken_out(&committed.proposal) {
        text += &format!("  gone      {taken_out}\n");
    }
    if let Some(plan) = plan {
        let every = span(std::time::Duration::from_millis(plan.interval_ms));
        text += &format!(
            "  plan      {} -> {} in steps {}, every {every}; {}\n  gates     {}\n",
            plan.from,
            plan.to,
            steps(plan, None),
            sticky(plan.sticky.as_ref()),
            gates(plan)
        );
        for (name, detour) in detours(plan) {
            text += &format!("  {name:<9} {detour}\n");
        }
    }
    if !committed.proposal.serves.is_empty() {
        text += &format!("  servers   {}\n", servers(&committed.proposal.serves));
    }
    let word = word_on(&history.committed, txid);
    text += &votes(&committed.proof, word);
    text + match (&committed.proof.resolution, committed.proof.votes.len()) {
        (Some(_), _) if word == RemovalAuthority::Seeds => {
            "  shown by  the votes of all that remained, who took its coordinator out by the \
                         seeds' word\n"
        }
        (Some(_), _) => {
            "  shown by  an operator's word, kept for ever; another node may have ended \
                         it otherwise\n"
        }
        (None, 0) => "  shown by  the log of decisions\n",
        (None, _) if gone.as_ref().is_some_and(|it| it.by == RemovalAuthority::Seeds) => {
            "  shown by  the COMMIT of all others, each signed over this very content; they are \
                      more\n            than half of those before, or half with the lowest name: \
                      no other part can show such a thing\n"
        }
        (None, _) if gone.is_some() => {
            "  shown by  the COMMIT of all others, each signed over this very content; nodes \
                      that\n            call each other gone can both show such a thing\n"
        }
        (None, _) => {
            "  shown by  the COMMIT of everybody who takes part, each signed over this \
                      very content\n            and the digest that it follows: nobody else can \
                      have ended it otherwise\n"
        }
    }
}

fn explain_abort(aborted: &Aborted) -> String {
    let Aborted { txid, version, cause: why, reason, proof } = aborted;
    let mut text = format!("{txid}: ABORTED, no node ever served it\n");
    if let Some(version) = version {
        text += &format!("  content   would have been version {version}\n");
    }
    text += &format!("  because   {} ({})\n", escape(reason), cause(*why));
    text += &votes(proof, RemovalAuthority::Operator);
    text + match (&proof.resolution, proof.votes.len()) {
        (Some(_), _) => {
            "  shown by  an operator's word, kept for ever; another node may have ended \
                         it otherwise\n"
        }
        (None, 0) => "  shown by  the log of decisions, or a coordinator that had not asked yet\n",
        (None, _) => {
            "  shown by  one signed ABORT, which is enough: its COMMIT can never be \
                      shown\n"
        }
    }
}

fn votes(proof: &TxProof, by: RemovalAuthority) -> String {
    let mut text = String::new();
    for vote in &proof.votes {
        let kind = if vote.vote == Choice::Commit { "COMMIT" } else { "ABORT" };
        // The first digits of a signature, to compare logs by.
        let signature = hex::encode(&vote.signature.as_bytes()[..4]);
        text += &format!("  vote      {} {kind}, signature {signature}…\n", vote.node_id);
    }
    if let Some(resolution) = &proof.resolution {
        text += &format!("  {}\n", marked(resolution, by));
    }
    text
}
