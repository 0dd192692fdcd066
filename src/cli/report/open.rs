//! Log lines of a peer without seeds: the peers it calls first, and those it gives up.

use ::log::Level;
use serde_json::json;

use crate::cli::log::LogLine;
use crate::cli::text::foreign;
use crate::machine::open::Event;

/// Log line of an event of a fleet without seeds, if it is worth one.
pub(super) fn open_line(event: &Event) -> Option<LogLine> {
    let line = match event {
        Event::Call { .. } => return None,
        Event::OwnAddress { endpoint } => {
            let message = format!("{endpoint} is this peer's own address: --join ignores it");
            let fields = json!({ "endpoint": endpoint });
            LogLine::new(Level::Warn, "bootstrap_own_address", message, fields)
        }
        Event::Unreachable { to, reason, retry_in } => {
            let reason = foreign(reason);
            let pause = retry_in.as_secs_f32();
            let message = format!(
                "cannot join by {to}: {reason}; tries again in {pause:.1} s, and goes on trying"
            );
            let retry_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            let fields = json!({ "peer": to, "reason": reason, "retry_ms": retry_ms });
            LogLine::new(Level::Warn, "bootstrap_unreachable", message, fields)
        }
        Event::Joined { fleet } => {
            let fleet = foreign(fleet);
            let message = format!("belongs to the fleet {fleet:?} from now on");
            LogLine::new(Level::Info, "fleet_joined", message, json!({ "fleet": fleet }))
        }
        Event::Met { to } => {
            let message = format!("{to} can be reached now, and is a neighbor");
            LogLine::new(Level::Info, "bootstrap_met", message, json!({ "peer": to }))
        }
        Event::Dropped { life } => {
            let message = format!(
                "drops {}: it does not answer this peer; without seeds that binds nobody else",
                life.endpoint
            );
            let fields = json!({ "endpoint": life.endpoint, "incarnation": life.incarnation });
            LogLine::new(Level::Info, "dropped", message, fields)
        }
    };
    Some(line)
}
