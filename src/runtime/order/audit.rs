//! Check of a whole log by itself, and of two logs against each other, whether their members run
//! or not.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::machine::bft::Record;
use crate::proto::bft::message::SlotContent;
use crate::proto::bft::{
    Certificate, Committee, ContentDigest, EpochNo, OrderConflict, OrderId, OrderVerifier, SlotNo,
};
use crate::proto::chat::entry::{MemberId, SeqNo};
use crate::runtime::member_log::{LogStoreError, RecordFault, replay};

/// Reason why a log cannot be checked, or does not hold.
#[derive(Debug)]
pub enum AuditError {
    /// The file cannot be read, or a record contradicts those before it.
    Log(LogStoreError),
    /// There is no log at this path, for this reason.
    NoLog(PathBuf, String),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::NoLog(path, reason) => write!(f, "{} is no log: {reason}", path.display()),
        }
    }
}

impl Error for AuditError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Log(error) => Some(error),
            Self::NoLog(..) => None,
        }
    }
}

/// A log of which each certificate, header, bundle and place was checked.
#[derive(Debug)]
pub struct AuditedLog {
    /// Member that owns the log.
    pub me: MemberId,
    verifier: OrderVerifier,
    /// Digests of the headers of all final slots, from the first on.
    digests: Vec<ContentDigest>,
    /// Certificates of COMMITs by their slots.
    certificates: BTreeMap<SlotNo, Certificate>,
    /// Committees by epoch.
    committees: BTreeMap<EpochNo, Committee>,
    /// Contents that are not final yet, by the digests of their headers.
    open: BTreeMap<ContentDigest, Arc<SlotContent>>,
}

/// Two logs whose final slots differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConflict {
    /// First slot that differs.
    pub slot: SlotNo,
    /// The two certificates that exclude each other, at this slot; `None` if the logs have no
    /// certificates of one slot there.
    pub conflict: Option<(SlotNo, OrderConflict)>,
}

impl AuditedLog {
    /// Reads and checks the log at `path`: the file, or the directory that holds it.
    ///
    /// # Errors
    /// Fails if there is none, it cannot be read, or it does not hold.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let no_log = |reason: &str| AuditError::NoLog(path.to_owned(), reason.to_owned());
        let path = log_in(path).map_err(|reason| no_log(&reason))?;
        let file = File::open(&path).map_err(|error| no_log(&error.to_string()))?;
        let mut log = None;
        let read = replay((&path, &file), None, |json, _| {
            let record = serde_json::from_slice(json)
                .map_err(|error| RecordFault::Newer(error.to_string()))?;
            match &mut log {
                None => log = Some(Self::begin(record).map_err(RecordFault::Corrupt)?),
                Some(log) => log.take(record).map_err(RecordFault::Corrupt)?,
            }
            Ok(true)
        });
        read.map_err(AuditError::Log)?;
        log.ok_or_else(|| no_log("it is empty"))
    }

    fn begin(record: Record) -> Result<Self, String> {
        let Record::Group { committee, salt, me } = record else {
            return Err("it names no group before it".to_owned());
        };
        Ok(Self {
            me,
            verifier: OrderVerifier::new((*committee).clone(), &salt),
            digests: Vec::new(),
            certificates: BTreeMap::new(),
            committees: BTreeMap::from([(EpochNo(0), (*committee).clone())]),
            open: BTreeMap::new(),
        })
    }

    fn take(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Slot(content) if content.header.slot > self.verifier.last().0 => {
                let digest = content.header.digest(&self.group());
                self.open.insert(digest, content);
                Ok(())
            }
            Record::Final(certificate) => self.take_final(certificate),
            Record::Slot(_)
            | Record::Group { .. }
            | Record::View { .. }
            | Record::Typed(_)
            | Record::Prepared(_)
            | Record::Hole { .. }
            | Record::Life { .. }
            | Record::Evidence(_) => Ok(()),
        }
    }

    /// Takes all slots up to that of a certificate.
    fn take_final(&mut self, certificate: Certificate) -> Result<(), String> {
        let (slot, digest) = (certificate.subject.slot, certificate.subject.digest);
        let (last, tip) = self.verifier.last();
        if slot <= last {
            return match self.digest(slot) {
                Some(known) if known == digest => Ok(()),
                _ => Err(format!("slot {}: the certificate is of another header", slot.0)),
            };
        }
        let mut chain = Vec::new();
        let mut wanted = digest;
        while wanted != tip {
            let content = self.open.get(&wanted).ok_or_else(|| {
                format!("slot {}: not all contents up to its certificate are there", slot.0)
            })?;
            wanted = content.header.parent;
            chain.push(Arc::clone(content));
        }
        for content in chain.iter().rev() {
            let own = (content.header.slot == slot).then_some(&certificate);
            self.verifier.take(content, own).map_err(|fault| fault.to_string())?;
            self.digests.push(self.verifier.last().1);
            self.committees
                .entry(self.verifier.epoch())
                .or_insert_with(|| self.verifier.committee().clone());
        }
        self.open.retain(|_, it| it.header.slot > slot);
        self.certificates.insert(slot, certificate);
        Ok(())
    }

    fn digest(&self, slot: SlotNo) -> Option<ContentDigest> {
        let at = usize::try_from(slot.0.checked_sub(1)?).ok()?;
        self.digests.get(at).copied()
    }

    /// Identity of the group.
    pub const fn group(&self) -> OrderId {
        self.verifier.group()
    }

    /// Last final slot.
    pub const fn slot(&self) -> SlotNo {
        self.verifier.certified()
    }

    /// Last final place.
    pub const fn place(&self) -> SeqNo {
        self.verifier.place()
    }

    /// First final slot in which another log of the group differs; `None` if none does as far as
    /// both go.
    #[must_use]
    pub fn conflict_with(&self, other: &Self) -> Option<LogConflict> {
        let pairs = self.digests.iter().zip(&other.digests);
        let slot = (1..).zip(pairs).find(|(_, (mine, its))| mine != its)?.0;
        let (slot, epoch) = (SlotNo(slot), |it: &Certificate| it.subject.epoch);
        let conflict = self.certificates.range(slot..).find_map(|(at, mine)| {
            let its = other.certificates.get(at)?;
            let committee = self.committees.get(&epoch(mine))?;
            Some((*at, OrderConflict::between(&self.group(), committee, (mine, its))?))
        });
        Some(LogConflict { slot, conflict })
    }
}

/// The log's file: `path` itself, or the one in the directory.
fn log_in(path: &Path) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(path).map_err(|error| error.to_string())?;
    let mut logs = entries.filter_map(|it| Some(it.ok()?.path()));
    let is_log = |it: &PathBuf| it.extension().is_some_and(|ending| ending == "log");
    logs.find(is_log).ok_or_else(|| "no file in it ends with .log".to_owned())
}
