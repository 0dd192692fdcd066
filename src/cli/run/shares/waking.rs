//! The thread of a peer's shares, which is started when it is wanted: most peers share nothing.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Node, Sharing};
use crate::machine::shares::TOPIC;
use crate::network::{Message, Queue, Switchboard};
use crate::runtime::thread;

/// Announcements of others, and whether anything is remembered from an earlier run.
type Ear = (Queue<Message>, bool);

/// State of the thread, and of the wish to have it.
pub(super) struct Waking {
    /// Queue of the announcements that come before there is a thread to read them.
    heard: Mutex<Option<Ear>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Channel of the message that the thread is wanted.
    wanted: (Sender<()>, Receiver<()>),
}

impl Default for Waking {
    fn default() -> Self {
        Self { heard: Mutex::default(), thread: Mutex::default(), wanted: bounded(1) }
    }
}

impl Sharing {
    /// Keeps the announcements of others from now on, and wants the thread if anything is
    /// remembered from an earlier run.
    pub(in crate::cli::run) fn listen(&self, board: &Arc<Switchboard>) {
        let Ok(queue) = board.subscribe(TOPIC) else { return };
        let memories = [self.memory(), self.orders_file(), self.versions_file()];
        let remembers = memories.iter().any(|it| it.exists());
        *self.waking.heard.lock().expect("nothing under this lock can panic") =
            Some((queue, remembers));
        if remembers {
            self.want();
        }
    }

    /// The announcements of others, for the thread.
    pub(super) fn ear(&self, board: &Arc<Switchboard>) -> Option<Ear> {
        let heard = self.waking.heard.lock().expect("nothing under this lock can panic").take();
        heard.or_else(|| Some((board.subscribe(TOPIC).ok()?, true)))
    }

    /// Channel of the message that [`Sharing::wake`] is to be called.
    pub(in crate::cli::run) fn wanted(&self) -> Receiver<()> {
        self.waking.wanted.1.clone()
    }

    /// Asks for [`Sharing::wake`]; neither blocks nor calls the node.
    pub(in crate::cli::run) fn want(&self) {
        // One message is enough.
        let _ = self.waking.wanted.0.try_send(());
    }

    /// Starts the thread of [`Sharing::run`], unless it has been started.
    pub(in crate::cli::run) fn wake(self: &Arc<Self>, board: &Arc<Switchboard>, node: &Node) {
        let mut thread = self.waking.thread.lock().expect("nothing under this lock can panic");
        if thread.is_some() {
            return;
        }
        let (this, board, node) = (Arc::clone(self), Arc::clone(board), Arc::clone(node));
        match thread::spawn("shares", move || this.run(&board, &node)) {
            Ok(started) => *thread = Some(started),
            Err(error) => ::log::warn!("nothing can be shared: {error}"),
        }
    }

    /// Waits for the end of the thread; the switchboard is closed.
    pub(in crate::cli::run) fn end(&self) {
        let thread = self.waking.thread.lock().expect("nothing under this lock can panic").take();
        // The thread has panicked if this fails, and reported that itself.
        let _ = thread.map(JoinHandle::join);
    }
}
