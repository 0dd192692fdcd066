//! Reading a log from its beginning, once, at the start.
//!
//! Lines before the snapshot are not made into entries, which
//! makes a start with a long log several times faster.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::index::Index;
use super::{ENTRY_OPENING, LogContent, LogStoreError, anew, is_bound};
use crate::machine::chat::{Record, Snapshot};
use crate::model::PublicKey;
use crate::proto::chat::entry::{ChatText, Entry, GroupId, MemberId, MsgId, SeqNo};
use crate::runtime::member_log::{self, RecordFault};

/// Largest number of typed texts of a torn end that are told.
const TOLD_MAX: usize = 100;

/// A log that was read.
pub(super) struct Replayed {
    pub(super) found: LogContent,
    pub(super) whose: Option<(MemberId, PublicKey)>,
    pub(super) index: Index,
    pub(super) form: member_log::Replayed,
}

impl Replayed {
    /// Notes about the torn end, for people, with the texts in it that can still be read.
    pub(super) fn torn_notes(&self, path: &Path) -> Vec<String> {
        let Some(torn) = &self.form.torn else { return Vec::new() };
        let texts = torn.intact.iter().filter_map(|json| typed_text(json));
        let text = |text: Arc<str>| {
            format!("typed here, and cut off with it; if it does not appear, send it again: {text}")
        };
        std::iter::once(torn.note(path)).chain(texts.take(TOLD_MAX).map(text)).collect()
    }
}

/// A record, or the number of an entry that the snapshot covers.
enum ReplayedLine {
    Covered(SeqNo),
    Record(Record),
}

impl ReplayedLine {
    fn is_bound(&self) -> bool {
        match self {
            Self::Covered(_) => true,
            Self::Record(record) => is_bound(record),
        }
    }
}

/// Reads a log; with `owner`, only if it is that member's, else without its entries.
pub(super) fn replay(
    (path, file): (&Path, &File),
    snapshot: Option<Snapshot>,
    owner: Option<(MemberId, PublicKey)>,
) -> Result<Replayed, LogStoreError> {
    let remedy = owner.map(|(me, _)| anew(me));
    let mut reading = Reading::new(snapshot, owner);
    let form = member_log::replay((path, file), remedy.as_deref(), |json, offset| {
        let record = reading.record(json).map_err(|err| RecordFault::Newer(err.to_string()))?;
        let is_bound = record.is_bound();
        reading.take(record, offset).map(|()| is_bound)
    })?;
    let (found, whose, index) = reading
        .finish(form.bytes)
        .map_err(|reason| LogStoreError::Corrupt { path: path.into(), line: 1, reason, remedy })?;
    Ok(Replayed { found, whose, index, form })
}

/// Text of a record, if it is a typed text.
fn typed_text(json: &[u8]) -> Option<Arc<str>> {
    match parse(json).ok()? {
        Record::Typed(chat) => Some(chat.payload),
        Record::Group { .. }
        | Record::Term { .. }
        | Record::Entry(_)
        | Record::Cut { .. }
        | Record::Renamed { .. }
        | Record::GivenBack { .. }
        | Record::Rewound
        | Record::Commit { .. } => None,
    }
}

/// State of the reading so far.
struct Reading {
    owner: Option<(MemberId, PublicKey)>,
    whose: Option<(MemberId, PublicKey)>,
    found: LogContent,
    /// All groups of the member, in order: more than one after a recovery.
    groups: Vec<GroupId>,
    index: Index,
    /// Number of the last entry that the snapshot covers.
    covered: SeqNo,
    /// The newest record of a term, with the number of other records before it.
    term: Option<(usize, Record)>,
    commit: SeqNo,
    typed: Vec<(usize, ChatText)>,
}

impl Reading {
    fn new(snapshot: Option<Snapshot>, owner: Option<(MemberId, PublicKey)>) -> Self {
        let covered = snapshot.as_ref().map_or(SeqNo(0), |it| it.seq_no);
        Self {
            owner,
            whose: None,
            found: LogContent { snapshot, ..LogContent::default() },
            groups: Vec::new(),
            index: Index::default(),
            covered,
            term: None,
            commit: SeqNo(0),
            typed: Vec::new(),
        }
    }

    fn record(&self, json: &[u8]) -> Result<ReplayedLine, serde_json::Error> {
        if let Some(seq_no) = peek_entry(json)
            && (seq_no <= self.covered || self.owner.is_none())
        {
            return Ok(ReplayedLine::Covered(seq_no));
        }
        // The line is intact, so a crash is no excuse, even for the last line.
        parse(json).map(ReplayedLine::Record)
    }

