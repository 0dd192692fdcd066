//! Progress of a swarm: a bar on a terminal, lines of JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::CliError;
use crate::cli::size::Size;
use crate::cli::span::Span;
use crate::runtime::swarm::Progress;

/// Progress of one swarm at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct View {
    /// Number of pieces of the content.
    pub(in crate::cli) pieces: u32,
    /// Number of pieces that are here.
    pub(in crate::cli) have: u32,
    /// Size of the content, in bytes.
    pub(in crate::cli) size: u64,
    /// Number of connected neighbors.
    pub(in crate::cli) peers: usize,
    /// Bytes that were received and sent since the start.
    pub(in crate::cli) down: u64,
    pub(in crate::cli) up: u64,
    /// Bytes a second that were received and sent lately.
    pub(in crate::cli) down_rate: u64,
    pub(in crate::cli) up_rate: u64,
}

impl View {
    /// Time for the missing pieces at this rate, if any come.
    fn left(&self) -> Option<Duration> {
        let missing = u64::from(self.pieces.saturating_sub(self.have));
        let bytes = self.size.checked_mul(missing)?.checked_div(self.pieces.into()).unwrap_or(0);
        let secs = bytes.checked_div(self.down_rate)?;
        (missing > 0).then(|| Duration::from_secs(secs.max(1)))
    }

    /// Text beside the bar.
    fn text(&self) -> String {
        let peers = if self.peers == 1 { "peer" } else { "peers" };
        let mut text = format!("{} {peers}", self.peers);
        if self.have < self.pieces {
            text += &format!(", {}/s", Size(self.down_rate));
        }
        if self.up > 0 {
            text += &format!(", up {}/s", Size(self.up_rate));
        }
        match self.left() {
            Some(left) => text + &format!(", {} left", Span(left)),
            None => text,
        }
    }

    /// The progress for programs.
    pub(in crate::cli) fn json(&self) -> Value {
        json!({
            "pieces": self.pieces, "have": self.have, "size": self.size, "peers": self.peers,
            "down_bytes": self.down, "up_bytes": self.up,
            "down_per_s": self.down_rate, "up_per_s": self.up_rate,
            "left_s": self.left().map(|it| it.as_secs()),
        })
    }
}

impl View {
    /// Progress of a swarm over `size` bytes.
    pub(in crate::cli) fn of(progress: &Progress, size: u64) -> Self {
        // A rate is no exact count, and never below zero.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float to an integer saturates"
        )]
        let whole = |rate: f64| rate.round() as u64;
        Self {
            pieces: progress.pieces,
            have: progress.have,
            size,
            peers: progress.peers,
            down: progress.down,
            up: progress.up,
            down_rate: whole(progress.down_rate),
            up_rate: whole(progress.up_rate),
        }
    }
}

/// The standard output of a command that may show a bar below its lines.
#[derive(Debug)]
pub(in crate::cli) struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    /// A screen with a bar, if standard output and standard error are terminals.
    pub(in crate::cli) fn new(name: &str) -> Self {
        let is_seen = io::stdout().is_terminal() && io::stderr().is_terminal();
        Self { bar: is_seen.then(|| bar(name)) }
    }

    /// A screen without a bar.
    pub(in crate::cli) const fn plain() -> Self {
        Self { bar: None }
    }

    /// True if a person looks on.
    pub(in crate::cli) const fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Moves the bar.
    pub(in crate::cli) fn show(&self, view: &View) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(view.pieces.into());
        bar.set_position(view.have.into());
        bar.set_message(view.text());
    }

    /// Writes lines, each with its newline, in one write. A reader that has gone is no fault.
    ///
    /// # Errors
    /// Fails if the output cannot be written, for any other reason.
    pub(in crate::cli) fn write(&self, lines: &str) -> Result<(), CliError> {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(lines.as_bytes()).and_then(|()| out.flush())
        };
        let written = match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
        written.map_err(|source| CliError::System { action: "write the output", source })
    }

    /// Takes the bar away.
    pub(in crate::cli) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} pieces, {msg}");
    let bar = ProgressBar::new(0);
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(name.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_says_how_long_the_rest_will_take() {
        let view = View {
            pieces: 100,
            have: 40,
            size: 1_000 << 10,
            peers: 2,
            down: 400 << 10,
            down_rate: 10 << 10,
            ..View::default()
        };
        assert_eq!(view.text(), "2 peers, 10.0 KiB/s, 1m left");
        assert_eq!(view.json()["left_s"], 60);
        let stalled = View { down_rate: 0, ..view.clone() };
        assert_eq!((stalled.left(), stalled.json()["left_s"].is_null()), (None, true));
        let done = View { have: 100, up: 7, up_rate: 2 << 20, peers: 1, ..view };
        assert_eq!(done.text(), "1 peer, up 2.00 MiB/s");
        assert_eq!(View::default().left(), None, "empty content is there at once");
    }
}
