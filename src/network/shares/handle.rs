//! Shares of an embedding program, as handles that keep them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::select;

use super::host::{FetchOptions, HostedShare, Key};
use super::{ContentPhase, NO_MORE, Node, ShareError, ShareRecord, Sharing, SwarmProgress, notice};
use crate::machine::Input;
use crate::machine::swarm::{Event, SwarmOutcome};
use crate::model::{Now, Ticket};
use crate::network::pending::{Cell, Pending};
use crate::network::subscriptions::Subscriptions;
use crate::runtime::driver::options::EventSink;

/// One of the waits that a wait without an end is made of.
const LONG: Duration = Duration::from_secs(3_600);

type Completion = Result<(), ShareError>;

/// A file or folder that this peer offers or fetches. Dropping it ends the share here; what was
/// fetched stays on the disk, also in part, and is not fetched again.
///
/// While it lives, other peers find it in their lists, and get from it all pieces that are here.
pub struct Share {
    home: Home,
    held: Arc<HostedShare>,
    /// Key of an offer, of which there may be further handles; `None` for a fetch.
    offer: Option<Key>,
    completion: Arc<Completed>,
}

/// The peer to which a share belongs.
#[derive(Clone)]
pub(in crate::network) struct Home {
    pub(in crate::network) sharing: Arc<Sharing>,
    pub(in crate::network) subscriptions: Arc<Subscriptions>,
    pub(in crate::network) node: Node,
}

/// Outcome of a share, and the waits for it.
#[derive(Default)]
struct Completed(Mutex<Waits>);

/// The outcome, once it is known; until then, the waits for it.
type Waits = (Option<Completion>, Vec<Arc<Cell<Completion>>>);

impl Completed {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().expect("nothing under this lock can panic")
    }

    /// Sets the outcome for all waits.
    fn put(&self, outcome: &Completion) {
        let waits = {
            let mut state = self.lock();
            state.0 = Some(outcome.clone());
            std::mem::take(&mut state.1)
        };
        waits.iter().for_each(|it| it.put(outcome.clone()));
    }

    fn wait(&self) -> Pending<Completion> {
        let cell = Cell::new();
        let mut state = self.lock();
        match &state.0 {
            Some(outcome) => cell.put(outcome.clone()),
            None => {
                // Of waits that were given up, only this end is left.
                state.1.retain(|it| Arc::strong_count(it) > 1);
                state.1.push(Arc::clone(&cell));
            }
        }
        Pending::new(cell, None)
    }
}

/// Last trouble of a fetch, for the case that nothing comes.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<String>>);

impl Trouble {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().expect("nothing under this lock can panic")
    }
}

impl EventSink<Event> for Trouble {
    fn take(&self, _: Now, event: Event) -> bool {
        if let Some(text) = notice(&event) {
            let mut last = self.lock();
            // The withdrawal by a seeder says more than that it cannot be reached since.
            if !last.contains(NO_MORE) {
                *last = text;
            }
        }
        true
    }
}

impl Share {
    /// Ticket of the share. Its text is for other peers: for [`Network::fetch`] or `peer fetch`.
    ///
    /// [`Network::fetch`]: crate::Network::fetch
    pub fn ticket(&self) -> &Ticket {
        &self.held.ticket
    }

    /// Path of the file or folder. What is fetched appears there when all of it was verified.
    pub fn path(&self) -> &Path {
        &self.held.path
    }

    /// The parts of an offered folder that are left out, such as links, each with the reason.
    pub fn left_out(&self) -> &[String] {
        &self.held.left_out
    }

    /// Progress at this moment: pieces, connections, bytes and rates.
    pub fn progress(&self) -> SwarmProgress {
        self.held.swarm.progress()
    }

