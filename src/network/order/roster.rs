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
/// Its text has a line `ID IP:PORT KEY` for each member; `#` begins a comment. A line that begins
/// with `+` is of a member that joins later: it follows the order until the others have added it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRoster {
    founders: Arc<Committee>,
    later: Vec<Member>,
}

impl OrderRoster {
    /// Roster of these members: id from 1, address, key.
    ///
    /// # Errors
    /// Fails if there are none or too many, or if two share an id or a key; with the reason.
    pub fn of(
        members: impl IntoIterator<Item = (u32, Endpoint, PublicKey)>,
    ) -> Result<Self, &'static str> {
        let member = |(id, at, key)| Member { id: MemberId(id), at: HostPort::from(at), key };
        let founders = Committee::of(members.into_iter().map(member))?;
        Ok(Self { founders: Arc::new(founders), later: Vec::new() })
    }

    /// Reads the text of a roster's file; an error names the file, the line and the remedy.
    ///
    /// # Errors
    /// Fails if the text is no roster.
    #[doc(hidden)]
    pub fn parse(file: &Path, text: &str) -> Result<Self, String> {
        let (founders, later) = roster::parse(file, text).map_err(|error| error.to_string())?;
        Ok(Self { founders: Arc::new(founders), later })
    }

    /// Identity of the group that these members found by this name: the one thing that the reader
    /// of a proof has to know.
    #[must_use]
    pub fn group(&self, name: &str) -> OrderId {
        self.founders.order_id(name)
    }

    /// Id of the member with this key.
    #[must_use]
    pub fn id_of(&self, key: &PublicKey) -> Option<u32> {
        self.members().find(|it| it.key == *key).map(|it| it.id.0)
    }

    /// Member of this id, a founder or one that joins later.
    #[doc(hidden)]
    #[must_use]
    pub fn member(&self, id: u32) -> Option<Member> {
        self.members().find(|it| it.id.0 == id).cloned()
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.founders.voters().iter().map(|it| &it.member).chain(&self.later)
    }

    /// The founders, in their first lives.
    #[doc(hidden)]
    #[must_use]
    pub fn committee(&self) -> Arc<Committee> {
        Arc::clone(&self.founders)
    }
}

impl FromStr for OrderRoster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(Path::new("roster"), text)
    }
}
