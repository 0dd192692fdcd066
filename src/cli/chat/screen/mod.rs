//! The chat on a whole terminal: its picture and its keys.
//!
//! [`scroll`] decides which lines are seen, [`draw`] lays everything out; both are pure.

pub(super) mod draw;
pub(super) mod keys;
mod scroll;
#[cfg(test)]
mod tests;

use super::input::InputLine;
use scroll::Scroll;

/// State of the screen beside the model that it shows.
#[derive(Default)]
pub(super) struct Screen {
    /// Line that is being typed.
    input: InputLine,
    /// Visible part of the timeline.
    scroll: Scroll,
}
