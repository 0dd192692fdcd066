//! The terminal: taken over at the start, and given back at every kind of end.

use std::io::{self, IsTerminal as _, Stdout, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use nix::unistd::{Pid, getsid};
use ratatui::Frame;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Rect;
use signal_hook::consts::{SIGCONT, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::cli::run::signals;
use crate::runtime::thread;

/// Largest number of waiting keys; a person types no faster, a paste is one, and the terminal keeps
/// the rest.
const KEYS_MAX: usize = 256;

/// Largest number of waiting stops; those after them say nothing else.
const JOBS_MAX: usize = 4;

/// True if there is a terminal that understands control sequences. `TERM=dumb`, as editors and
/// consoles of build servers set it, means that it does not; without `TERM` it is unknown.
pub(in crate::cli) fn is_capable() -> bool {
    let term = std::env::var_os("TERM").unwrap_or_default();
    !term.is_empty() && term != "dumb" && stdin().is_terminal() && stdout().is_terminal()
}

/// A stop or a continuation of the process by a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Job {
    /// The process is asked to stop for a while.
    Stop,
    /// The process goes on, after a stop that it may not have been asked for.
    Continued,
}

/// True if this process has taken the terminal over.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, as long as it is taken over.
pub(in crate::cli) struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    /// Takes the terminal over; also if the process panics it is given back.
    ///
    /// # Errors
    /// Fails if it is no terminal, or refuses.
    pub(in crate::cli) fn take() -> io::Result<Self> {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            default_hook(panic);
        }));
        let taken =
            take_over().and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(stdout())));
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
    /// Fails if the terminal has gone.
    pub(in crate::cli) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.inner.draw(picture).map(|_| ())
    }

    /// Lets the next picture be drawn as a whole.
    ///
    /// # Errors
    /// Fails if the terminal has gone.
    pub(in crate::cli) fn forget(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where its cursor is: the answer comes by the way of
        // the keys, and would not arrive before the next key.
        let size = self.inner.size()?;
        self.inner.resize(Rect::new(0, 0, size.width, size.height))
    }
}

impl Terminal {
    /// Gives the terminal back and stops the process; takes the terminal again when the process
    /// goes on. Does nothing if no shell could make it go on.
    ///
    /// # Errors
    /// Fails if the terminal has gone.
    pub(in crate::cli) fn stop(&mut self) -> io::Result<()> {
        // The first process of a session has no shell above it: it would stand still for ever.
        if getsid(None) == Ok(Pid::this()) {
            return Ok(());
        }
        give_back();
        emulate_default_handler(SIGTSTP)?;
        self.take_again()
    }

    /// Takes the terminal over again, in any state that a shell has left it in, and lets the next
    /// picture be drawn as a whole.
    ///
    /// # Errors
    /// Fails if the terminal has gone.
    pub(in crate::cli) fn take_again(&mut self) -> io::Result<()> {
        // The modes that were found at the start, so that these are also left behind at the end.
        disable_raw_mode()?;
        take_over()?;
        self.forget()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)
}

/// Leaves the terminal as it was found; does nothing if it was not taken over.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

/// Channel of the stops and continuations by a shell. The thread ends with the process.
///
/// # Errors
/// Fails if the system takes no handler or has no room for a thread.
pub(in crate::cli) fn jobs() -> io::Result<Receiver<Job>> {
    signals::unblock(&[SIGTSTP, SIGCONT])?;
    let mut signals = Signals::new([SIGTSTP, SIGCONT])?;
    let (tell, jobs) = bounded(JOBS_MAX);
    thread::spawn("jobs", move || {
        for signal in signals.forever() {
            let job = if signal == SIGTSTP { Job::Stop } else { Job::Continued };
            if tell.send(job).is_err() {
                return;
            }
        }
    })?;
    Ok(jobs)
}

/// Channel of the terminal's events; it ends with the terminal. The thread that waits for keys ends
/// with the process.
///
/// # Errors
/// Fails if there is no room for a thread.
pub(in crate::cli) fn keys() -> io::Result<Receiver<Event>> {
    let (tell, events) = bounded(KEYS_MAX);
    thread::spawn("keys", move || {
        while let Ok(event) = event::read() {
            if tell.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}
