//! Processor time and memory of a process, and load of the machine, as the kernel gives them.

use std::collections::BTreeMap;
use std::ffi::OsString;
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

/// Memory of a process in MiB, and its threads.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Memory {
    /// All pages that are mapped; most are program text. Newer kernels map it whole.
    pub(in crate::cli) resident: f64,
    /// Resident pages, each divided by the number of processes that have it.
    pub(in crate::cli) proportional: f64,
    /// Pages that belong to no file: heap, stacks, and what was relocated at the start.
    pub(in crate::cli) private: f64,
    /// Number of threads.
    pub(in crate::cli) threads: f64,
}

/// Memory of a process; `None` if it is gone.
pub(in crate::cli) fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let mib = |text: &str, name: &str| Some(number(text, name)? / 1024.0);
    Some(Memory {
        resident: mib(&status, "VmRSS:")?,
        proportional: mib(&rollup, "Pss:").unwrap_or(0.0),
        private: mib(&rollup, "Anonymous:").unwrap_or(0.0),
        threads: number(&status, "Threads:")?,
    })
}

/// A process and all that it has started, directly or not, and that have not ended.
pub(in crate::cli) fn tree(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<u32> = entries.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect();
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let pairs: Vec<_> = all.into_iter().filter_map(|it| Some((it, parent(it)?))).collect();
    let mut tree = vec![pid];
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        tree.extend(pairs.iter().filter(|(_, by)| *by == parent).map(|(it, _)| *it));
        at += 1;
    }
    tree
}

/// The number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Number of times that each thread of a process has waited, and so was or will be woken.
pub(super) fn waits(pid: u32) -> BTreeMap<OsString, f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            Some((task.file_name(), number(&status, "voluntary_ctxt_switches:")?))
        })
        .collect()
}

/// Largest resident memory of this process so far, in MiB.
pub(in crate::cli) fn own_peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(number(&status, "VmHWM:")? / 1024.0)
}

/// Number of threads that ran or wanted to, on average over the last minute.
pub(super) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
