//! Record of unfinished content: a small file beside it that tells which pieces are on disk.
//!
//! A piece is **claimed** after it was written; a **mark** has the number of claims that were made
//! before the disk was last told to keep everything. A claim behind the last mark may be there
//! without its piece, if the machine itself stopped; so each carries a checksum of its piece, which
//! is compared when the record is opened. A claim before a mark needs no second look.
//!
//! A **stamp** describes a file after this program's last write to it (32 bits of its
//! [`Stamp`](super::files::Stamp)). Claims in a file that has another stamp when the record is
//! opened are compared, too: another program has changed it.
//!
//! Invariants:
//! - Every entry has a checksum over itself and its place; a torn end is cut, and entries after a
//!   wrong one are not believed.
//! - A record of another content is worth nothing.
//! - Entries that were read when the record was opened are on disk before anything depends on them.
//! - While a [`Record`] lives, no other process has it.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::ContentStoreError;
use super::folder::Folder;
use crate::model::FILES_MAX;
use crate::proto::swarm::{Hash, PIECES_MAX, PieceIndex, Pieces};
use crate::runtime::lock::LockedFile;

const MAGIC: &[u8; 20] = b"folkmoot resume 1\n\0\0";
const SUBJECT_BYTES: usize = 20 + 32 + 8 + 4;
const INODE_BYTES: usize = 8 + 8;
const HEADER_BYTES: usize = SUBJECT_BYTES + INODE_BYTES + 4;
const ENTRY_BYTES: usize = 12;

/// First word of an entry that is a mark; other entries have a piece's or file's number.
const MARK: u32 = u32::MAX;
const FORGET: u32 = 1 << 31;
/// Bit that tells a file's number from a piece's. Programs before this entry was known take it for
/// a piece that the content does not have, and leave it out.
const STAMP: u32 = 1 << 30;

// Numbers of pieces and files leave those values free.
const _: () = assert!(PIECES_MAX < STAMP && FILES_MAX < STAMP as usize);

/// Content of which a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordSubject {
    /// Identity of the share; zeros in the assignment, which has no name for content.
    pub(super) id: Hash,
    /// Division of the content.
    pub(super) pieces: Pieces,
}

/// Content of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordContent {
    /// The claim for each piece.
    pub(super) claims: Vec<Option<RecordedClaim>>,
    /// Stamps of the files, by their numbers.
    pub(super) stamps: BTreeMap<usize, u32>,
}

/// A claim that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordedClaim {
    /// The piece's checksum.
    pub(super) check: u32,
    /// True if the disk was told to keep the piece since.
    pub(super) is_marked: bool,
}

/// A record that is open and locked.
#[derive(Debug)]
pub(super) struct Record {
    file: LockedFile,
    path: PathBuf,
    /// Number of entries that are there.
    entries: u32,
}

impl Record {
    /// Opens the record `name`, or begins a new one, and returns its content.
    pub(super) fn open(
        folder: &Folder,
        name: &str,
        subject: &RecordSubject,
    ) -> Result<(Self, RecordContent), ContentStoreError> {
        let file = folder.own_file(name)?;
        let path = folder.path().join(name);
        let file = match LockedFile::lock(file) {
            Ok(file) => file,
            Err(TryLockError::WouldBlock) => return Err(ContentStoreError::InUse { path }),
            Err(TryLockError::Error(err)) => return Err(ContentStoreError::of("lock", path, err)),
        };
        let mut record = Self { file, path, entries: 0 };
        let found = record.read(subject).map_err(|err| record.failed("read", err))?;
        // A process that was killed before it waited for the disk may have written the record.
        record.file.sync_all().map_err(|err| record.failed("sync", err))?;
        Ok((record, found))
    }

    /// Records that a piece was written, with its checksum, and the stamps of its files since.
    pub(super) fn claim(
        &mut self,
        index: PieceIndex,
        check: u32,
        stamps: &[(usize, u32)],
    ) -> Result<(), ContentStoreError> {
        let mut entries = vec![(index.0, check)];
        entries.extend(stamps.iter().map(|(at, stamp)| (stamp_word(*at), *stamp)));
        self.append(&entries)
    }

    /// Records the stamps of files.
    pub(super) fn stamp(&mut self, stamps: &[(usize, u32)]) -> Result<(), ContentStoreError> {
        let entries: Vec<_> = stamps.iter().map(|(at, it)| (stamp_word(*at), *it)).collect();
        self.append(&entries)
    }

    /// Reads the record's present content.
    pub(super) fn found(
        &mut self,
        subject: &RecordSubject,
    ) -> Result<RecordContent, ContentStoreError> {
        self.entries = 0;
        self.read(subject).map_err(|err| self.failed("read", err))
    }

    /// Takes a claim back.
    pub(super) fn forget(&mut self, index: PieceIndex) -> Result<(), ContentStoreError> {
        self.append(&[(index.0 | FORGET, 0)])
    }

