//! Signals. Ctrl-C, SIGTERM, the closing of the terminal and, for nodes that a program has started,
//! the end of standard input ask for an orderly end; a second signal ends the process at once.
//! SIGHUP without the end of a terminal makes the process read the cluster keys and the data
//! plane's certificate again, as daemons do.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Select, bounded};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::runtime::{cluster_key, dataplane, thread};

/// Signals that end a node, with their names.
const ENDING: [(i32, &str); 2] = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM")];

/// Exit status after a second signal, as shells report an interrupted program.
const INTERRUPTED: i32 = 130;

/// True if a channel has a message or has ended; nothing is taken from it.
pub(in crate::cli) fn is_told<T>(channel: &Receiver<T>) -> bool {
    let mut select = Select::new();
    select.recv(channel);
    select.try_ready().is_ok()
}

/// Starts to listen; the name of the first reason to end comes through the channel. With
/// `until_stdin_closes`, the end of standard input is one.
///
/// # Errors
/// Fails if the system takes no handler or has no room for a thread.
pub(in crate::cli) fn listen(until_stdin_closes: bool) -> io::Result<Receiver<&'static str>> {
    unblock(&[SIGINT, SIGTERM, SIGHUP])?;
    let is_ending = Arc::new(AtomicBool::new(false));
    for (signal, _) in ENDING {
        // In this order: the first signal finds the flag down and raises it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&is_ending))?;
        flag::register(signal, Arc::clone(&is_ending))?;
    }
    let mut signals = Signals::new(ENDING.map(|(signal, _)| signal))?;
    // A process that was started with `nohup` is not to get it.
    if !ignores(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    let had_terminal = has_terminal();
    let (tell, told) = bounded(1);
    if until_stdin_closes {
        let tell = tell.clone();
        thread::spawn("stdin", move || {
            // The input is of no interest, only its end.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = tell.try_send("the end of standard input");
        })?;
    }
    thread::spawn("signals", move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                if had_terminal && !has_terminal() {
                    let _ = tell.try_send("the closing of its terminal");
                } else {
                    read_again();
                }
                continue;
            }
            let name = ENDING.iter().find(|(it, _)| *it == signal).map_or("", |(_, name)| *name);
            // A full channel holds a signal already.
            let _ = tell.try_send(name);
        }
    })?;
    Ok(told)
}

/// Lets the calling thread, and the threads that it starts from now on, receive `signals`. A
/// process inherits the set of blocked signals from the program that starts it.
///
/// # Errors
/// Fails if the system knows no such signal.
pub(in crate::cli) fn unblock(signals: &[i32]) -> io::Result<()> {
    let signals = signals.iter().map(|&it| Signal::try_from(it)).collect::<Result<SigSet, _>>()?;
    Ok(signals.thread_unblock()?)
}

/// True while this process has a controlling terminal.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// True if the signal is ignored by this process; false if the system does not tell.
fn ignores(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn read_again() {
    let keys = cluster_key::read_again();
    let planes = dataplane::read_files_again();
    if let (Ok(0), Ok(0)) = (&keys, &planes) {
        ::log::info!("SIGHUP: there is nothing to read again");
    }
    match keys {
        Ok(0) => {}
        Ok(_) => ::log::info!("SIGHUP: the cluster key was read again; new connections use it"),
        Err(error) => ::log::warn!("SIGHUP: the cluster key stays as it was: {error}"),
    }
    match planes {
        Ok(0) => {}
        Ok(_) => ::log::info!(
            "SIGHUP: the data plane's certificate was read again, and its access log opened anew"
        ),
        Err(error) => ::log::warn!("SIGHUP: the data plane's certificate stays: {error}"),
    }
}