    /// Waits until all of it is on the disk, verified, under its own name; an offer is from the
    /// start. May be called more than once.
    ///
    /// # Errors
    /// The outcome is an error if nobody has the rest in time, the disk fails, or the share or the
    /// network is ended before.
    pub fn complete(&self) -> Pending<Result<(), ShareError>> {
        self.completion.wait()
    }

    /// Ends the share here, as dropping it does.
    pub fn end(self) {}
}

impl Drop for Share {
    fn drop(&mut self) {
        let Home { sharing, subscriptions, node } = &self.home;
        match &self.offer {
            Some(key) => {
                if sharing.release(key) {
                    sharing.end_keys(std::slice::from_ref(key), (subscriptions, node));
                }
            }
            None => {
                let host = sharing.lock().host.clone();
                let is_this = |it: &HostedShare| std::ptr::eq(it, Arc::as_ptr(&self.held));
                if host.is_some_and(|it| !it.end_those(is_this).is_empty()) {
                    let _ = sharing.announce(subscriptions, node);
                }
            }
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("held", &self.held).finish_non_exhaustive()
    }
}

impl Sharing {
    /// Lets go of one handle of an offer; returns whether the offer ends with it.
    fn release(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let Some(kept) = state.kept.get_mut(key) else { return false };
        kept.handles = kept.handles.saturating_sub(1);
        kept.is_passing && kept.handles == 0
    }
}

impl Home {
    /// Carries answers to the node, and starts the thread of the shares when it is wanted, until
    /// the subscriptions are closed. For a thread of its own.
    pub(in crate::network) fn attend(&self) {
        let (answers, wanted) = (self.subscriptions.answering(), self.sharing.wanted());
        loop {
            select! {
                recv(answers) -> command => match command {
                    Ok(command) => self.node.submit(Input::Command(command)),
                    Err(_) => return,
                },
                recv(wanted) -> _ => self.sharing.wake(&self.subscriptions, &self.node),
            }
        }
    }

    /// Lets a thread open a share; `work` is given a test whether to go on.
    fn open(
        self,
        work: impl FnOnce(&Self, &(dyn Fn() -> bool + Sync), Opening) + Send + 'static,
    ) -> Pending<Result<Share, ShareError>> {
        let (cell, is_wanted) = (Cell::new(), Arc::new(AtomicBool::new(true)));
        if self.sharing.lock().is_closed {
            cell.put(Err(ShareError::Stopped));
            return Pending::new(cell, None);
        }
        self.sharing.wake(&self.subscriptions, &self.node);
        let (opening, goes_on) = (Opening(Arc::clone(&cell)), Arc::clone(&is_wanted));
        let threads = self.sharing.threads.clone();
        let started = threads.spawn("share", move || {
            let goes_on = || goes_on.load(Ordering::Relaxed) && !self.sharing.lock().is_closed;
            work(&self, &goes_on, opening);
        });
        if let Err(error) = started {
            cell.put(Err(ShareError::Failed(format!("cannot start a thread: {error}"))));
        }
        Pending::new(cell, Some(Box::new(move || is_wanted.store(false, Ordering::Relaxed))))
    }

    pub(in crate::network) fn offer(
        self,
        path: PathBuf,
        everywhere: bool,
    ) -> Pending<Result<Share, ShareError>> {
        self.open(move |home, goes_on, opening| {
            let sharing = &home.sharing;
            let order = if everywhere { sharing.next_order() } else { 0 };
            let (piece, ticket, is_passing, handles) = (None, None, true, 1);
            let kept = ShareRecord { path, piece, everywhere, order, ticket, is_passing, handles };
            let hashed = |_, _| goes_on();
            let mut shared = sharing.share(kept.clone(), false, &hashed);
            // The last other handle of it was dropped just now.
            while let Ok(held) = &shared
                && !home.holds(held)
                && goes_on()
            {
                shared = sharing.share(ShareRecord { handles: 0, ..kept.clone() }, false, &hashed);
            }
            opening.put(shared.map(|held| {
                sharing.note_order(&held.ticket.name, order);
                let _ = sharing.announce(&home.subscriptions, &home.node);
                let offer = Some((held.ticket.share_id(), held.ticket.name.clone()));
                let completion = Arc::new(Completed::default());
                completion.put(&Ok(()));
                Share { home: home.clone(), held, offer, completion }
            }));
        })
    }

