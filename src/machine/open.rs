//! A fleet without seeds: the peers to call first, and again.
//!
//! No node decides the membership of such a fleet: a peer that proves a key is a member. All that a
//! peer needs is one other that is there; this service calls those that its operator named, the
//! *bootstrap*, until it has met each of them, and again when it has lost one.
//!
//! Invariants:
//! - A bootstrap peer that is not linked is called again, after pauses that double up to
//!   `backoff_max`; with enough neighbors at that pace only. So two halves of a fleet that lost
//!   each other find together again, and dead addresses cost next to nothing.
//! - A peer never calls its own address.
//! - A caller that claims to be a bootstrap peer puts off no call to that peer: until a node
//!   answers at its address, that address is called.

use crate::machine::NodeMessage;
use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::{Effects, Never, NodeCall, PingHost, Vocabulary};
use crate::model::statement::MemberInstance;
use crate::model::{Endpoint, Rng};

/// Periods of a peer without seeds.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// First pause before a bootstrap peer is called again; doubles each time.
    pub backoff_min: Duration,
    /// Longest pause, and the pace while there are enough neighbors. Longer makes halves of a fleet
    /// find together later, shorter makes dead addresses dearer.
    pub backoff_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { backoff_min: Duration::from_secs(1), backoff_max: Duration::from_secs(60) }
    }
}

/// Deadlines of a peer without seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// This bootstrap peer is called again.
    Call(Endpoint),
}

/// Events of a peer without seeds: news for its node, and requests to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node must call this bootstrap peer, or find out who answers there if it is a neighbor.
    Call {
        /// Address of the bootstrap peer.
        to: Endpoint,
    },
    /// The peer's own address is among the bootstrap peers; it is ignored.
    OwnAddress {
        /// Own address of the peer.
        endpoint: Endpoint,
    },
    /// A bootstrap peer cannot be reached, or cannot be linked with. Told once until it is met.
    Unreachable {
        /// Address of the bootstrap peer.
        to: Endpoint,
        /// Reason in words.
        reason: String,
        /// Pause before the next call.
        retry_in: Duration,
    },
    /// A bootstrap peer that could not be reached is a neighbor now.
    Met {
        /// Address of the bootstrap peer.
        to: Endpoint,
    },
    /// This peer belongs to a fleet of this name from now on, like the peers that it has joined.
    Joined {
        /// Name of the fleet.
        fleet: String,
    },
    /// A neighbor was dropped: this peer's own fresh probes have failed. No other peer is
    /// bound by it.
    Dropped {
        /// Life of the neighbor that was dropped.
        life: MemberInstance,
    },
}

/// Time at which a bootstrap peer is called again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    #[default]
    Never,
    /// After the longest pause.
    Late,
    Soon,
}

#[derive(Debug, Default)]
struct Bootstrap {
    is_linked: bool,
    /// True if a call to this address led to a link, or was answered since.
    is_proved: bool,
    failures: u32,
    due: Due,
    is_told: bool,
    /// True if it is only known as a neighbor from before a restart: its absence is not told.
    is_remembered: bool,
}

/// The bootstrap peers of one peer.
#[derive(Debug)]
pub struct OpenFleet {
    config: Config,
    me: Endpoint,
    rng: Rng,
    bootstrap: BTreeMap<Endpoint, Bootstrap>,
    has_met: bool,
}

impl Vocabulary for OpenFleet {
    type Message = NodeMessage;
    type Call = NodeCall;
    type Timer = Timer;
    type Record = Never;
    type Event = Event;
    type ExtraEffect = PingHost;
}

type Fx = Effects<OpenFleet>;

impl OpenFleet {
    /// Creates the peer at `me`, whose operator named the peers `bootstrap`.
    pub fn new(config: Config, me: Endpoint, bootstrap: &[Endpoint], rng: Rng) -> Self {
        let bootstrap = bootstrap.iter().map(|it| (*it, Bootstrap::default())).collect();
        Self { config, me, rng, bootstrap, has_met: false }
    }

    /// Adds members that were neighbors before a restart.
    #[must_use]
    pub fn remembering(mut self, members: &[Endpoint]) -> Self {
        for member in members {
            let known = Bootstrap { is_told: true, is_remembered: true, ..Bootstrap::default() };
            self.bootstrap.entry(*member).or_insert(known);
        }
        self
    }

    /// True if the operator has named this peer to join by.
    pub fn is_named(&self, peer: Endpoint) -> bool {
        self.bootstrap.get(&peer).is_some_and(|it| !it.is_remembered)
    }

