//! What asks a node to end: Ctrl-C, SIGTERM and, for nodes that a program has started, the end of
//! standard input. The first asks for an orderly end; a second signal ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::runtime::thread;

/// The signals that end a node, with their names.
const ENDING: [(i32, &str); 2] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM")];

/// The exit status after a second signal, as shells report an interrupted program.
const INTERRUPTED: i32 = 130;

/// Starts to listen; the name of the first reason to end comes through the channel. With
/// `until_stdin_closes`, the end of standard input is one.
///
/// # Errors
/// When the system takes no handler or has no room for a thread.
pub(in crate::cli) fn listen(until_stdin_closes: bool) -> io::Result<Receiver<&'static str>> {
    let is_ending = Arc::new(AtomicBool::new(false));
    for (signal, _) in ENDING {
        // In this order: the first signal finds the flag down and raises it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&is_ending))?;
        flag::register(signal, Arc::clone(&is_ending))?;
    }
    let mut signals = Signals::new(ENDING.map(|(signal, _)| signal))?;
    let (tell, told) = bounded(1);
    if until_stdin_closes {
        let tell = tell.clone();
        thread::spawn("stdin", move || {
            // What comes is of no interest, only that nothing can come any more.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = tell.try_send("the end of standard input");
        })?;
    }
    thread::spawn("signals", move || {
        for signal in signals.forever() {
            let name = ENDING.iter().find(|(it, _)| *it == signal).map_or("", |(_, name)| *name);
            // A full channel holds a signal already.
            let _ = tell.try_send(name);
        }
    })?;
    Ok(told)
}
