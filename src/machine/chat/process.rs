//! This process of a member: its name, its clock and chance, and its way out of the group.

use std::time::Duration;

use rand::RngExt as _;

use crate::model::{Now, Rng, Time, WallTime};
use crate::proto::chat::entry::{Member, MemberId};

/// State of a process that no other member has a part in.
#[derive(Debug)]
pub(super) struct Process {
    me: Member,
    /// Random number by which the process is distinguished from others of the same member.
    life: u64,
    rng: Rng,
    now: Now,
    is_leaving: bool,
    is_gone: bool,
    was_refused: bool,
}

impl Process {
    pub(super) fn new(me: Member, mut rng: Rng) -> Self {
        let (life, now) = (rng.random(), Now::default());
        Self { me, life, rng, now, is_leaving: false, is_gone: false, was_refused: false }
    }

    /// Member that the process is, as it describes itself.
    pub(super) const fn member(&self) -> &Member {
        &self.me
    }

    pub(super) const fn id(&self) -> MemberId {
        self.me.id
    }

    /// True if a member of a membership is this one: by its id and its key.
    pub(super) fn is(&self, member: &Member) -> bool {
        member.id == self.me.id && member.key == self.me.key
    }

    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    pub(super) const fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// Time of the present input.
    pub(super) const fn now(&self) -> Time {
        self.now.mono
    }

    /// Wall-clock time of the present input.
    pub(super) const fn wall(&self) -> WallTime {
        self.now.wall
    }

    pub(super) const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// A random span of 0 to `millis_max` milliseconds.
    pub(super) fn jitter(&mut self, millis_max: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=millis_max))
    }

    /// Begins to end: a leader hands over first.
    pub(super) const fn leave(&mut self) {
        self.is_leaving = true;
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Ends the process. Returns false if it had ended.
    pub(super) const fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.is_gone, true)
    }

    pub(super) const fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Notes that the group refuses the member. Returns false if that was known.
    pub(super) const fn refuse(&mut self) -> bool {
        !std::mem::replace(&mut self.was_refused, true)
    }

    pub(super) const fn was_refused(&self) -> bool {
        self.was_refused
    }
}
