//! Questions and orders of programs on this machine to the member of an order, by its control
//! socket.
//!
//! One line of JSON in, `{"ask": …}`. One line out, `{"lines": […], "json": …}` or
//! `{"error": …}`; for `append` and `follow` one for each entry.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::report::{certificate_text, change_text, evidence_line, status_lines};
use crate::cli::text::escape;
use crate::machine::bft::{BftStatus, Command};
use crate::network::order::{Fate, NoEntry};
use crate::network::{Follower, Network, OrderEntry, OrderedLog, Place};
use crate::proto::bft::MembershipChange;
use crate::proto::chat::entry::Member;
use crate::runtime::clock::Clock;
use crate::runtime::control::{ControlAnswer, ControlHandler, NextLine};

/// Interval at which an idle stream checks that its reader is there.
const BEAT: Duration = Duration::from_secs(1);

/// Time for the disk to keep a proposal, even if its sender waits less.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// Largest number of entries of one request.
pub(super) const TEXTS_MAX: usize = 1_024;

/// Request to a member.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum OrderRequest {
    /// Show the status.
    Status,
    /// Show who has lied, by its own signatures.
    Evidence,
    /// Wish for the next leader.
    Suspect,
    /// Consent to a change of the members.
    Consent {
        /// The change, without consents.
        change: MembershipChange,
    },
    /// Propose entries. Each has a line in the answer, in their order: `{"place": N}`,
    /// `{"refused": REASON}` or `{"pending": true}`.
    Append {
        /// Texts of the entries, [`TEXTS_MAX`] at most.
        texts: Vec<String>,
        /// Longest wait until all are final, in ms.
        wait_ms: u64,
    },
    /// Report the entries from a place on. Each is a line
    /// `{"place": N, "author": N, "time_ms": N, "text": TEXT}`, with `data` in Base64 instead of a
    /// text if the entry is none.
    Follow {
        /// Place of the first entry.
        from: u64,
        /// True if each entry comes with its `proof`.
        #[serde(default)]
        proofs: bool,
    },
    /// Prove the place of an entry.
    Proof {
        /// Place of the entry.
        place: u64,
    },
}

/// The member, and the programs that ask it.
pub(super) struct LocalServer {
    pub(super) log: Arc<OrderedLog>,
    pub(super) name: String,
    network: Arc<Network>,
}

const STOPPING: &str = "this member is stopping";

impl LocalServer {
    /// Server for a running member of the order `name`.
    pub(super) fn new(log: Arc<OrderedLog>, name: String, network: Arc<Network>) -> Self {
        Self { log, name, network }
    }

    fn status(&self) -> Result<BftStatus, String> {
        self.log.machine_status().ok_or_else(|| STOPPING.to_owned())
    }

    fn answer(&self, ask: OrderRequest) -> Result<ControlAnswer, String> {
        let line = |lines: Vec<String>, json: Value| {
            Ok(ControlAnswer::Line(json!({ "lines": lines, "json": json }).to_string()))
        };
        match ask {
            OrderRequest::Status => {
                let status = self.status()?;
                line(status_lines(&status, &self.name, "proposed"), json!(status))
            }
            OrderRequest::Evidence => {
                let evidence = self.status()?.evidence;
                let lines = match evidence.len() {
                    0 => vec!["no member is known to have lied".to_owned()],
                    _ => evidence.iter().map(|it| evidence_line(it)).collect(),
                };
                line(lines, json!(evidence))
            }
            OrderRequest::Suspect => {
                if !self.log.command(Command::Suspect) {
                    return Err(STOPPING.to_owned());
                }
                let text = "this member wishes for the next view; it begins when a quorum does";
                line(vec![text.to_owned()], json!({ "asked": true }))
            }
            OrderRequest::Consent { change } => {
                let text = self.consent(&change)?;
                line(vec![text], json!({ "consented": true }))
            }
            OrderRequest::Append { texts, wait_ms } => self.append(&texts, wait_ms),
            OrderRequest::Follow { from, proofs } => Ok(self.follow(Place(from), proofs)),
            OrderRequest::Proof { place } => {
                let proof = self.log.proof(Place(place)).map_err(|error| error.to_string())?;
                let text = proof.encode();
                let json = serde_json::from_str(&text).unwrap_or_default();
                line(vec![text], json)
            }
        }
    }

