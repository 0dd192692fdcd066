//! The members with which a group of a Byzantine order is founded.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::{Endpoint, PublicKey};
use crate::proto::bft::{Committee, OrderId, roster};
use crate::proto::chat::entry::{HostPort, Member, MemberId};

/// The members with which a group of a Byzantine order is founded: 1 to 64, each with an id, an
/// address and a key. All members hold the same roster, in any order of its lines.
///
/// Its text has a line `ID IP:PORT KEY` for each member; `#` begins a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRoster(Arc<Committee>);

impl OrderRoster {
    /// OrderRoster of these members: id from 1, address, key.
    ///
    /// # Errors
    /// Fails if there are none or too many, or if two share an id or a key; with the reason.
    pub fn of(
        members: impl IntoIterator<Item = (u32, Endpoint, PublicKey)>,
    ) -> Result<Self, &'static str> {
        let member = |(id, at, key)| Member { id: MemberId(id), at: HostPort::from(at), key };
        Committee::of(members.into_iter().map(member)).map(|it| Self(Arc::new(it)))
    }

    /// Reads the text of a roster's file; an error names the file, the line and the remedy.
    ///
    /// # Errors
    /// Fails if the text is no roster.
    #[doc(hidden)]
    pub fn parse(file: &Path, text: &str) -> Result<Self, String> {
        let parsed = roster::parse(file, text).map_err(|error| error.to_string());
        parsed.map(|it| Self(Arc::new(it)))
    }

    /// Identity of the group that these members found by this name: the one thing that the reader
    /// of a proof has to know.
    #[must_use]
    pub fn group(&self, name: &str) -> OrderId {
        self.0.order_id(name)
    }

    /// Id of the member with this key.
    #[must_use]
    pub fn id_of(&self, key: &PublicKey) -> Option<u32> {
        let voter = self.0.voters().iter().find(|it| it.member.key == *key);
        voter.map(|it| it.member.id.0)
    }

    /// The members, in their first lives.
    #[doc(hidden)]
    #[must_use]
    pub fn committee(&self) -> Arc<Committee> {
        Arc::clone(&self.0)
    }
}

impl FromStr for OrderRoster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(Path::new("roster"), text)
    }
}
