//! Notices of a share's events, for people.

use std::time::Duration;

use crate::machine::swarm::Event;
use crate::model::span::Span;
use crate::proto::swarm::{PeerId, PieceIndex};

/// Words of the notice about a seeder that has withdrawn its offer.
pub const NO_MORE: &str = "does not offer this any more";

/// Notice of an event for people, if it is worth one.
pub fn notice(event: &Event) -> Option<String> {
    Some(match event {
        Event::FalsePiece(peer, PieceIndex(piece)) => {
            format!("{} sent a false piece {piece}, and is asked for no more", name(*peer))
        }
        Event::Refused(peer, why) => format!("refused {}: {why}", name(*peer)),
        Event::Odd(peer, what) => format!("{} is odd, which is borne: {what}", name(*peer)),
        Event::Disconnected(peer, Some(why)) => format!("hung up on {}: {why}", name(*peer)),
        Event::Unreachable { reason, retry_in, .. } => match retry_in {
            Some(pause) => {
                format!("cannot be reached: {reason}; again in {}", rounded(*pause))
            }
            None => format!("cannot be reached: {reason}"),
        },
        Event::ReadAgain { read, lost, files } => read_again(*read, *lost, files),
        Event::Withdrawn(peer) => format!(
            "{} {NO_MORE}: its files were changed since it shared them, or cannot be read; a new \
             ticket is needed if nobody else has it",
            name(*peer)
        ),
        Event::Disconnected(_, None)
        | Event::Connected(_)
        | Event::ConnectedFrom(_)
        | Event::Preferred(_)
        | Event::Optimistic(_)
        | Event::UnchokedBy(_)
        | Event::ChokedBy(_)
        | Event::Have(..)
        | Event::Interested(_)
        | Event::NotInterested(_)
        | Event::Downloaded { .. }
        | Event::Complete
        | Event::FileList(_)
        | Event::Ended(_) => return None,
    })
}

/// Notice for people about pieces that were read again because others had changed them.
pub fn read_again(read: u32, lost: usize, files: &[String]) -> String {
    let what = match files {
        [] => "what was not surely on disk".to_owned(),
        [one] => format!("{one} was changed by others, or is gone:"),
        [one, more @ ..] => {
            format!("{one} and {} more were changed by others, or are gone:", more.len())
        }
    };
    let pieces = if read == 1 { "piece" } else { "pieces" };
    let outcome = match lost {
        0 => "all are as they were".to_owned(),
        lost => format!("{lost} of them are fetched again"),
    };
    format!("{what} {read} {pieces} read again, {outcome}")
}

fn rounded(pause: Duration) -> Span {
    Span(Duration::from_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
}

/// Name of a peer, whose number in a share is random.
pub fn name(peer: PeerId) -> String {
    format!("peer {:08x}", peer.0)
}