    /// Number of entries; see [`Self::mark`].
    pub(super) const fn entries(&self) -> u32 {
        self.entries
    }

    /// Records that the pieces of the first `entries` entries are on disk, and waits until this is
    /// on disk, too.
    pub(super) fn mark(&mut self, entries: u32) -> Result<(), ContentStoreError> {
        self.append(&[(MARK, entries)])?;
        self.file.sync_data().map_err(|err| self.failed("sync", err))
    }

    fn append(&mut self, entries: &[(u32, u32)]) -> Result<(), ContentStoreError> {
        let places = self.entries..;
        let bytes: Vec<_> =
            places.zip(entries).map(|(at, (word, check))| entry(at, *word, *check)).collect();
        self.file.write_all(bytes.as_flattened()).map_err(|err| self.failed("write", err))?;
        self.entries += u32::try_from(entries.len()).expect("files are bounded");
        Ok(())
    }

    /// Reads the entries; if they are of another content, begins anew.
    fn read(&mut self, subject: &RecordSubject) -> io::Result<RecordContent> {
        let mut claims = vec![None; subject.pieces.count() as usize];
        let mut stamps = BTreeMap::new();
        let header = header(subject);
        let mut bytes = Vec::new();
        // Longer than any record that this program writes: it is another file.
        let most = HEADER_BYTES as u64 + 8 * ENTRY_BYTES as u64 * u64::from(PIECES_MAX);
        self.file.seek(SeekFrom::Start(0))?;
        (&*self.file).take(most).read_to_end(&mut bytes)?;
        let Some(entries) = after_header(&bytes, &header) else {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            return Ok(RecordContent { claims, stamps });
        };
        // Position of each claim, to see which of them the marks cover.
        let mut made = vec![0_u32; claims.len()];
        let mut covered = 0;
        for bytes in entries.chunks_exact(ENTRY_BYTES) {
            let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let check = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            if bytes != entry(self.entries, word, check) {
                break;
            }
            if word == MARK {
                covered = covered.max(check);
            } else if word & (STAMP | FORGET) == STAMP {
                stamps.insert((word & !STAMP) as usize, check);
            } else if let Some(claim) = claims.get_mut((word & !FORGET) as usize) {
                let is_claim = word & FORGET == 0;
                *claim = is_claim.then_some(RecordedClaim { check, is_marked: false });
                made[(word & !FORGET) as usize] = self.entries;
            }
            self.entries += 1;
        }
        for (claim, made) in claims.iter_mut().zip(made) {
            if let Some(claim) = claim {
                claim.is_marked = made < covered;
            }
        }
        let end = HEADER_BYTES as u64 + u64::from(self.entries) * ENTRY_BYTES as u64;
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))?;
        Ok(RecordContent { claims, stamps })
    }

    fn failed(&self, action: &'static str, err: io::Error) -> ContentStoreError {
        ContentStoreError::of(action, &self.path, err)
    }
}

fn stamp_word(file: usize) -> u32 {
    STAMP | u32::try_from(file).expect("files are bounded")
}

fn header(subject: &RecordSubject) -> [u8; HEADER_BYTES] {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(MAGIC);
    header.extend(subject.id);
    header.extend(subject.pieces.size().to_be_bytes());
    header.extend(subject.pieces.piece_size().to_be_bytes());
    // These bytes once had the device and number of the file, which a restart of the machine may
    // change.
    header.extend([0; INODE_BYTES]);
    header.extend(crc32fast::hash(&header).to_be_bytes());
    header.try_into().expect("the fields add up to the header")
}

/// Bytes that follow the header, if it is of the same content.
fn after_header<'a>(bytes: &'a [u8], wanted: &[u8; HEADER_BYTES]) -> Option<&'a [u8]> {
    let (header, entries) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (fields, sum) = header.split_last_chunk::<4>()?;
    let is_same = fields[..SUBJECT_BYTES] == wanted[..SUBJECT_BYTES];
    (is_same && crc32fast::hash(fields).to_be_bytes() == *sum).then_some(entries)
}

