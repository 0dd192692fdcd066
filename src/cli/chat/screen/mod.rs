//! The chat on a whole terminal: what is shown, and what keys do.
//!
//! [`scroll`] decides which lines are seen, [`draw`] puts everything in its place; both are pure.

pub(super) mod draw;
pub(super) mod keys;
mod scroll;
pub(super) mod terminal;
#[cfg(test)]
mod tests;

use super::input::Input;
use scroll::Scroll;

/// What a screen has beside the book that it shows.
#[derive(Default)]
pub(super) struct Screen {
    /// What is being typed.
    input: Input,
    /// Which part of the timeline is seen.
    scroll: Scroll,
}
