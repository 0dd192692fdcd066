//! Reports of a share's events: notices for people, and the course of a download.

use crate::proto::swarm::PieceIndex;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::timeline::{Timeline, name};
use crate::cli::span::Span;
use crate::machine::swarm::Event;
use crate::model::{Now, Time};
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::Sink;

/// Words of the notice about a seeder that has withdrawn its offer.
pub(super) const NO_MORE: &str = "does not offer this any more";

/// Largest number of waiting notices; more are lost, for a person reads a few.
const NOTICES_MAX: usize = 64;

/// Course of a download that is to be drawn.
pub(super) type Course = Arc<Mutex<Timeline>>;

/// Receiver of a share's events.
pub(super) struct Notices {
    tell: Sender<String>,
    course: Option<(Course, Clock, Time)>,
}

impl Notices {
    /// A receiver of events, and the channel of its notices.
    pub(super) fn new() -> (Self, Receiver<String>) {
        let (tell, told) = bounded(NOTICES_MAX);
        (Self { tell, course: None }, told)
    }

    /// Records the course of a download that begins now.
    pub(super) fn drawing(mut self, course: Course) -> Self {
        let clock = Clock::start();
        self.course = Some((course, clock, clock.now().mono));
        self
    }
}

impl Sink<Event> for Notices {
    fn take(&self, _: Now, event: Event) -> bool {
        if let (Event::Downloaded { index, from, .. }, Some((course, clock, began))) =
            (&event, &self.course)
        {
            let at = clock.now().mono.since(*began);
            let mut course = course.lock().expect("nothing under this lock can panic");
            course.add(at, *index, *from);
        }
        notice(&event).is_none_or(|text| self.tell.try_send(text).is_ok())
    }
}

/// Notice of an event for people, if it is worth one.
fn notice(event: &Event) -> Option<String> {
    Some(match event {
        Event::FalsePiece(peer, PieceIndex(piece)) => {
            format!("{} sent a false piece {piece}, and is asked for no more", name(*peer))
        }
        Event::Refused(peer, why) => format!("refused {}: {why}", name(*peer)),
        Event::Odd(peer, what) => format!("{} is odd, which is borne: {what}", name(*peer)),
        Event::Disconnected(peer, Some(why)) => format!("hung up on {}: {why}", name(*peer)),
        Event::Unreachable { reason, retry_in, .. } => match retry_in {
            Some(pause) => format!("cannot be reached: {reason}; again in {}", shown(*pause)),
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
pub(super) fn read_again(read: u32, lost: usize, files: &[String]) -> String {
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

fn shown(pause: Duration) -> Span {
    Span(Duration::from_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
}
