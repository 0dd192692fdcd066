//! Progress of a swarm: a bar on a terminal, lines of JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::CliError;
use crate::cli::size::Size;
use crate::cli::span::Span;
use crate::network::shares::View;

/// Text of a progress beside the bar.
fn text(view: &View) -> String {
    let peers = if view.peers == 1 { "peer" } else { "peers" };
    let mut text = format!("{} {peers}", view.peers);
    if view.have < view.pieces {
        text += &format!(", {}/s", Size(view.down_rate));
    }
    if view.up > 0 {
        text += &format!(", up {}/s", Size(view.up_rate));
    }
    match view.left() {
        Some(left) => text + &format!(", {} left", Span(left)),
        None => text,
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
        bar.set_message(text(view));
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
        assert_eq!(text(&view), "2 peers, 10.0 KiB/s, 1m left");
        assert_eq!(view.json()["left_s"], 60);
        let stalled = View { down_rate: 0, ..view.clone() };
        assert_eq!((stalled.left(), stalled.json()["left_s"].is_null()), (None, true));
        let done = View { have: 100, up: 7, up_rate: 2 << 20, peers: 1, ..view };
        assert_eq!(text(&done), "1 peer, up 2.00 MiB/s");
        assert_eq!(View::default().left(), None, "empty content is there at once");
    }
}
