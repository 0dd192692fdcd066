//! Calls of this member: to the members that its machine names, and to configured addresses.
//!
//! Invariant: a place is called by one thread at a time, and not while its member is linked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::engine::Shared;
use super::greet::Trouble;
use super::keeper::Item;
use crate::machine::Never;
use crate::model::{Endpoint, Time};
use crate::proto::chat::entry::{At, Member, MemberId};
use crate::proto::chat::message::NackCode;

/// Pause after the first call that failed; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause between two calls.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Interval at which places are looked through.
const LOOK: Duration = Duration::from_millis(50);

/// Time for which a member that knows its group leaves the calling to its machine.
const TRUST: Duration = Duration::from_secs(1);

/// A place where a member may be found.
#[derive(Clone, Debug)]
pub(super) struct Place {
    at: Endpoint,
    /// Member that should be there, or was.
    id: Option<MemberId>,
    is_busy: bool,
    next: Time,
    pause: Duration,
    /// Last report about the place, which is not repeated.
    told: Option<String>,
    /// True if the place is this member itself.
    is_mine: bool,
}

impl Place {
    pub(super) fn new(id: Option<MemberId>, at: Endpoint) -> Self {
        let (next, pause) = (Time::ZERO, PAUSE_MIN);
        Self { at, id, is_busy: false, next, pause, told: None, is_mine: false }
    }

    pub(super) const fn at(&self) -> Endpoint {
        self.at
    }
}

impl Shared {
    /// Calls a member of the group, on a thread of its own, which then reads the connection.
    pub(super) fn dial(self: &Arc<Self>, member: &Member) {
        let shared = Arc::clone(self);
        let Member { id, at: At { host, port }, key } = *member;
        let spawned = self.porter.crew.spawn(format!("call:{port}"), move || {
            let Some(seat) = shared.porter.sit() else {
                return shared.dial_failed(id);
            };
            match shared.call((host, port).into(), (Some(id), Some(key))) {
                Ok(ends) => shared.converse(ends),
                Err(trouble) => {
                    log::debug!("cannot reach {id} at {host}:{port}: {trouble}");
                    shared.heed(&trouble);
                    // Before the machine learns of the failure: it may call again.
                    drop(seat);
                    shared.dial_failed(id);
                }
            }
        });
        if spawned.is_err() {
            self.dial_failed(id);
        }
    }

    /// Calls the places until this member stops.
    pub(super) fn seek(self: &Arc<Self>, stopping: &Receiver<Never>) {
        if self.ask(|machine| machine.introduction().is_some()) == Ok(true)
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
        let mine = Endpoint::from(SocketAddr::new(self.me.at.host, self.me.at.port));
        let mut places = self.places.lock().expect("nothing under this lock can panic");
        let is_due = |place: &&mut Place| {
            let is_linked = place.id.is_some_and(|id| linked.contains(&id));
            !place.is_busy && !is_linked && !place.is_mine && place.at != mine && place.next <= now
        };
        let due = places.iter_mut().filter(is_due);
        due.map(|place| {
            place.is_busy = true;
            place.at
        })
        .collect()
    }

    fn call_place(self: &Arc<Self>, at: Endpoint) {
        let shared = Arc::clone(self);
        let spawned = self.porter.crew.spawn(format!("seek:{}", at.port()), move || {
            let Some(_seat) = shared.porter.sit() else {
                return shared.place_failed(at, &Trouble::Closed);
            };
            let id = shared.with_place(at, |place| place.id).flatten();
            match shared.call((at.ip(), at.port()).into(), (id, None)) {
                Ok(ends) => {
                    let id = ends.member.id;
                    shared.with_place(at, |place| {
                        (place.id, place.told, place.pause) = (Some(id), None, PAUSE_MIN);
                    });
                    shared.converse(ends);
                    let next = shared.clock.now().mono.after(PAUSE_MIN);
                    shared.with_place(at, |place| (place.is_busy, place.next) = (false, next));
                }
                Err(trouble) => shared.place_failed(at, &trouble),
            }
        });
        if spawned.is_err() {
            self.place_failed(at, &Trouble::Closed);
        }
    }

    fn place_failed(&self, at: Endpoint, trouble: &Trouble) {
        self.heed(trouble);
        let now = self.clock.now().mono;
        let text = format!("no member at {at}: {trouble}; will keep trying");
        let is_new = self.with_place(at, |place| {
            place.is_mine = matches!(trouble, Trouble::Refused(NackCode::NotAllowed, ..));
            place.is_busy = false;
            place.next = now.after(place.pause);
            place.pause = (place.pause * 2).min(PAUSE_MAX);
            let is_new = !place.is_mine && place.told.as_ref() != Some(&text);
            place.told = Some(text.clone());
            is_new
        });
        if is_new == Some(true) {
            let _ = self.inbox.push_now(Item::Note(text));
        }
    }

    /// Ends this member's part when it is refused by a member that has proved a key that counts:
    /// strangers and other groups at an old address are passed by.
    fn heed(&self, trouble: &Trouble) {
        if let Trouble::Refused(code, reason, Some(key)) = trouble
            && matches!(code, NackCode::IdTaken | NackCode::Removed)
        {
            let key = *key;
            if self.ask(move |machine| machine.believes_refusal(&key)) == Ok(true) {
                let _ = self.inbox.push_now(Item::Refused(reason.clone()));
            }
        }
    }

    fn with_place<T>(&self, at: Endpoint, work: impl FnOnce(&mut Place) -> T) -> Option<T> {
        let mut places = self.places.lock().expect("nothing under this lock can panic");
        places.iter_mut().find(|place| place.at() == at).map(work)
    }
}
