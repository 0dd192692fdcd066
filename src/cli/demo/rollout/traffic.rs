//! Requests to the data planes that never pause, while the rollouts happen.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};

use crate::cli::rollout::http;
use crate::machine::Never;
use crate::runtime::thread;

/// Number of clients of each data plane.
const CLIENTS: usize = 4;

/// Pause of a client between two requests.
const PACE: Duration = Duration::from_millis(40);

/// Time-out of an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counts of answers and failures.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Number of answers, by data plane, model and status.
    answers: BTreeMap<(String, String, u16), u64>,
    /// Number of requests without an answer, by data plane, with the reason of the last.
    pub(super) lost: BTreeMap<String, (u64, String)>,
}

impl Tally {
    /// Number of all answers.
    pub(super) fn all(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Number of a model's answers.
    pub(super) fn of(&self, model: &str) -> u64 {
        let its = self.answers.iter().filter(|((_, it, _), _)| it == model);
        its.map(|(_, count)| count).sum()
    }

    /// Number of requests that were not answered with 200, of data planes other than `except`.
    pub(super) fn failed(&self, except: Option<&str>) -> u64 {
        let failed = self.answers.iter().filter(|((_, _, status), _)| *status != 200);
        let failed = failed.map(|((at, ..), count)| (at, count));
        let lost = self.lost.iter().map(|(at, (count, _))| (at, count));
        let others = failed.chain(lost).filter(|(at, _)| Some(at.as_str()) != except);
        others.map(|(_, count)| count).sum()
    }

    /// Answers by model and status, for people.
    pub(super) fn parts(&self) -> Vec<String> {
        let mut sums: BTreeMap<(&str, u16), u64> = BTreeMap::new();
        for ((_, model, status), count) in &self.answers {
            *sums.entry((model, *status)).or_default() += count;
        }
        let part = |((model, status), count): ((&str, u16), u64)| match status {
            200 => format!("{count} by {model}"),
            _ => format!("{count} by {model} with {status}"),
        };
        sums.into_iter().map(part).collect()
    }
}

/// Clients that run until this is dropped.
pub(super) struct Traffic {
    tally: Arc<Mutex<Tally>>,
    /// Number of requests of each client that have ended.
    ended: Vec<Arc<AtomicU64>>,
    _running: Sender<Never>,
}

impl Traffic {
    /// Starts the clients.
    pub(super) fn start(data_planes: &[String]) -> io::Result<Self> {
        let tally = Arc::<Mutex<Tally>>::default();
        let (running, over) = bounded(0);
        let mut ended = Vec::new();
        for at in data_planes {
            for _ in 0..CLIENTS {
                let (at, tally, over) = (at.clone(), Arc::clone(&tally), over.clone());
                let count = Arc::<AtomicU64>::default();
                ended.push(Arc::clone(&count));
                thread::spawn("client", move || client(&at, (&tally, &count), &over))?;
            }
        }
        Ok(Self { tally, ended, _running: running })
    }

    /// Number of requests of each client that have ended.
    pub(super) fn ended(&self) -> Vec<u64> {
        self.ended.iter().map(|it| it.load(Ordering::Relaxed)).collect()
    }

    /// Counts of the requests since the last call.
    pub(super) fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().expect("nothing under this lock can panic"))
    }
}

fn client(at: &str, (tally, ended): (&Mutex<Tally>, &AtomicU64), over: &Receiver<Never>) {
    let beat = tick(PACE);
    loop {
        select! {
            recv(over) -> _ => return,
            recv(beat) -> _ => {}
        }
        let reply = http::request(at, "/predict", Some(b"{\"x\":1}"), PATIENCE);
        let mut tally = tally.lock().expect("nothing under this lock can panic");
        match reply {
            Ok(reply) => {
                let model = reply.model.unwrap_or_else(|| "nobody".to_owned());
                *tally.answers.entry((at.to_owned(), model, reply.status)).or_default() += 1;
            }
            Err(why) => {
                let lost = tally.lost.entry(at.to_owned()).or_default();
                *lost = (lost.0 + 1, why);
            }
        }
        ended.fetch_add(1, Ordering::Relaxed);
    }
}
