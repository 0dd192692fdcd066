//! The thread of a peer's shares, which is started when it is wanted: most peers share nothing.

use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::network::message::Message;
use crate::network::queue::Queue;
use crate::runtime::thread;

/// Announcements of others, and whether anything is remembered from an earlier run.
pub(super) type Heard = (Queue<Message>, bool);

/// State of the thread, and of the wish to have it.
pub(super) struct Waking {
    /// Queue of the announcements that come before there is a thread to read them.
    heard: Mutex<Option<Heard>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Channel of the message that the thread is wanted.
    wanted: (Sender<()>, Receiver<()>),
}

impl Default for Waking {
    fn default() -> Self {
        Self { heard: Mutex::default(), thread: Mutex::default(), wanted: bounded(1) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing under this lock can panic")
}

impl Waking {
    /// Keeps the announcements of others for the thread.
    pub(super) fn keep(&self, heard: Heard) {
        *lock(&self.heard) = Some(heard);
    }

    /// Takes the announcements that were kept.
    pub(super) fn take(&self) -> Option<Heard> {
        lock(&self.heard).take()
    }

    /// Channel of the message that the thread is wanted.
    pub(super) fn wanted(&self) -> Receiver<()> {
        self.wanted.1.clone()
    }

    /// Wants the thread; neither blocks nor calls the node.
    pub(super) fn want(&self) {
        // One message is enough.
        let _ = self.wanted.0.try_send(());
    }

    /// Starts the thread, unless it has been started.
    pub(super) fn start(&self, run: impl FnOnce() + Send + 'static) {
        let mut thread = lock(&self.thread);
        if thread.is_some() {
            return;
        }
        match thread::spawn("shares", run) {
            Ok(started) => *thread = Some(started),
            Err(error) => ::log::warn!("nothing can be shared: {error}"),
        }
    }

    /// Waits for the end of the thread.
    pub(super) fn end(&self) {
        let thread = lock(&self.thread).take();
        // The thread has panicked if this fails, and reported that itself.
        let _ = thread.map(JoinHandle::join);
    }
}
