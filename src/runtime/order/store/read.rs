//! Reading final slots out of a log, by slot and by place, while it grows.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::index::SlotIndex;
use crate::machine::bft::Record;
use crate::proto::bft::message::SlotContent;
use crate::proto::bft::{Certificate, SlotHeader, SlotNo};
use crate::proto::chat::entry::{Body, Entry, SeqNo, Term};
use crate::runtime::member_log::{LogStoreError, walk_lines};

/// Opening of the JSON of every record of a slot, and of no other's.
pub(super) const SLOT_OPENING: &[u8] = br#"{"record":"slot","#;

/// Slots in order, with the proof that they are final.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPage {
    /// Final slots without a gap, all of one epoch.
    pub slots: Vec<Arc<SlotContent>>,
    /// Headers between the last of them and the certificate's, this one included.
    pub headers: Vec<SlotHeader>,
    /// Certificate of COMMITs of the last slot or header; `None` if the log has none there yet.
    pub certificate: Option<Certificate>,
}

/// A slot's record without its content.
#[derive(Debug, Deserialize)]
pub(super) struct SlotHead {
    pub(super) header: SlotHeader,
}

/// Reader of a log, which may be written meanwhile.
#[derive(Debug)]
pub struct SlotReader {
    path: PathBuf,
    file: File,
    index: Arc<Mutex<SlotIndex>>,
}

impl SlotReader {
    pub(super) const fn new(path: PathBuf, file: File, index: Arc<Mutex<SlotIndex>>) -> Self {
        Self { path, file, index }
    }

    /// Last final slot that is on disk.
    pub fn last(&self) -> SlotNo {
        self.with_index(SlotIndex::last)
    }

    /// Final slot that gives a message its place; `None` if none does.
    pub fn slot_of(&self, place: SeqNo) -> Option<SlotNo> {
        self.with_index(|index| index.slot_of(place))
    }

    /// Final slots below this one that change the committee.
    pub fn changes_before(&self, slot: SlotNo) -> Vec<SlotNo> {
        self.with_index(|index| index.changes_before(slot).to_vec())
    }

    /// Final slots of one epoch from `from` on, up to one that has a certificate if there is one
    /// within the limits, otherwise with the headers up to the next: at most `slots_max` with at
    /// most `bytes_max` bytes of lines, but one if there is one.
    ///
    /// # Errors
    /// Fails if the disk refuses, or a line is damaged.
    pub fn page(
        &self,
        from: SlotNo,
        slots_max: usize,
        bytes_max: usize,
    ) -> Result<SlotPage, LogStoreError> {
        let from = from.max(SlotNo(1));
        let last = self.with_index(|index| index.epoch_end(from).unwrap_or_else(|| index.last()));
        let (mut page, mut bytes) = (SlotPage::default(), 0);
        for slot in from.0..=last.0 {
            let is_full = page.slots.len() >= slots_max || bytes > bytes_max;
            if is_full && !page.slots.is_empty() {
                break;
            }
            let (content, len) = self.record(SlotNo(slot), parse_slot)?;
            bytes += len;
            page.slots.push(Arc::new(content));
        }
        if bytes > bytes_max && page.slots.len() > 1 {
            page.slots.pop();
        }
        let Some(end) = page.slots.last().map(|it| it.header.slot) else { return Ok(page) };
        let (before, behind) = self.with_index(|index| {
            let before = index.certificate_to(end).filter(|it| it.0 >= from);
            (before, index.certificate_from(end).filter(|it| it.0 <= last))
        });
        if let Some((slot, offset)) = before {
            page.slots.retain(|it| it.header.slot <= slot);
            page.certificate = Some(self.certificate(offset)?);
        } else if let Some((slot, offset)) = behind {
            for later in end.0 + 1..=slot.0 {
                page.headers.push(self.record(SlotNo(later), parse_header)?.0);
            }
            page.certificate = Some(self.certificate(offset)?);
        }
        Ok(page)
    }

    /// Messages from `from` on: at most `count`, and few more than `bytes_max` bytes of text.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn entries(
        &self,
        from: SeqNo,
        count: u64,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Entry>>, LogStoreError> {
        let from = from.max(SeqNo(1));
        let (mut found, mut bytes) = (Vec::new(), 0);
        let Some(first) = self.slot_of(from) else { return Ok(found) };
        for slot in first.0..=self.last().0 {
            if found.len() as u64 >= count || bytes > bytes_max {
                break;
            }
            let (content, len) = self.record(SlotNo(slot), parse_slot)?;
            bytes += len;
            found.extend(entries_of(&content).filter(|it| it.seq_no >= from).map(Arc::new));
        }
        found.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(found)
    }

    fn record<T>(
        &self,
        slot: SlotNo,
        parse: impl Fn(&[u8]) -> serde_json::Result<T>,
    ) -> Result<(T, usize), LogStoreError> {
        let offset = self.with_index(|index| index.offset(slot));
        let offset = offset.expect("slots up to the last are there, and final ones stay");
        self.line(offset, parse)
    }

    fn certificate(&self, offset: u64) -> Result<Certificate, LogStoreError> {
        let parse = |json: &[u8]| {
            let record = serde_json::from_slice(json)?;
            if let Record::Final(certificate) = record {
                return Ok(certificate);
            }
            Err(serde::de::Error::custom("it is no certificate"))
        };
        Ok(self.line(offset, parse)?.0)
    }

    /// The record that begins at `offset`, and the length of its line.
    fn line<T>(
        &self,
        offset: u64,
        parse: impl Fn(&[u8]) -> serde_json::Result<T>,
    ) -> Result<(T, usize), LogStoreError> {
        let end = self.with_index(|index| index.end);
        let mut found = None;
        walk_lines((&self.path, &self.file), (offset, end), |json, _, len| {
            found = Some((parse(json).map_err(|err| err.to_string())?, len));
            Ok(false)
        })?;
        found.ok_or_else(|| LogStoreError::Corrupt {
            path: self.path.clone(),
            line: 0,
            reason: format!("it ends before byte {offset}"),
            remedy: None,
        })
    }

    fn with_index<T>(&self, work: impl FnOnce(&SlotIndex) -> T) -> T {
        work(&self.index.lock().expect("nothing under this lock can panic"))
    }
}

/// Reads the record of a slot, which nearly all are, straight into its fields.
fn parse_slot(json: &[u8]) -> serde_json::Result<SlotContent> {
    serde_json::from_slice(json)
}

fn parse_header(json: &[u8]) -> serde_json::Result<SlotHeader> {
    serde_json::from_slice::<SlotHead>(json).map(|it| it.header)
}

/// Messages to which a final slot gives places.
pub fn entries_of(content: &SlotContent) -> impl Iterator<Item = Entry> + '_ {
    let SlotHeader { epoch, time, place, .. } = content.header;
    let named = content.header.bundles.iter().zip(&content.bundles);
    let texts = named.flat_map(|(named, bundle)| {
        let skip = usize::try_from(named.skip).unwrap_or(usize::MAX);
        let texts = (skip..bundle.items.len()).filter_map(|index| bundle.message(index));
        texts.map(|text| (bundle.author, text))
    });
    (place.0.saturating_add(1)..).zip(texts).map(move |(seq_no, (leader, text))| Entry {
        seq_no: SeqNo(seq_no),
        term: Term(epoch.0),
        leader,
        time,
        body: Body::Chat(text),
    })
}
