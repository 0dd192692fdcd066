//! Words for the comparison of all members' logs with this one's.

use serde_json::{Value, json};

use crate::proto::chat::entry::MemberId;
use crate::runtime::chat::{LogComparison, VerifyReport};

/// The answer to `peer chat verify`, of member `me`.
pub(super) fn answer(report: &VerifyReport, me: MemberId) -> Value {
    let hash = hex::encode(report.hash.0);
    let mut lines = vec![format!("{me}: {} final, hash {}", report.commit.0, &hash[..16])];
    for (id, verdict) in &report.members {
        lines.push(match verdict {
            LogComparison::Equal { up_to } => format!("{id}: equal up to seq {}", up_to.0),
            LogComparison::Differs { from } => format!("{id}: another log from seq {} on", from.0),
            LogComparison::Silent => format!("{id}: no answer"),
        });
    }
    let silent =
        report.members.iter().filter(|(_, it)| matches!(it, LogComparison::Silent)).count();
    let compared = report.members.len() - silent + 1;
    lines.push(if report.is_whole() {
        format!("equal: {compared} logs")
    } else {
        "the logs part; peer chat verify FILE... shows the entries".to_owned()
    });
    json!({
        "lines": lines,
        "json": { "equal": report.is_whole(), "compared": compared, "report": report },
    })
}