    pub(in crate::network) fn fetch(
        self,
        ticket: &str,
        dir: PathBuf,
        give_up: Duration,
    ) -> Pending<Result<Share, ShareError>> {
        let ticket: Ticket = match ticket.trim().parse() {
            Ok(ticket) => ticket,
            Err(error) => {
                let cell = Cell::new();
                cell.put(Err(ShareError::Ticket(error.to_string())));
                return Pending::new(cell, None);
            }
        };
        self.open(move |home, goes_on, opening| {
            let trouble = Trouble::default();
            *trouble.lock() = "nobody answered".to_owned();
            let order = FetchOptions {
                ticket: &ticket,
                to: &dir,
                at: &[],
                give_up: Some(give_up),
                preallocates: true,
                hashed: &|_, _| goes_on(),
            };
            let host = home.sharing.host();
            let held = match host.and_then(|host| host.fetch(&order, trouble.clone())) {
                Ok(held) => held,
                Err(error) => return opening.put(Err(error)),
            };
            home.sharing.add_places(home.sharing.clock.mono());
            let (home, completion) = (home.clone(), Arc::new(Completed::default()));
            let (following, follower) = (Arc::clone(&completion), home.clone());
            let fetched = Arc::clone(&held);
            opening.put(Ok(Share { home, held, offer: None, completion }));
            following.put(&follower.follow(&fetched, &trouble));
            if fetched.swarm.progress().phase == ContentPhase::Stored {
                let _ = follower.sharing.announce(&follower.subscriptions, &follower.node);
            }
        })
    }

    /// Waits for the end of a fetch.
    fn follow(&self, held: &Arc<HostedShare>, trouble: &Trouble) -> Completion {
        loop {
            let progress = held.swarm.wait(LONG, is_over);
            if is_over(&progress.phase, progress.ended.as_ref()) {
                return outcome(&progress, &trouble.lock());
            }
            if !self.holds(held) {
                return Err(ShareError::Stopped);
            }
        }
    }

    /// True if a share has not been ended.
    fn holds(&self, held: &Arc<HostedShare>) -> bool {
        let host = self.sharing.lock().host.clone();
        host.is_some_and(|it| it.holds(held))
    }
}

/// Place of the outcome of opening a share.
struct Opening(Arc<Cell<Result<Share, ShareError>>>);

impl Opening {
    /// Sets the outcome. A share that nobody waits for any more ends here.
    fn put(self, outcome: Result<Share, ShareError>) {
        self.0.put(outcome);
    }
}

fn is_over(phase: &ContentPhase, ended: Option<&SwarmOutcome>) -> bool {
    match phase {
        ContentPhase::Stored | ContentPhase::Failed(_) => true,
        ContentPhase::Fetching => ended.is_some(),
        ContentPhase::Finishing => matches!(ended, Some(SwarmOutcome::DiskFailed(_))),
    }
}

/// Outcome of a fetch that is over.
fn outcome(progress: &SwarmProgress, trouble: &str) -> Completion {
    match (&progress.phase, &progress.ended) {
        (ContentPhase::Stored, _) => Ok(()),
        (ContentPhase::Failed(reason), _) | (_, Some(SwarmOutcome::DiskFailed(reason))) => {
            Err(ShareError::Failed(format!("{reason}; what came is kept, fetch it again to go on")))
        }
        (ContentPhase::Fetching | ContentPhase::Finishing, _) => {
            let (have, pieces, last) = (progress.have, progress.pieces, trouble.to_owned());
            Err(ShareError::NotFound { have, pieces, last })
        }
    }
}
