//! Events of a node for those who watch it: its log lines, and gossip folded by link.
//!
//! Invariants:
//! - A log line of level info or above is in the feed as it is in the log.
//! - Gossip and lines of level debug, of which there may be thousands a second, are told only while
//!   somebody reads, and folded: no count is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::log::Level;
use crossbeam_channel::{Receiver, Sender, after, bounded};
use hyper::body::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::cli::log::{self, LogLine};
use crate::model::{Rng, WallTime};
use crate::runtime::http::events::EventFeed;
use crate::runtime::thread;

/// Event of a message of the chat, which is told as `chat`, without its text.
pub(in crate::cli) const CHAT_MESSAGE: &str = "chat_message";

/// Time for which gossip and lines of level debug are folded.
const FOLD: Duration = Duration::from_millis(100);

/// Number of lines of level debug that are told one by one in this time.
const SINGLE_MAX: usize = 20;

/// Longest line in the feed, in bytes; a longer one comes without its fields.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The feed of a node.
pub(super) struct Feed {
    events: EventFeed,
    fold: Mutex<Fold>,
    /// Sender of the sign that there is something to fold.
    wake: Sender<()>,
    /// Receiver of the sign, until the first reader comes and a thread waits for it.
    woken: Mutex<Option<Receiver<()>>>,
}

/// Events that are told together.
#[derive(Default)]
struct Fold {
    made: u64,
    heard: BTreeMap<String, u64>,
    last: Value,
    rooms: BTreeSet<String>,
    single: usize,
    /// Lines of level debug that are not told one by one, by event.
    counts: BTreeMap<&'static str, u64>,
}

impl Feed {
    /// The feed of a node that starts, which gets each line that this process logs.
    pub(super) fn start(rng: &mut Rng) -> Arc<Self> {
        let feed = Self::new(format!("{:016x}", rand::RngExt::random::<u64>(rng)));
        let listener = Arc::clone(&feed);
        log::listen(Box::new(move |line, at| listener.take(line, at)));
        feed
    }

    fn new(epoch: String) -> Arc<Self> {
        let (wake, woken) = bounded(1);
        let (events, fold) = (EventFeed::new(epoch), Mutex::default());
        Arc::new(Self { events, fold, wake, woken: Mutex::new(Some(woken)) })
    }

    /// Name of this run.
    pub(super) fn epoch(&self) -> &str {
        self.events.epoch()
    }

    /// Number of the newest event.
    pub(super) fn last(&self) -> u64 {
        self.events.last()
    }

    /// True if somebody reads.
    pub(super) fn is_read(&self) -> bool {
        self.events.is_read()
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        self.flush();
        self.events.close();
    }

    /// A stream of the events after the one that was seen last; see [`EventFeed::read`].
    pub(super) fn read(self: &Arc<Self>, seen: Option<&str>) -> mpsc::Receiver<Bytes> {
        let woken = self.woken.lock().expect("nothing under this lock can panic").take();
        if let Some(woken) = woken {
            let feed = Arc::downgrade(self);
            let run = move || {
                while woken.recv().is_ok() {
                    // Nothing is ever sent: its only end is the time.
                    let _ = after(FOLD).recv();
                    let Some(feed) = feed.upgrade() else { return };
                    feed.flush();
                }
            };
            if let Err(error) = thread::spawn("feed", run) {
                ::log::warn!("gossip cannot be shown: {error}");
            }
        }
        self.events.read(seen)
    }

    /// Takes a line of the log.
    fn take(&self, line: &LogLine, at: WallTime) {
        let is_gossip = line.event.starts_with("gossip");
        if !is_gossip && line.level <= Level::Info {
            return self.tell(line, at);
        }
        if !self.is_read() || line.event == "gossip" {
            return; // The fixed text of gossip has a companion line.
        }
        let mut fold = self.fold.lock().expect("nothing under this lock can panic");
        let text = |name: &str| line.fields.get(name).and_then(Value::as_str).unwrap_or_default();
        match line.event {
            "gossip_made" => fold.made += 1,
            "gossip_heard" => *fold.heard.entry(text("from").to_owned()).or_default() += 1,
            CHAT_MESSAGE => drop(fold.rooms.insert(text("room").to_owned())),
            _ if fold.single < SINGLE_MAX => {
                fold.single += 1;
                self.tell(line, at);
            }
            event => *fold.counts.entry(event).or_default() += 1,
        }
        if is_gossip {
            let hops = line.fields.get("hops");
            fold.last = json!({ "text": text("text"), "origin": text("origin"), "hops": hops });
        }
        drop(fold);
        let _ = self.wake.try_send(());
    }

