//! Services inside a peer beside its own: a chat, a Byzantine order, and rollouts. They use its
//! port, its key and its membership.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::machine::Never;
use crate::network::Network;
use crate::runtime::files::DataDir;
use crate::runtime::thread;

/// Longest time for services to stop; a leader of a chat hands over within it.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A service whose directory is this process's alone, before it starts.
pub(in crate::cli) trait Service: Send + Sized + 'static {
    /// The service once it runs.
    type Running: Running;

    /// Name of the service, as in the peer's status.
    const NAME: &'static str;

    /// Directory of the service.
    fn dir(&self) -> &DataDir;

    /// Finds the other members and starts; `None` if it is to `stop` before. Not to be called on
    /// a thread that has something else to do: the search takes seconds, and waits for members.
    ///
    /// # Errors
    /// Fails if a log or a port cannot be used, or the system has no room.
    fn start(
        self,
        network: &Arc<Network>,
        stop: &Receiver<()>,
    ) -> Result<Option<Self::Running>, CliError>;
}

/// A running service.
pub(in crate::cli) trait Running {
    /// Function that returns the status, `null` once the service has stopped.
    fn status(&self) -> Box<dyn Fn() -> Value + Send + Sync>;

    /// Logs events until it is to `stop`.
    ///
    /// # Errors
    /// Fails if the service cannot go on.
    fn attend(&self, stop: &Receiver<()>) -> Result<(), CliError>;

    /// Says goodbye to the other members, and stops.
    fn stop(&self);

    /// Waits for the threads to end, after the network has stopped.
    fn join(self);
}

type Status = Box<dyn Fn() -> Value + Send + Sync>;

/// The services of one peer, which run until they are stopped.
pub(super) struct Services {
    status: Arc<Mutex<BTreeMap<&'static str, Status>>>,
    fail: Sender<CliError>,
    failed: Receiver<CliError>,
    /// Sender whose drop tells the services to stop.
    runs: Mutex<Option<Sender<()>>>,
    stop: Receiver<()>,
    /// Sender that each service has a clone of until it has stopped.
    left: Mutex<Option<Sender<Never>>>,
    all_left: Receiver<Never>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Default for Services {
    fn default() -> Self {
        let (fail, failed) = bounded(1);
        let (runs, stop) = bounded(0);
        let (left, all_left) = bounded(0);
        let (runs, left) = (Mutex::new(Some(runs)), Mutex::new(Some(left)));
        let (status, threads) = (Arc::default(), Mutex::default());
        Self { status, fail, failed, runs, stop, left, all_left, threads }
    }
}

impl Services {
    /// Runs a service in the peer of `network`, on a thread of its own.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(super) fn run<S: Service>(&self, service: S, network: &Arc<Network>) -> io::Result<()> {
        let left = self.left.lock().expect("nothing can panic here").clone();
        let (status, fail, stop) = (Arc::clone(&self.status), self.fail.clone(), self.stop.clone());
        let network = Arc::clone(network);
        let thread = thread::spawn(S::NAME, move || {
            // One failure ends the node; a second one adds nothing.
            let fail = |error| drop(fail.try_send(error));
            let running = match service.start(&network, &stop) {
                Ok(Some(running)) => running,
                Ok(None) => return,
                Err(error) => return fail(error),
            };
            set(&status, S::NAME, Some(running.status()));
            running.attend(&stop).unwrap_or_else(fail);
            running.stop();
            set(&status, S::NAME, None);
            drop((left, network));
            running.join();
        })?;
        self.threads.lock().expect("nothing can panic here").push(thread);
        Ok(())
    }

    /// Channel of the failure of a service.
    pub(super) fn failed(&self) -> Receiver<CliError> {
        self.failed.clone()
    }

    /// Status of each service that runs, by name.
    pub(super) fn status(&self) -> Map<String, Value> {
        let all = self.status.lock().expect("no service panics under this lock");
        all.iter().map(|(name, status)| ((*name).to_owned(), status())).collect()
    }

    /// Stops all services, but waits no longer than [`STOP_MAX`].
    pub(super) fn stop(&self) {
        drop(self.runs.lock().expect("nothing can panic here").take());
        drop(self.left.lock().expect("nothing can panic here").take());
        // Nothing is ever sent: the wait ends with the last service.
        let _ = self.all_left.recv_timeout(STOP_MAX);
    }

    /// Waits for the threads to end, after the network has stopped.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().expect("nothing can panic here"));
        for thread in threads {
            // The thread has panicked if this fails, and reported that itself.
            let _ = thread.join();
        }
    }
}

fn set(all: &Mutex<BTreeMap<&'static str, Status>>, name: &'static str, status: Option<Status>) {
    let mut all = all.lock().expect("no service panics under this lock");
    match status {
        Some(status) => drop(all.insert(name, status)),
        None => drop(all.remove(name)),
    }
}
