//! Swarms in which this user's processes on this machine take part: each process answers at a
//! socket of its own in one directory that only this user can reach.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::runtime::control::{self, Control, ControlAnswer};

/// Time-out of a process's answer; a busy machine answers late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The only question.
const QUESTION: &str = "swarms";

/// Directory of the sockets: in the user's runtime directory, or a private one among the temporary
/// files.
fn directory() -> PathBuf {
    let own = rustix::process::getuid().as_raw();
    let root = env::var_os("XDG_RUNTIME_DIR").filter(|it| Path::new(it).is_dir());
    root.map_or_else(env::temp_dir, PathBuf::from).join(format!("folkmoot-{own}"))
}

/// Refuses a directory that another user made or may write to.
fn check(dir: &Path) -> io::Result<()> {
    let facts = fs::symlink_metadata(dir)?;
    let is_own = facts.uid() == rustix::process::getuid().as_raw();
    if facts.is_dir() && is_own && facts.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = format!("{} is not a private directory of this user; remove it", dir.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Answers with the JSON objects of `tell`, one for each swarm, until it is dropped.
///
/// # Errors
/// Fails if the directory or the socket cannot be made.
pub(in crate::cli) fn announce(
    tell: impl Fn() -> Vec<Value> + Send + Sync + 'static,
) -> io::Result<Control> {
    announce_in(&directory(), tell)
}

fn announce_in(
    dir: &Path,
    tell: impl Fn() -> Vec<Value> + Send + Sync + 'static,
) -> io::Result<Control> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => check(dir)?,
    }
    let pid = std::process::id();
    let handler = move |question: &str| {
        let answer = if question == QUESTION { Value::Array(tell()) } else { Value::Null };
        ControlAnswer::Line(answer.to_string())
    };
    control::serve_at(dir.join(format!("{pid}.sock")), Arc::new(handler))
}

/// Answers of all of this user's processes on this machine about their swarms, each with the
/// process's `pid`. Sockets of ended processes are removed.
///
/// # Errors
/// Fails if the directory is not to be trusted.
pub(in crate::cli) fn ask_all() -> io::Result<Vec<Value>> {
    ask_in(&directory())
}

fn ask_in(dir: &Path) -> io::Result<Vec<Value>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    check(dir)?;
    let mut pids: Vec<u32> = entries
        .filter_map(|it| it.ok()?.file_name().to_str()?.strip_suffix(".sock")?.parse().ok())
        .collect();
    pids.sort_unstable();
    let mut all = Vec::new();
    for pid in pids {
        let path = dir.join(format!("{pid}.sock"));
        match control::ask(&path, QUESTION, ANSWER_TIMEOUT) {
            Ok(answer) => {
                let Ok(Value::Array(swarms)) = serde_json::from_str(&answer) else { continue };
                for mut swarm in swarms {
                    if let Value::Object(fields) = &mut swarm {
                        fields.insert("pid".to_owned(), pid.into());
                    }
                    all.push(swarm);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Left by a process that was killed.
                let _ = fs::remove_file(&path);
            }
            // The process ends just now, or is too busy: others may answer.
            Err(_) => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn who_runs_is_found_and_who_was_killed_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        assert_eq!(ask_in(&dir).unwrap(), Vec::<Value>::new());
        let control = announce_in(&dir, || vec![json!({ "name": "a" })]).unwrap();
        let stale = dir.join("1.sock");
        drop(UnixListener::bind(&stale).unwrap());
        let pid = std::process::id();
        assert_eq!(ask_in(&dir).unwrap(), [json!({ "name": "a", "pid": pid })]);
        assert!(!stale.exists());
        drop(control);
        assert_eq!(ask_in(&dir).unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn a_directory_that_others_can_reach_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        drop(announce_in(&dir, Vec::new).unwrap());
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(announce_in(&dir, Vec::new).is_err());
        assert!(ask_in(&dir).unwrap_err().to_string().contains("remove it"));
    }
}
