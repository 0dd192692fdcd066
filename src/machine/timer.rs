//! Named deadlines, used alike by both drivers.
//!
//! Invariant: a name has at most one deadline; setting it again moves it. Deadlines that fall
//! together come out in the order of their names, so that a run can be replayed.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Time;

/// The deadlines of one node.
#[derive(Debug)]
pub struct TimerQueue<T> {
    due: BTreeSet<(Time, T)>,
    at: BTreeMap<T, Time>,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self { due: BTreeSet::new(), at: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> TimerQueue<T> {
    /// Sets or moves the deadline of `timer`.
    pub fn set(&mut self, timer: T, at: Time) {
        self.stop(&timer);
        self.at.insert(timer.clone(), at);
        self.due.insert((at, timer));
    }

    /// Removes the deadline of `timer`, if it has one.
    pub fn stop(&mut self, timer: &T) {
        if let Some((timer, at)) = self.at.remove_entry(timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes one timer whose deadline is `now` or earlier, the earliest first.
    pub fn pop_due(&mut self, now: Time) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn setting_a_name_again_moves_its_deadline() {
        let mut timers = TimerQueue::default();
        timers.set("a", at(5));
        timers.set("b", at(7));
        timers.set("a", at(9));
        assert_eq!(timers.pop_due(at(8)), Some("b"));
        assert_eq!(timers.pop_due(at(8)), None);
        assert_eq!(timers.next(), Some(at(9)));
    }

    #[test]
    fn a_stopped_timer_never_fires() {
        let mut timers = TimerQueue::default();
        timers.set("a", at(5));
        timers.stop(&"a");
        timers.stop(&"never set");
        assert_eq!(timers.pop_due(at(100)), None);
    }
}
