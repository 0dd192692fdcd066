//! Server-sent events: one ring of a node's last events, and any number of readers.
//!
//! Invariants:
//! - The ring is bounded in bytes. A reader that is too slow skips what was overwritten, and is
//!   told how many events it did not see.
//! - Publishing never waits for a reader.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;

/// Largest sum of the kept events in bytes while nobody reads; enough for a page that is loaded
/// anew.
const RING_BYTES_MAX: usize = 64 * 1024;

/// Largest sum of the kept events in bytes while somebody reads.
const READ_RING_BYTES_MAX: usize = 1024 * 1024;

/// Largest size of one part of a stream, in bytes; an event longer than this is a part of its own.
const PART_BYTES_MAX: usize = 64 * 1024;

/// Pause of a reader after each part, so that a flood of events comes in few parts.
const PACE: Duration = Duration::from_millis(40);

/// Interval of the comments by which a quiet stream is known to be alive.
const BEAT: Duration = Duration::from_secs(15);

/// The last events of a node, numbered from 1; clones are the same feed.
#[derive(Clone, Debug)]
pub struct EventFeed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoch: String,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    readers: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Number of the newest event.
    last: u64,
    is_closed: bool,
}

impl Ring {
    /// Number of the oldest kept event.
    fn first(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }
}

/// A reader, as long as its stream lasts.
struct Reader(Arc<AtomicUsize>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EventFeed {
    /// An empty feed. `epoch` is a name that no other run of a node has, without `-`.
    pub fn new(epoch: String) -> Self {
        let (ring, readers) = (Mutex::default(), Arc::default());
        Self(Arc::new(Shared { epoch, ring, newest: watch::Sender::new(0), readers }))
    }

    /// Name of this run.
    pub fn epoch(&self) -> &str {
        &self.0.epoch
    }

    /// Number of the newest event.
    pub fn last(&self) -> u64 {
        *self.0.newest.borrow()
    }

    /// True if somebody reads.
    pub fn is_read(&self) -> bool {
        self.0.readers.load(Ordering::Relaxed) > 0
    }

    /// Adds an event.
    pub fn publish(&self, name: &str, data: &Value) {
        let mut ring = self.0.ring.lock().expect("nothing under this lock can panic");
        if ring.is_closed {
            return;
        }
        ring.last += 1;
        let text = format!("id: {}-{}\nevent: {name}\ndata: {data}\n\n", self.0.epoch, ring.last);
        ring.bytes += text.len();
        ring.events.push_back(text.into());
        let most = if self.is_read() { READ_RING_BYTES_MAX } else { RING_BYTES_MAX };
        while ring.bytes > most
            && ring.events.len() > 1
            && let Some(oldest) = ring.events.pop_front()
        {
            ring.bytes -= oldest.len();
        }
        self.0.newest.send_replace(ring.last);
    }

    /// Ends all streams, with the event `end`.
    pub fn close(&self) {
        self.publish("end", &Value::Object(serde_json::Map::new()));
        self.0.ring.lock().expect("nothing under this lock can panic").is_closed = true;
        self.0.newest.send_modify(|_| {});
    }

    /// A stream of the events after the one of this id, or from now on. Must be called in a tokio
    /// runtime, which carries the stream.
    ///
    /// An id that is not known, of another run for example, gives the event `reset` first.
    pub fn read(&self, after: Option<&str>) -> Receiver<Bytes> {
        let (out, parts) = channel(1);
        let last = self.last();
        let (next, opening) = match after {
            None => (last + 1, String::new()),
            Some(id) => match self.known(id) {
                Some(seen) => (seen + 1, String::new()),
                None => (last + 1, format!("event: reset\ndata: {{\"last\":{last}}}\n\n")),
            },
        };
        self.0.readers.fetch_add(1, Ordering::Relaxed);
        let reader = Reader(Arc::clone(&self.0.readers));
        let feed = Arc::clone(&self.0);
        tokio::spawn(async move {
            let _reader = reader;
            feed.carry(next, opening, out).await;
        });
        parts
    }

    /// Number of the event of this id, if it is of this run and not of the future.
    fn known(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.rsplit_once('-')?;
        let number = number.parse().ok()?;
        (epoch == self.0.epoch && number <= self.last()).then_some(number)
    }
}

impl Shared {
    async fn carry(&self, mut next: u64, opening: String, out: Sender<Bytes>) {
        let mut newest = self.newest.subscribe();
        // The first bytes come at once: a browser shows the stream as open.
        if out.send(format!("retry: 1000\n\n{opening}").into()).await.is_err() {
            return;
        }
        loop {
            newest.mark_unchanged();
            let (part, is_closed) = self.part(&mut next);
            if !part.is_empty() {
                if out.send(part.into()).await.is_err() {
                    return;
                }
                tokio::time::sleep(PACE).await;
                continue;
            }
            if is_closed {
                return;
            }
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = out.closed() => return,
                () = tokio::time::sleep(BEAT) => {
                    if out.send(Bytes::from_static(b": quiet\n\n")).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The events from number `next` on, as many as fit a part; and whether there will be no more.
    fn part(&self, next: &mut u64) -> (Vec<u8>, bool) {
        let ring = self.ring.lock().expect("nothing under this lock can panic");
        let mut part = Vec::new();
        let first = ring.first();
        if *next < first {
            let count = first - *next;
            part.extend(format!("event: lost\ndata: {{\"count\":{count}}}\n\n").into_bytes());
            *next = first;
        }
        let skipped = usize::try_from(*next - first).unwrap_or(usize::MAX);
        for event in ring.events.iter().skip(skipped) {
            if !part.is_empty() && part.len() + event.len() > PART_BYTES_MAX {
                break;
            }
            part.extend_from_slice(event);
            *next += 1;
        }
        (part, ring.is_closed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn feed() -> EventFeed {
        EventFeed::new("e".to_owned())
    }

    /// Everything that a reader gets until the feed is closed.
    fn told(feed: &EventFeed, after: Option<&str>, meanwhile: impl FnOnce()) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("there is room");
        runtime.block_on(async {
            let mut parts = feed.read(after);
            meanwhile();
            feed.close();
            let mut text = Vec::new();
            while let Some(part) = parts.recv().await {
                text.extend_from_slice(&part);
            }
            String::from_utf8(text).expect("it is text")
        })
    }

    #[test]
    fn a_reader_gets_what_comes_and_the_end() {
        let feed = feed();
        feed.publish("log", &json!({ "before": 1 }));
        let text = told(&feed, None, || feed.publish("log", &json!({ "text": "a\nb" })));
        assert_eq!(
            text,
            "retry: 1000\n\nid: e-2\nevent: log\ndata: {\"text\":\"a\\nb\"}\n\n\
             id: e-3\nevent: end\ndata: {}\n\n"
        );
        assert!(!feed.is_read());
    }

    #[test]
    fn a_reader_goes_on_where_it_was_or_is_told_that_it_cannot() {
        let feed = feed();
        for number in 1..=3 {
            feed.publish("log", &json!(number));
        }
        let text = told(&feed, Some("e-1"), || ());
        assert!(
            !text.contains("e-1\n") && text.contains("e-2\n") && text.contains("e-3\n"),
            "{text}"
        );
        for unknown in ["e-99", "f-1", "e", "", "e-x"] {
            let text = told(&feed, Some(unknown), || ());
            assert!(text.contains("event: reset\ndata: {\"last\":4}"), "{unknown}: {text}");
        }
    }

    #[test]
    fn the_ring_is_bounded_and_a_slow_reader_is_told_what_it_missed() {
        let feed = feed();
        let long = "x".repeat(1_000);
        let text = told(&feed, Some("e-0"), || {
            for _ in 0..5_000 {
                feed.publish("log", &json!(long));
            }
        });
        assert!(feed.0.ring.lock().unwrap().bytes <= READ_RING_BYTES_MAX);
        let lost = text.split("event: lost\ndata: {\"count\":").nth(1).expect("it is told");
        let lost: usize = lost.split('}').next().unwrap().parse().unwrap();
        assert_eq!(lost + text.matches("event: log").count(), 5_000);
    }

    #[test]
    fn while_nobody_reads_little_is_kept() {
        let feed = feed();
        for _ in 0..5_000 {
            feed.publish("log", &json!("x".repeat(1_000)));
        }
        assert!(feed.0.ring.lock().unwrap().bytes <= RING_BYTES_MAX);
    }
}
