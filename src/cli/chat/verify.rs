//! Comparison of logs. Files are compared by their running hashes, and the place where two part is
//! found by halving: equal hashes at one number mean equal logs up to there.
//!
//! Final entries must be equal. Entries that one log has beyond them may differ from another's:
//! they were never confirmed, and are cut off when the member meets the leader.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::model::item_of;
use crate::cli::CliError;
use crate::proto::chat::entry::{Body, ChainHash, Entry, MemberId, SeqNo};
use crate::runtime::chat::store::{LogFile, LogStoreError};

/// Result of a comparison.
pub(in crate::cli) struct ComparisonResult {
    /// Each log with its end.
    logs: Vec<ComparedLog>,
    /// Places where two logs part, if they do.
    parted: Vec<Divergence>,
}

/// One log of a comparison.
struct ComparedLog {
    path: PathBuf,
    file: LogFile,
    /// Number of the last entry up to which it equals the log with the most final entries.
    equal: SeqNo,
}

/// Two logs that differ in an entry that both take for final.
struct Divergence {
    /// Indexes of the two logs in the list.
    logs: [usize; 2],
    /// The first number at which they differ.
    at: SeqNo,
    /// Entry of each log there, in words.
    entries: [String; 2],
}

/// Compares logs by their files.
///
/// # Errors
/// Fails if there are none, one cannot be read, or they are of several groups.
pub(in crate::cli) fn files(paths: &[PathBuf]) -> Result<ComparisonResult, CliError> {
    let mut logs = Vec::new();
    for path in paths {
        let file = LogFile::open(path).map_err(|error| unreadable(&error))?;
        let equal = file.commit;
        logs.push(ComparedLog { path: path.clone(), file, equal });
    }
    // The log with the most final entries is the measure of the others.
    logs.sort_by_key(|log| std::cmp::Reverse((log.file.commit, log.file.last)));
    let groups: Vec<_> = logs.iter().filter(|log| log.file.group.is_some()).collect();
    if let Some(other) = groups.iter().find(|log| log.file.group != groups[0].file.group) {
        return Err(CliError::Usage(format!(
            "{} and {} are logs of two groups; name logs of one",
            groups[0].path.display(),
            other.path.display()
        )));
    }
    let mut parted = Vec::new();
    for at in 1..logs.len() {
        let (head, tail) = logs.split_at_mut(at);
        let (a, b) = (&mut head[0].file, &mut tail[0].file);
        let equal = common(a, b).map_err(|error| unreadable(&error))?;
        tail[0].equal = equal;
        if equal < b.commit {
            let at_seq = SeqNo(equal.0 + 1);
            let entries = [shown(a, at_seq), shown(b, at_seq)]
                .map(|it| it.map_err(|error| unreadable(&error)));
            let [one, two] = entries;
            parted.push(Divergence { logs: [0, at], at: at_seq, entries: [one?, two?] });
        }
    }
    Ok(ComparisonResult { logs, parted })
}

fn unreadable(error: &LogStoreError) -> CliError {
    CliError::Failed(error.to_string())
}

/// The logs of a directory.
///
/// # Errors
/// Fails if it cannot be read or has none.
pub(super) fn logs_in(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let name = dir.display();
    let entries = std::fs::read_dir(dir).map_err(|error| {
        CliError::Failed(format!("cannot read {name}: {error}; name another with --log-dir"))
    })?;
    let is_log = |path: &PathBuf| {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        name.starts_with("peer_") && name.ends_with(".log")
    };
    let mut paths: Vec<_> = entries.filter_map(|it| Some(it.ok()?.path())).filter(is_log).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(CliError::Failed(format!(
            "there is no peer_*.log in {name}; name files, or another directory with --log-dir"
        )));
    }
    Ok(paths)
}

/// Number of the last entry up to which `b` equals the final entries of `a`, which has at least as
/// many.
fn common(a: &mut LogFile, b: &mut LogFile) -> Result<SeqNo, LogStoreError> {
    let reach = a.commit.min(b.last);
    if reach == SeqNo(0) || hash(a, reach)? == hash(b, reach)? {
        return Ok(reach);
    }
    let (mut equal, mut differ) = (0, reach.0);
    while differ - equal > 1 {
        let middle = equal.midpoint(differ);
        if hash(a, SeqNo(middle))? == hash(b, SeqNo(middle))? {
            equal = middle;
        } else {
            differ = middle;
        }
    }
    Ok(SeqNo(equal))
}

fn hash(log: &mut LogFile, at: SeqNo) -> Result<Option<ChainHash>, LogStoreError> {
    Ok(log.reader.hashes(&[at])?.first().map(|(_, chain)| *chain))
}

fn shown(log: &LogFile, at: SeqNo) -> Result<String, LogStoreError> {
    let page = log.reader.page(at, 1, usize::MAX)?;
    Ok(page.entries.first().map_or("nothing".to_owned(), |entry| words(entry)))
}

/// An entry in one line.
fn words(entry: &Entry) -> String {
    let Entry { term, leader, .. } = entry;
    let by = format!("(term {}, of {leader})", term.0);
    match &entry.body {
        Body::Opening => format!("{leader} begins to lead {by}"),
        Body::Chat(chat) => format!("{} {by}", item_of(entry, chat, MemberId(0)).line()),
        Body::Membership(group) => {
            let ids: Vec<_> = group.members.iter().map(|it| it.id).collect();
            format!("the group is {} {by}", super::format::list(&ids))
        }
    }
}

