//! Processor time and memory of a process, and load of the machine, as the kernel gives them.

use std::fs;

/// Seconds of processor time that a process has used, user and system.
///
/// `None` if the process is gone. The kernel counts in hundredths of a second (`USER_HZ` is 100 on
/// every architecture that Linux runs on here).
pub(in crate::cli) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold blanks; the fields are counted from behind it.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// Resident and proportional memory in MiB, and the number of threads.
pub(in crate::cli) fn memory(pid: u32) -> Option<(f64, f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let resident = kib(&status, "VmRSS:")? / 1024.0;
    let proportional = kib(&rollup, "Pss:").unwrap_or(0.0) / 1024.0;
    Some((resident, proportional, kib(&status, "Threads:")?))
}

/// Largest resident memory of this process so far, in MiB.
pub(in crate::cli) fn own_peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// Number of threads that ran or wanted to, on average over the last minute.
pub(super) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
