//! Calls of this member to configured addresses.
//!
//! Invariant: an address is called by one thread at a time, and not while its member is linked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::core::ChatCoreMsg;
use super::engine::Shared;
use super::handshake::Error;
use crate::machine::Never;
use crate::model::{Endpoint, PublicKey, Time};
use crate::proto::chat::entry::MemberId;
use crate::proto::chat::message::NackCode;
use crate::runtime::engine::core::CoreMsg;
use crate::runtime::engine::handshake::HandshakeError;

/// Pause after the first call that failed or was soon over; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause between two calls.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Interval at which addresses are looked through.
const LOOK: Duration = Duration::from_millis(50);

/// Time for which a member that knows its group leaves the calling to its machine.
const TRUST: Duration = Duration::from_secs(1);

/// Target of a call.
#[derive(Clone, Debug)]
pub(super) struct CallTarget {
    pub(super) addr: SocketAddr,
    /// Member that must answer, if it is known.
    pub(super) id: Option<MemberId>,
    /// Key that the member must prove, if it is known.
    pub(super) key: Option<PublicKey>,
    /// Configured address that is called, if the machine has not ordered the call.
    pub(super) configured: Option<Endpoint>,
}

/// An address where a member may be found.
#[derive(Clone, Debug)]
pub(super) struct DialTarget {
    at: Endpoint,
    /// Member that should be there, or was.
    id: Option<MemberId>,
    is_busy: bool,
    next: Time,
    pause: Duration,
    /// Last report about the address, which is not repeated.
    last_error: Option<String>,
    /// True if the address is this member itself.
    is_mine: bool,
}

impl DialTarget {
    pub(super) fn new(id: Option<MemberId>, at: Endpoint) -> Self {
        let (next, pause) = (Time::ZERO, PAUSE_MIN);
        Self { at, id, is_busy: false, next, pause, last_error: None, is_mine: false }
    }

    pub(super) const fn at(&self) -> Endpoint {
        self.at
    }

    /// Ends a call; the next one comes after a pause, which doubles.
    fn rest(&mut self, now: Time) {
        self.is_busy = false;
        self.next = now.after(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

impl Shared {
    /// Calls the addresses until this member stops.
    pub(super) fn dial_members(self: &Arc<Self>, stopping: &Receiver<Never>) {
        if self.ask(|state| state.group.introduction().is_some()) == Ok(true)
            && stopping.recv_timeout(TRUST) == Err(RecvTimeoutError::Disconnected)
        {
            return;
        }
        loop {
            for at in self.due_places() {
                self.call_place(at);
            }
            if stopping.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn due_places(&self) -> Vec<Endpoint> {
        let now = self.clock.now().mono;
        let linked = self.linked_members();
        let mine =
            Endpoint::from(SocketAddr::new(self.service.me.at.host, self.service.me.at.port));
        let mut places = self.service.places.lock().expect("nothing under this lock can panic");
        let is_due = |target: &&mut DialTarget| {
            let is_linked = target.id.is_some_and(|id| linked.contains(&id));
            !target.is_busy
                && !is_linked
                && !target.is_mine
                && target.at != mine
                && target.next <= now
        };
        let due = places.iter_mut().filter(is_due);
        due.map(|target| {
            target.is_busy = true;
            target.at
        })
        .collect()
    }

    fn call_place(self: &Arc<Self>, at: Endpoint) {
        let shared = Arc::clone(self);
        let spawned = self.acceptor.threads.spawn(format!("seek:{}", at.port()), move || {
            let id = shared.with_place(at, |target| target.id).flatten();
            let addr = (at.ip(), at.port()).into();
            let began = shared.clock.now().mono;
            if shared.call(&CallTarget { addr, id, key: None, configured: Some(at) }).is_ok() {
                let now = shared.clock.now().mono;
                shared.with_place(at, |target| {
                    // A member without room lets callers in, and hangs up on them at once.
                    if now.since(began) > PAUSE_MAX {
                        target.pause = PAUSE_MIN;
                    }
                    target.rest(now);
                });
            }
        });
        if spawned.is_err() {
            self.place_failed(at, &HandshakeError::Closed);
        }
    }

    /// Notes which member is at an address.
    pub(super) fn found_at(&self, at: Endpoint, id: MemberId) {
        self.service.other_group().take_if(|it| it.0 == at);
        self.with_place(at, |target| (target.id, target.last_error) = (Some(id), None));
    }

    pub(super) fn place_failed(&self, at: Endpoint, error: &Error) {
        self.on_handshake_error(error);
        let now = self.clock.now().mono;
        let text = format!("no member at {at}: {error}; will keep trying");
        if matches!(error, HandshakeError::Refused(NackCode::OtherGroup, ..)) {
            *self.service.other_group() = Some((at, text.clone()));
        }
        let is_new = self.with_place(at, |target| {
            target.is_mine = matches!(error, HandshakeError::Refused(NackCode::NotAllowed, ..));
            target.rest(now);
            let is_new = !target.is_mine && target.last_error.as_ref() != Some(&text);
            target.last_error = Some(text.clone());
            is_new
        });
        if is_new == Some(true) {
            self.note(text);
        }
    }

    /// Ends this member's part when it is refused by a member that has proved a key that counts:
    /// strangers and other groups at an old address are passed by.
    pub(super) fn on_handshake_error(&self, error: &Error) {
        if let HandshakeError::Refused(code, reason, Some(key)) = error
            && matches!(code, NackCode::IdTaken | NackCode::Removed)
        {
            let key = *key;
            if self.ask(move |state| state.group.believes_refusal(&key)) == Ok(true) {
                let _ = self.queue.push_now(CoreMsg::Extra(ChatCoreMsg::Refused(reason.clone())));
            }
        }
    }

    fn with_place<T>(&self, at: Endpoint, work: impl FnOnce(&mut DialTarget) -> T) -> Option<T> {
        let mut places = self.service.places.lock().expect("nothing under this lock can panic");
        places.iter_mut().find(|target| target.at() == at).map(work)
    }
}