    /// The bootstrap peers, this peer not among them once it has started.
    pub fn bootstrap(&self) -> impl Iterator<Item = Endpoint> {
        self.bootstrap.keys().copied()
    }

    /// True if the operator named peers to join, and none was met yet.
    pub fn is_joining(&self) -> bool {
        !self.has_met && self.bootstrap.values().any(|it| !it.is_remembered)
    }

    /// Calls all bootstrap peers.
    pub fn on_start(&mut self, fx: &mut Fx) {
        if self.bootstrap.remove(&self.me).is_some_and(|it| !it.is_remembered) {
            fx.emit(Event::OwnAddress { endpoint: self.me });
        }
        for to in self.bootstrap.keys() {
            fx.emit(Event::Call { to: *to });
        }
    }

    /// Takes a new neighbor; `is_proved` if this peer called it.
    pub fn on_linked(&mut self, neighbor: Endpoint, is_proved: bool, fx: &mut Fx) {
        self.has_met = true;
        let Some(entry) = self.bootstrap.get_mut(&neighbor) else { return };
        entry.is_linked = true;
        entry.is_proved = false;
        entry.failures = 0;
        if std::mem::replace(&mut entry.is_told, entry.is_remembered) && !entry.is_remembered {
            fx.emit(Event::Met { to: neighbor });
        }
        if is_proved {
            self.on_proved(neighbor, fx);
        } else {
            self.call_after(neighbor, Due::Late, self.config.backoff_max, fx);
        }
    }

    /// The neighbor that says that it is this bootstrap peer has answered at its address.
    pub fn on_proved(&mut self, neighbor: Endpoint, fx: &mut Fx) {
        if let Some(entry) = self.bootstrap.get_mut(&neighbor).filter(|entry| entry.is_linked) {
            (entry.is_proved, entry.due) = (true, Due::Never);
            fx.stop_timer(Timer::Call(neighbor));
        }
    }

    /// Takes the loss of a neighbor.
    pub fn on_unlinked(&mut self, neighbor: Endpoint, has_enough: bool, fx: &mut Fx) {
        let Some(entry) = self.bootstrap.get_mut(&neighbor) else { return };
        if std::mem::take(&mut entry.is_linked) {
            self.call_later(neighbor, has_enough, fx);
        }
    }

    /// Takes the failure of a call. `has_enough` is true if no neighbors are sought at the moment.
    pub fn on_call_failed(&mut self, to: Endpoint, reason: &str, has_enough: bool, fx: &mut Fx) {
        let is_told = match self.bootstrap.get_mut(&to) {
            Some(entry) if !entry.is_linked => std::mem::replace(&mut entry.is_told, true),
            Some(_) | None => return,
        };
        let retry_in = self.call_later(to, has_enough, fx);
        if !is_told {
            fx.emit(Event::Unreachable { to, reason: reason.to_owned(), retry_in });
        }
    }

    /// Calls a bootstrap peer again after its pause.
    pub fn on_timer(&mut self, Timer::Call(to): Timer, fx: &mut Fx) {
        let Some(entry) = self.bootstrap.get_mut(&to) else { return };
        entry.due = Due::Never;
        if !(entry.is_linked && entry.is_proved) {
            fx.emit(Event::Call { to });
            // Whatever the outcome of that call, this address is not forgotten.
            self.call_after(to, Due::Late, self.config.backoff_max, fx);
        }
    }

    fn call_later(&mut self, to: Endpoint, has_enough: bool, fx: &mut Fx) -> Duration {
        let Some(entry) = self.bootstrap.get_mut(&to) else { return Duration::ZERO };
        let doubled = self.config.backoff_min * 2_u32.saturating_pow(entry.failures.min(16));
        entry.failures = entry.failures.saturating_add(1);
        let most = self.config.backoff_max;
        let (due, pause) =
            if has_enough { (Due::Late, most) } else { (Due::Soon, doubled.min(most)) };
        let pause = pause.mul_f64(self.rng.random_range(0.75..=1.0));
        self.call_after(to, due, pause, fx);
        pause
    }

    /// Calls it after `pause`, or before: a call that is due is only brought forward.
    fn call_after(&mut self, to: Endpoint, due: Due, pause: Duration, fx: &mut Fx) {
        let Some(entry) = self.bootstrap.get_mut(&to) else { return };
        if due > entry.due {
            entry.due = due;
            fx.set_timer(Timer::Call(to), pause);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::wildcard_enum_match_arm,
        reason = "a test waits for one event, and for any other in vain"
    )]

    use rand::SeedableRng as _;

