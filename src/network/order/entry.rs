//! Entries of an order as applications see them, and their form as messages of a group.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::model::statement::SeedCertificate;
use crate::model::{Data, WallTime};
use crate::proto::chat::entry::{Body, Entry};

/// Label of entries that are text.
const TEXT: &str = "text";

/// Label of entries that are bytes and no text; their text is Base64.
const BYTES: &str = "bytes";

/// Label of markers, by which a member learns that it has all that was final before.
pub(super) const MARK: &str = "mark";

/// Label of the entries by which an order's founders decide whether it is founded.
pub(super) const FOUND: &str = "found";

/// Label of the certificates of seeds; their text is JSON.
pub(super) const CERTIFICATE: &str = "certificate";

/// Number of an entry in an order, from 1. Places rise in the order of the entries; markers of
/// [`super::OrderedLog::sync`] have places too, and so have changes of the group in a crash order,
/// and the words by which an order is founded by a fleet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Place(pub u64);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Place {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A final entry of an order: the same at its place for every member, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderEntry {
    /// Place of the entry.
    pub place: Place,
    /// Id of the member that proposed it.
    pub author: u32,
    /// Time by a leader's clock, for people; nothing depends on it.
    pub time: WallTime,
    /// Content of the entry.
    pub data: Data,
}

impl OrderEntry {
    /// The entry of an application; `None` for a marker or a change of the group.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let Body::Chat(chat) = &entry.body else { return None };
        let data = match &*chat.room_id {
            MARK | FOUND => return None,
            // A member may write what it likes: bytes that are none are shown as they are.
            BYTES => {
                STANDARD.decode(&*chat.payload).map_or_else(|_| (&*chat.payload).into(), Data::from)
            }
            _ => (&*chat.payload).into(),
        };
        let (place, author) = (Place(entry.seq_no.0), chat.msg_id.origin.member.0);
        Some(Self { place, author, time: entry.time, data })
    }

    /// Certificate of the fleet's seeds that the entry holds, if its author says that it is one.
    #[doc(hidden)]
    #[must_use]
    pub fn certificate(&self) -> Option<SeedCertificate> {
        serde_json::from_slice(&self.data).ok()
    }

    /// Text of the entry, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.data).ok()
    }
}

/// Label and text of a message that carries `data`.
pub(super) fn message(data: &[u8]) -> (Arc<str>, Arc<str>) {
    match std::str::from_utf8(data) {
        Ok(text) => (TEXT.into(), text.into()),
        Err(_) => (BYTES.into(), STANDARD.encode(data).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::chat::entry::{ChatText, MemberId, MsgId, Origin, SeqNo, Term};

    fn entry((room_id, payload): (Arc<str>, Arc<str>)) -> Entry {
        let origin = Origin { member: MemberId(3), client: 7 };
        let chat = ChatText { msg_id: MsgId { origin, number: 1 }, room_id, payload };
        let (term, leader, time) = (Term(0), MemberId(1), WallTime(5));
        Entry { seq_no: SeqNo(9), term, leader, time, body: Body::Chat(chat) }
    }

    #[test]
    fn whatever_is_proposed_comes_back_as_it_was() {
        for data in [&b"pay 5 to b"[..], b"", "\u{0}\n\u{1F980}".as_bytes(), b"\xff\x00\x80"] {
            let entry = OrderEntry::of(&entry(message(data))).unwrap();
            assert_eq!((entry.place, entry.author, &*entry.data), (Place(9), 3, data));
            assert_eq!(entry.text(), std::str::from_utf8(data).ok());
        }
    }

    #[test]
    fn markers_are_no_entries_and_false_base64_harms_nobody() {
        assert_eq!(OrderEntry::of(&entry((MARK.into(), "x".into()))), None);
        assert_eq!(OrderEntry::of(&entry((FOUND.into(), "in".into()))), None);
        let odd = OrderEntry::of(&entry((BYTES.into(), "no base64!".into()))).unwrap();
        assert_eq!(odd.text(), Some("no base64!"));
    }
}
