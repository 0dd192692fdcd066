//! Direct messages and contacts in the words of the log.

use ::log::Level;
use serde_json::json;

use super::counted;
use crate::cli::log::LogLine;
use crate::cli::text::foreign;
use crate::machine::{contacts, direct};

/// Log line of a direct message, if it is worth one.
pub(super) fn direct(event: &direct::Event) -> Option<LogLine> {
    use direct::Event as It;
    match event {
        It::Arrived { from, number, topic, data } => {
            let bytes = data.len();
            let size = counted(bytes, "byte");
            let topic = foreign(topic);
            // The message is for the person who runs this process, and this is the place to read
            // it.
            let text = std::str::from_utf8(data).map(foreign).ok();
            let shown = text.clone().unwrap_or_else(|| "no text".to_owned());
            let message = format!("message from {from} about {topic} ({size}): {shown}");
            let fields = json!({
                "from": from, "number": number, "topic": topic, "bytes": bytes, "text": text,
            });
            Some(LogLine::new(Level::Info, "direct", message, fields))
        }
        It::Lapsed { from, number } => {
            let message = format!(
                "the application did not answer a direct message from {from} in time; nobody \
                 knows whether it was taken"
            );
            let fields = json!({ "from": from, "number": number });
            Some(LogLine::new(Level::Warn, "direct_lapsed", message, fields))
        }
        It::Failed { to, kind, reason, .. } => {
            let (kind, reason) = (kind.as_str(), foreign(reason));
            let message = format!("a direct message to {to} failed ({kind}): {reason}");
            let fields = json!({ "to": to, "kind": kind, "reason": reason });
            Some(LogLine::new(Level::Info, "direct_failed", message, fields))
        }
        // A success is the sender's business; the rest are orders to the node.
        It::Sent { .. }
        | It::Call { .. }
        | It::Hangup { .. }
        | It::Malformed { .. }
        | It::Busy { .. } => None,
    }
}

/// Log line of a contact lost or regained.
pub(super) fn contacts(event: &contacts::Event) -> Option<LogLine> {
    use contacts::Event as It;
    match event {
        It::Unreachable { peer, silent_for } => {
            let secs = silent_for.as_secs_f32();
            let message = format!(
                "{peer} is unreachable: nothing came from it for {secs:.1} s; direct sends to it \
                 fail at once until it is back"
            );
            let silent_ms = super::millis(*silent_for);
            let fields = json!({ "peer": peer, "silent_ms": silent_ms });
            Some(LogLine::new(Level::Info, "unreachable", message, fields))
        }
        It::Reachable { peer, after } => {
            let secs = after.as_secs_f32();
            let message = format!("{peer} is reachable again, after {secs:.1} s");
            let after_ms = super::millis(*after);
            Some(LogLine::new(
                Level::Info,
                "reachable",
                message,
                json!({ "peer": peer, "after_ms": after_ms }),
            ))
        }
        It::NotAdded { peer, reason } => {
            let message = format!("{peer} cannot be added: {reason}");
            let fields = json!({ "peer": peer, "reason": reason });
            Some(LogLine::new(Level::Warn, "not_added", message, fields))
        }
        It::Call { .. } => None,
    }
}
