//! Final comparison of the logs: they must be equal, and hold every acknowledged message once.

use std::collections::BTreeMap;

use serde_json::json;

use super::fleet::Fleet;
use crate::cli::CliError;
use crate::cli::bench::figure::Sheet;
use crate::proto::chat::entry::{Body, Origin, SeqNo};
use crate::runtime::chat::store::{LogFile, LogStoreError};

/// Number of entries that are compared at a time.
const PAGE: u64 = 4_096;

/// Reads all logs and compares them.
///
/// # Errors
/// Fails if they differ, or a message is lost or doubled.
pub(super) fn check(
    sheet: &Sheet,
    fleet: &Fleet,
    acknowledged: &BTreeMap<Origin, u64>,
) -> Result<(), CliError> {
    let unreadable = |error: LogStoreError| CliError::Failed(error.to_string());
    let logs: Result<Vec<_>, _> = fleet.logs().map(|path| LogFile::open(&path)).collect();
    let mut logs = logs.map_err(unreadable)?;
    let lasts: Vec<_> = logs.iter().map(|it| it.last).collect();
    // A majority has the entries up to the last one of the middle log.
    let mut sorted = lasts.clone();
    sorted.sort_unstable();
    let of_majority = sorted[(sorted.len() - 1) / 2];
    let common = sorted[0];
    let mut hashes = Vec::new();
    for log in &mut logs {
        hashes.push(log.reader.hashes(&[common]).map_err(unreadable)?);
    }
    let are_equal = hashes.windows(2).all(|it| it[0] == it[1]);
    let whole = logs.iter().find(|it| it.last >= of_majority);
    let counted = whole.map(count).transpose().map_err(unreadable)?.unwrap_or_default();
    let lost: u64 = acknowledged
        .iter()
        .map(|(origin, last)| last.saturating_sub(counted.last.get(origin).copied().unwrap_or(0)))
        .sum();
    sheet.line(
        "logs",
        json!({ "equal": are_equal, "lost": lost, "doubled": counted.doubled,
            "out_of_order": counted.skipped, "entries": lasts, "messages": counted.messages }),
    )?;
    if are_equal && lost == 0 && counted.doubled == 0 && counted.skipped == 0 {
        return Ok(());
    }
    Err(CliError::Failed("the logs are not what they should be; see above".to_owned()))
}

#[derive(Debug, Default)]
struct Counted {
    last: BTreeMap<Origin, u64>,
    messages: u64,
    doubled: u64,
    skipped: u64,
}

fn count(log: &LogFile) -> Result<Counted, LogStoreError> {
    let mut counted = Counted::default();
    let mut next = SeqNo(1);
    while next <= log.last {
        let page = log.reader.page(next, PAGE, usize::MAX)?;
        for entry in &page.entries {
            if let Body::Chat(chat) = &entry.body {
                counted.messages += 1;
                let last = counted.last.entry(chat.msg_id.origin).or_default();
                counted.doubled += u64::from(chat.msg_id.number <= *last);
                counted.skipped += u64::from(chat.msg_id.number > *last + 1);
                *last = chat.msg_id.number.max(*last);
            }
        }
        let Some(last) = page.entries.last() else { break };
        next = SeqNo(last.seq_no.0 + 1);
    }
    Ok(counted)
}
