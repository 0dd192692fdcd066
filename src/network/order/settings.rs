//! Settings of a member of an order before it starts, and its state while it runs.

use std::path::{Path, PathBuf};

use super::entry::Place;
use super::roster::OrderRoster;
use crate::machine::bft::Config;

/// Kind of an order, and the settings of one member.
#[derive(Clone, Debug)]
pub struct Order {
    pub(super) kind: Kind,
    pub(super) data: Option<PathBuf>,
    pub(super) is_restored: bool,
    pub(super) config: Config,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Members may lie: those of this roster.
    Byzantine(OrderRoster),
    /// Members may lie: so many of the fleet, which found the order themselves.
    Fleet(usize),
    /// Members may crash: this is the id of the own one.
    Crash(u32),
}

impl Order {
    /// An order that holds although members lie: of `n` members, up to `floor((n-1)/3)`. The roster
    /// is the same for all members; this peer is the one with its key. With fewer than four members
    /// no liar is borne.
    pub fn byzantine(roster: &OrderRoster) -> Self {
        Self::new(Kind::Byzantine(roster.clone()))
    }

    /// As [`Self::byzantine`], founded by `size` members of the fleet, 1 to 64, without a roster:
    /// by those that start it with the same name and size, and whose keys a Byzantine quorum of
    /// seeds has admitted. The start waits until it is founded; a later one goes on in the same
    /// group.
    #[must_use]
    pub fn byzantine_of(size: usize) -> Self {
        Self::new(Kind::Fleet(size))
    }

    /// An order that holds although members crash: the fleet's [`Chat`](crate::Chat), whose member
    /// `id` this peer is. It takes any number of members, proves nothing, and trusts all of them.
    pub fn crash(id: u32) -> Self {
        Self::new(Kind::Crash(id))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, data: None, is_restored: false, config: Config::default() }
    }

    /// Directory of the log. The default is in the network's own directory.
    #[must_use]
    pub fn data(mut self, dir: impl AsRef<Path>) -> Self {
        self.data = Some(dir.as_ref().to_owned());
        self
    }

    /// Declares that the log comes from a backup: the member may have signed more than it holds,
    /// and is silent until the group has renewed it. Without effect in a crash order.
    #[must_use]
    pub const fn restored(mut self) -> Self {
        self.is_restored = true;
        self
    }

    /// Sets the periods and limits of a Byzantine order's machine, for experts.
    #[doc(hidden)]
    #[must_use]
    pub const fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }
}

/// Status of a member of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderStanding {
    /// Last final place here.
    pub place: Place,
    /// Id of the member that leads, if one does.
    pub leader: Option<u32>,
    /// Number of members.
    pub members: usize,
    /// Number of members in reach that vote, this one included.
    pub reached: usize,
    /// Number of members that decide.
    pub needed: usize,
    /// Number of proposals of this member that are not final.
    pub pending: usize,
    /// Reason why this member does not vote, if it does not: it may have lost what it had signed.
    pub silent: Option<String>,
}