impl ComparisonResult {
    /// True if all are equal in what is final.
    pub(in crate::cli) const fn is_equal(&self) -> bool {
        self.parted.is_empty()
    }

    /// Result for people.
    pub(in crate::cli) fn text(&self) -> String {
        let mut text = String::new();
        for log in &self.logs {
            let (path, file, equal) = (log.path.display(), &log.file, log.equal.0);
            let _ =
                write!(text, "{path}: {} entries, {} known as final", file.last.0, file.commit.0);
            let _ = writeln!(text, ", equal up to seq {equal}");
        }
        for parting in &self.parted {
            let _ = writeln!(text, "they part at seq {}:", parting.at.0);
            for (log, entry) in parting.logs.iter().zip(&parting.entries) {
                let _ = writeln!(text, "  {}: {entry}", self.logs[*log].path.display());
            }
        }
        if self.is_equal() {
            let _ = writeln!(text, "equal: {} logs up to seq {}", self.logs.len(), self.equal().0);
        }
        text
    }

    /// Number of the last entry up to which all logs are equal.
    pub(in crate::cli) fn equal(&self) -> SeqNo {
        self.logs.iter().map(|log| log.equal).min().unwrap_or_default()
    }

    /// Result for programs.
    pub(super) fn json(&self) -> Value {
        let path = |at: usize| self.logs[at].path.display().to_string();
        let logs = self.logs.iter().enumerate().map(|(at, log)| {
            json!({
                "file": path(at), "member": log.file.whose.map(|(id, _)| id.0),
                "final": log.file.commit.0, "last": log.file.last.0, "equal_to": log.equal.0,
            })
        });
        let parted = self.parted.iter().map(|it| {
            json!({
                "files": it.logs.map(path), "seq_no": it.at.0, "entries": it.entries,
            })
        });
        json!({
            "equal": self.is_equal(), "logs": logs.collect::<Vec<_>>(),
            "parted": parted.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng as _;

    use super::*;
    use crate::cli::chat::model::tests::{chat, entry};
    use crate::machine::chat::Record;
    use crate::model::{KeyPair, Rng};
    use crate::proto::chat::entry::GroupId;
    use crate::runtime::chat::store;

    /// The log of member `id` with these texts from number 1 on, final up to `commit`.
    fn log(dir: &Path, id: u32, group: u8, texts: &[String], commit: u64) -> PathBuf {
        let key = KeyPair::generate(&mut Rng::seed_from_u64(id.into())).public();
        let mut opened = store::open(dir, MemberId(id), key).unwrap();
        let mut records =
            vec![Record::Group { group: GroupId([group; 16]), me: MemberId(id), key }];
        for (number, text) in (1..).zip(texts) {
            let body = Body::Chat(chat(1, number, "general", text));
            records.push(Record::Entry(Arc::clone(&entry(number, body))));
        }
        records.push(Record::Commit { seq_no: SeqNo(commit) });
        opened.log.append(&records).unwrap();
        dir.join(format!("peer_{id}.log"))
    }

    fn texts(count: usize) -> Vec<String> {
        (1..=count).map(|it| format!("message {it}")).collect()
    }

    #[test]
    fn equal_logs_of_different_length_are_equal() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 1, 7, &texts(30), 30);
        log(dir.path(), 2, 7, &texts(20), 18);
        let verdict = files(&logs_in(dir.path()).unwrap()).unwrap();
        assert!(verdict.is_equal(), "{}", verdict.text());
        assert!(verdict.text().contains("equal: 2 logs up to seq 20"), "{}", verdict.text());
        assert!(verdict.text().contains("20 entries, 18 known as final"), "{}", verdict.text());
    }

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        for at in [1, 2, 500, 1_023, 1_024, 1_025, 2_999, 3_000] {
            let dir = tempfile::tempdir().unwrap();
            let mut other = texts(3_000);
            other[at - 1] = "another".into();
            let one = log(dir.path(), 1, 7, &texts(3_000), 3_000);
            let two = log(dir.path(), 2, 7, &other, 3_000);
            let verdict = files(&[one, two]).unwrap();
            assert_eq!(verdict.json()["parted"][0]["seq_no"], at, "{}", verdict.text());
            assert!(verdict.text().contains("<peer_1>: another"), "{}", verdict.text());
            assert!(verdict.text().contains(&format!("<peer_1>: message {at} ")));
        }
    }

    #[test]
    fn what_is_not_final_may_differ() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = texts(30);
        other[25] = "another".into();
        let paths = [log(dir.path(), 1, 7, &texts(30), 30), log(dir.path(), 2, 7, &other, 25)];
        let verdict = files(&paths).unwrap();
        assert_eq!((verdict.is_equal(), verdict.equal()), (true, SeqNo(25)));
    }

    #[test]
    fn logs_of_two_groups_and_missing_logs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [log(dir.path(), 1, 7, &texts(3), 3), log(dir.path(), 2, 8, &texts(3), 3)];
        let text = files(&paths).err().map(|it| it.to_string()).unwrap();
        assert!(text.contains("two groups"), "{text}");
        let text = logs_in(&dir.path().join("none")).unwrap_err().to_string();
        assert!(text.contains("--log-dir"), "{text}");
        let text = files(&[dir.path().join("peer_9.log")]).err().unwrap().to_string();
        assert!(text.contains("peer_9.log"), "{text}");
    }
}
