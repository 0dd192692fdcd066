//! Texts of a swarm's events: the eleven sentences of the assignment, which alone go into
//! `log_peer_ID.log`, and further lines for the console.
//!
//! Each event is one [`LogLine`] for the console, and at most one sentence for the file.

use ::log::Level;
use serde_json::{Value, json};

use crate::cli::log::LogLine;
use crate::cli::span::Span;
use crate::machine::swarm::{Event, PeerAddrId, SwarmOutcome};
use crate::proto::swarm::{PeerId, PieceIndex};

/// Makes the texts of one peer's events.
#[derive(Debug)]
pub(super) struct EventMessages {
    /// Id of the peer.
    pub(super) me: PeerId,
}

impl EventMessages {
    /// The sentence of the assignment for an event, if it has one.
    pub(super) fn sentence(&self, event: &Event) -> Option<String> {
        let me = self.me.0;
        Some(match event {
            Event::Connected(PeerId(it)) => format!("Peer {me} makes a connection to Peer {it}."),
            Event::ConnectedFrom(PeerId(it)) => format!("Peer {me} is connected from Peer {it}."),
            Event::Preferred(list) => {
                format!("Peer {me} has the preferred neighbors {}.", ids(list))
            }
            Event::Optimistic(PeerId(it)) => {
                format!("Peer {me} has the optimistically unchoked neighbor {it}.")
            }
            Event::UnchokedBy(PeerId(it)) => format!("Peer {me} is unchoked by {it}."),
            Event::ChokedBy(PeerId(it)) => format!("Peer {me} is choked by {it}."),
            Event::Have(PeerId(it), PieceIndex(piece)) => {
                format!("Peer {me} received the 'have' message from {it} for the piece {piece}.")
            }
            Event::Interested(PeerId(it)) => {
                format!("Peer {me} received the 'interested' message from {it}.")
            }
            Event::NotInterested(PeerId(it)) => {
                format!("Peer {me} received the 'not interested' message from {it}.")
            }
            Event::Downloaded { index: PieceIndex(piece), from: PeerId(it), have } => format!(
                "Peer {me} has downloaded the piece {piece} from {it}. \
                 Now the number of pieces it has is {have}."
            ),
            Event::Complete => format!("Peer {me} has downloaded the complete file."),
            Event::ReadAgain { .. }
            | Event::Withdrawn(_)
            | Event::Refused(..)
            | Event::Odd(..)
            | Event::Disconnected(..)
            | Event::Unreachable { .. }
            | Event::FalsePiece(..)
            | Event::FileList(_)
            | Event::Ended(_) => return None,
        })
    }

    /// The line of the console for an event.
    pub(super) fn line(&self, event: &Event) -> LogLine {
        let message = self.sentence(event).or_else(|| Self::further(event)).unwrap_or_default();
        let (level, name, fields) = facts(event);
        LogLine::new(level, name, message, fields)
    }

    /// Text of an event that the assignment has no sentence for.
    fn further(event: &Event) -> Option<String> {
        Some(match event {
            Event::Refused(PeerId(it), why) => format!("refused peer {it}: {why}"),
            Event::Odd(PeerId(it), what) => format!("peer {it} is odd, which is borne: {what}"),
            Event::Disconnected(PeerId(it), None) => format!("peer {it} has hung up"),
            Event::Disconnected(PeerId(it), Some(why)) => format!("hung up on peer {it}: {why}"),
            Event::Unreachable { place, reason, retry_in } => {
                let PeerAddrId(it) = place;
                match retry_in {
                    Some(pause) => {
                        format!("cannot reach peer {it}: {reason}; again in {}", Span(*pause))
                    }
                    None => format!("cannot reach peer {it}: {reason}"),
                }
            }
            Event::FalsePiece(PeerId(it), PieceIndex(piece)) => {
                format!("peer {it} sent a false piece {piece}, and is asked for no more")
            }
            Event::ReadAgain { read, lost, .. } => {
                format!("the file was changed by others: {read} pieces read again, {lost} lost")
            }
            Event::Withdrawn(PeerId(it)) => format!("peer {it} does not offer the file any more"),
            Event::FileList(list) => format!("the list of files has {} bytes", list.len()),
            Event::Ended(outcome) => ending(outcome),
            Event::Connected(_)
            | Event::ConnectedFrom(_)
            | Event::Preferred(_)
            | Event::Optimistic(_)
            | Event::UnchokedBy(_)
            | Event::ChokedBy(_)
            | Event::Have(..)
            | Event::Interested(_)
            | Event::NotInterested(_)
            | Event::Downloaded { .. }
            | Event::Complete => return None,
        })
    }
}

