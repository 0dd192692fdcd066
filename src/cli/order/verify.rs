//! `peer order verify`: proofs and whole logs, checked without any member.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::OrderVerifyArgs;
use crate::cli::CliError;
use crate::cli::output::print;
use crate::cli::text::escape;
use crate::proto::bft::proof::{PROOF_BYTES_MAX, PlaceProof};
use crate::proto::bft::{OrderId, ProvenMessage};
use crate::proto::chat::entry::MemberId;
use crate::runtime::order::audit::{AuditError, AuditedLog, LogConflict};

/// Checks all files.
///
/// # Errors
/// Fails if one cannot be read, or does not hold.
pub(super) fn run(args: &OrderVerifyArgs) -> Result<(), CliError> {
    let (logs, proofs): (Vec<_>, Vec<_>) = args.files.iter().partition(|it| it.is_dir());
    let mut faults = 0;
    if !proofs.is_empty() {
        let group = args.group.ok_or_else(|| {
            let text = "a proof holds for a group: name it with --group, 64 digits that somebody \
                        you trust has told you; a member's: peer order status";
            CliError::Usage(text.to_owned())
        })?;
        for file in proofs {
            faults += check_proofs(file, &group, args.json)?;
        }
    }
    faults += check_logs(&logs, args)?;
    match faults {
        0 => Ok(()),
        1 => Err(CliError::Failed("one proof or log does not hold; see above".to_owned())),
        many => Err(CliError::Failed(format!("{many} proofs or logs do not hold; see above"))),
    }
}

/// Checks logs, each by itself and then against the others of its group; returns the number of
/// those that do not hold, and of pairs that contradict each other.
fn check_logs(files: &[&PathBuf], args: &OrderVerifyArgs) -> Result<usize, CliError> {
    let (mut faults, mut logs) = (0, Vec::new());
    for file in files {
        let name = file.display();
        let audited = match AuditedLog::read(file) {
            Err(error @ AuditError::NoLog(..)) => return Err(CliError::Failed(error.to_string())),
            Err(AuditError::Log(error)) => Err(error.to_string()),
            Ok(log) => match args.group.filter(|group| *group != log.group()) {
                Some(_) => Err(format!("it is of another group, {}", log.group())),
                None => Ok(log),
            },
        };
        let shown = match (&audited, args.json) {
            (Ok(log), false) => format!("{name}: {}", whole_line(log)),
            (Err(error), false) => format!("{name}: DOES NOT HOLD: {}", escape(error)),
            (Ok(log), true) => json!({
                "file": file, "member": log.me, "group": log.group(), "slots": log.slot(),
                "places": log.place(),
            })
            .to_string(),
            (Err(error), true) => json!({ "file": file, "error": error }).to_string(),
        };
        print(&format!("{shown}\n"))?;
        faults += usize::from(audited.is_err());
        logs.extend(audited.ok().map(|log| (file, log)));
    }
    for (at, (file, log)) in logs.iter().enumerate() {
        for (other_file, other) in logs[..at].iter().filter(|(_, it)| it.group() == log.group()) {
            let Some(conflict) = log.conflict_with(other) else { continue };
            faults += 1;
            let (one, two) = (other_file.display(), file.display());
            let text = conflict_line(&conflict);
            print(&if args.json {
                let both = conflict.conflict.as_ref().map(|(_, it)| &it.signed_both);
                let slot = conflict.slot;
                let pair = [other_file, file];
                format!("{}\n", json!({ "files": pair, "differ_at": slot, "signed_both": both }))
            } else {
                format!("{one} and {two} CONTRADICT EACH OTHER {text}\n")
            })?;
        }
    }
    Ok(faults)
}

fn whole_line(log: &AuditedLog) -> String {
    let (slots, places) = (log.slot().0, log.place().0);
    let what = match places {
        0 => "nothing is final yet".to_owned(),
        _ => format!("places 1 to {places}, slots 1 to {slots}, are final and signed"),
    };
    format!("{} of the group {}: {what}", log.me, log.group())
}

fn conflict_line(conflict: &LogConflict) -> String {
    let from = format!("from slot {} on", conflict.slot.0);
    let Some((slot, it)) = &conflict.conflict else {
        return format!("{from}; no slot has a certificate in both, so nobody is to be named");
    };
    let ids: Vec<_> = it.signed_both.iter().map(MemberId::to_string).collect();
    let who = if it.is_one_view {
        "each of them lied"
    } else {
        "more members lied than the group bears, most of these among them"
    };
    format!("{from}; {} signed both for slot {}: {who}", ids.join(", "), slot.0)
}

/// Checks the proofs in a file, one a line; returns the number of those that do not hold.
fn check_proofs(file: &Path, group: &OrderId, json: bool) -> Result<usize, CliError> {
    let name = file.display();
    let unreadable =
        |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot read {name}: {error}"));
    let size = std::fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if size > 16 * PROOF_BYTES_MAX as u64 {
        return Err(unreadable(&"it is too large for proofs; name fewer at a time"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let mut faults = 0;
    let proofs = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let mut count = 0;
    for (number, line) in proofs {
        count += 1;
        let verdict = PlaceProof::parse(line.trim()).and_then(|it| it.verify(group));
        faults += usize::from(verdict.is_err());
        let shown = match (verdict, json) {
            (Ok(it), false) => format!("{name}:{number}: {}", proven_line(&it)),
            (Err(error), false) => {
                format!("{name}:{number}: NOT PROVED: {}", escape(&error.to_string()))
            }
            (Ok(it), true) => json!({ "file": file, "line": number, "proven": it }).to_string(),
            (Err(error), true) => {
                json!({ "file": file, "line": number, "error": error.to_string() }).to_string()
            }
        };
        print(&format!("{shown}\n"))?;
    }
    if count == 0 {
        return Err(unreadable(
            &"it holds no proof; a proof is one line, as peer order proof prints it",
        ));
    }
    Ok(faults)
}

fn proven_line(it: &ProvenMessage) -> String {
    let signers: Vec<_> = it.signers.iter().map(MemberId::to_string).collect();
    format!(
        "place {} is {:?} by {}; final by {}",
        it.place.0,
        escape(&it.payload),
        it.author(),
        signers.join(", ")
    )
}
