//! Servers of the versions of a node: those of its flags, and the changes since, which are kept on
//! disk.
//!
//! Invariants: a change stands until the flag of its version is another one than when it was made;
//! a change that all nodes agreed on is carried out once, however often the machine says it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::machine::rollout::server_digest;
use crate::network::error::StartError;
use crate::proto::rollout::{ModelId, ServerChanges};
use crate::runtime::dataplane::Servers;
use crate::runtime::files::replace_file;

/// Servers of a node's versions.
#[derive(Debug)]
pub struct ServedVersions {
    file: PathBuf,
    /// Servers that the flags name, as text.
    flags: BTreeMap<ModelId, String>,
    current: Mutex<Current>,
    /// Held while the file is written, so that the newest content is the last one.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Current {
    servers: BTreeMap<ModelId, Servers>,
    kept: Kept,
}

/// Content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Version of the last change that all nodes agreed on and this node has carried out.
    agreed: u64,
    changes: BTreeMap<ModelId, KeptChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptChange {
    /// Server that the flag named when the change was made.
    flag: Option<String>,
    /// Server since; `None`: no server any more.
    server: Option<String>,
}

impl ServedVersions {
    /// Reads the changes that are kept, on top of the servers of the flags.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or is damaged.
    pub(super) fn open(
        file: PathBuf,
        mut servers: BTreeMap<ModelId, Servers>,
    ) -> Result<Self, StartError> {
        let damaged = |why: String| {
            StartError::Setting(format!(
                "{}: {why}; move it away, and name the servers again: peer rollout serve",
                file.display()
            ))
        };
        let mut kept = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .map_err(|error| damaged(error.to_string()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(StartError::System(error)),
        };
        let flags: BTreeMap<ModelId, String> =
            servers.iter().map(|(model, it)| (model.clone(), it.to_string())).collect();
        kept.changes.retain(|model, change| change.flag.as_ref() == flags.get(model));
        for (model, change) in &kept.changes {
            match &change.server {
                Some(text) => {
                    let server = text.parse().map_err(|why: &str| damaged(why.to_owned()))?;
                    servers.insert(model.clone(), server);
                }
                None => {
                    servers.remove(model);
                }
            }
        }
        let current = Mutex::new(Current { servers, kept });
        Ok(Self { file, flags, current, writing: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("nothing under this lock can panic")
    }

    /// Servers of all versions; empty if this node answers with the built-in model.
    pub fn servers(&self) -> BTreeMap<ModelId, Servers> {
        self.lock().servers.clone()
    }

    /// Version of the last agreed change that is among the servers.
    pub(super) fn agreed(&self) -> u64 {
        self.lock().kept.agreed
    }

    /// Digests of the servers' addresses, as the machine takes them.
    pub(super) fn digests(&self) -> Option<BTreeMap<ModelId, String>> {
        let servers = self.servers();
        let digest = |it: &Servers| server_digest(&it.to_string());
        let told = servers.iter().map(|(model, it)| (model.clone(), digest(it)));
        (!servers.is_empty()).then(|| told.collect())
    }

    /// Takes changes; [`Self::save`] keeps them. `agreed` is the version of those that all nodes
    /// agreed on. Returns false if they are among the servers already.
    pub(super) fn change(
        &self,
        changes: &BTreeMap<ModelId, Option<Servers>>,
        agreed: Option<u64>,
    ) -> bool {
        let mut current = self.lock();
        let Current { servers, kept } = &mut *current;
        if agreed.is_some_and(|it| it <= kept.agreed) {
            return false;
        }
        kept.agreed = agreed.unwrap_or(kept.agreed);
        for (model, server) in changes {
            let (flag, server_text) =
                (self.flags.get(model).cloned(), server.as_ref().map(ToString::to_string));
            match server {
                Some(server) => servers.insert(model.clone(), server.clone()),
                None => servers.remove(model),
            };
            if flag == server_text {
                kept.changes.remove(model);
            } else {
                kept.changes.insert(model.clone(), KeptChange { flag, server: server_text });
            }
        }
        true
    }

    /// Writes the changes to disk.
    ///
    /// # Errors
    /// Fails if the disk refuses.
    pub(super) fn save(&self) -> io::Result<()> {
        let _writing = self.writing.lock().expect("nothing under this lock can panic");
        let kept = self.lock().kept.clone();
        let text = serde_json::to_string_pretty(&kept).map_err(io::Error::other)?;
        replace_file(&self.file, text.as_bytes())
    }
}

/// Parses the addresses of changes.
///
/// # Errors
/// Fails if one is none; the text says what one is like.
pub(super) fn parsed(
    changes: &ServerChanges,
) -> Result<BTreeMap<ModelId, Option<Servers>>, String> {
    let parse = |text: &String| text.parse::<Servers>().map_err(|why| format!("{text}: {why}"));
    let change = |(model, text): (&ModelId, &Option<String>)| {
        Ok((model.clone(), text.as_ref().map(parse).transpose()?))
    };
    changes.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(all: &[(&str, &str)]) -> BTreeMap<ModelId, Servers> {
        all.iter().map(|(model, url)| (model.parse().unwrap(), url.parse().unwrap())).collect()
    }

    fn change(model: &str, url: Option<&str>) -> BTreeMap<ModelId, Option<Servers>> {
        [(model.parse().unwrap(), url.map(|it| it.parse().unwrap()))].into()
    }

    #[test]
    fn changes_outlive_a_restart_until_the_flag_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            |flags| ServedVersions::open(dir.path().join("servers.json"), servers(flags)).unwrap();
        let flags = [("v1", "http://a:1"), ("v2", "http://a:2")];
        let versions = open(&flags);
        versions.change(&change("v3", Some("http://a:3")), None);
        versions.change(&change("v2", None), None);
        versions.change(&change("v1", Some("http://b:1")), None);
        versions.save().unwrap();
        let now = servers(&[("v1", "http://b:1"), ("v3", "http://a:3")]);
        assert_eq!((versions.servers(), open(&flags).servers()), (now.clone(), now));
        // Another flag goes before what was said at run time; the rest stands.
        let other = [("v1", "http://a:1"), ("v2", "http://c:2")];
        let all = [("v1", "http://b:1"), ("v2", "http://c:2"), ("v3", "http://a:3")];
        assert_eq!(open(&other).servers(), servers(&all));
        // What is as the flag says is no change.
        versions.change(&change("v1", Some("http://a:1")), None);
        versions.save().unwrap();
        let moved = [("v1", "http://d:1"), ("v2", "http://a:2")];
        assert_eq!(open(&moved).servers(), servers(&[("v1", "http://d:1"), ("v3", "http://a:3")]));
    }

    #[test]
    fn what_was_agreed_on_is_carried_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("servers.json");
        let versions =
            ServedVersions::open(file.clone(), servers(&[("v1", "http://a:1")])).unwrap();
        assert!(versions.change(&change("v2", Some("http://a:2")), Some(7)));
        versions.save().unwrap();
        let again = ServedVersions::open(file, servers(&[("v1", "http://a:1")])).unwrap();
        assert_eq!(again.agreed(), 7);
        // The node's own change since then stands, though the machine says the other one again.
        assert!(again.change(&change("v2", Some("http://b:2")), None));
        assert!(!again.change(&change("v2", Some("http://a:2")), Some(7)));
        let v2 = "v2".parse::<ModelId>().unwrap();
        assert_eq!(again.servers()[&v2].to_string(), "http://b:2");
        assert!(again.change(&change("v2", None), Some(9)));
        assert_eq!(again.digests().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_told_and_none_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("servers.json");
        let versions = ServedVersions::open(file.clone(), BTreeMap::new()).unwrap();
        assert!(versions.digests().is_none(), "it echoes");
        std::fs::write(&file, "{").unwrap();
        let error = ServedVersions::open(file, BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("servers.json") && error.contains("peer rollout serve"), "{error}");
    }
}