    fn tell(&self, line: &LogLine, at: WallTime) {
        let LogLine { level, event, message, fields } = line;
        let level = level.as_str().to_ascii_lowercase();
        let mut data = json!({
            "ts_ms": at.0, "level": level, "event": event, "message": message, "fields": fields,
        });
        if data.to_string().len() > LINE_BYTES_MAX {
            let start: String = message.chars().take(LINE_BYTES_MAX / 8).collect();
            data["message"] = format!("{start}…").into();
            data["fields"] = Map::new().into();
        }
        self.events.publish("log", &data);
    }

    /// Tells what was folded.
    fn flush(&self) {
        let mut fold = self.fold.lock().expect("nothing under this lock can panic");
        let Fold { made, heard, last, rooms, counts, .. } = std::mem::take(&mut *fold);
        drop(fold);
        let ms = FOLD.as_millis() as u64;
        if made > 0 || !heard.is_empty() {
            let data = json!({ "ms": ms, "made": made, "heard": heard, "last": last });
            self.events.publish("gossip", &data);
        }
        for room in rooms {
            self.events.publish("chat", &json!({ "room": room }));
        }
        if !counts.is_empty() {
            self.events.publish("folded", &json!({ "ms": ms, "counts": counts }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_by_thousands_is_folded_and_none_is_lost() {
        let feed = Feed::new("e".to_owned());
        let line = |level, event, fields| LogLine::new(level, event, "text", fields);
        let at = WallTime(1);
        let debug = line(Level::Debug, "delivered", json!({ "topic": "t" }));
        feed.take(&debug, at);
        assert_eq!(feed.last(), 0, "nobody reads");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let text = runtime.block_on(async {
            let mut parts = feed.read(None);
            for _ in 0..1_000 {
                feed.take(&debug, at);
                feed.take(&line(Level::Info, "gossip", json!({})), at);
                let heard = json!({ "from": "a", "text": "1.2:x", "origin": "b", "hops": 3 });
                feed.take(&line(Level::Info, "gossip_heard", heard), at);
            }
            feed.take(&line(Level::Warn, "missed", json!({ "count": 1 })), at);
            feed.close();
            let mut text = Vec::new();
            while let Some(part) = parts.recv().await {
                text.extend_from_slice(&part);
            }
            String::from_utf8(text).unwrap()
        });
        let mut sums = BTreeMap::new();
        for line in text.lines().filter_map(|it| it.strip_prefix("data: ")) {
            let data: Value = serde_json::from_str(line).unwrap();
            let count = |value: &Value| value.as_u64().unwrap_or(0);
            *sums.entry("heard").or_insert(0) += count(&data["heard"]["a"]);
            let single = u64::from(data["event"] == "delivered");
            *sums.entry("delivered").or_insert(0) += count(&data["counts"]["delivered"]) + single;
            *sums.entry("missed").or_insert(0) += u64::from(data["event"] == "missed");
        }
        assert_eq!(sums, BTreeMap::from([("heard", 1_000), ("delivered", 1_000), ("missed", 1)]));
        assert!(text.matches("event: ").count() < 1_000, "{text}");
    }

    #[test]
    fn a_long_line_comes_without_its_fields() {
        let feed = Feed::new("e".to_owned());
        let list: Vec<_> = (0..5_000).collect();
        let line = LogLine::new(Level::Info, "peer_list", "x".repeat(50_000), json!({ "l": list }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut parts = feed.read(None);
            feed.take(&line, WallTime(1));
            feed.close();
            let mut len = 0;
            while let Some(part) = parts.recv().await {
                len += part.len();
            }
            assert!((1_000..LINE_BYTES_MAX).contains(&len), "{len}");
        });
    }
}
