//! Answers to orders to take a share everywhere: those of this peer to the orders of others, and
//! those of others to its own.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::reports::BEAT;
use super::{Answers, Node, Refusal, Sharing, State, TakenShare};
use crate::machine::shares::{Answered, LIST_MAX, ShareState};
use crate::model::{Ticket, Time};
use crate::network::message::PeerInfo;
use crate::network::pending::Pending;
use crate::network::subscriptions::Subscriptions;
use crate::runtime::clock::Clock;
use crate::runtime::control::{ControlAnswer, NextLine};
use crate::runtime::swarm::ContentPhase;

/// Largest number of refusals that are remembered; lists of others can name any number of shares.
const REFUSALS_MAX: usize = 4_096;

/// Interval at which the answers of others are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl TakenShare {
    pub(super) fn is_failed(&self) -> bool {
        matches!(self.held.swarm.progress().phase, ContentPhase::Failed(_))
    }
}

impl State {
    /// Remembers that a share is not taken.
    pub(super) fn refuse(&mut self, key: super::Key, refusal: Refusal) {
        if self.refused.len() >= REFUSALS_MAX {
            self.refused.pop_first();
        }
        self.refused.insert(key, refusal);
    }

    /// Answers of this peer to the orders that it knows.
    pub(super) fn answers(&mut self, now: Time) -> Answers {
        let mut answers = Vec::new();
        if self.is_apart {
            return (answers, !self.known.wanted_everywhere(now).is_empty());
        }
        for known in self.known.wanted_everywhere(now) {
            let (id, name, order) =
                (known.ticket.share_id(), known.ticket.name.clone(), known.order());
            let key = (id, name.clone());
            if self.kept.get(&key).is_some_and(|it| it.everywhere) {
                continue;
            }
            let refused = if self.kept.keys().any(|it| it.0 == id) {
                None
            } else if let Some(refusal) = self.refused.get(&key).filter(|it| it.order >= order) {
                Some(refusal.why.clone())
            } else {
                let taken = self.taken.get(&id).filter(|it| it.held.ticket.name == name);
                match taken.filter(|it| it.is_told).map(|it| it.held.swarm.progress().phase) {
                    Some(ContentPhase::Stored) => None,
                    Some(ContentPhase::Failed(why)) => Some(why),
                    Some(ContentPhase::Fetching | ContentPhase::Finishing) | None => continue,
                }
            };
            answers.push(Answered { id, name, order, refused });
        }
        answers.truncate(LIST_MAX);
        (answers, false)
    }

    /// True if other peers do not know this peer's present answers.
    pub(super) fn has_new_answers(&mut self, now: Time) -> bool {
        self.answers(now) != self.answered
    }
}

impl Sharing {
    /// Tells how many of the peers that can be found now have the share that was ordered for all,
    /// as that changes, and then what each of them answered; ends when all have, or after `wait`.
    ///
    /// # Errors
    /// Fails if this peer has ordered no such thing, or has stopped.
    pub fn await_answers(
        self: &Arc<Self>,
        (ticket, wait): (Ticket, Duration),
        (subscriptions, node): (&Arc<Subscriptions>, &Node),
    ) -> Result<ControlAnswer, String> {
        let key = (ticket.share_id(), ticket.name.clone());
        let order = self.lock().kept.get(&key).filter(|it| it.everywhere).map(|it| it.order);
        let order = order.ok_or("this peer has not asked the others to take that")?;
        let finding = subscriptions.discover(node).map_err(|error| error.to_string())?;
        let mut watch = Watch {
            sharing: Arc::clone(self),
            ticket,
            order,
            clock: Clock::start(),
            wait,
            finding: Some(finding),
            peers: Vec::new(),
            told: None,
            is_ended: false,
        };
        Ok(ControlAnswer::Lines(Box::new(move || watch.next())))
    }
}

type Finding = Pending<Result<Vec<PeerInfo>, crate::network::error::NetworkError>>;

/// Wait for the answers to an order.
struct Watch {
    sharing: Arc<Sharing>,
    ticket: Ticket,
    order: u64,
    clock: Clock,
    wait: Duration,
    /// Search for the peers to wait for, while it lasts.
    finding: Option<Finding>,
    peers: Vec<PeerInfo>,
    /// Number of peers that have it, as last told.
    told: Option<usize>,
    is_ended: bool,
}

impl Watch {
    fn next(&mut self) -> NextLine {
        if self.is_ended || self.sharing.lock().is_closed {
            return NextLine::End;
        }
        if let Some(finding) = &mut self.finding {
            match finding.wait_timeout(BEAT) {
                None => return NextLine::Idle,
                Some(Ok(peers)) => (self.peers, self.finding) = (peers, None),
                Some(Err(error)) => {
                    self.is_ended = true;
                    return NextLine::Line(json!({ "error": error.to_string() }).to_string());
                }
            }
        } else if self.told.is_some() {
            // Only the time ends this pause.
            let _ = crossbeam_channel::after(LOOK_EVERY).recv();
        }
        let standings: Vec<_> = {
            let state = self.sharing.lock();
            let standing = |it: &PeerInfo| state.known.standing(&it.key, &self.ticket, self.order);
            self.peers.retain(|it| standing(it) != ShareState::Apart);
            self.peers.iter().map(standing).collect()
        };
        let have = standings.iter().filter(|it| **it == ShareState::Has).count();
        let is_over = self.clock.mono().since(Time::ZERO) >= self.wait;
        if self.told != Some(have) && !is_over {
            self.told = Some(have);
            return NextLine::Line(json!({ "have": have, "of": self.peers.len() }).to_string());
        }
        let is_open = |it: &ShareState| matches!(it, ShareState::Silent | ShareState::Part);
        if standings.iter().any(is_open) && !is_over {
            return NextLine::Idle;
        }
        self.is_ended = true;
        let peers: Vec<_> = self.peers.iter().zip(&standings).map(answer).collect();
        NextLine::Line(json!({ "answers": peers }).to_string())
    }
}

fn answer((peer, standing): (&PeerInfo, &ShareState)) -> Value {
    let (answer, reason) = match standing {
        ShareState::Has => ("has", None),
        ShareState::Refuses(why) => ("refuses", Some(why)),
        ShareState::Part => ("part", None),
        ShareState::Silent | ShareState::Apart => ("none", None),
    };
    json!({ "peer": peer.endpoint, "answer": answer, "reason": reason })
}
