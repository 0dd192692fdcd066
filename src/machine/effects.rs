//! Effects of one input, in order, and the ways to add to them.

use std::ops::Deref;
use std::time::Duration;

use super::{Effect, LinkId, Vocabulary};

impl<K: Vocabulary> Clone for Effect<K>
where
    K::Event: Clone,
{
    fn clone(&self) -> Self {
        match self {
            Self::Send { link, msg } => Self::Send { link: *link, msg: msg.clone() },
            Self::SendAll { links, msg } => {
                Self::SendAll { links: links.clone(), msg: msg.clone() }
            }
            Self::Dial(call) => Self::Dial(call.clone()),
            Self::Hangup { link } => Self::Hangup { link: *link },
            Self::SetTimer { timer, after } => {
                Self::SetTimer { timer: timer.clone(), after: *after }
            }
            Self::StopTimer(timer) => Self::StopTimer(timer.clone()),
            Self::Persist(record) => Self::Persist(record.clone()),
            Self::Emit(event) => Self::Emit(event.clone()),
            Self::Extra(extra) => Self::Extra(extra.clone()),
        }
    }
}

impl<K: Vocabulary> PartialEq for Effect<K>
where
    K::Record: PartialEq,
    K::Event: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Send { link: a, msg: x }, Self::Send { link: b, msg: y }) => (a, x) == (b, y),
            (Self::SendAll { links: a, msg: x }, Self::SendAll { links: b, msg: y }) => {
                (a, x) == (b, y)
            }
            (Self::Dial(a), Self::Dial(b)) => a == b,
            (Self::Hangup { link: a }, Self::Hangup { link: b }) => a == b,
            (Self::SetTimer { timer: a, after: x }, Self::SetTimer { timer: b, after: y }) => {
                (a, x) == (b, y)
            }
            (Self::StopTimer(a), Self::StopTimer(b)) => a == b,
            (Self::Persist(a), Self::Persist(b)) => a == b,
            (Self::Emit(a), Self::Emit(b)) => a == b,
            (Self::Extra(a), Self::Extra(b)) => a == b,
            (
                Self::Send { .. }
                | Self::SendAll { .. }
                | Self::Dial(_)
                | Self::Hangup { .. }
                | Self::SetTimer { .. }
                | Self::StopTimer(_)
                | Self::Persist(_)
                | Self::Emit(_)
                | Self::Extra(_),
                _,
            ) => false,
        }
    }
}

/// The effects of one input, in order.
#[derive(Debug)]
pub struct Effects<K: Vocabulary> {
    list: Vec<Effect<K>>,
}

impl<K: Vocabulary> Default for Effects<K> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<K: Vocabulary> Effects<K> {
    /// Adds an effect behind the others.
    pub fn push(&mut self, effect: Effect<K>) {
        self.list.push(effect);
    }

    /// Queues `msg` on `link`.
    pub fn send(&mut self, link: LinkId, msg: impl Into<K::Message>) {
        self.list.push(Effect::Send { link, msg: msg.into() });
    }

    /// Queues `msg` on all of `links`.
    pub fn send_all(&mut self, links: Vec<LinkId>, msg: impl Into<K::Message>) {
        self.list.push(Effect::SendAll { links, msg: msg.into() });
    }

    /// Tries to connect.
    pub fn call(&mut self, call: K::Call) {
        self.list.push(Effect::Dial(call));
    }

    /// Closes `link` once its queue has drained.
    pub fn hangup(&mut self, link: LinkId) {
        self.list.push(Effect::Hangup { link });
    }

    /// Sets or moves the deadline `timer` to `after` from now.
    pub fn set_timer(&mut self, timer: impl Into<K::Timer>, after: Duration) {
        self.list.push(Effect::SetTimer { timer: timer.into(), after });
    }

    /// Removes the deadline `timer`.
    pub fn stop_timer(&mut self, timer: impl Into<K::Timer>) {
        self.list.push(Effect::StopTimer(timer.into()));
    }

    /// Writes `record` to the log or journal.
    pub fn persist(&mut self, record: impl Into<K::Record>) {
        self.list.push(Effect::Persist(record.into()));
    }

    /// Reports `event` to the surroundings.
    pub fn emit(&mut self, event: impl Into<K::Event>) {
        self.list.push(Effect::Emit(event.into()));
    }

    /// Adds an effect of this kind of machine alone.
    pub fn extra(&mut self, extra: K::ExtraEffect) {
        self.list.push(Effect::Extra(extra));
    }

    /// Takes all effects, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect<K>> {
        self.list.drain(..)
    }

    /// Adds the effects of a part to these, and returns the part's events, in order.
    pub fn absorb<P>(&mut self, part: Effects<P>) -> Vec<P::Event>
    where
        P: Vocabulary<Message = K::Message, Call = K::Call, ExtraEffect = K::ExtraEffect>,
        K::Timer: From<P::Timer>,
        K::Record: From<P::Record>,
    {
        let mut events = Vec::new();
        for effect in part.list {
            let own = match effect {
                Effect::Send { link, msg } => Effect::Send { link, msg },
                Effect::SendAll { links, msg } => Effect::SendAll { links, msg },
                Effect::Dial(call) => Effect::Dial(call),
                Effect::Hangup { link } => Effect::Hangup { link },
                Effect::SetTimer { timer, after } => {
                    Effect::SetTimer { timer: timer.into(), after }
                }
                Effect::StopTimer(timer) => Effect::StopTimer(timer.into()),
                Effect::Persist(record) => Effect::Persist(record.into()),
                Effect::Extra(extra) => Effect::Extra(extra),
                Effect::Emit(event) => {
                    events.push(event);
                    continue;
                }
            };
            self.list.push(own);
        }
        events
    }
}

impl<K: Vocabulary> Extend<Effect<K>> for Effects<K> {
    fn extend<T: IntoIterator<Item = Effect<K>>>(&mut self, effects: T) {
        self.list.extend(effects);
    }
}

impl<K: Vocabulary> IntoIterator for Effects<K> {
    type Item = Effect<K>;
    type IntoIter = std::vec::IntoIter<Effect<K>>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<K: Vocabulary> Deref for Effects<K> {
    type Target = [Effect<K>];

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}
