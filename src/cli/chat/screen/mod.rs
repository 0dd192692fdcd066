//! The chat on a whole terminal: its picture and its keys.
//!
//! [`scroll`] decides which lines are seen, [`draw`] lays everything out; both are pure.

pub(super) mod draw;
pub(super) mod keys;
mod scroll;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;

use super::input::InputLine;
use crate::model::WallTime;
use scroll::Scroll;

/// State of the screen beside the model that it shows.
#[derive(Default)]
pub(super) struct Screen {
    /// Line that is being typed.
    input: InputLine,
    /// Visible part of the timeline.
    scroll: Scroll,
    /// Time zone of the clock times; UTC if there is none.
    zone: Option<TimeZone>,
}

impl Screen {
    /// A screen with the time zone of this machine.
    pub(super) fn here() -> Self {
        Self { zone: Some(TimeZone::system()), ..Self::default() }
    }

    /// Hour and minute of a moment.
    fn clock_time(&self, at: WallTime) -> String {
        let moment = i64::try_from(at.0).ok();
        let moment = moment.and_then(|it| jiff::Timestamp::from_millisecond(it).ok());
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        moment.map_or_else(
            || "--:--".to_owned(),
            |it| it.to_zoned(zone).strftime("%H:%M").to_string(),
        )
    }
}
