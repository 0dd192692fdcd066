//! Figures of this process, as the kernel gives them.

use std::fs;

use serde::Serialize;

/// The process at one moment; figures that the system does not give are left out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Process {
    /// Processor time, user and system, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Number of threads.
    pub threads: Option<u64>,
    /// Number of open file descriptors, including the one of this look.
    pub open_fds: Option<u64>,
}

impl Process {
    /// Reads the figures of the own process.
    pub fn look() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in brackets may hold blanks; the fields are counted from behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let fds = fs::read_dir("/proc/self/fd").ok();
        Self {
            // Hundredths of a second, on every architecture that Linux runs on here.
            cpu_ms: ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) * 10),
            resident_bytes: number("VmRSS:").map(|kib| kib * 1024),
            threads: number("Threads:"),
            open_fds: fds.map(|fds| fds.count() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::look();
        assert!(process.resident_bytes > Some(100_000), "{process:?}");
        assert!(process.threads >= Some(1) && process.open_fds >= Some(3), "{process:?}");
        assert!(process.cpu_ms.is_some());
    }
}
