//! Files and folders of a network: offering, fetching and listing them. See [`super::shares`].

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::peer::Network;
use super::pending::Pending;
use super::shares::{KnownShare, Share, ShareError};

/// Time that a fetch waits by default while nobody has the missing pieces.
const GIVE_UP: Duration = Duration::from_secs(60);

impl Network {
    /// Offers a file or folder as long as the [`Share`] lives: to holders of its ticket, and in the
    /// lists of the other peers. It is read and hashed first.
    ///
    /// # Errors
    /// The outcome is an error if it cannot be read, has names that other systems cannot have, 64
    /// others are shared already, or the network has stopped. A wait that is given up ends it; a
    /// canceled one ends the hashing, too.
    pub fn share(&self, path: impl AsRef<Path>) -> Pending<Result<Share, ShareError>> {
        self.peer.home().offer(path.as_ref().to_owned(), false)
    }

    /// As [`Network::share`], and asks all other peers to take it, now or as long as the [`Share`]
    /// lives. Peers take it as far as their operators allow; see [`KnownShare::peers`].
    ///
    /// # Errors
    /// As [`Network::share`].
    pub fn share_everywhere(&self, path: impl AsRef<Path>) -> Pending<Result<Share, ShareError>> {
        self.peer.home().offer(path.as_ref().to_owned(), true)
    }

    /// Fetches the file or folder of a ticket into the folder `dir`, which is made if it is
    /// missing: from the places that the ticket names, and from all peers whose lists have it.
    ///
    /// The [`Share`] is there when the fetch has begun; [`Share::complete`] waits for its end. What
    /// is there from an earlier fetch, even of one that was killed, is not fetched again. It gives
    /// up when nothing new has come for 60 s; and it passes pieces on as long as the [`Share`]
    /// lives.
    ///
    /// # Errors
    /// The outcome is an error if the ticket cannot be used, something else has the name in `dir`,
    /// this network shares the same content already, the disk refuses, or the network has stopped.
    pub fn fetch(
        &self,
        ticket: impl Display,
        dir: impl AsRef<Path>,
    ) -> Pending<Result<Share, ShareError>> {
        self.fetch_within(ticket, dir, GIVE_UP)
    }

    /// As [`Network::fetch`]; gives up when nothing new has come for `give_up`.
    ///
    /// # Errors
    /// As [`Network::fetch`].
    pub fn fetch_within(
        &self,
        ticket: impl Display,
        dir: impl AsRef<Path>,
        give_up: Duration,
    ) -> Pending<Result<Share, ShareError>> {
        self.peer.home().fetch(&ticket.to_string(), dir.as_ref().to_owned(), give_up)
    }

    /// Files and folders that the peers of the fleet share, as far as this peer has heard, by name;
    /// its own too. A peer announces its list when that changes, and each minute.
    pub fn shares(&self) -> Vec<KnownShare> {
        self.peer.sharing.wake(&self.peer.subscriptions, &self.peer.driver);
        self.peer.sharing.known()
    }

    /// Folder of what [`Builder::take_shares`] takes: each appears there under its name when all of
    /// it was verified. Without [`Builder::data`] it ends with the network.
    ///
    /// [`Builder::take_shares`]: super::Builder::take_shares
    /// [`Builder::data`]: super::Builder::data
    pub fn received(&self) -> PathBuf {
        self.peer.sharing.received()
    }
}
