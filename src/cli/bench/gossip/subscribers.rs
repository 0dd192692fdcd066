//! Subscribers at peers, in threads of this process, that stamp what arrives.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::{TOPIC, number_of};
use crate::cli::CliError;
use crate::cli::run::ApiRequest;
use crate::model::{Data, Time};
use crate::runtime::clock::Clock;
use crate::runtime::{control, thread};

/// Longest time of a peer without a sign of life.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Largest number of messages that were heard and not looked at yet; a subscriber waits then, and
/// is told of gaps.
const HEARD_MAX: usize = 65_536;

/// Number of the message that ends a subscriber.
pub(super) const LAST: u64 = u64::MAX;

/// Report of a subscriber.
pub(super) enum SubscriberReport {
    /// The subscriber hears from now on.
    Ready,
    /// The message with this number came at this time.
    Message(u64, Time),
}

/// Subscribers, and their reports.
pub(super) struct Subscribers {
    pub(super) heard: Receiver<SubscriberReport>,
    missed: Arc<AtomicU64>,
}

impl Subscribers {
    /// Subscribes at each of `sockets`; returns when all subscribers hear.
    pub(super) fn open<'a>(
        sockets: impl IntoIterator<Item = &'a Path>,
        clock: Clock,
        patience: Duration,
    ) -> Result<Self, CliError> {
        let (tell, heard) = bounded(HEARD_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let mut count = 0;
        for socket in sockets {
            count += 1;
            let (socket, tell, missed) = (socket.to_owned(), tell.clone(), Arc::clone(&missed));
            thread::spawn("ear", move || listen(&socket, clock, &tell, &missed))
                .map_err(|source| CliError::System { action: "start a thread", source })?;
        }
        let this = Self { heard, missed };
        for _ in 0..count {
            match this.heard.recv_timeout(patience) {
                Ok(SubscriberReport::Ready) => {}
                Ok(SubscriberReport::Message(..)) | Err(_) => {
                    return Err(CliError::Failed("a subscriber is not served in time".to_owned()));
                }
            }
        }
        Ok(this)
    }

    /// Number of messages that found no room at a subscriber so far.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

fn listen(socket: &Path, clock: Clock, tell: &Sender<SubscriberReport>, missed: &AtomicU64) {
    let request = json!(ApiRequest::Subscribe { topic: TOPIC.to_owned() }).to_string();
    // A wait for further reports finds out that this subscriber has ended.
    let _ = control::follow(socket, &request, SILENCE_MAX, |line| {
        let at = clock.now().mono;
        let Ok(mut line) = serde_json::from_str::<Value>(line) else { return false };
        if line.get("ready").is_some() {
            return tell.send(SubscriberReport::Ready).is_ok();
        }
        if let Some(count) = line["missed"].as_u64() {
            missed.fetch_add(count, Ordering::Relaxed);
            return true;
        }
        let data: Option<Data> = serde_json::from_value(line["data"].take()).ok();
        match data.as_ref().and_then(number_of) {
            None | Some(LAST) => false,
            Some(number) => tell.send(SubscriberReport::Message(number, at)).is_ok(),
        }
    });
}