    use super::*;
    use crate::machine::Effect;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::new([127, 0, 0, 1].into(), port)
    }

    fn fleet() -> OpenFleet {
        let bootstrap = [endpoint(1), endpoint(2), endpoint(3)];
        OpenFleet::new(Config::default(), endpoint(1), &bootstrap, Rng::seed_from_u64(1))
    }

    fn events(fx: &mut Fx) -> Vec<Event> {
        let told = fx.drain().filter_map(|it| match it {
            Effect::Emit(event) => Some(event),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn the_own_address_is_ignored_and_the_others_are_called() {
        let mut fx = Effects::default();
        fleet().on_start(&mut fx);
        let expected = [
            Event::OwnAddress { endpoint: endpoint(1) },
            Event::Call { to: endpoint(2) },
            Event::Call { to: endpoint(3) },
        ];
        assert_eq!(events(&mut fx), expected);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_the_failure_is_told_once() {
        let (mut fleet, mut fx) = (fleet(), Effects::default());
        let mut pauses = Vec::new();
        let mut told = 0;
        for _ in 0..9 {
            fleet.on_call_failed(endpoint(2), "refused", false, &mut fx);
            for effect in fx.drain() {
                match effect {
                    Effect::SetTimer { after, .. } => pauses.push(after.as_secs_f64()),
                    Effect::Emit(Event::Unreachable { .. }) => told += 1,
                    other => panic!("{other:?}"),
                }
            }
            fleet.on_timer(Timer::Call(endpoint(2)), &mut fx);
            drop(fx.drain());
        }
        assert_eq!(told, 1);
        for (at, pause) in pauses.iter().enumerate() {
            let full = f64::from(1 << at).min(60.0);
            assert!((0.75 * full..=full).contains(pause), "pause {at} is {pause}");
        }
        fleet.on_linked(endpoint(2), true, &mut fx);
        assert_eq!(events(&mut fx), [Event::Met { to: endpoint(2) }]);
        fleet.on_timer(Timer::Call(endpoint(2)), &mut fx);
        assert!(fx.is_empty(), "a neighbor is not called");
    }

    #[test]
    fn with_enough_neighbors_a_missing_one_is_still_called_now_and_then() {
        let (mut fleet, mut fx) = (fleet(), Effects::default());
        fleet.on_call_failed(endpoint(3), "refused", true, &mut fx);
        let pause = fx.drain().find_map(|it| match it {
            Effect::SetTimer { after, .. } => Some(after),
            _ => None,
        });
        assert!(pause.is_some_and(|it| it >= Duration::from_secs(45)), "{pause:?}");
        fleet.on_timer(Timer::Call(endpoint(3)), &mut fx);
        assert_eq!(events(&mut fx), [Event::Call { to: endpoint(3) }]);
    }

    /// The pauses that were set, and whether it was called.
    fn due(fx: &mut Fx) -> (Vec<f64>, bool) {
        let (mut pauses, mut is_called) = (Vec::new(), false);
        for effect in fx.drain() {
            match effect {
                Effect::SetTimer { after, .. } => pauses.push(after.as_secs_f64()),
                Effect::Emit(Event::Call { .. }) => is_called = true,
                _ => {}
            }
        }
        (pauses, is_called)
    }

    #[test]
    fn who_says_that_it_is_a_bootstrap_peer_puts_off_no_call_to_it() {
        let (mut fleet, mut fx) = (fleet(), Effects::default());
        fleet.on_call_failed(endpoint(2), "refused", false, &mut fx);
        assert!(due(&mut fx).0[0] <= 1.0);
        for _ in 0..9 {
            fleet.on_linked(endpoint(2), false, &mut fx);
            fleet.on_unlinked(endpoint(2), false, &mut fx);
        }
        assert_eq!(due(&mut fx).0, [0.0; 0], "the call is due as it was");
        // Also while it stays: who answers at that address is looked for.
        fleet.on_linked(endpoint(2), false, &mut fx);
        fleet.on_timer(Timer::Call(endpoint(2)), &mut fx);
        assert_eq!(due(&mut fx), (vec![60.0], true));
        // A link that is lost then is sought sooner.
        fleet.on_unlinked(endpoint(2), false, &mut fx);
        assert!(due(&mut fx).0[0] <= 1.0);
        fleet.on_linked(endpoint(2), false, &mut fx);
        fleet.on_proved(endpoint(2), &mut fx);
        fleet.on_timer(Timer::Call(endpoint(2)), &mut fx);
        assert_eq!(due(&mut fx), (Vec::new(), false), "it is who it says");
    }
}
