//! One order of entries for a group, in a program of one's own.
//!
//! An [`OrderedLog`] is one member of a group. What a member proposes gets a place, the same for
//! all members; it is final then, and never changes. [`Order::byzantine`] holds although up to a
//! third of the members lie, and proves each place to anybody; [`Order::crash`] trusts its members
//! not to lie, and needs fewer of them.
//!
//! ```
//! use folkmoot::{Network, Order, PlaceProof, OrderRoster};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Four members, which could as well be on four machines: one of them may lie.
//! let networks: Vec<_> = (0..4).map(|_| Network::builder().start()).collect::<Result<_, _>>()?;
//! let members = (1..).zip(&networks).map(|(id, it)| (id, it.endpoint(), it.key()));
//! let roster = OrderRoster::of(members)?;
//! let order = |it: &Network| it.order("ledger", Order::byzantine(&roster));
//! let logs: Vec<_> = networks.iter().map(order).collect::<Result<_, _>>()?;
//!
//! let placed = logs[0].propose("pay 5 to b").wait()?;
//! for log in &logs {
//!     let entry = log.follow(placed.place).next().expect("no member has stopped");
//!     assert_eq!((entry.author, entry.text()), (1, Some("pay 5 to b")));
//! }
//!
//! // Anybody who knows the group's identity can check the place, without any member.
//! let proof = logs[2].proof(placed.place)?.encode();
//! let proven = PlaceProof::parse(&proof)?.verify(&roster.group("ledger"))?;
//! assert_eq!(&*proven.payload, "pay 5 to b");
//! # Ok(())
//! # }
//! ```

mod certificates;
mod entry;
mod follow;
mod found;
mod member;
mod roster;
mod settings;
mod waits;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crossbeam_channel::Sender;
pub use entry::{OrderEntry, Place};
pub use follow::{Follower, NoEntry};
pub use found::FoundedOrder;
pub use roster::OrderRoster;
pub use settings::{Order, OrderStanding};
pub use waits::{Fate, TellFate};

use self::follow::Tail;
use self::member::Member;
use self::settings::Kind;
use self::waits::Waits;
use super::error::{NetworkError, StartError};
use super::peer::Network;
use super::pending::{Cell, Pending};
use crate::machine::Never;
use crate::machine::bft::{BftStatus, Command};
use crate::proto::bft::proof::PlaceProof;
use crate::proto::chat::entry::{Entry, SeqNo};
use crate::runtime::driver::options::EventSink;
use crate::runtime::order::{OrderEngine, OrderNotification};

/// Place that a proposal has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Place of the entry, final.
    pub place: Place,
}

/// Reason why a call to an order has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderError {
    /// The proposal is not kept, and never will be final; the reason, for people.
    Refused(String),
    /// The member has stopped before it was known. What was on disk is proposed when it starts
    /// again.
    Unknown,
    /// There is no proof of this place; the reason, for people.
    NoProof(String),
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "not proposed: {reason}"),
            Self::Unknown => f.write_str("the member stopped before the proposal was final"),
            Self::NoProof(reason) => write!(f, "no proof: {reason}"),
        }
    }
}

impl Error for OrderError {}

impl Network {
    /// Takes part in the order `name` as a member inside this peer. Groups of the same members
    /// differ by the name; a peer takes part in one order of each kind.
    ///
    /// Returns at once in a Byzantine order with a roster. An order of the fleet
    /// ([`Order::byzantine_of`]) is founded first, which waits for all its members; in a crash
    /// order it looks for the group through the fleet first, as
    /// [`ChatBuilder::start`](crate::ChatBuilder::start) does.
    ///
    /// # Errors
    /// Fails if this peer's key is not in the roster, the log cannot be used, or the network has
    /// stopped.
    pub fn order(&self, name: &str, order: Order) -> Result<OrderedLog, StartError> {
        let Kind::Fleet(_) = order.kind else {
            return OrderedLog::start(&self.handle(), name, order, None);
        };
        let words = (|text: &str| log::info!("{text}"), || true);
        let founded = OrderedLog::found(&self.handle(), (name, order), &|| None, words)?;
        founded.map(|it| it.log).ok_or(StartError::Network(NetworkError::Stopped))
    }
}

/// One member of an order. See the [module](self).
///
/// Dropping it stops the member. Its log keeps all entries.
pub struct OrderedLog {
    member: Member,
    waits: Waits,
    tail: Tail,
    /// Sender whose drop ends the thread that tells the fleet of an order that it founded.
    runs: Option<Sender<Never>>,
}

/// Function that makes a receiver of a Byzantine order's reports, one for each group that is tried.
pub type TellOrder<'a> = dyn Fn() -> Option<Box<dyn EventSink<OrderNotification>>> + 'a;