/// Outcome of a swarm, for people.
pub(super) fn ending(outcome: &SwarmOutcome) -> String {
    match outcome {
        SwarmOutcome::AllComplete => "all peers have the complete file".to_owned(),
        SwarmOutcome::WithoutSome(peers) => {
            let (word, was) = if peers.len() == 1 { ("peer", "was") } else { ("peers", "were") };
            format!(
                "this peer has the complete file; {word} {} {was} not seen to have it in time: \
                 start them again beside a peer that has it, or allow more with --give-up",
                ids(peers)
            )
        }
        SwarmOutcome::Incomplete => {
            "the file is not complete, and nobody who has the rest came in \
            time; start again to go on, or allow more with --give-up"
                .to_owned()
        }
        SwarmOutcome::DiskFailed(why) => {
            format!("the disk failed ({why}); make room or mend it, and start again to go on")
        }
    }
}

fn ids(peers: &[PeerId]) -> String {
    let ids: Vec<_> = peers.iter().map(|it| it.0.to_string()).collect();
    ids.join(",")
}

/// Level, name and fields of an event. In the assignment a place is the number of its peer.
fn facts(event: &Event) -> (Level, &'static str, Value) {
    let numbers = |peers: &[PeerId]| -> Vec<u32> { peers.iter().map(|it| it.0).collect() };
    match event {
        Event::Connected(it) => (Level::Info, "swarm_connected", json!({ "peer": it.0 })),
        Event::ConnectedFrom(it) => (Level::Info, "swarm_called", json!({ "peer": it.0 })),
        Event::Preferred(list) => {
            (Level::Info, "swarm_preferred", json!({ "peers": numbers(list) }))
        }
        Event::Optimistic(it) => (Level::Info, "swarm_optimistic", json!({ "peer": it.0 })),
        Event::UnchokedBy(it) => (Level::Info, "swarm_unchoked", json!({ "peer": it.0 })),
        Event::ChokedBy(it) => (Level::Info, "swarm_choked", json!({ "peer": it.0 })),
        Event::Have(it, piece) => {
            (Level::Debug, "swarm_have", json!({ "peer": it.0, "piece": piece.0 }))
        }
        Event::Interested(it) => (Level::Debug, "swarm_interested", json!({ "peer": it.0 })),
        Event::NotInterested(it) => (Level::Debug, "swarm_not_interested", json!({ "peer": it.0 })),
        Event::Downloaded { index, from, have } => {
            (Level::Debug, "swarm_piece", json!({ "piece": index.0, "peer": from.0, "have": have }))
        }
        Event::Complete => (Level::Info, "swarm_complete", json!({})),
        Event::Refused(it, why) => {
            (Level::Warn, "swarm_refused", json!({ "peer": it.0, "reason": why }))
        }
        Event::Odd(it, what) => (Level::Warn, "swarm_odd", json!({ "peer": it.0, "what": what })),
        Event::Disconnected(it, why) => {
            let level = if why.is_some() { Level::Warn } else { Level::Info };
            (level, "swarm_disconnected", json!({ "peer": it.0, "reason": why }))
        }
        Event::Unreachable { place, reason, retry_in } => {
            let level = if retry_in.is_some() { Level::Debug } else { Level::Warn };
            let retry_ms = retry_in.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
            let peer = place.0;
            (
                level,
                "swarm_unreachable",
                json!({ "peer": peer, "reason": reason, "retry_ms": retry_ms }),
            )
        }
        Event::FalsePiece(it, piece) => {
            (Level::Warn, "swarm_false_piece", json!({ "peer": it.0, "piece": piece.0 }))
        }
        Event::ReadAgain { read, lost, files } => {
            let fields = json!({ "read": read, "lost": lost, "files": files });
            (Level::Warn, "swarm_read_again", fields)
        }
        Event::Withdrawn(it) => (Level::Warn, "swarm_withdrawn", json!({ "peer": it.0 })),
        Event::FileList(list) => (Level::Debug, "swarm_files", json!({ "bytes": list.len() })),
        Event::Ended(outcome) => {
            let (level, missing) = match outcome {
                SwarmOutcome::AllComplete => (Level::Info, None),
                SwarmOutcome::WithoutSome(peers) => (Level::Warn, Some(numbers(peers))),
                SwarmOutcome::Incomplete | SwarmOutcome::DiskFailed(_) => (Level::Error, None),
            };
            (
                level,
                "swarm_ended",
                json!({ "complete": missing.is_none()
                && matches!(outcome, SwarmOutcome::AllComplete), "missing": missing }),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn messages() -> EventMessages {
        EventMessages { me: PeerId(1002) }
    }

    #[test]
    fn the_eleven_sentences_are_those_of_the_assignment() {
        let (one, piece) = (PeerId(1001), PieceIndex(7));
        let cases = [
            (Event::Connected(one), "Peer 1002 makes a connection to Peer 1001."),
            (Event::ConnectedFrom(one), "Peer 1002 is connected from Peer 1001."),
            (
                Event::Preferred(vec![one, PeerId(1003)]),
                "Peer 1002 has the preferred neighbors 1001,1003.",
            ),
            (Event::Optimistic(one), "Peer 1002 has the optimistically unchoked neighbor 1001."),
            (Event::UnchokedBy(one), "Peer 1002 is unchoked by 1001."),
            (Event::ChokedBy(one), "Peer 1002 is choked by 1001."),
            (
                Event::Have(one, piece),
                "Peer 1002 received the 'have' message from 1001 for the piece 7.",
            ),
            (Event::Interested(one), "Peer 1002 received the 'interested' message from 1001."),
            (
                Event::NotInterested(one),
                "Peer 1002 received the 'not interested' message from 1001.",
            ),
            (
                Event::Downloaded { index: piece, from: one, have: 12 },
                "Peer 1002 has downloaded the piece 7 from 1001. Now the number of pieces it has \
                 is 12.",
            ),
            (Event::Complete, "Peer 1002 has downloaded the complete file."),
        ];
        for (event, sentence) in cases {
            assert_eq!(messages().sentence(&event).as_deref(), Some(sentence));
            assert_eq!(messages().line(&event).message, sentence, "the console says the same");
        }
    }

    #[test]
    fn what_the_assignment_has_no_sentence_for_stays_out_of_its_log() {
        let unreachable = |retry_in| Event::Unreachable {
            place: PeerAddrId(1003),
            reason: "nobody listens there".to_owned(),
            retry_in,
        };
        let cases = [
            (Event::Disconnected(PeerId(1001), None), "peer 1001 has hung up"),
            (
                Event::Disconnected(PeerId(1001), Some("it stalls".to_owned())),
                "hung up on peer 1001: it stalls",
            ),
            (
                unreachable(Some(Duration::from_millis(500))),
                "cannot reach peer 1003: nobody listens there; again in 500ms",
            ),
            (unreachable(None), "cannot reach peer 1003: nobody listens there"),
            (
                Event::FalsePiece(PeerId(1001), PieceIndex(3)),
                "peer 1001 sent a false piece 3, and is asked for no more",
            ),
            (Event::Ended(SwarmOutcome::AllComplete), "all peers have the complete file"),
        ];
        for (event, message) in cases {
            assert_eq!(messages().sentence(&event), None);
            assert_eq!(messages().line(&event).message, message);
        }
        let some = SwarmOutcome::WithoutSome(vec![PeerId(1003)]);
        assert!(ending(&some).contains("peer 1003 was not seen"), "{}", ending(&some));
    }
}
