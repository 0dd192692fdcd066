//! The terminal itself: taken over at the start, given back at the end, whatever the end is.

use std::io::{self, Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Rect;

use super::{Screen, draw};
use crate::cli::chat::book::Book;
use crate::runtime::thread;

/// Keys that may wait; a person types no faster, and a paste is one.
const KEYS_MAX: usize = 256;

/// Whether this process has taken the terminal over.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, as long as it is taken over.
pub(in crate::cli::chat) struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    /// Takes the terminal over; also when the process panics it is given back.
    ///
    /// # Errors
    /// When it is none, or refuses.
    pub(in crate::cli::chat) fn take() -> io::Result<Self> {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
        enable_raw_mode()?;
        IS_TAKEN.store(true, Ordering::SeqCst);
        let taken = execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)
            .and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(inner) => Ok(Self { inner }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub(in crate::cli::chat) fn draw(
        &mut self,
        screen: &mut Screen,
        book: &Book,
        now_ms: u64,
    ) -> io::Result<()> {
        self.inner.draw(|frame| draw::draw(frame, screen, book, now_ms)).map(|_| ())
    }

    /// Draws everything at the next time.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub(in crate::cli::chat) fn forget(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where its cursor is: the answer comes by the way of
        // the keys, and would not arrive before the next key.
        let size = self.inner.size()?;
        self.inner.resize(Rect::new(0, 0, size.width, size.height))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Leaves the terminal as it was found; does nothing where it was not taken over.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

/// What the terminal tells, as it comes; the channel ends with the terminal. The thread that
/// waits for keys ends with the process.
///
/// # Errors
/// When there is no room for a thread.
pub(in crate::cli::chat) fn keys() -> io::Result<Receiver<Event>> {
    let (tell, told) = bounded(KEYS_MAX);
    thread::spawn("keys", move || {
        while let Ok(event) = event::read() {
            if tell.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(told)
}