impl OrderedLog {
    /// As [`Network::order`]; `told` is handed what a Byzantine order reports.
    ///
    /// # Errors
    /// As [`Network::order`].
    #[doc(hidden)]
    pub fn start(
        network: &Arc<Network>,
        name: &str,
        order: Order,
        told: Option<Box<dyn EventSink<OrderNotification>>>,
    ) -> Result<Self, StartError> {
        let (waits, tail) = (Waits::default(), Tail::default());
        let reports = member::Reports { waits: waits.clone(), tail: tail.clone(), told };
        let member = Member::start(network, name, order, reports)?;
        Ok(Self { member, waits, tail, runs: None })
    }

    /// Proposes an entry: up to 16,384 bytes of text in UTF-8, or 12,288 of other bytes. The
    /// outcome is its place, once it is final.
    ///
    /// A proposal that is on disk is repeated until it is final, across leaders and restarts, and
    /// waits while too few members are in reach: dropping the outcome gives up the wait only.
    pub fn propose(&self, data: impl AsRef<[u8]>) -> Pending<Result<Placed, OrderError>> {
        self.say(entry::message(data.as_ref()))
    }

    /// Orders a marker. Once its outcome is there, this member has every entry that was final
    /// anywhere when the call was made.
    pub fn sync(&self) -> Pending<Result<Placed, OrderError>> {
        self.say((entry::MARK.into(), "-".into()))
    }

    fn say(&self, message: (Arc<str>, Arc<str>)) -> Pending<Result<Placed, OrderError>> {
        let cell = Cell::new();
        let waiter = Waiter(Arc::clone(&cell));
        let tell: TellFate = Box::new(move |fate| match fate {
            Fate::Kept => {}
            Fate::Final(place) => waiter.0.put(Ok(Placed { place: Place(place.0) })),
            Fate::Refused(reason) => waiter.0.put(Err(OrderError::Refused(reason))),
        });
        self.hand_over(message, tell);
        Pending::new(cell, None)
    }

    /// As [`Self::propose`], with a function that is told each fate.
    #[doc(hidden)]
    pub fn propose_and_tell(&self, data: &[u8], tell: TellFate) {
        self.hand_over(entry::message(data), tell);
    }

    fn hand_over(&self, (room, text): (Arc<str>, Arc<str>), tell: TellFate) {
        let is_open = self.waits.add(&room, &text, tell);
        if is_open && !self.member.say(Arc::clone(&room), Arc::clone(&text)) {
            self.waits.give_back(&room, &text);
        }
    }

    /// The entries from a place on, without a gap: those that are final already, and then each as
    /// it becomes final. Places start at 1.
    pub fn follow(&self, from: Place) -> Follower {
        Follower::new(self.member.reader(), self.tail.clone(), from)
    }

    /// Proof that an entry has its place, for anybody who knows the group's identity.
    ///
    /// # Errors
    /// Fails in a crash order, if the place is not final here, or if the disk refuses.
    pub fn proof(&self, place: Place) -> Result<PlaceProof, OrderError> {
        self.member.proof(SeqNo(place.0)).map_err(OrderError::NoProof)
    }

    /// Status of the member; `None` once it has stopped.
    pub fn status(&self) -> Option<OrderStanding> {
        self.member.status()
    }

    /// Status of a member of a Byzantine order, with all that its machine knows.
    #[doc(hidden)]
    pub fn machine_status(&self) -> Option<BftStatus> {
        self.member.byzantine()?.status()
    }

    /// Engine of a Byzantine order; `None` for a crash order.
    #[doc(hidden)]
    pub fn engine(&self) -> Option<&OrderEngine> {
        self.member.byzantine()
    }

    /// Says a text under a label of the caller's; it is kept until it is final. False once the
    /// member is stopping.
    pub(in crate::network) fn append(&self, label: &str, text: String) -> bool {
        self.member.say(label.into(), text.into())
    }

    /// Up to `count` final entries of any kind from a number on.
    ///
    /// # Errors
    /// Fails if the member is stopping, or its log cannot be read.
    pub(in crate::network) fn history(
        &self,
        from: SeqNo,
        count: u64,
    ) -> Result<Vec<Arc<Entry>>, String> {
        self.member.reader()(from.0, count)
    }

    /// Gives an order to the machine of a Byzantine order; false if there is none, or it stops.
    #[doc(hidden)]
    pub fn command(&self, command: Command) -> bool {
        self.member.byzantine().is_some_and(|it| it.command(command))
    }

    /// Stops the member. A second call does nothing.
    pub fn stop(&self) {
        self.member.stop();
        self.waits.close();
        self.tail.close();
    }
}

/// A wait for an outcome, which is unknown if nothing else was told.
struct Waiter(Arc<Cell<Result<Placed, OrderError>>>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.put(Err(OrderError::Unknown));
    }
}

impl Drop for OrderedLog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for OrderedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedLog").field("status", &self.status()).finish_non_exhaustive()
    }
}