fn entry(place: u32, word: u32, check: u32) -> [u8; ENTRY_BYTES] {
    let mut sum = crc32fast::Hasher::new();
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..4].copy_from_slice(&word.to_be_bytes());
    bytes[4..8].copy_from_slice(&check.to_be_bytes());
    sum.update(&place.to_be_bytes());
    sum.update(&bytes[..8]);
    bytes[8..].copy_from_slice(&sum.finalize().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NAME: &str = "x.resume";

    fn subject() -> RecordSubject {
        RecordSubject { id: [7; 32], pieces: Pieces::new(1_000, 10).unwrap() }
    }

    fn claims(dir: &tempfile::TempDir, subject: &RecordSubject) -> Vec<(u32, u32, bool)> {
        let folder = Folder::open(dir.path()).unwrap();
        let (_, found) = Record::open(&folder, NAME, subject).unwrap();
        let there = found.claims.iter().enumerate();
        there.filter_map(|(at, it)| it.map(|it| (at as u32, it.check, it.is_marked))).collect()
    }

    /// A record with claims of 0 to 3, a mark that covers two of them, and 3 taken back.
    fn written() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (mut record, found) = Record::open(&folder, NAME, &subject()).unwrap();
        assert!(found.claims.iter().all(Option::is_none) && found.stamps.is_empty());
        record.claim(PieceIndex(0), 100, &[]).unwrap();
        record.claim(PieceIndex(1), 101, &[]).unwrap();
        let covered = record.entries();
        record.claim(PieceIndex(2), 102, &[]).unwrap();
        record.claim(PieceIndex(3), 103, &[]).unwrap();
        record.mark(covered).unwrap();
        record.forget(PieceIndex(3)).unwrap();
        dir
    }

    #[test]
    fn a_mark_covers_the_claims_that_were_there_when_the_disk_was_told() {
        let dir = written();
        let wanted = vec![(0, 100, true), (1, 101, true), (2, 102, false)];
        assert_eq!(claims(&dir, &subject()), wanted);
        assert_eq!(claims(&dir, &subject()), wanted, "reading changes nothing");
    }

    #[test]
    fn a_record_torn_anywhere_is_believed_up_to_there() {
        let dir = written();
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        let all = claims(&dir, &subject());
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let entries = end.saturating_sub(HEADER_BYTES) / ENTRY_BYTES;
            let found = claims(&dir, &subject());
            assert_eq!(found.len(), if entries == 4 || entries == 5 { 4 } else { entries.min(3) });
            for claim in found.iter().filter(|it| it.0 < 3) {
                assert!(all.iter().any(|it| it.0 == claim.0 && it.1 == claim.1));
                assert!(!claim.2 || entries >= 5, "no mark was read: {found:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_ends_what_is_believed() {
        let dir = written();
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let before = (at.saturating_sub(HEADER_BYTES) / ENTRY_BYTES).min(4);
            let before = if at < HEADER_BYTES { 0 } else { before };
            assert_eq!(claims(&dir, &subject()).len(), before, "byte {at}");
        }
    }

    #[test]
    fn a_record_of_something_else_is_worth_nothing() {
        let other = [
            RecordSubject { id: [8; 32], ..subject() },
            RecordSubject { pieces: Pieces::new(1_000, 11).unwrap(), ..subject() },
            RecordSubject { pieces: Pieces::new(999, 10).unwrap(), ..subject() },
        ];
        for other in other {
            assert_eq!(claims(&written(), &other), []);
        }
    }

    #[test]
    fn the_last_stamp_of_each_file_counts_and_one_behind_a_torn_end_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (mut record, _) = Record::open(&folder, NAME, &subject()).unwrap();
        record.claim(PieceIndex(0), 100, &[(3, 1), (4, 2)]).unwrap();
        record.claim(PieceIndex(1), 101, &[(3, 7)]).unwrap();
        drop(record);
        let stamps = |folder| Record::open(folder, NAME, &subject()).unwrap().1.stamps;
        assert_eq!(stamps(&folder), BTreeMap::from([(3, 7), (4, 2)]));
        assert_eq!(claims(&dir, &subject()).len(), 2);
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(stamps(&folder), BTreeMap::from([(3, 1), (4, 2)]));
    }

    #[test]
    fn a_record_from_before_there_were_stamps_keeps_its_claims() {
        let dir = written();
        let path = dir.path().join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        bytes[SUBJECT_BYTES..SUBJECT_BYTES + INODE_BYTES].fill(5);
        let sum = crc32fast::hash(&bytes[..HEADER_BYTES - 4]).to_be_bytes();
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&sum);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(claims(&dir, &subject()).len(), 3);
    }

    #[test]
    fn a_record_in_use_is_left_alone() {
        let dir = written();
        let folder = Folder::open(dir.path()).unwrap();
        let held = Record::open(&folder, NAME, &subject()).unwrap();
        let again = Record::open(&folder, NAME, &subject());
        assert!(matches!(again, Err(ContentStoreError::InUse { .. })), "{again:?}");
        drop(held);
        assert_eq!(claims(&dir, &subject()).len(), 3);
    }

    #[test]
    fn a_record_let_go_is_free_although_a_child_still_holds_a_copy() {
        let dir = written();
        let folder = Folder::open(dir.path()).unwrap();
        let held = Record::open(&folder, NAME, &subject()).unwrap();
        let copy = held.0.file.try_clone().unwrap();
        drop(held);
        assert_eq!(claims(&dir, &subject()).len(), 3);
        drop(copy);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(NAME)).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let opened = Record::open(&folder, NAME, &subject());
        assert!(matches!(opened, Err(ContentStoreError::NotPlain { .. })), "{opened:?}");
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }
}