    fn take(&mut self, line: ReplayedLine, offset: u64) -> Result<(), RecordFault> {
        match line {
            ReplayedLine::Covered(seq_no) => self.entry(seq_no, offset),
            ReplayedLine::Record(Record::Group { group, me, key }) => {
                let is_late = self.groups.is_empty() && self.index.last > SeqNo(0);
                if is_late || self.groups.contains(&group) {
                    return Err(RecordFault::Corrupt(
                        "it names a group, which the first does".into(),
                    ));
                }
                if self.owner.is_some_and(|owner| owner != (me, key)) {
                    return Err(RecordFault::Foreign(format!(
                        "{me}, whose key is {}…",
                        key.short()
                    )));
                }
                self.groups.push(group);
                (self.found.group, self.whose) = (Some(group), Some((me, key)));
                Ok(())
            }
            ReplayedLine::Record(Record::Entry(entry)) => {
                self.entry(entry.seq_no, offset)?;
                if entry.seq_no > self.covered {
                    self.found.records.push(Record::Entry(entry));
                }
                Ok(())
            }
            ReplayedLine::Record(Record::Cut { from }) => {
                if from <= self.commit {
                    let text = format!("it cuts off entry {}, which is final", from.0);
                    return Err(RecordFault::Corrupt(text));
                }
                self.index.cut(from, offset);
                // A cut from before the snapshot also takes the entries that were beyond its place
                // then.
                let from = from.max(SeqNo(self.covered.0.saturating_add(1)));
                self.found.records.push(Record::Cut { from });
                Ok(())
            }
            ReplayedLine::Record(Record::Commit { seq_no }) => {
                self.commit = self.commit.max(seq_no);
                Ok(())
            }
            ReplayedLine::Record(term @ Record::Term { .. }) => {
                self.term = Some((self.found.records.len(), term));
                Ok(())
            }
            ReplayedLine::Record(Record::Typed(chat)) => {
                self.typed.push((self.found.records.len(), chat));
                Ok(())
            }
            ReplayedLine::Record(Record::Renamed { from, to }) => {
                let mut typed = self.typed.iter_mut().rev();
                if let Some((_, chat)) = typed.find(|(_, it)| it.msg_id == from) {
                    chat.msg_id = to;
                }
                Ok(())
            }
            ReplayedLine::Record(Record::GivenBack { msg_id }) => {
                self.typed.retain(|(_, it)| it.msg_id != msg_id);
                Ok(())
            }
            ReplayedLine::Record(Record::Rewound) => {
                self.found.is_rewound = true;
                Ok(())
            }
        }
    }

    fn entry(&mut self, seq_no: SeqNo, offset: u64) -> Result<(), RecordFault> {
        let last = self.index.last;
        if last.0.checked_add(1) != Some(seq_no.0) {
            let text = format!("entry {} follows entry {}", seq_no.0, last.0);
            return Err(RecordFault::Corrupt(text));
        }
        self.index.entry(seq_no, offset);
        Ok(())
    }

    fn finish(mut self, bytes: u64) -> Result<Finished, String> {
        if self.index.last < self.covered {
            return Err(format!(
                "it ends with entry {}, before its snapshot, which was made at {}",
                self.index.last.0, self.covered.0
            ));
        }
        if self.found.group.is_none() && self.index.last > SeqNo(0) {
            return Err("it names no group".into());
        }
        if let Some(snapshot) = &self.found.snapshot
            && !self.groups.is_empty()
            && !self.groups.contains(&snapshot.group)
        {
            return Err("its snapshot is of another group".into());
        }
        self.index.end = bytes;
        let late = self.late_records();
        let records = &mut self.found.records;
        // From the end, so that the other positions stay valid.
        for (at, record) in late.into_iter().rev() {
            records.insert(at, record);
        }
        if self.commit > self.covered {
            records.push(Record::Commit { seq_no: self.commit });
        }
        Ok((self.found, self.whose, self.index))
    }

    /// The newest term, and the typed texts that are not in the snapshot, with their positions.
    fn late_records(&mut self) -> Vec<(usize, Record)> {
        let mut late: Vec<_> = self.term.take().into_iter().collect();
        let authors = self.found.snapshot.iter().flat_map(|it| &it.authors);
        let known: Vec<_> = authors.map(|it| (it.origin(), it.number)).collect();
        let is_open = |chat: &ChatText| {
            let MsgId { origin, number } = chat.msg_id;
            !known.iter().any(|(known, last)| *known == origin && number <= *last)
        };
        let typed = std::mem::take(&mut self.typed).into_iter();
        late.extend(typed.filter(|it| is_open(&it.1)).map(|(at, chat)| (at, Record::Typed(chat))));
        late.sort_by_key(|(at, _)| *at);
        late
    }
}

type Finished = (LogContent, Option<(MemberId, PublicKey)>, Index);

/// Number of an entry, without parsing the rest; `None` if this is no entry, or in another form.
pub(super) fn peek_entry(json: &[u8]) -> Option<SeqNo> {
    let rest = json.strip_prefix(ENTRY_OPENING)?.strip_prefix(br#""seq_no":"#)?;
    let digits = &rest[..rest.iter().position(|byte| !byte.is_ascii_digit())?];
    std::str::from_utf8(digits).ok()?.parse().ok().map(SeqNo)
}

/// Parses a record. Entries, which are nearly all, are read straight into their fields.
pub(super) fn parse(json: &[u8]) -> serde_json::Result<Record> {
    match json.strip_prefix(ENTRY_OPENING) {
        Some(fields) => {
            let object = [b"{", fields].concat();
            serde_json::from_slice::<Entry>(&object).map(|it| Record::Entry(Arc::new(it)))
        }
        None => serde_json::from_slice(json),
    }
}
