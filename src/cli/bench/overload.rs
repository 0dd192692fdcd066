//! Overload of the machine: busy loops beside the fleet.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::cli::CliError;
use crate::runtime::thread;

/// Busy loops, until dropped.
pub(super) struct Overload {
    is_over: Arc<AtomicBool>,
    loops: Vec<JoinHandle<()>>,
}

impl Overload {
    /// Starts as many busy loops as this machine has cores.
    pub(super) fn start() -> Result<Self, CliError> {
        let mut overload = Self { is_over: Arc::default(), loops: Vec::new() };
        for number in 0..super::figure::cores() {
            let is_over = Arc::clone(&overload.is_over);
            let spin = move || {
                while !is_over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            };
            let started = thread::spawn(format!("busy:{number}"), spin);
            let failed = |source| CliError::System { action: "start a busy loop", source };
            overload.loops.push(started.map_err(failed)?);
        }
        Ok(overload)
    }

    /// Number of busy loops.
    pub(super) const fn count(&self) -> usize {
        self.loops.len()
    }
}

impl Drop for Overload {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for busy in self.loops.drain(..) {
            // A loop that counts nothing cannot fail.
            let _ = busy.join();
        }
    }
}