    /// Consents to a change that can be made now; tells what is missing.
    fn consent(&self, change: &MembershipChange) -> Result<String, String> {
        let before = self.status()?;
        let has = |fits: &dyn Fn(&Member) -> bool| before.members.iter().any(|it| fits(&it.member));
        match change {
            MembershipChange::Add { member, .. } => {
                if has(&|it| it.id == member.id || it.key == member.key) {
                    return Err(format!(
                        "a member has the id {} or this key already; remove it first, or take \
                         another id",
                        member.id.0
                    ));
                }
            }
            MembershipChange::Remove { member, .. } => {
                if !has(&|it| it.id == *member) {
                    return Err(format!("{member} is no member; see peer order status"));
                }
            }
            MembershipChange::Renew { .. } => {
                return Err("a member renews its life itself".to_owned());
            }
        }
        if !has(&|it| it.id == before.me) {
            return Err("this process follows the order, and has no voice in it".to_owned());
        }
        if !self.log.command(Command::Approve(change.clone())) {
            return Err(STOPPING.to_owned());
        }
        let (what, needed) = (change_text(change), before.quorum);
        let changes = self.status()?.changes;
        let given = changes.iter().find(|it| it.change == *change).map(|it| it.consents.len());
        Ok(match given {
            Some(given) => format!(
                "{} consents to {what}; {given} of the {needed} that are needed have: give the \
                 same command on the machines of other members",
                before.me
            ),
            None => format!("{} consents to {what}; enough have, it is being made", before.me),
        })
    }

    fn append(&self, texts: &[String], wait_ms: u64) -> Result<ControlAnswer, String> {
        if texts.len() > TEXTS_MAX {
            return Err(format!("at most {TEXTS_MAX} entries at a time"));
        }
        let mut waits: VecDeque<_> = texts.iter().map(|text| self.propose(text)).collect();
        let (clock, wait) = (Clock::start(), Duration::from_millis(wait_ms));
        Ok(ControlAnswer::Lines(Box::new(move || {
            let Some(proposal) = waits.front_mut() else { return NextLine::End };
            let most = if proposal.is_kept { wait } else { wait.max(DISK_PATIENCE) };
            let left = most.saturating_sub(Duration::from_micros(clock.now().mono.as_micros()));
            let answer = match proposal.fates.recv_timeout(left.min(BEAT)) {
                Ok(Fate::Kept) => {
                    proposal.is_kept = true;
                    return NextLine::Idle;
                }
                Ok(Fate::Final(place)) => json!({ "place": place }),
                Ok(Fate::Refused(reason)) => json!({ "refused": reason }),
                Err(RecvTimeoutError::Timeout) if left > BEAT => return NextLine::Idle,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    json!({ "pending": true })
                }
            };
            waits.pop_front();
            NextLine::Line(answer.to_string())
        })))
    }

    fn propose(&self, text: &str) -> Proposal {
        let (tell, fates) = bounded(2);
        let told = Box::new(move |fate| drop(tell.try_send(fate)));
        self.log.propose_and_tell(text.as_bytes(), told);
        Proposal { fates, is_kept: false }
    }

    fn follow(&self, from: Place, proofs: bool) -> ControlAnswer {
        let mut entries: Follower = self.log.follow(from);
        let (log, network) = (Arc::downgrade(&self.log), Arc::clone(&self.network));
        ControlAnswer::Lines(Box::new(move || match entries.next_within(BEAT) {
            Ok(entry) => {
                let proof = proofs.then(|| log.upgrade()?.proof(entry.place).ok()).flatten();
                let proof = proof.and_then(|it| serde_json::from_str(&it.encode()).ok());
                let mut line = shown(&entry);
                if let Some(it) = entry.certificate() {
                    let holds = network.certifies(&it);
                    line.insert("certificate".to_owned(), json!(certificate_text(&it, holds)));
                }
                if proofs {
                    line.insert("proof".to_owned(), proof.unwrap_or_default());
                }
                NextLine::Line(Value::Object(line).to_string())
            }
            Err(NoEntry::Yet) => NextLine::Idle,
            Err(NoEntry::Stopped) => NextLine::End,
        }))
    }
}

/// A proposal whose fate is awaited.
struct Proposal {
    fates: Receiver<Fate>,
    is_kept: bool,
}

/// An entry for programs.
fn shown(entry: &OrderEntry) -> Map<String, Value> {
    let OrderEntry { place, author, time, data } = entry;
    let content = match entry.text() {
        Some(text) => ("text", json!(text)),
        None => ("data", json!(data)),
    };
    let fields =
        [("place", json!(place)), ("author", json!(author)), ("time_ms", json!(time)), content];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Handler of requests, for as long as `local` lives.
pub(super) fn handler(local: Weak<LocalServer>) -> ControlHandler {
    Arc::new(move |request| {
        let answer = match (local.upgrade(), serde_json::from_str(request)) {
            (Some(local), Ok(ask)) => local.answer(ask),
            (None, _) => Err(STOPPING.to_owned()),
            (_, Err(error)) => Err(format!("not a question: {error}")),
        };
        let failed =
            |error: String| ControlAnswer::Line(json!({ "error": escape(&error) }).to_string());
        answer.unwrap_or_else(failed)
    })
}
