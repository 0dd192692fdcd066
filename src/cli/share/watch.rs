//! Reports of a share's events: notices for people, and the progress of a download.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::timeline::Timeline;
use crate::machine::swarm::Event;
use crate::model::{Now, Time};
use crate::network::shares::notice;
use crate::runtime::clock::Clock;
use crate::runtime::driver::options::EventSink;

/// Largest number of waiting notices; more are lost, for a person reads a few.
const NOTICES_MAX: usize = 64;

/// Progress of a download that is to be drawn.
pub(super) type DownloadDisplay = Arc<Mutex<Timeline>>;

/// Receiver of a share's events.
pub(super) struct Notices {
    tell: Sender<String>,
    display: Option<(DownloadDisplay, Clock, Time)>,
}

impl Notices {
    /// A receiver of events, and the channel of its notices.
    pub(super) fn new() -> (Self, Receiver<String>) {
        let (tell, told) = bounded(NOTICES_MAX);
        (Self { tell, display: None }, told)
    }

    /// Records the progress of a download that begins now.
    pub(super) fn drawing(mut self, display: DownloadDisplay) -> Self {
        let clock = Clock::start();
        self.display = Some((display, clock, clock.now().mono));
        self
    }
}

impl EventSink<Event> for Notices {
    fn take(&self, _: Now, event: Event) -> bool {
        if let (Event::Downloaded { index, from, .. }, Some((display, clock, began))) =
            (&event, &self.display)
        {
            let at = clock.now().mono.since(*began);
            let mut display = display.lock().expect("nothing under this lock can panic");
            display.add(at, *index, *from);
        }
        notice(&event).is_none_or(|text| self.tell.try_send(text).is_ok())
    }
}
